//! A counter-example in words: numbered steps, and what came of each.

use crate::acts::Act;
use crate::handover::checks::Checks;
use crate::handover::message::{Datagram, FromGate, ToGate};
use crate::handover::types::{Colour, GrantedSet};
use crate::parts::{Log, Sealed, Video};
use crate::scopes::Scope;
use crate::truth::meaning;
use crate::world::World;
use std::fmt::Write;

/// Tells how a property was broken. Ticks in a row are one step.
#[must_use]
pub fn tell<C: Checks>(scope: &Scope, path: Vec<(World<C>, Option<Act>)>, broken: &str) -> String {
    let mut text = format!(
        "{broken}: {}.\nAt the start local operates; gate, device and stations are connected.\n",
        meaning(broken)
    );
    let mut number = 0;
    for (world, act) in path {
        let Some(act) = act else { break };
        number += 1;
        let _ = writeln!(text, "{number:3}. {}", sentence(&world, act));
        let mut told = world;
        told.log = Log(Some(Vec::new()));
        if let Some(after) = told.after(scope, act) {
            for line in after.log.0.unwrap_or_default() {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    text
}

const fn name(n: usize) -> &'static str {
    if n == 0 { "Dr. Ash" } else { "Dr. Birch" }
}

const fn what(set: GrantedSet) -> &'static str {
    match (set.camera, set.instruments, set.energy) {
        (_, true, true) => "the instruments with energy",
        (_, true, false) => "the instruments",
        (true, false, false) => "the camera",
        (_, false, true) => "energy without instruments",
        (false, false, false) => "nothing",
    }
}

fn sentence<C: Checks>(world: &World<C>, act: Act) -> String {
    let place = |i: usize| world.pool.get(i).map_or_else(String::new, datagram);
    match act {
        Act::Tick => "A tick of the clock (a quarter of a second) passes.".into(),
        Act::ToGate(n) => {
            format!("{} of {} reaches the gate.", world.desks[n].to_gate.first().map_or("A message", to_gate), name(n))
        }
        Act::ToDesk(n) => {
            format!(
                "{} of the gate reaches {}.",
                world.desks[n].from_gate.first().map_or("A message", from_gate),
                name(n)
            )
        }
        Act::Deliver(i) => format!("The relay delivers {}.", place(i)),
        Act::DeliverAndSleep(i) => {
            format!("The relay delivers {}; the gate sleeps for a tick before it hands anything out.", place(i))
        }
        Act::Copy(i) => format!("The relay delivers a copy of {}.", place(i)),
        Act::Offer(n, set) => format!("Local offers {} to {}.", what(set), name(n)),
        Act::Withdraw => "Local withdraws the offer.".into(),
        Act::Confirm => "Local confirms.".into(),
        Act::ConfirmAmber => "Local confirms a second time, for amber.".into(),
        Act::Take => "Local takes.".into(),
        Act::Estop => "Local presses ESTOP.".into(),
        Act::Reset => "Local resets the emergency stop.".into(),
        Act::Close => "Local closes the session.".into(),
        Act::Override => "The hardware override gives the device to local.".into(),
        Act::Console(true) => "Local's console is back.".into(),
        Act::Console(false) => "Local's console dies.".into(),
        Act::Accept(n) => format!("{} accepts the offer on the screen.", name(n)),
        Act::Decline(n) => format!("{} declines.", name(n)),
        Act::Return(n) => format!("{} gives control back.", name(n)),
        Act::NetworkEstop(n) => format!("{} presses ESTOP.", name(n)),
        Act::Reclutch(n) => format!("{} is about to open and close the clutch.", name(n)),
        Act::LetGo(n, yes) => format!("{} {} the dead-man input.", name(n), if yes { "lets go of" } else { "presses" }),
        Act::Pedal(n, yes) => format!("{} {} the energy pedal.", name(n), if yes { "presses" } else { "releases" }),
        Act::Motion(n) => format!("{} moves a hand.", name(n)),
        Act::DiskDone => format!("The disk finishes its oldest write: {:?}.", world.disk.first()),
        Act::DiskFails => format!("The disk fails at its oldest write: {:?}.", world.disk.first()),
        Act::Colour(colour) => format!("The link gates are {} now.", shade(colour)),
        Act::Consent(yes) => format!("The patient's consent {}.", if yes { "is given again" } else { "is withdrawn" }),
        Act::Video(Video::Live) => "The picture lives again.".into(),
        Act::Video(Video::Frozen) => "The capture card freezes: new frames of the same picture.".into(),
        Act::Video(Video::Lost) => "The video no longer reaches the expert.".into(),
        Act::CameraMoves => "Somebody else moves the camera.".into(),
        Act::Revoke(n) => format!("The certificate of {} is revoked.", name(n)),
        Act::Cut(n, true) => format!("The line to {} is cut.", name(n)),
        Act::Cut(n, false) => format!("The line to {} stands again.", name(n)),
        Act::Kill => "The gate is killed.".into(),
        Act::Start(true) => "The gate starts again.".into(),
        Act::Start(false) => "The gate starts again and cannot read its store.".into(),
        Act::Pause(yes) => if yes { "The gate's machine is suspended." } else { "The gate's machine wakes." }.into(),
        Act::SecondGate => "A second gate is started for the same device.".into(),
        Act::SecondTakes => "At the second gate somebody takes.".into(),
        Act::KillStation(n) => format!("The program of {} crashes.", name(n)),
        Act::Connect(n) => format!("The program of {} connects.", name(n)),
        Act::PauseStation(n, yes) => format!("The program of {} {}.", name(n), if yes { "hangs" } else { "goes on" }),
        Act::CutDevice(yes) => {
            if yes { "The cable to the device is pulled." } else { "The cable to the device is back." }.into()
        }
        Act::MuteDevice(yes) => if yes {
            "The device's reports no longer reach the gate."
        } else {
            "The device's reports reach the gate again."
        }
        .into(),
        Act::RestartDevice => "The device restarts.".into(),
        Act::ForgeAccept(n) => format!("{} sends an ACCEPT for the other's offer.", name(n)),
        Act::ForgeCommand(n) => format!("{} sends a command for the holder's epoch under the own key.", name(n)),
        Act::ForgeHeartbeat(n) => format!("{} sends a heartbeat for the holder's epoch under the own key.", name(n)),
        Act::ForgeBeacon(n) => format!("Somebody without keys sends {} a BEACON.", name(n)),
        Act::WrongEpoch(n) => {
            format!("The program of {} sends a command of the epoch before, with the newest nonce.", name(n))
        }
        Act::Jump(n) => format!("The program of {} sends a command whose number is far ahead.", name(n)),
    }
}

const fn shade(colour: Colour) -> &'static str {
    match colour {
        Colour::Unmeasured => "unmeasured",
        Colour::Green => "green",
        Colour::Amber => "amber",
        Colour::Red => "red",
    }
}

fn datagram(sealed: &Sealed) -> String {
    let again = if sealed.again { ", delivered before" } else { "" };
    match &sealed.datagram {
        Datagram::Heartbeat(hb) => format!("heartbeat {} of {}{again}", hb.counter.0, name(sealed.by)),
        Datagram::Command(c) => {
            format!("command {} of {}, clutch {:?}, epoch {}{again}", c.counter.0, name(sealed.by), c.clutch, c.epoch.0)
        }
        Datagram::Beacon(b) => format!("BEACON {} for {}{again}", b.counter.0, name(sealed.by)),
    }
}

const fn to_gate(message: &ToGate) -> &'static str {
    match message {
        ToGate::Hello { .. } => "HELLO",
        ToGate::Probe { .. } => "PROBE",
        ToGate::Request { .. } => "REQUEST",
        ToGate::Accept { .. } => "ACCEPT",
        ToGate::Decline { .. } => "DECLINE",
        ToGate::Return { .. } => "RETURN",
        ToGate::Estop { .. } => "ESTOP",
    }
}

const fn from_gate(message: &FromGate) -> &'static str {
    match message {
        FromGate::Status(_) => "STATUS",
        FromGate::Offer { .. } => "OFFER",
        FromGate::Withdraw { .. } => "WITHDRAW",
        FromGate::Grant { .. } => "GRANT",
        FromGate::Nack { .. } => "NACK",
    }
}
