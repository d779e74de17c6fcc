//! The command lines of both programs, in one place so that man pages and completions of both are made from them.

use crate::conformance_test;
use crate::run::ConsoleKind;
use crate::sim::Fault;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use trocar_control::manual::{self, Shell};

/// The arbiter beside the device: holds the only register of who may operate.
///
/// It runs next to what moves, decides by itself, and needs no network for TAKE, ESTOP and HOLD.
#[derive(Debug, Parser)]
#[command(name = "trocar-gate", version)]
pub struct Gate {
    /// What is to be done.
    #[command(subcommand)]
    pub verb: GateVerb,
}

/// The verbs of `trocar-gate`.
#[derive(Debug, Subcommand)]
pub enum GateVerb {
    /// Run the gate.
    Run {
        /// Its configuration (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The console in this terminal: `screen`, `stdio` (JSON lines, for scripts) or `none`; what the section `console` says otherwise.
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
    /// Write the man pages of both programs into a directory.
    #[command(hide = true)]
    Manual {
        /// The directory; made where it is not there.
        dir: PathBuf,
    },
    /// Print completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: Shell,
        /// Of which program.
        #[arg(value_enum, default_value = "trocar-gate")]
        program: Program,
    },
}

/// A simulated device: six axes, a grip, a camera, energy, a watchdog, and the fence rule of proto/HANDOVER.md section 3.
///
/// It moves nothing but numbers. It speaks the datagrams of docs/DEVICES.md. SIGUSR1 is the hardware override to local, SIGUSR2 pushes
/// the camera by hand, SIGTERM ends it.
#[derive(Debug, Parser)]
#[command(name = "trocar-sim-device", version)]
pub struct SimDevice {
    /// Where it listens for its gate; port 0 takes a free one, which is printed.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7600")]
    pub listen: SocketAddr,
    /// Key in common with the gate: 64 hexadecimal digits or 32 bytes, readable by its owner only.
    #[arg(long, value_name = "FILE", required_unless_present = "follow")]
    pub key_file: Option<PathBuf>,
    /// Draw a new key into --key-file where there is none.
    #[arg(long)]
    pub make_key: bool,
    /// Where the highest fence is kept; without it every start is the first.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// What the device does, as JSON lines with CLOCK_BOOTTIME in microseconds; written at the end of the file.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Begin the record anew when it is longer than so many mebibytes.
    #[arg(long, value_name = "MIB", requires = "record", value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub record_limit: Option<u64>,
    /// Be no device: draw another one from its record.
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub follow: Option<PathBuf>,
    /// Without a keep-alive for so many milliseconds it holds, while remote is selected.
    #[arg(long, value_name = "MS", default_value_t = 150, value_parser = clap::value_parser!(u32).range(20..=1_000))]
    pub watchdog: u32,
    /// Local moves the arm slowly to and fro whenever local is selected.
    #[arg(long)]
    pub local_motion: bool,
    /// Take lines from standard input: override, camera, quit.
    #[arg(long)]
    pub override_input: bool,
    /// Draw the arm on the terminal.
    #[arg(long)]
    pub draw: bool,
    /// Be wrong in this way. For testing the conformance test, and for nothing else.
    #[arg(long = "break", value_name = "FAULT", hide = true, ignore_case = true)]
    pub fault: Option<Fault>,
}

/// The programs of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Program {
    /// The gate.
    #[value(name = "trocar-gate")]
    Gate,
    /// The simulated device.
    #[value(name = "trocar-sim-device")]
    SimDevice,
}

/// Writes the man pages of both programs into a directory that it makes.
///
/// # Errors
/// Where the directory cannot be made, or a file not be written.
pub fn write_pages(dir: &Path) -> std::io::Result<()> {
    manual::write_pages(Gate::command(), dir)?;
    manual::write_pages(SimDevice::command(), dir)
}

/// Completions for a shell, as text.
#[must_use]
pub fn completions(program: Program, shell: Shell) -> String {
    let command = match program {
        Program::Gate => Gate::command(),
        Program::SimDevice => SimDevice::command(),
    };
    manual::completions(command, shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_command_lines_are_well_formed_and_hidden_verbs_have_no_page() {
        Gate::command().debug_assert();
        SimDevice::command().debug_assert();
        let dir = tempfile::tempdir().unwrap();
        write_pages(dir.path()).unwrap();
        let mut pages: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        pages.sort();
        let verbs = ["check", "device-test", "new-store", "run"].map(|verb| format!("trocar-gate-{verb}.1"));
        let want: Vec<_> = verbs.into_iter().chain(["trocar-gate.1".into(), "trocar-sim-device.1".into()]).collect();
        assert_eq!(pages, want);
        assert!(!std::fs::read_to_string(dir.path().join("trocar-sim-device.1")).unwrap().contains("break"));
    }
}
