//! CPU time of a piece of work: of this thread, and of the threads that began after it.

use std::collections::BTreeMap;
use std::time::Instant;

/// Measures from its start on. Where the system does not say what a thread used (Linux's `schedstat`), wall time stands in,
/// which is right for one busy thread.
#[derive(Debug)]
pub(super) struct CpuMeter {
    before: BTreeMap<String, u64>,
    own: Option<u64>,
    begin: Instant,
}

impl CpuMeter {
    pub(super) fn start() -> Self {
        Self { before: threads(), own: own_ns(), begin: Instant::now() }
    }

    /// Milliseconds of CPU time since the start. Threads that have ended in between are left out.
    pub(super) fn elapsed_ms(&self) -> f64 {
        let (Some(before), Some(now)) = (self.own, own_ns()) else {
            return self.begin.elapsed().as_secs_f64() * 1e3;
        };
        let fresh: u64 = threads().iter().filter(|(id, _)| !self.before.contains_key(*id)).map(|(_, ns)| ns).sum();
        (now.saturating_sub(before) + fresh) as f64 / 1e6
    }
}

fn own_ns() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

fn threads() -> BTreeMap<String, u64> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    let used = |task: &std::fs::DirEntry| parse(&std::fs::read_to_string(task.path().join("schedstat")).ok()?);
    let named = |task: std::fs::DirEntry| Some((task.file_name().to_string_lossy().into_owned(), used(&task)?));
    tasks.filter_map(Result::ok).filter_map(named).collect()
}

/// The first of the three numbers: nanoseconds on a CPU.
fn parse(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}
