//! `iperf3 -u`, from client to server. Its control connection is TCP at the same port number: it goes straight on beside the
//! emulator, which carries UDP alone. So the control connection is neither delayed nor lost.

use super::{Emulator, Line, Outcome, Pair, Place, figure};
use crate::ledger::Flow;
use crate::process::Process;
use crate::stack::PATIENCE;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;
use trocar_proto::link::Direction;

/// Its own port, below those that the system gives out.
const PORT: u16 = 5201;

/// What it sends.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Mbit/s of UDP payload.
    pub mbit_s: f64,
    /// UDP payload of a packet.
    pub bytes: u32,
    /// Packets.
    pub packets: u64,
}

/// What it said, and the ledger's flow.
pub struct Ran {
    /// Its report (JSON).
    pub report: Value,
    /// Packets that the server says were lost.
    pub lost: u64,
    /// The number of the last packet that the server counted, from 1. It stops when the control connection says so, and what is on the
    /// line by then, or in its socket, is neither received nor lost.
    pub counted: u64,
    /// Its packets, up.
    pub flow: Flow,
}

impl Ran {
    /// Its count of losses is what its way of counting makes of these packets: exact up to the last one that it counted.
    ///
    /// # Errors
    /// What differs.
    pub fn accounts_for(&self, truth: &Flow) -> anyhow::Result<()> {
        let lost = truth.clone().first(self.counted)?.lost();
        ensure!(self.lost == lost, "iperf3: {} lost of the first {}, ledger {lost}", self.lost, self.counted);
        Ok(())
    }
}

/// Sends so many packets over a line.
///
/// # Errors
/// What `iperf3` says.
pub fn send(at: Place, profile: &str, seed: u64, load: Load) -> anyhow::Result<Ran> {
    let server = SocketAddr::from((at.server, PORT));
    let line = SocketAddr::from((at.line, PORT));
    let port = PORT.to_string();
    let mut command = Command::new("iperf3");
    command.args(["-s", "-1", "--forceflush", "-p", &port, "-B", &at.server.to_string()]);
    let mut serving = Process::start("iperf3 (apt-get install iperf3)", &mut command)?;
    serving.line(PATIENCE, |l| l.contains("Server listening"))?;
    let emulator = Emulator::open(line, &server.to_string(), profile, seed)?;
    beside(line, server)?;

    let mut command = Command::new("iperf3");
    let (rate, bytes, packets) = (format!("{}M", load.mbit_s), load.bytes.to_string(), load.packets.to_string());
    command.args(["-c", &at.line.to_string(), "-p", &port, "-u", "-J", "-b", &rate, "-l", &bytes, "-k", &packets]);
    let mut client = Process::start("iperf3", &mut command)?;
    let lasts = load.packets as f64 * f64::from(load.bytes) * 8e-6 / load.mbit_s;
    let status = client.wait(PATIENCE + Duration::from_secs_f64(lasts))?;
    let said = client.rest().join("\n");
    let report: Value = serde_json::from_str(&said).with_context(|| format!("iperf3 said: {said}"))?;
    let error = report.get("error");
    ensure!(status.success() && error.is_none(), "iperf3: {error:?}");
    let flow = Flow::of(&emulator.end()?, Direction::Up, |len| len == load.bytes);
    let count = |key: &str| figure(&report, &format!("/end/sum_received/{key}")).map(|n| n as u64);
    Ok(Ran { lost: count("lost_packets")?, counted: count("packets")?, report, flow })
}

/// A line of the table.
///
/// # Errors
/// As [`send`].
pub fn run(line: &Line, at: Place, seed: u64, seconds: u64) -> anyhow::Result<Outcome> {
    let bytes = 1_200;
    let packets = (line.iperf_mbit_s * 1e6 * seconds as f64 / f64::from(bytes * 8)) as u64;
    let ran = send(at, &line.profile(), seed, Load { mbit_s: line.iperf_mbit_s, bytes, packets })?;
    let of = |key: &str| figure(&ran.report, &format!("/end/sum_received/{key}"));
    let rate = of("bits_per_second")? / 1e6;
    let filled = line.iperf_mbit_s > line.mbit_s;
    Ok(Outcome {
        capacity_mbit_s: filled.then_some(Pair::new(rate, line.mbit_s)),
        rate_mbit_s: Some(Pair::new(rate, ran.flow.mbit_s(0))),
        lost: Some(Pair::new(ran.lost as f64, ran.flow.lost() as f64)),
        sent: ran.flow.sent(),
        jitter_ms: Some(Pair::new(of("jitter_ms")?, ran.flow.smoothed_jitter_us() / 1_000.0)),
        rtt_ms: None,
    })
}

/// Carries one TCP connection from `listen` straight to `to`, until either end closes it.
fn beside(listen: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("TCP at {listen}"))?;
    std::thread::Builder::new().name("beside".to_owned()).spawn(move || -> io::Result<()> {
        let (client, _) = listener.accept()?;
        drop(listener);
        let server = TcpStream::connect(to)?;
        let (from, into) = (client.try_clone()?, server.try_clone()?);
        let up = std::thread::spawn(move || carry(from, &into));
        carry(server, &client);
        // A thread that panicked has said so on standard error.
        let _ = up.join();
        Ok(())
    })?;
    Ok(())
}

/// Until the end, or until one of them is gone.
fn carry(mut from: TcpStream, mut into: &TcpStream) {
    let _ = io::copy(&mut from, &mut into);
    let _ = into.shutdown(Shutdown::Write);
}
