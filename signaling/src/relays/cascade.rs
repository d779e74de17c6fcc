//! Opening at one relay or another, and one copy of a feed from its own relay to the one that shows it.

use super::Inner;
use super::places::{Act, Owed, Places, upstream_prefix};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use trocar_proto::session::admission::{
    AdmitError, CHOSEN_FLOWS, FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant,
    VoicesGrant, WebrtcAnswer,
};
use trocar_proto::session::api::{LegRequest, OtherRelay};
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose};
use trocar_proto::session::ids::{CertHash, LegId, RealmId};
use trocar_proto::session::remote::{CascadeGrant, ForCertificate, WithSdp};
use trocar_proto::units::FlowId;

/// What is said where no relay is left to ask.
fn nobody(places: &Places, realm: &RealmId) -> AdmitError {
    if places.knows_realm(realm) { AdmitError::Unavailable } else { AdmitError::NoSuchRealm(realm.clone()) }
}

/// Whether the next relay may be asked after this one's answer.
fn is_of_this_relay(error: &AdmitError) -> bool {
    matches!(error, AdmitError::Full(_) | AdmitError::Unavailable | AdmitError::NoSuchRealm(_))
}

/// Flows that two relays are to have alike.
fn chosen_flows() -> Result<(FlowId, FlowId), AdmitError> {
    let drawn = crate::secret::nonce().ok_or(AdmitError::Unavailable)?;
    let span = CHOSEN_FLOWS.end - CHOSEN_FLOWS.start;
    let rtp = CHOSEN_FLOWS.start + ((drawn % span) & !1);
    Ok((FlowId(rtp), FlowId(rtp + 1)))
}

/// The feeds that a publication may bring, in the order of their names.
fn feeds_of(grant: &PublicationGrant) -> BTreeSet<FeedKey> {
    let outlines = grant.video.iter().chain(&grant.layers).chain(&grant.audio);
    outlines.map(|o| FeedKey { session: grant.session.clone(), feed: o.feed.clone() }).collect()
}

fn is_voice(d: &FeedDescriptor) -> bool {
    d.kind == MediaKind::Audio && d.purpose == Purpose::Voice
}

impl Inner {
    /// A protected feed is opened at two relays, on the same flows, where there are two.
    pub(super) async fn open_feed(self: &Arc<Self>, mut grant: FeedGrant) -> Result<FlowBinding, AdmitError> {
        let candidates = self.places().for_feed(&grant.realm);
        let wanted = if grant.descriptor.protected && candidates.len() > 1 { 2 } else { 1 };
        grant.flows = if wanted == 2 { Some(chosen_flows()?) } else { None };
        let mut refusal = nobody(&self.places(), &grant.realm);
        let mut opened: Option<FlowBinding> = None;
        for member in candidates {
            match self.open_feed_at(member, &grant).await {
                Ok(binding) => {
                    if let Some(first) = &mut opened {
                        first.also.push(OtherRelay { relay: binding.relay, server_name: binding.server_name });
                    } else {
                        opened = Some(binding);
                    }
                    if opened.as_ref().is_some_and(|first| first.also.len() + 1 == wanted) {
                        break;
                    }
                }
                Err(error) if is_of_this_relay(&error) => refusal = error,
                Err(error) if opened.is_none() => return Err(error),
                Err(error) => tracing::warn!(feed = %grant.key.feed, %error, "the feed has no second relay"),
            }
        }
        if opened.is_some() && is_voice(&grant.descriptor) {
            self.fetch_for_listeners(&grant.key);
        }
        opened.ok_or(refusal)
    }

    /// Names are given out by signaling: one that it takes for free and the relay does not is of something left behind.
    async fn open_feed_at(&self, member: usize, grant: &FeedGrant) -> Result<FlowBinding, AdmitError> {
        let turn = self.turn(&grant.key, member);
        let _held = turn.lock().await;
        self.places().ask_feed(member, &grant.key);
        let mut answer = self.ask(member, "open-feed", grant).await;
        if matches!(answer, Err(AdmitError::FeedExists)) {
            answer = match self.ask::<()>(member, "close-feed", &grant.key).await {
                Ok(()) => {
                    // What was said until now is about the one that is closed.
                    self.places().ask_feed(member, &grant.key);
                    self.ask(member, "open-feed", grant).await
                }
                Err(error) => Err(error),
            };
        }
        match &answer {
            Ok(_) => self.places().note_feed(member, &grant.key, &grant.publisher, &grant.descriptor, None),
            Err(_) => self.places().refuse_feed(member, &grant.key),
        }
        answer
    }

    pub(super) async fn open_publication(
        self: &Arc<Self>,
        grant: PublicationGrant,
        sdp: String,
    ) -> Result<PublicationAnswer, AdmitError> {
        let candidates = self.places().for_feed(&grant.realm);
        let mut refusal = nobody(&self.places(), &grant.realm);
        let asked = WithSdp { grant, sdp };
        let keys = feeds_of(&asked.grant);
        for member in candidates {
            let turns: Vec<_> = keys.iter().map(|key| self.turn(key, member)).collect();
            // Always in the order of their names: two publications never wait for each other.
            let mut held = Vec::new();
            for turn in &turns {
                held.push(turn.lock().await);
            }
            let answer: Result<PublicationAnswer, _> = self.ask(member, "open-publication", &asked).await;
            match answer {
                Ok(answer) => {
                    self.note_publication(member, &asked.grant, &answer);
                    return Ok(answer);
                }
                Err(error) if is_of_this_relay(&error) => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    fn note_publication(self: &Arc<Self>, member: usize, grant: &PublicationGrant, answer: &PublicationAnswer) {
        let mut voices = Vec::new();
        {
            let mut places = self.places();
            places.note_publication(member, &grant.publication);
            for d in &answer.feeds {
                let key = FeedKey { session: grant.session.clone(), feed: d.feed.clone() };
                places.note_feed(member, &key, &grant.publisher, d, Some(&grant.publication));
                if is_voice(d) {
                    voices.push(key);
                }
            }
        }
        voices.iter().for_each(|key| self.fetch_for_listeners(key));
    }

    /// A leg of either kind, at the first relay that takes it.
    pub(super) async fn open_leg<B: Serialize, T: DeserializeOwned>(
        self: &Arc<Self>,
        grant: LegGrant,
        ask: impl Fn(LegGrant) -> (&'static str, B),
    ) -> Result<T, AdmitError> {
        let candidates = self.places().for_leg(&grant.feed, &grant.realm);
        let mut refusal = nobody(&self.places(), &grant.realm);
        for member in candidates {
            match self.open_leg_at(member, grant.clone(), &ask).await {
                Ok(answer) => {
                    self.places().note_leg(member, &grant.leg, None);
                    return Ok(answer);
                }
                Err(error) if is_of_this_relay(&error) => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    /// A native leg, over two relays where it asks for two paths and there are two.
    pub(super) async fn open_roq_leg(
        self: &Arc<Self>,
        mut grant: LegGrant,
        cnf: CertHash,
    ) -> Result<FlowBinding, AdmitError> {
        let ask = |grant: LegGrant| ("open-roq-leg", ForCertificate { grant, cnf });
        let candidates = self.places().for_leg(&grant.feed, &grant.realm);
        if grant.roq.paths < 2 || candidates.len() < 2 {
            return self.open_leg(grant, ask).await;
        }
        grant.flows = Some(chosen_flows()?);
        let mut binding: FlowBinding = self.open_leg(grant.clone(), ask).await?;
        let taken = self.places().of_leg(&grant.leg);
        for member in candidates.into_iter().filter(|m| Some(*m) != taken) {
            let second: Result<FlowBinding, _> = self.open_leg_at(member, grant.clone(), &ask).await;
            match second {
                Ok(other) => {
                    self.places().note_leg(member, &grant.leg, None);
                    binding.also.push(OtherRelay { relay: other.relay, server_name: other.server_name });
                    break;
                }
                Err(error) => tracing::warn!(feed = %grant.feed.feed, %error, "the leg has no second relay"),
            }
        }
        Ok(binding)
    }

    async fn open_leg_at<B: Serialize, T: DeserializeOwned>(
        self: &Arc<Self>,
        member: usize,
        mut grant: LegGrant,
        ask: &impl Fn(LegGrant) -> (&'static str, B),
    ) -> Result<T, AdmitError> {
        self.fetch(&grant.feed, member).await?;
        // A picture is shown without its sound rather than not at all.
        if let Some(companion) = &grant.companion
            && self.fetch(companion, member).await.is_err()
        {
            grant.companion = None;
        }
        let key = grant.feed.clone();
        let home = self.places().home_since(&key, member);
        let (command, body) = ask(grant);
        match (self.ask(member, command, &body).await, home) {
            (Err(AdmitError::NoSuchFeed), Some(since)) => {
                tracing::error!(feed = %key.feed, "the relay has lost a feed: its publisher is to announce it again");
                let outcome = self.places().lose_home(&key, member, since);
                self.pass_on(outcome).await;
                Err(AdmitError::NoSuchFeed)
            }
            (Err(AdmitError::NoSuchFeed), None) => {
                // It stopped fetching a moment ago, for nobody viewed it.
                let acts = self.places().forget_mirror(&key, member);
                self.close(acts).await;
                self.fetch(&key, member).await?;
                self.ask(member, command, &body).await
            }
            (other, _) => other,
        }
    }

    pub(super) async fn open_voices(
        self: &Arc<Self>,
        grant: VoicesGrant,
        sdp: String,
    ) -> Result<WebrtcAnswer, AdmitError> {
        let candidates = match &grant.relay {
            None => self.places().for_voices(&grant.session, &grant.realm),
            Some(name) => self.places().named(name).into_iter().collect(),
        };
        let mut refusal = nobody(&self.places(), &grant.realm);
        let asked = WithSdp { grant, sdp };
        for member in candidates {
            match self.ask(member, "open-voices", &asked).await {
                Ok(answer) => {
                    // Nobody listens by one that a relay was named for.
                    let session = Some(&asked.grant.session).filter(|_| asked.grant.relay.is_none());
                    let voices = {
                        let mut places = self.places();
                        places.note_leg(member, &asked.grant.leg, session);
                        session.map(|s| places.voices_of(s)).unwrap_or_default()
                    };
                    for key in voices {
                        self.fetch_later(key, member);
                    }
                    return Ok(answer);
                }
                Err(error) if is_of_this_relay(&error) => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }

    /// A voice is fetched to where somebody listens.
    fn fetch_for_listeners(self: &Arc<Self>, key: &FeedKey) {
        let at = self.places().listened_at(&key.session);
        for member in at {
            self.fetch_later(key.clone(), member);
        }
    }

    fn fetch_later(self: &Arc<Self>, key: FeedKey, member: usize) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = inner.fetch(&key, member).await {
                tracing::warn!(feed = %key.feed, %error, "the voice cannot be fetched to where somebody listens");
            }
        });
    }

    /// Has a relay fetch a feed that is not at home there. Quick where it does already.
    pub(super) async fn fetch(&self, key: &FeedKey, member: usize) -> Result<(), AdmitError> {
        let turn = self.turn(key, member);
        let _held = turn.lock().await;
        let (plan, certificate, realm) = {
            let places = self.places();
            let Some(plan) = places.plan_cascade(key, member) else { return Ok(()) };
            let hello = places.members.get(member).and_then(|m| m.hello.as_ref()).ok_or(AdmitError::Unavailable)?;
            (plan, hello.certificate, hello.realm.clone())
        };
        if plan.is_whole {
            return Ok(());
        }
        let mut upstream = plan.kept;
        let mut refusal = AdmitError::Unavailable;
        let mut opened = Vec::new();
        for home in plan.open_at {
            match self.open_upstream(home, key, certificate, &realm).await {
                Ok((leg, binding)) => {
                    opened.push(leg);
                    upstream.push(binding);
                }
                Err(error) => refusal = error,
            }
        }
        if upstream.is_empty() {
            return Err(refusal);
        }
        let (publisher, descriptor) = (plan.publisher, plan.descriptor);
        let grant = CascadeGrant { key: key.clone(), publisher, descriptor, upstream };
        let fetched = self.open_cascade(member, &grant).await;
        match fetched {
            Ok(()) => self.places().note_mirror(key.clone(), member),
            Err(_) => self.give_up(opened).await,
        }
        fetched
    }

    /// Whose turn it is to set up that mirror. The others wait, and find it there.
    pub(super) fn turn(&self, key: &FeedKey, member: usize) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody holds those or waits for them.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry((key.clone(), member)).or_default())
    }

    /// A leg at a home by which the relay of that certificate fetches.
    async fn open_upstream(
        &self,
        home: usize,
        key: &FeedKey,
        certificate: CertHash,
        realm: &RealmId,
    ) -> Result<(LegId, FlowBinding), AdmitError> {
        let serial = crate::secret::leg_id().map_err(|_| AdmitError::Unavailable)?;
        // The two parts are letters and digits, and short enough.
        let name = format!("{}{}", upstream_prefix(certificate), serial.as_str());
        let leg = LegId::new(name).map_err(|_| AdmitError::Unavailable)?;
        let grant = LegGrant {
            leg: leg.clone(),
            feed: key.clone(),
            viewer: None,
            realm: realm.clone(),
            companion: None,
            roq: LegRequest::default(),
            flows: None,
        };
        let asked = ForCertificate { grant, cnf: certificate };
        let binding: FlowBinding = self.ask(home, "open-roq-leg", &asked).await?;
        self.places().note_upstream(home, leg.clone(), key.clone(), binding.clone());
        Ok((leg, binding))
    }

    async fn open_cascade(&self, member: usize, grant: &CascadeGrant) -> Result<(), AdmitError> {
        match self.ask(member, "open-cascade", grant).await {
            Err(AdmitError::FeedExists) => {
                // A feed of that name from when this relay was its home.
                let () = self.ask(member, "close-feed", &grant.key).await?;
                self.ask(member, "open-cascade", grant).await
            }
            other => other,
        }
    }

    /// Closes upstream legs that nobody will use. A home that does not answer forgets them: nobody connects to them.
    async fn give_up(&self, legs: Vec<LegId>) {
        for leg in legs {
            let act = self.places().give_up_upstream(leg);
            if let Some(Act::Close(home, Owed::Leg(leg))) = act {
                let _: Result<(), _> = self.ask(home, "close-leg", &leg).await;
            }
        }
    }
}
