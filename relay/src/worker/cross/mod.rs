//! Between workers. A feed lives on one worker, its home; viewers' legs live on any. Where a leg is on another worker, that
//! one has a mirror of the feed: the same packets in a ring of its own, from which its legs are served like any others.
//!
//! Packets cross by one [`ring`] for each ordered pair of workers, and one wake-up for each batch. The home never waits: what
//! finds the ring full is dropped for that worker and counted, and the mirror sees a gap, as it would after loss on the way
//! in. Everything else (a mirror begins or ends, a key frame is wanted, a feed closes) crosses by messages, which are rare.
//!
//! The worker of the first leg opens the mirror in the same turn as the leg; a tick after its last leg is gone it is taken
//! down. All workers count time from one moment, so that what a packet spent at home counts on the other side.

mod home;
mod mirror;
mod ring;
mod wake;

pub(crate) use home::{Image, MirrorOut, Standing};
pub(crate) use mirror::read_crossings;

use super::state::Core;
use crate::metrics::DelayHistogram;
pub(crate) use ring::RING_BYTES;
use ring::{Place, Receiver, Sender};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, mpsc};
use trocar_proto::session::admission::FeedKey;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::units::Micros;
use wake::Owed;

/// Messages that wait for a worker. Loss policy: the sender keeps what finds it full and says it at the next tick.
const MESSAGES: usize = 1_024;
/// Messages that a worker keeps for later. Each is about a mirror, and there are fewer of those.
/// Loss policy: what is asked or said again is dropped first, then the oldest ([`Message::worth`]), and it is said in the log.
const MAX_UNSENT: usize = 8_192;

/// What workers say to each other.
pub(crate) enum Message {
    /// To the home: a mirror is there for the feed's packets, on worker `to`. Said again while nothing has come.
    Begin { key: FeedKey, to: usize, place: Place },
    /// To the home: the mirror is gone. What its legs measured counts for the feed.
    End { key: FeedKey, to: usize, serial: u32, delay: DelayHistogram },
    /// To the home: a viewer of the mirror needs a key frame.
    KeyFrame { key: FeedKey },
    /// To the mirror: the feed is closed.
    Closed { key: FeedKey, serial: u32 },
    /// To the mirror: more is known about the feed.
    Descriptor { key: FeedKey, serial: u32, descriptor: FeedDescriptor },
}

impl Message {
    /// What is dropped first where there is no room: a key frame is asked for again within half a second, and without a
    /// description a mirror still carries packets; without the others it would stay empty or open for ever.
    const fn worth(&self) -> u8 {
        match self {
            Self::KeyFrame { .. } => 0,
            Self::Descriptor { .. } => 1,
            Self::Begin { .. } | Self::End { .. } | Self::Closed { .. } => 2,
        }
    }
}

/// What crossed to another worker, in packets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CrossCounters {
    pub(crate) packets: u64,
    /// The ring was full.
    pub(crate) dropped: u64,
}

/// The way to one other worker.
pub(crate) struct Road {
    packets: Sender,
    messages: mpsc::Sender<Message>,
    woken: Arc<Notify>,
    /// Whether it has to be woken for packets that were pushed.
    owed: Owed,
    pub(crate) counters: CrossCounters,
}

impl Road {
    /// Loss policy: where the ring is full the packet is dropped and counted.
    fn push(&mut self, to: Place, at: Micros, packet: &[u8]) -> bool {
        let pushed = self.packets.push(to, at, packet);
        self.owed.note(pushed);
        self.counters.packets += u64::from(pushed);
        pushed
    }
}

/// A worker's ways to the others.
pub(crate) struct Cross {
    pub(crate) me: usize,
    /// By number of the worker; none for itself.
    roads: Vec<Option<Road>>,
    next_serial: u32,
    unsent: VecDeque<(usize, Message)>,
    /// When homes were last told of mirrors that have got nothing.
    begun: Micros,
}

/// What comes to a worker from the others.
pub(crate) struct Incoming {
    pub(crate) messages: mpsc::Receiver<Message>,
    pub(crate) crossings: Crossings,
}

/// Rings that lead to a worker, and what rings when something was put into one.
pub(crate) struct Crossings {
    rings: Vec<Receiver>,
    woken: Arc<Notify>,
}

/// Connects so many workers with each other.
pub(crate) fn connect(workers: usize) -> Vec<(Cross, Incoming)> {
    connect_with(workers, RING_BYTES)
}

pub(crate) fn connect_with(workers: usize, ring_bytes: usize) -> Vec<(Cross, Incoming)> {
    let mut doors = Vec::new();
    let mut incoming = Vec::new();
    for _ in 0..workers {
        let (sender, messages) = mpsc::channel(MESSAGES);
        let woken = Arc::new(Notify::new());
        doors.push((sender, Arc::clone(&woken)));
        incoming.push(Incoming { messages, crossings: Crossings { rings: Vec::new(), woken } });
    }
    let mut crosses = Vec::new();
    for me in 0..workers {
        let ends = doors.iter().zip(&mut incoming).enumerate();
        let roads = ends.map(|(to, ((messages, woken), end))| {
            (to != me).then(|| {
                let (packets, receiver) = ring::ring(ring_bytes);
                end.crossings.rings.push(receiver);
                let (messages, woken) = (messages.clone(), Arc::clone(woken));
                Road { packets, messages, woken, owed: Owed::default(), counters: CrossCounters::default() }
            })
        });
        crosses.push(Cross { me, roads: roads.collect(), next_serial: 0, unsent: VecDeque::new(), begun: Micros(0) });
    }
    crosses.into_iter().zip(incoming).collect()
}

impl Cross {
    fn serial(&mut self) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.next_serial
    }

    fn road(&mut self, to: usize) -> Option<&mut Road> {
        self.roads.get_mut(to)?.as_mut()
    }

    /// Roads to others with their numbers.
    pub(crate) fn roads(&self) -> impl Iterator<Item = (usize, &Road)> {
        self.roads.iter().enumerate().filter_map(|(to, r)| Some((to, r.as_ref()?)))
    }

    /// Says something to another worker, after all that it was to be told before.
    fn send(&mut self, to: usize, message: Message) {
        self.unsent.push_back((to, message));
        self.send_unsent();
        if self.unsent.len() > MAX_UNSENT {
            // The first one of those that are worth least.
            let least = self.unsent.iter().enumerate().min_by_key(|(_, (_, m))| m.worth()).map(|(place, _)| place);
            least.and_then(|place| self.unsent.remove(place));
            tracing::error!(worker = self.me, "a worker takes no messages any more");
        }
    }

    /// Says what could not be said before. A worker that is gone needs to be told nothing.
    pub(crate) fn send_unsent(&mut self) {
        while let Some((to, message)) = self.unsent.pop_front() {
            let Some(road) = self.roads.get(to).and_then(Option::as_ref) else { continue };
            if let Err(mpsc::error::TrySendError::Full(message)) = road.messages.try_send(message) {
                return self.unsent.push_front((to, message));
            }
        }
    }

    /// Wakes the workers that packets were pushed for: once a batch.
    pub(crate) fn wake(&mut self) {
        for road in self.roads.iter_mut().flatten() {
            road.owed.settle(&*road.woken);
        }
    }
}

impl Core {
    /// What another worker said.
    pub(crate) fn handle_message(&mut self, message: Message, now: Instant) {
        match message {
            Message::Begin { key, to, place } => self.begin_mirror(key, to, place, now),
            Message::End { key, to, serial, delay } => self.end_mirror(&key, to, serial, &delay),
            Message::KeyFrame { key } => self.want_key_frame_of(&key, now),
            Message::Closed { key, serial } => {
                if self.mirror_of(&key, serial).is_some() {
                    self.close_feed(&key);
                }
            }
            Message::Descriptor { key, serial, descriptor } => {
                if let Some(entry) = self.mirror_of(&key, serial).and_then(|i| self.feeds.get_mut(i)) {
                    entry.descriptor = descriptor;
                }
            }
        }
    }

    /// What this worker owes the others by the clock: messages, packets of mirrors that catch up, mirrors without a leg.
    pub(crate) fn keep_crossings(&mut self, at: Micros) {
        self.cross.send_unsent();
        self.begin_again(at);
        self.catch_up();
        self.drop_idle_mirrors();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::session::ids::{FeedId, SessionId};

    #[test]
    fn where_a_worker_takes_no_messages_its_mirrors_still_begin_and_end() {
        let key = |n: usize| FeedKey {
            session: SessionId::new("s1").unwrap(),
            feed: FeedId::new(format!("scope{n}").as_str()).unwrap(),
        };
        let mut workers = connect_with(2, 4_096);
        let (mut cross, _) = workers.remove(0);
        let (_, mut there) = workers.remove(0);
        // The channel is full before the first message that must not be lost.
        for _ in 0..MESSAGES {
            cross.send(1, Message::KeyFrame { key: key(0) });
        }
        for n in 0..2 * MAX_UNSENT {
            let message = match n % 16 {
                0 => Message::Begin { key: key(n), to: 0, place: Place { index: 1, serial: 1 } },
                8 => Message::End { key: key(n), to: 0, serial: 1, delay: DelayHistogram::default() },
                _ => Message::KeyFrame { key: key(n) },
            };
            cross.send(1, message);
        }
        assert_eq!(cross.unsent.len(), MAX_UNSENT);
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        while let Ok(message) = there.messages.try_recv() {
            match message {
                Message::Begin { key, .. } => begun.push(key),
                Message::End { key, .. } => ended.push(key),
                _ => {}
            }
            cross.send_unsent();
        }
        let each = |from: usize| (from..2 * MAX_UNSENT).step_by(16).map(key).collect::<Vec<_>>();
        assert_eq!((begun, ended), (each(0), each(8)), "all of them, in order");
    }
}
