//! The relay that the clients meet, and the requests that clients without a bearer of their own need made for them.

use super::make_card;
use crate::process::Process;
use crate::stack::{PATIENCE, path};
use anyhow::{Context, bail};
use aws_lc_rs::digest::{SHA256, digest};
use reqwest::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A running relay, the test card beside it.
pub struct Hub {
    up: Process,
    report: Value,
    /// Its folder; the processes' files go there too.
    pub dir: TempDir,
    /// The test card as a file.
    pub card: PathBuf,
    /// Origins whose pages the relay answers: browsers' pages come from there, one for a publisher, one for a viewer.
    pub pages: [u16; 2],
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Hub {
    /// Starts `trocar up` with its media sockets at `media` and its pages on loopback.
    ///
    /// # Errors
    /// Where it is not up within [`PATIENCE`], or ffmpeg cannot make the test card.
    pub fn start(media: IpAddr) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("up.toml");
        let pages = [free_tcp_port()?, free_tcp_port()?];
        let origins = pages.map(|p| format!("\"http://127.0.0.1:{p}\"")).join(", ");
        let text = format!(
            "[signaling]\nlisten = \"127.0.0.1:0\"\nloopback_http = \"127.0.0.1:0\"\norigins = [{origins}]\n\
             [relay]\nwebrtc = \"{media}:0\"\nquic = \"{media}:0\"\n"
        );
        std::fs::write(&config, text)?;
        let state = dir.path().join("state");
        let arguments = ["up", "--json", "--config", path(&config)?, "--dir", path(&state)?];
        let mut up = Process::trocar("trocar up", &arguments)?;
        let line = up.line(PATIENCE, |l| l.starts_with('{'))?;
        let card = make_card(dir.path())?;
        // No connection is kept: one that the server closes at its idle limit would look like a dead relay.
        let http = crate::http_builder().pool_max_idle_per_host(0).build()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { up, report: serde_json::from_str(&line)?, card, dir, pages, http, runtime })
    }

    /// A text of what `trocar up --json` printed, by JSON pointer.
    ///
    /// # Errors
    /// Where there is none.
    pub fn text(&self, pointer: &str) -> anyhow::Result<&str> {
        let found = self.report.pointer(pointer).and_then(Value::as_str);
        found.with_context(|| format!("{pointer} is not in {}", self.report))
    }

    /// An address below the session, e.g. `feeds`.
    ///
    /// # Errors
    /// Where the report has no session.
    pub fn url(&self, below: &str) -> anyhow::Result<String> {
        Ok(format!("{}v1/sessions/{}/{below}", self.text("/page")?, self.text("/session")?))
    }

    /// Joins with the invitation of a role: its bearer. `device`: bound to the certificate of [`Self::device`].
    ///
    /// # Errors
    /// What signaling refuses.
    pub fn token(&self, role: &str, device: bool) -> anyhow::Result<String> {
        let mut body = json!({ "invitation": self.text(&format!("/tokens/{role}"))?, "name": "Foreign client" });
        if let (true, Some(o)) = (device, body.as_object_mut()) {
            let der = CertificateDer::from_pem_file(self.text("/device_cert")?)?;
            o.insert("cnf".to_owned(), json!(hex::encode(digest(&SHA256, &der))));
        }
        let url = format!("{}v1/join", self.text("/page")?);
        let grant = self.request(Method::POST, &url, None, Some(&body))?;
        Ok(grant.get("token").and_then(Value::as_str).context("a grant has a token")?.to_owned())
    }

    /// Certificate and key of the device that RoQ clients show.
    ///
    /// # Errors
    /// Where the report names none.
    pub fn device(&self) -> anyhow::Result<(&str, &str, &str)> {
        Ok((self.text("/device_cert")?, self.text("/device_key")?, self.text("/ca_file")?))
    }

    /// One request; its JSON answer.
    ///
    /// # Errors
    /// Where the status is none of success, with the problem document.
    pub fn request(
        &self,
        method: Method,
        url: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut request = self.http.request(method, url).timeout(PATIENCE);
        if let Some(t) = token {
            request = request.bearer_auth(t);
        }
        if let Some(b) = body {
            request = request.json(b);
        }
        self.runtime.block_on(async {
            let answer = request.send().await?;
            let (status, text) = (answer.status(), answer.text().await?);
            if !status.is_success() {
                bail!("HTTP {}: {text}", status.as_u16());
            }
            Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
        })
    }

    /// Waits until packets of a feed arrive, or its publisher says why not.
    ///
    /// # Errors
    /// The publisher's own words where it gave up; the feed's state where it never became live.
    pub fn live(&self, feed: &str, publisher: &mut Process, patience: Duration) -> anyhow::Result<()> {
        let (url, token) = (self.url(&format!("feeds/{feed}"))?, self.token("observer", false)?);
        let deadline = Instant::now() + patience;
        let mut state = "it was never announced".to_owned();
        while Instant::now() < deadline {
            if let Ok(found) = self.request(Method::GET, &url, Some(&token), None) {
                state = format!("its state is {}", found.get("state").unwrap_or(&Value::Null));
                if found.get("state").and_then(Value::as_str) == Some("live") {
                    return Ok(());
                }
            }
            // Waits for an error line, a fifth of a second at most, between two looks at the feed.
            match publisher.line(Duration::from_millis(200), |l| l.contains("\"error\"")) {
                Ok(line) => bail!("{}", reason_of(&line)),
                Err(e) if e.to_string().contains("ended without") => bail!("{}", complaint(&e.to_string())),
                Err(_) => {}
            }
        }
        bail!("feed {feed} did not become live within {patience:?}: {state}")
    }

    /// Whether the relay still runs.
    ///
    /// # Errors
    /// Where it has ended, with what it said last.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let url = format!("{}healthz", self.text("/page")?);
        self.request(Method::GET, &url, None, None).map(drop).with_context(|| self.up.stderr())
    }
}

/// The reason in a client's error line.
#[must_use]
pub fn reason_of(line: &str) -> String {
    let parsed: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    parsed.get("reason").and_then(Value::as_str).unwrap_or(line).to_owned()
}

/// What a program said is wrong: its first line that begins with `error` and the one after it, else the last line with
/// something in it.
#[must_use]
pub fn complaint(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let found = lines.iter().position(|l| l.starts_with("error")).unwrap_or_else(|| lines.len().saturating_sub(1));
    let said: Vec<&str> = lines.into_iter().skip(found).take(2).collect();
    if said.is_empty() { "no reason given".to_owned() } else { said.join(" ") }
}

/// A UDP port of loopback that nobody uses now.
///
/// # Errors
/// Where there is none.
pub fn free_udp_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn free_tcp_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
