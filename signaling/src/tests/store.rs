//! What survives a restart, and files that are refused.

use super::*;
use crate::store::StoreError;
use rusqlite::Connection;
use std::path::Path;
use trocar_proto::units::WallMicros;

fn at(path: &Path) -> Config {
    Config { store: StoreAt::File(path.to_owned()), ..config() }
}

fn open(path: &Path) -> Result<(Store, crate::store::Stored), StoreError> {
    open_store(&at(path))
}

#[tokio::test]
async fn sessions_links_and_people_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = at(&dir.path().join("trocar.db"));
    let world = World::with(config.clone()).await;
    let invitation = world.app.invite(&world.session, Role::Expert, 3600, None).await.unwrap();
    let ada = Shown { name: Some("Ada"), organisation: Some("North Hospital") };
    let grant = world.app.join(&invitation.invitation, ada, Some(CertHash([7; 32]))).await.unwrap();
    let closed = world.app.create_session("closed").await.unwrap();
    world.app.close_session(&closed, None).await.unwrap();
    world.app.store.stop().await;

    let again = World::with(config).await;
    let info = again.get(&format!("/v1/sessions/{}", world.session), &grant.token).await;
    assert_eq!(info.status, 200, "{}", info.text);
    assert_eq!(info.json()["title"], "Cholecystectomy, theatre 2");
    assert!(again.app.join(&invitation.invitation, Shown::default(), None).await.is_ok());
    assert!(again.app.live().session_info(&closed).is_err());
    let path = StoreAt::File(dir.path().join("trocar.db"));
    again.app.store.stop().await;
    let StoreAt::File(path) = path else { unreachable!() };
    let secrets: i64 = Connection::open(path)
        .unwrap()
        .query_row("SELECT count(*) FROM invitations WHERE secret_sha256 = ?1", [invitation.invitation], |r| r.get(0))
        .unwrap();
    assert_eq!(secrets, 0, "only the hash of a secret is stored");
}

#[tokio::test]
async fn joins_and_denials_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trocar.db");
    let world = World::with(at(&path)).await;
    let grant = world.join(Role::Observer).await;
    world.publish(&grant.token, "scope").await.assert_problem(403, "verb-missing", "verbs");
    world.app.store.stop().await;
    let db = Connection::open(&path).unwrap();
    let mut query = db.prepare("SELECT kind, json_extract(record, '$.detail') FROM audit ORDER BY seq").unwrap();
    let rows: Vec<(String, String)> =
        query.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect();
    let kinds: Vec<&str> = rows.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(kinds, ["session-created", "invited", "joined", "token-granted", "denied"]);
    assert!(rows[4].1.starts_with("verb-missing POST /v1/sessions/{session}/feeds"));
}

#[tokio::test]
async fn a_second_process_is_kept_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trocar.db");
    let (first, _) = open(&path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::InUse { .. })));
    first.stop().await;
    assert!(open(&path).is_ok());
}

#[tokio::test]
async fn unknown_foreign_and_broken_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let newer = dir.path().join("newer.db");
    open(&newer).unwrap().0.stop().await;
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(open(&newer), Err(StoreError::UnknownVersion { found: 99, known: 5, .. })));

    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
    assert!(matches!(open(&foreign), Err(StoreError::NotOurs { .. })));

    let text = dir.path().join("text.db");
    std::fs::write(&text, "no database at all, but long enough to be read as one").unwrap();
    assert!(matches!(open(&text), Err(StoreError::Open { .. })));
    assert!(matches!(open(&dir.path().join("no/such/dir.db")), Err(StoreError::Lock { .. })));

    let cut = dir.path().join("cut.db");
    open(&cut).unwrap().0.stop().await;
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(open(&cut).is_err(), "half a file was taken");
}

#[tokio::test]
async fn a_store_of_the_first_version_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trocar.db");
    let world = World::with(at(&path)).await;
    let grant = world.join(Role::Expert).await;
    world.app.store.stop().await;
    let first = "ALTER TABLE participants DROP COLUMN organisation; ALTER TABLE sessions DROP COLUMN patient;
                 DROP TABLE audit; DROP TABLE audit_heads; DROP TABLE consents;
                 ALTER TABLE participants DROP COLUMN account; DROP TABLE accounts; DROP TABLE account_changes;
                 DROP TABLE passkeys; DROP TABLE enrolments; DROP TABLE node;
                 PRAGMA user_version = 1;";
    Connection::open(&path).unwrap().execute_batch(first).unwrap();
    for _ in 0..2 {
        let (store, stored) = open(&path).unwrap();
        assert_eq!(
            (&stored.participants[0].participant, &stored.participants[0].organisation),
            (&grant.participant, &None)
        );
        store.stop().await;
    }
}

/// The tables of accounts before there were passkeys, with one account.
const ACCOUNTS_OF_VERSION_4: &str = "
DROP TABLE accounts; DROP TABLE passkeys; DROP TABLE enrolments; DROP TABLE node;
CREATE TABLE accounts (
    account TEXT PRIMARY KEY, name TEXT NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL, memory_kib INTEGER NOT NULL,
    passes INTEGER NOT NULL, lanes INTEGER NOT NULL, totp BLOB NOT NULL, last_step INTEGER NOT NULL,
    created_us INTEGER NOT NULL, last_login_us INTEGER
) STRICT;
INSERT INTO accounts VALUES ('ada', 'Dr Ada', zeroblob(16), zeroblob(32), 19456, 2, 1, zeroblob(20), 7, 1, 2);
PRAGMA user_version = 4;";

#[tokio::test]
async fn accounts_of_before_passkeys_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trocar.db");
    open(&path).unwrap().0.stop().await;
    Connection::open(&path).unwrap().execute_batch(ACCOUNTS_OF_VERSION_4).unwrap();
    for _ in 0..2 {
        open(&path).unwrap().0.stop().await;
        let accounts = crate::Accounts::open(&path).unwrap().list().unwrap();
        let [ada] = &accounts[..] else { panic!("{accounts:?}") };
        assert_eq!((ada.account.as_str(), ada.name.as_str(), ada.password, ada.passkeys), ("ada", "Dr Ada", true, 0));
        assert_eq!((ada.created, ada.last_login), (WallMicros(1), Some(WallMicros(2))));
    }
    let db = Connection::open(&path).unwrap();
    let (step, handle) = db
        .query_row("SELECT last_step, length(handle) FROM accounts", [], |r| {
            Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?))
        })
        .unwrap();
    assert_eq!((step, handle), (7, 16));
}
