//! `trocar link test` against `trocar link serve`, through `trocar impair`: its ledger is the truth.

use crate::number;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trocar_link::measure::packet::{Header, Key, Kind, OPENING_BYTES};
use trocar_link::measure::responder::opening;
use trocar_media_tests::ledger::{self, Flow};
use trocar_media_tests::peers::ours::{IDLE_BYTES, judged};
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, path};
use trocar_proto::link::{Direction, Record};

const LOOPBACK: &str = "127.0.0.1:0";

/// A program of ours that says where it listens, and that.
pub(crate) fn start(name: &str, arguments: &[&str]) -> anyhow::Result<(Process, String)> {
    let mut process = Process::trocar(name, arguments)?;
    let ready: Value = serde_json::from_str(&process.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
    Ok((process, ready["listen"].as_str().context("listen")?.to_owned()))
}

/// The other end, and where it is.
pub(crate) fn serve() -> anyhow::Result<(Process, String)> {
    start("trocar link serve", &["link", "serve", "--json", "--listen", LOOPBACK])
}

/// A measurement, as short as it may be.
fn test(target: &str, flags: &[&str]) -> anyhow::Result<Output> {
    let fixed = ["link", "test", target, "-t", "1", "--profile", "consultation", "--max-rate", "8M"];
    Ok(Command::new(trocar()?).args(fixed).args(flags).output()?)
}

/// One measured line, with the emulator's ledger.
struct Measured {
    report: Value,
    ledger: Vec<Record>,
    said: String,
    dir: TempDir,
}

fn measure(line: &[&str]) -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let (ledger, json) = (dir.path().join("ledger.jsonl"), dir.path().join("report.json"));
    let (html, junit) = (dir.path().join("report.html"), dir.path().join("report.xml"));
    let (_serve, at) = serve()?;
    let fixed = ["impair", "--json", "--listen", LOOPBACK, "--to", &at, "--ledger", path(&ledger)?];
    let flags: Vec<&str> = fixed.iter().chain(line).copied().collect();
    let (mut emulator, at) = start("impair", &flags)?;
    let out = test(&at, &["--json", path(&json)?, "--html", path(&html)?, "--junit", path(&junit)?])?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let report = judged(&out, &json)?;
    emulator.stop()?;
    for file in [&html, &junit] {
        ensure!(std::fs::metadata(file)?.len() > 200, "{} is not there", file.display());
    }
    let ledger = ledger::read(&ledger)?;
    Ok(Measured { report, ledger, said, dir })
}

/// The idle flows of both directions are what the ledger says; how many packets were lost in all.
fn agrees(m: &Measured) -> anyhow::Result<u64> {
    let mut all = 0;
    for (i, way) in [Direction::Up, Direction::Down].into_iter().enumerate() {
        let idle = m.report.pointer(&format!("/result/directions/{i}/idle")).context("no idle flow")?;
        let sent = idle["sent"].as_u64().context("sent")?;
        let t = Flow::of(&m.ledger, way, |len| len == IDLE_BYTES).first(sent)?;
        ensure!(idle["lost"].as_u64() == Some(t.lost()), "{way:?}: lost {}, ledger {}", idle["lost"], t.lost());
        ensure!(
            idle["loss_bursts"] == serde_json::to_value(t.bursts())?,
            "{way:?}: {} {:?}",
            idle["loss_bursts"],
            t.bursts()
        );
        // The ledger does not see the two hops of loopback before and behind the emulator.
        let bar = number(&m.report, "/result/clock/uncertainty_us") + 500.0;
        let off = (number(idle, "/delay_us/p50") - t.delay_us()).abs();
        ensure!(off <= bar, "{way:?}: delay off by {off} us, ± {bar}; ledger {}", t.delay_us());
        all += t.lost();
    }
    Ok(all)
}

#[test]
fn a_clean_line_is_measured_as_it_is() -> anyhow::Result<()> {
    let m = measure(&["--delay", "5ms"])?;
    ensure!(agrees(&m)? == 0, "{}", m.said);
    let rtt = number(&m.report, "/result/path/rtt_idle_us/p50");
    ensure!((10_000.0..13_000.0).contains(&rtt), "{rtt}: {}", m.said);
    // Both clocks are this machine's: the offset is 0, and the error bar says how well that is known.
    let (offset, bar) =
        (number(&m.report, "/result/clock/offset_us"), number(&m.report, "/result/clock/uncertainty_us"));
    ensure!(offset.abs() <= bar && bar < 8_000.0, "{offset} ± {bar}");
    ensure!(number(&m.report, "/result/directions/0/capacity_mbit_s") > 7.9, "{}", m.said);
    // The emulator is a NAT for the port that it stands before, and not for the second one.
    let path = m.report.pointer("/result/path").context("path")?;
    ensure!(path["mapped_address"].is_string() && path["nat_mapping"] == "address-and-port-dependent", "{path}");
    let last: Vec<&str> = m.said.trim_end().lines().rev().take(2).collect();
    ensure!(last.iter().all(|l| !l.is_empty()) && last[1].contains("fit"), "two lines: {}", m.said);
    drop(m.dir);
    Ok(())
}

#[test]
fn what_a_bad_line_loses_is_counted_packet_by_packet_and_its_rate_is_found() -> anyhow::Result<()> {
    const RATE: f64 = 6.0;
    let m = measure(&[
        "--delay", "10ms", "--loss", "2%", "--burst", "3", "--rate", "6M", "--queue", "60ms", "--seed", "7",
    ])?;
    let lost = agrees(&m)?;
    ensure!(lost > 0, "the control: this seed loses packets of the idle flow");
    // Negative control: one packet that was not counted is found.
    let mut wrong = m;
    let counted = wrong.report.pointer_mut("/result/directions/0/idle/lost").context("lost")?;
    *counted = (counted.as_u64().unwrap_or(0) + 1).into();
    ensure!(agrees(&wrong).is_err(), "a packet too many was not noticed");
    for i in 0..2 {
        let at = |key: &str| number(&wrong.report, &format!("/result/directions/{i}/{key}"));
        let (rate, bar) = (at("capacity_mbit_s"), at("capacity_uncertainty_mbit_s"));
        ensure!((rate - RATE).abs() <= bar + 0.05 * RATE, "direction {i}: {rate} ± {bar}: {}", wrong.said);
        ensure!(at("video/frames_damaged") > 0.0, "direction {i}: {}", wrong.said);
    }
    Ok(())
}

/// A file of one class, `ours`, with one limit.
pub(crate) fn class(dir: &Path, limit: &str) -> anyhow::Result<PathBuf> {
    let file = dir.join("classes.toml");
    let class =
        "schema = \"trocar-link-classes/1\"\n[[class]]\nname = \"ours\"\ntitle = \"Ours\"\nabout = \"One limit.\"\n";
    std::fs::write(&file, format!("{class}[class.limits]\n{limit}, source = \"a test of 2026\" }}\n"))?;
    Ok(file)
}

#[test]
fn each_of_the_four_answers_has_its_exit_code() -> anyhow::Result<()> {
    // What decides depends on no clock: sizes of packets, how many values there are, and whether there is a second path.
    let answers = [
        ("mtu_payload_bytes = { min = 600", "fit", 0),
        ("rtt_loaded_p99_ms = { max = 100000", "with_limits", 0),
        ("mtu_payload_bytes = { min = 9500", "not_fit", 99),
        ("path_skew_ms = { max = 1000", "unknown", 1),
    ];
    let measured = |limit: &str| -> anyhow::Result<(Value, Output)> {
        let dir = tempfile::tempdir()?;
        let (classes, json) = (class(dir.path(), limit)?, dir.path().join("report.json"));
        let (_serve, at) = serve()?;
        let flags = ["--classes", path(&classes)?, "--profile", "ours", "--max-rate", "1M", "--json", path(&json)?];
        let out = Command::new(trocar()?).args(["link", "test", &at, "-t", "1"]).args(flags).output()?;
        Ok((judged(&out, &json)?, out))
    };
    let came: Vec<_> = std::thread::scope(|scope| {
        let running = answers.map(|(limit, ..)| scope.spawn(move || measured(limit)));
        running.into_iter().map(|r| r.join().expect("a measurement")).collect()
    });
    for ((limit, fit, code), came) in answers.iter().zip(came) {
        let (report, out) = came.context(*limit)?;
        let verdict = &report["verdict"];
        ensure!(verdict["fit"] == *fit && out.status.code() == Some(*code), "{limit}: {:?}: {verdict}", out.status);
    }
    let help = Command::new(trocar()?).args(["link", "test", "--help"]).output()?;
    let help = String::from_utf8_lossy(&help.stdout).replace('\n', " ");
    ensure!(help.contains("Exit status: 0 fit, or fit with limits; 99 not fit; 1 it could not be"), "{help}");
    Ok(())
}

#[test]
fn a_new_address_in_the_middle_is_survived_and_said() -> anyhow::Result<()> {
    let m = measure(&["--delay", "2ms", "--rebind-after", "3"])?;
    ensure!(m.said.contains("became another one 1 times"), "{}", m.said);
    let up = number(&m.report, "/result/directions/0/capacity_mbit_s");
    let down = number(&m.report, "/result/directions/1/capacity_mbit_s");
    ensure!(up > 7.0 && down > 7.0, "after it, flows go where we are now: {up} {down}");
    Ok(())
}

#[test]
fn whoever_is_no_peer_is_said_to_be_none() -> anyhow::Result<()> {
    let stranger = UdpSocket::bind(LOOPBACK)?;
    let at = stranger.local_addr()?.to_string();
    stranger.set_read_timeout(Some(PATIENCE))?;
    let talking = std::thread::spawn(move || -> std::io::Result<()> {
        let (_, from) = stranger.recv_from(&mut [0; 2_048])?;
        stranger.send_to(b"SSH-2.0-OpenSSH_9.2", from)?;
        // Kept open until the other end has given up.
        stranger.set_read_timeout(Some(Duration::from_secs(2)))?;
        while stranger.recv_from(&mut [0; 2_048]).is_ok() {}
        Ok(())
    });
    let nobody = UdpSocket::bind(LOOPBACK)?.local_addr()?.to_string();
    for (target, want) in [(&at, "is no `trocar link serve`"), (&nobody, "nobody listens")] {
        let out = test(target, &[])?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(out.status.code() == Some(1) && said.contains(want), "{:?}: {said}", out.status);
    }
    talking.join().ok().context("the stranger stopped")??;
    Ok(())
}

#[test]
fn a_flood_without_a_cookie_is_answered_with_less_than_it_brought() -> anyhow::Result<()> {
    let (_serve, at) = serve()?;
    let socket = UdpSocket::bind(LOOPBACK)?;
    socket.connect(&at)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let key = Key::new(b"");
    let body = br#"{"cookie":"00112233445566778899aabbccddeeff0011223344556677","program":"x"}"#;
    let ask = Header { kind: Kind::Ask, from_responder: false, phase: 0, session: 1, seq: 1, frame: 0, sent: 0 };
    let packets = [
        opening(Kind::Hello, 7, &key, &[]),
        opening(Kind::Open, 7, &key, body),
        opening(Kind::Open, 7, &Key::new(b"other"), body),
        opening(Kind::Hello, 7, &key, &[])[..OPENING_BYTES - 1].to_vec(),
        ask.seal(&key, br#"{"ask":"start","phase":1,"way":"down"}"#),
        vec![0xff; 900],
    ];
    let (mut sent, mut came, mut answers) = (0, 0, 0);
    let mut buffer = [0; 4_096];
    for _ in 0..400 {
        for p in &packets {
            socket.send(p)?;
            sent += p.len();
        }
        socket.set_nonblocking(true)?;
        while let Ok(n) = socket.recv(&mut buffer) {
            came += n;
            answers += 1;
        }
        socket.set_nonblocking(false)?;
    }
    let end = Instant::now() + Duration::from_secs(2);
    while let (Ok(n), true) = (socket.recv(&mut buffer), Instant::now() < end) {
        came += n;
        answers += 1;
    }
    ensure!(answers > 100, "the control: {answers} answers");
    ensure!(came * 4 < sent, "{came} bytes for {sent}");
    Ok(())
}
