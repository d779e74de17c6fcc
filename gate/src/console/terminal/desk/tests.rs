//! What keys do, one after another.

use super::*;
use crate::console::fixture::{self, local, open, ready, remote, text};
use crate::core::View;
use trocar_proto::handover::gate::{Alarms, Notice};
use trocar_proto::handover::message::{Mode, Reason};
use trocar_proto::handover::types::{Colour, Colours, ExpertId};
use trocar_proto::units::Micros;

const ACT_TAKE: Option<Do> = Some(Do::Act(Act::Take));
const ACT_ESTOP: Option<Do> = Some(Do::Act(Act::Estop));

/// A desk, the screen in front of it, and a clock that goes on by 200 ms with each key.
struct Surgeon {
    desk: Desk,
    model: Model,
    now: Micros,
    earnest: bool,
}

impl Surgeon {
    fn at(view: &View) -> Self {
        Self { desk: Desk::default(), model: fixture::model(view), now: Micros(0), earnest: true }
    }

    fn key(&mut self, key: Key) -> Option<Do> {
        self.key_after(200_000, key)
    }

    fn key_after(&mut self, pause: u64, key: Key) -> Option<Do> {
        self.now = self.now.plus(pause);
        self.desk.handle(key, &self.model, When { now: self.now, earnest: self.earnest })
    }

    fn keys(&mut self, keys: &str) -> Option<Do> {
        keys.chars().map(|c| self.key(if c == '\n' { Key::Enter } else { Key::Char(c) })).last().flatten()
    }
}

#[test]
fn take_and_estop_work_in_every_state_form_and_haste() {
    for view in [local(), open(Mode::Offered), ready(), open(Mode::Granting), remote(), fixture::hold()] {
        for before in ["", "o", "o1", "l", "m", "n", "x"] {
            for earnest in [true, false] {
                let mut surgeon = Surgeon::at(&view);
                surgeon.keys(before);
                surgeon.earnest = earnest;
                for take in [Key::Char(' '), Key::Char('t'), Key::Char('T'), Key::Function(1)] {
                    assert_eq!(surgeon.key(take), ACT_TAKE, "{take:?} after {before:?}");
                }
                for stop in [Key::Char('e'), Key::Char('E'), Key::Function(2)] {
                    assert_eq!(surgeon.key(stop), ACT_ESTOP, "{stop:?} after {before:?}");
                }
                surgeon.key(Key::Esc);
                assert_eq!(surgeon.key(Key::Esc), ACT_ESTOP, "Esc Esc after {before:?}");
            }
        }
    }
}

#[test]
fn while_a_step_is_typed_letters_are_letters_and_take_and_estop_work_all_the_same() {
    let typing = || {
        let mut surgeon = Surgeon::at(&local());
        assert_eq!(surgeon.keys("o11set "), None);
        assert!(matches!(&surgeon.desk.form, Form::Step(_, _, text) if text == "set "), "{:?}", surgeon.desk.form);
        surgeon
    };
    assert_eq!(typing().key(Key::Function(1)), ACT_TAKE);
    assert_eq!(typing().key(Key::Ctrl('t')), ACT_TAKE);
    assert_eq!(typing().key(Key::Char(' ')), ACT_TAKE, "a second blank");
    assert_eq!(typing().key(Key::Function(2)), ACT_ESTOP);
    assert_eq!(typing().key(Key::Ctrl('e')), ACT_ESTOP);
    let mut surgeon = typing();
    assert_eq!((surgeon.key(Key::Esc), surgeon.desk.form.clone()), (None, Form::None));
    assert_eq!(surgeon.key(Key::Esc), ACT_ESTOP);
    let mut surgeon = Surgeon::at(&local());
    surgeon.keys("o11");
    assert_eq!(surgeon.key(Key::Char(' ')), ACT_TAKE, "a step begins with no blank");
}

#[test]
fn two_esc_are_estop_only_one_after_the_other_and_soon() {
    let mut surgeon = Surgeon::at(&remote());
    surgeon.key(Key::Esc);
    assert_eq!(surgeon.key_after(ESC_ESC + 1, Key::Esc), None);
    surgeon.key(Key::Char('q'));
    assert_eq!(surgeon.key(Key::Esc), None);
    surgeon.key(Key::Present);
    assert_eq!(surgeon.key(Key::Esc), ACT_ESTOP, "the terminal's own word is no key");
}

#[test]
fn an_offer_names_the_expert_of_the_list_that_was_read() {
    let mut surgeon = Surgeon::at(&local());
    surgeon.keys("o");
    // Somebody else comes, whose name stands first now.
    let mut view = local();
    view.connected.insert(
        0,
        crate::core::Connected {
            channel: trocar_proto::handover::types::ChannelId(9),
            who: fixture::who(
                9,
                "Aaron",
                trocar_proto::session::role::Role::Expert,
                trocar_proto::session::role::Grade::Energy,
            ),
            is_signaling: false,
        },
    );
    surgeon.model = fixture::model(&view);
    // 1 Dr. Berg, 2 Dr. Ito; 4 is instruments + energy.
    let offer = surgeon.keys("24dissection\n");
    let (expert, set, step) = (ExpertId([1; 32]), GrantedSet::ENERGY, text("dissection"));
    assert_eq!(offer, Some(Do::Act(Act::Offer { oid: Oid(0), expert, set, step })));
    assert_eq!(surgeon.desk.form, Form::None);
}

#[test]
fn nobody_who_left_and_no_set_beyond_the_grade_is_offered() {
    let mut surgeon = Surgeon::at(&local());
    surgeon.keys("o12");
    // Dr. Berg may hold the camera alone: there is no number 2.
    assert!(matches!(&surgeon.desk.form, Form::Set(e) if e.name == "Dr. Berg"));
    surgeon.key(Key::Esc);
    surgeon.keys("o");
    surgeon.model = fixture::model(&View { connected: Vec::new(), ..local() });
    surgeon.keys("1");
    assert_eq!(surgeon.desk.said, Some((false, "Dr. Berg has left".to_owned())));
}

#[test]
fn an_offer_under_way_is_dropped_when_the_register_leaves_local() {
    let mut surgeon = Surgeon::at(&local());
    surgeon.keys("o11abc");
    surgeon.desk.see(&fixture::model(&View { at: Micros(0), ..local() }));
    assert!(matches!(surgeon.desk.form, Form::Step(..)), "LOCAL still");
    surgeon.desk.see(&fixture::model(&fixture::hold()));
    assert_eq!(surgeon.desk.form, Form::None);
}

#[test]
fn a_paste_a_backlog_or_a_state_that_was_not_seen_confirms_nothing() {
    let mut surgeon = Surgeon::at(&ready());
    surgeon.earnest = false;
    for key in ['c', 'a', 'w', 'r', 'o', 'x', 'n', 'm'] {
        assert_eq!(surgeon.key(Key::Char(key)), None);
        assert!(surgeon.desk.said.as_ref().unwrap().1.contains("did not count"));
    }
    surgeon.earnest = true;
    assert_eq!(surgeon.keys("c"), Some(Do::Act(Act::Confirm)));
}

#[test]
fn the_second_confirmation_is_another_key_and_only_after_the_first_was_answered_with_amber() {
    // HO-G-026
    let amber = View { colours: Colours { jitter: Colour::Amber, ..Colours::GREEN }, ..ready() };
    let mut surgeon = Surgeon::at(&amber);
    assert_eq!(surgeon.keys("a"), None);
    assert_eq!(surgeon.desk.said, Some((false, "CONFIRM AMBER not now: CONFIRM first".to_owned())));
    assert_eq!(surgeon.keys("c"), Some(Do::Act(Act::Confirm)));
    surgeon.model = fixture::model(&View { answered: Some((Act::Confirm, Err(Reason::LinkAmber))), ..amber });
    assert_eq!(surgeon.keys("a"), Some(Do::Act(Act::ConfirmAmber)));
}

#[test]
fn close_wants_x_twice_and_a_held_key_closes_nothing() {
    let mut surgeon = Surgeon::at(&local());
    // Held: the first repetition after half a second, then 30 per second.
    assert_eq!(surgeon.keys("x"), None);
    assert_eq!(surgeon.key_after(500_000, Key::Char('x')), None);
    for _ in 0..300 {
        assert_eq!(surgeon.key_after(33_000, Key::Char('x')), None);
    }
    // Another key in between begins anew.
    surgeon.key_after(7_000_000, Key::Char('x'));
    surgeon.keys("l");
    assert_eq!(surgeon.key_after(1_500_000, Key::Char('x')), None);
    assert_eq!(surgeon.key_after(1_500_000, Key::Char('x')), Some(Do::Act(Act::Close)));
    // HO-G-018
    assert_eq!(Surgeon::at(&remote()).keys("x"), None);
}

#[test]
fn what_is_not_possible_is_answered_with_its_reason_and_not_sent() {
    for (view, key, why) in [
        (remote(), "o", "OFFER not now: TAKE first"),
        (local(), "c", "CONFIRM not now: no expert is ready"),
        (open(Mode::Ready), "c", "CONFIRM not now: link gates are being measured"),
        (local(), "w", "WITHDRAW not now: no offer is open"),
        (local(), "r", "RESET not now: no emergency stop is latched"),
        (local(), "m", "MUTE not now: nobody pressed STOP"),
        (View { alarms: Alarms::CONSENT, ..local() }, "o", "OFFER not now: consent is not active"),
    ] {
        let mut surgeon = Surgeon::at(&view);
        assert_eq!(surgeon.keys(key), None);
        assert_eq!(surgeon.desk.said, Some((false, why.to_owned())));
    }
}

#[test]
fn a_person_is_muted_by_number() {
    let stop = |person| (fixture::NOW, Notice::Estop { person: text(person), reason: text("!") });
    let notices = vec![stop("Mallory"), stop("Dr. Berg"), stop("Mallory")];
    let mut surgeon = Surgeon::at(&View { notices, ..local() });
    assert_eq!(surgeon.keys("m2"), Some(Do::Act(Act::Mute(text("Dr. Berg")))));
    assert_eq!(surgeon.keys("m1"), Some(Do::Act(Act::Mute(text("Mallory")))));
    assert_eq!(surgeon.keys("m3"), None);
}

#[test]
fn a_step_of_any_length_stays_within_its_bound() {
    let mut surgeon = Surgeon::at(&local());
    surgeon.keys("o11");
    for _ in 0..500 {
        surgeon.key(Key::Char('藤'));
    }
    let Some(Do::Act(Act::Offer { step, .. })) = surgeon.key(Key::Enter) else { panic!("no offer") };
    assert_eq!(step.as_str().len(), 126);
}

#[test]
fn consent_is_withdrawn_by_a_second_n_after_a_second_in_remote_too_and_an_x_between_is_none() {
    for view in [local(), remote()] {
        let mut surgeon = Surgeon::at(&view);
        assert_eq!(surgeon.keys("n"), None);
        assert!(surgeon.desk.said.as_ref().is_some_and(|(good, text)| !good && text.contains("N again")));
        assert_eq!(surgeon.key_after(33_000, Key::Char('n')), None, "a held key");
        assert_eq!(surgeon.key_after(1_500_000, Key::Char('n')), Some(Do::WithdrawConsent));
    }
    let mut surgeon = Surgeon::at(&local());
    surgeon.keys("n");
    assert_eq!(surgeon.key_after(1_500_000, Key::Char('x')), None);
    assert_eq!(surgeon.key_after(1_500_000, Key::Char('n')), None);
    let mut surgeon = Surgeon::at(&View { alarms: Alarms::CONSENT, ..local() });
    surgeon.keys("n");
    assert!(surgeon.desk.said.is_some_and(|(_, text)| text.contains("consent is not active")));
}
