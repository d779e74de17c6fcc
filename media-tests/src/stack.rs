//! The whole system as a user starts it: `trocar up`, publishers and viewers, each a process of its own.

use crate::process::Process;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A process gets this long to be up; machines under load are slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running relay with signaling.
pub struct Stack {
    /// What `trocar up --json` printed.
    pub report: Value,
    /// The process.
    pub up: Process,
    /// Its folder.
    pub dir: TempDir,
}

impl Stack {
    /// Starts one on free ports in a temporary folder.
    ///
    /// # Errors
    /// Where it is not up within [`PATIENCE`].
    pub fn start() -> anyhow::Result<Self> {
        Self::up(&[])
    }

    /// Starts one that other machines reach at that address, by HTTPS.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(host: &str) -> anyhow::Result<Self> {
        Self::up(&["--host", host])
    }

    /// Starts one with these lines of configuration (TOML).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(configuration: &str) -> anyhow::Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), configuration)?;
        Self::up(&["--config", path(file.path())?])
    }

    fn up(more: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let state = dir.path().join("state");
        let fixed = ["up", "--json", "--dir", path(&state)?, "--port", "0"];
        let all: Vec<&str> = fixed.into_iter().chain(more.iter().copied()).collect();
        let mut up = Process::trocar("trocar up", &all)?;
        let line = up.line(PATIENCE, |l| l.starts_with('{'))?;
        Ok(Self { report: serde_json::from_str(&line)?, up, dir })
    }

    /// Kills the process as `kill -9` does.
    ///
    /// # Errors
    /// Where the signal cannot be sent.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.up.signal("KILL")?;
        self.up.wait(PATIENCE).map(drop)
    }

    /// Kills the process and starts it again with the same folder and at the same addresses.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        let page = self.text("/page")?;
        let https = self.text("/https")?;
        let at = |url: &str| url.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let file = self.dir.path().join("again.toml");
        let mut t = format!("[signaling]\nlisten = {:?}\nloopback_http = {:?}\n[relay]\n", at(&https), at(&page));
        for name in ["webrtc", "quic", "control"] {
            t.push_str(&format!("{name} = {:?}\n", self.text(&format!("/relay/{name}"))?));
        }
        std::fs::write(&file, t)?;
        let state = self.dir.path().join("state");
        let arguments = ["up", "--json", "--dir", path(&state)?, "--config", path(&file)?];
        self.up = Process::trocar("trocar up", &arguments)?;
        let line = self.up.line(PATIENCE, |l| l.starts_with('{'))?;
        self.report = serde_json::from_str(&line)?;
        Ok(())
    }

    /// A text of the report, by JSON pointer.
    ///
    /// # Errors
    /// Where there is none.
    pub fn text(&self, pointer: &str) -> anyhow::Result<String> {
        let found = self.report.pointer(pointer).and_then(Value::as_str);
        found.map(ToOwned::to_owned).with_context(|| format!("{pointer} is not in {}", self.report))
    }

    /// The invitation link of a role.
    ///
    /// # Errors
    /// Where the report has none.
    pub fn invitation(&self, role: &str) -> anyhow::Result<String> {
        self.text(&format!("/invitations/{role}"))
    }

    /// Starts a publisher and waits until its packets flow.
    ///
    /// # Errors
    /// Where it does not get there within [`PATIENCE`].
    pub fn publish(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        let (link, ca) = (self.invitation("local")?, self.text("/ca_file")?);
        let all: Vec<&str> =
            ["publish", "--invite", &link, "--ca", &ca].into_iter().chain(arguments.iter().copied()).collect();
        let mut p = Process::trocar("trocar publish", &all)?;
        p.line(PATIENCE, |l| l.starts_with("publishing "))?;
        Ok(p)
    }

    /// Starts a headless viewer that prints JSON lines.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn watch(&self, arguments: &[&str]) -> anyhow::Result<Process> {
        let (link, ca) = (self.invitation("observer")?, self.text("/ca_file")?);
        let fixed = ["watch", "--invite", &link, "--ca", &ca, "--headless", "--json"];
        let all: Vec<&str> = fixed.into_iter().chain(arguments.iter().copied()).collect();
        Process::trocar("trocar watch", &all)
    }

    /// A figure of `/metrics`: the sum over all label sets of that name.
    ///
    /// # Errors
    /// Where the page does not answer or has no such figure.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = crate::http_client()?.get(self.text("/metrics")?).send().await?.error_for_status()?.text().await?;
        let values: Vec<f64> = text
            .lines()
            .filter(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with(['{', ' '])))
            .filter_map(|l| l.rsplit(' ').next()?.parse().ok())
            .collect();
        if values.is_empty() {
            bail!("no {name} in:\n{text}");
        }
        Ok(values.iter().sum())
    }

    /// Waits until that figure is `wanted`.
    ///
    /// # Errors
    /// Where it is not within [`PATIENCE`].
    pub async fn until_metric(&self, name: &str, wanted: f64) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let found = self.metric(name).await;
            if found.as_ref().is_ok_and(|is| *is == wanted) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{name} is not {wanted}: {found:?}");
            // The page is asked again; it has no event that a client could wait for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The summary line of a viewer that has ended.
///
/// # Errors
/// Where there is none within `patience`.
pub fn summary(watch: &mut Process, patience: Duration) -> anyhow::Result<Value> {
    let line = watch.line(patience, |l| l.contains("\"type\":\"summary\""))?;
    Ok(serde_json::from_str(&line)?)
}

/// The 4K fixture that `make fixtures` made.
///
/// # Errors
/// Where it is not there.
pub fn scope_fixture() -> anyhow::Result<PathBuf> {
    fixture("scope")
}

/// 1080p at 30 frames and 20 Mbit/s a second, which `make fixtures` made: what a browser on a small machine decodes several times.
///
/// # Errors
/// Where it is not there.
pub fn line_fixture() -> anyhow::Result<PathBuf> {
    fixture("line")
}

/// The natural video that `make fixtures` fetched.
///
/// # Errors
/// Where it is not there.
pub fn natural_fixture() -> anyhow::Result<PathBuf> {
    fixture("natural")
}

fn fixture(name: &str) -> anyhow::Result<PathBuf> {
    let script = crate::workspace().join("scripts/fixtures.sh");
    let out = std::process::Command::new(&script).args(["path", name]).current_dir(crate::workspace()).output()?;
    let found = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
    if !found.is_file() {
        bail!("fixture {name} is missing: run `make fixtures`\n{}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(found)
}

/// A path as text.
///
/// # Errors
/// Where it is not UTF-8.
pub fn path(p: &Path) -> anyhow::Result<&str> {
    p.to_str().with_context(|| format!("{} is not UTF-8", p.display()))
}
