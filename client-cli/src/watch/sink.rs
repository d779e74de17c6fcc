//! Where frames go, whichever way they came: figures, ledger, window.

use super::origin::Origin;
use super::window::{Display, Window};
use crate::echo::Echo;
use crate::ledger::{Ledger, digest};
use crate::net::api::wall_now;
use crate::net::events::FirstShown;
use crate::tally::Tally;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_proto::media::receive::{CompleteFrame, ReceiveCounters};
use trocar_proto::session::api::{FeedInfo, FeedPaths, FeedState};
use trocar_proto::units::Micros;

/// A key frame is asked for no more often than this.
const KEY_FRAME_EVERY: Duration = Duration::from_millis(500);

/// What a transport knows about its line; none where it does not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Line {
    /// Interarrival jitter, in microseconds.
    pub(crate) jitter_us: Option<u64>,
    /// Round trip, in microseconds.
    pub(crate) rtt_us: Option<u64>,
}

/// Whose paths are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathsOf {
    /// The feed's, from its publisher to the relay.
    Feed,
    /// Ours, from the relay.
    Leg,
}

/// Takes frames.
pub(crate) struct Sink {
    tally: Tally,
    ledger: Option<Ledger>,
    /// Where a window can be opened; none without one.
    display: Option<Display>,
    window: Option<Window>,
    /// Who is told which frames are shown.
    echo: Option<Arc<Echo>>,
    /// Who is told that the leg's first picture is shown, until it is.
    first: Option<FirstShown>,
    frames: Option<u64>,
    origin: Instant,
    asked: Option<Instant>,
}

impl Sink {
    /// How often [`Self::tick`] is wanted.
    pub(crate) const TICK: Duration = Duration::from_millis(250);

    /// For the feed of this name. `frames` ends it after so many. With an `echo` and without a display a frame counts as shown when it
    /// is complete.
    pub(super) fn new(
        name: &str,
        json: bool,
        ledger: Option<&Path>,
        frames: Option<u64>,
        display: Option<Display>,
        echo: Option<Echo>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            tally: Tally::new(name, json),
            ledger: ledger.map(Ledger::create).transpose()?,
            display,
            window: None,
            echo: echo.map(Arc::new),
            first: None,
            frames,
            origin: Instant::now(),
            asked: None,
        })
    }

    /// Time since the start, for receivers.
    pub(crate) fn now(&self) -> Micros {
        Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Another number of paths brings the feed or the leg.
    pub(crate) fn paths(&mut self, of: PathsOf, paths: FeedPaths) {
        self.tally.paths(of, paths);
    }

    /// A leg begins; `first` hears when its first picture is shown: by the window, or where there is none when a frame is whole that
    /// a decoder could begin with.
    pub(crate) fn begin_leg(&mut self, first: Option<FirstShown>) {
        self.tally.begin_leg();
        self.first = first;
    }

    /// What comes is in this codec, by its encoding name.
    ///
    /// # Errors
    /// Where a window is wanted and the codec cannot be shown.
    pub(crate) fn show_as(&mut self, codec: &str, fmtp: &str, clock_rate: u32) -> anyhow::Result<()> {
        self.tally.set_codec(codec);
        if let Some(display) = &self.display
            && self.window.as_ref().is_none_or(|w| !w.shows(codec))
        {
            self.window = None;
            self.window = Some(display.open(codec, fmtp, clock_rate, self.echo.clone())?);
        }
        Ok(())
    }

    /// It is over; `gap` says why, where another one may follow.
    pub(crate) fn end_leg(&mut self, counters: ReceiveCounters, gap: Option<&str>) {
        self.tally.end_leg(counters);
        if let Some(w) = &self.window {
            w.handle_loss();
        }
        if let Some(why) = gap {
            self.tally.gap(why);
        }
    }

    /// A frame, and when it was captured where that is known.
    pub(crate) fn complete(&mut self, frame: &CompleteFrame, origin: Option<Origin>) {
        if self.is_done() {
            return;
        }
        // The age ends with the last packet, not with the packets of other frames that this one was held back for.
        let held = i64::try_from(self.now().since(frame.last_arrival)).unwrap_or(i64::MAX);
        let age = origin.map(|o| o.age(wall_now().offset(held.saturating_neg())));
        if let Some(l) = &mut self.ledger {
            let sum = digest(frame.payloads.iter().map(Vec::as_slice));
            l.write_came(frame.frame_id, &sum, wall_now(), age.map(|a| a.age_us));
        }
        self.tally.complete(frame, age);
        let reference =
            self.echo.as_ref().map(|e| e.reference(frame.frame_id, frame.payloads.iter().map(Vec::as_slice)));
        if frame.independent
            && let Some(first) = self.first.take()
        {
            match &self.window {
                Some(w) => w.tell_first(first),
                None if self.display.is_none() => first.tell(),
                None => {}
            }
        }
        match (&self.window, &self.echo, reference) {
            (Some(w), ..) => w.show(frame, origin, reference),
            (None, Some(echo), Some(reference)) if self.display.is_none() => echo.shown(&reference),
            _ => {}
        }
    }

    /// A frame that will not be complete.
    pub(crate) fn lost(&mut self, frame_id: u32, packets: u32) {
        self.tally.lost(frame_id, packets);
        if let Some(w) = &self.window {
            w.handle_loss();
        }
    }

    /// Frames of which nothing came: what needs them is not shown.
    pub(crate) fn skipped(&mut self) {
        if let Some(w) = &self.window {
            w.handle_loss();
        }
    }

    /// Whether a key frame is to be asked for now: what comes is of no use without (`needed`), or the window cannot go on.
    pub(crate) fn wants_key_frame(&mut self, needed: bool) -> bool {
        let wanted = (needed || self.window.as_ref().is_some_and(Window::wants_key_frame))
            && self.asked.is_none_or(|t| t.elapsed() >= KEY_FRAME_EVERY);
        if wanted {
            self.asked = Some(Instant::now());
        }
        wanted
    }

    /// Prints; `second` where a second is over.
    pub(crate) fn tick(&mut self, counters: ReceiveCounters, feed: Option<&FeedInfo>, line: Line, second: bool) {
        let state = feed.map(|f| f.state);
        if let Some(f) = feed {
            self.tally.describe(&f.descriptor);
            f.paths.into_iter().for_each(|p| self.tally.paths(PathsOf::Feed, p));
        }
        self.tick_as(counters, state, line, second);
    }

    /// [`Self::tick`] where nothing is known of the feed but its state.
    pub(crate) fn tick_as(&mut self, counters: ReceiveCounters, state: Option<FeedState>, line: Line, second: bool) {
        if let Some(w) = &self.window {
            w.set_state(state);
        }
        self.tally.tick(counters, state, line, second);
    }

    /// Whether all frames that were wanted came, or the window was closed.
    pub(crate) fn is_done(&self) -> bool {
        self.frames.is_some_and(|n| self.tally.frames() >= n) || self.window.as_ref().is_some_and(Window::is_closed)
    }

    /// Closes the window and prints the figures of the whole watch.
    pub(super) fn finish(mut self) {
        self.window = None;
        self.tally.print_summary();
    }
}
