//! Whether somebody operates, as the gates that are connected to a relay's rendezvous tell it.

use crate::Relay;
use crate::metrics::{CONTROL_MODE, LegFigures};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use trocar_proto::handover::message::Mode;

/// How often the rendezvous is asked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Asks the rendezvous of a relay for as long as anybody looks at the answer: whether an expert operates by it, or is about to. Where there is
/// no rendezvous nobody does. To be called on a runtime.
#[must_use]
pub fn watch_operated(relay: &Relay) -> watch::Receiver<bool> {
    let (say, heard) = watch::channel(false);
    let relay = relay.clone();
    tokio::spawn(async move {
        let mut operated = Operated::default();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !say.is_closed() {
            ticks.tick().await;
            // One that is too busy to answer leaves it as it was.
            if let Some(figures) = relay.control_figures().await {
                operated.handle_figures(&figures);
            }
            let is = operated.is_anywhere();
            say.send_if_modified(|was| std::mem::replace(was, is) != is);
        }
    });
    heard
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
    use crate::metrics::Value;

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
