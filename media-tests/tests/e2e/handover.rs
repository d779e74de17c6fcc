//! The handover with real processes: device, gate, relay, signaling, publisher, viewer and station, each by itself. The failures are
//! `media_tests::failures`, which `make handover` runs as well and prints as a table.

use anyhow::{Context, ensure};
use serde_json::json;
use std::time::Duration;
use trocar_media_tests::failures::{self, races::takes};
use trocar_media_tests::sentinel::{Sentinel, Trials};
use trocar_media_tests::stack::PATIENCE;
use trocar_media_tests::theatre::{Room, Setting, Theatre, is_motion, selects};

fn failure(id: &str) -> anyhow::Result<()> {
    let failure = failures::ALL.iter().find(|f| f.id == id).context("no such failure")?;
    failures::run(failure, &Sentinel::start()?).map(drop)
}

/// One test per failure, so that each has its name.
macro_rules! failures {
    ($($name:ident: $id:literal, $requirement:literal;)*) => {
        $(
            #[doc = $requirement]
            #[test]
            fn $name() -> anyhow::Result<()> {
                failure($id)
            }
        )*

        #[test]
        fn every_failure_of_the_table_is_a_test() {
            let tests = [$($id),*];
            assert!(failures::ALL.iter().all(|f| tests.contains(&f.id)));
        }
    };
}

failures! {
    f1_expert_and_gate_cut_off: "F1", "HO-X-001";
    f1_expert_deaf_then_cut_off: "F1b", "HO-X-001";
    f2_relay_killed: "F2", "HO-X-002";
    f2b_one_of_two_relays_killed: "F2b", "HO-X-003";
    f3_picture_lost: "F3", "HO-X-004";
    f4_commands_after_take: "F4", "HO-X-005";
    f6_relay_restarts: "F6", "HO-X-007";
    f7_expert_crashes: "F7", "HO-X-008";
    f8_gate_killed: "F8", "HO-X-009";
    f9_expert_paused: "F9", "HO-X-010";
    f9_expert_paused_within_the_lease: "F9b", "HO-X-010";
    f10_clocks_jump: "F10", "HO-X-011";
    f11_two_experts_accept_at_once: "F11", "HO-X-012";
    f14_picture_frozen: "F14", "HO-X-015";
    f15_path_changes: "F15", "HO-X-016";
    f16_consent_withdrawn: "F16", "HO-X-017";
    f17_disk_full: "F17", "HO-X-018";
    f17_disk_stalled: "F17b", "HO-X-018";
    f18_signaling_and_its_store_gone: "F18", "HO-X-019";
    f19_a_tenth_lost_on_each_of_two_paths: "F19", "HO-X-020";
    f20_forged_and_flooded: "F20", "HO-X-021";
    f21_gate_paused: "F21", "HO-X-022";
    f22_second_gate: "F22", "HO-X-023";
    f23_certificate_revoked: "F23", "HO-X-024";
}

/// The ordinary course, there and back; what the tests of failures begin with, by itself.
#[test]
fn an_expert_is_given_control_moves_and_gives_it_back() -> anyhow::Result<()> {
    let mut t = Theatre::open()?;
    t.remote("instruments", 200)?;
    let held = trocar_media_tests::sentinel::boot_us();
    t.station.tell(&json!({ "do": "return" }))?;
    t.record.after(held, "nobody selected", PATIENCE, selects("nobody"))?;
    let view = t.gate_shows("HOLD", |v| v["mode"] == "hold")?;
    ensure!(view["epoch"].as_u64() > Some(1), "{view}");
    let returned = trocar_media_tests::theatre::time(&view);
    t.local(json!({ "act": "take" }))?;
    ensure!(t.record.between(held + 1_000_000, u64::MAX, is_motion)?.is_empty(), "moved after RETURN at {returned}");
    Ok(())
}

/// HO-I-007: TAKE works with every link down, the network side dead and the disk standing still.
#[test]
fn take_is_at_the_device_within_50_ms_with_all_links_down_and_the_disk_stalled() -> anyhow::Result<()> {
    let disk = failures::people::FrozenDisk::mount()?;
    let mut room = Room::open(Setting { store: Some(disk.path().join("store")), ..Setting::default() })?;
    disk.freeze(true)?;
    room.gate_line.cut(true);
    room.line.cut(true);
    room.stack.kill()?;
    let sentinel = Sentinel::start()?;
    let mut trials = Trials::default();
    for (from, to) in takes(&mut room, 500)? {
        trials.note(&sentinel, from, to);
    }
    let at = |p| trials.permille(p).unwrap_or(u64::MAX) as f64 / 1e3;
    let (p50, p99, max) = (at(500), at(990), at(1_000));
    disk.freeze(false)?;
    println!("TAKE to effect, ms: p50 {p50:.2} p99 {p99:.2} max {max:.2}, {} void of 500", trials.void);
    ensure!(trials.believable(), "{} of 500 trials were void", trials.void);
    ensure!(max <= 50.0, "the slowest TAKE took {max:.1} ms");
    Ok(())
}

/// The control: the same measurement sees a gate that is too slow.
#[test]
fn a_gate_that_stands_still_is_too_slow_for_the_same_measurement() -> anyhow::Result<()> {
    let mut room = Room::open(Setting::default())?;
    room.gate.process.signal("STOP")?;
    let at = trocar_media_tests::sentinel::boot_us();
    room.gate.tell(&json!({ "act": "take" }))?;
    let came = room.record.after(at, "a TAKE", Duration::from_millis(300), selects("local"));
    room.gate.process.signal("CONT")?;
    ensure!(came.is_err(), "a stopped gate selected: {came:?}");
    let late = room.record.after(at, "the TAKE", PATIENCE, selects("local"))?;
    ensure!(trocar_media_tests::theatre::time(&late) - at > 50_000, "{late}");
    Ok(())
}
