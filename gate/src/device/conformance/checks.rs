//! The checks of HANDOVER.md section 3, each from a state that it makes itself.

use super::bench::{Bench, PATIENCE, Wrong, must, refused, seen, taken};
use super::{Hands, Payloads};
use trocar_proto::handover::device_wire::sim::Motion;
use trocar_proto::handover::gate::DeviceAct;
use trocar_proto::handover::types::{Epoch, GrantedSet, Selection};

/// What was seen, nothing where it could not be made.
pub(super) type Seen = Result<Option<String>, Wrong>;
/// Number, name, and the check.
pub(super) type Entry = (&'static str, &'static str, fn(&mut Bench, &mut dyn Hands) -> Seen);

/// In the order of their numbers; the last ones need hands.
pub(super) const ALL: &[Entry] = &[
    ("HO-D-001", "a lower fence is refused for everything", low_fence),
    ("HO-D-002", "a second gate is refused while the first is served", second_gate),
    ("HO-D-003", "a refused gate does not raise the highest fence", refused_fence),
    ("HO-D-004", "after silence another gate needs a higher fence", succession),
    ("HO-D-005", "silence while remote is selected holds, in time, energy off", watchdog),
    ("HO-D-006", "the watchdog's hold lasts until a higher fence", latch),
    ("HO-D-007", "nothing of this stops the surgeon", local_goes_on),
    ("HO-D-008", "an old selection is refused", old_selection),
    ("HO-D-008", "a selection that is repeated changes nothing", repeated_selection),
    ("HO-D-009", "a command moves only while remote is selected", unselected),
    ("HO-D-010", "a command moves once", once),
    ("HO-D-013", "a latched fence cannot be selected for remote", latched_selection),
    ("HO-D-014", "every stop and selection but remote turns energy off", energy_off),
    ("HO-D-019", "no command overtakes a hold", overtaking),
    ("HO-D-021", "a hold is reported until the next command", reported),
    ("HO-D-024", "the gate that is served hears of the one that is refused", rival),
    ("HO-N-002", "energy acts only with the permit", permit),
    ("HO-S-016", "what is not granted does not move", outside_set),
    ("HO-D-011", "the hardware override ends by a selection of local only", hardware_override),
    ("HO-D-012", "a device that restarts selects nobody, latched, with its fence", restart),
];

fn low_fence(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (boot, highest) = (bench.a.boot, bench.fence);
    let (fence, sequence) = (Epoch(highest.0.saturating_sub(1)), 1_000);
    let mut command = bench.command();
    if let DeviceAct::Command { fence: shown, .. } = &mut command {
        *shown = fence;
    }
    for (what, act) in [
        ("a keep-alive", DeviceAct::KeepAlive { boot, fence }),
        ("a selection", DeviceAct::Select { boot, to: Selection::Local, fence, sequence }),
        ("a hold", DeviceAct::Hold { fence, sequence }),
        ("energy off", DeviceAct::EnergyOff { fence, sequence }),
        ("a command", command),
    ] {
        let (_, report) = refused(&format!("{what} with fence {}", fence.0), bench.a.act(act)?)?;
        must(report.device.highest == highest, || format!("highest became {}", report.device.highest.0))?;
        bench.a.keep_alive(highest);
    }
    Ok(Some(format!("five acts with fence {} below {} refused", fence.0, highest.0)))
}

fn second_gate(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (fence, boot, ours) = (Epoch(bench.fence.0.saturating_add(100)), bench.b.boot, bench.fence);
    for act in
        [DeviceAct::KeepAlive { boot, fence }, DeviceAct::Select { boot, to: Selection::Local, fence, sequence: 1 }]
    {
        bench.a.keep_alive(ours);
        let (_, report) = refused("what the second gate said", bench.b.act(act)?)?;
        must(report.device.owner == Some(bench.a.boot), || "the device shows another owner".into())?;
    }
    bench.fence = Epoch(bench.fence.0.saturating_add(1));
    let select = bench.select(Selection::Local);
    let report = taken("the first gate's selection of local", bench.a.act(select)?)?;
    Ok(Some(format!("fence +100 refused, the first gate's selection taken: {}", seen(&report))))
}

fn rival(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (fence, boot, ours) = (Epoch(bench.fence.0.saturating_add(100)), bench.b.boot, bench.fence);
    let quiet = bench.a.until(PATIENCE, |report| !report.device.rival, |a| a.keep_alive(ours));
    quiet.ok_or("rival does not end while no other gate speaks")?;
    bench.a.keep_alive(ours);
    refused("a second gate's keep-alive", bench.b.act(DeviceAct::KeepAlive { boot, fence })?)?;
    let told = bench.a.until(PATIENCE, |report| report.device.rival, |a| a.keep_alive(ours));
    told.ok_or("the first gate hears nothing of the second")?;
    Ok(Some("the first gate is told".to_owned()))
}

fn refused_fence(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (fence, boot, ours) = (Epoch(bench.fence.0.saturating_add(100)), bench.b.boot, bench.fence);
    let report = bench.b.act(DeviceAct::Select { boot, to: Selection::Local, fence, sequence: 1 })?.1;
    must(report.device.highest == ours, || format!("highest {} after {}", report.device.highest.0, ours.0))?;
    Ok(Some(format!("highest stays {}", ours.0)))
}

fn succession(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (boot, ours) = (bench.b.boot, bench.fence);
    let lapsed = bench.a.until(4 * bench.latest(), |report| report.device.owner.is_none(), |_| ());
    lapsed.ok_or("the owner did not lapse")?;
    let equal = DeviceAct::Select { boot, to: Selection::Nobody, fence: ours, sequence: 1_000 };
    refused("a second gate's selection with an equal fence", bench.b.act(equal)?)?;
    let fence = Epoch(ours.0.saturating_add(1));
    let above = DeviceAct::Select { boot, to: Selection::Nobody, fence, sequence: 1 };
    let report = taken("a second gate's selection with a higher fence", bench.b.act(above)?)?;
    must(report.device.owner == Some(boot), || "the second gate is not shown as the owner".into())?;
    let late = DeviceAct::KeepAlive { boot: bench.a.boot, fence: ours };
    refused("the first gate's late keep-alive", bench.a.act(late)?)?;
    Ok(Some("equal fence refused, higher fence served, the first gate refused then".into()))
}

fn watchdog(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let payload = bench.target.still();
    let command = bench.command_with(GrantedSet::ENERGY, true, payload);
    taken("a command with energy", bench.a.act(command)?)?;
    let (report, after) = bench.latched()?;
    let seen = format!("held after {:.1} ms, watchdog {:.1} ms", ms(after), ms(bench.watchdog));
    must(after <= bench.latest(), || format!("{seen}: too late"))?;
    must(after + bench.target.margin >= bench.watchdog, || format!("{seen}: too early"))?;
    must(!report.device.energy, || format!("{seen}, with energy on"))?;
    Ok(Some(seen))
}

fn latch(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    bench.latched()?;
    bench.wait(bench.watchdog);
    let command = bench.command();
    let (reason, report) = refused("a command after the gate came back", bench.a.act(command)?)?;
    must(report.device.latched, || format!("not latched any more: {}", seen(&report)))?;
    bench.remote().map_err(|wrong| format!("under a higher fence: {wrong}"))?;
    Ok(Some(format!("keep-alives back for {:.0} ms: {reason}; a higher fence moves again", ms(bench.watchdog))))
}

fn local_goes_on(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.select_anew(Selection::Local)?;
    let stopped = |report: &trocar_proto::handover::device_wire::Report| {
        report.device.selected != Selection::Local || report.device.latched
    };
    if let Some((report, _)) = bench.a.until(2 * bench.watchdog, stopped, |_| ()) {
        return Err(format!("without keep-alive: {}", seen(&report)));
    }
    let fence = bench.fence;
    for act in
        [DeviceAct::Hold { fence, sequence: bench.next() }, DeviceAct::EnergyOff { fence, sequence: bench.next() }]
    {
        let report = bench.a.act(act)?.1;
        must(!stopped(&report), || format!("a stop of remote stopped local: {}", seen(&report)))?;
    }
    let select = bench.select(Selection::Local);
    taken("local selected again after the silence", bench.a.act(select)?)?;
    Ok(Some(format!("local stays selected through {:.0} ms of silence, hold and energy off", ms(2 * bench.watchdog))))
}

fn old_selection(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (boot, fence) = (bench.a.boot, bench.fence);
    let select = |to, sequence| DeviceAct::Select { boot, to, fence, sequence };
    taken("nobody", bench.a.act(select(Selection::Nobody, 50))?)?;
    let mut last = None;
    for (what, act) in [
        ("an older selection of remote", select(Selection::Remote, 49)),
        ("another selection with the same sequence", select(Selection::Remote, 50)),
    ] {
        let (reason, report) = refused(what, bench.a.act(act)?)?;
        must(report.device.selected == Selection::Nobody, || seen(&report))?;
        last = Some(reason);
    }
    Ok(last.map(|reason| format!("below and equal refused: {reason}")))
}

fn repeated_selection(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (boot, fence) = (bench.a.boot, bench.fence);
    let again = DeviceAct::Select { boot, to: Selection::Remote, fence, sequence: 1 };
    let report = taken("the same selection again", bench.a.act(again.clone())?)?;
    must(report.device.sequence == 1 && !report.device.latched, || seen(&report))?;
    bench.latched()?;
    let report = bench.a.act(again)?.1;
    must(report.device.latched, || format!("it opened the latch: {}", seen(&report)))?;
    let command = bench.command();
    refused("a command after it", bench.a.act(command)?)?;
    Ok(Some("taken without effect, and it opens no latch".into()))
}

fn unselected(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    for to in [Selection::Nobody, Selection::Local] {
        bench.select_anew(to)?;
        let command = bench.command();
        let (_, report) = refused(&format!("a command with {to:?} selected"), bench.a.act(command)?)?;
        let moved = report.actuated.is_some_and(|actuated| actuated.fence == bench.fence);
        must(!moved, || "it was actuated".into())?;
    }
    bench.remote()?;
    let mut command = bench.command();
    if let DeviceAct::Command { fence, .. } = &mut command {
        fence.0 = fence.0.saturating_add(1);
    }
    refused("a command with a fence that nobody selected", bench.a.act(command)?)?;
    Ok(Some("refused with nobody, with local, and with a fence that nobody selected".into()))
}

fn once(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let (earlier, command) = (bench.command(), bench.command());
    let report = taken("a command", bench.a.act(command.clone())?)?;
    let DeviceAct::Command { sequence, .. } = command else { return Ok(None) };
    let newest = report.actuated.map(|actuated| actuated.sequence);
    must(newest == Some(sequence), || format!("the report shows {newest:?} as actuated, not {sequence}"))?;
    refused("the same command again", bench.a.act(command)?)?;
    let (_, report) = refused("an earlier command", bench.a.act(earlier)?)?;
    must(report.actuated.map(|actuated| actuated.sequence) == newest, || "an older one was actuated".into())?;
    Ok(Some(format!("sequence {sequence} actuated once, {} not at all", sequence - 1)))
}

fn latched_selection(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    bench.latched()?;
    let select = bench.select(Selection::Remote);
    let (reason, report) = refused("remote under the fence that was latched", bench.a.act(select)?)?;
    must(report.device.latched, || seen(&report))?;
    Ok(Some(reason.to_string()))
}

fn energy_off(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    for n in 0..4 {
        bench.remote()?;
        let payload = bench.target.still();
        let command = bench.command_with(GrantedSet::ENERGY, true, payload);
        let report = taken("a command with energy", bench.a.act(command)?)?;
        must(report.device.energy, || "a command with the permit did not turn energy on".into())?;
        let (fence, sequence) = (bench.fence, bench.next());
        let (what, act) = match n {
            0 => ("energy off", DeviceAct::EnergyOff { fence, sequence }),
            1 => ("hold", DeviceAct::Hold { fence, sequence }),
            2 => ("a selection of nobody", bench.select(Selection::Nobody)),
            _ => ("a selection of local", bench.select(Selection::Local)),
        };
        let report = taken(what, bench.a.act(act)?)?;
        must(!report.device.energy, || format!("energy is on after {what}"))?;
    }
    Ok(Some("off after energy off, hold, nobody and local".into()))
}

fn overtaking(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let before = bench.command();
    let (fence, sequence) = (bench.fence, bench.next());
    taken("hold", bench.a.act(DeviceAct::Hold { fence, sequence })?)?;
    let (reason, _) = refused("a command from before the hold", bench.a.act(before)?)?;
    let after = bench.command();
    taken("a command from after the hold", bench.a.act(after)?)?;
    Ok(Some(format!("from before: {reason}; from after: taken")))
}

fn reported(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    let report = bench.select_anew(Selection::Remote)?;
    must(report.device.held, || "it does not say that nothing moved since it was selected".into())?;
    bench.remote()?;
    for n in 0..2 {
        let command = bench.command();
        let report = taken("a command", bench.a.act(command)?)?;
        must(!report.device.held, || "it says that it holds, after a command that moved".into())?;
        let act = match n {
            0 => DeviceAct::Hold { fence: bench.fence, sequence: bench.next() },
            _ => bench.select(Selection::Nobody),
        };
        let report = taken("the stop", bench.a.act(act)?)?;
        must(report.device.held, || format!("it does not say that it holds: {}", seen(&report)))?;
    }
    Ok(Some("said after hold and selections, and no longer after a command".into()))
}

fn permit(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    bench.remote()?;
    for (energy, what) in [(true, "with"), (false, "without")] {
        let payload = bench.target.still();
        let command = bench.command_with(GrantedSet::ENERGY, energy, payload);
        let report = taken(&format!("a command {what} the permit"), bench.a.act(command)?)?;
        must(report.device.energy == energy, || format!("energy {} {what} the permit", on(report.device.energy)))?;
    }
    Ok(Some("on with it, off with the first command without it".into()))
}

fn outside_set(bench: &mut Bench, _: &mut dyn Hands) -> Seen {
    if bench.target.payloads != Payloads::Sim {
        return Ok(None);
    }
    bench.remote()?;
    let tool = Motion { axes: [100, 0, 0, 0, 0, 0], ..Motion::default() }.encode();
    let camera = Motion { camera: [10, 0, 0], ..Motion::default() }.encode();
    let before = bench.a.ask(PATIENCE)?.state;
    for (what, set, energy, payload) in [
        ("an instrument with the camera granted", GrantedSet::CAMERA, false, tool.clone()),
        ("the camera with instruments granted", GrantedSet::INSTRUMENTS, false, camera),
        ("energy with instruments granted", GrantedSet::INSTRUMENTS, true, Motion::default().encode()),
    ] {
        let command = bench.command_with(set, energy, payload);
        let (_, report) = refused(what, bench.a.act(command)?)?;
        must(!report.device.energy, || format!("energy is on after {what}"))?;
    }
    let after = bench.a.ask(PATIENCE)?.state;
    must(places(before.as_bytes()) == places(after.as_bytes()), || "the device shows another pose".into())?;
    let command = bench.command_with(GrantedSet::INSTRUMENTS, false, tool);
    let report = taken("an instrument with instruments granted", bench.a.act(command)?)?;
    must(places(report.state.as_bytes()) != places(before.as_bytes()), || "what is granted moved nothing".into())?;
    Ok(Some("three refused without motion, and what is granted moves".into()))
}

fn hardware_override(bench: &mut Bench, hands: &mut dyn Hands) -> Seen {
    bench.remote()?;
    if !hands.press_override().map_err(|e| format!("the override: {e}"))? {
        return Ok(None);
    }
    let fence = bench.fence;
    let alive = |a: &mut super::bench::Gate| a.keep_alive(fence);
    let pressed = bench.a.until(PATIENCE, |report| report.device.overridden, alive);
    let (report, _) = pressed.ok_or("the device does not report the override")?;
    must(report.device.selected == Selection::Local, || seen(&report))?;
    let command = bench.command();
    refused("a command", bench.a.act(command)?)?;
    bench.fence = Epoch(bench.fence.0.saturating_add(1));
    for to in [Selection::Remote, Selection::Nobody] {
        let select = bench.select(to);
        let (_, report) = refused(&format!("a selection of {to:?}"), bench.a.act(select)?)?;
        must(report.device.overridden && report.device.selected == Selection::Local, || seen(&report))?;
    }
    let select = bench.select(Selection::Local);
    let report = taken("a selection of local", bench.a.act(select)?)?;
    must(!report.device.overridden, || "the override outlasts a selection of local".into())?;
    Ok(Some("remote and nobody refused, ended by local".into()))
}

fn restart(bench: &mut Bench, hands: &mut dyn Hands) -> Seen {
    bench.remote()?;
    let before = bench.fence;
    if !hands.restart().map_err(|e| format!("the restart: {e}"))? {
        return Ok(None);
    }
    let report = bench.a.ask(2 * PATIENCE)?;
    let device = &report.device;
    must(device.highest == before, || format!("fence {} after {}", device.highest.0, before.0))?;
    must(device.selected == Selection::Nobody && device.latched && !report.device.energy, || seen(&report))?;
    let command = bench.command();
    refused("a command of before", bench.a.act(command)?)?;
    Ok(Some(seen(&report)))
}

/// What is behind format and flags of a state: places, which do not change with "moving".
fn places(state: &[u8]) -> Option<&[u8]> {
    state.get(2..)
}

const fn on(energy: bool) -> &'static str {
    if energy { "on" } else { "off" }
}

#[allow(clippy::cast_precision_loss, reason = "a few seconds, for people")]
fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}
