//! What the rendezvous measures, at one moment.

use super::core::{Core, DROPS};
use crate::metrics::{self as m, LegFigures, Metric, Value};
use std::collections::BTreeMap;
use trocar_proto::control::PartyKind;
use trocar_proto::handover::config::Config;
use trocar_proto::handover::message::Mode;
use trocar_proto::handover::mirror::{Mirror, View};

const KINDS: [(PartyKind, &str); 3] =
    [(PartyKind::Gate, "gate"), (PartyKind::Station, "station"), (PartyKind::Signaling, "signaling")];

type Labels = Vec<(&'static str, String)>;

fn row(labels: Labels, metric: &'static Metric, value: f64) -> LegFigures {
    LegFigures { labels, values: vec![Value { metric, value }] }
}

impl Core {
    /// Everything that is shown.
    pub(super) fn figures(&self) -> Vec<LegFigures> {
        let (mut rows, now) = (self.sessions(), self.now());
        // A gate with two paths is here twice; the younger answer is shown.
        let mut gates: BTreeMap<(String, String), &Mirror> = BTreeMap::new();
        for party in self.parties.values().filter(|p| p.who.kind == PartyKind::Gate) {
            let gate: String = party.who.name.name.chars().take(64).collect();
            let best = gates.entry((party.who.session.to_string(), gate)).or_insert(&party.mirror);
            let age = |mirror: &Mirror| mirror.age(now).unwrap_or(u64::MAX);
            if age(&party.mirror) < age(best) {
                *best = &party.mirror;
            }
        }
        for ((session, gate), mirror) in gates {
            let labels = vec![("session", session), ("gate", gate)];
            if let Some(age) = mirror.age(now) {
                rows.push(row(labels.clone(), &m::CONTROL_STATUS_AGE, age as f64 / 1e6));
            }
            // As on every screen (HO-V-002).
            let mode = match mirror.view(now, &Config::default()) {
                View::Known(status) => status.mode.name(),
                View::Unknown => "unknown",
            };
            for each in Mode::ALL.into_iter().map(Mode::name).chain(["unknown"]) {
                let labels = labels.iter().cloned().chain([("mode", each.to_owned())]).collect();
                rows.push(row(labels, &m::CONTROL_MODE, f64::from(u8::from(each == mode))));
            }
        }
        for (reason, count) in DROPS.iter().zip(self.counters.dropped) {
            rows.push(row(vec![("reason", (*reason).to_owned())], &m::CONTROL_DROPPED, count as f64));
        }
        rows.push(row(Vec::new(), &m::CONTROL_REFUSED, self.counters.refused as f64));
        rows
    }

    fn sessions(&self) -> Vec<LegFigures> {
        let mut counts: BTreeMap<String, [usize; 4]> = BTreeMap::new();
        for party in self.parties.values() {
            let counts = counts.entry(party.who.session.to_string()).or_default();
            let place = KINDS.iter().position(|(kind, _)| *kind == party.who.kind).and_then(|n| counts.get_mut(n));
            place.into_iter().for_each(|n| *n += 1);
        }
        for party in self.tunnels.values().filter_map(|t| self.parties.get(&t.to)) {
            counts.entry(party.who.session.to_string()).or_default()[3] += 1;
        }
        let mut rows = Vec::new();
        for (session, counts) in counts {
            for ((_, kind), count) in KINDS.iter().zip(counts) {
                let labels = vec![("session", session.clone()), ("kind", (*kind).to_owned())];
                rows.push(row(labels, &m::CONTROL_PARTIES, count as f64));
            }
            rows.push(row(vec![("session", session)], &m::CONTROL_TUNNELS, counts[3] as f64));
        }
        for (session, forwarded) in &self.counters.forwarded {
            for (direction, count) in ["to_gate", "from_gate"].into_iter().zip(forwarded) {
                let labels = vec![("session", session.to_string()), ("direction", direction.to_owned())];
                rows.push(row(labels, &m::CONTROL_DATAGRAMS, *count as f64));
            }
        }
        rows
    }
}
