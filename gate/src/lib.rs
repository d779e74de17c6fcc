//! The gate beside the device: drives `proto::handover::gate` and connects it with the world.
//!
//! One thread, [`core`], owns the register and is the only one that calls it. Everybody else hands it [`core::Event`]s by one
//! bounded queue and gets what is to be done by the traits and queues below; nothing on the way from a command to the device waits
//! for anything else:
//!
//! - [`means`]: network and frames, as far as they stand; [`troubles`]: what does not, and why.
//! - [`fail_stop`]: a gate that is half dead ends; [`realtime`]: threads that wait for nobody else.
//! - [`net`]: control connections and channels; opens and seals datagrams.
//! - [`device`]: adapters for what moves.
//! - [`store`]: epoch blocks and the audit chain, on disk ahead of use.
//! - [`sim`]: the device of `trocar-sim-device`.
//! - [`frames`]: what the publisher says it captured.
//! - [`console`]: terminal screen, loopback page, hardware input.
//! - [`stdio`]: a console for scripts.
//! - [`consent`]: the patient's consent, watched.
//! - [`config`]: one file; [`check`]: what is in effect, for people.
//! - [`cli`]: the command lines of `trocar-gate` and `trocar-sim-device`.

pub mod check;
pub mod cli;
pub mod config;
pub mod conformance_test;
pub mod consent;
pub mod console;
pub mod core;
pub mod device;
mod doors;
pub mod fail_stop;
pub mod frames;
pub mod means;
pub mod net;
pub mod realtime;
pub mod run;
pub mod sim;
pub mod stdio;
pub mod store;
pub mod troubles;
