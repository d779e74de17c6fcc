//! Answering `trocar link test` beside the relay, where `[link_test]` asks for it: on ports and threads of its own, for whom signaling let
//! in, and not while an expert operates.

use crate::config::LinkTest;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use trocar_link::measure::responder::Limits;
use trocar_link::sockets::{Opened, Responding, Who};
use trocar_proto::handover::message::Mode;
use trocar_proto::session::link_test::LinkTestGrant;
use trocar_relay::Relay;
use trocar_relay::metrics::{CONTROL_MODE, LegFigures};
use trocar_signaling::{LinkTestRefused, LinkTests};

/// How often the rendezvous is asked whether somebody operates.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What whoever measured is told when it ends.
const NEEDED: &str = "control of instruments is being handed over: the line is needed";

/// It answers.
pub(super) struct Answering {
    responding: Mutex<Option<Responding>>,
    addresses: Vec<SocketAddr>,
    quic: Vec<SocketAddr>,
    config: LinkTest,
    operated: Mutex<Operated>,
}

impl Answering {
    /// Opens its ports; none where the configuration does not ask for it. To be called on the runtime.
    ///
    /// # Errors
    /// Names the port that cannot be opened.
    pub(super) fn start(config: &LinkTest, advertise: &[IpAddr], relay: &Relay) -> anyhow::Result<Option<Arc<Self>>> {
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
            program: format!("trocar {} relay", env!("CARGO_PKG_VERSION")),
            note: |text| tracing::info!("link test: {text}"),
        };
        let responding = Responding::start(&tokio::runtime::Handle::current(), opened)?;
        let at = responding.listen;
        let reached = |at: SocketAddr| -> Vec<SocketAddr> {
            if at.ip().is_unspecified() {
                advertise.iter().map(|ip| SocketAddr::new(*ip, at.port())).collect()
            } else {
                vec![at]
            }
        };
        let quic = relay.addresses().first().map(|a| reached(a.quic)).unwrap_or_default();
        let addresses = reached(at);
        tracing::info!(listen = %at, second = responding.second_port, quic = responding.quic_port, "answering link tests");
        let answering = Arc::new(Self {
            responding: Mutex::new(Some(responding)),
            addresses,
            quic,
            config: config.clone(),
            operated: Mutex::default(),
        });
        if !config.while_operating {
            tokio::spawn(watch(Arc::downgrade(&answering), relay.clone()));
        }
        Ok(Some(answering))
    }

    /// Closes.
    pub(super) fn stop(&self) {
        if let Some(responding) = self.responding.lock().unwrap_or_else(PoisonError::into_inner).take() {
            responding.stop();
        }
    }

    fn look(&self, figures: &[LegFigures]) {
        let mut operated = self.operated.lock().unwrap_or_else(PoisonError::into_inner);
        let before = operated.is_anywhere();
        operated.handle_figures(figures);
        if operated.is_anywhere() && !before {
            drop(operated);
            if let Some(responding) = &*self.responding.lock().unwrap_or_else(PoisonError::into_inner) {
                responding.end_all(NEEDED);
            }
        }
    }
}

impl LinkTests for Answering {
    fn grant(&self) -> Result<LinkTestGrant, LinkTestRefused> {
        // Where measuring is allowed all the same, nobody looks, and nothing is known.
        if self.operated.lock().unwrap_or_else(PoisonError::into_inner).is_anywhere() {
            return Err(LinkTestRefused::Operated("an expert operates through this relay, or is about to".to_owned()));
        }
        let responding = self.responding.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(responding) = &*responding else {
            return Err(LinkTestRefused::Failed("the node is going away".to_owned()));
        };
        if responding.running() > 0 {
            return Err(LinkTestRefused::Busy);
        }
        let grant = responding.grant().map_err(|e| LinkTestRefused::Failed(e.to_string()))?;
        let grant = grant.ok_or(LinkTestRefused::Busy)?;
        Ok(LinkTestGrant {
            addresses: self.addresses.clone(),
            quic: self.quic.clone(),
            grant: grant.number,
            key: hex::encode(grant.key),
            mbit_s_max: self.config.max_rate,
            seconds_max: self.config.max_seconds as f64,
        })
    }
}

/// Asks the rendezvous as long as measurements are answered.
async fn watch(answering: std::sync::Weak<Answering>, relay: Relay) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let Some(answering) = answering.upgrade() else { return };
        answering.look(&relay.control_figures().await);
    }
}

/// Which gates let an expert operate, as far as is known.
#[derive(Debug, Default)]
struct Operated(BTreeMap<Vec<String>, bool>);

impl Operated {
    /// What the rendezvous says of its gates. A gate that has gone is forgotten; one that holds or is not understood is as it was.
    fn handle_figures(&mut self, figures: &[LegFigures]) {
        let mut now = BTreeMap::new();
        for row in figures {
            let Some(value) = row.values.iter().find(|v| std::ptr::eq(v.metric, &raw const CONTROL_MODE)) else {
                continue;
            };
            let (mode, gate): (Vec<_>, Vec<_>) = row.labels.iter().partition(|(name, _)| *name == "mode");
            let gate: Vec<String> = gate.into_iter().map(|(_, of)| of.clone()).collect();
            let before = self.0.get(&gate).copied().unwrap_or(false);
            let is = now.entry(gate).or_insert(before);
            if value.value > 0.0 {
                *is = mode.first().and_then(|(_, mode)| operates(mode)).unwrap_or(before);
            }
        }
        self.0 = now;
    }

    fn is_anywhere(&self) -> bool {
        self.0.values().any(|operated| *operated)
    }
}

/// Whether the line is needed in that state; none: as before.
fn operates(mode: &str) -> Option<bool> {
    match Mode::ALL.into_iter().find(|m| m.name() == mode)? {
        Mode::Offered | Mode::Ready | Mode::Granting | Mode::Remote => Some(true),
        Mode::Local | Mode::Estop | Mode::Closed => Some(false),
        Mode::Hold => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_relay::metrics::Value;

    fn rows(gate: &str, mode: &str) -> Vec<LegFigures> {
        let all = Mode::ALL.into_iter().map(Mode::name).chain(["unknown"]);
        let row = |each: &str| LegFigures {
            labels: vec![("session", "s".to_owned()), ("gate", gate.to_owned()), ("mode", each.to_owned())],
            values: vec![Value { metric: &CONTROL_MODE, value: f64::from(u8::from(each == mode)) }],
        };
        all.map(row).collect()
    }

    #[test]
    fn a_line_is_needed_from_the_offer_until_the_team_has_control_again() {
        let mut operated = Operated::default();
        for (mode, want) in [
            ("unknown", false),
            ("hold", false),
            ("local", false),
            ("offered", true),
            ("remote", true),
            // Nobody hears the gate, or it holds, in the middle of it.
            ("unknown", true),
            ("hold", true),
            ("local", false),
            ("unknown", false),
            ("granting", true),
            ("estop", false),
        ] {
            operated.handle_figures(&rows("g", mode));
            assert_eq!(operated.is_anywhere(), want, "{mode}");
        }
        operated.handle_figures(&[rows("g", "remote"), rows("h", "local")].concat());
        assert!(operated.is_anywhere(), "one of two gates is enough");
        operated.handle_figures(&rows("h", "local"));
        assert!(!operated.is_anywhere(), "a gate that has gone is forgotten");
        operated.handle_figures(&[]);
        assert!(!operated.is_anywhere());
    }
}
