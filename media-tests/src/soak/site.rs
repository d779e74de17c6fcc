//! The site: operating room, expert, relay with signaling, and two viewers who stay, each a process of its own.

use crate::process::Process;
use crate::stack::{PATIENCE, Stack, summary};
use crate::theatre::{Setting, Theatre};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The node measures lines as well.
const NODE: &str = "[link_test]\nenabled = true\nlisten = \"127.0.0.1:0\"\n";
/// A picture that costs little.
const PICTURE: &str = "test:320x240@30";
/// Its frames a second.
const RATE: f64 = 30.0;
/// What a node counts of who and what is there. After a round each is what it was before the first one.
const COUNTED: [&str; 6] = [
    "trocar_signaling_participants",
    "trocar_signaling_event_sockets",
    "trocar_signaling_feeds",
    "trocar_signaling_legs",
    "trocar_signaling_publications",
    CONNECTED,
];
/// Legs that the relay itself counts, twice a second.
const CONNECTED: &str = "trocar_leg_connected";

/// A site at work.
pub struct Site {
    pub(super) theatre: Theatre,
    /// A viewer by WebRTC; the one by RTP over QUIC is the theatre's.
    browser: Process,
    /// What the node counted before the first round.
    rest: Rest,
    /// What comes and goes in a round, for `trocar load`.
    pub(super) scenario: PathBuf,
    pub(super) runtime: tokio::runtime::Runtime,
    /// Rounds of work that are done.
    pub(super) rounds: u64,
    /// Handovers that had to be begun again.
    pub(super) again: u64,
}

impl Site {
    /// Starts it and waits until everybody is there.
    ///
    /// # Errors
    /// What did not come up.
    pub fn open() -> anyhow::Result<Self> {
        // The emulated lines remember eight clients each, and a station more comes in every round.
        let setting = Setting { node: NODE.to_owned(), source: PICTURE.to_owned(), direct: true, ..Setting::default() };
        let mut theatre = Theatre::open_as(setting)?;
        let mut browser = theatre.stack.watch(&["--transport", "webrtc"])?;
        for viewer in [&mut theatre.eye, &mut browser] {
            viewer.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
        }
        let scenario = theatre.places.dir.join("visitors.toml");
        std::fs::write(&scenario, super::round::VISITORS)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let rest = runtime.block_on(async {
            // Of the two viewers' legs the relay's figures tell a moment later.
            theatre.stack.until_metric(CONNECTED, 2.0).await?;
            Rest::of(&theatre.stack).await
        })?;
        Ok(Self { theatre, browser, rest, scenario, runtime, rounds: 0, again: 0 })
    }

    /// The processes that are there from the beginning to the end, by name.
    #[must_use]
    pub fn processes(&self) -> [(&'static str, &Process); 7] {
        let t = &self.theatre;
        [
            ("trocar up", &t.stack.up),
            ("trocar-gate", &t.room.gate.process),
            ("trocar-sim-device", &t.room.device),
            ("trocar operate", &t.station.process),
            ("trocar publish", &t.camera),
            ("trocar watch", &t.eye),
            ("trocar watch --transport webrtc", &self.browser),
        ]
    }

    /// Waits until nobody is there any more who was not there before the first round.
    ///
    /// # Errors
    /// Names what has not gone, with its count.
    pub fn settle(&self) -> anyhow::Result<()> {
        self.runtime.block_on(self.rest.again(&self.theatre.stack, PATIENCE))
    }

    /// Ends it: handovers that had to be begun again, and what the two viewers said.
    ///
    /// # Errors
    /// Where one says nothing.
    pub fn close(mut self) -> anyhow::Result<(u64, Vec<(&'static str, Value)>)> {
        let mut said = Vec::new();
        for (name, viewer) in [("RTP over QUIC", &mut self.theatre.eye), ("WebRTC", &mut self.browser)] {
            viewer.signal("TERM")?;
            said.push((name, summary(viewer, PATIENCE).with_context(|| format!("the viewer by {name}"))?));
        }
        Ok((self.again, said))
    }
}

/// What a node counts while nobody comes or goes.
#[derive(Debug, Clone, Copy)]
pub struct Rest([f64; COUNTED.len()]);

impl Rest {
    /// What it counts now.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn of(stack: &Stack) -> anyhow::Result<Self> {
        let mut now = [0.0; COUNTED.len()];
        for (name, value) in COUNTED.iter().zip(&mut now) {
            // A relay without a leg says nothing of legs.
            *value = stack.metric(name).await.or_else(|e| if *name == CONNECTED { Ok(0.0) } else { Err(e) })?;
        }
        Ok(Self(now))
    }

    /// Waits until the node counts the same again.
    ///
    /// # Errors
    /// Names what has not gone within `patience`, with its count.
    pub async fn again(&self, stack: &Stack, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let now = Self::of(stack).await?;
            let other = COUNTED.iter().zip(self.0.iter().zip(now.0)).filter(|(_, (was, is))| **was != *is);
            let said: Vec<String> = other.map(|(name, (was, is))| format!("{name} {is}, not {was}")).collect();
            if said.is_empty() {
                return Ok(());
            }
            ensure!(began.elapsed() < patience, "not as it was before anybody came: {}", said.join("; "));
            // The page is asked again; it has no event that a client could wait for.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Whether a viewer that was there all along was disturbed by what came and went: one frame in a thousand may be lost and one in ten not
/// have been made where the machine had other things to do.
///
/// # Errors
/// Says what was missing.
pub fn undisturbed(summary: &Value) -> anyhow::Result<()> {
    let figure = |name: &str| summary.get(name).and_then(Value::as_f64).with_context(|| format!("{name} in {summary}"));
    let (frames, lost, seconds) = (figure("frames")?, figure("frames_lost")?, figure("seconds")?);
    ensure!(summary.get("state").and_then(Value::as_str) == Some("live"), "the picture has ended: {summary}");
    ensure!(lost * 1_000.0 <= frames, "{lost} frames of {frames} are lost: {summary}");
    ensure!(frames >= seconds * RATE * 0.9, "{frames} frames in {seconds} s: {summary}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_viewer_that_lost_something_or_stood_still_was_disturbed() {
        let said = |frames: u64, lost: u64, state: &str| {
            undisturbed(&json!({ "frames": frames, "frames_lost": lost, "seconds": 100.0, "state": state }))
        };
        assert!(said(2_990, 0, "live").is_ok());
        assert!(said(2_990, 2, "live").is_ok());
        assert!(said(2_990, 3, "live").is_err());
        assert!(said(2_600, 0, "live").is_err());
        assert!(said(2_990, 0, "waiting").is_err());
        assert!(undisturbed(&json!({ "frames": 2_990, "seconds": 100.0, "state": "live" })).is_err());
    }
}
