//! The line: one packet is being sent, the others wait, and there is room for so many.
//!
//! ```text
//! put ──► waiting (bounded, tail or head drop) ──► being sent (rate, or opportunities of a trace) ──► out, at an exact time
//! ```

use super::config::{DropAt, Line, micros};
use super::trace::{Cursor, OPPORTUNITY_BYTES};
use super::{Item, WAITING_MAX};
use crate::units::Micros;
use std::collections::VecDeque;

/// Room where neither time nor bytes are given, in milliseconds.
const QUEUE_MS: f64 = 100.0;

/// A line with its queue.
#[derive(Debug)]
pub(super) struct Queue<P> {
    pace: Pace,
    sending: Option<Item<P>>,
    waiting: VecDeque<Item<P>>,
    /// Bytes of `waiting`, with what each costs beside its own.
    waiting_bytes: u64,
    room_bytes: u64,
    drop: DropAt,
    overhead: u64,
}

#[derive(Debug)]
enum Pace {
    /// When the packet being sent (or the last one) is through, in microseconds × bits per second: no rounding adds up.
    Rate { bits_per_s: u64, through: u128 },
    /// The next opportunity, and how many bytes of the packet being sent are still to go.
    Trace { cursor: Cursor, left: u64 },
}

impl<P> Queue<P> {
    pub(super) fn new(config: &Line) -> Self {
        let (pace, bits_per_s) = if let Some(trace) = &config.trace {
            (Pace::Trace { cursor: Cursor::new(trace.clone()), left: 0 }, trace.mean_bits_per_s())
        } else {
            let bits_per_s = ((config.mbit_s.unwrap_or(0.0) * 1e6).round() as u64).max(1);
            (Pace::Rate { bits_per_s, through: 0 }, bits_per_s)
        };
        let in_time = |ms: f64| (u128::from(bits_per_s) * u128::from(micros(ms)) / 8_000_000) as u64;
        let room_bytes = match (config.queue_ms, config.queue_bytes) {
            (Some(ms), Some(bytes)) => bytes.min(in_time(ms)),
            (None, Some(bytes)) => bytes,
            (ms, None) => in_time(ms.unwrap_or(QUEUE_MS)),
        };
        Self {
            pace,
            sending: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            room_bytes,
            drop: config.drop,
            overhead: config.overhead_bytes.into(),
        }
    }

    fn cost(&self, item: &Item<P>) -> u64 {
        u64::from(item.len) + self.overhead
    }

    /// Takes a packet at `now`, after [`Queue::advance`] to the same point. Gives back what finds no room: this packet,
    /// or those that waited longest and, where even that is not enough, this one as well.
    pub(super) fn put(&mut self, now: Micros, item: Item<P>, mut dropped: impl FnMut(Item<P>)) {
        if self.sending.is_none() {
            self.start(now, item);
            return;
        }
        let cost = self.cost(&item);
        while self.drop == DropAt::Head && !self.has_room(cost) {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= self.cost(&oldest);
            dropped(oldest);
        }
        if self.has_room(cost) {
            self.waiting_bytes += cost;
            self.waiting.push_back(item);
        } else {
            dropped(item);
        }
    }

    fn has_room(&self, cost: u64) -> bool {
        self.waiting.len() < WAITING_MAX && self.waiting_bytes + cost <= self.room_bytes
    }

    /// Begins to send on an idle line.
    fn start(&mut self, now: Micros, item: Item<P>) {
        let cost = self.cost(&item);
        match &mut self.pace {
            Pace::Rate { bits_per_s, through } => {
                let free = u128::from(now.0) * u128::from(*bits_per_s);
                *through = free.max(*through) + u128::from(cost) * 8_000_000;
            }
            Pace::Trace { cursor, left } => {
                cursor.seek(now);
                *left = cost;
            }
        }
        self.sending = Some(item);
    }

    /// Takes the next packet up where the last one ended; none leaves the line idle.
    fn next(&mut self) {
        self.sending = self.waiting.pop_front();
        let Some(item) = &self.sending else { return };
        let cost = self.cost(item);
        self.waiting_bytes -= cost;
        match &mut self.pace {
            Pace::Rate { through, .. } => *through += u128::from(cost) * 8_000_000,
            Pace::Trace { left, .. } => *left = cost,
        }
    }

    /// When the next thing happens here: a packet is through, or an opportunity comes.
    pub(super) fn next_wakeup(&self) -> Option<Micros> {
        self.sending.as_ref()?;
        Some(match &self.pace {
            Pace::Rate { bits_per_s, through } => Micros(through.div_ceil(u128::from(*bits_per_s)) as u64),
            Pace::Trace { cursor, .. } => cursor.at(),
        })
    }

    /// Gives out what is through until `now`, each with its time: at most what is in here.
    pub(super) fn advance(&mut self, now: Micros, mut out: impl FnMut(Micros, Item<P>)) {
        while let Some(at) = self.next_wakeup().filter(|at| *at <= now) {
            let mut room = u64::from(OPPORTUNITY_BYTES);
            loop {
                if let Pace::Trace { left, .. } = &mut self.pace {
                    let sent = room.min(*left);
                    *left -= sent;
                    room -= sent;
                    if *left > 0 {
                        break;
                    }
                }
                let Some(item) = self.sending.take() else { break };
                out(at, item);
                self.next();
                if matches!(self.pace, Pace::Rate { .. }) {
                    break;
                }
            }
            if let Pace::Trace { cursor, .. } = &mut self.pace {
                cursor.step();
            }
        }
    }

    /// Whatever is still here, in order.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Item<P>> + '_ {
        self.waiting_bytes = 0;
        self.sending.take().into_iter().chain(self.waiting.drain(..))
    }
}
