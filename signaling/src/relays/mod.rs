//! Several relays, each a process of its own, as one [`Admission`] (docs/CLUSTER.md).
//!
//! Who has what is in [`places`], which does no I/O. [`stream`] keeps one event stream per relay and says when it is there
//! and when not; [`door`] asks. What is opened runs to its end even where the asker has gone, so that the book is true.
//!
//! - A feed goes to the first relay of the configuration that is up, takes feeds and serves the publisher's realm; a
//!   protected one to two of them, where there are two.
//! - A leg goes to the feed's own relay where that serves the viewer's realm and takes legs, else to the first one that does,
//!   which then fetches the feed from its own relay once for all of its viewers. A relay that is full is passed over.
//! - Nothing is moved while it runs.

mod cascade;
mod door;
mod figures;
mod link_tests;
mod places;
mod stream;
#[cfg(test)]
mod tests;

use crate::admission::{Admission, Answer};
use door::{Door, DoorConfig};
use link_tests::Kept;
use places::{Act, Member, Outcome, Owed, Places};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stream::News;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant, RelayEvent,
    VoicesGrant, WebrtcAnswer,
};
use trocar_proto::session::ids::{CertHash, LegId, PublicationId, RealmId};
use trocar_proto::session::remote::WithSdp;

/// Events for signaling that wait. Loss policy: the stream that brought one waits, and with it the relay's own queue.
const EVENTS: usize = 4_096;
/// News of one relay that wait. Loss policy: its stream waits.
const NEWS: usize = 256;
/// Figures are fetched this often.
const FIGURES_EVERY: Duration = Duration::from_secs(1);
/// What has to be done at relays and waits. Loss policy: the events that bring it wait.
const ACTS: usize = 1_024;
/// A feed that could not be fetched anew is tried again after this long.
const MEND_AGAIN: Duration = Duration::from_secs(1);
/// Relays at most.
const RELAYS: usize = 16;

/// One relay of the configuration.
#[derive(Debug, Clone)]
pub struct RelayAt {
    /// Its name in figures and logs.
    pub name: String,
    /// Where its admission listens, `https://HOST:PORT`.
    pub url: String,
    /// Certificate of role `signaling`, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who signed the relay's certificate; a `crl.pem` beside it counts.
    pub ca: PathBuf,
    /// Realms that it is to serve; all of its listeners' where empty.
    pub realms: Vec<RealmId>,
    /// Whether publishers are sent to it.
    pub takes_feeds: bool,
    /// Whether viewers are sent to it.
    pub takes_legs: bool,
}

/// Why relays cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum RelaysError {
    /// A relay of the configuration cannot be used.
    #[error("relay {name}: {why}")]
    Relay {
        /// Which.
        name: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// The list as a whole cannot be used.
    #[error("{0}")]
    List(String),
}

/// By feed, and by the relay that it is set up at.
type Turns = BTreeMap<(FeedKey, usize), Arc<tokio::sync::Mutex<()>>>;

struct Inner {
    places: Mutex<Places>,
    doors: Vec<Arc<Door>>,
    figures: Mutex<Vec<String>>,
    /// Mirrors that are being set up: two viewers who come at once want one.
    turns: Mutex<Turns>,
    events: mpsc::Sender<RelayEvent>,
    acts: mpsc::Sender<Act>,
    /// Measurements of the line that were let in.
    kept: Kept,
    /// How many relays were heard of, whatever came of it.
    heard: watch::Sender<usize>,
}

/// All relays of the configuration. Dropping it ends its tasks; what runs at the relays goes on.
pub struct Relays {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

impl Relays {
    /// Begins to listen to all relays, and waits until each has been heard, for `patience` at most: what they kept while
    /// signaling was away is then known before anybody asks. To be called on a runtime.
    ///
    /// # Errors
    /// [`RelaysError`] names the relay and the file.
    pub async fn start(
        relays: Vec<RelayAt>,
        patience: Duration,
    ) -> Result<(Arc<Self>, mpsc::Receiver<RelayEvent>), RelaysError> {
        check(&relays)?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let (acts, to_do) = mpsc::channel(ACTS);
        let (heard, mut all_heard) = watch::channel(0);
        let mut doors = Vec::new();
        for r in &relays {
            let config = DoorConfig { url: r.url.clone(), cert: r.cert.clone(), key: r.key.clone(), ca: r.ca.clone() };
            let failed = |why| RelaysError::Relay { name: r.name.clone(), why };
            doors.push(Arc::new(Door::new(&config).map_err(failed)?));
        }
        let member = |r: &RelayAt| Member::new(r.name.clone(), r.realms.clone(), (r.takes_feeds, r.takes_legs));
        let inner = Arc::new(Inner {
            places: Mutex::new(Places::new(relays.iter().map(member).collect())),
            figures: Mutex::new(vec![String::new(); relays.len()]),
            turns: Mutex::default(),
            doors,
            events,
            acts,
            kept: Kept::new(relays.len()),
            heard,
        });
        let mut tasks = JoinSet::new();
        for (member, r) in relays.into_iter().enumerate() {
            tasks.spawn(Arc::clone(&inner).attend(member, r.name));
            tasks.spawn(Arc::clone(&inner).fetch_figures(member));
            tasks.spawn(Arc::clone(&inner).keep_link_tests(member));
        }
        tasks.spawn(Arc::clone(&inner).carry_out(to_do));
        let count = inner.doors.len();
        // A relay that is away keeps nobody waiting for longer.
        let _ = timeout(patience, all_heard.wait_for(|heard| *heard >= count)).await;
        Ok((Arc::new(Self { inner, _tasks: tasks }), receiver))
    }

    /// Where a relay's rendezvous is, by the relay's own word: of the first one that has one.
    #[must_use]
    pub fn control_address(&self) -> Option<std::net::SocketAddr> {
        self.inner.places().members.iter().find_map(|m| m.hello.as_ref()?.control)
    }
}

fn check(relays: &[RelayAt]) -> Result<(), RelaysError> {
    if !(1..=RELAYS).contains(&relays.len()) {
        return Err(RelaysError::List(format!("1 to {RELAYS} relays are right, not {}", relays.len())));
    }
    for (i, r) in relays.iter().enumerate() {
        let failed = |why: &str| RelaysError::Relay { name: r.name.clone(), why: why.to_owned() };
        if relays.iter().skip(i + 1).any(|other| other.name == r.name) {
            return Err(failed("another one has the same name"));
        }
        if !r.url.starts_with("https://") {
            return Err(failed("url: https://HOST:PORT is right"));
        }
        if !r.takes_feeds && !r.takes_legs {
            return Err(failed("takes: feeds, legs or both"));
        }
    }
    for (takes, what) in
        [(relays.iter().any(|r| r.takes_feeds), "feeds"), (relays.iter().any(|r| r.takes_legs), "legs")]
    {
        if !takes {
            return Err(RelaysError::List(format!("no relay takes {what}")));
        }
    }
    Ok(())
}

impl Inner {
    fn places(&self) -> MutexGuard<'_, Places> {
        // Held for a few lines, never over an await.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        member: usize,
        command: &str,
        body: &impl Serialize,
    ) -> Result<T, AdmitError> {
        self.doors.get(member).ok_or(AdmitError::Unavailable)?.ask(command, body).await
    }

    /// Keeps one relay's stream and takes its news.
    async fn attend(self: Arc<Self>, member: usize, name: String) {
        let Some(door) = self.doors.get(member).map(Arc::clone) else { return };
        let (sender, mut news) = mpsc::channel(NEWS);
        let begin = {
            let inner = Arc::clone(&self);
            move || inner.places().next_turn()
        };
        let keeping = stream::keep(name.clone(), door, begin, sender);
        let taking = async {
            let mut first = true;
            while let Some(word) = news.recv().await {
                let outcome = self.take(member, &name, word);
                self.kept.note_operated(self.places().operated());
                self.pass_on(outcome).await;
                if std::mem::take(&mut first) {
                    self.heard.send_modify(|heard| *heard += 1);
                }
            }
        };
        tokio::join!(keeping, taking);
    }

    fn take(&self, member: usize, name: &str, word: News) -> Outcome {
        let mut places = self.places();
        match word {
            News::Event(event) => places.hear(member, event),
            News::Up(attempt, hello, state) => {
                tracing::info!(
                    relay = name,
                    instance = hello.instance,
                    feeds = state.feeds.len(),
                    legs = state.legs.len(),
                    "the relay is up"
                );
                places.rise(member, attempt, *hello, *state)
            }
            News::Silent => {
                let outcome = places.fall_silent(member, crate::app::wall_clock());
                if let Some(outcome) = &outcome {
                    let told = outcome.tell.len();
                    tracing::warn!(
                        relay = name,
                        told,
                        "the relay says nothing: new legs go elsewhere, its media may run"
                    );
                }
                outcome.unwrap_or_default()
            }
            News::Gone => {
                let outcome = places.fall(member);
                if outcome.is_some() {
                    tracing::warn!(relay = name, "the relay's process is gone");
                }
                outcome.unwrap_or_default()
            }
            News::GivenUp if places.has_stand_in(member) => {
                let outcome = places.fall(member);
                if outcome.is_some() {
                    tracing::warn!(relay = name, "the relay was silent for too long: others take its work");
                }
                outcome.unwrap_or_default()
            }
            News::GivenUp => Outcome::default(),
        }
    }

    async fn pass_on(&self, outcome: Outcome) {
        for event in outcome.tell {
            let is_point = matches!(event, RelayEvent::Capture { .. });
            if is_point && self.events.capacity() < self.events.max_capacity() / 2 {
                continue;
            }
            if self.events.send(event).await.is_err() {
                return;
            }
        }
        for act in outcome.acts {
            let _ = self.acts.send(act).await;
        }
    }

    /// What followed from events and is to be done at relays, one after the other.
    async fn carry_out(self: Arc<Self>, mut acts: mpsc::Receiver<Act>) {
        while let Some(act) = acts.recv().await {
            self.act(act).await;
        }
    }

    async fn act(self: &Arc<Self>, act: Act) {
        match act {
            Act::Close(member, owed) => {
                let closed: Result<(), AdmitError> = match &owed {
                    Owed::Feed(key) => self.close_feed_at(member, key).await,
                    Owed::Leg(leg) => self.ask(member, "close-leg", leg).await,
                    Owed::Publication(publication) => self.ask(member, "close-publication", publication).await,
                };
                if let Err(error) = closed {
                    tracing::warn!(?owed, %error, "the relay was not told to close");
                }
            }
            Act::Mend(key, member) if self.places().is_mirrored(&key, member) => {
                if let Err(error) = self.fetch(&key, member).await {
                    tracing::warn!(feed = %key.feed, %error, "the feed cannot be fetched anew yet");
                    let acts = self.acts.clone();
                    tokio::spawn(async move {
                        sleep(MEND_AGAIN).await;
                        // Ends where the tasks have.
                        let _ = acts.send(Act::Mend(key, member)).await;
                    });
                }
            }
            Act::Mend(..) => {}
        }
    }

    /// A name may be taken again before what had it is closed: its publisher is told of the end at once. Whoever opens there
    /// has had its turn then, and what it opened stays.
    async fn close_feed_at(&self, member: usize, key: &FeedKey) -> Result<(), AdmitError> {
        let turn = self.turn(key, member);
        let _held = turn.lock().await;
        if self.places().has_feed_at(key, member) {
            return Ok(());
        }
        self.ask(member, "close-feed", key).await
    }

    async fn close(self: &Arc<Self>, acts: Vec<Act>) {
        for act in acts {
            self.act(act).await;
        }
    }

    async fn fetch_figures(self: Arc<Self>, member: usize) {
        let mut ticks = interval(FIGURES_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(door) = self.doors.get(member) else { return };
            let up = self.places().members.get(member).is_some_and(Member::is_up);
            let text = if up { door.figures().await } else { None };
            if let Some(slot) = self.figures.lock().unwrap_or_else(PoisonError::into_inner).get_mut(member) {
                *slot = text.unwrap_or_default();
            }
        }
    }
}

/// Runs to its end where the asker goes away.
fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, AdmitError>> + Send + 'static,
) -> Answer<'static, Result<T, AdmitError>> {
    Box::pin(async move { tokio::spawn(work).await.unwrap_or(Err(AdmitError::Unavailable)) })
}

fn closing(inner: &Arc<Inner>, acts: Vec<Act>) -> Answer<'static, ()> {
    let inner = Arc::clone(inner);
    Box::pin(async move {
        // A closing that began ends, whoever waits for it.
        let _ = tokio::spawn(async move { inner.close(acts).await }).await;
    })
}

impl Admission for Relays {
    fn open_feed(&self, grant: FeedGrant) -> Answer<'_, Result<FlowBinding, AdmitError>> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.open_feed(grant).await })
    }

    fn close_feed<'a>(&'a self, feed: &'a FeedKey) -> Answer<'a, ()> {
        let acts = self.inner.places().close_feed(feed);
        closing(&self.inner, acts)
    }

    fn open_roq_leg(&self, grant: LegGrant, cnf: CertHash) -> Answer<'_, Result<FlowBinding, AdmitError>> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.open_roq_leg(grant, cnf).await })
    }

    fn open_webrtc_leg(&self, grant: LegGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move {
            let ask = move |grant: LegGrant| ("open-webrtc-leg", WithSdp { grant, sdp: sdp_offer.clone() });
            inner.open_leg(grant, ask).await
        })
    }

    fn patch_webrtc_leg<'a>(
        &'a self,
        leg: &'a LegId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>> {
        let member = self.inner.places().of_leg(leg);
        let asked = WithSdp { grant: leg, sdp: sdp_fragment };
        Box::pin(async move { self.inner.ask(member.ok_or(AdmitError::NoSuchLeg)?, "patch-webrtc-leg", &asked).await })
    }

    fn switch_leg<'a>(&'a self, leg: &'a LegId, feed: FeedKey) -> Answer<'a, Result<(), AdmitError>> {
        let member = self.inner.places().of_leg(leg);
        Box::pin(async move {
            let member = member.ok_or(AdmitError::NoSuchLeg)?;
            self.inner.fetch(&feed, member).await?;
            self.inner.ask(member, "switch-leg", &(leg, feed)).await
        })
    }

    fn open_publication(
        &self,
        grant: PublicationGrant,
        sdp_offer: String,
    ) -> Answer<'_, Result<PublicationAnswer, AdmitError>> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.open_publication(grant, sdp_offer).await })
    }

    fn patch_publication<'a>(
        &'a self,
        publication: &'a PublicationId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>> {
        let member = self.inner.places().of_publication(publication);
        let asked = WithSdp { grant: publication, sdp: sdp_fragment };
        Box::pin(async move {
            self.inner.ask(member.ok_or(AdmitError::NoSuchPublication)?, "patch-publication", &asked).await
        })
    }

    fn close_publication<'a>(&'a self, publication: &'a PublicationId) -> Answer<'a, ()> {
        let acts = self.inner.places().close_publication(publication);
        closing(&self.inner, acts)
    }

    fn open_voices(&self, grant: VoicesGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>> {
        let inner = Arc::clone(&self.inner);
        to_the_end(async move { inner.open_voices(grant, sdp_offer).await })
    }

    fn close_leg<'a>(&'a self, leg: &'a LegId) -> Answer<'a, ()> {
        let acts = self.inner.places().close_leg(leg);
        closing(&self.inner, acts)
    }

    fn metrics_text(&self) -> String {
        let texts = self.inner.figures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let places = self.inner.places();
        figures::merge(&places, &texts, &trocar_control::process::Process::now().text())
    }

    fn ready(&self) -> bool {
        let places = self.inner.places();
        let takes = |pick: fn(&Member) -> bool| places.members.iter().any(|m| m.is_up() && pick(m));
        takes(|m| m.takes.0) && takes(|m| m.takes.1)
    }
}
