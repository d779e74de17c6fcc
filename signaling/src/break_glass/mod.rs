//! Break-glass: in an emergency somebody with an invitation comes in without the login that its role asks for, after saying why.
//!
//! It takes the place of the login and of nothing else: the invitation's role is the most that it gives, and of that neither letting
//! others in nor managing; consent, certificates and the gate's own rules stay. It is off unless the configuration has it, is bound in
//! time and in number, is seen by everybody in the session, and stands in a list until somebody has reviewed it ([`BreakGlassDesk`]).
//!
//! When the time is over the participant is removed; while an expert operates, or may as far as is known here, that waits, since nobody is
//! to lose a picture or a voice in the middle of a movement. Tokens of that time carry no authority.

mod desk;
#[cfg(test)]
mod tests;

pub use desk::{BreakGlassDesk, BreakGlassError, BreakGlassJoin, Review};
pub(crate) use desk::{SCHEMA, add, told};

use crate::app::App;
use crate::audit::Entry;
use crate::config::{Config, ConfigError, StoreAt};
use crate::error::SessionError;
use crate::identity::Person;
use crate::store::{Row, StoreError, StoredParticipant};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use trocar_control::trust::CertName;
use trocar_proto::session::break_glass::{BrokenGlass, NEVER};
use trocar_proto::session::claims::Claims;
use trocar_proto::session::ids::{ParticipantId, RealmId, SessionId};
use trocar_proto::session::role::{Grade, Role};
use trocar_proto::units::{Micros, WallMicros};

/// Roles that may be joined so: whoever operates, helps or looks on. Managing and measuring are no emergencies.
const ROLES: [Role; 3] = [Role::Local, Role::Expert, Role::Observer];
/// What [`BreakGlassConfig::per_hour`] counts over, in microseconds.
const HOUR_US: u64 = 3_600_000_000;
/// How often the list of those not reviewed is looked at.
const LOOK_EVERY_US: u64 = 1_000_000;
/// What is said to whoever is removed because the time is over.
const OVER: &str = "the time of the break-glass join is over: log in, and join again";

/// What break-glass joins are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlassConfig {
    /// Roles whose invitations take one: some of local, expert and observer.
    pub roles: Vec<Role>,
    /// How long one lasts, 5 min to 4 h.
    pub life: Duration,
    /// How many of one session within an hour, 1 to 20.
    pub per_hour: u32,
    /// Whether a gate's team may offer instruments to somebody who came in so; otherwise the tokens carry the grade observe.
    pub instruments: bool,
}

impl BreakGlassConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the value that cannot be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, expected| Err(ConfigError { field, expected });
        if self.roles.is_empty() || !self.roles.iter().all(|r| ROLES.contains(r)) {
            return bad("identity.break_glass.roles", "one or more of local, expert and observer");
        }
        if !(300..=14_400).contains(&self.life.as_secs()) {
            return bad("identity.break_glass.minutes", "5 to 240 minutes");
        }
        if !(1..=20).contains(&self.per_hour) {
            return bad("identity.break_glass.per_hour", "1 to 20");
        }
        Ok(())
    }
}

/// Why nobody comes in so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BreakGlassRefused {
    /// It is not configured.
    #[error("[identity.break_glass] of this node's configuration would allow it, and is not there: log in")]
    Off,
    /// Not for this role.
    #[error("identity.break_glass.roles of this node's configuration has no {}: log in", .0.name())]
    Role(Role),
    /// Nothing more than what was shown is asked for.
    #[error("this invitation asks for no login that was not shown: join without break_glass")]
    Unneeded,
    /// As many as there may be in an hour have come already. Seconds until there is room.
    #[error("identity.break_glass.per_hour of this session is used up: log in, or have somebody come who can")]
    TooOften(u64),
}

/// What whoever redeems an invitation has shown besides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Who<'a> {
    /// Who it is, where that was said.
    pub(crate) person: Option<&'a Person>,
    /// Which device it is, where its certificate was shown.
    pub(crate) device: Option<&'a CertName>,
    /// That there is an emergency, where that was said.
    pub(crate) emergency: Option<Asked<'a>>,
    /// By which realm's listener it came; the node's own where left out.
    pub(crate) realm: Option<&'a RealmId>,
}

/// An emergency as it was claimed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) reason: &'a str,
    pub(crate) from: IpAddr,
}

/// What a token of somebody who came in so is cut down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Narrowed {
    until: WallMicros,
    instruments: bool,
}

impl Narrowed {
    /// Takes from a token what its bearer is not to have.
    pub(crate) fn narrow(self, now: WallMicros, claims: &mut Claims) {
        claims.verbs.retain(|v| !NEVER.contains(v));
        let is_over = self.until <= now;
        if is_over || !self.instruments {
            claims.grade = Grade::Observe;
        }
        if !is_over {
            // A gate that never hears of the end knows it by the token.
            claims.exp = claims.exp.min(self.until.0 / 1_000_000).max(claims.iat.saturating_add(1));
        }
    }
}

/// Break-glass joins of this node.
pub(crate) struct Emergencies {
    config: Option<BreakGlassConfig>,
    desk: Option<Arc<BreakGlassDesk>>,
    /// Those of the last hour, oldest first: as many as the configuration lets each session have.
    taken: Mutex<VecDeque<(SessionId, WallMicros)>>,
    looked: Mutex<Option<Micros>>,
}

impl Emergencies {
    /// What is configured, and what came in the hour before this start.
    pub(crate) fn open(config: &Config, now: WallMicros) -> Result<Self, StoreError> {
        let desk = match &config.store {
            StoreAt::Memory => None,
            StoreAt::File(path) => Some(Arc::new(BreakGlassDesk::of_node(path)?)),
        };
        let since = WallMicros(now.0.saturating_sub(HOUR_US));
        let taken = desk.as_ref().map(|d| d.since(since)).transpose()?.unwrap_or_default();
        let config = config.identity.break_glass.clone();
        Ok(Self { config, desk, taken: Mutex::new(taken.into()), looked: Mutex::new(None) })
    }

    /// Whether that role may be joined so here.
    fn allows(&self, role: Role) -> Result<&BreakGlassConfig, BreakGlassRefused> {
        let config = self.config.as_ref().ok_or(BreakGlassRefused::Off)?;
        if config.roles.contains(&role) { Ok(config) } else { Err(BreakGlassRefused::Role(role)) }
    }

    /// Counts one; what it is bound to.
    fn take(&self, session: &SessionId, role: Role, now: WallMicros) -> Result<WallMicros, BreakGlassRefused> {
        let config = self.allows(role)?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(_, at)| now.0.saturating_sub(at.0) < HOUR_US);
        let of_session = || taken.iter().filter(|(s, _)| s == session);
        if of_session().count() >= usize::try_from(config.per_hour).unwrap_or(usize::MAX) {
            let oldest = of_session().map(|(_, at)| at.0).min().unwrap_or(now.0);
            let left = oldest.saturating_add(HOUR_US).saturating_sub(now.0);
            return Err(BreakGlassRefused::TooOften(left.div_ceil(1_000_000).max(1)));
        }
        taken.push_back((session.clone(), now));
        let life = u64::try_from(config.life.as_micros()).unwrap_or(u64::MAX);
        Ok(WallMicros(now.0.saturating_add(life)))
    }

    fn narrowed(&self, glass: &BrokenGlass) -> Narrowed {
        Narrowed { until: glass.until, instruments: self.config.as_ref().is_some_and(|c| c.instruments) }
    }

    /// The list, where it is time to look at it.
    fn due(&self, now: Micros) -> Option<Arc<BreakGlassDesk>> {
        let desk = self.desk.clone()?;
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.is_some_and(|l| now.since(l) < LOOK_EVERY_US) {
            return None;
        }
        *looked = Some(now);
        Some(desk)
    }
}

impl App {
    /// Whether somebody may take up `role`: by the login that it asks for, as a device that publishes by itself, or in an emergency without, and then what it is bound to.
    pub(crate) async fn admit_who(
        &self,
        session: &SessionId,
        role: Role,
        who: Who<'_>,
        now: WallMicros,
    ) -> Result<Option<BrokenGlass>, SessionError> {
        if let Some(device) = who.device {
            return self.admit_device(device, role).await.map(|()| None);
        }
        let Some(asked) = who.emergency else {
            let admitted = self.admit_person(role, who.person).await;
            return admitted.map(|()| None).map_err(|e| match e {
                SessionError::IdentityNeeded(mut need) => {
                    need.break_glass = self.emergencies.allows(role).is_ok();
                    SessionError::IdentityNeeded(need)
                }
                other => other,
            });
        };
        if self.identity.admits(role, who.person, now).is_ok() {
            return Err(BreakGlassRefused::Unneeded.into());
        }
        let until = self.emergencies.take(session, role, now)?;
        Ok(Some(BrokenGlass { reason: asked.reason.to_owned(), until }))
    }

    /// Has the alarm raised: in the log, in the figures, and at whoever is called on events.
    pub(crate) fn raise_break_glass(&self, joined: &StoredParticipant) {
        let (session, participant, role) = (&joined.session, &joined.participant, joined.role.name());
        tracing::warn!(%session, %participant, role, "somebody came in by break-glass, without the login that is asked for");
        self.figures.break_glass_joins.inc();
        self.live().tell_break_glass(joined);
    }

    /// What the tokens of that participant are cut down to, where it came in so.
    pub(crate) fn narrowed(&self, session: &SessionId, participant: &ParticipantId) -> Option<Narrowed> {
        self.live().broken_glass_of(session, participant).map(|glass| self.emergencies.narrowed(&glass))
    }

    /// Removes those whose time is over.
    pub(crate) async fn end_emergencies(&self, now: WallMicros) {
        let over = self.live().broken_glass_over(now);
        for (session, participant) in over {
            let entry = self.live().participant_entry("break-glass-ended", &session, &participant).saying(OVER);
            if let Err(error) = self.remove_for(&session, &participant, entry, OVER).await {
                // The next sweep tries again.
                tracing::warn!(%error, %session, %participant, "a break-glass join whose time is over could not be ended");
            }
        }
    }

    /// Says how many wait for a review, and takes reviews into the audit chain.
    pub(crate) async fn hear_reviews(&self, now: WallMicros) {
        let Some(desk) = self.emergencies.due(self.now()) else { return };
        let found = match tokio::task::spawn_blocking(move || desk.standing()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the list of break-glass joins could not be read");
                return;
            }
            Err(_) => return,
        };
        let rows: Vec<Row> = found
            .untold
            .into_iter()
            .flat_map(|(told, entry)| [Row::Event(Box::new(entry)), Row::BreakGlassTold { participant: told }])
            .collect();
        if !rows.is_empty()
            && let Err(error) = self.store.write(rows).await
        {
            // They stay where they are and are taken the next time.
            tracing::warn!(%error, "reviews of break-glass joins could not be recorded");
        }
        // Said after it: whoever sees that nobody waits finds the reviews in the chain.
        self.figures.break_glass_unreviewed.set(found.unreviewed);
        let age = found.oldest.map_or(0, |at| now.0.saturating_sub(at.0) / 1_000_000);
        self.figures.break_glass_oldest_s.set(i64::try_from(age).unwrap_or(i64::MAX));
    }
}

/// The records of somebody who came in so.
pub(crate) fn joined_entry(joined: &StoredParticipant, glass: &BrokenGlass, who: Who<'_>) -> Entry {
    let from = who.emergency.map_or_else(String::new, |asked| format!(", from {}", asked.from));
    let known = who.person.map_or_else(String::new, |p| format!(", account {}", p.account));
    let until = trocar_control::audit::clock::utc(glass.until);
    Entry {
        name: Some(joined.name.clone()),
        role: Some(joined.role),
        realm: Some(joined.realm.clone()),
        ..Entry::now("break-glass-joined").of(&joined.session).by(&joined.participant)
    }
    .saying(format!("{} (until {until}{from}{known})", glass.reason))
}

impl From<BreakGlassRefused> for SessionError {
    fn from(e: BreakGlassRefused) -> Self {
        Self::BreakGlass(e)
    }
}
