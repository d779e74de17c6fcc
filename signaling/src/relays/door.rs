//! A relay in another process: each question is an HTTP request with mutual TLS.

use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trocar_control::trust::{Identity, TrustList, cert_hash, cert_name};
use trocar_proto::session::admission::AdmitError;
use trocar_proto::session::ids::CertHash;

/// Longest wait for a TCP and TLS connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for an answer. Shorter than signaling waits for all relays together: a relay that does not answer must leave
/// time to ask the next.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// An idle connection is kept for so long; the relay keeps it longer.
const IDLE: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes: figures of a thousand legs.
const ANSWER_BYTES: usize = 8 << 20;

/// Where a relay is, and who signaling is there.
#[derive(Debug, Clone)]
pub(super) struct DoorConfig {
    /// `https://HOST:PORT`.
    pub(super) url: String,
    /// Certificate of role `signaling`, PEM, and its key.
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    /// Who is trusted; a `crl.pem` beside it counts.
    pub(super) ca: PathBuf,
}

/// A problem document that carries the relay's own error.
#[derive(serde::Deserialize)]
struct Refused {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    admit_error: Option<AdmitError>,
}

/// The way to one relay.
pub(super) struct Door {
    base: String,
    identity: Identity,
    trust: Mutex<TrustList>,
    client: Mutex<reqwest::Client>,
    /// The certificate of the relay whose events are heard.
    heard: Mutex<Option<CertHash>>,
}

impl Door {
    /// Reads the certificates.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(super) fn new(config: &DoorConfig) -> Result<Self, String> {
        let identity = Identity::from_pem_files(&config.cert, &config.key).map_err(|e| e.to_string())?;
        let role = &identity.name().role;
        if role != "signaling" {
            return Err(format!("{}: role signaling is right, this is {role}", config.cert.display()));
        }
        let trust = TrustList::of_file(&config.ca).map_err(|e| e.to_string())?;
        let client = client(&identity, &trust)?;
        let base = config.url.trim_end_matches('/').to_owned();
        Ok(Self { base, identity, trust: Mutex::new(trust), client: Mutex::new(client), heard: Mutex::default() })
    }

    /// Looks at the trust list again; true where it changed, and connections are to be made anew.
    pub(super) fn renew(&self) -> bool {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        match trust.reload() {
            Ok(false) => false,
            Ok(true) => match client(&self.identity, &trust) {
                Ok(client) => {
                    *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client;
                    true
                }
                Err(error) => {
                    tracing::error!(error, "a relay cannot be asked with the new trust list");
                    false
                }
            },
            Err(error) => {
                tracing::debug!(%error, "the trust list for relays cannot be read; the former one stays in force");
                false
            }
        }
    }

    fn client(&self) -> reqwest::Client {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for something by name.
    ///
    /// # Errors
    /// The relay's own error; [`AdmitError::Unavailable`] where there is no answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, command: &str, body: &impl Serialize) -> Result<T, AdmitError> {
        let url = format!("{}/v1/admission/{command}", self.base);
        let request = self.client().request(Method::POST, url).timeout(ANSWER_TIMEOUT).json(body);
        let unavailable = |error: reqwest::Error| {
            tracing::warn!(command, error = cause(&error), "the relay does not answer");
            AdmitError::Unavailable
        };
        let response = request.send().await.map_err(unavailable)?;
        self.check_is_heard(&response).map_err(|error| {
            tracing::error!(command, error, "another one answers in the relay's place");
            AdmitError::Unavailable
        })?;
        let status = response.status();
        let bytes = read(response).await.map_err(|error| {
            tracing::warn!(command, error, "the relay's answer cannot be read");
            AdmitError::Unavailable
        })?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&bytes).map_err(|error| {
                tracing::error!(command, %error, "the relay's answer is not understood: are both of one version?");
                AdmitError::Unavailable
            });
        }
        let refused: Option<Refused> = serde_json::from_slice(&bytes).ok();
        Err(refused.as_ref().and_then(|r| r.admit_error.clone()).unwrap_or_else(|| {
            let detail = refused.map(|r| r.detail).unwrap_or_default();
            tracing::warn!(command, %status, detail, "the relay refused to be asked");
            AdmitError::Unavailable
        }))
    }

    /// Figures, Prometheus text.
    pub(super) async fn figures(&self) -> Option<String> {
        let request = self.client().get(format!("{}/v1/metrics", self.base)).timeout(ANSWER_TIMEOUT);
        let response = request.send().await.ok()?.error_for_status().ok()?;
        self.check_is_heard(&response).ok()?;
        String::from_utf8(read(response).await.ok()?).ok()
    }

    /// The event stream, and the certificate that the relay showed.
    ///
    /// # Errors
    /// Whether nobody listens there, and why it did not come to a stream.
    pub(super) async fn listen(&self) -> Result<(Response, CertHash), (bool, String)> {
        let response = self.client().get(format!("{}/v1/events", self.base)).send().await;
        let response = response.map_err(|e| (is_refused(&e), cause(&e)))?;
        let status = response.status();
        if status != StatusCode::OK {
            let refused = read(response).await.ok().and_then(|b| serde_json::from_slice::<Refused>(&b).ok());
            return Err((false, format!("{status}: {}", refused.map(|r| r.detail).unwrap_or_default())));
        }
        let hash = relay_of(&response).map_err(|why| (false, why))?;
        *self.heard() = Some(hash);
        Ok((response, hash))
    }

    fn heard(&self) -> MutexGuard<'_, Option<CertHash>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an answer is of a relay, and of the one that is listened to, where one is.
    fn check_is_heard(&self, response: &Response) -> Result<(), String> {
        let hash = relay_of(response)?;
        match *self.heard() {
            Some(heard) if heard != hash => Err("its certificate is not the one of the event stream".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The certificate of the relay that answered; an error where that is no relay.
fn relay_of(response: &Response) -> Result<CertHash, String> {
    let tls = response.extensions().get::<reqwest::tls::TlsInfo>();
    let leaf = tls.and_then(|t| t.peer_certificate()).ok_or("no certificate was shown")?;
    match cert_name(leaf) {
        Some(name) if name.role == "relay" => Ok(cert_hash(leaf)),
        Some(name) => Err(format!("{name} is no relay")),
        None => Err("the certificate has no name trocar://REALM/relay/NAME".to_owned()),
    }
}

fn client(identity: &Identity, trust: &TrustList) -> Result<reqwest::Client, String> {
    let tls = trust.current().host_client_config_for("relay", identity, b"http/1.1").map_err(|e| e.to_string())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .tls_info(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| e.to_string())
}

async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| cause(&e))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES {
            return Err(format!("the answer is longer than {ANSWER_BYTES} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The innermost cause: what happened.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whether the machine said that nobody listens there: the process is gone.
fn is_refused(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = next {
        if e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        next = e.source();
    }
    false
}
