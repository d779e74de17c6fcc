//! What a native feed comes by: one connection, or two that bring the same packets.

use super::state::{Core, FeedEntry, Origin, wall_now};
use crate::frames;
use crate::metrics::{self as m, LegFigures, Value};
use quinn::Connection;
use std::time::Instant;
use trocar_proto::media::paths::{PathMerge, Seen, silence_us};
use trocar_proto::media::rtp::Header;
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::{FeedPaths, FeedState, MAX_PATHS};
use trocar_proto::session::feed::{FeedDescriptor, RoqMode, Transport};
use trocar_proto::units::Micros;

/// Paths that are to bring a protected feed.
const EXPECTED: u8 = 2;

/// The connections that bring one feed.
#[derive(Default)]
pub(crate) struct Paths {
    connections: [Option<Connection>; MAX_PATHS],
    merge: PathMerge,
    /// What signaling was told last.
    told: Option<FeedPaths>,
}

impl Paths {
    /// The place of a connection. A new one takes a free place, else that of the one that has been silent longest: a publisher
    /// that was started anew comes while its last connection is not over yet.
    fn place_of(&mut self, by: &Connection) -> (usize, bool) {
        let id = by.stable_id();
        if let Some(place) = self.connections.iter().position(|c| c.as_ref().is_some_and(|c| c.stable_id() == id)) {
            return (place, false);
        }
        let free = self.connections.iter().position(Option::is_none);
        let place = free.or_else(|| (0..MAX_PATHS).min_by_key(|p| self.merge.last(*p))).unwrap_or(0);
        if let Some(slot) = self.connections.get_mut(place) {
            *slot = Some(by.clone());
        }
        self.merge.begin(place);
        (place, true)
    }

    /// The connection where reports and requests go: the one that brought something last.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        let fresh = self.merge.freshest().and_then(|p| self.connections.get(p)?.as_ref());
        fresh.or_else(|| self.connections.iter().flatten().next())
    }

    /// How many connections bring it.
    pub(crate) fn count(&self) -> usize {
        self.connections.iter().flatten().count()
    }

    /// A connection is over.
    pub(crate) fn forget(&mut self, id: usize) {
        for slot in &mut self.connections {
            slot.take_if(|c| c.stable_id() == id);
        }
    }

    fn is_one_of(&self, id: usize) -> bool {
        self.connections.iter().flatten().any(|c| c.stable_id() == id)
    }
}

/// Whether a feed is to come by two paths.
const fn is_protected(d: &FeedDescriptor) -> bool {
    d.protected && matches!(d.transport, Transport::Roq { .. })
}

impl Core {
    /// A packet of a native feed came by a connection: whether the feed is to have it. On a protected feed a second copy is not;
    /// on any other the feed itself refuses and counts it.
    pub(super) fn came_by(&mut self, index: usize, by: &Connection, at: Micros, packet: &[u8]) -> bool {
        let Some(FeedEntry { origin: Origin::Roq { paths, .. }, descriptor, .. }) = self.feeds.get_mut(index) else {
            return true;
        };
        let (place, is_new) = paths.place_of(by);
        let Ok(header) = Header::parse(packet) else { return true };
        // What the descriptor does not name is refused by the feed; here it would look like another source.
        if header.payload_type != descriptor.payload_type {
            return true;
        }
        let seen = paths.merge.handle_packet(at, place, header.ssrc, header.seq);
        let wanted = seen == Seen::First || !is_protected(descriptor);
        if is_new {
            self.widen(by);
        }
        wanted
    }

    /// Opens the receive window of a connection for the frames that come by it as streams.
    fn widen(&self, connection: &Connection) {
        let id = connection.stable_id();
        let streamed = self.feeds.iter().map(|(_, f)| f).filter(|f| {
            let is_its = matches!(&f.origin, Origin::Roq { paths, .. } if paths.is_one_of(id));
            is_its && matches!(f.descriptor.transport, Transport::Roq { mode: RoqMode::Stream, .. })
        });
        let (bits, budget) = streamed.fold((0_u64, 0), |(b, ms), f| {
            (b.saturating_add(f.descriptor.max_bitrate.0), ms.max(f.descriptor.budget_ms))
        });
        if bits > 0 {
            connection.set_receive_window(frames::receive_window(bits, budget));
        }
    }

    /// Says of every protected feed when another number of paths brings it. A feed that stands still has an alarm of its own.
    pub(super) fn watch_paths(&mut self, at: Micros) {
        let mut news = Vec::new();
        for (_, f) in &mut self.feeds {
            let Origin::Roq { paths, .. } = &mut f.origin else { continue };
            if !is_protected(&f.descriptor) || f.state == FeedState::Waiting {
                continue;
            }
            let silence = silence_us(f.descriptor.fps);
            let Some(alive) = paths.merge.alive_to_tell(at, silence, EXPECTED) else { continue };
            if paths.told.is_some_and(|t| t.alive == alive) {
                continue;
            }
            let now = FeedPaths { expected: EXPECTED, alive, since: wall_now() };
            if paths.told.is_some() || alive < now.expected {
                tracing::info!(feed = %f.key.feed, session = %f.key.session, alive, expected = now.expected, "paths of a protected feed");
            }
            paths.told = Some(now);
            news.push(RelayEvent::Paths { key: f.key.clone(), paths: now });
        }
        for event in news {
            self.tell(event);
        }
    }
}

impl Core {
    /// The figures of a protected feed's paths.
    pub(super) fn path_figures(&self, f: &FeedEntry) -> Vec<LegFigures> {
        let Origin::Roq { paths, .. } = &f.origin else { return Vec::new() };
        if !is_protected(&f.descriptor) {
            return Vec::new();
        }
        let at = self.micros(Instant::now());
        let count = |metric, value: u64| Value { metric, value: value as f64 };
        let one = vec![("session", f.key.session.to_string()), ("feed", f.key.feed.to_string())];
        let alive = paths.merge.alive(at, silence_us(f.descriptor.fps));
        let values =
            vec![count(&m::FEED_PATHS_EXPECTED, u64::from(EXPECTED)), count(&m::FEED_PATHS_ALIVE, u64::from(alive))];
        let mut all = vec![LegFigures { labels: one.clone(), values }];
        for (path, connection) in paths.connections.iter().enumerate() {
            let c = paths.merge.counters(path);
            let mut values = vec![
                count(&m::PATH_PACKETS, c.packets),
                count(&m::PATH_FIRST, c.first),
                count(&m::PATH_AGAIN, c.again),
                count(&m::PATH_MISSING, c.missing),
            ];
            values.extend(connection.as_ref().map(|c| Value { metric: &m::PATH_RTT, value: c.rtt().as_secs_f64() }));
            let silence = paths.merge.last(path).map(|t| at.since(t) as f64 / 1e6);
            values.extend(silence.map(|value| Value { metric: &m::PATH_SILENCE, value }));
            let mut labels = one.clone();
            labels.push(("path", path.to_string()));
            all.push(LegFigures { labels, values });
        }
        all
    }
}
