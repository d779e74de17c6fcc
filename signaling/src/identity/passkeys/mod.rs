//! Passkeys of local accounts (WebAuthn Level 2): how one is registered with a link that `trocar admin user` prints, and how it logs in.
//!
//! Whoever is verified by the authenticator (PIN, finger or face) and has it has shown two factors; one that does not verify is refused. A
//! login names no account beforehand: the authenticator knows whose passkeys it has for this node, so nobody learns here who has an account.
//!
//! Loss policy: [`super::pending`], once for logins and once for passkeys that are being registered. Each is taken once.

mod kept;
mod relying;
#[cfg(test)]
mod software;
#[cfg(test)]
mod tests;

pub use kept::ListedPasskey;
pub use relying::NoPasskeys;

use super::accounts::{AccountName, Accounts};
use super::pending::{self, Pending};
use super::rates::LoginRates;
use super::{Login, LoginError, Person};
use crate::app::{App, wall_clock};
use crate::audit::Entry;
use crate::error::SessionError;
use crate::name::{clean, shown};
use crate::secret::{self, SecretHash};
use crate::store::StoreError;
use kept::{Enrolling, Kept, MAX_LABEL, MAX_PASSKEYS};
use relying::Relying;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use trocar_proto::units::{Micros, WallMicros};
use webauthn_rs::Webauthn;
use webauthn_rs::prelude::{
    DiscoverableAuthentication, Passkey, PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, Uuid,
    WebauthnError,
};

/// How long the browser waits for the authenticator: as long as is waited for the browser here.
const TIMEOUT: Duration = Duration::from_micros(pending::LIFE_US);
/// The way to log in, beside `local` and the names of issuers.
pub(super) const WAY: &str = "passkey";
/// What a passkey is called that nobody gave a name.
const UNNAMED: &str = "passkey";

/// What is known of passkeys beside the database.
pub(super) struct Passkeys {
    relying: Result<Relying, NoPasskeys>,
    registering: Mutex<Pending<Registering>>,
    proving: Mutex<Pending<DiscoverableAuthentication>>,
    // Apart from those of passwords: whoever guesses at these keeps nobody with a passkey out.
    rates: Mutex<LoginRates>,
}

/// A passkey that is being registered.
struct Registering {
    link: SecretHash,
    account: AccountName,
    /// How the person is shown.
    name: String,
    state: PasskeyRegistration,
}

/// What the browser is to ask the authenticator.
#[derive(Debug)]
pub(crate) struct Ceremony {
    /// What finishes it.
    pub(crate) ceremony: String,
    /// Until when.
    pub(crate) expires: WallMicros,
    /// `publicKey` of `navigator.credentials.create` and `get` (WebAuthn sections 5.4 and 5.5), bytes as base64url.
    pub(crate) options: Value,
}

/// Whose passkey is registered.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) account: String,
    /// How the person is shown.
    pub(crate) name: String,
}

impl Passkeys {
    /// Of a node that is known by that address.
    pub(super) fn new(public_url: &str, has_accounts: bool) -> Self {
        let relying = if has_accounts { Relying::of(public_url) } else { Err(NoPasskeys::NoAccounts) };
        Self {
            relying,
            registering: Mutex::default(),
            proving: Mutex::default(),
            rates: Mutex::new(LoginRates::new(Micros(0))),
        }
    }

    /// Whether somebody can log in by one here.
    pub(super) fn is_used(&self) -> bool {
        self.relying.is_ok()
    }

    fn relying(&self) -> Result<&Relying, LoginError> {
        self.relying.as_ref().map_err(|e| LoginError::NoPasskeys(e.clone()))
    }
}

impl App {
    /// The one origin whose pages use passkeys.
    pub(crate) fn passkey_origin(&self) -> Result<&str, LoginError> {
        Ok(&self.identity.passkeys.relying()?.origin)
    }

    /// Begins a login by whatever passkey the person has for this node.
    pub(crate) fn begin_passkey_login(&self, peer: IpAddr) -> Result<Ceremony, LoginError> {
        let passkeys = &self.identity.passkeys;
        let begun = passkeys.relying()?.webauthn.start_discoverable_authentication();
        let (asked, state) = begun.map_err(|_| SessionError::Secret)?;
        self.ceremony(&passkeys.proving, peer, state, public_key(&asked))
    }

    /// Finishes a login by a passkey. What came of it is in the audit chain before it is answered.
    pub(crate) async fn finish_passkey_login(
        &self,
        peer: IpAddr,
        ceremony: &str,
        shown: PublicKeyCredential,
    ) -> Result<Login, LoginError> {
        let passkeys = &self.identity.passkeys;
        let webauthn = passkeys.relying()?.webauthn.clone();
        let Some(state) = locked(&passkeys.proving).take(self.now(), &SecretHash::of(ceremony)) else {
            self.record_denial(
                "login-failed",
                &format!("a login by passkey that was not begun, or too late, from {peer}"),
            );
            return Err(LoginError::NoCeremony);
        };
        let named = webauthn.identify_discoverable_authentication(&shown).map(|(h, c)| (h, c.to_vec()));
        let found = match named {
            Ok((handle, credential)) => self
                .identity
                .in_turn(move |a| a.kept(handle.as_bytes(), &credential))
                .await?
                .map_err(SessionError::from)?,
            Err(_) => None,
        };
        let Some(kept) = found else {
            // Keys that somebody makes up are not allowed to fill the chain.
            self.record_denial("login-failed", &format!("a passkey that is not known here, from {peer}"));
            return Err(LoginError::PasskeyRefused);
        };
        let (account, label) = (kept.account.clone(), kept.label.clone());
        let taken = locked(&passkeys.rates).take(self.now(), account.as_str(), peer);
        taken.map_err(LoginError::TooMany)?;
        let person =
            Person { account: account.to_string(), name: kept.name.clone(), at: wall_clock(), second_factor: true };
        let proved = self.identity.in_turn(move |a| prove(a, &webauthn, state, &shown, &kept)).await?;
        if let Err(why) = proved.map_err(SessionError::from)? {
            let entry = Entry { name: Some(account.to_string()), ..Entry::now("login-failed") };
            self.record(entry.saying(format!("passkey {label}: {why}, from {peer}"))).await?;
            return Err(LoginError::PasskeyRefused);
        }
        self.welcome(person, &format!("with passkey {label}, from {peer}")).await
    }

    /// Begins to register a passkey for whom the link is of. The link stays good until one is registered.
    pub(crate) async fn begin_registration(&self, peer: IpAddr, link: &str) -> Result<(Ceremony, Owner), LoginError> {
        let passkeys = &self.identity.passkeys;
        let webauthn = passkeys.relying()?.webauthn.clone();
        let link = SecretHash::of(link);
        let found = self.identity.in_turn(move |a| a.enrolling(&link)).await?.map_err(SessionError::from)?;
        let Some(Enrolling { account, name, handle, has }) = found else {
            self.record_denial("passkey-refused", &format!("a link that is not good, from {peer}"));
            return Err(LoginError::PasskeyLink);
        };
        if has.len() >= MAX_PASSKEYS {
            return Err(LoginError::PasskeyUnusable(format!(
                "this account has {MAX_PASSKEYS} passkeys: one has to be removed first"
            )));
        }
        let handle = Uuid::from_bytes(handle);
        let begun = webauthn.start_passkey_registration(handle, account.as_str(), &name, Some(has));
        let (asked, state) = begun.map_err(|_| SessionError::Secret)?;
        let mut options = public_key(&asked);
        if let Some(selection) = options.get_mut("authenticatorSelection").and_then(Value::as_object_mut) {
            // One that the authenticator finds by itself, since no login names an account.
            selection.insert("residentKey".to_owned(), json!("required"));
            selection.insert("requireResidentKey".to_owned(), json!(true));
        }
        let owner = Owner { account: account.to_string(), name: name.clone() };
        let registering = Registering { link, account, name, state };
        Ok((self.ceremony(&passkeys.registering, peer, registering, options)?, owner))
    }

    /// Registers a passkey, and uses the link up. What came of it is in the audit chain before it is answered.
    pub(crate) async fn finish_registration(
        &self,
        peer: IpAddr,
        ceremony: &str,
        label: Option<&str>,
        shown_key: RegisterPublicKeyCredential,
    ) -> Result<Owner, LoginError> {
        let passkeys = &self.identity.passkeys;
        let webauthn = passkeys.relying()?.webauthn.clone();
        let unfit = SessionError::Invalid { field: "label", expected: LABEL_EXPECTED };
        let label = shown(label.unwrap_or(UNNAMED), MAX_LABEL).ok_or(unfit)?.to_owned();
        let Some(begun) = locked(&passkeys.registering).take(self.now(), &SecretHash::of(ceremony)) else {
            self.record_denial(
                "passkey-refused",
                &format!("a passkey that nobody began to register, or too late, from {peer}"),
            );
            return Err(LoginError::NoCeremony);
        };
        let Registering { link, account, name, state } = begun;
        let owner = Owner { account: account.to_string(), name };
        let entry = |kind| Entry { name: Some(account.to_string()), ..Entry::now(kind) };
        let refused = |why: &str| entry("passkey-refused").saying(format!("{label}: {why}, from {peer}"));
        let (of, called) = (account.clone(), label.clone());
        let kept = self.identity.in_turn(move |a| match webauthn.finish_passkey_registration(&shown_key, &state) {
            Ok(passkey) => Ok(a.keep(&of, &link, &called, &passkey)),
            Err(error) => Err(error),
        });
        match kept.await? {
            Err(error) => {
                self.record(refused(&why(&error))).await?;
                Err(LoginError::PasskeyUnusable(told(&error).to_owned()))
            }
            Ok(kept) if kept.as_ref().is_ok_and(|kept| !kept) => {
                self.record(refused("the link is not good any more, or the passkey is registered already")).await?;
                Err(LoginError::PasskeyLink)
            }
            Ok(kept) => {
                kept.map_err(SessionError::from)?;
                self.record(entry("passkey-added").saying(format!("{label}, from {peer}"))).await?;
                Ok(owner)
            }
        }
    }

    fn ceremony<T>(
        &self,
        pending: &Mutex<Pending<T>>,
        peer: IpAddr,
        state: T,
        options: Value,
    ) -> Result<Ceremony, LoginError> {
        let ceremony = secret::login_value()?;
        let expires = WallMicros(wall_clock().0.saturating_add(pending::LIFE_US));
        let added = locked(pending).add(self.now(), peer, SecretHash::of(&ceremony), state);
        if added { Ok(Ceremony { ceremony, expires, options }) } else { Err(LoginError::Busy) }
    }
}

/// What a label has to be.
const LABEL_EXPECTED: &str =
    "1 to 40 characters, no control characters, no characters that change the direction of text or cannot be seen";

/// Checks what an authenticator signed, and keeps its counter. The inner error is for the audit chain.
fn prove(
    accounts: &Accounts,
    webauthn: &Webauthn,
    state: DiscoverableAuthentication,
    shown: &PublicKeyCredential,
    kept: &Kept,
) -> Result<Result<(), String>, StoreError> {
    let proved = match webauthn.finish_discoverable_authentication_v2(shown, state, &kept.passkey) {
        Ok(proved) => proved,
        Err(error) => return Ok(Err(why(&error))),
    };
    let mut after: Passkey = kept.passkey.clone();
    after.update_credential(&proved);
    let is_kept = accounts.used(kept, &after)?;
    Ok(if is_kept { Ok(()) } else { Err("it was used at the same time, or removed".to_owned()) })
}

/// What was wrong, for the audit chain.
fn why(error: &WebauthnError) -> String {
    match error {
        WebauthnError::UserNotVerified => "its owner was not verified".to_owned(),
        WebauthnError::CredentialPossibleCompromise => {
            "its signature counter went backwards: there may be a copy of it".to_owned()
        }
        other => clean(&other.to_string(), 100),
    }
}

/// What was wrong, for whoever registers: they have a good link.
fn told(error: &WebauthnError) -> &'static str {
    match error {
        WebauthnError::UserNotVerified => {
            "the authenticator did not verify you: one that asks for a PIN, a finger or a face is right"
        }
        _ => "what the authenticator answered cannot be verified, which is recorded: begin again, or take another one",
    }
}

fn public_key(asked: &impl serde::Serialize) -> Value {
    // It is made of texts, numbers and lists: it always has a JSON form.
    serde_json::to_value(asked).ok().and_then(|mut v| v.get_mut("publicKey").map(Value::take)).unwrap_or_default()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
