//! What the device said last, on its way to the core and to the judge of poses.

use super::{Counters, count};
use crate::core::{Inbox, Lane, now};
use std::sync::{Arc, Mutex, PoisonError};
use trocar_proto::handover::device_wire::{Report, sim};
use trocar_proto::handover::gate::{Input, Judgement};
use trocar_proto::handover::message::Pose;
use trocar_proto::units::Micros;

/// A pose of the device older than this judges nothing, in microseconds: `device_report` of the default configuration.
const STATE_AGE: u64 = 500_000;

type Newest = Arc<Mutex<Option<(sim::State, Micros)>>>;

/// Takes reports, in whatever thread reads them.
#[derive(Debug)]
pub(super) struct Reports {
    inbox: Inbox,
    counters: Arc<Counters>,
    newest: Newest,
    camera_moves: Option<u32>,
}

impl Reports {
    pub(super) fn new(inbox: Inbox, counters: Arc<Counters>) -> Self {
        Self { inbox, counters, newest: Newest::default(), camera_moves: None }
    }

    /// For the core's thread.
    pub(super) fn judge(&self) -> Judge {
        Judge { newest: Arc::clone(&self.newest), copy: None }
    }

    /// A report that is authentic and newer than the last.
    pub(super) fn take(&mut self, report: &Report) {
        count(&self.counters.reports);
        if let Ok(state) = sim::State::decode(report.state.as_bytes()) {
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((state, now()));
        }
        self.inbox.input(Lane::Device, Input::Device(report.device));
        let before = self.camera_moves.replace(report.camera_moves);
        if camera_moved(before, report.camera_moves) {
            self.inbox.input(Lane::Device, Input::CameraMoved);
        }
    }
}

/// The count rose, or began anew with the device's restart and is not 0.
fn camera_moved(before: Option<u32>, after: u32) -> bool {
    before.is_some_and(|before| after > before || (after < before && after > 0))
}

/// Compares poses, in the core's thread. It never waits for the thread that reads reports: while that one writes, the copy of before
/// serves.
#[derive(Debug)]
pub(super) struct Judge {
    newest: Newest,
    copy: Option<(sim::State, Micros)>,
}

impl Judge {
    pub(super) fn judge(&mut self, pose: &Pose) -> Judgement {
        if let Ok(newest) = self.newest.try_lock() {
            self.copy = *newest;
        }
        match (sim::Pose::decode(pose.as_bytes()), self.copy) {
            (Ok(pose), Some((state, at))) if now().since(at) <= STATE_AGE => sim::judge(&pose, &state),
            _ => sim::UNJUDGED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Event;
    use std::time::Duration;
    use trocar_proto::handover::device_wire::State;
    use trocar_proto::handover::gate::DeviceReport;
    use trocar_proto::handover::types::{Epoch, Selection};

    fn report(camera_moves: u32, grip: u16) -> Report {
        let state =
            sim::State { moving: false, orientation: sim::UPRIGHT, grip, axes: [0; 6], camera: [0; 3] }.encode();
        let device = DeviceReport {
            highest: Epoch(1),
            owner: None,
            selected: Selection::Nobody,
            sequence: 0,
            latched: true,
            overridden: false,
            energy: false,
            held: true,
            rival: false,
        };
        Report {
            device,
            moving: false,
            watchdog: 150_000,
            camera_moves,
            echo: 0,
            actuated: None,
            refusals: 0,
            refused: None,
            state: State::new(state).unwrap(),
        }
    }

    #[test]
    fn a_camera_that_moves_by_itself_is_told_once_for_each_rise() {
        // HO-S-004
        let inbox = Inbox::default();
        let mut reports = Reports::new(inbox.clone(), Arc::default());
        for moves in [4, 4, 5, 5, 1, 0] {
            reports.take(&report(moves, 0));
        }
        let mut told = Vec::new();
        while let Some(Event::Input(input)) = inbox.pop(Duration::ZERO) {
            told.push(matches!(input, Input::CameraMoved));
        }
        assert_eq!(told, [false, false, false, true, false, false, true, false]);
    }

    #[test]
    fn a_pose_is_judged_against_the_newest_report_and_against_nothing_before_one_came() {
        // HO-R-004
        let mut reports = Reports::new(Inbox::default(), Arc::default());
        let mut judge = reports.judge();
        let pose = |orientation, grip| Pose::new(sim::Pose { motion_zero: true, orientation, grip }.encode()).unwrap();
        assert_eq!(judge.judge(&pose(sim::UPRIGHT, 0)), sim::UNJUDGED);
        reports.take(&report(0, 2_000));
        let good = judge.judge(&pose(sim::UPRIGHT, 2_400));
        assert_eq!(good, Judgement { orientation: 0, grip_matched: true, motion_zero: true });
        let turned = judge.judge(&pose(sim::orientation(600, 0, 0), 9_000));
        assert!(turned.orientation.abs_diff(6_000) <= 10 && !turned.grip_matched, "{turned:?}");
        assert_eq!(judge.judge(&Pose::new([9, 9, 9]).unwrap()), sim::UNJUDGED);
    }
}
