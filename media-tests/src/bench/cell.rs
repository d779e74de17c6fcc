//! One measurement: a relay alone on its core, a generator and viewers on the other, and what came of it.

use super::ends::Participant;
use super::figures::{cpu_ns, resident};
use super::generator::FEED;
use super::schedule::Schedule;
use super::words::{
    Finished, GeneratorSettings, Made, Measured, Order, Reading, Target, ViewerKind, ViewerSettings, Word,
};
use super::{ENDS_CORE, RELAY_CORE};
use crate::process::{Process, binary, trocar};
use crate::stack::{PATIENCE, path};
use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Viewers of one participant: signaling has a limit.
const VIEWERS_EACH: usize = 16;
/// From the generator's end until the last packet must have come.
const LAST_PACKETS: Duration = Duration::from_millis(300);
/// Viewers that are there when the memory is read for the first time.
const FIRST_VIEWERS: usize = 16;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relay {
    /// `trocar up`.
    Trocar,
    /// The floor that seals ([`super::floor`]).
    Sealed,
    /// The floor that does not.
    Clear,
    /// The floor that seals and leaves one packet in so many out, for negative controls.
    Leaking(u64),
    /// [`super::str0m_relay`].
    Str0m,
}

/// How the feed comes to Trocar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingress {
    /// RTP over QUIC, a datagram per packet, as `trocar publish` does.
    Roq,
    /// WHIP and SRTP, as a browser does.
    Srtp,
}

/// How viewers of Trocar fetch the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// WebRTC; the relay prefers AES-256-GCM.
    Webrtc,
    /// WebRTC of somebody who has nothing but AES-CM.
    WebrtcCm,
    /// RTP over QUIC, a datagram per packet.
    Roq,
    /// RTP over QUIC, a stream per frame.
    RoqStreams,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// What is measured.
    pub relay: Relay,
    /// How many viewers.
    pub viewers: usize,
    /// The stream.
    pub schedule: Schedule,
    /// How the feed comes in, where the relay is Trocar.
    pub ingress: Ingress,
    /// How it is fetched, where the relay is Trocar.
    pub leg: Leg,
    /// What viewers read with.
    pub reading: Reading,
}

/// How long it runs.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before it counts, once every viewer gets packets.
    pub warm_up: Duration,
    /// While it counts.
    pub measure: Duration,
}

/// What came of a cell.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// CPU time of the relay's process per packet that a viewer got, in nanoseconds.
    pub ns_per_packet: f64,
    /// Bits per second that viewers got, in 10^9.
    pub gbit_out: f64,
    /// The same per second of CPU time.
    pub gbit_per_core: f64,
    /// What viewers got while it counted.
    pub measured: Measured,
    /// What became of the packets.
    pub finished: Finished,
    /// What the generator did.
    pub made: Made,
    /// Resident memory that each viewer beyond the first 16 adds, in bytes; where there are more than 16.
    pub memory_per_viewer: Option<f64>,
}

/// Runs one cell.
///
/// # Errors
/// Where a process does not come up or a viewer gets nothing.
pub fn run(cell: Cell, times: Times) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rig = Rig::start(cell)?;
    // A floor is told its viewers once.
    let at_once = if cell.relay == Relay::Trocar { FIRST_VIEWERS } else { usize::MAX };
    let first = cell.viewers.min(at_once);
    runtime.block_on(rig.open(first))?;
    let mut before = None;
    if cell.viewers > first {
        std::thread::sleep(times.warm_up);
        before = Some(resident(rig.relay.id())?);
        runtime.block_on(rig.open(cell.viewers - first))?;
    }
    std::thread::sleep(times.warm_up);
    let spent = rig.count(times.measure)?;
    let after = resident(rig.relay.id())?;
    let (measured, finished, made) = rig.finish()?;
    ensure!(measured.packets > 0, "{cell:?}: nothing came while it counted");
    let gbit = measured.bytes as f64 * 8.0 / 1e9;
    let added = before.map(|b| (after as f64 - b as f64) / (cell.viewers - first) as f64);
    Ok(Outcome {
        ns_per_packet: spent.cpu_ns as f64 / measured.packets as f64,
        gbit_out: gbit / spent.wall.as_secs_f64(),
        gbit_per_core: gbit / (spent.cpu_ns as f64 / 1e9),
        measured,
        finished,
        made,
        memory_per_viewer: added,
    })
}

struct Spent {
    wall: Duration,
    cpu_ns: u64,
}

/// A child and the way to speak to it.
struct Child {
    process: Process,
    stdin: Option<ChildStdin>,
}

impl Child {
    /// Starts a program pinned to a core.
    fn start(name: &str, core: usize, program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core.to_string()).arg(program).args(arguments).stdin(Stdio::piped());
        let mut process = Process::start(name, &mut command)?;
        Ok(Self { stdin: process.stdin(), process })
    }

    fn id(&self) -> u32 {
        self.process.id()
    }

    fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("closed")?;
        writeln!(stdin, "{}", serde_json::to_string(order)?).with_context(|| self.process.stderr())
    }

    fn word(&mut self) -> anyhow::Result<Word> {
        Ok(serde_json::from_str(&self.process.line(PATIENCE, |l| l.starts_with(['{', '"']))?)?)
    }

    fn await_ready(&mut self) -> anyhow::Result<()> {
        match self.word()? {
            Word::Ready => Ok(()),
            other => bail!("ready was expected, not {other:?}"),
        }
    }
}

/// Who answers a viewer's offer.
enum Admission {
    /// Signaling of Trocar.
    Trocar { base: String, observer: String, ca: PathBuf },
    /// The str0m relay itself.
    Str0m,
    /// A floor that waits for the list of viewers.
    Floor,
}

/// The processes of one cell.
struct Rig {
    cell: Cell,
    relay: Child,
    admission: Admission,
    generator: Child,
    viewers: Child,
    participant: Option<(Participant, usize)>,
    /// Holds the state of `trocar up`.
    _dir: Option<tempfile::TempDir>,
}

impl Rig {
    fn start(cell: Cell) -> anyhow::Result<Self> {
        let (relay, admission, target, dir) = match cell.relay {
            Relay::Trocar => start_trocar(cell.ingress)?,
            Relay::Sealed => start_floor(&["sealed"], Admission::Floor)?,
            Relay::Clear => start_floor(&["clear"], Admission::Floor)?,
            Relay::Leaking(n) => start_floor(&["sealed", "--lose", &n.to_string()], Admission::Floor)?,
            Relay::Str0m => start_floor(&["str0m"], Admission::Str0m)?,
        };
        let generator = GeneratorSettings { target, schedule: cell.schedule };
        let kind = match (&admission, cell.relay, cell.leg) {
            (Admission::Floor, Relay::Clear, _) => ViewerKind::Clear,
            (Admission::Floor, ..) => ViewerKind::Sealed,
            (Admission::Trocar { base, observer, ca }, _, Leg::Roq | Leg::RoqStreams) => ViewerKind::Roq {
                base: base.clone(),
                invitation: observer.clone(),
                ca: ca.clone(),
                streams: cell.leg == Leg::RoqStreams,
            },
            (_, _, leg) => ViewerKind::Webrtc { cm: leg == Leg::WebrtcCm },
        };
        let viewers = ViewerSettings { kind, reading: cell.reading };
        let ends = binary("trocar-bench-ends")?;
        let viewers = ["viewers", &serde_json::to_string(&viewers)?];
        let viewers = Child::start("viewers", ENDS_CORE, &ends, &viewers)?;
        let generator = ["generator", &serde_json::to_string(&generator)?];
        let mut generator = Child::start("generator", ENDS_CORE, &ends, &generator)?;
        generator.await_ready()?;
        Ok(Self { cell, relay, admission, generator, viewers, participant: None, _dir: dir })
    }

    /// Brings that many viewers more, and waits until all get packets.
    async fn open(&mut self, count: usize) -> anyhow::Result<()> {
        self.viewers.order(&Order::Open(count))?;
        let is_roq = self.cell.relay == Relay::Trocar && matches!(self.cell.leg, Leg::Roq | Leg::RoqStreams);
        if matches!(self.admission, Admission::Floor) {
            let Word::Addresses(addresses) = self.viewers.word()? else { bail!("no addresses") };
            self.relay.order(&Order::Viewers(addresses))?;
            self.relay.await_ready()?;
        } else if !is_roq {
            for _ in 0..count {
                let Word::Offer(offer) = self.viewers.word()? else { bail!("no offer") };
                let answer = self.answer(offer).await?;
                self.viewers.order(&Order::Answer(answer))?;
            }
        }
        self.viewers.await_ready()
    }

    async fn answer(&mut self, offer: String) -> anyhow::Result<String> {
        let Admission::Trocar { base, observer, .. } = &self.admission else {
            self.relay.order(&Order::Offer(offer))?;
            let Word::Answer(answer) = self.relay.word()? else { bail!("no answer") };
            return Ok(answer);
        };
        if self.participant.as_ref().is_none_or(|(_, has)| *has >= VIEWERS_EACH) {
            self.participant = Some((Participant::join(base, observer, None).await?, 0));
        }
        let (participant, has) = self.participant.as_mut().context("participant")?;
        *has += 1;
        participant.whep(FEED, offer).await
    }

    fn count(&mut self, how_long: Duration) -> anyhow::Result<Spent> {
        self.viewers.order(&Order::Begin)?;
        let (began, before) = (Instant::now(), cpu_ns(self.relay.id())?);
        std::thread::sleep(how_long);
        let (wall, after) = (began.elapsed(), cpu_ns(self.relay.id())?);
        self.viewers.order(&Order::End)?;
        Ok(Spent { wall, cpu_ns: after - before })
    }

    fn finish(&mut self) -> anyhow::Result<(Measured, Finished, Made)> {
        let Word::Measured(measured) = self.viewers.word()? else { bail!("nothing was measured") };
        self.generator.order(&Order::Stop)?;
        let Word::Made(made) = self.generator.word()? else { bail!("the generator does not say what it made") };
        std::thread::sleep(LAST_PACKETS);
        self.viewers.order(&Order::Finish(made.packets))?;
        let Word::Finished(finished) = self.viewers.word()? else { bail!("the viewers do not say what is missing") };
        Ok((measured, finished, made))
    }
}

type Started = (Child, Admission, Target, Option<tempfile::TempDir>);

fn start_floor(arguments: &[&str], admission: Admission) -> anyhow::Result<Started> {
    let mut relay = Child::start("floor", RELAY_CORE, &binary("trocar-bench-floor")?, arguments)?;
    let Word::Ingress(to) = relay.word()? else { bail!("no ingress") };
    Ok((relay, admission, Target::Udp(to), None))
}

fn start_trocar(ingress: Ingress) -> anyhow::Result<Started> {
    let dir = tempfile::tempdir()?;
    let state = dir.path().join("state");
    let arguments = ["up", "--json", "--dir", path(&state)?, "--port", "0"];
    let mut relay = Child::start("trocar up", RELAY_CORE, &trocar()?, &arguments)?;
    let report = relay.process.line(PATIENCE, |l| l.starts_with('{'))?;
    let stack = Report(serde_json::from_str(&report)?);
    let base = stack.text("/page")?;
    let ca = PathBuf::from(stack.text("/ca_file")?);
    let (publisher, observer) = (stack.text("/tokens/local")?, stack.text("/tokens/observer")?);
    let target = match ingress {
        Ingress::Roq => Target::Roq { base: base.clone(), invitation: publisher, ca: ca.clone() },
        Ingress::Srtp => Target::Whip { base: base.clone(), invitation: publisher },
    };
    Ok((relay, Admission::Trocar { base, observer, ca }, target, Some(dir)))
}

/// What `trocar up --json` prints.
struct Report(serde_json::Value);

impl Report {
    fn text(&self, pointer: &str) -> anyhow::Result<String> {
        let found = self.0.pointer(pointer).and_then(serde_json::Value::as_str);
        found.map(ToOwned::to_owned).with_context(|| format!("{pointer} is not in {}", self.0))
    }
}
