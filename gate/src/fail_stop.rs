//! A gate that is half dead is worse than one that is gone: the device's watchdog holds within 150 ms for the one that is gone, and its
//! supervisor starts the next within two seconds (HO-X-009).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the core's pulse is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A core that did no round for so long stands still, in microseconds.
const STILL: u64 = 1_000_000;

/// From now on a panic of any thread ends the process.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

/// Ends the process when the core stands still while this thread runs: two looks in a row, so that a machine that slept, or a process that
/// was stopped, is given time to go on.
///
/// # Errors
/// Where the thread cannot be started.
pub fn watch(pulse: Arc<AtomicU64>) -> std::io::Result<()> {
    std::thread::Builder::new().name("trocar-gate-pulse".to_owned()).spawn(move || {
        let mut still = 0;
        let mut looked = crate::core::now().0;
        loop {
            std::thread::sleep(LOOK);
            let now = crate::core::now().0;
            let ran = now.saturating_sub(looked) < 2 * STILL;
            looked = now;
            still = if ran && is_still(now, pulse.load(Ordering::Relaxed)) { still + 1 } else { 0 };
            // The core has ended on purpose where nobody else holds its pulse.
            if Arc::strong_count(&pulse) == 1 {
                return;
            }
            if still >= 2 {
                tracing::error!(
                    "the core stands still: the process ends, so that the device holds and the next gate starts"
                );
                std::process::abort();
            }
        }
    })?;
    Ok(())
}

const fn is_still(now: u64, pulse: u64) -> bool {
    now.saturating_sub(pulse) > STILL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_of_a_second_ago_is_one_and_an_older_one_is_none() {
        assert!(!is_still(5_000_000, 4_000_000));
        assert!(is_still(5_000_001, 4_000_000));
        assert!(!is_still(0, 4_000_000), "a clock that is behind accuses nobody");
    }
}
