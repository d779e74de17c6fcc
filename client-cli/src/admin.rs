//! `trocar admin`: what is done on the node itself, with its files.

mod break_glass;

use anyhow::{Context as _, bail, ensure};
use break_glass::BreakGlassCommand;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use trocar_proto::units::WallMicros;
use trocar_signaling::{Account, AccountName, Accounts};

/// What is done on the node.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum AdminCommand {
    /// Local accounts: people who log in with a password and a code of their authenticator, or with a passkey.
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Break-glass joins: people who came in during an emergency without the login that was asked for.
    BreakGlass {
        #[command(subcommand)]
        command: BreakGlassCommand,
    },
}

/// Work with local accounts, of a node that runs or not.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum UserCommand {
    /// Add an account and print the address that an authenticator is enrolled with. It is a secret, and is shown once.
    ///
    /// The password is asked for; where standard input is no terminal, it is its first line. With `--passkey` there is no password: what is
    /// printed is a link, with which the person registers a passkey within 30 minutes.
    Add {
        #[command(flatten)]
        place: Place,
        /// Make an account without a password, and print a link to register a passkey.
        #[arg(long)]
        passkey: bool,
        #[command(flatten)]
        at: At,
        /// How the person is shown in sessions; the account's name where left out.
        #[arg(long)]
        name: Option<String>,
        /// Name of the account: a-z, 0-9, '.', '_', '@' and '-'.
        account: AccountName,
    },
    /// Print a link with which the person registers a passkey, one, within 30 minutes. It is a secret, and is shown once.
    Passkey {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        at: At,
        /// Name of the account.
        account: AccountName,
    },
    /// Print the passkeys of an account: id, label, when registered, last login.
    Passkeys {
        #[command(flatten)]
        place: Place,
        /// Print one JSON value instead of text.
        #[arg(long)]
        json: bool,
        /// Name of the account.
        account: AccountName,
    },
    /// Remove a passkey of an account. The account's logins end within a second.
    RemovePasskey {
        #[command(flatten)]
        place: Place,
        /// Name of the account.
        account: AccountName,
        /// Which: its id, as `passkeys` prints it.
        id: String,
    },
    /// Print all accounts: name, shown name, when made, last login, what it logs in with.
    List {
        #[command(flatten)]
        place: Place,
        /// Print one JSON value instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Remove an account. Its logins end, and who came in with it is removed from sessions within a second.
    Remove {
        #[command(flatten)]
        place: Place,
        /// Name of the account.
        account: AccountName,
    },
    /// Give an account a new password and a new authenticator, as `add` does. Its passkeys are removed, and its logins end.
    Reset {
        #[command(flatten)]
        place: Place,
        /// Name of the account.
        account: AccountName,
    },
}

/// Where the link leads.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct At {
    /// Address that the node is known by: `signaling.public_url` of its configuration. Where left out, the one that it ran with last.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Directory of the node: `dir` of its configuration.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl AdminCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::User { command } => command.run(),
            Self::BreakGlass { command } => command.run(),
        }
    }
}

impl UserCommand {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add { place, passkey, at, name, account } => {
                let shown = name.unwrap_or_else(|| account.to_string());
                if passkey {
                    return invite(&place.accounts()?.add_without_password(&account, &shown, at.url.as_deref())?);
                }
                ensure!(at.url.is_none(), "--url: where the link of --passkey leads; it is right beside that alone");
                enrol(&place.accounts()?.add(&account, &shown, &password()?)?)
            }
            Self::Passkey { place, at, account } => {
                invite(&place.accounts()?.passkey_link(&account, at.url.as_deref())?)
            }
            Self::Passkeys { place, json, account } => {
                let all = place.accounts()?.passkeys(&account)?;
                if json {
                    return crate::verbs::print(&format!("{}\n", serde_json::to_string(&all)?));
                }
                let rows =
                    all.iter().map(|p| format!("{}\t{}\t{}\t{}\n", p.id, p.label, time(p.created), last(p.last_login)));
                crate::verbs::print(&rows.collect::<String>())
            }
            Self::RemovePasskey { place, account, id } => Ok(place.accounts()?.remove_passkey(&account, &id)?),
            Self::Reset { place, account } => enrol(&place.accounts()?.reset(&account, &password()?)?),
            Self::Remove { place, account } => Ok(place.accounts()?.remove(&account)?),
            Self::List { place, json } => {
                let all = place.accounts()?.list()?;
                if json {
                    return crate::verbs::print(&format!("{}\n", serde_json::to_string(&all)?));
                }
                let rows = all.iter().map(|a| {
                    let with = factors(a);
                    format!("{}\t{}\t{}\t{}\t{with}\n", a.account, a.name, time(a.created), last(a.last_login))
                });
                crate::verbs::print(&rows.collect::<String>())
            }
        }
    }
}

fn time(at: WallMicros) -> String {
    trocar_control::audit::clock::utc(at)
}

fn last(login: Option<WallMicros>) -> String {
    login.map_or_else(|| "never".to_owned(), time)
}

/// What an account logs in with.
fn factors(account: &Account) -> String {
    match (account.password, account.passkeys) {
        (true, 0) => "password and code".to_owned(),
        (true, n) => format!("password and code, passkeys: {n}"),
        (false, n) => format!("passkeys: {n}"),
    }
}

impl Place {
    fn accounts(&self) -> anyhow::Result<Accounts> {
        Ok(Accounts::open(&self.database()?)?)
    }

    /// The node's database, in a directory that is not open to others.
    fn database(&self) -> anyhow::Result<PathBuf> {
        let name = self.dir.display();
        let found = std::fs::metadata(&self.dir).with_context(|| format!("--dir: cannot look at {name}"))?;
        ensure!(found.is_dir(), "--dir: {name} is no directory: that of the node is right");
        ensure!(
            found.permissions().mode() & 0o007 == 0,
            "--dir: others have rights in {name}, and the secrets of authenticators are kept there (chmod o= {name})"
        );
        Ok(self.dir.join("trocar.db"))
    }
}

fn enrol(address: &str) -> anyhow::Result<()> {
    eprintln!("Enrol the authenticator with this address; it is a secret, and is not shown again:");
    crate::verbs::print(&format!("{address}\n"))
}

fn invite(link: &str) -> anyhow::Result<()> {
    eprintln!("Within 30 minutes this link registers one passkey; it is a secret, and is not shown again:");
    crate::verbs::print(&format!("{link}\n"))
}

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 1_024;

/// A password that nobody sees: asked for twice on a terminal, else the first line of standard input.
fn password() -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return line(stdin.lock());
    }
    let first = hidden("Password: ")?;
    if first != hidden("Again: ")? {
        bail!("the two are not the same");
    }
    Ok(first)
}

/// A password and a code, for a login: asked for on a terminal, else the first two lines of standard input.
pub(crate) fn password_and_code() -> anyhow::Result<(String, String)> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok((line(stdin.lock())?, line(stdin.lock())?));
    }
    let password = hidden("Password: ")?;
    eprint!("Code: ");
    std::io::stderr().flush()?;
    Ok((password, line(stdin.lock())?))
}

fn line(from: impl std::io::BufRead) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_LINE).read_line(&mut text).context("cannot read the password")?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks with the terminal's echo off, and puts it on again.
fn hidden(question: &str) -> anyhow::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    eprint!("{question}");
    std::io::stderr().flush()?;
    let before = tcgetattr(&stdin)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
    let read = line(stdin.lock());
    tcsetattr(&stdin, OptionalActions::Flush, &before)?;
    eprintln!();
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_whatever_ends_it() {
        for text in ["secret words", "secret words\n", "secret words\r\nmore\n"] {
            assert_eq!(line(text.as_bytes()).unwrap(), "secret words");
        }
        assert_eq!(line(" with spaces \n".as_bytes()).unwrap(), " with spaces ");
        let long = "x".repeat(5_000);
        assert_eq!(line(long.as_bytes()).unwrap().len(), 1_024, "what is too long is refused by its length later");
    }
}
