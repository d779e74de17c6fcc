//! How each process of the theatre is started, and what its files say.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::{Places, Record, Talker, verb};
use crate::line::Line;
use crate::process::{Process, binary, trocar};
use crate::stack::{PATIENCE, Stack, path};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A relay of its own, and the lines to it.
pub struct SecondPath {
    /// `trocar-relay`.
    pub relay: Process,
    /// Between station and that relay.
    pub line: Line,
    /// Between gate and that relay.
    pub gate_line: Line,
}

impl SecondPath {
    /// Starts it with the certificate of the first one: control knows relays by their addresses alone.
    pub(super) fn start(stack: &Stack, places: &Places) -> anyhow::Result<Self> {
        let state = stack.dir.path().join("state");
        let file = |name: &str| state.join(name);
        let mut t = String::new();
        writeln!(t, "cert = {:?}\nkey = {:?}\ntrust = {:?}\n", file("relay.pem"), file("relay.key"), file("ca.pem"))?;
        writeln!(t, "[admission]\nlisten = \"127.0.0.1:0\"\n")?;
        writeln!(t, "[[listener]]\nrealm = \"local\"\nwebrtc = \"127.0.0.1:0\"\nquic = \"127.0.0.1:0\"\n")?;
        writeln!(t, "[control]\nlisten = \"127.0.0.1:0\"\nissuer = {:?}", stack.text("/gate/issuer")?)?;
        writeln!(t, "issuer_key = {:?}\n\n[limits]\nworkers = 1", stack.text("/gate/issuer_key")?)?;
        let config = places.dir.join("relay-2.toml");
        std::fs::write(&config, t)?;
        let mut command = Command::new(binary("trocar-relay")?);
        command.arg("run").arg("--config").arg(&config).arg("--json");
        let mut relay = Process::start("trocar-relay", &mut command)?;
        let report: Value = serde_json::from_str(&relay.line(PATIENCE, |l| l.starts_with('{'))?)?;
        let control: SocketAddr = report["control"].as_str().context("no control address")?.parse()?;
        Ok(Self { relay, line: Line::to(control)?, gate_line: Line::to(control)? })
    }
}

/// Certificates of everybody, and a consent for this session.
pub(super) fn issue(stack: &Stack) -> anyhow::Result<()> {
    let state = stack.dir.path().join("state");
    let dir = path(&state)?;
    for (role, name) in [("gate", "gate"), ("station", "station"), ("station", "station-2")] {
        verb(&["ca", "issue", "--dir", dir, "--role", role, name])?;
    }
    verb(&["consent", "sign", "--dir", dir, "--session", &stack.text("/session")?])
}

pub(super) fn write_gate_config(stack: &Stack, places: &Places, relays: &[SocketAddr]) -> anyhow::Result<()> {
    let camera = "trocar://local/station/device";
    let mut t = format!("[frames]\nlisten = \"{}\"\npublishers = [\"{camera}\"]\n\n", places.frames);
    let state = stack.dir.path().join("state");
    t += &gate_config(|p| stack.text(p), &state, relays, &places.store(), (places.device, &device_key(&places.dir)))?;
    t.push_str(&places.setting.gate);
    std::fs::write(places.gate_config(), t)?;
    Ok(())
}

/// What a gate is told that has `gate.pem` and `consent.json` in `state`, the folder of the node whose report `text` reads: without frame
/// proof, and with the table of consent last. The device is an address and the file of its key.
///
/// # Errors
/// Where the report lacks something.
pub fn gate_config(
    text: impl Fn(&str) -> anyhow::Result<String>,
    state: &Path,
    relays: &[SocketAddr],
    store: &Path,
    (device, key): (SocketAddr, &Path),
) -> anyhow::Result<String> {
    let mut t = String::new();
    let file = |name: &str| state.join(name);
    writeln!(t, "[session]\nid = {:?}\n", text("/session")?)?;
    writeln!(t, "[identity]\ncert = {:?}\nkey = {:?}\n", file("gate.pem"), file("gate.key"))?;
    writeln!(t, "[trust]\ndir = {:?}\nissuer = {:?}", text("/gate/trust")?, text("/gate/issuer")?)?;
    writeln!(t, "issuer_key = {:?}\n", text("/gate/issuer_key")?)?;
    for relay in relays {
        writeln!(t, "[[relay]]\naddress = \"{relay}\"\n")?;
    }
    writeln!(t, "[store]\ndir = {store:?}\n")?;
    writeln!(t, "[device]\nkind = \"udp\"\naddress = \"{device}\"\nkey_file = {key:?}\n")?;
    writeln!(t, "[consent]\nfile = {:?}\n", file("consent.json"))?;
    Ok(t)
}

/// Where the key is that gate and device share.
fn device_key(dir: &Path) -> PathBuf {
    dir.join("device.key")
}

/// Writes that key.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_device_key(dir: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let key = device_key(dir);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&key)?;
    writeln!(file, "{}", "5a".repeat(32))?;
    Ok(key)
}

pub(super) fn start_device(places: &Places) -> anyhow::Result<(Process, Record)> {
    write_device_key(&places.dir)?;
    start_device_again(places)
}

/// Starts the device, which finds its fence on its disk.
///
/// # Errors
/// Where it does not come up.
pub fn start_device_again(places: &Places) -> anyhow::Result<(Process, Record)> {
    let record = places.dir.join("device.jsonl");
    let mut command = Command::new(binary("trocar-sim-device")?);
    command.arg("--listen").arg(places.device.to_string());
    command.arg("--key-file").arg(device_key(&places.dir)).arg("--state").arg(places.dir.join("device.state"));
    command.arg("--record").arg(&record).arg("--local-motion");
    let mut device = Process::start("trocar-sim-device", &mut command)?;
    device.line(PATIENCE, |l| l.contains("listening") || l.contains("ready"))?;
    Ok((device, Record::open(&record)?))
}

pub(super) fn start_gate(places: &Places) -> anyhow::Result<Talker> {
    let mut command = Command::new(binary("trocar-gate")?);
    fake_wall_clock(&mut command, places)?;
    command.arg("run").arg("--config").arg(places.gate_config()).args(["--console", "stdio"]);
    let gate = Talker::start("trocar-gate", &mut command)?;
    gate.keep_saying(r#"{"alive":true}"#)?;
    Ok(gate)
}

/// The wall clock of that command, where the setting says so. Boot clock and monotonic clock stay what they are.
fn fake_wall_clock(command: &mut Command, places: &Places) -> anyhow::Result<()> {
    let Some(file) = &places.setting.wall_clock else { return Ok(()) };
    let library = std::fs::read_dir("/usr/lib")?
        .filter_map(Result::ok)
        .map(|d| d.path().join("faketime/libfaketimeMT.so.1"))
        .find(|p| p.is_file())
        .context("libfaketime is missing: `make setup` installs it")?;
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
    command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

pub(super) fn start_eye(stack: &Stack, places: &Places) -> anyhow::Result<Process> {
    let echo = places.dir.join("echo.sock");
    stack.watch(&["--feed", "scope", "--echo-to", path(&echo)?, "--echo-complete"])
}

pub(super) fn start_station(
    stack: &Stack,
    places: &Places,
    relays: &[SocketAddr],
    name: &str,
) -> anyhow::Result<Talker> {
    let state = stack.dir.path().join("state");
    let mut command = match &places.far {
        None => Command::new(trocar()?),
        Some(namespace) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(trocar()?);
            command
        }
    };
    fake_wall_clock(&mut command, places)?;
    command.args(["operate", "--json", "--input", "stdin"]);
    command.arg("--invite").arg(stack.invitation("expert")?).arg("--ca").arg(stack.text("/ca_file")?);
    let relay = relays.first().context("no relay")?;
    let control =
        if places.setting.direct || places.setting.far { stack.text("/relay/control")? } else { relay.to_string() };
    command.arg("--control").arg(control).arg("--ledger").arg(places.ledger(name));
    for path in relays.iter().filter(|_| relays.len() > 1) {
        command.arg("--path").arg(format!("127.0.0.1={path}"));
    }
    command.arg("--cert").arg(state.join(format!("{name}.pem"))).arg("--key").arg(state.join(format!("{name}.key")));
    command.arg("--echo-from").arg(places.dir.join(format!("{}.sock", if name == "station" { "echo" } else { name })));
    Talker::start("trocar operate", &mut command)
}

pub(super) fn free_udp() -> anyhow::Result<SocketAddr> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

pub(super) fn free_tcp() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until the relay's metrics have that figure above zero with this label value; the line.
///
/// # Errors
/// Where they do not within [`PATIENCE`].
pub fn wait_metric(stack: &Stack, name: &str, label: &str) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (began, url) = (Instant::now(), stack.text("/metrics")?);
    let quoted = format!("\"{label}\"");
    runtime.block_on(async {
        loop {
            let text = crate::http_client()?.get(&url).send().await?.text().await?;
            let found = text.lines().find(|l| l.starts_with(name) && l.contains(&quoted) && !l.ends_with(" 0"));
            if let Some(line) = found {
                return Ok(line.to_owned());
            }
            ensure!(began.elapsed() < PATIENCE, "no {name} with {label} in:\n{text}");
            // The page is asked again; it has no event that a client could wait for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}
