//! The page. Everything on it is escaped by the template; plots are SVG from [`super::plot`].

use super::charts::Captioned;
use super::plot::Plot;
use super::{Comparison, Report, amount, clean, utc, words};
use crate::classes::{Check, Fit, Limit, Measure, Verdict, Way, direction, number};
use crate::result::{Direction, LinkResult, remains};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");
/// Load average above which a machine measures itself as well.
const BUSY: f64 = 1.5;

/// A page with a title and a body that is escaped already; its look is that of all reports. Nothing on it may run or be fetched.
#[must_use]
pub fn document(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (PreEscaped("<meta charset=\"utf-8\"/>"))
                (PreEscaped("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"))
                (PreEscaped("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>"))
                title { (clean(title)) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

/// A plot with its title, its key and the sentence below it.
#[must_use]
pub fn figure(plot: &Plot, note: &str) -> Markup {
    let label = html! { (clean(&plot.title)) }.into_string();
    let svg = plot.svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{label}\" "), 1);
    html! {
        figure {
            h3 { (clean(&plot.title)) }
            (PreEscaped(svg))
            figcaption {
                @for (colour, name) in &plot.legend { span class={ "key " (colour.class()) } { (clean(name)) } }
                p { (clean(note)) }
            }
        }
    }
}

/// An answer as a badge: word and colour.
#[must_use]
pub fn pill(fit: Fit) -> Markup {
    html! { span class={ "pill " (class_of(fit)) } { (fit.words()) } }
}

/// The figures that a busy person asks for, in the order of asking.
pub(super) fn facts(report: &Report) -> Vec<(String, String)> {
    let result = &report.result;
    let of = |measure, way| {
        let limit = Limit { measure, way };
        let f = crate::classes::figure(result, limit, None, &[])?;
        let bar = f
            .uncertainty()
            .filter(|u| *u > 0.0 && measure != Measure::Loss)
            .map_or_else(String::new, |u| format!(" ± {}", number(u)));
        Some(format!("{}{bar} {}", number(f.value), limit.unit()))
    };
    let wanted = [
        ("up", Measure::Rate, Some(Way::Up)),
        ("down", Measure::Rate, Some(Way::Down)),
        ("RTT p99", Measure::Rtt, None),
        ("delay p99 up", Measure::Delay, Some(Way::Up)),
        ("delay p99 down", Measure::Delay, Some(Way::Down)),
        ("jitter p99 up", Measure::Jitter, Some(Way::Up)),
        ("loss up", Measure::Loss, Some(Way::Up)),
        ("loss down", Measure::Loss, Some(Way::Down)),
    ];
    wanted.into_iter().filter_map(|(name, measure, way)| Some((name.to_owned(), of(measure, way)?))).collect()
}

/// The whole report.
pub(super) fn report(report: &Report, plots: &[Captioned]) -> String {
    let Report { result, verdict, classes, .. } = report;
    let body = html! {
        h1 { (words::TITLE) " " (clean(&result.here)) " → " (clean(&result.there)) ", " (utc(result.started_unix_s)) }
        (answer(report))
        @if result.load_average.is_some_and(|l| l > BUSY) { p.small { (words::BUSY) } }
        section.facts { @for (name, value) in facts(report) { div { b { (value) } span { (name) } } } }
        h2 { (words::CHECKS) }
        (checks(verdict))
        p.small { (words::ERROR_BARS) }
        h2 { (words::CLASSES) }
        (others(classes))
        @if !plots.is_empty() {
            h2 { (words::PLOTS) }
            div.plots { @for (plot, note) in plots { (figure(plot, note)) } }
        }
        @if result.directions.iter().any(|d| !d.ramp.is_empty()) { h2 { (words::RAMP) } (ramps(result)) }
        @if !result.ladder.is_empty() { h2 { (words::WAYS) } (ladder(result)) }
        h2 { (words::LINE) }
        (line(result))
        @if !result.why_not.is_empty() {
            h2 { (words::NOT_MEASURED) }
            dl { @for (field, why) in &result.why_not { dt { code { (clean(field)) } } dd { (clean(why)) } } }
        }
        h2 { (words::HOW) }
        (how(result))
    };
    document(&format!("{} {} {}", verdict.fit.words(), words::FOR, verdict.title), &body)
}

fn head(columns: &[(&str, bool)]) -> Markup {
    html! { thead { tr { @for (name, number) in columns { th class=(if *number { "n" } else { "" }) { (name) } } } } }
}

const fn class_of(fit: Fit) -> &'static str {
    match fit {
        Fit::Fit => "fit",
        Fit::WithLimits => "with_limits",
        Fit::NotFit => "not_fit",
        Fit::Unknown => "unknown",
    }
}

const fn sign(fit: Fit) -> &'static str {
    match fit {
        Fit::Fit => "✓",
        Fit::WithLimits => "!",
        Fit::NotFit => "✕",
        Fit::Unknown => "?",
    }
}

fn answer(report: &Report) -> Markup {
    let verdict = &report.verdict;
    let advice = verdict.decisive().map(|c| c.advice.as_str()).filter(|a| !a.is_empty());
    html! {
        section class={ "verdict " (class_of(verdict.fit)) } {
            p.answer { (sign(verdict.fit)) " " (verdict.fit.words()) " " (words::FOR) " " (clean(&verdict.title)) }
            p.reason { (clean(&verdict.reason())) "." }
            p.best {
                @match report.best_title() {
                    Some(best) => { (words::BEST) ": " strong { (clean(best)) } "." },
                    None => (words::BEST_NONE),
                }
            }
        }
        @if let Some(advice) = advice { div.change { h2 { (words::WHAT_TO_DO) } p { (clean(advice)) } } }
    }
}

pub(super) fn check_fit(check: &Check) -> Fit {
    match (check.passed, check.measured) {
        (Some(true), _) => Fit::Fit,
        (Some(false), _) => Fit::NotFit,
        (None, Some(_)) => Fit::WithLimits,
        (None, None) => Fit::Unknown,
    }
}

pub(super) const fn check_words(fit: Fit) -> &'static str {
    match fit {
        Fit::Fit => words::KEPT,
        Fit::NotFit => words::BROKEN,
        Fit::WithLimits => words::CANNOT_TELL,
        Fit::Unknown => words::NO_FIGURE,
    }
}

fn checks(verdict: &Verdict) -> Markup {
    html! {
        div.scroll { table {
            (head(&words::CHECK_COLUMNS))
            tbody {
                @for (i, check) in verdict.checks.iter().enumerate() {
                    tr class=(if verdict.first_failed == Some(i) { "first" } else { "" }) {
                        td { (clean(&check.name())) @if !check.note.is_empty() { div.small { (clean(&check.note)) } } }
                        td { span class={ "pill " (class_of(check_fit(check))) } { (check_words(check_fit(check))) } }
                        td.n { (measured(check)) }
                        td.n { (clean(&check.wanted_words())) }
                        td.n { @if let Some(m) = check.margin { @if m > 0.0 { "+" } (number(m)) } @else { "–" } }
                        td.small { (clean(&check.source)) @if !check.advice.is_empty() && verdict.first_failed != Some(i) { p { (clean(&check.advice)) } } }
                    }
                }
            }
        } }
    }
}

pub(super) fn measured(check: &Check) -> String {
    let Some(value) = check.measured else { return "–".to_owned() };
    let bar = match check.uncertainty {
        Some(0.0) => String::new(),
        Some(u) => format!(" ± {}", number(u)),
        None => " or worse".to_owned(),
    };
    clean(&format!("{}{bar} {}", number(value), check.unit))
}

fn others(classes: &[Verdict]) -> Markup {
    html! {
        div.scroll { table {
            (head(&words::CLASS_COLUMNS))
            tbody { @for verdict in classes {
                tr { td { (clean(&verdict.title)) } td { (pill(verdict.fit)) } td { (clean(&verdict.reason())) } }
            } }
        } }
    }
}

fn ramps(result: &LinkResult) -> Markup {
    html! {
        div.scroll { table {
            (head(&words::RAMP_COLUMNS))
            tbody { @for direction in &result.directions { @for step in &direction.ramp {
                tr {
                    td { (clean(&direction.name)) }
                    td.n { (number(step.offered_mbit_s)) }
                    td.n { (number(step.received_mbit_s)) }
                    td.n { (number(step.loss_percent)) }
                    td.n { (number(step.queue_p95_us / 1_000.0)) }
                }
            } } }
        } }
    }
}

fn ladder(result: &LinkResult) -> Markup {
    let works = |r: Option<bool>| match r {
        Some(true) => (Fit::Fit, words::WORKS),
        Some(false) => (Fit::NotFit, words::BLOCKED),
        None => (Fit::Unknown, words::NOT_TRIED),
    };
    html! {
        @if let Some(remains) = remains(&result.ladder) { p { strong { (remains) } } }
        div.scroll { table {
            (head(&words::WAY_COLUMNS))
            tbody { @for rung in &result.ladder { @let (fit, word) = works(rung.reachable); tr {
                td { code { (clean(&rung.name)) } }
                td { span class={ "pill " (class_of(fit)) } { (word) } }
                td.n { (rung.connect_us.map_or_else(|| "–".to_owned(), |us| number(us / 1_000.0))) }
                td.n { (rung.rtt_us.map_or_else(|| "–".to_owned(), |us| number(us / 1_000.0))) }
                td { (clean(&rung.latency_class)) }
                td.small { (clean(&rung.detail)) }
            } } }
        } }
    }
}

fn line(result: &LinkResult) -> Markup {
    let path = &result.path;
    let yes = |v: Option<bool>| v.map(|v| if v { "yes" } else { "no" }.to_owned());
    let mark = |take: fn(&Direction) -> Option<bool>| {
        let one = |w: Way| Some(format!("{} {}", w.name(), yes(take(direction(result, w)?))?));
        let all: Vec<String> = Way::BOTH.into_iter().filter_map(one).collect();
        (!all.is_empty()).then(|| all.join(", "))
    };
    let rows = [
        (words::LINE_MTU, path.mtu_payload_bytes.map(|b| format!("{b} bytes"))),
        (words::LINE_FAMILY, Some(path.family.clone())),
        (words::LINE_OTHER, yes(path.other_family)),
        (words::LINE_MAPPED, path.mapped_address.clone()),
        (words::LINE_NAT, path.nat_mapping.clone()),
        (words::LINE_NAT_LIVES, path.nat_lives_s.map(|s| amount(s, "s"))),
        (words::LINE_DSCP, mark(|d| d.dscp_survives)),
        (words::LINE_ECN, mark(|d| d.ecn_survives)),
        (
            words::LINE_SECOND,
            result.second_path.as_ref().map(|s| format!("{}, {} ms behind", s.name, number(s.skew_us / 1_000.0))),
        ),
    ];
    html! { dl { @for (name, value) in rows { @if let Some(value) = value { dt { (name) } dd { (clean(&value)) } } } } }
}

fn how(result: &LinkResult) -> Markup {
    html! {
        dl {
            dt { (words::HOW_COMMAND) } dd { code { (clean(&result.command)) } }
            dt { (words::HOW_FROM) } dd { (clean(&result.here)) }
            dt { (words::HOW_TO) } dd { (clean(&result.there)) }
            dt { (words::HOW_WHEN) } dd { (utc(result.started_unix_s)) ", for " (amount(result.duration_s, "s")) }
            dt { (words::HOW_PROGRAM) } dd { "trocar " (clean(&result.version)) ", " (clean(&result.schema)) }
            @if let Some(clock) = &result.clock {
                dt { (words::HOW_CLOCKS) }
                dd {
                    (words::ONE_WAY) ": the other one is " (number(clock.offset_us / 1_000.0)) " ± " (amount(clock.uncertainty_us / 1_000.0, "ms"))
                    " away and drifts by " (number(clock.drift_ppm)) " ± " (amount(clock.drift_uncertainty_ppm, "ppm")) "."
                }
            }
            @if let Some(load) = result.load_average { dt { (words::HOW_LOAD) } dd { (number(load)) } }
        }
    }
}

/// Before and after.
pub(super) fn comparison(c: &Comparison, plots: &[Captioned]) -> String {
    let body = html! {
        h1 { (words::COMPARED) }
        section class={ "verdict " (c.after.map_or("unknown", class_of)) } {
            p.answer { (clean(&c.title)) ": " (c.before.words()) " → " (c.after.map_or(words::NO_VERDICT, Fit::words)) }
            p.best { (words::BEFORE) ": " (c.before_head) }
            p.best { (words::AFTER) ": " (c.after_head) }
        }
        h2 { (words::CHECKS) }
        div.scroll { table {
            (head(&words::CHANGE_COLUMNS))
            tbody { @for change in &c.changes { tr {
                td { (change.name()) }
                td.n { (change.amount(change.before)) }
                td.n { (change.amount(change.after)) }
                td { span class={ "pill " (match change.better { Some(true) => "fit", Some(false) => "not_fit", None => "" }) } { (change.words()) } }
            } } }
        } }
        p.small { (words::ERROR_BARS) }
        @if !c.classes.is_empty() {
            h2 { (words::CLASSES) }
            table { tbody { @for (title, before, after) in &c.classes { tr { td { (clean(title)) } td { (pill(*before)) } td { (pill(*after)) } } } } }
        }
        @if !plots.is_empty() { h2 { (words::PLOTS) } div.plots { @for (plot, note) in plots { (figure(plot, note)) } } }
    };
    document(words::COMPARED, &body)
}
