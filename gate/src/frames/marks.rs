//! The gate's own numbers, and when it sent them.

use std::collections::VecDeque;
use std::time::Duration;
use trocar_proto::handover::frameproof::Mark;
use trocar_proto::units::Micros;

/// A mark is sent this often.
pub(super) const EVERY: Duration = Duration::from_millis(20);
/// Marks remembered: over a second of them. The oldest goes first.
const KEPT: usize = 64;

/// How a mark in a report is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// The report was made after that mark came, at most this many microseconds ago.
    Within(u64),
    /// So old that it is forgotten.
    Old,
    /// It was never sent.
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Marks {
    newest: u64,
    /// When each was sent, the newest last.
    sent: VecDeque<Micros>,
}

impl Marks {
    /// The next one, which goes out now.
    pub(super) fn next(&mut self, now: Micros) -> Mark {
        self.newest += 1;
        if self.sent.len() >= KEPT {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
        Mark(self.newest)
    }

    /// How long a report with that mark was under way, from above.
    pub(super) fn judge(&self, now: Micros, mark: Mark) -> Judged {
        if mark.0 == 0 || mark.0 > self.newest {
            return Judged::Unknown;
        }
        let back = usize::try_from(self.newest - mark.0).unwrap_or(usize::MAX);
        match self.sent.iter().rev().nth(back) {
            Some(at) => Judged::Within(now.since(*at)),
            None => Judged::Old,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_at_most_as_old_as_its_mark_and_a_mark_that_was_not_sent_is_told() {
        let mut marks = Marks::default();
        assert_eq!(marks.judge(Micros(5), Mark(0)), Judged::Unknown);
        for n in 1..=100 {
            assert_eq!(marks.next(Micros(n * 10)), Mark(n));
        }
        assert_eq!(marks.judge(Micros(1_007), Mark(100)), Judged::Within(7));
        assert_eq!(marks.judge(Micros(1_007), Mark(37)), Judged::Within(637));
        assert_eq!(marks.judge(Micros(1_007), Mark(36)), Judged::Old);
        assert_eq!(marks.judge(Micros(1_007), Mark(101)), Judged::Unknown);
        assert_eq!(marks.sent.len(), KEPT);
    }
}
