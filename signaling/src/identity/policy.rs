//! Who has to say who they are: the configuration, and what it means for a role.

use super::oidc::{IssuerConfig, check_all};
use crate::break_glass::BreakGlassConfig;
use crate::config::ConfigError;
use std::time::Duration;
use trocar_proto::session::role::{Grade, Role};

/// For whom an invitation alone is not enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Required {
    /// For nobody: whoever has the link comes in.
    #[default]
    Never,
    /// For roles that may ever hold instruments.
    Instruments,
    /// For everybody.
    Always,
}

/// How people are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// Whose invitations ask for a login with a second factor.
    pub required: Required,
    /// How long a login is good for, 5 min to 12 h.
    pub life: Duration,
    /// How old the second factor may be when a role that may hold instruments is joined, 1 min to [`Self::life`].
    pub step_up: Duration,
    /// Whether local accounts may log in.
    pub local: bool,
    /// Who else says who somebody is (OpenID Connect); at most 8.
    pub issuers: Vec<IssuerConfig>,
    /// What joins without a login are taken, in an emergency; none where left out.
    pub break_glass: Option<BreakGlassConfig>,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        let (life, step_up) = (Duration::from_secs(3_600), Duration::from_secs(900));
        Self { required: Required::Never, life, step_up, local: true, issuers: Vec::new(), break_glass: None }
    }
}

/// What a role needs besides its invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// A login with a second factor.
    Login,
    /// The same, not older than [`IdentityConfig::step_up`].
    Fresh,
}

impl IdentityConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the value that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, expected| Err(ConfigError { field, expected });
        if !(300..=43_200).contains(&self.life.as_secs()) {
            return bad("identity.life", "5 to 720 minutes");
        }
        if self.step_up < Duration::from_secs(60) || self.step_up > self.life {
            return bad("identity.step_up", "1 minute to as long as a login is good for");
        }
        if !self.local && self.issuers.is_empty() {
            return bad("identity.local", "true, or an issuer: otherwise nobody can log in");
        }
        self.break_glass.as_ref().map_or(Ok(()), BreakGlassConfig::check)?;
        check_all(&self.issuers)
    }

    pub(super) fn need(&self, role: Role) -> Need {
        match (self.required, role.highest_grade() >= Grade::Instruments) {
            (Required::Never, _) | (Required::Instruments, false) => Need::Nothing,
            (Required::Instruments | Required::Always, true) => Need::Fresh,
            (Required::Always, false) => Need::Login,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_asks_whom_it_says() {
        let need = |required, role| IdentityConfig { required, ..IdentityConfig::default() }.need(role);
        for role in Role::all() {
            assert_eq!(need(Required::Never, role), Need::Nothing);
        }
        assert_eq!(need(Required::Instruments, Role::Observer), Need::Nothing);
        assert_eq!(need(Required::Instruments, Role::Coordinator), Need::Nothing);
        assert_eq!(need(Required::Instruments, Role::Expert), Need::Fresh);
        assert_eq!(need(Required::Instruments, Role::Local), Need::Fresh);
        assert_eq!(need(Required::Always, Role::Observer), Need::Login);
        assert_eq!(need(Required::Always, Role::Expert), Need::Fresh);
    }

    #[test]
    fn times_out_of_range_are_refused_by_name() {
        let with = |life, step_up| {
            let (life, step_up) = (Duration::from_secs(life), Duration::from_secs(step_up));
            IdentityConfig { life, step_up, ..IdentityConfig::default() }.check().map_err(|e| e.field)
        };
        assert_eq!(with(3_600, 900), Ok(()));
        assert_eq!(with(299, 60), Err("identity.life"));
        assert_eq!(with(43_201, 60), Err("identity.life"));
        assert_eq!(with(3_600, 59), Err("identity.step_up"));
        assert_eq!(with(3_600, 3_601), Err("identity.step_up"));
        let nobody = IdentityConfig { local: false, ..IdentityConfig::default() };
        assert_eq!(nobody.check().unwrap_err().field, "identity.local");
    }
}
