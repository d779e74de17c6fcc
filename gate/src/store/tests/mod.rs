//! The store on a disk that tears, fills up, stalls and is tampered with.

mod crash;
mod memory;
mod slow;
mod tamper;

use super::Run;
use super::layer::Layer;
use super::queue::{Facts, Intent, Job, Said, wall};
use super::thread::Writer;
use crate::core::{Entry, What, Who};
use std::sync::Arc;
use trocar_control::audit::record::{Hash, Link, Party, Patient, Record};
use trocar_proto::handover::gate::{Record as Change, Why};
use trocar_proto::handover::message::{Figures, Mode, Short};
use trocar_proto::handover::types::{Colours, Epoch, ExpertId, GrantedSet, Oid};
use trocar_proto::session::ids::SessionId;
use trocar_proto::session::role::{Grade, Role};
use trocar_proto::units::Micros;

pub(super) fn run() -> Run {
    Run {
        session: SessionId::new("or-1").unwrap(),
        patient: vec![Patient { assigner: "urn:oid:1.2.3".into(), value: "0815".into() }],
        gate: Party { device: Some("gate-1".into()), realm: Some("north".into()), ..Party::default() },
        configuration: Hash([1; 32]),
        software: "trocar-gate 0.1.0".into(),
    }
}

pub(super) fn who() -> Who {
    Who {
        expert: ExpertId([7; 32]),
        certificate: "trocar://north/station/console-3".into(),
        person: Some(Short::new("dr-sato").unwrap()),
        role: Some(Role::Expert),
        grade: Some(Grade::Energy),
    }
}

pub(super) fn entry(what: What) -> Entry {
    let figures = Figures { loop_p50: 20_000, loop_p95: 31_000, ..Figures::default() };
    Entry { tick: Micros(1_000), what, actor: Some(who()), figures, colours: Colours::GREEN }
}

pub(super) fn change(from: Mode, to: Mode, epoch: u64, why: Why) -> What {
    What::Change(Change {
        from,
        to,
        epoch: Epoch(epoch),
        oid: Some(Oid(0xabcd)),
        expert: Some(ExpertId([7; 32])),
        set: GrantedSet::INSTRUMENTS,
        step: Short::new("suturing").unwrap(),
        why,
        note: None,
    })
}

pub(super) fn said(said: Said) -> Job {
    Job { utc: wall(), facts: Arc::new(Facts::default()), said }
}

pub(super) fn note(n: u64) -> Job {
    said(Said::Entry(entry(What::Started { detail: format!("note {n}") })))
}

pub(super) fn intent(epoch: u64) -> Job {
    let intent = Intent {
        oid: Oid(0xabcd),
        epoch: Epoch(epoch),
        expert: ExpertId([7; 32]),
        set: GrantedSet::INSTRUMENTS,
        step: Short::new("suturing").unwrap(),
    };
    said(Said::Intent(intent, entry(change(Mode::Granting, Mode::Remote, epoch, Why::Granted))))
}

/// The records of a chain whose every line is good and linked; panics otherwise.
pub(super) fn records(bytes: &[u8]) -> Vec<Record> {
    let mut last = Link::START;
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    lines
        .map(|line| {
            let (record, hash) = Record::read(line.strip_suffix(b"\n").expect("a torn line")).unwrap();
            assert_eq!((record.seq, record.previous), (last.seq + 1, last.hash));
            last = Link { seq: record.seq, hash };
            record
        })
        .collect()
}

pub(super) fn open<L: Layer>(layer: L) -> (trocar_proto::handover::gate::Store, Option<Writer<L>>, Vec<String>) {
    super::open_layer(layer, "store", 16)
}
