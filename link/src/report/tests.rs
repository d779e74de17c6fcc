use super::plot::{Axes, Colour, Series};
use super::*;
use crate::classes::Fit;
use crate::classes::tests::best;
use crate::result::{Quantiles, Step};
use serde_json::Value;

/// What somebody may put where a name belongs.
const NASTY: &str = "<script>alert(1)</script>\"'&]]>\u{0}\u{1b}[31m\u{202e}\n--><img src=x onerror=y>";
const SCHEMA_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/schemas/link-report.schema.json");
const EXAMPLE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/schemas/link-report.example.json");
/// Set, schema and example are written instead of compared.
const WRITE: &str = "TROCAR_WRITE_SCHEMA";

fn curve(low: f64, high: f64) -> Option<Quantiles> {
    let at = |share: f64| low + (high - low) * share * share;
    let cdf = (1..=40).map(|i| (at(f64::from(i) / 40.0), f64::from(i) / 40.0)).collect();
    let (p50, p95, p99, p999) = (at(0.5), at(0.95), at(0.99), at(0.999));
    Some(Quantiles { count: 100_000, min: low, p50, p95, p99, p999, max: high, mean: p50, cdf })
}

/// A line with everything that a plot can show; two eyes are too much for it.
fn rough() -> LinkResult {
    let mut result = best();
    (result.version, result.started_unix_s) = ("0.1.0".to_owned(), 1_795_359_600.0);
    result.command = "trocar link test peer.example.org:4480 --class telesurgery-dual --json report.json".to_owned();
    (result.here, result.there) =
        ("or-3 (192.0.2.10)".to_owned(), "peer.example.org:4480 (trocar link serve)".to_owned());
    result.clock.as_mut().unwrap().uncertainty_us = 400.0;
    result.load_average = Some(0.3);
    (result.path.rtt_idle_us, result.path.rtt_loaded_us) = (curve(18_000.0, 46_000.0), curve(18_000.0, 90_000.0));
    for (i, way) in result.directions.iter_mut().enumerate() {
        way.video.as_mut().unwrap().frame_delay_us = curve(11_000.0, 34_000.0);
        let flow = &mut way.video.as_mut().unwrap().flow;
        flow.delay_us = curve(9_000.0, 31_000.0 + 4_000.0 * i as f64);
        flow.jitter_us = curve(0.0, 9_000.0);
        flow.delay_over_time =
            (0..120).map(|t| (f64::from(t) / 2.0, 9_000.0 + f64::from(t * 37 % 101) * 100.0)).collect();
        (flow.lost, flow.received, flow.loss_bursts) = (900, flow.sent - 900, vec![(1, 500), (2, 100), (5, 40)]);
        flow.loss_over_time = vec![(12.0, 400), (33.0, 500)];
        let step =
            |m: f64| Step { offered_mbit_s: m, received_mbit_s: m.min(120.0), loss_percent: 0.0, queue_p95_us: m * m };
        way.ramp = [10.0, 50.0, 100.0, 120.0, 150.0, 200.0].map(step).to_vec();
        (way.capacity_mbit_s, way.capacity_uncertainty_mbit_s) = (Some(120.0), Some(3.0));
    }
    result.second_path.as_mut().unwrap().loss_percent = 0.09;
    result.why_not = vec![("path.nat_lives_s".to_owned(), "no NAT between".to_owned())];
    result
}

fn report_of(result: LinkResult) -> Report {
    Report::new(result, &Classes::built_in().unwrap(), "telesurgery-dual").unwrap()
}

/// Every text of a report is what an attacker wishes, but for those that have to be one of a few words.
fn poisoned() -> Report {
    fn poison(value: &mut Value, key: &str) {
        match value {
            Value::String(s) if !["fit", "sense", "direction", "schema"].contains(&key) && s != "up" && s != "down" => {
                NASTY.clone_into(s);
            }
            Value::Array(all) => all.iter_mut().for_each(|v| poison(v, key)),
            Value::Object(all) => all.iter_mut().for_each(|(k, v)| poison(v, k)),
            _ => {}
        }
    }
    let mut result = rough();
    (result.path.mapped_address, result.path.nat_mapping) = (Some(String::new()), Some(String::new()));
    let mut value = serde_json::to_value(report_of(result)).unwrap();
    poison(&mut value, "");
    serde_json::from_value(value).unwrap()
}

/// The page as a tree: it is well-formed XML beside being HTML, so that nothing can have broken out of its place.
fn check_page(page: &str) -> String {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let tree = roxmltree::Document::parse_with_options(page, options).unwrap_or_else(|e| panic!("{e}"));
    for node in tree.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["script", "img", "iframe", "object", "link", "a", "foreignObject"].contains(&name), "<{name}>");
        for attribute in node.attributes() {
            assert!(
                !attribute.name().starts_with("on") && !["href", "src"].contains(&attribute.name()),
                "{attribute:?}"
            );
        }
    }
    assert!(!page.contains("@import") && !page.contains("url("), "a page needs nothing from elsewhere");
    let odd = |c: &char| c.is_control() && *c != '\n' || *c == '\u{202e}';
    assert_eq!(page.chars().find(odd), None);
    tree.descendants().filter(roxmltree::Node::is_text).filter_map(|n| n.text()).collect()
}

fn schema() -> Value {
    serde_json::to_value(schemars::schema_for!(Report)).unwrap()
}

#[test]
fn the_page_says_verdict_reason_and_advice_first_and_draws_every_plot() {
    let report = report_of(rough());
    let page = html(&report).unwrap();
    let text = check_page(&page);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is not in {text}"));
    assert!(at("NOT FIT for Telesurgery, both eyes") < at("Rate (up) is 120 ± 3 Mbit/s"));
    assert!(at("Rate (up) is 120 ± 3 Mbit/s") < at("What to change"));
    assert!(at("This line is fit for: ") < at("Every limit"));
    for plot in ["One-way delay", "Jitter", "(up)", "(down)", "Rate:", "Queue under", "How losses", "Two paths"] {
        at(plot);
    }
    assert_eq!(page.matches("<svg ").count(), 8, "two curves, two over time, two of the ramp, bursts, paths");
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("@page"));
    // The control: a line of which nothing was drawn has none.
    let bare = html(&report_of(LinkResult { directions: Vec::new(), second_path: None, ..best() })).unwrap();
    check_page(&bare);
    assert_eq!(bare.matches("<svg ").count(), 0);
    assert!(bare.contains("CANNOT SAY"));
}

#[test]
fn every_colour_of_a_plot_is_one_that_the_style_sheet_turns() {
    let page = html(&report_of(rough())).unwrap();
    let (_, body) = page.split_once("</style>").unwrap();
    for attribute in ["fill=\"#", "stroke=\"#"] {
        for (at, _) in body.match_indices(attribute) {
            let value = &body[at..at + attribute.len() + 7];
            assert!(page.contains(&format!("svg [{value}]")), "{value} stays as it is on a dark page");
        }
    }
}

#[test]
fn whatever_a_name_holds_is_text_on_the_page() {
    let report = poisoned();
    let text = check_page(&html(&report).unwrap());
    assert!(
        text.contains("<script>alert(1)</script>\"'&]]>\u{fffd}\u{fffd}[31m\u{fffd}\u{fffd}-->"),
        "it is shown, not lost"
    );
    let compared = compare(&report, &report);
    check_page(&compared.html(&report, &report).unwrap());
    let heat = plot::heat_map(
        &Axes { title: NASTY, x: "s", y: NASTY, ..Axes::default() },
        &[(NASTY.to_owned(), vec![Some(1.0)])],
        1.0,
    );
    check_page(&page::document(NASTY, &page::figure(&heat.unwrap(), NASTY)));
    for line in [ticket(&report), super::text(&report), compared.text()] {
        assert!(line.chars().all(|c| c == '\n' || !c.is_control()), "{line:?}");
    }
    assert_eq!(ticket(&report).lines().count(), 2, "a name cannot add a line");
}

#[test]
fn a_ticket_is_two_lines_with_the_verdict_and_the_figures() {
    let text = ticket(&report_of(rough()));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[0],
        "NOT FIT for Telesurgery, both eyes, two paths: Rate (up) is 120 ± 3 Mbit/s, at least 150 Mbit/s is wanted: off by 30 \
         Mbit/s; fit for: Remote camera"
    );
    assert!(
        lines[1]
            .starts_with("2026-11-22 15:00 UTC, or-3 (192.0.2.10) to peer.example.org:4480 (trocar link serve): up 120 ± 3 Mbit/s, down 120 ± 3 Mbit/s, RTT p99 45.4 ms"),
        "{text}"
    );
}

#[test]
fn the_text_for_a_terminal_says_the_same_as_the_page() {
    let text = text(&report_of(rough()));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "NOT FIT for Telesurgery, both eyes, two paths");
    assert!(lines[1].contains("Rate (up) is 120 ± 3 Mbit/s"), "{text}");
    assert!(text.contains("This line is fit for: Remote camera"), "{text}");
    let marked = |m: &str| lines.iter().filter(|l| l.trim_start().starts_with(m)).count();
    assert!(marked("broken") >= 2 && marked("kept") >= 5, "{text}");
}

#[test]
fn json_comes_back_as_it_was_and_a_figure_that_is_no_number_is_refused() {
    let report = report_of(rough());
    let text = json(&report).unwrap();
    assert_eq!(Report::read(&text).unwrap(), report);
    let mut odd = report;
    odd.result.duration_s = f64::NAN;
    assert!(matches!(json(&odd), Err(ReportError::Json(_))));
    let other = Report::read("{\"schema\": \"k6\"}").unwrap_err().to_string();
    assert!(other.contains("k6") && other.contains(SCHEMA), "{other}");
    assert!(Report::read(&text.replace("\"ladder\"", "\"leiter\"")).unwrap_err().to_string().contains("leiter"));
}

#[test]
fn the_published_schema_is_what_the_types_give() {
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(SCHEMA_FILE, &text).unwrap();
    }
    let published = std::fs::read_to_string(SCHEMA_FILE).unwrap_or_default();
    assert!(published == text, "{SCHEMA_FILE} is out of date: {WRITE}=1 cargo test -p trocar-link published");
}

#[test]
fn the_published_example_is_what_the_code_writes() {
    let text = json(&report_of(rough())).unwrap() + "\n";
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(EXAMPLE_FILE, &text).unwrap();
    }
    let published = std::fs::read_to_string(EXAMPLE_FILE).unwrap_or_default();
    assert!(published == text, "{EXAMPLE_FILE} is out of date: {WRITE}=1 cargo test -p trocar-link published");
}

#[test]
fn reports_are_valid_by_the_published_schema_and_damaged_ones_are_not() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for report in [report_of(rough()), report_of(best()), poisoned()] {
        let value: Value = serde_json::from_str(&json(&report).unwrap()).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{error} at {}", error.instance_path());
        }
    }
    let good = serde_json::to_value(report_of(rough())).unwrap();
    let damages: [(&str, Value); 5] = [
        ("/verdict/fit", "perhaps".into()),
        ("/result/duration_s", "long".into()),
        ("/result/path/mtu_payload_bytes", (-1).into()),
        ("/verdict/checks/0/sense", Value::Null),
        ("/classes", Value::Null),
    ];
    for (pointer, damage) in damages {
        let mut value = good.clone();
        *value.pointer_mut(pointer).unwrap() = damage;
        assert!(!validator.is_valid(&value), "{pointer}");
    }
    let mut extra = good;
    extra.as_object_mut().unwrap().insert("more".to_owned(), true.into());
    assert!(!validator.is_valid(&extra));
}

#[test]
fn junit_is_read_by_a_reader_that_is_not_ours_and_counts_what_it_says() {
    for report in [report_of(rough()), report_of(best()), poisoned()] {
        let text = junit(&report);
        roxmltree::Document::parse(&text).unwrap();
        let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
        assert_eq!(
            read.test_suites.len(),
            report.classes.iter().filter(|v| v.class != report.verdict.class).count() + 1
        );
        let suite = &read.test_suites[0];
        let broken = report.verdict.checks.iter().filter(|c| c.passed == Some(false)).count();
        let unknown = report.verdict.checks.iter().filter(|c| c.passed.is_none()).count();
        assert_eq!((suite.tests, suite.failures, suite.errors), (report.verdict.checks.len(), broken, unknown));
        assert_eq!(suite.test_cases.len(), report.verdict.checks.len());
        let failed = |case: &quick_junit::TestCase| {
            matches!(
                case.status,
                quick_junit::TestCaseStatus::NonSuccess { kind: quick_junit::NonSuccessKind::Failure, .. }
            )
        };
        assert_eq!(suite.test_cases.iter().filter(|c| failed(c)).count(), broken);
        assert_eq!((read.failures, read.errors), (broken, unknown), "other classes cannot fail a pipeline");
    }
}

#[test]
fn a_comparison_says_better_and_worse_only_beyond_the_error_bars() {
    let (before, mut now) = (report_of(rough()), rough());
    (now.directions[0].capacity_mbit_s, now.directions[1].capacity_mbit_s) = (Some(160.0), Some(121.0));
    now.path.rtt_idle_us = curve(100_000.0, 500_000.0);
    now.path.rtt_loaded_us = None;
    let after = report_of(now);
    let compared = compare(&before, &after);
    let of = |key: &str| compared.changes.iter().find(|c| c.limit == key).unwrap().words();
    assert_eq!(of("rate_up_mbit_s"), words::BETTER);
    assert_eq!(of("rate_down_mbit_s"), words::SAME);
    assert_eq!(of("rtt_p99_ms"), words::WORSE);
    assert_eq!(of("mtu_payload_bytes"), words::SAME);
    assert_eq!(of("rtt_loaded_p99_ms"), words::ONE_SIDE);
    assert_eq!((compared.before, compared.after), (Fit::NotFit, Some(Fit::NotFit)));
    assert!(compared.classes.iter().any(|(t, b, a)| t == "Remote camera" && *b == Fit::Fit && *a == Fit::NotFit));
    assert!(compared.text().contains("Rate (up)"), "{}", compared.text());
    let page = compared.html(&before, &after).unwrap();
    assert!(check_page(&page).contains("before"));
    assert_eq!(page.matches("<svg ").count(), 2);
    assert!(compare(&before, &before).changes.iter().all(|c| c.better.is_none()), "the control");
}

#[test]
fn a_plot_of_anything_ends_and_is_well_formed() {
    let wild = [(f64::NAN, 1.0), (f64::INFINITY, 2.0), (1e300, 1e300), (1e-300, -5.0), (3.0, f64::NEG_INFINITY)];
    let many: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
    for points in [&wild[..], &many, &[], &[(1.0, 1.0)], &[(0.0, 0.0)], &[(1e12, 1e-12)], &[(-1e12, 1e12)]] {
        for dots in [false, true] {
            let axes = Axes {
                title: "any",
                x: "x",
                y: "y",
                x_limits: vec![f64::NAN, 4.0],
                y_max: Some(f64::NAN),
                ..Axes::default()
            };
            let plot = plot::lines(&axes, &[Series { name: "s", colour: Colour::Up, points, dots }]).unwrap();
            roxmltree::Document::parse(&plot.svg).unwrap();
            assert!(plot.svg.len() < 400_000, "{}", plot.svg.len());
        }
    }
    let axes = Axes::default();
    let labels: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    for values in [vec![f64::NAN, 1.0, -3.0, f64::INFINITY], Vec::new(), vec![1.0; 1_000]] {
        roxmltree::Document::parse(&plot::bars(&axes, &labels, &[(Colour::Up, "s", values)]).unwrap().svg).unwrap();
    }
    let rows: Vec<(String, Vec<Option<f64>>)> =
        (0..1_000).map(|i| (format!("viewer {i}"), vec![None, Some(f64::from(i)), Some(f64::NAN)])).collect();
    for rows in [&rows[..], &[], &[("none".to_owned(), Vec::new())]] {
        roxmltree::Document::parse(&plot::heat_map(&axes, rows, 1.0).unwrap().svg).unwrap();
    }
}

#[test]
fn times_are_those_of_the_calendar() {
    for (unix_s, text) in [
        (0.0, "1970-01-01 00:00 UTC"),
        (951_782_399.9, "2000-02-28 23:59 UTC"),
        (951_782_400.0, "2000-02-29 00:00 UTC"),
        (1_709_251_200.0, "2024-03-01 00:00 UTC"),
        (1_735_689_599.0, "2024-12-31 23:59 UTC"),
        (4_107_542_400.0, "2100-03-01 00:00 UTC"),
        (-1.0, "at no time that can be"),
        (f64::NAN, "at no time that can be"),
    ] {
        assert_eq!(utc(unix_s), text, "{unix_s}");
    }
}
