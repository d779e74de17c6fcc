//! Passkeys and links to register one, as they are kept beside the accounts.

use super::super::accounts::{AccountError, AccountName, Accounts, insert, leave, wall};
use super::relying::Relying;
use crate::app::wall_clock;
use crate::name::{MAX_NAME, shown};
use crate::secret::{self, SecretHash};
use crate::store::{StoreError, as_i64};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::str::FromStr as _;
use trocar_proto::units::WallMicros;
use webauthn_rs::prelude::{CredentialID, Passkey};

/// How long a link to register a passkey is good for: 30 minutes.
pub(super) const LINK_LIFE_US: u64 = 1_800_000_000;
/// Passkeys of one account.
pub(super) const MAX_PASSKEYS: usize = 16;
/// Longest label of a passkey, in characters.
pub(super) const MAX_LABEL: usize = 40;

/// A passkey as it is listed. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListedPasskey {
    /// 16 hexadecimal digits.
    pub id: String,
    /// What its owner calls it.
    pub label: String,
    /// When it was registered.
    pub created: WallMicros,
    /// When somebody logged in with it last.
    pub last_login: Option<WallMicros>,
}

/// Whose passkey is to be registered.
#[derive(Debug, Clone)]
pub(super) struct Enrolling {
    pub(super) account: AccountName,
    /// How the person is shown.
    pub(super) name: String,
    pub(super) handle: [u8; 16],
    /// Those that the account has.
    pub(super) has: Vec<CredentialID>,
}

/// A passkey, and whose it is.
pub(super) struct Kept {
    pub(super) account: AccountName,
    /// How the person is shown.
    pub(super) name: String,
    pub(super) label: String,
    pub(super) passkey: Passkey,
    /// As it stands in the database.
    text: String,
}

impl Accounts {
    /// Adds an account without a password. Answers with a link, for which [`Self::passkey_link`] holds.
    ///
    /// # Errors
    /// [`AccountError`] where the account exists, a value cannot be used, or passkeys cannot be used at the node's address.
    pub fn add_without_password(
        &self,
        account: &AccountName,
        name: &str,
        url: Option<&str>,
    ) -> Result<String, AccountError> {
        let name = shown(name, MAX_NAME).ok_or(AccountError::Shown)?;
        let secret = secret::login_value()?;
        self.change(|t| {
            let link = link(t, url, &secret)?;
            insert(t, account, name)?;
            expect(t, account, &secret)?;
            leave(t, "account-added", account, "without a password")?;
            leave(t, "passkey-invited", account, "")?;
            Ok(link)
        })
    }

    /// A link with which one passkey is registered for an account, within 30 minutes. It is a secret and is not shown again; the one before
    /// it, where there is one, is good no more. `url` is what the node is known by; where left out, what it was known by when it ran last.
    ///
    /// # Errors
    /// [`AccountError`] where there is no such account, or passkeys cannot be used at the node's address.
    pub fn passkey_link(&self, account: &AccountName, url: Option<&str>) -> Result<String, AccountError> {
        let secret = secret::login_value()?;
        self.change(|t| {
            let link = link(t, url, &secret)?;
            is_there(t, account)?;
            expect(t, account, &secret)?;
            leave(t, "passkey-invited", account, "")?;
            Ok(link)
        })
    }

    /// The passkeys of an account, oldest first.
    ///
    /// # Errors
    /// [`AccountError`] where there is no such account, or the database cannot be read.
    pub fn passkeys(&self, account: &AccountName) -> Result<Vec<ListedPasskey>, AccountError> {
        let connection = self.connection();
        is_there(&connection, account)?;
        let read = || {
            let mut query = connection.prepare(
                "SELECT credential, label, created_us, last_login_us FROM passkeys WHERE account = ?1 ORDER BY created_us",
            )?;
            let rows = query.query_map([account.as_str()], |row| {
                Ok(ListedPasskey {
                    id: id_of(&row.get::<_, Vec<u8>>(0)?),
                    label: row.get(1)?,
                    created: wall(row.get(2)?),
                    last_login: row.get::<_, Option<i64>>(3)?.map(wall),
                })
            })?;
            rows.collect::<Result<Vec<_>, rusqlite::Error>>()
        };
        Ok(read().map_err(StoreError::from)?)
    }

    /// Removes a passkey of an account, by its `id`. A running node ends the account's logins within about a second.
    ///
    /// # Errors
    /// [`AccountError`] where there is no such account or no such passkey.
    pub fn remove_passkey(&self, account: &AccountName, id: &str) -> Result<(), AccountError> {
        self.change(|t| {
            is_there(t, account)?;
            let mut query =
                t.prepare("SELECT credential, label FROM passkeys WHERE account = ?1").map_err(StoreError::from)?;
            let rows = query.query_map([account.as_str()], |r| Ok((r.get::<_, Vec<u8>>(0)?, r.get::<_, String>(1)?)));
            let rows: Result<Vec<_>, _> = rows.and_then(Iterator::collect);
            let found = rows.map_err(StoreError::from)?.into_iter().find(|(c, _)| id_of(c) == id);
            let (credential, label) =
                found.ok_or_else(|| AccountError::NoPasskey(account.to_string(), id.to_owned()))?;
            t.execute("DELETE FROM passkeys WHERE credential = ?1", [credential]).map_err(StoreError::from)?;
            leave(t, "passkey-removed", account, &format!("{id} {label}"))
        })
    }

    /// Notes the address that the node is known by, for links that are made while it runs and after.
    pub(in super::super) fn note_public_url(&self, url: &str) -> Result<(), StoreError> {
        self.connection().execute("INSERT OR REPLACE INTO node (one, public_url) VALUES (1, ?1)", [url])?;
        Ok(())
    }

    /// Whose link that is; none where it is not good.
    pub(super) fn enrolling(&self, secret: &SecretHash) -> Result<Option<Enrolling>, StoreError> {
        let connection = self.connection();
        let found = connection.query_row(
            "SELECT account, name, handle FROM enrolments JOIN accounts USING (account)
             WHERE secret_sha256 = ?1 AND expires_us > ?2",
            params![secret.0, as_i64(wall_clock())],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)),
        );
        let Some((account, name, handle)) = found.optional()? else { return Ok(None) };
        let Ok(account) = AccountName::from_str(&account) else { return Ok(None) };
        let mut query = connection.prepare("SELECT credential FROM passkeys WHERE account = ?1")?;
        let rows = query.query_map([account.as_str()], |row| row.get::<_, Vec<u8>>(0))?;
        let has = rows.collect::<Result<_, _>>()?;
        Ok(Some(Enrolling { account, name, handle, has }))
    }

    /// Keeps a new passkey, and uses the link up. Whether both could be done.
    pub(super) fn keep(
        &self,
        account: &AccountName,
        link: &SecretHash,
        label: &str,
        passkey: &Passkey,
    ) -> Result<bool, StoreError> {
        let mut connection = self.connection();
        let t = connection.transaction()?;
        let now = as_i64(wall_clock());
        let used = t.execute(
            "DELETE FROM enrolments WHERE secret_sha256 = ?1 AND account = ?2 AND expires_us > ?3",
            params![link.0, account.as_str(), now],
        )?;
        // A credential that is of another account already stays that account's.
        let added = t.execute(
            "INSERT OR IGNORE INTO passkeys (credential, account, label, passkey, created_us) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![passkey.cred_id().as_slice(), account.as_str(), label, text_of(passkey)?, now],
        )?;
        let done = (used, added) == (1, 1);
        if done {
            t.commit()?;
        }
        Ok(done)
    }

    /// A passkey of the account with that handle.
    pub(super) fn kept(&self, handle: &[u8], credential: &[u8]) -> Result<Option<Kept>, StoreError> {
        let found = self.connection().query_row(
            "SELECT account, name, label, passkey FROM passkeys JOIN accounts USING (account)
             WHERE credential = ?1 AND handle = ?2",
            params![credential, handle],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?)),
        );
        let Some((account, name, label, text)) = found.optional()? else { return Ok(None) };
        let (Ok(account), Ok(passkey)) = (AccountName::from_str(&account), serde_json::from_str(&text)) else {
            return Ok(None);
        };
        Ok(Some(Kept { account, name, label, passkey, text }))
    }

    /// Notes a login, with the passkey as it is after it. Whether it was still there as it was before: of two logins that show the same
    /// counter one is let in.
    pub(super) fn used(&self, before: &Kept, after: &Passkey) -> Result<bool, StoreError> {
        let now = as_i64(wall_clock());
        let mut connection = self.connection();
        let t = connection.transaction()?;
        let noted = t.execute(
            "UPDATE passkeys SET passkey = ?3, last_login_us = ?4 WHERE credential = ?1 AND passkey = ?2",
            params![before.passkey.cred_id().as_slice(), before.text, text_of(after)?, now],
        )?;
        t.execute("UPDATE accounts SET last_login_us = ?2 WHERE account = ?1", params![before.account.as_str(), now])?;
        t.commit()?;
        Ok(noted == 1)
    }
}

/// What a passkey is called on the command line: enough of the hash to tell those of an account apart.
fn id_of(credential: &[u8]) -> String {
    SecretHash::of_bytes(credential).short()
}

fn text_of(passkey: &Passkey) -> Result<String, rusqlite::Error> {
    serde_json::to_string(passkey).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn is_there(t: &Connection, account: &AccountName) -> Result<(), AccountError> {
    let found = t.query_row("SELECT 1 FROM accounts WHERE account = ?1", [account.as_str()], |_| Ok(()));
    let found = found.optional().map_err(StoreError::from)?;
    found.ok_or_else(|| AccountError::Missing(account.to_string()))
}

/// Takes the place of the link that the account had.
fn expect(t: &Connection, account: &AccountName, secret: &str) -> Result<(), StoreError> {
    let expires = WallMicros(wall_clock().0.saturating_add(LINK_LIFE_US));
    t.execute(
        "INSERT OR REPLACE INTO enrolments (account, secret_sha256, expires_us) VALUES (?1, ?2, ?3)",
        params![account.as_str(), SecretHash::of(secret).0, as_i64(expires)],
    )?;
    Ok(())
}

fn link(t: &Connection, url: Option<&str>, secret: &str) -> Result<String, AccountError> {
    let known = || t.query_row("SELECT public_url FROM node", [], |row| row.get(0)).optional();
    let url = url.map_or_else(known, |url| Ok(Some(url.to_owned()))).map_err(StoreError::from)?;
    let base = Relying::of(&url.ok_or(AccountError::NoAddress)?)?.base;
    Ok(format!("{base}/#passkey={secret}"))
}
