//! JUnit XML, for pipelines: each threshold is a test, and so is finding the faults that were made on purpose.

use super::report::{Report, in_words, number};
use quick_junit::{NonSuccessKind, Property, Report as Junit, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

/// Where a test belongs that has no name of its own.
const CLASS: &str = "trocar.load";

/// The report as one file.
///
/// # Errors
/// Where it cannot be written as XML.
pub(super) fn junit(report: &Report) -> anyhow::Result<String> {
    let title = if report.title.is_empty() { "load test" } else { &report.title };
    let mut suite = TestSuite::new(title);
    suite.set_time(Duration::try_from_secs_f64(report.seconds).unwrap_or_default());
    for (name, value) in [("limit", &report.limit.who), ("why", &report.limit.why)] {
        suite.add_property(Property::new(name, value.as_str()));
    }
    for t in &report.thresholds {
        let wrong = (!t.met).then(|| {
            let measured = t.measured.map_or_else(|| "unknown".to_owned(), number);
            ("threshold", format!("is {measured}; limit: {}: {}", report.limit.who, report.limit.why))
        });
        suite.add_test_case(case(&t.threshold.to_string(), wrong));
    }
    if !report.injected.is_empty() {
        let missed = report.injected_not_found.first();
        let wrong = missed.map(|m| ("not_found", format!("not found: {}", in_words(m))));
        suite.add_test_case(case("injected faults are found", wrong));
    }
    if report.interrupted {
        suite.add_test_case(case("the test runs to its end", Some(("ended_early", "it was ended early".to_owned()))));
    }
    let mut junit = Junit::new("trocar load run");
    junit.add_test_suite(suite);
    Ok(junit.to_string()?)
}

/// A test, and what kind of failure it is and why where it failed.
fn case(name: &str, wrong: Option<(&str, String)>) -> TestCase {
    let status = wrong.map_or_else(TestCaseStatus::success, |(kind, why)| {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type(kind).set_message(why);
        status
    });
    let mut case = TestCase::new(name, status);
    case.set_classname(CLASS);
    case
}
