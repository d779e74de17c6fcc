//! Several streams on one line: which of them may begin a frame while the line takes less than all of them send.
//!
//! As long as the line is clear everybody sends. Where a queue begins, what the line takes is given out by [`allocate`]: strictly
//! by purpose and priority. Who gets less than it needs is paused, and is let in again, one at a time and the first one first,
//! when the line has been clear for a while; who was too much keeps away longer each time.

use super::LineState;
use super::share::{Demand, allocate, rank};
use crate::session::feed::Purpose;
use crate::units::{Bitrate, Micros};

/// Shares are settled this often, in microseconds.
const TURN_US: u64 = 200_000;
/// Turns that say what a stream sends and what the line takes: a second.
const TURNS: usize = 5;
/// Of what the line takes so much is given out, in per cent: the rest is for headers, repairs and reports.
const GIVEN_PERCENT: u64 = 95;
/// With less of what it sends a picture is of no use, in per cent: it gets nothing then.
const USEFUL_PERCENT: u64 = 60;
/// A stream that is silent counts with this part of its grant.
const SILENT_PART: u64 = 16;
/// So long the line is clear before somebody gets more, and so long it has to stay clear before the next one does, in microseconds.
const CALM_US: u64 = 2_000_000;
const NEXT_US: u64 = 3_000_000;
/// So long a stream keeps a smaller share; twice as long as before where the whole was too much again.
const HOLD_US: u64 = 8_000_000;
const HOLD_MAX_US: u64 = 128_000_000;
/// Cut within this time after it got more: that was too much.
const TOO_SOON_US: u64 = 10_000_000;
/// After a cut the queue drains for so long before anybody else is cut.
const DRAIN_US: u64 = 1_500_000;
/// A part may be used so far ahead, in microseconds: a frame that others need is larger than the rest.
const AHEAD_US: u64 = 250_000;

/// How much of the line a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All that it sends.
    #[default]
    Whole,
    /// Frames up to this rate.
    Part(Bitrate),
    /// Nothing: others go before it.
    Nothing,
}

#[derive(Debug)]
struct Member {
    id: u64,
    purpose: Purpose,
    priority: u8,
    granted: Bitrate,
    /// Bytes of frames in the turn under way, and in those before it, the newest first.
    offered: u64,
    turns: [u64; TURNS],
    known: usize,
    share: Share,
    /// Bits that may leave ahead of the part's rate, as of a moment.
    credit: i64,
    credited: Micros,
    held_until: Micros,
    hold_us: u64,
    raised: Option<Micros>,
}

impl Member {
    const fn place(&self) -> (u8, u8) {
        (rank(self.purpose), self.priority)
    }

    /// Bits per second that it needs now.
    fn needs(&self) -> u64 {
        if matches!(self.purpose, Purpose::Voice) || self.known == 0 {
            return self.granted.0;
        }
        let bytes: u64 = self.turns.iter().take(self.known).sum();
        let rate = bytes.saturating_mul(8_000_000) / (self.known as u64 * TURN_US);
        rate.max(self.granted.0 / SILENT_PART)
    }

    fn demand(&self) -> Demand {
        let wanted = match self.share {
            Share::Whole => self.needs(),
            Share::Part(rate) => self.needs().min(rate.0),
            Share::Nothing => 0,
        };
        let useful = if matches!(self.purpose, Purpose::Voice) { 100 } else { USEFUL_PERCENT };
        let floor = if wanted == 0 { 0 } else { self.needs().saturating_mul(useful) / 100 };
        Demand { purpose: self.purpose, priority: self.priority, wanted: Bitrate(wanted), floor: Bitrate(floor) }
    }

    fn end_turns(&mut self, turns: usize) {
        for _ in 0..turns.min(TURNS) {
            self.turns.rotate_right(1);
            if let Some(newest) = self.turns.first_mut() {
                *newest = std::mem::take(&mut self.offered);
            }
        }
        self.known = (self.known + turns).min(TURNS);
    }

    fn refill(&mut self, now: Micros, rate: Bitrate) {
        let bits = |us: u64| i64::try_from(rate.0.saturating_mul(us) / 1_000_000).unwrap_or(i64::MAX);
        let earned = bits(now.since(self.credited));
        self.credit = self.credit.saturating_add(earned).min(bits(AHEAD_US));
        self.credited = now;
    }
}

/// One line and who leaves by it; as many as its owner lets join.
#[derive(Debug, Default)]
pub struct SharedLine {
    members: Vec<Member>,
    next_id: u64,
    turn_at: Micros,
    targets: [u64; TURNS],
    calm_since: Option<Micros>,
    raised: Option<Micros>,
    cut: Option<Micros>,
}

impl SharedLine {
    /// Another stream leaves by the line. Gives its number.
    pub fn join(&mut self, now: Micros, purpose: Purpose, priority: u8, granted: Bitrate) -> u64 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.members.push(Member {
            id,
            purpose,
            priority,
            granted,
            offered: 0,
            turns: [0; TURNS],
            known: 0,
            share: Share::Whole,
            credit: 0,
            credited: now,
            held_until: Micros(0),
            hold_us: HOLD_US,
            raised: None,
        });
        id
    }

    /// A stream leaves it no more.
    pub fn leave(&mut self, id: u64) {
        self.members.retain(|m| m.id != id);
    }

    /// Whether shares are to be settled ([`Self::settle`]).
    #[must_use]
    pub const fn is_due(&self, now: Micros) -> bool {
        now.since(self.turn_at) >= TURN_US
    }

    /// Settles shares: `target` is what the line takes, `state` how it is.
    pub fn settle(&mut self, now: Micros, target: Bitrate, state: LineState) {
        let turns = usize::try_from(now.since(self.turn_at) / TURN_US).unwrap_or(TURNS);
        if turns == 0 {
            return;
        }
        self.turn_at = now;
        self.members.iter_mut().for_each(|m| m.end_turns(turns));
        self.targets.rotate_right(1);
        self.targets.first_mut().into_iter().for_each(|t| *t = target.0);
        if self.members.len() < 2 {
            self.members.iter_mut().for_each(|m| m.share = Share::Whole);
        } else if state == LineState::Clear {
            self.calm_since.get_or_insert(now);
            self.raise(now);
        } else {
            self.calm_since = None;
            // While a queue drains the target is below what the line takes.
            let takes = self.targets.iter().copied().max().unwrap_or(target.0);
            self.cut(now, Bitrate(takes.saturating_mul(GIVEN_PERCENT) / 100));
        }
    }

    fn cut(&mut self, now: Micros, capacity: Bitrate) {
        if self.cut.is_some_and(|t| now.since(t) < DRAIN_US) || self.take_back(now) {
            return;
        }
        let demands: Vec<Demand> = self.members.iter().map(Member::demand).collect();
        if demands.iter().fold(0_u64, |sum, d| sum.saturating_add(d.wanted.0)) <= capacity.0 {
            return;
        }
        let best = self.best();
        let given = allocate(capacity, &demands);
        for ((m, demand), rate) in self.members.iter_mut().zip(&demands).zip(given) {
            if m.share == Share::Nothing || rate >= demand.wanted || matches!(m.purpose, Purpose::Voice) {
                continue;
            }
            // The first of all pictures is bounded by the line's queue alone: nobody is to be spared from it.
            let share = match rate.0 {
                0 => Share::Nothing,
                _ if Some(m.place()) == best => continue,
                _ => Share::Part(rate),
            };
            m.share = share;
            m.held_until = now.plus(m.hold_us);
            self.cut = Some(now);
        }
    }

    /// Whoever got more a moment ago was too much: nobody else pays for the try.
    fn take_back(&mut self, now: Micros) -> bool {
        let lately = |m: &&mut Member| m.raised.is_some_and(|t| now.since(t) < TOO_SOON_US);
        let Some(m) = self.members.iter_mut().filter(lately).max_by_key(|m| m.raised) else { return false };
        m.raised = None;
        m.hold_us = (m.hold_us * 2).min(HOLD_MAX_US);
        m.held_until = now.plus(m.hold_us);
        m.share = Share::Nothing;
        self.cut = Some(now);
        true
    }

    fn raise(&mut self, now: Micros) {
        let long_enough = |since: Option<Micros>, us: u64| since.is_some_and(|t| now.since(t) >= us);
        if !long_enough(self.calm_since, CALM_US) || self.raised.is_some_and(|t| now.since(t) < NEXT_US) {
            return;
        }
        let first = self.members.iter_mut().filter(|m| m.share != Share::Whole).min_by_key(|m| m.place());
        if let Some(m) = first.filter(|m| m.held_until <= now) {
            m.share = Share::Whole;
            m.raised = Some(now);
            self.raised = Some(now);
        }
        for m in self.members.iter_mut().filter(|m| long_enough(m.raised, HOLD_MAX_US)) {
            (m.raised, m.hold_us) = (None, HOLD_US);
        }
    }

    /// The place of the first of all pictures.
    fn best(&self) -> Option<(u8, u8)> {
        self.members.iter().filter(|m| !matches!(m.purpose, Purpose::Voice)).map(Member::place).min()
    }

    /// A stream has so many bytes of frames to send, whether they leave or not.
    pub fn note_offered(&mut self, id: u64, bytes: u64) {
        self.member(id).into_iter().for_each(|m| m.offered = m.offered.saturating_add(bytes));
    }

    /// So many bytes of a stream left.
    pub fn note_sent(&mut self, id: u64, bytes: u64) {
        let bits = i64::try_from(bytes.saturating_mul(8)).unwrap_or(i64::MAX);
        self.member(id).into_iter().for_each(|m| m.credit = m.credit.saturating_sub(bits));
    }

    /// Whether a stream may begin a frame. One that is not known may.
    pub fn may_begin(&mut self, now: Micros, id: u64) -> bool {
        let Some(m) = self.member(id) else { return true };
        match m.share {
            Share::Whole => {
                m.credit = 0;
                m.credited = now;
                true
            }
            Share::Part(rate) => {
                m.refill(now, rate);
                m.credit > 0
            }
            Share::Nothing => false,
        }
    }

    /// How much of the line a stream has.
    #[must_use]
    pub fn share(&self, id: u64) -> Share {
        self.members.iter().find(|m| m.id == id).map(|m| m.share).unwrap_or_default()
    }

    /// What of the usual wait a stream may find before it: 1 the whole, 2 a half, 4 a quarter. Who stands behind another picture
    /// does not make that one wait.
    #[must_use]
    pub fn patience(&self, id: u64) -> u64 {
        let best = self.best().map_or(0, |(rank, _)| rank);
        let own = self.members.iter().find(|m| m.id == id).map_or(0, |m| m.place().0);
        1 << own.saturating_sub(best).min(2)
    }

    fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Purpose::{Room, Scope, Secondary, Voice};

    /// Streams that send at these rates in 20 frames a second, and a line that says so much; bytes that left in a while.
    struct World {
        line: SharedLine,
        now: Micros,
        streams: Vec<(u64, u64)>,
    }

    impl World {
        fn new(streams: &[(Purpose, u8, u64)]) -> Self {
            let mut line = SharedLine::default();
            let join = |(p, n, rate): &(Purpose, u8, u64)| (line.join(Micros(0), *p, *n, Bitrate(*rate * 2)), *rate);
            let streams = streams.iter().map(join).collect();
            Self { line, now: Micros(0), streams }
        }

        /// Shares of what each has sent that left within so many seconds.
        fn run(&mut self, seconds: u64, target: u64, state: LineState) -> Vec<f64> {
            let mut left = vec![0; self.streams.len()];
            for _ in 0..seconds * 20 {
                self.now = self.now.plus(50_000);
                if self.line.is_due(self.now) {
                    self.line.settle(self.now, Bitrate(target), state);
                }
                for ((id, rate), left) in self.streams.iter().zip(&mut left) {
                    let bytes = rate / 8 / 20;
                    self.line.note_offered(*id, bytes);
                    if self.line.may_begin(self.now, *id) {
                        self.line.note_sent(*id, bytes);
                        *left += bytes;
                    }
                }
            }
            let all = |rate: u64| (rate / 8 / 20 * seconds * 20) as f64;
            left.iter().zip(&self.streams).map(|(l, (_, rate))| *l as f64 / all(*rate)).collect()
        }
    }

    const M: u64 = 1_000_000;

    #[test]
    fn on_a_line_without_a_queue_everybody_sends_whatever_the_target() {
        let mut w = World::new(&[(Scope, 0, 6 * M), (Secondary, 0, 3 * M), (Room, 0, 6 * M)]);
        assert_eq!(w.run(10, 2 * M, LineState::Clear), [1.0; 3]);
    }

    #[test]
    fn voices_go_before_the_scope_and_the_scope_before_the_rest() {
        let streams = [(Room, 0, 6 * M), (Voice, 0, M / 20), (Secondary, 0, 3 * M), (Scope, 0, 6 * M)];
        let mut w = World::new(&streams);
        w.run(2, 10 * M, LineState::Congested);
        assert_eq!(w.run(5, 10 * M, LineState::Congested), [0.0, 1.0, 1.0, 1.0], "the room goes");
        w.run(2, 8 * M, LineState::Congested);
        assert_eq!(w.run(5, 8 * M, LineState::Congested), [0.0, 1.0, 0.0, 1.0], "1.5 of 3 Mbit/s are of no use");
        w.run(2, 5 * M, LineState::Congested);
        assert_eq!(
            w.run(5, 5 * M, LineState::Congested),
            [0.0, 1.0, 0.0, 1.0],
            "the scope is bounded by the queue alone"
        );
    }

    #[test]
    fn a_part_that_is_of_use_is_kept_to_its_rate() {
        let mut w = World::new(&[(Scope, 0, 6 * M), (Secondary, 0, 4 * M)]);
        w.run(2, 9_500_000, LineState::Congested);
        let shares = w.run(10, 9_500_000, LineState::Congested);
        // 95 % of 9.5 less 6 are 3.0 of 4.
        assert!((shares[0] - 1.0).abs() < 1e-9 && (0.70..0.80).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn of_two_eyes_that_do_not_both_fit_one_goes_on() {
        let mut w = World::new(&[(Scope, 0, 8 * M), (Scope, 0, 8 * M)]);
        w.run(2, 8 * M, LineState::Congested);
        assert_eq!(w.run(5, 8 * M, LineState::Congested), [1.0, 0.0]);
    }

    #[test]
    fn what_was_paused_comes_back_one_by_one_and_what_is_too_much_again_waits_longer() {
        let mut w = World::new(&[(Scope, 0, 6 * M), (Secondary, 0, 3 * M), (Room, 0, 6 * M)]);
        w.run(3, 6 * M, LineState::Congested);
        assert_eq!(w.run(1, 6 * M, LineState::Congested), [1.0, 0.0, 0.0]);
        assert_eq!(w.run(3, 6 * M, LineState::Clear), [1.0, 0.0, 0.0], "not at once");
        let back = w.run(5, 6 * M, LineState::Clear);
        assert!(back[1] > 0.0 && back[2] < 0.5, "the first one first: {back:?}");
        w.run(5, 6 * M, LineState::Clear);
        assert_eq!(w.run(2, 6 * M, LineState::Clear), [1.0; 3]);
        // The room was too much: the next time it waits for twice as long.
        w.run(1, 10 * M, LineState::Filling);
        assert_eq!(w.run(15, 10 * M, LineState::Clear)[2], 0.0);
        assert!(w.run(5, 10 * M, LineState::Clear)[2] > 0.0);
    }

    #[test]
    fn who_is_alone_has_the_line_and_who_stands_behind_another_waits_less() {
        let mut w = World::new(&[(Room, 0, 6 * M)]);
        let id = w.streams[0].0;
        assert_eq!((w.run(5, M, LineState::Congested)[0], w.line.patience(id)), (1.0, 1));
        let scope = w.line.join(w.now, Scope, 0, Bitrate(6 * M));
        let voice = w.line.join(w.now, Voice, 0, Bitrate(M));
        assert_eq!([id, scope, voice].map(|i| w.line.patience(i)), [4, 1, 1]);
        w.run(3, M, LineState::Congested);
        assert_eq!(w.line.share(id), Share::Nothing);
        w.line.leave(scope);
        w.line.leave(voice);
        w.run(1, M, LineState::Congested);
        assert_eq!(w.run(3, M, LineState::Congested), [1.0]);
    }
}
