//! `trocar token`.

use super::table::{since, utc};
use super::{Access, EXIT_STATUS};
use crate::net::api::wall_now;

/// Redeem an invitation and print a bearer token, for curl and for encoders that know WHIP.
///
/// Standard output has the token alone; until when it is good stands on standard error. Nobody refreshes it: for longer,
/// call again, or give an encoder the invitation's secret as its bearer.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    access: Access,
    /// How the bearer is called in the session.
    #[arg(long, default_value = "Command line")]
    name: String,
}

impl TokenArgs {
    /// Does it. The place in the session stays: the token is good only as long as its participant is there.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let grant = self.access.join(&self.name).await?.grant();
        self.access.answer(&grant, || {
            let left = since(wall_now(), grant.expires);
            let role = grant.role.name();
            eprintln!("role {role}, session {}, good until {} (for {left})", grant.session, utc(grant.expires));
            format!("{}\n", grant.token)
        })
    }
}
