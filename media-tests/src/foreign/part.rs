//! The matrix in parts, for who cannot wait a quarter of an hour at once: each part keeps its rows in `var/interop`.

use super::Cell;
use super::report::Row;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;

/// `2/4`: the second of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    number: usize,
    of: usize,
}

impl Part {
    /// From what was typed.
    ///
    /// # Errors
    /// Where it is not NUMBER/OF with 1 ≤ NUMBER ≤ OF.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let read = || {
            let (number, of) = text.split_once('/')?;
            Some(Self { number: number.parse().ok()?, of: of.parse().ok()? })
        };
        let part = read().with_context(|| format!("--part {text}: NUMBER/OF is right, for example 2/4"))?;
        ensure!((1..=part.of).contains(&part.number), "--part {text}: the number goes from 1 to {}", part.of);
        Ok(part)
    }

    /// Leaves only the cells of this part: neighbours, so that a client's controls stay beside its cells.
    pub fn choose(self, cells: &mut Vec<(u32, Cell)>) {
        let size = cells.len().div_ceil(self.of);
        let first = size * (self.number - 1);
        *cells = cells.iter().skip(first).take(size).copied().collect();
    }

    /// Keeps what was found out.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(self, rows: &[Row]) -> anyhow::Result<()> {
        let rows: Vec<Value> = rows
            .iter()
            .map(|r| json!({ "cell": r.cell.label(), "works": r.outcome.is_ok(), "said": said(r) }))
            .collect();
        let file = self.file(self.number);
        std::fs::create_dir_all(file.parent().context("a file has a folder")?)?;
        Ok(std::fs::write(file, serde_json::to_vec_pretty(&rows)?)?)
    }

    /// The rows of all parts in the order of the matrix; none while a part is missing. Then the parts are used up.
    ///
    /// # Errors
    /// Where a part cannot be read, or is of another matrix.
    pub fn gather(self, matrix: Vec<Cell>) -> anyhow::Result<Option<Vec<Row>>> {
        let files: Vec<PathBuf> = (1..=self.of).map(|n| self.file(n)).collect();
        if !files.iter().all(|f| f.exists()) {
            return Ok(None);
        }
        let mut kept: Vec<Value> = Vec::new();
        for file in &files {
            kept.extend(serde_json::from_slice::<Vec<Value>>(&std::fs::read(file)?)?);
        }
        let rows = matrix.into_iter().map(|cell| {
            let label = cell.label();
            let found = kept.iter().find(|k| k.get("cell").and_then(Value::as_str) == Some(label.as_str()));
            let found = found.with_context(|| format!("no part has {label}: run all parts again"))?;
            let said = found.get("said").and_then(Value::as_str).unwrap_or_default().to_owned();
            let works = found.get("works").and_then(Value::as_bool) == Some(true);
            Ok(Row { cell, outcome: if works { Ok(said) } else { Err(said) } })
        });
        let rows = rows.collect::<anyhow::Result<Vec<Row>>>()?;
        for file in files {
            std::fs::remove_file(file)?;
        }
        Ok(Some(rows))
    }

    fn file(self, number: usize) -> PathBuf {
        crate::workspace().join(format!("var/interop/{number}-of-{}.json", self.of))
    }
}

fn said(row: &Row) -> &str {
    match &row.outcome {
        Ok(said) | Err(said) => said,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop the process: that is how it fails")]

    use super::super::{Client, Media};
    use super::*;

    #[test]
    fn every_cell_is_in_one_part() {
        let all: Vec<(u32, Cell)> = (0..7).map(|n| (n, Cell::new(Client::Aiortc, true, Media::SOUND))).collect();
        let mut seen = Vec::new();
        for number in 1..=3 {
            let mut cells = all.clone();
            Part::parse(&format!("{number}/3")).unwrap().choose(&mut cells);
            seen.extend(cells.into_iter().map(|(n, _)| n));
        }
        assert_eq!(seen, (0..7).collect::<Vec<u32>>());
        for wrong in ["0/3", "4/3", "3", "a/b"] {
            Part::parse(wrong).unwrap_err();
        }
    }
}
