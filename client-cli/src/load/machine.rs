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

/// CPU seconds of the relay so far.
#[derive(Debug, Clone, Default, PartialEq)]
struct Spent {
    /// Of the process, or of all where relays are apart; none where only threads are known.
    whole: Option<f64>,
    /// Of each thread: all of a process, or the workers by metrics.
    threads: BTreeMap<String, f64>,
}

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
        let samples = parse(text).ok()?;
        let apart = samples.iter().any(|s| s.labels.contains_key("relay"));
        let of = |name| samples.iter().filter(move |s| s.name == name && s.labels.contains_key("relay") == apart);
        let whole = of(CPU_METRIC).map(|s| s.value).reduce(|a, b| a + b)?;
        let label = |s: &Sample, name| s.labels.get(name).cloned().unwrap_or_default();
        let threads = of(WORKER_METRIC).map(|s| (format!("{} {}", label(s, "relay"), label(s, "worker")), s.value));
        Some(Self { whole: Some(whole), threads: threads.collect() })
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

    /// CPU seconds so far: of the process where it is on this machine, else by metrics.
    async fn read(&self) -> Option<Spent> {
        match self.pid {
            Some(pid) => Some(Spent { whole: None, threads: threads(pid)? }),
            None => Spent::read(&self.ask().await.ok()?),
        }
    }

    /// Readings that a rate is made of.
    const fn kept(&self) -> usize {
        if self.pid.is_some() { 1 } else { KEPT }
    }
}

/// CPU seconds of each thread of a process so far.
fn threads(pid: u32) -> Option<BTreeMap<String, f64>> {
    let mut out = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let id = task.file_name().to_str()?.to_owned();
        // A thread may end between the two reads.
        let Ok(text) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
        let ns: f64 = text.split(' ').next()?.parse().ok()?;
        out.insert(id, ns / 1e9);
    }
    Some(out)
}

/// CPU over one interval, in per cent of one core.
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
}

/// Reads again and again.
pub(super) struct Meter {
    relay: RelayFigures,
    at: Instant,
    own: f64,
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
        Self { relay, at: Instant::now(), own: own_seconds(), before: first.into_iter().collect() }
    }

    /// What the time since the last reading cost.
    pub(super) async fn read(&mut self) -> Load {
        let relay = self.read_relay().await;
        let (at, own) = (Instant::now(), own_seconds());
        let seconds = (at - self.at).as_secs_f64().max(1e-3);
        let load = Load {
            own: (own - self.own) * 100.0 / seconds,
            relay: relay.map(|(whole, _)| whole),
            relay_thread: relay.and_then(|(_, thread)| thread),
            average: average(),
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
        let before = Spent { whole: Some(6.5), threads: [(" 1".to_owned(), 3.25)].into() };
        assert_eq!(spent.since(&before), Some((0.5, Some(2.0))));
        assert_eq!(Spent::default().since(&Spent { whole: None, threads: [].into() }), Some((0.0, None)));
        assert_eq!(Spent { whole: Some(1.0), ..Spent::default() }.since(&spent), None, "it began anew");
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
}
