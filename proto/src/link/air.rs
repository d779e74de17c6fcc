//! What is under way after the line: packets that arrive at their times, and those put back behind later ones.

use super::Item;
use super::config::{LinkConfig, micros};
use crate::units::Micros;
use std::collections::{BTreeMap, VecDeque};

/// Packets put back at a time. One more is not put back.
pub(super) const HELD_MAX: usize = 256;

/// Packets under way. The link bounds how many.
#[derive(Debug)]
pub(super) struct Air<P> {
    /// By time of arrival and, where that is the same, by order.
    flying: BTreeMap<(Micros, u64), Item<P>>,
    order: u64,
    /// Those put back, in the order in which their time ends.
    held: VecDeque<Held<P>>,
    /// Those whose turn has come after being put back.
    ready: VecDeque<(Micros, Item<P>)>,
    latest: Micros,
    overtake: bool,
    gap: u32,
    hold_us: u64,
}

#[derive(Debug)]
struct Held<P> {
    until: Micros,
    /// How many others have yet to go before.
    gap: u32,
    item: Item<P>,
}

impl<P> Air<P> {
    pub(super) fn new(config: &LinkConfig) -> Self {
        Self {
            flying: BTreeMap::new(),
            order: 0,
            held: VecDeque::new(),
            ready: VecDeque::new(),
            latest: Micros(0),
            overtake: config.jitter_reorders,
            gap: config.reorder.as_ref().map_or(0, |r| r.gap_packets),
            hold_us: config.reorder.as_ref().map_or(0, |r| micros(r.hold_ms)),
        }
    }

    /// Takes a packet that left the line at `sent`.
    pub(super) fn put(&mut self, sent: Micros, item: Item<P>) {
        let mut at = sent.plus(item.delay_us);
        if !self.overtake {
            at = at.max(self.latest);
            self.latest = at;
        }
        self.flying.insert((at, self.order), item);
        self.order += 1;
    }

    fn next_flying(&self) -> Option<Micros> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn next_wakeup(&self) -> Option<Micros> {
        let ready = self.ready.front().map(|(at, _)| *at);
        let held = self.held.front().map(|h| h.until);
        [ready, held, self.next_flying()].into_iter().flatten().min()
    }

    /// The next packet that has arrived until `now`, with its time.
    pub(super) fn poll(&mut self, now: Micros) -> Option<(Micros, Item<P>)> {
        loop {
            if let Some(next) = self.ready.pop_front() {
                return Some(next);
            }
            let flying = self.next_flying().filter(|at| *at <= now);
            if let Some(held) = self.held.front()
                && held.until <= now
                && flying.is_none_or(|at| held.until < at)
            {
                let until = held.until;
                return self.held.pop_front().map(|h| (until, h.item));
            }
            flying?;
            let ((at, _), item) = self.flying.pop_first()?;
            if item.put_back && self.held.len() < HELD_MAX {
                self.held.push_back(Held { until: at.plus(self.hold_us), gap: self.gap, item });
                continue;
            }
            self.has_gone_by(at);
            return Some((at, item));
        }
    }

    /// One more packet has gone before those that are put back.
    fn has_gone_by(&mut self, at: Micros) {
        if self.held.is_empty() {
            return;
        }
        for mut held in std::mem::take(&mut self.held) {
            held.gap -= 1;
            if held.gap == 0 {
                self.ready.push_back((at, held.item));
            } else {
                self.held.push_back(held);
            }
        }
    }

    /// Whatever is still here.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Item<P>> + '_ {
        let ready = self.ready.drain(..).map(|(_, item)| item);
        let held = self.held.drain(..).map(|h| h.item);
        ready.chain(held).chain(std::mem::take(&mut self.flying).into_values())
    }
}
