//! What a load test does: who publishes what, who watches how, and what happens when. From a file or from the command line;
//! a mistake is named with the key that it is in and what would be right.

use super::figures::Fault;
use super::payload::{Codec, MAX_PAYLOAD};
use super::threshold::Threshold;
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::str::FromStr;
use trocar_proto::session::api::MAX_PATHS;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose, RoqMode, Transport};
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::Bitrate;

/// Feeds of a test at most: as many as a relay takes.
pub(super) const MAX_FEEDS: usize = 64;
/// Viewers of a test at most.
pub(super) const MAX_VIEWERS: usize = 20_000;
/// Stages at most, and the longest in seconds.
const MAX_STAGES: usize = 64;
const LONGEST: f64 = 86_400.0;

/// The whole test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// For the report.
    #[serde(default)]
    pub(super) title: String,
    /// Frames older than this are stale, in milliseconds.
    #[serde(default = "stale_ms")]
    pub(super) stale_ms: u32,
    /// Publishers, in groups of equals.
    #[serde(default, rename = "publishers")]
    pub(super) publishers: Vec<Publishers>,
    /// Viewers, in groups of equals.
    #[serde(default, rename = "viewers")]
    pub(super) viewers: Vec<Viewers>,
    /// What happens, one after the other.
    #[serde(default, rename = "stage")]
    pub(super) stages: Vec<Stage>,
    /// What the test is passed by.
    #[serde(default)]
    pub(super) thresholds: Vec<Threshold>,
}

const fn stale_ms() -> u32 {
    500
}

/// Publishers of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publishers {
    #[serde(default = "one")]
    pub(super) count: u32,
    /// Feeds are called NAME-0, NAME-1, …
    #[serde(default = "name")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) codec: Codec,
    /// Mbit/s of each.
    pub(super) bitrate: f64,
    #[serde(default = "fps")]
    pub(super) fps: f64,
    #[serde(default)]
    pub(super) width: u32,
    #[serde(default)]
    pub(super) height: u32,
    #[serde(default)]
    pub(super) profile: Shape,
    #[serde(default)]
    pub(super) transport: Outgoing,
    /// 2: every packet goes by two connections.
    #[serde(default = "one")]
    pub(super) paths: u32,
    #[serde(default = "purpose")]
    pub(super) purpose: Purpose,
    /// Capture to display, in milliseconds: what the relay repairs within.
    #[serde(default = "budget_ms")]
    pub(super) budget_ms: u32,
}

/// Viewers of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Viewers {
    pub(super) count: u32,
    #[serde(default)]
    pub(super) transport: Incoming,
    /// 2: every packet comes by two connections.
    #[serde(default = "one")]
    pub(super) paths: u32,
    /// The feeds that they watch, one after the other; all where left out.
    #[serde(default)]
    pub(super) feeds: Vec<String>,
}

const fn one() -> u32 {
    1
}

fn name() -> String {
    "load".to_owned()
}

const fn fps() -> f64 {
    60.0
}

const fn purpose() -> Purpose {
    Purpose::Scope
}

const fn budget_ms() -> u32 {
    200
}

/// How the bits are shared among frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// A key frame each second, five times as large as the others.
    #[default]
    Video,
    /// All alike; a key frame each second still.
    Steady,
}

impl Shape {
    /// Size of a key frame in sizes of the others.
    pub(super) const fn key_factor(self) -> f64 {
        match self {
            Self::Video => 5.0,
            Self::Steady => 1.0,
        }
    }
}

/// How packets go to the relay, by RTP over QUIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outgoing {
    /// One packet per datagram.
    #[default]
    Datagram,
    /// A stream per frame.
    Stream,
}

impl Outgoing {
    pub(super) const fn mode(self) -> RoqMode {
        match self {
            Self::Datagram => RoqMode::Datagram,
            Self::Stream => RoqMode::Stream,
        }
    }
}

/// How packets come from the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Incoming {
    /// RTP over QUIC, one packet per datagram.
    #[default]
    Roq,
    /// RTP over QUIC, a stream per frame.
    RoqStream,
    /// WebRTC, by WHEP.
    Webrtc,
}

impl Incoming {
    /// As it is written in a file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Roq => "roq",
            Self::RoqStream => "roq-stream",
            Self::Webrtc => "webrtc",
        }
    }
}

/// What happens for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Stage {
    /// Viewers come evenly until there are so many, all where left out.
    Ramp { seconds: f64, to: Option<u32> },
    /// Everything stays.
    Hold { seconds: f64 },
    /// Viewers come and go.
    Churn { seconds: f64, joins_per_s: f64, leaves_per_s: f64 },
    /// Some are gone without a goodbye; when the stage is over they come back.
    Kill {
        seconds: f64,
        #[serde(default)]
        viewers: u32,
        #[serde(default)]
        publishers: u32,
    },
    /// So many more each time, until a step is not carried: a frame in a hundred is lost, or the age is above the limit.
    Climb { step: u32, seconds: f64, age_p99_ms: f64 },
}

impl Stage {
    /// In a word.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Ramp { .. } => "ramp",
            Self::Hold { .. } => "hold",
            Self::Churn { .. } => "churn",
            Self::Kill { .. } => "kill",
            Self::Climb { .. } => "climb",
        }
    }

    const fn seconds(&self) -> f64 {
        match self {
            Self::Ramp { seconds, .. }
            | Self::Hold { seconds }
            | Self::Churn { seconds, .. }
            | Self::Kill { seconds, .. }
            | Self::Climb { seconds, .. } => *seconds,
        }
    }
}

/// A fault that is made on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inject {
    pub(super) fault: Fault,
    /// One frame in so many.
    pub(super) every: u32,
}

impl FromStr for Inject {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{s:?}: corrupt, reorder, stale or missing, a colon and a number from 2 on are right, as in corrupt:100"
            )
        };
        let (fault, every) = s.split_once(':').ok_or_else(wrong)?;
        let fault = match fault {
            "corrupt" => Fault::Corrupt,
            "reorder" => Fault::Reorder,
            "stale" => Fault::Stale,
            "missing" => Fault::Missing,
            _ => return Err(wrong()),
        };
        let every = every.parse().ok().filter(|n| *n >= 2).ok_or_else(wrong)?;
        Ok(Self { fault, every })
    }
}

/// One feed.
#[derive(Debug, Clone)]
pub(super) struct FeedPlan {
    pub(super) name: String,
    /// Its group in [`Scenario::publishers`].
    pub(super) group: usize,
}

/// One viewer.
#[derive(Debug, Clone, Copy)]
pub(super) struct ViewerPlan {
    /// Its feed among [`Scenario::feeds`].
    pub(super) feed: usize,
    pub(super) transport: Incoming,
    pub(super) paths: u8,
}

impl Scenario {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, the key and what would be right.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// The same from a text.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.to_string().trim_end()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks what the types do not.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.publishers.is_empty(), "publishers: there are none; at least one [[publishers]] is right");
        ensure!((1..=60_000).contains(&self.stale_ms), "stale_ms = {}: 1 to 60000 is right", self.stale_ms);
        for (i, p) in self.publishers.iter().enumerate() {
            p.check().with_context(|| format!("publishers {}", i + 1))?;
        }
        let feeds = self.feeds();
        ensure!(feeds.len() <= MAX_FEEDS, "publishers: {} feeds; at most {MAX_FEEDS} are right", feeds.len());
        for (i, f) in feeds.iter().enumerate() {
            if feeds.iter().skip(i + 1).any(|o| o.name == f.name) {
                bail!("publishers: two groups make a feed {:?}; each needs a name of its own", f.name);
            }
        }
        for (i, v) in self.viewers.iter().enumerate() {
            v.check(&feeds).with_context(|| format!("viewers {}", i + 1))?;
        }
        let viewers: u64 = self.viewers.iter().map(|v| u64::from(v.count)).sum();
        ensure!(viewers <= MAX_VIEWERS as u64, "viewers: {viewers}; at most {MAX_VIEWERS} are right");
        ensure!(!self.stages.is_empty(), "stage: there is none; at least one [[stage]] is right");
        ensure!(
            self.stages.len() <= MAX_STAGES,
            "stage: {} of them; at most {MAX_STAGES} are right",
            self.stages.len()
        );
        for (i, s) in self.stages.iter().enumerate() {
            check_stage(s, viewers, feeds.len()).with_context(|| format!("stage {} ({})", i + 1, s.word()))?;
        }
        Ok(())
    }

    /// All stages together, in seconds; of a climb one step.
    pub(super) fn seconds(&self) -> f64 {
        self.stages.iter().map(Stage::seconds).sum()
    }

    /// All feeds.
    pub(super) fn feeds(&self) -> Vec<FeedPlan> {
        let of = |(group, p): (usize, &Publishers)| {
            let name = p.name.clone();
            (0..p.count).map(move |i| FeedPlan { name: format!("{name}-{i}"), group })
        };
        self.publishers.iter().enumerate().flat_map(of).collect()
    }

    /// All viewers. Those of different groups come in turn.
    pub(super) fn viewers(&self) -> Vec<ViewerPlan> {
        let feeds = self.feeds();
        let mut groups: Vec<_> = self.viewers.iter().map(|v| v.plans(&feeds).into_iter()).collect();
        let mut out = Vec::new();
        loop {
            let before = out.len();
            out.extend(groups.iter_mut().filter_map(Iterator::next));
            if out.len() == before {
                return out;
            }
        }
    }

    /// What an injected fault needs of the frames.
    pub(crate) fn check_injection(&self, inject: Inject) -> anyhow::Result<()> {
        let needed = match inject.fault {
            Fault::Reorder => 4,
            Fault::Missing => 3,
            _ => 1,
        };
        for p in &self.publishers {
            let packets = p.delta_bytes().div_ceil(MAX_PAYLOAD);
            ensure!(
                packets >= needed,
                "--inject {}: frames of {needed} packets at least are right; those of {:?} have {packets}: more bit rate, \
                 or fewer frames a second",
                inject.fault.word(),
                p.name
            );
        }
        Ok(())
    }
}

impl Publishers {
    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=MAX_FEEDS as u32).contains(&self.count), "count = {}: 1 to {MAX_FEEDS} is right", self.count);
        ensure!(
            FeedId::new(self.feed(0)).is_ok() && self.name.len() <= 48,
            "name = {:?}: 1 to 48 of A-Z a-z 0-9 _ - are right",
            self.name
        );
        ensure!(
            (0.01..=1_000.0).contains(&self.bitrate),
            "bitrate = {}: Mbit/s from 0.01 to 1000 are right",
            self.bitrate
        );
        ensure!((1.0..=240.0).contains(&self.fps), "fps = {}: 1 to 240 is right", self.fps);
        ensure!((1..=MAX_PATHS as u32).contains(&self.paths), "paths = {}: 1 or 2 is right", self.paths);
        self.descriptor("check-0")?.check()?;
        Ok(())
    }

    fn feed(&self, i: u32) -> String {
        format!("{}-{i}", self.name)
    }

    /// Bytes of a frame that is no key frame.
    pub(super) fn delta_bytes(&self) -> usize {
        let per_second = self.bitrate * 1e6 / 8.0;
        let parts = (self.fps - 1.0) + self.profile.key_factor();
        (per_second / parts) as usize
    }

    /// What it announces.
    pub(super) fn descriptor(&self, feed: &str) -> anyhow::Result<FeedDescriptor> {
        use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI};
        let ids = ExtensionIds::OURS;
        Ok(FeedDescriptor {
            feed: FeedId::new(feed).with_context(|| format!("feed {feed:?}"))?,
            source: feed.to_owned(),
            view: "overview".to_owned(),
            kind: MediaKind::Video,
            purpose: self.purpose,
            codec: self.codec.encoding_name().to_owned(),
            fmtp: self.codec.fmtp().to_owned(),
            clock_rate: super::payload::CLOCK_RATE,
            payload_type: super::payload::PAYLOAD_TYPE,
            width: self.width,
            height: self.height,
            fps: self.fps,
            // A quarter of room, for headers and for key frames that are asked for.
            max_bitrate: Bitrate((self.bitrate * 1.25e6).max(20_000.0) as u64),
            budget_ms: self.budget_ms,
            header_extensions: [(FRAME_URI, ids.frame), (ABS_CAPTURE_TIME_URI, ids.abs_capture_time)]
                .map(|(uri, id)| (uri.to_owned(), id))
                .into(),
            priority: 0,
            protected: self.paths > 1,
            replay: false,
            fec: None,
            transport: Transport::Roq { mode: self.transport.mode(), rtp_flow_id: None, rtcp_flow_id: None },
        })
    }
}

impl Viewers {
    fn check(&self, feeds: &[FeedPlan]) -> anyhow::Result<()> {
        ensure!((1..=MAX_VIEWERS as u32).contains(&self.count), "count = {}: 1 to {MAX_VIEWERS} is right", self.count);
        ensure!((1..=MAX_PATHS as u32).contains(&self.paths), "paths = {}: 1 or 2 is right", self.paths);
        ensure!(
            self.paths == 1 || self.transport != Incoming::Webrtc,
            "paths = 2 goes with RTP over QUIC: transport roq or roq-stream is right"
        );
        for f in &self.feeds {
            let known: Vec<&str> = feeds.iter().map(|k| k.name.as_str()).collect();
            ensure!(
                known.contains(&f.as_str()),
                "feeds: nobody publishes {f:?}; of {} some are right",
                known.join(", ")
            );
        }
        Ok(())
    }

    fn plans(&self, feeds: &[FeedPlan]) -> Vec<ViewerPlan> {
        let wanted = |f: &FeedPlan| self.feeds.is_empty() || self.feeds.contains(&f.name);
        let mine: Vec<usize> = (0..feeds.len()).filter(|i| feeds.get(*i).is_some_and(wanted)).collect();
        let paths = if self.paths > 1 { 2 } else { 1 };
        let plan = |feed: usize| ViewerPlan { feed, transport: self.transport, paths };
        mine.iter().cycle().take(self.count as usize).map(|f| plan(*f)).collect()
    }
}

fn check_stage(stage: &Stage, viewers: u64, feeds: usize) -> anyhow::Result<()> {
    let seconds = stage.seconds();
    ensure!(seconds > 0.0 && seconds <= LONGEST, "seconds = {seconds}: above 0 and at most {LONGEST} is right");
    match stage {
        Stage::Ramp { to: Some(to), .. } => {
            ensure!(u64::from(*to) <= viewers, "to = {to}: there are {viewers} viewers in all");
        }
        Stage::Churn { joins_per_s, leaves_per_s, .. } => {
            for (key, rate) in [("joins_per_s", joins_per_s), ("leaves_per_s", leaves_per_s)] {
                ensure!((0.0..=200.0).contains(rate), "{key} = {rate}: 0 to 200 is right");
            }
        }
        Stage::Kill { viewers: v, publishers: p, .. } => {
            ensure!(*v > 0 || *p > 0, "viewers or publishers: whom to kill is missing");
            ensure!(u64::from(*v) <= viewers, "viewers = {v}: there are {viewers} in all");
            ensure!(*p as usize <= feeds, "publishers = {p}: there are {feeds} in all");
        }
        Stage::Climb { step, age_p99_ms, .. } => {
            ensure!(*step > 0, "step = 0: how many viewers come at a time is missing");
            ensure!(*age_p99_ms > 0.0, "age_p99_ms = {age_p99_ms}: above 0 is right");
            ensure!(seconds >= 2.0, "seconds = {seconds}: 2 at least are right, one to settle and the rest to measure");
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "
        title = \"x\"
        thresholds = [\"age_p99_ms < 50\", \"frames_lost == 0\"]
        [[publishers]]
        count = 2
        bitrate = 4
        [[viewers]]
        count = 3
        [[viewers]]
        count = 1
        feeds = [\"load-1\"]
        transport = \"roq-stream\"
        [[stage]]
        kind = \"ramp\"
        seconds = 1
        [[stage]]
        kind = \"churn\"
        seconds = 2.5
        joins_per_s = 1
        leaves_per_s = 1
    ";

    #[test]
    fn viewers_take_the_feeds_in_turn_and_groups_come_mixed() {
        let s = Scenario::parse(RIGHT).unwrap();
        let feeds: Vec<String> = s.feeds().into_iter().map(|f| f.name).collect();
        assert_eq!(feeds, ["load-0", "load-1"]);
        let all: Vec<_> = s.viewers().iter().map(|v| (v.feed, v.transport)).collect();
        let (roq, stream) = (Incoming::Roq, Incoming::RoqStream);
        assert_eq!(all, [(0, roq), (1, stream), (1, roq), (0, roq)]);
        let again: Scenario = serde_json::from_str(&serde_json::to_string(&s).unwrap()).unwrap();
        assert_eq!(again, s, "as it goes to an agent");
    }

    #[test]
    fn a_mistake_is_named_with_its_key_and_what_would_be_right() {
        let e = |from: &str, to: &str| {
            assert!(RIGHT.contains(from), "{from}");
            format!("{:#}", Scenario::parse(&RIGHT.replace(from, to)).unwrap_err())
        };
        for (from, to, says) in [
            ("bitrate = 4", "bitrat = 4", "bitrat"),
            ("bitrate = 4", "bitrate = 4000", "publishers 1: bitrate = 4000: Mbit/s from 0.01 to 1000"),
            ("bitrate = 4", "bitrate = 4\nfps = 0", "fps = 0: 1 to 240"),
            ("bitrate = 4", "bitrate = 4\ncodec = \"H266\"", "H266"),
            ("count = 3", "count = 0", "viewers 1: count = 0"),
            ("load-1", "load-2", "viewers 2: feeds: nobody publishes \"load-2\"; of load-0, load-1"),
            ("kind = \"ramp\"", "kind = \"rampe\"", "rampe"),
            ("kind = \"ramp\"", "kind = \"ramp\"\nto = 9", "stage 1 (ramp): to = 9: there are 4 viewers"),
            ("seconds = 2.5", "seconds = 0", "stage 2 (churn): seconds = 0"),
            ("joins_per_s = 1", "", "joins_per_s"),
            ("age_p99_ms < 50", "age_p99_ms", "\"age_p99_ms < 50\""),
            ("age_p99_ms < 50", "age < 50", "no figure \"age\""),
        ] {
            let said = e(from, to);
            assert!(said.contains(says), "{to}: {said}");
        }
        let twice =
            RIGHT.replace("[[viewers]]\n        count = 3", "[[publishers]]\nbitrate = 1\n[[viewers]]\ncount = 3");
        assert!(format!("{:#}", Scenario::parse(&twice).unwrap_err()).contains("two groups make a feed \"load-0\""));
    }

    #[test]
    fn sizes_of_frames_make_the_bit_rate() {
        for profile in [Shape::Video, Shape::Steady] {
            let s = Scenario::parse(RIGHT).unwrap();
            let p = Publishers { profile, bitrate: 50.0, ..s.publishers[0].clone() };
            let second = p.delta_bytes() as f64 * (59.0 + profile.key_factor()) * 8.0;
            assert!((second / 50e6 - 1.0).abs() < 0.001, "{second}");
        }
    }

    #[test]
    fn a_fault_is_asked_for_by_name_and_number_and_needs_frames_that_can_have_it() {
        assert_eq!("corrupt:100".parse(), Ok(Inject { fault: Fault::Corrupt, every: 100 }));
        for bad in ["", "corrupt", "corrupt:1", "corrupt:x", "lost:5"] {
            assert!(bad.parse::<Inject>().unwrap_err().contains("corrupt:100"), "{bad}");
        }
        let mut s = Scenario::parse(RIGHT).unwrap();
        let reorder = Inject { fault: Fault::Reorder, every: 10 };
        assert!(s.check_injection(reorder).is_ok());
        s.publishers[0].bitrate = 0.5;
        assert!(s.check_injection(reorder).unwrap_err().to_string().contains("4 packets at least"));
    }
}
