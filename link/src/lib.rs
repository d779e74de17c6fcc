//! Is this line fit for surgery? What a network engineer measures before a patient is on the table: the measurement's protocol
//! and estimators ([`measure`]), what is compared with what the classes of surgery need ([`classes`]), and what is handed over
//! ([`report`]). No sockets and no clocks here: `trocar link` (client-cli) brings them, and tests bring the link emulator of
//! `proto::link` on a clock that jumps.
#![forbid(unsafe_code)]

pub mod classes;
pub mod measure;
pub mod report;
pub mod result;
