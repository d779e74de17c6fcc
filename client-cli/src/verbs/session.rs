//! `trocar session`.

use super::confirm::Consent;
use super::feed::feed_table;
use super::participant::participant_table;
use super::table::{clean, plural, utc};
use super::{Access, EXIT_STATUS};
use crate::net::api::wall_now;
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
        /// Role of whoever has the link: local, expert, observer, coordinator, engineer or recorder.
        #[arg(long)]
        role: Role,
        /// Hours that the link stays good, 1 to 168.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=168))]
        hours: u64,
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
