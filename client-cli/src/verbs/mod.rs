//! `trocar session`, `feed`, `participant` and `token`: the HTTP API for people and scripts. A verb joins with the
//! invitation that it is given, does one thing, and leaves. It opens no event socket, so nobody sees it come and go.

mod confirm;
mod feed;
pub(crate) mod fold;
mod login;
mod participant;
mod session;
pub(crate) mod table;
mod token;

pub(crate) use feed::FeedCommand;
pub(crate) use login::LoginArgs;
pub(crate) use participant::ParticipantCommand;
pub(crate) use session::SessionCommand;
pub(crate) use token::TokenArgs;

use crate::net::api::Api;
use crate::net::link::InvitationLink;
use crate::net::tls::read_chain;
use anyhow::{Context, bail};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use trocar_proto::session::api::ParticipantInfo;
use trocar_proto::session::ids::ParticipantId;

/// What stands below the help of each verb.
pub(crate) const EXIT_STATUS: &str = "Exit status: 0 done; 1 refused or failed, with the reason on standard error; \
                                      2 a mistake on the command line.";

/// How a verb gets in, and how it answers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Access {
    /// Invitation link; the role in it decides what is allowed (`trocar roles`).
    #[arg(long, value_name = "LINK")]
    invite: InvitationLink,
    /// Trust list (PEM): the certificate of the authority that signed the server. Needed where the link is https.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print one JSON value instead of text.
    #[arg(long)]
    json: bool,
}

impl Access {
    /// Redeems the invitation, without a certificate for media.
    async fn join(&self, name: &str) -> anyhow::Result<Api> {
        join(&self.invite, self.ca.as_deref(), name).await
    }

    /// Joins, does `work` and leaves, whatever became of the work.
    async fn visit<T>(&self, work: impl AsyncFnOnce(&Api) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let api = self.join("Command line").await?;
        let done = work(&api).await;
        leave(&api).await;
        done
    }

    /// Prints the value as JSON or the text, as was asked for.
    fn answer<T: Serialize + ?Sized>(&self, value: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json { print(&format!("{}\n", serde_json::to_string(value)?)) } else { print(&text()) }
    }
}

/// Redeems an invitation for somebody who wants no media over QUIC.
///
/// # Errors
/// Where an https link comes without a trust list, or as [`Api::join`].
pub(crate) async fn join(link: &InvitationLink, ca: Option<&std::path::Path>, name: &str) -> anyhow::Result<Api> {
    Api::join(link.clone(), &trust_of(link, ca)?, None, name).await
}

/// The trust list that a link needs.
fn trust_of(link: &InvitationLink, ca: Option<&std::path::Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    match ca {
        Some(file) => read_chain(file).context("--ca"),
        None if link.base.scheme() == "https" => {
            bail!("--ca FILE is needed for an https link: the certificate of the authority that signed the server")
        }
        None => Ok(Vec::new()),
    }
}

/// Gives the place in the session back, and with it the token. It would end by itself some minutes later, so a failure
/// is no matter.
pub(crate) async fn leave(api: &Api) {
    let own = api.grant().participant;
    if let Err(error) = api.remove_participant(&own).await {
        tracing::debug!(error = format!("{error:#}"), "the place was not given back");
    }
}

/// Writes to standard output. A reader that went away, as `head` does, has what it wanted.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// The name that a participant is shown by; its id where it is not in the list.
fn name_of(participants: &[ParticipantInfo], id: &ParticipantId) -> String {
    participants.iter().find(|p| &p.participant == id).map_or_else(|| id.to_string(), |p| p.name.clone())
}
