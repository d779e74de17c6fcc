//! People by OpenID Connect: the authorization code flow with PKCE (RFC 7636), of one or more issuers.
//!
//! No cookie is involved. The tab that begins a login keeps a random value and shows its hash; the login is finished by whoever shows the value
//! itself. So a login that somebody else began cannot be finished in one's tab, nor one's own elsewhere. Each `state` belongs to one issuer and
//! is used up by the first answer, whatever that says; `iss` of the answer (RFC 9207), where there is one, has to be that issuer.
//!
//! Loss policy: [`super::pending`] for logins that were begun; [`ASKING`] logins at a time wait for an issuer, and what is more is told to come again.

mod claims;
mod config;
mod provider;
#[cfg(test)]
mod tests;

pub(super) use config::check_all;
pub use config::{ClientSecret, DEFAULT_AMR, Groups, IssuerConfig, SecondFactor};

use super::pending::{self, Pending};
use super::{Login, LoginError, Person};
use crate::app::{App, wall_clock};
use crate::config::ConfigError;
use crate::name::clean;
use crate::secret::{self, SecretHash};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claims::{Amiss, Expected, Vouched};
use provider::{Metadata, Provider, Trouble};
use reqwest::Url;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use trocar_proto::units::WallMicros;
use zeroize::Zeroizing;

/// Logins that wait for an issuer at a time.
const ASKING: usize = 16;
/// How long finishing one may take, whatever is asked for it.
const FINISH: Duration = Duration::from_secs(9);
/// Longest code that is passed on, in bytes.
const MAX_CODE: usize = 4096;
/// Where the issuer sends the browser back to.
const RETURN_PATH: &str = "/login";

/// All issuers, and the logins that are on their way.
pub(super) struct Issuers {
    providers: Vec<Provider>,
    pending: Mutex<Pending<Outward>>,
    asking: Semaphore,
}

/// A login that was begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Where the browser goes.
    pub(crate) url: String,
    /// Until when it has to be back.
    pub(crate) expires: WallMicros,
}

/// A login that is on its way.
struct Outward {
    /// Which of the issuers it was begun at: an answer of another one does not finish it.
    issuer: usize,
    nonce: String,
    /// The PKCE verifier (RFC 7636), which only this node knows.
    verifier: Zeroizing<String>,
    /// SHA-256 of what only the tab knows that began it.
    tab: [u8; 32],
    step_up: bool,
    since: WallMicros,
}

/// What the browser came back with.
pub(crate) struct Returned {
    pub(crate) state: String,
    pub(crate) code: Option<String>,
    pub(crate) iss: Option<String>,
    pub(crate) error: Option<String>,
    /// What the tab has kept.
    pub(crate) tab: String,
}

/// Why a login came to nothing, for the audit chain.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{0} refused: {1}")]
    Denied(String, String),
    #[error("the answer is not of {0}")]
    MixUp(String),
    #[error("{0}: {1}")]
    Trouble(String, Trouble),
    #[error("{0}: the ID token: {1}")]
    Amiss(String, Amiss),
}

impl Issuers {
    /// An error where the authorities of one cannot be read.
    pub(super) fn new(configs: &[IssuerConfig]) -> Result<Self, ConfigError> {
        let unread = ConfigError {
            field: "identity.issuers.ca_file",
            expected: "PEM certificates; where it is left out, a system with a list of authorities that can be read",
        };
        let providers = configs.iter().cloned().map(Provider::new).collect::<Option<_>>().ok_or(unread)?;
        Ok(Self { providers, pending: Mutex::default(), asking: Semaphore::new(ASKING) })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.providers.iter().map(|p| p.config.name.clone())
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending<Outward>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl App {
    /// Begins a login at an issuer. `tab` is the SHA-256 of what the tab keeps; `step_up` asks the person anew, whatever the issuer remembers.
    pub(crate) async fn begin_login(
        &self,
        peer: IpAddr,
        issuer: &str,
        tab: [u8; 32],
        step_up: bool,
    ) -> Result<Begun, LoginError> {
        let issuers = &self.identity.issuers;
        let found = issuers.providers.iter().enumerate().find(|(_, p)| p.config.name == issuer);
        let (index, provider) = found.ok_or(LoginError::NoIssuer)?;
        let _asks = issuers.asking.try_acquire().map_err(|_| LoginError::Busy)?;
        let metadata = provider.metadata(self.now()).await.map_err(|trouble| {
            tracing::warn!(issuer, %trouble, "an issuer of identities cannot be used");
            LoginError::Unavailable(issuer.to_owned())
        })?;
        let (nonce, verifier) = (secret::login_value()?, Zeroizing::new(secret::login_value()?));
        let pending = Outward { issuer: index, nonce, verifier, tab, step_up, since: wall_clock() };
        let state = secret::login_value()?;
        let url = authorization(provider, &metadata, &self.login_return(), &state, &pending, self.identity.max_age());
        let url = url.ok_or_else(|| LoginError::Unavailable(issuer.to_owned()))?;
        let expires = WallMicros(pending.since.0.saturating_add(pending::LIFE_US));
        if !issuers.pending().add(self.now(), peer, SecretHash::of(&state), pending) {
            return Err(LoginError::Busy);
        }
        Ok(Begun { url, expires })
    }

    /// Finishes a login with what the browser came back with. What came of it is in the audit chain before it is answered.
    pub(crate) async fn finish_login(&self, peer: IpAddr, returned: Returned) -> Result<Login, LoginError> {
        let issuers = &self.identity.issuers;
        let pending = issuers.pending().take(self.now(), &SecretHash::of(&returned.state));
        let of_tab = SecretHash::of(&returned.tab).0;
        let Some(pending) = pending.filter(|p| verify_slices_are_equal(&p.tab, &of_tab).is_ok()) else {
            self.record_denial(
                "login-failed",
                &format!("a login that this tab did not begin, or too late, from {peer}"),
            );
            return Err(LoginError::NotBegun);
        };
        let provider = issuers.providers.get(pending.issuer).ok_or(LoginError::NoIssuer)?;
        let name = provider.config.name.clone();
        let _asks = issuers.asking.try_acquire().map_err(|_| LoginError::Busy)?;
        let asked = tokio::time::timeout(FINISH, self.vouch(provider, &pending, &returned)).await;
        let late = || Why::Trouble(name.clone(), Trouble::Unavailable("it took too long".to_owned()));
        let vouched = match asked.unwrap_or_else(|_| Err(late())) {
            Ok(vouched) => vouched,
            Err(why) => {
                self.record_denial("login-failed", &format!("{why}, from {peer}"));
                return Err(told(name, &why));
            }
        };
        let person = Person {
            // A name of an issuer has no colon, so no two of them make the same of different words; local accounts have none either.
            account: format!("{name}:{}", vouched.account),
            name: vouched.name,
            at: WallMicros(vouched.at.saturating_mul(1_000_000)),
            second_factor: vouched.second_factor,
        };
        let factors = if person.second_factor { "with a second factor" } else { "without a second factor" };
        self.welcome(person, &format!("by {name}, {factors}, {}, from {peer}", vouched.how)).await
    }

    /// What the issuer says of whoever came back.
    async fn vouch(&self, provider: &Provider, pending: &Outward, returned: &Returned) -> Result<Vouched, Why> {
        let name = || provider.config.name.clone();
        let trouble = |trouble| Why::Trouble(name(), trouble);
        let metadata = provider.metadata(self.now()).await.map_err(trouble)?;
        // First of all whose answer it is, for no code of one issuer goes to another.
        match returned.iss.as_deref() {
            Some(iss) if iss != provider.config.issuer => return Err(Why::MixUp(name())),
            None if metadata.authorization_response_iss_parameter_supported => return Err(Why::MixUp(name())),
            _ => {}
        }
        if let Some(error) = &returned.error {
            return Err(Why::Denied(name(), clean(error, 40)));
        }
        let code = returned.code.as_deref().filter(|c| (1..=MAX_CODE).contains(&c.len()));
        let code = code.ok_or_else(|| Why::Denied(name(), "no code".to_owned()))?;
        let redirect = self.login_return();
        let claims = provider.redeem(self.now(), code, &pending.verifier, &redirect).await.map_err(trouble)?;
        let expected = Expected {
            config: &provider.config,
            nonce: &pending.nonce,
            now: wall_clock().0 / 1_000_000,
            begun: pending.since.0 / 1_000_000,
            max_age: self.identity.max_age(),
            step_up: pending.step_up,
        };
        claims::check(&claims, expected).map_err(|amiss| Why::Amiss(name(), amiss))
    }

    /// The redirect URI: one, to the letter.
    fn login_return(&self) -> String {
        format!("{}{RETURN_PATH}", self.public_url)
    }
}

/// What somebody whose login came to nothing is told: what they can do about it, and nothing that was not theirs.
fn told(issuer: String, why: &Why) -> LoginError {
    match why {
        Why::Denied(_, error) => LoginError::Denied(issuer, error.clone()),
        Why::Trouble(_, Trouble::Unavailable(_)) => LoginError::Unavailable(issuer),
        Why::Amiss(_, Amiss::Groups) => LoginError::NoMember(issuer),
        Why::Amiss(_, Amiss::Old) => LoginError::Old(issuer),
        Why::MixUp(_) | Why::Trouble(..) | Why::Amiss(..) => LoginError::NotBelieved(issuer),
    }
}

/// The address that the browser is sent to (OpenID Connect Core 1.0 section 3.1.2.1).
fn authorization(
    provider: &Provider,
    metadata: &Metadata,
    redirect: &str,
    state: &str,
    pending: &Outward,
    max_age: u64,
) -> Option<String> {
    let config = &provider.config;
    let challenge = URL_SAFE_NO_PAD.encode(SecretHash::of(&pending.verifier).0);
    let max_age = if pending.step_up { 0 } else { max_age };
    let mut url = Url::parse(&metadata.authorization_endpoint).ok()?;
    {
        let mut fields = url.query_pairs_mut();
        fields
            .append_pair("response_type", "code")
            .append_pair("client_id", &config.client_id)
            .append_pair("redirect_uri", redirect)
            .append_pair("scope", &config.scopes.join(" "))
            .append_pair("state", state)
            .append_pair("nonce", &pending.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            // It makes the issuer say when it asked the person, too.
            .append_pair("max_age", &max_age.to_string());
        if pending.step_up {
            fields.append_pair("prompt", "login");
        }
        if !config.second_factor.acr.is_empty() {
            fields.append_pair("acr_values", &config.second_factor.acr.join(" "));
        }
    }
    Some(url.into())
}
