//! Which pictures there were, and when: the publisher's reports over the authenticated local connection (HO-F-001).

use crate::handover::types::FrameRef;
use crate::units::Micros;
use std::collections::VecDeque;

/// Frames kept: over a second of two views at 60 frames per second (HO-F-007).
const KEPT: usize = 128;

/// One encoded frame of the OR's publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameReport {
    /// Which one.
    pub frame: FrameRef,
    /// 128 bits that tell raw pictures apart: XXH3 of the pixels, or the frame's own digest where it is only forwarded.
    pub raw: u128,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Entry {
    frame: FrameRef,
    noted: Micros,
    order: u64,
}

/// The newest frames of the control source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct FrameLog {
    entries: VecDeque<Entry>,
    /// The raw picture of the newest run of identical ones, when it began, and its place in the order of pictures.
    run: Option<(u128, Micros, u64)>,
}

/// The newest picture that the holder's station says it has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    order: u64,
    /// The gate's time of noting the picture.
    pub(super) noted: Micros,
    /// When the echo came to this picture.
    pub(super) advanced: Micros,
}

impl FrameLog {
    /// Notes a frame. Identical raw pictures in a row are one, and keep the time of the first (HO-F-003).
    pub(super) fn note(&mut self, now: Micros, report: FrameReport) {
        let (noted, order) = match self.run {
            Some((raw, since, order)) if raw == report.raw => (since, order),
            Some((_, _, order)) => (now, order.saturating_add(1)),
            None => (now, 1),
        };
        self.run = Some((report.raw, noted, order));
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { frame: report.frame, noted, order });
    }

    /// What is shown after this echo: the same as before where it is unknown or not newer (HO-F-002, HO-F-006).
    pub(super) fn shown(&self, now: Micros, before: Option<Shown>, echo: Option<FrameRef>) -> Option<Shown> {
        let Some(entry) = echo.and_then(|echo| self.entries.iter().rev().find(|e| e.frame == echo)) else {
            return before;
        };
        if before.is_some_and(|b| b.order >= entry.order) {
            return before;
        }
        Some(Shown { order: entry.order, noted: entry.noted, advanced: now })
    }
}

#[cfg(trocar_model)]
impl FrameLog {
    /// Pictures older than `limit` are forgotten; they end REMOTE, noted or not.
    pub(super) fn canon(&mut self, limit: u64, shown: Option<&mut Shown>, by: &crate::handover::canon::Ruler) {
        self.entries.retain(|e| by.now.since(e.noted) <= limit);
        let lower = self.run.map_or(0, |(.., order)| order.saturating_sub(8));
        for entry in &mut self.entries {
            by.frame(&mut entry.frame);
            by.past(&mut entry.noted, limit);
            entry.order = entry.order.saturating_sub(lower);
        }
        if let Some((raw, since, order)) = &mut self.run {
            by.raw(raw, limit);
            by.past(since, limit);
            *order = order.saturating_sub(lower);
        }
        if let Some(shown) = shown {
            by.past(&mut shown.noted, limit);
            by.past(&mut shown.advanced, limit);
            shown.order = shown.order.saturating_sub(lower);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: u32) -> FrameRef {
        FrameRef { source: 1, view: 0, frame: n, digest: u128::from(n) }
    }

    #[test]
    fn a_frozen_capture_card_grows_old_although_its_frames_are_new() {
        // HO-F-003, HO-X-015
        let mut log = FrameLog::default();
        for n in 0..10 {
            log.note(
                Micros(u64::from(n) * 100),
                FrameReport { frame: frame(n), raw: if n < 5 { n.into() } else { 5 } },
            );
        }
        let shown = log.shown(Micros(1_000), None, Some(frame(9))).unwrap();
        assert_eq!(shown.noted, Micros(500));
        assert_eq!(log.shown(Micros(1_100), Some(shown), Some(frame(8))), Some(shown));
    }

    #[test]
    fn an_echo_that_differs_in_anything_does_not_count() {
        // HO-F-002, HO-F-006
        let mut log = FrameLog::default();
        log.note(Micros(10), FrameReport { frame: frame(1), raw: 1 });
        log.note(Micros(20), FrameReport { frame: frame(2), raw: 2 });
        for wrong in [
            FrameRef { source: 2, ..frame(2) },
            FrameRef { view: 1, ..frame(2) },
            FrameRef { frame: 3, ..frame(2) },
            FrameRef { digest: 0, ..frame(2) },
        ] {
            assert_eq!(log.shown(Micros(30), None, Some(wrong)), None);
        }
        let newest = log.shown(Micros(30), None, Some(frame(2)));
        assert_eq!(log.shown(Micros(40), newest, Some(frame(1))), newest);
        assert_eq!(log.shown(Micros(40), newest, None), newest);
    }

    #[test]
    fn the_log_keeps_a_bounded_number_of_frames() {
        // HO-F-007
        let mut log = FrameLog::default();
        (0..1_000).for_each(|n| log.note(Micros(1), FrameReport { frame: frame(n), raw: n.into() }));
        assert_eq!(log.entries.len(), KEPT);
    }
}
