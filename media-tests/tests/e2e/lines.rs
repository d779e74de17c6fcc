//! A browser and the `webrtc` crate watch 20 Mbit/s by a line that loses one percent and takes 30 ms there and back: the picture
//! never stands still. Beside them, in the same run, a line without losses and one that is dark now and then.

use crate::{number, span};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack, line_fixture, path, summary};
use trocar_media_tests::workspace;

/// What is measured.
const BAD: [&str; 4] = ["--loss", "1%", "--delay", "15ms"];
/// Frames of the feed in a second.
const FRAMES_PER_S: f64 = 30.0;
/// Seconds that the browser shows all lines.
fn shown() -> u64 {
    span(8, 60)
}

/// `trocar impair` before the relay's port for WebRTC.
pub(crate) struct Emulator {
    process: Process,
    pub(crate) listen: String,
}

impl Emulator {
    pub(crate) fn open(to: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(trocar()?);
        command.args(["impair", "--listen", "127.0.0.1:0", "--to", to, "--json", "--seed", "5"]).args(flags);
        let mut process = Process::start("impair", &mut command)?;
        let ready: Value = serde_json::from_str(&process.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
        Ok(Self { listen: ready["listen"].as_str().context("listen")?.to_owned(), process })
    }

    /// Ends it: what it did by its own words. A run in which it was too slow itself says nothing about the line.
    pub(crate) fn end(mut self) -> anyhow::Result<Value> {
        self.process.stop()?;
        let said = self.process.rest();
        let summary = said.iter().rfind(|l| l.contains("\"summary\"")).context("no summary")?;
        let summary: Value = serde_json::from_str(summary)?;
        for pointer in ["/down/kernel_drops", "/down/overload", "/up/kernel_drops", "/up/overload"] {
            ensure!(number(&summary, pointer) == 0.0, "{pointer}: {summary}");
        }
        Ok(summary)
    }
}

/// WHEP as the relay gives it, by plain HTTP, but for the address that media goes to: that is the line's. For viewers that cannot be
/// told otherwise; it lives as long as the test's process.
pub(crate) fn door(page: &str, line: &str) -> anyhow::Result<String> {
    let inside = page.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let line = line.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for outside in listener.incoming().flatten() {
            // What fails here fails at the viewer, which says so.
            let _ = pass(outside, &inside, &line);
        }
    });
    Ok(format!("http://{address}/"))
}

/// One request and its answer; the connection ends with it.
fn pass(mut outside: TcpStream, inside: &str, line: &str) -> anyhow::Result<()> {
    outside.set_read_timeout(Some(PATIENCE))?;
    let (head, body) = message(&mut outside)?;
    let kept = head.lines().filter(|l| {
        let l = l.to_ascii_lowercase();
        !l.starts_with("host:") && !l.starts_with("connection:")
    });
    let head = kept.chain([format!("Host: {inside}").as_str(), "Connection: close"]).collect::<Vec<_>>().join("\r\n");
    let mut relay = TcpStream::connect(inside)?;
    relay.set_read_timeout(Some(PATIENCE))?;
    relay.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
    let (head, body) = message(&mut relay)?;
    let body = lead_to(&body, line);
    let length = format!("Content-Length: {}", body.len());
    let kept = head.lines().filter(|l| !l.to_ascii_lowercase().starts_with("content-length:"));
    let head = kept.chain([length.as_str()]).collect::<Vec<_>>().join("\r\n");
    outside.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
    Ok(())
}

/// Head and body of an HTTP message that says how long it is.
fn message(from: &mut TcpStream) -> anyhow::Result<(String, String)> {
    let mut read = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().filter_map(|l| l.split_once(':')).find_map(|(name, value)| {
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
        let n = from.read(&mut buffer)?;
        ensure!(n > 0, "the message is cut short: {text}");
        read.extend_from_slice(&buffer[..n]);
    }
}

/// The answer with one candidate alone, by UDP.
fn lead_to(answer: &str, line: &str) -> String {
    let (host, port) = line.split_once(':').unwrap_or_default();
    let mut out = String::new();
    for l in answer.split_inclusive("\r\n") {
        let mut words: Vec<&str> = l.split(' ').collect();
        match (l.starts_with("a=candidate:"), words.get(2).copied()) {
            (true, Some("tcp")) => {}
            (true, Some(_)) if words.len() > 5 => {
                (words[4], words[5]) = (host, port);
                out.push_str(&words.join(" "));
            }
            _ => out.push_str(l),
        }
    }
    out
}

/// A token of somebody who may view, for players that know addresses and tokens alone.
pub(crate) fn token(stack: &Stack) -> anyhow::Result<String> {
    crate::runtime().block_on(async {
        let join = format!("{}v1/join", stack.text("/page")?);
        let body = json!({ "invitation": stack.text("/tokens/observer")?, "name": "Player" });
        let client = trocar_media_tests::http_client()?;
        let grant: Value = client.post(join).json(&body).send().await?.error_for_status()?.json().await?;
        Ok(grant["token"].as_str().context("token")?.to_owned())
    })
}

/// `trocar watch` by WHEP, the `webrtc` crate's own ICE, DTLS, SRTP and NACK, behind a line.
pub(crate) fn watch_by(stack: &Stack, line: &str, more: &[&str]) -> anyhow::Result<Process> {
    let door = door(&stack.text("/page")?, line)?;
    let url = format!("{door}v1/sessions/{}/feeds/scope/whep", stack.text("/session")?);
    let token = token(stack)?;
    let fixed = ["watch", "--whep", &url, "--token", &token, "--headless", "--json"];
    Process::trocar("trocar watch --whep", &[&fixed[..], more].concat())
}

/// Freezes as `freezeCount` of a browser's getStats() counts them (W3C webrtc-stats): a picture that came later after the one before
/// than three times the mean of the last 30 intervals, and than that mean and 150 ms.
pub(crate) fn freezes(at_us: &[u64]) -> usize {
    let gaps: Vec<u64> = at_us.windows(2).map(|w| w[1].saturating_sub(w[0])).collect();
    let frozen = |i: &usize| {
        let before = &gaps[i.saturating_sub(30)..*i];
        let mean = before.iter().sum::<u64>() / before.len() as u64;
        gaps[*i] >= (3 * mean).max(mean + 150_000)
    };
    (5..gaps.len()).filter(frozen).count()
}

/// When the frames of a viewer's ledger could be shown, in microseconds.
pub(crate) fn times(ledger: &Path) -> anyhow::Result<Vec<u64>> {
    let text = std::fs::read_to_string(ledger)?;
    text.lines().map(|l| serde_json::from_str::<Value>(l)?["at_us"].as_u64().context("at_us")).collect()
}

/// Runs `line.mjs`.
pub(crate) fn browse(wanted: &Value) -> anyhow::Result<Value> {
    let mut command = Command::new("node");
    command.current_dir(workspace().join("media-tests/browser")).arg("line.mjs").arg(wanted.to_string());
    let mut node = Process::start("line.mjs", &mut command)?;
    let line = node.line(Duration::from_secs(180), |l| l.starts_with('{'))?;
    node.wait(PATIENCE)?;
    Ok(serde_json::from_str(&line)?)
}

/// A relay with the feed, 1080p at 30 frames and 20 Mbit/s.
pub(crate) fn stage() -> anyhow::Result<(Stack, Process)> {
    let stack = Stack::start()?;
    let source = format!("file:{}", path(&line_fixture()?)?);
    let publisher = stack.publish(&["--source", &source, "--loop", "--passthrough"])?;
    Ok((stack, publisher))
}

/// What the crate's viewer saw until it was stopped.
struct Crate {
    process: Process,
    ledger: std::path::PathBuf,
}

impl Crate {
    fn start(stack: &Stack, name: &str, line: &str) -> anyhow::Result<Self> {
        let ledger = stack.dir.path().join(format!("{name}.jsonl"));
        Ok(Self { process: watch_by(stack, line, &["--ledger", path(&ledger)?])?, ledger })
    }

    /// Freezes, and the summary.
    fn end(mut self) -> anyhow::Result<(usize, Value)> {
        self.process.signal("TERM")?;
        let s = summary(&mut self.process, PATIENCE)?;
        self.process.wait(PATIENCE)?;
        Ok((freezes(&times(&self.ledger)?), s))
    }
}

#[test]
fn a_line_that_loses_one_percent_never_makes_the_picture_stand_still() -> anyhow::Result<()> {
    let (stack, mut publisher) = stage()?;
    let relay = stack.text("/relay/webrtc")?;
    let bad = Emulator::open(&relay, &BAD)?;
    let profile = stack.dir.path().join("dark.toml");
    let dark = "delay = { shape = 'constant', ms = 15 }\n[[down.blackout]]\nstart_ms = 3000\nlength_ms = 400\nevery_ms = 3000\n";
    std::fs::write(&profile, format!("[down]\n{dark}"))?;
    let dark = Emulator::open(&relay, &["--profile", path(&profile)?])?;
    let crates = [Crate::start(&stack, "bad", &bad.listen)?, Crate::start(&stack, "dark", &dark.listen)?];

    let lines = [("clean", &relay), ("bad", &bad.listen), ("dark", &dark.listen)];
    let lines: Vec<Value> = lines.iter().map(|(name, to)| json!({ "name": name, "to": to })).collect();
    let seen = browse(&json!({
        "origin": stack.text("/page")?, "invitation": stack.text("/tokens/observer")?, "feed": "scope",
        "seconds": shown(), "lines": lines,
    }))?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    for name in ["clean", "bad", "dark"] {
        println!("Chromium, {name} line: {}", seen[name]);
    }
    let crates = crates.into_iter().map(Crate::end).collect::<anyhow::Result<Vec<_>>>()?;
    publisher.stop()?;
    let (bad, dark) = (bad.end()?, dark.end()?);
    for ((frozen, s), name) in crates.iter().zip(["bad", "dark"]) {
        println!("webrtc crate, {name} line: {frozen} freezes, {s}");
    }
    println!("emulator: {} of {} lost; load average {load}", bad["down"]["lost"], bad["down"]["offered"]);

    // The line was what it is said to be.
    let share = number(&bad, "/down/lost") / number(&bad, "/down/offered");
    ensure!((0.008..0.012).contains(&share) && number(&dark, "/down/blackout") > 100.0, "{bad} {dark}");
    for name in ["clean", "bad"] {
        let of = |what: &str| number(&seen, &format!("/{name}/{what}"));
        ensure!(of("framesDecoded") >= 0.97 * shown() as f64 * FRAMES_PER_S, "{name}: {}", seen[name]);
        ensure!(of("freezeCount") == 0.0, "{} freezes on the {name} line", of("freezeCount"));
    }
    ensure!(number(&seen, "/clean/nackCount") == 0.0 && number(&seen, "/bad/nackCount") > 20.0, "{seen}");
    ensure!(number(&seen, "/bad/roundTripMs") >= 30.0 && number(&seen, "/clean/roundTripMs") < 15.0, "{seen}");
    let (frozen, s) = &crates[0];
    ensure!(*frozen == 0 && number(s, "/frames_lost") == 0.0, "the crate: {frozen} freezes, {s}");
    ensure!(number(s, "/frames") >= 0.97 * shown() as f64 * FRAMES_PER_S, "{s}");
    // The control: what is dark for 400 ms is seen, and counted by both.
    ensure!(number(&seen, "/dark/freezeCount") >= 1.0, "{}", seen["dark"]);
    ensure!(crates[1].0 >= 1, "the crate counts no freeze on the dark line");
    Ok(())
}

#[test]
fn a_freeze_is_counted_where_the_definition_has_one() {
    let even: Vec<u64> = (0..60).map(|i| i * 33_000).collect();
    assert_eq!(freezes(&even), 0);
    let held = |at: usize, us: u64| even.iter().enumerate().map(|(i, t)| t + if i >= at { us } else { 0 }).collect();
    let (short, long): (Vec<u64>, Vec<u64>) = (held(30, 149_000), held(30, 151_000));
    assert_eq!((freezes(&short), freezes(&long)), (0, 1));
}
