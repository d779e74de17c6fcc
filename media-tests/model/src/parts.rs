//! The parts of the world, and how long its ticks are.

use crate::handover::canon::{Canon, Ruler};
use crate::handover::checks::Checks;
use crate::handover::config::Config;
use crate::handover::gate::{Gate, Verified};
use crate::handover::message::{Datagram, FromGate, Short, ToGate};
use crate::handover::mirror::Mirror;
use crate::handover::station::Station;
use crate::handover::types::{ChannelId, ExpertId};
use crate::session::role::{Grade, Role};
use crate::units::Micros;
use std::hash::{Hash, Hasher};

/// One tick: coarse, so that every limit is a handful of ticks.
pub const TICK: u64 = 250_000;
/// The time that every situation is moved to: more ticks than any limit has.
pub const THEN: u64 = 40 * TICK;

/// Every limit in ticks, in the order in which the real ones have.
#[must_use]
pub fn config() -> Config {
    Config {
        beacon: TICK,
        heartbeat: TICK,
        gap: 2 * TICK,
        lease: 3 * TICK,
        station_silence: 2 * TICK,
        command_age: TICK,
        withdraw_age: TICK,
        withdraw_time: 2 * TICK,
        withdraw_at_once: 2 * TICK,
        frame_stop: 2 * TICK,
        frame_hold: 3 * TICK,
        frame_time: TICK,
        frames_missing: 2,
        offer_time: 2 * TICK,
        ready_time: 4 * TICK,
        grant_time: 2 * TICK,
        stop_hold: 2 * TICK,
        pedal: TICK,
        console: 4 * TICK,
        status: TICK,
        status_age: 2 * TICK,
        keep_alive: TICK,
        watchdog: 2 * TICK,
        device_report: 3 * TICK,
        estop_every: 4 * TICK,
        window: 2,
        epoch_block: 16,
        ..Config::default()
    }
}

/// The machine that a gate runs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host<C: Checks> {
    /// Nothing while it is dead.
    pub gate: Option<Gate<C>>,
    /// SIGSTOP, or a suspended machine.
    pub paused: bool,
    /// It was, and did not look at the time since.
    pub stale: bool,
    /// Its name, and the upper half of its nonces.
    pub boot: u64,
}

/// An expert's station with the expert's hands, and the line to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Desk<C: Checks> {
    /// Nothing while the program is dead.
    pub station: Option<Station<C>>,
    /// The present tunnel.
    pub channel: ChannelId,
    /// Both ends know of it.
    pub connected: bool,
    /// The program is stopped for a while.
    pub paused: bool,
    /// Nothing comes through in either direction.
    pub cut: bool,
    /// HBs sent since the ACCEPT: presence is pressed after the first.
    pub beats: u8,
    /// The expert let go of the dead-man input.
    pub let_go: bool,
    /// The energy pedal is held.
    pub pedal: bool,
    /// The clutch was opened and closed by hand in this control.
    pub clutched: bool,
    /// When a BEACON of the gate came last.
    pub beaconed: Micros,
    /// When the picture on the screen was taken.
    pub sees: Micros,
    /// Reliable messages on their way.
    pub to_gate: Vec<ToGate>,
    /// Reliable messages on their way.
    pub from_gate: Vec<FromGate>,
    /// The expert's screen.
    pub mirror: Mirror,
}

/// A datagram in the hands of the relay. All but `channel` and `datagram` is what the world knows of it and no machine does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sealed {
    /// To which desk; nothing goes to the gate.
    pub down: Option<usize>,
    /// Whose key sealed it.
    pub channel: ChannelId,
    /// What it says.
    pub datagram: Datagram,
    /// Which desk made it; for BEACONs the one that they are for.
    pub by: usize,
    /// When.
    pub at: Micros,
    /// When the picture that its maker saw was taken.
    pub sees: Micros,
    /// It was delivered before.
    pub again: bool,
}

/// What the relay keeps in its hands until it pleases; the rest it delivers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Relay {
    /// So many at most; the oldest is lost.
    pub most: usize,
    /// BEACONs.
    pub beacons: bool,
    /// HBs.
    pub heartbeats: bool,
    /// CMDs.
    pub commands: bool,
    /// A copy of each HB and CMD that it delivers at once.
    pub copies: bool,
}

/// What the video does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Video {
    /// A new picture each tick.
    Live,
    /// The capture card repeats its last picture in new frames.
    Frozen,
    /// Frames are made and do not reach the expert.
    Lost,
}

/// How often what may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// OFFERs.
    pub offers: u8,
    /// WITHDRAW, ESTOP, CLOSE, override and the console's loss.
    pub locals: u8,
    /// DECLINE, RETURN, ESTOP by network, another re-clutch.
    pub experts: u8,
    /// Copies that the relay delivers.
    pub replays: u8,
    /// Messages that a hostile participant makes up.
    pub forges: u8,
    /// Lines cut.
    pub cuts: u8,
    /// Programs killed.
    pub crashes: u8,
    /// Programs stopped for a while.
    pub pauses: u8,
    /// Writes that fail.
    pub failures: u8,
    /// Changes of the link gates' colours.
    pub colours: u8,
    /// Changes of consent.
    pub consents: u8,
    /// Changes of the video, and cameras moved by another.
    pub videos: u8,
    /// Dead-man input and pedals pressed or released.
    pub hands: u8,
    /// Commands beside those that come with each tick.
    pub motions: u8,
    /// Times that the gate sleeps between taking in and handing out.
    pub sleeps: u8,
}

/// What a story is told from; no part of the situation.
#[derive(Debug, Clone, Default)]
pub struct Log(pub Option<Vec<String>>);

impl Log {
    /// Notes a line where somebody listens.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(line());
        }
    }
}

impl PartialEq for Log {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Log {}

impl Hash for Log {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The two experts: Dr. Ash may do everything, Dr. Birch may move the camera.
pub const EXPERTS: [ExpertId; 2] = [ExpertId([1; 32]), ExpertId([2; 32])];

/// What the token of an expert says.
#[must_use]
pub fn token(n: usize) -> Verified {
    let grade = if n == 0 { Grade::Energy } else { Grade::Camera };
    let person = Short::new(if n == 0 { "ash" } else { "birch" }).unwrap_or_default();
    Verified { expert: EXPERTS[n], person, role: Role::Expert, grade }
}

impl<C: Checks> Desk<C> {
    /// Nobody sits there yet.
    #[must_use]
    pub fn new(now: Micros) -> Self {
        Self {
            station: None,
            channel: ChannelId(0),
            connected: false,
            paused: false,
            cut: false,
            beats: 0,
            let_go: false,
            pedal: false,
            clutched: false,
            beaconed: Micros(0),
            sees: now,
            to_gate: Vec::new(),
            from_gate: Vec::new(),
            mirror: Mirror::default(),
        }
    }

    /// The program runs and is not stopped.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.station.is_some() && !self.paused
    }

    pub(crate) fn canon(&mut self, cfg: &Config, by: &Ruler) {
        if let Some(station) = &mut self.station {
            station.canon(by);
        }
        by.past(&mut self.beaconed, cfg.station_silence);
        by.past(&mut self.sees, cfg.frame_hold);
        self.mirror.canon(cfg, by);
        for message in &mut self.to_gate {
            if let ToGate::Probe { nonce } = message {
                by.nonce(nonce);
            }
        }
        for message in &mut self.from_gate {
            if let FromGate::Status(status) = message {
                // An answer counts as long as its probe is remembered.
                status.answers.iter_mut().for_each(|nonce| by.nonce(nonce));
                let oldest = (THEN - cfg.status_age) / TICK;
                status.answers.retain(|nonce| nonce.0 & 0xffff_ffff >= oldest);
            }
        }
    }
}

impl Sealed {
    pub(crate) fn canon(&mut self, by: &Ruler) {
        by.past(&mut self.at, 4 * TICK);
        by.past(&mut self.sees, 4 * TICK);
        match &mut self.datagram {
            Datagram::Heartbeat(hb) => {
                by.counter(hb.binding, &mut hb.counter);
                by.nonce(&mut hb.nonce);
                hb.beat = 0;
                if let Some(echo) = &mut hb.echo {
                    by.frame(echo);
                }
            }
            Datagram::Command(command) => {
                let binding = crate::handover::types::Binding::Epoch(command.epoch);
                by.counter(binding, &mut command.counter);
                by.nonce(&mut command.nonce);
                if let Some(echo) = &mut command.echo {
                    by.frame(echo);
                }
            }
            Datagram::Beacon(beacon) => {
                by.beacon(beacon.binding, &mut beacon.counter);
                by.nonce(&mut beacon.nonce);
            }
        }
    }
}
