//! One round of a site's work: everything that comes and goes, once. After it everything has gone again.
#![allow(clippy::indexing_slicing, reason = "a JSON value without that member gives null")]

use super::site::Site;
use crate::attack::ws::{FIN, TEXT};
use crate::process::{Process, trocar};
use crate::sentinel::boot_us;
use crate::sink::Viewer;
use crate::stack::{PATIENCE, Stack, path, summary};
use crate::story::Story;
use crate::theatre::{Theatre, is_motion, selects};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use tokio::task::LocalSet;

/// Publishers and viewers that come, go, and are gone without a word, by every way that a native client has.
pub(super) const VISITORS: &str = r#"
thresholds = ["joins_failed == 0"]
[[publishers]]
name = "paths"
bitrate = 0.3
fps = 15
paths = 2
[[publishers]]
name = "streams"
bitrate = 0.3
fps = 15
transport = "stream"
[[viewers]]
count = 1
paths = 2
[[viewers]]
count = 1
transport = "roq-stream"
[[viewers]]
count = 1
transport = "webrtc"
[[stage]]
kind = "ramp"
seconds = 0.3
[[stage]]
kind = "churn"
seconds = 1
joins_per_s = 2
leaves_per_s = 2
[[stage]]
kind = "kill"
seconds = 0.3
viewers = 1
publishers = 1
"#;

/// Visits by WebRTC in a round.
const VISITS: usize = 4;
/// Frames after which a viewer that came for a moment has seen enough.
const FRAMES: &str = "15";
/// A line is measured at this rate: much less than the relay would let pass.
const LINE: [&str; 6] = ["-t", "1", "--profile", "consultation", "--max-rate", "4M"];
/// Exit codes of a measurement that was made.
const FIT_OR_NOT: [i32; 2] = [0, 99];
/// Commands of the expert a second.
const HZ: u32 = 50;
/// An expert moves for so long, in microseconds.
const MOVES_US: u64 = 500_000;
/// A handover is begun so often at most: on a machine that is busy a link may be found too slow while somebody operates, and then the gate
/// ends it, as it has to.
const TRIES: u64 = 3;

impl Site {
    /// Does it all, once, and waits until everybody has gone.
    ///
    /// # Errors
    /// What did not come about, or who has not gone.
    pub fn round(&mut self) -> anyhow::Result<()> {
        let stack = &self.theatre.stack;
        publishes_by_whip(stack).context("a publisher by WHIP")?;
        publishes(stack).context("a publisher by RTP over QUIC")?;
        // Takes ten seconds and little else; the others come and go beside it.
        let line = self.measure_line()?;
        let visitors = ["load", "run", "--ca", &stack.text("/ca_file")?, path(&self.scenario)?];
        run(&[&visitors[..], &["--invite", &stack.invitation("local")?]].concat(), &[0]).context("visitors")?;
        LocalSet::new().block_on(&self.runtime, guests(stack))?;
        self.looks_after()?;
        self.line_is_measured(line)?;
        self.second_expert().context("a second expert")?;
        self.hands_over()?;
        self.rounds += 1;
        self.settle()
    }

    fn measure_line(&self) -> anyhow::Result<Child> {
        let stack = &self.theatre.stack;
        let mut command = Command::new(trocar()?);
        command.args(["link", "test", &stack.invitation("engineer")?, "--ca", &stack.text("/ca_file")?]).args(LINE);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    }

    fn line_is_measured(&self, line: Child) -> anyhow::Result<()> {
        match ended(line, "trocar link test", &FIT_OR_NOT) {
            // The relay hears a moment later that the expert of the last round does not operate any more.
            Err(error) if error.to_string().contains("Somebody operates") => {
                ended(self.measure_line()?, "trocar link test", &FIT_OR_NOT)
            }
            other => other,
        }
    }

    /// What is done on the node: certificates are made anew, and the audit chain is read.
    fn looks_after(&self) -> anyhow::Result<()> {
        let state = self.theatre.stack.dir.path().join("state");
        run(&["ca", "renew", "--dir", path(&state)?, "relay", "signaling"], &[0])?;
        // Those of this round are recorded a moment later.
        let story = Story::about(&state.join("trocar.db"), "certificates-renewed")?;
        ensure!(!story.records.is_empty() || self.rounds == 0, "new certificates of {} rounds, no record", self.rounds);
        Ok(())
    }

    /// Somebody else's station comes, is seen by the gate, and goes.
    fn second_expert(&mut self) -> anyhow::Result<()> {
        let mut second = self.theatre.second_station("station-2")?;
        let experts =
            |v: &Value| v["connected"].as_array().map_or(0, |all| all.iter().filter(|c| is_expert(c)).count());
        let seen = self.theatre.gate_shows("two experts", |v| experts(v) == 2);
        seen.with_context(|| format!("the second station said: {}", second.process.stderr()))?;
        second.process.stop()?;
        self.theatre.gate_shows("one expert", |v| experts(v) == 1).map(drop)
    }

    /// The expert is given control, moves, and gives it back.
    fn hands_over(&mut self) -> anyhow::Result<()> {
        for left in (0..TRIES).rev() {
            match hand_over(&mut self.theatre) {
                Ok(()) => break,
                Err(error) if left == 0 => return Err(error.context("a handover")),
                Err(_) => self.again += 1,
            }
        }
        // What the device wrote down is judged; it must not fill this process.
        self.theatre.record.events.clear();
        Ok(())
    }
}

fn is_expert(connected: &Value) -> bool {
    connected["signaling"] == false && connected["person"].is_string()
}

fn hand_over(t: &mut Theatre) -> anyhow::Result<()> {
    t.remote("instruments", HZ)?;
    let moves = boot_us();
    t.record.after(moves + MOVES_US, "a motion later on", PATIENCE, is_motion)?;
    t.station.tell(&json!({ "do": "return" }))?;
    t.record.after(moves, "nobody selected", PATIENCE, selects("nobody"))?;
    t.gate_shows("HOLD", |v| v["mode"] == "hold")?;
    t.local(json!({ "act": "take" })).map(drop)
}

/// An encoder with a bearer token; its picture is watched.
fn publishes_by_whip(stack: &Stack) -> anyhow::Result<()> {
    let url = format!("{}v1/sessions/{}/whip?feed=whip", stack.text("/page")?, stack.text("/session")?);
    // A token may begin with a dash.
    let token = format!("--token={}", stack.text("/tokens/local")?);
    let arguments = ["publish", "--whip", &url, &token, "--source", "test:320x240@15", "--audio", "tone"];
    let mut publisher = Process::trocar("trocar publish --whip", &arguments)?;
    publisher.line(PATIENCE, |l| l.starts_with("publishing by WHIP"))?;
    summary(&mut stack.watch(&["--feed", "whip", "--frames", FRAMES])?, PATIENCE)?;
    publisher.stop()
}

/// A native publisher that is watched in a browser's way.
fn publishes(stack: &Stack) -> anyhow::Result<()> {
    let mut publisher = stack.publish(&["--feed", "visitor", "--source", "test:320x240@15"])?;
    let watched = ["--feed", "visitor", "--transport", "webrtc", "--frames", FRAMES];
    summary(&mut stack.watch(&watched)?, PATIENCE)?;
    publisher.stop()
}

/// People in browsers: pictures by UDP and by TCP, an event socket with chat, a fresh token, an invitation for others.
async fn guests(stack: &Stack) -> anyhow::Result<()> {
    let (page, observer) = (stack.text("/page")?, stack.text("/tokens/observer")?);
    for by_tcp in [false, true] {
        let viewer = Viewer::join(&page, &observer).await?;
        let viewer = if by_tcp { viewer.over_tcp() } else { viewer };
        for _ in 0..VISITS {
            viewer.visit("scope").await.context("a visit")?;
        }
        viewer.leave().await?;
    }
    let mut guest = Viewer::join(&page, &stack.text("/tokens/local")?).await?;
    let mut socket = guest.events().await?;
    socket.send(FIN | TEXT, &serde_json::to_vec(&json!({ "type": "chat", "text": "is the clip in view?" }))?).await?;
    socket.text(|text| text.contains("the clip in view")).await.context("no chat")?;
    guest.refresh().await?;
    let invitation = json!({ "role": "observer", "ttl_s": 60 });
    guest.ask(Method::POST, "invitations", Some(&invitation)).await?;
    guest.ask(Method::GET, "", None).await?;
    guest.leave().await
}

/// Runs `trocar` to its end, which has to be one of these.
fn run(arguments: &[&str], codes: &[i32]) -> anyhow::Result<()> {
    let mut command = Command::new(trocar()?);
    let child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    ended(child, &arguments.join(" "), codes)
}

fn ended(child: Child, name: &str, codes: &[i32]) -> anyhow::Result<()> {
    let out = child.wait_with_output()?;
    let is_right = out.status.code().is_some_and(|code| codes.contains(&code));
    ensure!(is_right, "{name}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(())
}
