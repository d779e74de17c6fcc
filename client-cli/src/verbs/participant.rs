//! `trocar participant`.

use super::confirm::Consent;
use super::table::{Align, Table, clean, since};
use super::{Access, EXIT_STATUS, name_of};
use crate::net::api::wall_now;
use anyhow::Context as _;
use trocar_proto::session::api::SessionInfo;
use trocar_proto::session::ids::ParticipantId;
use trocar_proto::units::WallMicros;

/// Look at who is in the session, and remove somebody.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum ParticipantCommand {
    /// List the participants that are connected now.
    #[command(after_help = EXIT_STATUS)]
    List {
        #[command(flatten)]
        access: Access,
    },
    /// Remove somebody: the feeds, pictures and token of that participant end. A link that is still good leads back in.
    /// Needs the role coordinator.
    #[command(after_help = EXIT_STATUS)]
    Remove {
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        consent: Consent,
        /// Id of the participant, as `trocar participant list` prints it.
        participant: ParticipantId,
    },
}

impl ParticipantCommand {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { access } => {
                let info = access.visit(async |api| api.session().await).await?;
                access.answer(&info.participants, || participant_table(&info, wall_now()).render())
            }
            Self::Remove { access, consent, participant } => {
                consent.can_be_had()?;
                access
                    .visit(async |api| {
                        let info = api.session().await?;
                        let name = clean(&name_of(&info.participants, &participant));
                        consent.ask(&format!("Remove {name} from the session?"))?;
                        api.remove_participant(&participant).await.context("not removed")
                    })
                    .await?;
                access.answer(&serde_json::json!({ "removed": participant }), || {
                    format!("removed participant {participant}\n")
                })
            }
        }
    }
}

/// The participants of a session, one a row.
pub(super) fn participant_table(info: &SessionInfo, now: WallMicros) -> Table {
    use Align::{Left, Right};
    let mut head = vec![
        ("PARTICIPANT", Left),
        ("NAME", Left),
        ("ROLE", Left),
        ("ORGANISATION", Left),
        ("REALM", Left),
        ("HERE FOR", Right),
    ];
    let is_alarming = info.participants.iter().any(|p| p.break_glass.is_some());
    if is_alarming {
        head.push(("BY BREAK-GLASS", Left));
    }
    let mut table = Table::new(&head);
    for p in &info.participants {
        let mut row = vec![
            p.participant.to_string(),
            clean(&p.name),
            p.role.name().to_owned(),
            p.organisation.as_deref().map_or_else(|| "-".to_owned(), clean),
            p.realm.to_string(),
            since(p.since, now),
        ];
        if is_alarming {
            row.push(p.break_glass.as_ref().map_or_else(|| "-".to_owned(), |glass| clean(&glass.reason)));
        }
        table.row(row);
    }
    table.or_say("no participants are connected")
}
