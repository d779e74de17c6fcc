//! The terminal screen. One thread and no waiting but in one place: a terminal that hangs holds neither TAKE nor ESTOP up, and is no live
//! console, since a sign of life is sent only when the terminal itself answered a question that was written to it.

mod desk;
mod keys;
mod screen;
mod tty;

#[cfg(test)]
mod tests;

pub use tty::Tty;

use super::Shared;
use super::hand::Pending;
use super::model::{Control, Model};
use desk::{Desk, Do, When};
use keys::{Key, Keys};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;
use trocar_proto::units::Micros;

/// Between two pictures, microseconds.
const REDRAW: u64 = 100_000;
/// Between two questions to the terminal, microseconds.
const ASK: u64 = 200_000;
/// A question that is not answered within this is asked again, and a later answer is no sign of life, microseconds.
const PATIENCE: u64 = 1_000_000;
/// How long the answer to an act outlives the state that it was for, microseconds.
const ANSWER: u64 = 1_500_000;
/// How long a lone Esc waits for the rest of a sequence, microseconds.
const ESC_WAIT: u64 = 30_000;
/// A loop that did not turn for so long reads a backlog: only TAKE and ESTOP of it count, microseconds.
const BACKLOG: u64 = 500_000;
/// Acts under way at a time; more are answered by [`super::hand::NotDone::Full`] anyway.
const MOST_PENDING: usize = 16;

/// Runs until it is told to stop, or the core is gone.
pub(super) fn run(shared: &Shared, tty: Tty) -> io::Result<()> {
    let _raw = tty::Raw::new(&tty)?;
    let mut screen = Screen::new(shared, &tty)?;
    while !shared.is_over() && shared.view.has_changed().is_ok() {
        screen.turn()?;
    }
    Ok(())
}

struct Screen<'a> {
    shared: &'a Shared,
    tty: &'a Tty,
    keys: Keys,
    desk: Desk,
    pending: Vec<Pending>,
    /// What was drawn last.
    drawn: Model,
    canvas: Canvas,
    drawn_at: Micros,
    asked_at: Micros,
    /// Whether a question is open.
    asked: bool,
    turned_at: Micros,
    read_at: Micros,
    acted_at: Micros,
    /// Turns with each sign of life: the screen shows that it lives.
    pulse: bool,
}

impl<'a> Screen<'a> {
    fn new(shared: &'a Shared, tty: &'a Tty) -> io::Result<Self> {
        let never = Micros(0);
        Ok(Self {
            shared,
            tty,
            keys: Keys::default(),
            desk: Desk::default(),
            pending: Vec::new(),
            drawn: shared.model(),
            canvas: Canvas::new(tty.size())?,
            drawn_at: never,
            asked_at: never,
            asked: false,
            turned_at: crate::core::now(),
            read_at: never,
            acted_at: never,
            pulse: false,
        })
    }

    /// Once round: write, wait, read, act, draw.
    fn turn(&mut self) -> io::Result<()> {
        self.canvas.flush(self.tty)?;
        self.tty.wait(self.canvas.is_waiting(), Duration::from_millis(20))?;
        let now = crate::core::now();
        let backlog = now.since(self.turned_at) > BACKLOG;
        self.turned_at = now;
        self.read(now, backlog)?;
        self.hear();
        if now.since(self.drawn_at) >= REDRAW && !self.canvas.is_waiting() {
            self.draw(now)?;
        }
        Ok(())
    }

    fn read(&mut self, now: Micros, backlog: bool) -> io::Result<()> {
        let mut bytes = [0; 256];
        let bytes = self.tty.read(&mut bytes)?;
        let mut keys = Vec::new();
        if !bytes.is_empty() {
            self.read_at = now;
            self.keys.handle(bytes, &mut |k| keys.push(k));
        } else if self.keys.is_within() && now.since(self.read_at) >= ESC_WAIT {
            self.keys.idle(&mut |k| keys.push(k));
        }
        let alone = keys.iter().filter(|k| **k != Key::Present).count() == 1;
        for key in keys {
            if key == Key::Present {
                self.present(now);
                continue;
            }
            let unchanged = self.shared.model().stamp == self.drawn.stamp;
            let when = When { now, earnest: alone && !backlog && unchanged };
            if let Some(what) = self.desk.handle(key, &self.drawn, when) {
                self.perform(what);
            }
        }
        Ok(())
    }

    /// The terminal answered. A screen that shows "unknown" is none that somebody could watch an expert on.
    fn present(&mut self, now: Micros) {
        let fresh = now.since(self.asked_at) <= PATIENCE;
        if std::mem::take(&mut self.asked) && fresh && self.drawn.control != Control::Unknown {
            self.pulse = !self.pulse;
            self.shared.hand.alive();
        }
    }

    fn perform(&mut self, what: Do) {
        self.acted_at = self.turned_at;
        let label = match &what {
            Do::Act(act) => super::words::act(act),
            Do::WithdrawConsent => "END CONSENT",
            Do::Shutdown => "END",
        };
        let hand = &self.shared.hand;
        let done = match what {
            Do::Act(act) => hand.act(act).map(|pending| {
                if self.pending.len() < MOST_PENDING {
                    self.pending.push(pending);
                }
                format!("{label} ...")
            }),
            Do::WithdrawConsent => hand.withdraw_consent().map(|()| format!("{label}: done")),
            Do::Shutdown => {
                hand.shutdown().map(|()| "asked to end: the gate ends when nobody's work is ended by it".to_owned())
            }
        };
        match done {
            Ok(text) => self.desk.say(true, text),
            Err(why) => self.desk.say(false, format!("{label} {why}")),
        }
    }

    /// Answers that have come.
    fn hear(&mut self) {
        let desk = &mut self.desk;
        self.pending.retain_mut(|pending| match pending.answered() {
            None => true,
            Some(done) => {
                match done {
                    Ok(()) => desk.say(true, format!("{}: done", pending.label)),
                    Err(why) => desk.say(false, format!("{} {why}", pending.label)),
                }
                false
            }
        });
    }

    fn draw(&mut self, now: Micros) -> io::Result<()> {
        let model = self.shared.model();
        if model.stamp != self.drawn.stamp && now.since(self.acted_at) > ANSWER {
            self.desk.said = None; // an answer belongs to the state that it was given in
        }
        (self.drawn, self.drawn_at) = (model, now);
        self.desk.see(&self.drawn);
        let (model, desk, pulse) = (&self.drawn, &self.desk, self.pulse);
        self.canvas.draw(self.tty.size(), |frame| screen::draw(frame, model, desk, pulse))?;
        let due = if self.asked { PATIENCE } else { ASK };
        if now.since(self.asked_at) >= due {
            (self.asked, self.asked_at) = (true, now);
            self.canvas.append(tty::ARE_YOU_THERE);
        }
        Ok(())
    }
}

/// What waits to be written; the terminal takes it when it can. One picture at most, since none is drawn while one waits.
#[derive(Debug, Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Canvas {
    sink: Sink,
    size: (u16, u16),
    terminal: Terminal<CrosstermBackend<Sink>>,
}

impl Canvas {
    fn new(size: (u16, u16)) -> io::Result<Self> {
        let sink = Sink::default();
        sink.0.borrow_mut().extend_from_slice(tty::ENTER);
        // No question about size or cursor goes to the terminal: it would wait for the answer.
        let viewport = Viewport::Fixed(Rect::new(0, 0, size.0, size.1));
        let terminal = Terminal::with_options(CrosstermBackend::new(sink.clone()), TerminalOptions { viewport })?;
        Ok(Self { sink, size, terminal })
    }

    /// Draws what has changed, or all where the size has.
    fn draw(&mut self, size: (u16, u16), draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        if size != self.size {
            *self = Self::new(size)?;
        }
        self.terminal.draw(draw)?;
        Ok(())
    }

    fn append(&self, bytes: &[u8]) {
        self.sink.0.borrow_mut().extend_from_slice(bytes);
    }

    fn is_waiting(&self) -> bool {
        !self.sink.0.borrow().is_empty()
    }

    fn flush(&self, tty: &Tty) -> io::Result<()> {
        let mut waiting = self.sink.0.borrow_mut();
        if !waiting.is_empty() {
            let n = tty.write(&waiting)?;
            let n = n.min(waiting.len());
            waiting.drain(..n);
        }
        Ok(())
    }
}
