//! JUnit XML, for pipelines: a suite for each class, a case for each limit. Only the class that was asked for can fail; the others
//! are there to be read.

use super::{Report, clean, utc};
use crate::classes::{Check, Verdict};
use maud::{PreEscaped, html};

/// The report as JUnit XML, one file. A limit that is broken is a failure, one that cannot be told an error; limits of other
/// classes than the one that was asked for are skipped, with the same words.
#[must_use]
pub fn junit(report: &Report) -> String {
    let Report { result, verdict, classes, .. } = report;
    let others: Vec<&Verdict> = classes.iter().filter(|v| v.class != verdict.class).collect();
    let count = |wanted: fn(&Check) -> bool| verdict.checks.iter().filter(|c| wanted(c)).count();
    let (failures, errors) = (count(|c| c.passed == Some(false)), count(|c| c.passed.is_none()));
    let cases: usize = verdict.checks.len() + others.iter().map(|v| v.checks.len()).sum::<usize>();
    let page = html! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"))
        testsuites name="trocar link test" tests=(cases) failures=(failures) errors=(errors) {
            testsuite name=(clean(&verdict.class)) tests=(verdict.checks.len()) failures=(failures) errors=(errors) skipped="0" {
                properties {
                    @for (name, value) in [
                        ("verdict", verdict.fit.words().to_owned()),
                        ("best_class", verdict.best_class.clone().unwrap_or_default()),
                        ("started", utc(result.started_unix_s)),
                        ("here", result.here.clone()),
                        ("there", result.there.clone()),
                        ("version", result.version.clone()),
                        ("command", result.command.clone()),
                    ] {
                        property name=(name) value=(clean(&value)) {}
                    }
                }
                @for check in &verdict.checks {
                    testcase name=(clean(&check.limit)) classname=(clean(&verdict.class)) {
                        @match check.passed {
                            Some(true) => {},
                            Some(false) => { failure type="limit" message=(clean(&check.sentence())) { (body(check)) } },
                            None => { error type="unknown" message=(clean(&check.sentence())) { (body(check)) } },
                        }
                    }
                }
            }
            @for other in others {
                testsuite name=(clean(&other.class)) tests=(other.checks.len()) failures="0" errors="0" skipped=(skipped(other)) {
                    @for check in &other.checks {
                        testcase name=(clean(&check.limit)) classname=(clean(&other.class)) {
                            @if check.passed != Some(true) { skipped message=(clean(&check.sentence())) {} }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn body(check: &Check) -> String {
    clean(&format!("{} Limit from: {}", check.advice, check.source))
}

fn skipped(verdict: &Verdict) -> usize {
    verdict.checks.iter().filter(|c| c.passed != Some(true)).count()
}
