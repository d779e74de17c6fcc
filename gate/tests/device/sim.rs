//! Starts `trocar-sim-device` and reads its record as it is written: the record is the process's standard output, so that every wait is
//! a wait for a line.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use trocar_gate::core::{Device, Event, Inbox};
use trocar_gate::device::{DeviceConfig, Key, PayloadFormat, open};
use trocar_proto::handover::device_wire::sim::Motion;
use trocar_proto::handover::gate::{DeviceAct, DeviceReport, Input};
use trocar_proto::handover::message::Payload;
use trocar_proto::handover::types::{BootId, Counter, Epoch, GrantedSet, Selection};

/// Longest wait for a line, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// Keep-alives of a gate at work.
const ALIVE: Duration = Duration::from_millis(20);

/// Key and state of one device, over its restarts.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        Key::create(&home.key()).unwrap();
        home
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.path().join("device.key")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Port 0 takes a free one; a restart takes the old one.
    pub(crate) fn command(&self, port: u16) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trocar-sim-device"));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--record", "/dev/stdout"]);
        command.arg("--key-file").arg(self.key()).arg("--state").arg(self.state());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, port: u16, args: &[&str]) -> Sim {
        Sim::start(self.command(port).args(args))
    }
}

/// A running device.
pub(crate) struct Sim {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    lines: Receiver<Value>,
    /// Every line so far.
    pub(crate) seen: Vec<Value>,
}

impl Sim {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (found, lines) = sync_channel(1_000_000);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str::<Value>(&line)
                    && found.send(value).is_err()
                {
                    return;
                }
            }
        });
        let address = "127.0.0.1:0".parse().unwrap();
        let mut sim = Self { child, address, lines, seen: Vec::new() };
        let started = sim.wait("the start", |line| line["event"] == "started");
        sim.address = started["address"].as_str().unwrap().parse().unwrap();
        sim
    }

    /// The next line of the record that is so.
    pub(crate) fn wait(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.wait_while(what, is, || ())
    }

    /// The same, with something to do every 20 ms meanwhile.
    pub(crate) fn wait_while(&mut self, what: &str, is: impl Fn(&Value) -> bool, mut meanwhile: impl FnMut()) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "waited for {what}; the record ends with {:#?}", self.tail());
            meanwhile();
            match self.lines.recv_timeout(ALIVE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if is(&line) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the device ended before {what}: {:#?}", self.tail()),
            }
        }
    }

    /// What is left of the record after the process's end.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        self.lines.iter().collect()
    }

    fn tail(&self) -> &[Value] {
        &self.seen[self.seen.len().saturating_sub(8)..]
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gate's adapter, driven by the test in place of the core.
pub(crate) struct Gate {
    pub(crate) device: Box<dyn Device>,
    pub(crate) inbox: Inbox,
    pub(crate) boot: BootId,
    pub(crate) fence: u64,
    pub(crate) sequence: u64,
}

impl Gate {
    /// Opens the adapter and waits for its first report.
    pub(crate) fn open(home: &Home, address: SocketAddr, boot: u128) -> Self {
        let config = DeviceConfig::Udp { address, key_file: home.key(), payload: PayloadFormat::Sim };
        Self::with(&config, boot)
    }

    pub(crate) fn with(config: &DeviceConfig, boot: u128) -> Self {
        let inbox = Inbox::default();
        let device = open(config, inbox.clone()).unwrap();
        let mut gate = Self { device, inbox, boot: BootId(boot), fence: 0, sequence: 0 };
        let report = gate.report("a first report", |_| true);
        gate.fence = report.highest.0;
        gate
    }

    /// The next report that is so; keep-alives go on while a fence is in use.
    pub(crate) fn report(&mut self, what: &str, is: impl Fn(&DeviceReport) -> bool) -> DeviceReport {
        let input = self.input(what, |input| matches!(input, Input::Device(report) if is(report)));
        let Input::Device(report) = input else { unreachable!("chosen above") };
        report
    }

    pub(crate) fn input(&mut self, what: &str, is: impl Fn(&Input) -> bool) -> Input {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(Event::Input(input)) = self.inbox.pop(ALIVE)
                && is(&input)
            {
                return input;
            }
            if self.sequence > 0 {
                self.keep_alive();
            }
        }
        panic!("waited for {what}");
    }

    pub(crate) fn keep_alive(&mut self) {
        let (boot, fence) = (self.boot, Epoch(self.fence));
        self.device.act(&DeviceAct::KeepAlive { boot, fence });
    }

    /// With the next fence.
    pub(crate) fn select_anew(&mut self, to: Selection) {
        (self.fence, self.sequence) = (self.fence + 1, 0);
        self.select(to);
    }

    pub(crate) fn select(&mut self, to: Selection) {
        self.sequence += 1;
        let (boot, fence, sequence) = (self.boot, Epoch(self.fence), self.sequence);
        self.device.act(&DeviceAct::Select { boot, to, fence, sequence });
    }

    /// 0.1 mm to the right.
    pub(crate) fn command(&mut self, set: GrantedSet, energy: bool) -> u64 {
        self.sequence += 1;
        let payload = Motion { axes: [100, 0, 0, 0, 0, 0], ..Motion::default() }.encode();
        self.device.act(&DeviceAct::Command {
            fence: Epoch(self.fence),
            sequence: self.sequence,
            counter: Counter(1_000 + self.sequence),
            set,
            energy,
            payload: Payload::new(payload).unwrap(),
        });
        self.sequence
    }

    /// Remote under a new fence that is on the device's disk.
    pub(crate) fn remote(&mut self, sim: &mut Sim) {
        self.select_anew(Selection::Remote);
        let fence = self.fence;
        sim.wait_while("a durable fence", |line| is(line, "durable", &[("fence", fence.into())]), || self.keep_alive());
    }
}

/// Whether the line is this event with these fields.
pub(crate) fn is(line: &Value, event: &str, fields: &[(&str, Value)]) -> bool {
    line["event"] == event && fields.iter().all(|(name, value)| line[*name] == *value)
}
