//! Answering `trocar link test` beside a relay, where `[link_test]` of its configuration asks for it: on ports and threads of its own, for whom
//! signaling let in, and not while an expert operates.

mod config;
mod operated;

pub use config::LinkTest;
pub use operated::watch_operated;

use crate::ListenerAddresses;
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
    listen: SocketAddr,
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
    /// the relay at, `at` is where its listeners are, `operated` is [`watch_operated`] of it. To be called on a runtime.
    ///
    /// # Errors
    /// Names the port that cannot be opened.
    pub fn start(
        config: &LinkTest,
        program: String,
        listeners: &[(RealmId, Vec<IpAddr>)],
        at: &[ListenerAddresses],
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
        let listen = responding.listen;
        tracing::info!(%listen, second = responding.second_port, quic = responding.quic_port, "answering link tests");
        let reached = listeners.iter().map(|(realm, advertise)| {
            let of = |at: SocketAddr| reached(at, advertise);
            let quic = at.iter().find(|a| &a.realm == realm).map(|a| of(a.quic)).unwrap_or_default();
            Reached { realm: realm.clone(), addresses: of(listen), quic }
        });
        let answering = Arc::new(Self {
            responding: Mutex::new(Some(responding)),
            listen,
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
        self.listen
    }

    /// Whether people of that realm can measure.
    #[must_use]
    pub fn serves(&self, realm: &RealmId) -> bool {
        self.reached.iter().any(|r| &r.realm == realm)
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

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn realm(name: &str) -> RealmId {
        RealmId::new(name).unwrap()
    }

    fn started(config: LinkTest) -> (Arc<Answering>, watch::Sender<bool>) {
        let (say, operated) = watch::channel(false);
        let any = "0.0.0.0:4431".parse().unwrap();
        let quic = "0.0.0.0:4433".parse().unwrap();
        let at = ["north", "south"].map(|r| ListenerAddresses { realm: realm(r), worker: 0, webrtc: any, quic });
        let listeners = [("north", "192.0.2.1"), ("south", "198.51.100.1")];
        let listeners = listeners.map(|(r, ip)| (realm(r), vec![ip.parse().unwrap()]));
        let config = LinkTest { enabled: true, listen: "0.0.0.0:0".parse().unwrap(), ..config };
        let answering = Answering::start(&config, "relay".into(), &listeners, &at, operated).unwrap().unwrap();
        (answering, say)
    }

    fn asked(operated: Option<&str>) -> LinkTestBegin {
        let others = LinkTestKeep { operated: operated.map(ToOwned::to_owned) };
        LinkTestBegin { realm: realm("north"), others }
    }

    /// Lets in as many as may be, and one more that is not: until these are forgotten, nothing else is let in.
    fn fill(answering: &Answering) {
        for _ in 0..100 {
            if answering.begin_kept(&asked(None)) == Err(LinkTestRefused::Busy) {
                return;
            }
        }
        panic!("100 measurements are let in at once");
    }

    /// The threads have seen that all is to end.
    async fn until_forgotten(answering: &Answering) {
        let began = Instant::now();
        while answering.begin(&realm("north")).is_err() {
            assert!(began.elapsed() < PATIENCE, "what was let in is still there");
            // They look fifty times a second, and say so to nobody.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_measurement_goes_on_while_it_is_said_again_that_nobody_operates_elsewhere_and_ends_where_it_is_not() {
        let (answering, _say) = started(LinkTest::default());
        fill(&answering);
        let now = Instant::now();
        answering.look(now + KEPT_FOR / 2);
        fill(&answering);
        assert_eq!(answering.begin(&realm("north")), Err(LinkTestRefused::Busy), "the control: nothing ended it");
        answering.look(now + KEPT_FOR * 2);
        until_forgotten(&answering).await;
        // Nothing that signaling keeps is left: what the node lets in by itself does not end by that.
        answering.look(now + KEPT_FOR * 4);
        assert!(locked(&answering.kept).is_none());

        fill(&answering);
        answering.keep(&LinkTestKeep { operated: None });
        assert!(locked(&answering.kept).is_some_and(|until| until > now + KEPT_FOR));
        answering.keep(&LinkTestKeep { operated: Some("relay a".into()) });
        until_forgotten(&answering).await;
        let refused = answering.begin_kept(&asked(Some("relay a")));
        let said = "an expert operates through relay a, or is about to".to_owned();
        assert_eq!(refused, Err(LinkTestRefused::Operated(said)));
        answering.stop();
        assert!(matches!(answering.begin(&realm("north")), Err(LinkTestRefused::Failed(_))));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_an_expert_operates_here_nothing_is_let_in_and_what_was_ends_unless_that_is_allowed() {
        let (answering, say) = started(LinkTest::default());
        let (allowed, say_allowed) = started(LinkTest { while_operating: true, ..LinkTest::default() });
        fill(&answering);
        for says in [&say, &say_allowed] {
            says.send_replace(true);
        }
        assert!(matches!(answering.begin(&realm("north")), Err(LinkTestRefused::Operated(_))));
        assert!(matches!(answering.begin_kept(&asked(None)), Err(LinkTestRefused::Operated(_))));
        // Ended while it was so, by the task that looks or by this.
        answering.look(Instant::now());
        say.send_replace(false);
        until_forgotten(&answering).await;
        allowed.begin_kept(&asked(Some("relay a"))).unwrap();
        fill(&allowed);
        allowed.keep(&LinkTestKeep { operated: Some("relay a".into()) });
        assert_eq!(allowed.begin(&realm("north")), Err(LinkTestRefused::Busy), "nothing was ended");
        answering.stop();
        allowed.stop();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_realm_is_told_its_own_addresses() {
        let (answering, _say) = started(LinkTest::default());
        let port = answering.address().port();
        let grant = answering.begin(&realm("south")).unwrap();
        assert_eq!(grant.addresses, [SocketAddr::new("198.51.100.1".parse().unwrap(), port)]);
        assert_eq!(grant.quic, ["198.51.100.1:4433".parse::<SocketAddr>().unwrap()]);
        let west = answering.begin(&realm("west")).unwrap_err().to_string();
        assert!(west.contains("does not serve realm west"), "{west}");
        answering.stop();
        let off = Answering::start(&LinkTest::default(), String::new(), &[], &[], watch::channel(false).1).unwrap();
        assert!(off.is_none(), "off unless it is asked for");
    }
}
