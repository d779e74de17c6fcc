//! Signaling and relays, each a process of its own.

use crate::line::Line;
use crate::process::{Process, binary};
use crate::stack::{PATIENCE, Stack, path};
use crate::theatre::wait_metric;
use anyhow::Context as _;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

/// Last number of the loopback address of the first relay's line; the next ones are those of the others.
const FIRST_OF_A_LINE: u8 = 31;
/// Lines by which a relay answers measurements of the line.
pub const LINK_TEST: &str = "[link_test]\nenabled = true\nlisten = \"127.0.0.1:0\"\n";

/// One relay of a cluster.
pub struct ClusterRelay {
    /// Its name.
    pub name: String,
    /// What the configuration of signaling says that it takes, a TOML list.
    takes: String,
    /// More lines of its configuration (TOML).
    pub more: String,
    /// What it printed.
    pub report: Value,
    /// The process.
    pub process: Process,
    /// Where it says that it is reached, when that leads through a line that can be cut.
    pub line: Option<Line>,
}

impl ClusterRelay {
    /// Its own QUIC address, past any line.
    ///
    /// # Errors
    /// Where it did not say one.
    pub fn quic(&self) -> anyhow::Result<SocketAddr> {
        text(&self.report, "/listeners/0/quic")?.parse().context("listeners[0].quic")
    }
}

/// A running cluster.
pub struct Cluster {
    /// Signaling, with what is asked of it.
    pub stack: Stack,
    /// The relays, in the order in which signaling asks them.
    pub relays: Vec<ClusterRelay>,
}

impl Cluster {
    /// Starts relays of these names, which take what stands beside, and signaling.
    ///
    /// # Errors
    /// Where one is not up within [`PATIENCE`].
    pub fn start(relays: &[(&str, &[&str])]) -> anyhow::Result<Self> {
        Self::start_behind(relays, &[])
    }

    /// The same. Those named in `behind` say an address that leads to them through a line: other relays come by it, and who is not to
    /// names [`ClusterRelay::quic`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_behind(relays: &[(&str, &[&str])], behind: &[&str]) -> anyhow::Result<Self> {
        let all: Vec<_> = relays.iter().map(|(name, takes)| (*name, *takes, "")).collect();
        Self::start_with(&all, behind)
    }

    /// As [`Self::start_behind`], with more lines for each relay's configuration (TOML).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(relays: &[(&str, &[&str], &str)], behind: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let state = dir.path().join("state");
        let mut running = Vec::new();
        for (last, (name, takes, more)) in (FIRST_OF_A_LINE..).zip(relays) {
            let arguments = ["ca", "issue", "--dir", path(&state)?, "--role", "relay", "--host", "127.0.0.1", name];
            let mut issue = Process::trocar("trocar ca issue", &arguments)?;
            anyhow::ensure!(issue.wait(PATIENCE)?.success(), "{}", issue.stderr());
            let file = dir.path().join(format!("{name}.toml"));
            let at = behind.contains(name).then_some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
            let (report, process) = start_relay(&file, name, "127.0.0.1:0", (at, more))?;
            let (name, takes, more) = ((*name).to_owned(), format!("{takes:?}"), (*more).to_owned());
            let mut relay = ClusterRelay { name, takes, more, report, process, line: None };
            if let Some(at) = at {
                let quic = relay.quic()?;
                relay.line = Some(Line::between((at, quic.port()).into(), quic)?);
            }
            running.push(relay);
        }
        let file = dir.path().join("trocar.toml");
        std::fs::write(&file, configuration(&running, "127.0.0.1:0", "127.0.0.1:0")?)?;
        let (report, up) = start_signaling(&state, &file)?;
        Ok(Self { stack: Stack { report, up, dir }, relays: running })
    }

    /// Two relays that answer measurements of the line, theatre and edge; theatre takes feeds and has the rendezvous of gates and stations. And
    /// where that is.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_measured() -> anyhow::Result<(Self, SocketAddr)> {
        let both = [("theatre", &["feeds", "legs"][..], LINK_TEST), ("edge", &["legs"], LINK_TEST)];
        let mut cluster = Self::start_with(&both, &[])?;
        // Who signs stations' tokens is known once signaling has been there.
        let (issuer, key) = (cluster.stack.text("/gate/issuer")?, cluster.stack.text("/gate/issuer_key")?);
        let control = format!("[control]\nlisten = \"127.0.0.1:0\"\nissuer = {issuer:?}\nissuer_key = {key:?}\n");
        cluster.relay("theatre")?.more.push_str(&control);
        cluster.kill_relay("theatre")?;
        cluster.start_relay_again("theatre")?;
        wait_metric(&cluster.stack, "trocar_relay_up", "theatre")?;
        let address = text(&cluster.relay("theatre")?.report, "/control")?.parse()?;
        Ok((cluster, address))
    }

    /// The relay of that name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn relay(&mut self, name: &str) -> anyhow::Result<&mut ClusterRelay> {
        self.relays.iter_mut().find(|r| r.name == name).with_context(|| format!("no relay {name}"))
    }

    /// Kills a relay as `kill -9` does.
    ///
    /// # Errors
    /// Where the signal cannot be sent.
    pub fn kill_relay(&mut self, name: &str) -> anyhow::Result<()> {
        let relay = self.relay(name)?;
        relay.process.signal("KILL")?;
        relay.process.wait(PATIENCE).map(drop)
    }

    /// Starts a relay that was killed again, at the same address of admission.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_relay_again(&mut self, name: &str) -> anyhow::Result<()> {
        let file = self.stack.dir.path().join(format!("{name}.toml"));
        let relay = self.relay(name)?;
        anyhow::ensure!(relay.line.is_none(), "{name} has a line, which leads to where it was");
        let admission = text(&relay.report, "/admission")?;
        (relay.report, relay.process) = start_relay(&file, name, &admission, (None, &relay.more))?;
        Ok(())
    }

    /// Kills signaling alone and starts it again with the same folder and at the same addresses.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart_signaling(&mut self) -> anyhow::Result<()> {
        self.stack.kill()?;
        let at = |url: String| url.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let (page, https) = (at(self.stack.text("/page")?), at(self.stack.text("/https")?));
        let file = self.stack.dir.path().join("trocar.toml");
        std::fs::write(&file, configuration(&self.relays, &https, &page)?)?;
        (self.stack.report, self.stack.up) = start_signaling(&self.stack.dir.path().join("state"), &file)?;
        Ok(())
    }
}

fn configuration(relays: &[ClusterRelay], https: &str, page: &str) -> anyhow::Result<String> {
    let mut t = format!("[signaling]\nlisten = {https:?}\nloopback_http = {page:?}\n");
    for r in relays {
        let url = format!("https://{}", text(&r.report, "/admission")?);
        write!(t, "[[relay]]\nname = {:?}\nurl = {url:?}\ntakes = {}\n", r.name, r.takes)?;
    }
    Ok(t)
}

/// The relay is reached at an address that is not its own and leads to it, where one is said; and more lines of its configuration.
fn start_relay(
    file: &std::path::Path,
    name: &str,
    admission: &str,
    (reached, more): (Option<IpAddr>, &str),
) -> anyhow::Result<(Value, Process)> {
    let mut t = format!(
        "cert = \"state/{name}.pem\"\nkey = \"state/{name}.key\"\ntrust = \"state/ca.pem\"\n\
         [admission]\nlisten = \"{admission}\"\n\
         [[listener]]\nrealm = \"local\"\nwebrtc = \"127.0.0.1:0\"\nquic = \"127.0.0.1:0\"\n"
    );
    if let Some(reached) = reached {
        write!(t, "advertise = [\"{reached}\"]\nserver_name = \"127.0.0.1\"\n")?;
    }
    t.push_str(more);
    std::fs::write(file, t)?;
    let mut command = Command::new(binary("trocar-relay")?);
    command.args(["run", "--json", "--config", path(file)?]);
    let mut process = Process::start(&format!("trocar-relay {name}"), &mut command)?;
    let line = process.line(PATIENCE, |l| l.starts_with('{'))?;
    Ok((serde_json::from_str(&line)?, process))
}

fn start_signaling(state: &std::path::Path, file: &std::path::Path) -> anyhow::Result<(Value, Process)> {
    let arguments = ["up", "--json", "--dir", path(state)?, "--config", path(file)?];
    let mut up = Process::trocar("trocar up", &arguments)?;
    let line = up.line(PATIENCE, |l| l.starts_with('{'))?;
    Ok((serde_json::from_str(&line)?, up))
}

fn text(report: &Value, pointer: &str) -> anyhow::Result<String> {
    let found = report.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    found.with_context(|| format!("{pointer} is not in {report}"))
}
