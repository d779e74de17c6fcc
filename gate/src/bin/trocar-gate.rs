//! `trocar-gate`: the arbiter beside the device.

use anyhow::Context as _;
use clap::Parser as _;
use std::path::PathBuf;
use std::process::ExitCode;
use trocar_gate::config::Config;
use trocar_gate::run::{self, ConsoleKind};
use trocar_gate::{conformance_test, store};
use trocar_proto::handover::types::Epoch;

/// The arbiter beside the device: holds the only register of who may operate.
///
/// It runs next to what moves, decides by itself, and needs no network for TAKE, ESTOP and HOLD.
#[derive(Debug, clap::Parser)]
#[command(name = "trocar-gate", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Run the gate.
    Run {
        /// Its configuration (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The console in this terminal: `screen`, `stdio` (JSON lines, for scripts) or `none`; what [console] says otherwise.
        #[arg(long, value_enum)]
        console: Option<ConsoleKind>,
    },
    /// Say whether a configuration is right, and what is in effect.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show that a device controller keeps the fence's rules (docs/DEVICES.md). It selects, moves and stops the device: nobody may be
    /// near it.
    DeviceTest(conformance_test::Args),
    /// Make a new store for a device whose store was lost; the device shows its highest fence on the console.
    NewStore {
        /// Where.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The highest fence that the device shows.
        #[arg(long, value_name = "FENCE")]
        above: u64,
    },
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trocar-gate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run { config, console } => {
            let config = Config::read(&config)?;
            run::run(config, console)?;
        }
        Verb::Check { config } => {
            let read = Config::read(&config)?;
            println!("{}: right. Session {}, relays: {}", config.display(), read.session.id, read.relays.len());
        }
        Verb::DeviceTest(args) => return conformance_test::run(&args),
        Verb::NewStore { dir, above } => {
            store::create(&dir, Epoch(above)).map_err(anyhow::Error::msg).context("--dir")?;
            println!("{}: the first epoch will be {}", dir.display(), above.saturating_add(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}
