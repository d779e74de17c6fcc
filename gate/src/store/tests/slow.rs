//! A disk that stalls or is full holds up nobody but itself.

use super::memory::Memory;
use super::{change, entry, intent, open, records, run, who};
use crate::core::{Disk as _, Event, Inbox, What};
use crate::store::layer::{Layer, Name};
use crate::store::queue::{self, DiskHandle, MOST};
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use trocar_control::audit::record::{Event as Kind, Outcome};
use trocar_proto::handover::gate::{DiskAct, DiskDone, Input, Why};
use trocar_proto::handover::message::Mode;
use trocar_proto::handover::types::{Epoch, ExpertId, GrantedSet, Oid};

const OID: Oid = Oid(0xabcd);
const SOON: Duration = Duration::from_secs(10);

/// A disk whose flushes wait until they may go on.
#[derive(Debug, Clone, Default)]
struct Stalling {
    memory: Memory,
    valve: Arc<(Mutex<bool>, Condvar)>,
}

impl Stalling {
    fn stall(&self, stalled: bool) {
        *self.valve.0.lock().unwrap() = stalled;
        self.valve.1.notify_all();
    }
}

impl Layer for Stalling {
    fn length(&mut self, name: Name) -> io::Result<Option<u64>> {
        self.memory.length(name)
    }
    fn read(&mut self, name: Name, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.memory.read(name, offset, length)
    }
    fn write(&mut self, name: Name, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write(name, offset, bytes)
    }
    fn cut(&mut self, name: Name, length: u64) -> io::Result<()> {
        self.memory.cut(name, length)
    }
    fn sync(&mut self, name: Name) -> io::Result<()> {
        let stalled = self.valve.0.lock().unwrap();
        drop(self.valve.1.wait_while(stalled, |s| *s).unwrap());
        self.memory.sync(name)
    }
    fn keep(&mut self, bytes: &[u8]) -> io::Result<String> {
        self.memory.keep(bytes)
    }
    fn set_aside(&mut self, name: Name) -> io::Result<String> {
        self.memory.set_aside(name)
    }
}

fn start<L: Layer + 'static>(layer: L) -> (DiskHandle, Inbox) {
    let inbox = Inbox::default();
    let (_, writer, found) = open(layer);
    (queue::start(writer, run(), inbox.clone(), &found).unwrap(), inbox)
}

fn intend(disk: &mut DiskHandle, epoch: u64) {
    let act =
        DiskAct::Intent { oid: OID, epoch: Epoch(epoch), expert: ExpertId([7; 32]), set: GrantedSet::INSTRUMENTS };
    disk.act(act, &entry(What::Intent(act)));
}

fn answered(inbox: &Inbox) -> DiskDone {
    loop {
        match inbox.pop(SOON) {
            Some(Event::Input(Input::Disk(done))) => return done,
            Some(Event::Input(Input::Unwritten(_))) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_intent_is_answered_when_it_is_on_disk_with_all_before_it_and_names_what_was_durable() {
    // HO-R-011, HO-U-004, HO-U-005, HO-U-007
    let memory = Memory::default();
    let (mut disk, inbox) = start(memory.clone());
    disk.audit(entry(What::Started { detail: "all well".into() }));
    assert!(disk_settles(&disk, &memory, 1));
    disk.audit(entry(change(Mode::Ready, Mode::Granting, 1, Why::Local)));
    intend(&mut disk, 2);
    assert_eq!(answered(&inbox), DiskDone::Durable(OID, Epoch(2)));
    // Of what has reached the disk, not of what was written.
    let durable = memory.0.lock().unwrap().durable[&Name::Chain].clone();
    let [started, change, intent] = <[_; 3]>::try_from(records(&durable)).unwrap();
    assert_eq!((started.event, started.note.as_deref()), (Kind::Started, Some("all well")));
    assert_eq!((change.event, change.actor.role.as_deref()), (Kind::Change, Some("local")));
    assert_eq!(intent.durable.unwrap().seq, 1);
    assert_eq!((intent.event, intent.outcome), (Kind::Intent, Outcome::Intended));
    assert_eq!((intent.epoch, intent.set), (Some(2), vec!["instruments".to_owned()]));
    assert_eq!(intent.oid.as_deref(), Some("0000000000000000000000000000abcd"));
    assert_eq!(intent.step.as_deref(), Some("suturing"));
    let expert = intent.expert.unwrap();
    assert_eq!((expert.user.as_deref(), expert.realm.as_deref()), (Some("dr-sato"), Some("north")));
    assert_eq!(expert.fingerprint, Some("07".repeat(32)));
    assert_eq!((intent.loop_age_p95_us, intent.jitter_p95_us), (Some(31_000), None));
    assert!(disk.finish(SOON));
}

/// Whether the chain has so many records within a while.
fn disk_settles(disk: &DiskHandle, memory: &Memory, records_wanted: usize) -> bool {
    let until = Instant::now() + SOON;
    let mut queue = disk.shared.lock();
    while Instant::now() < until {
        if records(&memory.content(Name::Chain)).len() >= records_wanted {
            return true;
        }
        // Nobody tells when a batch is written: look again.
        queue = disk.shared.woken.wait_timeout(queue, Duration::from_millis(5)).unwrap().0;
    }
    false
}

#[test]
fn records_are_on_disk_soon_without_an_intent() {
    let memory = Memory::default();
    let (mut disk, _inbox) = start(memory.clone());
    let begun = Instant::now();
    disk.audit(entry(What::Started { detail: String::new() }));
    assert!(disk_settles(&disk, &memory, 1));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(disk.finish(SOON));
}

#[test]
fn reservations_are_answered_and_survive() {
    // HO-E-003, HO-E-007
    let memory = Memory::default();
    let (mut disk, inbox) = start(memory.clone());
    disk.act(DiskAct::Reserve(Epoch(40)), &entry(What::Intent(DiskAct::Reserve(Epoch(40)))));
    assert_eq!(answered(&inbox), DiskDone::Reserved(Epoch(40)));
    assert!(disk.finish(SOON));
    let (store, ..) = open(memory);
    assert_eq!(store, trocar_proto::handover::gate::Store::Block { first: Epoch(40), end: Epoch(56) });
}

#[test]
fn a_stalled_disk_holds_up_no_caller_keeps_intents_and_says_how_many_records_were_lost() {
    // HO-E-008, HO-G-021, HO-U-007, HO-X-018
    let disk_below = Stalling::default();
    let (mut disk, inbox) = start(disk_below.clone());
    disk_below.stall(true);
    intend(&mut disk, 2);
    let until = Instant::now() + SOON;
    while disk.shared.lock().has_intent() {
        assert!(Instant::now() < until, "the disk's thread took nothing");
        std::thread::yield_now();
    }
    let begun = Instant::now();
    for n in 0..MOST + 1_000 {
        disk.audit(entry(What::ActRefused(format!("{n}"))));
    }
    intend(&mut disk, 4);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(inbox.pop(Duration::ZERO).is_none(), "nothing is durable while the disk stalls");
    let lost = disk.lost();
    assert_eq!(lost, 1_001);
    disk_below.stall(false);
    assert_eq!(answered(&inbox), DiskDone::Durable(OID, Epoch(2)));
    assert_eq!(answered(&inbox), DiskDone::Durable(OID, Epoch(4)));
    assert!(disk.finish(SOON));
    let records = records(&disk_below.memory.content(Name::Chain));
    assert_eq!(records.iter().map(|r| r.lost).sum::<u64>(), lost);
    assert_eq!(records.iter().filter(|r| r.event == Kind::Intent).count(), 2);
    assert_eq!(records.last().unwrap().event, Kind::Intent);
    // The newest are kept.
    let newest = records.iter().rev().nth(1).unwrap().reason.clone();
    assert_eq!(newest, Some(format!("{}", MOST + 999)));
}

#[test]
fn on_a_full_disk_an_intent_fails_at_once_and_records_follow_when_there_is_room() {
    // HO-E-008, HO-X-018, HO-U-008
    let memory = Memory::default();
    let (mut disk, inbox) = start(memory.clone());
    memory.change(|f| f.full = true);
    disk.audit(entry(change(Mode::Ready, Mode::Granting, 1, Why::Local)));
    intend(&mut disk, 2);
    assert_eq!(answered(&inbox), DiskDone::Failed(OID, Epoch(2)));
    disk.audit(entry(change(Mode::Granting, Mode::Local, 1, Why::Disk)));
    memory.change(|f| f.full = false);
    assert!(disk_settles(&disk, &memory, 2));
    assert!(disk.finish(SOON));
    let records = records(&memory.content(Name::Chain));
    let reasons: Vec<_> = records.iter().filter_map(|r| r.reason.as_deref()).collect();
    assert_eq!(reasons, ["act of local", "the intent could not be written"], "the failed intent is not among them");
    assert_eq!(disk.lost(), 0);
    assert_eq!(memory.content(Name::Chain), memory.content(Name::ChainCopy));
    let told = std::iter::from_fn(|| inbox.pop(std::time::Duration::ZERO)).last();
    assert!(matches!(told, Some(Event::Input(Input::Unwritten(false)))), "{told:?}");
}

#[test]
fn a_write_that_fails_half_way_leaves_nothing_of_it_in_the_chain() {
    let memory = Memory::default();
    let (_, writer, _) = open(memory.clone());
    let mut writer = writer.unwrap();
    writer.write(&[super::note(1)], 0, &run()).unwrap();
    let good = memory.content(Name::Chain);
    memory.change(|f| f.power = Some(700));
    assert!(writer.write(&[intent(3)], 0, &run()).is_err());
    assert!(memory.content(Name::Chain).len() > good.len());
    memory.change(|f| f.power = None);
    writer.write(&[super::note(2)], 0, &run()).unwrap();
    let events: Vec<_> = records(&memory.content(Name::Chain)).into_iter().map(|r| r.event).collect();
    assert_eq!(events, [Kind::Started, Kind::Started]);
    assert_eq!(memory.content(Name::Chain), memory.content(Name::ChainCopy));
}

#[test]
fn without_a_chain_intents_fail_and_records_are_counted_as_lost() {
    // HO-E-005
    let inbox = Inbox::default();
    let mut disk = queue::start::<Memory>(None, run(), inbox.clone(), &["no disk".to_owned()]).unwrap();
    disk.audit(entry(What::Started { detail: String::new() }));
    intend(&mut disk, 2);
    assert_eq!(answered(&inbox), DiskDone::Failed(OID, Epoch(2)));
    assert!(disk.finish(SOON));
    assert_eq!(disk.lost(), 3);
    intend(&mut disk, 4);
    assert_eq!(answered(&inbox), DiskDone::Failed(OID, Epoch(4)));
}

#[test]
fn a_real_directory_is_made_used_and_opened_again() {
    // HO-E-001, HO-E-003
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let cfg = trocar_proto::handover::config::Config::default();
    let mut first = 0;
    for n in 0..3 {
        let inbox = Inbox::default();
        let mut opened = crate::store::open(&path, &cfg, run(), inbox.clone()).unwrap();
        let trocar_proto::handover::gate::Store::Block { first: now, end } = opened.store else {
            panic!("{:?}", opened.found)
        };
        assert!(now.0 > first && end.0 == now.0 + 16);
        first = end.0 - 1;
        assert_eq!(opened.found, Vec::<String>::new());
        let again = crate::store::open(&path, &cfg, run(), Inbox::default()).unwrap_err().to_string();
        assert!(again.contains("another gate runs with this store"), "{again}");
        opened.disk.audit(entry(change(Mode::Hold, Mode::Local, now.0, Why::Local)));
        intend(&mut opened.disk, now.0 + 1);
        assert_eq!(answered(&inbox), DiskDone::Durable(OID, Epoch(now.0 + 1)));
        let verified = trocar_control::audit::verify(&path).unwrap();
        assert_eq!(verified.records, 2 * (n + 1));
        assert!(verified.has_copy);
        assert!(opened.disk.finish(SOON));
        assert!(trocar_control::audit::verify(&path).unwrap().has_head);
    }
    assert!(crate::store::create(&path, Epoch(500)).unwrap_err().contains("there is a store already"));
    let fresh = dir.path().join("fresh");
    crate::store::create(&fresh, Epoch(500)).unwrap();
    let opened = crate::store::open(&fresh, &cfg, run(), Inbox::default()).unwrap();
    assert_eq!(opened.store, trocar_proto::handover::gate::Store::Block { first: Epoch(501), end: Epoch(517) });
}

#[test]
fn a_directory_that_cannot_be_written_is_unreadable_and_not_a_reason_to_stay_away() {
    // HO-E-005
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let cfg = trocar_proto::handover::config::Config::default();
    let mut opened = crate::store::open(&file.join("store"), &cfg, run(), Inbox::default()).unwrap();
    assert_eq!(opened.store, trocar_proto::handover::gate::Store::Unreadable);
    assert!(opened.found[0].contains("remote is refused for this session"), "{:?}", opened.found);
    assert!(opened.consents.is_none());
    opened.disk.audit(entry(What::Started { detail: who().certificate }));
}
