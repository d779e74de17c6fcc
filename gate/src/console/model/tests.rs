//! What the console says of a register, in words.

use super::*;
use crate::console::fixture::{self, NOW, hold, local, model, open, ready, remote, text};
use crate::core::{Connected, Who};
use trocar_proto::handover::gate::{Act, Alarms, Notice};
use trocar_proto::handover::message::Reason;
use trocar_proto::handover::types::{ChannelId, Colour, Colours, GrantedSet, Selection};
use trocar_proto::session::role::{Grade, Role};

fn act(model: &Model, act: ActName) -> &ActLine {
    model.acts.iter().find(|a| a.act == act).unwrap()
}

fn next(model: &Model) -> Option<ActName> {
    model.acts.iter().find(|a| a.next).map(|a| a.act)
}

#[test]
fn who_is_in_control_is_said_in_a_word_and_a_sentence() {
    let said = |view: &View| (model(view).word, model(view).headline);
    assert_eq!(said(&local()), ("LOCAL", "CONTROL: LOCAL - you operate".to_owned()));
    for mode in [Mode::Offered, Mode::Ready, Mode::Granting] {
        assert_eq!(said(&open(mode)).0, "LOCAL", "the giver stays responsible until the grant");
    }
    assert_eq!(said(&remote()), ("REMOTE", "CONTROL: REMOTE - Dr. Ito holds instruments + energy".to_owned()));
    assert_eq!(said(&hold()).0, "NOBODY");
}

#[test]
fn a_silent_core_makes_control_unknown_and_nothing_old_looks_alive() {
    // HO-V-002
    let limit = local().config.status_age;
    let at = |us| Model::new(&remote(), &Around::default(), NOW.plus(us));
    assert_eq!(at(limit).control, Control::Remote);
    let late = at(limit + 1);
    assert_eq!((late.control, late.word), (Control::Unknown, "UNKNOWN"));
    assert_eq!((late.motion, late.countdown), (None, None));
    assert!(late.gates.iter().all(|g| g.word == "OLD" && g.figure == "-"));
    assert!(late.detail.starts_with("Hands off. Use the device's hardware override. It last said REMOTE"));
    let never = Model::new(&View { at: Micros(0), ..local() }, &Around::default(), NOW);
    assert!(never.detail.ends_with("nothing yet."), "{}", never.detail);
}

#[test]
fn motion_is_told_with_all_its_causes() {
    assert_eq!(model(&remote()).motion.unwrap().text, "MOTION RUNS");
    let stopped = Some(Causes(Causes::WAITING.0));
    let motion = model(&View { stopped, ..remote() }).motion.unwrap();
    assert_eq!((motion.runs, motion.text.as_str()), (false, "MOTION STOPPED: waiting for the re-clutch"));
    assert_eq!(model(&local()).motion, None);
}

#[test]
fn take_is_possible_everywhere_but_after_an_emergency_stop_and_the_end() {
    for view in [local(), hold(), remote(), ready(), open(Mode::Granting)] {
        assert_eq!(act(&model(&view), ActName::Take).not, None);
    }
    for mode in [Mode::Estop, Mode::Closed] {
        assert!(act(&model(&View { mode, ..local() }), ActName::Take).not.is_some());
        assert_eq!(act(&model(&View { mode, ..local() }), ActName::Estop).not, None);
    }
}

#[test]
fn the_act_that_the_state_waits_for_is_marked() {
    assert_eq!(next(&model(&hold())), Some(ActName::Take));
    assert_eq!(next(&model(&View { mode: Mode::Estop, ..local() })), Some(ActName::Reset));
    assert_eq!(next(&model(&ready())), Some(ActName::Confirm));
    assert_eq!(next(&model(&open(Mode::Ready))), None, "while the link is measured");
    let amber = View { colours: Colours { loss: Colour::Amber, ..Colours::GREEN }, ..ready() };
    assert_eq!(next(&model(&amber)), Some(ActName::Confirm));
    // HO-G-026
    assert!(act(&model(&amber), ActName::ConfirmAmber).not.is_some());
    let told = View { answered: Some((Act::Confirm, Err(Reason::LinkAmber))), ..amber };
    assert_eq!(next(&model(&told)), Some(ActName::ConfirmAmber));
    assert_eq!(next(&model(&local())), None);
}

#[test]
fn an_expert_stands_once_and_only_sets_within_the_grade_can_be_offered() {
    let mut view = local();
    let second_tunnel = Connected { channel: ChannelId(8), ..view.connected[0].clone() };
    view.connected.push(second_tunnel);
    let who = Who { person: None, role: None, grade: None, ..fixture::who(7, "", Role::Expert, Grade::Energy) };
    view.connected.push(Connected { channel: ChannelId(7), who, is_signaling: false });
    let signaling = fixture::who(6, "signaling", Role::Expert, Grade::Energy);
    view.connected.push(Connected { channel: ChannelId(6), who: signaling, is_signaling: true });
    let model = model(&view);
    let names: Vec<_> = model.experts.iter().map(|e| (e.name.as_str(), e.not, e.sets.len())).collect();
    assert_eq!(
        names,
        [
            ("Dr. Berg", None, 1),
            ("Dr. Ito", None, 5),
            ("Trainee", Some("not an expert"), 0),
            ("station-7", Some("no HELLO yet"), 0)
        ]
    );
}

#[test]
fn the_device_says_whether_it_does_what_the_register_says() {
    let line = |report| model(&View { device: Some((report, NOW)), ..local() }).device;
    assert!(line(fixture::report(Selection::Local)).good);
    let other = line(fixture::report(Selection::Nobody));
    assert_eq!(
        (other.good, other.text.as_str()),
        (false, "DEVICE: obeys nobody, fence 17 - NOT YET what the register says")
    );
    let latched =
        trocar_proto::handover::gate::DeviceReport { latched: true, owner: None, ..fixture::report(Selection::Local) };
    assert!(line(latched).text.contains("LATCHED") && line(latched).text.contains("NO GATE'S KEEP-ALIVE"));
    let silent = Model::new(&View { at: NOW.plus(3_000_000), ..local() }, &Around::default(), NOW.plus(3_000_000));
    assert_eq!(silent.device, Line { good: false, text: "DEVICE: silent for 3 s".to_owned() });
}

#[test]
fn news_are_attributed_and_harmless() {
    let request = Notice::Request { channel: ChannelId(2), set: GrantedSet::CAMERA, reason: text("\u{202e}look") };
    let lost = Notice::Request { channel: ChannelId(99), set: GrantedSet::CAMERA, reason: text("me") };
    let stop = Notice::Estop { person: text("Mallory\n"), reason: text("!") };
    let view = View { notices: vec![(Micros(90_000_000), request), (NOW, lost), (NOW, stop)], ..local() };
    let news = model(&view).news;
    let texts: Vec<_> = news.iter().map(|n| n.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "STOP by Mallory\u{fffd}: !",
            "somebody who left ASKS for camera: me",
            "Dr. Berg ASKS for camera: \u{fffd}look"
        ]
    );
    assert_eq!((news[2].ago.as_str(), news[0].mute.as_deref()), ("10 s ago", Some("Mallory\u{fffd}")));
}

#[test]
fn a_long_name_leaves_room_for_what_is_held() {
    let mut view = remote();
    view.expert = Some(fixture::who(1, &"x".repeat(128), Role::Expert, Grade::Energy));
    view.set = GrantedSet { camera: true, instruments: true, energy: true };
    let headline = model(&view).headline;
    assert!(headline.ends_with("holds camera + instruments + energy") && headline.len() < 80, "{headline}");
}

#[test]
fn each_state_has_a_stamp_of_its_own() {
    let stamps = [local(), remote(), hold(), View { since: NOW, ..local() }].map(|v| model(&v).stamp);
    assert!(stamps.iter().all(|s| stamps.iter().filter(|t| *t == s).count() == 1), "{stamps:?}");
    assert_eq!(model(&View { alarms: Alarms::LINK, ..local() }).stamp, model(&local()).stamp);
}
