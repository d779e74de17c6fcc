//! `trocar-relay`: a relay apart from signaling, which asks it over the network (docs/CLUSTER.md).

mod config;
mod figures;
mod run;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use config::{Config, Log};
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use trocar_control::manual;

/// A relay apart from signaling: carries feeds between publishers, viewers and other relays.
///
/// Signaling asks it what to carry over HTTP with mutual TLS. When signaling goes away, what runs goes on.
#[derive(Debug, Parser)]
#[command(name = "trocar-relay", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the relay.
    Run {
        /// Its configuration (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print addresses as one JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Say whether a configuration is right.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Write the man pages into a directory.
    #[command(hide = true)]
    Manual {
        /// The directory; made where it is not there.
        dir: PathBuf,
    },
    /// Print completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: manual::Shell,
    },
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trocar-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Run { config, json } => {
            fail_stop();
            let config = Config::read(&config)?;
            start_log(&config.log)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(run::run(config, json))
        }
        Verb::Check { config } => {
            let read = Config::read(&config)?;
            run::check(&read)?;
            print(&format!("{}: ok\n", config.display()))
        }
        Verb::Manual { dir } => {
            manual::write_pages(Cli::command(), &dir).with_context(|| format!("cannot write into {}", dir.display()))
        }
        Verb::Completions { shell } => print(&manual::completions(Cli::command(), shell)),
    }
}

/// A reader that went away is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Ends the process at a panic of any thread: one that is gone is noticed and started anew within a second, one that is half
/// dead is not.
fn fail_stop() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(f) => f.parse::<EnvFilter>().with_context(|| format!("{} = {f:?}", EnvFilter::DEFAULT_ENV))?,
        Err(_) => log.filter.parse::<EnvFilter>()?,
    };
    // The ICE library warns of every odd attribute that a peer sends: not a thing that a peer may fill a disk with.
    let filter = filter.add_directive("is=error".parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        builder.json().init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init()
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
