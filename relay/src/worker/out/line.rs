//! What one viewer's connection takes: the rate controller, the pace, and the log of what is under way.

use trocar_proto::media::rate::{DelayController, LineState, Pacer, RateConfig, RateController as _, SentLog};
use trocar_proto::media::twcc::Feedback;
use trocar_proto::units::{Bitrate, Micros};

/// One WebRTC connection's line. All its legs share it.
pub(in crate::worker) struct Line {
    controller: DelayController,
    pacer: Pacer,
    /// From the first packet with a transport-wide number on: most of what a viewer costs in memory.
    log: Option<Box<SentLog>>,
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
            granted,
            next: 0,
            round_trip_us: None,
        }
    }

    /// Lets a packet of that size leave now, or says when.
    pub(super) fn take(&mut self, now: Micros, bytes: u32) -> Result<(), Micros> {
        self.pacer.take(now, bytes, self.controller.pacing_rate(now))
    }

    /// The transport-wide number of a packet that leaves now.
    pub(super) fn number(&mut self, now: Micros, bytes: u32) -> u16 {
        let number = self.next;
        self.next += 1;
        let granted = self.granted;
        self.log.get_or_insert_with(|| Box::new(SentLog::new(granted))).note(number, bytes, now);
        (number & 0xffff) as u16
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
