//! What all tasks share, and the operations that touch more than one part of it.

use crate::admission::{Admission, Answer};
use crate::audit::{Entry, Journal};
use crate::break_glass::{self, Emergencies, Who};
use crate::config::{Config, Ice, Limits, Rate};
use crate::consent::Notary;
use crate::control::Gates;
use crate::error::SessionError;
use crate::exchanges::ExchangeError;
use crate::figures::Figures;
use crate::identity::{Identity, OpenError};
use crate::live::{Closing, Live};
use crate::name::{MAX_TITLE, TITLE_EXPECTED, clean, shown};
use crate::problem::{Refusal, TOKEN_INVALID, TOO_MANY};
use crate::rate::{Bucket, PeerRates};
use crate::realms::Realms;
use crate::secret::{self, SecretHash};
use crate::store::{Row, Store, StoreError, Stored, StoredParticipant};
use crate::token::{Bearing, TokenError, Tokens};
use crate::webhooks::Hooks;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trocar_proto::session::admission::{AdmitError, CertificateNews};
use trocar_proto::session::api::{Invitation, TokenGrant};
use trocar_proto::session::claims::Claims;
use trocar_proto::session::event::ServerEvent;
use trocar_proto::session::ids::{CertHash, ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::{Micros, WallMicros};

/// Shortest and longest life of an invitation, in seconds.
pub(crate) const INVITATION_TTL_S: std::ops::RangeInclusive<u64> = 60..=604_800;
/// Denials recorded and logged: so many at once, and so many a second. All of them are counted.
const RECORDED_DENIALS: Rate = Rate { burst: 50, per_second: 1 };
/// Denials that are logged as well: whoever knocks a thousand times fills no log.
const LOGGED_DENIALS: Rate = Rate { burst: 5, per_second: 1 };

/// How a participant wants to be shown, cleaned.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shown<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) organisation: Option<&'a str>,
}

/// Shared by all tasks.
pub(crate) struct App {
    pub(crate) limits: Limits,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) figures: Arc<Figures>,
    pub(crate) tokens: Tokens,
    pub(crate) store: Store,
    /// Base of links, without a slash at the end.
    pub(crate) public_url: String,
    /// Origins whose pages may open event sockets.
    pub(crate) origins: Vec<String>,
    pub(crate) metrics_open: bool,
    pub(crate) ice: Ice,
    /// Trust list of devices that join by themselves.
    pub(crate) device_trust: Option<PathBuf>,
    /// Reads consent documents, where consent is required.
    pub(crate) notary: Option<Notary>,
    /// Gates that can be asked.
    pub(crate) gates: Gates,
    /// What answers measurements of the line to this node.
    pub(crate) link_tests: Option<Arc<dyn crate::LinkTests>>,
    /// Who people are.
    pub(crate) identity: Identity,
    /// Who came in without a login, in an emergency.
    pub(crate) emergencies: Emergencies,
    /// What people of other realms may do here.
    pub(crate) realms: Realms,
    live: Mutex<Live>,
    journal: Journal,
    /// By realm: two of them may have the same addresses.
    join_rates: Mutex<BTreeMap<RealmId, PeerRates>>,
    denial_rate: Mutex<Bucket>,
    denial_log_rate: Mutex<Bucket>,
    started: Instant,
}

impl App {
    /// Everything but listeners and tasks. `public_url` and `origins` are those that the listeners' addresses gave.
    pub(crate) fn new(
        config: &Config,
        admission: Arc<dyn Admission>,
        (store, mut stored): (Store, Stored),
        (public_url, origins): (String, Vec<String>),
        (hooks, notary): (Hooks, Option<Notary>),
    ) -> Result<Self, OpenError> {
        let figures = Arc::new(Figures::default());
        let now = Micros(0);
        let journal = Journal::new(store.clone(), figures.clone());
        let consents = std::mem::take(&mut stored.consents);
        let mut live =
            Live::new(config.limits.clone(), (figures.clone(), hooks, journal.clone()), stored, now, wall_clock());
        if let Some(notary) = &notary {
            live.require_consent();
            for stored in consents {
                // What was stored has been read once: it has the form of a document.
                if let Ok(document) = trocar_control::consent::peek(stored.document.as_bytes()) {
                    live.restore_consent(document, notary.again(&stored));
                }
            }
        }
        Ok(Self {
            tokens: Tokens::new(&config.token_key_pkcs8, &config.issuer, &config.audiences)?,
            limits: config.limits.clone(),
            admission,
            figures,
            store,
            identity: Identity::open(config, &public_url)?,
            public_url,
            origins,
            metrics_open: config.metrics_open,
            ice: config.ice.clone(),
            device_trust: config.device_trust.clone(),
            notary,
            gates: Gates::default(),
            link_tests: config.link_tests.clone(),
            emergencies: Emergencies::open(config, wall_clock())?,
            realms: Realms::new(config.realm.clone(), config.realm_policies.clone()),
            live: Mutex::new(live),
            journal,
            join_rates: Mutex::default(),
            denial_rate: Mutex::new(Bucket::full(now, RECORDED_DENIALS)),
            denial_log_rate: Mutex::new(Bucket::full(now, LOGGED_DENIALS)),
            started: Instant::now(),
        })
    }

    /// The live state. Held for a few lines, never over an await.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        // A panic under the lock is a bug that has been reported already; the state is whole enough to go on.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Monotonic time since the start.
    pub(crate) fn now(&self) -> Micros {
        Micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Takes one join from the peer's credit; seconds to wait where it has none.
    pub(crate) fn take_join(&self, realm: &RealmId, peer: std::net::IpAddr) -> Result<(), u64> {
        let mut rates = self.join_rates.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as there are listeners for realms.
        let rates = rates.entry(realm.clone()).or_insert_with(|| PeerRates::new(self.now(), self.limits.joins));
        rates.take(self.now(), peer)
    }

    /// Records that the server runs from now on: with which program, keys and configuration.
    pub(crate) async fn record_start(&self, config: &Config) -> Result<(), StoreError> {
        let fingerprint = |bytes: &[u8]| SecretHash::of_bytes(bytes).short();
        let token =
            crate::token::token_public_key(&config.token_key_pkcs8).map_or_else(|_| String::new(), |k| fingerprint(&k));
        let mut said = format!(
            "trocar {}, issuer {}, token key {token}, certificate {}, configuration {}",
            env!("CARGO_PKG_VERSION"),
            config.issuer,
            fingerprint(&config.tls.cert_chain_pem),
            config.configured
        );
        if config.tls12 {
            tracing::warn!("HTTPS takes TLS 1.2 beside 1.3");
            said.push_str(", TLS 1.2 beside 1.3");
        }
        self.store.write(vec![event("started", None, None, &said)]).await
    }

    /// Records that it ends, of its own will.
    pub(crate) async fn record_stop(&self) {
        if let Err(error) = self.store.write(vec![event("stopped", None, None, "")]).await {
            tracing::error!(%error, "the stop could not be recorded");
        }
    }

    /// Waits until everything that was noted so far is on disk.
    pub(crate) async fn settled(&self) -> Result<(), SessionError> {
        Ok(self.store.write(Vec::new()).await?)
    }

    /// Opens a session about nobody in particular.
    #[cfg(test)]
    pub(crate) async fn create_session(&self, title: &str) -> Result<SessionId, SessionError> {
        self.create_session_about(title, None).await
    }

    /// Opens a session, about a patient where it is known who.
    pub(crate) async fn create_session_about(
        &self,
        title: &str,
        patient: Option<&str>,
    ) -> Result<SessionId, SessionError> {
        let title =
            shown(title, MAX_TITLE).ok_or(SessionError::Invalid { field: "title", expected: TITLE_EXPECTED })?;
        self.live().may_open_session()?;
        let (session, created) = (secret::session_id()?, wall_clock());
        let patient = match patient.map(|p| shown(p, MAX_TITLE)) {
            Some(None) => return Err(SessionError::Invalid { field: "patient", expected: TITLE_EXPECTED }),
            given => given.flatten().map(ToOwned::to_owned),
        };
        let entry = Entry { patient: patient.clone(), ..Entry::now("session-created").of(&session).saying(title) };
        let row = Row::Session { session: session.clone(), title: title.to_owned(), patient: patient.clone(), created };
        self.store.write(vec![row, Row::Event(Box::new(entry))]).await?;
        self.live().open_session(session.clone(), title.to_owned(), patient);
        Ok(session)
    }

    /// Closes a session for good.
    pub(crate) async fn close_session(
        &self,
        session: &SessionId,
        by: Option<&ParticipantId>,
    ) -> Result<(), SessionError> {
        self.live().session_info(session)?;
        let closed = Row::SessionClosed { session: session.clone(), at: wall_clock() };
        self.store.write(vec![closed, event("session-closed", Some(session), by, "")]).await?;
        let closings = self.live().close_session(session, "the session was closed")?;
        self.close(closings).await;
        Ok(())
    }

    /// Removes a participant for good: its tokens are refused from now on.
    pub(crate) async fn remove_participant(
        &self,
        session: &SessionId,
        participant: &ParticipantId,
        by: Option<&ParticipantId>,
    ) -> Result<(), SessionError> {
        let detail = by.map_or_else(|| "by the server".to_owned(), |by| format!("by {by}"));
        let entry = Entry::now("participant-removed").of(session).by(participant).saying(detail);
        self.remove_for(session, participant, entry, "you were removed from the session").await
    }

    /// The same, recorded as that and said to be for that reason.
    pub(crate) async fn remove_for(
        &self,
        session: &SessionId,
        participant: &ParticipantId,
        entry: Entry,
        reason: &str,
    ) -> Result<(), SessionError> {
        self.live().name_of(session, participant)?;
        let at = wall_clock();
        let row = Row::ParticipantRemoved { session: session.clone(), participant: participant.clone(), at };
        self.store.write(vec![row, Row::Event(Box::new(entry))]).await?;
        let closings = self.live().remove_participant(session, participant, reason)?;
        self.close(closings).await;
        Ok(())
    }

    /// Writes an invitation.
    pub(crate) async fn invite(
        &self,
        session: &SessionId,
        role: Role,
        ttl_s: u64,
        by: Option<&ParticipantId>,
    ) -> Result<Invitation, SessionError> {
        if !INVITATION_TTL_S.contains(&ttl_s) {
            return Err(SessionError::Invalid { field: "ttl_s", expected: "60 to 604800 seconds" });
        }
        self.live().may_invite(session)?;
        let secret = secret::invitation()?;
        let hash = SecretHash::of(&secret);
        let expires = WallMicros(wall_clock().0.saturating_add(ttl_s.saturating_mul(1_000_000)));
        let row = Row::Invitation { hash, session: session.clone(), role, expires };
        self.store.write(vec![row, event("invited", Some(session), by, role.name())]).await?;
        self.live().add_invitation(hash, session.clone(), role, expires);
        let link = format!("{}/#invitation={secret}", self.public_url);
        Ok(Invitation { link, invitation: secret, role, expires })
    }

    /// Redeems an invitation by somebody of whom no more is known.
    #[cfg(test)]
    pub(crate) async fn join(
        &self,
        invitation: &str,
        shown: Shown<'_>,
        cnf: Option<CertHash>,
    ) -> Result<TokenGrant, SessionError> {
        self.join_as(invitation, shown, cnf, Who::default()).await
    }

    /// Redeems an invitation: a new participant and its first token.
    pub(crate) async fn join_as(
        &self,
        invitation: &str,
        shown: Shown<'_>,
        cnf: Option<CertHash>,
        who: Who<'_>,
    ) -> Result<TokenGrant, SessionError> {
        let stored = self.admit(&SecretHash::of(invitation), shown, cnf, who).await?;
        let StoredParticipant { session, participant, realm, role, .. } = stored;
        self.grant(Bearing { session, participant, realm, role, cnf })
    }

    /// A participant for a WHIP or WHEP client that shows an invitation in place of a token.
    pub(crate) async fn admit_guest(
        &self,
        hash: &SecretHash,
        name: &str,
        realm: &RealmId,
    ) -> Result<ParticipantId, SessionError> {
        let shown = Shown { name: Some(name), organisation: None };
        let stored = self.admit(hash, shown, None, Who { realm: Some(realm), ..Who::default() }).await?;
        self.live().make_guest(self.now(), &stored.session, &stored.participant, *hash)?;
        Ok(stored.participant)
    }

    async fn admit(
        &self,
        hash: &SecretHash,
        shown: Shown<'_>,
        cnf: Option<CertHash>,
        who: Who<'_>,
    ) -> Result<StoredParticipant, SessionError> {
        let joined = wall_clock();
        let (session, role) = self.live().redeem(hash, joined)?;
        let realm = who.realm.unwrap_or_else(|| self.realms.own()).clone();
        self.admit_realm(&session, &realm, role)?;
        let broken_glass = self.admit_who(&session, role, who, joined).await?;
        let person = who.person;
        // Whoever is known is shown by the name that is known.
        let name = person.map(|p| p.name.as_str()).or(who.device.map(|d| d.name.as_str())).or(shown.name);
        let stored = StoredParticipant {
            session: session.clone(),
            participant: secret::participant_id()?,
            name: name.unwrap_or(role.name()).to_owned(),
            organisation: shown.organisation.map(ToOwned::to_owned),
            role,
            realm,
            cnf,
            joined,
            account: person.map(|p| p.account.clone()),
            broken_glass,
        };
        let entry = Entry {
            name: Some(stored.name.clone()),
            role: Some(role),
            realm: Some(stored.realm.clone()),
            patient: self.live().patient_of(&session),
            detail: match (person, who.device) {
                (Some(person), _) => format!("account {}", person.account),
                (None, Some(device)) => format!("device {device}"),
                (None, None) => String::new(),
            },
            ..Entry::now("joined").of(&session).by(&stored.participant)
        };
        let alarm = stored.broken_glass.as_ref().map(|glass| break_glass::joined_entry(&stored, glass, who));
        let alarm = alarm.map(|alarm| Entry { patient: entry.patient.clone(), ..alarm });
        let mut rows = vec![Row::Participant(stored.clone()), Row::Event(Box::new(entry))];
        rows.extend(alarm.map(|alarm| Row::Event(Box::new(alarm))));
        self.store.write(rows).await?;
        let mut live = self.live();
        live.add_participant(self.now(), joined, stored.clone())?;
        live.trace(|t, now| t.joined(now, joined, &stored.participant, &session, role));
        drop(live);
        self.figures.joins.inc();
        if stored.broken_glass.is_some() {
            self.raise_break_glass(&stored);
        }
        Ok(stored)
    }

    /// Takes back a guest whose resource was not made, or has ended.
    pub(crate) async fn dismiss_guest(&self, session: &SessionId, participant: &ParticipantId) {
        let closings = self.live().remove_participant(session, participant, "the resource has ended");
        if let Ok(closings) = closings {
            self.close(closings).await;
            self.forget(session.clone(), participant.clone());
        }
    }

    /// Writes down that a participant is not in the session any more.
    fn forget(&self, session: SessionId, participant: ParticipantId) {
        let row = Row::ParticipantRemoved { session, participant, at: wall_clock() };
        if !self.store.write_later(vec![row]) {
            // It comes back into memory at the next start, and is forgotten again.
            self.figures.records_dropped.inc();
        }
    }

    /// A fresh token for a participant that is still in its session.
    pub(crate) fn grant(&self, bearing: Bearing) -> Result<TokenGrant, SessionError> {
        self.grant_named(bearing).map(|(grant, _)| grant)
    }

    /// The same for the bearer of that token, which gives one line of successors.
    pub(crate) fn exchange(&self, claims: Claims) -> Result<TokenGrant, Refusal> {
        self.tokens.exchanges.spend(&claims, wall_clock().0 / 1_000_000).map_err(|e| match e {
            ExchangeError::Replayed => {
                self.record_denial("token-replayed", &format!("{} of {}", claims.jti, claims.sub));
                let detail =
                    "it was exchanged before, and what it was exchanged for was used: join again with the link";
                Refusal::new(TOKEN_INVALID, detail).field("jti")
            }
            ExchangeError::TooMany(seconds) => {
                Refusal::new(TOO_MANY, "too many tokens of this participant were exchanged")
                    .field("sub")
                    .retry_after(seconds)
            }
            ExchangeError::Full(seconds) => {
                Refusal::new(TOO_MANY, "too many tokens were exchanged: join again with the link")
                    .field("jti")
                    .retry_after(seconds)
            }
        })?;
        let Claims { session, sub: participant, realm, role, cnf, jti, .. } = claims;
        let bearing = Bearing { session, participant, realm, role, cnf: cnf.map(|c| c.x5t_s256) };
        let (grant, fresh) = self.grant_named(bearing)?;
        self.tokens.exchanges.follow(&jti, &fresh);
        Ok(grant)
    }

    fn grant_named(&self, bearing: Bearing) -> Result<(TokenGrant, String), SessionError> {
        let wall = wall_clock();
        self.admit_realm(&bearing.session, &bearing.realm, bearing.role)?;
        let narrowed = self.narrowed(&bearing.session, &bearing.participant);
        let (token, claims) = self.tokens.issue(wall, &bearing, |claims| {
            self.realms.narrow(claims);
            if let Some(narrowed) = narrowed {
                narrowed.narrow(wall, claims);
            }
        })?;
        let mut live = self.live();
        let name = live.name_of(&bearing.session, &bearing.participant)?;
        live.note_token(&bearing.session, &bearing.participant, wall, &claims.jti)?;
        let grant = TokenGrant {
            token,
            expires: WallMicros(claims.exp.saturating_mul(1_000_000)),
            participant: claims.sub,
            name,
            session: claims.session,
            realm: claims.realm,
            role: claims.role,
            grade: claims.grade,
            verbs: claims.verbs,
        };
        Ok((grant, claims.jti))
    }

    /// Whether a station with that certificate may come to the rendezvous of that session with that token.
    pub(crate) fn check_station(&self, token: &str, session: &SessionId, certificate: CertHash) -> Result<(), String> {
        let claims = self.tokens.verify(token).map_err(|e| match e {
            TokenError::Expired => "the token has run out".to_owned(),
            TokenError::Invalid { reason } => reason,
        })?;
        if &claims.session != session {
            return Err("claim session names another session".to_owned());
        }
        if claims.role != Role::Expert {
            return Err(format!("claim role is {}: an expert's token is right", claims.role.name()));
        }
        if !self.realms.may_operate(&claims.realm) {
            return Err(format!("no realm_policy lets people of realm {} operate", claims.realm));
        }
        if claims.cnf.as_ref().is_none_or(|cnf| cnf.x5t_s256 != certificate) {
            return Err("claim cnf does not name the certificate of this connection".to_owned());
        }
        self.live().name_of(session, &claims.sub).map(drop).map_err(|e| e.to_string())
    }

    /// Records and logs that somebody was refused, as far as the rate allows.
    pub(crate) fn record_denial(&self, kind: &'static str, detail: &str) {
        let allowed = {
            let mut rate = self.denial_rate.lock().unwrap_or_else(PoisonError::into_inner);
            rate.take(self.now(), RECORDED_DENIALS).is_ok()
        };
        let detail = clean(detail, 200);
        if !allowed {
            self.figures.denials_not_recorded.inc();
            return;
        }
        self.journal.note(Entry::now(kind).saying(detail.clone()));
        let mut logged = self.denial_log_rate.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.take(self.now(), LOGGED_DENIALS).is_ok() {
            tracing::warn!(kind, detail, "refused");
        }
    }

    /// Records what happened to certificates, keys and lists.
    pub(crate) fn note_certificates(&self, news: CertificateNews, detail: &str) {
        let kind = match news {
            CertificateNews::Renewed => "certificates-renewed",
            CertificateNews::Unusable => "certificates-unusable",
            CertificateNews::Revoked => "certificate-revoked",
            CertificateNews::Refused => "certificate-refused",
        };
        self.journal.note(Entry::now(kind).saying(clean(detail, 400)));
    }

    /// Records a denial whatever the rate.
    #[cfg(test)]
    pub(crate) fn record_denial_anyway(&self, detail: &str) {
        self.journal.note(Entry::now("denied").saying(detail));
    }

    /// Asks the relay, for a bounded time.
    pub(crate) async fn ask<T>(&self, answer: Answer<'_, Result<T, AdmitError>>) -> Result<T, AdmitError> {
        match tokio::time::timeout(self.limits.admission_timeout, answer).await {
            Ok(result) => result,
            Err(_) => Err(AdmitError::Unavailable),
        }
    }

    /// Has the relay close things, each for a bounded time.
    pub(crate) async fn close(&self, closings: Vec<Closing>) {
        for closing in closings {
            let closed = match &closing {
                Closing::Feed(key) => self.admission.close_feed(key),
                Closing::Leg(leg) => self.admission.close_leg(leg),
                Closing::Publication(publication) => self.admission.close_publication(publication),
            };
            if tokio::time::timeout(self.limits.admission_timeout, closed).await.is_err() {
                tracing::warn!(?closing, "the relay did not answer in time");
            }
        }
    }

    /// One sweep: what was left behind ends.
    pub(crate) async fn sweep(&self) {
        let wall = wall_clock();
        if let Some(notary) = self.notary.as_ref().filter(|n| n.reload()) {
            self.live().look_at_signers(|signed| notary.is_distrusted(signed));
        }
        self.hear_account_changes().await;
        self.end_emergencies(wall).await;
        self.hear_reviews(wall).await;
        let swept = self.live().sweep(self.now(), wall);
        for (session, participant) in swept.forgotten {
            self.forget(session, participant);
        }
        self.close(swept.closings).await;
    }

    /// How often to sweep: often enough that a grace period is kept to about an eighth.
    pub(crate) fn sweep_every(&self) -> Duration {
        (self.limits.grace / 8).clamp(Duration::from_millis(10), Duration::from_millis(500))
    }
}

/// The wall clock.
pub(crate) fn wall_clock() -> WallMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The answer to a clock question that came at `t1`.
pub(crate) fn clock_reply(t0: WallMicros, t1: WallMicros) -> ServerEvent {
    ServerEvent::ClockReply { t0, t1, t2: wall_clock() }
}

fn event(kind: &'static str, session: Option<&SessionId>, participant: Option<&ParticipantId>, detail: &str) -> Row {
    let entry = Entry { session: session.cloned(), participant: participant.cloned(), ..Entry::now(kind) };
    Row::Event(Box::new(entry.saying(detail)))
}
