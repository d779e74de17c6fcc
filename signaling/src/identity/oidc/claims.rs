//! What an ID token has to say before it is believed (OpenID Connect Core 1.0 section 3.1.3.7). The signature is looked at before.

use super::config::{Groups, IssuerConfig};
use crate::name::{MAX_NAME, clean, shown};
use serde_json::{Map, Value};

/// How far clocks may be apart, in seconds.
const LEEWAY_S: u64 = 30;
/// Longest account of an issuer, in bytes; `sub` has 255 at most.
const MAX_ACCOUNT: usize = 255;

/// What an ID token must fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) config: &'a IssuerConfig,
    pub(super) nonce: &'a str,
    /// Seconds since 1970.
    pub(super) now: u64,
    /// When the login was begun, likewise.
    pub(super) begun: u64,
    /// How old the login at the issuer may be, in seconds.
    pub(super) max_age: u64,
    /// Whether it has to be of after `begun`.
    pub(super) step_up: bool,
}

/// Whom it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vouched {
    /// In the issuer's words.
    pub(super) account: String,
    pub(super) name: String,
    /// When the person was asked, in seconds since 1970; never in the future.
    pub(super) at: u64,
    pub(super) second_factor: bool,
    /// `acr` and `amr` as they came, cleaned: for the audit chain.
    pub(super) how: String,
}

/// What is wrong with an ID token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Amiss {
    #[error("it has no {0}, or not as it should be")]
    Lacks(&'static str),
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is for another client")]
    Audience,
    #[error("it is for others as well")]
    Audiences,
    #[error("it was given to another client")]
    Party,
    #[error("it has expired")]
    Expired,
    #[error("it is of the future, or was made before the login was begun")]
    Issued,
    #[error("its nonce is not that of the login")]
    Nonce,
    #[error("the login at the issuer is older than was asked for")]
    Old,
    #[error("its email was not verified")]
    Email,
    #[error("its account is in no group that may log in")]
    Groups,
}

/// Looks at all of it.
pub(super) fn check(claims: &Map<String, Value>, expected: Expected<'_>) -> Result<Vouched, Amiss> {
    let config = expected.config;
    if text(claims, "iss")? != config.issuer {
        return Err(Amiss::Issuer);
    }
    audience(claims, &config.client_id)?;
    times(claims, expected)?;
    if text(claims, "nonce")? != expected.nonce {
        return Err(Amiss::Nonce);
    }
    let auth_time = seconds(claims, "auth_time")?;
    let oldest = if expected.step_up { expected.begun } else { expected.now.saturating_sub(expected.max_age) };
    if auth_time.saturating_add(LEEWAY_S) < oldest {
        return Err(Amiss::Old);
    }
    if auth_time > expected.now.saturating_add(LEEWAY_S) {
        return Err(Amiss::Lacks("auth_time"));
    }
    // Of everybody, whatever the account is made of.
    text(claims, "sub")?;
    if config.account_claim == "email" && claims.get("email_verified") != Some(&Value::Bool(true)) {
        return Err(Amiss::Email);
    }
    let account = claims.get(&config.account_claim).and_then(Value::as_str).and_then(|a| shown(a, MAX_ACCOUNT));
    let account = account.filter(|a| a.len() <= MAX_ACCOUNT).ok_or(Amiss::Lacks("account"))?.to_owned();
    if !config.groups.as_ref().is_none_or(|groups| is_member(claims, groups)) {
        return Err(Amiss::Groups);
    }
    let acr = claims.get("acr").and_then(Value::as_str);
    let amr = strings(claims.get("amr"));
    Ok(Vouched {
        name: name(claims).unwrap_or_else(|| clean(&account, MAX_NAME)),
        account,
        at: auth_time.min(expected.now),
        second_factor: config.second_factor.was_shown(acr, &amr),
        how: clean(&format!("acr {}, amr {}", acr.unwrap_or("none"), spoken(&amr)), 160),
    })
}

/// This client alone: whom else it is for is nobody that this node knows.
fn audience(claims: &Map<String, Value>, client_id: &str) -> Result<(), Amiss> {
    let audiences = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        other => strings(other),
    };
    if !audiences.iter().any(|a| a == client_id) {
        return Err(Amiss::Audience);
    }
    if audiences.iter().any(|a| a != client_id) {
        return Err(Amiss::Audiences);
    }
    match claims.get("azp") {
        Some(party) if party.as_str() != Some(client_id) => Err(Amiss::Party),
        _ => Ok(()),
    }
}

fn times(claims: &Map<String, Value>, expected: Expected<'_>) -> Result<(), Amiss> {
    let (now, begun) = (expected.now, expected.begun);
    let (ends, issued) = (seconds(claims, "exp")?, seconds(claims, "iat")?);
    if ends.saturating_add(LEEWAY_S) <= now {
        return Err(Amiss::Expired);
    }
    if issued > now.saturating_add(LEEWAY_S) || issued.saturating_add(LEEWAY_S) < begun {
        return Err(Amiss::Issued);
    }
    match claims.get("nbf") {
        Some(_) if seconds(claims, "nbf")? > now.saturating_add(LEEWAY_S) => Err(Amiss::Issued),
        _ => Ok(()),
    }
}

fn is_member(claims: &Map<String, Value>, groups: &Groups) -> bool {
    strings(claims.get(&groups.claim)).iter().any(|g| groups.any_of.contains(g))
}

/// How somebody is shown, where the issuer says it in a way that can be shown.
fn name(claims: &Map<String, Value>) -> Option<String> {
    let claim = |name: &str| claims.get(name).and_then(Value::as_str).and_then(|n| shown(n, MAX_NAME));
    claim("name").or_else(|| claim("preferred_username")).map(ToOwned::to_owned)
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, Amiss> {
    claims.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).ok_or(Amiss::Lacks(name))
}

/// A NumericDate (RFC 7519 section 2); parts of a second are let go.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<u64, Amiss> {
    let value = claims.get(name).ok_or(Amiss::Lacks(name))?;
    let whole = |f: f64| (f.is_finite() && (0.0..1e15).contains(&f)).then_some(f as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole)).ok_or(Amiss::Lacks(name))
}

/// The strings of a list. Anything else is no list: a method is not guessed out of it.
fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn spoken(amr: &[String]) -> String {
    if amr.is_empty() { "none".to_owned() } else { amr.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::issuer;
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn good() -> Map<String, Value> {
        let claims = json!({
            "iss": "https://id.example", "aud": "trocar", "sub": "u1", "exp": NOW + 300, "iat": NOW - 1, "nonce": "n1",
            "auth_time": NOW - 2, "amr": ["pwd", "otp"], "name": "Dr Ada",
        });
        claims.as_object().unwrap().clone()
    }

    fn with(change: &[(&str, Value)]) -> Result<Vouched, Amiss> {
        look(change, &issuer("https://id.example"), false)
    }

    fn look(change: &[(&str, Value)], config: &IssuerConfig, step_up: bool) -> Result<Vouched, Amiss> {
        let mut claims = good();
        for (name, value) in change {
            match value {
                Value::Null => drop(claims.remove(*name)),
                _ => drop(claims.insert((*name).to_owned(), value.clone())),
            }
        }
        check(&claims, Expected { config, nonce: "n1", now: NOW, begun: NOW - 60, max_age: 900, step_up })
    }

    #[test]
    fn a_good_one_says_who_it_is_and_how_that_was_shown() {
        let ada = with(&[]).unwrap();
        assert_eq!((ada.account.as_str(), ada.name.as_str(), ada.at), ("u1", "Dr Ada", NOW - 2));
        assert!(ada.second_factor);
        assert_eq!(ada.how, "acr none, amr pwd otp");
        assert!(!with(&[("amr", json!(["pwd"]))]).unwrap().second_factor);
        assert!(!with(&[("amr", json!("mfa"))]).unwrap().second_factor, "a text is no list of methods");
        assert_eq!(with(&[("name", json!("a\u{202e}b"))]).unwrap().name, "u1", "a name that deceives is not shown");
        assert_eq!(with(&[("aud", json!(["trocar"])), ("azp", json!("trocar"))]).unwrap(), ada);
        assert_eq!(with(&[("exp", json!(NOW as f64 + 0.5))]).unwrap(), ada);
    }

    #[test]
    fn whatever_does_not_fit_is_refused_by_name() {
        for (claim, value, amiss) in [
            ("iss", json!("https://id.example/"), Amiss::Issuer),
            ("iss", Value::Null, Amiss::Lacks("iss")),
            ("aud", json!("other"), Amiss::Audience),
            ("aud", json!([]), Amiss::Audience),
            ("aud", json!(["trocar", "other"]), Amiss::Audiences),
            ("azp", json!("other"), Amiss::Party),
            ("azp", json!(1), Amiss::Party),
            ("exp", json!(NOW - 30), Amiss::Expired),
            ("exp", Value::Null, Amiss::Lacks("exp")),
            ("exp", json!("soon"), Amiss::Lacks("exp")),
            ("iat", json!(NOW + 31), Amiss::Issued),
            ("iat", json!(NOW - 91), Amiss::Issued),
            ("iat", Value::Null, Amiss::Lacks("iat")),
            ("nbf", json!(NOW + 31), Amiss::Issued),
            ("nonce", json!("n2"), Amiss::Nonce),
            ("nonce", Value::Null, Amiss::Lacks("nonce")),
            ("auth_time", json!(NOW - 931), Amiss::Old),
            ("auth_time", json!(NOW + 31), Amiss::Lacks("auth_time")),
            ("auth_time", Value::Null, Amiss::Lacks("auth_time")),
            ("sub", Value::Null, Amiss::Lacks("sub")),
            ("sub", json!(""), Amiss::Lacks("sub")),
            ("sub", json!("x".repeat(256)), Amiss::Lacks("account")),
            ("sub", json!("a\nb"), Amiss::Lacks("account")),
        ] {
            assert_eq!(with(&[(claim, value.clone())]), Err(amiss), "{claim} {value}");
        }
        // At the edge of what clocks may differ it is good.
        for (claim, value) in [("exp", NOW - 29), ("iat", NOW + 30), ("iat", NOW - 90), ("auth_time", NOW - 930)] {
            assert!(with(&[(claim, json!(value))]).is_ok(), "{claim}");
        }
    }

    #[test]
    fn a_step_up_asks_for_a_login_of_after_it_was_begun() {
        let config = issuer("https://id.example");
        assert!(look(&[("auth_time", json!(NOW - 90))], &config, true).is_ok());
        assert_eq!(look(&[("auth_time", json!(NOW - 91))], &config, true), Err(Amiss::Old));
        assert_eq!(look(&[("auth_time", json!(NOW + 5))], &config, true).unwrap().at, NOW, "never in the future");
    }

    #[test]
    fn an_account_may_be_another_claim_and_groups_may_be_asked_for() {
        let mut config = IssuerConfig { account_claim: "email".into(), ..issuer("https://id.example") };
        let email = ("email", json!("ada@example.org"));
        assert_eq!(look(std::slice::from_ref(&email), &config, false), Err(Amiss::Email));
        let verified = ("email_verified", json!(true));
        assert_eq!(look(&[email, verified.clone()], &config, false).unwrap().account, "ada@example.org");
        assert_eq!(look(&[verified], &config, false), Err(Amiss::Lacks("account")));
        config = issuer("https://id.example");
        config.groups = Some(Groups { claim: "groups".into(), any_of: vec!["surgeons".into()] });
        assert_eq!(look(&[], &config, false), Err(Amiss::Groups));
        assert_eq!(look(&[("groups", json!("surgeons"))], &config, false), Err(Amiss::Groups));
        assert!(look(&[("groups", json!(["staff", "surgeons"]))], &config, false).is_ok());
    }
}
