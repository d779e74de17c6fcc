//! The attack runner: hostile input of every kind played against the real processes with a healthy session beside it.
//!
//! Cases have the numbers of the project's catalogue of bad input. Of each the common clause is asserted: a typed error or silence, memory
//! within bounds, the process alive and without a panic, few lines in the log, and the session beside it without a lost packet and without
//! a p99 age that moves ([`arena`]). One function per case; the tests and `trocar-attack` run the same.

pub mod arena;
pub mod beside;
mod gatekeeper;
mod http;
mod ice;
mod identity;
mod media;
mod named;
mod peer;
mod quic;
mod quicraw;
mod raw;
pub mod table;
pub mod victim;
pub(crate) mod ws;

use anyhow::Result;
use arena::Arena;
use std::future::Future;
use std::pin::Pin;

/// One play of a case; what was seen.
pub type Played<'a> = Pin<Box<dyn Future<Output = Result<String>> + 'a>>;

/// How a case is played.
pub type Play = for<'a> fn(&'a Arena) -> Played<'a>;

/// What a case is proved by.
#[derive(Clone, Copy)]
pub enum Proof {
    /// It is played here, by so many attacking peers.
    Played {
        /// Attackers that the relay may keep memory for.
        peers: u64,
        /// The play.
        play: Play,
    },
    /// Tests elsewhere play it, by the names in [`Case::tests`].
    Elsewhere,
    /// There is nothing to attack; where that can be shown, it is.
    Absent {
        /// Why.
        reason: &'static str,
        /// What shows it.
        shown: Option<Play>,
    },
}

/// One case of the catalogue.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its number in the catalogue.
    pub number: u8,
    /// `bi_NN_` and what is tried.
    pub name: &'static str,
    /// What must come of it.
    pub expected: &'static str,
    /// How that is proved.
    pub proof: Proof,
    /// Tests of the workspace that prove it, or parts of it; each exists ([`table::missing_tests`]).
    pub tests: &'static [&'static str],
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Held,
    /// Not as expected.
    Failed,
    /// Proved by tests elsewhere.
    Elsewhere,
    /// Does not apply.
    Absent,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// The case's name.
    pub name: &'static str,
    /// What had to come of it.
    pub expected: &'static str,
    /// What was seen.
    pub seen: String,
    /// How it ended.
    pub verdict: Verdict,
}

impl Row {
    /// One line of a Markdown table.
    #[must_use]
    pub fn line(&self) -> String {
        let word = match self.verdict {
            Verdict::Held => "held",
            Verdict::Failed => "FAILED",
            Verdict::Elsewhere => "tests",
            Verdict::Absent => "absent",
        };
        let plain = |t: &str| t.replace(['|', '\n'], " ");
        format!("| {} | {} | {word} | {} |", self.name, plain(self.expected), plain(&self.seen))
    }
}

/// Plays some cases in one arena, in order, and prints each line as it is known.
///
/// # Errors
/// Where the arena does not come up; what comes of a case is in its row.
pub fn play(cases: &[&Case]) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let set = tokio::task::LocalSet::new();
    let mut rows = Vec::new();
    let mut arena = None;
    for case in cases {
        let row = match case.proof {
            Proof::Elsewhere => {
                let seen = case.tests.join(", ");
                Row { name: case.name, expected: case.expected, seen, verdict: Verdict::Elsewhere }
            }
            Proof::Absent { reason, shown: None } => {
                Row { name: case.name, expected: case.expected, seen: reason.to_owned(), verdict: Verdict::Absent }
            }
            Proof::Absent { reason, shown: Some(play) } => {
                let mut row = set.block_on(&runtime, ready(&mut arena)?.run(case, 1, play));
                row.seen = format!("{reason}; {}", row.seen);
                if row.verdict == Verdict::Held {
                    row.verdict = Verdict::Absent;
                }
                row
            }
            Proof::Played { peers, play } => set.block_on(&runtime, ready(&mut arena)?.run(case, peers, play)),
        };
        println!("{}", row.line());
        rows.push(row);
    }
    if let Some(arena) = &arena {
        println!("{}", arena.summary());
    }
    Ok(rows)
}

/// One arena serves all cases of a group; it is started for the first one that is played.
fn ready(arena: &mut Option<Arena>) -> Result<&Arena> {
    if arena.is_none() {
        *arena = Some(Arena::start()?);
    }
    arena.as_ref().ok_or_else(|| anyhow::anyhow!("no arena"))
}

/// The cases whose names begin so, played; the names of those that failed are the error.
///
/// # Errors
/// See above.
pub fn check(prefixes: &[&str]) -> Result<()> {
    let wanted = |c: &&Case| prefixes.iter().any(|p| c.name.starts_with(p));
    let cases: Vec<&Case> = table::ALL.iter().filter(wanted).collect();
    anyhow::ensure!(!cases.is_empty(), "no case is called {prefixes:?}");
    let failed: Vec<String> = play(&cases)?
        .into_iter()
        .filter(|r| r.verdict == Verdict::Failed)
        .map(|r| format!("{}: {}", r.name, r.seen))
        .collect();
    anyhow::ensure!(failed.is_empty(), "not as they should be:\n{}", failed.join("\n"));
    Ok(())
}
