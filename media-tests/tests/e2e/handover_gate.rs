//! The gate where something that it needs is missing: what remote operation alone needs leaves local a gate that works and says why.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use trocar_media_tests::process::binary;
use trocar_media_tests::sentinel::{Sentinel, boot_us};
use trocar_media_tests::stack::{PATIENCE, path};
use trocar_media_tests::theatre::{Room, Setting, Talker, somebody};

/// Bit of the alarm "certificate, key or port unusable".
const MEANS: u64 = 16_384;

fn has_alarm(view: &Value) -> bool {
    view["alarms"].as_u64().is_some_and(|a| a & MEANS != 0)
}

fn is_in_trouble(view: &Value, key: &str) -> bool {
    let all = view["troubles"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(Value::as_str).any(|t| t.starts_with(key))
}

/// One value of the gate's file becomes another.
fn change(room: &Room, from: &str, to: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(room.places.gate_config())?;
    ensure!(text.contains(from), "{from} is not in\n{text}");
    std::fs::write(room.places.gate_config(), text.replace(from, to)).map_err(Into::into)
}

/// A trust list of the gate's own, with or without its content.
struct OwnTrust {
    theirs: PathBuf,
    own: PathBuf,
}

impl OwnTrust {
    fn of(room: &Room) -> anyhow::Result<Self> {
        let own = room.places.dir.join("own-trust");
        std::fs::create_dir_all(&own)?;
        Ok(Self { theirs: PathBuf::from(room.stack.text("/gate/trust")?).join("ca.pem"), own })
    }

    fn file(&self) -> PathBuf {
        self.own.join("ca.pem")
    }

    fn put(&self) -> anyhow::Result<()> {
        std::fs::copy(&self.theirs, self.file()).map(drop).map_err(Into::into)
    }
}

/// Kills the gate, and waits until the device is nobody's: it is the killed one's until that one's keep-alive has run out (HO-D-004).
fn kill_gate(room: &mut Room) -> anyhow::Result<()> {
    let killed = boot_us();
    room.gate.process.signal("KILL")?;
    room.gate.process.wait(PATIENCE)?;
    let is_nobodys = |e: &Value| e["event"] == "change" && e["owner"].is_null();
    room.record.after(killed, "the device is nobody's", PATIENCE, is_nobodys).map(drop)
}

/// TAKE is at the device within 50 ms. Where the machine stood still meanwhile, that says nothing about the gate, and TAKE is pressed again.
fn take_in_time(room: &mut Room) -> anyhow::Result<()> {
    let sentinel = Sentinel::start()?;
    for _ in 0..5 {
        let (asked, local) = room.take()?;
        if local - asked < 50_000 {
            return Ok(());
        }
        ensure!(sentinel.stalled(asked, local), "TAKE took {} µs", local - asked);
    }
    anyhow::bail!("the machine stood still at each of five trials")
}

/// HO-G-028, HO-G-029, HO-R-014.
#[test]
fn a_gate_without_trust_list_key_and_port_serves_local_says_why_and_lets_experts_in_when_they_are_there()
-> anyhow::Result<()> {
    let mut room = Room::open(Setting::default())?;
    let trust = OwnTrust::of(&room)?;
    change(&room, &room.stack.text("/gate/trust")?, path(&trust.own)?)?;
    let key = Path::new(&room.stack.text("/gate/issuer_key")?).to_owned();
    let late = room.places.dir.join("late.pub");
    change(&room, path(&key)?, path(&late)?)?;
    let text = std::fs::read_to_string(room.places.gate_config())?;
    let port = text.lines().find_map(|l| l.strip_prefix("listen = ")).context("[frames] listen")?.trim_matches('"');
    kill_gate(&mut room)?;
    let taken = TcpListener::bind(port)?;
    room.gate = room.start_gate()?;

    let view = room.gate_shows("the trust list is missing", |v| has_alarm(v) && is_in_trouble(v, "trust.dir: "))?;
    ensure!(view["troubles"].to_string().contains("ca.pem"), "{view}");
    // Local has a gate all the same.
    room.gate_shows("the device is heard", |v| v["device"]["heard_us"].is_u64())?;
    take_in_time(&mut room)?;
    trust.put()?;
    room.gate_shows("then the issuer's key", |v| has_alarm(v) && is_in_trouble(v, "trust.issuer_key: "))?;
    std::fs::copy(&key, &late)?;
    room.gate_shows("then the port", |v| has_alarm(v) && is_in_trouble(v, "frames.listen: "))?;
    drop(taken);
    let view = room.gate_shows("everything is there", |v| !has_alarm(v) && v["mode"] == "local")?;
    ensure!(view["troubles"].as_array().is_some_and(Vec::is_empty), "{view}");
    let mut station = room.second_station("station")?;
    room.gate_shows("the expert", |v| somebody(v).is_some())?;
    room.local(json!({ "act": "offer", "set": "camera" }))?;
    station.until("the offer", |v| v["event"] == "offer")?;

    // The list cannot be read any more: the offer ends, whoever is there stays there, nothing new is granted, local works.
    std::fs::write(trust.file(), "no certificate")?;
    room.gate_shows("the offer is over", |v| has_alarm(v) && is_in_trouble(v, "trust.dir: ") && v["mode"] == "local")?;
    let (_, refused) = room.try_local(json!({ "act": "offer", "set": "camera" }))?;
    ensure!(refused.as_deref().is_some_and(|r| r.contains("remote is refused")), "{refused:?}");
    let view = room.gate_shows("the expert still", |_| true)?;
    ensure!(somebody(&view).is_some(), "{view}");
    trust.put()?;
    room.gate_shows("it can be read again", |v| !has_alarm(v))?;
    room.local(json!({ "act": "offer", "set": "camera" })).map(drop)
}

/// The other side of it: what local cannot be without is named, and there is no gate.
#[test]
fn a_gate_without_its_device_or_its_page_does_not_start_and_names_the_key() -> anyhow::Result<()> {
    let mut room = Room::open(Setting::default())?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let text = std::fs::read_to_string(room.places.gate_config())?;
    kill_gate(&mut room)?;
    let key = room.places.dir.join("device.key");
    let page = format!("[console]\npage = \"{}\"\n", taken.local_addr()?);
    for (broken, named) in [
        (text.replace(path(&key)?, "/nowhere/device.key"), "device: key_file /nowhere/device.key"),
        (format!("{text}{page}"), "console: console.page: cannot listen on"),
        (text.replace("[store]", "[stor]"), "stor"),
    ] {
        std::fs::write(room.places.gate_config(), broken)?;
        let mut command = Command::new(binary("trocar-gate")?);
        let out =
            command.arg("run").arg("--config").arg(room.places.gate_config()).args(["--console", "none"]).output()?;
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(out.status.code() == Some(1) && error.contains(named), "{named:?} is not in {error}");
    }
    std::fs::write(room.places.gate_config(), text)?;
    room.gate = room.start_gate()?;
    room.gate_shows("the negative control: it starts", |v| v["device"]["heard_us"].is_u64()).map(drop)
}

/// A counter of the gate's console.
fn counted(view: &Value, name: &str) -> Option<u64> {
    let all = view["counters"].as_array()?;
    all.iter().find(|c| c[0] == name).and_then(|c| c[1].as_u64())
}

/// Scheduling policy and priority of the gate's core, as the kernel has them.
fn policy_of_core(pid: u32) -> anyhow::Result<(u32, u32)> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // The kernel keeps 15 letters of a name.
        if std::fs::read_to_string(task.join("comm"))?.trim() != "trocar-gate-cor" {
            continue;
        }
        let stat = std::fs::read_to_string(task.join("stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat")?;
        // proc(5): the state is field 3, rt_priority 40, policy 41.
        let field = |n: usize| fields.split(' ').nth(n - 3).and_then(|f| f.parse().ok()).context("stat");
        return Ok((field(41)?, field(40)?));
    }
    anyhow::bail!("no thread of the core")
}

#[test]
fn the_core_runs_in_real_time_where_that_is_permitted_and_without_permission_the_gate_runs_and_says_so()
-> anyhow::Result<()> {
    const SCHED_OTHER: u32 = 0;
    const SCHED_RR: u32 = 2;
    let mut room = Room::open(Setting::default())?;
    let view = room.gate_shows("who asked", |v| counted(v, "threads in real time").is_some())?;
    let refused = counted(&view, "threads refused real time").context("no counter")?;
    // Whoever runs the tests may or may not be permitted to: the counters say what the kernel did.
    let (policy, priority) = policy_of_core(room.gate.process.id())?;
    let wanted = if refused == 0 { (SCHED_RR, 22) } else { (SCHED_OTHER, 0) };
    ensure!((policy, priority) == wanted, "policy {policy}, priority {priority}, {refused} refused");

    kill_gate(&mut room)?;
    // Without CAP_SYS_NICE and with a limit of 0: always refused.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice", "prlimit", "--rtprio=0:0"]);
    command.arg(binary("trocar-gate")?).arg("run").arg("--config").arg(room.places.gate_config());
    room.gate = Talker::start("trocar-gate", command.args(["--console", "stdio"]))?;
    let is_told = |v: &Value| counted(v, "threads refused real time") >= Some(2);
    let view = room.gate_shows("two threads without", is_told)?;
    ensure!(counted(&view, "threads in real time") == Some(0), "{view}");
    ensure!(policy_of_core(room.gate.process.id())? == (SCHED_OTHER, 0));
    room.gate_shows("the device is heard", |v| v["device"]["heard_us"].is_u64())?;
    take_in_time(&mut room)?;
    Ok(())
}
