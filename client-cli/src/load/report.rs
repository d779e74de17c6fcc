//! What a test says in the end: figures, thresholds, faults by name, and who was the limit.

use super::engine::{Climbed, Part};
use super::figures::{Counts, Fault, Faults, Figures, Found, Named, Sample, Times, ViewerRow};
use super::machine;
use super::scenario::Scenario;
use super::threshold::Outcome;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use trocar_proto::units::WallMicros;

/// Version of the JSON.
const SCHEMA: &str = "trocar-load/1";
/// A machine or thread that is used more than this, in per cent, is a limit.
const BUSY: f64 = 90.0;
/// A generator whose frames are later than this, in milliseconds at p99, does not keep its pace.
const LATE_MS: f64 = 5.0;
/// Faults that the text names; the JSON has all.
const SHOWN: usize = 12;

/// Who was the limit of what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limit {
    /// `generator`, `relay`, `none`; `unknown` where the relay's CPU is not known and the generator's is free.
    pub(super) who: String,
    pub(super) why: String,
}

/// The report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) schema: String,
    pub(super) title: String,
    /// When the frames began.
    pub(super) began: WallMicros,
    pub(super) seconds: f64,
    /// Somebody ended it before its stages were over.
    pub(super) interrupted: bool,
    /// Machines that took part, and the cores that the generator had on all of them.
    pub(super) machines: usize,
    pub(super) cores: usize,
    pub(super) figures: Figures,
    pub(super) thresholds: Vec<Outcome>,
    /// Every threshold holds.
    pub(super) met: bool,
    pub(super) limit: Limit,
    pub(super) climbed: Option<Climbed>,
    pub(super) joins_failed_because: BTreeMap<String, u64>,
    /// Faults by name; and how many more there were than are named.
    pub(super) faults: Vec<Found>,
    pub(super) faults_unnamed: u64,
    /// Faults that were made on purpose; of them, those that no viewer found.
    pub(super) injected: Vec<Named>,
    pub(super) injected_not_found: Vec<Named>,
    pub(super) ages: Times,
    pub(super) first_frame: Times,
    pub(super) viewers: Vec<ViewerRow>,
    pub(super) samples: Vec<Sample>,
}

impl Report {
    /// From what each machine counted.
    pub(super) fn new(scenario: &Scenario, parts: Vec<Part>) -> Self {
        let (mut faults, mut ages, mut first, mut late) =
            (Faults::default(), Times::default(), Times::default(), Times::default());
        let (mut counts, mut why) = (Counts::default(), BTreeMap::new());
        for part in &parts {
            part.faults.iter().for_each(|f| faults.add(f));
            faults.unnamed += part.faults_unnamed;
            first.add(&part.first_frame);
            late.add(&part.late);
            for row in &part.rows {
                ages.add(&row.ages);
                counts.add(row.counts);
            }
            part.why.iter().for_each(|(w, n)| *why.entry(w.clone()).or_default() += n);
        }
        let seconds = parts.iter().map(|p| p.seconds).fold(0.0, f64::max);
        let samples = merge_samples(&parts);
        let found = faults.list();
        let injected: Vec<Named> = parts.iter().flat_map(|p| p.injected.iter().cloned()).collect();
        let known: BTreeSet<&Named> = found.iter().map(|f| &f.what).collect();
        let mut report = Self {
            schema: SCHEMA.to_owned(),
            title: scenario.title.clone(),
            began: parts.iter().map(|p| p.began).min().unwrap_or_default(),
            seconds,
            interrupted: parts.iter().any(|p| p.interrupted),
            machines: parts.len(),
            cores: parts.iter().map(|p| p.cores).sum(),
            figures: Figures::default(),
            thresholds: Vec::new(),
            met: false,
            limit: limit(&parts),
            climbed: parts.iter().find_map(|p| p.climbed.clone()),
            joins_failed_because: why,
            injected_not_found: injected.iter().filter(|i| !known.contains(i)).cloned().collect(),
            faults: found,
            faults_unnamed: faults.unnamed,
            injected,
            ages,
            first_frame: first,
            viewers: parts.iter().flat_map(|p| p.rows.iter().cloned()).collect(),
            samples,
        };
        report.count(counts, &late, &parts);
        report.thresholds = scenario.thresholds.iter().map(|t| t.judge(&report.figures)).collect();
        report.met = report.thresholds.iter().all(|t| t.met);
        report
    }

    /// Fills the figures in.
    fn count(&mut self, c: Counts, late: &Times, parts: &[Part]) {
        let mut f = Figures::default();
        let sum = |of: fn(&Part) -> u64| Some(parts.iter().map(of).sum::<u64>() as f64);
        for (name, q) in [("age_p50_ms", 0.5), ("age_p95_ms", 0.95), ("age_p99_ms", 0.99), ("age_p999_ms", 0.999)] {
            f.set(name, self.ages.ms(q));
        }
        f.set("age_max_ms", self.ages.max_ms());
        // Both ends of an age may be on a machine whose clock is known so well.
        let uncertainty = parts.iter().map(|p| p.uncertainty_us).max().unwrap_or(0);
        f.set("age_uncertainty_ms", Some(2.0 * uncertainty as f64 / 1e3));
        for (name, n) in [
            ("frames", c.frames),
            ("frames_lost", c.frames_lost),
            ("frames_stale", c.frames_stale),
            ("packets", c.packets),
            ("packets_missing", c.packets_missing),
            ("packets_corrupted", c.packets_corrupted),
            ("packets_reordered", c.packets_reordered),
            ("packets_duplicated", c.packets_duplicated),
            ("packets_foreign", c.packets_foreign),
        ] {
            f.set(name, Some(n as f64));
        }
        f.set("frames_lost_percent", c.lost_percent());
        f.set("frames_not_sent", sum(|p| p.not_sent + p.slipped));
        f.set("mbit_per_s", (self.seconds > 0.0).then(|| c.bytes as f64 * 8.0 / 1e6 / self.seconds));
        f.set("viewers", self.samples.iter().map(|s| s.viewers as f64).reduce(f64::max));
        f.set("joins", sum(|p| p.joins));
        f.set("joins_failed", sum(|p| p.joins_failed));
        f.set("leaves", sum(|p| p.leaves));
        f.set("disconnects", Some(self.viewers.iter().map(|v| v.disconnects).sum::<u64>() as f64));
        for (name, q) in [("first_frame_p50_ms", 0.5), ("first_frame_p95_ms", 0.95), ("first_frame_p99_ms", 0.99)] {
            f.set(name, self.first_frame.ms(q));
        }
        f.set("first_frame_max_ms", self.first_frame.max_ms());
        f.set("gap_max_ms", self.viewers.iter().map(|v| v.gap_ms).reduce(f64::max));
        f.set("generator_cpu_percent", busiest(parts));
        f.set("generator_late_p99_ms", late.ms(0.99));
        f.set("relay_cpu_percent", high(parts.iter().flat_map(|p| &p.samples).filter_map(|s| s.relay_cpu)));
        f.set("load_average", self.samples.iter().map(|s| s.load_average).reduce(f64::max));
        self.figures = f;
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        // Names and finite numbers cannot fail; an empty line would be told from a report.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn figure(&self, name: &str, unit: &str) -> String {
        self.figures.get(name).map_or_else(|| "unknown".to_owned(), |v| format!("{}{unit}", number(v)))
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let f = |name: &str| self.figure(name, "");
        let percent = |name: &str| self.figure(name, " %");
        let title = if self.title.is_empty() { "load test" } else { &self.title };
        let ended = if self.interrupted { ", ENDED EARLY" } else { "" };
        let mut line = |name: &str, text: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "  {:.<22} {text}", format!("{name} "));
        };
        line("test", format!("{title}: {:.1} s, {} viewers{ended}", self.seconds, f("viewers")));
        let ages = ["p50", "p95", "p99", "p999", "max"].map(|q| format!("{q}={}", f(&format!("age_{q}_ms"))));
        line("age ms", format!("{}  ± {}", ages.join("  "), f("age_uncertainty_ms")));
        let first = ["p50", "p95", "p99", "max"].map(|q| format!("{q}={}", f(&format!("first_frame_{q}_ms"))));
        line("first frame ms", first.join("  "));
        line(
            "frames",
            format!(
                "whole={}  lost={} ({})  stale={}  not sent={}  longest gap={} ms",
                f("frames"),
                f("frames_lost"),
                percent("frames_lost_percent"),
                f("frames_stale"),
                f("frames_not_sent"),
                f("gap_max_ms")
            ),
        );
        let packets = ["missing", "corrupted", "reordered", "duplicated", "foreign"];
        let packets = packets.map(|k| format!("{k}={}", f(&format!("packets_{k}"))));
        line("packets", format!("{}  {}", f("packets"), packets.join("  ")));
        line("received", format!("{} Mbit/s over all viewers", f("mbit_per_s")));
        line(
            "joins",
            format!(
                "{}  failed={}  left={}  lost connections={}",
                f("joins"),
                f("joins_failed"),
                f("leaves"),
                f("disconnects")
            ),
        );
        for (why, n) in &self.joins_failed_because {
            line("", format!("{n} × {why}"));
        }
        line(
            "generator",
            format!(
                "CPU {} of its {} core(s), frames late by {} ms at p99, load average {}",
                percent("generator_cpu_percent"),
                self.cores,
                f("generator_late_p99_ms"),
                f("load_average")
            ),
        );
        line("relay", format!("CPU {} of one core", percent("relay_cpu_percent")));
        line("limit", format!("{}: {}", self.limit.who, self.limit.why));
        if let Some(c) = &self.climbed {
            line("ceiling", ceiling(c));
        }
        self.faults_in_words(&mut line);
        for t in &self.thresholds {
            let measured = t.measured.map_or_else(|| "unknown".to_owned(), number);
            line(if t.met { "✓ met" } else { "✗ NOT MET" }, format!("{}  (is {measured})", t.threshold));
        }
        out
    }

    fn faults_in_words(&self, line: &mut impl FnMut(&str, String)) {
        if !self.injected.is_empty() {
            let missed = self.injected_not_found.len();
            let found = self.injected.len() - missed;
            line("injected", format!("{} faults, {found} found and named, {missed} NOT found", self.injected.len()));
        }
        for f in self.faults.iter().take(SHOWN) {
            line("fault", format!("{} (seen by {} viewers, first {})", in_words(&f.what), f.viewers, f.first));
        }
        let more = self.faults.len().saturating_sub(SHOWN) as u64 + self.faults_unnamed;
        if more > 0 {
            line("fault", format!("and {more} more (--json names them)"));
        }
    }

    /// JUnit: each threshold is a test, and so is each kind of injected fault.
    pub(super) fn junit(&self) -> String {
        let mut cases = String::new();
        let mut failures = 0;
        let mut add = |name: &str, wrong: Option<String>| {
            // Writing to a String cannot fail.
            let _ = match wrong {
                None => writeln!(cases, "    <testcase classname=\"trocar.load\" name=\"{}\"/>", escape(name)),
                Some(why) => {
                    failures += 1;
                    writeln!(
                        cases,
                        "    <testcase classname=\"trocar.load\" name=\"{}\">\n      <failure message=\"{}\"/>\n    </testcase>",
                        escape(name),
                        escape(&why)
                    )
                }
            };
        };
        for t in &self.thresholds {
            let measured = t.measured.map_or_else(|| "unknown".to_owned(), number);
            add(
                &t.threshold.to_string(),
                (!t.met).then(|| format!("is {measured}; limit: {}: {}", self.limit.who, self.limit.why)),
            );
        }
        if !self.injected.is_empty() {
            let missed = self.injected_not_found.first();
            add("injected faults are found", missed.map(|m| format!("not found: {}", in_words(m))));
        }
        let all = cases.matches("<testcase").count();
        let title = escape(if self.title.is_empty() { "load test" } else { &self.title });
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{all}\" failures=\"{failures}\">\n  \
             <testsuite name=\"{title}\" tests=\"{all}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\" time=\"{:.3}\">\n\
             {cases}  </testsuite>\n</testsuites>\n",
            self.seconds
        )
    }
}

/// A number as a person reads it: at most one digit behind the point where it is large.
pub(super) fn number(v: f64) -> String {
    if v.fract() == 0.0 {
        format!("{v:.0}")
    } else if v.abs() >= 100.0 {
        format!("{v:.1}")
    } else {
        format!("{v:.2}")
    }
}

fn in_words(n: &Named) -> String {
    match n.packet {
        Some(p) => format!("{}: feed {}, frame {}, packet {p}", n.fault.word(), n.feed, n.frame),
        None if n.fault == Fault::Missing => format!("missing: feed {}, frame {}, all of it", n.feed, n.frame),
        None => format!("{}: feed {}, frame {}", n.fault.word(), n.feed, n.frame),
    }
}

fn ceiling(c: &Climbed) -> String {
    let cpu = |v: Option<f64>| v.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.0} %"));
    let at = format!(
        "generator CPU {:.0} %, relay {} of one core, its busiest thread {}",
        c.generator_cpu,
        cpu(c.relay_cpu),
        cpu(c.relay_thread_cpu)
    );
    match c.failed {
        Some(n) => format!("{} viewers carried; with {n}: {} ({at})", c.carried, c.why),
        None => format!("{} viewers carried, {} ({at})", c.carried, c.why),
    }
}

/// For XML attributes.
fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What nine of ten seconds were below: a machine that is full now and then is not a limit yet.
fn high(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    let at = (all.len().saturating_sub(1) * 9).div_ceil(10);
    all.get(at).copied()
}

/// CPU of the generator's fullest machine, in per cent of its cores.
fn busiest(parts: &[Part]) -> Option<f64> {
    let of = |p: &Part| high(p.samples.iter().map(|s| s.generator_cpu)).map(|c| c / p.cores.max(1) as f64);
    parts.iter().filter_map(of).reduce(f64::max)
}

fn limit(parts: &[Part]) -> Limit {
    let say = |who: &str, why: String| Limit { who: who.to_owned(), why };
    let own = busiest(parts).unwrap_or(0.0);
    let late = parts.iter().filter_map(|p| p.late.ms(0.99)).fold(0.0, f64::max);
    let slipped: u64 = parts.iter().map(|p| p.slipped).sum();
    if own >= BUSY {
        return say("generator", format!("the generator was the limit: its CPU was at {own:.0} % of its cores"));
    }
    if late > LATE_MS || slipped > 0 {
        let why =
            format!("the generator was the limit: its pacing slipped, {late:.1} ms at p99, {slipped} frames left out");
        return say("generator", why);
    }
    let threads = parts.iter().flat_map(|p| &p.samples).filter_map(|s| s.relay_thread_cpu);
    let relay = parts.iter().flat_map(|p| &p.samples).filter_map(|s| s.relay_cpu);
    match (high(threads), high(relay)) {
        (Some(t), _) if t >= BUSY => say("relay", format!("the relay's busiest thread was at {t:.0} % of a core")),
        (Some(t), _) => {
            say("none", format!("generator at {own:.0} % of its cores, the relay's busiest thread at {t:.0} % of one"))
        }
        (None, Some(r)) => say("none", format!("generator at {own:.0} % of its cores, relay at {r:.0} % of one core")),
        (None, None) => say(
            "unknown",
            format!(
                "generator at {own:.0} % of its cores; the relay's CPU is not known (--relay-pid, or --metrics with {CPU})",
                CPU = machine::CPU_METRIC
            ),
        ),
    }
}

/// Seconds of several machines as one: sums, and of ages the largest.
fn merge_samples(parts: &[Part]) -> Vec<Sample> {
    let mut parts = parts.iter();
    let mut all = parts.next().map(|p| p.samples.clone()).unwrap_or_default();
    let larger = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
    for part in parts {
        for (a, b) in all.iter_mut().zip(&part.samples) {
            a.viewers += b.viewers;
            a.mbit_per_s += b.mbit_per_s;
            a.frames_per_s += b.frames_per_s;
            a.frames_lost += b.frames_lost;
            a.age_p50_ms = larger(a.age_p50_ms, b.age_p50_ms);
            a.age_p99_ms = larger(a.age_p99_ms, b.age_p99_ms);
            a.age_max_ms = larger(a.age_max_ms, b.age_max_ms);
            a.generator_cpu += b.generator_cpu;
            a.relay_cpu = larger(a.relay_cpu, b.relay_cpu);
            a.relay_thread_cpu = larger(a.relay_thread_cpu, b.relay_thread_cpu);
            a.late_max_ms = larger(a.late_max_ms, b.late_max_ms);
            a.load_average = a.load_average.max(b.load_average);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!old.met && old.text().contains("NOT MET") && old.junit().contains("failures=\"1\""), "{}", old.text());
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
        assert!(r.junit().contains("not found: corrupted: feed load-0, frame 10"));
    }

    #[test]
    fn junit_says_what_was_wanted_in_signs_that_xml_takes() {
        let x = report(vec![part(|_| {})]).junit();
        assert!(x.contains("name=\"age_p99_ms &lt; 50\"/>") && x.contains("tests=\"2\" failures=\"0\""), "{x}");
    }
}
