//! What a test says in the end: figures, thresholds, faults by name, and who was the limit.

use super::engine::{Climbed, Part};
use super::figures::{Counts, Fault, Faults, Figures, Found, Losses, Named, Sample, Times, ViewerRow};
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(super) struct Limit {
    /// `generator`, `relay`, `none`; `unknown` where the relay's CPU is not known and the generator's is free.
    pub(super) who: String,
    pub(super) why: String,
}

/// The report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(deny_unknown_fields))]
pub(super) struct Report {
    pub(super) schema: String,
    pub(super) title: String,
    /// When the frames began, in microseconds since the Unix epoch.
    #[cfg_attr(test, schemars(with = "u64"))]
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
    /// Ages in microseconds and how many frames had each, of all viewers.
    #[cfg_attr(test, schemars(with = "Vec<(u64, u64)>"))]
    pub(super) ages: Times,
    /// The same of the times from asking for a leg to its first whole frame.
    #[cfg_attr(test, schemars(with = "Vec<(u64, u64)>"))]
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
        let losses = Losses::of(self.samples.iter());
        f.set("generator_kernel_drops", losses.generator_drops.map(|n| n as f64));
        f.set("relay_kernel_drops", losses.relay_drops.map(|n| n as f64));
        f.set("relay_left_out", losses.relay_left_out.map(|n| n as f64));
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
        line(
            "lost on the way",
            format!(
                "kernel drops: generator {}, relay {}; left out by the relay {}",
                f("generator_kernel_drops"),
                f("relay_kernel_drops"),
                f("relay_left_out")
            ),
        );
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

pub(super) fn in_words(n: &Named) -> String {
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
        Some(n) => {
            let words = c.losses.words();
            let lost = if words.is_empty() { words } else { format!("; {words}") };
            format!("{} viewers carried; with {n}: {}{lost} ({at})", c.carried, c.why)
        }
        None => format!("{} viewers carried, {} ({at})", c.carried, c.why),
    }
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

/// Who was it: whose CPU was full or whose pacing slipped; else, where frames were lost, who lost them.
fn limit(parts: &[Part]) -> Limit {
    let losses = Losses::of(parts.iter().flat_map(|p| &p.samples));
    let lost = parts.iter().flat_map(|p| &p.rows).any(|r| r.counts.frames_lost > 0);
    let (who, mut why) = busy(parts).unwrap_or_else(|| match (losses, idle(parts)) {
        (Losses { generator_drops: Some(1..), .. }, (_, why)) if lost => ("generator", why),
        (Losses { relay_drops: Some(1..), .. } | Losses { relay_left_out: Some(1..), .. }, (_, why)) if lost => {
            ("relay", why)
        }
        (_, idle) => idle,
    });
    let words = losses.words();
    if !words.is_empty() {
        why = format!("{why}; {words}");
    } else if lost && losses.relay_left_out.is_none() {
        why.push_str("; what the relay left out is not known (--metrics)");
    }
    Limit { who: who.to_owned(), why }
}

/// The generator or the relay, where one had no more to give.
fn busy(parts: &[Part]) -> Option<(&'static str, String)> {
    let own = busiest(parts).unwrap_or(0.0);
    let late = parts.iter().filter_map(|p| p.late.ms(0.99)).fold(0.0, f64::max);
    let slipped: u64 = parts.iter().map(|p| p.slipped).sum();
    if own >= BUSY {
        return Some(("generator", format!("the generator was the limit: its CPU was at {own:.0} % of its cores")));
    }
    if late > LATE_MS || slipped > 0 {
        let why =
            format!("the generator was the limit: its pacing slipped, {late:.1} ms at p99, {slipped} frames left out");
        return Some(("generator", why));
    }
    let thread = high(parts.iter().flat_map(|p| &p.samples).filter_map(|s| s.relay_thread_cpu));
    let thread = thread.filter(|t| *t >= BUSY)?;
    Some(("relay", format!("the relay's busiest thread was at {thread:.0} % of a core")))
}

/// What each used, where it was less than all.
fn idle(parts: &[Part]) -> (&'static str, String) {
    let own = busiest(parts).unwrap_or(0.0);
    let samples = || parts.iter().flat_map(|p| &p.samples);
    let (thread, relay) =
        (high(samples().filter_map(|s| s.relay_thread_cpu)), high(samples().filter_map(|s| s.relay_cpu)));
    let begin = format!("generator at {own:.0} % of its cores");
    match (thread, relay) {
        (Some(t), _) => ("none", format!("{begin}, the relay's busiest thread at {t:.0} % of one")),
        (None, Some(r)) => ("none", format!("{begin}, relay at {r:.0} % of one core")),
        (None, None) => {
            let how = format!("--relay-pid, or --metrics with {}", machine::CPU_METRIC);
            ("unknown", format!("{begin}; the relay's CPU is not known ({how})"))
        }
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
            let Losses { generator_drops, relay_drops, relay_left_out } = Losses::of([&*a, b].into_iter());
            (a.generator_drops, a.relay_drops, a.relay_left_out) = (generator_drops, relay_drops, relay_left_out);
        }
    }
    all
}

#[cfg(test)]
mod tests;
