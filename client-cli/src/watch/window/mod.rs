//! The picture in a window, with its age on it.
//!
//! ```text
//! frames ─► appsrc ! depay ! parse ! decoder ! appsink ─► painter ─► appsrc ! textoverlay ! autovideosink
//! ```
//! The painter is a thread of its own: it writes the age anew ten times a second, a picture or not, so that one that stands
//! still says so.

mod caption;
pub(crate) mod marks;
mod pipeline;

use super::origin::Origin;
use crate::echo::Echo;
use crate::net::api::wall_now;
use crate::net::events::FirstShown;
use caption::{Shown, caption};
use marks::Marks;
use pipeline::{Decoder, Screen};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trocar_proto::handover::types::FrameRef;
use trocar_proto::media::receive::CompleteFrame;
use trocar_proto::session::api::FeedState;

/// The age is written this often where no picture comes.
const REPAINT: Duration = Duration::from_millis(100);
/// Pictures in the decoder whose capture times are kept. The oldest goes first, and its picture has no age then.
const IN_DECODER: usize = 256;

/// Why there is no window.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WindowError {
    /// Nothing to show it on.
    #[error("no window can be opened: {0}; --headless shows figures only")]
    NoDisplay(String),
    /// No decoder for it.
    #[error("{codec} cannot be shown in a window; --headless measures it without decoding")]
    Codec {
        /// Encoding name.
        codec: String,
    },
    /// A GStreamer element is not installed.
    #[error("the GStreamer element `{element}` is not installed: on Debian it is in the package {package}")]
    Missing {
        /// Its name.
        element: &'static str,
        /// Debian package that has it.
        package: &'static str,
    },
    /// GStreamer did not do what it was asked.
    #[error("the window's pipeline: {0}")]
    Pipeline(String),
}

/// A screen that windows can be opened on.
#[derive(Debug, Clone)]
pub(crate) struct Display {
    /// Where it is written down what is shown.
    marks: Option<Marks>,
}

impl Display {
    /// Looks whether there is one. The marks of what windows show go to `marks`.
    ///
    /// # Errors
    /// [`WindowError::NoDisplay`].
    pub(crate) fn find(marks: Option<Marks>) -> Result<Self, WindowError> {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        if set("DISPLAY") || set("WAYLAND_DISPLAY") {
            return Ok(Self { marks });
        }
        Err(WindowError::NoDisplay("neither DISPLAY nor WAYLAND_DISPLAY is set".to_owned()))
    }

    /// Opens a window for a codec by its encoding name.
    ///
    /// # Errors
    /// [`WindowError`]: what is missing, and what would do instead.
    pub(crate) fn open(
        &self,
        codec: &str,
        fmtp: &str,
        clock_rate: u32,
        echo: Option<Arc<Echo>>,
    ) -> Result<Window, WindowError> {
        let decoder = Decoder::start(codec, fmtp, clock_rate)?;
        let painted = Painted::default();
        let marks = self.marks.clone();
        let first = Arc::new(Mutex::default());
        let screen = Screen::start(painted.tell(echo, marks.clone(), Arc::clone(&first)))?;
        let shared = Arc::new(Shared { decoder, state: Mutex::default(), closed: AtomicBool::default(), first });
        let for_painter = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("trocar-window".to_owned())
            .spawn(move || paint(&for_painter, screen, &painted, marks.as_ref()));
        let painter = spawned.map_err(|e| WindowError::Pipeline(format!("no thread: {e}")))?;
        Ok(Window { codec: codec.to_owned(), shared, painter: Some(painter) })
    }
}

/// A window. Closed when dropped.
pub(crate) struct Window {
    codec: String,
    shared: Arc<Shared>,
    painter: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    decoder: Decoder,
    state: Mutex<State>,
    closed: AtomicBool,
    first: Arc<Mutex<Option<First>>>,
}

/// Who hears of the first picture that has this number or a higher one.
struct First {
    from: u64,
    told: FirstShown,
}

/// Tells of the first picture, where it is waited for and this one is it or comes after it.
fn tell_first(first: &Mutex<Option<First>>, number: u64) {
    let mut waiting = first.lock().unwrap_or_else(PoisonError::into_inner);
    let due = waiting.take_if(|f| f.from <= number);
    drop(waiting);
    if let Some(first) = due {
        first.told.tell();
    }
}

#[derive(Default)]
struct State {
    /// Number of the newest frame that went into the decoder; it travels with it as its time stamp.
    pushed: u64,
    /// A key frame has come since the last loss.
    running: bool,
    in_decoder: BTreeMap<u64, Known>,
    feed: Option<FeedState>,
}

/// What is known of a frame in the decoder.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    origin: Option<Origin>,
    reference: Option<FrameRef>,
}

/// References of the pictures that were last handed to the screen, by number; a few are on their way there at a time.
#[derive(Debug, Clone, Default)]
struct Painted(Arc<Mutex<VecDeque<(u64, FrameRef)>>>);

impl Painted {
    const KEPT: usize = 8;

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, FrameRef)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, number: u64, reference: FrameRef) {
        let mut painted = self.lock();
        if painted.len() >= Self::KEPT {
            painted.pop_front();
        }
        painted.push_back((number, reference));
    }

    /// What the screen calls when it has shown a picture. One that is painted anew with a younger caption is told anew: the word
    /// about it may have been lost.
    fn tell(&self, echo: Option<Arc<Echo>>, marks: Option<Marks>, first: Arc<Mutex<Option<First>>>) -> pipeline::Shown {
        let painted = self.clone();
        Arc::new(move |number| {
            tell_first(&first, number);
            marks.iter().for_each(|m| m.shown(number));
            let Some(echo) = &echo else { return };
            let reference = painted.lock().iter().find(|(n, _)| *n == number).map(|(_, r)| *r);
            if let Some(reference) = reference {
                echo.shown(&reference);
            }
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    /// Whether it is for this codec.
    pub(crate) fn shows(&self, codec: &str) -> bool {
        self.codec == codec
    }

    /// Shows a frame, captured then. After a loss nothing is shown until a key frame: a picture that was pieced together
    /// wrongly looks like a true one.
    pub(crate) fn show(&self, frame: &CompleteFrame, origin: Option<Origin>, reference: Option<FrameRef>) {
        let mut state = self.shared.state();
        state.running |= frame.independent;
        if !state.running {
            return;
        }
        state.pushed += 1;
        let number = state.pushed;
        state.in_decoder.insert(number, Known { origin, reference });
        if state.in_decoder.len() > IN_DECODER {
            state.in_decoder.pop_first();
        }
        drop(state);
        self.shared.decoder.push(number, frame);
    }

    /// Has it told when the next frame that is shown from here on, or a later one, is on the screen.
    pub(crate) fn tell_first(&self, told: FirstShown) {
        let from = self.shared.state().pushed + 1;
        *self.shared.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(First { from, told });
    }

    /// Something was lost.
    pub(crate) fn handle_loss(&self) {
        self.shared.state().running = false;
    }

    /// Whether nothing can be shown until a key frame comes.
    pub(crate) fn wants_key_frame(&self) -> bool {
        !self.shared.state().running
    }

    /// What the session says about the feed.
    pub(crate) fn set_state(&self, feed: Option<FeedState>) {
        self.shared.state().feed = feed;
    }

    /// Whether the person closed it, or it broke.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        if let Some(painter) = self.painter.take() {
            // A painter that panicked has said so itself.
            let _ = painter.join();
        }
    }
}

/// Paints until the window is closed: each new picture at once, and else the last one with the age of now.
fn paint(shared: &Shared, mut screen: Screen, painted: &Painted, marks: Option<&Marks>) {
    let mut shown: Option<(Instant, Option<Origin>)> = None;
    while !shared.closed.load(Ordering::Relaxed) {
        if let Some(picture) = shared.decoder.next_picture(REPAINT) {
            let mut state = shared.state();
            let known = state.in_decoder.get(&picture.number).copied().unwrap_or_default();
            // What came before it in order will not come any more.
            state.in_decoder = state.in_decoder.split_off(&picture.number);
            drop(state);
            if let Some(reference) = known.reference {
                painted.put(picture.number, reference);
            }
            marks.iter().for_each(|m| m.put(picture.number, &picture.sample));
            shown = Some((Instant::now(), known.origin));
            screen.set_picture(picture);
        }
        let feed = shared.state().feed;
        let on_screen = shown.map(|(at, origin)| Shown { since: at.elapsed(), origin });
        let fault = screen.paint(&caption(wall_now(), on_screen, feed)).err().or_else(|| shared.decoder.fault());
        if let Some(fault) = fault {
            tracing::warn!("the window is closed: {fault}");
            shared.closed.store(true, Ordering::Relaxed);
        }
    }
}
