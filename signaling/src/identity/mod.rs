//! Who people are: local accounts with a password and a second factor or with passkeys, people that an issuer of identities vouches for, and what the
//! browser holds after a login.
//!
//! A login is a line in a bounded list here and a signed token at the browser; both are asked for, so that a logout, a removed
//! account and a restart end it at once. The token opens no session by itself: it is shown when an invitation is redeemed, where the
//! configuration asks for it ([`IdentityConfig`]).
//!
//! Loss policy: one account has at most [`MAX_OF_ACCOUNT`] logins and all have [`MAX_LOGINS`]; the oldest ends for a new one. Passwords and passkeys are
//! checked by at most [`CHECKS`] threads at a time, [`WAITING`] tries wait for them, and what is more is told to come again.

mod accounts;
mod oidc;
mod passkeys;
mod password;
mod pending;
mod policy;
mod rates;
#[cfg(test)]
mod tests;
mod token;
mod totp;

pub use accounts::{Account, AccountError, AccountName, Accounts};
pub(crate) use accounts::{FROM_4_TO_5, SCHEMA};
pub(crate) use oidc::Returned;
pub use oidc::{ClientSecret, DEFAULT_AMR, Groups, IssuerConfig, SecondFactor};
pub(crate) use passkeys::Ceremony;
pub use passkeys::{ListedPasskey, NoPasskeys};
pub use policy::{IdentityConfig, Required};

use crate::app::{App, wall_clock};
use crate::audit::Entry;
use crate::config::{Config, ConfigError, StoreAt};
use crate::error::SessionError;
use crate::secret;
use crate::store::{Row, StoreError};
use crate::token::TokenKeyError;
use accounts::{Change, Wrong};
use oidc::Issuers;
use passkeys::Passkeys;
use policy::Need;
use rates::LoginRates;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use token::IdentityTokens;
use tokio::sync::Semaphore;
use trocar_proto::session::role::Role;
use trocar_proto::units::{Micros, WallMicros};
use zeroize::Zeroizing;

/// The way to log in with an account of this node, a password and a code.
const LOCAL: &str = "local";
/// Logins at a time.
const MAX_LOGINS: usize = 4096;
/// Logins of one account at a time.
const MAX_OF_ACCOUNT: usize = 16;
/// Passwords that are checked at a time: each takes a core for some 30 ms, and 19 MiB.
const CHECKS: usize = 2;
/// Tries that wait for that.
const WAITING: usize = 16;
/// How often changes of accounts are looked for.
const LOOK_EVERY_US: u64 = 500_000;

/// Somebody who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// The account; of an issuer's `ISSUER:SUBJECT`.
    pub(crate) account: String,
    /// How the person is shown.
    pub(crate) name: String,
    /// When all factors were shown.
    pub(crate) at: WallMicros,
    /// Whether a second factor was among them.
    pub(crate) second_factor: bool,
}

/// A login that went well.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) token: String,
    pub(crate) expires: WallMicros,
    pub(crate) person: Person,
}

/// Why a login came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// Tries come too fast: seconds to wait.
    #[error("too many logins")]
    TooMany(u64),
    /// Too many are being checked.
    #[error("too many logins at a time")]
    Busy,
    /// Not all of it is right. Which, nobody is told.
    #[error("account, password or code is wrong")]
    Wrong,
    /// There are no local accounts here.
    #[error("this node has no local accounts")]
    NoAccounts,
    /// Passkeys cannot be used here.
    #[error(transparent)]
    NoPasskeys(NoPasskeys),
    /// That login or registration is not open.
    #[error("it was finished before, or took more than 5 minutes: begin again")]
    NoCeremony,
    /// Not a passkey that opens anything. Why, nobody is told.
    #[error("that passkey does not log in here: it is not known, or its owner was not verified")]
    PasskeyRefused,
    /// Nobody can register with that link.
    #[error("this link was used, is older than 30 minutes, or was followed by another one: ask for a new one")]
    PasskeyLink,
    /// What was to be registered does not do.
    #[error("{0}")]
    PasskeyUnusable(String),
    /// Nobody of that name says here who people are.
    #[error("this node takes logins of no issuer of that name")]
    NoIssuer,
    /// The issuer does not answer, or not as it should.
    #[error("{0} cannot be asked now: try again in a while")]
    Unavailable(String),
    /// No login is open for that answer in that tab.
    #[error("this login was begun in another tab, was finished before, or took more than 5 minutes: begin again")]
    NotBegun,
    /// The issuer said no.
    #[error("{0} did not log you in ({1})")]
    Denied(String, String),
    /// Its word is older than was asked for.
    #[error("{0} did not ask you anew: log out there, and begin again")]
    Old(String),
    /// It knows the person, who may not log in here.
    #[error("your account at {0} is in no group that may log in here")]
    NoMember(String),
    /// What it said does not hold. What exactly, the audit chain is told.
    #[error("the answer of {0} could not be verified, which is recorded: begin again, or tell whoever runs this node")]
    NotBelieved(String),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// What an invitation's bearer lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityNeed {
    /// What, in a sentence.
    pub(crate) what: String,
    /// The ways to it: `local`, `passkey`, and the names of issuers.
    pub(crate) ways: Vec<String>,
    /// Whether somebody is logged in, and it is a second factor that is missing.
    pub(crate) second_factor: bool,
    /// Whether one may come in without, in an emergency.
    pub(crate) break_glass: bool,
}

/// Logins that are good, by the id in their token.
#[derive(Debug, Default)]
struct Logins(BTreeMap<String, Live>);

#[derive(Debug)]
struct Live {
    account: String,
    since: WallMicros,
    /// Seconds since 1970.
    ends: u64,
}

/// Everything that is known of people.
pub(crate) struct Identity {
    config: IdentityConfig,
    tokens: IdentityTokens,
    accounts: Option<Arc<Accounts>>,
    issuers: Issuers,
    passkeys: Passkeys,
    rates: Mutex<LoginRates>,
    logins: Mutex<Logins>,
    waiting: Semaphore,
    checks: Arc<Semaphore>,
    looked: Mutex<Option<Micros>>,
}

impl Identity {
    /// `public_url` is what the node is known by. Why it cannot be opened: the token key, or the database.
    pub(crate) fn open(config: &Config, public_url: &str) -> Result<Self, OpenError> {
        let accounts = match &config.store {
            StoreAt::Memory => None,
            StoreAt::File(path) => Some(Arc::new(Accounts::of_node(path)?)),
        };
        if let Some(accounts) = &accounts {
            accounts.note_public_url(public_url)?;
        }
        let has_accounts = accounts.is_some() && config.identity.local;
        Ok(Self {
            config: config.identity.clone(),
            tokens: IdentityTokens::new(&config.token_key_pkcs8, &config.issuer)?,
            accounts,
            issuers: Issuers::new(&config.identity.issuers)?,
            passkeys: Passkeys::new(public_url, has_accounts),
            rates: Mutex::new(LoginRates::new(Micros(0))),
            logins: Mutex::new(Logins::default()),
            waiting: Semaphore::new(WAITING + CHECKS),
            checks: Arc::new(Semaphore::new(CHECKS)),
            looked: Mutex::new(None),
        })
    }

    /// How somebody can log in here.
    pub(crate) fn ways(&self) -> Vec<String> {
        let local = self.accounts.iter().filter(|_| self.config.local).map(|_| LOCAL.to_owned());
        let passkey = Some(passkeys::WAY.to_owned()).filter(|_| self.passkeys.is_used());
        local.chain(passkey).chain(self.issuers.names()).collect()
    }

    /// How old the login at an issuer may be, in seconds: young enough for every role.
    fn max_age(&self) -> u64 {
        self.config.step_up.as_secs()
    }

    /// Whether `person` may take up `role`: what is lacking, in words.
    pub(crate) fn admits(&self, role: Role, person: Option<&Person>, now: WallMicros) -> Result<(), IdentityNeed> {
        let need_of = |what: &str| IdentityNeed {
            what: what.to_owned(),
            ways: self.ways(),
            second_factor: false,
            break_glass: false,
        };
        let lacking = |what: &str| Err(need_of(what));
        let need = self.config.need(role);
        if need == Need::Nothing {
            return Ok(());
        }
        let Some(person) = person else {
            return lacking("this invitation asks for a login as well: log in, and show the identity as a bearer");
        };
        if !person.second_factor {
            let what = "the login had no second factor, which this invitation asks for: log in with one";
            return Err(IdentityNeed { second_factor: true, ..need_of(what) });
        }
        let age = now.0.saturating_sub(person.at.0) / 1_000_000;
        let most = self.config.step_up.as_secs();
        if need == Need::Fresh && age > most {
            return lacking(&format!(
                "a role that may hold instruments is joined within {most} s of the second factor, and that was {age} s ago: \
                 log in again"
            ));
        }
        Ok(())
    }

    /// Who shows that token; none where the login has ended.
    pub(crate) fn person(&self, token: &str, now: WallMicros) -> Option<Person> {
        let claims = self.tokens.verify(token)?;
        let logins = self.logins();
        let live = logins.0.get(&claims.jti).filter(|l| l.account == claims.sub && l.ends > now.0 / 1_000_000)?;
        Some(Person {
            account: live.account.clone(),
            name: claims.name,
            at: WallMicros(claims.auth_time.saturating_mul(1_000_000)),
            second_factor: claims.second_factor,
        })
    }

    /// What to say to whoever shows a token that is not good any more.
    pub(crate) fn ended(&self) -> IdentityNeed {
        let what = "the login has ended: log in again".to_owned();
        IdentityNeed { what, ways: self.ways(), second_factor: false, break_glass: false }
    }

    /// Ends the login of a token.
    pub(crate) fn end(&self, token: &str) -> Option<String> {
        let claims = self.tokens.verify(token)?;
        self.logins().0.remove(&claims.jti).map(|l| l.account)
    }

    /// A login of somebody who has shown what is needed.
    fn begin(&self, person: Person) -> Result<Login, SessionError> {
        let now = wall_clock();
        let ends = now.0 / 1_000_000 + self.config.life.as_secs();
        let id = secret::token_id()?;
        let token = self.tokens.issue(now, ends, &id, &person)?;
        self.logins().add(id, Live { account: person.account.clone(), since: now, ends }, now);
        Ok(Login { token, expires: WallMicros(ends.saturating_mul(1_000_000)), person })
    }

    /// Checks a password and a code on a thread that may block. The inner error is for the audit chain.
    async fn check(
        &self,
        account: AccountName,
        password: Zeroizing<String>,
        code: String,
    ) -> Result<Result<String, Wrong>, LoginError> {
        let checked = self.in_turn(move |accounts| accounts.check(&account, &password, &code)).await?;
        Ok(checked.map_err(SessionError::from)?)
    }

    /// Does work of an account on a thread that may block, when its turn comes.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Accounts) -> T + Send + 'static,
    ) -> Result<T, LoginError> {
        let accounts = self.accounts.as_ref().filter(|_| self.config.local).ok_or(LoginError::NoAccounts)?;
        let accounts = Arc::clone(accounts);
        let _waits = self.waiting.try_acquire().map_err(|_| LoginError::Busy)?;
        let turn = Arc::clone(&self.checks).acquire_owned().await.map_err(|_| LoginError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&accounts);
            // Given back by the thread: a client that goes away makes no room for a third.
            drop(turn);
            done
        });
        done.await.map_err(|_| LoginError::Busy)
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes of accounts that are to be recorded, twice a second at most.
    async fn changes(&self, now: Micros) -> Vec<Change> {
        let Some(accounts) = self.accounts.clone() else { return Vec::new() };
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|l| now.since(l) < LOOK_EVERY_US) {
                return Vec::new();
            }
            *looked = Some(now);
        }
        match tokio::task::spawn_blocking(move || accounts.changes()).await {
            Ok(Ok(changes)) => changes,
            Ok(Err(error)) => {
                tracing::warn!(%error, "changes of accounts could not be read");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

impl Logins {
    fn add(&mut self, id: String, login: Live, now: WallMicros) {
        self.0.retain(|_, l| l.ends > now.0 / 1_000_000);
        if self.0.values().filter(|l| l.account == login.account).count() >= MAX_OF_ACCOUNT {
            self.drop_oldest(Some(&login.account));
        }
        if self.0.len() >= MAX_LOGINS {
            self.drop_oldest(None);
        }
        self.0.insert(id, login);
    }

    fn drop_oldest(&mut self, account: Option<&String>) {
        let of = self.0.iter().filter(|(_, l)| account.is_none_or(|a| *a == l.account));
        if let Some(id) = of.min_by_key(|(_, l)| l.since).map(|(id, _)| id.clone()) {
            self.0.remove(&id);
        }
    }
}

/// Whether a way to log in is one of this node's own, which no issuer may be called by.
fn is_own_way(name: &str) -> bool {
    [LOCAL, passkeys::WAY].iter().any(|way| name.eq_ignore_ascii_case(way))
}

/// Why people cannot be known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Key(#[from] TokenKeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl App {
    /// Whether `person` may take up `role`. That somebody who is known was kept out is recorded by name.
    pub(crate) async fn admit_person(&self, role: Role, person: Option<&Person>) -> Result<(), SessionError> {
        let Err(need) = self.identity.admits(role, person, wall_clock()) else { return Ok(()) };
        if let Some(person) = person {
            let entry = Entry { name: Some(person.account.clone()), role: Some(role), ..Entry::now("denied") };
            self.record(entry.saying(need.what.clone())).await?;
        }
        Err(SessionError::IdentityNeeded(need))
    }

    /// Logs somebody in with a local account. What came of it is in the audit chain before it is answered.
    pub(crate) async fn login(
        &self,
        peer: IpAddr,
        account: &str,
        password: Zeroizing<String>,
        code: String,
    ) -> Result<Login, LoginError> {
        let Ok(name) = account.parse::<AccountName>() else {
            self.record_denial("login-failed", &format!("no account can have that name, from {peer}"));
            return Err(LoginError::Wrong);
        };
        let taken = {
            let mut rates = self.identity.rates.lock().unwrap_or_else(PoisonError::into_inner);
            rates.take(self.now(), name.as_str(), peer)
        };
        taken.map_err(LoginError::TooMany)?;
        let wrong = match self.identity.check(name.clone(), password, code).await? {
            Ok(shown) => {
                let person = Person { account: name.to_string(), name: shown, at: wall_clock(), second_factor: true };
                return self.welcome(person, &format!("with password and code, from {peer}")).await;
            }
            Err(wrong) => wrong,
        };
        let why = match wrong {
            // Names that somebody makes up are not allowed to fill the chain.
            Wrong::Account => {
                self.record_denial("login-failed", &format!("there is no account {name}, from {peer}"));
                return Err(LoginError::Wrong);
            }
            Wrong::NoPassword => "the account has passkeys and no password",
            Wrong::Password => "wrong password",
            Wrong::Code => "wrong code",
            Wrong::CodeUsed => "a code that was used before",
        };
        let entry = Entry { name: Some(name.to_string()), ..Entry::now("login-failed") };
        self.record(entry.saying(format!("{why}, from {peer}"))).await?;
        Err(LoginError::Wrong)
    }

    /// Begins the login of somebody who has shown what is needed.
    async fn welcome(&self, person: Person, how: &str) -> Result<Login, LoginError> {
        let entry = Entry { name: Some(person.account.clone()), ..Entry::now("login") };
        self.record(entry.saying(how)).await?;
        Ok(self.identity.begin(person)?)
    }

    /// Ends a login.
    pub(crate) async fn logout(&self, token: &str) -> Result<(), SessionError> {
        let Some(account) = self.identity.end(token) else { return Ok(()) };
        self.record(Entry { name: Some(account), ..Entry::now("logout") }).await
    }

    /// Takes what `trocar admin user` has done into the audit chain, and ends what came of accounts that are gone.
    pub(crate) async fn hear_account_changes(&self) {
        let changes = self.identity.changes(self.now()).await;
        let Some(last) = changes.last().map(|c| c.id) else { return };
        for change in changes.iter().filter(|c| !matches!(c.kind.as_str(), "account-added" | "passkey-invited")) {
            self.identity.logins().0.retain(|_, l| l.account != change.account);
        }
        let mut rows: Vec<Row> = changes.iter().map(|c| Row::Event(Box::new(recorded(c)))).collect();
        rows.push(Row::AccountChangesTold { last });
        if let Err(error) = self.store.write(rows).await {
            // They stay where they are and are taken the next time.
            tracing::warn!(%error, "changes of accounts could not be recorded");
            return;
        }
        for gone in changes.into_iter().filter(|c| c.kind == "account-removed") {
            self.remove_people_of(gone.account).await;
        }
    }

    async fn remove_people_of(&self, account: String) {
        let Some(accounts) = self.identity.accounts.clone() else { return };
        let present = tokio::task::spawn_blocking(move || accounts.present(&account)).await;
        for (session, participant) in present.ok().and_then(Result::ok).unwrap_or_default() {
            if let Err(error) = self.remove_participant(&session, &participant, None).await {
                tracing::debug!(%error, %participant, "was gone already");
            }
        }
    }

    pub(crate) async fn record(&self, entry: Entry) -> Result<(), SessionError> {
        Ok(self.store.write(vec![Row::Event(Box::new(entry))]).await?)
    }
}

fn recorded(change: &Change) -> Entry {
    let kind = match change.kind.as_str() {
        "account-added" => "account-added",
        "account-removed" => "account-removed",
        "passkey-invited" => "passkey-invited",
        "passkey-removed" => "passkey-removed",
        _ => "account-reset",
    };
    Entry { at: change.at, name: Some(change.account.clone()), ..Entry::now(kind) }.saying(change.detail.clone())
}
