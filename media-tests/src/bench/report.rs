//! The table.

use super::cell::{Cell, Ingress, Leg, Outcome, Relay};
use super::figures::median;
use super::packet::PACKET;
use super::plan::{NOT_RUN, Row, Side, Target, targets};
use super::schedule::Pattern;
use super::viewers::SAMPLE;
use super::words::Reading;
use super::{BATCH, ENDS_CORE, RELAY_CORE};
use std::fmt::Write as _;
use std::process::Command;

/// A machine with a higher load average, one minute, is not quiet.
const QUIET: f64 = 0.7;

/// The machine's load average.
///
/// # Errors
/// Where the kernel does not say.
pub fn load() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// A cell in a line.
#[must_use]
pub fn name(cell: Cell) -> String {
    let relay = match (cell.relay, cell.ingress) {
        (Relay::Trocar, Ingress::Roq) => "trocar",
        (Relay::Trocar, Ingress::Srtp) => "trocar, SRTP in",
        (Relay::Sealed, _) => "floor: sealed",
        (Relay::Clear, _) => "floor: clear",
        (Relay::Leaking(_), _) => "floor that loses",
        (Relay::Str0m, _) => "plain str0m",
    };
    let pattern = match cell.schedule.pattern {
        Pattern::Bursts => "bursts",
        Pattern::Paced => "paced",
    };
    let reading = match (cell.relay, cell.leg, cell.reading) {
        (Relay::Trocar, Leg::Roq | Leg::RoqStreams, _) => "quinn",
        (_, _, Reading::Plain) => "plain",
        (_, _, Reading::Gro) => "GRO",
    };
    format!("{relay} | 1→{} | {} | {pattern} | {reading}", cell.viewers, cell.schedule.bits / 1_000_000)
}

/// The whole page.
///
/// # Errors
/// Where the machine cannot be described.
pub fn render(rows: &[Row], loads: (&str, &str), seconds: f64) -> anyhow::Result<String> {
    let mut out = String::new();
    writeln!(out, "# What the relay costs\n")?;
    writeln!(out, "Printed by `make bench`. {}", machine()?)?;
    writeln!(out, "Load average {} before, {} after; {seconds:.0} s.\n", loads.0, loads.1)?;
    if loads.0.split(' ').next().and_then(|l| l.parse::<f64>().ok()).is_some_and(|l| l > QUIET) {
        writeln!(out, "**The machine was busy with other things: these figures say little.**\n")?;
    }
    writeln!(
        out,
        "| relay | viewers | Mbit/s in | packets leave | sinks | protection | CPU ns per output packet (spread) | Gbit/s out | Gbit/s per core | lost | delay p50 | p99 | p99.9 | generator |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for row in rows {
        writeln!(out, "| {} |", line(row))?;
    }
    writeln!(out, "\n## Targets\n\n| what | bound | measured (spread) | |\n| --- | --- | --- | --- |")?;
    for target in targets(rows) {
        writeln!(out, "| {} |", verdict(&target))?;
    }
    writeln!(out, "\n## Not run\n\n| cells | why |\n| --- | --- |")?;
    for (what, why) in NOT_RUN {
        writeln!(out, "| {what} | {why} |")?;
    }
    writeln!(out, "\n{}", notes())?;
    Ok(out)
}

/// One row of the first table.
#[must_use]
pub fn line(row: &Row) -> String {
    let (low, high) = row.spread(|o| o.ns_per_packet);
    let spread = if row.outcomes.len() > 1 { format!(" ({low:.0}–{high:.0})") } else { String::new() };
    let us = |of: fn(&Outcome) -> u32| format!("{:.0} µs", row.median(|o| f64::from(of(o))));
    let sum = |of: fn(&Outcome) -> u64| row.outcomes.iter().map(of).sum::<u64>();
    let (lost, refused) = (sum(|o| o.finished.lost), sum(|o| o.finished.refused + o.made.refused));
    let others = if refused > 0 { format!(" and {refused} refused") } else { String::new() };
    let protection = row.outcomes.first().map(|o| o.finished.protection.clone()).unwrap_or_default();
    [
        name(row.cell),
        protection,
        format!("{:.0}{spread}", row.median(|o| o.ns_per_packet)),
        format!("{:.2}", row.median(|o| o.gbit_out)),
        format!("{:.2}", row.median(|o| o.gbit_per_core)),
        format!("{lost} of {}{others}", sum(|o| o.finished.expected)),
        us(|o| o.measured.p50_us),
        us(|o| o.measured.p99_us),
        us(|o| o.measured.p999_us),
        us(|o| o.made.turn_us),
    ]
    .join(" | ")
}

fn verdict(target: &Target) -> String {
    let low = target.values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = target.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sign = if target.bound.1 == Side::AtMost { "≤" } else { "≥" };
    let measured = match target.values.as_slice() {
        [] => "not measured".to_owned(),
        values => format!("{:.2} ({low:.2}–{high:.2})", median(values)),
    };
    let word = if target.is_met() { "pass" } else { "**miss**" };
    format!("{} | {sign} {} | {measured} | {word}", target.what, target.bound.0)
}

fn machine() -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path);
    let cpuinfo = read("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("an unknown processor");
    let git = |arguments: &[&str]| {
        let out = Command::new("git").args(arguments).current_dir(crate::workspace()).output();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let changed =
        if git(&["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { ", changed since" };
    Ok(format!(
        "Machine: {} cores, {}, Linux {}; commit {}{changed}.",
        std::thread::available_parallelism()?,
        model.trim_start_matches(['\t', ' ', ':']),
        read("/proc/sys/kernel/osrelease")?.trim(),
        git(&["rev-parse", "--short", "HEAD"]),
    ))
}

fn notes() -> String {
    format!(
        "## How to read it\n\n\
- The build is the one of tests and demo: optimised, with debug and overflow assertions. What is checked is what is measured; all four relays are built alike.\n\
- The relay's process is alone on core {RELAY_CORE}; generator and sinks, each a process of its own, share core {ENDS_CORE}. Everything is loopback.\n\
- *CPU* is the time that all threads of the relay's process were on a core (`/proc/PID/task/*/schedstat`), kernel included, divided by the media packets that sinks got. \
On loopback the sender also pays for the receiver's half of the kernel's work; with plain sinks that is most of it. GRO sinks take segments together and stand for a network card that segments.\n\
- *Packets* are RTP of {PACKET} bytes on the way in, {} on the way out (extensions of the house are taken off, the tag is put on). *Bursts*: all packets of a frame at once, 60 times a second. *Paced*: every 0.5 ms what is due.\n\
- *Delay* is one way, from the moment the generator hands a packet to its socket or to QUIC until a sink has read it, both on the same monotonic clock, kernel included, of one packet in {SAMPLE}. \
Where trocar is fed by QUIC that includes the generator's own QUIC (encryption, pacing, its thread's wake-up), which the floors' generator does not have: *generator* says how long it takes until the last packet of a turn (a frame, in bursts) \
has left the generator, counted from the first.\n\
- A cell counts from {warm:.1} s after its viewers get packets. Until a viewer's report has told the round trip, trocar sends a frame's packets at twice the rate at most \
(up to 8 ms more for its last one), as nothing is known of the line; a round trip below 2 ms ends that.\n\
- *Lost* counts every packet between the first one that a sink opened while it counted and the last one that the generator made.\n\
- trocar takes the stream by RTP over QUIC (TLS, admission through signaling), as `trocar publish` sends it, or, *SRTP in*, by WHIP and SRTP (AES-256-GCM), as a browser sends it, \
in segments of 10 as the floors' generator; stores it, and serves each viewer by its own numbers, NACK and RTX kept ready. Sinks send a receiver report a second and offer no transport-wide feedback.\n\
- *floor: sealed* reads plain UDP with `recvmmsg` and `UDP_GRO`, writes a fixed header, copies the payload, seals with AES-256-GCM under each viewer's key and sends batches of at most {BATCH} packets by `UDP_SEGMENT`, as trocar does. \
It has no QUIC, keeps nothing, and answers nothing. *floor: clear* is the same without the seal. Their generator sends segments of 10, as QUIC does.\n\
- *plain str0m* is a relay as its examples write it: RTP mode, one payload shared by all viewers, RTX cache on, one `send_to` a packet, plain UDP in.\n\
- Where a ratio is made, its cells run one after the other, several times; the table shows medians.",
        super::packet::PAYLOAD + super::floor::FIXED + 16,
        warm = super::plan::TIMES.warm_up.as_secs_f64(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::plan::groups;
    use super::*;

    #[test]
    fn a_miss_and_a_loss_are_printed_as_what_they_are() {
        let rows: Vec<Row> = groups()
            .into_iter()
            .flat_map(|g| g.cells)
            .map(|cell| {
                let mut o = Outcome { ns_per_packet: 1_000.0, memory_per_viewer: Some(4e6), ..Outcome::default() };
                (o.finished.lost, o.finished.expected) = (7, 100);
                Row { cell, outcomes: vec![o] }
            })
            .collect();
        let page = render(&rows, ("0", "0"), 1.0).unwrap();
        assert!(page.contains("trocar | 1→16 | 50 | bursts | GRO"));
        assert!(page.contains("7 of 100"));
        assert!(page.contains("memory per viewer, KiB | ≤ 256 | 3906.25 (3906.25–3906.25) | **miss** |"), "{page}");
        assert!(page.contains("64 viewers over 16, at 20 Mbit/s | ≤ 1.15 | 1.00 (1.00–1.00) | pass |"));
        assert!(page.contains("load average 0") || page.contains("Load average 0 before"));
    }
}
