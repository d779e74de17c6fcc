//! Role → verbs → highest grade, in one table. The docs are rendered from it (see [`render_markdown`]).

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// What somebody is in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The surgical team at the patient's side: publishes, and keeps the gate.
    Local,
    /// The remote expert.
    Expert,
    /// Watches, and may ask and stop.
    Observer,
    /// Opens sessions, invites and removes people.
    Coordinator,
    /// Network engineer: measures, sees figures.
    Engineer,
    /// A recording device.
    Recorder,
    /// A device that publishes by itself: camera, encoder, room.
    Publisher,
}

/// One thing that somebody may do through signaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Receive feeds.
    View,
    /// Publish feeds.
    Publish,
    /// Invite others into the session.
    Invite,
    /// Close the session, remove feeds and participants of others.
    Manage,
    /// Read figures of feeds and legs that are not one's own.
    Measure,
}

/// Grades of operation authority, lowest first (handover specification, section 3). Signaling never grants one: the grade
/// in a token is the highest that its bearer may ever hold at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// See.
    Observe,
    /// See and draw.
    Annotate,
    /// Move a camera that moves mechanically.
    Camera,
    /// Move instruments.
    Instruments,
    /// Move instruments and apply energy.
    Energy,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct RoleRow {
    /// The role that the row is about.
    pub role: Role,
    /// What it may do.
    pub verbs: &'static [Verb],
    /// The highest grade that a token of this role may carry.
    pub highest_grade: Grade,
    /// For people: who this is.
    pub who: &'static str,
}

/// The table: the only place that says what a role may do.
pub const ROLES: &[RoleRow] = &[
    RoleRow {
        role: Role::Local,
        verbs: &[Verb::View, Verb::Publish, Verb::Invite],
        highest_grade: Grade::Energy,
        who: "surgical team at the patient's side",
    },
    RoleRow {
        role: Role::Expert,
        verbs: &[Verb::View, Verb::Publish],
        highest_grade: Grade::Energy,
        who: "remote expert surgeon",
    },
    RoleRow {
        role: Role::Observer,
        verbs: &[Verb::View],
        highest_grade: Grade::Observe,
        who: "trainee, second opinion",
    },
    RoleRow {
        role: Role::Coordinator,
        verbs: &[Verb::View, Verb::Invite, Verb::Manage],
        highest_grade: Grade::Observe,
        who: "opens the session and invites",
    },
    RoleRow {
        role: Role::Engineer,
        verbs: &[Verb::View, Verb::Measure],
        highest_grade: Grade::Observe,
        who: "network engineer",
    },
    RoleRow { role: Role::Recorder, verbs: &[Verb::View], highest_grade: Grade::Observe, who: "recording device" },
    RoleRow {
        role: Role::Publisher,
        verbs: &[Verb::Publish],
        highest_grade: Grade::Observe,
        who: "camera or encoder that publishes by itself",
    },
];

impl Role {
    /// All roles, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        ROLES.iter().map(|r| r.role)
    }

    /// What this role may do; empty where the table has no row (a test shows that it has one for each).
    #[must_use]
    pub fn verbs(self) -> &'static [Verb] {
        ROLES.iter().find(|r| r.role == self).map_or(&[], |r| r.verbs)
    }

    /// The highest grade that a token of this role may carry.
    #[must_use]
    pub fn highest_grade(self) -> Grade {
        ROLES.iter().find(|r| r.role == self).map_or(Grade::Observe, |r| r.highest_grade)
    }

    /// The name in tokens, links and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Expert => "expert",
            Self::Observer => "observer",
            Self::Coordinator => "coordinator",
            Self::Engineer => "engineer",
            Self::Recorder => "recorder",
            Self::Publisher => "publisher",
        }
    }
}

/// The text was no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a role is one of local, expert, observer, coordinator, engineer, recorder, publisher")]
pub struct UnknownRole;

impl std::str::FromStr for Role {
    type Err = UnknownRole;
    fn from_str(s: &str) -> Result<Self, UnknownRole> {
        Self::all().find(|r| r.name() == s).ok_or(UnknownRole)
    }
}

/// The table as Markdown, for the docs.
#[must_use]
pub fn render_markdown() -> String {
    let mut out = String::from("| role | who | may | highest grade |\n| --- | --- | --- | --- |\n");
    for row in ROLES {
        let verbs: Vec<String> = row.verbs.iter().map(|v| format!("{v:?}").to_lowercase()).collect();
        let grade = format!("{:?}", row.highest_grade).to_lowercase();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {} | {} | {grade} |", row.role.name(), row.who, verbs.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_row_and_a_name_that_parses_back() {
        for role in [Role::Local, Role::Expert, Role::Observer, Role::Coordinator, Role::Engineer, Role::Recorder] {
            assert!(role.verbs().contains(&Verb::View));
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert_eq!("publisher".parse(), Ok(Role::Publisher));
        assert_eq!(ROLES.len(), 7);
    }

    #[test]
    fn a_device_may_publish_and_nothing_else() {
        assert_eq!(Role::Publisher.verbs(), &[Verb::Publish]);
        assert_eq!(Role::Publisher.highest_grade(), Grade::Observe);
    }

    #[test]
    fn an_observer_may_only_look() {
        assert_eq!(Role::Observer.verbs(), &[Verb::View]);
        assert_eq!(Role::Observer.highest_grade(), Grade::Observe);
    }
}
