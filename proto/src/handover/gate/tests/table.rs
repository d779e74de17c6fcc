//! Every state with every input: where it leads, and what may never come out. A row that is not in [`expected`] leaves the state.

use crate::handover::gate::{Act, DeviceAct, DiskDone, Input, Output};
use crate::handover::message::{Figures, FromGate, Mode, ToGate, Token};
use crate::handover::rig::{CS, CX, CY, Rig, X, hello, ms, short, token};
use crate::handover::types::{ChannelId, Clutch, Colour, Colours, Epoch, GrantedSet, Nonce, Oid, Selection};
use crate::session::role::Grade;

const MODES: [Mode; 8] =
    [Mode::Hold, Mode::Local, Mode::Offered, Mode::Ready, Mode::Granting, Mode::Remote, Mode::Estop, Mode::Closed];

/// The inputs, each with a name; made for the state that the rig is in.
fn inputs(rig: &mut Rig) -> Vec<(&'static str, Input)> {
    let (oid, epoch) = (Oid(rig.oid.max(1)), rig.gate.epoch());
    let say = |channel: ChannelId, message: ToGate| Input::Message { channel, message, token: Some(token(X)) };
    let accept = ToGate::Accept { oid, token: Token::default() };
    let decline = ToGate::Decline { oid, reason: short("") };
    let estop = ToGate::Estop { person: None, reason: short("") };
    let request = ToGate::Request { set: GrantedSet::CAMERA, grade: Grade::Camera, reason: short("") };
    let offer = Act::Offer { oid: Oid(500), expert: X, set: GrantedSet::CAMERA, step: short("") };
    let red = Colours { loss: Colour::Red, ..Colours::GREEN };
    let (hb, cmd) = (rig.hb(), rig.cmd(Clutch::Closed));
    vec![
        ("tick", Input::Tick { nonce: Nonce(1) }),
        ("console", Input::Console),
        ("offer", Input::Local(offer)),
        ("withdraw", Input::Local(Act::Withdraw)),
        ("confirm", Input::Local(Act::Confirm)),
        ("confirm amber", Input::Local(Act::ConfirmAmber)),
        ("take", Input::Local(Act::Take)),
        ("estop", Input::Local(Act::Estop)),
        ("reset", Input::Local(Act::Reset)),
        ("close", Input::Local(Act::Close)),
        ("mute", Input::Local(Act::Mute(short("p")))),
        ("hello", say(CX, hello())),
        ("probe", say(CX, ToGate::Probe { nonce: Nonce(2) })),
        ("request", say(CX, request.clone())),
        ("request by browser", say(CS, request)),
        ("accept", say(CX, accept.clone())),
        ("accept by another", say(CY, accept.clone())),
        ("accept by browser", say(CS, accept)),
        ("decline", say(CX, decline.clone())),
        ("decline by another", say(CY, decline)),
        ("return", say(CX, ToGate::Return { epoch })),
        ("return by another", say(CY, ToGate::Return { epoch })),
        ("network estop", say(CY, estop)),
        ("hb", Input::Heartbeat(CX, hb.clone())),
        ("hb of another", Input::Heartbeat(CY, hb)),
        ("cmd", Input::Command(CX, cmd.clone())),
        ("cmd of another", Input::Command(CY, cmd)),
        ("durable", Input::Disk(DiskDone::Durable(oid, Epoch(epoch.0 + 1)))),
        ("durable, stale", Input::Disk(DiskDone::Durable(oid, epoch))),
        ("failed", Input::Disk(DiskDone::Failed(oid, Epoch(epoch.0 + 1)))),
        ("reserved", Input::Disk(DiskDone::Reserved(Epoch(99)))),
        ("red", Input::Links(oid, red, Figures::default())),
        ("green", Input::Links(oid, Colours::GREEN, Figures::default())),
        ("consent ends", Input::Consent(false)),
        ("consent", Input::Consent(true)),
        ("revoked", Input::Revoked(X)),
        ("camera moved", Input::CameraMoved),
        ("gone", Input::Gone(CX)),
        ("device", Input::Device(rig.fence.report())),
    ]
}

/// The table of HANDOVER.md section 2.
fn expected(mode: Mode, input: &str) -> Mode {
    use Mode::{Closed, Estop, Granting, Hold, Local, Offered, Ready, Remote};
    match (mode, input) {
        (Closed, _) => Closed,
        (_, "estop") => Estop,
        (Estop, "reset") => Hold,
        (Hold | Local | Estop, "close") => Closed,
        (Hold | Offered | Ready | Granting | Remote, "take") => Local,
        (Local, "offer") => Offered,
        (Offered, "accept") => Ready,
        (Ready, "confirm") => Granting,
        (Granting, "durable") => Remote,
        (Offered | Ready | Granting, "withdraw" | "decline" | "network estop" | "consent ends" | "revoked") => Local,
        (Ready | Granting, "red") => Local,
        (Granting, "failed") => Local,
        (Remote, "return" | "decline" | "network estop" | "revoked") => Hold,
        _ => mode,
    }
}

#[test]
fn every_state_with_every_input_leads_where_the_table_says_and_nothing_forbidden_comes_out() {
    // HO-G-003, HO-G-005, HO-G-006, HO-G-007, HO-G-008, HO-G-009, HO-G-010, HO-G-011, HO-G-012, HO-G-013, HO-G-015, HO-G-016,
    // HO-G-017, HO-G-018, HO-G-019, HO-G-020, HO-G-022, HO-G-023, HO-M-010, HO-I-009, HO-E-002
    let mut walked = 0;
    for mode in MODES {
        let count = inputs(&mut Rig::at(mode)).len();
        for which in 0..count {
            let mut rig = Rig::at(mode);
            rig.world.disk = false;
            rig.world.presence = true;
            let (name, input) = inputs(&mut rig).swap_remove(which);
            let before = rig.gate.epoch();
            let _ = rig.input(input);
            let after = rig.gate.mode();
            assert_eq!(after, expected(mode, name), "{mode:?} × {name}");
            let crossed = (mode == Mode::Remote) != (after == Mode::Remote);
            assert_eq!(rig.gate.epoch().0, before.0 + u64::from(crossed), "{mode:?} × {name}: epoch");
            forbidden(&rig, mode, name);
            walked += 1;
        }
    }
    assert_eq!(walked, 8 * 39);
}

/// What may not come out, whatever went in.
fn forbidden(rig: &Rig, mode: Mode, name: &str) {
    let case = format!("{mode:?} × {name}");
    let after = rig.gate.mode();
    let obeys = match after {
        Mode::Remote => Selection::Remote,
        Mode::Local | Mode::Offered | Mode::Ready | Mode::Granting => Selection::Local,
        _ => Selection::Nobody,
    };
    assert_eq!(rig.fence.selected(), obeys, "{case}: the device obeys somebody else");
    assert_eq!(rig.refused_by_device, [], "{case}");
    for out in &rig.outs {
        match out {
            Output::Device(DeviceAct::Command { .. }) => panic!("{case}: motion without a re-clutch"),
            Output::Device(DeviceAct::Select { to: Selection::Remote, .. }) => {
                assert_eq!((mode, name), (Mode::Granting, "durable"), "{case}");
            }
            Output::Send(_, FromGate::Grant { .. }) => assert_eq!(name, "durable", "{case}"),
            Output::Send(channel, FromGate::Offer { .. }) => assert_eq!((name, *channel), ("offer", CX)),
            Output::Send(_, FromGate::Status(status)) => assert_eq!(status.epoch, rig.gate.epoch(), "{case}"),
            _ => {}
        }
    }
}

#[test]
fn time_alone_never_leads_towards_remote() {
    // HO-I-009, HO-I-017
    for mode in MODES {
        let mut rig = Rig::at(mode);
        rig.world.disk = false;
        rig.run(ms(62_000));
        let after = match mode {
            Mode::Hold | Mode::Remote => Mode::Hold,
            Mode::Local | Mode::Offered | Mode::Ready | Mode::Granting => Mode::Local,
            Mode::Estop => Mode::Estop,
            Mode::Closed => Mode::Closed,
        };
        assert_eq!(rig.gate.mode(), after, "{mode:?}");
    }
}
