//! `[identity]` of the configuration: who has to say who they are.

use serde::Deserialize;
use std::time::Duration;

/// How people are known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Identity {
    /// Whose invitations ask for a login with a second factor as well.
    pub(crate) required: Required,
    /// Minutes that a login is good for, 5 to 720.
    pub(crate) login_minutes: u64,
    /// Minutes that the second factor may be old when a role that may hold instruments is joined, 1 to `login_minutes`.
    pub(crate) step_up_minutes: u64,
}

/// For whom an invitation alone is not enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Required {
    /// For nobody.
    #[default]
    Never,
    /// For the roles local and expert.
    Instruments,
    /// For everybody.
    Always,
}

impl Default for Identity {
    fn default() -> Self {
        Self { required: Required::Never, login_minutes: 60, step_up_minutes: 15 }
    }
}

impl Identity {
    /// What the types do not say.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !(5..=720).contains(&self.login_minutes) {
            anyhow::bail!("identity.login_minutes = {}: 5 to 720 is right", self.login_minutes);
        }
        if !(1..=self.login_minutes).contains(&self.step_up_minutes) {
            anyhow::bail!("identity.step_up_minutes = {}: 1 to login_minutes is right", self.step_up_minutes);
        }
        Ok(())
    }

    /// As signaling takes it.
    pub(crate) fn load(&self) -> trocar_signaling::IdentityConfig {
        use trocar_signaling::IdentityRequired as R;
        trocar_signaling::IdentityConfig {
            required: match self.required {
                Required::Never => R::Never,
                Required::Instruments => R::Instruments,
                Required::Always => R::Always,
            },
            life: Duration::from_secs(self.login_minutes * 60),
            step_up: Duration::from_secs(self.step_up_minutes * 60),
        }
    }
}
