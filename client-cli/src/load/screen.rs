//! The live view: what happens now, and the last minutes as curves.

use super::figures::Sample;
use super::report::number;
use super::scenario::Scenario;
use super::shared::{Shared, lock};
use anyhow::Context as _;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
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
    let heights = [1, 1, 8, 0, 1].map(|h| if h == 0 { Constraint::Min(3) } else { Constraint::Length(h) });
    let [title, stage, now, curves, keys] = Layout::vertical(heights).areas(frame.area());
    let name = if scenario.title.is_empty() { "load test" } else { &scenario.title };
    let seconds = shared.elapsed().as_secs_f64();
    let title_line = vec![Span::styled("trocar load ", HEAD), Span::raw(crate::verbs::table::clean(name))];
    frame.render_widget(Paragraph::new(Line::from(title_line)), title);
    let word = lock(&shared.stage).clone();
    frame.render_widget(Paragraph::new(format!("{seconds:.0} s   stage {word}")), stage);
    let samples = lock(&shared.samples).clone();
    frame.render_widget(Paragraph::new(figures(shared, samples.last())).block(Block::bordered().title(" Now ")), now);
    draw_curves(frame, curves, &samples);
    frame.render_widget(Paragraph::new("q ends the test and reports what was measured"), keys);
}

fn figures(shared: &Shared, last: Option<&Sample>) -> Vec<Line<'static>> {
    let Some(s) = last else { return vec![Line::from("the first second is not over yet")] };
    let ms = |v: Option<f64>| v.map_or_else(|| "unknown".to_owned(), number);
    let (counts, viewers) = shared.totals();
    let (joins, failed) = {
        let joins = lock(&shared.joins);
        (joins.asked, joins.failed)
    };
    let packets = [
        ("missing", counts.packets_missing),
        ("corrupted", counts.packets_corrupted),
        ("reordered", counts.packets_reordered),
        ("duplicated", counts.packets_duplicated),
        ("foreign", counts.packets_foreign),
    ];
    let bad = counts.frames_lost + counts.frames_stale + failed > 0;
    let relay = s.relay_cpu.map_or_else(|| "unknown".to_owned(), |c| format!("{c:.0} %"));
    vec![
        Line::from(format!(
            "viewers   {viewers}   joins {joins}   {:.1} Mbit/s   {:.0} frames/s",
            s.mbit_per_s, s.frames_per_s
        )),
        Line::from(format!("age ms    p50 {}   p99 {}   max {}", ms(s.age_p50_ms), ms(s.age_p99_ms), ms(s.age_max_ms))),
        Line::styled(
            format!("frames    lost {}   stale {}   joins failed {failed}", counts.frames_lost, counts.frames_stale),
            if bad { ALARM } else { GOOD },
        ),
        Line::from(format!("packets   {}", packets.map(|(name, n)| format!("{name} {n}")).join("   "))),
        Line::from(format!(
            "CPU       generator {:.0} %   relay {relay} of one core   frames late by {} ms   load average {:.1}",
            s.generator_cpu,
            ms(s.late_max_ms),
            s.load_average
        )),
        Line::from(format!("faults    {} found", lock(&shared.faults).list().len())),
    ]
}

#[allow(clippy::type_complexity, reason = "three curves, each with its figure")]
fn draw_curves(frame: &mut Frame<'_>, area: Rect, samples: &[Sample]) {
    let areas: [Rect; 3] = Layout::vertical([Constraint::Ratio(1, 3); 3]).areas(area);
    let of: [(&str, fn(&Sample) -> f64); 3] = [
        (" age p99, ms ", |s| s.age_p99_ms.unwrap_or(0.0)),
        (" received, Mbit/s ", |s| s.mbit_per_s),
        (" frames lost ", |s| s.frames_lost as f64),
    ];
    for ((title, value), area) in of.into_iter().zip(areas) {
        let width = usize::from(area.width.saturating_sub(2));
        let shown: Vec<u64> =
            samples.iter().rev().take(width).rev().map(|s| value(s).max(0.0).round() as u64).collect();
        let top = shown.iter().max().copied().unwrap_or(0);
        let block = Block::bordered().title(format!("{title}(top {top}) "));
        frame.render_widget(Sparkline::default().data(&shown).block(block), area);
    }
}
