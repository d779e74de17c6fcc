//! Is this line fit for surgery? What a network engineer measures before a patient is on the table: the measurement's protocol
//! and estimators ([`measure`]), what is compared with what the classes of surgery need ([`classes`]), and what is handed over
//! ([`report`]). No sockets and no clocks in these: tests bring the link emulator of `proto::link` on a clock that jumps. Real ones are
//! in [`sockets`], for `trocar link` and for whoever answers it.
#![forbid(unsafe_code)]

#[cfg(feature = "report")]
pub mod classes;
pub mod measure;
pub mod rate;
#[cfg(feature = "report")]
pub mod report;
pub mod result;
#[cfg(feature = "sockets")]
pub mod sockets;
