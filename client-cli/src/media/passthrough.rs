//! A recording's video as it is: demuxed and packetised, never decoded.
//!
//! A file of at most [`MEMORY_LIMIT`] is packetised once and played from memory, where a round costs one copy of each frame
//! and new sequence numbers and timestamps. A larger one is demuxed again in each round.

use super::clock::{Pacer, wall_now};
use super::codec::Codec;
use super::decoder::{file_source, next_sample, preroll, rewind};
use super::elements::{chain, make};
use super::encoder::packets;
use super::error::MediaError;
use super::frame::{Assembler, Frame, FrameSink, RawFrame};
use super::funnel::Funnel;
use super::live::{MAX_LATE_NS, Round};
use super::raw::Raw;
use super::running::Shared;
use gst::prelude::*;
use gstreamer as gst;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Elements of the pipeline, checked before it is made.
pub(super) const ELEMENTS: [&str; 4] = ["filesrc", "parsebin", "capsfilter", "appsink"];
/// Largest file that is kept in memory, in bytes.
const MEMORY_LIMIT: u64 = 256 << 20;
/// Frames in which a file must show its first key frame.
const MAX_FRAMES_BEFORE_KEY: usize = 3_000;

/// A recording ready to be played from its first key frame.
#[derive(Debug)]
pub(super) struct Recording {
    frames: Frames,
    /// Width, height, frames per second.
    pub(super) size: (u32, u32, f64),
    pub(super) codec: Codec,
    /// `a=fmtp`, by its first parameter sets where it has them.
    pub(super) fmtp: String,
    /// Mean over the whole file, RTP headers included where it is in memory.
    pub(super) bits_per_second: u64,
}

#[derive(Debug)]
enum Frames {
    Memory { frames: Vec<RawFrame>, next: usize },
    Seeking(Demuxer),
}

impl Recording {
    /// Opens a file; reads all of it where it is small enough, which takes about 0.1 s per 10 MB.
    ///
    /// # Errors
    /// [`MediaError`] where there is no such file, no video in it that is forwarded, or no key frame.
    pub(super) fn open(path: &Path) -> Result<Self, MediaError> {
        Self::open_with_limit(path, MEMORY_LIMIT)
    }

    fn open_with_limit(path: &Path, limit: u64) -> Result<Self, MediaError> {
        let mut demuxer = Demuxer::open(path)?;
        let first = demuxer.first_key_frame()?;
        let (codec, fmtp, size) = (demuxer.codec, demuxer.funnel.fmtp(&first), demuxer.funnel.size());
        let bytes = std::fs::metadata(path).map_or(u64::MAX, |m| m.len());
        if bytes > limit {
            let seconds =
                demuxer.pipeline.query_duration::<gst::ClockTime>().map_or(0, gst::ClockTime::mseconds) as f64 / 1e3;
            let bits_per_second = (bytes as f64 * 8.0 / seconds.max(1.0)) as u64;
            demuxer.ready.push_front(first);
            return Ok(Self { frames: Frames::Seeking(demuxer), size, codec, fmtp, bits_per_second });
        }
        let (mut frames, mut round) = (vec![first], PlayedRound::new(interval_ns(size.2)));
        while let Some(frame) = demuxer.next(|| false)? {
            frames.push(frame);
        }
        let total: u64 = frames.iter().map(|f| f.len() as u64 * 8).sum();
        for frame in &frames {
            round.handle(frame);
        }
        let bits_per_second = (total as f64 * 1e9 / round.duration_ns() as f64) as u64;
        Ok(Self { frames: Frames::Memory { frames, next: 0 }, size, codec, fmtp, bits_per_second })
    }

    /// The next frame in decoding order; none at the end of a round, or once `stopped`.
    fn next(&mut self, stopped: impl Fn() -> bool) -> Result<Option<RawFrame>, MediaError> {
        match &mut self.frames {
            Frames::Memory { frames, next } => {
                let frame = frames.get(*next).cloned();
                *next += 1;
                Ok(frame)
            }
            Frames::Seeking(demuxer) => demuxer.next(stopped),
        }
    }

    /// Back to the first key frame.
    fn rewind(&mut self) -> Result<(), MediaError> {
        match &mut self.frames {
            Frames::Memory { next, .. } => *next = 0,
            Frames::Seeking(demuxer) => {
                demuxer.rewind()?;
                let first = demuxer.first_key_frame()?;
                demuxer.ready.push_front(first);
            }
        }
        Ok(())
    }

    /// Plays it in real time until it is stopped, or over. Nothing is left out: frames that are late leave at once, and
    /// after a standstill the schedule moves.
    pub(super) fn run(&mut self, looped: bool, sink: &mut FrameSink, shared: &Shared) -> Result<(), MediaError> {
        let mut stamper: Option<Stamper> = None;
        let (pacer, interval) = (Pacer::start(), interval_ns(self.size.2));
        let (mut base_ns, mut frame_id) = (0_u64, 0_u32);
        let mut round = PlayedRound::new(interval);
        while !shared.stopped() {
            let Some(mut raw) = self.next(|| shared.stopped())? else {
                if shared.stopped() || !looped {
                    break;
                }
                base_ns += round.duration_ns();
                round = PlayedRound::new(interval);
                self.rewind()?;
                shared.restarted();
                continue;
            };
            let (release_ns, shown_ns) = round.handle(&raw);
            if !pacer.wait_until(base_ns + release_ns, || shared.stopped()) {
                break;
            }
            let late = pacer.late_ns(base_ns + release_ns);
            if late > MAX_LATE_NS {
                base_ns += late;
                shared.slip();
            }
            let stamper = stamper.get_or_insert_with(|| Stamper::new(&raw));
            let rtp_timestamp = stamper.stamp(&mut raw, base_ns, shown_ns);
            let key = raw.key;
            let packets = raw.into_packets();
            let (capture, raw) = (wall_now(), Raw::Elsewhere);
            let frame = Frame { frame_id, key, capture, rtp_timestamp, audio_level: None, raw, packets };
            shared.count(&frame);
            sink(frame);
            frame_id = frame_id.wrapping_add(1);
        }
        Ok(())
    }
}

/// The times of a round: frames leave in decoding order and are shown in another where there are B frames.
#[derive(Debug)]
struct PlayedRound {
    /// Nanoseconds from frame to frame where the file has no times.
    interval_ns: u64,
    first_release: Option<u64>,
    released: u64,
    first_shown: u64,
    shown: Round,
}

impl PlayedRound {
    fn new(interval_ns: u64) -> Self {
        Self { interval_ns, first_release: None, released: 0, first_shown: 0, shown: Round::default() }
    }

    /// When a frame leaves, in nanoseconds from the round's beginning, never before the one before it; and when it is
    /// shown, signed, relative to the round's first frame.
    fn handle(&mut self, frame: &RawFrame) -> (u64, i64) {
        let untimed = || self.first_release.map_or(0, |first| first + self.released + self.interval_ns);
        let pts = frame.pts.or(frame.dts).unwrap_or_else(untimed);
        let release = frame.dts.or(frame.pts).unwrap_or_else(untimed);
        if self.first_release.is_none() {
            self.first_shown = pts;
        }
        let first = *self.first_release.get_or_insert(release);
        self.released = self.released.max(release.saturating_sub(first));
        self.shown.handle(pts);
        (self.released, pts.wrapping_sub(self.first_shown).cast_signed())
    }

    /// Length of the round in nanoseconds, at least one interval, so that no file makes a loop that spins.
    fn duration_ns(&self) -> u64 {
        self.shown.duration_ns(self.interval_ns).max(self.interval_ns).max(1)
    }
}

/// Rising sequence numbers, and timestamps that follow the media's own time without a gap between rounds.
#[derive(Debug)]
struct Stamper {
    sequence: u16,
    timestamp: u32,
}

impl Stamper {
    /// Begins with the (random) numbers that the payloader gave to the first frame.
    fn new(first: &RawFrame) -> Self {
        let (sequence, timestamp) = first.first_header();
        Self { sequence, timestamp }
    }

    /// Stamps a frame that is shown `shown_ns` after the beginning of the round at `base_ns`; gives its timestamp.
    fn stamp(&mut self, frame: &mut RawFrame, base_ns: u64, shown_ns: i64) -> u32 {
        let ns = i128::from(base_ns) + i128::from(shown_ns);
        // 90 kHz, rounded once from nanoseconds, so that no error adds up; timestamps wrap at 32 bits.
        let ticks = ((ns * 9 + 50_000).div_euclid(100_000) & 0xffff_ffff) as u32;
        let timestamp = self.timestamp.wrapping_add(ticks);
        self.sequence = frame.restamp(self.sequence, timestamp);
        timestamp
    }
}

/// `filesrc ! parsebin ! PARSER ! PAYLOADER ! appsink`.
#[derive(Debug)]
struct Demuxer {
    path: PathBuf,
    pipeline: gst::Pipeline,
    funnel: Funnel,
    codec: Codec,
    assembler: Assembler,
    /// Frames of the last sample that were not asked for yet.
    ready: VecDeque<RawFrame>,
}

impl Demuxer {
    fn open(path: &Path) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let (source, demux) = (file_source(path)?, make("parsebin")?);
        chain(&pipeline, &[&source, &demux])?;
        let funnel = Funnel::new(&pipeline)?;
        funnel.watch(&demux);
        let refused = || {
            let unfit = |found| MediaError::NotForPassthrough { path: path.to_owned(), found };
            funnel.error().or_else(|| funnel.refused().map(unfit))
        };
        preroll(&pipeline, path, || funnel.codec().is_some(), refused)?;
        pipeline.set_state(gst::State::Playing).map_err(|e| MediaError::pipeline("demuxer", e))?;
        let codec = funnel.codec().ok_or_else(|| MediaError::NoVideo { path: path.to_owned() })?;
        let (path, assembler, ready) = (path.to_owned(), Assembler::new(codec), VecDeque::new());
        Ok(Self { path, pipeline, funnel, codec, assembler, ready })
    }

    fn next(&mut self, stopped: impl Fn() -> bool) -> Result<Option<RawFrame>, MediaError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let Some(sample) = next_sample(&self.pipeline, &self.funnel.appsink, &stopped)? else { return Ok(None) };
            for packet in packets(&sample) {
                self.ready.extend(self.assembler.handle(packet)?);
            }
        }
    }

    /// The next frame that can be decoded by itself; what comes before it is left out.
    fn first_key_frame(&mut self) -> Result<RawFrame, MediaError> {
        for _ in 0..MAX_FRAMES_BEFORE_KEY {
            match self.next(|| false)? {
                Some(frame) if frame.key => return Ok(frame),
                Some(_) => {}
                None => break,
            }
        }
        Err(MediaError::NoKeyFrame { path: self.path.clone() })
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        (self.assembler, self.ready) = (Assembler::new(self.codec), VecDeque::new());
        rewind(&self.pipeline, &self.path)
    }
}

impl Drop for Demuxer {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn interval_ns(fps: f64) -> u64 {
    (1e9 / fps.max(1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{FixtureSpec, make_fixture};
    use super::super::spec::Geometry;
    use super::*;

    fn frame(pts: u64, dts: u64) -> RawFrame {
        let mut frame = RawFrame::default();
        (frame.pts, frame.dts) = (Some(pts), Some(dts));
        frame
    }

    #[test]
    fn frames_leave_in_decoding_order_and_are_shown_in_theirs() {
        let mut round = PlayedRound::new(40);
        let order = [(80, 40), (200, 80), (120, 120), (160, 160)].map(|(pts, dts)| round.handle(&frame(pts, dts)));
        assert_eq!(order, [(0, 0), (40, 120), (80, 40), (120, 80)]);
        assert_eq!(round.duration_ns(), 160);
    }

    #[test]
    fn a_file_without_times_is_played_at_its_rate() {
        let mut round = PlayedRound::new(40);
        assert_eq!([(); 3].map(|()| round.handle(&RawFrame::default())), [(0, 0), (40, 40), (80, 80)]);
        assert_eq!(round.duration_ns(), 120);
        let mut frozen = PlayedRound::new(40);
        assert_eq!([(); 3].map(|()| frozen.handle(&frame(7, 7))), [(0, 0); 3]);
        assert_eq!(frozen.duration_ns(), 40, "a loop takes time");
    }

    #[test]
    fn timestamps_do_not_drift_over_a_day_of_rounds() {
        let mut stamper = Stamper { sequence: 65_535, timestamp: u32::MAX };
        // 30000/1001 frames/s: an interval that is not a whole number of ticks or nanoseconds.
        let day_ns = 86_400_000_000_000_u64;
        assert_eq!(stamper.stamp(&mut frame(0, 0), 0, 0), u32::MAX);
        let ticks = u64::from(stamper.stamp(&mut frame(0, 0), day_ns, 33_366_667)) + 1;
        assert_eq!(ticks, (86_400 * 90_000 + 3_003) & 0xffff_ffff);
        assert_eq!(stamper.stamp(&mut frame(0, 0), 0, -1_000_000), u32::MAX - 90);
    }

    #[test]
    fn seeking_gives_the_same_frames_as_memory_in_each_round() {
        gst::init().unwrap();
        let path = std::env::temp_dir().join(format!("trocar-seek-{}.mp4", std::process::id()));
        let geometry = Geometry { width: 320, height: 180, fps: 30 };
        let spec =
            FixtureSpec { path: path.clone(), geometry, seconds: 1, bitrate_bps: 500_000, key_interval_frames: 10 };
        make_fixture(&spec, &mut |_, _| {}).unwrap();
        let mut memory = Recording::open_with_limit(&path, u64::MAX).unwrap();
        let mut seeking = Recording::open_with_limit(&path, 0).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((memory.size, &memory.fmtp), (seeking.size, &seeking.fmtp));
        for round in 0..3 {
            for i in 0..30 {
                let (mut a, mut b) =
                    (memory.next(|| false).unwrap().unwrap(), seeking.next(|| false).unwrap().unwrap());
                // The synchronisation source is the payloader's own: all other bytes agree.
                a.restamp(0, 0);
                b.restamp(0, 0);
                let content = |f: RawFrame| f.into_packets().iter().map(|p| p.slice(12..)).collect::<Vec<_>>();
                let (a, b) = (content(a), content(b));
                // The parser sends the parameter sets twice at its very first key frame: the same bytes, once more.
                let skip = usize::from(i == 0 && round > 0);
                assert!(a[skip..] == b[skip..], "round {round}, frame {i}");
            }
            assert!(memory.next(|| false).unwrap().is_none() && seeking.next(|| false).unwrap().is_none());
            memory.rewind().unwrap();
            seeking.rewind().unwrap();
        }
    }
}
