//! `trocar impair`: a bad line between two programs, by the link model of `proto::link`. See docs/IMPAIR.md.

mod alarm;
mod flags;
mod profiles;
mod proxy;
mod report;
mod socket;

use crate::stop::Stop;
use anyhow::{Context as _, bail};
use proxy::Proxy;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trocar_proto::link::config::{Blackout, Delay, Line, Loss, Reorder};
use trocar_proto::link::trace::Trace;
use trocar_proto::link::{LinkConfig, Profile};

/// Largest trace file, in bytes.
const TRACE_BYTES_MAX: u64 = 64 << 20;

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct ImpairArgs {
    /// UDP address that clients send to; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", value_parser = resolve)]
    listen: SocketAddr,
    /// UDP address that their packets go to.
    #[arg(long, value_name = "ADDR", value_parser = resolve)]
    to: SocketAddr,
    /// What the line does, in both directions: a file (docs/IMPAIR.md), or a name such as 5g-busy; `list` lists the names.
    /// The flags below go before it.
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// Delay of each direction, as in 20ms.
    #[arg(long, value_name = "TIME", value_parser = flags::milliseconds)]
    delay: Option<f64>,
    /// The delay is even between so much less and so much more, without reordering.
    #[arg(long, value_name = "TIME", value_parser = flags::milliseconds, requires = "delay")]
    jitter: Option<f64>,
    /// Loss of each direction, as in 1%.
    #[arg(long, value_name = "SHARE", value_parser = flags::percent)]
    loss: Option<f64>,
    /// Packets lost in a row, on average.
    #[arg(long, value_name = "PACKETS", requires = "loss")]
    burst: Option<f64>,
    /// Packets put back behind the three that follow, as in 1%.
    #[arg(long, value_name = "SHARE", value_parser = flags::percent)]
    reorder: Option<f64>,
    /// Packets that come twice, as in 1%.
    #[arg(long, value_name = "SHARE", value_parser = flags::percent)]
    duplicate: Option<f64>,
    /// Packets in which one bit is turned, as in 0.1%.
    #[arg(long, value_name = "SHARE", value_parser = flags::percent)]
    corrupt: Option<f64>,
    /// Rate of each direction in bits per second, as in 50M.
    #[arg(long, value_name = "RATE", value_parser = flags::mbit_s)]
    rate: Option<f64>,
    /// Room for packets that wait for the line, as in 100ms.
    #[arg(long, value_name = "TIME", value_parser = flags::milliseconds, requires = "rate")]
    queue: Option<f64>,
    /// A time in which nothing gets through, as in 5s+200ms; may be given again.
    #[arg(long, value_name = "BEGIN+LENGTH", value_parser = flags::blackout)]
    blackout: Vec<Blackout>,
    /// Seconds after a client's first packet at which the target sees it under another port.
    #[arg(long, value_name = "SECONDS")]
    rebind_after: Option<f64>,
    /// The same seed loses, doubles, delays and corrupts the same packets. One is drawn and printed where left out.
    #[arg(long)]
    seed: Option<u64>,
    /// File for what became of each packet, as JSON lines.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Seconds until it ends by itself.
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    /// Seconds of silence after which a client is forgotten.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    idle: f64,
    /// Clients at a time. Packets of others are refused and counted.
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    clients_max: u16,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

/// What will be done.
struct Plan {
    listen: SocketAddr,
    to: SocketAddr,
    profile: Profile,
    seed: u64,
    ledger: Option<PathBuf>,
    duration_us: Option<u64>,
    idle_us: u64,
    clients_max: usize,
    json: bool,
}

/// Works until it is stopped, then says what it did.
pub(crate) fn run(args: &ImpairArgs) -> anyhow::Result<()> {
    let plan = args.plan()?;
    let (json, seed, to, title) = (plan.json, plan.seed, plan.to, plan.profile.title.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = Stop::on_signals()?;
        let proxy = Proxy::new(plan)?;
        let listen = proxy.address();
        if json {
            let ready =
                serde_json::json!({ "event": "ready", "listen": listen, "to": to, "seed": seed, "title": title });
            println!("{ready}");
        } else {
            println!("{listen} -> {to}, seed {seed}{}{title}", if title.is_empty() { "" } else { ": " });
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        let bell = proxy.bell();
        tokio::spawn(async move {
            stop.requested().await;
            flag.store(true, Ordering::Relaxed);
            bell.ring();
        });
        proxy.run(&stopped).await?.print();
        Ok(())
    })
}

fn resolve(s: &str) -> Result<SocketAddr, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{why}; host:port is right, as in 127.0.0.1:5000");
    let found = s.to_socket_addrs().map_err(|e| wrong(&e))?.next();
    found.ok_or_else(|| wrong(&"nothing known of it"))
}

impl ImpairArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        let mut profile = self.profile.as_deref().map_or_else(|| Ok(Profile::default()), profiles::read)?;
        self.overlay(&mut profile.up);
        self.overlay(&mut profile.down);
        profile.rebind_after_s = self.rebind_after.or(profile.rebind_after_s);
        profile.check().with_context(|| self.profile.clone().unwrap_or_else(|| "the flags".to_owned()))?;
        if self.listen == self.to {
            bail!("--listen and --to are both {}: two addresses are right", self.to);
        }
        Ok(Plan {
            listen: self.listen,
            to: self.to,
            profile,
            seed: self.seed.unwrap_or_else(drawn_seed),
            ledger: self.ledger.clone(),
            duration_us: self.duration.map(|s| micros("--duration", s)).transpose()?,
            idle_us: micros("--idle", self.idle)?,
            clients_max: self.clients_max.into(),
            json: self.json,
        })
    }

    /// What was typed goes before what the profile says.
    fn overlay(&self, link: &mut LinkConfig) {
        if let Some(ms) = self.delay {
            link.delay = match self.jitter {
                Some(jitter) => Delay::Uniform { min_ms: ms - jitter, max_ms: ms + jitter },
                None => Delay::Constant { ms },
            };
        }
        if let Some(percent) = self.loss {
            link.loss = Some(match self.burst {
                Some(burst_packets) => Loss::Bursts { percent, burst_packets },
                None => Loss::Random { percent },
            });
        }
        if let Some(percent) = self.reorder {
            link.reorder = Some(Reorder { percent, gap_packets: 3, hold_ms: 100.0 });
        }
        link.duplicate_percent = self.duplicate.unwrap_or(link.duplicate_percent);
        link.corrupt_percent = self.corrupt.unwrap_or(link.corrupt_percent);
        if self.rate.is_some() {
            link.line = Some(Line { mbit_s: self.rate, queue_ms: self.queue, ..Line::default() });
        }
        if !self.blackout.is_empty() {
            link.blackout.clone_from(&self.blackout);
        }
    }
}

fn micros(flag: &str, seconds: f64) -> anyhow::Result<u64> {
    if !(0.001..=31.0 * 86_400.0).contains(&seconds) {
        bail!("{flag} {seconds}: 0.001 to 2678400 seconds are right");
    }
    Ok(Duration::from_secs_f64(seconds).as_micros() as u64)
}

/// A seed for who gave none. It is printed, so that it can be given again.
fn drawn_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| u64::from(t.subsec_nanos()))
}

fn read_profile(path: &Path) -> anyhow::Result<Profile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let profile = parse_profile(&text, path.parent().unwrap_or(Path::new("")));
    profile.with_context(|| path.display().to_string())
}

/// Traces are found beside the profile.
fn parse_profile(text: &str, beside: &Path) -> anyhow::Result<Profile> {
    let mut profile: Profile = toml::from_str(text)?;
    for (section, link) in [("up", &mut profile.up), ("down", &mut profile.down)] {
        let Some(line) = &mut link.line else { continue };
        let Some(file) = &line.trace_file else { continue };
        let file = beside.join(file);
        let key = || format!("{section}.line.trace_file = {}", file.display());
        let size = std::fs::metadata(&file).with_context(key)?.len();
        if size > TRACE_BYTES_MAX {
            bail!("{}: {size} bytes, at most {TRACE_BYTES_MAX} are right", key());
        }
        let text = std::fs::read_to_string(&file).with_context(key)?;
        line.trace = Some(Trace::parse(&text).with_context(key)?);
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: ImpairArgs,
    }

    fn plan(flags: &[&str]) -> anyhow::Result<Plan> {
        let fixed = ["impair", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:9"];
        <Typed as clap::Parser>::try_parse_from(fixed.iter().chain(flags))?.args.plan()
    }

    fn wrong(text: &str) -> String {
        let parsed = parse_profile(text, Path::new("/nonexistent")).and_then(|p| Ok(p.check()?));
        format!("{:#}", parsed.unwrap_err())
    }

    #[test]
    fn a_profile_says_everything_that_the_model_knows() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lte.trace"), "1\n2\n").unwrap();
        let text = "
            title = 'rough'
            source = 'made up'
            rebind_after_s = 3
            [up]
            jitter_reorders = true
            duplicate_percent = 0.1
            corrupt_percent = 0.2
            delay = { shape = 'normal', mean_ms = 20, sd_ms = 2 }
            loss = { model = 'gilbert_elliott', to_bad_percent = 1, to_good_percent = 20, bad_percent = 90 }
            reorder = { percent = 1, gap_packets = 2 }
            line = { mbit_s = 50, queue_ms = 30, queue_bytes = 100000, drop = 'head', overhead_bytes = 28 }
            [[up.blackout]]
            start_ms = 100
            length_ms = 5
            every_ms = 1000
            [down]
            delay = { shape = 'pareto', base_ms = 10, scale_ms = 1, alpha = 1.5, max_ms = 300 }
            loss = { model = 'bursts', percent = 1, burst_packets = 4 }
            line = { trace_file = 'lte.trace' }
        ";
        let profile = parse_profile(text, dir.path()).unwrap();
        profile.check().unwrap();
        assert_eq!(profile.up.delay, Delay::Normal { mean_ms: 20.0, sd_ms: 2.0, min_ms: 0.0, max_ms: None });
        assert_eq!(profile.up.blackout[0].every_ms, Some(1_000.0));
        assert!(profile.down.line.unwrap().trace.is_some());
    }

    #[test]
    fn the_profile_in_the_manual_is_right() {
        let manual = include_str!("../../docs/IMPAIR.md");
        let (_, from) = manual.split_once("```toml\n").unwrap();
        let (text, _) = from.split_once("```").unwrap();
        let profile = parse_profile(text, Path::new("")).unwrap();
        profile.check().unwrap();
        assert_eq!(profile.up.blackout.len(), 1);
    }

    #[test]
    fn a_mistake_in_a_profile_is_named_with_what_would_be_right() {
        for (text, wants) in [
            ("[up]\ndelai = 3", vec!["unknown field `delai`", "`delay`"]),
            ("[sideways]", vec!["unknown field `sideways`", "`up`"]),
            ("[up.delay]\nshape = 'constant'\nsecs = 1", vec!["secs", "ms"]),
            ("[up.delay]\nshape = 'bell'", vec!["bell", "constant", "pareto"]),
            ("[up.delay]\nshape = 'constant'\nms = 'long'", vec!["long"]),
            ("[up.loss]\nmodel = 'random'\npercent = 101", vec!["up.loss.percent = 101", "0 to 100"]),
            ("[down.line]\ntrace_file = 'none.trace'", vec!["down.line.trace_file = /nonexistent/none.trace"]),
            ("[down.line]\nqueue_ms = 3", vec!["down.line.mbit_s", "trace_file"]),
        ] {
            let error = wrong(text);
            for want in wants {
                assert!(error.contains(want), "{want:?} is not in: {error}");
            }
        }
    }

    #[test]
    fn flags_are_for_both_directions_and_go_before_the_profile() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.toml");
        std::fs::write(&file, "[up]\ncorrupt_percent = 2\nloss = { model = 'random', percent = 9 }").unwrap();
        let path = file.to_str().unwrap();
        let all = ["--profile", path, "--delay", "20ms", "--jitter", "5ms", "--loss", "1%", "--rate", "50M"];
        let plan = plan(&all).unwrap();
        for link in [&plan.profile.up, &plan.profile.down] {
            assert_eq!(link.delay, Delay::Uniform { min_ms: 15.0, max_ms: 25.0 });
            assert_eq!(link.loss, Some(Loss::Random { percent: 1.0 }));
            assert_eq!(link.line.as_ref().unwrap().mbit_s, Some(50.0));
        }
        assert_eq!((plan.profile.up.corrupt_percent, plan.profile.down.corrupt_percent), (2.0, 0.0));
    }

    #[test]
    fn a_mistake_at_the_command_line_is_answered_with_what_would_be_right() {
        assert!(plan(&[]).is_ok(), "the control");
        for (flags, want) in [
            (&["--delay", "20"][..], "20ms"),
            (&["--loss", "1"], "0.5%"),
            (&["--rate", "50"], "50M"),
            (&["--jitter", "5ms"], "--delay"),
            (&["--delay", "2ms", "--jitter", "5ms"], "up.delay.min_ms = -3: 0 to 10000"),
            (&["--duration", "0"], "--duration 0: 0.001"),
            (&["--clients-max", "0"], "1..=512"),
            (&["--rebind-after=-1"], "rebind_after_s = -1: 0.001 to"),
        ] {
            let error = format!("{:#}", plan(flags).err().unwrap());
            assert!(error.contains(want), "{want:?} is not in: {error}");
        }
        assert!(resolve("nowhere").unwrap_err().contains("127.0.0.1:5000"));
        assert!(resolve("127.0.0.1:5000").is_ok(), "the control");
    }
}
