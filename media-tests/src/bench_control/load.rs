//! What else the relay does meanwhile: feeds of the fixture, each with a viewer in another process.

use crate::process::{Process, binary};
use crate::sentinel::boot_us;
use crate::sink::Viewer;
use crate::stack::{PATIENCE, Stack, path, scope_fixture};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Publishers and their viewer.
pub struct Load {
    viewer: Process,
    _publishers: Vec<Process>,
    metrics: String,
    runtime: tokio::runtime::Runtime,
}

/// Counters at a moment.
#[derive(Debug)]
pub struct Look {
    at: u64,
    bytes_in: f64,
    bytes_out: f64,
    lost: f64,
}

impl Look {
    /// Mbit/s into the relay, Mbit/s at the viewer, packets that the viewer missed.
    #[must_use]
    pub fn since(&self, before: &Self) -> (f64, f64, u64) {
        let us = self.at.saturating_sub(before.at).max(1) as f64;
        let mbit = |a: f64, b: f64| (a - b) * 8.0 / us;
        (mbit(self.bytes_in, before.bytes_in), mbit(self.bytes_out, before.bytes_out), (self.lost - before.lost) as u64)
    }
}

impl Load {
    /// Starts so many feeds and waits until the viewer has packets of each.
    ///
    /// # Errors
    /// Where one does not come up.
    pub fn start(stack: &Stack, feeds: usize) -> anyhow::Result<Self> {
        let source = format!("file:{}", path(&scope_fixture()?)?);
        let names: Vec<String> = (0..feeds).map(|n| format!("load-{n}")).collect();
        let publish = |name: &String| stack.publish(&["--source", &source, "--loop", "--passthrough", "--feed", name]);
        let publishers = names.iter().map(publish).collect::<anyhow::Result<Vec<_>>>()?;
        let mut command = Command::new(binary("trocar-bench-control")?);
        command.args(["view", &stack.text("/page")?, &stack.text("/tokens/observer")?]).args(&names);
        let mut viewer = Process::start("viewer", &mut command)?;
        viewer.line(PATIENCE, |l| l.contains("\"all\":true"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { viewer, _publishers: publishers, metrics: stack.text("/metrics")?, runtime })
    }

    /// The counters now: the relay's own for what came in, the viewer's for what went out.
    ///
    /// # Errors
    /// Where relay or viewer do not answer.
    pub fn look(&mut self) -> anyhow::Result<Look> {
        let since = boot_us();
        let line = self.viewer.line(PATIENCE, |l| of(l, "at") >= since as f64)?;
        let text = self.runtime.block_on(async {
            crate::http_client()?
                .get(&self.metrics)
                .send()
                .await?
                .error_for_status()?
                .text()
                .await
                .map_err(anyhow::Error::from)
        })?;
        let load = |l: &&str| l.starts_with("trocar_feed_bytes_total{") && l.contains("\"load-");
        let figures: Vec<f64> = text.lines().filter(load).filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
        ensure!(!figures.is_empty(), "no trocar_feed_bytes_total of the load in:\n{text}");
        let bytes_in = figures.iter().sum();
        Ok(Look { at: boot_us(), bytes_in, bytes_out: of(&line, "bytes"), lost: of(&line, "lost") })
    }
}

fn of(line: &str, name: &str) -> f64 {
    serde_json::from_str(line).ok().and_then(|v: Value| v.get(name)?.as_f64()).unwrap_or(-1.0)
}

/// What the viewer's process does: fetches the feeds and says twice a second what came, for ever.
///
/// # Errors
/// Where a feed does not come.
pub async fn view(page: &str, token: &str, feeds: &[String]) -> anyhow::Result<()> {
    let viewer = Viewer::join(page, token).await?;
    let mut counts = Vec::new();
    for feed in feeds {
        counts.push(viewer.fetch(feed).await.with_context(|| feed.clone())?.0);
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        ticks.tick().await;
        let sum = |of: fn(&crate::sink::Counts) -> u64| counts.iter().map(|c| of(c)).sum::<u64>();
        let line = json!({
            "at": boot_us(),
            "all": counts.iter().all(|c| c.packets.load(Ordering::Relaxed) > 0),
            "bytes": sum(|c| c.bytes.load(Ordering::Relaxed)),
            "lost": sum(|c| c.gaps.load(Ordering::Relaxed) + c.refused.load(Ordering::Relaxed)),
        });
        println!("{line}");
    }
}
