//! Handing over operation authority: the rules of `proto/HANDOVER.md`, as values in and values out.
//!
//! - [`gate`]: the arbiter at the patient's side, with the only register of who may operate.
//! - [`fence`]: the device's own rule, by which a second or a late gate is refused.
//! - [`station`]: the expert's side.
//! - [`mirror`]: what relay and screens may believe.
//! - [`links`]: green, amber, red. [`consent`]: the highest serial decides. [`bursts`]: refused datagrams, told once.
//! - [`frameproof`]: what publisher and viewer say of a frame. [`device_wire`]: between gate and device.
//! - [`paths`]: two ways between station and gate.
//! - [`message`]: what travels. [`checks`]: every check by its name. [`config`]: every timer.
//!
//! Nobody here reads a clock or draws a number; `now` is the boot clock of whoever drives the machine, and no two of them are ever
//! compared. Numbers like `HO-G-012` are those of HANDOVER.md.

pub mod bursts;
pub mod checks;
pub mod config;
pub mod consent;
pub mod device_wire;
pub mod fence;
pub mod frameproof;
pub mod gate;
pub mod links;
pub mod message;
pub mod mirror;
pub mod paths;
pub mod station;
pub mod types;
mod words;

#[cfg(trocar_model)]
pub mod canon;
#[cfg(any(test, trocar_model))]
pub mod mutants;
#[cfg(any(test, trocar_model))]
mod rig;
#[cfg(any(test, trocar_model))]
pub mod sim;
