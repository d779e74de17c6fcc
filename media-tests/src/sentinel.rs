//! Watches for moments at which this machine ran nobody: a shared machine of two cores stands still now and then, and a bound of
//! milliseconds that was missed in such a moment says nothing about the program. Such a trial is void, counted and printed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The boot clock in microseconds, as gate, device and station read it.
#[must_use]
pub fn boot_us() -> u64 {
    trocar_control::clock::now().0
}

/// A pause of the sentinel longer than this is a stall (handover specification, section 8).
const STALL_US: u64 = 20_000;

/// A running sentinel, one thread per core it can be put off from.
pub struct Sentinel {
    stalls: Arc<Mutex<Vec<(u64, u64)>>>,
    over: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Sentinel {
    /// Starts it.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start() -> anyhow::Result<Self> {
        let (stalls, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (stalls, over) = (Arc::clone(&stalls), Arc::clone(&over));
            threads.push(std::thread::Builder::new().name("sentinel".to_owned()).spawn(move || {
                let mut before = boot_us();
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(2));
                    let now = boot_us();
                    if now - before > STALL_US {
                        stalls.lock().unwrap_or_else(PoisonError::into_inner).push((before, now));
                    }
                    before = now;
                }
            })?);
        }
        Ok(Self { stalls, over, threads })
    }

    /// Whether the machine stood still between those two times of the boot clock.
    #[must_use]
    pub fn stalled(&self, from: u64, to: u64) -> bool {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(a, b)| *a < to && *b > from)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Trials of one measurement, and how many of them were void.
#[derive(Debug, Default)]
pub struct Trials {
    /// What was measured, in microseconds.
    pub values: Vec<u64>,
    /// Trials that fell into a stall.
    pub void: usize,
}

impl Trials {
    /// Notes one, unless the machine stood still in it.
    pub fn note(&mut self, sentinel: &Sentinel, from: u64, to: u64) {
        if sentinel.stalled(from, to) { self.void += 1 } else { self.values.push(to - from) }
    }

    /// The value that so many of a thousand do not exceed; nothing without values.
    #[must_use]
    pub fn permille(&self, p: usize) -> Option<u64> {
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last * p).div_ceil(1_000).min(last)).copied()
    }

    /// Whether so few were void that the rest can be believed: at most a tenth.
    #[must_use]
    pub fn believable(&self) -> bool {
        !self.values.is_empty() && self.void * 10 <= self.values.len() + self.void
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_in_a_stall_is_void_and_too_many_are_not_believed() {
        let sentinel = Sentinel { stalls: Arc::default(), over: Arc::default(), threads: Vec::new() };
        sentinel.stalls.lock().unwrap().push((100, 200));
        let mut trials = Trials::default();
        trials.note(&sentinel, 150, 160);
        trials.note(&sentinel, 50, 101);
        assert_eq!((trials.values.len(), trials.void, trials.believable()), (0, 2, false));
        for n in 0..20 {
            trials.note(&sentinel, 200, 201 + n);
        }
        assert!(trials.believable());
        assert_eq!((trials.permille(0), trials.permille(500), trials.permille(1_000)), (Some(1), Some(11), Some(20)));
    }
}
