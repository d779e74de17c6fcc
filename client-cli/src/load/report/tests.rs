use super::super::junit::junit;
use super::*;
use serde_json::Value;

const SCENARIO: &str = "
    thresholds = [\"age_p99_ms < 50\", \"frames_lost == 0\"]
    [[publishers]]\nbitrate = 1\n[[viewers]]\ncount = 1\n[[stage]]\nkind = \"hold\"\nseconds = 1";

fn part(change: impl FnOnce(&mut Part)) -> Part {
    let mut ages = Times::default();
    (0..100).for_each(|_| ages.record(10_000));
    let row = ViewerRow {
        feed: "load-0".to_owned(),
        counts: Counts { frames: 100, ..Counts::default() },
        ages,
        ..ViewerRow::default()
    };
    let sample = Sample {
        viewers: 1,
        generator_cpu: 50.0,
        relay_cpu: Some(60.0),
        relay_thread_cpu: Some(55.0),
        ..Sample::default()
    };
    let mut part = Part {
        began: WallMicros(1),
        seconds: 10.0,
        interrupted: false,
        cores: 1,
        rows: vec![row],
        joins: 1,
        joins_failed: 0,
        leaves: 0,
        first_frame: Times::default(),
        why: BTreeMap::new(),
        faults: vec![],
        faults_unnamed: 0,
        injected: vec![],
        late: Times::default(),
        not_sent: 0,
        slipped: 0,
        samples: vec![sample],
        uncertainty_us: 0,
        climbed: None,
    };
    change(&mut part);
    part
}

fn report(parts: Vec<Part>) -> Report {
    let r = Report::new(&Scenario::parse(SCENARIO).unwrap(), parts);
    let again: Report = serde_json::from_str(&r.json()).unwrap();
    for name in Figures::NAMES {
        let (a, b) = (r.figures.get(name), again.figures.get(name));
        // The last bit of a number may turn where serde_json reads floats fast.
        let same = a == b || a.zip(b).is_some_and(|(a, b)| (a - b).abs() <= 1e-12 * a.abs());
        assert!(same, "{name} as JSON and back: {a:?}, {b:?}");
    }
    r
}

#[test]
fn thresholds_decide_and_a_lost_frame_or_an_old_one_changes_that() {
    assert!(report(vec![part(|_| {})]).met);
    assert!(!report(vec![part(|p| p.rows[0].counts.frames_lost = 1)]).met);
    let old = report(vec![part(|p| (0..5).for_each(|_| p.rows[0].ages.record(60_000)))]);
    assert!(
        !old.met && old.text().contains("NOT MET") && junit(&old).unwrap().contains("failures=\"1\""),
        "{}",
        old.text()
    );
    assert!(!report(vec![part(|p| p.rows.clear())]).met, "what nobody measured is not met");
}

#[test]
fn who_was_the_limit_follows_from_what_each_used() {
    let who = |p: Part| report(vec![p]).limit.who;
    assert_eq!(who(part(|_| {})), "none");
    assert_eq!(who(part(|p| p.samples[0].generator_cpu = 90.0)), "generator");
    assert_eq!(who(part(|p| (p.cores, p.samples[0].generator_cpu) = (2, 90.0))), "none");
    assert_eq!(who(part(|p| p.late.record(8_000))), "generator");
    assert_eq!(who(part(|p| p.slipped = 1)), "generator");
    assert_eq!(who(part(|p| p.samples[0].relay_thread_cpu = Some(95.0))), "relay");
    let drops = |n, lost: u64| part(|p| (p.samples[0].generator_drops, p.rows[0].counts.frames_lost) = (Some(n), lost));
    assert_eq!((who(drops(7, 1)).as_str(), who(drops(0, 1)).as_str()), ("generator", "none"));
    assert_eq!(who(drops(7, 0)), "none", "nobody missed what was dropped");
    let left_out = part(|p| (p.samples[0].relay_left_out, p.rows[0].counts.frames_lost) = (Some(7), 1));
    let limit = report(vec![left_out]).limit;
    assert!(limit.who == "relay" && limit.why.contains("left out 7 packets"), "{limit:?}");
    assert!(report(vec![drops(7, 1)]).limit.why.contains("dropped 7 datagrams at the generator's"));
    assert_eq!(who(part(|p| (p.samples[0].relay_cpu, p.samples[0].relay_thread_cpu) = (None, None))), "unknown");
}

#[test]
fn parts_of_several_machines_are_one_and_a_fault_that_two_found_is_one() {
    let named = Named { fault: Fault::Corrupt, feed: "load-0".to_owned(), frame: 9, packet: Some(3) };
    let found = Found { what: named.clone(), viewers: 2, first: 1 };
    let with = |injected: Vec<Named>| part(|p| (p.faults, p.injected) = (vec![found.clone()], injected));
    let r = report(vec![with(vec![named.clone()]), with(vec![])]);
    assert_eq!((r.figures.get("frames"), r.machines, r.cores), (Some(200.0), 2, 2));
    assert_eq!(r.faults, [Found { what: named.clone(), viewers: 4, first: 1 }]);
    assert!(r.injected_not_found.is_empty() && r.text().contains("corrupted: feed load-0, frame 9, packet 3"));
    let other = Named { frame: 10, ..named };
    let r = report(vec![with(vec![other.clone()])]);
    assert_eq!(r.injected_not_found, [other]);
    assert!(junit(&r).unwrap().contains("not found: corrupted: feed load-0, frame 10"));
}

/// What nobody would call a test, and what no file may have.
const NASTY: &str = "<script>alert(1)</script>\"'&]]>\u{0}\u{1b}[31m\n--><img src=x>";
const SCHEMA_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/schemas/load-report.schema.json");
const EXAMPLE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/schemas/load-report.example.json");
/// Set, schema and example are written instead of compared.
const WRITE: &str = "TROCAR_WRITE_SCHEMA";

/// A report with everything in it that one can have.
fn full() -> Report {
    let named = Named { fault: Fault::Missing, feed: "load-0".to_owned(), frame: 9, packet: None };
    let mut p = part(|p| {
        p.faults = vec![Found { what: named.clone(), viewers: 2, first: 1 }];
        p.injected = vec![Named { frame: 12, ..named.clone() }];
        p.why.insert("relay-full: no room".to_owned(), 1);
        (p.joins, p.joins_failed, p.rows[0].counts.frames_lost) = (2, 1, 3);
        (p.rows[0].first_frame_ms, p.rows[0].seconds, p.rows[0].lost_in) =
            (Some(12.5), vec![-2, 10, -1], vec![0, 3, 0]);
        (p.samples[0].age_p99_ms, p.samples[0].generator_drops, p.samples[0].relay_left_out) =
            (Some(10.0), Some(3), Some(0));
        let losses = Losses { generator_drops: Some(3), ..Losses::default() };
        let why = "2.7 % of the frames were lost".to_owned();
        let (generator_cpu, relay_cpu) = (66.0, Some(73.0));
        p.climbed = Some(Climbed {
            carried: 900,
            failed: Some(1_000),
            why,
            generator_cpu,
            relay_cpu,
            relay_thread_cpu: None,
            losses,
        });
    });
    p.first_frame.record(12_500);
    p.late.record(300);
    let mut scenario = Scenario::parse(SCENARIO).unwrap();
    "a lecture".clone_into(&mut scenario.title);
    Report::new(&scenario, vec![p])
}

fn published(file: &str, text: &str) {
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(file, text).unwrap();
    }
    let is = std::fs::read_to_string(file).unwrap_or_default();
    assert!(is == text, "{file} is out of date: {WRITE}=1 cargo test -p trocar published");
}

#[test]
fn the_published_schema_and_its_example_are_what_the_code_gives_and_a_damaged_report_is_not_valid() {
    let schema = serde_json::to_value(schemars::schema_for!(Report)).unwrap();
    published(SCHEMA_FILE, &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
    published(EXAMPLE_FILE, &format!("{}\n", serde_json::to_string_pretty(&full()).unwrap()));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for report in [full(), report(vec![part(|_| {})]), report(vec![part(|p| p.rows.clear())])] {
        let value: Value = serde_json::from_str(&report.json()).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{error} at {}", error.instance_path());
        }
    }
    let good = serde_json::to_value(full()).unwrap();
    let damages: [(&str, Value); 5] = [
        ("/met", "perhaps".into()),
        ("/figures/frames", "many".into()),
        ("/samples/0/viewers", (-1).into()),
        ("/faults/0/fault", "lost".into()),
        ("/viewers", Value::Null),
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
fn junit_is_read_by_another_reader_and_counts_what_the_report_says() {
    let mut nasty = full();
    NASTY.clone_into(&mut nasty.title);
    NASTY.clone_into(&mut nasty.limit.why);
    nasty.interrupted = true;
    let good = report(vec![part(|_| {})]);
    for (r, tests, failures) in [(&good, 2, 0), (&full(), 3, 2), (&nasty, 4, 3)] {
        let text = junit(r).unwrap();
        let read = quick_junit::Report::deserialize_from_str(&text).unwrap();
        let suite = &read.test_suites[0];
        assert_eq!(
            (read.tests, read.failures, suite.tests, suite.failures),
            (tests, failures, tests, failures),
            "{text}"
        );
        assert_eq!((suite.test_cases.len(), suite.errors), (tests, 0), "{text}");
        assert_eq!(suite.test_cases[0].name.as_str(), "age_p99_ms < 50");
    }
}
