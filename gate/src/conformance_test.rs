//! `trocar-gate device-test`: the rules of the fence, tried out on a device.

use crate::device::Key;
use crate::device::conformance::{self, Alone, Payloads, Target};
use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Which device, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    address: SocketAddr,
    /// The key that both have: 64 hexadecimal digits, mode 600.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// A payload that moves nothing, in hexadecimal, for a device that does not speak the `sim` format.
    #[arg(long, value_name = "HEX")]
    still: Option<String>,
    /// How much later than it says the watchdog may be seen, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 50)]
    margin_ms: u64,
    /// Nobody is near the device, and it may move.
    #[arg(long)]
    it_may_move: bool,
}

/// Prints the table. Exit status 1 where a check failed.
///
/// # Errors
/// Where the device could not be tested at all.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.it_may_move {
        bail!(
            "the test selects remote and sends commands: make sure that nobody is near the device, then add --it-may-move"
        );
    }
    let mut target = Target::new(args.address, Key::load(&args.key_file)?);
    target.margin = args.margin_ms.saturating_mul(1_000);
    if let Some(still) = &args.still {
        target.payloads = Payloads::Still(hex::decode(still).context("--still: hexadecimal digits are right")?);
    }
    let report = conformance::run(&target, &mut Alone, &mut |check| eprintln!("{} {}", check.number, check.name))?;
    print!("{report}");
    Ok(if report.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
