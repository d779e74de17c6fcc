//! Thresholds: a figure, a comparison, a number, as in `age_p99_ms < 50`.

use super::figures::Figures;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Other,
}

/// As they are written; longer ones first.
const OPS: [(&str, Op); 6] =
    [("<=", Op::AtMost), (">=", Op::AtLeast), ("==", Op::Equal), ("!=", Op::Other), ("<", Op::Less), (">", Op::More)];

/// What a figure has to be for the test to be passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Threshold {
    figure: String,
    op: Op,
    value: f64,
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidThreshold {
    /// No comparison in it.
    #[error("threshold {0:?}: a figure, one of < <= > >= == != and a number are right, as in \"age_p99_ms < 50\"")]
    Form(String),
    /// A figure that there is not.
    #[error("threshold {0:?}: there is no figure {1:?}; one of these is right: {names}", names = Figures::NAMES.join(", "))]
    Figure(String, String),
    /// What stands behind the comparison.
    #[error("threshold {0:?}: {1:?} is no number")]
    Number(String, String),
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(crate) struct Outcome {
    /// The threshold.
    #[cfg_attr(test, schemars(with = "String"))]
    pub(super) threshold: Threshold,
    /// The figure; none where nothing was measured.
    pub(super) measured: Option<f64>,
    /// Whether it holds. A figure that nobody measured holds nothing.
    pub(super) met: bool,
}

impl Threshold {
    /// Holds it against the figures.
    pub(super) fn judge(&self, figures: &Figures) -> Outcome {
        let measured = figures.get(&self.figure);
        let met = measured.is_some_and(|m| match self.op {
            Op::Less => m < self.value,
            Op::AtMost => m <= self.value,
            Op::More => m > self.value,
            Op::AtLeast => m >= self.value,
            Op::Equal => m == self.value,
            Op::Other => m != self.value,
        });
        Outcome { threshold: self.clone(), measured, met }
    }
}

impl FromStr for Threshold {
    type Err = InvalidThreshold;

    fn from_str(s: &str) -> Result<Self, InvalidThreshold> {
        let found = OPS.iter().find_map(|(sign, op)| s.split_once(sign).map(|(f, v)| (f.trim(), *op, v.trim())));
        let (figure, op, value) = found.ok_or_else(|| InvalidThreshold::Form(s.to_owned()))?;
        let figure = figure.to_owned();
        if !Figures::NAMES.contains(&figure.as_str()) {
            return Err(InvalidThreshold::Figure(s.to_owned(), figure));
        }
        let parsed = value.parse::<f64>().ok().filter(|v| v.is_finite());
        let value = parsed.ok_or_else(|| InvalidThreshold::Number(s.to_owned(), value.to_owned()))?;
        Ok(Self { figure, op, value })
    }
}

impl TryFrom<String> for Threshold {
    type Error = InvalidThreshold;

    fn try_from(s: String) -> Result<Self, InvalidThreshold> {
        s.parse()
    }
}

impl From<Threshold> for String {
    fn from(t: Threshold) -> Self {
        t.to_string()
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPS.iter().find(|(_, op)| *op == self.op).map_or("", |(sign, _)| sign);
        write!(f, "{} {sign} {}", self.figure, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(lost: Option<f64>) -> Figures {
        let mut f = Figures::default();
        f.set("frames_lost", lost);
        f
    }

    #[test]
    fn each_comparison_flips_exactly_at_its_number_and_nothing_measured_meets_nothing() {
        let met = |t: &str, v| t.parse::<Threshold>().unwrap().judge(&figures(v)).met;
        for (sign, below, at, above) in [
            ("<", true, false, false),
            ("<=", true, true, false),
            (">", false, false, true),
            (">=", false, true, true),
            ("==", false, true, false),
            ("!=", true, false, true),
        ] {
            let t = format!("frames_lost {sign} 5");
            assert_eq!((met(&t, Some(4.999)), met(&t, Some(5.0)), met(&t, Some(5.001))), (below, at, above), "{t}");
            assert!(!met(&t, None), "{t}");
        }
    }

    #[test]
    fn spaces_do_not_matter_and_a_mistake_is_named_with_what_would_be_right() {
        let t: Threshold = "age_p99_ms<50".parse().unwrap();
        assert_eq!(t.to_string(), "age_p99_ms < 50");
        let wrong = |s: &str| s.parse::<Threshold>().unwrap_err().to_string();
        assert!(wrong("age_p99_ms").contains("age_p99_ms < 50"));
        assert!(wrong("age_p98_ms < 5").contains("age_p99_ms"), "{}", wrong("age_p98_ms < 5"));
        assert!(wrong("frames_lost < many").contains("\"many\" is no number"));
        assert!(wrong("frames_lost < nan").contains("no number"));
    }
}
