//! The clock that gate, device and stations go by.

use trocar_proto::units::Micros;

/// CLOCK_BOOTTIME, which counts while the machine sleeps, so that a backlog is old when it wakes.
#[must_use]
pub fn now() -> Micros {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (s, ns) = (u64::try_from(t.tv_sec).unwrap_or(0), u64::try_from(t.tv_nsec).unwrap_or(0));
    Micros(s * 1_000_000 + ns / 1_000)
}
