//! Records whose time is over: what goes, what stays, and that nothing else can go.

use super::*;
use crate::audit::{Entry, Filter, Prune, Record, Retention, Signer, Why, Work, plan, search, verify};
use crate::store::Row;
use crate::token::token_public_key;
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use trocar_proto::units::WallMicros;

const DAY_US: u64 = 86_400_000_000;

struct Kept {
    dir: tempfile::TempDir,
    path: PathBuf,
    config: Config,
    world: World,
}

impl Kept {
    /// A chain with records of 100 days ago, refusals among them, and of today.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trocar.db");
        let config = Config { store: StoreAt::File(path.clone()), ..config() };
        let world = World::with(config.clone()).await;
        let old = WallMicros(wall_clock().0 - 100 * DAY_US);
        let kinds = ["denied", "denied", "view-started", "denied", "consent-given", "view-ended", "stopped", "denied"];
        let rows = kinds.map(|kind| Row::Event(Box::new(Entry { at: old, ..Entry::now(kind).saying("secret") })));
        world.app.store.write(rows.into()).await.unwrap();
        world.app.store.write(vec![Row::Event(Box::new(Entry::now("denied")))]).await.unwrap();
        Self { dir, path, config, world }
    }

    fn key(&self) -> Vec<u8> {
        token_public_key(self.config.audit_key_pkcs8.as_ref().unwrap()).unwrap()
    }

    fn plan(&self, keep: Retention) -> Option<Prune> {
        plan(&self.path, &keep, false, wall_clock()).unwrap()
    }

    async fn prune(&self, keep: Retention) {
        let prune = self.plan(keep).expect("nothing to remove");
        self.world.app.store.write(vec![Row::Audit(Work::Prune(prune))]).await.unwrap();
    }

    fn kinds(&self) -> Vec<String> {
        search(&self.path, &Filter::default()).unwrap().into_iter().map(|r| r.record.kind).collect()
    }
}

const DENIALS: Retention =
    Retention { access_days: None, denial_days: Some(30), consent_days: None, system_days: None };

#[tokio::test]
async fn records_of_a_class_go_when_their_time_is_over_and_the_chain_stays_whole() {
    let kept = Kept::new().await;
    let before = verify(&kept.path, Some(&kept.key())).unwrap();
    assert_eq!(kept.plan(Retention::default()).map(drop), None, "nothing goes unless that is configured");
    assert_eq!(kept.plan(Retention { denial_days: Some(365), ..DENIALS }).map(drop), None);
    assert_eq!(plan(&kept.path, &DENIALS, true, wall_clock()).unwrap().map(drop), None, "not before it was sent");
    kept.prune(DENIALS).await;
    let after = verify(&kept.path, Some(&kept.key())).unwrap();
    assert_eq!((after.pruned, after.records, after.end), (4, before.records - 4 + 1, before.end + 1));
    assert_eq!(after.head.unwrap().seq, after.end, "what was removed is signed at once");
    let kinds = kept.kinds();
    assert_eq!(kinds.iter().filter(|k| *k == "denied").count(), 1, "the one of today: {kinds:?}");
    assert!(["view-started", "view-ended", "consent-given", "stopped"].iter().all(|k| kinds.iter().any(|is| is == k)));
    assert_eq!(kept.plan(DENIALS).map(drop), None, "once");
    // The holes of two times meet; what says so is never removed.
    kept.prune(Retention { access_days: Some(1), consent_days: Some(1), system_days: Some(1), ..DENIALS }).await;
    let at_last = verify(&kept.path, Some(&kept.key())).unwrap();
    assert_eq!((at_last.pruned, at_last.end), (8, after.end + 1));
    assert_eq!(kept.kinds().iter().filter(|k| *k == "audit-pruned").count(), 2);
    kept.world.app.store.stop().await;
    // It goes on as before after a restart.
    let again = World::with(kept.config.clone()).await;
    again.app.store.stop().await;
    assert_eq!(verify(&kept.path, Some(&kept.key())).unwrap().pruned, 8);
}

#[tokio::test]
async fn a_hole_that_no_signed_record_closes_is_found() {
    let kept = Kept::new().await;
    let first = search(&kept.path, &Filter { kind: Some("denied".into()), ..Filter::default() }).unwrap()[0].clone();
    let of = first.record.seq;
    kept.prune(DENIALS).await;
    kept.world.app.store.stop().await;
    let bad = |name: &str, change: &dyn Fn(&Connection)| {
        let copy = kept.dir.path().join(format!("{name}.db"));
        copy_store(&kept.path, &copy);
        change(&Connection::open(&copy).unwrap());
        (verify(&copy, None).unwrap_err(), verify(&copy, Some(&kept.key())).unwrap_err())
    };
    let run = |sql: &str| {
        let sql = sql.to_owned();
        move |db: &Connection| db.execute_batch(&sql).unwrap()
    };
    // The record after the hole goes as well: the hole is larger than what was signed.
    let (e, _) = bad("larger", &run(&format!("DELETE FROM audit WHERE seq = {}", of + 2)));
    assert_eq!((e.seq, e.why), (of + 4, Why::Missing { expected: of + 2 }));
    let (e, _) = bad("unsaid", &run("DELETE FROM audit WHERE seq = 1"));
    assert_eq!((e.seq, e.why), (of + 2, Why::Missing { expected: 1 }));
    // The record that says so goes: it is the newest, and a head was signed for it.
    let said = "(SELECT max(seq) FROM audit WHERE kind = 'audit-pruned')";
    let (e, _) = bad("silent", &run(&format!("DELETE FROM audit WHERE seq = {said}")));
    assert_eq!(e.why, Why::Missing { expected: of });
    // It says something else.
    let (e, _) = bad(
        "lies",
        &run(&format!(
            "UPDATE audit SET record = replace(record, '\\\"from\\\":{of}', '\\\"from\\\":1') WHERE seq = {said}"
        )),
    );
    assert_eq!(e.why, Why::Pruning("its signature is not good"));
    // A removed record is put back, as it was.
    let (e, _) = bad("back", &|db| {
        let r = &first.record;
        db.execute(
            "INSERT INTO audit (seq, at_us, kind, session, participant, record, hash) VALUES (?1, ?2, ?3, NULL, NULL, ?4, ?5)",
            params![of as i64, r.utc_us as i64, r.kind, first.text, hash(&first.text)],
        )
        .unwrap();
    });
    assert!(matches!(e.why, Why::Missing { .. } | Why::NotRemoved(_)), "{e}");
}

#[tokio::test]
async fn whoever_has_the_file_and_not_the_key_cannot_remove() {
    let kept = Kept::new().await;
    kept.world.app.store.stop().await;
    // Somebody removes the first two records and says so in a record that fits the chain, signed with a key of its own.
    let rows = search(&kept.path, &Filter::default()).unwrap();
    let (last, second) = (rows.last().unwrap(), &rows[1]);
    let other = generate_token_key().unwrap();
    let runs = format!("[{{\"from\":1,\"to\":2,\"hash\":\"{}\"}}]", second.hash);
    let forge = |signature: &str, key: &str, name: &str| {
        let copy = kept.dir.path().join(name);
        copy_store(&kept.path, &copy);
        let detail = format!("{{\"count\":2,\"runs\":{runs},\"key\":\"{key}\",\"signature\":\"{signature}\"}}");
        let record = Record {
            seq: last.record.seq + 1,
            previous: last.hash.clone(),
            kind: "audit-pruned".into(),
            detail,
            ..last.record.clone()
        };
        let text = serde_json::to_string(&record).unwrap();
        let db = Connection::open(&copy).unwrap();
        db.execute_batch("DELETE FROM audit WHERE seq <= 2; DELETE FROM audit_heads WHERE seq <= 2").unwrap();
        db.execute(
            "INSERT INTO audit (seq, at_us, kind, session, participant, record, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                record.seq as i64,
                record.utc_us as i64,
                record.kind,
                record.session,
                record.participant,
                text,
                hash(&text)
            ],
        )
        .unwrap();
        copy
    };
    let unsigned = forge(&"00".repeat(64), &hex::encode(kept.key()), "unsigned.db");
    assert_eq!(verify(&unsigned, None).unwrap_err().why, Why::Pruning("its signature is not good"));
    let signed = format!("trocar-audit-pruned-1\n{}\n{}\n1 2 {}\n", last.record.seq + 1, last.hash, second.hash);
    let theirs = forge(
        &hex::encode(Signer::new(&other).unwrap().sign_text(&signed)),
        &hex::encode(token_public_key(&other).unwrap()),
        "theirs.db",
    );
    assert!(matches!(verify(&theirs, Some(&kept.key())).unwrap_err().why, Why::OtherKey(_)));
    // Without a key to compare with, the key that signed it is one that has signed no head of before.
    assert!(matches!(verify(&theirs, None).unwrap_err().why, Why::OtherKey(_)));
}

fn hash(text: &str) -> Vec<u8> {
    crate::secret::SecretHash::of(text).0.to_vec()
}

#[test]
fn a_retention_needs_days_a_key_and_a_file() {
    let of = |keep, key: bool, file: bool| {
        let store = if file { StoreAt::File(Path::new("x").into()) } else { StoreAt::Memory };
        let audit_key_pkcs8 = if key { config().audit_key_pkcs8 } else { None };
        Config { audit_retention: keep, store, audit_key_pkcs8, ..config() }.check().map_err(|e| e.field)
    };
    assert_eq!(of(DENIALS, true, true), Ok(()));
    assert_eq!(of(DENIALS, false, true), Err("audit.retention"));
    assert_eq!(of(DENIALS, true, false), Err("audit.retention"));
    assert_eq!(of(Retention { denial_days: Some(0), ..DENIALS }, true, true), Err("audit.retention.denial_days"));
    assert_eq!(of(Retention::default(), false, false), Ok(()));
}
