//! `trocar link`: is this line fit for surgery? See docs/LINK.md.

mod args;
mod clock;
mod flows;
mod quic;
mod run;
mod sender;
mod serve;
mod session;
mod show;
mod socket;

pub(crate) use args::LinkCommand;
use args::{TestArgs, read_key};

use crate::cli::Ends;
use anyhow::{Context as _, bail};
use run::Plan;
use session::Route;
use show::Show;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, Instant};
use trocar_link::classes::{Classes, Fit, Measure, Way};
use trocar_link::measure::PORT;
use trocar_link::report::{self, Report};

/// Not fit: as k6 says that thresholds were not met.
const NOT_FIT: u8 = 99;
/// A picture where the class names no rate: a camera at 1080p.
const RATE_DEFAULT: f64 = 10.0;
/// How far above what the class needs the ramp goes.
const HEADROOM: f64 = 1.25;

/// Runs what was typed.
///
/// # Errors
/// Where a line cannot be measured; [`Ends`] where it was, and is not fit.
pub(crate) fn run(command: &LinkCommand) -> anyhow::Result<()> {
    match command {
        LinkCommand::Serve(args) => serve::run(args),
        LinkCommand::Test(args) => test(args),
    }
}

fn test(args: &TestArgs) -> anyhow::Result<()> {
    let classes = classes(args)?;
    let plan = plan(args, &classes)?;
    let to_stderr = args.json.as_deref() == Some(Path::new("-"));
    let Some(every) = args.watch else {
        let report = once(args, &plan, &classes, to_stderr)?;
        return if report.verdict.fit == Fit::NotFit { Err(Ends(NOT_FIT).into()) } else { Ok(()) };
    };
    watch(args, &plan, &classes, every, to_stderr)
}

/// Measures again and again. A run that fails is a change too.
fn watch(args: &TestArgs, plan: &Plan, classes: &Classes, every: f64, to_stderr: bool) -> anyhow::Result<()> {
    let (mut before, mut worst) = (None, None);
    for run in 1_u32.. {
        let began = Instant::now();
        let verdict = match once(args, plan, classes, to_stderr) {
            Ok(report) => report.verdict.fit.words().to_owned(),
            Err(error) => format!("not measured: {error:#}"),
        };
        let show = Show::start(to_stderr);
        match &before {
            Some(old) if *old != verdict => show.say(&format!("\x07CHANGED: {old} -> {verdict}")),
            Some(_) => show.say(&format!("unchanged: {verdict}")),
            None => {}
        }
        if verdict == Fit::NotFit.words() || verdict.starts_with("not measured") {
            worst = Some(verdict.clone());
        }
        before = Some(verdict);
        if args.runs.is_some_and(|most| run >= most) {
            break;
        }
        std::thread::sleep(Duration::from_secs_f64(every).saturating_sub(began.elapsed()));
    }
    if worst.is_some() { Err(Ends(NOT_FIT).into()) } else { Ok(()) }
}

/// One measurement and its verdict, in every form that was asked for.
fn once(args: &TestArgs, plan: &Plan, classes: &Classes, to_stderr: bool) -> anyhow::Result<Report> {
    let mut show = Show::start(to_stderr);
    let [up, down] = plan.rate_max;
    show.say(&format!(
        "trocar link test {}: {}, {:.0} s, at most {up:.1} Mbit/s up and {down:.1} down",
        plan.target, args.class, plan.duration_s
    ));
    let result = run::measure(plan, &mut show)?;
    let report = Report::new(result, classes, &args.class)?;
    for (file, text) in [
        (&args.json, args.json.as_ref().map(|_| report::json(&report)).transpose()?),
        (&args.html, args.html.as_ref().map(|_| report::html(&report)).transpose()?),
        (&args.junit, args.junit.as_ref().map(|_| report::junit(&report))),
    ] {
        let (Some(file), Some(text)) = (file, text) else { continue };
        if file == Path::new("-") {
            println!("{text}");
        } else {
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    show.say("");
    show.say(report::ticket(&report).trim_end());
    Ok(report)
}

fn classes(args: &TestArgs) -> anyhow::Result<Classes> {
    let classes = match &args.classes {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Classes::parse(&text).with_context(|| file.display().to_string())?
        }
        None => Classes::built_in()?,
    };
    let classes = if args.at_expert { classes.turned() } else { classes };
    classes.get(&args.class).context("--profile")?;
    Ok(classes)
}

fn plan(args: &TestArgs, classes: &Classes) -> anyhow::Result<Plan> {
    let class = classes.get(&args.class)?;
    let needs = |way: Way| {
        let limit = class.limits.iter().find(|t| t.limit.measure == Measure::Rate && t.limit.way == Some(way));
        limit.map(|t| t.value)
    };
    let video = [needs(Way::Up), needs(Way::Down)];
    let rate_max = video.map(|need| args.max_rate.unwrap_or_else(|| need.unwrap_or(RATE_DEFAULT) * HEADROOM));
    if args.path.len() > 2 {
        bail!("--path is there {} times: at most 2 is right", args.path.len());
    }
    if args.target.starts_with("https://") || args.target.starts_with("http://") {
        bail!("{}: HOST:PORT of a `trocar link serve` is right; start one beside the relay", args.target);
    }
    let all = resolve(&args.target)?;
    let Some(first) = all.first().copied() else { bail!("{} leads nowhere", args.target) };
    let mut routes = Vec::new();
    for path in &args.path {
        let to = match &path.relay {
            Some(other) => resolve(&other.to_string())?.first().copied().context("--path leads nowhere")?,
            None => path.local.and_then(|l| all.iter().find(|a| a.is_ipv4() == l.is_ipv4()).copied()).unwrap_or(first),
        };
        let local = path.local.map_or_else(String::new, |l| l.to_string());
        routes.push((format!("{local} to {to}"), Route { from: path.local, to }));
    }
    if routes.is_empty() {
        routes.push((first.to_string(), Route { from: None, to: first }));
    }
    let main = routes.first().map_or(first, |(_, r)| r.to);
    let other = all.iter().find(|a| a.is_ipv4() != main.is_ipv4()).copied();
    Ok(Plan {
        target: args.target.clone(),
        routes,
        other_family: other.ok_or_else(|| format!("{} has no address of the other family", args.target)),
        key: read_key(args.key_file.as_deref())?,
        duration_s: args.duration,
        rate_max,
        video: video.map(|need| need.map(|n| args.max_rate.map_or(n, |most| n.min(most)))),
        nat_timeout: args.nat_timeout,
        command: std::env::args().collect::<Vec<_>>().join(" "),
    })
}

/// The addresses of a target, with our port where it names none.
fn resolve(target: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let found = target.to_socket_addrs().or_else(|_| (target.trim_matches(['[', ']']), PORT).to_socket_addrs());
    Ok(found
        .with_context(|| format!("{target}: HOST or HOST:PORT is right, as in gate.or1 or 10.0.0.7:{PORT}"))?
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: TestArgs,
    }

    fn planned(flags: &[&str]) -> anyhow::Result<Plan> {
        let args = <Typed as clap::Parser>::try_parse_from(["test"].iter().chain(flags))?.args;
        plan(&args, &classes(&args)?)
    }

    #[test]
    fn a_target_has_our_port_unless_it_names_one() {
        for (target, want) in [("127.0.0.1", "127.0.0.1:4436"), ("127.0.0.1:9", "127.0.0.1:9"), ("[::1]", "[::1]:4436")]
        {
            assert_eq!(planned(&[target]).unwrap().routes[0].1.to.to_string(), want);
        }
    }

    #[test]
    fn the_class_says_how_fast_unless_told_otherwise() {
        let p = planned(&["127.0.0.1", "--profile", "telesurgery-single"]).unwrap();
        assert_eq!((p.video[0], p.rate_max[0]), (Some(75.0), 93.75));
        let p = planned(&["127.0.0.1", "--profile", "telesurgery-single", "--max-rate", "20M"]).unwrap();
        assert_eq!((p.video[0], p.rate_max), (Some(20.0), [20.0, 20.0]));
        let turned = planned(&["127.0.0.1", "--profile", "telesurgery-single", "--at-expert"]).unwrap();
        assert_eq!(turned.video[1], Some(75.0));
    }

    #[test]
    fn mistakes_are_answered_with_what_would_be_right() {
        for (flags, want) in [
            (&["127.0.0.1", "--profile", "brain"][..], "telementoring-4k"),
            (&["127.0.0.1", "--max-rate", "50"], "50M"),
            (&["https://relay:8443/#invitation=x"], "HOST:PORT"),
            (&["no such host"], "gate.or1"),
            (&["127.0.0.1", "--path", "eth0"], "LOCAL_IP"),
            (&["127.0.0.1", "--runs", "3"], "--watch"),
        ] {
            let error = format!("{:#}", planned(flags).unwrap_err());
            assert!(error.contains(want), "{want:?} is not in: {error}");
        }
    }
}
