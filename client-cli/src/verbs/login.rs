//! `trocar login`.

use super::{Access, EXIT_STATUS, trust_of};
use crate::admin;
use crate::net::api::{self, answer};
use serde::{Deserialize, Serialize};
use trocar_proto::units::WallMicros;

/// Say who you are, and print the identity that an invitation may ask for.
///
/// The password and the code of the authenticator are asked for; where standard input is no terminal, they are its first two lines.
/// Whoever joins takes the identity from the variable TROCAR_IDENTITY: `TROCAR_IDENTITY=$(trocar login …) trocar watch …`. It is a secret.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    access: Access,
    /// Name of the account.
    account: String,
}

#[derive(Serialize)]
struct Asked<'a> {
    account: &'a str,
    password: &'a str,
    code: &'a str,
}

/// What signaling answers.
#[derive(Serialize, Deserialize)]
struct Granted {
    identity: String,
    expires: WallMicros,
    account: String,
    name: String,
}

impl LoginArgs {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (link, ca) = (&self.access.invite, self.access.ca.as_deref());
        let http = api::client(&trust_of(link, ca)?)?;
        let (password, code) = admin::password_and_code()?;
        let asked = Asked { account: &self.account, password: &password, code: code.trim() };
        let granted: Granted = answer(http.post(link.base.join("v1/login")?).json(&asked)).await?.json().await?;
        self.access.answer(&granted, || format!("{}\n", granted.identity))
    }
}
