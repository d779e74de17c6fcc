//! `[identity]` of the configuration: who has to say who they are, and whom that is believed of.

use anyhow::Context as _;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use trocar_proto::session::role::Role;
use trocar_signaling::{
    BreakGlassConfig, ClientSecret, DEFAULT_AMR, Groups, IdentityConfig, IssuerConfig, SecondFactor,
};

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
    /// Whether local accounts may log in.
    pub(crate) local: bool,
    /// Who else says who somebody is.
    pub(crate) issuers: Vec<Issuer>,
    /// What joins without a login are taken in an emergency; none where left out.
    pub(crate) break_glass: Option<BreakGlass>,
}

/// Joining without the login that a role asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BreakGlass {
    /// Roles whose invitations take it: some of local, expert and observer.
    pub(crate) roles: Vec<Role>,
    /// Minutes that one lasts, 5 to 240.
    #[serde(default = "minutes")]
    pub(crate) minutes: u64,
    /// How many of one session within an hour, 1 to 20.
    #[serde(default = "per_hour")]
    pub(crate) per_hour: u32,
    /// Whether a gate's team may offer instruments to somebody who came in so.
    #[serde(default)]
    pub(crate) instruments: bool,
}

fn minutes() -> u64 {
    60
}

fn per_hour() -> u32 {
    4
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

/// An issuer of identities (OpenID Connect).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    /// What the page and the audit chain call it.
    pub(crate) name: String,
    /// Its issuer identifier.
    pub(crate) issuer: String,
    /// What this node is called there.
    pub(crate) client_id: String,
    /// What this node proves that with; others may not read the file. Left out for a public client.
    #[serde(default)]
    pub(crate) client_secret_file: Option<PathBuf>,
    /// What is asked for.
    #[serde(default = "scopes")]
    pub(crate) scopes: Vec<String>,
    /// Values of `acr` that count as a second factor.
    #[serde(default)]
    pub(crate) second_factor_acr: Vec<String>,
    /// Methods (`amr`) that count as a second factor.
    #[serde(default = "methods")]
    pub(crate) second_factor_amr: Vec<String>,
    /// The claim that is the account.
    #[serde(default = "account_claim")]
    pub(crate) account_claim: String,
    /// Groups whose members may log in; everybody whom the issuer knows where left out.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// The claim that lists them.
    #[serde(default = "groups_claim")]
    pub(crate) groups_claim: String,
    /// Authorities of its certificate, PEM; those of the system where left out.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
}

fn scopes() -> Vec<String> {
    ["openid", "profile"].map(ToOwned::to_owned).to_vec()
}

fn methods() -> Vec<String> {
    DEFAULT_AMR.map(ToOwned::to_owned).to_vec()
}

fn account_claim() -> String {
    "sub".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            required: Required::Never,
            login_minutes: 60,
            step_up_minutes: 15,
            local: true,
            issuers: Vec::new(),
            break_glass: None,
        }
    }
}

impl Identity {
    /// What the types do not say. Files are not looked at.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if !(5..=720).contains(&self.login_minutes) {
            anyhow::bail!("identity.login_minutes = {}: 5 to 720 is right", self.login_minutes);
        }
        if !(1..=self.login_minutes).contains(&self.step_up_minutes) {
            anyhow::bail!("identity.step_up_minutes = {}: 1 to login_minutes is right", self.step_up_minutes);
        }
        for issuer in &self.issuers {
            issuer.plain().check().with_context(|| format!("the issuer {:?}", issuer.name))?;
        }
        Ok(self.plain().check()?)
    }

    /// As signaling takes it, with secrets and authorities read.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(crate) fn load(&self) -> anyhow::Result<IdentityConfig> {
        let load = |i: &Issuer| i.load().with_context(|| format!("the issuer {:?}", i.name));
        Ok(IdentityConfig { issuers: self.issuers.iter().map(load).collect::<anyhow::Result<_>>()?, ..self.plain() })
    }

    fn plain(&self) -> IdentityConfig {
        use trocar_signaling::IdentityRequired as R;
        IdentityConfig {
            required: match self.required {
                Required::Never => R::Never,
                Required::Instruments => R::Instruments,
                Required::Always => R::Always,
            },
            life: Duration::from_secs(self.login_minutes * 60),
            step_up: Duration::from_secs(self.step_up_minutes * 60),
            local: self.local,
            issuers: self.issuers.iter().map(Issuer::plain).collect(),
            break_glass: self.break_glass.as_ref().map(|b| BreakGlassConfig {
                roles: b.roles.clone(),
                life: Duration::from_secs(b.minutes.saturating_mul(60)),
                per_hour: b.per_hour,
                instruments: b.instruments,
            }),
        }
    }
}

impl Issuer {
    fn load(&self) -> anyhow::Result<IssuerConfig> {
        let secret = self.client_secret_file.as_deref().map(super::read_secret).transpose();
        let secret = secret.context("identity.issuers.client_secret_file")?;
        let authorities = self.ca_file.as_deref().map(std::fs::read).transpose();
        let ca_pem = authorities.context("identity.issuers.ca_file")?;
        Ok(IssuerConfig { client_secret: secret.map(ClientSecret::new), ca_pem, ..self.plain() })
    }

    /// Without what stands in files.
    fn plain(&self) -> IssuerConfig {
        let groups = Groups { claim: self.groups_claim.clone(), any_of: self.groups.clone() };
        IssuerConfig {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            client_id: self.client_id.clone(),
            client_secret: None,
            scopes: self.scopes.clone(),
            second_factor: SecondFactor { acr: self.second_factor_acr.clone(), amr: self.second_factor_amr.clone() },
            account_claim: self.account_claim.clone(),
            groups: (!self.groups.is_empty()).then_some(groups),
            ca_pem: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> anyhow::Result<Identity> {
        let text =
            format!("[[issuers]]\nname = \"North\"\nissuer = \"https://id.example\"\nclient_id = \"trocar\"\n{more}");
        let identity: Identity = toml::from_str(&text)?;
        identity.check()?;
        Ok(identity)
    }

    #[test]
    fn an_issuer_needs_three_values_and_what_is_wrong_is_named() {
        let identity = parse("").unwrap();
        let [issuer] = &identity.load().unwrap().issuers[..] else { panic!("one") };
        assert_eq!((issuer.account_claim.as_str(), &issuer.groups, &issuer.client_secret), ("sub", &None, &None));
        assert_eq!(issuer.scopes, ["openid", "profile"]);
        assert_eq!(issuer.second_factor, SecondFactor::default());
        for (text, said) in [
            ("secret = \"x\"", "unknown field `secret`"),
            ("scopes = [\"email\"]", "identity.issuers.scopes"),
            ("second_factor_amr = []", "identity.issuers.second_factor_amr"),
            ("account_claim = \"\"", "identity.issuers.account_claim"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
        let local: Identity = toml::from_str("local = false").unwrap();
        assert!(local.check().unwrap_err().to_string().contains("identity.local"));
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "hush-hush\n").unwrap();
        let identity = parse(&format!("client_secret_file = {:?}", path.to_str().unwrap())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", identity.load().unwrap_err());
        assert!(error.contains("North") && error.contains("client_secret_file"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let secret = identity.load().unwrap().issuers[0].client_secret.clone();
        assert_eq!(secret, Some(ClientSecret::new("hush-hush".into())));
    }
}
