//! The report for a terminal.

use super::page::{check_fit, check_words, measured};
use super::{Report, clean, words};

/// Verdict, reason and advice, every limit, and the other classes.
#[must_use]
pub fn text(report: &Report) -> String {
    let verdict = &report.verdict;
    let mut out = vec![
        format!("{} {} {}", verdict.fit.words(), words::FOR, clean(&verdict.title)),
        format!("  {}", clean(&verdict.reason())),
    ];
    if let Some(advice) = verdict.decisive().map(|c| &c.advice).filter(|a| !a.is_empty()) {
        out.push(format!("  {}: {}", words::WHAT_TO_DO, clean(advice)));
    }
    out.push(
        report
            .best_title()
            .map_or_else(|| format!("  {}", words::BEST_NONE), |best| format!("  {}: {}", words::BEST, clean(best))),
    );
    out.push(String::new());
    let rows: Vec<[String; 4]> = verdict
        .checks
        .iter()
        .map(|c| [check_words(check_fit(c)).to_owned(), clean(&c.name()), measured(c), clean(&c.wanted_words())])
        .collect();
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|s| s.chars().count()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    for [answer, name, is, wanted] in &rows {
        out.push(format!("  {answer:first$}  {name:second$}  {is:>third$}  {wanted}"));
    }
    out.push(String::new());
    let titles = report.classes.iter().map(|v| v.title.chars().count()).max().unwrap_or(0).min(60);
    for other in &report.classes {
        out.push(format!("  {:15}  {:titles$}", other.fit.words(), clean(&other.title)));
    }
    out.push(String::new());
    out.join("\n")
}
