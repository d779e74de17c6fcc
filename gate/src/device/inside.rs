//! The simulated device inside the gate's own process: for tests of the core, and for nothing that moves.

use super::seen::{Judge, Reports};
use super::{Counters, PayloadFormat, count};
use crate::core::{self, Inbox, now};
use crate::sim::{Controller, Status};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use trocar_proto::handover::gate::{DeviceAct, Judgement};
use trocar_proto::handover::message::Pose;
use trocar_proto::handover::types::Epoch;

/// Time between two looks at the watchdog.
const TICK: Duration = Duration::from_millis(5);
/// So many ticks between two reports.
const REPORT: u32 = 4;

/// A handle on the device for a test: it ends with the last clone of this and the adapter.
#[derive(Debug, Clone)]
pub struct Inside {
    device: Arc<Mutex<Controller>>,
    reports: Arc<Mutex<Reports>>,
}

/// A device with this fence on its disk, which is a fast one. `watchdog` in microseconds.
///
/// # Errors
/// No thread.
pub fn in_process(inbox: Inbox, fence: Epoch, watchdog: u32) -> io::Result<(Box<dyn core::Device>, Inside)> {
    let counters = Arc::<Counters>::default();
    let reports = Reports::new(inbox, Arc::clone(&counters));
    let judge = reports.judge();
    let device = Arc::new(Mutex::new(Controller::new(now(), fence, watchdog, None)));
    let inside = Inside { device, reports: Arc::new(Mutex::new(reports)) };
    let (device, reports) = (Arc::downgrade(&inside.device), Arc::downgrade(&inside.reports));
    thread::Builder::new().name("device-inside".into()).spawn(move || {
        let mut n = 0_u32;
        while let (Some(device), Some(reports)) = (device.upgrade(), reports.upgrade()) {
            let inside = Inside { device, reports };
            let held = inside.device().tick(now());
            n = n.wrapping_add(1);
            if held || n.is_multiple_of(REPORT) {
                inside.report();
            }
            drop(inside);
            thread::sleep(TICK);
        }
    })?;
    Ok((Box::new(Adapter { inside: inside.clone(), judge, counters }), inside))
}

impl Inside {
    /// What a person beside it would see.
    #[must_use]
    pub fn status(&self) -> Status {
        self.device().status()
    }

    /// The device itself.
    pub fn device(&self) -> MutexGuard<'_, Controller> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hardware switch.
    pub fn override_to_local(&self) {
        self.device().override_to_local();
        self.report();
    }

    /// Somebody pushes the camera.
    pub fn push_camera(&self) {
        self.device().push_camera();
        self.report();
    }

    fn report(&self) {
        let report = self.device().report(now(), 0, None);
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).take(&report);
    }
}

struct Adapter {
    inside: Inside,
    judge: Judge,
    counters: Arc<Counters>,
}

impl core::Device for Adapter {
    fn act(&mut self, act: &DeviceAct) {
        if !PayloadFormat::Sim.allows(act) {
            return count(&self.counters.outside);
        }
        let mut device = self.inside.device();
        let before = device.status();
        device.tick(now());
        let outcome = device.act(now(), act);
        outcome.persist.into_iter().for_each(|fence| device.persisted(fence));
        let changed = device.status() != before || outcome.verdict.is_err();
        drop(device);
        if changed {
            self.inside.report();
        }
    }

    fn judge(&mut self, pose: &Pose) -> Judgement {
        self.judge.judge(pose)
    }
}
