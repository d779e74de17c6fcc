//! The audit chain: what is in it, and that whoever changes it is found out.

use super::*;
use crate::audit::{self, Entry, Filter, Record, Why, as_csv, as_json, as_story, search, verify};
use rusqlite::Connection;
use std::path::{Path, PathBuf};

struct Stored {
    _dir: tempfile::TempDir,
    path: PathBuf,
    config: Config,
}

impl Stored {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trocar.db");
        let config = Config { store: StoreAt::File(path.clone()), ..config() };
        Self { _dir: dir, path, config }
    }

    fn key(&self) -> Vec<u8> {
        crate::token_public_key(self.config.audit_key_pkcs8.as_ref().unwrap()).unwrap()
    }

    /// A chain of `records` records and more, closed.
    async fn filled(records: usize) -> Self {
        let stored = Self::new();
        let world = World::with(stored.config.clone()).await;
        for i in 0..records {
            world.app.record_denial_anyway(&format!("attempt {i}"));
            world.app.settled().await.unwrap();
        }
        world.app.store.stop().await;
        stored
    }

    fn change(&self, sql: &str) {
        Connection::open(&self.path).unwrap().execute_batch(sql).unwrap();
    }
}

fn all(path: &Path) -> Vec<audit::Row> {
    search(path, &Filter::default()).unwrap()
}

#[tokio::test]
async fn who_saw_what_of_whom_and_how_long_is_in_the_chain() {
    let stored = Stored::new();
    let world = World::with(stored.config.clone()).await;
    let session = world.app.create_session_about("Cholecystectomy", Some("NORTH|4711")).await.unwrap();
    let world = World { session: session.clone(), ..world };
    let expert = world.join(Role::Expert).await;
    let observer = world.join(Role::Observer).await;
    assert_eq!(world.publish(&expert.token, "scope").await.status, 201);
    let legs = world.path("/feeds/scope/legs");
    let leg = world.post(&legs, Some(&observer.token), &json!({})).await;
    assert_eq!(leg.status, 201, "{}", leg.text);
    // Written before it was answered.
    let seen = all(&stored.path);
    let started = seen.iter().find(|r| r.record.kind == "view-started").unwrap();
    assert_eq!(started.record.participant.as_deref(), Some(observer.participant.as_str()));
    world.app.close_session(&session, None).await.unwrap();
    world.app.store.stop().await;

    let kinds: Vec<String> = all(&stored.path).into_iter().map(|r| r.record.kind).collect();
    let tail = [
        "joined",
        "token-granted",
        "invited",
        "joined",
        "token-granted",
        "participant.joined",
        "feed.announced",
        "view-started",
    ];
    for kind in tail {
        assert!(kinds.iter().any(|k| k == kind), "{kind} is missing of {kinds:?}");
    }
    let of = |kind: &str| {
        let filter = Filter { kind: Some(kind.to_owned()), patient: Some("4711".to_owned()), ..Filter::default() };
        search(&stored.path, &filter).unwrap()
    };
    let ended = of("view-ended");
    assert_eq!(ended.len(), 1, "{kinds:?}");
    let r = &ended[0].record;
    assert_eq!(
        (r.feed.as_deref(), r.role.as_deref(), r.realm.as_deref()),
        (Some("scope"), Some("observer"), Some("north"))
    );
    assert_eq!((r.patient.as_deref(), r.session.as_deref()), (Some("NORTH|4711"), Some(session.as_str())));
    assert!(r.duration_us.is_some_and(|us| us > 0 && us < 60_000_000), "{r:?}");
    let nobody = Filter { patient: Some("4712".to_owned()), ..Filter::default() };
    assert!(search(&stored.path, &nobody).unwrap().is_empty());

    let verified = verify(&stored.path, Some(&stored.key())).unwrap();
    assert_eq!(verified.records, kinds.len() as u64);
    assert_eq!(verified.head.unwrap().seq, verified.records, "the end of a store that was closed is signed");
    let story = as_story(&ended);
    assert!(
        story.contains("view-ended") && story.contains("patient NORTH|4711") && story.contains("feed scope"),
        "{story}"
    );
}

#[tokio::test]
async fn whatever_is_changed_in_the_chain_is_found_and_named() {
    let at = |seq: u64, why: Why| (seq, why);
    let cases: [(&str, (u64, Why)); 9] = [
        ("UPDATE audit SET record = replace(record, 'attempt 20', 'attempt 21') WHERE seq = 22", at(22, Why::Changed)),
        ("DELETE FROM audit WHERE seq = 30", at(31, Why::Missing { expected: 30 })),
        ("UPDATE audit SET kind = 'joined' WHERE seq = 9", at(9, Why::Column("kind"))),
        ("UPDATE audit SET at_us = at_us + 1 WHERE seq = 9", at(9, Why::Column("at_us"))),
        ("UPDATE audit SET session = 'x' WHERE seq = 9", at(9, Why::Column("session"))),
        ("DELETE FROM audit WHERE seq > 60", at(64, Why::CutOff)),
        ("UPDATE audit_heads SET signature = zeroblob(64) WHERE seq = 64", at(64, Why::Signature)),
        ("UPDATE audit_heads SET at_us = at_us + 1 WHERE seq = 64", at(64, Why::Signature)),
        (
            "UPDATE audit SET record = (SELECT record FROM audit WHERE seq = 5), hash = (SELECT hash FROM audit WHERE seq = 5),
             at_us = (SELECT at_us FROM audit WHERE seq = 5) WHERE seq = 6",
            at(6, Why::DoesNotFollow),
        ),
    ];
    for (sql, (seq, why)) in cases {
        let stored = Stored::filled(80).await;
        assert!(verify(&stored.path, Some(&stored.key())).unwrap().heads >= 2);
        stored.change(sql);
        let bad = verify(&stored.path, None).unwrap_err();
        assert_eq!((bad.seq, bad.why), (seq, why), "{sql}");
    }
}

#[tokio::test]
async fn a_chain_that_was_made_anew_does_not_have_the_heads_that_were_signed() {
    let stored = Stored::filled(70).await;
    // From record 50 on every hash is computed anew, as somebody would who has the file and not the key.
    let db = Connection::open(&stored.path).unwrap();
    let mut previous = String::new();
    for row in all(&stored.path) {
        let mut record: Record = row.record;
        if record.seq >= 50 {
            record.previous.clone_from(&previous);
            record.detail = "nothing happened".to_owned();
            let text = serde_json::to_string(&record).unwrap();
            let hash = crate::secret::SecretHash::of(&text).0;
            db.execute(
                "UPDATE audit SET record = ?2, hash = ?3 WHERE seq = ?1",
                rusqlite::params![record.seq as i64, text, hash],
            )
            .unwrap();
            previous = hex::encode(hash);
        } else {
            previous = row.hash;
        }
    }
    let bad = verify(&stored.path, None).unwrap_err();
    assert_eq!((bad.seq, bad.why), (64, Why::OtherHead));
    // Without the heads nothing is left to find it by: that is why the newest one is noted elsewhere.
    db.execute_batch("DELETE FROM audit_heads").unwrap();
    let unsigned = verify(&stored.path, None).unwrap();
    assert_eq!((unsigned.head, unsigned.heads), (None, 0));
}

#[tokio::test]
async fn heads_of_another_key_are_told_from_ours_and_a_damaged_end_is_not_written_on() {
    let stored = Stored::filled(3).await;
    let other = crate::token_public_key(&generate_token_key().unwrap()).unwrap();
    assert!(matches!(verify(&stored.path, Some(&other)).unwrap_err().why, Why::OtherKey(_)));
    // A new key goes on where the old one ended, and the check names both.
    let rotated = Config { audit_key_pkcs8: Some(generate_token_key().unwrap()), ..stored.config.clone() };
    let world = World::with(rotated).await;
    world.app.store.stop().await;
    assert_eq!(verify(&stored.path, None).unwrap().keys.len(), 2);

    stored.change("UPDATE audit SET record = record || ' ' WHERE seq = (SELECT max(seq) FROM audit)");
    let refused = open_store(&stored.config).err().unwrap();
    assert!(refused.to_string().contains("is not what its hash says"), "{refused}");
    stored.change("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)");
    let refused = open_store(&stored.config).err().unwrap();
    assert!(refused.to_string().contains("a head was signed for record"), "{refused}");
}

#[tokio::test]
async fn what_a_stalled_disk_does_not_take_is_counted_and_no_view_begins_meanwhile() {
    let stored = Stored::new();
    let world = World::with(stored.config.clone()).await;
    let (expert, observer) = (world.join(Role::Expert).await, world.join(Role::Observer).await);
    assert_eq!(world.publish(&expert.token, "scope").await.status, 201);
    world.app.settled().await.unwrap();
    let stall = Connection::open(&stored.path).unwrap();
    stall.execute_batch("BEGIN IMMEDIATE").unwrap();
    for i in 0..1_500 {
        world.app.record_denial_anyway(&format!("attempt {i}"));
    }
    // The thread that writes may come late and make room once more: then it hangs at the disk.
    let dropped = || world.app.figures.records_dropped.get();
    let mut full = std::time::Instant::now();
    while full.elapsed() < Duration::from_millis(300) {
        let before = dropped();
        world.app.record_denial_anyway("one more");
        if dropped() == before {
            full = std::time::Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(dropped() > 0);
    let legs = world.path("/feeds/scope/legs");
    let refused = world.post(&legs, Some(&observer.token), &json!({})).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    let asked = world.relay.asked.lock().unwrap().clone();
    assert!(asked.iter().any(|a| a.starts_with("close_leg")), "the relay keeps it open: {asked:?}");
    stall.execute_batch("COMMIT").unwrap();
    // As soon as the disk takes records again, the chain says what it lacks.
    while world.app.settled().await.is_err() {
        tokio::task::yield_now().await;
    }
    world.app.record_denial_anyway("after it");
    let dropped = world.app.figures.records_dropped.get();
    world.app.store.stop().await;
    let verified = verify(&stored.path, None).unwrap();
    assert_eq!(verified.lost, dropped);
}

#[tokio::test]
async fn what_is_handed_out_can_be_checked_line_by_line() {
    let stored = Stored::filled(4).await;
    let rows = all(&stored.path);
    for (line, row) in as_json(&rows).lines().zip(&rows) {
        let (bytes, hash) = line.rsplit_once(",\"hash\":\"").unwrap();
        let hash = hash.strip_suffix("\"}").unwrap();
        assert_eq!(hex::encode(crate::secret::SecretHash::of(&format!("{bytes}}}")).0), hash);
        assert_eq!(hash, row.hash);
    }
    let csv = as_csv(&rows);
    assert_eq!(csv.split("\r\n").count(), rows.len() + 2);
    assert!(csv.starts_with("seq,utc,"));
    let entry = Entry { name: Some("\u{1b}[2J=evil,\"x\"".to_owned()), ..Entry::now("joined") };
    let world = World::with(stored.config.clone()).await;
    world.app.store.write(vec![crate::store::Row::Event(Box::new(entry))]).await.unwrap();
    world.app.store.stop().await;
    let rows = all(&stored.path);
    assert!(!as_story(&rows).contains('\u{1b}'));
}
