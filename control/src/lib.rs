//! The channel between an expert's station, signaling and the gate (docs/CONTROL.md; HANDOVER.md sections 5 and 3).
//!
//! - [`trust`]: the trust list, a directory with `ca.pem` and `crl.pem`, and who a certificate says it is.
//! - [`token`]: session tokens, checked against an issuer's pinned key.
//! - [`transport`]: one QUIC connection to a relay's rendezvous, its tunnels and datagrams.
//! - [`channel`]: mutual TLS 1.3 inside a tunnel, and the messages in it.
//! - [`seal`]: HB, CMD and BEACON, sealed with keys from the channel's exporter.
//! - [`consent`]: the patient's consent as a signed document; [`audit`]: the gate's audit chain, its check and its story.
//! - [`joining`]: a device's certificate in place of a login.
//! - [`signed`]: words that the owner of a certificate has signed.
//! - [`clock`]: the clock of gate and stations.
//! - [`process`]: what a process takes of its machine, for Prometheus.
//! - [`evdev`]: Linux input events of pedals, buttons and gamepads, as bytes.
//! - [`big`]: words that are read across a room.
//! - `manual` (feature of that name): man pages and completions of whoever has a command line.
//!
//! The relay is taken to be hostile: everything that it says is a hint, and what counts is what the channel proves.

pub mod audit;
pub mod big;
pub mod channel;
pub mod clock;
pub mod consent;
pub mod evdev;
pub mod joining;
#[cfg(feature = "manual")]
pub mod manual;
pub mod process;
pub mod seal;
pub mod signed;
pub mod token;
pub mod transport;
pub mod trust;
