//! The live view: what happens now, and the last minutes as curves.

use super::figures::Sample;
use super::machine::cores;
use super::report::number;
use super::scenario::{Scenario, Stage};
use super::shared::{Shared, lock};
use crate::verbs::fold::fold;
use anyhow::Context as _;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How often the screen is drawn while nothing happens.
const REDRAW: Duration = Duration::from_millis(250);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
const ALARM: Style = Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
const GOOD: Style = Style::new().fg(Color::Green);

/// A view on a thread of its own, since waiting for keys blocks.
pub(super) struct Screen {
    done: Arc<AtomicBool>,
    drawing: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Screen {
    /// Begins to draw; `q` sets `quit`.
    pub(super) fn open(shared: Arc<Shared>, scenario: Scenario, quit: watch::Sender<bool>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&done);
        let drawing = tokio::task::spawn_blocking(move || {
            let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
            let drawn = draw_until(&mut terminal, &shared, &scenario, &quit, &seen);
            ratatui::try_restore()?;
            drawn
        });
        Self { done, drawing }
    }

    /// Gives the terminal back.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.done.store(true, Ordering::Relaxed);
        self.drawing.await?
    }
}

fn draw_until(
    terminal: &mut ratatui::DefaultTerminal,
    shared: &Shared,
    scenario: &Scenario,
    quit: &watch::Sender<bool>,
    done: &AtomicBool,
) -> anyhow::Result<()> {
    while !done.load(Ordering::Relaxed) {
        terminal.draw(|frame| draw(frame, shared, scenario))?;
        let mut wait = REDRAW;
        while event::poll(wait)? {
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                let interrupts = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if interrupts || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    quit.send_replace(true);
                }
            }
            wait = Duration::ZERO;
        }
    }
    Ok(())
}

fn draw(frame: &mut Frame<'_>, shared: &Shared, scenario: &Scenario) {
    let area = frame.area();
    let samples = lock(&shared.samples).clone();
    let figures = figures(shared, samples.last(), area.width.saturating_sub(2));
    let heights = [1, 1, length(figures.len()) + 2, 0, 1];
    let [title, stage, now, curves, keys] =
        Layout::vertical(heights.map(|h| if h == 0 { Constraint::Min(0) } else { Constraint::Length(h) })).areas(area);
    let name = if scenario.title.is_empty() { "load test" } else { &scenario.title };
    let title_line = vec![Span::styled("trocar load  ", HEAD), Span::raw(crate::verbs::table::clean(name))];
    frame.render_widget(Paragraph::new(Line::from(title_line)), title);
    frame.render_widget(Paragraph::new(progress(shared, scenario)), stage);
    frame.render_widget(Paragraph::new(figures).block(Block::bordered().title(" The last second ")), now);
    draw_curves(frame, curves, &samples);
    frame.render_widget(Paragraph::new("q ends the test and reports what was measured").dim(), keys);
}

fn length(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

/// How far the test is. How long a climb takes is what it finds out.
fn progress(shared: &Shared, scenario: &Scenario) -> String {
    let word = lock(&shared.stage).clone();
    let climbs = scenario.stages.iter().any(|s| matches!(s, Stage::Climb { .. }));
    let all = if climbs { String::new() } else { format!(" of {:.0} s", scenario.seconds()) };
    let stage = match word.as_str() {
        "" => "publishers join".to_owned(),
        word => format!("stage {word}"),
    };
    format!("{:.0} s{all}   {stage}", shared.elapsed().as_secs_f64())
}

/// A row: what it is about, and what there is to say, in as many lines as it takes.
fn row(about: &str, parts: impl IntoIterator<Item = Span<'static>>, width: u16) -> Vec<Line<'static>> {
    let mut parts: Vec<Span<'static>> = parts.into_iter().collect();
    if let Some(first) = parts.first_mut() {
        first.content = format!("{about:<9}{}", first.content).into();
    }
    fold(parts, "   ", "         ", width)
}

fn figures(shared: &Shared, last: Option<&Sample>, width: u16) -> Vec<Line<'static>> {
    let Some(s) = last else { return vec![Line::from("not over yet")] };
    let ms = |v: Option<f64>| v.map_or_else(|| "unknown".to_owned(), number);
    let (counts, viewers) = shared.totals();
    let (joins, failed) = {
        let joins = lock(&shared.joins);
        (joins.asked, joins.failed)
    };
    let alarm = |bad: bool, text: String| Span::styled(text, if bad { ALARM } else { GOOD });
    let plain = |texts: Vec<String>| texts.into_iter().map(Span::raw);
    let lost = counts.lost_percent().map_or_else(String::new, |p| format!(" ({} %)", number(p)));
    let packets = [
        ("missing", counts.packets_missing),
        ("corrupted", counts.packets_corrupted),
        ("reordered", counts.packets_reordered),
        ("duplicated", counts.packets_duplicated),
        ("foreign", counts.packets_foreign),
    ];
    let rate = vec![format!("{:.1} Mbit/s", s.mbit_per_s), format!("{:.0} frames/s", s.frames_per_s)];
    let there = vec![format!("{viewers} of {}", shared.plans.len()), format!("{joins} joins")];
    let ages = [("p50", s.age_p50_ms), ("p99", s.age_p99_ms), ("max", s.age_max_ms)];
    let frames = [
        alarm(counts.frames_lost > 0, format!("lost {}{lost}", counts.frames_lost)),
        alarm(counts.frames_stale > 0, format!("stale {}", counts.frames_stale)),
        Span::raw(format!("lost in this second {}", s.frames_lost)),
    ];
    let mut cpu = vec![match s.relay_cpu {
        Some(relay) => format!("relay {relay:.0} % of one core"),
        None => "relay not known (--metrics, --relay-pid)".to_owned(),
    }];
    cpu.extend(s.relay_thread_cpu.map(|thread| format!("its busiest thread {thread:.0} %")));
    cpu.push(format!("generator {:.0} % of {} core(s)", s.generator_cpu / cores() as f64, cores()));
    let pace = vec![format!("frames late by {} ms", ms(s.late_max_ms)), format!("load average {:.1}", s.load_average)];
    [
        row("received", plain(rate), width),
        row("viewers", plain(there).chain([alarm(failed > 0, format!("failed {failed}"))]), width),
        row("age ms", plain(ages.map(|(name, v)| format!("{name} {}", ms(v))).into()), width),
        row("frames", frames, width),
        row("packets", plain(packets.map(|(name, n)| format!("{name} {n}")).into()), width),
        row("CPU", plain(cpu), width),
        row("pacing", plain(pace), width),
        row("faults", [Span::raw(format!("{} found", lock(&shared.faults).list().len()))], width),
    ]
    .concat()
}

/// What a curve is of, and its value in a second.
type Curve = (&'static str, fn(&Sample) -> f64);

const CURVES: [Curve; 3] = [
    ("age p99, ms", |s| s.age_p99_ms.unwrap_or(0.0)),
    ("received, Mbit/s", |s| s.mbit_per_s),
    ("frames lost", |s| s.frames_lost as f64),
];
/// Lines that a curve needs: a frame and something in it.
const LEAST: u16 = 3;

/// As many curves as there is room for, the first ones first.
fn draw_curves(frame: &mut Frame<'_>, area: Rect, samples: &[Sample]) {
    let fit = usize::from(area.height / LEAST).min(CURVES.len());
    let areas = Layout::vertical(vec![Constraint::Fill(1); fit]).split(area);
    for ((what, value), area) in CURVES.into_iter().zip(areas.iter()) {
        let width = usize::from(area.width.saturating_sub(2));
        let shown: Vec<f64> = samples.iter().rev().take(width).rev().map(|s| value(s).max(0.0)).collect();
        let highest = shown.iter().copied().fold(0.0, f64::max);
        // A curve is drawn in whole numbers: small ones keep their shape by being drawn in hundredths.
        let bars: Vec<u64> = shown.iter().map(|v| (v * 100.0).round() as u64).collect();
        let block = Block::bordered().title(format!(" {what}: highest {} ", number(highest)));
        frame.render_widget(Sparkline::default().data(&bars).block(block), *area);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(width: u16, height: u16) -> String {
        let text = "title = \"a test\"\n[[publishers]]\nbitrate = 1\n[[viewers]]\ncount = 2\n\
                    [[stage]]\nkind = \"hold\"\nseconds = 9";
        let scenario = Scenario::parse(text).unwrap();
        let shared = Shared::new(Vec::new(), scenario.viewers(), 500_000);
        let sample =
            Sample { relay_cpu: Some(12.0), relay_thread_cpu: Some(9.0), age_p99_ms: Some(3.25), ..Sample::default() };
        lock(&shared.samples).extend([Sample::default(), sample]);
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &shared, &scenario)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_narrow_terminal_shows_every_figure_in_more_lines_and_fewer_curves() {
        let (wide, narrow, low) = (drawn(120, 40), drawn(60, 20), drawn(60, 6));
        for text in [&wide, &narrow] {
            for part in ["p99 3.25", "relay 12 % of one core", "its busiest thread 9 %", "foreign 0", "0 found"] {
                assert!(text.contains(part), "{part}:\n{text}");
            }
        }
        assert_eq!(wide.matches("highest").count(), 3, "{wide}");
        assert!(narrow.matches("highest").count() < 3, "{narrow}");
        assert!(!low.contains("highest"), "{low}");
    }
}
