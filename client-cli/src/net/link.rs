//! Invitation links: `https://HOST:PORT/#invitation=SECRET`.

use std::str::FromStr;
use url::Url;

/// An invitation link taken apart.
#[derive(Clone)]
pub(crate) struct InvitationLink {
    /// Base of the HTTP API, with a slash at the end.
    pub(crate) base: Url,
    /// The secret.
    pub(crate) secret: String,
}

/// Why a text is no invitation link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an invitation link looks like https://HOST:PORT/#invitation=SECRET")]
pub(crate) struct InvalidLink;

impl FromStr for InvitationLink {
    type Err = InvalidLink;

    fn from_str(s: &str) -> Result<Self, InvalidLink> {
        let mut base = Url::parse(s).map_err(|_| InvalidLink)?;
        if !matches!(base.scheme(), "https" | "http") || base.host().is_none() {
            return Err(InvalidLink);
        }
        let fragment = base.fragment().ok_or(InvalidLink)?.to_owned();
        let pairs = url::form_urlencoded::parse(fragment.as_bytes());
        let secret =
            pairs.into_iter().find(|(k, v)| k == "invitation" && !v.is_empty()).ok_or(InvalidLink)?.1.into_owned();
        base.set_fragment(None);
        base.set_query(None);
        base.set_path("/");
        Ok(Self { base, secret })
    }
}

impl std::fmt::Debug for InvitationLink {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InvitationLink({})", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_gives_base_and_secret_and_hides_the_secret_in_logs() {
        let l: InvitationLink = "https://h:1/s/x?y=1#name=a&invitation=SECRET_x-1".parse().unwrap();
        assert_eq!((l.base.as_str(), l.secret.as_str()), ("https://h:1/", "SECRET_x-1"));
        assert!(!format!("{l:?}").contains("SECRET"));
        for bad in ["", "x", "https://h/", "https://h/#invitation=", "ftp://h/#invitation=x"] {
            assert!(bad.parse::<InvitationLink>().is_err(), "{bad}");
        }
    }
}
