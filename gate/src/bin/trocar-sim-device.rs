//! `trocar-sim-device`: an arm to try handing over with, as a process of its own beside the gate.

use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use trocar_gate::device::Key;
use trocar_gate::sim::{Fault, Options, serve};

/// A simulated device: six axes, a grip, a camera, energy, a watchdog, and the fence rule of proto/HANDOVER.md section 3.
///
/// It speaks the datagrams of docs/DEVICES.md. SIGUSR1 is the hardware override to local, SIGUSR2 pushes the camera by hand, SIGTERM
/// ends it.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    /// Where it listens for its gate; port 0 takes a free one, which is printed.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7600")]
    listen: SocketAddr,
    /// Key in common with the gate: 64 hexadecimal digits or 32 bytes, readable by its owner only.
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Draw a new key into --key-file where there is none.
    #[arg(long)]
    make_key: bool,
    /// Where the highest fence is kept; without it every start is the first.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// What the device does, as JSON lines with CLOCK_BOOTTIME in microseconds; written at the end of the file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Without a keep-alive for so many milliseconds it holds, while remote is selected.
    #[arg(long, value_name = "MS", default_value_t = 150, value_parser = clap::value_parser!(u32).range(20..=1_000))]
    watchdog: u32,
    /// Local moves the arm slowly to and fro whenever local is selected.
    #[arg(long)]
    local_motion: bool,
    /// Take lines from standard input: override, camera, quit.
    #[arg(long)]
    override_input: bool,
    /// Draw the arm on the terminal.
    #[arg(long)]
    draw: bool,
    /// Be wrong in this way. For testing the conformance test, and for nothing else.
    #[arg(long = "break", value_name = "FAULT", hide = true, ignore_case = true)]
    fault: Option<Fault>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !cli.draw {
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

fn run(cli: Cli) -> anyhow::Result<()> {
    let makes = cli.make_key && !cli.key_file.exists();
    let key = if makes { Key::create(&cli.key_file) } else { Key::load(&cli.key_file) }?;
    if let Some(fault) = cli.fault {
        tracing::warn!(?fault, "this device is wrong on purpose");
    }
    let options = Options {
        listen: cli.listen,
        key,
        state: cli.state,
        record: cli.record,
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
