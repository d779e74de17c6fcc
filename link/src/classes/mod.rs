//! Classes of surgery, what each needs of a line, and the verdict. The classes are a file, `configs/link-classes.toml`, in which
//! every threshold names its source; [`judge`] holds a measured line against one of them.
//!
//! *Up* is from the operating room to the expert: pictures go up, commands come down. Who measured from the expert's end takes
//! [`Class::turned`].

mod advice;
mod figure;
mod judge;
mod limit;
#[cfg(test)]
pub(crate) mod tests;

pub use figure::{Figure, figure};
pub(crate) use figure::{busiest, direction};
pub(crate) use judge::number;
pub use judge::{Check, Fit, Verdict, judge};
pub use limit::{Limit, Measure, Sense, Way};

use crate::result::LinkResult;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The name and version of the file's shape.
pub const SCHEMA: &str = "trocar-link-classes/1";
/// Names of the rungs of the ladder, from the best down.
pub const RUNGS: [&str; 5] = ["quic-udp", "webrtc-udp", "ice-tcp", "turn-udp", "turn-tls-443"];

const BUILT_IN: &str = include_str!("../../../configs/link-classes.toml");
/// Largest threshold that is believed: a slip of the finger is larger.
const VALUE_MAX: f64 = 1e6;

/// The classes of a file, the most demanding first.
#[derive(Debug, Clone, PartialEq)]
pub struct Classes {
    /// In the order of the file, which is the order in which the best one that passes is looked for.
    pub classes: Vec<Class>,
}

/// What one kind of procedure needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// A short name, as typed.
    pub name: String,
    /// For people.
    pub title: String,
    /// What is done over the line, and what the figures assume.
    pub about: String,
    /// In the order of [`Limit::all`].
    pub limits: Vec<Threshold>,
}

/// A limit and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// What is limited.
    pub limit: Limit,
    /// The last value that is right, in the limit's unit.
    pub value: f64,
    /// For [`Measure::Rungs`]: the rungs of which one has to work.
    pub any: Vec<String>,
    /// Where the value comes from: a publication, or "engineering choice" with the reason.
    pub source: String,
}

/// Why classes cannot be read, or one not be found.
#[derive(Debug, thiserror::Error)]
pub enum ClassError {
    /// No TOML, or a key or value of the wrong kind.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A value that cannot be.
    #[error("{key} = {is}: {right}")]
    Value {
        /// The key, with the class's name.
        key: String,
        /// What it is.
        is: String,
        /// What would be right.
        right: String,
    },
    /// Nothing of that name.
    #[error("class {name:?}: {} are there", have.join(", "))]
    NoSuchClass {
        /// What was asked for.
        name: String,
        /// What is there.
        have: Vec<String>,
    },
}

impl Classes {
    /// The file that comes with the program.
    ///
    /// # Errors
    /// None: a test reads the file. The type says so because code does not stop the process.
    pub fn built_in() -> Result<Self, ClassError> {
        Self::parse(BUILT_IN)
    }

    /// Reads a file of classes.
    ///
    /// # Errors
    /// Names the key, what it is, and what would be right.
    pub fn parse(text: &str) -> Result<Self, ClassError> {
        let file: File = toml::from_str(text)?;
        if file.schema != SCHEMA {
            return Err(wrong("schema", file.schema, SCHEMA));
        }
        let classes = file.class.into_iter().map(RawClass::check).collect::<Result<Vec<_>, _>>()?;
        for (i, class) in classes.iter().enumerate() {
            if classes.iter().take(i).any(|c| c.name == class.name) {
                return Err(wrong("class.name", &class.name, "a name of its own for each class"));
            }
        }
        if classes.is_empty() {
            return Err(wrong("class", "none", "one [[class]] at least"));
        }
        Ok(Self { classes })
    }

    /// The class of a name.
    ///
    /// # Errors
    /// Says which there are.
    pub fn get(&self, name: &str) -> Result<&Class, ClassError> {
        self.classes.iter().find(|c| c.name == name).ok_or_else(|| ClassError::NoSuchClass {
            name: name.to_owned(),
            have: self.classes.iter().map(|c| c.name.clone()).collect(),
        })
    }

    /// The same classes for who measured from the expert's end.
    #[must_use]
    pub fn turned(&self) -> Self {
        Self { classes: self.classes.iter().map(Class::turned).collect() }
    }

    /// The verdict on every class, in the order of the file. Each names the best class that passes.
    #[must_use]
    pub fn judge_all(&self, result: &LinkResult) -> Vec<Verdict> {
        let mut all: Vec<Verdict> = self.classes.iter().map(|c| judge(result, c)).collect();
        let best = all.iter().find(|v| v.fit == Fit::Fit).map(|v| v.class.clone());
        for verdict in &mut all {
            verdict.best_class.clone_from(&best);
        }
        all
    }
}

impl Class {
    /// The same needs for who measured from the other end: up is down.
    #[must_use]
    pub fn turned(&self) -> Self {
        let mut class = self.clone();
        for threshold in &mut class.limits {
            threshold.limit = threshold.limit.turned();
        }
        class.limits.sort_by_key(|t| t.limit);
        class
    }

    /// The rate that it needs in one direction, in Mbit/s.
    #[must_use]
    pub fn rate(&self, way: Way) -> Option<f64> {
        let limit = Limit { measure: Measure::Rate, way: Some(way) };
        self.limits.iter().find(|t| t.limit == limit).map(|t| t.value)
    }
}

fn wrong(key: &str, is: impl ToString, right: impl ToString) -> ClassError {
    ClassError::Value { key: key.to_owned(), is: is.to_string(), right: format!("{} is right", right.to_string()) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: String,
    class: Vec<RawClass>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClass {
    name: String,
    title: String,
    about: String,
    limits: BTreeMap<String, RawThreshold>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThreshold {
    min: Option<f64>,
    max: Option<f64>,
    any: Option<Vec<String>>,
    source: String,
}

impl RawClass {
    fn check(self) -> Result<Class, ClassError> {
        let Self { name, title, about, limits } = self;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            return Err(wrong("class.name", format!("{name:?}"), "a name of a-z, 0-9 and '-'"));
        }
        for (key, value) in [("title", &title), ("about", &about)] {
            if value.trim().is_empty() {
                return Err(wrong(&format!("{name}.{key}"), "\"\"", "a sentence"));
            }
        }
        let mut limits = limits
            .into_iter()
            .map(|(key, raw)| {
                let full = format!("{name}.limits.{key}");
                let Some(limit) = Limit::of_key(&key) else {
                    let known: Vec<String> = Limit::all().into_iter().map(Limit::key).collect();
                    return Err(wrong(&full, "a limit that nobody knows", format!("one of {}", known.join(", "))));
                };
                raw.check(limit, &full)
            })
            .collect::<Result<Vec<_>, _>>()?;
        limits.sort_by_key(|t| t.limit);
        if limits.is_empty() {
            return Err(wrong(
                &format!("{name}.limits"),
                "none",
                "one limit at least: a class without any fits every line",
            ));
        }
        Ok(Class { name, title, about, limits })
    }
}

impl RawThreshold {
    fn check(self, limit: Limit, key: &str) -> Result<Threshold, ClassError> {
        if self.source.trim().is_empty() {
            return Err(wrong(&format!("{key}.source"), "\"\"", "the publication, or \"engineering choice\" and why"));
        }
        let source = self.source;
        if limit.measure == Measure::Rungs {
            let (Some(any), None, None) = (self.any, self.min, self.max) else {
                return Err(wrong(key, "min or max", "any = [names of rungs]"));
            };
            if let Some(odd) = any.iter().find(|r| !RUNGS.contains(&r.as_str())) {
                return Err(wrong(&format!("{key}.any"), format!("{odd:?}"), format!("one of {}", RUNGS.join(", "))));
            }
            if any.is_empty() {
                return Err(wrong(&format!("{key}.any"), "[]", "one rung at least"));
            }
            return Ok(Threshold { limit, value: 1.0, any, source });
        }
        let (found, odd, right) = match limit.sense() {
            Sense::AtLeast => (self.min, self.max.is_some(), "min = a number, and nothing else,"),
            Sense::AtMost => (self.max, self.min.is_some(), "max = a number, and nothing else,"),
        };
        let (Some(value), false, None) = (found, odd, &self.any) else {
            return Err(wrong(key, "something else", right));
        };
        if !(0.0..=VALUE_MAX).contains(&value) {
            return Err(wrong(key, value, format!("0 to {VALUE_MAX} {}", limit.unit())));
        }
        Ok(Threshold { limit, value, any: Vec::new(), source })
    }
}
