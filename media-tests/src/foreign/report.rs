//! The table that `make interop` prints and keeps in the docs.

use super::client::versions;
use super::{Cell, Control};
use crate::docs;
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- `make interop` writes from here -->";
const END: &str = "<!-- to here -->";

/// A cell that was run.
pub struct Row {
    /// Which.
    pub cell: Cell,
    /// What was seen, or why it did not work. A control's `Ok` says how it failed, as it should.
    pub outcome: Result<String, String>,
}

/// The columns, in this order.
const COLUMNS: [&str; 7] = ["H264", "H265", "VP8", "VP9", "AV1", "Opus", "VP8+Opus"];

/// The whole generated part, without its marks.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}\n", provenance());
    let mut notes: Vec<String> = Vec::new();
    let _ = writeln!(out, "| client | direction | {} | controls |", COLUMNS.join(" | "));
    let _ = writeln!(out, "| --- | --- |{}", " --- |".repeat(COLUMNS.len() + 1));
    for (client, publish) in lines(rows) {
        let of = |r: &&Row| r.cell.client.name() == client && r.cell.publish == publish;
        let cells = COLUMNS.map(|column| {
            let found =
                rows.iter().filter(of).find(|r| r.cell.control == Control::None && r.cell.media.label() == column);
            found.map_or_else(|| "–".to_owned(), |r| mark(r, &mut notes))
        });
        let controls: Vec<String> =
            rows.iter().filter(of).filter(|r| r.cell.control != Control::None).map(|r| mark(r, &mut notes)).collect();
        let does = if publish { "publishes" } else { "views" };
        let controls = if controls.is_empty() { "–".to_owned() } else { controls.join(" ") };
        let _ = writeln!(out, "| {client} | {does} | {} | {controls} |", cells.join(" | "));
    }
    if !notes.is_empty() {
        let _ = writeln!(out, "\nWhy not:\n");
        for (i, note) in notes.iter().enumerate() {
            let _ = writeln!(out, "{}. {note}", i + 1);
        }
    }
    let _ = writeln!(out, "\nWhat was seen, and how the controls failed:\n");
    for r in rows {
        if let Ok(said) = &r.outcome {
            let _ = writeln!(out, "- {}: {said}", r.cell.label());
        }
    }
    out
}

fn mark(row: &Row, notes: &mut Vec<String>) -> String {
    match &row.outcome {
        Ok(_) => "yes".to_owned(),
        Err(why) => {
            let same = notes.iter().position(|n| n == why);
            let at = same.unwrap_or_else(|| {
                notes.push(why.clone());
                notes.len() - 1
            });
            let word = if why.starts_with("void") { "void" } else { "**no**" };
            format!("{word} ({})", at + 1)
        }
    }
}

fn lines(rows: &[Row]) -> Vec<(&'static str, bool)> {
    let mut lines = Vec::new();
    for r in rows {
        let line = (r.cell.client.name(), r.cell.publish);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Commit, time, load and versions: what the figures are worth.
fn provenance() -> String {
    let versions: Vec<String> = versions().into_iter().map(|(name, v)| format!("{name}: {v}")).collect();
    format!("{}\n\n{}.", docs::provenance(), versions.join("; "))
}

/// Puts the generated part into the document, between its marks.
///
/// # Errors
/// Where the document cannot be read or written, or has lost its marks.
pub fn write(file: &Path, generated: &str) -> anyhow::Result<()> {
    docs::put(file, BEGIN, END, generated)
}
