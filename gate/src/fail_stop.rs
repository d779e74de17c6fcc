//! A gate that is half dead is worse than one that is gone: the device's watchdog holds within 150 ms for the one that is gone, and its
//! supervisor starts the next within two seconds (HO-X-009).

use std::io;
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

/// A thread says by this that it ended because it was asked to. Made where that is seen, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked;

/// Starts a thread that the gate cannot be without. Where it ends and nobody asked it to, the process ends (HO-G-030): an input that is
/// read by nobody, or a revocation that is seen by nobody, would be found out at the moment at which it is needed.
///
/// # Errors
/// Where the thread cannot be started.
pub fn spawn(name: &str, work: impl FnOnce() -> Result<Asked, String> + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    let name = name.to_owned();
    thread.spawn(move || match work() {
        Ok(Asked) => {}
        Err(why) => {
            tracing::error!(thread = %name, %why, "a thread has ended that is needed: the process ends, so that the device holds and the next gate starts");
            std::process::abort();
        }
    })?;
    Ok(())
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

    /// Where this is set the test below is its own child.
    const CHILD: &str = "TROCAR_TEST_ENDED_THREAD";

    #[test]
    fn a_thread_that_ends_unasked_ends_the_process_and_one_that_was_asked_does_not() {
        // HO-G-030
        use std::os::unix::process::ExitStatusExt as _;
        const SIGABRT: i32 = 6;
        if let Ok(asked) = std::env::var(CHILD) {
            let ended = if asked == "yes" { Ok(Asked) } else { Err("nothing more to read".to_owned()) };
            let (tell, told) = std::sync::mpsc::sync_channel::<()>(1);
            spawn("helper", move || {
                drop(tell);
                ended
            })
            .unwrap();
            // Until the thread runs its last lines; the process goes on after it, or not.
            let _ = told.recv();
            std::thread::sleep(Duration::from_millis(300));
            return;
        }
        let run = |asked: &str| {
            let this = std::env::current_exe().unwrap();
            let mut command = std::process::Command::new(this);
            let name = "fail_stop::tests::a_thread_that_ends_unasked_ends_the_process_and_one_that_was_asked_does_not";
            command.args(["--exact", name]).env(CHILD, asked).output().unwrap().status
        };
        assert_eq!(run("no").signal(), Some(SIGABRT));
        assert!(run("yes").success());
    }

    #[test]
    fn a_pulse_of_a_second_ago_is_one_and_an_older_one_is_none() {
        assert!(!is_still(5_000_000, 4_000_000));
        assert!(is_still(5_000_001, 4_000_000));
        assert!(!is_still(0, 4_000_000), "a clock that is behind accuses nobody");
    }
}
