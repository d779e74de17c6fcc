//! Joining in an emergency without the login that a role asks for: what is said, and what others see of it.

use super::role::Verb;
use crate::units::WallMicros;
use serde::{Deserialize, Serialize};

/// Shortest and longest reason, in characters.
pub const REASON_LEN: std::ops::RangeInclusive<usize> = 3..=200;

/// What nobody gets who came in like that, whatever the role: letting others in, managing, and what is no emergency.
pub const NEVER: &[Verb] = &[Verb::Invite, Verb::Manage, Verb::Measure];

/// In `POST /v1/join`: comes in without the login that the invitation asks for. Everybody in the session sees it, it is recorded, and
/// it is reviewed afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BreakGlass {
    /// Why: 3 to 200 characters, for everybody in the session and for the review. No name of a patient.
    pub reason: String,
    /// `true`: whoever asks knows what it means.
    pub confirm: bool,
}

/// Of somebody who came in like that, for everybody in the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BrokenGlass {
    /// Why, in their own words.
    pub reason: String,
    /// When it ends.
    pub until: WallMicros,
}
