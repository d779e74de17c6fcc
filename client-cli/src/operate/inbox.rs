//! The way into the core: a lane for each kind, so that nothing that floods one displaces what waits in another (HO-T-013).
//!
//! | lane | what there is | loss policy |
//! | --- | --- | --- |
//! | stop, return, estop, hands, the frame shown | a level | none: one value, and what was let go stays let go until it is read |
//! | acts | 64 | the newest is refused, counted and said |
//! | the line's news | 256 | the newest is refused, and its channel closed |
//! | motions | 64 | the newest is dropped and counted |
//! | datagrams | 64 of each path | the newest is dropped and counted |

use super::acts::{Act, Hands, News};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use trocar_proto::handover::message::{Payload, Short};
use trocar_proto::handover::types::{Clutch, FrameRef};
use trocar_proto::units::Micros;

/// Acts that wait at most.
const ACTS: usize = 64;
/// News of the line that wait at most.
const NEWS: usize = 256;
/// Motions that wait at most: all that an input can send while one is young enough.
const MOTIONS: usize = 64;
/// Paths at most.
pub(super) const PATHS: usize = 2;
/// Datagrams of one path that wait at most: more BEACONs than come in a second.
const DATAGRAMS: usize = 64;

/// What waited, taken at one moment; in the order in which it is served.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) stop: bool,
    pub(super) estop: Option<Short>,
    pub(super) give_back: bool,
    /// Each with the time at which its source was last seen to have nothing to say: it is no older than that.
    pub(super) acts: VecDeque<(Micros, Act)>,
    pub(super) news: VecDeque<News>,
    pub(super) hands: Option<Felt>,
    /// The newest, and how many there were.
    pub(super) shown: Option<FrameRef>,
    pub(super) echoes: u64,
    /// By path.
    pub(super) datagrams: [VecDeque<Bytes>; PATHS],
    pub(super) motions: VecDeque<(Micros, Payload)>,
    /// Acts that did not fit.
    pub(super) refused: u64,
}

impl Taken {
    fn is_empty(&self) -> bool {
        let Self { stop, estop, give_back, acts, news, hands, shown, datagrams, motions, .. } = self;
        let one = *stop || *give_back || estop.is_some() || hands.is_some() || shown.is_some();
        !one && acts.is_empty() && news.is_empty() && datagrams.iter().all(VecDeque::is_empty) && motions.is_empty()
    }
}

/// What hands did since they were last felt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Felt {
    /// What was let go at some time, even where it is held again.
    pub(super) let_go: Hands,
    pub(super) latest: Hands,
    /// Of the oldest of it.
    pub(super) at: Micros,
}

#[derive(Debug, Default)]
struct State {
    waiting: Taken,
    /// The clutch, by all inputs together.
    clutch: Clutch,
    dropped: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    quit: Notify,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change leaves the lanes valid, so a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where it is put in; cloned freely. Nothing here waits.
#[derive(Debug, Clone)]
pub(super) struct Inbox(Arc<Shared>);

/// The core's end.
#[derive(Debug)]
pub(super) struct Lanes(Arc<Shared>);

impl Lanes {
    /// What waits; comes as soon as there is something, after `wait` at the latest.
    pub(super) fn take(&self, wait: Duration) -> Taken {
        let nothing = |state: &mut State| state.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.state(), wait, nothing);
        std::mem::take(&mut waited.unwrap_or_else(PoisonError::into_inner).0.waiting)
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.0.state().closed = true;
    }
}

impl Inbox {
    pub(super) fn new() -> (Self, Lanes) {
        let shared = Arc::new(Shared::default());
        (Self(Arc::clone(&shared)), Lanes(shared))
    }

    /// Puts something in; false where it does not fit or nobody is there any more.
    fn put(&self, into: impl FnOnce(&mut State) -> bool) -> bool {
        let mut state = self.0.state();
        let fits = !state.closed && into(&mut state);
        drop(state);
        self.0.changed.notify_one();
        fits
    }

    /// An act of the expert that is no older than `at`; false where it does not fit.
    pub(super) fn act(&self, at: Micros, act: Act) -> bool {
        match act {
            Act::Quit => {
                self.0.quit.notify_one();
                true
            }
            Act::Hands(hands) => self.put(|s| s.feel(at, &hands)),
            Act::Motion(motion) => self.put(|s| s.move_by(at, motion)),
            Act::Return => self.put(|s| {
                s.waiting.give_back = true;
                true
            }),
            Act::Estop(reason) => self.put(|s| {
                s.waiting.estop = Some(reason);
                true
            }),
            act => {
                let fits = self.put(|s| {
                    let fits = s.waiting.acts.len() < ACTS;
                    if fits {
                        s.waiting.acts.push_back((at, act));
                    } else {
                        s.waiting.refused += 1;
                    }
                    fits
                });
                if !fits {
                    tracing::error!("an act of the expert is refused: {ACTS} wait");
                }
                fits
            }
        }
    }

    /// News of the line.
    pub(super) fn news(&self, news: News) -> bool {
        self.put(|s| {
            let fits = s.waiting.news.len() < NEWS;
            if fits {
                s.waiting.news.push_back(news);
            }
            fits
        })
    }

    /// A sealed datagram that came by that path, from whoever sent it.
    pub(super) fn datagram(&self, path: usize, sealed: Bytes) {
        self.put(|s| {
            let Some(lane) = s.waiting.datagrams.get_mut(path) else { return false };
            let fits = lane.len() < DATAGRAMS;
            if fits {
                lane.push_back(sealed);
            } else {
                s.dropped += 1;
            }
            fits
        });
    }

    /// A frame is on the screen.
    pub(super) fn shown(&self, frame: FrameRef) {
        self.put(|s| {
            s.waiting.shown = Some(frame);
            s.waiting.echoes += 1;
            true
        });
    }

    /// Ends the core.
    pub(super) fn stop(&self) {
        self.put(|s| {
            s.waiting.stop = true;
            true
        });
    }

    /// How many datagrams and motions did not fit.
    pub(super) fn dropped(&self) -> u64 {
        self.0.state().dropped
    }

    /// Returns when the expert asked to end.
    pub(super) async fn quit(&self) {
        self.0.quit.notified().await;
    }
}

impl State {
    fn feel(&mut self, at: Micros, hands: &Hands) -> bool {
        let letting_go = hands.letting_go();
        if letting_go.presence.is_some() || letting_go.clutch.is_some() {
            // What was moved before belongs to the hold that is over.
            self.waiting.motions.clear();
        }
        self.clutch = hands.clutch.unwrap_or(self.clutch);
        let none = || Felt { let_go: Hands::default(), latest: Hands::default(), at };
        let felt = self.waiting.hands.get_or_insert_with(none);
        felt.let_go.take(&letting_go);
        felt.latest.take(hands);
        felt.at = felt.at.min(at);
        true
    }

    /// Free controls move nothing.
    fn move_by(&mut self, at: Micros, motion: Payload) -> bool {
        if self.clutch == Clutch::Open {
            return true;
        }
        let fits = self.waiting.motions.len() < MOTIONS;
        if fits {
            self.waiting.motions.push_back((at, motion));
        } else {
            self.dropped += 1;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Micros = Micros(5);

    fn hands(presence: Option<bool>, clutch: Option<Clutch>) -> Act {
        Act::Hands(Hands { presence, clutch, ..Hands::default() })
    }

    fn flooded() -> (Inbox, Lanes) {
        let (inbox, lanes) = Inbox::new();
        (0..10_000).for_each(|_| inbox.datagram(1, Bytes::from_static(b"abc")));
        (inbox, lanes)
    }

    #[test]
    fn no_flood_displaces_what_is_let_go_an_act_or_news() {
        // HO-T-013, HO-I-015, HO-I-016
        let (inbox, lanes) = flooded();
        assert!(inbox.act(AT, Act::Hands(Hands::released())));
        for act in [Act::Accept, Act::Return, Act::Estop(Short::default())] {
            assert!(inbox.act(AT, act));
        }
        assert!(inbox.news(News::Gone(0, "x".to_owned())));
        inbox.stop();
        let taken = lanes.take(Duration::ZERO);
        assert_eq!(taken.hands.unwrap().latest, Hands::released());
        assert!(taken.stop && taken.give_back && taken.estop.is_some());
        assert_eq!(
            (taken.acts.len(), taken.news.len(), taken.datagrams.map(|lane| lane.len())),
            (1, 1, [0, DATAGRAMS])
        );
        assert_eq!(inbox.dropped(), 10_000 - DATAGRAMS as u64);
        // A full lane of acts refuses loudly; return, stop and hands have no lane that could be full.
        let more = (0..ACTS + 3).filter(|_| inbox.act(AT, Act::Accept)).count();
        assert_eq!(more, ACTS);
        assert!(inbox.act(AT, Act::Return) && inbox.act(AT, Act::Hands(Hands::released())));
        let taken = lanes.take(Duration::ZERO);
        assert_eq!((taken.refused, taken.give_back, taken.hands.is_some()), (3, true, true));
        assert!(lanes.take(Duration::ZERO).is_empty());
        drop(lanes);
        assert!(!inbox.act(AT, Act::Return), "nobody is there");
    }

    #[test]
    fn what_was_let_go_and_taken_again_is_felt_as_both() {
        // HO-T-013
        let (inbox, lanes) = Inbox::new();
        inbox.act(Micros(7), hands(Some(true), Some(Clutch::Closed)));
        inbox.act(Micros(3), hands(Some(false), None));
        inbox.act(Micros(9), hands(Some(true), Some(Clutch::Open)));
        inbox.act(Micros(9), hands(None, Some(Clutch::Closed)));
        let felt = lanes.take(Duration::ZERO).hands.unwrap();
        let both = |presence, clutch| Hands { presence: Some(presence), clutch: Some(clutch), ..Hands::default() };
        let want = Felt { let_go: both(false, Clutch::Open), latest: both(true, Clutch::Closed), at: Micros(3) };
        assert_eq!(felt, want);
    }

    #[test]
    fn a_motion_waits_only_while_the_clutch_that_it_was_made_with_is_closed() {
        // HO-T-012
        let (inbox, lanes) = Inbox::new();
        let moved = |presence, clutch| {
            inbox.act(AT, hands(presence, clutch));
            inbox.act(AT, Act::Motion(Payload::default()));
        };
        let motions = || lanes.take(Duration::ZERO).motions.len();
        moved(None, None);
        assert_eq!(motions(), 0, "no input has closed a clutch");
        moved(None, Some(Clutch::Closed));
        moved(None, None);
        assert_eq!(motions(), 2);
        moved(None, None);
        moved(None, Some(Clutch::Open));
        moved(None, Some(Clutch::Closed));
        assert_eq!(motions(), 1, "the one before belongs to another hold");
        moved(None, None);
        moved(Some(false), None);
        assert_eq!(motions(), 1);
        (0..=MOTIONS).for_each(|_| moved(None, None));
        assert_eq!((motions(), inbox.dropped()), (MOTIONS, 1));
    }
}
