//! What relay and screens may believe of the register: nothing that is older than `status_age` by their own probe (HO-I-012).

use super::config::Config;
use super::message::{Mode, Status};
use super::types::{ExpertId, Nonce};
use crate::units::Micros;
use std::collections::VecDeque;

/// Probes under way at most; the oldest is forgotten (HO-V-005).
const PROBES: usize = 32;

/// What a screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View<'a> {
    /// "Control unknown, hands off."
    Unknown,
    /// The register, at most `status_age` old.
    Known(&'a Status),
}

/// One screen's, or one relay's, belief. It begins with nothing and keeps nothing on a disk (HO-V-006).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Mirror {
    probes: VecDeque<(Nonce, Micros)>,
    /// The newest STATUS, and when the newest probe that one answered was sent.
    seen: Option<(Status, Micros)>,
}

impl Mirror {
    /// A probe goes out now; `nonce` is random.
    pub fn probed(&mut self, now: Micros, nonce: Nonce) {
        if self.probes.len() >= PROBES {
            self.probes.pop_front();
        }
        self.probes.push_back((nonce, now));
    }

    /// A STATUS came. It counts when it answers a probe of ours; without an answer only a higher epoch counts, and makes nothing
    /// younger. A lower epoch never does (HO-V-004).
    pub fn handle(&mut self, status: Status) {
        let sent = self.probes.iter().filter(|(nonce, _)| status.answers.contains(nonce)).map(|(_, at)| *at).max();
        let before = self.seen.as_ref().map(|(seen, at)| (seen.epoch, *at));
        if before.is_some_and(|(epoch, _)| status.epoch < epoch) {
            return;
        }
        let at = match (sent, before) {
            (Some(sent), Some((epoch, at))) if sent >= at || status.epoch > epoch => sent.max(at),
            (Some(sent), None) => sent,
            (None, Some((epoch, at))) if status.epoch > epoch => at,
            _ => return,
        };
        if let Some(sent) = sent {
            self.probes.retain(|(_, each)| *each > sent);
        }
        self.seen = Some((status, at));
    }

    /// What may be shown now (HO-V-001, HO-V-002).
    #[must_use]
    pub fn view(&self, now: Micros, cfg: &Config) -> View<'_> {
        match &self.seen {
            Some((status, at)) if now.since(*at) <= cfg.status_age => View::Known(status),
            _ => View::Unknown,
        }
    }

    /// How old the newest STATUS is, in microseconds: since the newest probe that one answered was sent. Nothing before the first.
    #[must_use]
    pub fn age(&self, now: Micros) -> Option<u64> {
        self.seen.as_ref().map(|(_, at)| now.since(*at))
    }

    /// Who had authority by the newest STATUS, however old. No screen shows that; it is for who must not cut off a holder.
    #[must_use]
    pub fn holder(&self) -> Option<ExpertId> {
        let (status, _) = self.seen.as_ref()?;
        status.expert.filter(|_| status.mode == Mode::Remote)
    }

    /// Whether a screen may say "you have control" to this one (HO-V-003).
    #[must_use]
    pub fn has_control(&self, now: Micros, cfg: &Config, me: ExpertId) -> bool {
        matches!(self.view(now, cfg), View::Known(s) if s.mode == Mode::Remote && s.expert == Some(me))
    }
}

#[cfg(trocar_model)]
impl Mirror {
    /// Moves it in time; what no screen looks at is forgotten.
    pub fn canon(&mut self, cfg: &Config, by: &super::canon::Ruler) {
        self.probes.retain(|(_, at)| by.now.since(*at) <= cfg.status_age);
        for (nonce, at) in &mut self.probes {
            by.nonce(nonce);
            by.past(at, cfg.status_age);
        }
        if let Some((status, at)) = &mut self.seen {
            status.answers.clear();
            by.past(at, cfg.status_age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::message::Figures;
    use crate::handover::types::{Colours, Epoch, GrantedSet};

    const ME: ExpertId = ExpertId([1; 32]);

    fn status(epoch: u64, mode: Mode, answers: &[u64]) -> Status {
        Status {
            epoch: Epoch(epoch),
            mode,
            expert: Some(ME),
            set: GrantedSet::CAMERA,
            since_ms: 0,
            stopped: 0,
            alarms: 0,
            colours: Colours::GREEN,
            figures: Figures::default(),
            answers: answers.iter().map(|n| Nonce(*n)).collect(),
            paths: crate::handover::paths::Protection::default(),
            timers: crate::handover::message::Timers::default(),
        }
    }

    fn ms(n: u64) -> Micros {
        Micros(n * 1_000)
    }

    #[test]
    fn a_status_is_as_old_as_the_probe_that_it_answers_however_late_it_comes() {
        // HO-V-001, HO-V-002, HO-V-003, HO-I-012
        let cfg = Config::default();
        let mut mirror = Mirror::default();
        assert_eq!(mirror.view(ms(0), &cfg), View::Unknown);
        mirror.probed(ms(0), Nonce(7));
        mirror.handle(status(5, Mode::Remote, &[7])); // whenever it came
        assert!(mirror.has_control(ms(500), &cfg, ME));
        assert_eq!(mirror.age(ms(500)), Some(500_000));
        assert!(!mirror.has_control(ms(500), &cfg, ExpertId([2; 32])));
        assert!(!mirror.has_control(ms(501), &cfg, ME));
        assert_eq!(mirror.view(ms(501), &cfg), View::Unknown);
    }

    #[test]
    fn an_answer_to_no_probe_of_ours_or_from_an_earlier_epoch_does_not_count() {
        // HO-V-004
        let cfg = Config::default();
        let mut mirror = Mirror::default();
        mirror.handle(status(9, Mode::Remote, &[7]));
        assert_eq!(mirror.view(ms(0), &cfg), View::Unknown);
        mirror.probed(ms(0), Nonce(1));
        mirror.probed(ms(10), Nonce(2));
        mirror.handle(status(9, Mode::Hold, &[2]));
        mirror.handle(status(8, Mode::Remote, &[1]));
        assert!(!mirror.has_control(ms(20), &cfg, ME));
    }

    #[test]
    fn news_of_a_higher_epoch_counts_at_once_but_makes_nothing_younger() {
        // HO-V-001, HO-V-004
        let cfg = Config::default();
        let mut mirror = Mirror::default();
        mirror.probed(ms(0), Nonce(1));
        mirror.handle(status(8, Mode::Remote, &[1]));
        mirror.handle(status(9, Mode::Hold, &[]));
        assert!(matches!(mirror.view(ms(400), &cfg), View::Known(s) if s.mode == Mode::Hold));
        assert_eq!(mirror.view(ms(501), &cfg), View::Unknown);
    }

    #[test]
    fn a_relay_that_restarts_believes_nothing_until_the_gate_answers_it() {
        // HO-V-006, HO-V-005
        let cfg = Config::default();
        let mut mirror = Mirror::default();
        (0..100).for_each(|n| mirror.probed(ms(n), Nonce(n)));
        assert_eq!(mirror.probes.len(), PROBES);
        assert_eq!(mirror.view(ms(100), &cfg), View::Unknown);
        mirror.handle(status(3, Mode::Local, &[99]));
        assert!(matches!(mirror.view(ms(100), &cfg), View::Known(s) if s.epoch == Epoch(3)));
    }
}
