//! The rate controller of [`trocar_proto::media::rate`] in the place of QUIC's congestion control (RFC 9002 section 7).
//!
//! quinn tells of each acknowledgement when its packet was sent; the time between is the packet's delay, whose smallest
//! value is the empty line. quinn asks for one number, the bytes that may be in flight, and makes its pace of it: 1.25
//! windows per smoothed round trip, in bursts of 2 ms (10 to 256 packets). So the window is made of the rate:
//!
//! - nothing tells of a queue: the larger of pace × smoothed round trip / 1.25, and of what the target has in flight until
//!   its acknowledgements are back. It paces and never blocks.
//! - the line takes less than the grant: rate × (round trip of the empty line + [`ACK_US`]). It bounds what can stand in a
//!   queue, and its acknowledgements make the pace.
//! - a line that is not paced (LAN): [`OPEN_WINDOW`].
//!
//! A line with no queue above [`SILENT_QUEUE_US`], and from which nothing is heard for [`SILENT_FROM_US`], is sent to as before, up to
//! [`SILENT_US`] of the target: the window is what is in flight and [`SILENT_STEP_US`] more. So the picture is there again as soon
//! as a line that was dark carries, rather than after the next probe timeout, which doubles each time (RFC 9002 section 6.2.1).
//!
//! There is no slow start: the grant is what the line was measured for. Explicit congestion marks (ECN) are not used.

use super::seat::Line;
use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use trocar_proto::media::rate::{DelayController, LineState, Pace, PacketResult, RateConfig, RateController};
use trocar_proto::units::{Bitrate, Micros};

/// What a connection may send until it is told a grant: control and the first frames. No grant has this value.
pub const GRANT_UNKNOWN: Bitrate = Bitrate(20_000_001);
/// How long an acknowledgement waits at the other end at most, with what timers add, in microseconds.
pub(super) const ACK_US: u64 = 7_000;
/// From when on a line is silent, how much is sent to it then, and by how much the window is ahead: by time, in microseconds; the
/// latter two at the target.
const SILENT_FROM_US: u64 = 20_000;
const SILENT_US: u64 = 500_000;
const SILENT_STEP_US: u64 = 20_000;
/// A longer queue is not sent to while it is silent: it stalls, perhaps.
const SILENT_QUEUE_US: u64 = 20_000;
/// Bytes in flight where nothing is paced, and at most.
const OPEN_WINDOW: u64 = 8 << 20;
const WINDOW_MAX: u64 = 64 << 20;
/// Packets in flight at least.
const WINDOW_MIN_PACKETS: u64 = 4;
/// Results that are kept until a batch of acknowledgements ends.
const BATCH: usize = 256;
/// quinn paces by this much more than a window per round trip.
const QUINN_PACE: f64 = 1.25;

/// How a connection's line is, as this end sees it as a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineFigures {
    /// What was granted.
    pub granted: Bitrate,
    /// What the line takes.
    pub target: Bitrate,
    /// At what rate packets leave.
    pub pace: Bitrate,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// How long packets waited in queues on the way.
    pub queueing_delay: Duration,
    /// How the line is.
    pub state: LineState,
}

/// What leaves by this connection was granted so much in all: from here on the rate starts there. To be called whenever
/// the sum changes, and now and then: a connection that moved to another address begins anew.
pub fn set_granted(connection: &Connection, granted: Bitrate) {
    if let Some(shared) = shared_of(connection) {
        shared.granted.store(granted.0.max(1), Ordering::Relaxed);
    }
}

/// So much more leaves by this connection than what it was told before: for an owner that only ever adds.
pub fn add_granted(connection: &Connection, granted: Bitrate) {
    let Some(shared) = shared_of(connection) else { return };
    let sum = |old: u64| Some(if old == GRANT_UNKNOWN.0 { granted.0 } else { old.saturating_add(granted.0) });
    // The value is never refused, so the update cannot fail.
    let _ = shared.granted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
}

/// How the line is; none where the connection has another congestion control.
#[must_use]
pub fn line_figures(connection: &Connection) -> Option<LineFigures> {
    let shared = shared_of(connection)?;
    let get = |v: &AtomicU64| v.load(Ordering::Relaxed);
    Some(LineFigures {
        granted: Bitrate(get(&shared.granted)),
        target: Bitrate(get(&shared.target)),
        pace: Bitrate(get(&shared.pace)),
        rtt: connection.rtt(),
        queueing_delay: Duration::from_micros(get(&shared.queueing_us)),
        state: match shared.state.load(Ordering::Relaxed) {
            CONGESTED => LineState::Congested,
            FILLING => LineState::Filling,
            _ => LineState::Clear,
        },
    })
}

/// Who leaves by a connection, with the figures of [`line_figures`].
pub(super) fn shared_line(connection: &Connection) -> Option<Arc<Line>> {
    shared_of(connection).map(|s| Arc::clone(&s.line))
}

fn shared_of(connection: &Connection) -> Option<Arc<Shared>> {
    shared(connection.congestion_state())
}

fn shared(controller: Box<dyn Controller>) -> Option<Arc<Shared>> {
    let control = controller.into_any().downcast::<LineControl>().ok()?;
    Some(control.shared)
}

/// [`set_granted`] without quinn's runtime.
#[cfg(test)]
pub(super) fn granted_to(controller: &dyn Controller, granted: Bitrate) {
    if let Some(s) = shared(controller.clone_box()) {
        s.granted.store(granted.0, Ordering::Relaxed);
    }
}

/// What the line takes and how it is, without quinn's runtime.
#[cfg(test)]
pub(super) fn figures_of(controller: &dyn Controller) -> Option<(Bitrate, LineState)> {
    let s = shared(controller.clone_box())?;
    let state = match s.state.load(Ordering::Relaxed) {
        CONGESTED => LineState::Congested,
        FILLING => LineState::Filling,
        _ => LineState::Clear,
    };
    Some((Bitrate(s.target.load(Ordering::Relaxed)), state))
}

const FILLING: u8 = 1;
const CONGESTED: u8 = 2;

/// What a connection's controller and its owner tell each other.
#[derive(Debug)]
struct Shared {
    granted: AtomicU64,
    target: AtomicU64,
    pace: AtomicU64,
    queueing_us: AtomicU64,
    state: AtomicU8,
    line: Arc<Line>,
}

/// Makes a controller for each connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct LineControlFactory;

impl ControllerFactory for LineControlFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LineControl::new(now, current_mtu))
    }
}

/// Rate control by delay, as quinn wants it.
#[derive(Debug, Clone)]
pub struct LineControl {
    origin: Instant,
    control: DelayController,
    mtu: u16,
    granted: u64,
    smoothed_us: u64,
    batch: Vec<PacketResult>,
    window: u64,
    unheard: Unheard,
    shared: Arc<Shared>,
}

/// What left since the last acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Unheard {
    bytes: u64,
    /// When the first of it left.
    since: Instant,
    /// Bytes in flight before.
    before: u64,
    /// The window, while the line is silent.
    window: u64,
}

impl LineControl {
    fn new(now: Instant, mtu: u16) -> Self {
        let control = DelayController::new(RateConfig::around(GRANT_UNKNOWN));
        let shared = Shared {
            granted: AtomicU64::new(GRANT_UNKNOWN.0),
            target: AtomicU64::new(GRANT_UNKNOWN.0),
            pace: AtomicU64::new(0),
            queueing_us: AtomicU64::new(0),
            state: AtomicU8::new(0),
            line: Arc::new(Line::new(now)),
        };
        let mut made = Self {
            origin: now,
            control,
            mtu,
            granted: GRANT_UNKNOWN.0,
            // As quinn assumes before it has measured.
            smoothed_us: 333_000,
            batch: Vec::with_capacity(BATCH),
            window: 0,
            unheard: Unheard { bytes: 0, since: now, before: 0, window: 0 },
            shared: Arc::new(shared),
        };
        made.settle(now);
        made
    }

    fn micros(&self, at: Instant) -> Micros {
        Micros(u64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(u64::MAX))
    }

    fn hand_over(&mut self, now: Instant) {
        let at = self.micros(now);
        self.control.handle_results(at, &self.batch);
        self.batch.clear();
    }

    fn note(&mut self, now: Instant, result: PacketResult) {
        if self.batch.len() >= BATCH {
            self.hand_over(now);
        }
        self.batch.push(result);
    }

    /// Takes another grant, makes the window, shows the figures.
    fn settle(&mut self, now: Instant) {
        let granted = self.shared.granted.load(Ordering::Relaxed);
        if granted != self.granted {
            self.granted = granted;
            self.control.set_config(RateConfig::around(Bitrate(granted)));
        }
        let at = self.micros(now);
        self.window = self.window_for(at);
        let s = &self.shared;
        s.target.store(self.control.target().0, Ordering::Relaxed);
        s.pace.store(self.control.pacing_rate(at).0, Ordering::Relaxed);
        s.queueing_us.store(self.control.queueing_delay_us(), Ordering::Relaxed);
        let state = match self.control.state() {
            LineState::Clear => 0,
            LineState::Filling => FILLING,
            LineState::Congested => CONGESTED,
        };
        s.state.store(state, Ordering::Relaxed);
    }

    /// Takes what leaves, and makes the window where the line is silent. See the module.
    fn listen(&mut self, now: Instant, leaves: u64) {
        let u = &mut self.unheard;
        if u.bytes == 0 {
            u.since = now;
        }
        u.bytes = u.bytes.saturating_add(leaves);
        if now.saturating_duration_since(u.since) < Duration::from_micros(SILENT_FROM_US) {
            return;
        }
        let target = self.control.target();
        if self.control.queueing_delay_us() < SILENT_QUEUE_US && u.bytes < bytes(target, SILENT_US) {
            let step = bytes(target, SILENT_STEP_US).max(WINDOW_MIN_PACKETS * u64::from(self.mtu));
            u.window = u.before.saturating_add(u.bytes).saturating_add(step).min(WINDOW_MAX);
        }
    }

    /// See the module.
    fn window_for(&self, now: Micros) -> u64 {
        let least = WINDOW_MIN_PACKETS * u64::from(self.mtu);
        let rate = self.control.pacing_rate(now);
        let window = match self.control.pace(now) {
            Pace::Open => OPEN_WINDOW,
            Pace::Ahead => {
                let paced = bytes(rate, self.smoothed_us) as f64 / QUINN_PACE;
                // Jitter delays acknowledgements as well.
                let in_flight = bytes(self.control.target(), self.smoothed_us * 5 / 4 + 2 * ACK_US);
                in_flight.max(paced as u64)
            }
            Pace::Tight => {
                let base = self.control.base_delay_us().map_or(self.smoothed_us, i64::unsigned_abs);
                bytes(rate, base + self.control.doubtful_delay_us() + ACK_US)
            }
        };
        window.clamp(least, WINDOW_MAX)
    }
}

/// What leaves at a rate in so many microseconds.
fn bytes(rate: Bitrate, us: u64) -> u64 {
    (rate.0 as f64 / 8e6 * us as f64) as u64
}

impl Controller for LineControl {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        if self.shared.granted.load(Ordering::Relaxed) != self.granted {
            self.settle(now);
        }
        self.listen(now, bytes);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, rtt: &RttEstimator) {
        self.smoothed_us = u64::try_from(rtt.get().as_micros()).unwrap_or(u64::MAX).clamp(1, 10_000_000);
        let (at, sent) = (self.micros(now), self.micros(sent));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.note(now, PacketResult { bytes, sent, arrived: Some(at.0.cast_signed()) });
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.unheard = Unheard { bytes: 0, since: now, before: in_flight, window: 0 };
        self.hand_over(now);
        self.control.handle_round_trip(self.micros(now), self.smoothed_us);
        self.settle(now);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, _persistent: bool, lost_bytes: u64) {
        // Nothing lost: an ECN mark.
        if lost_bytes > 0 {
            let bytes = u32::try_from(lost_bytes).unwrap_or(u32::MAX);
            let sent = self.micros(sent);
            self.note(now, PacketResult { bytes, sent, arrived: None });
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
    }

    fn window(&self) -> u64 {
        self.window.max(self.unheard.window)
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
