//! What is due sooner than the tick: paced legs, packets to ask for again. Whoever waits for a moment says so with
//! [`Core::wake_by`]; when it has come, everybody looks whether it is his.

use super::repair::Occasion;
use super::state::Core;
use std::time::{Duration, Instant};
use trocar_proto::units::Micros;

impl Core {
    /// The worker looks again at that time at the latest.
    pub(in crate::worker) fn wake_by(&mut self, at: Micros) {
        let at = self.origin + Duration::from_micros(at.0);
        if self.wake_at.is_none_or(|t| at < t) {
            self.wake_at = Some(at);
            self.woken.notify_one();
        }
    }

    /// Everything that asked to be woken. Each asks again for its next moment.
    pub(super) fn due(&mut self, now: Instant) {
        self.wake_at = None;
        let at = self.micros(now);
        self.pump_paced(now, at);
        self.feed_back(now, at);
        self.poll_repairs(now, at, Occasion::Wake);
    }
}
