//! A line between two places, with everything that goes wrong on it. The same model runs on a clock that jumps and, in
//! `trocar impair`, between real sockets.
//!
//! ```text
//!              blackout?   lost?      twice?     line: rate or trace   delay     put back?
//! packet ────►  gone ─────► gone ────► + copy ──► queue, drop ─────────► jitter ─► behind others ──► arrives, a bit turned?
//! ```
//!
//! [`Link::handle_packet`] takes a packet in, [`Link::poll_departure`] gives out what has arrived at the far end,
//! [`Link::poll_drop`] what never will, and [`Link::next_wakeup`] says when to ask again. Drive it like everything here:
//! change one thing, then drain. Asking late changes nothing: each packet has the time that the model gave it.
//!
//! **What chance decides is a function of the seed and of the packet's number alone**: each packet draws for every
//! impairment whether it is switched on or not, and each impairment has a generator of its own. So the same packets are
//! lost on a clock that jumps and between sockets, and with jitter as without.
//!
//! Every packet and every copy has exactly one [`Entry`]; [`Tally`] is their sum.

mod air;
pub mod config;
mod delay;
pub mod ledger;
mod line;
pub mod loss;
pub mod rng;
#[cfg(test)]
mod tests;
pub mod trace;

pub use config::{ConfigError, LinkConfig, Profile};
pub use ledger::{Direction, Entry, Fate, Record, Tally};

use crate::units::Micros;
use air::Air;
use config::{Blackout, Delay};
use line::Queue;
use loss::{Chain, GilbertElliott};
use rng::Rng;
use std::collections::VecDeque;

/// Packets and copies in a link at a time. One more has the fate [`Fate::Overload`].
pub const INSIDE_MAX: usize = 262_144;
/// Their bytes.
pub const INSIDE_BYTES_MAX: u64 = 256 << 20;
/// Packets that wait for the line at a time, whatever room is configured. One more finds no room.
pub const WAITING_MAX: usize = 131_072;
/// Drops that wait to be fetched by [`Link::poll_drop`]. One more pushes out the oldest, which [`Tally::unrecorded`] counts.
pub const DROPS_MAX: usize = 8_192;

/// One direction of a line. `P` is what the caller keeps with a packet: its bytes, a number, or nothing.
#[derive(Debug)]
pub struct Link<P> {
    dice: Dice,
    blackouts: Vec<Blackout>,
    line: Option<Queue<P>>,
    air: Air<P>,
    now: Micros,
    seq: u64,
    highest: Option<u64>,
    inside: usize,
    inside_bytes: u64,
    drops: VecDeque<(Entry, P)>,
    tally: Tally,
}

/// A packet in the link.
#[derive(Debug)]
struct Item<P> {
    seq: u64,
    copy: bool,
    len: u32,
    arrived: Micros,
    delay_us: u64,
    put_back: bool,
    corrupt_bit: Option<u32>,
    payload: P,
}

/// What [`Link::handle_packet`] did with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is under way, unless the queue lets it go later.
    Taken {
        /// Its number.
        seq: u64,
    },
    /// It will not arrive, and neither will a copy.
    Dropped {
        /// Its number.
        seq: u64,
        /// Why.
        fate: Fate,
    },
}

/// A packet that has arrived at the far end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure<P> {
    /// What became of it: always [`Fate::Delivered`].
    pub entry: Entry,
    /// The bit to turn: bit 0 is the highest of the first byte.
    pub corrupt_bit: Option<u32>,
    /// What the caller gave.
    pub payload: P,
}

impl<P: Clone> Link<P> {
    /// An empty link. The same seed gives the same fates; see [`Direction::seed`] for two links of one seed.
    ///
    /// # Errors
    /// Names the key whose value cannot be.
    pub fn new(config: &LinkConfig, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            dice: Dice::new(config, seed),
            blackouts: config.blackout.clone(),
            line: config.line.as_ref().map(Queue::new),
            air: Air::new(config),
            now: Micros(0),
            seq: 0,
            highest: None,
            inside: 0,
            inside_bytes: 0,
            drops: VecDeque::new(),
            tally: Tally::default(),
        })
    }

    /// Takes a packet of `len` bytes that comes to the link at `now`. A `now` before an earlier one counts as that one.
    pub fn handle_packet(&mut self, now: Micros, len: u32, payload: P) -> Verdict {
        self.advance(now);
        let seq = self.seq;
        self.seq += 1;
        self.tally.offered += 1;
        self.tally.offered_bytes += u64::from(len);
        let thrown = self.dice.throw(len);
        let item = |copy: bool, body: Body, payload: P| Item {
            seq,
            copy,
            len,
            arrived: self.now,
            delay_us: body.delay_us,
            put_back: body.put_back,
            corrupt_bit: body.corrupt_bit,
            payload,
        };
        let copied = thrown.copied.then(|| item(true, thrown.copy, payload.clone()));
        let original = item(false, thrown.original, payload);
        let gone = if self.blackouts.iter().any(|b| b.covers(self.now.0)) {
            Some(Fate::Blackout)
        } else if thrown.lost {
            Some(Fate::Lost)
        } else if self.is_full(len) {
            Some(Fate::Overload)
        } else {
            None
        };
        if let Some(fate) = gone {
            self.drop_item(original, fate);
            return Verdict::Dropped { seq, fate };
        }
        self.put(original);
        if let Some(copy) = copied {
            self.tally.copies += 1;
            if self.is_full(len) {
                self.drop_item(copy, Fate::Overload);
            } else {
                self.put(copy);
            }
        }
        Verdict::Taken { seq }
    }

    /// The next packet that has arrived until `now`, in the order of arrival.
    pub fn poll_departure(&mut self, now: Micros) -> Option<Departure<P>> {
        self.advance(now);
        let (at, item) = self.air.poll(self.now)?;
        self.leave(item.len);
        let reordered = self.highest.is_some_and(|highest| item.seq < highest);
        self.highest = self.highest.max(Some(item.seq));
        let Item { seq, copy, len, arrived, corrupt_bit, payload, .. } = item;
        let entry = Entry { seq, copy, len, arrived, fate: Fate::Delivered { at, reordered, corrupt_bit } };
        self.tally.count(&entry);
        Some(Departure { entry, corrupt_bit, payload })
    }

    /// The next packet or copy that will not arrive, with what the caller gave.
    pub fn poll_drop(&mut self) -> Option<(Entry, P)> {
        self.drops.pop_front()
    }

    /// When to ask [`Link::poll_departure`] again: a time at which something happens in the link, also where nothing
    /// arrives from it. `None` while it is empty.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Micros> {
        let line = self.line.as_ref().and_then(Queue::next_wakeup);
        [line, self.air.next_wakeup()].into_iter().flatten().min()
    }

    /// Ends the link: the sums, and every drop that was not fetched, with what was under way ([`Fate::Inside`]) at the end.
    #[must_use]
    pub fn end(mut self) -> (Tally, Vec<(Entry, P)>) {
        let mut rest: Vec<Item<P>> = self.air.take_all().collect();
        if let Some(line) = &mut self.line {
            rest.extend(line.take_all());
        }
        rest.sort_by_key(|item| (item.seq, item.copy));
        let mut entries: Vec<(Entry, P)> = self.drops.into();
        for Item { seq, copy, len, arrived, payload, .. } in rest {
            let entry = Entry { seq, copy, len, arrived, fate: Fate::Inside };
            self.tally.count(&entry);
            entries.push((entry, payload));
        }
        (self.tally, entries)
    }

    /// Sums so far.
    #[must_use]
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Packets and copies under way.
    #[must_use]
    pub const fn inside(&self) -> usize {
        self.inside
    }

    fn advance(&mut self, now: Micros) {
        self.now = self.now.max(now);
        if let Some(line) = &mut self.line {
            line.advance(self.now, |at, item| self.air.put(at, item));
        }
    }

    const fn is_full(&self, len: u32) -> bool {
        self.inside >= INSIDE_MAX || self.inside_bytes + len as u64 > INSIDE_BYTES_MAX
    }

    const fn leave(&mut self, len: u32) {
        self.inside -= 1;
        self.inside_bytes -= len as u64;
    }

    fn put(&mut self, item: Item<P>) {
        self.inside += 1;
        self.inside_bytes += u64::from(item.len);
        let Some(line) = &mut self.line else {
            self.air.put(self.now, item);
            return;
        };
        let mut without_room = Vec::new();
        line.put(self.now, item, |item| without_room.push(item));
        for item in without_room {
            self.leave(item.len);
            self.drop_item(item, Fate::QueueDrop);
        }
    }

    fn drop_item(&mut self, item: Item<P>, fate: Fate) {
        let Item { seq, copy, len, arrived, payload, .. } = item;
        let entry = Entry { seq, copy, len, arrived, fate };
        self.tally.count(&entry);
        if self.drops.len() >= DROPS_MAX {
            self.drops.pop_front();
            self.tally.unrecorded += 1;
        }
        self.drops.push_back((entry, payload));
    }
}

/// Everything that chance decides. One generator for each impairment.
#[derive(Debug)]
struct Dice {
    chain: Chain,
    delay: Delay,
    delays: Rng,
    put_back: f64,
    put_backs: Rng,
    copied: f64,
    copies: Rng,
    corrupt: f64,
    corruptions: Rng,
}

/// What was thrown for one packet.
#[derive(Debug)]
struct Thrown {
    lost: bool,
    copied: bool,
    original: Body,
    copy: Body,
}

/// What was thrown for the packet itself or for its copy.
#[derive(Debug)]
struct Body {
    delay_us: u64,
    put_back: bool,
    corrupt_bit: Option<u32>,
}

impl Dice {
    fn new(config: &LinkConfig, seed: u64) -> Self {
        let stream = |number| Rng::stream(seed, number);
        Self {
            chain: Chain::new(config.loss.as_ref().map_or(GilbertElliott::NONE, GilbertElliott::from), stream(1)),
            delay: config.delay.clone(),
            delays: stream(2),
            put_back: config.reorder.as_ref().map_or(0.0, |r| r.percent / 100.0),
            put_backs: stream(3),
            copied: config.duplicate_percent / 100.0,
            copies: stream(4),
            corrupt: config.corrupt_percent / 100.0,
            corruptions: stream(5),
        }
    }

    fn throw(&mut self, len: u32) -> Thrown {
        Thrown {
            lost: self.chain.next_is_lost(),
            copied: self.copies.chance(self.copied),
            original: self.throw_body(len),
            copy: self.throw_body(len),
        }
    }

    fn throw_body(&mut self, len: u32) -> Body {
        let corrupt = self.corruptions.chance(self.corrupt);
        let bit = self.corruptions.below(len.saturating_mul(8));
        Body {
            delay_us: self.delay.draw(&mut self.delays),
            put_back: self.put_backs.chance(self.put_back),
            corrupt_bit: (corrupt && len > 0).then_some(bit),
        }
    }
}
