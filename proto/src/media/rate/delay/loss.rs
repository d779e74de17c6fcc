//! Losses without a queue: does the line lose because of our rate (a policer), or whatever we send (radio)?
//!
//! Asked by trying: for a second a little less is sent, less by about the share that is lost. A policer then loses next to
//! nothing, a bad line as much as before. The answer holds for a while, and is asked for again after longer and longer.
//! Before that the pace is made even: bursts may be all that a short queue did not take.

use crate::media::rate::PacketResult;
use crate::units::Micros;

/// Results are counted by when they were sent, in slots of this length, in microseconds.
const SLOT_US: u64 = 250_000;
const SLOTS: usize = 24;
/// Slots that are looked at before and during a try.
const LOOK: u64 = 6;
const LOOK_MIN: usize = 4;
const TRY_MAX: usize = 10;
/// Losses below this share are no question.
const MATTERS: f64 = 0.01;
/// From this share on there is no asking: the rate is lowered first.
const HEAVY: f64 = 0.25;
/// How much less is tried: this where the loss is below [`SMALL`], else a share of it, up to a limit.
const TRY_LITTLE: f64 = 0.045;
const SMALL: f64 = 0.06;
const TRY_OF_LOSS: f64 = 0.75;
const TRY_MOST: f64 = 0.2;
/// Share of what a policer let through that is sent from then on.
const AFTER: f64 = 0.98;
/// Standard errors for an answer.
const SURE: f64 = 1.5;
/// How long an answer holds at first and at most, in microseconds: random losses, a policer.
const QUIET_US: (u64, u64) = (30_000_000, 300_000_000);
const POLICED_US: (u64, u64) = (10_000_000, 160_000_000);
/// How long the pace stays even after losses that mattered, in microseconds.
const SMOOTH_US: u64 = 60_000_000;
/// A try makes sense where this share of the target is sent.
const USED: f64 = 0.85;

/// What to do because of losses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Nothing is lost that matters.
    Nothing,
    /// A try is under way.
    Hold,
    /// Nothing is known, but more than this is neither granted nor used.
    Trim(f64),
    /// Send this for a while, bits per second.
    Try(f64),
    /// The try is over, and the losses were not ours: back to this.
    Back(f64),
    /// The line takes no more than this.
    Lower(f64),
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    number: u64,
    bytes: u64,
    lost: u64,
}

/// Sums over slots.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    slots: usize,
    /// Share lost and its standard error over the slots.
    share: f64,
    error: f64,
    /// Bits per second.
    sent: f64,
}

#[derive(Debug, Clone, Copy)]
struct Try {
    before: f64,
    was: Sums,
    /// First slot that counts.
    first: u64,
    heavy: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Judge {
    slots: [Slot; SLOTS],
    newest: u64,
    /// Slots before this one are not looked at.
    from: u64,
    trying: Option<Try>,
    quiet: Answer,
    quiet_share: f64,
    policed: Answer,
    policed_rate: f64,
    smooth_until: Micros,
}

/// An answer that holds for a time, and for longer each time it is found again.
#[derive(Debug, Clone, Copy, Default)]
struct Answer {
    until: Micros,
    holds_us: u64,
}

impl Answer {
    fn found(&mut self, now: Micros, (first, most): (u64, u64)) {
        let again = self.holds_us > 0 && now < self.until.plus(2 * self.holds_us);
        self.holds_us = if again { (2 * self.holds_us).min(most) } else { first };
        self.until = now.plus(self.holds_us);
    }
}

impl Judge {
    /// Counts a result.
    pub(super) fn take(&mut self, r: &PacketResult) {
        let number = r.sent.0 / SLOT_US;
        self.newest = self.newest.max(number);
        let Some(slot) = self.slots.get_mut((number % SLOTS as u64) as usize) else { return };
        if slot.number < number {
            *slot = Slot { number, ..Slot::default() };
        }
        if slot.number == number {
            slot.bytes += u64::from(r.bytes);
            slot.lost += if r.arrived.is_none() { u64::from(r.bytes) } else { 0 };
        }
    }

    /// The rate has changed for another reason.
    pub(super) const fn forget(&mut self) {
        self.trying = None;
        self.from = self.newest + 1;
    }

    /// A try is under way.
    pub(super) const fn is_looking(&self) -> bool {
        self.trying.is_some()
    }

    /// Packets shall leave evenly, because of losses.
    pub(super) fn is_smooth(&self, now: Micros) -> bool {
        now < self.smooth_until
    }

    /// What a policer lets through, while that is remembered.
    pub(super) fn ceiling(&self, now: Micros) -> f64 {
        if now < self.policed.until { self.policed_rate } else { f64::INFINITY }
    }

    /// What to do now, at this target of that grant.
    pub(super) fn verdict(&mut self, now: Micros, target: f64, granted: f64) -> Verdict {
        if let Some(t) = self.trying {
            return self.answer(now, t);
        }
        let was = self.sums(self.from.max(self.newest.saturating_sub(LOOK + 1)));
        if was.slots < LOOK_MIN || was.share < MATTERS {
            return Verdict::Nothing;
        }
        if now < self.quiet.until && was.share < 1.5 * self.quiet_share + 0.02 {
            return Verdict::Nothing;
        }
        let was_smooth = self.is_smooth(now);
        self.smooth_until = now.plus(SMOOTH_US);
        if !was_smooth {
            self.from = now.0 / SLOT_US + 1;
            return Verdict::Nothing;
        }
        let first = now.0 / SLOT_US + 1;
        let delivered = was.sent * (1.0 - was.share);
        if was.share >= HEAVY {
            self.trying = Some(Try { before: target, was, first, heavy: true });
            return Verdict::Lower(delivered * AFTER);
        }
        if was.sent < USED * target {
            // A rate that is not used cannot be tried. What lies above the grant was never promised.
            return if target > granted { Verdict::Trim(was.sent.max(granted)) } else { Verdict::Nothing };
        }
        let less = if was.share < SMALL { TRY_LITTLE } else { (TRY_OF_LOSS * was.share).min(TRY_MOST) };
        self.trying = Some(Try { before: target, was, first, heavy: false });
        Verdict::Try(was.sent.min(target) * (1.0 - less))
    }

    fn answer(&mut self, now: Micros, t: Try) -> Verdict {
        let is = self.sums(t.first);
        if is.slots < LOOK_MIN {
            // Nothing comes back: whatever this is, it is no answer.
            let silent = now.0 / SLOT_US > t.first + 4 * TRY_MAX as u64;
            return if silent { self.random(now, t) } else { Verdict::Hold };
        }
        let less = 1.0 - is.sent / t.was.sent;
        let policed = (1.0 - (1.0 - t.was.share) / (1.0 - less).max(0.01)).max(0.0);
        let middle = f64::midpoint(t.was.share, policed);
        let error = SURE * t.was.error.hypot(is.error);
        if less > 0.4 * TRY_LITTLE && is.share + error < middle {
            return self.policed(now, t);
        }
        if is.share - error > middle || is.slots >= TRY_MAX {
            return self.random(now, t);
        }
        Verdict::Hold
    }

    fn policed(&mut self, now: Micros, t: Try) -> Verdict {
        self.trying = None;
        self.policed.found(now, POLICED_US);
        self.policed_rate = AFTER * t.was.sent * (1.0 - t.was.share);
        Verdict::Lower(self.policed_rate)
    }

    fn random(&mut self, now: Micros, t: Try) -> Verdict {
        self.trying = None;
        self.smooth_until = now;
        self.quiet.found(now, QUIET_US);
        self.quiet_share = t.was.share;
        // Where a quarter is lost the lower rate stands, and climbs as it can.
        if t.heavy { Verdict::Nothing } else { Verdict::Back(t.before) }
    }

    /// Over complete slots in which something arrived, from a number on. A slot is complete when the one after it is over:
    /// losses are told later than arrivals.
    fn sums(&self, from: u64) -> Sums {
        let counts = |s: &&Slot| s.number >= from && s.number + 1 < self.newest && s.bytes > s.lost;
        let all = || self.slots.iter().filter(counts);
        let (slots, bytes, lost) = all().fold((0, 0, 0), |a, s| (a.0 + 1, a.1 + s.bytes, a.2 + s.lost));
        if slots < 2 {
            return Sums::default();
        }
        let n = slots as f64;
        let share = lost as f64 / bytes as f64;
        let square = |s: &Slot| (s.lost as f64 / s.bytes as f64 - share).powi(2);
        let error = (all().map(square).sum::<f64>() / (n * (n - 1.0))).sqrt();
        Sums { slots, share, error, sent: bytes as f64 * 8e6 / (n * SLOT_US as f64) }
    }
}
