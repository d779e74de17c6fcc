//! How publishers and viewers get in: participants that several of them share, since signaling bounds how fast and how many join,
//! and sockets that many connections share.

use crate::net::api::{Api, Refused};
use crate::net::link::InvitationLink;
use crate::net::path::PathSpec;
use crate::net::roq::Dialer;
use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use trocar_proto::session::ids::CertHash;
use trocar_relay::quic::Identity;

/// Feeds of one participant.
const FEEDS_EACH: usize = 8;
/// Viewers of one participant: signaling takes 32 legs, of which those that were killed are some.
const VIEWERS_EACH: usize = 16;
/// Joining is tried again so often where signaling says that it is too fast, and so long after.
const TRIES: u32 = 60;
const AGAIN: Duration = Duration::from_secs(1);

/// A participant that is there when it is first needed, with the task that keeps its token fresh.
type Seat = Mutex<Option<(Api, tokio::task::JoinHandle<()>)>>;

/// The way in.
pub(super) struct Access {
    /// One for each session.
    links: Vec<InvitationLink>,
    pub(super) trust: Vec<CertificateDer<'static>>,
    cnf: CertHash,
    /// By group of ports, one for each path.
    dialers: Vec<Vec<Arc<Dialer>>>,
    publishers: Vec<Seat>,
    viewers: Vec<Seat>,
}

impl Access {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// Where the certificates cannot be used.
    pub(super) fn new(
        links: Vec<InvitationLink>,
        identity: &Identity,
        paths: &[PathSpec],
        ports: usize,
        size: (usize, usize),
    ) -> anyhow::Result<Arc<Self>> {
        let leaf = identity.chain.first().context("--cert has no certificate")?;
        let any = PathSpec { local: None, relay: None };
        let [first, second] = match paths {
            [a, b, ..] => [a.clone(), b.clone()],
            [a] => [a.clone(), a.clone()],
            [] => [any.clone(), any],
        };
        let both = [first, second];
        let dialers = (0..ports.max(1)).map(|_| Dialer::for_paths(identity.duplicate(), &both));
        let (feeds, viewers) = size;
        let sessions = links.len().max(1);
        // Of each session so many, since a participant is in one.
        let seats =
            |n: usize, each: usize| (0..n.div_ceil(sessions).div_ceil(each) * sessions).map(|_| Seat::default());
        Ok(Arc::new(Self {
            cnf: trocar_control::trust::cert_hash(leaf),
            trust: identity.trust.clone(),
            dialers: dialers.collect::<anyhow::Result<_>>()?,
            publishers: seats(feeds, FEEDS_EACH).collect(),
            // Viewers follow their feeds into a session, which may be the same for all of them.
            viewers: (0..viewers.div_ceil(VIEWERS_EACH) * sessions).map(|_| Seat::default()).collect(),
            links,
        }))
    }

    /// The session that a feed is in.
    fn session(&self, feed: usize) -> usize {
        feed.checked_rem(self.links.len()).unwrap_or(0)
    }

    /// Who publishes that feed.
    ///
    /// # Errors
    /// What signaling said.
    pub(super) async fn publisher(&self, feed: usize) -> anyhow::Result<Api> {
        let session = self.session(feed);
        let seat = (feed / self.links.len().max(1)) / FEEDS_EACH * self.links.len() + session;
        self.sit(self.publishers.get(seat), session, "Load test").await
    }

    /// Who watches that feed, as that viewer.
    ///
    /// # Errors
    /// What signaling said.
    pub(super) async fn viewer(&self, viewer: usize, feed: usize) -> anyhow::Result<Api> {
        let session = self.session(feed);
        let seat = viewer / VIEWERS_EACH * self.links.len() + session;
        self.sit(self.viewers.get(seat), session, "Load test viewer").await
    }

    async fn sit(&self, seat: Option<&Seat>, session: usize, name: &str) -> anyhow::Result<Api> {
        let mut seat = seat.context("no seat")?.lock().await;
        if let Some((api, _)) = &*seat {
            return Ok(api.clone());
        }
        let link = self.links.get(session).context("no invitation")?;
        for _ in 0..TRIES {
            match Api::join(link.clone(), &self.trust, self.cnf, name).await {
                Ok(api) => {
                    let fresh = api.keep_fresh();
                    return Ok(seat.insert((api, fresh)).0.clone());
                }
                Err(e) if e.downcast_ref::<Refused>().is_some_and(|r| r.0.status == 429) => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error.context("--invite")),
            }
        }
        anyhow::bail!("--invite: signaling takes no more participants")
    }

    /// The ends that this one connects from, one for each path.
    pub(super) fn dialers(&self, index: usize) -> &[Arc<Dialer>] {
        let group = index.checked_rem(self.dialers.len()).and_then(|i| self.dialers.get(i));
        group.map_or(&[], Vec::as_slice)
    }

    /// Leaves the sessions, and waits until what was closed has been said to the relay.
    pub(super) async fn finish(&self) {
        for seat in self.publishers.iter().chain(&self.viewers) {
            if let Some((api, fresh)) = seat.lock().await.take() {
                fresh.abort();
                crate::verbs::leave(&api).await;
            }
        }
        for dialer in self.dialers.iter().flatten() {
            dialer.finish().await;
        }
    }
}
