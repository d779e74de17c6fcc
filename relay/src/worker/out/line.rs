//! What one viewer's connection takes: the rate controller, the pace, and the log of what is under way.

use trocar_proto::media::rate::{DelayController, LineState, Pacer, RateConfig, RateController as _, SentLog};
use trocar_proto::media::twcc::Feedback;
use trocar_proto::units::{Bitrate, Micros, Ssrc};

/// Packets of which it is known what went under their transport-wide number: 200 ms at 100 Mbit/s. A power of two.
const WENT: usize = 2_048;
/// A number is missing when so many after it have come: packets overtake each other now and then.
const OVERTAKEN: usize = 3;
/// Missing packets of one feedback that are looked at. Loss policy: those beyond are for the viewer to ask for.
const MISSED: usize = 32;

/// What went under a transport-wide number.
#[derive(Debug, Clone, Copy, Default)]
struct Went {
    number: u16,
    /// Source and sequence number; none for what is not to go again.
    packet: Option<(Ssrc, u16)>,
}

/// One WebRTC connection's line. All its legs share it.
pub(in crate::worker) struct Line {
    controller: DelayController,
    pacer: Pacer,
    /// From the first packet with a transport-wide number on: most of what a viewer costs in memory.
    log: Option<Box<SentLog>>,
    /// From then on as well.
    went: Vec<Went>,
    granted: Bitrate,
    /// Transport-wide number of the next packet; its low 16 bits travel.
    next: u64,
    round_trip_us: Option<u64>,
}

/// A line's figures.
#[derive(Debug, Clone, Copy)]
pub(in crate::worker) struct LineFigures {
    pub(in crate::worker) target: Bitrate,
    pub(in crate::worker) queueing_delay_us: u64,
    pub(in crate::worker) state: LineState,
}

impl Line {
    /// A line of which nothing is known but what it was granted.
    pub(in crate::worker) fn new(granted: Bitrate) -> Self {
        Self {
            controller: DelayController::new(RateConfig::around(granted)),
            pacer: Pacer::new(),
            log: None,
            went: Vec::new(),
            granted,
            next: 0,
            round_trip_us: None,
        }
    }

    /// Lets a packet of that size leave now, or says when.
    pub(super) fn take(&mut self, now: Micros, bytes: u32) -> Result<(), Micros> {
        self.pacer.take(now, bytes, self.controller.pacing_rate(now))
    }

    /// The transport-wide number of a packet that leaves now: of that source and sequence number, where it may go again.
    pub(super) fn number(&mut self, now: Micros, bytes: u32, packet: Option<(Ssrc, u16)>) -> u16 {
        let wide = self.next;
        self.next += 1;
        let granted = self.granted;
        self.log.get_or_insert_with(|| Box::new(SentLog::new(granted))).note(wide, bytes, now);
        let number = (wide & 0xffff) as u16;
        if self.went.is_empty() {
            self.went.resize(WENT, Went::default());
        }
        if let Some(slot) = self.went.get_mut(usize::from(number) % WENT) {
            *slot = Went { number, packet };
        }
        number
    }

    /// Source and sequence number of packets that are missing by a feedback: later ones have come.
    pub(super) fn missed(&self, feedback: &Feedback) -> [Option<(Ssrc, u16)>; MISSED] {
        let mut out = [None; MISSED];
        let came = feedback.arrivals.iter().rposition(Option::is_some).unwrap_or(0);
        let before = feedback.arrivals.iter().take((came + 1).saturating_sub(OVERTAKEN)).enumerate();
        let missing = before.filter(|(_, arrived)| arrived.is_none()).filter_map(|(offset, _)| {
            let number = feedback.base.wrapping_add((offset & 0xffff) as u16);
            self.went.get(usize::from(number) % WENT).filter(|w| w.number == number)?.packet
        });
        for (slot, packet) in out.iter_mut().zip(missing) {
            *slot = Some(packet);
        }
        out
    }

    /// What the viewer reported last, where that changed.
    pub(super) fn note_round_trip(&mut self, now: Micros, round_trip_us: Option<u64>) {
        if let Some(us) = round_trip_us.filter(|_| self.round_trip_us != round_trip_us) {
            self.round_trip_us = round_trip_us;
            self.controller.handle_round_trip(now, us);
        }
    }

    /// When packets came, by transport-wide feedback.
    pub(in crate::worker) fn handle_feedback(&mut self, now: Micros, feedback: &Feedback) {
        if let Some(log) = &mut self.log {
            self.controller.handle_results(now, log.handle_feedback(feedback));
        }
    }

    pub(in crate::worker) fn figures(&self) -> LineFigures {
        LineFigures {
            target: self.controller.target(),
            queueing_delay_us: self.controller.queueing_delay_us(),
            state: self.controller.state(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feedback_tells_what_is_missing_once_later_packets_have_come() {
        let mut line = Line::new(Bitrate(20_000_000));
        let feedback = |base, came: &[bool]| Feedback {
            base,
            reference: 0,
            count: 0,
            arrivals: came.iter().map(|c| c.then_some(1)).collect(),
        };
        let missed = |l: &Line, f| l.missed(&f).into_iter().flatten().map(|(_, seq)| seq).collect::<Vec<_>>();
        let none = Vec::<u16>::new();
        assert_eq!(missed(&line, feedback(0, &[false, true, true, true])), none, "nothing was sent");
        for seq in 0..10 {
            // The third is a repeat.
            line.number(Micros(0), 1_200, Some((Ssrc(5), 1_000 + seq)).filter(|_| seq != 2));
        }
        assert_eq!(missed(&line, feedback(0, &[true, false, true, true, true])), [1_001]);
        assert_eq!(missed(&line, feedback(0, &[true, false, true, true])), none, "it may have been overtaken");
        assert_eq!(missed(&line, feedback(0, &[false, false, false, true, true, true])), [1_000, 1_001]);
        assert_eq!(missed(&line, feedback(5, &[false, false, false])), none, "nobody knows yet");
        assert_eq!(missed(&line, feedback(4_096, &[false, true, true, true])), none, "numbers that were not given");
    }
}
