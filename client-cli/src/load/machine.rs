//! What this program and the relay cost: without that nobody knows which of the two was the limit.

use crate::net::tls::{https_client, metrics_url};
use crate::top::text::{Sample, parse};
use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use url::Url;

/// An answer with figures that takes longer is none.
const TIMEOUT: Duration = Duration::from_millis(800);
/// CPU time of a process, as Prometheus clients name it.
pub(super) const CPU_METRIC: &str = "process_cpu_seconds_total";
/// CPU time of a relay's worker.
const WORKER_METRIC: &str = "trocar_worker_cpu_seconds_total";
/// Readings by metrics that a rate is made of. A node takes its figures twice a second, so over five seconds a rate is right to
/// about a tenth.
const KEPT: usize = 5;

/// Where the relay's figures come from.
#[derive(Debug, Clone, Default)]
pub(super) struct RelayFigures {
    /// Its process, on this machine.
    pid: Option<u32>,
    /// Its `/metrics`.
    metrics: Option<(reqwest::Client, Url)>,
}

/// Counters by name and labels.
type Rows = BTreeMap<String, f64>;

/// What all rows rose by together. One that was not there before began at 0, one that is gone says nothing.
fn risen(now: &Rows, before: &Rows) -> u64 {
    now.iter().map(|(row, n)| (n - before.get(row).copied().unwrap_or(0.0)).max(0.0)).sum::<f64>() as u64
}

/// What the relay has cost and lost so far.
#[derive(Debug, Clone, Default, PartialEq)]
struct Spent {
    /// Of the process, or of all where relays are apart; none where only threads are known.
    whole: Option<f64>,
    /// Of each thread: all of a process, or the workers by metrics.
    threads: Rows,
    /// Datagrams that the kernel dropped at its sockets; none where nobody says.
    drops: Option<Rows>,
    /// Packets that did not get from it to a viewer because a queue was full; none where nobody says.
    left_out: Option<Rows>,
}

/// Figures of a node's page that are read: a page about a thousand legs has many more.
const DROPS: &str = "trocar_socket_kernel_drops_total";
const LEFT_OUT: [&str; 3] =
    ["trocar_leg_shed_packets_total", "trocar_leg_dropped_packets_total", "trocar_crossing_dropped_packets_total"];

impl Spent {
    /// What was spent since then, and by the busiest thread; none where it did not rise, as after a restart.
    fn since(&self, before: &Self) -> Option<(f64, Option<f64>)> {
        let of = |(id, s): (&String, &f64)| s - before.threads.get(id).copied().unwrap_or(0.0);
        let each: Vec<f64> = self.threads.iter().map(of).collect();
        let whole = self.whole.zip(before.whole).map_or_else(|| each.iter().sum(), |(now, then)| now - then);
        (whole >= 0.0).then(|| (whole, each.into_iter().reduce(f64::max)))
    }

    /// From an answer; none where it says nothing of a process. Where relays are apart, the figures without the name of one are
    /// signaling's own.
    fn read(text: &str) -> Option<Self> {
        let read = [CPU_METRIC, WORKER_METRIC, DROPS].into_iter().chain(LEFT_OUT);
        let read: Vec<&str> = read.collect();
        let wanted = text.lines().filter(|l| read.iter().any(|name| l.starts_with(name)));
        let samples = parse(&wanted.collect::<Vec<_>>().join("\n")).ok()?;
        let apart = samples.iter().any(|s| s.labels.contains_key("relay"));
        let of = |name| samples.iter().filter(move |s| s.name == name && s.labels.contains_key("relay") == apart);
        let whole = of(CPU_METRIC).map(|s| s.value).reduce(|a, b| a + b)?;
        let row = |s: &Sample| (format!("{} {:?}", s.name, s.labels), s.value);
        Some(Self {
            whole: Some(whole),
            threads: of(WORKER_METRIC).map(row).collect(),
            drops: Some(of(DROPS).map(row).collect()).filter(|rows: &Rows| !rows.is_empty()),
            left_out: Some(LEFT_OUT.into_iter().flat_map(of).map(row).collect()),
        })
    }
}

impl RelayFigures {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// Where there is no such process, or the address cannot be asked.
    pub(super) fn new(
        pid: Option<u32>,
        metrics: Option<&Url>,
        trust: &[CertificateDer<'static>],
    ) -> anyhow::Result<Self> {
        if let Some(pid) = pid
            && threads(pid).is_none()
        {
            bail!("--relay-pid {pid}: there is no such process on this machine");
        }
        let metrics = match metrics {
            Some(url) => {
                let http = https_client(trust, TIMEOUT)?;
                let url = metrics_url(url);
                Some((http, url))
            }
            None => None,
        };
        Ok(Self { pid, metrics })
    }

    /// Asks once, so that a mistake is told before the test and not by figures that are missing after it.
    ///
    /// # Errors
    /// Where nobody answers, or with something else than figures.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let Some((_, url)) = &self.metrics else { return Ok(()) };
        let text = self.ask().await.with_context(|| format!("--metrics {url}"))?;
        parse(&text).with_context(|| format!("--metrics {url}"))?;
        Ok(())
    }

    async fn ask(&self) -> anyhow::Result<String> {
        let (http, url) = self.metrics.as_ref().context("no address")?;
        Ok(http.get(url.clone()).send().await?.error_for_status()?.text().await?)
    }

    /// So far: of the process where it is on this machine, and what only metrics say by these.
    async fn read(&self) -> Option<Spent> {
        let text = if self.metrics.is_some() { self.ask().await.ok() } else { None };
        let by_metrics = text.as_deref().and_then(Spent::read);
        let Some(pid) = self.pid else { return by_metrics };
        let left_out = by_metrics.and_then(|m| m.left_out);
        Some(Spent { whole: None, threads: threads(pid)?, drops: kernel_drops(&pid.to_string()), left_out })
    }

    /// Readings that a rate is made of.
    const fn kept(&self) -> usize {
        if self.pid.is_some() { 1 } else { KEPT }
    }
}

/// CPU seconds of each thread of a process so far.
fn threads(pid: u32) -> Option<Rows> {
    let mut out = Rows::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let id = task.file_name().to_str()?.to_owned();
        // A thread may end between the two reads.
        let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
        let ns: f64 = text.split(' ').next()?.parse().ok()?;
        out.insert(id, ns / 1e9);
    }
    Some(out)
}

/// Datagrams that the kernel dropped so far at each UDP socket of a process, by inode: the tenth column and the last one of the
/// kernel's list. None where it does not say.
fn kernel_drops(process: &str) -> Option<Rows> {
    let links = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
    let sockets: Vec<String> = links
        .filter_map(|fd| {
            Some(std::fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let mut out = Rows::new();
    for table in ["udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).ok()?;
        for line in text.lines().skip(1) {
            let mut columns = line.split_ascii_whitespace();
            let (Some(inode), Some(drops)) = (columns.nth(9), columns.next_back()) else { continue };
            if sockets.iter().any(|s| s == inode) {
                out.insert(inode.to_owned(), drops.parse().ok()?);
            }
        }
    }
    Some(out)
}

/// One interval: CPU in per cent of one core, and what was lost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// This program.
    pub(super) own: f64,
    /// The relay; none where nobody says.
    pub(super) relay: Option<f64>,
    /// Its busiest thread, where they can be told apart.
    pub(super) relay_thread: Option<f64>,
    /// Processes that run or want to, over the last minute.
    pub(super) average: f64,
    /// Datagrams that the kernel dropped at sockets of this program.
    pub(super) own_drops: Option<u64>,
    /// The same at the relay's.
    pub(super) relay_drops: Option<u64>,
    /// Packets that the relay left out because a queue was full.
    pub(super) relay_left_out: Option<u64>,
}

/// Reads again and again.
pub(super) struct Meter {
    relay: RelayFigures,
    at: Instant,
    own: f64,
    own_drops: Option<Rows>,
    /// The last readings of the relay, the newest at the back. Loss policy: the oldest goes first.
    before: VecDeque<(Instant, Spent)>,
}

/// CPU seconds of this process so far.
fn own_seconds() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

/// Cores that this program may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Meter {
    pub(super) async fn new(relay: RelayFigures) -> Self {
        let first = relay.read().await.map(|spent| (Instant::now(), spent));
        let before = first.into_iter().collect();
        Self { relay, at: Instant::now(), own: own_seconds(), own_drops: kernel_drops("self"), before }
    }

    /// What the time since the last reading cost.
    pub(super) async fn read(&mut self) -> Load {
        let last = self.before.back().map(|(_, spent)| spent.clone());
        let relay = self.read_relay().await;
        let now = self.before.back().map(|(_, spent)| spent);
        let lost = |of: fn(&Spent) -> Option<&Rows>| Some(risen(of(now?)?, of(last.as_ref()?)?));
        let (relay_drops, relay_left_out) = (lost(|s| s.drops.as_ref()), lost(|s| s.left_out.as_ref()));
        let drops = kernel_drops("self");
        let own_drops = drops.as_ref().zip(self.own_drops.as_ref()).map(|(now, before)| risen(now, before));
        self.own_drops = drops;
        let (at, own) = (Instant::now(), own_seconds());
        let seconds = (at - self.at).as_secs_f64().max(1e-3);
        let load = Load {
            own: (own - self.own) * 100.0 / seconds,
            relay: relay.map(|(whole, _)| whole),
            relay_thread: relay.and_then(|(_, thread)| thread),
            average: average(),
            own_drops,
            relay_drops,
            relay_left_out,
        };
        (self.at, self.own) = (at, own);
        load
    }

    /// The relay's CPU and its busiest thread's, in per cent of one core.
    async fn read_relay(&mut self) -> Option<(f64, Option<f64>)> {
        let Some(now) = self.relay.read().await else {
            // Across a time without answers nothing is known.
            self.before.clear();
            return None;
        };
        let at = Instant::now();
        let of = |(then, before): &(Instant, Spent)| {
            let percent = 100.0 / (at - *then).as_secs_f64().max(1e-3);
            now.since(before).map(|(whole, thread)| (whole * percent, thread.map(|t| t * percent)))
        };
        let found = self.before.front().map(of);
        if found == Some(None) {
            self.before.clear();
        }
        if self.before.len() >= self.relay.kept() {
            self.before.pop_front();
        }
        self.before.push_back((at, now));
        found.flatten()
    }
}

fn average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|v| v.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_metrics_the_relay_is_told_from_signaling_and_a_page_without_the_figure_says_nothing() {
        let node = "process_cpu_seconds_total 7\ntrocar_worker_cpu_seconds_total{worker=\"0\"} 2\ntrocar_worker_cpu_seconds_total{worker=\"1\"} 3.5\n";
        let spent = Spent::read(node).unwrap();
        assert_eq!(spent.since(&Spent { whole: Some(1.0), ..Spent::default() }), Some((6.0, Some(3.5))));
        let threads = [("trocar_worker_cpu_seconds_total {\"worker\": \"1\"}".to_owned(), 3.25)].into();
        let before = Spent { whole: Some(6.5), threads, ..Spent::default() };
        assert_eq!(spent.since(&before), Some((0.5, Some(2.0))));
        assert_eq!(Spent::default().since(&Spent::default()), Some((0.0, None)));
        assert_eq!((spent.drops, spent.left_out), (None, Some(Rows::new())));
        let anew = Spent { whole: Some(1.0), ..Spent::default() };
        assert_eq!(anew.since(&Spent { whole: Some(7.0), ..Spent::default() }), None, "it began anew");
        let apart = "process_cpu_seconds_total 7\nprocess_cpu_seconds_total{relay=\"a\"} 1\nprocess_cpu_seconds_total{relay=\"b\"} 2\n\
                     trocar_worker_cpu_seconds_total{relay=\"b\",worker=\"0\"} 1\n";
        let spent = Spent::read(apart).unwrap();
        assert_eq!((spent.whole, spent.threads.len()), (Some(3.0), 1));
        assert_eq!((Spent::read("trocar_relay_up 1\n"), Spent::read("<html>")), (None, None));
    }

    #[tokio::test]
    async fn a_thread_that_works_is_seen_in_both_readings() {
        let relay = RelayFigures::new(Some(std::process::id()), None, &[]).unwrap();
        let mut meter = Meter::new(relay).await;
        let end = own_seconds() + 0.05;
        let mut x = 1_u64;
        while own_seconds() < end {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let load = meter.read().await;
        assert!(load.own > 5.0 && load.relay.unwrap() > 5.0 && load.relay_thread.unwrap() > 1.0, "{load:?}");
        assert!(RelayFigures::new(Some(u32::MAX), None, &[]).unwrap_err().to_string().contains("--relay-pid"));
    }

    #[test]
    fn what_the_relay_left_out_is_the_sum_of_what_each_leg_rose_by() {
        let page = |a: u32, b: &str| {
            format!(
                "process_cpu_seconds_total 1\ntrocar_socket_kernel_drops_total{{worker=\"0\"}} 5\n\
                 trocar_leg_shed_packets_total{{leg=\"1\"}} {a}\ntrocar_leg_dropped_packets_total{{leg=\"1\"}} 2\n{b}trocar_leg_packets_total x\n"
            )
        };
        let before = Spent::read(&page(4, "")).unwrap();
        let now = Spent::read(&page(7, "trocar_leg_shed_packets_total{leg=\"2\"} 3\n")).unwrap();
        assert_eq!(risen(&now.left_out.unwrap(), &before.left_out.unwrap()), 6, "three of each leg");
        assert_eq!(risen(&now.drops.unwrap(), &before.drops.unwrap()), 0);
        assert_eq!(risen(&[("a".to_owned(), 1.0)].into(), &[("a".to_owned(), 9.0)].into()), 0, "it began anew");
    }

    #[test]
    fn what_overruns_a_socket_of_this_program_is_counted_and_no_other_programs() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(8_192).unwrap();
        let before = kernel_drops("self").unwrap();
        let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            from.send_to(&[0; 1_000], socket.local_addr().unwrap()).unwrap();
        }
        // Loopback delivers within the send call: what is not in the buffer now was dropped.
        socket.set_nonblocking(true).unwrap();
        let arrived = std::iter::from_fn(|| socket.recv(&mut [0; 1_000]).ok()).count() as u64;
        let dropped = risen(&kernel_drops("self").unwrap(), &before);
        // Other tests of this program have sockets, too, and theirs may drop something.
        assert!(arrived > 0 && dropped >= 200 - arrived, "{arrived} {dropped}");
        // The first process of the machine has none of ours; where it may not be looked at it says nothing.
        assert!(kernel_drops("1").is_none_or(|theirs| !theirs.keys().any(|inode| before.contains_key(inode))));
        assert_eq!(kernel_drops("no process"), None);
    }
}
