//! The command line: what was typed, what will be done, and the exit code.

use crate::admin::AdminCommand;
use crate::audit::AuditCommand;
use crate::config::{Config, Log};
use crate::consent::ConsentCommand;
use crate::publish::config::RoomConfig;
use crate::revoke::RevokeArgs;
use crate::{ca, impair, link, load, media, operate, publish, top, up, verbs, watch};
use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use trocar_control::manual;
use trocar_proto::session::ids::RealmId;

/// Relay for remote surgery: publish, carry and watch operating fields.
#[derive(Parser)]
#[command(name = "trocar", version, about, arg_required_else_help = true, after_help = verbs::EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "few at a time, and a box would be one more thing to read past")]
enum Command {
    /// Start relay and signaling in one process.
    Up(up::UpArgs),
    /// Publish a picture into a session.
    Publish(Box<publish::PublishArgs>),
    /// Watch a feed and measure it.
    Watch(watch::WatchArgs),
    Operate(Box<operate::OperateArgs>),
    /// Live view of a relay's figures in the terminal.
    Top(top::TopArgs),
    /// Look at a session, invite into it, close it.
    Session {
        #[command(subcommand)]
        command: verbs::SessionCommand,
    },
    /// Look at the feeds of a session, remove one.
    Feed {
        #[command(subcommand)]
        command: verbs::FeedCommand,
    },
    /// Look at who is in a session, remove somebody.
    Participant {
        #[command(subcommand)]
        command: verbs::ParticipantCommand,
    },
    Token(verbs::TokenArgs),
    Login(verbs::LoginArgs),
    /// Record the synthetic scene into a file that can be replayed.
    Fixture(media::command::FixtureArgs),
    /// Run a source without a relay and print what it delivers.
    Source(media::command::SourceArgs),
    /// A bad line between two programs: delay, loss, reordering, rate, blackouts.
    Impair(Box<impair::ImpairArgs>),
    /// Is this line fit for surgery? Measure it, or be the end that is measured against.
    Link {
        #[command(subcommand)]
        command: link::LinkCommand,
    },
    /// How many feeds and viewers a relay carries, and how well: a load test with thresholds.
    Load {
        #[command(subcommand)]
        command: load::LoadCommand,
    },
    /// Reports of measured lines: show, judge anew, compare.
    Report {
        #[command(subcommand)]
        command: crate::report::ReportCommand,
    },
    /// Work with configuration files.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// A small certificate authority for a site without one.
    Ca {
        #[command(subcommand)]
        command: CaCommand,
    },
    /// The patient's consent, as a gate wants it.
    Consent {
        #[command(subcommand)]
        command: ConsentCommand,
    },
    /// A gate's audit chain.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// What is done on the node itself, with its files.
    Admin {
        #[command(subcommand)]
        command: AdminCommand,
    },
    /// Print the table of roles and what they may do, as Markdown.
    Roles,
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

#[derive(Subcommand)]
enum ConfigCommand {
    /// Read a configuration file and say whether it is right.
    Check {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum CaCommand {
    /// Make a certificate for a device, signed by the authority in a directory (made where there is none).
    Issue {
        /// Directory with ca.pem and ca.key.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Hospital network.
        #[arg(long, default_value = "local")]
        realm: RealmId,
        /// Role of the device, as in the certificate's name trocar://REALM/ROLE/NAME.
        #[arg(long, default_value = "station", value_parser = name_part)]
        role: String,
        /// DNS name or address that a relay is reached at; once for each. A relay has one at least.
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        /// Name of the device; the files are NAME.pem and NAME.key.
        #[arg(value_parser = name_part)]
        name: String,
    },
    /// Make certificates anew, with another key and else as they are. A node that runs takes its own up within a second, and no connection ends.
    Renew {
        /// Directory with ca.pem and ca.key, and the certificates NAME.pem.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Hospital network.
        #[arg(long, default_value = "local")]
        realm: RealmId,
        /// Names of certificates; the files are NAME.pem. `relay` and `signaling` are the node's own.
        #[arg(required = true, value_parser = name_part)]
        names: Vec<String>,
    },
    /// Take certificates back: adds them to the revocation list of the authority in a directory.
    Revoke(RevokeArgs),
}

fn name_part(s: &str) -> Result<String, String> {
    RealmId::new(s).map(String::from).map_err(|_| "1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'".to_owned())
}

/// Exit code for a failure that a person can mend: the message says how.
const FAILED: u8 = 1;

/// Ends a command with that exit code. What there is to say was said.
#[derive(Debug, thiserror::Error)]
#[error("exit status {0}")]
pub(crate) struct Ends(pub(crate) u8);

/// Runs what was typed.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(Ends(code)) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            eprintln!("trocar: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => {
            fail_stop();
            let config = args.config()?;
            start_log(&config.log)?;
            block_on(up::run(args, config))
        }
        Command::Publish(args) => {
            start_log(&client_log("info"))?;
            block_on(publish::run(*args))
        }
        Command::Watch(args) => {
            start_log(&client_log("warn"))?;
            block_on(watch::run(args))
        }
        Command::Operate(args) => {
            // Where a screen is drawn, a log would be drawn over.
            start_log(&client_log(if args.is_json() { "warn" } else { "off" }))?;
            block_on(operate::run(*args))
        }
        Command::Top(args) => quiet(top::run(args)),
        Command::Session { command } => quiet(command.run()),
        Command::Feed { command } => quiet(command.run()),
        Command::Participant { command } => quiet(command.run()),
        Command::Token(args) => quiet(args.run()),
        Command::Login(args) => quiet(args.run()),
        Command::Fixture(args) => Ok(media::command::run_fixture(&args)?),
        Command::Source(args) => Ok(media::command::run_source(&args)?),
        Command::Impair(args) => {
            start_log(&client_log("warn"))?;
            impair::run(&args)
        }
        Command::Link { command } => {
            start_log(&client_log("warn"))?;
            link::run(&command)
        }
        Command::Load { command } => {
            start_log(&client_log("error"))?;
            match load::run(command)? {
                0 => Ok(()),
                code => Err(Ends(code).into()),
            }
        }
        Command::Report { command } => command.run(),
        Command::Config { command: ConfigCommand::Check { file } } => {
            check_config(&file)?;
            println!("{}: ok", file.display());
            Ok(())
        }
        Command::Ca { command: CaCommand::Issue { dir, realm, role, host, name } } => {
            if ca::is_reserved(&name) {
                anyhow::bail!("{name} is the name of a file of the node's own; another name is right");
            }
            if host.is_empty() == (role == "relay") {
                anyhow::bail!(
                    "--host: names or addresses that it is reached at are right for role relay, and for no other"
                );
            }
            let usage = if host.is_empty() { ca::Use::Device } else { ca::Use::Relay };
            let subject = ca::Subject { realm: &realm, role: &role, name: &name, hosts: &host };
            let files = ca::Authority::open_or_create(&dir, &realm)?.identity(&name, &subject, usage)?;
            println!("{}\n{}", files.cert.display(), files.key.display());
            Ok(())
        }
        Command::Ca { command: CaCommand::Renew { dir, realm, names } } => {
            let authority = ca::Authority::open_or_create(&dir, &realm)?;
            for name in names {
                println!("{}", authority.renew(&name)?.cert.display());
            }
            Ok(())
        }
        Command::Ca { command: CaCommand::Revoke(args) } => args.run(),
        Command::Consent { command } => command.run(),
        Command::Audit { command } => command.run(),
        Command::Admin { command } => command.run(),
        Command::Roles => {
            print!("{}", trocar_proto::session::role::render_markdown());
            Ok(())
        }
        Command::Manual { dir } => {
            manual::write_pages(Cli::command(), &dir).with_context(|| format!("cannot write into {}", dir.display()))
        }
        Command::Completions { shell } => verbs::print(&manual::completions(Cli::command(), shell)),
    }
}

/// A node's configuration, or the feeds of an operating room.
fn check_config(file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    if RoomConfig::is_meant_by(&text) { RoomConfig::read(file).map(drop) } else { Config::read(file).map(drop) }
}

/// Ends the process at a panic of any thread. A panic that ends one thread alone would leave the worker dead and its
/// state half changed while the other threads answer as if nothing were wrong; a process that is gone is noticed, and its
/// supervisor starts it anew within a second. For the server only: a client has a person before it.
fn fail_stop() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn client_log(filter: &str) -> Log {
    Log { filter: filter.to_owned(), json: false }
}

/// Logs go to standard error, so that standard output stays for figures. `RUST_LOG` goes before the configured filter.
fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(f) => f.parse::<EnvFilter>().with_context(|| format!("{} = {f:?}", EnvFilter::DEFAULT_ENV))?,
        Err(_) => log.filter.parse::<EnvFilter>()?,
    };
    // The ICE library warns of every odd attribute that a peer sends: not a thing that a peer may fill a disk with.
    let filter = filter.add_directive("is=error".parse()?);
    // That of passkeys calls it an error that one counts nothing, as most do; what is wrong with one is in the audit chain.
    let filter = filter.add_directive("webauthn_rs=off".parse()?).add_directive("webauthn_rs_core=off".parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if log.json {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
    Ok(())
}

/// Runs a verb that answers a person: what goes wrong is its answer, the log has only warnings.
fn quiet(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    start_log(&client_log("warn"))?;
    block_on(work)
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_panic_of_any_thread_ends_the_process() {
        const SIGABRT: i32 = 6;
        const INSIDE: &str = "TROCAR_TEST_PANICS";
        if std::env::var_os(INSIDE).is_some() {
            fail_stop();
            let _ = std::thread::spawn(|| panic!("on purpose")).join();
            return;
        }
        // The same test in a process of its own, which is to end.
        let mut me = std::process::Command::new(std::env::current_exe().unwrap());
        me.args(["--exact", "cli::tests::a_panic_of_any_thread_ends_the_process", "--nocapture"]).env(INSIDE, "1");
        let out = me.output().unwrap();
        assert_eq!(out.status.signal(), Some(SIGABRT), "{out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("on purpose"), "the reason is said first");
    }
}
