//! The simulated device, `trocar-sim-device`: an arm of six axes with a camera, its own watchdog, and the rule of
//! `proto::handover::fence` itself.
//!
//! One thread, [`serve`], does all that counts and waits for nothing but its socket, a millisecond at most. Disk, record, drawing and
//! inputs have threads of their own.

mod arm;
mod controller;
mod draw;
mod fault;
mod follow;
mod inputs;
mod keep;
mod peers;
mod record;
mod server;

pub use arm::Arm;
pub use controller::{Controller, Outcome, Status};
pub use fault::Fault;
pub use follow::follow;
pub use server::{Options, SimError, serve};
