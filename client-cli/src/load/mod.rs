//! `trocar load`: how many feeds and viewers a relay carries, and how well. Publishers and viewers are synthetic: each packet proves
//! which one it is, that it is right, and how old. Thresholds decide the exit code. The figures say themselves whether relay or
//! generator was the limit.
//!
//! ```text
//! scenario ─► publishers ─► relay ─► viewers ─► checks ─► figures ─► thresholds ─► 0 or 99
//!                └──────── one clock ───────────┘
//! ```

mod access;
mod agent;
mod check;
mod engine;
mod figures;
mod flags;
mod html;
mod junit;
mod machine;
mod payload;
mod publish;
mod report;
mod scenario;
mod screen;
mod shared;
mod threshold;
mod view;

use crate::stop::Stop;
use access::Access;
use anyhow::Context as _;
use engine::{Engine, Part, Share};
use flags::RunArgs;
use machine::RelayFigures;
use report::Report;
use scenario::Scenario;
use screen::Screen;
use shared::{Shared, lock};
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use flags::LoadCommand;

/// Thresholds are not met.
pub(crate) const NOT_MET: u8 = 99;
/// A mistake in a scenario or on the command line.
pub(crate) const USAGE: u8 = 2;

/// Runs what was typed; the exit code.
pub(crate) fn run(command: LoadCommand) -> anyhow::Result<u8> {
    match command {
        LoadCommand::Check { file } => {
            let scenario = match Scenario::read(&file) {
                Ok(scenario) => scenario,
                Err(error) => return Ok(wrong(&error)),
            };
            println!("{}: {} feeds, {} viewers, ok", file.display(), scenario.feeds().len(), scenario.viewers().len());
            Ok(0)
        }
        LoadCommand::Agent(args) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(agent::serve(*args))?;
            Ok(0)
        }
        LoadCommand::Run(args) => {
            let scenario = match args.scenario() {
                Ok(scenario) => scenario,
                Err(error) => return Ok(wrong(&error)),
            };
            let threads = args.threads.unwrap_or_else(machine::cores).max(1);
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
            let met = runtime.block_on(load(*args, scenario))?;
            // What a killed viewer left open is not waited for.
            runtime.shutdown_timeout(Duration::from_secs(1));
            Ok(if met { 0 } else { NOT_MET })
        }
    }
}

fn wrong(error: &anyhow::Error) -> u8 {
    eprintln!("trocar: {error:#}");
    USAGE
}

/// Runs the scenario and says what came of it; whether every threshold is met.
async fn load(args: RunArgs, scenario: Scenario) -> anyhow::Result<bool> {
    let stop = Stop::on_signals()?;
    let run = random()?;
    let parts = if args.agents.is_empty() {
        vec![here(&args, &scenario, run, &stop).await?]
    } else {
        agent::coordinate(&args, &scenario, run, &stop).await?
    };
    let report = Report::new(&scenario, parts);
    write(args.junit.as_deref(), "--junit", || junit::junit(&report))?;
    write(args.html.as_deref(), "--html", || Ok(html::page(&report)?))?;
    if args.json {
        crate::verbs::print(&format!("{}\n", report.json()))?;
    } else {
        crate::verbs::print(&report.text())?;
    }
    Ok(report.met && !report.interrupted)
}

/// The whole test by this process.
async fn here(args: &RunArgs, scenario: &Scenario, run: u64, stop: &Stop) -> anyhow::Result<Part> {
    let identity = args.identity.load()?;
    let size = (scenario.feeds().len(), scenario.viewers().len());
    let access = Access::new(args.invite.clone(), &identity, &args.path, args.ports, size)?;
    let relay = RelayFigures::new(args.relay_pid, args.metrics.as_ref(), &identity.trust)?;
    relay.check().await?;
    let prepared = Engine::prepare(scenario.clone(), (run, Share::ALL), access, relay, args.inject);
    let mut engine = tokio::select! {
        engine = prepared => engine?,
        () = stop.requested() => anyhow::bail!("ended before anything was measured"),
    };
    let live = !args.json && !args.plain && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let (by_key, quit) = Stop::by_hand();
    let screen = live.then(|| Screen::open(Arc::clone(&engine.shared), scenario.clone(), quit));
    let progress = (!args.json && !live).then(|| tokio::spawn(progress(Arc::clone(&engine.shared))));
    let both = async {
        tokio::select! {
            () = stop.requested() => {}
            () = by_key.requested() => {}
        }
    };
    engine.run(both).await;
    progress.iter().for_each(tokio::task::JoinHandle::abort);
    if let Some(screen) = screen {
        screen.close().await?;
    }
    let last = engine.stop_publishing();
    Ok(engine.finish(last).await)
}

/// A line each second, on standard error.
async fn progress(shared: Arc<Shared>) {
    let mut shown = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let lines: Vec<String> = {
            let samples = lock(&shared.samples);
            let new = samples.iter().skip(shown).map(line).collect();
            shown = samples.len();
            new
        };
        lines.iter().for_each(|l| eprintln!("{l}"));
    }
}

fn line(s: &figures::Sample) -> String {
    let ms = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let relay = s.relay_thread_cpu.or(s.relay_cpu).map_or_else(|| "-".to_owned(), |v| format!("{v:.0}"));
    format!(
        "{:6.0}s {:5} {:5} viewers {:8.1} Mbit/s {:7.0} frames/s  lost {:4}  age ms p50 {:>6} p99 {:>6}  CPU % generator {:3.0} relay {relay}",
        s.at,
        s.stage,
        s.viewers,
        s.mbit_per_s,
        s.frames_per_s,
        s.frames_lost,
        ms(s.age_p50_ms),
        ms(s.age_p99_ms),
        s.generator_cpu,
    )
}

/// Which run this is: feeds of another one are told apart.
fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("this machine gives no random numbers"))?;
    Ok(u64::from_le_bytes(bytes))
}

fn write(to: Option<&Path>, option: &str, text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
    match to {
        Some(file) => std::fs::write(file, text()?).with_context(|| format!("{option} {}", file.display())),
        None => Ok(()),
    }
}
