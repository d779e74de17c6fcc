//! `trocar fixture`, and a source without a relay (`trocar source`): what they take and what they do.

use super::codec::Codec;
use super::cpu::CpuMeter;
use super::fixture::{FixtureSpec, make_fixture};
use super::measure::{measure_encoding, measure_scene, probe_largest_live_size};
use super::place::SourceSpec;
use super::scene::Scene;
use super::spec::{EncodeSettings, Geometry, Profile};
use super::{MediaError, SourceEvent};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Records the synthetic operating field into an MP4 file, to be published with `--source file:PATH`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FixtureArgs {
    /// The file to write.
    #[arg(required_unless_present = "measure")]
    pub(crate) path: Option<PathBuf>,
    /// WIDTHxHEIGHT@FPS.
    #[arg(long, default_value = "3840x2160@60")]
    pub(crate) size: Geometry,
    /// Length in seconds; multiples of 10 loop without a jump.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u32,
    /// Constant bit rate in Mbit/s.
    #[arg(long, default_value_t = 50.0)]
    pub(crate) mbps: f64,
    /// Frames from one key frame to the next, at most a second's worth; a second's worth when left out.
    #[arg(long)]
    pub(crate) key_interval: Option<u32>,
    /// Write nothing: print what drawing and encoding cost on this machine.
    #[arg(long)]
    pub(crate) measure: bool,
}

/// Runs a source without a relay, and prints what it delivers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SourceArgs {
    /// `test`, `test:1920x1080@60`, `file:PATH`, or any other source of `trocar publish`.
    pub(crate) source: SourceSpec,
    /// Codec of what is encoded.
    #[arg(long, value_enum, default_value_t = Codec::H264)]
    pub(crate) codec: Codec,
    /// Forward a file's video untouched.
    #[arg(long)]
    pub(crate) passthrough: bool,
    /// Bit rate of the encoder in Mbit/s.
    #[arg(long, default_value_t = 8.0)]
    pub(crate) mbps: f64,
    /// Profile of H.264.
    #[arg(long, value_enum, default_value_t = Profile::ConstrainedBaseline)]
    pub(crate) profile: Profile,
    /// How long, in seconds.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
}

/// Does what `trocar fixture` was asked for; progress goes to standard error.
///
/// # Errors
/// Those of [`make_fixture`].
pub(crate) fn run_fixture(args: &FixtureArgs) -> Result<(), MediaError> {
    let path = match &args.path {
        Some(path) if !args.measure => path.clone(),
        _ => return print_costs(args.size),
    };
    let spec = FixtureSpec {
        path,
        geometry: args.size,
        seconds: args.seconds,
        bitrate_bps: bits(args.mbps),
        key_interval_frames: args.key_interval.unwrap_or(args.size.fps),
    };
    let (begin, mut told) = (Instant::now(), Instant::now());
    make_fixture(&spec, &mut |done, total| {
        if told.elapsed() > Duration::from_secs(1) || done == total {
            told = Instant::now();
            eprintln!("fixture: {done} of {total} frames after {:.1} s", begin.elapsed().as_secs_f64());
        }
    })?;
    let bytes = std::fs::metadata(&spec.path).map_or(0, |m| m.len());
    let rate = bytes as f64 * 8.0 / f64::from(spec.seconds.max(1)) / 1e6;
    println!("{}: {} for {} s, {rate:.2} Mbit/s", spec.path.display(), spec.geometry, spec.seconds);
    Ok(())
}

fn print_costs(geometry: Geometry) -> Result<(), MediaError> {
    let begin = Instant::now();
    let scene = Scene::new(geometry, 0)?;
    println!("{geometry}: the wall is drawn in {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    for (name, scene) in [("", scene), (" with grain", Scene::new(geometry, 3)?)] {
        let (cpu, wall) = measure_scene(&scene, geometry, 300)?;
        println!("{geometry}: a frame{name} is drawn in {cpu:.2} CPU-ms ({wall:.2} ms)");
    }
    let cost = measure_encoding(geometry, &EncodeSettings::default(), 60, Duration::from_secs(10))?;
    println!("{geometry}: drawing, encoding and packetising take {:.1} CPU-ms a frame", cost.total_ms);
    let begin = Instant::now();
    let chosen = probe_largest_live_size()?;
    println!("largest live size here: {chosen} (found in {:.2} s)", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a source for its time and prints frames, bit rate, delay and CPU time.
///
/// # Errors
/// Those of [`super::prepare`], and what stopped the source.
pub(crate) fn run_source(args: &SourceArgs) -> Result<(), MediaError> {
    let spec = args.source.clone().with_file_options(true, args.passthrough);
    let (bitrate_bps, profile, codec) = (bits(args.mbps), args.profile, args.codec);
    let settings = EncodeSettings { bitrate_bps, profile, codec, ..EncodeSettings::default() };
    let begin = Instant::now();
    let prepared = super::prepare(&spec, &settings)?;
    println!("{:?}, ready after {:.2} s", prepared.info(), begin.elapsed().as_secs_f64());
    let ages = Arc::new(Mutex::new(Vec::new()));
    let (inside, meter) = (Arc::clone(&ages), CpuMeter::start());
    let mut running = prepared.start(Box::new(move |frame| {
        let age = super::clock::wall_now().signed_since(frame.capture);
        inside.lock().unwrap_or_else(PoisonError::into_inner).push((age, frame.bytes()));
    }))?;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < args.seconds && !running.is_over() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (seconds, stats) = (begin.elapsed().as_secs_f64(), running.stats());
    let cpu = meter.elapsed_ms() / stats.frames.max(1) as f64;
    running.stop();
    while let Some(event) = running.try_event() {
        match event {
            SourceEvent::Error(error) => return Err(error),
            other => println!("{other:?}"),
        }
    }
    let mut ages = ages.lock().unwrap_or_else(PoisonError::into_inner);
    ages.sort_unstable();
    let age = |percent: usize| ages.get(ages.len().saturating_sub(1) * percent / 100).map_or(0.0, |a| a.0 as f64 / 1e3);
    let largest = ages.iter().map(|a| a.1).max().unwrap_or(0);
    println!("{stats:?}");
    println!(
        "{:.1} frames/s, {:.2} Mbit/s, largest frame {largest} B, capture to packets {:.1} ms (median) {:.1} ms (99 %), \
         {cpu:.2} CPU-ms a frame",
        stats.frames as f64 / seconds,
        stats.bytes as f64 * 8.0 / seconds / 1e6,
        age(50),
        age(99),
    );
    Ok(())
}

fn bits(mbps: f64) -> u32 {
    // Saturating: a negative or absurd rate becomes the nearest that can be asked for.
    (mbps * 1e6) as u32
}
