//! Answering `trocar link test` beside a relay, where `[link_test]` of its configuration asks for it: on ports and threads of its own, for whom
//! signaling let in, and not while an expert operates.

mod config;
mod operated;

pub use config::LinkTest;
pub use operated::watch_operated;

use crate::Relay;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use trocar_link::measure::responder::Limits;
use trocar_link::sockets::{Opened, Responding, Who};
use trocar_proto::session::ids::RealmId;
use trocar_proto::session::link_test::{LinkTestBegin, LinkTestGrant, LinkTestKeep, LinkTestRefused};

/// How often it is looked at whether a measurement may go on.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long one goes on after signaling last said that nobody operates through other relays.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// What whoever measured is told when it ends.
const NEEDED: &str = "control of instruments is being handed over: the line is needed";
const UNHEARD: &str = "signaling says no more that nobody operates through other relays";

/// Where clients of one realm reach the relay.
struct Reached {
    realm: RealmId,
    addresses: Vec<SocketAddr>,
    quic: Vec<SocketAddr>,
}

/// It answers.
pub struct Answering {
    responding: Mutex<Option<Responding>>,
    at: SocketAddr,
    reached: Vec<Reached>,
    config: LinkTest,
    operated: watch::Receiver<bool>,
    /// Until when signaling has said that nobody operates through other relays; none: nothing that it keeps was let in.
    kept: Mutex<Option<Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answering {
    /// Opens its ports; none where the configuration does not ask for it. `listeners` are the realms with the addresses that their clients reach
    /// the relay at, `operated` is [`watch_operated`] of it. To be called on a runtime.
    ///
    /// # Errors
    /// Names the port that cannot be opened.
    pub fn start(
        config: &LinkTest,
        program: String,
        listeners: &[(RealmId, Vec<IpAddr>)],
        relay: &Relay,
        operated: watch::Receiver<bool>,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        if !config.enabled {
            return Ok(None);
        }
        let opened = Opened {
            listen: Some(config.listen),
            who: Who::HasGrant,
            limits: Limits {
                mbit_s_max: config.max_rate,
                seconds_max: config.max_seconds as f64,
                // One measurement, and its second path.
                sessions_max: 2,
            },
            program,
            note: |text| tracing::info!("link test: {text}"),
        };
        let responding = Responding::start(&tokio::runtime::Handle::current(), opened)?;
        let at = responding.listen;
        tracing::info!(listen = %at, second = responding.second_port, quic = responding.quic_port, "answering link tests");
        let reached = listeners.iter().map(|(realm, advertise)| {
            let of = |at: SocketAddr| reached(at, advertise);
            let quic = relay.addresses().iter().find(|a| &a.realm == realm).map(|a| of(a.quic)).unwrap_or_default();
            Reached { realm: realm.clone(), addresses: of(at), quic }
        });
        let answering = Arc::new(Self {
            responding: Mutex::new(Some(responding)),
            at,
            reached: reached.collect(),
            config: config.clone(),
            operated,
            kept: Mutex::default(),
        });
        if !config.while_operating {
            tokio::spawn(attend(Arc::downgrade(&answering), answering.operated.clone()));
        }
        Ok(Some(answering))
    }

    /// Where it listens, UDP and TCP.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.at
    }

    /// Lets one measurement begin, beside the only relay that there is. Quick and not blocking.
    ///
    /// # Errors
    /// [`LinkTestRefused`].
    pub fn begin(&self, realm: &RealmId) -> Result<LinkTestGrant, LinkTestRefused> {
        // Where measuring is allowed all the same, nobody ends it either.
        if !self.config.while_operating && *self.operated.borrow() {
            return Err(LinkTestRefused::Operated("an expert operates through this relay, or is about to".to_owned()));
        }
        let found = self.reached.iter().find(|r| &r.realm == realm);
        let found = found.ok_or_else(|| LinkTestRefused::Failed(format!("this relay does not serve realm {realm}")))?;
        let responding = locked(&self.responding);
        let Some(responding) = &*responding else {
            return Err(LinkTestRefused::Failed("the node is going away".to_owned()));
        };
        if responding.running() > 0 {
            return Err(LinkTestRefused::Busy);
        }
        let grant = responding.grant().map_err(|e| LinkTestRefused::Failed(e.to_string()))?;
        let grant = grant.ok_or(LinkTestRefused::Busy)?;
        Ok(LinkTestGrant {
            relay: None,
            addresses: found.addresses.clone(),
            quic: found.quic.clone(),
            grant: grant.number,
            key: hex::encode(grant.key),
            mbit_s_max: self.config.max_rate,
            seconds_max: self.config.max_seconds as f64,
        })
    }

    /// The same beside one of several relays: signaling knows of the others, and what it lets in ends where it does not say again that it may go
    /// on ([`Self::keep`]).
    ///
    /// # Errors
    /// [`LinkTestRefused`].
    pub fn begin_kept(&self, asked: &LinkTestBegin) -> Result<LinkTestGrant, LinkTestRefused> {
        if let (Some(at), false) = (&asked.others.operated, self.config.while_operating) {
            return Err(LinkTestRefused::Operated(format!("an expert operates through {at}, or is about to")));
        }
        let grant = self.begin(&asked.realm)?;
        *locked(&self.kept) = Some(Instant::now() + KEPT_FOR);
        Ok(grant)
    }

    /// Signaling says whether what it let in may go on.
    pub fn keep(&self, said: &LinkTestKeep) {
        if self.config.while_operating {
            return;
        }
        let mut kept = locked(&self.kept);
        if said.operated.is_some() {
            *kept = None;
            self.end_all(NEEDED);
        } else if kept.is_some() {
            *kept = Some(Instant::now() + KEPT_FOR);
        }
    }

    /// Closes.
    pub fn stop(&self) {
        if let Some(responding) = locked(&self.responding).take() {
            responding.stop();
        }
    }

    fn end_all(&self, why: &str) {
        if let Some(responding) = &*locked(&self.responding) {
            responding.end_all(why);
        }
    }

    /// Ends what may not go on.
    fn look(&self, now: Instant) {
        if *self.operated.borrow() {
            // Again and again: what was let in at the same moment ends too.
            self.end_all(NEEDED);
        }
        let mut kept = locked(&self.kept);
        if kept.is_some_and(|until| until <= now) {
            *kept = None;
            self.end_all(UNHEARD);
        }
    }
}

/// A listener's addresses as clients reach them.
fn reached(at: SocketAddr, advertise: &[IpAddr]) -> Vec<SocketAddr> {
    if at.ip().is_unspecified() {
        advertise.iter().map(|ip| SocketAddr::new(*ip, at.port())).collect()
    } else {
        vec![at]
    }
}

/// Looks as long as measurements are answered, and at once when somebody begins to operate.
async fn attend(answering: Weak<Answering>, mut operated: watch::Receiver<bool>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = operated.changed() => if changed.is_err() { return },
        }
        let Some(answering) = answering.upgrade() else { return };
        answering.look(Instant::now());
    }
}
