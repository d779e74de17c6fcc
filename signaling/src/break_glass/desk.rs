//! The list of break-glass joins, in a table of signaling's database, and their review by `trocar admin break-glass` beside a running node,
//! which is why this has a connection of its own. A review stays in the table, from where the node takes it into the audit chain.

use crate::app::wall_clock;
use crate::audit::Entry;
use crate::name::{MAX_NAME, NAME_EXPECTED, shown};
use crate::store::{self, StoreError, as_i64};
use rusqlite::{Connection, Row, Transaction, params};
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use trocar_proto::session::break_glass::BrokenGlass;
use trocar_proto::session::ids::{ParticipantId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::WallMicros;

/// The table. Made where it is missing, whatever the version of the rest: nothing else refers to it.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS break_glass (
    participant TEXT PRIMARY KEY, session TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, reason TEXT NOT NULL,
    at_us INTEGER NOT NULL, until_us INTEGER NOT NULL, reviewed_us INTEGER, reviewer TEXT, note TEXT, by_uid INTEGER,
    told INTEGER NOT NULL DEFAULT 0
) STRICT;
";

/// Longest note of a review, in characters.
const MAX_NOTE: usize = 1_000;
/// Reviews that are taken into the audit chain at a time.
const MOST_TOLD: usize = 64;
/// Columns of a [`BreakGlassJoin`].
const COLUMNS: &str = "participant, session, name, role, reason, at_us, until_us, reviewed_us, reviewer, note";

/// Why the list cannot be read, or a review not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BreakGlassError {
    /// There is none of that id.
    #[error("there is no break-glass join {0}: `trocar admin break-glass list` prints those that are not reviewed")]
    Missing(String),
    /// It was reviewed before.
    #[error("{0} was reviewed before, and a review is not changed")]
    Reviewed(String),
    /// The reviewer's name cannot be used.
    #[error("--by: {NAME_EXPECTED}")]
    By,
    /// The note cannot be used.
    #[error("--note: 1 to {MAX_NOTE} characters, no control characters")]
    Note,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A break-glass join as it is listed. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BreakGlassJoin {
    /// What a review names it by: the id of the participant.
    pub id: String,
    /// The session.
    pub session: String,
    /// How the participant is shown, by its own word.
    pub name: String,
    /// The role.
    pub role: String,
    /// Why, in the participant's words.
    pub reason: String,
    /// When.
    pub at: WallMicros,
    /// When its time is over.
    pub until: WallMicros,
    /// Who has looked into it; none while nobody has.
    pub review: Option<Review>,
}

/// That somebody has looked into a break-glass join.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Review {
    /// When.
    pub at: WallMicros,
    /// Who, by their own word.
    pub by: String,
    /// What they found.
    pub note: String,
}

/// The list of one database.
pub struct BreakGlassDesk {
    connection: Mutex<Connection>,
    // Where no node runs it is kept from starting in the middle.
    _lock: Option<File>,
}

/// What a running node wants to know of it.
pub(super) struct Standing {
    pub(super) unreviewed: i64,
    /// When the oldest of these came.
    pub(super) oldest: Option<WallMicros>,
    /// Reviews that are not in the audit chain yet, with what is to stand there.
    pub(super) untold: Vec<(ParticipantId, Entry)>,
}

impl BreakGlassDesk {
    /// Opens the database of a node that runs or not; one that is not there is made.
    ///
    /// # Errors
    /// [`BreakGlassError::Store`] where the file is not one of ours, is damaged, or another version's.
    pub fn open(path: &Path) -> Result<Self, BreakGlassError> {
        let (connection, lock) = store::open_beside(path)?;
        connection.execute_batch(SCHEMA).map_err(StoreError::from)?;
        Ok(Self { connection: Mutex::new(connection), _lock: lock })
    }

    /// Of the node that runs and has the lock.
    pub(super) fn of_node(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: Mutex::new(store::open_again(path)?), _lock: None })
    }

    /// Those that nobody has reviewed, or all of them, oldest first.
    ///
    /// # Errors
    /// [`BreakGlassError::Store`] where the database cannot be read.
    pub fn list(&self, all: bool) -> Result<Vec<BreakGlassJoin>, BreakGlassError> {
        let read = |connection: &Connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM break_glass WHERE ?1 OR reviewed_us IS NULL ORDER BY at_us, participant"
            );
            let mut query = connection.prepare(&sql)?;
            query.query_map([all], join)?.collect::<Result<Vec<_>, rusqlite::Error>>()
        };
        Ok(read(&self.connection()).map_err(StoreError::from)?)
    }

    /// Notes that somebody has looked into one. A running node takes it into the audit chain within about a second.
    ///
    /// # Errors
    /// [`BreakGlassError`] where there is none of that id, it was reviewed before, or a text cannot be used.
    pub fn review(&self, id: &str, by: &str, note: &str) -> Result<(), BreakGlassError> {
        let by = shown(by, MAX_NAME).ok_or(BreakGlassError::By)?;
        let note = shown(note, MAX_NOTE).ok_or(BreakGlassError::Note)?;
        // Who typed it, as far as the system knows: the owner of this process.
        let uid = std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).ok();
        let mut connection = self.connection();
        let t = connection.transaction().map_err(StoreError::from)?;
        let changed = t
            .execute(
                "UPDATE break_glass SET reviewed_us = ?2, reviewer = ?3, note = ?4, by_uid = ?5
                 WHERE participant = ?1 AND reviewed_us IS NULL",
                params![id, as_i64(wall_clock()), by, note, uid],
            )
            .map_err(StoreError::from)?;
        if changed == 0 {
            let known: i64 = t
                .query_row("SELECT count(*) FROM break_glass WHERE participant = ?1", [id], |row| row.get(0))
                .map_err(StoreError::from)?;
            let id = id.to_owned();
            return Err(if known == 0 { BreakGlassError::Missing(id) } else { BreakGlassError::Reviewed(id) });
        }
        Ok(t.commit().map_err(StoreError::from)?)
    }

    /// Which sessions were joined so since then, oldest first.
    pub(super) fn since(&self, since: WallMicros) -> Result<Vec<(SessionId, WallMicros)>, StoreError> {
        let connection = self.connection();
        let mut query = connection.prepare("SELECT session, at_us FROM break_glass WHERE at_us > ?1 ORDER BY at_us")?;
        let rows = query.query_map([as_i64(since)], |row| Ok((row.get::<_, String>(0)?, wall(row.get(1)?))))?;
        let named = |(session, at)| Some((SessionId::new(session).ok()?, at));
        Ok(rows.map(|row| row.map(named)).filter_map(Result::transpose).collect::<Result<_, _>>()?)
    }

    /// How many wait, since when, and which reviews are to be recorded.
    pub(super) fn standing(&self) -> Result<Standing, rusqlite::Error> {
        let connection = self.connection();
        let (unreviewed, oldest) = connection.query_row(
            "SELECT count(*), min(at_us) FROM break_glass WHERE reviewed_us IS NULL",
            [],
            |row| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.map(wall))),
        )?;
        let sql = format!(
            "SELECT {COLUMNS}, by_uid FROM break_glass WHERE reviewed_us IS NOT NULL AND told = 0
             ORDER BY reviewed_us LIMIT {MOST_TOLD}"
        );
        let mut query = connection.prepare(&sql)?;
        let rows = query.query_map([], |row| Ok((join(row)?, row.get::<_, Option<i64>>(10)?)))?;
        let mut untold = Vec::new();
        for row in rows {
            let (join, uid) = row?;
            untold.extend(recorded(&join, uid));
        }
        Ok(Standing { unreviewed, oldest, untold })
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // SQLite undoes a transaction that a panic left open: the state is whole.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a join on the list.
pub(crate) fn add(
    t: &Transaction<'_>,
    joined: &store::StoredParticipant,
    glass: &BrokenGlass,
) -> Result<usize, rusqlite::Error> {
    t.execute(
        "INSERT INTO break_glass (participant, session, name, role, reason, at_us, until_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            joined.participant.as_str(),
            joined.session.as_str(),
            joined.name,
            joined.role.name(),
            glass.reason,
            as_i64(joined.joined),
            as_i64(glass.until)
        ],
    )
}

/// Notes that the audit chain has a review.
pub(crate) fn told(t: &Transaction<'_>, participant: &ParticipantId) -> Result<usize, rusqlite::Error> {
    t.execute("UPDATE break_glass SET told = 1 WHERE participant = ?1", [participant.as_str()])
}

fn join(row: &Row<'_>) -> Result<BreakGlassJoin, rusqlite::Error> {
    let review = match (row.get::<_, Option<i64>>(7)?, row.get(8)?, row.get(9)?) {
        (Some(at), Some(by), Some(note)) => Some(Review { at: wall(at), by, note }),
        _ => None,
    };
    Ok(BreakGlassJoin {
        id: row.get(0)?,
        session: row.get(1)?,
        name: row.get(2)?,
        role: row.get(3)?,
        reason: row.get(4)?,
        at: wall(row.get(5)?),
        until: wall(row.get(6)?),
        review,
    })
}

/// What is recorded of a review.
fn recorded(join: &BreakGlassJoin, uid: Option<i64>) -> Option<(ParticipantId, Entry)> {
    let review = join.review.as_ref()?;
    let (participant, session) =
        (ParticipantId::new(join.id.as_str()).ok()?, SessionId::new(join.session.as_str()).ok()?);
    let on_node = uid.map_or_else(String::new, |uid| format!(" (on the node, by uid {uid})"));
    let entry = Entry {
        at: review.at,
        name: Some(join.name.clone()),
        role: join.role.parse::<Role>().ok(),
        ..Entry::now("break-glass-reviewed").of(&session).by(&participant)
    };
    Some((participant, entry.saying(format!("by {}: {}{on_node}", review.by, review.note))))
}

fn wall(us: i64) -> WallMicros {
    WallMicros(us.unsigned_abs())
}
