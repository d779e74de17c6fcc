//! A stream's place on a connection that several streams leave by: while the line takes less than all of them send, it goes to
//! them by purpose and priority ([`SharedLine`]).

use super::line::{line_figures, shared_line};
use quinn::Connection;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use trocar_proto::media::rate::{Share, SharedLine};
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::units::Micros;

/// The line of one connection, and the moment that it counts time from.
#[derive(Debug)]
pub(super) struct Line {
    origin: Instant,
    shared: Mutex<SharedLine>,
}

impl Line {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, shared: Mutex::default() }
    }

    fn shared(&self) -> MutexGuard<'_, SharedLine> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    connection: Connection,
    line: Arc<Line>,
    id: u64,
    /// For the log.
    name: String,
    /// What the log was told last.
    told: Share,
    /// All that was to be sent, as counted by [`Self::note_total`].
    total: Option<u64>,
}

impl Seat {
    /// A feed leaves by that connection from now on. None where the connection has another congestion control.
    #[must_use]
    pub fn take(connection: &Connection, feed: &FeedDescriptor) -> Option<Self> {
        let line = shared_line(connection)?;
        let now = line.now();
        let id = line.shared().join(now, feed.purpose, feed.priority, feed.max_bitrate);
        let (connection, name) = (connection.clone(), feed.feed.to_string());
        Some(Self { connection, line, id, name, told: Share::Whole, total: None })
    }

    /// Whether a frame may begin now.
    pub fn may_begin(&mut self) -> bool {
        let now = self.line.now();
        let mut shared = self.line.shared();
        if shared.is_due(now)
            && let Some(f) = line_figures(&self.connection)
        {
            shared.settle(now, f.target, f.state);
        }
        let (may, share) = (shared.may_begin(now, self.id), shared.share(self.id));
        drop(shared);
        if (share == Share::Nothing) != (self.told == Share::Nothing) {
            let (feed, takes) = (&self.name, line_figures(&self.connection).map_or(0, |f| f.target.0));
            if share == Share::Nothing {
                tracing::warn!(
                    feed,
                    takes,
                    "paused: the line takes less than all that leaves by it, and others go first (bit/s)"
                );
            } else {
                tracing::info!(feed, takes, "goes on: the line takes it again (bit/s)");
            }
        }
        self.told = share;
        may
    }

    /// So many bytes of frames are there to be sent, whether they leave or not.
    pub fn note_offered(&self, bytes: u64) {
        self.line.shared().note_offered(self.id, bytes);
    }

    /// The same for who counts all bytes since the beginning.
    pub fn note_total(&mut self, bytes: u64) {
        let before = self.total.replace(bytes).unwrap_or(bytes);
        if bytes > before {
            self.note_offered(bytes - before);
        }
    }

    /// So many bytes left.
    pub fn note_sent(&self, bytes: u64) {
        self.line.shared().note_sent(self.id, bytes);
    }

    /// By what the usual wait in the connection is divided for this stream ([`SharedLine::patience`]).
    #[must_use]
    pub fn patience(&self) -> u64 {
        self.line.shared().patience(self.id)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.line.shared().leave(self.id);
    }
}
