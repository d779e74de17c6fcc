//! The station's screen. What is not known is said in large words: a screen never shows control that may have ended.

mod draw;

use super::acts::Act;
use super::inbox::Inbox;
use super::now;
use super::view::View;
use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use trocar_proto::handover::message::Short;
use trocar_proto::handover::types::GrantedSet;

/// How often it is drawn while nothing happens.
const REDRAW: Duration = Duration::from_millis(50);

/// The screen on a thread of its own, since waiting for keys blocks.
pub(super) struct Screen {
    drawing: JoinHandle<anyhow::Result<()>>,
    asked_to_end: Arc<AtomicBool>,
    over: bool,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open(view: Arc<Mutex<View>>, inbox: Inbox) -> Self {
        let asked_to_end = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&asked_to_end);
        let drawing = tokio::task::spawn_blocking(move || {
            let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
            let done = draw_until_done(&mut terminal, &view, &inbox, &seen);
            ratatui::try_restore()?;
            done
        });
        Self { drawing, asked_to_end, over: false }
    }

    /// Returns when it ended by itself: a key, or a terminal that is gone.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        let ended = (&mut self.drawing).await;
        self.over = true;
        ended?
    }

    /// Gives the terminal back.
    pub(super) async fn close(&mut self) {
        self.asked_to_end.store(true, Ordering::Relaxed);
        if !self.over {
            // What went wrong with a terminal that is given back is no matter any more.
            let _ = (&mut self.drawing).await;
        }
    }
}

/// What a key wants.
#[derive(Debug, Clone, PartialEq)]
enum Wish {
    Nothing,
    Do(Act),
    Quit,
}

/// Accept and decline count only while an offer is on the screen: a key that was pressed a moment too late accepts nothing else.
fn wish(key: KeyEvent, view: &View) -> Wish {
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let offered = view.offer.is_some();
    match key.code {
        _ if ctrl_c => Wish::Quit,
        KeyCode::Char('a' | 'A') if offered => Wish::Do(Act::Accept),
        KeyCode::Char('d' | 'D') if offered => Wish::Do(Act::Decline(Short::default())),
        KeyCode::Char('r') => Wish::Do(Act::Return),
        KeyCode::Char('q') => Wish::Quit,
        KeyCode::Char('1') => Wish::Do(Act::Request(GrantedSet::CAMERA, Short::default())),
        KeyCode::Char('2') => Wish::Do(Act::Request(GrantedSet::INSTRUMENTS, Short::default())),
        KeyCode::Char('3') => Wish::Do(Act::Request(GrantedSet::ENERGY, Short::default())),
        KeyCode::Char('S') => Wish::Do(Act::Estop(Short::default())),
        _ => Wish::Nothing,
    }
}

fn draw_until_done(
    terminal: &mut ratatui::DefaultTerminal,
    view: &Mutex<View>,
    inbox: &Inbox,
    asked_to_end: &AtomicBool,
) -> anyhow::Result<()> {
    // A key that is read was pressed after this.
    let mut empty = now();
    while !asked_to_end.load(Ordering::Relaxed) {
        let shown = view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let at = now();
        terminal.draw(|frame| draw::draw(frame, &shown, at))?;
        let mut wait = REDRAW;
        let mut looked = at;
        while event::poll(wait)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                match wish(key, &shown) {
                    Wish::Nothing => {}
                    Wish::Do(act) => drop(inbox.act(empty, act)),
                    Wish::Quit => return Ok(()),
                }
            }
            (wait, looked) = (Duration::ZERO, now());
        }
        empty = looked;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::view::Offer;
    use super::*;
    use trocar_proto::units::Micros;

    #[test]
    fn a_key_accepts_only_what_is_on_the_screen() {
        let key = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE);
        let mut view = View::default();
        assert_eq!(wish(key('a'), &view), Wish::Nothing);
        view.offer = Some(Offer { set: GrantedSet::CAMERA, step: String::new(), until: Micros(1) });
        assert_eq!(wish(key('a'), &view), Wish::Do(Act::Accept));
        assert_eq!(wish(key('d'), &view), Wish::Do(Act::Decline(Short::default())));
        assert_eq!(wish(key('s'), &view), Wish::Nothing, "a stop is a capital S");
        assert!(matches!(wish(key('S'), &view), Wish::Do(Act::Estop(_))));
        assert_eq!(wish(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &view), Wish::Quit);
    }
}
