//! What is typed after `trocar link`.

use crate::net::path::PathSpec;
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use trocar_link::rate::mbit_s;

/// Longest key, in bytes.
const KEY_BYTES_MAX: u64 = 4_096;

/// As [`trocar_link::classes::Fit::exit_code`] has it.
const EXIT_STATUS: &str = "Exit status: 0 fit, or fit with limits; 99 not fit; 1 it could not be measured, or a figure that the class \
                           needs is missing; 2 a mistake on the command line. --watch: that of the worst run.";

/// Measure a line, or be the end that is measured against.
#[derive(clap::Subcommand)]
pub(crate) enum LinkCommand {
    /// Is this line fit for surgery? Measures it against `trocar link serve`, and says what of a relay can be reached.
    #[command(after_help = EXIT_STATUS)]
    Test(Box<TestArgs>),
    /// The other end of a measurement. It sends nothing to whoever has not shown that it is there.
    Serve(super::serve::ServeArgs),
}

/// What to measure.
#[derive(clap::Args, Clone)]
pub(crate) struct TestArgs {
    /// HOST or HOST:PORT of a `trocar link serve`, or the link of an engineer's invitation to a session at a relay with `[link_test]`.
    pub(super) target: String,
    /// How long to measure, in seconds; a few more for setting up and waiting.
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub(super) duration: f64,
    /// Class of surgery that the line is to be fit for: see docs/LINK.md.
    #[arg(long = "profile", visible_alias = "class", value_name = "CLASS", default_value = "telementoring-4k")]
    pub(super) class: String,
    /// File of classes in place of the built-in ones.
    #[arg(long, value_name = "FILE")]
    pub(super) classes: Option<PathBuf>,
    /// We are the expert's end: what goes up in a class comes down here.
    #[arg(long)]
    pub(super) at_expert: bool,
    /// Highest rate to try, each way, in bits per second; what the class needs and a quarter more where left out.
    #[arg(long, value_name = "RATE", value_parser = mbit_s)]
    pub(super) max_rate: Option<f64>,
    /// Local address to leave by, LOCAL_IP or LOCAL_IP=HOST:PORT; a second one is measured beside the first.
    #[arg(long, value_name = "PATH")]
    pub(super) path: Vec<PathSpec>,
    /// Find out for how long a NAT keeps a mapping that rests, up to so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) nat_timeout: Option<f64>,
    /// Relay to measure, where several run apart from signaling: its name in signaling's configuration.
    #[arg(long, value_name = "NAME")]
    pub(super) relay: Option<String>,
    /// File with the key that `trocar link serve` was given.
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// Trust list for a relay: the certificate of the authority that signed its own.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Write the report as JSON; - is standard output, and progress goes to standard error.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write the report as one page of HTML.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write the checks as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,
    /// Measure again and again, a run every so many seconds, and say when the verdict changes.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) watch: Option<f64>,
    /// Runs after which --watch ends.
    #[arg(long, value_name = "NUMBER", requires = "watch")]
    pub(super) runs: Option<u32>,
}

/// A time in seconds, with or without its unit.
pub(super) fn seconds(s: &str) -> Result<f64, String> {
    let number = s.strip_suffix('s').unwrap_or(s);
    let value = number.parse::<f64>().ok().filter(|v| (1.0..=86_400.0).contains(v));
    value.ok_or_else(|| "1 to 86400 seconds are right, as in 30 or 30s".to_owned())
}

/// The bytes of a key file without the space around them; none where there is no file.
pub(super) fn read_key(file: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let size = std::fs::metadata(file).with_context(|| format!("--key-file {}", file.display()))?.len();
    if size > KEY_BYTES_MAX {
        bail!("--key-file {}: {size} bytes, at most {KEY_BYTES_MAX} are right", file.display());
    }
    let bytes = std::fs::read(file).with_context(|| format!("--key-file {}", file.display()))?;
    let key = bytes.trim_ascii().to_vec();
    if key.is_empty() {
        bail!("--key-file {} is empty: a line of random text is right", file.display());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_mistakes_are_told_what_is_right() {
        assert_eq!((seconds("30"), seconds("2.5s")), (Ok(30.0), Ok(2.5)));
        for bad in ["", "0", "s", "1e9", "nan"] {
            assert!(seconds(bad).is_err_and(|e| e.contains("30s")), "{bad}");
        }
    }
}
