//! How one worker wakes another for what it has put into a ring, apart from ring and runtime: so that the tests below can try all
//! orders in which two threads may do it.
//!
//! The sender pushes first and rings after, once a batch. The receiver waits for the bell, then takes until every ring is found
//! with less than a batch in it. The bell remembers a call that nobody waits for, so whoever pushes before it rings is found by
//! whoever looks after it rang.

use tokio::sync::Notify;

/// What wakes a worker. A call that nobody waits for is kept; several are one.
pub(super) trait Bell {
    /// Wakes who waits, or who waits next.
    fn ring(&self);
    /// Waits for a call.
    fn rung(&self) -> impl Future<Output = ()>;
}

impl Bell for Notify {
    fn ring(&self) {
        self.notify_one();
    }

    fn rung(&self) -> impl Future<Output = ()> {
        self.notified()
    }
}

/// The sender's side: whether something was pushed that the receiver has not been woken for.
#[derive(Debug, Default)]
pub(super) struct Owed(bool);

impl Owed {
    /// Something was pushed, or found no room.
    pub(super) const fn note(&mut self, pushed: bool) {
        self.0 |= pushed;
    }

    /// Wakes the receiver where that is owed.
    pub(super) fn settle(&mut self, bell: &impl Bell) {
        if std::mem::take(&mut self.0) {
            bell.ring();
        }
    }
}

/// The receiver's side, for ever: `take` takes a batch from each ring and says whether there may be more.
pub(super) async fn serve<F: Future<Output = ()>>(
    bell: &impl Bell,
    mut take: impl FnMut() -> bool,
    mut give_way: impl FnMut() -> F,
) {
    loop {
        bell.rung().await;
        loop {
            let more = take();
            // Rings that are filled as fast as they are emptied must not take the thread.
            give_way().await;
            if !more {
                break;
            }
        }
    }
}

/// Takes at most `batch` packets from each ring by `pop`, and tells by `done` of each that brought some; true where one of them may
/// have more.
pub(super) fn take_batches<R, C>(
    rings: &mut [R],
    batch: usize,
    to: &mut C,
    pop: impl Fn(&mut C, &mut R) -> bool,
    done: impl Fn(&mut C),
) -> bool {
    let mut more = false;
    for ring in rings {
        let mut count = 0;
        while count < batch && pop(to, ring) {
            count += 1;
        }
        more |= count == batch;
        if count > 0 {
            done(to);
        }
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;
    use shuttle::future;
    use shuttle::rand::Rng;
    use shuttle::sync::{Arc, Condvar, Mutex};
    use std::collections::VecDeque;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::{Poll, Waker};

    const SENDERS: usize = 2;
    const PACKETS: u32 = 5;
    /// Packets of a batch with one wake-up, that a ring holds, and that the receiver takes at a time.
    const TOGETHER: u32 = 2;
    const ROOM: usize = 3;
    const BATCH: usize = 2;
    const SCHEDULES: usize = 3_000;
    /// In turns of the scheduler.
    const LONGEST_PAUSE: u32 = 40;

    /// As `Notify` is: one call is kept where nobody waits.
    #[derive(Default)]
    struct Remembers(Mutex<(bool, Option<Waker>)>);

    impl Bell for Remembers {
        fn ring(&self) {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            let waiting = state.1.take();
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
        }

        fn rung(&self) -> impl Future<Output = ()> {
            std::future::poll_fn(|context| {
                let mut state = self.0.lock().unwrap();
                if std::mem::take(&mut state.0) {
                    return Poll::Ready(());
                }
                state.1 = Some(context.waker().clone());
                Poll::Pending
            })
        }
    }

    /// A mutant: a call that nobody waits for is lost.
    #[derive(Default)]
    struct Forgets(Remembers);

    impl Bell for Forgets {
        fn ring(&self) {
            if self.0.0.lock().unwrap().1.is_some() {
                self.0.ring();
            }
        }

        fn rung(&self) -> impl Future<Output = ()> {
            self.0.rung()
        }
    }

    type Ring = Arc<Mutex<VecDeque<u32>>>;
    type Book = Arc<(Mutex<Ledger>, Condvar)>;

    /// What was taken from each ring, and what found room in it once its sender is done.
    #[derive(Default)]
    struct Ledger {
        taken: [Vec<u32>; SENDERS],
        accepted: [Option<Vec<u32>>; SENDERS],
    }

    impl Ledger {
        fn is_whole(&self) -> bool {
            self.taken.iter().zip(&self.accepted).all(|(t, a)| a.as_ref() == Some(t))
        }
    }

    /// The order in which a sender does things.
    #[derive(Clone, Copy, PartialEq)]
    enum Order {
        PushThenRing,
        /// A mutant: the bell is rung before what it tells of is there.
        RingThenPush,
    }

    /// Anything from nothing to long enough for the receiver to run dry and fall asleep: without it the receiver, which has more to
    /// do, is always behind and never sleeps.
    fn pause() {
        for _ in 0..shuttle::rand::thread_rng().gen_range(0..LONGEST_PAUSE) {
            shuttle::thread::yield_now();
        }
    }

    fn send(ring: &Ring, bell: &impl Bell, order: Order) -> Vec<u32> {
        let (mut owed, mut accepted) = (Owed::default(), Vec::new());
        for first in (0..PACKETS).step_by(TOGETHER as usize) {
            if order == Order::RingThenPush {
                owed.note(true);
                owed.settle(bell);
            }
            for packet in first..(first + TOGETHER).min(PACKETS) {
                pause();
                let mut ring = ring.lock().unwrap();
                let has_room = ring.len() < ROOM;
                if has_room {
                    ring.push_back(packet);
                    accepted.push(packet);
                }
                drop(ring);
                owed.note(has_room && order == Order::PushThenRing);
            }
            owed.settle(bell);
        }
        accepted
    }

    /// One world: two senders with a ring each, one receiver. Ends when all that found room was taken, in order, each once; where
    /// a wake-up is lost it never does, which the scheduler finds.
    fn world<B: Bell + Default + Send + Sync + 'static>(order: Order, batch: usize) {
        let rings: [Ring; SENDERS] = Default::default();
        let bell = Arc::new(B::default());
        let ledger: Book = Arc::default();
        let (ends, ear, mut book) = (rings.clone(), Arc::clone(&bell), Arc::clone(&ledger));
        // Nobody waits for the receiver, which never ends.
        drop(future::spawn_local(async move {
            let mut numbered: Vec<(usize, Ring)> = ends.into_iter().enumerate().collect();
            let pop = |book: &mut Book, (n, ring): &mut (usize, Ring)| {
                let Some(packet) = ring.lock().unwrap().pop_front() else { return false };
                book.0.lock().unwrap().taken[*n].push(packet);
                true
            };
            let take = || take_batches(&mut numbered, batch, &mut book, pop, |book| book.1.notify_all());
            serve(&*ear, take, future::yield_now).await;
        }));
        let senders: Vec<_> = (0..SENDERS)
            .map(|n| {
                let (ring, bell, ledger) = (rings[n].clone(), Arc::clone(&bell), Arc::clone(&ledger));
                shuttle::thread::spawn(move || {
                    let accepted = send(&ring, &*bell, order);
                    ledger.0.lock().unwrap().accepted[n] = Some(accepted);
                    ledger.1.notify_all();
                })
            })
            .collect();
        senders.into_iter().for_each(|s| s.join().unwrap());
        let mut all = ledger.0.lock().unwrap();
        while !all.is_whole() {
            all = ledger.1.wait(all).unwrap();
        }
        assert!(all.taken.iter().all(|t| t.len() >= ROOM.min(PACKETS as usize)));
    }

    fn is_found(run: impl Fn() + Send + Sync + 'static) -> bool {
        catch_unwind(AssertUnwindSafe(|| shuttle::check_random(run, SCHEDULES))).is_err()
    }

    #[test]
    fn in_every_order_that_was_tried_all_that_found_room_is_taken_once_and_no_wake_up_is_lost() {
        shuttle::check_random(|| world::<Remembers>(Order::PushThenRing, BATCH), SCHEDULES);
        shuttle::check_pct(|| world::<Remembers>(Order::PushThenRing, BATCH), SCHEDULES, 3);
    }

    #[test]
    fn the_controls_a_bell_rung_too_early_and_one_that_forgets_are_found() {
        assert!(is_found(|| world::<Remembers>(Order::RingThenPush, BATCH)), "rung before the push");
        assert!(is_found(|| world::<Forgets>(Order::PushThenRing, BATCH)), "a call that nobody waited for is lost");
    }
}
