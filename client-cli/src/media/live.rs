//! Sources that encode: the synthetic field, and a recording that is decoded.

use super::clock::{Pacer, wall_now};
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::error::MediaError;
use super::running::Shared;
use super::scene::{Scene, Stamp};
use super::spec::Geometry;
use gstreamer as gst;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Pictures that may be under way: one in the encoder and one that waits for it.
pub(super) const MAX_BACKLOG: usize = 2;
/// Pictures kept for reuse; one more than can be under way.
const SPARE_PICTURES: usize = MAX_BACKLOG + 1;
/// A recording that is later than this does not catch up, its schedule moves.
pub(super) const MAX_LATE_NS: u64 = 500_000_000;

/// Draws, encodes and hands over the synthetic field until it is stopped. A picture that is late is left out. From picture `freeze` on
/// the one before it is repeated.
pub(super) fn run_scene(
    scene: &Scene,
    geometry: Geometry,
    freeze: Option<u32>,
    encoder: &Encoder,
    shared: &Shared,
) -> Result<(), MediaError> {
    let (pool, pacer) = (PicturePool::new(), Pacer::start());
    let (mut slot, mut frame) = (0_u64, 0_u32);
    let mut frozen = None::<Vec<u8>>;
    loop {
        let due = slot_ns(slot, geometry.fps);
        if !pacer.wait_until(due, || shared.stopped()) {
            return Ok(());
        }
        let missed = pacer.late_ns(due) / geometry.interval_ns();
        slot += missed + 1;
        shared.skip(missed);
        if encoder.backlog() >= MAX_BACKLOG {
            shared.skip(1);
            continue;
        }
        let (at_ns, capture) = (pacer.elapsed_ns(), wall_now());
        let mut picture = pool.take(scene);
        match &frozen {
            Some(last) => picture.clone_from(last),
            None => scene.draw(&mut picture, frame, at_ns as f64 / 1e9, Stamp::Live(capture))?,
        }
        if frozen.is_none() && freeze.is_some_and(|after| frame + 1 >= after) {
            frozen = Some(picture.clone());
        }
        encoder.push(pool.buffer(picture), at_ns, frame, capture)?;
        frame = frame.wrapping_add(1);
    }
}

/// Plays a decoded recording in real time until it is stopped, or over. A picture that finds the encoder busy is left out.
pub(super) fn run_decoded(
    decoder: &mut Decoder,
    looped: bool,
    encoder: &Encoder,
    shared: &Shared,
) -> Result<(), MediaError> {
    let pacer = Pacer::start();
    let (mut frame, mut base_ns, mut caps) = (0_u32, 0_u64, None::<gst::Caps>);
    let mut round = Round::default();
    loop {
        let Some(sample) = decoder.next(|| shared.stopped())? else {
            if shared.stopped() || !looped {
                encoder.drain();
                return Ok(());
            }
            base_ns += round.duration_ns(decoder.interval_ns());
            round = Round::default();
            decoder.rewind()?;
            shared.restarted();
            continue;
        };
        let Some(buffer) = sample.buffer_owned() else { continue };
        let at_ns = base_ns + round.handle(buffer.pts().map_or(0, gst::ClockTime::nseconds));
        if !pacer.wait_until(at_ns, || shared.stopped()) {
            return Ok(());
        }
        let late = pacer.late_ns(at_ns);
        if late > MAX_LATE_NS {
            base_ns += late;
            shared.slip();
        }
        if encoder.backlog() >= MAX_BACKLOG {
            shared.skip(1);
            continue;
        }
        let now = sample.caps_owned();
        if now != caps {
            // The encoder began with the caps of the first picture.
            if let (Some(now), Some(_)) = (&now, &caps) {
                encoder.set_caps(now);
            }
            caps = now;
        }
        // The time of release, so that running time never goes back, whatever the file's own times are.
        encoder.push(buffer, pacer.elapsed_ns(), frame, wall_now())?;
        frame = frame.wrapping_add(1);
    }
}

/// The times of one round through a recording.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Round {
    first: Option<u64>,
    last: u64,
    frames: u64,
}

impl Round {
    /// Takes the time of the next frame in nanoseconds; gives it relative to the round's first.
    pub(super) fn handle(&mut self, pts_ns: u64) -> u64 {
        let first = *self.first.get_or_insert(pts_ns);
        let at = pts_ns.saturating_sub(first);
        self.last = self.last.max(at);
        self.frames += 1;
        at
    }

    /// The length of the round: to its last frame, and the mean distance of its frames beyond. A single frame lasts
    /// `interval_ns`.
    pub(super) const fn duration_ns(&self, interval_ns: u64) -> u64 {
        match self.frames {
            0 | 1 => interval_ns,
            n => self.last + self.last / (n - 1),
        }
    }
}

/// Point of time of frame `slot` in nanoseconds, without the error that adding up a rounded interval would make.
fn slot_ns(slot: u64, fps: u32) -> u64 {
    let ns = u128::from(slot) * 1_000_000_000 / u128::from(fps.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Pictures that come back from GStreamer to be drawn into again: no page is touched for the first time in every frame,
/// and what is black stays black.
#[derive(Debug)]
pub(super) struct PicturePool {
    home: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
}

impl PicturePool {
    pub(super) fn new() -> Self {
        let (home, spare) = sync_channel(SPARE_PICTURES);
        Self { home, spare }
    }

    /// A picture to draw into: used, or blank.
    pub(super) fn take(&self, scene: &Scene) -> Vec<u8> {
        let fits = |picture: &Vec<u8>| picture.len() == scene.picture_size();
        self.spare.try_recv().ok().filter(fits).unwrap_or_else(|| scene.blank())
    }

    /// A buffer with the picture in it, which finds its way back.
    pub(super) fn buffer(&self, picture: Vec<u8>) -> gst::Buffer {
        gst::Buffer::from_mut_slice(Lent { picture, home: self.home.clone() })
    }
}

/// A picture on loan to GStreamer.
struct Lent {
    picture: Vec<u8>,
    home: SyncSender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.picture
    }
}

impl AsMut<[u8]> for Lent {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.picture
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // A full pool, or one that is gone, needs no more pictures.
        let _ = self.home.try_send(std::mem::take(&mut self.picture));
    }
}

/// The caps of the scene's pictures.
pub(super) fn scene_caps(geometry: Geometry) -> gst::Caps {
    let whole = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", whole(geometry.width))
        .field("height", whole(geometry.height))
        .field("framerate", gst::Fraction::new(whole(geometry.fps), 1))
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .field("interlace-mode", "progressive")
        .field("colorimetry", "bt709")
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_drift() {
        assert_eq!(slot_ns(60 * 3600, 60), 3_600_000_000_000);
        assert_eq!(slot_ns(1, 60), 16_666_666);
    }

    #[test]
    fn a_round_lasts_one_interval_longer_than_its_last_frame() {
        let mut round = Round::default();
        assert_eq!([500, 540, 520, 560].map(|pts| round.handle(pts)), [0, 40, 20, 60]);
        assert_eq!(round.duration_ns(7), 80);
        assert_eq!(Round::default().duration_ns(7), 7);
    }

    #[test]
    fn pictures_come_back() {
        gst::init().unwrap();
        let scene = Scene::new(Geometry { width: 160, height: 90, fps: 30 }, 0).unwrap();
        let pool = PicturePool::new();
        let mut picture = pool.take(&scene);
        picture[0] = 77;
        drop(pool.buffer(picture));
        assert_eq!((pool.take(&scene)[0], pool.take(&scene)[0]), (77, 16));
    }
}
