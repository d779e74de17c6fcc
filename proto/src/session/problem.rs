//! Problem documents (RFC 9457): how every HTTP error of ours looks.

use super::ids::FeedId;
use serde::{Deserialize, Serialize};

/// `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI that identifies the kind of problem, `urn:trocar:problem:NAME`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One short sentence, the same for each problem of this kind.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What was wrong here and what would be right.
    pub detail: String,
    /// The field, header, parameter or claim at fault, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Feeds of the session that the client could take instead; with 406 only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<FeedId>,
    /// How one can log in, where that is asked for: `local`, `passkey`, or the name of an issuer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<String>,
    /// Where a login is asked for: whether one may come in without, in an emergency (`break_glass` of the join).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
}

/// Media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

impl Problem {
    /// A problem without a field. `name` becomes `urn:trocar:problem:NAME`.
    #[must_use]
    pub fn new(status: u16, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:trocar:problem:{name}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            field: None,
            alternatives: Vec::new(),
            ways: Vec::new(),
            break_glass: false,
        }
    }

    /// The same problem, naming the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}
