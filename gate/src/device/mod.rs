//! Adapters for what moves: a controller behind UDP, or a program of the user's own.
//!
//! [`open`] gives what the core drives. An adapter has threads of its own for whatever may wait; [`core::Device::act`] only hands over,
//! and what cannot be handed over is lost and counted, since a device that misses keep-alives holds by itself. Reports go into the
//! inbox. docs/DEVICES.md is for people who build devices, [`conformance`] is how they test them.
//!
//! [`core::Device::act`]: crate::core::Device::act

mod config;
pub mod conformance;
mod inside;
mod key;
mod program;
mod seen;
mod udp;
pub mod words;

pub use config::{DeviceConfig, PayloadFormat};
pub use inside::{Inside, in_process};
pub use key::Key;
pub(crate) use key::draw_run;

use crate::core;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The key file cannot be read or written.
    #[error("key_file {}: {source}", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key file has something else in it.
    #[error("key_file {}: must be 64 hexadecimal digits, or 32 bytes", path.display())]
    Key {
        /// Which.
        path: PathBuf,
    },
    /// Others can read the key.
    #[error("key_file {}: others can read it (mode {mode:03o}); chmod 600 it", path.display())]
    KeyMode {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// No socket.
    #[error("address {address}: {source}")]
    Socket {
        /// Of the device.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The program does not start.
    #[error("program {}: {source}", program.display())]
    Program {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No thread.
    #[error("a thread for the device: {0}")]
    Thread(std::io::Error),
}

/// Opens the adapter. Its reports begin to come into `inbox` at once, on [`core::Lane::Device`].
///
/// # Errors
/// [`DeviceError`]: key, socket or program. A device that does not answer is no error: it is silent, and the gate sees that.
pub fn open(config: &DeviceConfig, inbox: core::Inbox) -> Result<Box<dyn core::Device>, DeviceError> {
    open_counted(config, inbox, Arc::default())
}

/// As [`open`], with counters that the caller can show.
///
/// # Errors
/// As [`open`].
pub fn open_counted(
    config: &DeviceConfig,
    inbox: core::Inbox,
    counters: Arc<Counters>,
) -> Result<Box<dyn core::Device>, DeviceError> {
    let reports = seen::Reports::new(inbox, Arc::clone(&counters));
    match config {
        DeviceConfig::Udp { address, key_file, payload } => {
            let key = Key::load(key_file)?;
            Ok(Box::new(udp::Udp::open(*address, key, *payload, reports, counters)?))
        }
        DeviceConfig::Stdio { program, args, payload } => {
            Ok(Box::new(program::Program::open(program, args, *payload, reports, counters)?))
        }
    }
}

/// What an adapter counts, for the foot of a screen. Cheap to read at any time.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    lost: AtomicU64,
    outside: AtomicU64,
    reports: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    /// Names and values.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 5] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("device acts sent", read(&self.sent)),
            ("device acts lost", read(&self.lost)),
            ("device commands outside the set", read(&self.outside)),
            ("device reports", read(&self.reports)),
            ("device reports refused", read(&self.refused)),
        ]
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Any port of the family that `address` is of.
pub(crate) const fn any_of(address: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    match address {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}
