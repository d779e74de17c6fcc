//! Local accounts, in tables of signaling's database. They are changed by `trocar admin user` beside a running node, which is why this
//! has a connection of its own; what was changed is left in a table, from where the node takes it into the audit chain.

use super::passkeys::NoPasskeys;
use super::password::{Cost, Hashed, MAX_PASSWORD, MIN_PASSWORD};
use super::totp::Secret;
use crate::app::wall_clock;
use crate::error::SessionError;
use crate::name::{MAX_NAME, NAME_EXPECTED, shown};
use crate::store::{self, StoreError, as_i64};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::units::WallMicros;

/// The accounts. One without a password has none of what belongs to it; `handle` is what passkeys know the account by.
macro_rules! accounts_table {
    () => {
        "
CREATE TABLE accounts (
    account TEXT PRIMARY KEY, name TEXT NOT NULL, salt BLOB, hash BLOB, memory_kib INTEGER, passes INTEGER, lanes INTEGER,
    totp BLOB, last_step INTEGER NOT NULL, created_us INTEGER NOT NULL, last_login_us INTEGER,
    handle BLOB NOT NULL UNIQUE DEFAULT (randomblob(16))
) STRICT;
"
    };
}

/// Passkeys, links with which one is registered, of which an account has one at a time, and the address that the node is known by.
macro_rules! passkey_tables {
    () => {
        "
CREATE TABLE passkeys (
    credential BLOB PRIMARY KEY, account TEXT NOT NULL, label TEXT NOT NULL, passkey TEXT NOT NULL,
    created_us INTEGER NOT NULL, last_login_us INTEGER
) STRICT;
CREATE TABLE enrolments (
    account TEXT PRIMARY KEY, secret_sha256 BLOB NOT NULL UNIQUE, expires_us INTEGER NOT NULL
) STRICT;
CREATE TABLE node (one INTEGER PRIMARY KEY CHECK (one = 1), public_url TEXT NOT NULL) STRICT;
"
    };
}

/// The tables, of schema version 5.
pub(crate) const SCHEMA: &str = concat!(
    accounts_table!(),
    passkey_tables!(),
    "
CREATE TABLE account_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_us INTEGER NOT NULL, kind TEXT NOT NULL, account TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
"
);

/// From schema version 4 to 5: accounts may be without a password, and have passkeys.
pub(crate) const FROM_4_TO_5: &str = concat!(
    "ALTER TABLE accounts RENAME TO accounts_before;",
    accounts_table!(),
    "
INSERT INTO accounts (account, name, salt, hash, memory_kib, passes, lanes, totp, last_step, created_us, last_login_us)
    SELECT account, name, salt, hash, memory_kib, passes, lanes, totp, last_step, created_us, last_login_us FROM accounts_before;
DROP TABLE accounts_before;
",
    passkey_tables!(),
    "PRAGMA user_version = 5;"
);

/// Name of a local account: 1 to 64 of `a-z 0-9 . _ @ -`; capitals are taken for small letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountName(String);

/// Why an account cannot be added, changed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The name cannot be used.
    #[error("an account's name is 1 to 64 of a-z, 0-9, '.', '_', '@' and '-'")]
    Name,
    /// How the person is shown cannot be used.
    #[error("the shown name is {NAME_EXPECTED}")]
    Shown,
    /// The password cannot be used.
    #[error("a password has at least {MIN_PASSWORD} characters and at most {MAX_PASSWORD} bytes")]
    Password,
    /// There is one of that name.
    #[error("there is an account {0} already: `reset` gives it a new password and a new authenticator")]
    Exists(String),
    /// There is none of that name.
    #[error("there is no account {0}")]
    Missing(String),
    /// Passkeys cannot be used at this node's address.
    #[error(transparent)]
    Address(#[from] NoPasskeys),
    /// No node has run with this database, so nobody knows its address.
    #[error(
        "the node has not run yet, and the link has to name it: start it once, or give its signaling.public_url with --url"
    )]
    NoAddress,
    /// There is no such passkey.
    #[error("{0} has no passkey {1}: `passkeys` lists what there is")]
    NoPasskey(String, String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no random bytes, or the hash could not be made.
    #[error("no secret could be made")]
    Secret,
}

/// An account as it is listed. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// Its name.
    pub account: String,
    /// How the person is shown.
    pub name: String,
    /// When it was made.
    pub created: WallMicros,
    /// When somebody logged in last.
    pub last_login: Option<WallMicros>,
    /// Whether it has a password and an authenticator.
    pub password: bool,
    /// How many passkeys it has.
    pub passkeys: u32,
}

/// The accounts of one database.
pub struct Accounts {
    connection: Mutex<Connection>,
    // Where no node runs it is kept from starting in the middle.
    _lock: Option<File>,
}

/// Why a try to log in came to nothing. Told to the audit chain, never to who tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Account,
    /// It logs in by passkeys alone.
    NoPassword,
    Password,
    Code,
    CodeUsed,
}

/// Something that `trocar admin user` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) id: i64,
    pub(super) at: WallMicros,
    pub(super) kind: String,
    pub(super) account: String,
    pub(super) detail: String,
}

impl FromStr for AccountName {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-');
        let good = (1..=64).contains(&text.len()) && text.chars().all(fits);
        if good { Ok(Self(text.to_ascii_lowercase())) } else { Err(AccountError::Name) }
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AccountName {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<SessionError> for AccountError {
    fn from(_: SessionError) -> Self {
        Self::Secret
    }
}

impl Accounts {
    /// Opens the database of a node that runs or not; one that is not there is made.
    ///
    /// # Errors
    /// [`AccountError::Store`] where the file is not one of ours, is damaged, or another version's.
    pub fn open(path: &Path) -> Result<Self, AccountError> {
        let (connection, lock) = store::open_beside(path)?;
        Ok(Self { connection: Mutex::new(connection), _lock: lock })
    }

    /// Of the node that runs and has the lock.
    pub(super) fn of_node(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: Mutex::new(store::open_again(path)?), _lock: None })
    }

    /// Adds an account. Answers with the `otpauth://` address that an authenticator is enrolled with; it is a secret and is not shown again.
    ///
    /// # Errors
    /// [`AccountError`] where the account exists, or a value cannot be used.
    pub fn add(&self, account: &AccountName, name: &str, password: &str) -> Result<String, AccountError> {
        let name = shown(name, MAX_NAME).ok_or(AccountError::Shown)?;
        let (hashed, totp) = credentials(password)?;
        self.change(|t| {
            insert(t, account, name)?;
            set_password(t, account, &hashed, &totp)?;
            leave(t, "account-added", account, "")
        })?;
        Ok(totp.address(&account.0))
    }

    /// Gives an account a new password and a new authenticator; its passkeys are gone, and logins of before end. Answers as [`Self::add`].
    ///
    /// # Errors
    /// [`AccountError`] where there is no such account, or the password cannot be used.
    pub fn reset(&self, account: &AccountName, password: &str) -> Result<String, AccountError> {
        let (hashed, totp) = credentials(password)?;
        self.change(|t| {
            set_password(t, account, &hashed, &totp)?;
            forget_passkeys(t, account)?;
            leave(t, "account-reset", account, "")
        })?;
        Ok(totp.address(&account.0))
    }

    /// Removes an account. A running node ends its logins, and removes who came in with it, within about a second.
    ///
    /// # Errors
    /// [`AccountError`] where there is no such account.
    pub fn remove(&self, account: &AccountName) -> Result<(), AccountError> {
        self.change(|t| {
            if t.execute("DELETE FROM accounts WHERE account = ?1", [&account.0]).map_err(StoreError::from)? == 0 {
                return Err(AccountError::Missing(account.0.clone()));
            }
            forget_passkeys(t, account)?;
            leave(t, "account-removed", account, "")
        })
    }

    /// All accounts, by name.
    ///
    /// # Errors
    /// [`AccountError::Store`] where the database cannot be read.
    pub fn list(&self) -> Result<Vec<Account>, AccountError> {
        let read = |connection: &Connection| {
            let mut query = connection.prepare(
                "SELECT account, name, created_us, last_login_us, hash IS NOT NULL,
                 (SELECT count(*) FROM passkeys p WHERE p.account = a.account) FROM accounts a ORDER BY account",
            )?;
            let rows = query.query_map([], |row| {
                Ok(Account {
                    account: row.get(0)?,
                    name: row.get(1)?,
                    created: wall(row.get(2)?),
                    last_login: row.get::<_, Option<i64>>(3)?.map(wall),
                    password: row.get(4)?,
                    passkeys: row.get(5)?,
                })
            })?;
            rows.collect::<Result<Vec<_>, rusqlite::Error>>()
        };
        Ok(read(&self.connection()).map_err(StoreError::from)?)
    }

    /// Whether these are an account's password and a code of its authenticator that was not used before; answers with how the person is
    /// shown. Takes as long where there is no such account. Blocks: 30 ms of work, 19 MiB.
    pub(super) fn check(
        &self,
        account: &AccountName,
        password: &str,
        code: &str,
    ) -> Result<Result<String, Wrong>, StoreError> {
        let found = self.find(account)?;
        let known = found.as_ref().and_then(|f| f.password.as_ref());
        let hashed = known.map_or_else(Hashed::of_nobody, |(hashed, _)| hashed.clone());
        let is_password = password.len() <= MAX_PASSWORD && hashed.is(password);
        let Some(found) = found else { return Ok(Err(Wrong::Account)) };
        let Some((_, totp)) = found.password else { return Ok(Err(Wrong::NoPassword)) };
        if !is_password {
            return Ok(Err(Wrong::Password));
        }
        let now = wall_clock();
        let Some(step) = totp.step_of(code, now.0 / 1_000_000) else { return Ok(Err(Wrong::Code)) };
        // Of two that show the same code at the same time one is let in. A reset meanwhile has another hash.
        let taken = self.connection().execute(
            "UPDATE accounts SET last_step = ?2, last_login_us = ?3 WHERE account = ?1 AND last_step < ?2 AND hash = ?4",
            params![account.0, as_i64(WallMicros(step)), as_i64(now), hashed.hash],
        )?;
        Ok(if taken == 1 { Ok(found.name) } else { Err(Wrong::CodeUsed) })
    }

    /// What was changed and is not in the audit chain yet, oldest first; so many at most.
    pub(super) fn changes(&self) -> Result<Vec<Change>, rusqlite::Error> {
        let connection = self.connection();
        let mut query =
            connection.prepare("SELECT id, at_us, kind, account, detail FROM account_changes ORDER BY id LIMIT 64")?;
        let rows = query.query_map([], |row| {
            Ok(Change {
                id: row.get(0)?,
                at: wall(row.get(1)?),
                kind: row.get(2)?,
                account: row.get(3)?,
                detail: row.get(4)?,
            })
        })?;
        rows.collect()
    }

    /// Who came in with an account and has not gone.
    pub(super) fn present(&self, account: &str) -> Result<Vec<(SessionId, ParticipantId)>, rusqlite::Error> {
        let connection = self.connection();
        let mut query = connection.prepare(
            "SELECT p.session, p.participant FROM participants p JOIN sessions s USING (session)
             WHERE p.account = ?1 AND p.removed_us IS NULL AND s.closed_us IS NULL",
        )?;
        let rows = query.query_map([account], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let named =
            |(session, participant)| Some((SessionId::new(session).ok()?, ParticipantId::new(participant).ok()?));
        rows.map(|row| row.map(named)).filter_map(Result::transpose).collect()
    }

    fn find(&self, account: &AccountName) -> Result<Option<Found>, StoreError> {
        let found = self
            .connection()
            .query_row(
                "SELECT name, salt, hash, memory_kib, passes, lanes, totp FROM accounts WHERE account = ?1",
                [&account.0],
                |row| {
                    let name = row.get(0)?;
                    let Some(hash) = row.get(2)? else { return Ok(Found { name, password: None }) };
                    let cost = Cost { memory_kib: row.get(3)?, passes: row.get(4)?, lanes: row.get(5)? };
                    let hashed = Hashed { cost, salt: row.get(1)?, hash };
                    Ok(Found { name, password: Some((hashed, Secret::new(row.get(6)?))) })
                },
            )
            .optional()?;
        Ok(found)
    }

    /// Does all of it or nothing. Waits for its turn to write before it reads, or what another one writes meanwhile would end it.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, AccountError>,
    ) -> Result<T, AccountError> {
        let mut connection = self.connection();
        let t = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let done = work(&t)?;
        t.commit().map_err(StoreError::from)?;
        Ok(done)
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        // SQLite undoes a transaction that a panic left open: the state is whole.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Found {
    name: String,
    /// None where it has passkeys alone.
    password: Option<(Hashed, Secret)>,
}

/// Adds an account that has neither a password nor a passkey yet.
pub(super) fn insert(t: &Connection, account: &AccountName, name: &str) -> Result<(), AccountError> {
    let added = t.execute(
        "INSERT OR IGNORE INTO accounts (account, name, last_step, created_us) VALUES (?1, ?2, 0, ?3)",
        params![account.0, name, as_i64(wall_clock())],
    );
    if added.map_err(StoreError::from)? == 1 { Ok(()) } else { Err(AccountError::Exists(account.0.clone())) }
}

fn set_password(t: &Connection, account: &AccountName, hashed: &Hashed, totp: &Secret) -> Result<(), AccountError> {
    let Cost { memory_kib, passes, lanes } = hashed.cost;
    let changed = t.execute(
        "UPDATE accounts SET salt = ?2, hash = ?3, memory_kib = ?4, passes = ?5, lanes = ?6, totp = ?7, last_step = 0
         WHERE account = ?1",
        params![account.0, hashed.salt, hashed.hash, memory_kib, passes, lanes, totp.bytes()],
    );
    if changed.map_err(StoreError::from)? == 1 { Ok(()) } else { Err(AccountError::Missing(account.0.clone())) }
}

fn forget_passkeys(t: &Connection, account: &AccountName) -> Result<(), StoreError> {
    t.execute("DELETE FROM passkeys WHERE account = ?1", [&account.0])?;
    t.execute("DELETE FROM enrolments WHERE account = ?1", [&account.0])?;
    Ok(())
}

fn credentials(password: &str) -> Result<(Hashed, Secret), AccountError> {
    if password.chars().count() < MIN_PASSWORD || password.len() > MAX_PASSWORD {
        return Err(AccountError::Password);
    }
    Ok((Hashed::new(password)?, Secret::generate()?))
}

/// Leaves word of a change for the node that keeps the audit chain.
pub(super) fn leave(t: &Connection, kind: &str, account: &AccountName, what: &str) -> Result<(), AccountError> {
    // Who typed it, as far as the system knows: the owner of this process.
    let by = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m));
    let by = by.map_or_else(|_| String::new(), |uid| format!("on the node, by uid {uid}"));
    let detail = if what.is_empty() { by } else { format!("{what}, {by}") };
    let left = t.execute(
        "INSERT INTO account_changes (at_us, kind, account, detail) VALUES (?1, ?2, ?3, ?4)",
        params![as_i64(wall_clock()), kind, account.0, detail],
    );
    left.map_err(StoreError::from)?;
    Ok(())
}

pub(super) fn wall(us: i64) -> WallMicros {
    WallMicros(us.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const PASSWORD: &str = "a long enough password";

    fn ada() -> AccountName {
        "Ada".parse().unwrap()
    }

    fn accounts() -> (TempDir, Accounts) {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(&dir.path().join("trocar.db")).unwrap();
        (dir, accounts)
    }

    /// The code that an authenticator shows now.
    fn code(accounts: &Accounts) -> String {
        let (_, totp) = accounts.find(&ada()).unwrap().unwrap().password.unwrap();
        totp.code(wall_clock().0 / 30_000_000)
    }

    #[test]
    fn an_account_is_added_once_listed_reset_and_removed() {
        let (_dir, accounts) = accounts();
        let first = accounts.add(&ada(), "Dr Ada", PASSWORD).unwrap();
        assert!(first.starts_with("otpauth://totp/Trocar:ada?secret="));
        assert!(matches!(accounts.add(&ada(), "Ada", PASSWORD), Err(AccountError::Exists(_))));
        let listed = accounts.list().unwrap();
        assert_eq!((listed[0].account.as_str(), listed[0].name.as_str()), ("ada", "Dr Ada"));
        assert_ne!(accounts.reset(&ada(), "another long password").unwrap(), first);
        assert_eq!(accounts.check(&ada(), PASSWORD, &code(&accounts)).unwrap(), Err(Wrong::Password));
        assert_eq!(accounts.check(&ada(), "another long password", &code(&accounts)).unwrap(), Ok("Dr Ada".into()));
        accounts.remove(&ada()).unwrap();
        assert_eq!(accounts.check(&ada(), "another long password", "000000").unwrap(), Err(Wrong::Account));
        assert!(matches!(accounts.remove(&ada()), Err(AccountError::Missing(_))));
        assert!(matches!(accounts.reset(&ada(), PASSWORD), Err(AccountError::Missing(_))));
        let kinds: Vec<String> = accounts.changes().unwrap().into_iter().map(|c| c.kind).collect();
        assert_eq!(kinds, ["account-added", "account-reset", "account-removed"]);
    }

    #[test]
    fn a_code_is_good_once() {
        let (_dir, accounts) = accounts();
        accounts.add(&ada(), "Ada", PASSWORD).unwrap();
        let code = code(&accounts);
        let wrong = if code == "000000" { "000001" } else { "000000" };
        assert_eq!(accounts.check(&ada(), PASSWORD, wrong).unwrap(), Err(Wrong::Code));
        assert_eq!(accounts.check(&ada(), "not the password", &code).unwrap(), Err(Wrong::Password));
        assert_eq!(accounts.check(&ada(), PASSWORD, &code).unwrap(), Ok("Ada".into()));
        assert_eq!(accounts.check(&ada(), PASSWORD, &code).unwrap(), Err(Wrong::CodeUsed));
    }

    #[test]
    fn names_and_passwords_that_cannot_be_used_are_refused() {
        let (_dir, accounts) = accounts();
        let long = "x".repeat(65);
        for bad in ["", "a b", "a/b", "ä", "a:b", long.as_str()] {
            assert!(matches!(bad.parse::<AccountName>(), Err(AccountError::Name)), "{bad:?} was taken");
        }
        let (short, long) = ("elevenchars", "x".repeat(257));
        for bad in ["", short, long.as_str()] {
            assert!(matches!(accounts.add(&ada(), "Ada", bad), Err(AccountError::Password)), "{bad:?} was taken");
        }
        assert!(matches!(accounts.add(&ada(), " ", PASSWORD), Err(AccountError::Shown)));
        assert_eq!(accounts.list().unwrap(), []);
    }

    #[test]
    fn no_password_stands_in_the_file() {
        let (dir, accounts) = accounts();
        accounts.add(&ada(), "Ada", PASSWORD).unwrap();
        drop(accounts);
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes()));
        }
    }
}
