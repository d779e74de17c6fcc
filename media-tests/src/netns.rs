//! A machine of its own for one program: a Linux network namespace, tied to this one by a cable (a veth pair) into a switch
//! (a bridge), so that the cable can be pulled out, or the switch can swallow what it carries. Needs root.

use anyhow::{Context, bail};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

/// What the names of namespaces and links begin with; the process's id follows.
const PREFIX: &str = "trtest";

/// How the network is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// The cable is pulled out: the machine in the namespace knows that it has no network.
    Unplugged,
    /// Everything is swallowed on the way, and nobody is told.
    Silent,
}

/// A network namespace and the cable to it. It ends with its owner, also where that panics.
pub struct Namespace {
    name: String,
    /// Third byte of its addresses.
    net: u32,
}

impl Namespace {
    /// Makes one, with the cable plugged in. What processes that were killed left behind is cleared away first.
    ///
    /// # Errors
    /// Where `ip` is missing or namespaces are not permitted.
    pub fn new() -> anyhow::Result<Self> {
        clear_left_behind()?;
        let id = std::process::id();
        let space = Self { name: format!("{PREFIX}{id}"), net: id % 250 + 1 };
        let (name, switch, here, there) = (space.name(), space.switch(), space.here(), space.there());
        ip(&["netns", "add", name])
            .context("network namespaces need root, and a kernel and container that permit them")?;
        ip(&["link", "add", &switch, "type", "bridge"])?;
        ip(&["address", "add", &format!("{}/24", space.host()), "dev", &switch])?;
        ip(&["link", "set", &switch, "up"])?;
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", name])?;
        ip(&["link", "set", &here, "master", &switch, "up"])?;
        ip(&["-n", name, "address", "add", &format!("10.203.{}.2/24", space.net), "dev", &there])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "set", &there, "up"])?;
        Ok(space)
    }

    /// Its name, for `ip netns exec`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Address of this machine on the switch; it stays whatever happens to the cable.
    #[must_use]
    pub fn host(&self) -> String {
        format!("10.203.{}.1", self.net)
    }

    /// Begins an outage.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn cut(&self, outage: Outage) -> anyhow::Result<()> {
        match outage {
            Outage::Unplugged => ip(&["link", "set", &self.here(), "down"]),
            Outage::Silent => bridge(&["link", "set", "dev", &self.here(), "state", "disabled"]),
        }
    }

    /// From now on nothing that is sent to the machine in the namespace gets into it, and what it sends gets out; or that is over.
    ///
    /// # Errors
    /// Where `nft` is missing or fails.
    pub fn deafen(&self, deaf: bool) -> anyhow::Result<()> {
        let rules = if deaf {
            "add table inet trtest; add chain inet trtest in { type filter hook input priority 0; policy drop; }"
        } else {
            "delete table inet trtest"
        };
        let mut command = Command::new("ip");
        let out = command.args(["netns", "exec", self.name(), "nft", rules]).output().context("ip, nft")?;
        if out.status.success() { Ok(()) } else { bail!("nft: {}", String::from_utf8_lossy(&out.stderr)) }
    }

    /// Ends it; returns the wall clock in milliseconds at which it ended.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn mend(&self, outage: Outage) -> anyhow::Result<f64> {
        match outage {
            Outage::Unplugged => ip(&["link", "set", &self.here(), "up"])?,
            Outage::Silent => bridge(&["link", "set", "dev", &self.here(), "state", "forwarding"])?,
        }
        Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64() * 1e3)
    }

    fn switch(&self) -> String {
        format!("{}s", self.name)
    }

    fn here(&self) -> String {
        format!("{}h", self.name)
    }

    fn there(&self) -> String {
        format!("{}n", self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The pair goes at once, the namespace when its last process has ended.
        let _ = ip(&["link", "delete", &self.here()]);
        let _ = ip(&["link", "delete", &self.switch()]);
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// Namespaces of ours whose process is gone.
fn clear_left_behind() -> anyhow::Result<()> {
    let out =
        Command::new("ip").args(["netns", "list"]).output().context("`ip` is missing: apt-get install iproute2")?;
    let list = String::from_utf8_lossy(&out.stdout).into_owned();
    for name in list.lines().filter_map(|l| l.split_whitespace().next()) {
        let id = name.strip_prefix(PREFIX).and_then(|id| id.parse::<u32>().ok());
        if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = ip(&["link", "delete", &format!("{name}h")]);
            let _ = ip(&["link", "delete", &format!("{name}s")]);
            ip(&["netns", "delete", name])?;
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run("ip", arguments)
}

fn bridge(arguments: &[&str]) -> anyhow::Result<()> {
    run("bridge", arguments)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let out = Command::new(program).args(arguments).output();
    let out = out.with_context(|| format!("`{program}` is missing: apt-get install iproute2"))?;
    if out.status.success() {
        return Ok(());
    }
    bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr).trim())
}
