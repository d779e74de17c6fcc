//! Which worker does what. All of it happens when something is opened, closed or asked, never for a packet.
//!
//! Feeds, publications and voices of a session live on one worker, its home: the least loaded one when the first of them
//! comes. Legs of viewers go to the worker with the least to do. Nothing is written down here: workers are asked what they
//! have, so that what ends by itself (a peer goes away, a publisher closes) leaves no trace to clean up.

use crate::metrics::{Snapshot, WorkerSnapshot};
use crate::worker::{Command, Image, Limits, Standing, WorkerHandle};
use futures_util::future::join_all;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use trocar_proto::session::admission::{AdmitError, FeedKey, LegGrant};
use trocar_proto::session::ids::SessionId;

/// The workers, and who takes what.
#[derive(Clone)]
pub(crate) struct Router {
    workers: Vec<WorkerHandle>,
    limits: Limits,
    /// Openings are settled one after the other: two at once would both find the same worker idle.
    turn: Arc<Mutex<()>>,
}

/// What is to be opened on a session's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opens {
    Feeds,
    Legs,
}

/// The worker that something is to be opened on; nobody else chooses one as long as it is kept.
pub(crate) struct Choice<'a> {
    worker: &'a WorkerHandle,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Choice<'_> {
    pub(crate) async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, AdmitError> {
        self.worker.ask(make).await
    }
}

/// Where a leg goes, and what has to be mirrored there.
pub(crate) struct LegChoice<'a> {
    pub(crate) choice: Choice<'a>,
    pub(crate) images: Vec<Image>,
    /// Where the feed lives, where that is another worker.
    pub(crate) home: Option<&'a WorkerHandle>,
}

impl WorkerHandle {
    /// Asks a worker and waits for its answer.
    ///
    /// # Errors
    /// [`AdmitError::Unavailable`] where it is gone.
    pub(crate) async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, AdmitError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| AdmitError::Unavailable)?;
        answer.await.map_err(|_| AdmitError::Unavailable)
    }
}

impl Router {
    pub(crate) fn new(workers: Vec<WorkerHandle>, limits: Limits) -> Self {
        Self { workers, limits, turn: Arc::new(Mutex::new(())) }
    }

    /// Asks all workers at once; answers are in the order of the workers, without those that are gone.
    pub(crate) async fn ask_all<T>(&self, make: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let answers = join_all(self.workers.iter().map(|w| w.ask(&make))).await;
        answers.into_iter().filter_map(Result::ok).collect()
    }

    /// Asks one worker after the other until one knows what is asked about.
    ///
    /// # Errors
    /// `unknown` where none does; what the one that knows says.
    pub(crate) async fn ask_who_knows<T>(
        &self,
        unknown: AdmitError,
        make: impl Fn(oneshot::Sender<Result<T, AdmitError>>) -> Command,
    ) -> Result<T, AdmitError> {
        for worker in &self.workers {
            match worker.ask(&make).await {
                Ok(Err(error)) if error == unknown => {}
                Ok(answer) => return answer,
                Err(gone) => return Err(gone),
            }
        }
        Err(unknown)
    }

    /// The worker that a session's feeds, publications and voices live on.
    ///
    /// # Errors
    /// [`AdmitError::Full`] and [`AdmitError::Unavailable`].
    pub(crate) async fn home_of(&self, session: &SessionId, what: Opens) -> Result<Choice<'_>, AdmitError> {
        if let [worker] = &self.workers[..] {
            return Ok(Choice { worker, _turn: None });
        }
        let turn = self.turn.lock().await;
        let standings = self.standings(session, &[]).await?;
        self.check_room(&standings, what)?;
        let place = standings.iter().position(|s| s.is_home).or_else(|| least(standings.iter().map(|s| s.load)));
        let worker = place.and_then(|p| self.workers.get(p)).ok_or(AdmitError::Unavailable)?;
        Ok(Choice { worker, _turn: Some(turn) })
    }

    /// The worker that a viewer's leg goes to.
    ///
    /// # Errors
    /// [`AdmitError::NoSuchFeed`], [`AdmitError::Full`] and [`AdmitError::Unavailable`].
    pub(crate) async fn place_of(&self, grant: &LegGrant) -> Result<LegChoice<'_>, AdmitError> {
        if let [worker] = &self.workers[..] {
            return Ok(LegChoice { choice: Choice { worker, _turn: None }, images: Vec::new(), home: None });
        }
        let turn = self.turn.lock().await;
        let feeds: Vec<FeedKey> = [&grant.feed].into_iter().chain(&grant.companion).cloned().collect();
        let mut standings = self.standings(&grant.feed.session, &feeds).await?;
        self.check_room(&standings, Opens::Legs)?;
        let has = |s: &Standing| s.images.iter().any(|i| i.key == grant.feed);
        let home = standings.iter().position(has).ok_or(AdmitError::NoSuchFeed)?;
        let images = standings.get_mut(home).map(|s| std::mem::take(&mut s.images)).unwrap_or_default();
        let rate = images.iter().map(|i| i.descriptor.max_bitrate.0).fold(0_u64, u64::saturating_add);
        // A mirror costs as much as the feed: the leg stays where the feed is unless that worker has more to do by so much.
        let cost = |(place, s): (usize, &Standing)| {
            let there = place == home || s.mirrored.contains(&grant.feed);
            s.load.saturating_add(if there { 0 } else { rate })
        };
        let costs: Vec<u64> = standings.iter().enumerate().map(cost).collect();
        let lowest = costs.iter().copied().min().ok_or(AdmitError::Unavailable)?;
        let place = if costs.get(home) == Some(&lowest) { Some(home) } else { least(costs.into_iter()) };
        let worker = place.and_then(|p| self.workers.get(p)).ok_or(AdmitError::Unavailable)?;
        let choice = Choice { worker, _turn: Some(turn) };
        if place == Some(home) {
            return Ok(LegChoice { choice, images: Vec::new(), home: None });
        }
        Ok(LegChoice { choice, images, home: self.workers.get(home) })
    }

    /// What a worker has to know of a feed to mirror it: nothing where there is one worker.
    ///
    /// # Errors
    /// [`AdmitError::NoSuchFeed`] and [`AdmitError::Unavailable`].
    pub(crate) async fn images_of(&self, feed: &FeedKey) -> Result<Vec<Image>, AdmitError> {
        if self.workers.len() < 2 {
            return Ok(Vec::new());
        }
        let standings = self.standings(&feed.session, std::slice::from_ref(feed)).await?;
        standings.into_iter().map(|s| s.images).find(|i| !i.is_empty()).ok_or(AdmitError::NoSuchFeed)
    }

    /// Each worker knows what is open on it; the limit is for all of them together.
    fn check_room(&self, standings: &[Standing], what: Opens) -> Result<(), AdmitError> {
        let (open, most, name) = match what {
            Opens::Feeds => (standings.iter().map(|s| s.feeds).sum::<usize>(), self.limits.max_feeds, "feeds"),
            Opens::Legs => (standings.iter().map(|s| s.legs).sum::<usize>(), self.limits.max_legs, "legs"),
        };
        if open < most { Ok(()) } else { Err(AdmitError::Full(format!("{open} {name} are open"))) }
    }

    /// How all workers stand towards a session; none is left out, so that places are numbers of workers.
    async fn standings(&self, session: &SessionId, feeds: &[FeedKey]) -> Result<Vec<Standing>, AdmitError> {
        let all = self.ask_all(|r| Command::Stand(session.clone(), feeds.to_vec(), r)).await;
        if all.len() == self.workers.len() { Ok(all) } else { Err(AdmitError::Unavailable) }
    }

    /// The figures of all workers; none where one does not answer.
    pub(crate) async fn snapshot(&self) -> Option<Snapshot> {
        let parts: Vec<WorkerSnapshot> = self.ask_all(Command::Snapshot).await;
        (parts.len() == self.workers.len()).then(|| Snapshot::merge(parts))
    }
}

/// The first of the smallest.
fn least(loads: impl Iterator<Item = u64>) -> Option<usize> {
    loads.enumerate().min_by_key(|(_, load)| *load).map(|(place, _)| place)
}
