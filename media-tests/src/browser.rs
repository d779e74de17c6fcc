//! A real Chromium, driven by `media-tests/browser/driver.mjs`.

use crate::process::Process;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

/// Chromium's start takes up to 50 s on a loaded machine.
const START: Duration = Duration::from_secs(120);
/// A command's answer.
const ANSWER: Duration = Duration::from_secs(90);

/// How a browser is started; nothing of it is needed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Sound (WAV) that its microphone plays again and again; otherwise its own beep, once a second.
    pub microphone: Option<&'a Path>,
    /// Picture (Y4M) that its camera plays again and again; otherwise its own.
    pub camera: Option<&'a Path>,
    /// Network namespace that it lives in. It then takes any certificate, as the relay's is known to nobody there.
    pub namespace: Option<&'a str>,
    /// Takes any certificate.
    pub any_certificate: bool,
    /// Lets no sound out before somebody clicked, as browsers do with pages that they do not know.
    pub no_autoplay: bool,
}

/// A browser with its pages, which have names.
pub struct Browser {
    process: Process,
    input: ChildStdin,
    next: u64,
}

impl Browser {
    /// Starts it.
    ///
    /// # Errors
    /// Where node, playwright-core or Chromium is missing.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts it with devices or a network of its own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(options: Options<'_>) -> anyhow::Result<Self> {
        let dir = crate::workspace().join("media-tests/browser");
        let launch = json!({
            "microphone": options.microphone,
            "camera": options.camera,
            "autoplay": !options.no_autoplay,
            "anyCertificate": options.any_certificate || options.namespace.is_some(),
        });
        let mut command = match options.namespace {
            None => Command::new("node"),
            Some(name) => {
                let mut c = Command::new("ip");
                c.args(["netns", "exec", name, "node"]);
                c
            }
        };
        command.arg("driver.mjs").arg(launch.to_string()).current_dir(dir).stdin(Stdio::piped());
        let mut process = Process::start("browser", &mut command)?;
        let input = process.stdin().context("the browser has no standard input")?;
        process.line(START, |l| l.contains("\"ready\""))?;
        Ok(Self { process, input, next: 0 })
    }

    /// Runs one command of the driver.
    ///
    /// # Errors
    /// What the driver says went wrong.
    pub fn call(&mut self, command: &str, page: &str, mut arguments: Value) -> anyhow::Result<Value> {
        self.next += 1;
        let id = self.next;
        if let Some(o) = arguments.as_object_mut() {
            o.insert("id".to_owned(), json!(id));
            o.insert("command".to_owned(), json!(command));
            o.insert("page".to_owned(), json!(page));
        }
        writeln!(self.input, "{arguments}")?;
        let prefix = format!("{{\"id\":{id},");
        let line = self.process.line(ANSWER, |l| l.starts_with(&prefix))?;
        let mut answer: Value = serde_json::from_str(&line)?;
        match answer.get("error") {
            Some(e) => bail!("{command} on {page}: {e}"),
            None => Ok(answer.get_mut("ok").map_or(Value::Null, Value::take)),
        }
    }

    /// Opens a page.
    ///
    /// # Errors
    /// Where it does not load.
    pub fn open(&mut self, page: &str, url: &str) -> anyhow::Result<()> {
        self.call("open", page, json!({ "url": url })).map(drop)
    }

    /// Opens an invitation link and joins by name, without a click.
    ///
    /// # Errors
    /// Where the page does not load.
    pub fn join(&mut self, page: &str, link: &str, name: &str) -> anyhow::Result<()> {
        self.open(page, &format!("{link}&name={name}&join=1"))
    }

    /// Waits for an element.
    ///
    /// # Errors
    /// Where it does not come within `patience`.
    pub fn wait(&mut self, page: &str, selector: &str, patience: Duration) -> anyhow::Result<()> {
        let ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.call("wait", page, json!({ "selector": selector, "timeout": ms })).map(drop)
    }

    /// Takes a screenshot into the artefacts.
    ///
    /// # Errors
    /// Where it cannot be taken or written.
    pub fn screenshot(&mut self, page: &str, name: &str) -> anyhow::Result<()> {
        let path = crate::artifacts()?.join(name);
        self.call("screenshot", page, json!({ "path": path })).map(drop)
    }
}
