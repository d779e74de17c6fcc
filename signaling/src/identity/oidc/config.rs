//! Whom identities are taken from besides local accounts, and what of theirs counts as a second factor.

use crate::config::ConfigError;
use crate::identity::is_own_way;
use reqwest::Url;
use std::fmt;
use zeroize::Zeroizing;

/// Methods that count as two factors where the configuration does not say (RFC 8176): `mfa`, which says so itself, or a key or code that one
/// has together with something that one knows or is. Text messages and calls (`sms`, `tel`), questions (`kba`) and circumstances
/// (`geo`, `rba`, `wia`) count as nothing.
pub const DEFAULT_AMR: [&str; 13] = [
    "mfa", "pwd+otp", "pwd+hwk", "pwd+swk", "pwd+sc", "pin+hwk", "pin+swk", "pin+sc", "fpt+hwk", "fpt+swk", "face+hwk",
    "face+swk", "pin+otp",
];
/// Issuers of one node.
pub(super) const MAX_ISSUERS: usize = 8;

/// An issuer of identities (OpenID Connect) that this node takes logins from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What it is called: on the page's button, in the audit chain, and before the colon of its accounts. 1 to 40 characters, no colon, not `local` and not `passkey`.
    pub name: String,
    /// Its issuer identifier, to the letter: `https://HOST[/PATH]`, or `http` on a loopback address.
    pub issuer: String,
    /// What this node is called there.
    pub client_id: String,
    /// What this node proves that with; none for a public client.
    pub client_secret: Option<ClientSecret>,
    /// What is asked for; `openid` is among it.
    pub scopes: Vec<String>,
    /// When a login had two factors.
    pub second_factor: SecondFactor,
    /// The claim that is the account. `sub` is the one that is never given to another person.
    pub account_claim: String,
    /// Who may log in; everybody whom the issuer knows where there is none.
    pub groups: Option<Groups>,
    /// Authorities that its certificate may be of, PEM; those of the system where there is none.
    pub ca_pem: Option<Vec<u8>>,
}

/// A secret shared with an issuer.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(Zeroizing<String>);

/// What counts as a second factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecondFactor {
    /// Values of `acr` that say so; they are asked for as well.
    pub acr: Vec<String>,
    /// Values of `amr` that say so, each of one method or of several that were all used, joined by `+`.
    pub amr: Vec<String>,
}

/// Groups whose members may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// The claim that lists somebody's groups.
    pub claim: String,
    /// One of these is enough.
    pub any_of: Vec<String>,
}

impl ClientSecret {
    /// Takes over a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

impl Default for SecondFactor {
    fn default() -> Self {
        Self { acr: Vec::new(), amr: DEFAULT_AMR.map(ToOwned::to_owned).to_vec() }
    }
}

impl SecondFactor {
    /// Whether a login with this `acr` and by these methods had two factors.
    pub(super) fn was_shown(&self, acr: Option<&str>, amr: &[String]) -> bool {
        let used = |way: &String| way.split('+').all(|method| amr.iter().any(|m| m == method));
        acr.is_some_and(|acr| self.acr.iter().any(|a| a == acr)) || self.amr.iter().any(used)
    }
}

impl IssuerConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first value that cannot be used, and what would be right.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, expected| Err(ConfigError { field, expected });
        let name = crate::name::shown(&self.name, 40);
        if name != Some(&self.name) || self.name.contains(':') || is_own_way(&self.name) {
            return bad(
                "identity.issuers.name",
                "1 to 40 characters without a colon, and neither \"local\" nor \"passkey\"",
            );
        }
        let plain = |url: &Url| url.query().is_none() && url.fragment().is_none();
        if !safe_url(&self.issuer).is_some_and(|url| plain(&url)) {
            return bad("identity.issuers.issuer", "https://HOST[/PATH], or http on a loopback address");
        }
        let printed =
            |text: &str, max: usize| (1..=max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !printed(&self.client_id, 256) {
            return bad("identity.issuers.client_id", "1 to 256 printable ASCII characters");
        }
        if self.client_secret.as_ref().is_some_and(|s| !printed(s.expose(), 512)) {
            return bad("identity.issuers.client_secret_file", "1 to 512 printable ASCII characters");
        }
        if self.scopes.len() > 16
            || !self.scopes.iter().all(|s| printed(s, 64))
            || !self.scopes.iter().any(|s| s == "openid")
        {
            return bad("identity.issuers.scopes", "at most 16, \"openid\" among them");
        }
        let SecondFactor { acr, amr } = &self.second_factor;
        if acr.len() > 16 || !acr.iter().all(|a| printed(a, 128)) {
            return bad("identity.issuers.second_factor_acr", "at most 16 values of acr, without spaces");
        }
        let methods = |way: &String| way.split('+').all(|m| printed(m, 32));
        if amr.len() > 32 || !amr.iter().all(methods) {
            return bad("identity.issuers.second_factor_amr", "at most 32 methods such as \"mfa\" or \"pwd+otp\"");
        }
        if acr.is_empty() && amr.is_empty() {
            return bad("identity.issuers.second_factor_amr", "one method, or one value of second_factor_acr");
        }
        if !printed(&self.account_claim, 64) {
            return bad("identity.issuers.account_claim", "the name of a claim, such as \"sub\"");
        }
        let named = |g: &Groups| printed(&g.claim, 64) && (1..=64).contains(&g.any_of.len());
        if self.groups.as_ref().is_some_and(|g| !named(g)) {
            return bad("identity.issuers.groups", "1 to 64 groups, and the claim that lists them in groups_claim");
        }
        Ok(())
    }
}

/// Each of them, and that they can be told apart.
pub(in crate::identity) fn check_all(issuers: &[IssuerConfig]) -> Result<(), ConfigError> {
    if issuers.len() > MAX_ISSUERS {
        return Err(ConfigError { field: "identity.issuers", expected: "at most 8" });
    }
    for (i, issuer) in issuers.iter().enumerate() {
        issuer.check()?;
        let same = |other: &IssuerConfig| other.name == issuer.name || other.issuer == issuer.issuer;
        if issuers.iter().skip(i + 1).any(same) {
            return Err(ConfigError { field: "identity.issuers", expected: "each name and each issuer once" });
        }
    }
    Ok(())
}

/// An address that may be asked: https, or http that does not leave the machine.
pub(super) fn safe_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|u| u.username().is_empty() && u.password().is_none())?;
    crate::outgoing::is_private(&url).then_some(url)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::identity::oidc) fn issuer(issuer: &str) -> IssuerConfig {
        IssuerConfig {
            name: "North".into(),
            issuer: issuer.into(),
            client_id: "trocar".into(),
            client_secret: None,
            scopes: vec!["openid".into()],
            second_factor: SecondFactor::default(),
            account_claim: "sub".into(),
            groups: None,
            ca_pem: None,
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let good = issuer("https://id.example");
        good.check().unwrap();
        let wrong = |change: fn(&mut IssuerConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().unwrap_err().field.trim_start_matches("identity.issuers.")
        };
        for name in ["", "a:b", "Local", " x", "a\u{202e}b"] {
            let mut config = good.clone();
            config.name = name.into();
            assert_eq!(config.check().unwrap_err().field, "identity.issuers.name", "{name:?}");
        }
        for url in ["http://id.example", "https://id.example/?x", "https://id.example/#x", "https://a@id.example", "id"]
        {
            assert_eq!(issuer(url).check().unwrap_err().field, "identity.issuers.issuer", "{url}");
        }
        issuer("http://127.0.0.1:8081/realm").check().unwrap();
        issuer("http://[::1]:8081").check().unwrap();
        assert_eq!(wrong(|c| c.client_id = "a b".into()), "client_id");
        assert_eq!(wrong(|c| c.client_secret = Some(ClientSecret::new(String::new()))), "client_secret_file");
        assert_eq!(wrong(|c| c.scopes = vec!["email".into()]), "scopes");
        assert_eq!(wrong(|c| c.second_factor.acr = vec!["a b".into()]), "second_factor_acr");
        assert_eq!(wrong(|c| c.second_factor.amr = vec!["pwd+".into()]), "second_factor_amr");
        assert_eq!(wrong(|c| c.second_factor.amr.clear()), "second_factor_amr");
        assert_eq!(wrong(|c| c.account_claim.clear()), "account_claim");
        assert_eq!(wrong(|c| c.groups = Some(Groups { claim: "g".into(), any_of: Vec::new() })), "groups");
        let twice = [good.clone(), IssuerConfig { name: "South".into(), ..good.clone() }];
        assert_eq!(check_all(&twice).unwrap_err().field, "identity.issuers");
    }

    #[test]
    fn two_factors_are_what_says_so_or_two_of_different_kinds() {
        let default = SecondFactor::default();
        let shown = |amr: &[&str]| default.was_shown(None, &amr.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>());
        for amr in [&["mfa"][..], &["pwd", "otp"], &["otp", "pwd", "user"], &["swk", "pin"], &["hwk", "fpt"]] {
            assert!(shown(amr), "{amr:?}");
        }
        for amr in [&[][..], &["pwd"], &["otp"], &["hwk"], &["pwd", "pin"], &["pwd", "sms"], &["pwd", "kba"], &["MFA"]]
        {
            assert!(!shown(amr), "{amr:?}");
        }
        assert!(!default.was_shown(Some("phr"), &[]), "no acr counts unless it is configured");
        let by_acr = SecondFactor { acr: vec!["phr".into()], amr: Vec::new() };
        assert!(by_acr.was_shown(Some("phr"), &[]) && !by_acr.was_shown(Some("phrh"), &["mfa".into()]));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let config = IssuerConfig { client_secret: Some(ClientSecret::new("hush-hush".into())), ..issuer("https://x") };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
