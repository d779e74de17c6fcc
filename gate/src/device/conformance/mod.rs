//! Does a controller behind UDP keep the rules of HANDOVER.md section 3? For makers of devices, against the real thing.
//!
//! The test plays two gates. It selects remote and sends commands, so the device must be free to move, with nobody near it and nothing
//! in its reach; the commands that it sends move nothing unless they are said to. It leaves the device with nobody selected and a higher
//! fence than before. Each check stands for itself: one that fails does not stop the next.

mod bench;
mod checks;
mod wire;

use super::Key;
use bench::Bench;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use trocar_proto::handover::device_wire::sim::Motion;

/// What is tested, and how patiently.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the device listens.
    pub address: SocketAddr,
    /// The key in common.
    pub key: Key,
    /// What the watchdog may be later than it says, in microseconds, as the test sees it through socket and scheduler.
    pub margin: u64,
    /// The payload of a command that moves nothing; of [`Payloads::Sim`] where the device understands that format.
    pub payloads: Payloads,
}

/// What the test may put into commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payloads {
    /// `device_wire::sim`: what is outside the granted set is tested too, by steps of 0.1 mm and 0.1°.
    Sim,
    /// This one moves nothing. Whether the device refuses what is outside the set (HO-S-016) cannot be tested then.
    Still(Vec<u8>),
}

impl Target {
    /// A device that understands the `sim` payloads, seen with 50 ms of patience.
    #[must_use]
    pub const fn new(address: SocketAddr, key: Key) -> Self {
        Self { address, key, margin: 50_000, payloads: Payloads::Sim }
    }

    fn still(&self) -> Vec<u8> {
        match &self.payloads {
            Payloads::Sim => Motion::default().encode(),
            Payloads::Still(payload) => payload.clone(),
        }
    }
}

/// What only somebody beside the device can do. [`Alone`] can nothing of it; those checks are left out then.
pub trait Hands {
    /// Restart the device: `Ok(false)` where nobody can.
    ///
    /// # Errors
    /// It did not work; the check fails.
    fn restart(&mut self) -> io::Result<bool>;

    /// Press the hardware override: `Ok(false)` where nobody can.
    ///
    /// # Errors
    /// It did not work; the check fails.
    fn press_override(&mut self) -> io::Result<bool>;
}

/// Nobody is beside the device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Hands for Alone {
    fn restart(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    fn press_override(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As required.
    Pass,
    /// Not as required.
    Fail,
    /// Nobody could do what it needs.
    LeftOut,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Number of the requirement, `wire` where it is one of docs/DEVICES.md.
    pub number: &'static str,
    /// What has to be.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Report {
    /// Nothing failed. Checks that were left out do not count as failures; the table names them.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.verdict != Verdict::Fail)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.checks.iter().map(|check| check.number.len()).max().unwrap_or(0);
        let name = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            let verdict = match check.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::LeftOut => "left out",
            };
            writeln!(f, "{:number$}  {:name$}  {verdict:8}  {}", check.number, check.name, check.seen)?;
        }
        let of = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let (pass, fail, out) = (of(Verdict::Pass), of(Verdict::Fail), of(Verdict::LeftOut));
        writeln!(f, "{pass} passed, {fail} failed, {out} left out")
    }
}

/// The device could not be tested at all.
#[derive(Debug, thiserror::Error)]
pub enum ConformanceError {
    /// No socket.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// No authentic report came.
    #[error("{address}: no report within {ms} ms: nothing listens there, or the key is another one")]
    Silent {
        /// Where it should be.
        address: SocketAddr,
        /// How long was waited.
        ms: u64,
    },
}

/// Makes every check, hands each to `told` as it is made, and gives the table.
///
/// # Errors
/// [`ConformanceError`]: the device does not answer.
pub fn run(target: &Target, hands: &mut dyn Hands, told: &mut dyn FnMut(&Check)) -> Result<Report, ConformanceError> {
    let mut bench = Bench::open(target)?;
    let mut report = Report::default();
    for (number, name, check) in checks::ALL.iter().chain(wire::ALL) {
        let (verdict, seen) = match check(&mut bench, hands) {
            Ok(Some(seen)) => (Verdict::Pass, seen),
            Ok(None) => (Verdict::LeftOut, "nobody could do what it needs".into()),
            Err(wrong) => (Verdict::Fail, wrong),
        };
        let check = Check { number, name, verdict, seen };
        told(&check);
        report.checks.push(check);
    }
    bench.leave();
    Ok(report)
}
