//! What really happened, noted from outside of the machines, and the invariants judged by it.

use crate::handover::canon::Ruler;
use crate::handover::checks::Checks;
use crate::handover::gate::{Alarms, Gate};
use crate::handover::message::{Heartbeat, Mode};
use crate::handover::types::{Binding, Colour, Counter, Epoch, GrantedSet, Oid};
use crate::parts::{EXPERTS, TICK, token};
use crate::units::Micros;
use crate::world::World;

/// Names of the properties, in the order of their bits in `World::broken`.
pub const NAMES: [&str; 20] = [
    "HO-I-001", "HO-I-002", "HO-I-003", "HO-I-004", "HO-I-005", "HO-I-006", "HO-I-007", "HO-I-008", "HO-I-009",
    "HO-I-010", "HO-I-011", "HO-I-012", "HO-I-013", "HO-I-014", "HO-I-016", "HO-I-017", "HO-P-002", "HO-T-001",
    "HO-M-005", "HO-G-021",
];

/// What each of [`NAMES`] says, for a reader of stories.
#[must_use]
pub fn meaning(name: &str) -> &'static str {
    match name {
        "HO-I-001" => "two experts were accepted under one epoch",
        "HO-I-002" => "the epoch fell, stood still, or was used before a disk covered it",
        "HO-I-003" => "the device moved by a command that is not the holder's, of this epoch and set",
        "HO-I-004" => "the device moved by a command whose number had been used",
        "HO-I-005" => "the device moved by a command that was too old",
        "HO-I-006" => "an expert got control without offer, acceptance, green links or consent",
        "HO-I-007" => "TAKE was refused, or without effect at the device",
        "HO-I-008" => "an expert kept control although nothing was heard of the expert for the lease",
        "HO-I-009" => "an expert got control without local's confirmation",
        "HO-I-010" => "something resumed by itself",
        "HO-I-011" => "an ACCEPT counted that was not the addressee's for the open offer",
        "HO-I-012" => "a screen said \"you have control\" by an old STATUS",
        "HO-I-013" => "an expert got control before the intent was on disk",
        "HO-I-014" => "the device moved while the expert saw an old picture",
        "HO-I-016" => "energy without instruments, pedal or presence, or in a stop",
        "HO-I-017" => "an offer stayed open beyond its time",
        "HO-I-018" => "after everything healed, the way back to REMOTE was closed",
        "HO-P-002" => "a jump of the counter was adopted",
        "HO-T-001" => "a station went on sending without the gate's BEACON",
        "HO-M-005" => "an ACCEPT counted without a token that covers the set",
        "HO-G-021" => "the device obeyed an expert although the gate had ended it",
        _ => "?",
    }
}

/// The present facts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Truth {
    /// The offer that local made last, until it ended or was granted.
    pub offered: Option<(Oid, usize, GrantedSet)>,
    /// Its addressee accepted it.
    pub accepted: bool,
    /// Local confirmed it; 2 for amber's second confirmation.
    pub confirmed: u8,
    /// Since when it is open.
    pub open_since: Option<Micros>,
    /// Under which epoch the device moved last, by whom, and the command's number.
    pub newest: (Epoch, Counter),
    /// Whom the newest grant named.
    pub granted: Option<(Epoch, usize)>,
    /// When something genuine of the holder came last.
    pub heard: Micros,
    /// Its newest HB: presence, pedal, arrival.
    pub hand: (bool, bool, Micros),
    /// The holder's clutch was seen open since the stop began.
    pub opened: bool,
    /// The holder's clutch as its newest command had it: open.
    pub is_open: bool,
    /// Since when the device is latched under which fence.
    pub latched: Option<Epoch>,
    /// The highest epoch that any gate had.
    pub highest: Epoch,
    /// When each expert was the holder last.
    pub held: [Micros; 2],
    /// The picture that local's publisher took last.
    pub taken: Micros,
}

/// How a gate was before it was spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Was {
    /// Its state.
    pub mode: Mode,
    /// Its epoch.
    pub epoch: Epoch,
    /// Motion ran.
    pub runs: bool,
    /// Its alarms.
    pub alarms: Alarms,
}

impl Was {
    /// Now.
    #[must_use]
    pub fn of<C: Checks>(gate: &Gate<C>) -> Self {
        Self { mode: gate.mode(), epoch: gate.epoch(), runs: gate.motion_runs(), alarms: gate.alarms() }
    }
}

const fn is_open(mode: Mode) -> bool {
    matches!(mode, Mode::Offered | Mode::Ready | Mode::Granting)
}

/// What a CMD's payload says of it: who made it under which epoch. Nobody on the way can alter that.
#[must_use]
pub fn payload(by: usize, epoch: Epoch) -> [u8; 2] {
    [u8::try_from(by).unwrap_or(u8::MAX), (epoch.0 & 0xff) as u8]
}

impl Truth {
    /// Nothing happened yet.
    #[must_use]
    pub const fn new(now: Micros) -> Self {
        Self {
            offered: None,
            accepted: false,
            confirmed: 0,
            open_since: None,
            newest: (Epoch(0), Counter(0)),
            granted: None,
            heard: Micros(0),
            hand: (false, false, Micros(0)),
            opened: false,
            is_open: false,
            latched: None,
            highest: Epoch(0),
            held: [Micros(0); 2],
            taken: now,
        }
    }

    pub(crate) fn canon(&mut self, by: &Ruler) {
        for (time, limit) in [(&mut self.heard, 3 * TICK), (&mut self.hand.2, TICK), (&mut self.taken, 3 * TICK)] {
            by.past(time, limit);
        }
        self.held.iter_mut().for_each(|at| by.past(at, 2 * TICK));
        if let Some(at) = &mut self.open_since {
            by.past(at, 8 * TICK);
        }
        by.counter(Binding::Epoch(self.newest.0), &mut self.newest.1);
    }
}

impl<C: Checks> World<C> {
    /// One of [`NAMES`] is broken.
    pub fn break_it(&mut self, name: &'static str) {
        if let Some(bit) = NAMES.iter().position(|each| *each == name) {
            self.broken |= 1 << bit;
        }
        self.log.note(|| format!("   !! {name} is broken: {}", meaning(name)));
    }

    pub(crate) fn demand(&mut self, holds: bool, name: &'static str) {
        if !holds {
            self.break_it(name);
        }
    }

    /// What became of the gate with the last input, or with time.
    pub(crate) fn watch(&mut self, h: usize, was: Was, cause: Option<(usize, bool)>) {
        let Some(gate) = &self.hosts[h].gate else { return };
        let is = Was::of(gate);
        if was == is {
            return;
        }
        self.watch_epoch(was, is);
        if h != 0 {
            return;
        }
        if was.mode != is.mode {
            self.log.note(|| format!("   gate: {:?} -> {:?}, epoch {}", was.mode, is.mode, is.epoch.0));
        }
        if is.mode == Mode::Remote && (was.mode != Mode::Remote || was.epoch != is.epoch) {
            self.entered(is.epoch);
        }
        if is.mode != Mode::Remote {
            (self.truth.heard, self.truth.hand) = (Micros(0), (false, false, Micros(0)));
            (self.truth.opened, self.truth.is_open) = (false, false);
        }
        if !is_open(is.mode) && is.mode != Mode::Remote {
            self.truth.offered = None;
            (self.truth.accepted, self.truth.confirmed) = (false, 0);
        }
        if !is_open(is.mode) {
            self.truth.open_since = None;
        }
        if was.runs && !is.runs {
            self.log.note(|| "   gate: motion stopped".into());
            self.truth.opened = self.truth.is_open;
        }
        if is.runs && !was.runs {
            self.log.note(|| "   gate: motion runs".into());
            let by_hand = cause.is_some_and(|(by, again)| !again && self.is_holder(by)) && self.truth.opened;
            self.demand(by_hand, "HO-I-010");
        }
    }

    /// HO-E-001, HO-E-002, HO-E-003.
    fn watch_epoch(&mut self, was: Was, is: Was) {
        let crossed = (was.mode == Mode::Remote) != (is.mode == Mode::Remote);
        let adopted = is.alarms.has(Alarms::STORE);
        let right = if crossed { is.epoch > was.epoch } else { is.epoch == was.epoch || adopted };
        let covered = adopted || is.epoch.0 < self.on_disk;
        self.demand(right && covered && is.epoch >= was.epoch, "HO-I-002");
        self.truth.highest = self.truth.highest.max(is.epoch);
    }

    fn is_holder(&self, n: usize) -> bool {
        self.gate().and_then(Gate::holder).is_some_and(|(expert, _)| expert == EXPERTS[n])
    }

    /// HO-I-001, HO-I-002, HO-I-006, HO-I-009, HO-I-010, HO-I-013.
    fn entered(&mut self, epoch: Epoch) {
        let Some((oid, n, set)) = self.truth.offered.take() else {
            self.break_it("HO-I-006");
            self.break_it("HO-I-010");
            return;
        };
        let holder = self.gate().and_then(Gate::holder);
        self.demand(self.truth.accepted && holder == Some((EXPERTS[n], set)) && self.consent, "HO-I-006");
        let colour = self.colours.overall();
        let linked = colour == Colour::Green || (colour == Colour::Amber && self.truth.confirmed == 2);
        self.demand(linked, "HO-I-006");
        self.demand(self.truth.confirmed > 0, "HO-I-009");
        self.demand(self.durable.contains(&(oid, epoch)), "HO-I-013");
        self.demand(epoch.0 + 1 < self.on_disk, "HO-I-002");
        let former = self.truth.granted.replace((epoch, n));
        self.demand(former.is_none_or(|(before, _)| before < epoch), "HO-I-001");
        self.truth.heard = self.now();
        self.truth.hand = (false, false, self.now());
        (self.truth.opened, self.truth.is_open) = (false, false);
    }

    /// An ACCEPT counted.
    pub(crate) fn accepted(&mut self, by: usize, oid: Oid) {
        let Some((open, addressee, set)) = self.truth.offered else { return self.break_it("HO-I-011") };
        self.demand((open, addressee) == (oid, by), "HO-I-011");
        self.demand(token(by).grade >= set.grade(), "HO-M-005");
        self.truth.accepted = true;
    }

    /// A genuine HB came for the first time, and counted.
    pub(crate) fn heard(&mut self, by: usize, hb: &Heartbeat) {
        if self.is_holder(by) && matches!(hb.binding, Binding::Epoch(_)) {
            self.truth.heard = self.now();
            self.truth.hand = (hb.presence, hb.pedal, self.now());
        }
    }

    /// A genuine CMD of the holder came for the first time, with the clutch like this.
    pub(crate) fn clutch_was(&mut self, by: usize, open: bool) {
        if self.is_holder(by) {
            self.truth.is_open = open;
            self.truth.opened |= open;
        }
    }

    /// Judged where it moves: HO-I-001, HO-I-003, HO-I-004, HO-I-005, HO-I-010, HO-I-013, HO-I-014, HO-I-016.
    pub(crate) fn moved(&mut self, fence: Epoch, counter: Counter, set: GrantedSet, energy: bool, payload: &[u8]) {
        let (by, made) = (payload.first().copied().unwrap_or(9), payload.get(1).copied().unwrap_or(0));
        let (now, carried) = (self.now(), self.carried);
        self.log.note(|| {
            let age = carried.map_or(0, |(at, _)| now.since(at) / TICK);
            let with = if energy { ", energy on" } else { "" };
            let who = if by == 0 { "Ash" } else { "Birch" };
            format!("   DEVICE MOVES: command {} of {who}, made under epoch {made}, {age} ticks old{with}", counter.0)
        });
        let is = self.gate().map(|g| (g.mode(), g.epoch(), g.holder()));
        let holder = (by < 2).then(|| (EXPERTS[usize::from(by.min(1))], set));
        let right = is == Some((Mode::Remote, fence, holder)) && u64::from(made) == fence.0 & 0xff;
        self.demand(right, "HO-I-003");
        let (epoch, newest) = self.truth.newest;
        self.demand(epoch < fence || (epoch == fence && newest < counter), "HO-I-004");
        self.truth.newest = (fence, counter);
        self.demand(carried.is_some_and(|(at, _)| now.since(at) <= TICK), "HO-I-005");
        self.demand(carried.is_some_and(|(_, sees)| now.since(sees) <= 2 * TICK), "HO-I-014");
        self.demand(self.durable.iter().any(|(_, epoch)| *epoch == fence), "HO-I-013");
        self.demand(self.truth.latched != Some(fence) && !self.fence.is_latched(), "HO-I-010");
        if energy {
            let (presence, pedal, at) = self.truth.hand;
            let hand = presence && pedal && now.since(at) <= TICK;
            self.demand(set.energy && set.instruments && hand, "HO-I-016");
        }
    }

    /// What has to hold in every situation.
    pub(crate) fn judge(&mut self) {
        let now = self.now();
        let runs = self.hosts[0].gate.is_some() && !self.hosts[0].stale;
        let state = self.gate().filter(|_| runs).map(|g| (g.mode(), g.epoch(), g.holder(), g.motion_runs()));
        if let Some((mode, epoch, holder, motion)) = state {
            let remote = mode == Mode::Remote;
            self.demand(!remote || now.since(self.truth.heard) < 3 * TICK, "HO-I-008");
            let open = self.truth.open_since.filter(|_| is_open(mode));
            self.demand(open.is_none_or(|at| now.since(at) < 8 * TICK), "HO-I-017");
            let ours = self.fence.report().owner.is_some_and(|boot| boot.0 == u128::from(self.hosts[0].boot));
            if self.device_link && self.device_synced && ours {
                self.demand(
                    !self.energy || (motion && holder.is_some_and(|(_, s)| s.energy && s.instruments)),
                    "HO-I-016",
                );
                self.demand(!self.fence.obeys_remote() || (remote && self.fence.highest() == epoch), "HO-G-021");
            }
            if let (true, Some((expert, _))) = (remote, holder) {
                let n = usize::from(expert != EXPERTS[0]);
                self.truth.held[n] = now;
            }
        }
        self.demand(!self.energy || self.fence.obeys_remote(), "HO-I-016");
        let held: Vec<_> = self.desks.iter().filter_map(|d| d.station.as_ref()?.held()).collect();
        self.demand(held.len() < 2 || held[0] != held[1], "HO-I-001");
        for (n, expert) in EXPERTS.iter().enumerate().take(self.desks.len()) {
            let desk = &self.desks[n];
            if !desk.runs() {
                continue;
            }
            let says = desk.mirror.has_control(now, &crate::parts::config(), *expert);
            let held = now.since(self.truth.held[n]) <= 2 * TICK;
            self.demand(!says || held, "HO-I-012");
        }
        // A hold of the watchdog is never overcome by the fence that it came under.
        if self.fence.is_latched() {
            self.truth.latched = Some(self.fence.highest());
        }
        let latched = self.truth.latched == Some(self.fence.highest());
        self.demand(!latched || !self.fence.obeys_remote(), "HO-I-010");
    }
}
