//! Drawing.

use crate::operate::view::View;
use crate::operate::words;
use crate::verbs::table::clean;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use trocar_proto::handover::device_wire::sim;
use trocar_proto::handover::message::{Mode, Status};
use trocar_proto::handover::paths::Protection;
use trocar_proto::handover::station::Phase;
use trocar_proto::handover::types::{Clutch, Colour, GrantedSet};
use trocar_proto::units::Micros;

/// The core makes a new view twenty times a second; an older one says nothing of now.
const STALE_US: u64 = 500_000;

const ALARM: Style = Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
const CONTROL: Style = Style::new().fg(Color::Black).bg(Color::Green).add_modifier(Modifier::BOLD);
const CAUTION: Style = Style::new().fg(Color::Black).bg(Color::Yellow).add_modifier(Modifier::BOLD);
const CALM: Style = Style::new().fg(Color::White).bg(Color::DarkGray).add_modifier(Modifier::BOLD);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: Micros) {
    let rows = [5, 9, 6, 1].map(Constraint::Length);
    let [banner_at, register_at, hands_at, keys_at] = Layout::vertical(rows).areas(frame.area());
    let (words, style) = banner(view, now);
    let banner = Paragraph::new(vec![Line::from(""), Line::from(words.0), Line::from(words.1)]);
    frame.render_widget(banner.style(style).alignment(Alignment::Center).block(Block::new().style(style)), banner_at);
    let boxed = |title: &'static str| Block::new().borders(Borders::ALL).title(title);
    frame.render_widget(Paragraph::new(register(view)).block(boxed(" gate ")), register_at);
    frame.render_widget(Paragraph::new(hands(view)).block(boxed(" this station ")), hands_at);
    frame.render_widget(Paragraph::new(keys(view)), keys_at);
}

/// The one thing that has to be right, in two lines.
fn banner(view: &View, now: Micros) -> ((String, String), Style) {
    let say = |big: &str, small: String, style| ((big.to_owned(), small), style);
    let unknown = |why: &str| say("CONTROL UNKNOWN: HANDS OFF", why.to_owned(), ALARM);
    if now.since(view.at) > STALE_US {
        return unknown("this station's own core does not answer");
    }
    let Some(status) = &view.status else {
        return match &view.gate {
            Some(gate) => unknown(&format!("gate {} does not answer", clean(gate))),
            None => unknown("no channel to a gate"),
        };
    };
    if view.control && view.silent {
        return unknown("nothing comes from the gate: nothing is sent");
    }
    if view.control {
        let parts = parts(status.set);
        return match status.stopped {
            0 => say("YOU HAVE CONTROL", format!("{parts}: moving"), CONTROL),
            bits => {
                say("YOU HAVE CONTROL", format!("{parts}: MOTION STOPPED: {}", words::causes(bits).join(", ")), CAUTION)
            }
        };
    }
    if let Some(offer) = &view.offer {
        let seconds = offer.until.since(now) as f64 / 1e6;
        return match view.phase {
            Phase::Accepted => {
                say("ACCEPTED: NOT IN CONTROL YET", "local has to confirm; hold presence anew".to_owned(), CAUTION)
            }
            _ => say(
                &format!("OFFERED TO YOU: {}", parts(offer.set).to_uppercase()),
                format!("{} [A]ccept [D]ecline, {seconds:.0} s left", clean(&offer.step)),
                CAUTION,
            ),
        };
    }
    match status.mode {
        Mode::Estop => say("EMERGENCY STOP", "nobody operates".to_owned(), ALARM),
        Mode::Hold => say("OBSERVER", "HOLD: nobody operates".to_owned(), CALM),
        Mode::Closed => say("OBSERVER", "the session is closed".to_owned(), CALM),
        Mode::Remote if view.mine => unknown("the gate says that this station holds, this station does not know of it"),
        Mode::Remote => say("OBSERVER", "another expert operates".to_owned(), CALM),
        _ => say("OBSERVER", "the surgeon at the patient's side operates".to_owned(), CALM),
    }
}

fn parts(set: GrantedSet) -> String {
    set.words()
}

fn gate_span(name: &str, colour: Colour, figure: String) -> Vec<Span<'static>> {
    let style = match colour {
        Colour::Green => Style::new().fg(Color::Green),
        Colour::Amber => CAUTION,
        Colour::Red => ALARM,
        Colour::Unmeasured => Style::new().add_modifier(Modifier::DIM),
    };
    vec![Span::raw(format!("{name} ")), Span::styled(format!("{} {figure}", colour.name()), style), Span::raw("   ")]
}

fn ms(us: u32) -> String {
    words::figure(us).map_or_else(|| "–".to_owned(), |us| format!("{:.0} ms", f64::from(us) / 1e3))
}

fn register(view: &View) -> Vec<Line<'static>> {
    let gate = view.gate.as_deref().map_or_else(|| "none".to_owned(), clean);
    let mut lines = vec![Line::from(vec![Span::raw(format!("{gate}; ")), paths(view)])];
    let Some(s) = &view.status else {
        lines.push(Line::from("nothing is known of it"));
        return lines;
    };
    lines.push(Line::from(format!(
        "{} for {:.0} s, epoch {}, set {}",
        s.mode.name().to_uppercase(),
        s.since_ms as f64 / 1e3,
        s.epoch.0,
        parts(s.set)
    )));
    lines.extend(link_gates(s));
    if s.alarms != 0 {
        lines.push(Line::styled(format!("alarms: {}", words::alarms(s.alarms).join(", ")), ALARM));
    }
    if let Some(refused) = &view.refused {
        lines.push(Line::styled(format!("the gate refused: {refused}"), CAUTION));
    }
    lines
}

/// The way to the relay and back, by each path, and whether one could be lost.
fn paths(view: &View) -> Span<'static> {
    let each = view.paths.iter().enumerate().map(|(n, path)| match path.rtt {
        Some(rtt) if path.live => format!("path {} {:.1} ms", n + 1, rtt.as_secs_f64() * 1e3),
        _ => format!("path {} LOST", n + 1),
    });
    let each: Vec<String> = each.collect();
    let (word, style) = match view.protection {
        Protection::Single => ("", Style::new()),
        Protection::Protected => (", PROTECTED", CONTROL),
        Protection::Unprotected => (", UNPROTECTED", ALARM),
    };
    Span::styled(format!("{}{word}", each.join(", ")), style)
}

fn link_gates(s: &Status) -> Vec<Line<'static>> {
    let f = s.figures;
    let loss = words::figure(f.loss_ppm).map_or_else(|| "–".to_owned(), |ppm| format!("{:.2} %", f64::from(ppm) / 1e4));
    let first = [
        gate_span("loop age p95", s.colours.loop_age, ms(f.loop_p95)),
        gate_span("jitter p95", s.colours.jitter, ms(f.jitter_p95)),
    ];
    let second =
        [gate_span("loss", s.colours.loss, loss), gate_span("picture age", s.colours.frame_age, ms(f.frame_age))];
    vec![Line::from(first.concat()), Line::from(second.concat())]
}

fn hands(view: &View) -> Vec<Line<'static>> {
    let s = &view.senses;
    let word = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
    let mut lines = vec![Line::from(format!(
        "presence {}   clutch {}   energy pedal {}",
        word(s.presence, "HELD", "released"),
        word(s.clutch == Clutch::Closed, "CLOSED", "open"),
        word(s.pedal, "HELD", "released"),
    ))];
    // The gate judges alignment and does not tell the device's pose: this is the one side that is known here.
    lines.push(Line::from(match sim::Pose::decode(s.pose.as_bytes()) {
        Ok(pose) => {
            let [w, x, y, z] = pose.orientation.map(|part| f64::from(part) / f64::from(i16::MAX));
            let grip = f64::from(pose.grip) / f64::from(sim::CLOSED);
            format!(
                "own pose {w:.2} {x:.2} {y:.2} {z:.2}, grip {grip:.2}, {}",
                word(pose.motion_zero, "still", "moving")
            )
        }
        Err(_) => format!("own pose {} bytes", s.pose.as_bytes().len()),
    }));
    let sending = match (view.phase, view.silent) {
        (Phase::Accepted | Phase::Control, true) => Span::styled("SILENT: nothing comes from the gate", ALARM),
        (Phase::Accepted | Phase::Control, false) => Span::raw("sending"),
        _ => Span::raw("sending nothing"),
    };
    lines.push(Line::from(vec![Span::raw(format!("{}, ", words::phase(view.phase))), sending]));
    if view.dropped > 0 {
        lines.push(Line::styled(format!("{} inputs did not fit", view.dropped), CAUTION));
    }
    lines
}

fn keys(view: &View) -> Line<'static> {
    let offered = if view.offer.is_some() { "a accept  d decline  " } else { "" };
    Line::from(format!("{offered}r return  1 ask for camera  2 instruments  3 energy  S stop  q quit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::view::Offer;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use trocar_proto::handover::message::Figures;
    use trocar_proto::handover::types::{Colours, Epoch};

    fn status(mode: Mode, stopped: u8) -> Status {
        Status {
            epoch: Epoch(7),
            mode,
            expert: None,
            set: GrantedSet::INSTRUMENTS,
            since_ms: 1_000,
            stopped,
            alarms: 0,
            colours: Colours::GREEN,
            figures: Figures { loop_p95: 42_000, ..Figures::default() },
            answers: Vec::new(),
            paths: trocar_proto::handover::paths::Protection::default(),
            timers: trocar_proto::handover::message::Timers::default(),
        }
    }

    fn screen(view: &View, now: Micros) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        terminal.draw(|f| draw(f, view, now)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        buffer.content().chunks(100).map(|row| row.iter().map(|c| c.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn control_is_said_only_while_it_is_known() {
        // HO-V-002, HO-V-003, HO-T-003
        let now = Micros(1_000_000);
        let base = View { at: now, gate: Some("or1".to_owned()), ..View::default() };
        let held = View { control: true, mine: true, status: Some(status(Mode::Remote, 0)), ..base.clone() };
        let shown = screen(&held, now);
        assert!(shown.contains("YOU HAVE CONTROL") && shown.contains("42 ms") && shown.contains("epoch 7"), "{shown}");
        for (view, at) in [
            (base.clone(), now),
            (held.clone(), now.plus(STALE_US + 1)),
            (View { silent: true, ..held.clone() }, now),
            (View { control: false, ..held.clone() }, now),
            (View { control: true, status: None, ..base.clone() }, now),
        ] {
            let shown = screen(&view, at);
            assert!(shown.contains("HANDS OFF") && !shown.contains("YOU HAVE CONTROL"), "{shown}");
        }
        let local = screen(&View { status: Some(status(Mode::Local, 0)), ..base.clone() }, now);
        assert!(local.contains("OBSERVER") && local.contains("patient's side"), "{local}");
        let stopped = screen(&View { status: Some(status(Mode::Remote, 17)), ..held }, now);
        assert!(stopped.contains("MOTION STOPPED") && stopped.contains("picture too old"), "{stopped}");
    }

    #[test]
    fn an_offer_counts_down_and_acceptance_is_not_control() {
        let now = Micros(1_000_000);
        let offer = Offer { set: GrantedSet::ENERGY, step: "suture".to_owned(), until: Micros(13_000_000) };
        let known = Some(status(Mode::Offered, 0));
        let view = View { at: now, phase: Phase::Offered, offer: Some(offer), status: known, ..View::default() };
        let shown = screen(&view, now);
        assert!(
            shown.contains("INSTRUMENTS + ENERGY") && shown.contains("suture") && shown.contains("12 s"),
            "{shown}"
        );
        let shown = screen(&View { phase: Phase::Accepted, ..view }, now);
        assert!(shown.contains("NOT IN CONTROL YET") && !shown.contains("YOU HAVE"), "{shown}");
    }
}
