use super::*;
use crate::result::{
    Clock, Direction, Flow, NOT_OFFERED, Path, Quantiles, Rung, SCHEMA as RESULT_SCHEMA, SecondPath, Step, VideoFlow,
    remains,
};

/// What was sent in each flow: so much that the sample says what it has to.
const SENT: u64 = 1_000_000;

fn q(p99_us: f64) -> Option<Quantiles> {
    Some(Quantiles { count: 10_000, min: p99_us / 2.0, p50: p99_us / 1.5, p99: p99_us, ..Quantiles::default() })
}

fn flow() -> Flow {
    Flow { sent: SENT, received: SENT, delay_us: q(1_000.0), jitter_us: q(500.0), ..Flow::default() }
}

/// A line that is fit for everything.
pub(crate) fn best() -> LinkResult {
    let way = |name: &str| Direction {
        name: name.to_owned(),
        idle: Some(flow()),
        video: Some(VideoFlow {
            mbit_s: 50.0,
            fps: 60.0,
            flow: flow(),
            frames: SENT,
            frame_delay_us: q(2_000.0),
            ..VideoFlow::default()
        }),
        ramp: vec![Step { offered_mbit_s: 1_000.0, received_mbit_s: 1_000.0, loss_percent: 0.0, queue_p95_us: 100.0 }],
        capacity_mbit_s: Some(1_000.0),
        capacity_uncertainty_mbit_s: Some(10.0),
        dscp_survives: Some(true),
        ecn_survives: Some(true),
    };
    let rung = |name: &&str| Rung {
        name: (*name).to_owned(),
        reachable: Some(true),
        connect_us: Some(5_000.0),
        rtt_us: Some(2_000.0),
        latency_class: "as the line".to_owned(),
        detail: String::new(),
    };
    LinkResult {
        schema: RESULT_SCHEMA.to_owned(),
        version: "0".to_owned(),
        started_unix_s: 0.0,
        duration_s: 60.0,
        command: "trocar link test".to_owned(),
        here: "here".to_owned(),
        there: "there".to_owned(),
        load_average: None,
        clock: Some(Clock { offset_us: 0.0, uncertainty_us: 0.0, drift_ppm: 0.0, drift_uncertainty_ppm: 0.0 }),
        path: Path {
            mtu_payload_bytes: Some(1_472),
            rtt_idle_us: q(2_000.0),
            rtt_loaded_us: q(3_000.0),
            family: "ipv4".to_owned(),
            ..Path::default()
        },
        directions: vec![way("up"), way("down")],
        ladder: RUNGS.iter().map(rung).collect(),
        second_path: Some(SecondPath {
            name: "second".to_owned(),
            skew_us: 100.0,
            loss_percent: 0.0,
            second_loss_percent: 0.0,
            both_loss_percent: 0.0,
            dependence: None,
        }),
        why_not: Vec::new(),
    }
}

/// How one measure is put into a result: three values (just right, just wrong, and how to take it out), and its threshold.
/// A measure that is added has to be added here: the match is whole.
struct Case {
    threshold: f64,
    right: fn(&mut LinkResult, Way),
    wrong: fn(&mut LinkResult, Way),
    gone: fn(&mut LinkResult, Way),
}

fn way_of(r: &mut LinkResult, way: Way) -> &mut Direction {
    r.directions.iter_mut().find(|d| d.name == way.name()).unwrap()
}

fn video(r: &mut LinkResult, way: Way) -> &mut VideoFlow {
    way_of(r, way).video.as_mut().unwrap()
}

fn second(r: &mut LinkResult) -> &mut SecondPath {
    r.second_path.as_mut().unwrap()
}

fn no_flow(r: &mut LinkResult, way: Way) {
    let d = way_of(r, way);
    (d.idle, d.video) = (None, None);
}

#[allow(clippy::too_many_lines, reason = "one row for each measure")]
fn case(measure: Measure) -> Case {
    match measure {
        Measure::Rungs => Case {
            threshold: 1.0,
            right: |r, _| r.ladder.iter_mut().for_each(|g| g.reachable = Some(g.name == RUNGS[0])),
            wrong: |r, _| r.ladder.iter_mut().for_each(|g| g.reachable = Some(false)),
            gone: |r, _| r.ladder.iter_mut().for_each(|g| g.reachable = None),
        },
        Measure::Mtu => Case {
            threshold: 1_200.0,
            right: |r, _| r.path.mtu_payload_bytes = Some(1_200),
            wrong: |r, _| r.path.mtu_payload_bytes = Some(1_199),
            gone: |r, _| r.path.mtu_payload_bytes = None,
        },
        Measure::Rate => Case {
            threshold: 150.0,
            right: |r, w| {
                (way_of(r, w).capacity_mbit_s, way_of(r, w).capacity_uncertainty_mbit_s) = (Some(150.0), Some(0.0))
            },
            wrong: |r, w| {
                (way_of(r, w).capacity_mbit_s, way_of(r, w).capacity_uncertainty_mbit_s) =
                    (Some(150.0_f64.next_down()), Some(0.0));
            },
            gone: |r, w| way_of(r, w).capacity_mbit_s = None,
        },
        Measure::Delay => Case {
            threshold: 25.0,
            right: |r, w| video(r, w).flow.delay_us = q(25_000.0),
            wrong: |r, w| video(r, w).flow.delay_us = q(25_000.001),
            gone: |r, _| r.clock = None,
        },
        Measure::FrameDelay => Case {
            threshold: 35.0,
            right: |r, w| video(r, w).frame_delay_us = q(35_000.0),
            wrong: |r, w| video(r, w).frame_delay_us = q(35_000.001),
            gone: |r, w| video(r, w).frame_delay_us = None,
        },
        Measure::Rtt => Case {
            threshold: 50.0,
            right: |r, _| r.path.rtt_idle_us = q(50_000.0),
            wrong: |r, _| r.path.rtt_idle_us = q(50_000.001),
            gone: |r, _| r.path.rtt_idle_us = None,
        },
        Measure::RttLoaded => Case {
            threshold: 80.0,
            right: |r, _| r.path.rtt_loaded_us = q(80_000.0),
            wrong: |r, _| r.path.rtt_loaded_us = q(80_000.001),
            gone: |r, _| r.path.rtt_loaded_us = None,
        },
        Measure::Jitter => Case {
            threshold: 5.0,
            right: |r, w| video(r, w).flow.jitter_us = q(5_000.0),
            wrong: |r, w| video(r, w).flow.jitter_us = q(5_000.001),
            gone: |r, w| video(r, w).flow.jitter_us = None,
        },
        Measure::Loss => Case {
            threshold: 0.1,
            right: |r, w| video(r, w).flow.lost = SENT / 1_000,
            wrong: |r, w| video(r, w).flow.lost = SENT / 1_000 + 1,
            gone: no_flow,
        },
        Measure::Burst => Case {
            threshold: 3.0,
            right: |r, w| video(r, w).flow.loss_bursts = vec![(1, 5), (3, 1)],
            wrong: |r, w| video(r, w).flow.loss_bursts = vec![(1, 5), (4, 1)],
            gone: no_flow,
        },
        Measure::FramesDamaged => Case {
            threshold: 0.1,
            right: |r, w| video(r, w).frames_damaged = SENT / 1_000,
            wrong: |r, w| video(r, w).frames_damaged = SENT / 1_000 + 1,
            gone: |r, w| way_of(r, w).video = None,
        },
        Measure::Reordered => Case {
            threshold: 0.1,
            right: |r, w| video(r, w).flow.reordered = SENT / 1_000,
            wrong: |r, w| video(r, w).flow.reordered = SENT / 1_000 + 1,
            gone: no_flow,
        },
        Measure::Queue => Case {
            threshold: 10.0,
            right: |r, w| way_of(r, w).ramp[0].queue_p95_us = 10_000.0,
            wrong: |r, w| way_of(r, w).ramp[0].queue_p95_us = 10_000.001,
            gone: |r, w| way_of(r, w).ramp.clear(),
        },
        Measure::BothPathsLoss => Case {
            threshold: 0.001,
            right: |r, _| second(r).both_loss_percent = 0.001,
            wrong: |r, _| second(r).both_loss_percent = 0.001_f64.next_up(),
            gone: |r, _| r.second_path = None,
        },
        Measure::PathSkew => Case {
            threshold: 20.0,
            right: |r, _| second(r).skew_us = -20_000.0,
            wrong: |r, _| second(r).skew_us = -20_000.001,
            gone: |r, _| r.second_path = None,
        },
        Measure::PathDependence => Case {
            threshold: 10.0,
            right: |r, _| second(r).dependence = Some(10.0),
            wrong: |r, _| second(r).dependence = Some(10.0_f64.next_up()),
            gone: |r, _| r.second_path = None,
        },
    }
}

fn class_of(limit: Limit, value: f64) -> Class {
    let any = if limit.measure == Measure::Rungs { vec![RUNGS[0].to_owned()] } else { Vec::new() };
    let limits = vec![Threshold { limit, value, any, source: "a test".to_owned() }];
    Class { name: "one".to_owned(), title: "One limit".to_owned(), about: "a test".to_owned(), limits }
}

fn with(change: fn(&mut LinkResult, Way), way: Way) -> LinkResult {
    let mut result = best();
    change(&mut result, way);
    result
}

#[test]
fn every_limit_flips_exactly_at_its_threshold() {
    let all = Limit::all();
    assert_eq!(all.len(), 25, "nine measures in both directions and seven for the line");
    for limit in all {
        let (case, way) = (case(limit.measure), limit.way.unwrap_or(Way::Up));
        let class = class_of(limit, case.threshold);
        let key = limit.key();
        let verdict = |change| judge(&with(change, way), &class);

        let right = verdict(case.right);
        assert_eq!((right.fit, right.first_failed), (Fit::Fit, None), "{key} at its threshold: {right:?}");
        assert_eq!(right.checks[0].margin, Some(0.0), "{key}");
        assert!(right.checks[0].advice.is_empty(), "{key}");

        let wrong = verdict(case.wrong);
        assert_eq!((wrong.fit, wrong.first_failed), (Fit::NotFit, Some(0)), "{key} beyond its threshold: {wrong:?}");
        assert!(wrong.checks[0].margin.unwrap() < 0.0, "{key}");
        assert!(wrong.checks[0].advice.len() > 20, "{key} has no advice");
        assert!(wrong.reason().contains("off by"), "{}", wrong.reason());

        let gone = verdict(case.gone);
        assert_eq!((gone.fit, gone.checks[0].passed), (Fit::Unknown, None), "{key} without a figure: {gone:?}");
        assert_eq!((gone.checks[0].measured, gone.checks[0].margin), (None, None), "{key}");
        assert!(gone.checks[0].advice.len() > 20, "{key} has no advice where it is missing");

        if let Some(way) = limit.way {
            let other = judge(
                &with(case.wrong, Limit { measure: limit.measure, way: Some(way) }.turned().way.unwrap()),
                &class,
            );
            assert_eq!(other.fit, Fit::Fit, "{key} looks at the other direction: {other:?}");
        }
    }
}

#[test]
fn an_error_bar_that_reaches_over_a_threshold_is_fit_with_limits_and_says_so() {
    let rate = Limit { measure: Measure::Rate, way: Some(Way::Up) };
    let delay = Limit { measure: Measure::Delay, way: Some(Way::Down) };
    for (value, pm, fit) in [
        (160.0, 10.0, Fit::Fit),
        (160.0, 10.5, Fit::WithLimits),
        (140.0, 10.0, Fit::WithLimits),
        (140.0, 9.5, Fit::NotFit),
    ] {
        let mut result = best();
        (result.directions[0].capacity_mbit_s, result.directions[0].capacity_uncertainty_mbit_s) =
            (Some(value), Some(pm));
        let verdict = judge(&result, &class_of(rate, 150.0));
        assert_eq!(verdict.fit, fit, "{value} ± {pm}");
        assert_eq!(verdict.checks[0].uncertainty, Some(pm));
        assert_eq!(
            verdict.reason().contains("the error bar reaches over it"),
            fit == Fit::WithLimits,
            "{}",
            verdict.reason()
        );
    }
    for (value, pm, fit) in [
        (20_000.0, 5_000.0, Fit::Fit),
        (20_000.0, 5_001.0, Fit::WithLimits),
        (30_000.0, 5_000.0, Fit::WithLimits),
        (30_000.0, 4_999.0, Fit::NotFit),
    ] {
        let mut result = best();
        result.clock.as_mut().unwrap().uncertainty_us = pm;
        video(&mut result, Way::Down).flow.delay_us = q(value);
        assert_eq!(judge(&result, &class_of(delay, 25.0)).fit, fit, "{value} ± {pm} us");
    }
}

#[test]
fn only_a_line_that_can_be_used_ends_with_0() {
    let codes = [Fit::Fit, Fit::WithLimits, Fit::NotFit, Fit::Unknown].map(|f| (f.words(), f.exit_code()));
    assert_eq!(codes, [("FIT", 0), ("FIT WITH LIMITS", 0), ("NOT FIT", 99), ("CANNOT SAY", 1)]);
    // The page that says so.
    let page = include_str!("../../../docs/REPORTS.md");
    for (words, code) in codes {
        let row = page.lines().find(|l| l.starts_with(&format!("| {words} |"))).unwrap();
        assert!(row.ends_with(&format!("| {code} |")), "{row}");
    }
}

#[test]
fn a_sample_that_is_too_small_proves_no_small_loss_and_no_percentile() {
    let loss = class_of(Limit { measure: Measure::Loss, way: Some(Way::Up) }, 0.1);
    for (sent, lost, fit) in
        [(3_000, 0, Fit::Fit), (2_999, 0, Fit::WithLimits), (2_999, 3, Fit::NotFit), (0, 0, Fit::Unknown)]
    {
        let mut result = best();
        let flow = &mut video(&mut result, Way::Up).flow;
        (flow.sent, flow.lost) = (sent, lost);
        assert_eq!(judge(&result, &loss).fit, fit, "{lost} of {sent}");
    }
    let rtt = class_of(Limit { measure: Measure::Rtt, way: None }, 50.0);
    for (count, p99, fit) in [
        (100, 2_000.0, Fit::Fit),
        (99, 2_000.0, Fit::WithLimits),
        (99, 60_000.0, Fit::NotFit),
        (100, f64::NAN, Fit::Unknown),
    ] {
        let mut result = best();
        result.path.rtt_idle_us = Some(Quantiles { count, p99, ..Quantiles::default() });
        assert_eq!(judge(&result, &rtt).fit, fit, "{count} values");
    }
}

#[test]
fn the_queue_is_that_at_the_rate_of_the_class_and_uncertain_between_two_steps() {
    let class = |rate: f64| {
        let mut class = class_of(Limit { measure: Measure::Rate, way: Some(Way::Up) }, rate);
        class.limits.extend(class_of(Limit { measure: Measure::Queue, way: Some(Way::Up) }, 10.0).limits);
        class
    };
    let mut result = best();
    let step = |offered_mbit_s, queue_p95_us| Step {
        offered_mbit_s,
        received_mbit_s: offered_mbit_s,
        loss_percent: 0.0,
        queue_p95_us,
    };
    // A ramp that was not run upwards.
    result.directions[0].ramp = vec![step(200.0, 90_000.0), step(50.0, 1_000.0), step(100.0, 2_000.0)];
    for (rate, fit, measured) in [
        (100.0, Fit::Fit, Some(2.0)),
        (120.0, Fit::WithLimits, Some(90.0)),
        (195.0, Fit::NotFit, Some(90.0)),
        (201.0, Fit::Unknown, None),
    ] {
        let verdict = judge(&result, &class(rate));
        assert_eq!((verdict.fit, verdict.checks[1].measured), (fit, measured), "{rate} Mbit/s: {verdict:?}");
    }
}

#[test]
fn what_fails_goes_before_what_is_missing_and_that_before_what_cannot_be_told() {
    let classes = Classes::built_in().unwrap();
    let class = classes.get("telesurgery-dual").unwrap();
    let name = |v: &Verdict| v.decisive().unwrap().limit.clone();
    let mut result = best();
    result.directions[0].capacity_mbit_s = Some(155.0);
    let limits = judge(&result, class);
    assert_eq!((limits.fit, name(&limits)), (Fit::WithLimits, "rate_up_mbit_s".to_owned()));
    result.second_path = None;
    let unknown = judge(&result, class);
    assert_eq!((unknown.fit, name(&unknown)), (Fit::Unknown, "both_paths_loss_percent".to_owned()));
    video(&mut result, Way::Up).flow.jitter_us = q(7_500.0);
    video(&mut result, Way::Up).flow.lost = SENT / 2;
    let not = judge(&result, class);
    assert_eq!((not.fit, name(&not)), (Fit::NotFit, "jitter_p99_up_ms".to_owned()), "the first of two");
    assert_eq!(not.reason(), "Jitter, p99 (up) is 7.5 ms, at most 5 ms is wanted: off by 2.5 ms");
}

#[test]
fn against_a_peer_what_got_through_by_udp_is_the_rung_and_says_so() {
    let limit = Limit { measure: Measure::Rungs, way: None };
    let mut result = best();
    result.ladder.clear();
    let verdict = judge(&result, &class_of(limit, 1.0));
    assert_eq!(verdict.fit, Fit::Fit);
    assert!(verdict.checks[0].note.contains("were not tried"), "{verdict:?}");
    let mut tcp = class_of(limit, 1.0);
    tcp.limits[0].any = vec!["ice-tcp".to_owned()];
    assert_eq!(judge(&result, &tcp).fit, Fit::Unknown);
    result.directions.clear();
    assert_eq!(judge(&result, &class_of(limit, 1.0)).fit, Fit::Unknown, "the control: nothing got through");
}

#[test]
fn where_udp_is_blocked_the_verdict_says_which_way_remains_and_what_it_costs() {
    let classes = Classes::built_in().unwrap();
    let mut result = best();
    assert_eq!(remains(&result.ladder), None, "the control: UDP gets through");
    for rung in &mut result.ladder {
        rung.reachable = Some(rung.name == "ice-tcp");
        rung.latency_class = "waits for retransmissions (TCP)".to_owned();
    }
    let strict = judge(&result, classes.get("telesurgery-single").unwrap());
    assert_eq!((strict.fit, strict.decisive().unwrap().limit.as_str()), (Fit::NotFit, "rungs"));
    let advice = &strict.decisive().unwrap().advice;
    assert!(advice.contains("what remains is ice-tcp: waits for retransmissions (TCP), round trip"), "{advice}");
    // Nothing was measured, for that goes by UDP: what a class that takes TCP is told.
    result.directions.clear();
    result.path = crate::result::Path::default();
    let lenient = judge(&result, classes.get("telementoring-1080p").unwrap());
    assert_eq!(lenient.fit, Fit::Unknown);
    let rungs = lenient.checks.iter().find(|c| c.limit == "rungs").unwrap();
    assert!(rungs.passed == Some(true) && rungs.note.contains("ice-tcp (waits for"), "{rungs:?}");
    assert!(lenient.decisive().unwrap().advice.contains("what remains is ice-tcp"), "{lenient:?}");
    result.ladder.iter_mut().for_each(|r| r.reachable = Some(false));
    assert!(remains(&result.ladder).unwrap().contains("nothing else gets through"));
    // What a relay does not have was not forgotten: it does not work.
    let turn = result.ladder.iter_mut().find(|r| r.name == "turn-udp").unwrap();
    (turn.reachable, turn.latency_class) = (None, NOT_OFFERED.to_owned());
    let told = judge(&result, classes.get("telementoring-4k").unwrap());
    assert_eq!((told.fit, told.decisive().unwrap().limit.as_str()), (Fit::NotFit, "rungs"));
}

#[test]
fn the_best_class_that_passes_is_named() {
    let classes = Classes::built_in().unwrap();
    let best_of = |r: &LinkResult| classes.judge_all(r)[0].best_class.clone();
    let mut result = best();
    assert_eq!(best_of(&result).as_deref(), Some("telesurgery-dual"));
    result.second_path = None;
    assert_eq!(best_of(&result).as_deref(), Some("telesurgery-single"));
    result.path.rtt_idle_us = q(120_000.0);
    assert_eq!(best_of(&result).as_deref(), Some("telementoring-8k"));
    (result.directions[0].capacity_mbit_s, result.directions[0].capacity_uncertainty_mbit_s) = (Some(22.0), Some(1.0));
    assert_eq!(best_of(&result).as_deref(), Some("telementoring-1080p"));
    result.ladder.iter_mut().for_each(|g| g.reachable = Some(false));
    assert_eq!(best_of(&result), None, "the control");
}

#[test]
fn who_measures_from_the_experts_end_turns_the_class() {
    let class = Classes::built_in().unwrap().get("telesurgery-single").unwrap().clone();
    let mut slow_up = best();
    slow_up.directions[0].capacity_mbit_s = Some(20.0);
    assert_eq!(judge(&slow_up, &class).fit, Fit::NotFit);
    assert_eq!(judge(&slow_up, &class.turned()).fit, Fit::Fit);
    assert_eq!(class.turned().turned(), class);
}

#[test]
fn the_built_in_classes_name_a_source_for_each_threshold_and_use_every_direction() {
    let classes = Classes::built_in().unwrap();
    assert!(classes.classes.len() >= 7);
    for class in &classes.classes {
        for t in &class.limits {
            let published = t.source.chars().any(|c| c.is_ascii_digit());
            let reasoned = t.source.starts_with("engineering choice: ");
            assert!(published || reasoned, "{}.{}: {}", class.name, t.limit.key(), t.source);
        }
        for measure in [Measure::Rungs, Measure::Rate, Measure::Loss] {
            assert!(class.limits.iter().any(|t| t.limit.measure == measure), "{} has no {measure:?}", class.name);
        }
    }
    let keys: std::collections::HashSet<String> = Limit::all().into_iter().map(Limit::key).collect();
    assert_eq!(keys.len(), Limit::all().len(), "two limits with one key");
    assert!(Limit::all().into_iter().all(|l| Limit::of_key(&l.key()) == Some(l)));
}

#[test]
fn a_mistake_in_a_file_of_classes_is_named_with_what_would_be_right() {
    let file = |limits: &str| {
        format!("schema = '{SCHEMA}'\n[[class]]\nname = 'a'\ntitle = 'A'\nabout = 'a'\n[class.limits]\n{limits}")
    };
    assert!(Classes::parse(&file("rtt_p99_ms = { max = 50, source = 's' }")).is_ok(), "the control");
    for (limits, wants) in [
        ("rtt_ms = { max = 5, source = 's' }", vec!["a.limits.rtt_ms", "rtt_p99_ms"]),
        ("rtt_p99_ms = { min = 5, source = 's' }", vec!["a.limits.rtt_p99_ms", "max = a number"]),
        ("rtt_p99_ms = { max = 5, min = 1, source = 's' }", vec!["a.limits.rtt_p99_ms", "max = a number"]),
        ("rate_up_mbit_s = { max = 5, source = 's' }", vec!["a.limits.rate_up_mbit_s", "min = a number"]),
        ("rtt_p99_ms = { max = -1, source = 's' }", vec!["a.limits.rtt_p99_ms = -1", "0 to 1000000 ms"]),
        ("rtt_p99_ms = { max = nan, source = 's' }", vec!["a.limits.rtt_p99_ms = NaN", "0 to 1000000 ms"]),
        ("rtt_p99_ms = { max = 5, source = ' ' }", vec!["a.limits.rtt_p99_ms.source", "engineering choice"]),
        ("rtt_p99_ms = { max = 5 }", vec!["source"]),
        ("rungs = { any = ['pigeon'], source = 's' }", vec!["a.limits.rungs.any", "pigeon", "turn-tls-443"]),
        ("rungs = { any = [], source = 's' }", vec!["a.limits.rungs.any"]),
        ("rungs = { min = 1, source = 's' }", vec!["a.limits.rungs", "any = "]),
        ("", vec!["a.limits", "one limit at least"]),
    ] {
        let error = Classes::parse(&file(limits)).unwrap_err().to_string();
        for want in wants {
            assert!(error.contains(want), "{want:?} is not in: {error}");
        }
    }
    assert!(Classes::parse("schema = 'other'\nclass = []").unwrap_err().to_string().contains(SCHEMA));
    assert!(Classes::built_in().unwrap().get("8k").unwrap_err().to_string().contains("telementoring-8k"));
}
