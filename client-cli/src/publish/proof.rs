//! The frame proof: each frame of the operating field is reported to the gate, so that the gate can tell how old the picture is that
//! the expert says is on the screen (HANDOVER.md section 8).
//!
//! Media never waits for it: a frame goes into a bounded queue on its way out, and everything else happens on a task of its own. What
//! is lost on the way to the gate makes the picture older in the gate's eyes, never younger.

mod line;

use super::plan::Plan;
use crate::echo::frame_digest;
use crate::media::{Frame, Raw};
use crate::net::address::Address;
use crate::net::tls::IdentityArgs;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use trocar_control::trust::{Identity, TrustList};
use trocar_proto::handover::frameproof::{Mark, Report};
use trocar_proto::handover::gate::FrameReport;
use trocar_proto::handover::types::FrameRef;
use trocar_proto::media::rtp::Header;

/// Frames that wait to be reported. Loss policy: the oldest goes and is counted.
const WAITING: usize = 8;
/// Marks that are remembered: as many as the gate remembers. A picture that was longer in the encoder is not reported.
const MARKS: usize = 64;

/// Where frames are reported, and as which source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The gate's frames listener.
    pub(crate) gate: Address,
    /// The number of the source in the session: the gate's `control_source`.
    pub(crate) source: u16,
}

/// What became of the frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProofCounts {
    /// Told to the gate.
    pub(crate) reported: u64,
    /// Not told: the queue was full, the raw picture's digest or its mark was missing, or there was no connection.
    pub(crate) left_out: u64,
}

/// One frame on its way to be reported.
#[derive(Debug)]
struct Item {
    frame: u32,
    mark: Mark,
    packets: Vec<Bytes>,
    raw: Raw,
}

#[derive(Debug, Default)]
struct State {
    /// The gate's newest marks and when they came; none while there is no connection.
    marks: VecDeque<(Instant, Mark)>,
    waiting: VecDeque<Item>,
    counts: ProofCounts,
}

impl State {
    fn marked(&mut self, at: Instant, mark: Mark) {
        if self.marks.len() >= MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((at, mark));
    }

    /// The newest that had come by then.
    fn mark_at(&self, at: Instant) -> Option<Mark> {
        self.marks.iter().rev().find(|(came, _)| *came <= at).map(|(_, mark)| *mark)
    }
}

/// Between the sender's thread and the task that reports.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    state: Mutex<State>,
    wake: Notify,
}

impl Tap {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame goes out now under this id. Never waits. Its mark is the gate's newest when its picture went into the encoder, so that
    /// the gate's limit counts the encoder's time as well; of a stream that was encoded elsewhere, the newest now.
    pub(crate) fn note(&self, frame_id: u32, frame: &Frame) {
        let mut state = self.state();
        let mark = match &frame.raw {
            Raw::Digest(raw) => state.mark_at(raw.pushed()),
            Raw::Elsewhere => state.marks.back().map(|(_, mark)| *mark),
            Raw::NotAsked => None,
        };
        let Some(mark) = mark else {
            state.counts.left_out += 1;
            return;
        };
        if state.waiting.len() >= WAITING {
            state.waiting.pop_front();
            state.counts.left_out += 1;
        }
        let (packets, raw) = (frame.packets.clone(), frame.raw.clone());
        state.waiting.push_back(Item { frame: frame_id, mark, packets, raw });
        drop(state);
        self.wake.notify_one();
    }

    /// What became of the frames up to now.
    pub(crate) fn counts(&self) -> ProofCounts {
        self.state().counts
    }

    /// A mark came.
    fn set_mark(&self, mark: Mark) {
        self.state().marked(Instant::now(), mark);
    }

    /// The connection is gone, and what waited with it: its marks mean nothing to another one.
    fn disconnect(&self) {
        let mut state = self.state();
        state.marks.clear();
        let lost = std::mem::take(&mut state.waiting).len();
        state.counts.left_out += lost as u64;
    }

    async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.state().waiting.pop_front() {
                return item;
            }
            self.wake.notified().await;
        }
    }

    /// The next report; waits for frames, and for the raw picture's digest.
    async fn next_report(&self, source: u16) -> Report {
        loop {
            let Item { frame, mark, packets, raw } = self.next().await;
            let digest = frame_digest(packets.iter().map(|p| Header::parse(p).map_or(&[][..], |h| h.payload(p))));
            let raw = match raw {
                Raw::Digest(raw) => raw.get().await,
                // Nobody here has seen the picture: a frozen one is seen only where its encoding is frozen too.
                Raw::Elsewhere => Some(digest),
                Raw::NotAsked => None,
            };
            let Some(raw) = raw else {
                self.state().counts.left_out += 1;
                continue;
            };
            self.state().counts.reported += 1;
            return Report { mark, frame: FrameReport { frame: FrameRef { source, view: 0, frame, digest }, raw } };
        }
    }
}

/// Begins to report a feed's frames, until `tasks` is dropped.
///
/// # Errors
/// Where certificate or trust list cannot be used.
pub(super) fn start(
    proof: &Proof,
    feed: &str,
    files: &IdentityArgs,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<Arc<Tap>> {
    let identity = files.load()?;
    let identity = Identity::new(identity.chain, identity.key).context("--cert")?;
    let trust = TrustList::of_file(&files.ca).context("--ca")?;
    let tap = Arc::new(Tap::default());
    let line = line::Line::new(proof.clone(), feed.to_owned(), identity, trust);
    tasks.spawn(line.keep(Arc::clone(&tap)));
    Ok(tap)
}

/// Whether the feeds that are reported can be told apart by the gate.
///
/// # Errors
/// Names the flag or key, and what would be right.
pub(super) fn check(plans: &[Plan], asked: bool) -> anyhow::Result<()> {
    let mut sources = BTreeSet::new();
    let proofs = plans.iter().filter_map(|p| p.proof.as_ref().map(|proof| (p, proof)));
    if let Some((plan, proof)) = proofs.clone().find(|(_, proof)| !sources.insert(proof.source)) {
        // Frames of a live camera between those of a frozen one would hide that it is frozen.
        bail!(
            "feed {} is source {} for the gate, as another feed is: proof-source = N with another number is right",
            plan.feed,
            proof.source
        );
    }
    if asked && sources.is_empty() {
        bail!("frame-proof goes with a feed of purpose scope: none is published");
    }
    Ok(())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod queue_tests {
    use super::*;
    use crate::media::RawDigest;
    use std::time::Duration;
    use trocar_proto::units::WallMicros;

    fn frame(payload: &[u8], raw: Raw) -> Frame {
        let packet = [&[0x80, 96, 0, 9, 0, 0, 0, 7, 0, 0, 0, 5][..], payload].concat();
        Frame {
            frame_id: 0,
            key: false,
            capture: WallMicros(0),
            rtp_timestamp: 0,
            audio_level: None,
            raw,
            packets: vec![packet.into()],
        }
    }

    #[tokio::test]
    async fn a_report_has_the_mark_of_when_the_frame_went_out_and_the_digest_of_its_payloads() {
        let tap = Tap::default();
        tap.set_mark(Mark(4));
        tap.note(17, &frame(b"abc", Raw::Elsewhere));
        tap.set_mark(Mark(9));
        let report = tap.next_report(3).await;
        assert_eq!((report.mark, report.frame.frame.frame, report.frame.frame.source), (Mark(4), 17, 3));
        let want = frame_digest([&b"abc"[..]].into_iter());
        assert_eq!((report.frame.frame.digest, report.frame.raw), (want, want));
    }

    #[tokio::test]
    async fn a_picture_that_was_long_in_the_encoder_has_the_mark_of_when_it_went_in() {
        // HO-F-001
        let tap = Tap::default();
        let t0 = Instant::now();
        let ms = |n| t0 + Duration::from_millis(n);
        for n in 0..70 {
            tap.state().marked(ms(20 * n), Mark(n));
        }
        let digest = |pushed| Raw::Digest(RawDigest::known(7, pushed));
        // The encoder is half a second behind; what it gives now is not as young as a stream that comes in now.
        tap.note(1, &frame(b"a", digest(ms(20 * 69 - 500))));
        tap.note(2, &frame(b"a", Raw::Elsewhere));
        tap.note(3, &frame(b"a", digest(ms(20 * 69))));
        let mut marks = Vec::new();
        for _ in 0..3 {
            marks.push(tap.next_report(1).await.mark);
        }
        assert_eq!(marks, [Mark(44), Mark(69), Mark(69)]);
        // Longer than marks are remembered, or from before the connection: no proof.
        tap.note(4, &frame(b"a", digest(ms(100))));
        tap.disconnect();
        tap.state().marked(ms(2_000), Mark(0));
        tap.note(5, &frame(b"a", digest(ms(1_999))));
        assert_eq!(tap.counts(), ProofCounts { reported: 3, left_out: 2 });
    }

    #[tokio::test]
    async fn of_a_full_queue_the_oldest_goes_and_is_counted_and_nothing_waits_without_a_connection() {
        let tap = Tap::default();
        tap.note(0, &frame(b"x", Raw::Elsewhere));
        assert_eq!(tap.counts(), ProofCounts { reported: 0, left_out: 1 });
        tap.set_mark(Mark(1));
        (0..20).for_each(|n| tap.note(n, &frame(b"x", Raw::Elsewhere)));
        assert_eq!(tap.counts().left_out, 1 + 20 - WAITING as u64);
        assert_eq!(tap.next_report(1).await.frame.frame.frame, 20 - WAITING as u32);
        tap.disconnect();
        assert_eq!(tap.counts(), ProofCounts { reported: 1, left_out: 20 });
        // Negative control: without a mark nothing is queued.
        tap.note(30, &frame(b"x", Raw::Elsewhere));
        assert!(tap.state().waiting.is_empty());
    }
}
