//! A source that runs: its counters, its events and the way to stop it.

use super::encoder::Control;
use super::error::MediaError;
use super::frame::Frame;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Events that wait to be read; when there are more, the newest is dropped and only logged.
const EVENTS: usize = 32;

/// What happens to a source besides frames.
#[derive(Debug)]
pub(crate) enum SourceEvent {
    /// It stopped, for this reason.
    Error(MediaError),
    /// A recording that is not looped is over.
    EndOfStream,
    /// A recording begins again.
    Restarted {
        /// How often it has been played to the end.
        rounds: u64,
    },
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SourceStats {
    /// Frames handed over.
    pub(crate) frames: u64,
    /// Key frames among them.
    pub(crate) key_frames: u64,
    /// RTP packets handed over.
    pub(crate) packets: u64,
    /// Bytes of these packets, RTP headers included.
    pub(crate) bytes: u64,
    /// Pictures left out because the encoder or this machine was late.
    pub(crate) skipped: u64,
    /// Times that the whole schedule was moved because the source stood still for too long.
    pub(crate) slips: u64,
    /// Times that a recording was played to the end.
    pub(crate) rounds: u64,
}

/// What the threads of a source share.
#[derive(Debug)]
pub(super) struct Shared {
    stopped: AtomicBool,
    events: mpsc::Sender<SourceEvent>,
    frames: AtomicU64,
    key_frames: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
    slips: AtomicU64,
    rounds: AtomicU64,
}

impl Shared {
    /// Shared state and the end that reads its events.
    pub(super) fn new() -> (Arc<Self>, mpsc::Receiver<SourceEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let zero = AtomicU64::default;
        let shared = Self {
            stopped: AtomicBool::default(),
            events,
            frames: zero(),
            key_frames: zero(),
            packets: zero(),
            bytes: zero(),
            skipped: zero(),
            slips: zero(),
            rounds: zero(),
        };
        (Arc::new(shared), receiver)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, event: SourceEvent) {
        if let Err(e) = self.events.try_send(event) {
            tracing::warn!("nobody reads the source's events: {e}");
        }
    }

    /// Stops and says why, in the words of a GStreamer callback.
    pub(super) fn fail(&self, error: MediaError) -> gstreamer::FlowError {
        self.stop();
        self.tell(SourceEvent::Error(error));
        gstreamer::FlowError::Error
    }

    pub(super) fn count(&self, frame: &Frame) {
        let add = |counter: &AtomicU64, n: usize| counter.fetch_add(n as u64, Ordering::Relaxed);
        add(&self.frames, 1);
        add(&self.key_frames, usize::from(frame.key));
        add(&self.packets, frame.packets.len());
        add(&self.bytes, frame.bytes());
    }

    pub(super) fn skip(&self, pictures: u64) {
        self.skipped.fetch_add(pictures, Ordering::Relaxed);
    }

    pub(super) fn slip(&self) {
        self.slips.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn restarted(&self) {
        let rounds = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell(SourceEvent::Restarted { rounds });
    }
}

/// A source that delivers frames until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Running {
    shared: Arc<Shared>,
    control: Option<Control>,
    events: mpsc::Receiver<SourceEvent>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Runs `work` on a thread of its own; what it returns ends the source and becomes an event.
    pub(super) fn spawn(
        name: &'static str,
        shared: Arc<Shared>,
        events: mpsc::Receiver<SourceEvent>,
        control: Option<Control>,
        work: impl FnOnce(&Shared) -> Result<(), MediaError> + Send + 'static,
    ) -> Result<Self, MediaError> {
        let inside = Arc::clone(&shared);
        let body = move || {
            let result = work(&inside);
            match result {
                // After a stop there is nobody to tell, and a pipeline that is going down complains without reason.
                _ if inside.stopped() => {}
                Ok(()) => inside.tell(SourceEvent::EndOfStream),
                Err(e) => inside.tell(SourceEvent::Error(e)),
            }
            inside.stop();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        let thread = Some(thread.map_err(|cause| MediaError::Thread { name, cause })?);
        Ok(Self { shared, control, events, thread })
    }

    /// Asks a live encoder for a key frame as the next picture. False where there is nothing to ask: a recording that is
    /// passed through has key frames only where it has them.
    pub(crate) fn request_key_frame(&self) -> bool {
        !self.shared.stopped() && self.control.as_ref().is_some_and(Control::request_key_frame)
    }

    /// The next event; none after the last one of a source that has ended.
    pub(crate) async fn next_event(&mut self) -> Option<SourceEvent> {
        self.events.recv().await
    }

    /// The next event if there is one already.
    pub(crate) fn try_event(&mut self) -> Option<SourceEvent> {
        self.events.try_recv().ok()
    }

    /// Whether it has ended, by itself or by [`Self::stop`].
    pub(crate) fn is_over(&self) -> bool {
        self.shared.stopped()
    }

    /// Counters up to now.
    pub(crate) fn stats(&self) -> SourceStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SourceStats {
            frames: get(&self.shared.frames),
            key_frames: get(&self.shared.key_frames),
            packets: get(&self.shared.packets),
            bytes: get(&self.shared.bytes),
            skipped: get(&self.shared.skipped),
            slips: get(&self.shared.slips),
            rounds: get(&self.shared.rounds),
        }
    }

    /// Stops it and waits until no more frame is handed over: up to the time of one frame, at most about 0.1 s.
    pub(crate) fn stop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a source panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
