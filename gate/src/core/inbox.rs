//! The queue into the core: three lanes, so that no flood from the network delays local, the device or the disk.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use trocar_proto::handover::gate::{Act, Input};
use trocar_proto::handover::message::Reason;

/// One thing for the core.
#[derive(Debug)]
pub enum Event {
    /// As it is.
    Input(Input),
    /// An act of local, with where the answer is wanted. `oid`s of offers are drawn by the core.
    Act(Act, Option<tokio::sync::oneshot::Sender<Result<(), Reason>>>),
    /// Who is at the other end of a channel: before its `Input::Opened`, and again when a HELLO's token said more.
    Who(trocar_proto::handover::types::ChannelId, super::Who, bool),
    /// A relay asks how the register is.
    MirrorProbe(u64),
    /// Stop the process: only in states that end nobody's work, see `Core`.
    Shutdown,
}

/// Which queue; the core empties them in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Local's acts, the console's signs of life, hardware inputs. Bound 256; what does not fit is refused to whoever presses.
    Local,
    /// Device and disk. Bound 1,024; the oldest is dropped and counted, since a newer report says more.
    Device,
    /// The network and the publisher. Bound 1,024; the newest is dropped and counted.
    Network,
}

const BOUNDS: [usize; 3] = [256, 1_024, 1_024];

#[derive(Debug, Default)]
struct Lanes {
    queues: [VecDeque<Event>; 3],
    dropped: [u64; 3],
}

/// Both ends of the queue; cloned freely.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    lanes: Arc<(Mutex<Lanes>, Condvar)>,
}

impl Inbox {
    /// Puts one in.
    ///
    /// # Errors
    /// The event, where the lane is full and its policy drops the newest.
    #[allow(clippy::result_large_err, reason = "the caller gets back what it gave")]
    pub fn push(&self, lane: Lane, event: Event) -> Result<(), Event> {
        let (lanes, woken) = &*self.lanes;
        let mut lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let n = lane as usize;
        let Lanes { queues, dropped } = &mut *lanes;
        let (Some(queue), Some(dropped), Some(bound)) = (queues.get_mut(n), dropped.get_mut(n), BOUNDS.get(n)) else {
            return Err(event);
        };
        if queue.len() >= *bound {
            *dropped += 1;
            if lane != Lane::Device {
                return Err(event);
            }
            queue.pop_front();
        }
        queue.push_back(event);
        drop(lanes);
        woken.notify_one();
        Ok(())
    }

    /// Puts an input in, and drops it where it does not fit.
    pub fn input(&self, lane: Lane, input: Input) {
        let _ = self.push(lane, Event::Input(input));
    }

    /// The next one, of the first lane that has one; waits for it so long.
    #[must_use]
    pub fn pop(&self, wait: Duration) -> Option<Event> {
        let (lanes, woken) = &*self.lanes;
        let guard = lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = |l: &mut Lanes| l.queues.iter().all(VecDeque::is_empty);
        let (mut guard, _) = woken.wait_timeout_while(guard, wait, empty).unwrap_or_else(PoisonError::into_inner);
        guard.queues.iter_mut().find_map(VecDeque::pop_front)
    }

    /// How many were dropped, by lane.
    #[must_use]
    pub fn dropped(&self) -> [u64; 3] {
        self.lanes.0.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_from_the_network_delays_no_act_of_local_and_is_counted() {
        let inbox = Inbox::default();
        for _ in 0..5_000 {
            let _ = inbox.push(Lane::Network, Event::Input(Input::CameraMoved));
        }
        inbox.push(Lane::Local, Event::Act(Act::Take, None)).unwrap();
        assert!(matches!(inbox.pop(Duration::ZERO), Some(Event::Act(Act::Take, _))));
        assert!(matches!(inbox.pop(Duration::ZERO), Some(Event::Input(Input::CameraMoved))));
        assert_eq!(inbox.dropped(), [0, 0, 5_000 - 1_024]);
    }

    #[test]
    fn of_device_reports_the_newest_stay() {
        let inbox = Inbox::default();
        for n in 0..1_030 {
            inbox.push(Lane::Device, Event::MirrorProbe(n)).unwrap();
        }
        assert!(matches!(inbox.pop(Duration::ZERO), Some(Event::MirrorProbe(6))));
        assert_eq!(inbox.dropped(), [0, 6, 0]);
    }

    #[test]
    fn an_empty_inbox_gives_nothing_after_the_wait() {
        assert!(Inbox::default().pop(Duration::from_millis(1)).is_none());
    }
}
