//! An SRT transfer by `srt-live-transmit`, from caller to listener, and the statistics of the listener: it is the one who sees gaps.
//! What is lost is sent again, so that more packets cross the line than were given to it.

use super::{Emulator, Line, Outcome, Pair, Place, figure};
use crate::ledger::Flow;
use crate::process::Process;
use crate::stack::{PATIENCE, path};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use trocar_proto::link::{Direction, Record};

/// Where the listener waits, and where the caller takes in what it sends: below the ports that the system gives out.
const PORT: u16 = 9000;
const INLET: u16 = 9001;
/// UDP payload of a data packet: what is given to it, and SRT's header.
const PAYLOAD: u32 = 1_316;
const HEADER: u32 = 16;
/// What SRT counts beside the UDP payload: the headers of UDP and IPv4.
const BELOW: u32 = 28;
/// What it is given, in Mbit/s.
const MBIT_S: f64 = 3.0;
/// Nothing came for so long: it is over.
const SILENCE: Duration = Duration::from_secs(2);

/// A line of the table.
///
/// # Errors
/// Where something does not start, or nothing comes through.
pub fn run(line: &Line, at: Place, seed: u64, seconds: u64) -> anyhow::Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let statistics = dir.path().join("listener.json");
    let outlet = UdpSocket::bind((at.server, 0))?;
    let server = SocketAddr::from((at.server, PORT));
    let listens = format!("srt://{server}?mode=listener");
    let goes_to = format!("udp://{}", outlet.local_addr()?);
    let mut listener =
        transmit(&[&listens, &goes_to, "-s:1", "-f", "-pf:json", &format!("-statsout:{}", path(&statistics)?)])?;
    let emulator = Emulator::open((at.line, 0).into(), &server.to_string(), &line.profile(), seed)?;
    let calls = format!("srt://{}?mode=caller&conntimeo=20000", emulator.listen);
    let inlet = SocketAddr::from((at.server, INLET));
    let mut caller = transmit(&[&format!("udp://{inlet}"), &calls])?;
    caller.line(PATIENCE, |l| l.contains("SRT target connected"))?;

    feed(inlet, &outlet, seconds)?;
    let ledger = emulator.end()?;
    // So that it writes what it has.
    listener.signal("INT")?;
    listener.wait(PATIENCE)?;
    outcome(line, &last(&statistics)?, &ledger)
}

/// `srt-live-transmit`, whose words come by standard error.
fn transmit(arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new("sh");
    command.args(["-c", "exec srt-live-transmit \"$@\" 2>&1", "sh", "-v"]).args(arguments);
    Process::start("srt-live-transmit (apt-get install srt-tools)", &mut command)
}

/// Sends numbered datagrams at an even pace, and returns when the last one has come out, or nothing comes any more.
fn feed(inlet: SocketAddr, outlet: &UdpSocket, seconds: u64) -> anyhow::Result<()> {
    let each = Duration::from_secs_f64(f64::from(PAYLOAD) * 8e-6 / MBIT_S);
    let packets = (seconds as f64 / each.as_secs_f64()) as u32;
    let pump = std::thread::spawn(move || -> std::io::Result<()> {
        let socket = UdpSocket::bind((inlet.ip(), 0))?;
        let begin = Instant::now();
        for n in 0..packets {
            std::thread::sleep((begin + each * n).saturating_duration_since(Instant::now()));
            let mut packet = [0; PAYLOAD as usize];
            if let Some(head) = packet.first_chunk_mut() {
                *head = n.to_be_bytes();
            }
            socket.send_to(&packet, inlet)?;
        }
        Ok(())
    });
    outlet.set_read_timeout(Some(SILENCE))?;
    let (mut buffer, mut came) = ([0; 2_048], 0_u32);
    while let Ok(len) = outlet.recv(&mut buffer) {
        came += 1;
        let number = buffer.first_chunk().map(|n| u32::from_be_bytes(*n));
        if len == PAYLOAD as usize && number == Some(packets - 1) {
            break;
        }
    }
    pump.join().ok().context("the pump stopped")??;
    ensure!(came > 0, "nothing came by SRT");
    Ok(())
}

/// The last statistics that were written whole.
fn last(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file).context("the listener's statistics")?;
    let found = text.lines().rev().find_map(|l| serde_json::from_str(l).ok());
    found.context("the listener wrote no statistics")
}

fn outcome(line: &Line, said: &Value, ledger: &[Record]) -> anyhow::Result<Outcome> {
    let is_data = |len: u32| len == PAYLOAD + HEADER;
    let data = Flow::of(ledger, Direction::Up, is_data);
    // Acknowledgments and their answers, by which SRT knows the round trip.
    let (answers, acknowledgments) =
        (Flow::of(ledger, Direction::Up, |l| !is_data(l)), Flow::of(ledger, Direction::Down, |_| true));
    Ok(Outcome {
        capacity_mbit_s: Some(Pair::new(figure(said, "/link/bandwidth")?, line.mbit_s)),
        rate_mbit_s: Some(Pair::new(figure(said, "/recv/mbitRate")?, data.mbit_s(BELOW))),
        lost: Some(Pair::new(figure(said, "/recv/packetsLost")?, data.lost() as f64)),
        sent: data.sent(),
        jitter_ms: None,
        rtt_ms: Some(Pair::new(
            figure(said, "/link/rtt")?,
            (answers.delay_us() + acknowledgments.delay_us()) / 1_000.0,
        )),
    })
}
