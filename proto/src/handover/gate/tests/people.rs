//! Section 5.2: who may say what.

use crate::handover::gate::{Act, Alarms, Input, Notice, Output, Peer, Verified, Why};
use crate::handover::message::{Mode, Reason, ToGate, Token};
use crate::handover::rig::{CS, CX, CY, Rig, X, Y, hello, ms, short, token};
use crate::handover::types::{ChannelId, GrantedSet, Nonce, Oid};
use crate::session::role::{Grade, Role};

fn accept(oid: u128) -> ToGate {
    ToGate::Accept { oid: Oid(oid), token: Token::default() }
}

fn estop(person: Option<&str>) -> ToGate {
    ToGate::Estop { person: person.map(short), reason: short("stop") }
}

#[test]
fn before_hello_nothing_counts() {
    // HO-M-002
    let mut rig = Rig::at(Mode::Remote);
    let stranger = ChannelId(9);
    rig.input(Input::Opened { channel: stranger, peer: Peer::Station(X) }).unwrap();
    for message in
        [accept(1), estop(None), ToGate::Return { epoch: rig.gate.epoch() }, ToGate::Probe { nonce: Nonce(1) }]
    {
        assert_eq!(rig.say(stranger, message), Err(Reason::NoHello));
        assert_eq!(rig.nacks(), [Reason::NoHello]);
    }
    assert_eq!(rig.say(ChannelId(10), estop(None)), Err(Reason::NoHello));
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn a_hello_with_anothers_token_is_refused() {
    // HO-M-001, HO-M-002
    let mut rig = Rig::new();
    let channel = ChannelId(9);
    rig.input(Input::Opened { channel, peer: Peer::Station(X) }).unwrap();
    assert_eq!(rig.say_with(channel, hello(), Some(token(Y))), Err(Reason::BadToken));
    assert_eq!(rig.say_with(channel, hello(), None), Err(Reason::BadToken));
    assert_eq!(rig.say_with(channel, hello(), Some(token(X))), Ok(()));
}

#[test]
fn accept_counts_only_with_the_open_oid_from_the_addressee_with_a_good_token() {
    // HO-M-003, HO-M-004, HO-M-005, HO-M-001, HO-I-011
    let mut rig = Rig::at(Mode::Offered);
    assert_eq!(rig.say_with(CX, accept(2), Some(token(X))), Err(Reason::NoSuchOffer));
    assert_eq!(rig.say_with(CY, accept(1), Some(token(Y))), Err(Reason::NotTheAddressee));
    assert_eq!(rig.say_with(CY, accept(1), Some(token(X))), Err(Reason::NotTheAddressee));
    assert_eq!(rig.say_with(CS, accept(1), Some(token(X))), Err(Reason::NotAStation));
    assert_eq!(rig.say_with(CX, accept(1), None), Err(Reason::BadToken));
    assert_eq!(rig.say_with(CX, accept(1), Some(token(Y))), Err(Reason::BadToken));
    let low = Verified { grade: Grade::Instruments, ..token(X) };
    assert_eq!(rig.say_with(CX, accept(1), Some(low)), Err(Reason::GradeTooLow));
    let observer = Verified { role: Role::Observer, ..token(X) };
    assert_eq!(rig.say_with(CX, accept(1), Some(observer)), Err(Reason::NotAStation));
    assert_eq!(rig.gate.mode(), Mode::Offered);
    assert_eq!(rig.say_with(CX, accept(1), Some(token(X))), Ok(()));
}

#[test]
fn an_oid_is_accepted_once() {
    // HO-M-006
    let mut rig = Rig::at(Mode::Ready);
    assert_eq!(rig.say_with(CX, accept(1), Some(token(X))), Err(Reason::NoSuchOffer));
    rig.act(Act::Withdraw).unwrap();
    assert_eq!(rig.say_with(CX, accept(1), Some(token(X))), Err(Reason::NoSuchOffer));
    assert_eq!(rig.gate.mode(), Mode::Local);
}

#[test]
fn an_offer_needs_a_connected_station_of_an_expert_whose_grade_covers_it_and_consent() {
    // HO-M-007, HO-M-009
    let mut rig = Rig::at(Mode::Local);
    let stranger = crate::handover::types::ExpertId([9; 32]);
    assert_eq!(rig.offer(stranger, GrantedSet::CAMERA), Err(Reason::NotConnected));
    let low = Verified { grade: Grade::Camera, ..token(X) };
    rig.say_with(CX, hello(), Some(low)).unwrap();
    assert_eq!(rig.offer(X, GrantedSet::INSTRUMENTS), Err(Reason::GradeTooLow));
    let observer = Verified { role: Role::Observer, ..token(X) };
    rig.say_with(CX, hello(), Some(observer)).unwrap();
    assert_eq!(rig.offer(X, GrantedSet::CAMERA), Err(Reason::NotAStation));
    rig.input(Input::Consent(false)).unwrap();
    assert_eq!(rig.offer(Y, GrantedSet::CAMERA), Err(Reason::NoConsent));
    rig.input(Input::Consent(true)).unwrap();
    assert_eq!(rig.offer(Y, GrantedSet::CAMERA), Ok(()));
}

#[test]
fn a_request_is_shown_and_changes_nothing() {
    // HO-M-008, HO-M-010
    for mode in [Mode::Hold, Mode::Local, Mode::Remote, Mode::Estop] {
        for channel in [CX, CS] {
            let mut rig = Rig::at(mode);
            let request = ToGate::Request { set: GrantedSet::ENERGY, grade: Grade::Energy, reason: short("please") };
            rig.say(channel, request).unwrap();
            assert_eq!(rig.gate.mode(), mode);
            assert!(rig.outs.iter().any(|o| matches!(o, Output::Show(Notice::Request { .. }))));
        }
    }
}

#[test]
fn estop_from_the_network_ends_what_is_held_or_open_and_never_freezes_the_surgeon() {
    // HO-M-015, HO-M-016
    for (mode, after) in [
        (Mode::Hold, Mode::Hold),
        (Mode::Local, Mode::Local),
        (Mode::Offered, Mode::Local),
        (Mode::Ready, Mode::Local),
        (Mode::Granting, Mode::Local),
        (Mode::Remote, Mode::Hold),
        (Mode::Estop, Mode::Estop),
        (Mode::Closed, Mode::Closed),
    ] {
        let mut rig = Rig::at(mode);
        rig.say(CY, estop(None)).unwrap();
        assert_eq!(rig.gate.mode(), after, "{mode:?}");
        assert!(rig.outs.iter().any(|o| matches!(o, Output::Show(Notice::Estop { .. }))));
    }
}

#[test]
fn estop_is_attributed_to_the_person_and_counted_once_in_ten_seconds() {
    // HO-M-017, HO-M-018, HO-X-021
    let mut rig = Rig::at(Mode::Remote);
    rig.say(CS, estop(Some("nurse"))).unwrap();
    assert_eq!((rig.gate.mode(), rig.records()[0].note.clone()), (Mode::Hold, Some(short("nurse"))));
    rig.reach(Mode::Remote, GrantedSet::CAMERA);
    assert_eq!(rig.say(CS, estop(Some("nurse"))), Err(Reason::EstopLimited));
    assert_eq!(rig.gate.mode(), Mode::Remote);
    rig.say(CY, estop(Some("nurse"))).unwrap();
    let person = rig
        .outs
        .iter()
        .find_map(|o| if let Output::Show(Notice::Estop { person, .. }) = o { Some(person.clone()) } else { None });
    assert_eq!(person, Some(short("y [0202020202020202]")), "a station speaks for itself");
    // Under another name it is the same certificate.
    let again = Verified { person: short("z"), ..token(Y) };
    rig.say_with(CY, hello(), Some(again)).unwrap();
    assert_eq!(rig.say(CY, estop(None)), Err(Reason::EstopLimited));
    rig.act(Act::Mute(short("x [0101010101010101]"))).unwrap();
    assert_eq!(rig.say(CX, estop(None)), Err(Reason::EstopLimited));
}

#[test]
fn an_expired_token_neither_drops_nor_blinds_a_holder() {
    // HO-M-019
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.world.commands = true;
    rig.world.clutch = crate::handover::types::Clutch::Closed;
    assert_eq!(rig.say_with(CX, hello(), None), Err(Reason::BadToken));
    rig.run(ms(3_000));
    assert!(rig.gate.motion_runs());
}

#[test]
fn return_and_decline_of_another_count_for_nothing() {
    // HO-M-020, HO-M-001
    let mut rig = Rig::at(Mode::Remote);
    let epoch = rig.gate.epoch();
    assert_eq!(rig.say(CY, ToGate::Return { epoch }), Err(Reason::NotTheHolder));
    assert_eq!(rig.say(CY, ToGate::Decline { oid: Oid(1), reason: short("") }), Err(Reason::NotTheAddressee));
    assert_eq!(rig.gate.mode(), Mode::Remote);
}

#[test]
fn a_revoked_certificate_ends_remote_with_an_alarm_and_closes_its_channels() {
    // HO-M-021, HO-X-024
    let mut rig = Rig::at(Mode::Remote);
    rig.input(Input::Revoked(Y)).unwrap();
    assert_eq!(rig.gate.mode(), Mode::Remote);
    assert!(rig.outs.contains(&Output::Close(CY)));
    rig.input(Input::Revoked(X)).unwrap();
    assert_eq!((rig.gate.mode(), rig.records()[0].why), (Mode::Hold, Why::Revoked));
    assert!(rig.gate.alarms().has(Alarms::REVOKED));
    assert!(rig.outs.contains(&Output::Close(CX)));
    assert_eq!(rig.say(CX, estop(None)), Err(Reason::NoHello));
}

#[test]
fn the_loss_of_the_channel_does_not_end_remote_and_its_keys_stay_good() {
    // HO-M-022, HO-P-004
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.world.commands = true;
    rig.world.clutch = crate::handover::types::Clutch::Closed;
    rig.input(Input::Gone(CX)).unwrap();
    rig.run(ms(2_000));
    assert!(rig.gate.motion_runs());
}

#[test]
fn an_expert_that_comes_back_by_a_new_channel_is_an_observer() {
    // HO-I-010, HO-X-008, HO-P-004
    let mut rig = Rig::at(Mode::Remote);
    rig.run(ms(40));
    let back = ChannelId(9);
    rig.input(Input::Opened { channel: back, peer: Peer::Station(X) }).unwrap();
    rig.say_with(back, hello(), Some(token(X))).unwrap();
    let hb = rig.hb();
    assert_eq!(rig.input(Input::Heartbeat(back, hb)), Err(Reason::WrongChannel));
}

#[test]
fn status_goes_to_all_ten_times_a_second_and_on_change_and_answers_each_ones_own_probes() {
    // HO-M-012, HO-M-013
    let mut rig = Rig::at(Mode::Local);
    rig.run(ms(1_000));
    for channel in [CX, CY, CS] {
        assert_eq!(rig.statuses().iter().filter(|(c, _)| *c == channel).count(), 10);
    }
    rig.say(CX, ToGate::Probe { nonce: Nonce(5) }).unwrap();
    rig.say(CY, ToGate::Probe { nonce: Nonce(6) }).unwrap();
    rig.act(Act::Estop).unwrap();
    let told: Vec<_> = rig.statuses().iter().map(|(c, s)| (*c, s.mode, s.answers.clone())).collect();
    let stop = Mode::Estop;
    assert_eq!(told, [(CX, stop, vec![Nonce(5)]), (CY, stop, vec![Nonce(6)]), (CS, stop, vec![])]);
    rig.run(ms(100));
    assert!(rig.statuses().iter().all(|(_, s)| s.answers.is_empty()));
}

#[test]
fn a_refused_message_is_answered_with_the_reason_and_the_epoch() {
    // HO-M-014
    let mut rig = Rig::at(Mode::Local);
    assert!(rig.say_with(CX, accept(7), Some(token(X))).is_err());
    let epoch = rig.gate.epoch();
    let nack = crate::handover::message::FromGate::Nack { reason: Reason::NoSuchOffer, epoch };
    assert_eq!(rig.sent(), [(CX, &nack)]);
}

#[test]
fn consent_that_ends_while_remote_is_told_and_does_not_drop_the_holder() {
    // HO-U-003, HO-X-017
    let mut rig = Rig::at(Mode::Remote);
    rig.engage();
    rig.input(Input::Consent(false)).unwrap();
    assert!(rig.outs.contains(&Output::Show(Notice::ConsentEnded)));
    assert!(rig.gate.motion_runs() && rig.gate.alarms().has(Alarms::CONSENT));
    rig.act(Act::Take).unwrap();
    assert_eq!(rig.offer(X, GrantedSet::CAMERA), Err(Reason::NoConsent));
}

#[test]
fn a_seventeenth_channel_is_refused_by_the_gate() {
    // HO-M-023
    let mut rig = Rig::new();
    let open = |n| Input::Opened { channel: ChannelId(n), peer: Peer::Signaling };
    assert!((10..23).all(|n| rig.input(open(n)).is_ok()));
    assert_eq!(rig.input(open(23)), Err(Reason::Full));
}

#[test]
fn of_two_experts_who_accept_at_once_the_addressee_alone_is_ready() {
    // HO-X-012, HO-I-011
    for first in [CX, CY] {
        let mut rig = Rig::at(Mode::Offered);
        for channel in [first, if first == CX { CY } else { CX }] {
            let whose = if channel == CX { X } else { Y };
            let _ = rig.say_with(channel, accept(1), Some(token(whose)));
        }
        assert_eq!((rig.gate.mode(), rig.gate.offer().map(|o| o.expert)), (Mode::Ready, Some(X)));
    }
}
