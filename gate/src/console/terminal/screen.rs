//! Drawing. Who is in control stands first, in letters that are read from two metres; whatever a colour says, a word says too.

use super::super::model::{ActLine, Control, GateLine, Line as Said, Model};
use super::desk::{Desk, Form};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Wrap};

const ALARM: Style = Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
const CAUTION: Style = Style::new().fg(Color::Black).bg(Color::Yellow).add_modifier(Modifier::BOLD);
const GOOD: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

/// From this size on the word is twice as large, and the lists stand side by side.
const WIDE: u16 = 120;
const TALL: u16 = 40;

/// Draws everything. `pulse` turns with each sign of life.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, desk: &Desk, pulse: bool) {
    let area = frame.area();
    let large = area.width >= WIDE && area.height >= TALL;
    let word = word(model, large);
    let alarms = alarms(model, if large { 13 } else { 2 });
    let heights = [1, len(&word), 2, 1, len(&alarms)].map(Constraint::Length);
    let tail = [Constraint::Fill(1), Constraint::Length(1), Constraint::Length(4)];
    let parts: [Rect; 8] = Layout::vertical(heights.into_iter().chain(tail)).areas(area);
    let [title, banner, detail, times, warning, middle, answer, acts] = parts;
    frame.render_widget(title_line(model, pulse), title);
    frame.render_widget(Paragraph::new(word).style(banner_style(model.control)), banner);
    frame.render_widget(detail_lines(model), detail);
    frame.render_widget(times_line(model), times);
    frame.render_widget(Paragraph::new(alarms).style(ALARM), warning);
    match &desk.form {
        Form::None if large => draw_side_by_side(frame, middle, model),
        Form::None => frame.render_widget(Paragraph::new(below_each_other(model, usize::from(middle.height))), middle),
        form => draw_form(frame, middle, form, model),
    }
    frame.render_widget(answer_line(model, desk), answer);
    draw_acts(frame, acts, model, &desk.form);
}

fn len<T>(lines: &[T]) -> u16 {
    u16::try_from(lines.len()).unwrap_or(u16::MAX)
}

const fn banner_style(control: Control) -> Style {
    let style = Style::new().add_modifier(Modifier::BOLD);
    match control {
        Control::Local => style.fg(Color::Black).bg(Color::Green),
        Control::Remote => style.fg(Color::White).bg(Color::Blue),
        Control::Nobody => style.fg(Color::Black).bg(Color::Yellow),
        Control::Estop | Control::Unknown => style.fg(Color::White).bg(Color::Red),
        Control::Closed => style.fg(Color::White).bg(Color::DarkGray),
    }
}

/// The large word, and the headline below it.
fn word(model: &Model, large: bool) -> Vec<Line<'static>> {
    let mut out = Vec::new();
    for line in trocar_control::big::lines(model.word) {
        if large {
            let [upper, lower] = doubled(&line);
            out.extend([Line::from(format!("  {upper}")), Line::from(format!("  {lower}"))]);
        } else {
            out.push(Line::from(format!(" {line}")));
        }
    }
    if large {
        out.insert(0, Line::from(""));
        out.push(Line::from(""));
    }
    out.push(Line::from(format!(" {}", model.headline)));
    out
}

/// A line of half blocks as two of whole ones, twice as wide.
fn doubled(line: &str) -> [String; 2] {
    let part =
        |full: [char; 2]| line.chars().flat_map(|c| if full.contains(&c) { ['█'; 2] } else { [' '; 2] }).collect();
    [part(['█', '▀']), part(['█', '▄'])]
}

fn title_line(model: &Model, pulse: bool) -> Paragraph<'static> {
    let life = if pulse { "[* ]" } else { "[ *]" };
    let old = if model.control == Control::Unknown { "OLD: " } else { "" };
    let mut text = format!(" {life} {old}{} for {}   epoch {}", model.state, model.since, model.epoch);
    for (name, n) in &model.counters {
        text.push_str(&format!("   {name} {n}"));
    }
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED))
}

fn detail_lines(model: &Model) -> Paragraph<'static> {
    let mut text = model.detail.clone();
    if let Some(step) = &model.step {
        text.push_str(&format!(" Step: {step}."));
    }
    Paragraph::new(format!(" {text}")).style(HEAD).wrap(Wrap { trim: false })
}

fn times_line(model: &Model) -> Paragraph<'static> {
    if let Some(motion) = &model.motion {
        let style = if motion.runs { GOOD } else { CAUTION };
        return Paragraph::new(format!(" {}", motion.text)).style(style);
    }
    let Some(countdown) = &model.countdown else { return Paragraph::new("") };
    let share = countdown.left_ms * 30 / countdown.of_ms.max(1);
    let full = usize::try_from(share.min(30)).unwrap_or(30);
    Paragraph::new(format!(" {}  [{:<30}]", countdown.text, "#".repeat(full))).style(CAUTION)
}

fn alarms(model: &Model, most: usize) -> Vec<Line<'static>> {
    // Where there is no room for all with their meaning, the last line names the others.
    let explained = if model.alarms.len() > most { most.saturating_sub(1) } else { most };
    let line = |a: &super::super::model::Alarm| Line::from(format!(" ALARM {}: {}", a.title, a.meaning));
    let mut out: Vec<_> = model.alarms.iter().take(explained).map(line).collect();
    let others: Vec<_> = model.alarms.iter().skip(explained).map(|a| a.title).collect();
    if !others.is_empty() {
        out.push(Line::from(format!(" ALARMS {}", others.join(", "))));
    }
    out
}

fn gate_lines(model: &Model) -> Vec<Line<'static>> {
    model.gates.iter().map(gate_line).collect()
}

fn gate_line(gate: &GateLine) -> Line<'static> {
    let style = match gate.sign {
        "ok" => GOOD,
        "!" => CAUTION,
        "X" => ALARM,
        _ => Style::new(),
    };
    Line::from(vec![
        Span::raw(format!(" {:<13}", gate.name)),
        Span::styled(format!("{:<3} {:<9}", gate.sign, gate.word), style),
        Span::raw(format!(" {:<23}", gate.figure)),
        Span::raw(gate.limit.clone()).dim(),
    ])
}

fn said(line: &Said) -> Line<'static> {
    let style = if line.good { Style::new() } else { ALARM };
    Line::from(Span::styled(format!(" {}", line.text), style))
}

fn around(model: &Model) -> Vec<Line<'static>> {
    std::iter::once(&model.device).chain(&model.inputs).map(said).collect()
}

fn news(model: &Model, most: usize) -> Vec<Line<'static>> {
    let line = |n: &super::super::model::News| Line::from(format!(" {:>12}  {}", n.ago, n.text));
    model.news.iter().take(most).map(line).collect()
}

fn experts(model: &Model, most: usize) -> Vec<Line<'static>> {
    let line = |e: &super::super::model::Expert| {
        let not = e.not.map(|why| format!(" - {why}")).unwrap_or_default();
        Line::from(format!(" {} ({}), {}{not}", e.name, e.realm, e.grade))
    };
    let mut out: Vec<_> = model.experts.iter().take(most).map(line).collect();
    let more = model.experts.len().saturating_sub(most);
    if more > 0 {
        out.push(Line::from(format!(" and {more} more")));
    }
    out
}

fn below_each_other(model: &Model, room: usize) -> Vec<Line<'static>> {
    let mut out = gate_lines(model);
    out.extend(around(model));
    let left = room.saturating_sub(out.len());
    let news = news(model, left.min(model.news.len()).min(if left > 4 { left - 2 } else { left }));
    let left = left - news.len();
    out.extend(news);
    if left > 1 {
        let who = experts(model, left.saturating_sub(2).max(1));
        let nobody = if who.is_empty() { " Connected: nobody" } else { " Connected:" };
        out.push(Line::from(nobody).style(HEAD));
        out.extend(who);
    }
    out
}

fn draw_side_by_side(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let [left, right] = Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(area);
    let mut lines = gate_lines(model);
    lines.push(Line::from(""));
    lines.extend(around(model));
    lines.push(Line::from(""));
    lines.extend(limits(model));
    frame.render_widget(Paragraph::new(lines).block(titled(" Link, device, limits ")), left);
    let [upper, lower] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(right);
    let room = usize::from(upper.height.saturating_sub(3));
    let mut who = experts(model, room);
    if who.is_empty() {
        who.push(Line::from(" nobody"));
    }
    frame.render_widget(Paragraph::new(who).block(titled(" Connected ")), upper);
    frame.render_widget(Paragraph::new(news(model, usize::from(lower.height))).block(titled(" News ")), lower);
}

fn titled(title: &'static str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

fn limits(model: &Model) -> Vec<Line<'static>> {
    model.limits.iter().map(|(name, value)| Line::from(format!(" {name:<29} {value}"))).collect()
}

fn draw_form(frame: &mut Frame<'_>, area: Rect, form: &Form, model: &Model) {
    let numbered = |names: Vec<String>| -> Vec<Line<'static>> {
        let lines = names.into_iter().take(9).enumerate();
        lines.map(|(i, name)| Line::from(format!("  {}  {name}", i + 1))).collect()
    };
    let (title, mut lines) = match form {
        Form::None => return,
        Form::Expert(experts) => {
            let names = experts.iter().map(|e| format!("{} ({}), {}", e.name, e.realm, e.grade));
            (" OFFER 1/3: to whom? Press the number ".to_owned(), numbered(names.collect()))
        }
        Form::Set(expert) => {
            let sets = expert.sets.iter().map(|(_, words)| words.clone()).collect();
            (format!(" OFFER 2/3: what does {} get? Press the number ", expert.name), numbered(sets))
        }
        Form::Step(expert, set, text) => {
            let what = set.words();
            let lines = vec![Line::from(format!("  > {text}_")), Line::from(""), Line::from("  Enter offers.")];
            (format!(" OFFER 3/3: {what} to {}. For which step? ", expert.name), lines)
        }
        Form::Mute(persons) => {
            let names = persons.iter().map(|p| super::super::words::clean(p.as_str()));
            (" MUTE: whose STOP is heard no more? Press the number ".to_owned(), numbered(names.collect()))
        }
        Form::Limits => {
            // Running text, so that all of them fit on a small screen.
            let all: Vec<_> = model.limits.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            (" Timers and thresholds ".to_owned(), vec![Line::from(format!(" {}", all.join(" | ")))])
        }
    };
    if lines.is_empty() {
        lines.push(Line::from("  nobody"));
    }
    lines.push(Line::from("  Esc: back").dim());
    let block = Block::new().borders(Borders::TOP).title(title).border_style(HEAD);
    frame.render_widget(Paragraph::new(lines).block(block).wrap(Wrap { trim: false }), area);
}

/// What became of the last act: this console's own, else the newest that any console or input performed.
fn answer_line(model: &Model, desk: &Desk) -> Paragraph<'static> {
    let (good, text) = match (&desk.said, &model.answer) {
        (Some((good, text)), _) => (*good, text.clone()),
        (None, Some(answer)) => (answer.good, answer.text.clone()),
        (None, None) => (true, String::new()),
    };
    Paragraph::new(format!(" {text}")).style(if good { HEAD } else { CAUTION })
}

/// The first line always says how to take and how to stop; what is not possible stands there with its reason.
fn draw_acts(frame: &mut Frame<'_>, area: Rect, model: &Model, form: &Form) {
    let typing = matches!(form, Form::Step(..));
    let (take, stop) = if typing { ("F1 or SPACE SPACE", "F2 or Esc Esc") } else { ("SPACE or T", "E or Esc Esc") };
    let mut lines = vec![Line::from(vec![
        Span::styled(format!("  {take}: TAKE  "), Style::new().fg(Color::Black).bg(Color::Green).bold()),
        Span::raw("   "),
        Span::styled(format!("  {stop}: ESTOP  "), ALARM),
        Span::raw(if typing { "" } else { "   L limits" }),
    ])];
    let others: Vec<_> = model.acts.iter().skip(2).filter(|a| a.not.is_none()).collect();
    if !typing {
        lines.push(possible(&others));
        lines.push(impossible(model));
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), area);
}

fn possible(acts: &[&ActLine]) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    for act in acts {
        let text = format!(" {}: {} ", act.key, act.label);
        spans.push(if act.next { Span::styled(format!(">{text}<"), CAUTION) } else { Span::styled(text, HEAD) });
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

/// Why not the two that people wait for.
fn impossible(model: &Model) -> Line<'static> {
    let wanted = model.acts.iter().filter(|a| matches!(a.label, "TAKE" | "OFFER" | "CONFIRM"));
    let why: Vec<_> = wanted.filter_map(|a| a.not.map(|not| format!("{} not now: {not}", a.label))).collect();
    Line::from(format!("  {}", why.join(". "))).dim()
}

#[cfg(test)]
mod tests;
