//! `trocar impair` between real sockets: its ledger is the truth, so it has to agree with what arrives, packet by packet.

use crate::{median, number, span};
use anyhow::{Context, ensure};
use serde_json::Value;
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, path};
use trocar_proto::link::config::{LinkConfig, Loss};
use trocar_proto::link::ledger::FateName;
use trocar_proto::link::{Direction, Fate, Link, Record, Verdict};
use trocar_proto::units::Micros;

/// So long after the last packet nothing more comes: longer than every delay here.
const SILENCE: Duration = Duration::from_millis(700);
/// What it carries at least on a machine of two cores that does nothing else, whatever it is told to do.
const CARRIES_MBIT_S: f64 = 400.0;
const LOOPBACK: &str = "127.0.0.1:0";

/// The emulator as a process, with its ledger.
struct Emulator {
    process: Process,
    listen: String,
    dir: TempDir,
}

impl Emulator {
    fn start(to: &UdpSocket, flags: &[&str], profile: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (file, ledger) = (dir.path().join("profile.toml"), dir.path().join("ledger.jsonl"));
        std::fs::write(&file, profile)?;
        let to = to.local_addr()?.to_string();
        let mut command = Command::new(trocar()?);
        command.args(["impair", "--listen", LOOPBACK, "--to", &to, "--json", "--profile", path(&file)?]);
        if !flags.contains(&"--duration") {
            command.args(["--ledger", path(&ledger)?]);
        }
        let mut process = Process::start("impair", command.args(flags))?;
        let ready: Value = serde_json::from_str(&process.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
        let listen = ready["listen"].as_str().context("listen")?.to_owned();
        Ok(Self { process, listen, dir })
    }

    /// Ends it: its ledger, and its lines on standard output.
    fn stop(mut self) -> anyhow::Result<(Vec<Record>, Vec<Value>)> {
        self.process.stop()?;
        let text = std::fs::read_to_string(self.dir.path().join("ledger.jsonl"))?;
        let ledger = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let said = self.process.rest().iter().map(|l| serde_json::from_str(l)).collect::<Result<_, _>>()?;
        Ok((ledger, said))
    }
}

fn socket() -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(LOOPBACK)?;
    SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
    Ok(socket)
}

/// Packet `seq`: its number three times, so that one turned bit does not hide it, and bytes that follow from it.
fn packet(seq: u64) -> Vec<u8> {
    let mut bytes = seq.to_be_bytes().repeat(3);
    bytes.extend((0..100 + seq % 400).map(|i| (seq.wrapping_mul(31).wrapping_add(i) & 0xff) as u8));
    bytes
}

/// The number that two of three agree on.
fn seq_of(bytes: &[u8]) -> u64 {
    let read = |i: usize| u64::from_be_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("eight bytes"));
    let (a, b, c) = (read(0), read(1), read(2));
    if a == b || a == c { a } else { b }
}

/// Takes down what comes, until nothing has come for [`SILENCE`] after `sent`.
fn receive(socket: UdpSocket, sent: Arc<AtomicBool>) -> JoinHandle<anyhow::Result<Vec<Vec<u8>>>> {
    std::thread::spawn(move || {
        socket.set_read_timeout(Some(SILENCE))?;
        let (mut all, mut buffer) = (Vec::new(), [0; 2_048]);
        loop {
            match socket.recv(&mut buffer) {
                Ok(n) => all.push(buffer[..n].to_vec()),
                Err(_) if sent.load(Ordering::SeqCst) => return Ok(all),
                Err(_) => {}
            }
        }
    })
}

/// Sends `n` packets through an emulator, ten every 2 ms, and gives its ledger, its words and what arrived.
fn pass(n: u64, flags: &[&str], profile: &str) -> anyhow::Result<(Vec<Record>, Value, Vec<Vec<u8>>)> {
    let target = socket()?;
    let emulator = Emulator::start(&target, flags, profile)?;
    let sent = Arc::new(AtomicBool::new(false));
    let arriving = receive(target, Arc::clone(&sent));
    let sender = socket()?;
    sender.connect(&emulator.listen)?;
    for seq in 0..n {
        sender.send(&packet(seq))?;
        if seq % 10 == 9 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    sent.store(true, Ordering::SeqCst);
    let arrived = arriving.join().ok().context("the receiver stopped")??;
    let (ledger, said) = emulator.stop()?;
    let summary = said.into_iter().find(|v| v["event"] == "summary").context("no summary")?;
    for pointer in ["/up/kernel_drops", "/up/send_failed", "/up/overload", "/up/inside", "/up/unrecorded"] {
        ensure!(number(&summary, pointer) == 0.0, "{pointer}: {summary}");
    }
    Ok((ledger, summary, arrived))
}

/// What arrived is what the ledger says, in the same order, bit for bit.
fn agrees(ledger: &[Record], arrived: &[Vec<u8>]) -> bool {
    let expected = ledger.iter().filter(|r| r.fate == FateName::Delivered).map(|r| {
        let mut bytes = packet(r.seq);
        if let Some(bit) = r.corrupt_bit {
            bytes[bit as usize / 8] ^= 0x80 >> (bit % 8);
        }
        bytes
    });
    expected.eq(arrived.iter().cloned())
}

const ROUGH: &str = "
    [up]
    jitter_reorders = true
    delay = { shape = 'pareto', base_ms = 5, scale_ms = 1, alpha = 1.5, max_ms = 100 }
    loss = { model = 'bursts', percent = 4, burst_packets = 3 }
    reorder = { percent = 2, gap_packets = 4 }
    duplicate_percent = 3
    corrupt_percent = 3
    line = { mbit_s = 15, queue_ms = 3 }
    [[up.blackout]]
    start_ms = 400
    length_ms = 60
    every_ms = 1000
";

#[test]
fn the_ledger_agrees_with_what_arrives_packet_by_packet() -> anyhow::Result<()> {
    const N: u64 = 6_000;
    let (ledger, summary, arrived) = pass(N, &["--seed", "7"], ROUGH)?;
    ensure!(agrees(&ledger, &arrived), "the ledger is not what arrived: {summary}");
    ensure!(!agrees(&ledger, &arrived[1..]), "the control: a packet that is missing is not seen");
    let mut other = arrived.clone();
    other[0][30] ^= 1;
    ensure!(!agrees(&ledger, &other), "the control: a turned bit is not seen");

    // The receiver counts by itself, as a measuring program would.
    let (mut times, mut highest, mut reordered, mut corrupted) = (BTreeMap::new(), None, 0_u64, 0_u64);
    for bytes in &arrived {
        let seq = seq_of(bytes);
        *times.entry(seq).or_insert(0_u64) += 1;
        reordered += u64::from(highest.is_some_and(|h| seq < h));
        highest = highest.max(Some(seq));
        corrupted += u64::from(*bytes != packet(seq));
    }
    let seqs = |wanted: &dyn Fn(&Record) -> bool| ledger.iter().filter(|r| wanted(r)).map(|r| r.seq).collect();
    let came: BTreeSet<u64> = seqs(&|r| r.fate == FateName::Delivered);
    ensure!(times.keys().copied().collect::<BTreeSet<_>>() == came, "others were lost");
    let twice = times.values().filter(|n| **n == 2).count();
    let copies = ledger.iter().filter(|r| r.copy && r.fate == FateName::Delivered).count();
    ensure!(times.values().all(|n| *n <= 2) && twice > 50 && twice <= copies, "{twice} came twice of {copies}");
    for (what, is, pointer) in [("reordered", reordered, "/up/reordered"), ("corrupted", corrupted, "/up/corrupted")] {
        ensure!(is as f64 == number(&summary, pointer) && is > 50, "{what}: {is}, {summary}");
    }
    for fate in [FateName::Lost, FateName::QueueDrop, FateName::Blackout] {
        ensure!(ledger.iter().filter(|r| r.fate == fate).count() > 20, "{fate:?}: so few show little: {summary}");
    }
    // Each packet is entered once, each copy at most once.
    let mut numbers: Vec<u64> = ledger.iter().filter(|r| !r.copy).map(|r| r.seq).collect();
    numbers.sort_unstable();
    ensure!(numbers.into_iter().eq(0..N), "a packet has no entry or two");

    // What chance decides is the same on a clock that jumps: the model, with this seed, loses the same packets.
    let model = LinkConfig { loss: Some(Loss::Bursts { percent: 4.0, burst_packets: 3.0 }), ..LinkConfig::default() };
    let mut link = Link::new(&model, Direction::Up.seed(7))?;
    let lost = |v: Verdict| matches!(v, Verdict::Dropped { fate: Fate::Lost, .. });
    let foretold: BTreeSet<u64> = (0..N).filter(|_| lost(link.handle_packet(Micros(0), 100, ()))).collect();
    let dark: BTreeSet<u64> = seqs(&|r| r.fate == FateName::Blackout);
    let was: BTreeSet<u64> = seqs(&|r| r.fate == FateName::Lost);
    ensure!(was == foretold.difference(&dark).copied().collect(), "the model foretold others");
    Ok(())
}

#[test]
fn without_impairments_everything_arrives_as_it_was_sent() -> anyhow::Result<()> {
    let (ledger, summary, arrived) = pass(3_000, &[], "")?;
    ensure!(arrived.iter().cloned().eq((0..3_000).map(packet)), "{summary}");
    ensure!(ledger.iter().all(|r| r.due_us == Some(r.arrived_us) && r.sent_us >= r.due_us), "{summary}");
    Ok(())
}

/// Answers each packet with itself and, in front, the port that it came from.
fn echo(socket: UdpSocket) -> (Arc<AtomicBool>, JoinHandle<anyhow::Result<()>>) {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    let thread = std::thread::spawn(move || {
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut buffer = [0; 2_048];
        while !flag.load(Ordering::SeqCst) {
            let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
            let mut answer = from.port().to_be_bytes().to_vec();
            answer.extend(&buffer[..n]);
            socket.send_to(&answer, from)?;
        }
        Ok(())
    });
    (ended, thread)
}

/// One question at a time for `long`: the round trips in ms, and the ports that the target saw, each once per run.
fn ask(to: &str, mark: u8, long: Duration) -> anyhow::Result<(Vec<f64>, Vec<u16>)> {
    let socket = socket()?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let (mut trips, mut ports, began) = (Vec::new(), Vec::new(), Instant::now());
    for turn in 0_u32.. {
        if began.elapsed() > long {
            break;
        }
        let (asked, mut question) = (Instant::now(), vec![mark]);
        question.extend(turn.to_be_bytes());
        socket.send(&question)?;
        let mut answer = [0; 64];
        // An answer may be lost while the address changes.
        let Ok(n) = socket.recv(&mut answer) else { continue };
        ensure!(answer[2..n] == question, "client {mark}: the answer to another question");
        trips.push(asked.elapsed().as_secs_f64() * 1e3);
        ports.push(u16::from_be_bytes([answer[0], answer[1]]));
    }
    ports.dedup();
    Ok((trips, ports))
}

#[test]
fn clients_have_a_port_each_that_changes_once_where_asked_for() -> anyhow::Result<()> {
    for (flags, changes) in [(&["--rebind-after", "0.4", "--delay", "1ms"][..], 1), (&["--delay", "1ms"], 0)] {
        let target = socket()?;
        let emulator = Emulator::start(&target, flags, "")?;
        let (ended, echoing) = echo(target);
        let clients: Vec<_> = (0..3_u8)
            .map(|mark| {
                let to = emulator.listen.clone();
                std::thread::spawn(move || ask(&to, mark, Duration::from_secs(1)))
            })
            .collect();
        let mut seen = Vec::new();
        for client in clients {
            let (trips, ports) = client.join().ok().context("a client stopped")??;
            ensure!(trips.len() > 50 && ports.len() == 1 + changes, "{} answers, ports {ports:?}", trips.len());
            seen.extend(ports);
        }
        ended.store(true, Ordering::SeqCst);
        echoing.join().ok().context("the echo stopped")??;
        let (_, said) = emulator.stop()?;
        let told: Vec<_> = said.iter().filter(|v| v["event"] == "rebind").collect();
        ensure!(told.len() == 3 * changes, "{said:?}");
        for event in told {
            let port = |key: &str| event[key].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
            let place = seen.iter().position(|p| *p == port("from_port")).context("a port nobody saw")?;
            ensure!(seen.get(place + 1) == Some(&port("to_port")), "{event} is not in {seen:?}");
        }
        ensure!(number(said.last().context("no summary")?, "/clients") == 3.0);
    }
    Ok(())
}

#[test]
fn a_client_too_many_is_refused_and_a_silent_one_makes_room() -> anyhow::Result<()> {
    let target = socket()?;
    let emulator = Emulator::start(&target, &["--clients-max", "1", "--idle", "0.3"], "")?;
    let (ended, echoing) = echo(target);
    let short = Duration::from_millis(100);
    let (answers, first) = ask(&emulator.listen, 1, short)?;
    ensure!(!answers.is_empty(), "the control: the first client has no answer");
    ensure!(ask(&emulator.listen, 2, short)?.0.is_empty(), "a second client had an answer");
    // Silence is what is tested here, so it has to pass; the second client's try above has been part of it.
    std::thread::sleep(Duration::from_millis(400));
    let (answers, later) = ask(&emulator.listen, 3, short)?;
    ensure!(!answers.is_empty() && first != later, "{first:?} {later:?}");
    ended.store(true, Ordering::SeqCst);
    echoing.join().ok().context("the echo stopped")??;
    let (_, said) = emulator.stop()?;
    let summary = said.last().context("no summary")?;
    ensure!(number(summary, "/refused") >= 1.0 && number(summary, "/clients") == 2.0, "{summary}");
    Ok(())
}

#[test]
fn the_delay_is_what_was_asked_for() -> anyhow::Result<()> {
    let target = socket()?;
    let emulator = Emulator::start(&target, &["--delay", "15ms"], "")?;
    let (ended, echoing) = echo(target);
    let (trips, _) = ask(&emulator.listen, 1, Duration::from_secs(2))?;
    ended.store(true, Ordering::SeqCst);
    echoing.join().ok().context("the echo stopped")??;
    let (ledger, said) = emulator.stop()?;
    let summary = said.last().context("no summary")?;
    let shortest = trips.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "round trip through 2 x 15 ms: shortest {shortest:.3} ms, median {:.3} ms of {}; late p50 {} us, p99 {} us",
        median(trips.clone()),
        trips.len(),
        summary["up"]["late_p50_us"],
        summary["up"]["late_p99_us"]
    );
    ensure!(trips.len() > 20 && shortest >= 30.0, "{trips:?}");
    ensure!(median(trips) < 35.0, "{summary}");
    ensure!(ledger.iter().all(|r| r.due_us == Some(r.arrived_us + 15_000) && r.sent_us >= r.due_us));
    Ok(())
}

/// Packets that one credit allows.
const PER_CREDIT: u64 = 32;

/// Counts packets, and gives a credit for every [`PER_CREDIT`], until `ended`.
fn count(socket: UdpSocket, ended: Arc<AtomicBool>) -> (Receiver<()>, JoinHandle<u64>) {
    // Never full: there are eight credits.
    let (credit, credits) = sync_channel(16);
    let counting = std::thread::spawn(move || {
        let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
        let (mut n, mut buffer) = (0, [0; 2_048]);
        while !ended.load(Ordering::SeqCst) {
            if socket.recv(&mut buffer).is_ok() {
                n += 1;
                if n % PER_CREDIT == 0 {
                    let _ = credit.try_send(());
                }
            }
        }
        n
    });
    (credits, counting)
}

/// Sends 1,200-byte packets to `to` as fast as they arrive at `target`, 256 under way at most: Mbit/s, and packets.
fn throughput(target: UdpSocket, to: &str, long: Duration) -> anyhow::Result<(f64, u64)> {
    let ended = Arc::new(AtomicBool::new(false));
    let (credits, counting) = count(target, Arc::clone(&ended));
    let sender = socket()?;
    sender.connect(to)?;
    let began = Instant::now();
    let (mut left, mut sent) = (8, 0_u64);
    while began.elapsed() < long {
        if left == 0 {
            credits.recv_timeout(Duration::from_secs(2)).context("packets were lost")?;
            left = 1;
        }
        left -= 1;
        for _ in 0..PER_CREDIT {
            sender.send(&[0x5a; 1_200])?;
            sent += 1;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(50));
    ended.store(true, Ordering::SeqCst);
    let arrived = counting.join().ok().context("the counter stopped")?;
    ensure!(arrived == sent, "{arrived} of {sent} arrived");
    Ok((arrived as f64 * 9_600e-6 / seconds, arrived))
}

/// CPU seconds from a `stat` file of `/proc`: user and system time, in ticks of 10 ms.
fn cpu_seconds(stat: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(stat)?;
    let fields: Vec<&str> = text.rsplit(')').next().context("stat")?.split_whitespace().collect();
    let ticks = fields.get(11).context("utime")?.parse::<f64>()? + fields.get(12).context("stime")?.parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// The least that a proxy has to do: read a packet, send it.
fn plain_copy(to: &UdpSocket) -> anyhow::Result<(String, Arc<AtomicBool>, JoinHandle<anyhow::Result<f64>>)> {
    let (listen, out) = (socket()?, socket()?);
    out.connect(to.local_addr()?)?;
    listen.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (address, ended) = (listen.local_addr()?.to_string(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&ended);
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while !flag.load(Ordering::SeqCst) {
            if let Ok(n) = listen.recv(&mut buffer) {
                out.send(&buffer[..n])?;
            }
        }
        cpu_seconds("/proc/thread-self/stat")
    });
    Ok((address, ended, thread))
}

#[test]
fn it_carries_not_much_less_than_a_plain_copy() -> anyhow::Result<()> {
    let long = Duration::from_secs(3);
    let target = socket()?;
    let (address, ended, copying) = plain_copy(&target)?;
    let (plain, packets) = throughput(target, &address, long)?;
    ended.store(true, Ordering::SeqCst);
    let plain_us = copying.join().ok().context("the copy stopped")?? * 1e6 / packets as f64;

    let full = "[up]\ndelay = { shape = 'normal', mean_ms = 2, sd_ms = 0.2 }\nline = { mbit_s = 10000 }";
    let mut carried = Vec::new();
    // With a delay of 2 ms, 256 packets under way are the limit: 0.9 Gbit/s. Look at the CPU there.
    let bare: &[&str] = &["--duration", "60"];
    for (what, profile, flags) in
        [("no impairment", "", bare), ("with a ledger", "", &[]), ("delay of 2 ms and rate", full, bare)]
    {
        let target = socket()?;
        let mut emulator = Emulator::start(&target, flags, profile)?;
        let (rate, packets) = throughput(target, &emulator.listen, long)?;
        let us = cpu_seconds(&format!("/proc/{}/stat", emulator.process.id()))? * 1e6 / packets as f64;
        emulator.process.stop()?;
        println!(
            "{what}: {rate:.0} Mbit/s carried, {us:.2} us of CPU a packet = {:.0} Mbit/s a core; \
             plain copy: {plain:.0} Mbit/s, {plain_us:.2} us = {:.0} Mbit/s a core",
            9_600.0 / us,
            9_600.0 / plain_us
        );
        carried.push((rate, us));
    }
    let (rate, us) = carried[0];
    ensure!(rate > 0.3 * plain, "{rate:.0} Mbit/s of {plain:.0}");
    // A machine that is busy with other things says little about how much can be carried.
    let least = span(0.0, CARRIES_MBIT_S);
    ensure!(carried.iter().all(|(rate, _)| *rate >= least), "{carried:.0?}: {least} Mbit/s is the least");
    ensure!(us < 4.0 * plain_us, "{us:.2} us a packet, {plain_us:.2} for a plain copy");
    Ok(())
}

/// A round of a second in mahimahi's format: half of it an opportunity of 1,500 bytes every 4 ms, half of it one every 20 ms.
fn trace() -> String {
    let times = (1..=125).map(|n| n * 4).chain((1..=25).map(|n| 500 + n * 20));
    times.map(|ms| format!("{ms}\n")).collect()
}

/// Bytes with their 28 of UDP and IPv4 that the ledger has between two moments, by the line's own clock, in milliseconds.
fn carried(ledger: &[Record], from: u64, to: u64) -> u64 {
    let due = |r: &&Record| r.due_us.is_some_and(|t| (from * 1_000 + 1..=to * 1_000).contains(&t));
    ledger.iter().filter(|r| r.fate == FateName::Delivered).filter(due).map(|r| u64::from(r.len) + 28).sum()
}

/// Each half of a second in which something always waited: when it began, and whether it had what the trace gives, to a packet.
fn follows(ledger: &[Record]) -> anyhow::Result<Vec<(u64, bool)>> {
    let times = || ledger.iter().filter_map(|r| r.due_us);
    let (first, last) = times().min().zip(times().max()).context("nothing was carried")?;
    let halves = first.div_ceil(500_000) + 1..last / 500_000;
    let is_right = |half: u64| {
        let opportunities = if half.is_multiple_of(2) { 125 } else { 25 };
        carried(ledger, half * 500, half * 500 + 500).abs_diff(opportunities * 1_500) < 2 * 1_500
    };
    Ok(halves.map(|half| (half * 500, is_right(half))).collect())
}

#[test]
fn a_line_by_a_trace_carries_what_the_trace_gives_and_no_other_line_does() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("round.trace");
    std::fs::write(&file, trace())?;
    let by_trace =
        format!("[up]\nline = {{ trace_file = {:?}, queue_bytes = 4000000, overhead_bytes = 28 }}\n", path(&file)?);
    // Faster than the line, so that something waits until the end.
    let (ledger, summary, arrived) = pass(2_500, &[], &by_trace)?;
    ensure!(arrived.len() == 2_500 && agrees(&ledger, &arrived), "{summary}");
    let halves = follows(&ledger)?;
    println!("halves of a second that the trace decided: {halves:?}");
    ensure!(halves.len() >= 3 && halves.iter().all(|(_, right)| *right), "{halves:?}");
    // What the model said is what happened: nothing left before its time, and not long after it.
    let late = ledger.iter().filter_map(|r| r.sent_us.zip(r.due_us)).map(|(sent, due)| sent as f64 - due as f64);
    let late: Vec<f64> = late.collect();
    ensure!(late.iter().all(|l| *l >= 0.0) && median(late.clone()) < 100_000.0, "{:.0} us late", median(late));
    // The control: the same mean rate all the time.
    let (ledger, ..) = pass(2_500, &[], "[up]\nline = { mbit_s = 1.8, queue_bytes = 4000000, overhead_bytes = 28 }\n")?;
    ensure!(follows(&ledger)?.iter().all(|(_, right)| !right), "a constant rate looks like the trace");
    Ok(())
}

#[test]
fn mistakes_are_answered_with_what_would_be_right() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "[up]\ndelai_ms = 3\n")?;
    let fixed = ["impair", "--listen", LOOPBACK, "--to", "127.0.0.1:9"];
    for (more, want) in [
        (&["--profile", path(&file)?][..], "unknown field `delai_ms`"),
        (&["--profile", "/nonexistent.toml"], "/nonexistent.toml"),
        (&["--loss", "2"], "0.5%"),
        (&["--rate", "0M"], "up.line.mbit_s = 0: 0.001 to 100000 is right"),
        (&["--ledger", "/nonexistent/l"], "/nonexistent/l"),
    ] {
        let out = Command::new(trocar()?).args(fixed).args(more).output()?;
        let error = String::from_utf8_lossy(&out.stderr);
        ensure!(!out.status.success() && error.contains(want) && !error.contains("panicked"), "{want:?}: {error}");
    }
    Ok(())
}
