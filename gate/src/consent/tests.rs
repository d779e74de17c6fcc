use super::*;
use crate::store::{Opened, Run};
use trocar_control::audit::record::{Event as Kind, Hash, Party, Record};
use trocar_control::consent::{sign, withdrawal};
use trocar_control::trust::Identity;
use trocar_testpki::{Authority, Leaf};

const MORNING: WallMicros = WallMicros(1_800_000_000_000_000);
const HOUR: i64 = 3_600_000_000;

/// A gate's directory with store, trust list and document, and who signs.
struct Place {
    dir: tempfile::TempDir,
    signer: Identity,
}

impl Place {
    fn new() -> Self {
        let authority = Authority::new();
        let desk = authority.issue(&Leaf::device("trocar://north/consent/desk").for_clients());
        let key = desk.key();
        let signer = Identity::new(vec![desk.der], key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("trust")).unwrap();
        std::fs::write(dir.path().join("trust/ca.pem"), authority.pem()).unwrap();
        Self { dir, signer }
    }

    fn put(&self, document: &Document) {
        std::fs::write(self.dir.path().join("consent.json"), sign(document, &self.signer).unwrap()).unwrap();
    }

    /// A gate that starts, with the end of its store's lock in the hands of the caller.
    fn start(&self) -> (Watcher, Inbox, DiskHandle) {
        let inbox = Inbox::default();
        let run = Run {
            session: session(),
            patient: vec![],
            gate: Party::default(),
            configuration: Hash::NONE,
            software: "test".into(),
        };
        let cfg = trocar_proto::handover::config::Config::default();
        let store = crate::store::open(&self.dir.path().join("store"), &cfg, run, inbox.clone()).unwrap();
        let Opened { disk, consents, .. } = store;
        let watched = Watched {
            file: Some(self.dir.path().join("consent.json")),
            session: session(),
            trust: self.dir.path().join("trust"),
            consents,
            disk: disk.clone(),
            inbox: inbox.clone(),
        };
        (Watcher::new(watched, Arc::default()), inbox, disk)
    }

    /// What the chain says of consent, once the gate has stopped.
    fn notes(&self) -> Vec<(Option<String>, String, Outcome)> {
        let text = std::fs::read_to_string(self.dir.path().join("store/audit.jsonl")).unwrap();
        let records = text.lines().map(|l| Record::read(l.as_bytes()).unwrap().0);
        let of_consent = records.filter(|r| r.event == Kind::Consent);
        of_consent.map(|r| (r.consent, r.note.unwrap_or_default(), r.outcome)).collect()
    }
}

fn session() -> SessionId {
    SessionId::new("or-1").unwrap()
}

fn document(serial: u64) -> Document {
    Document {
        session: session(),
        serial,
        scope: Scope { view: true, remote_operation: true, ..Scope::default() },
        from: MORNING,
        until: MORNING.offset(8 * HOUR),
        withdrawn: false,
    }
}

fn told(inbox: &Inbox) -> Option<bool> {
    match inbox.pop(Duration::ZERO) {
        Some(Event::Input(Input::Consent(active))) => Some(active),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn stop(watcher: Watcher, disk: &DiskHandle) {
    drop(watcher);
    assert!(disk.finish(Duration::from_secs(10)));
}

#[test]
fn consent_begins_and_ends_with_its_validity_and_each_change_is_told_once() {
    // HO-U-002
    let place = Place::new();
    place.put(&document(1));
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING.offset(-1));
    assert_eq!(told(&inbox), Some(false));
    for (at, want) in [(0, Some(true)), (1, None), (8 * HOUR - 1, None), (8 * HOUR, Some(false)), (9 * HOUR, None)] {
        watcher.look(MORNING.offset(at));
        assert_eq!(told(&inbox), want, "{at}");
    }
    stop(watcher, &disk);
    let notes = place.notes();
    let said: Vec<_> = notes.iter().map(|(_, note, _)| note.as_str()).collect();
    assert_eq!(
        said,
        [
            "document 1 by trocar://north/consent/desk counts: view, remote operation, from 2027-01-15T08:00:00Z until 2027-01-15T16:00:00Z",
            "remote operation is consented to",
            "remote operation is not consented to any more",
        ]
    );
    assert!(notes.iter().all(|(reference, ..)| reference.as_ref().unwrap().starts_with("serial 1 sha256 ")));
}

#[test]
fn a_document_that_withdraws_counts_and_an_older_one_that_is_brought_back_does_not_even_after_a_restart() {
    // HO-U-001, HO-X-017
    let place = Place::new();
    let (first, second) = (document(1), withdrawal(&document(1)));
    place.put(&first);
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(true));
    place.put(&second);
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(false));
    place.put(&first);
    watcher.look(MORNING);
    assert_eq!(told(&inbox), None);
    stop(watcher, &disk);
    drop(disk);
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING);
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(false));
    place.put(&document(3));
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(true), "a higher serial brings it back");
    stop(watcher, &disk);
    let refused: Vec<_> = place.notes().into_iter().filter(|n| n.2 == Outcome::Refused).map(|n| n.1).collect();
    assert_eq!(
        refused, ["a document does not count: serial 1: 2 is already known"; 2],
        "once a start, not once a look"
    );
}

#[test]
fn what_local_withdraws_at_the_console_stays_withdrawn_after_a_restart() {
    // HO-U-001, HO-U-002
    let place = Place::new();
    place.put(&document(1));
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(true));
    watcher.withdraw(MORNING);
    assert_eq!(told(&inbox), Some(false));
    assert_eq!(*watcher.scope.lock().unwrap(), Scope::default());
    stop(watcher, &disk);
    drop(disk);
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(false));
    // The negative control: the next document counts.
    place.put(&document(2));
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(true));
    stop(watcher, &disk);
    assert!(place.notes().iter().any(|n| n.1.contains("was withdrawn at the console before")));
}

#[test]
fn another_document_with_the_same_serial_and_one_of_another_session_do_not_count() {
    // HO-U-001
    let place = Place::new();
    let view_only = Document { scope: Scope { view: true, ..Scope::default() }, ..document(1) };
    place.put(&view_only);
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(false));
    place.put(&document(1));
    watcher.look(MORNING);
    place.put(&Document { session: SessionId::new("or-2").unwrap(), ..document(9) });
    watcher.look(MORNING);
    assert_eq!(told(&inbox), None);
    assert!(watcher.scope.lock().unwrap().view);
    stop(watcher, &disk);
    let refused: Vec<_> = place.notes().into_iter().filter(|n| n.2 == Outcome::Refused).map(|n| n.1).collect();
    assert_eq!(
        refused,
        [
            "a document does not count: another document with serial 1 came first",
            "a document does not count: the consent is for another session",
        ]
    );
}

#[test]
fn a_forged_a_broken_and_a_missing_file_change_nothing() {
    let place = Place::new();
    place.put(&document(1));
    let file = place.dir.path().join("consent.json");
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(true));
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replacen("\"record\": false", "\"record\": true", 1)).unwrap();
    watcher.look(MORNING);
    std::fs::write(&file, "half a docu").unwrap();
    watcher.look(MORNING);
    std::fs::remove_file(&file).unwrap();
    watcher.look(MORNING);
    let pipe = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(pipe.success());
    watcher.look(MORNING);
    assert_eq!(told(&inbox), None);
    assert!(!watcher.scope.lock().unwrap().record);
    stop(watcher, &disk);
    assert_eq!(place.notes().iter().filter(|n| n.2 == Outcome::Refused).count(), 3);
}

#[test]
fn a_signer_whose_authority_is_not_trusted_any_more_vouches_for_nothing() {
    let (place, other) = (Place::new(), Place::new());
    place.put(&document(1));
    let (mut watcher, inbox, disk) = place.start();
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(true));
    let ca = std::fs::read(other.dir.path().join("trust/ca.pem")).unwrap();
    std::fs::write(place.dir.path().join("trust/ca.pem"), ca).unwrap();
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(false));
    stop(watcher, &disk);
}

#[test]
fn without_the_serials_of_earlier_runs_nothing_counts() {
    // HO-U-001
    let place = Place::new();
    place.put(&document(1));
    let (mut watcher, inbox, disk) = place.start();
    watcher.watched.consents = None;
    watcher.look(MORNING);
    assert_eq!(told(&inbox), Some(false));
    stop(watcher, &disk);
}

#[test]
fn the_watch_sees_a_new_document_and_an_act_of_local_and_ends_when_it_is_dropped() {
    // HO-X-017: within a second.
    let place = Place::new();
    let now = wall();
    let current = |serial| Document { from: now, until: now.offset(HOUR), ..document(serial) };
    let (watcher, inbox, disk) = place.start();
    let watch = start(watcher.watched).unwrap();
    let next = || inbox.pop(Duration::from_secs(10));
    assert!(matches!(next(), Some(Event::Input(Input::Consent(false)))));
    // Whole at once: half a document would be refused and read again.
    place.put(&current(1));
    assert!(matches!(next(), Some(Event::Input(Input::Consent(true)))));
    assert!(watch.scope().remote_operation);
    assert!(watch.withdraw());
    assert!(matches!(next(), Some(Event::Input(Input::Consent(false)))));
    drop(watch);
    assert!(disk.finish(Duration::from_secs(10)));
}
