//! The threads that must not wait for anybody else: the core, the device's, the hardware inputs'. Each asks for real time when it
//! begins, SCHED_RR above everything else of this process, so that neither a flood from the network nor another program of the machine
//! delays TAKE or a keep-alive.
//!
//! Where that is not permitted the gate runs all the same: the log says so once, and the console's counters say how many threads are
//! without. Permission is CAP_SYS_NICE or a limit (RLIMIT_RTPRIO) of at least [`PRIORITY`].

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy_param,
};

/// Of 1 to 99; behind the kernel's interrupt threads (50), before the other threads where the service manager gave them 20.
pub const PRIORITY: u8 = 22;

const ROUND_ROBIN: ThreadSchedulePolicy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);

static GRANTED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static TOLD: Once = Once::new();

/// Asks for real time for the calling thread; true where it has it.
pub fn claim() -> bool {
    let granted = has_it() || ask();
    (if granted { &GRANTED } else { &REFUSED }).fetch_add(1, Ordering::Relaxed);
    granted
}

/// Threads that asked, by what came of it: for the foot of the console.
#[must_use]
pub fn figures() -> [(&'static str, u64); 2] {
    [
        ("threads in real time", GRANTED.load(Ordering::Relaxed)),
        ("threads refused real time", REFUSED.load(Ordering::Relaxed)),
    ]
}

/// Given by whoever started the process.
fn has_it() -> bool {
    let is_first = |policy| {
        matches!(
            policy,
            ThreadSchedulePolicy::Realtime(
                RealtimeThreadSchedulePolicy::Fifo | RealtimeThreadSchedulePolicy::RoundRobin
            )
        )
    };
    let now = thread_schedule_policy_param(thread_native_id());
    now.is_ok_and(|(policy, param)| is_first(policy) && param.sched_priority >= i32::from(PRIORITY))
}

fn ask() -> bool {
    let Ok(priority) = ThreadPriorityValue::try_from(PRIORITY) else { return false };
    let asked =
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(priority), ROUND_ROBIN);
    if let Err(error) = &asked {
        TOLD.call_once(|| {
            tracing::warn!(
                ?error,
                priority = PRIORITY,
                "no real-time scheduling: other programs of this machine can delay the gate; CAP_SYS_NICE or LimitRTPRIO={PRIORITY} permits it"
            );
        });
    }
    asked.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_asked_has_it_or_is_counted_as_refused() {
        let before = figures();
        let granted = std::thread::spawn(|| {
            let granted = claim();
            assert_eq!(has_it(), granted);
            granted
        });
        let granted = granted.join().unwrap();
        let after = figures();
        let n = usize::from(!granted);
        // Other tests start threads that ask too.
        assert!(after[n].1 > before[n].1, "{after:?}");
        assert!(!has_it(), "only the thread that asked");
    }
}
