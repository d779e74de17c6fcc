//! The gate: the arbiter at the patient's side. [`Gate::handle`] takes one thing in, [`Gate::poll`] gives out what is to be done.
//!
//! Driving contract: after each `handle`, `poll` until it gives nothing. `now` is CLOCK_BOOTTIME of the gate's machine, read again
//! for every call: a poll with a later time hands out less, never more. Tick at least every 5 ms.

mod actuate;
mod beacons;
mod channels;
mod datagrams;
mod device;
mod epochs;
mod experts;
mod frames;
mod grant;
mod local;
mod output;
mod police;
mod register;
mod status;
mod stops;
mod talk;
mod timers;
mod world;

#[cfg(trocar_model)]
mod canon;

#[cfg(test)]
mod tests;

pub use beacons::Beacons;
pub use epochs::Store;
pub use frames::FrameReport;
pub use output::{
    Act, Alarms, DeviceAct, DeviceReport, DiskAct, DiskDone, Input, Notice, Output, Peer, Record, Sample, Start,
    Verified, Why,
};
pub use register::Offer;
pub use stops::Causes;
pub use talk::Judgement;

use super::checks::{Checks, Strict};
use super::config::Config;
use super::message::{FromGate, Mode, Reason, Short};
use super::paths::Protection;
use super::types::{ChannelId, Epoch, ExpertId, GrantedSet};
use crate::units::Micros;
use channels::{Channels, Estops};
use device::Device;
use epochs::Epochs;
use frames::FrameLog;
use output::Outbox;
use register::State;
use std::marker::PhantomData;

/// One gate. Its whole state is a value: cloned, compared and hashed by the model checker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gate<C: Checks = Strict> {
    cfg: Config,
    now: Micros,
    epochs: Epochs,
    state: State,
    since: Micros,
    device: Device,
    channels: Channels,
    estops: Estops,
    frames: FrameLog,
    /// When local's console was alive last.
    console: Option<Micros>,
    /// Whether consent for remote operation is active.
    consent: bool,
    /// Whether the means of remote operation can be used.
    means: bool,
    alarms: Alarms,
    /// Audit records wait that could not be written.
    unwritten: bool,
    /// Experts that have, or had, two paths.
    paths: Vec<(ExpertId, Protection)>,
    status_due: Micros,
    out: Outbox,
    /// For the mutant "auto-resume after HOLD" alone.
    #[cfg(any(test, trocar_model))]
    former: Option<register::Remote>,
    checks: PhantomData<C>,
}

impl Gate<Strict> {
    /// A gate that starts: HOLD, nothing selected until the device or local speaks (HO-G-001, HO-G-002).
    #[must_use]
    pub fn new(cfg: Config, now: Micros, start: Start) -> Self {
        Self::with_checks(cfg, now, start)
    }
}

impl<C: Checks> Gate<C> {
    /// As [`Gate::new`], for the checks that the type names; outside of tests there is one such type.
    #[must_use]
    pub fn with_checks(cfg: Config, now: Micros, start: Start) -> Self {
        let epochs = Epochs::new(start.store);
        let mut device = Device::new(start.boot, now);
        if let Some(fence) = epochs.fence() {
            device.fence(fence);
        }
        let mut alarms = Alarms::default();
        alarms.set(Alarms::STORE, !epochs.is_trusted());
        alarms.set(Alarms::CONSENT, true);
        Self {
            cfg,
            now,
            epochs,
            state: State::Hold,
            since: now,
            device,
            channels: Channels::default(),
            estops: Estops::default(),
            frames: FrameLog::default(),
            console: None,
            consent: false,
            means: true,
            alarms,
            unwritten: false,
            paths: Vec::new(),
            status_due: now,
            out: Outbox::default(),
            #[cfg(any(test, trocar_model))]
            former: None,
            checks: PhantomData,
        }
    }

    /// One thing happened. Timers are judged first (HO-A-011).
    ///
    /// # Errors
    /// Why it was refused. Refused messages were answered with NACK, refused datagrams reported as [`Output::Refused`].
    pub fn handle(&mut self, now: Micros, input: Input) -> Result<(), Reason> {
        self.advance(now);
        let result = match input {
            Input::Tick { nonce } => {
                self.tick(nonce);
                Ok(())
            }
            Input::Local(act) => self.local(act),
            Input::Console => {
                self.console = Some(self.now);
                Ok(())
            }
            Input::Opened { channel, peer } => self.channels.open(channel, peer),
            Input::Gone(channel) => {
                self.channels.close(channel); // HO-M-022
                Ok(())
            }
            Input::Message { channel, message, token } => self.message(channel, message, token),
            Input::Heartbeat(channel, hb) => self.heartbeat(channel, &hb),
            Input::Command(channel, command) => self.command(channel, command),
            Input::Disk(done) => self.disk(done),
            Input::Unwritten(unwritten) => {
                self.unwritten(unwritten);
                Ok(())
            }
            Input::Device(report) => {
                self.device_report(report);
                Ok(())
            }
            Input::Judged(binding, counter, judgement) => {
                let cfg = &self.cfg;
                if let Some(talk) = self.state.talk_mut().filter(|t| t.binding == binding) {
                    talk.judged(counter, judgement, cfg);
                }
                Ok(())
            }
            Input::CameraMoved => {
                if let State::Remote(remote) = &mut self.state {
                    remote.camera_moved = Some(self.now);
                }
                Ok(())
            }
            Input::Frame(report) => {
                if report.frame.source == self.cfg.control_source {
                    self.frames.note(self.now, report);
                }
                Ok(())
            }
            Input::Links(oid, colours, figures) => self.links(oid, colours, figures),
            Input::Consent(active) => {
                self.consent(active);
                Ok(())
            }
            Input::Means(usable) => {
                self.means(usable);
                Ok(())
            }
            Input::Paths(expert, protection) => {
                self.paths(expert, protection);
                Ok(())
            }
            Input::Revoked(expert) => {
                self.revoked(expert);
                Ok(())
            }
        };
        self.judge();
        result
    }

    /// The next thing to be done: for the device first, then everything else. Timers are judged with this `now` before anything
    /// is handed out, and commands once more each.
    pub fn poll(&mut self, now: Micros) -> Option<Output> {
        self.advance(now);
        if let Some(act) = self.device.poll() {
            return Some(Output::Device(act));
        }
        self.next_command().map(Output::Device).or_else(|| self.out.pop())
    }

    /// The state.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.state.mode()
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epochs.current()
    }

    /// The holder and the set, in REMOTE.
    #[must_use]
    pub const fn holder(&self) -> Option<(ExpertId, GrantedSet)> {
        match &self.state {
            State::Remote(remote) => Some((remote.offer.expert, remote.offer.set)),
            _ => None,
        }
    }

    /// The offer that is open or granted.
    #[must_use]
    pub const fn offer(&self) -> Option<&Offer> {
        self.state.offer()
    }

    /// When the open offer, the preparation or the grant runs out.
    #[must_use]
    pub const fn until(&self) -> Option<Micros> {
        self.state.until()
    }

    /// Since when the state is what it is.
    #[must_use]
    pub const fn since(&self) -> Micros {
        self.since
    }

    /// Whether motion runs: REMOTE and no stop.
    #[must_use]
    pub const fn motion_runs(&self) -> bool {
        matches!(&self.state, State::Remote(remote) if remote.stop.is_none())
    }

    /// What local must know.
    #[must_use]
    pub const fn alarms(&self) -> Alarms {
        self.alarms
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.cfg
    }

    /// Changes the state: the one place where that happens. Leaving and entering REMOTE take the next epoch (HO-E-001), the
    /// device is told, all are told, and one record is left (HO-U-005).
    fn become_state(&mut self, to: State, why: Why, note: Option<Short>) {
        let from = std::mem::replace(&mut self.state, to);
        self.since = self.now;
        let (old, new) = (from.mode(), self.state.mode());
        let crossed = (old == Mode::Remote) != (new == Mode::Remote);
        if crossed {
            self.epochs.advance();
            if let Some(fence) = self.epochs.fence() {
                self.device.fence(fence);
            }
        }
        if old == Mode::Remote {
            self.device.stop();
        }
        if crossed || from.selection() != self.state.selection() || new == Mode::Estop {
            self.device.select(self.state.selection());
        }
        let offer = self.state.offer().or_else(|| from.offer());
        let record = Record {
            from: old,
            to: new,
            epoch: self.epochs.current(),
            oid: offer.map(|o| o.oid),
            expert: offer.map(|o| o.expert),
            set: offer.map(|o| o.set).unwrap_or_default(),
            step: offer.map(|o| o.step.clone()).unwrap_or_default(),
            why,
            note,
        };
        self.emit(Output::Audit(record));
        if let Some(offer) = from.offer().filter(|_| from.is_open() && self.state.offer().is_none()) {
            let (expert, oid) = (offer.expert, offer.oid);
            self.send_to(expert, &FromGate::Withdraw { oid });
        }
        #[cfg(any(test, trocar_model))]
        if let (true, State::Remote(remote)) = (new == Mode::Hold, from) {
            self.former = Some(remote);
        }
        self.status_due = self.now; // HO-M-012: on change
        self.tell_status();
    }

    /// REMOTE ends (HO-G-021), or an open offer does.
    fn give_up(&mut self, why: Why, note: Option<Short>) {
        match self.state {
            State::Remote(_) => self.become_state(State::Hold, why, note),
            State::Offered { .. } | State::Ready(_) | State::Granting(_) => {
                self.become_state(State::Local, why, note);
            }
            State::Hold | State::Local | State::Estop | State::Closed => {}
        }
    }

    /// HO-U-008: the alarm stands as long as they wait.
    const fn unwritten(&mut self, unwritten: bool) {
        if unwritten || self.unwritten {
            self.alarms.set(Alarms::DISK, unwritten);
        }
        self.unwritten = unwritten;
    }

    fn alarm(&mut self, which: Alarms) {
        self.alarms.set(which, true);
    }

    fn emit(&mut self, output: Output) {
        if !self.out.push(output) {
            self.alarms.set(Alarms::LOST, true);
        }
    }

    /// To the expert, by all its channels.
    fn send_to(&mut self, expert: ExpertId, message: &FromGate) {
        let to: Vec<ChannelId> = self.channels.of(expert).map(|c| c.id).collect();
        for channel in to {
            self.emit(Output::Send(channel, message.clone()));
        }
    }

    /// To everybody who said HELLO.
    fn send_to_all(&mut self, message: &FromGate) {
        let to: Vec<ChannelId> = self.channels.greeted().collect();
        for channel in to {
            self.emit(Output::Send(channel, message.clone()));
        }
    }

    fn nack(&mut self, channel: ChannelId, reason: Reason) {
        let epoch = self.epochs.current();
        self.emit(Output::Send(channel, FromGate::Nack { reason, epoch }));
    }
}
