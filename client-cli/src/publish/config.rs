//! The file of `trocar publish --config`: every camera and microphone of an operating room. TOML, typed; a key that nobody
//! knows is refused by name.

use super::plan::{Plan, PurposeArg, RoqModeArg, USUAL_BUDGET_MS, Wanted};
use super::proof::{self, Proof};
use crate::media::Codec;
use crate::net::address::Address;
use crate::net::path::{self, PathSpec};
use anyhow::{Context, bail};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use trocar_proto::session::feed::RoqMode;
use trocar_proto::session::ids::FeedId;

/// Feeds of one file at most.
const MAX_FEEDS: usize = 32;

/// An operating room.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoomConfig {
    /// How the publisher is called in the session.
    pub(super) name: Option<String>,
    /// Where the frames of the operating field are reported to the gate.
    #[serde(rename = "frame-proof")]
    frame_proof: Option<String>,
    /// Local addresses that the packets leave by, at most two: with two, every packet goes by both.
    #[serde(default)]
    paths: Vec<String>,
    /// How packets go by RTP over QUIC, where a feed does not say otherwise.
    #[serde(default, rename = "roq-mode")]
    roq_mode: RoqModeArg,
    /// Its cameras and microphones.
    #[serde(default)]
    feed: Vec<FeedConfig>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedConfig {
    name: FeedId,
    source: Option<String>,
    size: Option<String>,
    #[serde(default, rename = "loop")]
    looped: bool,
    #[serde(default)]
    passthrough: bool,
    codec: Option<Codec>,
    bitrate: Option<f64>,
    #[serde(default)]
    purpose: PurposeArg,
    audio: Option<String>,
    #[serde(rename = "audio-bitrate")]
    audio_bitrate: Option<u32>,
    #[serde(rename = "audio-frame")]
    audio_frame: Option<u32>,
    #[serde(rename = "proof-source")]
    proof_source: Option<u16>,
    #[serde(rename = "roq-mode")]
    roq_mode: Option<RoqModeArg>,
    /// Milliseconds.
    budget: Option<u32>,
}

impl RoomConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Names the file, and the feed and key at fault.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.plans()?;
        Ok(config)
    }

    /// Whether a text is meant as a file of this kind: it has feeds.
    pub(crate) fn is_meant_by(text: &str) -> bool {
        toml::from_str::<toml::Table>(text).is_ok_and(|t| t.contains_key("feed"))
    }

    /// The paths to the relay.
    ///
    /// # Errors
    /// Names the path at fault.
    pub(super) fn paths(&self) -> anyhow::Result<Vec<PathSpec>> {
        let named: Result<Vec<PathSpec>, String> = self.paths.iter().map(|p| p.parse()).collect();
        path::paths(&named.map_err(anyhow::Error::msg).context("paths")?, "paths")
    }

    /// The feeds, pictures and sounds.
    ///
    /// # Errors
    /// Names the feed and key at fault.
    pub(super) fn plans(&self) -> anyhow::Result<Vec<Plan>> {
        if !(1..=MAX_FEEDS).contains(&self.feed.len()) {
            bail!("{} times [[feed]]: 1 to {MAX_FEEDS} is right", self.feed.len());
        }
        let gate: Option<Address> = self.frame_proof.as_deref().map(str::parse).transpose().context("frame-proof")?;
        let protected = self.paths()?.len() > 1;
        let mut plans = Vec::new();
        for feed in &self.feed {
            let mode = feed.roq_mode.unwrap_or(self.roq_mode).into();
            let wanted = Wanted { mode, protected, ..feed.wanted(gate.as_ref())? };
            plans.extend(wanted.plans()?);
        }
        proof::check(&plans, gate.is_some())?;
        let mut names = BTreeSet::new();
        if let Some(twice) = plans.iter().find(|p| !names.insert(p.feed.clone())) {
            bail!(
                "feed {:?} is there twice: each feed, and NAME-audio of each with sound, has its own name",
                twice.feed.as_str()
            );
        }
        Ok(plans)
    }
}

impl FeedConfig {
    fn wanted(&self, gate: Option<&Address>) -> anyhow::Result<Wanted> {
        let prefix = format!("feed {}: ", self.name);
        let named = |key: &str| format!("{prefix}{key}");
        let audio = self.audio.as_deref().filter(|a| *a != "none");
        if self.proof_source.is_some() && (gate.is_none() || self.purpose != PurposeArg::Scope) {
            bail!("{}goes with frame-proof and purpose = \"scope\"", named("proof-source "));
        }
        Ok(Wanted {
            feed: self.name.clone(),
            source: self.source.as_ref().map(|s| s.parse()).transpose().with_context(|| named("source"))?,
            size: self
                .size
                .as_ref()
                .map(|s| s.parse())
                .transpose()
                .map_err(anyhow::Error::msg)
                .with_context(|| named("size"))?,
            looped: self.looped,
            passthrough: self.passthrough,
            codec: self.codec,
            bitrate: self.bitrate,
            purpose: self.purpose,
            audio: audio.map(str::parse).transpose().with_context(|| named("audio"))?,
            audio_bitrate: self.audio_bitrate,
            audio_frame: self.audio_frame,
            ledger: None,
            mode: RoqMode::Datagram,
            budget_ms: self.budget.unwrap_or(USUAL_BUDGET_MS),
            protected: false,
            proof: gate.map(|gate| Proof { gate: gate.clone(), source: self.proof_source.unwrap_or(1) }),
            prefix,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_right_and_has_several_feeds() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/or-room.toml");
        let text = std::fs::read_to_string(&shipped).unwrap();
        assert!(RoomConfig::is_meant_by(&text) && !RoomConfig::is_meant_by("[relay]\npin = 1"));
        let plans = RoomConfig::read(&shipped).unwrap().plans().unwrap();
        assert!(plans.len() >= 3, "{plans:?}");
        // What is commented out is right as well: every line that looks like a key.
        let all: String = text
            .lines()
            .map(|l| l.strip_prefix("# ").filter(|r| r.starts_with("[[") || r.contains(" = ")).unwrap_or(l))
            .fold(String::new(), |all, l| all + l + "\n");
        let everything = RoomConfig::parse(&all).unwrap();
        assert!(everything.feed.len() > RoomConfig::read(&shipped).unwrap().feed.len());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let feed = |rest: &str| format!("[[feed]]\nname = 'scope'\n{rest}");
        for (text, want) in [
            (String::new(), "0 times [[feed]]"),
            ("nam = 'x'".to_owned(), "unknown field `nam`"),
            (feed("sorce = 'test'"), "unknown field `sorce`"),
            (feed("source = 'camera'"), "feed scope: source"),
            (feed("source = 'test'\nsize = '8k'"), "feed scope: size"),
            (feed("source = 'test'\ncodec = 'h263'"), "unknown variant `h263`"),
            (feed("source = 'test'\npurpose = 'x'"), "unknown variant `x`"),
            (feed("source = 'test'\nbitrate = 1000"), "feed scope: bitrate is 0.1 to 400"),
            (feed("source = 'test'\naudio = 'mic'"), "feed scope: audio"),
            (feed(""), "feed scope: source or feed scope: audio is missing"),
            (feed("source = 'test'\n[[feed]]\nname = 'scope'\nsource = 'test'"), "is there twice"),
            ("[[feed]]\nname = 'a b'\nsource = 'test'".to_owned(), "name"),
            (format!("frame-proof = 'gate'\n{}", feed("source = 'test'")), "HOST:PORT is right"),
            (format!("frame-proof = 'g:1'\n{}", feed("source = 'test'\npurpose = 'room'")), "purpose scope"),
            (format!("paths = ['eth0']\n{}", feed("source = 'test'")), "LOCAL_IP is right"),
            (format!("paths = ['10.0.0.1', '10.0.0.1']\n{}", feed("source = 'test'")), "the same path twice"),
            (feed("source = 'test'\nroq-mode = 'x'"), "unknown variant `x`"),
            (feed("source = 'test'\nbudget = 0"), "feed scope: budget is 1 to 10000 milliseconds, not 0"),
            (feed("source = 'test'\nproof-source = 2"), "proof-source goes with frame-proof"),
            (
                format!("frame-proof = 'g:1'\n{}\n[[feed]]\nname = 'b'\nsource = 'test'", feed("source = 'test'")),
                "proof-source = N with another number is right",
            ),
        ] {
            let e = format!("{:#}", RoomConfig::parse(&text).expect_err(&text));
            assert!(e.contains(want), "{want:?} is not in {e:?}");
        }
    }
}
