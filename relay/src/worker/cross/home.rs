//! The home's side of a mirror: which packets are for whom, and what the home tells about a feed.

use super::ring::Place;
use super::{Message, Road};
use crate::metrics::DelayHistogram;
use crate::worker::state::{Core, FeedEntry, Origin};
use std::time::Instant;
use trocar_proto::media::feed::{Feed, JOIN_FROM_CACHE_US};
use trocar_proto::session::admission::FeedKey;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::session::ids::{ParticipantId, SessionId};

/// What a leg that carries nothing now costs, in bits per second: a place for a voice.
const SILENT_LEG: u64 = 128_000;

/// What another worker has to know of a feed to mirror it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) home: usize,
    pub(crate) key: FeedKey,
    pub(crate) publisher: ParticipantId,
    pub(crate) descriptor: FeedDescriptor,
}

/// How a worker stands towards something that is to be opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Bits per second of all that comes in and goes out, by what was granted.
    pub(crate) load: u64,
    /// Feeds that live here.
    pub(crate) feeds: usize,
    pub(crate) legs: usize,
    /// Something of the session lives here.
    pub(crate) is_home: bool,
    /// The feeds asked for that live here.
    pub(crate) images: Vec<Image>,
    /// Feeds asked for that are mirrored here.
    pub(crate) mirrored: Vec<FeedKey>,
}

/// A feed's mirror on another worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MirrorOut {
    to: usize,
    place: Place,
    /// Next packet of the feed's ring.
    cursor: u64,
    /// It has caught up: from here on what finds no room is dropped.
    live: bool,
}

impl Core {
    /// How this worker stands towards a session and some of its feeds.
    pub(crate) fn standing(&self, session: &SessionId, feeds: &[FeedKey]) -> Standing {
        let mut s =
            Standing { is_home: self.voices.contains_key(session), legs: self.legs.len(), ..Standing::default() };
        for (_, f) in &self.feeds {
            s.load = s.load.saturating_add(f.descriptor.max_bitrate.0);
            let asked = feeds.contains(&f.key);
            if let Origin::Mirror { .. } = f.origin {
                s.mirrored.extend(asked.then(|| f.key.clone()));
                continue;
            }
            s.feeds += 1;
            s.is_home |= &f.key.session == session;
            if asked {
                let (key, publisher, descriptor) = (f.key.clone(), f.publisher.clone(), f.descriptor.clone());
                s.images.push(Image { home: self.cross.me, key, publisher, descriptor });
            }
        }
        for (_, leg) in &self.legs {
            let rate = leg.feed.and_then(|f| self.feeds.get(f)).map_or(SILENT_LEG, |f| f.descriptor.max_bitrate.0);
            s.load = s.load.saturating_add(rate);
        }
        s
    }

    /// Another worker has made a mirror. It begins with what a joiner begins with. What is known already changes nothing; a worker
    /// has one mirror of a feed, so that another one takes the place of the one before.
    pub(super) fn begin_mirror(&mut self, key: FeedKey, to: usize, place: Place, now: Instant) {
        let at = self.micros(now);
        let found = self.feed_by_key.get(&key).copied();
        let Some((index, entry)) = found.and_then(|i| Some((i, self.feeds.get_mut(i)?))) else {
            return self.cross.send(to, Message::Closed { key, serial: place.serial });
        };
        if entry.mirrors.iter().any(|m| (m.to, m.place) == (to, place)) {
            return;
        }
        entry.mirrors.retain(|m| m.to != to);
        let join = entry.feed.join_point(at, JOIN_FROM_CACHE_US);
        let cursor = join.unwrap_or(entry.feed.ring().head());
        entry.mirrors.push(MirrorOut { to, place, cursor, live: false });
        if join.is_none() {
            entry.feed.handle_key_frame_request();
            self.ask_key_frame(index, now, at);
        }
        self.cross_over(index);
        self.cross.wake();
    }

    pub(super) fn end_mirror(&mut self, key: &FeedKey, to: usize, serial: u32, delay: &DelayHistogram) {
        let Some(entry) = self.feed_by_key.get(key).and_then(|i| self.feeds.get_mut(*i)) else { return };
        let before = entry.mirrors.len();
        entry.mirrors.retain(|m| (m.to, m.place.serial) != (to, serial));
        if entry.mirrors.len() < before {
            entry.delay.add(delay);
        }
    }

    pub(super) fn want_key_frame_of(&mut self, key: &FeedKey, now: Instant) {
        let at = self.micros(now);
        let Some(index) = self.feed_by_key.get(key).copied() else { return };
        if let Some(entry) = self.feeds.get_mut(index) {
            entry.feed.handle_key_frame_request();
            self.ask_key_frame(index, now, at);
        }
    }

    /// Puts what is new in a feed onto the roads to its mirrors. The workers there are woken by
    /// [`super::Cross::wake`].
    pub(in crate::worker) fn cross_over(&mut self, index: usize) {
        let Self { feeds, cross, .. } = self;
        let Some(FeedEntry { feed, mirrors, .. }) = feeds.get_mut(index) else { return };
        for mirror in mirrors {
            if let Some(road) = cross.road(mirror.to) {
                mirror.push_to(road, feed);
            }
        }
    }

    /// Goes on with mirrors that found no room while they caught up: their feed may be silent.
    pub(super) fn catch_up(&mut self) {
        let waits = |f: &FeedEntry| f.mirrors.iter().any(|m| !m.live);
        // Mirrors begin rarely: there is nothing to collect but then.
        let waiting: Vec<usize> = self.feeds.iter().filter(|(_, f)| waits(f)).map(|(i, _)| i).collect();
        for index in waiting {
            self.cross_over(index);
        }
        self.cross.wake();
    }

    /// Tells the mirrors of a feed that it is closed.
    pub(in crate::worker) fn close_mirrors(&mut self, key: &FeedKey, mirrors: &[MirrorOut]) {
        for m in mirrors {
            self.cross.send(m.to, Message::Closed { key: key.clone(), serial: m.place.serial });
        }
    }

    /// Tells the mirrors of a feed what is known about it now.
    pub(in crate::worker) fn describe_to_mirrors(&mut self, key: &FeedKey, descriptor: &FeedDescriptor) {
        let Some(entry) = self.feed_by_key.get(key).and_then(|i| self.feeds.get(*i)) else { return };
        for m in &entry.mirrors {
            let (key, descriptor) = (key.clone(), descriptor.clone());
            self.cross.send(m.to, Message::Descriptor { key, serial: m.place.serial, descriptor });
        }
    }
}

impl MirrorOut {
    /// Where its packets go.
    #[cfg(test)]
    pub(in crate::worker) const fn place(&self) -> Place {
        self.place
    }

    /// Bounded by the feed's ring.
    fn push_to(&mut self, road: &mut Road, feed: &Feed) {
        let ring = feed.ring();
        if self.cursor < ring.oldest() {
            road.counters.dropped += ring.oldest() - self.cursor;
            self.cursor = ring.oldest();
        }
        while let Some((info, packet)) = ring.get(self.cursor) {
            if !road.push(self.place, info.arrived, packet) {
                if !self.live {
                    return;
                }
                road.counters.dropped += 1;
            }
            self.cursor += 1;
        }
        self.live = true;
    }
}
