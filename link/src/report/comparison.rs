//! Two measurements of a line, before and after something was changed.

use super::{Report, ReportError, amount, charts, clean, page, utc, words};
use crate::classes::{Figure, Fit, Limit, Measure, RUNGS, Sense, Way, figure};
use serde::Serialize;

/// What changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The class that was asked for the first time.
    pub class: String,
    /// Its title.
    pub title: String,
    /// The verdict on it before.
    pub before: Fit,
    /// The verdict on the same class after; none where the second report does not know the class.
    pub after: Option<Fit>,
    /// When and between whom, before.
    pub before_head: String,
    /// The same, after.
    pub after_head: String,
    /// Every figure that was measured at least once, in the order of a verdict.
    pub changes: Vec<Change>,
    /// Classes whose verdict is another one now: title, before, after.
    pub classes: Vec<(String, Fit, Fit)>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its key in a file of classes.
    pub limit: String,
    /// For people.
    pub title: String,
    /// In which direction.
    pub direction: Option<Way>,
    /// Of the figures.
    pub unit: String,
    /// Before.
    pub before: Option<f64>,
    /// After.
    pub after: Option<f64>,
    /// Whether it got better; none where the error bars meet, or one is missing.
    pub better: Option<bool>,
}

/// Compares two reports.
#[must_use]
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let class = &before.verdict.class;
    let now = after.classes.iter().chain([&after.verdict]).find(|v| v.class == *class);
    let flipped = before.classes.iter().filter_map(|b| {
        let a = after.classes.iter().find(|a| a.class == b.class)?;
        (a.fit != b.fit).then(|| (b.title.clone(), b.fit, a.fit))
    });
    Comparison {
        class: class.clone(),
        title: before.verdict.title.clone(),
        before: before.verdict.fit,
        after: now.map(|v| v.fit),
        before_head: head(before),
        after_head: head(after),
        changes: Limit::all().into_iter().filter_map(|l| change(l, before, after)).collect(),
        classes: flipped.collect(),
    }
}

fn head(report: &Report) -> String {
    let r = &report.result;
    clean(&format!("{}, {} to {}", utc(r.started_unix_s), r.here, r.there))
}

fn change(limit: Limit, before: &Report, after: &Report) -> Option<Change> {
    let all: Vec<String> = RUNGS.iter().map(|r| (*r).to_owned()).collect();
    // The queue of both at one rate: that of the class that was asked for first.
    let rate = before.verdict.checks.iter().find(|c| {
        Limit::of_key(&c.limit).is_some_and(|l| l.measure == Measure::Rate && l.way == limit.way && limit.way.is_some())
    });
    let of = |r: &Report| figure(&r.result, limit, rate.map(|c| c.wanted), &all);
    let (a, b) = (of(before), of(after));
    if a.is_none() && b.is_none() {
        return None;
    }
    let better = a.as_ref().zip(b.as_ref()).and_then(|(a, b)| better(a, b, limit.sense()));
    Some(Change {
        limit: limit.key(),
        title: limit.title().to_owned(),
        direction: limit.way,
        unit: limit.unit().to_owned(),
        before: a.map(|f| f.value),
        after: b.map(|f| f.value),
        better,
    })
}

/// Whether the second is better, with the whole error bars.
fn better(before: &Figure, after: &Figure, sense: Sense) -> Option<bool> {
    let (more, less) = (after.low > before.high, after.high < before.low);
    match sense {
        Sense::AtLeast if more => Some(true),
        Sense::AtLeast if less => Some(false),
        Sense::AtMost if less => Some(true),
        Sense::AtMost if more => Some(false),
        _ => None,
    }
}

impl Change {
    /// The title with its direction.
    #[must_use]
    pub fn name(&self) -> String {
        self.direction.map_or_else(|| self.title.clone(), |w| format!("{} ({})", self.title, w.name()))
    }

    /// Better, worse, within the error bars, or measured once only.
    #[must_use]
    pub const fn words(&self) -> &'static str {
        match (self.before.is_some() && self.after.is_some(), self.better) {
            (false, _) => words::ONE_SIDE,
            (true, Some(true)) => words::BETTER,
            (true, Some(false)) => words::WORSE,
            (true, None) => words::SAME,
        }
    }

    /// One of the two figures, with its unit.
    #[must_use]
    pub fn amount(&self, value: Option<f64>) -> String {
        value.map_or_else(|| "–".to_owned(), |v| amount(v, &self.unit))
    }
}

impl Comparison {
    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let after = self.after.map_or(words::NO_VERDICT, Fit::words);
        let mut out = format!("{}: {} before, {after} after\n", clean(&self.title), self.before.words());
        out.push_str(&format!("  {}: {}\n  {}: {}\n", words::BEFORE, self.before_head, words::AFTER, self.after_head));
        let rows: Vec<[String; 4]> = self
            .changes
            .iter()
            .map(|c| [c.name(), c.amount(c.before), c.amount(c.after), c.words().to_owned()])
            .collect();
        let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|s| s.chars().count()).max().unwrap_or(0);
        let (first, second, third) = (width(0), width(1), width(2));
        for [name, before, after, words] in &rows {
            out.push_str(&format!("  {name:<first$}  {before:>second$}  {after:>third$}  {words}\n"));
        }
        for (title, before, after) in &self.classes {
            out.push_str(&format!("  {}: {} before, {} after\n", clean(title), before.words(), after.words()));
        }
        out
    }

    /// As one page, with the curves of both.
    ///
    /// # Errors
    /// Where a plot cannot be drawn.
    pub fn html(&self, before: &Report, after: &Report) -> Result<String, ReportError> {
        Ok(page::comparison(self, &charts::of_comparison(before, after)?))
    }
}
