//! The verdict: a measured line against a class. Pure: the same result and class give the same verdict.

use super::advice::{advice, missing};
use super::figure::{Figure, figure};
use super::{Class, Sense, Threshold, Way};
use crate::result::{LinkResult, remains};
use serde::{Deserialize, Serialize};

/// Whether a line carries a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Every limit is kept, with the whole error bar.
    Fit,
    /// None is broken, but an error bar reaches over a threshold: the measurement cannot tell.
    WithLimits,
    /// A limit is broken, with the whole error bar.
    NotFit,
    /// None is broken, but a figure that is needed is missing.
    Unknown,
}

impl Fit {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Fit => "FIT",
            Self::WithLimits => "FIT WITH LIMITS",
            Self::NotFit => "NOT FIT",
            Self::Unknown => "CANNOT SAY",
        }
    }

    /// Exit code of a program that was asked: 0 where the line can be used, be it with limits; 99 where it cannot; 1 where nobody can
    /// say, as where nothing was measured: no script takes that for fit.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Fit | Self::WithLimits => 0,
            Self::NotFit => 99,
            Self::Unknown => 1,
        }
    }
}

/// What came of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The class's name.
    pub class: String,
    /// For people.
    pub title: String,
    /// The answer.
    pub fit: Fit,
    /// Every limit of the class, in the order in which they count.
    pub checks: Vec<Check>,
    /// Index of the check that decides: the first that fails; where none does, the first that cannot be told.
    pub first_failed: Option<usize>,
    /// Of all classes that were judged with it, the most demanding one that fits.
    pub best_class: Option<String>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its key in the file of classes.
    pub limit: String,
    /// For people.
    pub title: String,
    /// `up`, `down`, or none where that makes no difference.
    pub direction: Option<Way>,
    /// Of `wanted`, `measured`, `uncertainty` and `margin`; empty for a plain number.
    pub unit: String,
    /// Whether `wanted` is the smallest or the largest right value.
    pub sense: Sense,
    /// The threshold; it is right itself.
    pub wanted: f64,
    /// What was measured; none: it was not.
    pub measured: Option<f64>,
    /// ± of it; none where nothing is known about it.
    pub uncertainty: Option<f64>,
    /// None: it cannot be told, because nothing was measured, or because the error bar reaches over the threshold.
    pub passed: Option<bool>,
    /// How far the measured value is on the right side; below 0: how much is missing.
    pub margin: Option<f64>,
    /// Of what it was taken, what makes it uncertain, or why it is missing.
    pub note: String,
    /// Where the threshold comes from.
    pub source: String,
    /// What to change; empty where it passed.
    pub advice: String,
}

/// Holds a line against a class. [`Verdict::best_class`] is left to [`super::Classes::judge_all`].
#[must_use]
pub fn judge(result: &LinkResult, class: &Class) -> Verdict {
    let checks: Vec<Check> = class.limits.iter().map(|t| check(result, class, t)).collect();
    let find = |wanted: fn(&Check) -> bool| checks.iter().position(wanted);
    let failed = find(|c| c.passed == Some(false));
    let missing = find(|c| c.measured.is_none());
    let straddles = find(|c| c.passed.is_none());
    let fit = match (failed, missing, straddles) {
        (Some(_), _, _) => Fit::NotFit,
        (None, Some(_), _) => Fit::Unknown,
        (None, None, Some(_)) => Fit::WithLimits,
        (None, None, None) => Fit::Fit,
    };
    let first_failed = failed.or(missing).or(straddles);
    Verdict { class: class.name.clone(), title: class.title.clone(), fit, checks, first_failed, best_class: None }
}

fn check(result: &LinkResult, class: &Class, threshold: &Threshold) -> Check {
    let Threshold { limit, value: wanted, any, source } = threshold;
    let rate = limit.way.and_then(|w| class.rate(w));
    let found = figure(result, *limit, rate, any);
    let passed = found.as_ref().and_then(|f| side(f, *wanted, limit.sense()));
    let margin = found.as_ref().map(|f| match limit.sense() {
        Sense::AtLeast => f.value - wanted,
        Sense::AtMost => wanted - f.value,
    });
    let advice = match (&found, passed) {
        (None, _) => remains(&result.ladder).unwrap_or_else(|| missing(*limit)),
        (_, Some(true)) => String::new(),
        (Some(f), _) => advice(result, *limit, f, *wanted, any),
    };
    Check {
        limit: limit.key(),
        title: limit.title().to_owned(),
        direction: limit.way,
        unit: limit.unit().to_owned(),
        sense: limit.sense(),
        wanted: *wanted,
        measured: found.as_ref().map(|f| f.value),
        uncertainty: found.as_ref().and_then(Figure::uncertainty),
        passed,
        margin,
        note: found.map_or_else(|| "not measured".to_owned(), |f| f.note),
        source: source.clone(),
        advice,
    }
}

/// On which side of a threshold a figure lies with its whole error bar; the threshold itself is right.
fn side(f: &Figure, wanted: f64, sense: Sense) -> Option<bool> {
    let (right, wrong) = match sense {
        Sense::AtLeast => (f.low >= wanted, f.high < wanted),
        Sense::AtMost => (f.high <= wanted, f.low > wanted),
    };
    if right { Some(true) } else { wrong.then_some(false) }
}

impl Verdict {
    /// The check that decides.
    #[must_use]
    pub fn decisive(&self) -> Option<&Check> {
        self.first_failed.and_then(|i| self.checks.get(i))
    }

    /// The reason in one sentence: the first limit that fails, and by how much.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.decisive() {
            Some(check) => check.sentence(),
            None => format!("all {} limits are kept", self.checks.len()),
        }
    }
}

impl Check {
    /// What was wanted, in words, e.g. `at least 150 Mbit/s`.
    #[must_use]
    pub fn wanted_words(&self) -> String {
        let sense = match self.sense {
            Sense::AtLeast => "at least",
            Sense::AtMost => "at most",
        };
        format!("{sense} {}", self.amount(self.wanted))
    }

    /// The title with its direction.
    #[must_use]
    pub fn name(&self) -> String {
        self.direction.map_or_else(|| self.title.clone(), |w| format!("{} ({})", self.title, w.name()))
    }

    /// The limit, what was measured, what is wanted, and by how much it is missed.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (name, wanted) = (self.name(), self.wanted_words());
        let Some(measured) = self.measured else { return format!("{name} was not measured; {wanted} is wanted") };
        let bar = match self.uncertainty {
            Some(0.0) => String::new(),
            Some(u) => format!(" ± {}", number(u)),
            None => " or worse".to_owned(),
        };
        let is = format!("{name} is {}{bar}{}, {wanted} is wanted", number(measured), spaced(&self.unit));
        let off = self.margin.map_or(0.0, f64::abs);
        match self.passed {
            Some(true) => is,
            Some(false) => format!("{is}: off by {}", self.amount(off)),
            None => format!("{is}: the error bar reaches over it"),
        }
    }

    fn amount(&self, value: f64) -> String {
        format!("{}{}", number(value), spaced(&self.unit))
    }
}

fn spaced(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

/// A number with three significant digits, and no more than it needs.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let digits = match size {
        s if s >= 100.0 || s == 0.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 => 2,
        s if s >= 0.1 => 3,
        s if s >= 0.01 => 4,
        _ => 6,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
