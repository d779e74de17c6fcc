//! How far this machine's clock is from its reference, as chrony says: an access log is worth as much as its times.

use crate::figures::Figures;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often chrony is asked.
const EVERY: Duration = Duration::from_secs(60);
/// And how long it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// From here on it is an alarm, in microseconds: the order of events at two hospitals is told by their clocks.
const ALARM_US: i64 = 1_000_000;

/// The offset, shared with whoever writes records.
#[derive(Debug, Clone)]
pub(crate) struct Offset(Arc<AtomicI64>);

impl Default for Offset {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

impl Offset {
    /// Microseconds; none while it is not known.
    pub(crate) fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|us| *us != i64::MIN)
    }

    fn set(&self, us: Option<i64>) {
        self.0.store(us.unwrap_or(i64::MIN), Ordering::Relaxed);
    }
}

/// Asks chrony for ever. A machine without chrony has an offset that nobody knows.
pub(crate) async fn watch_offset(offset: Offset, figures: Arc<Figures>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was = Some(0);
    loop {
        ticks.tick().await;
        let us = ask().await;
        offset.set(us);
        figures.clock_known.set(i64::from(us.is_some()));
        figures.clock_offset_us.set(us.unwrap_or(0));
        match us {
            Some(us) if us.abs() >= ALARM_US => {
                tracing::error!(
                    offset_us = us,
                    "this machine's clock is off by more than a second: records carry wrong times"
                );
            }
            None if was.is_some() => {
                tracing::warn!(
                    "chrony does not say how right this machine's clock is: records say that it is not known"
                );
            }
            _ => {}
        }
        was = us;
    }
}

async fn ask() -> Option<i64> {
    let mut command = Command::new("chronyc");
    command.args(["-c", "-n", "tracking"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let out = timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    if out.status.success() { parse(&String::from_utf8_lossy(&out.stdout)) } else { None }
}

/// Reads `chronyc -c tracking`: the fifth field is what system time has to be corrected by, in seconds, the last one says whether the
/// clock is synchronised at all.
fn parse(line: &str) -> Option<i64> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    if fields.last().is_none_or(|leap| *leap == "Not synchronised") {
        return None;
    }
    let seconds: f64 = fields.get(4)?.parse().ok()?;
    (seconds.is_finite() && seconds.abs() < 1e9).then_some((seconds * 1e6) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chrony_is_read_and_what_it_does_not_know_is_not_known() {
        let good =
            "A29FC801,162.159.200.1,4,1763800000.1,-0.000123400,0.0002,0.0003,1.5,0.0,0.1,0.01,0.001,64.2,Normal\n";
        assert_eq!(parse(good), Some(-123));
        assert_eq!(parse(&good.replace("Normal", "Not synchronised")), None);
        assert_eq!(parse("506 Cannot talk to daemon"), None);
        assert_eq!(parse(&good.replace("-0.000123400", "nan")), None);
        assert_eq!(parse(""), None);
        let offset = Offset::default();
        assert_eq!(offset.get(), None);
        offset.set(Some(-5));
        assert_eq!(offset.get(), Some(-5));
    }
}
