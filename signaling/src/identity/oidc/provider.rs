//! One issuer as it is asked: its metadata (OpenID Connect Discovery 1.0, RFC 8414), its keys (RFC 7517) and its token endpoint (RFC 6749).
//!
//! Every call is bounded in time and in size, and no redirect is followed: what an issuer says is never the reason to ask somebody else
//! than it named in its metadata. Metadata and keys are kept for an hour. A key that is not known makes the keys be asked for anew, once in
//! [`KEYS_EVERY_US`] at most, and an issuer that failed is not asked again for [`FAILED_US`], whoever knocks.

use super::config::{IssuerConfig, safe_url};
use crate::outgoing;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::{RequestBuilder, StatusCode, Url};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use trocar_proto::units::Micros;

/// One call, from the connection to the end of the answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest answer that is read.
const ANSWER_BYTES: usize = 64 * 1024;
/// How long metadata and keys are taken for what they are.
const KEPT_US: u64 = 3_600_000_000;
/// Between two fetches of keys.
const KEYS_EVERY_US: u64 = 10_000_000;
/// How long an issuer that failed is left alone.
const FAILED_US: u64 = 5_000_000;
/// Keys of one issuer that are looked at.
const MAX_KEYS: usize = 64;
/// Longest ID token that is looked at, in bytes.
const MAX_ID_TOKEN: usize = 16 * 1024;

/// Why an issuer's word cannot be had, or cannot be taken. The texts are for the audit chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It does not answer, or not in a way that is understood.
    #[error("{0}")]
    Unavailable(String),
    /// What it said is not to be believed.
    #[error("{0}")]
    Refused(String),
}

/// What an issuer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    pub(super) authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    /// Whether answers to the browser say whose they are (RFC 9207).
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// One issuer, and what is known of it.
pub(super) struct Provider {
    pub(super) config: IssuerConfig,
    http: reqwest::Client,
    // Held while it is asked, so that many who wait are one question.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    metadata: Option<(Micros, Arc<Metadata>)>,
    failed: Option<(Micros, Trouble)>,
    keys: Option<(Micros, Vec<Jwk>)>,
    keys_asked: Option<Micros>,
}

#[derive(Deserialize)]
struct Granted {
    id_token: String,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Failed {
    error: String,
}

impl Provider {
    /// Nothing is asked yet: a node starts without its issuers. None where the authorities cannot be read.
    pub(super) fn new(config: IssuerConfig) -> Option<Self> {
        let http = client(&config)?;
        Some(Self { config, http, known: Mutex::new(Known::default()) })
    }

    /// What it says of itself.
    pub(super) async fn metadata(&self, now: Micros) -> Result<Arc<Metadata>, Trouble> {
        let mut known = self.known.lock().await;
        if let Some((at, metadata)) = &known.metadata
            && now.since(*at) < KEPT_US
        {
            return Ok(Arc::clone(metadata));
        }
        if let Some((at, trouble)) = &known.failed
            && now.since(*at) < FAILED_US
        {
            return Err(trouble.clone());
        }
        match self.discover().await {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                known.metadata = Some((now, Arc::clone(&metadata)));
                known.failed = None;
                Ok(metadata)
            }
            Err(trouble) => {
                known.failed = Some((now, trouble.clone()));
                Err(trouble)
            }
        }
    }

    async fn discover(&self) -> Result<Metadata, Trouble> {
        let base = self.config.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let metadata: Metadata = self.ask(self.http.get(url), "metadata").await?;
        if metadata.issuer != self.config.issuer {
            return Err(Trouble::Refused("its metadata names another issuer".to_owned()));
        }
        for endpoint in [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri] {
            if safe_url(endpoint).is_none_or(|url| url.fragment().is_some() || self.goes_down(&url)) {
                return Err(Trouble::Refused("its metadata names an address without TLS".to_owned()));
            }
        }
        let challenges = metadata.code_challenge_methods_supported.as_ref();
        if challenges.is_some_and(|methods| !methods.iter().any(|m| m == "S256")) {
            return Err(Trouble::Refused("it does not take PKCE with S256".to_owned()));
        }
        Ok(metadata)
    }

    /// An issuer under TLS names nothing without it, not even on this machine.
    fn goes_down(&self, url: &Url) -> bool {
        self.config.issuer.starts_with("https:") && url.scheme() != "https"
    }

    /// Redeems a code; the claims of the ID token, whose signature is right. Nothing else of them has been looked at.
    pub(super) async fn redeem(
        &self,
        now: Micros,
        code: &str,
        verifier: &str,
        redirect: &str,
    ) -> Result<Map<String, Value>, Trouble> {
        let metadata = self.metadata(now).await?;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
            ("client_id", &self.config.client_id),
        ];
        let mut request = self.http.post(&metadata.token_endpoint);
        if let Some(secret) = &self.config.client_secret {
            // RFC 6749 section 2.3.1: by header, which is also what is meant where the metadata does not say.
            let methods = metadata.token_endpoint_auth_methods_supported.as_deref();
            let by_header = methods.is_none_or(|methods| methods.iter().any(|m| m == "client_secret_basic"));
            if by_header {
                request = request.basic_auth(escaped(&self.config.client_id), Some(escaped(secret.expose())));
            } else {
                fields.push(("client_secret", secret.expose()));
            }
        }
        let body = form(&fields);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        let granted: Granted = self.ask(request, "token").await?;
        self.verify(now, &metadata, &granted.id_token).await
    }

    /// The claims of a token that this issuer has signed.
    async fn verify(&self, now: Micros, metadata: &Metadata, token: &str) -> Result<Map<String, Value>, Trouble> {
        let refused = |why: &str| Trouble::Refused(why.to_owned());
        if token.len() > MAX_ID_TOKEN {
            return Err(refused("the ID token is too long"));
        }
        // A header with alg none, or one that is unknown, is not read at all.
        let header =
            jsonwebtoken::decode_header(token).map_err(|_| refused("the ID token's header is not understood"))?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 | Algorithm::EdDSA) {
            return Err(refused("the ID token is signed in a way that is not taken"));
        }
        if header.crit.is_some() {
            return Err(refused("the ID token's header asks for more than is understood"));
        }
        let key = self.key(now, metadata, header.kid.as_deref(), header.alg).await?;
        let key = DecodingKey::from_jwk(&key).map_err(|_| refused("the issuer's key cannot be used"))?;
        let mut validation = Validation::new(header.alg);
        // All claims are looked at elsewhere, each with a reason of its own.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let data = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        data.map(|d| d.claims).map_err(|_| refused("the ID token's signature is wrong"))
    }

    /// The key that a token is signed with.
    async fn key(&self, now: Micros, metadata: &Metadata, kid: Option<&str>, alg: Algorithm) -> Result<Jwk, Trouble> {
        let mut known = self.known.lock().await;
        if let Some((at, keys)) = &known.keys
            && now.since(*at) < KEPT_US
            && let Some(key) = find(keys, kid, alg)
        {
            return Ok(key);
        }
        let unknown = || Trouble::Refused("the ID token is signed with a key that the issuer does not have".to_owned());
        if known.keys_asked.is_some_and(|asked| now.since(asked) < KEYS_EVERY_US) {
            return Err(unknown());
        }
        known.keys_asked = Some(now);
        let fetched: Keys = self.ask(self.http.get(&metadata.jwks_uri), "keys").await?;
        // A key of a kind that is not known here is no reason to do without the others.
        let keys: Vec<Jwk> =
            fetched.keys.into_iter().take(MAX_KEYS).filter_map(|k| serde_json::from_value(k).ok()).collect();
        let found = find(&keys, kid, alg).ok_or_else(unknown);
        known.keys = Some((now, keys));
        found
    }

    /// Asks, and reads a JSON answer. `what` is for the audit chain, which gets no address and no text of the answer but `error`.
    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder, what: &str) -> Result<T, Trouble> {
        let unavailable = |why: &str| Trouble::Unavailable(format!("{what}: {why}"));
        let sent = request.header("accept", "application/json").send().await;
        let mut response = sent.map_err(|e| unavailable(&cause(&e)))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| unavailable(&cause(&e)))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES {
                return Err(unavailable("the answer is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status == StatusCode::OK {
            return serde_json::from_slice(&bytes).map_err(|_| unavailable("the answer is not understood"));
        }
        match serde_json::from_slice::<Failed>(&bytes) {
            Ok(failed) if status.is_client_error() => {
                Err(Trouble::Refused(format!("{what}: {}", crate::name::clean(&failed.error, 40))))
            }
            _ => Err(unavailable(&format!("HTTP {}", status.as_u16()))),
        }
    }
}

/// The key of that name that fits the algorithm; without a name the only one that does.
fn find(keys: &[Jwk], kid: Option<&str>, alg: Algorithm) -> Option<Jwk> {
    let mut fitting = keys.iter().filter(|key| {
        let common = &key.common;
        let is_named = kid.is_none() || common.key_id.as_deref() == kid;
        let signs = common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
        let is_for = common.key_algorithm.is_none_or(|a| a.to_string().parse::<Algorithm>().is_ok_and(|a| a == alg));
        is_named && signs && is_for && is_of_kind(key, alg)
    });
    let first = fitting.next()?;
    (kid.is_some() || fitting.next().is_none()).then(|| first.clone())
}

fn is_of_kind(key: &Jwk, alg: Algorithm) -> bool {
    match &key.algorithm {
        AlgorithmParameters::RSA(_) => matches!(alg, Algorithm::RS256 | Algorithm::PS256),
        AlgorithmParameters::EllipticCurve(p) => alg == Algorithm::ES256 && p.curve == EllipticCurve::P256,
        AlgorithmParameters::OctetKeyPair(p) => alg == Algorithm::EdDSA && p.curve == EllipticCurve::Ed25519,
        // A secret that was published signs nothing.
        _ => false,
    }
}

/// A client that trusts the issuer's authorities: those that are named, or the system's. One without TLS needs none.
fn client(config: &IssuerConfig) -> Option<reqwest::Client> {
    let authorities = match &config.ca_pem {
        None if config.issuer.starts_with("https:") => None,
        given => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(given.as_deref().unwrap_or_default()) {
                roots.add(certificate.ok()?).ok()?;
            }
            if given.is_some() && roots.is_empty() {
                return None;
            }
            Some(roots)
        }
    };
    outgoing::client(authorities, CALL_TIMEOUT)
}

/// `application/x-www-form-urlencoded`.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("form:") else { return String::new() };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

fn escaped(text: &str) -> String {
    form(&[("", text)]).trim_start_matches('=').to_owned()
}

/// The innermost cause: what happened, without the address.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    crate::name::clean(&innermost.to_string(), 80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form(&[("a", "b c&d=e"), ("x", "ä+")]), "a=b+c%26d%3De&x=%C3%A4%2B");
        assert_eq!(escaped("a:b=c"), "a%3Ab%3Dc");
        assert_eq!(escaped("=x"), "%3Dx");
    }

    #[test]
    fn a_key_is_found_by_its_name_and_kind_and_never_by_one_of_them_alone() {
        let rsa = |extra: Value| {
            let mut key = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
            key.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value::<Jwk>(key).unwrap()
        };
        let one = [rsa(json!({"kid": "a", "alg": "RS256"}))];
        assert!(find(&one, Some("a"), Algorithm::RS256).is_some());
        assert!(find(&one, None, Algorithm::RS256).is_some());
        assert!(find(&one, Some("b"), Algorithm::RS256).is_none());
        assert!(find(&one, Some("a"), Algorithm::PS256).is_none(), "the key says what it is for");
        assert!(find(&one, Some("a"), Algorithm::ES256).is_none());
        assert!(find(&one, Some("a"), Algorithm::HS256).is_none());
        let for_encryption = [rsa(json!({"kid": "a", "use": "enc"}))];
        assert!(find(&for_encryption, Some("a"), Algorithm::RS256).is_none());
        let two = [rsa(json!({"kid": "a"})), rsa(json!({"kid": "b"}))];
        assert!(find(&two, None, Algorithm::RS256).is_none(), "which of them, nobody knows");
        let p384: Jwk = serde_json::from_value(json!({"kty": "EC", "crv": "P-384", "x": "A", "y": "A"})).unwrap();
        assert!(find(&[p384], None, Algorithm::ES256).is_none());
        let secret: Jwk = serde_json::from_value(json!({"kty": "oct", "k": "AQAB", "kid": "a"})).unwrap();
        assert!(find(&[secret], Some("a"), Algorithm::RS256).is_none());
    }
}
