//! `trocar link test` over two paths at once: how far the second is behind, and whether the two fail together, against the ledgers of both
//! lines.

use crate::link::{class, serve};
use crate::number;
use anyhow::ensure;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use trocar_media_tests::ledger::Flow;
use trocar_media_tests::peers::Emulator;
use trocar_media_tests::peers::ours::{IDLE_BYTES, judged};
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::path;
use trocar_proto::link::{Direction, Record};

/// How far the second path is behind, in microseconds, each way.
const SKEW_US: f64 = 15_000.0;
/// The skew needs no clock in common: what is left are the hops of loopback beside the emulators, which share two cores with everything.
const SKEW_BAR_US: f64 = 2_000.0;

/// A line that delays, and loses this.
fn line(ms: f64, loss: &str) -> String {
    ["up", "down"].map(|way| format!("[{way}]\ndelay = {{ shape = 'constant', ms = {ms} }}\n{loss}\n")).concat()
}

fn open(to: &str, profile: &str, seed: u64) -> anyhow::Result<Emulator> {
    Emulator::open((Ipv4Addr::LOCALHOST, 0).into(), to, profile, seed)
}

/// Measures by both lines at once, as a class that takes no two paths which fail together ten times as often as chance.
fn measure(first: &Emulator, second: &Emulator) -> anyhow::Result<Value> {
    let dir = tempfile::tempdir()?;
    let (classes, json) = (class(dir.path(), "path_dependence = { max = 10")?, dir.path().join("report.json"));
    let paths = [first, second].map(|e| format!("127.0.0.1={}", e.listen));
    let fixed = ["link", "test", &first.listen, "-t", "1", "--profile", "ours", "--max-rate", "1M"];
    let more = ["--path", &paths[0], "--path", &paths[1], "--classes", path(&classes)?, "--json", path(&json)?];
    judged(&Command::new(trocar()?).args(fixed).args(more).output()?, &json)
}

/// What each of two ledgers has of the idle flow, in both directions.
fn idle(report: &Value, ledgers: [&[Record]; 2]) -> anyhow::Result<[[Flow; 2]; 2]> {
    let flow = |i: usize, way, ledger: &[Record]| {
        let sent = number(report, &format!("/result/directions/{i}/idle/sent")) as u64;
        Flow::of(ledger, way, |len| len == IDLE_BYTES).first(sent)
    };
    let both = |i, way| -> anyhow::Result<[Flow; 2]> { Ok([flow(i, way, ledgers[0])?, flow(i, way, ledgers[1])?]) };
    Ok([both(0, Direction::Up)?, both(1, Direction::Down)?])
}

/// The report says what these ledgers of the first and the second path say of loss; what the dependence is.
fn loses(report: &Value, ledgers: [&[Record]; 2]) -> anyhow::Result<f64> {
    let (mut sent, mut lost, mut second, mut both) = (0, 0, 0, 0);
    for [a, b] in &idle(report, ledgers)? {
        let (of_a, of_b) = (BTreeSet::from_iter(a.losses()), BTreeSet::from_iter(b.losses()));
        sent += a.sent();
        lost += of_a.len();
        second += of_b.len();
        both += of_a.intersection(&of_b).count();
    }
    let said = &report["result"]["second_path"];
    for (key, count) in [("loss_percent", lost), ("second_loss_percent", second), ("both_loss_percent", both)] {
        let is = number(said, &format!("/{key}"));
        ensure!((is - 100.0 * count as f64 / sent as f64).abs() < 1e-9, "{key} {is}: {count} of {sent}");
    }
    let dependence = both as f64 * sent as f64 / (lost as f64 * second as f64);
    let is = number(said, "/dependence");
    ensure!((is - dependence).abs() < 1e-9, "dependence {is}: {dependence}");
    Ok(dependence)
}

/// The report says of the second path's skew what these ledgers say, and they say what the lines were told.
fn lags(report: &Value, ledgers: [&[Record]; 2]) -> anyhow::Result<()> {
    // The delays are constant: whatever has that length says them.
    let delay = |way, ledger: &[Record]| Flow::of(ledger, way, |len| len == IDLE_BYTES).delay_us();
    let each = [Direction::Up, Direction::Down].map(|way| delay(way, ledgers[1]) - delay(way, ledgers[0]));
    let (truth, said) = ((each[0] + each[1]) / 2.0, number(report, "/result/second_path/skew_us"));
    ensure!((said - truth).abs() <= SKEW_BAR_US, "skew {said} us, ledgers {each:?}");
    ensure!((truth.abs() - SKEW_US).abs() <= SKEW_BAR_US, "the lines were {truth} us apart");
    Ok(())
}

fn check(report: &Value) -> &Value {
    &report["verdict"]["checks"][0]["passed"]
}

#[test]
fn paths_that_lose_packets_each_by_itself_are_said_to_be_independent() -> anyhow::Result<()> {
    let (_serve, at) = serve()?;
    let loss = "loss = { model = 'random', percent = 20 }";
    let first = open(&at, &line(4.0, loss), 3)?;
    let second = open(&at, &line(19.0, loss), 4)?;
    let report = measure(&first, &second)?;
    let (first, second) = (first.end()?, second.end()?);
    let dependence = loses(&report, [&first, &second])?;
    ensure!(dependence > 0.0 && dependence < 10.0 && check(&report) == true, "{dependence}: {}", report["verdict"]);
    lags(&report, [&first, &second])?;
    // The controls: the ledgers the other way round, and one of another line.
    ensure!(lags(&report, [&second, &first]).is_err(), "a skew with the wrong sign was not noticed");
    ensure!(loses(&report, [&first, &first]).is_err(), "the wrong ledger was not noticed");
    Ok(())
}

#[test]
fn paths_that_go_dark_together_are_said_to_share_a_cause() -> anyhow::Result<()> {
    let (_serve, at) = serve()?;
    // Both go on by one line, as two cables through one duct: dark for 60 ms every two seconds, which is how long the idle flow lasts.
    let dark = ["up", "down"].map(|w| format!("[[{w}.blackout]]\nstart_ms = 0\nlength_ms = 60\nevery_ms = 2000\n"));
    let duct = open(&at, &dark.concat(), 5)?;
    let first = open(&duct.listen, &line(4.0, ""), 3)?;
    let second = open(&duct.listen, &line(19.0, ""), 4)?;
    let report = measure(&first, &second)?;
    let (first, second, duct) = (first.end()?, second.end()?, duct.end()?);
    // Who connects first is its first client.
    let of = |client| duct.iter().filter(|r| r.client == client).cloned().collect::<Vec<_>>();
    let (through_first, through_second) = (of(0), of(1));
    let dependence = loses(&report, [&through_first, &through_second])?;
    ensure!(dependence > 10.0 && check(&report) == false, "{dependence}: {}", report["verdict"]);
    lags(&report, [&first, &second])?;
    ensure!(
        loses(&report, [&through_first, &through_first]).is_err(),
        "the control: not the same packets are lost on both"
    );
    Ok(())
}
