//! Traces as a collector gets them.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{PATIENCE, Stack};
use trocar_media_tests::theatre::{Setting, Theatre};

/// A collector that keeps the bodies of what is posted to `/v1/traces`.
fn collector() -> anyhow::Result<(String, Traces)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (told, bodies) = sync_channel(1_024);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(64) {
            let Ok(body) = take(stream) else { continue };
            if told.send(body).is_err() {
                return;
            }
        }
    });
    Ok((endpoint, Traces { bodies, came: VecDeque::new() }))
}

fn take(mut stream: TcpStream) -> anyhow::Result<Value> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut came, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let n = stream.read(&mut buffer)?;
        came.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&came).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n").filter(|_| n > 0) else {
            ensure!(n > 0, "cut off: {text}");
            continue;
        };
        ensure!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        ensure!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
        let length = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.context("no length")? {
            continue;
        }
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        )?;
        return Ok(serde_json::from_str(body)?);
    }
}

/// Traces one by one: a request may bring several.
struct Traces {
    bodies: Receiver<Value>,
    came: VecDeque<Vec<Value>>,
}

impl Traces {
    /// The spans of the next one.
    fn next(&mut self, patience: Duration) -> anyhow::Result<Vec<Value>> {
        if self.came.is_empty() {
            let body = self.bodies.recv_timeout(patience)?;
            let spans = body.pointer("/resourceSpans/0/scopeSpans/0/spans").and_then(Value::as_array);
            let spans = spans.with_context(|| format!("no spans in {body}"))?;
            self.came.extend(spans.chunk_by(|a, b| a["traceId"] == b["traceId"]).map(<[Value]>::to_vec));
        }
        self.came.pop_front().context("a request without spans")
    }

    /// Whether none has come that was not taken.
    fn is_quiet(&self) -> bool {
        self.came.is_empty() && self.bodies.try_recv().is_err()
    }
}

fn nanos(span: &Value, key: &str) -> anyhow::Result<u64> {
    span[key].as_str().and_then(|t| t.parse().ok()).with_context(|| format!("no {key} in {span}"))
}

fn attribute<'a>(root: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    let found = root["attributes"].as_array().and_then(|all| all.iter().find(|a| a["key"] == key));
    found.and_then(|a| a["value"]["stringValue"].as_str()).with_context(|| format!("no {key} in {root}"))
}

/// A trace of a join with these steps, one after the other, that ends with the last of them.
fn is_join(spans: &[Value], steps: &[&str], until: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = spans.iter().filter_map(|s| s["name"].as_str()).collect();
    ensure!(names == [&["join", "redeem invitation", "negotiate", "connect"], steps].concat(), "{names:?}");
    let (root, last) = (&spans[0], &spans[spans.len() - 1]);
    ensure!(nanos(root, "endTimeUnixNano")? == nanos(last, "endTimeUnixNano")?, "{spans:?}");
    for pair in spans[1..].windows(2) {
        ensure!(nanos(&pair[0], "endTimeUnixNano")? <= nanos(&pair[1], "startTimeUnixNano")?, "{spans:?}");
    }
    let said = attribute(root, "trocar.until")?;
    ensure!(said == until, "until {said}");
    Ok(())
}

fn traces_to(endpoint: &str) -> String {
    format!("[traces]\nendpoint = \"{endpoint}\"\nservice_name = \"or-7\"\n")
}

/// The node counts a trace as taken after the collector has answered.
fn counted(stack: &Stack, want: f64) -> anyhow::Result<()> {
    crate::runtime().block_on(stack.until_metric("trocar_signaling_traces_total", want))
}

#[test]
fn a_viewers_way_from_the_invitation_to_the_picture_on_its_screen_is_one_trace() -> anyhow::Result<()> {
    let (endpoint, mut traces) = collector()?;
    let stack = Stack::start_with(&traces_to(&endpoint))?;
    let _publisher = stack.publish(&["--source", "test:320x240@30"])?;
    ensure!(traces.is_quiet(), "the control: nobody views yet");

    let _webrtc = stack.watch(&["--feed", "scope", "--transport", "webrtc"])?;
    let spans = traces.next(PATIENCE)?;
    is_join(&spans, &["first frame", "shown"], "shown")?;
    let (text, secret) = (json!(spans).to_string(), stack.text("/tokens/observer")?);
    ensure!(!text.contains(&secret) && !text.contains("Operating room"), "no secret and no title: {text}");

    let _native = stack.watch(&["--feed", "scope"])?;
    is_join(&traces.next(PATIENCE)?, &["shown"], "shown")?;

    let mut browser = Browser::start()?;
    browser.join("observer", &stack.invitation("observer")?, "Dr.+Sato")?;
    browser.wait("observer", ".tile[data-state=live]", PATIENCE)?;
    is_join(&traces.next(PATIENCE)?, &["first frame", "shown"], "shown")?;
    counted(&stack, 3.0)
}

/// The load's viewers say nothing: their join ends with what the relay said.
#[test]
fn of_a_viewer_that_says_nothing_the_trace_ends_with_the_relays_word() -> anyhow::Result<()> {
    let (endpoint, mut traces) = collector()?;
    let stack = Stack::start_with(&traces_to(&endpoint))?;
    let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
    let shape = ["--publishers", "1", "--viewers", "1", "--bitrate", "1", "--ramp", "0.1", "--duration", "1", "--json"];
    let load = Command::new(trocar()?).args(["load", "run", "--invite", &link, "--ca", &ca]).args(shape).output()?;
    ensure!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    is_join(&traces.next(PATIENCE)?, &[], "connected")?;
    counted(&stack, 1.0)
}

fn wall_nanos() -> anyhow::Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// Offers and takes back, until signaling has heard of it: it looks for a gate twice a second. Such a handover grants nothing.
fn until_the_gate_is_heard(theatre: &mut Theatre, traces: &mut Traces) -> anyhow::Result<()> {
    for _ in 0..10 {
        theatre.local(json!({ "act": "take" }))?;
        theatre.local(json!({ "act": "offer", "set": "instruments", "step": "clip the cystic duct" }))?;
        theatre.gate_shows("the offer", |v| v["mode"] == "offered")?;
        // The station's word of this offer is not to be taken for that of the next.
        theatre.station.until("the offer", |v| v["event"] == "offer")?;
        theatre.local(json!({ "act": "take" }))?;
        let Ok(found) = traces.next(Duration::from_secs(3)) else { continue };
        ensure!(found[0]["name"] == "handover" && attribute(&found[0], "trocar.granted")? == "false", "{found:?}");
        return Ok(());
    }
    bail!("signaling does not hear the gate")
}

/// A handover that grants comes after those that come to nothing: on a busy machine local has to offer again.
fn granted(traces: &mut Traces) -> anyhow::Result<Vec<Value>> {
    loop {
        let found = traces.next(PATIENCE)?;
        ensure!(found[0]["name"] == "handover", "{found:?}");
        if attribute(&found[0], "trocar.granted")? == "true" {
            return Ok(found);
        }
    }
}

#[test]
fn a_handover_from_the_offer_until_the_team_has_control_again_is_one_trace() -> anyhow::Result<()> {
    let (endpoint, mut traces) = collector()?;
    let mut theatre = Theatre::open_as(Setting { node: traces_to(&endpoint), ..Setting::default() })?;
    is_join(&traces.next(PATIENCE)?, &["shown"], "shown")?;
    until_the_gate_is_heard(&mut theatre, &mut traces)?;

    let before = wall_nanos()?;
    theatre.remote("instruments", 50)?;
    let operates = wall_nanos()?;
    theatre.take()?;
    let found = granted(&mut traces)?;
    let after = wall_nanos()?;

    let names: Vec<&str> = found.iter().filter_map(|s| s["name"].as_str()).collect();
    // A state that lasts shorter than from one STATUS to the next may be missed; the order is the register's.
    let states = ["handover", "offered", "ready", "granting", "remote"];
    let places: Vec<Option<usize>> = names.iter().map(|name| states.iter().position(|s| s == name)).collect();
    ensure!(places.iter().all(Option::is_some) && places.is_sorted_by(|a, b| a < b), "{names:?}");
    ensure!(names.get(1) == Some(&"offered") && names.last() == Some(&"remote"), "{names:?}");
    let (root, first, last) = (&found[0], &found[1], &found[found.len() - 1]);
    let (begin, end) = (nanos(root, "startTimeUnixNano")?, nanos(root, "endTimeUnixNano")?);
    ensure!(before < begin && begin < operates && end < after, "{before} {operates} {after}: {root}");
    ensure!(begin == nanos(first, "startTimeUnixNano")? && end == nanos(last, "endTimeUnixNano")?, "{found:?}");
    for pair in found[1..].windows(2) {
        ensure!(nanos(&pair[0], "endTimeUnixNano")? == nanos(&pair[1], "startTimeUnixNano")?, "{found:?}");
    }
    // On a busy machine the gate may have stopped the expert itself, before local took.
    match attribute(root, "trocar.ended")? {
        "local" => ensure!(operates < end, "the team had control before it took it: {root}"),
        other => ensure!(other == "hold", "{root}"),
    }
    Ok(())
}
