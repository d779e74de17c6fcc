//! A machine of its own for one program: a Linux network namespace, tied to this one by a cable (a veth pair) into a switch
//! (a bridge), so that the cable can be pulled out, or the switch can swallow what it carries. Needs root.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
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
        self.nft(rules)
    }

    /// Hands rules to the packet filter of the namespace.
    ///
    /// # Errors
    /// Where `nft` is missing or does not take them.
    pub fn nft(&self, rules: &str) -> anyhow::Result<()> {
        ip(&["netns", "exec", self.name(), "nft", rules])
    }

    /// From now on the cable carries packets of at most so many bytes.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn mtu(&self, bytes: u32) -> anyhow::Result<()> {
        let bytes = bytes.to_string();
        ip(&["link", "set", &self.here(), "mtu", &bytes])?;
        ip(&["-n", self.name(), "link", "set", &self.there(), "mtu", &bytes])
    }

    /// Gives both ends of the cable an address of IPv6: this machine's, and the namespace's.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn ipv6(&self) -> anyhow::Result<[String; 2]> {
        let [host, own] = [1, 2].map(|end| format!("fd00:203:{}::{end}", self.net));
        ip(&["address", "add", &format!("{host}/64"), "dev", &self.switch(), "nodad"])?;
        ip(&["-n", self.name(), "address", "add", &format!("{own}/64"), "dev", &self.there(), "nodad"])?;
        Ok([host, own])
    }

    /// The names that programs in the namespace know, in the form of `/etc/hosts`, for those that `ip netns exec` starts.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn hosts(&self, text: &str) -> anyhow::Result<()> {
        let folder = names_of(&self.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::write(folder.join("hosts"), text).with_context(|| format!("cannot write in {}", folder.display()))
    }

    /// Sets what `/proc/sys/KEY` of the namespace says.
    ///
    /// # Errors
    /// Where the kernel has no such key, or does not take the value.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let file = format!("/proc/sys/{key}");
        inside(&self.name, || std::fs::write(&file, value).with_context(|| format!("cannot write {file}")))?
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
        let _ = std::fs::remove_dir_all(names_of(&self.name));
    }
}

/// What `ip netns exec` puts in the place of files of `/etc`.
fn names_of(namespace: &str) -> PathBuf {
    Path::new("/etc/netns").join(namespace)
}

/// Two hospitals whose networks have the same addresses, and between them a machine that stands in both: three namespaces, two cables. Needs
/// root.
pub struct Hospitals {
    name: String,
}

/// One of [`Hospitals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hospital {
    /// The one whose node it is.
    North,
    /// The other.
    South,
}

impl Hospital {
    /// Address of the machine between in this hospital's network.
    #[must_use]
    pub const fn relay(self) -> &'static str {
        match self {
            Self::North => "192.168.1.1",
            Self::South => "192.168.1.2",
        }
    }

    /// Address of its station beside [`Hospitals::STATION`], which no other machine has: for what would be routed between the two.
    #[must_use]
    pub const fn alone(self) -> &'static str {
        match self {
            Self::North => "10.77.1.10",
            Self::South => "10.77.2.10",
        }
    }

    /// Of the machine between, into this hospital.
    const fn cable(self) -> &'static str {
        match self {
            Self::North => "to-north",
            Self::South => "to-south",
        }
    }

    const fn letter(self) -> &'static str {
        match self {
            Self::North => "n",
            Self::South => "s",
        }
    }
}

impl Hospitals {
    /// Address of the one station that each of them has.
    pub const STATION: &str = "192.168.1.10";

    /// Makes them. What processes that were killed left behind is cleared away first.
    ///
    /// # Errors
    /// Where `ip` is missing or namespaces are not permitted.
    pub fn new() -> anyhow::Result<Self> {
        clear_left_behind()?;
        let all = Self { name: format!("{PREFIX}{}", std::process::id()) };
        let between = all.between();
        ip(&["netns", "add", &between])
            .context("network namespaces need root, and a kernel and container that permit them")?;
        ip(&["-n", &between, "link", "set", "lo", "up"])?;
        // Whoever asks for the address in the other network gets no answer, and what answers goes where its address belongs.
        all.set("/proc/sys/net/ipv4/conf/all/arp_ignore", "1")?;
        all.forward(false)?;
        for (hospital, table) in [(Hospital::North, "101"), (Hospital::South, "102")] {
            let (space, cable, own) = (all.of(hospital), hospital.cable(), format!("{}/24", hospital.relay()));
            ip(&["netns", "add", &space])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &between, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &between, "address", "add", &own, "dev", cable])?;
            ip(&["-n", &between, "link", "set", cable, "up"])?;
            ip(&["-n", &between, "rule", "add", "from", hospital.relay(), "table", table])?;
            ip(&["-n", &between, "route", "add", "192.168.1.0/24", "dev", cable, "table", table])?;
            ip(&["-n", &space, "address", "add", &format!("{}/24", Self::STATION), "dev", "eth0"])?;
            ip(&["-n", &space, "address", "add", &format!("{}/32", hospital.alone()), "dev", "lo"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            ip(&["-n", &space, "route", "add", "default", "via", hospital.relay()])?;
            ip(&["-n", &between, "route", "add", hospital.alone(), "via", Self::STATION, "dev", cable])?;
        }
        Ok(all)
    }

    /// Namespace of the machine between.
    #[must_use]
    pub fn between(&self) -> String {
        format!("{}b", self.name)
    }

    /// Namespace of a hospital's station.
    #[must_use]
    pub fn of(&self, hospital: Hospital) -> String {
        format!("{}{}", self.name, hospital.letter())
    }

    /// Has the machine between route packets of one network into the other, or not.
    ///
    /// # Errors
    /// Where that cannot be set.
    pub fn forward(&self, on: bool) -> anyhow::Result<()> {
        self.set("/proc/sys/net/ipv4/ip_forward", if on { "1" } else { "0" })
    }

    /// Has packets for an address of one network dropped that come by the cable of the other, or not: docs/OPERATING.md says the same
    /// rules. Without them the kernel takes them, whichever cable they came by.
    ///
    /// # Errors
    /// Where `nft` is missing or fails.
    pub fn guard(&self, on: bool) -> anyhow::Result<()> {
        let rule = |of: Hospital, not: Hospital| {
            format!("add rule inet realms in iifname {} ip daddr {} drop; ", of.cable(), not.relay())
        };
        let (north, south) = (Hospital::North, Hospital::South);
        let rules = if on {
            "add table inet realms; add chain inet realms in { type filter hook input priority 0; }; ".to_owned()
                + &rule(north, south)
                + &rule(south, north)
        } else {
            "delete table inet realms".to_owned()
        };
        ip(&["netns", "exec", &self.between(), "nft", &rules])
    }

    /// From now on a hospital's machines send packets for the machine's address in the other network to it, from an address that it
    /// answers by the same cable: what somebody there can do who means to.
    ///
    /// # Errors
    /// Where `ip` fails.
    pub fn reach_across(&self, from: Hospital, to: Hospital) -> anyhow::Result<()> {
        let (space, other) = (self.of(from), format!("{}/32", to.relay()));
        ip(&["-n", &space, "route", "replace", &other, "via", from.relay(), "src", from.alone()])
    }

    fn set(&self, path: &str, value: &str) -> anyhow::Result<()> {
        inside(&self.between(), || std::fs::write(path, value).with_context(|| format!("cannot write {path}")))?
    }
}

impl Drop for Hospitals {
    fn drop(&mut self) {
        for space in [self.of(Hospital::North), self.of(Hospital::South), self.between()] {
            let _ = ip(&["netns", "delete", &space]);
        }
    }
}

/// Does something in a namespace, on a thread of its own: sockets that are opened there belong to it.
///
/// # Errors
/// Where there is no such namespace, or the thread is not let in.
pub fn inside<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let door = std::fs::File::open(format!("/run/netns/{namespace}")).context(namespace.to_owned())?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&door), Some(LinkNameSpaceType::Network))?;
            anyhow::Ok(act())
        });
        thread.join().map_err(|_| anyhow::anyhow!("what was done in {namespace} panicked"))?
    })
}

/// Namespaces of ours whose process is gone.
fn clear_left_behind() -> anyhow::Result<()> {
    let out =
        Command::new("ip").args(["netns", "list"]).output().context("`ip` is missing: apt-get install iproute2")?;
    let list = String::from_utf8_lossy(&out.stdout).into_owned();
    for name in list.lines().filter_map(|l| l.split_whitespace().next()) {
        let id = name.strip_prefix(PREFIX).map(|id| id.trim_end_matches(char::is_alphabetic));
        let id = id.and_then(|id| id.parse::<u32>().ok());
        if id.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = ip(&["link", "delete", &format!("{name}h")]);
            let _ = ip(&["link", "delete", &format!("{name}s")]);
            ip(&["netns", "delete", name])?;
            let _ = std::fs::remove_dir_all(names_of(name));
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
