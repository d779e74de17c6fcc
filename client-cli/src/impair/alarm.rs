//! An alarm to within about 0.1 ms. The runtime's own timer counts whole milliseconds, which is as long as what is to be
//! emulated; a thread that sleeps on a condition is woken by the kernel's high-resolution timer.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// Rings at the earliest time that it was set to since it last rang. Ends its thread when dropped.
pub(super) struct Alarm(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    rings: Notify,
}

#[derive(Default)]
struct State {
    at: Option<Instant>,
    ended: bool,
}

impl Alarm {
    pub(super) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), rings: Notify::new() });
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("alarm".to_owned()).spawn(move || own.watch())?;
        Ok(Self(shared))
    }

    /// To ring at `at`, if not before.
    pub(super) fn set(&self, at: Instant) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.at.is_none_or(|before| at < before) {
            state.at = Some(at);
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// Returns when it rings; at once where it rang since the last time.
    pub(super) async fn rung(&self) {
        self.0.rings.notified().await;
    }

    /// To ring it from elsewhere.
    pub(super) fn bell(&self) -> Bell {
        Bell(Arc::clone(&self.0))
    }
}

/// Rings the alarm at once.
pub(super) struct Bell(Arc<Shared>);

impl Bell {
    pub(super) fn ring(&self) {
        self.0.rings.notify_one();
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn watch(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.ended {
            let Some(at) = state.at else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.at = None;
                self.rings.notify_one();
            } else {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}
