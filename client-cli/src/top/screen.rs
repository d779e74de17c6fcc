//! Drawing. Whatever is not fresh is said before anything else and in more than a colour.

use super::rows::{Column, FEED_COLUMNS, FeedState, Figures, LEG_COLUMNS};
use super::state::{FEED_ORDERS, LEG_ORDERS, Look, State, Which};
use crate::net::api::wall_now;
use crate::verbs::fold::fold;
use crate::verbs::table::{clean, plural, utc};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, Wrap};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is drawn, at one moment.
pub(super) struct Scene<'a> {
    /// What is asked.
    pub(super) url: &'a str,
    /// The figures: the newest, or those that a pause keeps.
    pub(super) figures: Option<&'a Figures>,
    /// Whether the newest are of now.
    pub(super) fresh: bool,
    /// When the newest came, where the figures are older because of a pause.
    pub(super) newest: Option<Instant>,
    /// Since when and why there is no answer.
    pub(super) failing: Option<&'a (Instant, String)>,
    /// Title of the session and how many are in it.
    pub(super) session: Option<String>,
    /// What each feed is.
    pub(super) words: &'a BTreeMap<String, String>,
    /// What is to be said in large words while figures come.
    pub(super) alarms: &'a [String],
    pub(super) now: Instant,
}

impl Scene<'_> {
    /// Whether figures may stand without a warning: a pause says itself that they are old.
    const fn shown_as_live(&self, state: &State) -> bool {
        self.fresh || state.paused.is_some()
    }
}

const ALARM: Style = Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
const CAUTION: Style = Style::new().fg(Color::Black).bg(Color::Yellow).add_modifier(Modifier::BOLD);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>, state: &mut State) {
    let banner = banner(scene);
    let feeds = scene.figures.map_or(0, |f| state.feeds(f).len());
    let legs = scene.figures.map_or(0, |f| state.legs(f).len());
    let sums =
        scene.figures.map(|f| sums(scene, f, scene.shown_as_live(state), frame.area().width)).unwrap_or_default();
    let fixed = 2 + sums.len() + banner.len();
    let room = usize::from(frame.area().height).saturating_sub(fixed);
    let (feed_rows, leg_rows) = share(room, feeds + 2, legs + 2);
    let heights = [1, length(banner.len()), length(sums.len()), length(feed_rows), length(leg_rows), 1];
    let [title, warning, middle, upper, lower, keys] =
        Layout::vertical(heights.map(Constraint::Length)).areas(frame.area());
    draw_title(frame, title, scene, state);
    frame.render_widget(Paragraph::new(banner).style(ALARM), warning);
    if let Some(figures) = scene.figures {
        frame.render_widget(Paragraph::new(sums), middle);
        draw_feeds(frame, upper, scene, state, figures);
        draw_legs(frame, lower, scene, state, figures);
    }
    draw_keys(frame, keys, state);
    if state.help {
        draw_help(frame);
    }
}

fn length(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// Rows for the upper and the lower table: what each needs where there is room, else half for the one that needs more.
fn share(room: usize, upper: usize, lower: usize) -> (usize, usize) {
    let half = room / 2;
    let upper_gets =
        if upper + lower <= room || upper <= half { upper.min(room) } else { half.max(room.saturating_sub(lower)) };
    (upper_gets, room.saturating_sub(upper_gets))
}

/// An age as a person says it.
fn age(of: Duration) -> String {
    let s = of.as_secs_f64();
    if s < 100.0 { format!("{s:.1} s") } else { format!("{} min {} s", of.as_secs() / 60, of.as_secs() % 60) }
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, state: &State) {
    let since = |at: Instant| age(scene.now.saturating_duration_since(at));
    let (text, style) = match (scene.figures, &state.paused) {
        (Some(_), Some(p)) => (format!(" PAUSED: figures are {} old ", since(p.at)), CAUTION),
        (Some(f), None) if scene.fresh => {
            let over = if f.window.is_zero() {
                "rates from the next answer on".to_owned()
            } else {
                format!("rates over {}", age(f.window))
            };
            (format!(" live, {} old, {over} ", since(f.at)), Style::new().fg(Color::Green))
        }
        (Some(f), None) => (format!(" OLD: {} ", since(f.at)), ALARM),
        (None, _) => (" no figures yet ".to_owned(), CAUTION),
    };
    let left = Line::from(vec![Span::styled("trocar top ", HEAD), Span::raw(scene.url.to_owned())]);
    frame.render_widget(Paragraph::new(left), area);
    let width = length(text.chars().count()).min(area.width);
    let right = Rect { x: area.x + area.width - width, width, ..area };
    frame.render_widget(Clear, right);
    frame.render_widget(Paragraph::new(text).style(style), right);
}

/// What is said in large words: where there is no answer that, else what is alarming.
fn banner(scene: &Scene<'_>) -> Vec<Line<'static>> {
    let Some((since, why)) = scene.failing else {
        if scene.fresh || scene.figures.is_none() {
            return scene.alarms.iter().map(|line| Line::from(format!(" {line}"))).collect();
        }
        return vec![Line::from(" The answer is late. Below is OLD. No rates, no states.")];
    };
    let mut out: Vec<Line<'static>> =
        trocar_control::big::lines("NO ANSWER").map(|l| Line::from(format!(" {l}"))).into();
    let silent = age(scene.now.saturating_duration_since(*since));
    out.push(Line::from(format!(" for {silent}: {}", clean(why))));
    if let Some(at) = scene.newest {
        let old = scene.now.saturating_duration_since(at);
        let us = i64::try_from(old.as_micros()).unwrap_or(i64::MAX);
        let clock = utc(wall_now().offset(us.saturating_neg()));
        out.push(Line::from(format!(" Below is OLD: {}, {clock}. No rates, no states.", age(old))));
    }
    out
}

fn total(figures: &Figures, name: &str) -> usize {
    figures.totals.get(name).map_or(0, |v| v.max(0.0) as usize)
}

/// What belongs to no feed, in as many lines as the terminal's width makes of it.
fn sums(scene: &Scene<'_>, f: &Figures, live: bool, width: u16) -> Vec<Line<'static>> {
    let summary = if live { summary(scene, f) } else { Vec::new() };
    let both = [fold(summary, ", ", "  ", width), fold(workers(f, live), ", ", "  ", width)];
    both.into_iter().flatten().collect()
}

fn summary(scene: &Scene<'_>, f: &Figures) -> Vec<Span<'static>> {
    let n = |name: &str, what: &str| plural(total(f, &format!("trocar_signaling_{name}")), what);
    let problems = f.rates.get("trocar_signaling_problems_total").copied().unwrap_or(0.0);
    let mut parts: Vec<String> = scene.session.iter().cloned().collect();
    for (what, name) in [("CPU", "process_cpu_seconds_total"), ("worker CPU", "trocar_worker_cpu_seconds_total")] {
        parts.extend(f.rates.get(name).map(|rate| format!("{what} {:.0} %", rate * 100.0)));
    }
    parts.extend([
        n("sessions", "session"),
        n("participants", "participant"),
        plural(f.feeds.len(), "feed"),
        plural(f.legs.len(), "leg"),
        n("event_sockets", "event socket"),
        format!("refused {problems:.1}/s"),
    ]);
    parts.into_iter().map(Span::raw).collect()
}

fn workers(f: &Figures, live: bool) -> Vec<Span<'static>> {
    let named = [
        ("strangers", "trocar_worker_unknown_source_datagrams_total"),
        ("bad STUN", "trocar_worker_refused_stun_total"),
        ("bad SRTP", "trocar_worker_refused_srtp_total"),
        ("unknown flows", "trocar_worker_unknown_flow_datagrams_total"),
        ("events lost", "trocar_worker_dropped_events_total"),
    ];
    let usual = if live { Style::new() } else { Style::new().dim() };
    let part = |(i, (what, name)): (usize, (&str, &str))| {
        let begin = if i == 0 { "worker: " } else { "" };
        let rate = f.rates.get(name).copied().filter(|_| live);
        let text = match rate {
            Some(rate) if rate > 0.0 => format!("{begin}{what} {} (+{rate:.0}/s)", total(f, name)),
            _ => format!("{begin}{what} {}", total(f, name)),
        };
        let style = if rate.is_some_and(|r| r > 0.0) { Style::new().fg(Color::Yellow) } else { usual };
        Span::styled(text, style)
    };
    named.into_iter().enumerate().map(part).collect()
}

/// What the two tables have in common.
struct Sheet<'a> {
    title: String,
    columns: &'a [Column],
    rows: Vec<(Vec<String>, Style)>,
    focused: bool,
    empty: &'static str,
}

fn draw_feeds(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, state: &mut State, figures: &Figures) {
    let live = scene.shown_as_live(state);
    let none = String::new();
    let chosen = state.feeds(figures);
    let rows = chosen.iter().map(|r| {
        let style = match (live, r.state, r.trouble) {
            (false, ..) => Style::new().dim(),
            (_, FeedState::Silent | FeedState::Doubtful, _) => Style::new().fg(Color::Red).bold(),
            (_, _, true) => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        (r.cells(scene.words.get(&r.name.feed).unwrap_or(&none), live), style)
    });
    let sheet = Sheet {
        rows: rows.collect(),
        title: title(
            "Feeds",
            chosen.len(),
            figures.feeds.len(),
            FEED_ORDERS.get(state.feeds.order).map(|o| o.0),
            state.feeds,
        ),
        columns: FEED_COLUMNS,
        focused: state.focus == Which::Feeds,
        empty: if figures.feeds.is_empty() { "nothing is published" } else { "the filter lets none through" },
    };
    draw_sheet(frame, area, sheet, &mut state.feeds);
}

fn draw_legs(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, state: &mut State, figures: &Figures) {
    let live = scene.shown_as_live(state);
    let chosen = state.legs(figures);
    let rows = chosen.iter().map(|r| {
        let style = match (live, r.connected, r.trouble) {
            (false, ..) => Style::new().dim(),
            (_, false, _) => Style::new().fg(Color::Red).bold(),
            (_, _, true) => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        (r.cells(live), style)
    });
    let sheet = Sheet {
        rows: rows.collect(),
        title: title(
            "Legs",
            chosen.len(),
            figures.legs.len(),
            LEG_ORDERS.get(state.legs.order).map(|o| o.0),
            state.legs,
        ),
        columns: LEG_COLUMNS,
        focused: state.focus == Which::Legs,
        empty: if figures.legs.is_empty() { "nobody watches" } else { "the filter lets none through" },
    };
    draw_sheet(frame, area, sheet, &mut state.legs);
}

fn title(what: &str, shown: usize, all: usize, order: Option<&str>, look: Look) -> String {
    let of = if shown == all { all.to_string() } else { format!("{shown} of {all}, filtered") };
    let turned = if look.reversed { ", reversed" } else { "" };
    format!(" {what} ({of}) by {}{turned} ", order.unwrap_or("name"))
}

fn draw_sheet(frame: &mut Frame<'_>, area: Rect, sheet: Sheet<'_>, look: &mut Look) {
    let shown = |i: usize| sheet.columns.get(i).is_some_and(|c| area.width >= c.from);
    let visible = usize::from(area.height).saturating_sub(2);
    look.scroll = look.scroll.min(sheet.rows.len().saturating_sub(visible));
    let below = sheet.rows.len().saturating_sub(look.scroll + visible);
    let style = if sheet.focused { Style::new().fg(Color::Cyan).bold() } else { Style::new() };
    let mut block = Block::new().borders(Borders::TOP).border_style(style).title(Span::styled(sheet.title, style));
    if look.scroll > 0 || below > 0 {
        block = block.title(Line::from(format!(" {} above, {below} below ", look.scroll)).alignment(Alignment::Right));
    }
    if sheet.rows.is_empty() {
        frame.render_widget(Paragraph::new(sheet.empty).dim().block(block), area);
        return;
    }
    let cell = |column: &Column, text: String| {
        let alignment = if column.number { Alignment::Right } else { Alignment::Left };
        Cell::from(Text::from(text).alignment(alignment))
    };
    let of_row = |cells: Vec<String>| {
        let cells = cells.into_iter().enumerate().filter(|(i, _)| shown(*i));
        Row::new(cells.filter_map(|(i, text)| Some(cell(sheet.columns.get(i)?, text))).collect::<Vec<_>>())
    };
    let widths = sheet.columns.iter().filter(|c| area.width >= c.from).map(|c| match c.number {
        true => Constraint::Length(c.width),
        // Names take what is left.
        false if c.width > 8 => Constraint::Min(c.width),
        false => Constraint::Length(c.width),
    });
    let head = of_row(sheet.columns.iter().map(|c| c.head.to_owned()).collect()).style(HEAD.underlined());
    let rows = sheet.rows.into_iter().skip(look.scroll).take(visible).map(|(cells, style)| of_row(cells).style(style));
    frame.render_widget(Table::new(rows, widths).header(head).column_spacing(1).block(block), area);
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let line = if state.typing {
        Line::from(format!("filter: {}_   Enter keeps it, Esc drops it", state.filter)).style(CAUTION)
    } else if state.filter.is_empty() {
        Line::from("q quit  p pause  / filter  s sort  r reverse  Tab other table  ? help").dim()
    } else {
        Line::from(format!("only \"{}\"  Esc shows all  q quit  p pause  s sort  ? help", state.filter)).style(CAUTION)
    };
    frame.render_widget(Paragraph::new(line), area);
}

/// What the columns mean, for those that a name does not explain.
const HELP: &str = "\
Rates are over the last five intervals and right to about a tenth. Counts
are since the feed or leg began. A line with ! is in trouble now, or became
worse in these seconds.

Feeds  in      from the publisher, RTP packets
       out     to all legs together, repeats not counted
       missing skipped on the way in and not come since
       keyreq  key frames asked of the publisher
       p50 p99 time in the relay: half, 99 % of the packets stayed no
               longer than this bound; not the network
       live?   the relay says live, but its counter stands still
Legs   shed    left out in whole frames: leg full or too slow
       dropped not taken by socket or connection, or too large
       repeat  sent again because the viewer asked
       lost    by the viewer's last report
CPU    of the whole process, and of the relay's workers in it, in per
       cent of one core; a worker can use one core
Keys   q quit   p pause   / filter   s sort   r reverse   Tab other table
       arrows, page up and down: scroll   Esc closes this";

fn draw_help(frame: &mut Frame<'_>) {
    let all = frame.area();
    let (width, height) = (all.width.min(78), all.height.min(length(HELP.lines().count()) + 2));
    let area = Rect { x: (all.width - width) / 2, y: (all.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" Help ");
    frame.render_widget(Paragraph::new(HELP).wrap(Wrap { trim: false }).block(block), area);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shared_so_that_neither_table_is_starved() {
        assert_eq!(share(18, 4, 30), (4, 14));
        assert_eq!(share(18, 30, 4), (14, 4));
        assert_eq!(share(18, 30, 30), (9, 9));
        assert_eq!(share(40, 5, 6), (5, 35));
        assert_eq!(share(1, 5, 6), (0, 1));
    }

    #[test]
    fn an_age_is_written_for_people() {
        assert_eq!(age(Duration::from_millis(1_230)), "1.2 s");
        assert_eq!(age(Duration::from_secs(125)), "2 min 5 s");
    }
}
