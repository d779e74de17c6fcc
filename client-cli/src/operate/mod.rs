//! `trocar operate`: the expert's station (HANDOVER.md section 13; docs/OPERATE.md).
//!
//! ```text
//! inputs (gamepad, pedal, stdin, script) ─┐
//! echoes of `trocar watch` ───────────────┼─► core (one thread: Station, Mirror, keys) ─► line ─► relay ─► gate
//! line (tunnel, messages, BEACONs) ───────┘        └─► JSON lines, screen
//! ```
//! The core has a thread of its own that nothing else delays: it seals and sends without waiting, and reads bounded lanes, none of
//! which can displace what waits in another.

mod acts;
mod core;
mod echoes;
mod inbox;
mod input;
mod ledger;
mod line;
mod report;
mod screen;
mod view;
mod ways;
mod words;

use crate::net::address::Address;
use crate::net::api::Api;
use crate::net::link::InvitationLink;
use crate::net::tls::IdentityArgs;
use crate::stop::Stop;
use anyhow::{Context as _, bail};
use input::{InputSpec, Setting};
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
pub(super) use trocar_control::clock::now;
use trocar_control::trust::{Identity, TrustList};

/// What a station's certificate says it is.
const ROLE: &str = "station";

/// The remote surgeon's station: asks for control, holds it, gives it back.
///
/// Joins the session by an invitation of role expert, reaches the gate beside the device through the relay, and sends what hands and
/// feet do while the gate grants it. What is on the screen comes from `trocar watch --echo-to`. Whoever connects is an observer.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit status: 0 ended as asked; 1 what the message says; 2 a mistake on the command line.")]
pub(crate) struct OperateArgs {
    /// Invitation link of role expert.
    #[arg(long, value_name = "LINK", alias = "invite")]
    join: InvitationLink,
    /// The relay's control address, as `trocar up` prints it (relay.control).
    #[arg(long, value_name = "HOST:PORT")]
    control: Address,
    /// A way to the gate: own address to send from, and another relay's control address where it leads there. Given twice, everything
    /// goes both ways, and the loss of one is not felt. 0.0.0.0 leaves the own address to the system.
    #[arg(long = "path", value_name = "LOCAL_IP[=HOST:PORT]")]
    paths: Vec<PathSpec>,
    #[command(flatten)]
    identity: IdentityArgs,
    /// Name of the gate, where several are in the session: NAME of its certificate trocar://REALM/gate/NAME.
    #[arg(long, value_name = "NAME")]
    gate: Option<String>,
    /// Where hands and feet come from: `gamepad:/dev/input/eventN`, `pedal:/dev/input/eventN`, `stdin` (JSON lines) or `script:FILE`.
    /// Several may be given. Without one nothing can be held and nothing moves.
    #[arg(long = "input", value_name = "INPUT")]
    inputs: Vec<InputSpec>,
    /// What a gamepad's buttons and sticks do, where it is to be something else: `presence=BTN_TL`, `y=-ABS_Y`, `grip=ABS_RZ`,
    /// `speed=20` (mm/s), `turn=30` (degrees a second), `dead-zone=0.15`, `rate=100` (commands a second). docs/OPERATE.md has all.
    #[arg(long = "gamepad", value_name = "KEY=VALUE")]
    gamepad: Vec<Setting>,
    /// Where `trocar watch --echo-to SOCKET` says which frame is on the screen. Without it no control is granted.
    #[arg(long, value_name = "SOCKET")]
    echo_from: Option<PathBuf>,
    /// JSON lines instead of a screen: each event, with the boot clock's microseconds.
    #[arg(long)]
    json: bool,
    /// Write each command that left, with its time by the boot clock, to this file: JSON lines, to measure the way to the device.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = crate::watch::seconds)]
    duration: Option<Duration>,
    /// How the expert is called in the session.
    #[arg(long, default_value = "Expert's station")]
    name: String,
}

impl OperateArgs {
    /// Whether it prints lines and draws nothing.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// What is wrong with the flags before anything is connected.
    fn check(&self) -> anyhow::Result<()> {
        let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        if !(self.json || terminal) {
            bail!("there is no terminal to draw on: --json prints JSON lines");
        }
        let stdin = self.inputs.iter().filter(|i| matches!(i, InputSpec::Stdin)).count();
        if stdin > 1 {
            bail!("--input stdin is there {stdin} times: once is right");
        }
        if !self.gamepad.is_empty() && !self.inputs.iter().any(|i| matches!(i, InputSpec::Gamepad(_))) {
            bail!(
                "--gamepad says what a gamepad does, and there is none: --input gamepad:/dev/input/eventN goes with it"
            );
        }
        if self.paths.len() > inbox::PATHS {
            bail!("--path is there {} times: once or twice is right", self.paths.len());
        }
        if stdin == 1 && !self.json {
            bail!("--input stdin goes with --json: the screen reads its keys from there");
        }
        Ok(())
    }

    /// Own address and relay of each path; one where none is named.
    fn ways(&self) -> Vec<(Option<IpAddr>, Address)> {
        let way = |path: &PathSpec| {
            (
                Some(path.local).filter(|l| !l.is_unspecified()),
                path.control.clone().unwrap_or_else(|| self.control.clone()),
            )
        };
        if self.paths.is_empty() { vec![(None, self.control.clone())] } else { self.paths.iter().map(way).collect() }
    }

    /// Certificate and trust list.
    fn who(&self) -> anyhow::Result<(Identity, TrustList)> {
        let files = self.identity.load()?;
        let identity = Identity::new(files.chain, files.key).context("--cert")?;
        if identity.name().role != ROLE {
            bail!("--cert: {} has another role: trocar://REALM/station/NAME is right", identity.name());
        }
        Ok((identity, TrustList::of_file(&self.identity.ca).context("--ca")?))
    }
}

/// One path, as `--path` has it.
#[derive(Debug, Clone)]
struct PathSpec {
    local: IpAddr,
    control: Option<Address>,
}

impl std::str::FromStr for PathSpec {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (local, control) = s.split_once('=').map_or((s, None), |(local, control)| (local, Some(control)));
        let right = "LOCAL_IP or LOCAL_IP=HOST:PORT is right, e.g. 192.0.2.7=relay.example:4434";
        let local = local.parse().map_err(|_| format!("{local:?} is no address of this machine: {right}"))?;
        let control = control.map(str::parse).transpose().map_err(|e| format!("{e}: {right}"))?;
        Ok(Self { local, control })
    }
}

/// Runs until a signal, `q`, or what `--duration` says.
pub(crate) async fn run(args: OperateArgs) -> anyhow::Result<()> {
    args.check()?;
    let (identity, trust) = args.who()?;
    let inputs = args.inputs.iter().map(|input| input.read(&args.gamepad)).collect::<anyhow::Result<Vec<_>>>()?;
    let ledger = args.ledger.as_deref().map(ledger::Ledger::start).transpose()?;
    let stop = Stop::on_signals()?;
    let roots = crate::net::tls::read_chain(&args.identity.ca).context("--ca")?;
    let api = Api::join(args.join.clone(), &roots, Some(identity.hash()), &args.name).await.context("--join")?;
    let fresh = api.keep_fresh();
    // Every page can say by name who has control.
    let present = tokio::spawn(be_present(crate::net::events::open(api.clone(), roots, false)));
    let report = report::Report::start(args.json);
    let token_of = api.clone();
    let happenings = input::Happenings::default();
    let token = Arc::new(move || token_of.grant().token);
    let ways = args.ways();
    let (expert, paths) = (identity.expert(), ways.len());
    // Each looks at the files by itself.
    let lists = std::iter::once(Ok(trust)).chain(std::iter::repeat_with(|| TrustList::of_file(&args.identity.ca)));
    let lists = lists.take(paths).collect::<Result<Vec<_>, _>>().context("--ca")?;
    let (inbox, core) = core::Core::start(expert, token, report.clone(), happenings.clone(), ledger, paths)?;
    let _echoes = args.echo_from.as_deref().map(|path| echoes::listen(path, inbox.clone())).transpose()?;
    for input in inputs {
        input.start(inbox.clone(), happenings.listen())?;
    }
    let opening = Arc::default();
    let identity = Arc::new(identity);
    let line = |(number, ((local, control), trust))| line::Line {
        number,
        local,
        control,
        opening: Arc::clone(&opening),
        gate: args.gate.clone(),
        identity: Arc::clone(&identity),
        trust,
        api: api.clone(),
        inbox: inbox.clone(),
        is_open: false,
    };
    let lines: Vec<_> = ways.into_iter().zip(lists).enumerate().map(|way| tokio::spawn(line(way).keep())).collect();
    let ended = until_done(&args, &inbox, &report, &stop).await;
    lines.iter().for_each(tokio::task::JoinHandle::abort);
    fresh.abort();
    present.abort();
    core.stop();
    report.finish();
    crate::verbs::leave(&api).await;
    ended
}

/// A participant with an event socket is seen by the others. Nothing that it says changes what a station does.
async fn be_present(mut socket: crate::net::events::Events) {
    while socket.events.recv().await.is_some() {}
}

async fn until_done(
    args: &OperateArgs,
    inbox: &inbox::Inbox,
    report: &report::Report,
    stop: &Stop,
) -> anyhow::Result<()> {
    let over = async {
        match args.duration {
            Some(d) => tokio::time::sleep(d).await,
            None => std::future::pending().await,
        }
    };
    let mut screen = (!args.json).then(|| screen::Screen::open(report.view(), inbox.clone()));
    let drawn = async {
        match &mut screen {
            Some(screen) => screen.ended().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        () = stop.requested() => Ok(()),
        () = over => Ok(()),
        () = inbox.quit() => Ok(()),
        ended = drawn => ended,
    };
    if let Some(mut screen) = screen {
        screen.close().await;
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        operate: OperateArgs,
    }

    fn parse(more: &[&str]) -> Result<OperateArgs, String> {
        let invite = format!("https://h/#invitation={}", "x".repeat(43));
        let args = [&["t", "--join", &invite, "--control", "h:1", "--ca", "/nowhere/ca.pem"], more].concat();
        Command::try_parse_from(args).map(|c| c.operate).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_told_with_what_would_be_right() {
        let check = |more: &[&str]| parse(more).and_then(|a| a.check().map_err(|e| e.to_string()));
        assert_eq!(check(&["--json", "--input", "stdin"]), Ok(()));
        assert!(check(&[]).unwrap_err().contains("--json"));
        assert!(check(&["--json", "--input", "stdin", "--input", "stdin"]).unwrap_err().contains("once is right"));
        assert!(check(&["--json", "--gamepad", "speed=5"]).unwrap_err().contains("--input gamepad:"));
        let pad = ["--json", "--input", "gamepad:/dev/input/event5", "--gamepad", "speed=5", "--gamepad", "x=ABS_RX"];
        assert_eq!(check(&pad), Ok(()));
        assert!(parse(&["--gamepad", "speed=5000"]).unwrap_err().contains("0.1 to 200 mm/s"));
        assert!(parse(&["--input", "joystick"]).unwrap_err().contains("gamepad:/dev/input/event"));
        assert!(parse(&["--control", "h"]).unwrap_err().contains("HOST:PORT"));
        assert!(parse(&["--path", "eth0"]).unwrap_err().contains("LOCAL_IP=HOST:PORT"));
        let three = ["--json", "--path", "10.0.0.1", "--path", "10.0.0.2", "--path", "10.0.0.3"];
        assert!(check(&three).unwrap_err().contains("once or twice is right"));
        let two = parse(&["--path", "10.0.0.1", "--path", "0.0.0.0=other:7"]).unwrap().ways();
        let two: Vec<_> = two.into_iter().map(|(local, control)| (local, control.to_string())).collect();
        assert_eq!(two, [(Some([10, 0, 0, 1].into()), "h:1".to_owned()), (None, "other:7".to_owned())]);
        let e = format!("{:#}", parse(&["--json"]).unwrap().who().unwrap_err());
        assert!(e.contains("--ca") && e.contains("/nowhere/ca.pem"), "{e}");
    }
}
