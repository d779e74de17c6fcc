//! `trocar session`.

use super::confirm::Consent;
use super::feed::feed_table;
use super::participant::participant_table;
use super::table::{clean, plural, utc};
use super::{Access, EXIT_STATUS};
use crate::net::api::wall_now;
use anyhow::Context as _;
use trocar_proto::session::api::SessionInfo;
use trocar_proto::session::role::Role;

/// Look at the session of an invitation, invite into it, close it.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum SessionCommand {
    /// Print the session: its title, who is in it and what is published.
    #[command(after_help = EXIT_STATUS)]
    Show {
        #[command(flatten)]
        access: Access,
    },
    /// Write an invitation and print its link. Needs a role that may invite: local or coordinator.
    #[command(after_help = EXIT_STATUS)]
    Invite {
        #[command(flatten)]
        access: Access,
        /// Role of whoever has the link: local, expert, observer, coordinator, engineer, recorder or publisher.
        #[arg(long)]
        role: Role,
        /// Hours that the link stays good, 1 to 168.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=168))]
        hours: u64,
    },
    /// Print what the patient consented to; with FILE, hand in the document that says so or that withdraws it.
    ///
    /// Handing in needs a role that may invite: local or coordinator. A withdrawal ends at once what others see and hear, but never the
    /// picture of an expert who operates.
    #[command(after_help = EXIT_STATUS)]
    Consent {
        #[command(flatten)]
        access: Access,
        /// What `trocar consent sign` or `trocar consent withdraw` wrote.
        file: Option<std::path::PathBuf>,
    },
    /// Close the session for good: pictures stop, everybody is sent away, no link leads back. Needs the role coordinator.
    #[command(after_help = EXIT_STATUS)]
    Close {
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        consent: Consent,
    },
}

impl SessionCommand {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Show { access } => {
                let info = access.visit(async |api| api.session().await).await?;
                access.answer(&info, || text(&info))
            }
            Self::Invite { access, role, hours } => {
                let invitation = access.visit(async |api| api.invite(role, hours * 3_600).await).await?;
                access.answer(&invitation, || {
                    // The link alone on standard output, so that a script can take it.
                    eprintln!("role {role}, good until {}", utc(invitation.expires), role = invitation.role.name());
                    format!("{}\n", invitation.link)
                })
            }
            Self::Consent { access, file } => {
                let document = match &file {
                    Some(f) => {
                        Some(std::fs::read_to_string(f).with_context(|| format!("cannot read {}", f.display()))?)
                    }
                    None => None,
                };
                let document: Option<serde_json::Value> =
                    document.map(|d| serde_json::from_str(&d)).transpose().context("the file is not JSON")?;
                let info = access.visit(async |api| api.consent(document.as_ref()).await).await?;
                access.answer(&info, || consent_text(&info))
            }
            Self::Close { access, consent } => {
                consent.can_be_had()?;
                let closed = access
                    .visit(async |api| {
                        let info = api.session().await?;
                        consent.ask(&format!("Close {} for good?", described(&info)))?;
                        api.close_session().await?;
                        Ok(info)
                    })
                    .await?;
                access.answer(&serde_json::json!({ "closed": closed.session }), || {
                    format!("closed {}\n", described(&closed))
                })
            }
        }
    }
}

fn consent_text(info: &serde_json::Value) -> String {
    let is = |key: &str| if info[key] == true { "yes" } else { "no" };
    let text = |key: &str| info[key].as_str().unwrap_or("-").to_owned();
    let document = match info["serial"].as_u64() {
        None | Some(0) => "none was handed in".to_owned(),
        Some(serial) if info["withdrawn"] == true => format!("serial {serial}, WITHDRAWN"),
        Some(serial) => format!("serial {serial}, {} to {}", text("from"), text("until")),
    };
    format!(
        "document          {document}\nothers may see    {}{}\nmay be recorded   {}\nremote operation  {} (the gate decides by itself)\n",
        is("view"),
        if info["required"] == true {
            ""
        } else {
            " (this node does not ask for consent: everybody in the session may)"
        },
        is("record"),
        is("remote_operation"),
    )
}

fn described(info: &SessionInfo) -> String {
    let people = plural(info.participants.len(), "participant");
    let feeds = plural(info.feeds.len(), "feed");
    format!("session {} \"{}\" with {people} and {feeds}", info.session, clean(&info.title))
}

fn text(info: &SessionInfo) -> String {
    let now = wall_now();
    let head = format!("session  {}\ntitle    {}\nat       {}\n", info.session, clean(&info.title), utc(now));
    let people = participant_table(info, now).render();
    let feeds = feed_table(info, now).render();
    format!("{head}\n{people}\n{feeds}")
}
