//! What drawing and encoding cost on this machine, and what size of picture that leaves room for.

use super::cpu::CpuMeter;
use super::elements;
use super::encoder::Encoder;
use super::error::MediaError;
use super::live::{PicturePool, scene_caps};
use super::running::Shared;
use super::scene::{Scene, Stamp};
use super::spec::{EncodeSettings, Geometry};
use std::time::{Duration, Instant};
use trocar_proto::units::WallMicros;

/// What is tried, best first.
const CANDIDATES: [Geometry; 4] = [
    Geometry { width: 3840, height: 2160, fps: 30 },
    Geometry { width: 1920, height: 1080, fps: 60 },
    Geometry { width: 1920, height: 1080, fps: 30 },
    Geometry { width: 1280, height: 720, fps: 30 },
];
/// Part of all cores that a source may use, in percent: relay and browser run here as well.
const SHARE_PERCENT: f64 = 55.0;
/// Size that is measured: cost goes with the number of pixels, and a larger one would take too long.
const PROBE: Geometry = Geometry { width: 1920, height: 1080, fps: 30 };
/// Frames that are measured, and after how long no more are begun.
const PROBE_FRAMES: u32 = 40;
const PROBE_TIME: Duration = Duration::from_millis(900);

/// CPU time of one frame in milliseconds, over all threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FrameCost {
    /// Drawing.
    pub(crate) scene_ms: f64,
    /// Drawing, encoding and packetising.
    pub(crate) total_ms: f64,
    /// Frames that were measured.
    pub(crate) frames: u32,
}

/// The largest of 2160p30, 1080p60, 1080p30 and 720p30 that uses at most 55 % of this machine's cores, by encoding for
/// about a second; the smallest where none does. Blocks for at most 1.5 s on an idle machine.
///
/// # Errors
/// [`MediaError`] where encoding does not work at all.
pub(crate) fn probe_largest_live_size() -> Result<Geometry, MediaError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
    let cost = measure_encoding(PROBE, &EncodeSettings::default(), PROBE_FRAMES, PROBE_TIME)?;
    let chosen = largest_that_fits(cost.total_ms, cores);
    tracing::info!(%chosen, cores, ms_per_1080p_frame = cost.total_ms, frames = cost.frames, "size of live pictures");
    Ok(chosen)
}

fn largest_that_fits(probe_ms: f64, cores: f64) -> Geometry {
    let ns_per_pixel = probe_ms * 1e6 / (f64::from(PROBE.width) * f64::from(PROBE.height));
    let fits = |g: &&Geometry| g.pixel_rate() as f64 * ns_per_pixel / 1e9 <= cores * SHARE_PERCENT / 100.0;
    let [.., smallest] = CANDIDATES;
    CANDIDATES.iter().find(fits).copied().unwrap_or(smallest)
}

/// Draws and encodes up to `frames` pictures as fast as it goes, beginning none after `limit`.
///
/// # Errors
/// [`MediaError`] where encoding does not work.
pub(crate) fn measure_encoding(
    geometry: Geometry,
    settings: &EncodeSettings,
    frames: u32,
    limit: Duration,
) -> Result<FrameCost, MediaError> {
    elements::require(&settings.codec.encoding_elements())?;
    let scene = Scene::new(geometry, 0)?;
    let (scene_ms, _) = measure_scene(&scene, geometry, frames.min(30))?;
    let (shared, mut events) = Shared::new();
    let meter = CpuMeter::start();
    let encoder = Encoder::start(&scene_caps(geometry), geometry, settings, Box::new(drop), &shared)?;
    let (pool, begin) = (PicturePool::new(), Instant::now());
    let mut done = 0;
    while done < frames && begin.elapsed() < limit && !shared.stopped() {
        let mut picture = pool.take(&scene);
        scene.draw(&mut picture, done, f64::from(done) / f64::from(geometry.fps), Stamp::Live(WallMicros(0)))?;
        encoder.push(pool.buffer(picture), u64::from(done) * geometry.interval_ns(), done, WallMicros(0))?;
        done += 1;
        while encoder.backlog() >= 2 && !shared.stopped() {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    encoder.drain();
    let total_ms = meter.elapsed_ms() / f64::from(done.max(1));
    if let Ok(super::running::SourceEvent::Error(error)) = events.try_recv() {
        return Err(error);
    }
    Ok(FrameCost { scene_ms, total_ms, frames: done })
}

/// CPU and wall milliseconds of drawing one frame, the mean of `frames`.
///
/// # Errors
/// [`MediaError::Size`].
pub(crate) fn measure_scene(scene: &Scene, geometry: Geometry, frames: u32) -> Result<(f64, f64), MediaError> {
    let mut pictures: Vec<_> = (0..3).map(|_| scene.blank()).collect();
    let (meter, begin) = (CpuMeter::start(), Instant::now());
    for (frame, i) in (0..frames).zip((0..pictures.len()).cycle()) {
        if let Some(picture) = pictures.get_mut(i) {
            scene.draw(picture, frame, f64::from(frame) / f64::from(geometry.fps), Stamp::Live(WallMicros(0)))?;
        }
    }
    let frames = f64::from(frames.max(1));
    Ok((meter.elapsed_ms() / frames, begin.elapsed().as_secs_f64() * 1e3 / frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_leaves_room_for_the_rest() {
        assert_eq!(largest_that_fits(12.0, 2.0), CANDIDATES[1]);
        assert_eq!(largest_that_fits(12.0, 4.0), CANDIDATES[0]);
        assert_eq!(largest_that_fits(25.0, 2.0), CANDIDATES[2]);
        assert_eq!(largest_that_fits(40.0, 1.0), CANDIDATES[3]);
        assert_eq!(largest_that_fits(400.0, 1.0), CANDIDATES[3]);
    }
}
