//! Viewers that cannot keep up, do not read, or ask without end: the others do not notice.

use crate::lines::{Emulator, watch_by};
use crate::{median, number, runtime, span};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};
use trocar_media_tests::process::Process;
use trocar_media_tests::sink::{Flood, Viewer};
use trocar_media_tests::stack::{PATIENCE, Stack, path, scope_fixture, summary};

/// How much older, in milliseconds, the oldest pictures (p99) of the others may become: of each second, the middle one of the seconds. A
/// viewer's own hiccup, of which there is one now and then on a machine that runs all of this on two cores, is one second; a relay that
/// has no time for it is all of them. The control, a relay that stands still once, is looked at as a whole.
const OLDER_MS: f64 = 5.0;

/// Somebody with a good line: `trocar watch` with a ledger.
struct Healthy {
    process: Process,
    ledger: PathBuf,
    /// Packets that it missed when it joined, before anybody disturbed it.
    missed: f64,
}

impl Healthy {
    fn start(stack: &Stack, transport: &str) -> anyhow::Result<Self> {
        let ledger = stack.dir.path().join(format!("{transport}.jsonl"));
        let mut process = stack.watch(&["--transport", transport, "--ledger", path(&ledger)?])?;
        // It says so each second; with the second time its joining is over.
        let mut missed = 0.0;
        for _ in 0..2 {
            let line = process.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
            missed = number(&serde_json::from_str(&line)?, "/packets_missing");
        }
        Ok(Self { process, ledger, missed })
    }

    /// When each frame could be shown and how old it was then, in microseconds; the summary; and the packets missed since it joined.
    fn end(mut self) -> anyhow::Result<(Vec<Came>, Value, f64)> {
        self.process.signal("TERM")?;
        let s = summary(&mut self.process, PATIENCE)?;
        self.process.wait(PATIENCE)?;
        let text = std::fs::read_to_string(&self.ledger)?;
        let frames = text.lines().map(|l| {
            let v: Value = serde_json::from_str(l)?;
            let frame = v["frame"].as_u64().context("frame")?;
            Ok(Came { frame, at_us: v["at_us"].as_u64().context("at_us")?, age_us: v["age_us"].as_i64() })
        });
        let missed = number(&s, "/packets_missing") - self.missed;
        Ok((frames.collect::<anyhow::Result<_>>()?, s, missed))
    }
}

struct Came {
    frame: u64,
    at_us: u64,
    age_us: Option<i64>,
}

/// A time, by the clock of the ledgers.
#[derive(Clone, Copy)]
struct Phase(u64, u64);

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64)
}

impl Phase {
    fn of(length: Duration) -> Self {
        let began = wall_us();
        // What is looked at is time itself.
        std::thread::sleep(length);
        Self(began, wall_us())
    }

    /// The ages of the frames that came within.
    fn ages(self, frames: &[Came]) -> anyhow::Result<Ages> {
        let within: Vec<&Came> = frames.iter().filter(|f| (self.0..self.1).contains(&f.at_us)).collect();
        let age = |f: &&Came| Some(f.age_us? as f64 / 1e3);
        let ages: Vec<f64> = within.iter().filter_map(age).collect();
        ensure!(ages.len() * 10 >= within.len() * 9 && ages.len() > 50, "{} of {} ages", ages.len(), within.len());
        let mut seconds: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for f in &within {
            seconds.entry((f.at_us - self.0) / 1_000_000).or_default().extend(age(f));
        }
        let usual_p99 = median(seconds.into_values().map(|ages| share(ages, 0.99)).collect());
        let whole = within.windows(2).all(|w| w[1].frame == w[0].frame + 1);
        Ok(Ages { p50: share(ages.clone(), 0.5), usual_p99, p99: share(ages, 0.99), whole })
    }
}

/// How old frames were, in milliseconds.
struct Ages {
    p50: f64,
    /// p99 of each second, the middle one of them.
    usual_p99: f64,
    p99: f64,
    /// No frame is missing between two others.
    whole: bool,
}

fn share(mut ages: Vec<f64>, share: f64) -> f64 {
    ages.sort_by(f64::total_cmp);
    ages.get((ages.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

/// Asks for packets and key frames as fast as it can, on a thread of its own, until `flood` is to end. It stands for another machine:
/// what it costs to make the requests is taken from nobody here (SCHED_IDLE), what it costs to answer them is.
fn flood(stack: &Stack, flood: &Arc<Flood>) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
    let (page, invitation) = (stack.text("/page")?, stack.text("/tokens/observer")?);
    let flood = Arc::clone(flood);
    Ok(std::thread::spawn(move || {
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
        set.map_err(|e| anyhow::anyhow!("SCHED_IDLE: {e:?}"))?;
        runtime().block_on(async { Viewer::join(&page, &invitation).await?.flood("scope", &flood).await })
    }))
}

/// What disturbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A line of 1 Mbit/s for a picture of 50.
    Slow,
    /// A process that reads nothing.
    Stopped,
    /// Requests without end.
    Flood,
}

const ALL: [Kind; 3] = [Kind::Slow, Kind::Stopped, Kind::Flood];

/// Whoever disturbs: by RTP over QUIC and by WebRTC, and the flood by WebRTC.
struct Disturbers {
    slow: Vec<(Process, Emulator)>,
    stopped: Vec<Process>,
    flood: Option<(Arc<Flood>, std::thread::JoinHandle<anyhow::Result<()>>)>,
}

impl Disturbers {
    fn begin(stack: &Stack, kinds: &[Kind]) -> anyhow::Result<Self> {
        let mut all = Self { slow: Vec::new(), stopped: Vec::new(), flood: None };
        if kinds.contains(&Kind::Slow) {
            let flags = ["--rate", "1M", "--queue", "200ms"];
            let line = Emulator::open(&stack.text("/relay/quic")?, &flags)?;
            let way = format!("127.0.0.1={}", line.listen);
            all.slow.push((stack.watch(&["--path", &way])?, line));
            let line = Emulator::open(&stack.text("/relay/webrtc")?, &flags)?;
            all.slow.push((watch_by(stack, &line.listen, &[])?, line));
        }
        if kinds.contains(&Kind::Stopped) {
            for transport in ["roq", "webrtc"] {
                let mut stopped = stack.watch(&["--transport", transport])?;
                stopped.line(PATIENCE, |l| l.contains("\"state\":\"live\""))?;
                stopped.signal("STOP")?;
                all.stopped.push(stopped);
            }
        }
        if kinds.contains(&Kind::Flood) {
            let asked = Arc::new(Flood::default());
            let flooding = flood(stack, &asked)?;
            let begun = (0..500).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                asked.requests.load(Ordering::Relaxed) > 0
            });
            ensure!(begun, "the flood does not begin");
            all.flood = Some((asked, flooding));
        }
        Ok(all)
    }

    /// Requests and repeats so far.
    fn asked(&self) -> (f64, f64) {
        self.flood.as_ref().map_or((0.0, 0.0), |(f, _)| {
            (f.requests.load(Ordering::Relaxed) as f64, f.repeats.load(Ordering::Relaxed) as f64)
        })
    }

    /// Looks at the pictures of the others for so long, and that each of these does what it is to do meanwhile.
    fn watched(self, stack: &Stack, length: Duration) -> anyhow::Result<Phase> {
        let key_frames = || runtime().block_on(stack.metric("trocar_feed_key_frame_requests_total"));
        let (asked, keys) = (self.asked(), key_frames()?);
        let beside = Phase::of(length);
        let seconds = (beside.1 - beside.0) as f64 / 1e6;
        let (now, keys) = (self.asked(), (key_frames()? - keys) / seconds);
        let (requests, repeats) = ((now.0 - asked.0) / seconds, (now.1 - asked.1) / seconds);
        if let Some((flood, flooding)) = self.flood {
            flood.ended.store(true, Ordering::Relaxed);
            flooding.join().ok().context("the flood stopped")??;
            println!(
                "flood: {requests:.0} requests/s of 256 numbers each, {repeats:.0} repeats/s came, \
                 {keys:.1} key frames/s asked upstream"
            );
            ensure!(requests > 1_000.0, "{requests} requests/s");
            // A quarter of the feed's granted rate at most, which is twice its mean; packets of a frame's end are smaller than the
            // others.
            ensure!(repeats > 0.0 && repeats < 2.0 * 50e6 / 4.0 / 8.0 / 900.0, "{repeats} repeats/s");
        }
        ensure!(keys <= 2.2, "{keys} key frames/s");
        for stopped in &self.stopped {
            stopped.signal("CONT")?;
        }
        for (mut slow, line) in self.slow {
            slow.signal("TERM")?;
            let s = summary(&mut slow, PATIENCE)?;
            let line = line.end()?;
            println!(
                "slow viewer: {} of {} packets found no room",
                line["down"]["queue_dropped"], line["down"]["offered"]
            );
            ensure!(number(&s, "/frames") < 60.0 * seconds, "the slow viewer is not slow: {s}");
        }
        Ok(beside)
    }
}

/// A relay that stands still for a tenth of a second.
fn held(stack: &Stack) -> anyhow::Result<Phase> {
    let began = wall_us();
    stack.up.signal("STOP")?;
    std::thread::sleep(Duration::from_millis(100));
    stack.up.signal("CONT")?;
    Phase::of(Duration::from_millis(1_400));
    Ok(Phase(began, wall_us()))
}

#[test]
fn a_slow_a_stopped_and_a_flooding_viewer_make_no_picture_of_the_others_older() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let source = format!("file:{}", path(&scope_fixture()?)?);
    let mut publisher = stack.publish(&["--source", &source, "--loop", "--passthrough"])?;
    let healthy = [Healthy::start(&stack, "roq")?, Healthy::start(&stack, "webrtc")?];
    // What came before they joined is over by then.
    Phase::of(Duration::from_secs(2));
    let length = Duration::from_secs(span(5, 60));
    let alone = Phase::of(length);
    // All at once; each kind by itself as well where there is time.
    let mut beside = Vec::new();
    for kinds in span(vec![&ALL[..]], vec![&ALL[..1], &ALL[1..2], &ALL[2..], &ALL[..]]) {
        beside.push((kinds, Disturbers::begin(&stack, kinds)?.watched(&stack, length)?));
    }
    // The control: it is seen.
    let held = held(&stack)?;
    let ended = healthy.into_iter().map(Healthy::end).collect::<anyhow::Result<Vec<_>>>()?;
    publisher.stop()?;
    println!("load average {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    for ((frames, s, missed), name) in ended.iter().zip(["RTP over QUIC", "WebRTC"]) {
        let (alone, held) = (alone.ages(frames)?, held.ages(frames)?);
        println!(
            "{name}: age p50 {:.1} p99 {:.1} ms alone (of all of it {:.1} ms); p99 {:.1} ms with a relay that stood still",
            alone.p50, alone.usual_p99, alone.p99, held.p99
        );
        ensure!(held.p99 - alone.usual_p99 > OLDER_MS, "the control: {} ms is not seen", held.p99);
        ensure!(
            number(s, "/frames_lost") == 0.0 && *missed == 0.0,
            "{name}: {missed} packets missed since it joined: {s}"
        );
        ensure!(alone.whole, "{name}: a frame is missing");
        for (kinds, phase) in &beside {
            let beside = phase.ages(frames)?;
            let (older, of_all) = (beside.usual_p99 - alone.usual_p99, beside.p99 - alone.p99);
            println!(
                "{name}, beside {kinds:?}: p50 {:.1} p99 {:.1} ms (of all of it {:.1} ms)",
                beside.p50, beside.usual_p99, beside.p99
            );
            ensure!(beside.whole, "{name}: a frame is missing beside {kinds:?}");
            ensure!(older < OLDER_MS, "{name}: p99 is {older:.1} ms more beside {kinds:?}");
            // A minute is long enough for the p99 of the whole: a second's hiccup is not in it.
            ensure!(span(true, of_all < OLDER_MS), "{name}: p99 of it all is {of_all:.1} ms more beside {kinds:?}");
        }
    }
    Ok(())
}
