//! `trocar-gate`: the arbiter beside the device.

use anyhow::Context as _;
use clap::Parser as _;
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;
use trocar_gate::cli::{self, Gate, GateVerb};
use trocar_gate::config::Config;
use trocar_gate::{check, conformance_test, run, store};
use trocar_proto::handover::types::Epoch;

fn main() -> ExitCode {
    match act(Gate::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trocar-gate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: GateVerb) -> anyhow::Result<ExitCode> {
    match verb {
        GateVerb::Run { config, console } => {
            let config = Config::read(&config)?;
            run::run(config, console)?;
        }
        GateVerb::Check { config } => {
            let read = Config::read(&config)?;
            print(&format!("{}: right\n{}", config.display(), check::in_effect(&read)))?;
        }
        GateVerb::DeviceTest(args) => return conformance_test::run(&args),
        GateVerb::NewStore { dir, above } => {
            store::create(&dir, Epoch(above)).map_err(anyhow::Error::msg).context("--dir")?;
            println!("{}: the first epoch will be {}", dir.display(), above.saturating_add(1));
        }
        GateVerb::Manual { dir } => {
            cli::write_pages(&dir).with_context(|| format!("cannot write into {}", dir.display()))?;
        }
        GateVerb::Completions { shell, program } => print(&cli::completions(program, shell))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A reader that went away is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
