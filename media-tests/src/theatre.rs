//! An operating room and an expert far away, as processes of their own: device, gate, relay with signaling, publisher, viewer,
//! station. What the tests look at is what the device wrote down.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

mod start;

pub use start::{SecondPath, gate_config, start_device_again, wait_metric, write_device_key};

use crate::cluster::Cluster;
use crate::line::Line;
use crate::netns::Namespace;
use crate::process::{Process, trocar};
use crate::sentinel::boot_us;
use crate::stack::{PATIENCE, Stack, path};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use start::{free_tcp, free_udp, issue, start_device, start_eye, start_gate, start_station, write_gate_config};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A process that one talks to in JSON lines.
pub struct Talker {
    /// The process.
    pub process: Process,
    input: Arc<Mutex<ChildStdin>>,
}

impl Talker {
    /// Starts it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let mut process = Process::start(name, command.stdin(Stdio::piped()))?;
        let input = Arc::new(Mutex::new(process.stdin().context("no standard input")?));
        Ok(Self { process, input })
    }

    /// Says this line ten times a second from now on, as long as the process listens and this is not dropped: somebody is there.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn keep_saying(&self, line: &'static str) -> anyhow::Result<()> {
        let input = Arc::downgrade(&self.input);
        let beating = std::thread::Builder::new().name("beat".to_owned()).spawn(move || {
            while let Some(input) = input.upgrade() {
                let said = writeln!(input.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
                drop(input);
                if said.is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        beating.map(drop).map_err(Into::into)
    }

    /// Says one line.
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn tell(&mut self, line: &Value) -> anyhow::Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(input, "{line}")?;
        input.flush().map_err(Into::into)
    }

    /// The next line that is like this; others are passed over.
    ///
    /// # Errors
    /// Where none comes.
    pub fn until(&mut self, what: &str, mut like: impl FnMut(&Value) -> bool) -> anyhow::Result<Value> {
        let mut found = Value::Null;
        let mut last = String::new();
        let line = self.process.line(PATIENCE, |l| {
            let Ok(v) = serde_json::from_str::<Value>(l) else { return false };
            last = l.to_owned();
            let good = like(&v);
            if good {
                found = v;
            }
            good
        });
        line.map(|_| found).with_context(|| format!("waiting for {what}; the last line was {last}"))
    }
}

/// What the device wrote down, read as it is written.
pub struct Record {
    file: BufReader<std::fs::File>,
    part: String,
    /// Everything so far.
    pub events: Vec<Value>,
}

impl Record {
    fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { file: BufReader::new(std::fs::File::open(path)?), part: String::new(), events: Vec::new() })
    }

    /// Reads what is new.
    ///
    /// # Errors
    /// Where a whole line is no JSON.
    pub fn read(&mut self) -> anyhow::Result<()> {
        while self.file.read_line(&mut self.part)? > 0 {
            if self.part.ends_with('\n') {
                self.events.push(serde_json::from_str(&self.part).with_context(|| self.part.clone())?);
                self.part.clear();
            }
        }
        Ok(())
    }

    /// The first event after that time that is like this, waited for.
    ///
    /// # Errors
    /// Where none comes within `patience`.
    pub fn after(
        &mut self,
        at_us: u64,
        what: &str,
        patience: Duration,
        like: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let began = Instant::now();
        loop {
            self.read()?;
            if let Some(found) = self.events.iter().find(|e| time(e) >= at_us && like(e)) {
                return Ok(found.clone());
            }
            if began.elapsed() > patience {
                let tail: Vec<String> = self.events.iter().rev().take(6).map(ToString::to_string).collect();
                bail!("the device did not write down {what}; its last: {}", tail.join("\n"));
            }
            // A file's growth is no event that std can wait for; this is a poll, not a delay.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All events between two times that are like this.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn between(&mut self, from: u64, to: u64, like: impl Fn(&Value) -> bool) -> anyhow::Result<Vec<Value>> {
        self.read()?;
        Ok(self.events.iter().filter(|e| (from..to).contains(&time(e)) && like(e)).cloned().collect())
    }
}

/// When an event was, boot clock.
#[must_use]
pub fn time(event: &Value) -> u64 {
    event["at"].as_u64().unwrap_or(0)
}

/// A motion of the expert was carried out.
#[must_use]
pub fn is_motion(event: &Value) -> bool {
    event["event"] == "act" && event["act"] == "command" && event["verdict"] == "taken"
}

/// The remote side stopped moving at the device, whoever ordered it.
#[must_use]
pub fn is_hold(event: &Value) -> bool {
    event["event"] == "change" && (event["held"] == true || event["latched"] == true)
}

/// The device was told to obey that one, and does.
pub fn selects(whom: &'static str) -> impl Fn(&Value) -> bool {
    move |event| {
        event["event"] == "act" && event["act"] == "select" && event["to"] == whom && event["verdict"] == "taken"
    }
}

/// Place of a selection among all: a selection that is repeated until the device has reported it keeps its place, so that a later act
/// is told from it.
#[must_use]
pub fn place(event: &Value) -> (u64, u64) {
    (event["fence"].as_u64().unwrap_or(0), event["sequence"].as_u64().unwrap_or(0))
}

/// What a theatre is made of, for tests that need it otherwise.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the gate keeps its store; a folder of its own where nothing is said.
    pub store: Option<PathBuf>,
    /// More lines for the gate's configuration.
    pub gate: String,
    /// Lines of the node's configuration; of one that has its relay in its own process and is on this machine.
    pub node: String,
    /// The publisher's source.
    pub source: String,
    /// Gate and station get their wall clock from here (libfaketime): `+0`, later perhaps `+3600`.
    pub wall_clock: Option<PathBuf>,
    /// Station and gate reach the relay without the lines between: for what is measured to the microsecond.
    pub direct: bool,
    /// Two relays, and a path by each: control goes by both.
    pub two_paths: bool,
    /// Signaling with its store is a process of its own, and so are the relays: one for pictures, one for control.
    pub apart: bool,
    /// Signaling and two relays that answer measurements are processes of their own ([`Cluster::start_measured`]).
    pub measured: bool,
    /// The expert's station is on a machine of its own, a network namespace, without a line between.
    pub far: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            store: None,
            gate: String::new(),
            node: String::new(),
            source: "test:640x360@30".to_owned(),
            wall_clock: None,
            direct: false,
            two_paths: false,
            apart: false,
            measured: false,
            far: false,
        }
    }
}

/// All of it. Fields are dropped in this order.
pub struct Theatre {
    /// The expert's station.
    pub station: Talker,
    /// The expert's picture.
    pub eye: Process,
    /// The publisher in the operating room.
    pub camera: Process,
    /// The rest.
    pub room: Room,
}

impl std::ops::Deref for Theatre {
    type Target = Room;
    fn deref(&self) -> &Room {
        &self.room
    }
}

impl std::ops::DerefMut for Theatre {
    fn deref_mut(&mut self) -> &mut Room {
        &mut self.room
    }
}

/// Relay, device and gate: for tests that speak for the experts themselves.
pub struct Room {
    /// The gate.
    pub gate: Talker,
    /// What moves.
    pub device: Process,
    /// What it wrote down.
    pub record: Record,
    /// Between station and relay.
    pub line: Line,
    /// Between gate and relay.
    pub gate_line: Line,
    /// The other path, where there are two.
    pub second: Option<SecondPath>,
    /// Relay and signaling; signaling alone where they are apart.
    pub stack: Stack,
    /// Relays that are processes of their own: for pictures, for control.
    pub relays: Vec<Process>,
    /// Where things are.
    pub places: Places,
    /// The machine of the stations, where it is another one.
    pub far: Option<Namespace>,
    /// Views of the console from before this do not count any more: what a test looks for came after its last act.
    since: u64,
}

/// Files and addresses.
#[derive(Debug, Clone)]
pub struct Places {
    /// Everything is below.
    pub dir: PathBuf,
    device: SocketAddr,
    frames: SocketAddr,
    setting: Setting,
    /// The network namespace that stations are started in.
    far: Option<String>,
}

impl Places {
    /// The gate's configuration.
    #[must_use]
    pub fn gate_config(&self) -> PathBuf {
        self.dir.join("gate.toml")
    }

    /// The gate's store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.setting.store.clone().unwrap_or_else(|| self.dir.join("gate-store"))
    }

    /// When a station sent which command: `--ledger` of `trocar operate`.
    #[must_use]
    pub fn ledger(&self, station: &str) -> PathBuf {
        self.dir.join(format!("{station}.ledger"))
    }

    /// The audit chain.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.store().join("audit.jsonl")
    }
}

impl Room {
    /// The station's ends of the lines.
    fn paths(&self) -> Vec<SocketAddr> {
        let second = self.second.iter().map(|s| s.line.address);
        std::iter::once(self.line.address).chain(second).collect()
    }

    /// Starts it and waits until the device is known to the gate.
    ///
    /// # Errors
    /// What did not come up.
    pub fn open(setting: Setting) -> anyhow::Result<Self> {
        let far = if setting.far { Some(Namespace::new()?) } else { None };
        let mut rendezvous = None;
        let (stack, mut relays_apart) = if setting.measured {
            let (Cluster { stack, relays }, control) = Cluster::start_measured()?;
            rendezvous = Some(control);
            (stack, relays.into_iter().map(|relay| relay.process).collect())
        } else if setting.apart {
            let Cluster { stack, relays } = Cluster::start(&[("apart", &["feeds", "legs"])])?;
            // The relay of control shows what a node's own relay would.
            for kind in ["pem", "key"] {
                let state = stack.dir.path().join("state");
                std::fs::copy(state.join(format!("apart.{kind}")), state.join(format!("relay.{kind}")))?;
            }
            (stack, relays.into_iter().map(|relay| relay.process).collect())
        } else {
            let here = || Stack::start_with(&setting.node);
            (far.as_ref().map_or_else(here, |far| Stack::start_at(&far.host()))?, Vec::new())
        };
        let dir = stack.dir.path().to_owned();
        let name = far.as_ref().map(|far| far.name().to_owned());
        let places = Places { dir, device: free_udp()?, frames: free_tcp()?, setting, far: name };
        let (line, gate_line) = if places.setting.apart {
            let SecondPath { relay, line, gate_line } = SecondPath::start(&stack, &places)?;
            relays_apart.push(relay);
            (line, gate_line)
        } else {
            let control = if let Some(at) = rendezvous { at } else { stack.text("/relay/control")?.parse()? };
            (Line::to(control)?, Line::to(control)?)
        };
        issue(&stack)?;
        let second = if places.setting.two_paths { Some(SecondPath::start(&stack, &places)?) } else { None };
        let direct = if places.setting.direct { Some(stack.text("/relay/control")?.parse()?) } else { None };
        let mut relays = vec![direct.unwrap_or(gate_line.address)];
        relays.extend(second.iter().map(|s| s.gate_line.address));
        write_gate_config(&stack, &places, &relays)?;
        let (device, record) = start_device(&places)?;
        let gate = start_gate(&places)?;
        let relays = relays_apart;
        let mut room = Self { gate, device, record, line, gate_line, second, stack, relays, places, far, since: 0 };
        room.gate_shows("the device", |v| v["device"]["heard_us"].is_u64())?;
        Ok(room)
    }

    /// An act of local, which has to be taken.
    ///
    /// # Errors
    /// The gate's refusal.
    pub fn local(&mut self, act: Value) -> anyhow::Result<u64> {
        let (at, error) = self.try_local(act.clone())?;
        match error {
            None => Ok(at),
            Some(error) => bail!("{act}: {error}"),
        }
    }

    /// An act of local, and what the gate said of it: when it went out, and why it was refused.
    ///
    /// # Errors
    /// Where the gate does not answer.
    pub fn try_local(&mut self, act: Value) -> anyhow::Result<(u64, Option<String>)> {
        let at = boot_us();
        self.since = at;
        self.gate.tell(&act)?;
        let answer = self.gate.until("an answer to an act", |v| v["type"] == "answer" || v["type"] == "mistake")?;
        Ok((at, answer["error"].as_str().map(ToOwned::to_owned)))
    }

    /// Local's TAKE, and when the device did it: the first selection of local after every one that was there before.
    ///
    /// # Errors
    /// Where it does not come about.
    pub fn take(&mut self) -> anyhow::Result<(u64, u64)> {
        self.record.read()?;
        let is_select = |e: &&Value| e["event"] == "act" && e["act"] == "select";
        let before = self.record.events.iter().filter(is_select).map(place).max().unwrap_or_default();
        let at = self.local(json!({ "act": "take" }))?;
        let is_new = |e: &Value| selects("local")(e) && place(e) > before;
        let taken = self.record.after(at, "local selected anew", PATIENCE, is_new)?;
        Ok((at, time(&taken)))
    }

    /// The next view of the gate's console that is like this.
    ///
    /// # Errors
    /// Where none comes.
    pub fn gate_shows(&mut self, what: &str, like: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let since = self.since;
        self.gate.until(what, |v| v["type"] == "view" && at_us(v) >= since && like(v))
    }

    /// Waits until that time of the boot clock, reading what the device writes down meanwhile: for failures that have a length.
    ///
    /// # Errors
    /// Where the record cannot be read.
    pub fn pass(&mut self, until_us: u64) -> anyhow::Result<()> {
        while let left @ 1.. = until_us.saturating_sub(boot_us()) {
            std::thread::sleep(Duration::from_micros(left.min(20_000)));
            self.record.read()?;
        }
        Ok(())
    }

    /// Another expert, with a certificate of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn second_station(&self, name: &str) -> anyhow::Result<Talker> {
        start_station(&self.stack, &self.places, &[self.line.address], name)
    }

    /// Starts the gate again, or a second one with the same configuration.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_gate(&self) -> anyhow::Result<Talker> {
        start_gate(&self.places)
    }

    /// A second gate for the same device, with a store of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn second_gate(&self) -> anyhow::Result<Talker> {
        let mut places = self.places.clone();
        let text = std::fs::read_to_string(places.gate_config())?;
        places.dir = places.dir.join("second");
        std::fs::create_dir_all(&places.dir)?;
        let frames = text.replace(&places.frames.to_string(), &free_tcp()?.to_string());
        let store = self.places.store();
        let other = frames.replace(&format!("{store:?}"), &format!("{:?}", places.dir.join("store")));
        std::fs::write(places.gate_config(), other)?;
        start_gate(&places)
    }

    /// A document that withdraws everything takes the place of the consent.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub fn withdraw_consent(&self) -> anyhow::Result<()> {
        let state = self.stack.dir.path().join("state");
        verb(&["consent", "withdraw", "--dir", path(&state)?])
    }

    /// A revocation list that names that certificate reaches the gate.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn revoke(&self, name: &str) -> anyhow::Result<()> {
        let state = self.stack.dir.path().join("state");
        let list = PathBuf::from(self.stack.text("/gate/trust")?).join("crl.pem");
        verb(&["ca", "revoke", "--dir", path(&state)?, "--crl", path(&list)?, name])
    }

    /// The device's events of one kind since then: none may be there.
    ///
    /// # Errors
    /// Where one is.
    pub fn nothing_moves(&mut self, from: u64) -> anyhow::Result<()> {
        let moved = self.record.between(from, u64::MAX, is_motion)?;
        ensure!(moved.is_empty(), "{} motions after {from}: {}", moved.len(), moved.first().unwrap_or(&Value::Null));
        Ok(())
    }
}

impl Theatre {
    /// Starts everything and waits until the expert is known to the gate.
    ///
    /// # Errors
    /// What did not come up.
    pub fn open() -> anyhow::Result<Self> {
        Self::open_as(Setting::default())
    }

    /// As [`Self::open`], otherwise set.
    ///
    /// # Errors
    /// What did not come up.
    pub fn open_as(setting: Setting) -> anyhow::Result<Self> {
        let room = Room::open(setting)?;
        let (stack, places) = (&room.stack, &room.places);
        let proof = places.frames.to_string();
        let source = &places.setting.source;
        let camera = stack.publish(&["--source", source, "--feed", "scope", "--frame-proof", &proof])?;
        let eye = start_eye(stack, places)?;
        let station = start_station(stack, places, &room.paths(), "station")?;
        let mut theatre = Self { station, eye, camera, room };
        theatre.gate_shows("the expert", |v| somebody(v).is_some())?;
        Ok(theatre)
    }

    /// The ordinary way into REMOTE: TAKE, OFFER, ACCEPT, alignment, green gates, CONFIRM; then the clutch is closed and a trajectory
    /// runs at so many commands a second, for a minute.
    ///
    /// # Errors
    /// Where a step does not come about.
    pub fn remote(&mut self, set: &str, hz: u32) -> anyhow::Result<()> {
        self.ready(set)?;
        self.local(json!({ "act": "confirm" }))?;
        self.gate_shows("REMOTE", |v| v["mode"] == "remote")?;
        self.engage(hz)
    }

    /// To READY with green link gates.
    ///
    /// # Errors
    /// Where a step does not come about.
    pub fn ready(&mut self, set: &str) -> anyhow::Result<()> {
        self.local(json!({ "act": "take" }))?;
        self.station.tell(&json!({ "pose": {}, "clutch": "open" }))?;
        // On a machine that is busy with other things a link gate may turn red; local offers again then, as a surgeon would.
        for _ in 0..5 {
            self.local(json!({ "act": "offer", "set": set, "step": "clip the cystic duct" }))?;
            self.station.until("the offer", |v| v["event"] == "offer")?;
            // HO-R-005: pressed anew after the ACCEPT.
            self.station.tell(&json!({ "presence": false }))?;
            self.station.tell(&json!({ "do": "accept" }))?;
            self.gate_shows("READY", |v| v["mode"] == "ready")?;
            let ready = boot_us();
            self.gate_shows("presence released", |v| at_us(v) > ready + 100_000)?;
            self.station.tell(&json!({ "presence": true }))?;
            let green = |v: &Value| v["colours"].as_array().is_some_and(|c| c.iter().all(|c| c == "green"));
            let end =
                self.gate_shows("green link gates", |v| v["mode"] == "local" || v["mode"] == "ready" && green(v))?;
            if end["mode"] == "ready" {
                return Ok(());
            }
        }
        bail!("the link gates did not become green in five offers")
    }

    /// Opens and closes the clutch and starts to move.
    ///
    /// # Errors
    /// Where motion does not begin.
    pub fn engage(&mut self, hz: u32) -> anyhow::Result<()> {
        self.station.until("the grant", |v| v["event"] == "grant")?;
        let from = boot_us();
        self.station.tell(&json!({ "clutch": "open" }))?;
        self.gate_shows("an open clutch", |v| v["stopped"].as_u64().is_some_and(|c| c & 8 != 0))?;
        self.station.tell(&json!({ "clutch": "closed", "trajectory": "circle", "hz": hz, "seconds": 60 }))?;
        self.record.after(from, "a motion", PATIENCE, is_motion).map(drop)
    }

    /// Starts a station that is a new process with the same certificate.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn restart_station(&mut self) -> anyhow::Result<()> {
        self.station = start_station(&self.stack, &self.places, &self.paths(), "station")?;
        Ok(())
    }
}

/// When a view of the console was made, boot clock.
#[must_use]
pub fn at_us(view: &Value) -> u64 {
    view["at_us"].as_u64().unwrap_or(0)
}

/// The first expert that has said HELLO, as the console shows it.
#[must_use]
pub fn somebody(view: &Value) -> Option<&str> {
    let all = view["connected"].as_array()?;
    all.iter().find(|c| c["signaling"] == false && c["person"].is_string()).and_then(|c| c["certificate"].as_str())
}

fn verb(arguments: &[&str]) -> anyhow::Result<()> {
    let out = Command::new(trocar()?).args(arguments).output()?;
    ensure!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
