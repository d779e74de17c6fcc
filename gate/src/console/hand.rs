//! Local's hand: acts and signs of life, into the core's lane of local.

use crate::consent::Withdrawal;
use crate::core::{Event, Inbox, Lane};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use trocar_proto::handover::gate::{Act, Input};
use trocar_proto::handover::message::Reason;

/// How long an act waits for its answer before it is called unanswered. The core answers within one step.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Why an act came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotDone {
    /// The register says no.
    #[error("REFUSED: {0}")]
    Refused(Reason),
    /// The lane of local is full: the core does not run.
    #[error("NOT TAKEN: the gate does not run. Use the hardware override")]
    Full,
    /// Whoever watches consent has ended.
    #[error("NOT HEARD: nobody watches consent any more. TAKE, and offer nothing")]
    NoWatch,
    /// Taken and not answered within [`PATIENCE`]: the core does not run.
    #[error("NO ANSWER from the gate. Use the hardware override")]
    Silent,
}

/// Pushes for all consoles.
#[derive(Clone)]
pub(super) struct Hand {
    inbox: Inbox,
    withdrawal: Withdrawal,
}

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hand")
    }
}

impl Hand {
    pub(super) const fn new(inbox: Inbox, withdrawal: Withdrawal) -> Self {
        Self { inbox, withdrawal }
    }

    /// A console showed what is, and could be acted upon, just now.
    pub(super) fn alive(&self) {
        self.inbox.input(Lane::Local, Input::Console);
    }

    /// Performs it. The answer is fetched later, so that no console waits.
    pub(super) fn act(&self, act: Act) -> Result<Pending, NotDone> {
        let label = super::words::act(&act);
        let (to, answer) = oneshot::channel();
        match self.inbox.push(Lane::Local, Event::Act(act, Some(to))) {
            Ok(()) => Ok(Pending { label, since: Instant::now(), answer }),
            Err(_) => Err(NotDone::Full),
        }
    }

    /// Withdraws the patient's consent. The register hears of it as of any other end of consent.
    pub(super) fn withdraw_consent(&self) -> Result<(), NotDone> {
        if (self.withdrawal)() { Ok(()) } else { Err(NotDone::NoWatch) }
    }

    /// Asks for the end of the process.
    pub(super) fn shutdown(&self) -> Result<(), NotDone> {
        self.inbox.push(Lane::Local, Event::Shutdown).map_err(|_| NotDone::Full)
    }
}

/// An act under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) label: &'static str,
    since: Instant,
    answer: oneshot::Receiver<Result<(), Reason>>,
}

impl Pending {
    /// The answer, if there is one by now.
    pub(super) fn answered(&mut self) -> Option<Result<(), NotDone>> {
        match self.answer.try_recv() {
            Ok(done) => Some(done.map_err(NotDone::Refused)),
            Err(TryRecvError::Closed) => Some(Err(NotDone::Silent)),
            Err(TryRecvError::Empty) => (self.since.elapsed() > PATIENCE).then_some(Err(NotDone::Silent)),
        }
    }

    /// Waits for it.
    pub(super) async fn wait(self) -> Result<(), NotDone> {
        match tokio::time::timeout(PATIENCE, self.answer).await {
            Ok(Ok(done)) => done.map_err(NotDone::Refused),
            _ => Err(NotDone::Silent),
        }
    }
}
