//! What this program and the relay cost: without that nobody knows which of the two was the limit.

use crate::net::tls::{https_client, metrics_url};
use anyhow::bail;
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use url::Url;

/// An answer with figures that takes longer is none.
const TIMEOUT: Duration = Duration::from_millis(800);
/// Standard name of a process's CPU time in Prometheus clients.
const CPU_METRIC: &str = "process_cpu_seconds_total";

/// Where the relay's figures come from.
#[derive(Debug, Clone, Default)]
pub(super) struct RelayFigures {
    /// Its process, on this machine.
    pid: Option<u32>,
    /// Its `/metrics`.
    metrics: Option<(reqwest::Client, Url)>,
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

    /// CPU seconds so far, all threads, and the ones by metrics where there is no process to look at.
    async fn read(&self) -> Option<BTreeMap<u64, f64>> {
        if let Some(pid) = self.pid {
            return threads(pid);
        }
        let (http, url) = self.metrics.as_ref()?;
        let text = http.get(url.clone()).send().await.ok()?.error_for_status().ok()?.text().await.ok()?;
        Some([(0, metric(&text, CPU_METRIC)?)].into())
    }
}

/// The sum over all label sets of a metric; none where there is none.
fn metric(text: &str, name: &str) -> Option<f64> {
    let mine = text.lines().filter(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with(['{', ' '])));
    let values: Vec<f64> = mine.filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// CPU seconds of each thread of a process so far.
fn threads(pid: u32) -> Option<BTreeMap<u64, f64>> {
    let mut out = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let id = task.file_name().to_str()?.parse().ok()?;
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
    before: Option<BTreeMap<u64, f64>>,
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
        let before = relay.read().await;
        Self { relay, at: Instant::now(), own: own_seconds(), before }
    }

    /// What the time since the last reading cost.
    pub(super) async fn read(&mut self) -> Load {
        let now = self.relay.read().await;
        let (at, own) = (Instant::now(), own_seconds());
        let seconds = (at - self.at).as_secs_f64().max(1e-3);
        let percent = |spent: f64| spent * 100.0 / seconds;
        let each: Option<Vec<f64>> = now.as_ref().zip(self.before.as_ref()).map(|(now, before)| {
            let since = |(id, s): (&u64, &f64)| s - before.get(id).copied().unwrap_or(0.0);
            now.iter().map(since).collect()
        });
        let busiest =
            each.as_ref().filter(|_| self.relay.pid.is_some()).and_then(|e| e.iter().copied().reduce(f64::max));
        let load = Load {
            own: percent(own - self.own),
            relay: each.map(|e| percent(e.iter().sum())),
            relay_thread: busiest.map(percent),
            average: average(),
        };
        (self.at, self.own, self.before) = (at, own, now);
        load
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
    fn a_metric_is_the_sum_over_its_labels_and_no_other_one() {
        let text = "a_total{x=\"1\"} 2\na_total{x=\"2\"} 3.5\na_total_more 9\n# a_total 7\n";
        assert_eq!((metric(text, "a_total"), metric(text, "b")), (Some(5.5), None));
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
