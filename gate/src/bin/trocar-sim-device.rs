//! `trocar-sim-device`: an arm to try handing over with, as a process of its own beside the gate.

use anyhow::Context as _;
use clap::Parser as _;
use std::process::ExitCode;
use trocar_gate::cli::SimDevice;
use trocar_gate::device::Key;
use trocar_gate::sim::{Options, follow, serve};

fn main() -> ExitCode {
    let cli = SimDevice::parse();
    if !cli.draw && cli.follow.is_none() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trocar-sim-device: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: SimDevice) -> anyhow::Result<()> {
    if let Some(record) = cli.follow {
        return follow(&record).with_context(|| format!("--follow {}", record.display()));
    }
    let key_file = cli.key_file.context("--key-file is missing")?;
    let makes = cli.make_key && !key_file.exists();
    let key = if makes { Key::create(&key_file) } else { Key::load(&key_file) }?;
    if let Some(fault) = cli.fault {
        tracing::warn!(?fault, "this device is wrong on purpose");
    }
    let options = Options {
        listen: cli.listen,
        key,
        state: cli.state,
        record: cli.record,
        record_limit: cli.record_limit.map(|mib| mib << 20),
        watchdog: cli.watchdog * 1_000,
        local_motion: cli.local_motion,
        lines: cli.override_input,
        draw: cli.draw,
        fault: cli.fault,
    };
    let draws = cli.draw;
    serve(options, |address| {
        if !draws {
            println!("listening on {address}");
        }
    })?;
    Ok(())
}
