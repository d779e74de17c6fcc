//! Signaling's audit chain, as `trocar audit export --format json` prints it.

use crate::process::trocar;
use crate::stack::path;
use anyhow::ensure;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What happened, in the order in which it was recorded.
#[derive(Debug, Clone)]
pub struct Story {
    /// As it was printed: one record a line.
    pub text: String,
    /// The same, parsed.
    pub records: Vec<Value>,
}

impl Story {
    /// All records of a database.
    ///
    /// # Errors
    /// Where the export fails, with what it said, or prints what is no JSON.
    pub fn of(db: &Path) -> anyhow::Result<Self> {
        Self::export(db, &[])
    }

    /// Those that `--kind` picks.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn about(db: &Path, kind: &str) -> anyhow::Result<Self> {
        Self::export(db, &["--kind", kind])
    }

    fn export(db: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let words = ["audit", "export", path(db)?, "--format", "json"];
        let out = Command::new(trocar()?).args(words).args(more).output()?;
        ensure!(out.status.success(), "{words:?} {more:?}: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout)?;
        let records = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { text, records })
    }

    /// The records of exactly that kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.records.iter().filter(move |r| member(r, "kind") == Some(kind))
    }

    /// Asserts of each line (kind, whose name, a part of the detail) that there are so many such records, no more and no fewer. An empty
    /// name is anybody's; a record without a detail never counts.
    ///
    /// # Errors
    /// Names the first line that is not so, with the whole story.
    pub fn has(&self, lines: &[(&str, &str, &str, usize)]) -> anyhow::Result<()> {
        for &(kind, name, detail, count) in lines {
            let fits = |r: &&Value| {
                (name.is_empty() || member(r, "name") == Some(name))
                    && member(r, "detail").is_some_and(|d| d.contains(detail))
            };
            let found = self.of_kind(kind).filter(fits).count();
            ensure!(found == count, "{kind} {name:?} {detail:?}: {found}, not {count}, in\n{}", self.text);
        }
        Ok(())
    }
}

fn member<'a>(record: &'a Value, key: &str) -> Option<&'a str> {
    record.get(key).and_then(Value::as_str)
}
