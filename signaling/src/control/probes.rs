//! Probes of many browsers as few of ours: a gate answers 32 with one STATUS, and a session may have 256 people.
//!
//! All that waits goes to the gate under one random number, at most fifty times a second. A STATUS that answers that number was made
//! after each of those browsers had asked, which is all that an answer says (HO-V-001).

use std::collections::VecDeque;
use trocar_proto::handover::types::Nonce;

/// Batches under way at most; the oldest is forgotten, as are its askers' probes (HO-V-005).
const BATCHES: usize = 32;
/// Askers in one batch at most; more are dropped.
const BATCH: usize = 256;

/// What was asked and not answered yet.
#[derive(Debug, Default)]
pub(super) struct Probes {
    waiting: Vec<u64>,
    batches: VecDeque<(Nonce, Vec<u64>)>,
}

impl Probes {
    /// Somebody asks.
    pub(super) fn ask(&mut self, nonce: u64) {
        if self.waiting.len() < BATCH {
            self.waiting.push(nonce);
        }
    }

    /// What is to be sent now, under this number.
    pub(super) fn batch(&mut self, number: Nonce) -> Option<Nonce> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.batches.len() >= BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back((number, std::mem::take(&mut self.waiting)));
        Some(number)
    }

    /// Whether somebody waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whose probes a STATUS with these answers answers.
    pub(super) fn answered(&mut self, answers: &[Nonce]) -> Vec<u64> {
        let mut askers = Vec::new();
        self.batches.retain_mut(|(number, batch)| {
            let hit = answers.contains(number);
            if hit {
                askers.append(batch);
            }
            !hit
        });
        askers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_to_those_who_asked_before_the_question_left() {
        let mut p = Probes::default();
        assert_eq!(p.batch(Nonce(1)), None, "nobody asks");
        (10..13).for_each(|n| p.ask(n));
        assert_eq!(p.batch(Nonce(1)), Some(Nonce(1)));
        p.ask(13);
        assert_eq!(p.answered(&[Nonce(9)]), [0; 0], "a number that was not sent answers nobody");
        assert_eq!(p.answered(&[Nonce(1)]), [10, 11, 12]);
        assert_eq!(p.answered(&[Nonce(1)]), [0; 0], "nobody is answered twice");
        assert!(p.is_waiting());
        assert_eq!(p.batch(Nonce(2)), Some(Nonce(2)));
        assert_eq!(p.answered(&[Nonce(1), Nonce(2)]), [13]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut p = Probes::default();
        for batch in 0..100 {
            (0..1_000).for_each(|n| p.ask(n));
            p.batch(Nonce(batch));
        }
        assert_eq!(p.batches.len(), BATCHES);
        assert_eq!(p.answered(&[Nonce(99)]).len(), BATCH);
        assert_eq!(p.answered(&[Nonce(0)]), [0; 0]);
    }
}
