//! What the person at the terminal has chosen: which table, in which order, which rows, how far down.

use super::rows::{FeedRow, Figures, LegRow};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Ordering;

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Feeds,
    Legs,
}

/// An order of rows: its name on the screen, and how two rows compare.
pub(super) type Order<R> = (&'static str, fn(&R, &R) -> Ordering);

/// Orders of the feeds; the first is the one to begin with.
pub(super) const FEED_ORDERS: &[Order<FeedRow>] = &[
    ("trouble first", |a, b| b.trouble.cmp(&a.trouble).then_with(|| a.state.cmp(&b.state))),
    ("name", |a, b| a.name.cmp(&b.name)),
    ("Mbit/s", |a, b| most(a.mbps, b.mbps)),
    ("out/s", |a, b| most(a.out, b.out)),
    ("missing", |a, b| b.missing.total_cmp(&a.missing)),
    ("p99", |a, b| most(a.delay.map(|d| d.p99_ms), b.delay.map(|d| d.p99_ms))),
];

/// Orders of the legs.
pub(super) const LEG_ORDERS: &[Order<LegRow>] = &[
    ("trouble first", |a, b| b.trouble.cmp(&a.trouble).then_with(|| a.connected.cmp(&b.connected))),
    ("feed", |a, b| a.name.cmp(&b.name)),
    ("out/s", |a, b| most(a.packets, b.packets)),
    ("shed", |a, b| b.shed.total_cmp(&a.shed)),
    ("lost", |a, b| most(a.lost, b.lost)),
    ("RTT", |a, b| most(a.rtt_ms, b.rtt_ms)),
];

/// The largest first; what is not known last.
fn most(a: Option<f64>, b: Option<f64>) -> Ordering {
    let of = |v: Option<f64>| v.unwrap_or(f64::NEG_INFINITY);
    of(b).total_cmp(&of(a))
}

/// How one table is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Place in the list of orders.
    pub(super) order: usize,
    /// The other way round.
    pub(super) reversed: bool,
    /// Rows that are above the first one shown.
    pub(super) scroll: usize,
}

/// Everything that keys change.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) focus: Which,
    pub(super) feeds: Look,
    pub(super) legs: Look,
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) typing: bool,
    pub(super) help: bool,
    /// The figures that stand still on the screen.
    pub(super) paused: Option<Figures>,
    pub(super) done: bool,
}

/// Longest filter, in characters.
const MAX_FILTER: usize = 64;
/// Rows of a page up or down.
const PAGE: usize = 10;

impl State {
    pub(super) fn new() -> Self {
        Self {
            focus: Which::Feeds,
            feeds: Look::default(),
            legs: Look::default(),
            filter: String::new(),
            typing: false,
            help: false,
            paused: None,
            done: false,
        }
    }

    /// Takes a key. `now` are the figures on the screen, which a pause keeps.
    pub(super) fn handle_key(&mut self, key: KeyEvent, now: Option<Figures>) {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            self.done |= key.code == KeyCode::Char('c');
        } else if self.typing {
            self.handle_typing(key.code);
        } else {
            self.handle_command(key.code, now);
        }
    }

    fn handle_typing(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < MAX_FILTER => self.filter.push(c),
            _ => {}
        }
        self.feeds.scroll = 0;
        self.legs.scroll = 0;
    }

    fn handle_command(&mut self, key: KeyCode, now: Option<Figures>) {
        let orders = match self.focus {
            Which::Feeds => FEED_ORDERS.len(),
            Which::Legs => LEG_ORDERS.len(),
        };
        let focus = self.focus;
        let look = match focus {
            Which::Feeds => &mut self.feeds,
            Which::Legs => &mut self.legs,
        };
        match key {
            KeyCode::Char('q') => self.done = true,
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.help = !self.help,
            KeyCode::Char('p' | ' ') => self.paused = if self.paused.is_some() { None } else { now },
            KeyCode::Char('/') => (self.typing, self.help) = (true, false),
            KeyCode::Char('s') => look.order = (look.order + 1) % orders,
            KeyCode::Char('r') => look.reversed = !look.reversed,
            KeyCode::Tab | KeyCode::BackTab => {
                self.focus = if focus == Which::Feeds { Which::Legs } else { Which::Feeds };
            }
            // How far down there is anything is known where it is drawn.
            KeyCode::Down | KeyCode::Char('j') => look.scroll = look.scroll.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => look.scroll = look.scroll.saturating_sub(1),
            KeyCode::PageDown => look.scroll = look.scroll.saturating_add(PAGE),
            KeyCode::PageUp => look.scroll = look.scroll.saturating_sub(PAGE),
            KeyCode::Home => look.scroll = 0,
            _ => {}
        }
    }

    /// The rows that the filter lets through, in the chosen order; equal ones by name.
    pub(super) fn feeds<'a>(&self, figures: &'a Figures) -> Vec<&'a FeedRow> {
        let mut rows: Vec<_> = figures.feeds.iter().filter(|r| r.has(&self.filter)).collect();
        if let Some((_, compare)) = FEED_ORDERS.get(self.feeds.order) {
            rows.sort_by(|a, b| turned(compare(a, b), self.feeds.reversed).then_with(|| a.name.cmp(&b.name)));
        }
        rows
    }

    /// The same for the legs.
    pub(super) fn legs<'a>(&self, figures: &'a Figures) -> Vec<&'a LegRow> {
        let mut rows: Vec<_> = figures.legs.iter().filter(|r| r.has(&self.filter)).collect();
        if let Some((_, compare)) = LEG_ORDERS.get(self.legs.order) {
            rows.sort_by(|a, b| turned(compare(a, b), self.legs.reversed).then_with(|| a.name.cmp(&b.name)));
        }
        rows
    }
}

const fn turned(order: Ordering, reversed: bool) -> Ordering {
    if reversed { order.reverse() } else { order }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(s: &mut State, keys: &[KeyCode]) {
        for k in keys {
            s.handle_key(KeyEvent::new(*k, KeyModifiers::NONE), None);
        }
    }

    #[test]
    fn a_letter_is_a_command_or_part_of_the_filter_and_control_c_ends_both() {
        let mut s = State::new();
        press(&mut s, &[KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Char('s'), KeyCode::Enter]);
        assert_eq!((s.filter.as_str(), s.typing, s.done), ("qs", false, false));
        press(&mut s, &[KeyCode::Esc]);
        assert!(s.filter.is_empty());
        press(&mut s, &[KeyCode::Char('/')]);
        s.handle_key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), None);
        assert!(s.done);
    }

    #[test]
    fn sorting_goes_round_and_belongs_to_the_table_in_focus() {
        let mut s = State::new();
        press(&mut s, &vec![KeyCode::Char('s'); FEED_ORDERS.len()]);
        assert_eq!(s.feeds.order, 0);
        press(&mut s, &[KeyCode::Tab, KeyCode::Char('s'), KeyCode::Char('r'), KeyCode::Down]);
        assert_eq!((s.feeds, s.legs), (Look::default(), Look { order: 1, reversed: true, scroll: 1 }));
    }
}
