//! What is handed over: one page that needs nothing else ([`html`]), JSON with a published schema ([`json`],
//! `configs/schemas/link-report.schema.json`), JUnit for a pipeline ([`junit`]), two lines for a ticket ([`ticket`]), and a comparison
//! of two measurements ([`compare`]).
//!
//! Names, addresses and commands come from elsewhere, and so may a whole report: what is no printable character is replaced,
//! and everything is escaped by the template that writes it.

mod charts;
mod comparison;
mod junit;
pub mod page;
pub mod plot;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod words;

pub use comparison::{Change, Comparison, compare};
pub use junit::junit;
pub use terminal::text;
pub use text::{clean, utc};

use crate::classes::{ClassError, Classes, Verdict, number};
use crate::result::{LinkResult, remains};
use plot::PlotError;
use serde::{Deserialize, Serialize};

/// The name and version of this shape, in [`Report::schema`].
pub const SCHEMA: &str = "trocar-link-report/1";

/// A measured line and what it is fit for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was measured.
    pub result: LinkResult,
    /// The verdict on the class that was asked for.
    pub verdict: Verdict,
    /// The verdicts on all classes, the most demanding first.
    pub classes: Vec<Verdict>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No class of that name.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// No report, or a figure in it that is no number.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A file of something else.
    #[error("schema = {is:?}: {SCHEMA:?} is right, as `trocar link test --json` writes it")]
    Schema {
        /// What it says it is.
        is: String,
    },
    /// A plot that cannot be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

impl Report {
    /// Judges a line for a class, and for all others.
    ///
    /// # Errors
    /// Where there is no class of that name.
    pub fn new(result: LinkResult, classes: &Classes, class: &str) -> Result<Self, ReportError> {
        classes.get(class)?;
        let all = classes.judge_all(&result);
        let verdict = all.iter().find(|v| v.class == class).cloned();
        let verdict = verdict.ok_or_else(|| ClassError::NoSuchClass { name: class.to_owned(), have: Vec::new() })?;
        Ok(Self { schema: SCHEMA.to_owned(), result, verdict, classes: all })
    }

    /// Reads what [`json`] wrote.
    ///
    /// # Errors
    /// Names the key at fault, or what the file says it is.
    pub fn read(text: &str) -> Result<Self, ReportError> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
        }
        let head: Head = serde_json::from_str(text)?;
        if head.schema != SCHEMA {
            return Err(ReportError::Schema { is: head.schema });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The most demanding class that the line is fit for, as people call it.
    #[must_use]
    pub fn best_title(&self) -> Option<&str> {
        let best = self.verdict.best_class.as_deref()?;
        self.classes.iter().find(|v| v.class == best).map(|v| v.title.as_str())
    }
}

/// The whole report as JSON.
///
/// # Errors
/// Where a figure is no number: JSON has no word for it, and who reads it would not know.
pub fn json(report: &Report) -> Result<String, ReportError> {
    let text = serde_json::to_string_pretty(report)?;
    // What is infinite or no number was written as null, which does not come back.
    let _: Report = serde_json::from_str(&text)?;
    Ok(text)
}

/// One page with plots, light and dark, for a screen and for A4.
///
/// # Errors
/// Where a plot cannot be drawn.
pub fn html(report: &Report) -> Result<String, ReportError> {
    Ok(page::report(report, &charts::of_report(report)?))
}

/// Two lines for a ticket: the verdict with its reason, and what was measured between whom.
#[must_use]
pub fn ticket(report: &Report) -> String {
    let Report { result, verdict, .. } = report;
    let best = report.best_title().map_or_else(|| "fit for no class".to_owned(), |t| format!("fit for: {t}"));
    let facts: Vec<String> = page::facts(report).into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    let remains = remains(&result.ladder).map_or_else(String::new, |r| format!("; {r}"));
    let first = format!("{} for {}: {}{remains}; {best}", verdict.fit.words(), verdict.title, verdict.reason());
    let second = format!(
        "{}, {} to {}: {}; trocar {}: {}",
        utc(result.started_unix_s),
        result.here,
        result.there,
        facts.join(", "),
        result.version,
        result.command
    );
    format!("{}\n{}\n", clean(&first), clean(&second))
}

/// A figure with its unit.
fn amount(value: f64, unit: &str) -> String {
    if unit.is_empty() { number(value) } else { format!("{} {unit}", number(value)) }
}
