//! A register for tests: one view, changed as each test needs it.

use super::model::{Around, Model};
use crate::consent::Withdrawal;
use crate::core::{Connected, View, Who};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use trocar_proto::handover::config::Config;
use trocar_proto::handover::gate::{Alarms, DeviceReport};
use trocar_proto::handover::message::{Figures, Mode, Short};
use trocar_proto::handover::types::{BootId, ChannelId, Colours, Epoch, ExpertId, GrantedSet, Selection};
use trocar_proto::session::role::{Grade, Role};
use trocar_proto::units::Micros;

/// The gate's clock in these tests: 100 s.
pub(super) const NOW: Micros = Micros(100_000_000);

pub(super) fn text(text: &str) -> Short {
    Short::new(text).unwrap()
}

pub(super) fn who(n: u8, person: &str, role: Role, grade: Grade) -> Who {
    let name = if person.is_empty() { format!("station-{n}") } else { person.to_owned() };
    Who {
        expert: ExpertId([n; 32]),
        certificate: format!("trocar://hospital/station/{name}"),
        person: Some(text(&format!("p{n}"))),
        role: Some(role),
        grade: Some(grade),
    }
}

fn connected(n: u8, person: &str, role: Role, grade: Grade) -> Connected {
    Connected { channel: ChannelId(u32::from(n)), who: who(n, person, role, grade), is_signaling: false }
}

/// LOCAL for 65 s, everything well, two experts and an observer.
pub(super) fn local() -> View {
    View {
        at: NOW,
        mode: Mode::Local,
        since: Micros(35_000_000),
        epoch: Epoch(17),
        expert: None,
        set: GrantedSet::default(),
        step: Short::default(),
        until: None,
        stopped: None,
        colours: Colours::default(),
        figures: Figures::default(),
        alarms: Alarms(0),
        device: Some((report(Selection::Local), NOW)),
        connected: vec![
            connected(1, "Dr. Ito", Role::Expert, Grade::Energy),
            connected(2, "Dr. Berg", Role::Expert, Grade::Camera),
            connected(3, "Trainee", Role::Observer, Grade::Observe),
        ],
        notices: Vec::new(),
        answered: None,
        paths: trocar_proto::handover::paths::Protection::default(),
        counters: vec![("refused datagrams", 3)],
        troubles: Vec::new(),
        config: Arc::new(Config::default()),
    }
}

pub(super) fn report(selected: Selection) -> DeviceReport {
    let (highest, owner) = (Epoch(17), Some(BootId(1)));
    DeviceReport {
        highest,
        owner,
        selected,
        sequence: 3,
        latched: false,
        overridden: false,
        energy: false,
        held: true,
        rival: false,
    }
}

/// An offer of instruments with energy to Dr. Ito in that state, which ends in 12.3 s.
pub(super) fn open(mode: Mode) -> View {
    View {
        mode,
        expert: Some(who(1, "Dr. Ito", Role::Expert, Grade::Energy)),
        set: GrantedSet::ENERGY,
        step: text("dissection of the cystic duct"),
        until: Some(NOW.plus(12_345_678)),
        ..local()
    }
}

/// READY, all four link gates green.
pub(super) fn ready() -> View {
    View { colours: Colours::GREEN, figures: measured(), ..open(Mode::Ready) }
}

pub(super) fn measured() -> Figures {
    Figures { loop_p50: 28_100, loop_p95: 41_730, jitter_p95: 2_260, loss_ppm: 120, frame_age: 138_400 }
}

/// Dr. Ito operates.
pub(super) fn remote() -> View {
    let device = Some((report(Selection::Remote), NOW));
    View { mode: Mode::Remote, epoch: Epoch(18), until: None, device, ..ready() }
}

pub(super) fn hold() -> View {
    let device = Some((report(Selection::Nobody), NOW));
    View { mode: Mode::Hold, device, alarms: Alarms::LINK, ..local() }
}

pub(super) fn model(view: &View) -> Model {
    Model::new(view, &Around::default(), NOW)
}

/// A withdrawal of consent that is heard, and how often it was.
pub(super) fn withdrawal() -> (Withdrawal, Arc<AtomicUsize>) {
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    (Arc::new(move || count.fetch_add(1, Ordering::Relaxed) < usize::MAX), heard)
}
