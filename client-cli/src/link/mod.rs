//! `trocar link`: is this line fit for surgery? See docs/LINK.md.

mod args;
mod family;
mod flows;
mod ice;
mod ladder;
mod quic;
mod relay;
mod route;
mod run;
mod serve;
mod session;
mod show;
mod turn;
mod wire;

pub(crate) use args::LinkCommand;
use args::{TestArgs, read_key};

use crate::cli::Ends;
use crate::net::link::InvitationLink;
use crate::net::path::PathSpec;
use anyhow::{Context as _, bail};
use relay::Relay;
use route::{Route, Secret};
use run::Plan;
use show::Show;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, Instant};
use trocar_link::classes::{Classes, Measure, Way};
use trocar_link::measure::PORT;
use trocar_link::report::{self, Report};
use trocar_proto::session::link_test::LinkTestGrant;

/// A picture where the class names no rate: a camera at 1080p.
const RATE_DEFAULT: f64 = 10.0;
/// How far above what the class needs the ramp goes.
const HEADROOM: f64 = 1.25;
/// Exit code of a run of `--watch` that could not be made, as without `--watch`.
const NOT_MEASURED: u8 = 1;
/// What a measurement takes beside what was typed, in seconds.
const SETTING_UP_S: f64 = 10.0;

/// Runs what was typed.
///
/// # Errors
/// Where a line cannot be measured; [`Ends`] where it was, and is not fit, or nobody can say whether it is.
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
    let code = match args.watch {
        Some(every) => watch(args, &plan, &classes, every, to_stderr),
        None => once(args, &plan, &classes, to_stderr)?.verdict.fit.exit_code(),
    };
    if code == 0 { Ok(()) } else { Err(Ends(code).into()) }
}

/// Measures again and again; the exit code of it all. A run that fails is a change too.
fn watch(args: &TestArgs, plan: &Plan, classes: &Classes, every: f64, to_stderr: bool) -> u8 {
    let mut seen = Seen::default();
    for run in 1_u32.. {
        let began = Instant::now();
        let came = once(args, plan, classes, to_stderr);
        let verdict = match &came {
            Ok(report) => report.verdict.fit.words().to_owned(),
            Err(error) => format!("not measured: {error:#}"),
        };
        let code = came.map_or(NOT_MEASURED, |report| report.verdict.fit.exit_code());
        if let Some(text) = seen.handle(verdict, code) {
            Show::start(to_stderr).say(&text);
        }
        if args.runs.is_some_and(|most| run >= most) {
            break;
        }
        std::thread::sleep(Duration::from_secs_f64(every).saturating_sub(began.elapsed()));
    }
    seen.code
}

/// What `--watch` remembers of the runs so far.
#[derive(Default)]
struct Seen {
    before: Option<String>,
    /// That of the worst run: not fit, before one that says nothing, before the others.
    code: u8,
}

impl Seen {
    /// Takes a run's verdict and exit code; what there is to say about the run before it. The bell rings where that is a change.
    fn handle(&mut self, verdict: String, code: u8) -> Option<String> {
        self.code = self.code.max(code);
        let text = self.before.as_ref().map(|old| {
            if *old == verdict { format!("unchanged: {verdict}") } else { format!("\x07CHANGED: {old} -> {verdict}") }
        });
        self.before = Some(verdict);
        text
    }
}

/// One measurement and its verdict, in every form that was asked for.
fn once(args: &TestArgs, plan: &Plan, classes: &Classes, to_stderr: bool) -> anyhow::Result<Report> {
    let mut show = Show::start(to_stderr);
    let relay =
        plan.relay.as_ref().map(|link| Relay::join(link, args.ca.as_deref(), args.relay.as_deref())).transpose()?;
    let of_relay = match relay.as_ref().map(|r| &r.granted) {
        Some(Ok(grant)) => Some(plan_of(plan, grant, args)?),
        _ => None,
    };
    let mut plan = of_relay.unwrap_or_else(|| plan.clone());
    plan.target.extend(relay.as_ref().map(Relay::in_words));
    let plan = &plan;
    let [up, down] = plan.rate_max;
    show.say(&format!(
        "trocar link test {}: {}, {:.0} s, at most {up:.1} Mbit/s up and {down:.1} down",
        plan.target, args.class, plan.duration_s
    ));
    let measured = run::measure(plan, relay.as_ref(), &mut show);
    if let Some(relay) = &relay {
        relay.leave();
    }
    let result = measured?;
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
    if show.is_live() {
        show.say_in_words(&report::text(&report));
        show.say("For a ticket:");
    }
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
    let is_link = args.target.starts_with("https://") || args.target.starts_with("http://");
    let relay: Option<InvitationLink> = is_link.then(|| args.target.parse()).transpose()?;
    if relay.is_some() && args.key_file.is_some() {
        bail!("--key-file: a relay gives a key of its own; it is right for a `trocar link serve`");
    }
    if relay.is_none() && args.relay.is_some() {
        bail!(
            "--relay: {} is no link of an invitation; with one it names which of its relays is measured",
            args.target
        );
    }
    let (routes, other_family) = match &relay {
        // Known once the relay has said where it answers.
        Some(_) => (Vec::new(), Err("the relay has not said where it answers".to_owned())),
        None => routes(&args.target, &resolve(&args.target)?, &args.path)?,
    };
    Ok(Plan {
        // Without the invitation's secret: it stands in reports.
        target: relay.as_ref().map_or_else(|| args.target.clone(), |link| link.base.to_string()),
        relay,
        routes,
        other_family,
        secret: Secret { key: read_key(args.key_file.as_deref())?, grant: None },
        duration_s: args.duration,
        rate_max,
        video: video.map(|need| need.map(|n| args.max_rate.map_or(n, |most| n.min(most)))),
        nat_timeout: args.nat_timeout,
        command: std::env::args().map(|a| without_secret(&a)).collect::<Vec<_>>().join(" "),
    })
}

/// The plan with what a relay has given.
fn plan_of(plan: &Plan, grant: &LinkTestGrant, args: &TestArgs) -> anyhow::Result<Plan> {
    let most = grant.seconds_max;
    if args.duration + SETTING_UP_S > most {
        bail!(
            "-t {}: this relay takes {most} s with setting up: at most {} is right",
            args.duration,
            most - SETTING_UP_S
        );
    }
    let (routes, other_family) = routes(&plan.target, &grant.addresses, &args.path)?;
    let key = hex::decode(&grant.key).context("the relay's key cannot be read")?;
    Ok(Plan { routes, other_family, secret: Secret { key, grant: Some(grant.grant) }, ..plan.clone() })
}

/// What was typed, without the secret of an invitation.
fn without_secret(argument: &str) -> String {
    match argument.split_once("#invitation=") {
        Some((before, _)) => format!("{before}#invitation=..."),
        None => argument.to_owned(),
    }
}

type Routes = (Vec<(String, Route)>, Result<SocketAddr, String>);

/// The ways to a target with these addresses, and its first address in the other family.
fn routes(target: &str, all: &[SocketAddr], paths: &[PathSpec]) -> anyhow::Result<Routes> {
    let Some(first) = all.first().copied() else { bail!("{target} leads nowhere") };
    let mut routes = Vec::new();
    for path in paths {
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
    Ok((routes, other.ok_or_else(|| format!("{target} has no address of the other family"))))
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
    use trocar_link::classes::Fit;

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
    fn a_relay_says_where_and_how_long_and_its_secret_stands_in_no_report() {
        let flags = ["https://relay:8443/#invitation=SECRET", "-t", "30"];
        let args = <Typed as clap::Parser>::try_parse_from(["test"].iter().chain(&flags)).unwrap().args;
        let plan = plan(&args, &classes(&args).unwrap()).unwrap();
        assert_eq!((plan.target.as_str(), plan.routes.len()), ("https://relay:8443/", 0));
        assert_eq!(without_secret(flags[0]), "https://relay:8443/#invitation=...");
        let addresses = ["192.0.2.1:4436", "[2001:db8::1]:4436"].map(|a| a.parse().unwrap()).to_vec();
        let key = "0b".repeat(32);
        let mut grant = LinkTestGrant {
            relay: None,
            addresses,
            quic: Vec::new(),
            grant: 7,
            key,
            mbit_s_max: 200.0,
            seconds_max: 40.0,
        };
        let with = plan_of(&plan, &grant, &args).unwrap();
        assert_eq!(with.routes[0].1.to, grant.addresses[0]);
        assert_eq!(with.other_family, Ok(grant.addresses[1]));
        assert_eq!((with.secret.grant, with.secret.key), (Some(7), vec![11; 32]));
        grant.seconds_max = 39.0;
        assert!(plan_of(&plan, &grant, &args).unwrap_err().to_string().contains("at most 29 is right"));
    }

    #[test]
    fn a_relay_is_named_with_a_link_alone() {
        let wrong = planned(&["127.0.0.1", "--relay", "edge"]).unwrap_err().to_string();
        assert!(wrong.contains("--relay: 127.0.0.1 is no link"), "{wrong}");
        assert!(planned(&["https://relay:8443/#invitation=SECRET", "--relay", "edge"]).is_ok());
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
    fn a_watch_rings_at_each_change_and_ends_with_the_code_of_its_worst_run() {
        for (runs, said, code) in [
            (&[Fit::Fit, Fit::Fit][..], "unchanged: FIT", 0),
            (&[Fit::Fit, Fit::WithLimits], "\x07CHANGED: FIT -> FIT WITH LIMITS", 0),
            (&[Fit::NotFit, Fit::Unknown], "\x07CHANGED: NOT FIT -> CANNOT SAY", 99),
            (&[Fit::Unknown, Fit::Fit], "\x07CHANGED: CANNOT SAY -> FIT", 1),
        ] {
            let mut seen = Seen::default();
            let texts: Vec<_> = runs.iter().map(|f| seen.handle(f.words().to_owned(), f.exit_code())).collect();
            assert_eq!((texts[0].as_deref(), texts[1].as_deref(), seen.code), (None, Some(said), code));
        }
    }

    #[test]
    fn mistakes_are_answered_with_what_would_be_right() {
        for (flags, want) in [
            (&["127.0.0.1", "--profile", "brain"][..], "telementoring-4k"),
            (&["127.0.0.1", "--max-rate", "50"], "50M"),
            (&["https://relay:8443/"], "#invitation=SECRET"),
            (&["https://relay:8443/#invitation=x", "--key-file", "k"], "trocar link serve"),
            (&["no such host"], "gate.or1"),
            (&["127.0.0.1", "--path", "eth0"], "LOCAL_IP"),
            (&["127.0.0.1", "--runs", "3"], "--watch"),
        ] {
            let error = format!("{:#}", planned(flags).unwrap_err());
            assert!(error.contains(want), "{want:?} is not in: {error}");
        }
    }
}
