//! Each state's screen, as text: `screens/*.txt`. `TROCAR_BLESS=1` writes them anew, to be read before they are kept.

use super::super::desk::{Desk, Form};
use super::*;
use crate::console::fixture::{self, NOW, hold, local, open, ready, remote, text};
use crate::console::model::Around;
use crate::core::View;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use trocar_proto::handover::gate::{Act, Alarms, Causes, Notice};
use trocar_proto::handover::message::{Mode, Reason};
use trocar_proto::handover::types::{ChannelId, Colour, Colours, Epoch, GrantedSet, Selection};

fn drawn(model: &Model, desk: &Desk, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, desk, false)).unwrap();
    terminal.backend().buffer().clone()
}

fn as_text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let row = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content.chunks(width).map(row).collect()
}

fn pinned_with(name: &str, model: &Model, desk: &Desk, size: (u16, u16)) {
    let path = format!("{}/src/console/terminal/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let actual = as_text(&drawn(model, desk, size));
    if std::env::var_os("TROCAR_BLESS").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name}:\n{actual}");
}

fn pinned(name: &str, view: &View) {
    pinned_with(name, &fixture::model(view), &Desk::default(), (80, 24));
}

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (200, 60);

#[test]
fn nobody_and_local_before_an_offer() {
    pinned("hold", &hold());
    pinned("local", &local());
    pinned("local-alone", &View { connected: Vec::new(), device: None, ..local() });
    let alarms = Alarms(Alarms::CONSENT.0 | Alarms::STORE.0 | Alarms::SECOND_GATE.0);
    pinned("local-no-remote", &View { alarms, ..local() });
}

#[test]
fn an_offer_from_its_beginning_to_the_grant() {
    pinned("offered", &open(Mode::Offered));
    pinned("ready-measuring", &open(Mode::Ready));
    pinned("ready-green", &ready());
    let amber = View { colours: Colours { loop_age: Colour::Amber, ..Colours::GREEN }, ..ready() };
    pinned("ready-amber", &amber);
    pinned("ready-amber-told", &View { answered: Some((Act::Confirm, Err(Reason::LinkAmber))), ..amber });
    pinned("ready-red", &View { colours: Colours { loss: Colour::Red, ..Colours::GREEN }, ..ready() });
    pinned("ready-not-aligned", &View { answered: Some((Act::Confirm, Err(Reason::NotAligned))), ..ready() });
    pinned("granting", &View { colours: Colours::GREEN, figures: fixture::measured(), ..open(Mode::Granting) });
}

#[test]
fn remote_with_motion_and_stopped() {
    pinned("remote", &remote());
    let stopped = Some(Causes(Causes::WAITING.0 | Causes::PRESENCE.0 | Causes::FRAME.0));
    pinned("remote-stopped", &View { stopped, ..remote() });
    let notices = vec![
        (NOW, Notice::Estop { person: text("Anaesthetist\u{1b}[2J"), reason: text("bleeding") }),
        (NOW, Notice::ConsentEnded),
    ];
    pinned("remote-news", &View { notices, alarms: Alarms(Alarms::CONSENT.0), ..remote() });
}

#[test]
fn stopped_closed_and_unknown() {
    let nobody = Some((fixture::report(Selection::Nobody), NOW));
    pinned("estop", &View { mode: Mode::Estop, device: nobody, epoch: Epoch(19), ..local() });
    pinned("closed", &View { mode: Mode::Closed, device: nobody, ..local() });
    let late = Model::new(&remote(), &Around::default(), NOW.plus(2_300_000));
    pinned_with("unknown", &late, &Desk::default(), SMALL);
    let inputs = vec![("foot pedal".to_owned(), Some("No such device".to_owned())), ("red button".to_owned(), None)];
    let around = Around { inputs, refused: 4 };
    pinned_with("inputs", &Model::new(&local(), &around, NOW), &Desk::default(), SMALL);
}

#[test]
fn forms() {
    let model = fixture::model(&local());
    let ito = model.experts.iter().find(|e| e.name == "Dr. Ito").unwrap().clone();
    let desk = |form| {
        let mut desk = Desk::default();
        desk.form = form;
        desk
    };
    let experts = model.experts.iter().filter(|e| e.not.is_none()).cloned().collect();
    pinned_with("offer-1", &model, &desk(Form::Expert(experts)), SMALL);
    pinned_with("offer-2", &model, &desk(Form::Set(ito.clone())), SMALL);
    pinned_with("offer-3", &model, &desk(Form::Step(ito, GrantedSet::CAMERA, "cystic du".to_owned())), SMALL);
    pinned_with("mute", &model, &desk(Form::Mute(vec![text("Mallory"), text("Dr. Berg")])), SMALL);
    pinned_with("limits", &model, &desk(Form::Limits), SMALL);
}

#[test]
fn a_large_screen_has_larger_letters_and_shows_all() {
    let request = Notice::Request { channel: ChannelId(2), set: GrantedSet::CAMERA, reason: text("to show the duct") };
    let notices = vec![(NOW, request)];
    pinned_with("large-local", &fixture::model(&View { notices, ..local() }), &Desk::default(), LARGE);
    pinned_with("large-remote", &fixture::model(&remote()), &Desk::default(), LARGE);
}

#[test]
fn take_and_estop_and_who_is_in_control_stand_on_every_screen_of_any_size() {
    let views = [local(), open(Mode::Offered), ready(), remote(), hold()];
    for view in views {
        let mut model = fixture::model(&view);
        model.alarms = fixture::model(&View { alarms: Alarms(u16::MAX), ..local() }).alarms;
        for size in [SMALL, (100, 30), (120, 40), LARGE] {
            let text = as_text(&drawn(&model, &Desk::default(), size));
            for part in ["SPACE or T: TAKE", "E or Esc Esc: ESTOP", model.headline.as_str()] {
                assert!(text.contains(part), "{part} in {size:?}:\n{text}");
            }
        }
    }
}

#[test]
fn a_terminal_of_any_size_is_drawn_on() {
    let model = fixture::model(&remote());
    for width in [1, 2, 10, 40, 79, 119, 300] {
        for height in [1, 2, 5, 12, 23, 39, 100] {
            drawn(&model, &Desk::default(), (width, height));
        }
    }
}

#[test]
fn no_colour_is_the_only_one_to_say_something() {
    // The same text would be read without colours: each state and each colour of a link gate has a word of its own.
    let words: std::collections::BTreeSet<_> =
        [local(), remote(), hold()].iter().map(|v| fixture::model(v).word).collect();
    assert_eq!(words.len(), 3);
    for (colour, word) in [
        (Colour::Unmeasured, "... measuring"),
        (Colour::Green, "ok  GREEN"),
        (Colour::Amber, "!   AMBER"),
        (Colour::Red, "X   RED"),
    ] {
        let view = View { colours: Colours { jitter: colour, ..Colours::GREEN }, ..ready() };
        let text = as_text(&drawn(&fixture::model(&view), &Desk::default(), SMALL));
        let line = text.lines().find(|l| l.contains("Jitter")).unwrap();
        assert!(line.contains(word), "{line}");
    }
}
