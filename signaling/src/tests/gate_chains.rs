//! Gates' chains in signaling's database: taken whole and sealed, bound to signaling's own chain, and refused with an alarm where they fork.

use super::*;
use crate::audit::{self, Filter, IngestError, SealError, ingest, merged_story, seal, search, verify, verify_gates};
use rusqlite::Connection;
use std::path::PathBuf;
use std::time::Instant;
use trocar_control::audit::clock::utc;
use trocar_control::audit::record::{Event, Hash, Record};
use trocar_control::trust::{Identity, Trust};
use trocar_proto::units::WallMicros;
use trocar_testpki::{Authority, Leaf};

/// An authority and two of its certificates.
struct Realm {
    trust: Trust,
    gate: Identity,
    station: Identity,
}

fn realm() -> Realm {
    let authority = Authority::new();
    let leaf = |name: &str| {
        let own = authority.issue(&Leaf::device(name).for_clients());
        let key = own.key();
        Identity::new(vec![own.der], key).unwrap()
    };
    let (gate, station) = (leaf("trocar://north/gate/or-1"), leaf("trocar://north/station/or-1"));
    Realm { trust: Trust::from_pem(authority.pem().as_bytes(), None).unwrap(), gate, station }
}

/// Lines of a gate's chain; `note` tells one chain from another, from a record on.
fn lines(n: u64, note: impl Fn(u64) -> Option<String>) -> Vec<String> {
    let mut previous = Hash::NONE;
    let now = wall_clock().0;
    (1..=n)
        .map(|seq| {
            let record = Record {
                seq,
                previous,
                id: format!("{seq:032x}"),
                utc: utc(WallMicros(now + seq)),
                tick: seq,
                note: note(seq),
                software: "trocar-gate".into(),
                ..Record::empty(SessionId::new("or-1").unwrap(), Event::Request)
            };
            let (line, hash) = record.line().unwrap();
            previous = hash;
            line
        })
        .collect()
}

struct Desk {
    dir: tempfile::TempDir,
    db: PathBuf,
    realm: Realm,
    config: Config,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("trocar.db");
        let config = Config { store: StoreAt::File(db.clone()), ..config() };
        Self { dir, db, realm: realm(), config }
    }

    fn chain(&self, lines: &[String]) -> PathBuf {
        let file = self.dir.path().join("audit.jsonl");
        std::fs::write(&file, lines.concat()).unwrap();
        file
    }

    /// Sealed as it is, then taken.
    fn take(&self, lines: &[String]) -> Result<audit::Taken, IngestError> {
        let chain = self.chain(lines);
        let sealed = seal(&chain, &self.realm.gate, wall_clock())?;
        ingest(&self.db, &chain, sealed.as_bytes(), &self.realm.trust, wall_clock())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gates_chain_is_taken_while_the_server_runs_and_its_own_chain_vouches_for_it() {
    let desk = Desk::new();
    let world = World::with(desk.config.clone()).await;
    let telling = tokio::spawn(audit::tell(desk.db.clone(), world.app.store.clone(), world.app.figures.clone()));
    let all = lines(9, |_| Some("asked".into()));
    let first = desk.take(&all[..5]).unwrap();
    assert_eq!((first.gate.as_str(), first.seq, first.new), ("trocar://north/gate/or-1", 5, 5));
    let second = desk.take(&all).unwrap();
    assert_eq!((second.seq, second.new), (9, 4));
    assert_eq!(desk.take(&all[..7]).unwrap().new, 0, "what is there already is not taken again");
    let said = |kind: &str| search(&desk.db, &Filter { kind: Some(kind.into()), ..Filter::default() }).unwrap();
    until(|| said("gate-audit").len() == 2).await;
    let gates = verify_gates(&desk.db).unwrap();
    assert_eq!((gates.len(), gates[0].records, gates[0].vouched), (1, 9, 9));
    assert_eq!(gates[0].head, second.head);
    // Another chain from the seventh record on, with a good seal: refused, said in the chain, counted.
    let forked = lines(12, |seq| Some(if seq < 7 { "asked" } else { "never asked" }.into()));
    let fork = desk.take(&forked).unwrap_err();
    assert!(matches!(fork, IngestError::Fork(_)), "{fork}");
    until(|| said("gate-audit-alarm").len() == 1).await;
    assert_eq!(world.app.figures.gate_audit_alarms.get(), 1);
    // A gap.
    let gap = [&all[..3], &all[4..]].concat();
    let chain = desk.chain(&all);
    let sealed = seal(&chain, &desk.realm.gate, wall_clock()).unwrap();
    let gap = ingest(&desk.db, &desk.chain(&gap), sealed.as_bytes(), &desk.realm.trust, wall_clock()).unwrap_err();
    assert!(gap.to_string().contains("records 4 to 4 are missing"), "{gap}");
    until(|| said("gate-audit-alarm").len() == 2).await;
    assert_eq!(verify_gates(&desk.db).unwrap(), gates, "nothing of a refused chain stays");
    telling.abort();
    world.app.store.stop().await;
    verify(&desk.db, None).unwrap();
    let story = merged_story(&desk.db, &Filter::default()).unwrap();
    let at = |what: &str| story.find(what).unwrap_or_else(|| panic!("{what} is not in {story}"));
    assert!(at("session-created") < at("gate.request") && at("gate.request") < at("gate-audit"), "{story}");
    assert_eq!(story.matches("gate.request").count(), 9);

    let spoil = |sql: &str| {
        let copy = desk.dir.path().join("copy.db");
        let _ = std::fs::remove_file(&copy);
        copy_store(&desk.db, &copy);
        Connection::open(&copy).unwrap().execute_batch(sql).unwrap();
        verify_gates(&copy).unwrap_err().to_string()
    };
    let changed = spoil("UPDATE gate_records SET line = replace(line, 'asked', 'ASKED') WHERE seq = 4");
    assert!(changed.contains("record 4: its bytes were changed"), "{changed}");
    assert!(spoil("DELETE FROM gate_records WHERE seq = 4").contains("record 4: it is missing"));
    let cut = spoil("DELETE FROM gate_records WHERE seq > 8");
    assert!(cut.contains("record 9: signaling's chain names it"), "{cut}");
}

#[test]
fn a_chain_without_a_good_seal_of_the_gate_is_not_taken() {
    let desk = Desk::new();
    drop(open_store(&desk.config).unwrap());
    let chain = desk.chain(&lines(5, |_| None));
    let (now, trust) = (wall_clock(), &desk.realm.trust);
    let station = seal(&chain, &desk.realm.station, now).unwrap_err();
    assert!(matches!(station, SealError::Role(_)), "{station}");
    let sealed = seal(&chain, &desk.realm.gate, now).unwrap();
    let with = |seal: &str, trust: &Trust| ingest(&desk.db, &chain, seal.as_bytes(), trust, now);
    let later = with(&sealed.replace("\"seq\": 5", "\"seq\": 4"), trust).unwrap_err();
    assert!(matches!(later, IngestError::Seal(SealError::Signature)), "{later}");
    let renamed = with(&sealed.replace("gate/or-1", "gate/or-2"), trust).unwrap_err();
    assert!(matches!(renamed, IngestError::Seal(SealError::Role(_))), "{renamed}");
    let stranger = with(&sealed, &realm().trust).unwrap_err();
    assert!(matches!(stranger, IngestError::Seal(SealError::Distrusted { .. })), "{stranger}");
    assert!(with("{}", trust).is_err());
    // The chain was made anew after it was sealed, or cut.
    for other in [lines(5, |_| Some("anew".into())), lines(3, |_| None)] {
        let refused = ingest(&desk.db, &desk.chain(&other), sealed.as_bytes(), trust, now).unwrap_err();
        assert!(matches!(refused, IngestError::NotSealed { seq: 5, .. }), "{refused}");
    }
    assert!(verify_gates(&desk.db).unwrap().is_empty());
    assert!(ingest(&desk.chain(&[]), &chain, sealed.as_bytes(), trust, now).is_err(), "no database");
}

async fn until(is: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < deadline, "it does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
