//! The whole way: pictures in, packets out, and pictures again by an independent decoder.

use super::fixture::{FixtureSpec, make_fixture};
use super::frame::FrameSink;
use super::spec::Profile;
use super::*;
use bytes::Bytes;
use gstreamer as gst;
use gstreamer_app as app;
use gstreamer_video::prelude::*;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use trocar_proto::media::pixelmark;
use trocar_proto::units::WallMicros;

mod audio;
mod codecs;
pub(crate) mod network;

const SMALL: Geometry = Geometry { width: 640, height: 360, fps: 30 };

fn begin(spec: &SourceSpec, settings: &EncodeSettings, sink: FrameSink) -> Result<Running, MediaError> {
    prepare(spec, settings)?.start(sink)
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trocar-media-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// One second of the field.
    fn fixture(&self, geometry: Geometry) -> PathBuf {
        let path = self.0.join("field.mp4");
        let spec =
            FixtureSpec { path: path.clone(), geometry, seconds: 1, bitrate_bps: 1_500_000, key_interval_frames: 10 };
        make_fixture(&spec, &mut |_, _| {}).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(key_interval_frames: u32) -> EncodeSettings {
    EncodeSettings { bitrate_bps: 2_000_000, key_interval_frames, ..EncodeSettings::default() }
}

fn collector() -> (FrameSink, Arc<Mutex<Vec<Frame>>>) {
    let frames = Arc::new(Mutex::new(Vec::new()));
    let inside = Arc::clone(&frames);
    (Box::new(move |frame| inside.lock().unwrap().push(frame)), frames)
}

/// Waits until there are `count` frames; fails after ten seconds.
fn wait_for(frames: &Mutex<Vec<Frame>>, count: usize) {
    let begin = Instant::now();
    while frames.lock().unwrap().len() < count {
        assert!(begin.elapsed() < Duration::from_secs(10), "{} of {count} frames", frames.lock().unwrap().len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the marks in the decoded pictures say.
fn decode(frames: &[Frame], height: u32) -> Vec<(u32, WallMicros)> {
    gst::init().unwrap();
    let description = "appsrc name=in format=time caps=application/x-rtp,media=video,encoding-name=H264,payload=96,\
                       clock-rate=90000 ! rtph264depay ! avdec_h264 ! videoconvert ! video/x-raw,format=I420 ! \
                       appsink name=out sync=false";
    let pipeline = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let appsrc = pipeline.by_name("in").unwrap().downcast::<app::AppSrc>().unwrap();
    let appsink = pipeline.by_name("out").unwrap().downcast::<app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for packet in frames.iter().flat_map(|f| &f.packets) {
        appsrc.push_buffer(gst::Buffer::from_slice(packet.clone())).unwrap();
    }
    appsrc.end_of_stream().unwrap();
    let layout = pixelmark::Layout::for_height(height).unwrap();
    let mut marks = Vec::new();
    while let Ok(sample) = appsink.pull_sample() {
        let info = gstreamer_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let picture = gstreamer_video::VideoFrame::from_buffer_readable(sample.buffer_owned().unwrap(), &info).unwrap();
        let stride = usize::try_from(picture.plane_stride()[0]).unwrap();
        let rows = layout.read(picture.plane_data(0).unwrap(), stride).unwrap();
        marks.push(pixelmark::decode(rows).unwrap());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    marks
}

fn sequence(packet: &Bytes) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

fn timestamp(packet: &Bytes) -> u32 {
    u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
}

/// Everything of a packet that is the same in each round.
fn lasting(packet: &Bytes) -> Vec<u8> {
    [&packet[..2], &packet[8..]].concat()
}

/// Packet sizes, markers, one timestamp a frame, sequence numbers without a gap, frame ids that rise by one.
fn check_packets(frames: &[Frame]) {
    let mut next = sequence(&frames[0].packets[0]);
    for (i, frame) in frames.iter().enumerate() {
        assert_eq!(frame.frame_id as usize, i);
        for (n, packet) in frame.packets.iter().enumerate() {
            let last = n + 1 == frame.packets.len();
            assert!(packet.len() <= MTU as usize, "{} bytes", packet.len());
            assert_eq!(packet[1], PAYLOAD_TYPE | if last { 0x80 } else { 0 }, "frame {i}, packet {n}");
            assert_eq!(timestamp(packet), frame.rtp_timestamp);
            assert_eq!(sequence(packet), next, "frame {i}, packet {n}");
            next = next.wrapping_add(1);
        }
    }
}

#[test]
fn what_is_drawn_comes_back_from_a_decoder_with_its_capture_time() {
    let (sink, frames) = collector();
    let prepared = prepare(&SourceSpec::Test(SMALL), &settings(10)).unwrap();
    assert_eq!(prepared.info().fmtp, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42c01e");
    let mut running = prepared.start(sink).unwrap();
    wait_for(&frames, 25);
    running.stop();
    let frames = frames.lock().unwrap();
    check_packets(&frames);
    assert!(frames[0].key && frames.iter().filter(|f| f.key).count() >= 3);
    for (mark, frame) in decode(&frames, SMALL.height).into_iter().zip(frames.iter()) {
        assert_eq!(mark.0, frame.frame_id);
        let off = mark.1.signed_since(frame.capture).abs();
        assert!(off < 2_000, "frame {}: {off} µs", frame.frame_id);
    }
    // Media time follows capture time.
    let (first, last) = (&frames[0], &frames[frames.len() - 1]);
    let media_us = f64::from(last.rtp_timestamp.wrapping_sub(first.rtp_timestamp)) / 0.09;
    let wall_us = last.capture.signed_since(first.capture) as f64;
    assert!((media_us - wall_us).abs() < 2_000.0, "{media_us} against {wall_us}");
    let stats = running.stats();
    assert_eq!(stats.frames as usize, frames.len());
    assert_eq!(stats.packets as usize, frames.iter().map(|f| f.packets.len()).sum::<usize>());
}

#[test]
fn every_decoded_frame_is_accounted_for() {
    let (sink, frames) = collector();
    let mut running = begin(&SourceSpec::Test(SMALL), &settings(1000), sink).unwrap();
    wait_for(&frames, 12);
    running.stop();
    let frames = frames.lock().unwrap();
    assert_eq!(decode(&frames, SMALL.height).len(), frames.len());
    // The negative control: without its key frame nothing can be decoded.
    assert_eq!(decode(&frames[1..], SMALL.height).len(), 0);
}

#[test]
fn a_key_frame_comes_soon_after_it_is_asked_for() {
    let (sink, frames) = collector();
    let main = EncodeSettings { profile: Profile::Main, ..settings(10_000) };
    let mut running = begin(&SourceSpec::Test(SMALL), &main, sink).unwrap();
    wait_for(&frames, 10);
    let asked_at = frames.lock().unwrap().len();
    assert!(running.request_key_frame());
    wait_for(&frames, asked_at + 10);
    running.stop();
    assert!(!running.request_key_frame());
    let frames = frames.lock().unwrap();
    assert!(frames[1..asked_at].iter().all(|f| !f.key), "none without asking");
    let key = frames[asked_at..asked_at + 10].iter().find(|f| f.key).unwrap();
    let kinds: Vec<u8> = key.packets[0][12..].iter().take(1).map(|b| b & 0x1f).collect();
    assert_eq!(kinds, [24], "parameter sets come first, aggregated");
}

#[test]
fn a_passed_through_recording_loops_without_a_gap() {
    let scratch = Scratch::new("loop");
    let path = scratch.fixture(SMALL);
    let (sink, frames) = collector();
    let spec = SourceSpec::File { path, looped: true, passthrough: true };
    let prepared = prepare(&spec, &EncodeSettings::default()).unwrap();
    let info = prepared.info().clone();
    assert_eq!((info.width, info.height, info.replay), (640, 360, true));
    assert!(info.fmtp.contains("profile-level-id=42c0") && (29.0..31.0).contains(&info.fps), "{info:?}");
    assert!((1_400_000..1_700_000).contains(&info.bits_per_second), "{info:?}");
    let begin = Instant::now();
    let mut running = prepared.start(sink).unwrap();
    wait_for(&frames, 65);
    assert!(begin.elapsed() > Duration::from_millis(2_050), "it is played in real time");
    assert!(!running.request_key_frame());
    running.stop();
    assert!(matches!(running.try_event(), Some(SourceEvent::Restarted { rounds: 1 })));
    let frames = frames.lock().unwrap();
    check_packets(&frames);
    for (i, frame) in frames.iter().enumerate() {
        let media = frame.rtp_timestamp.wrapping_sub(frames[0].rtp_timestamp);
        assert!(media.abs_diff(u32::try_from(i).unwrap() * 3_000) <= 2, "frame {i} at {media}");
        assert_eq!(frame.key, i % 10 == 0, "frame {i}");
        let original: Vec<_> = frames[i % 30].packets.iter().map(lasting).collect();
        assert!(frame.packets.iter().map(lasting).collect::<Vec<_>>() == original, "frame {i} differs");
    }
    let counters: Vec<u32> = decode(&frames, SMALL.height).iter().map(|m| m.0).collect();
    assert_eq!(counters, (0..frames.len()).map(|i| u32::try_from(i % 30).unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_decoded_recording_is_encoded_again_and_ends() {
    let scratch = Scratch::new("decoded");
    let path = scratch.fixture(SMALL);
    let (sink, frames) = collector();
    let scaled = EncodeSettings { size: Some((480, 270)), ..settings(100) };
    let prepared = prepare(&SourceSpec::File { path, looped: false, passthrough: false }, &scaled).unwrap();
    assert_eq!((prepared.info().width, prepared.info().height, prepared.info().replay), (480, 270, true));
    let mut running = prepared.start(sink).unwrap();
    let begin = Instant::now();
    while !running.is_over() && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(running.try_event(), Some(SourceEvent::EndOfStream)));
    let (frames, stats) = (frames.lock().unwrap(), running.stats());
    check_packets(&frames);
    assert_eq!(frames.len() as u64 + stats.skipped, 30, "{stats:?}");
    let marks = decode(&frames, 270);
    assert_eq!(marks.len(), frames.len());
    assert!(marks.windows(2).all(|w| w[0].0 < w[1].0) && marks.iter().all(|m| m.1 == WallMicros(0)));
}

#[test]
fn a_decoded_recording_loops() {
    let scratch = Scratch::new("again");
    let path = scratch.fixture(Geometry { fps: 60, ..SMALL });
    let (sink, frames) = collector();
    let spec = SourceSpec::File { path, looped: true, passthrough: false };
    let mut running = begin(&spec, &settings(100), sink).unwrap();
    wait_for(&frames, 65);
    running.stop();
    assert_eq!(running.stats().rounds, 1);
    check_packets(&frames.lock().unwrap());
}

#[test]
fn a_fixture_has_the_bit_rate_that_was_asked_for_and_no_leftovers() {
    let scratch = Scratch::new("rate");
    let path = scratch.0.join("rate.mp4");
    let geometry = Geometry { width: 640, height: 360, fps: 60 };
    let spec =
        FixtureSpec { path: path.clone(), geometry, seconds: 2, bitrate_bps: 4_000_000, key_interval_frames: 1_000 };
    let mut told = Vec::new();
    make_fixture(&spec, &mut |done, total| told.push((done, total))).unwrap();
    assert_eq!((told.len(), told.last()), (120, Some(&(120, 120))));
    let bits = std::fs::metadata(&path).unwrap().len() as f64 * 8.0 / 2.0;
    assert!((3.8e6..4.2e6).contains(&bits), "{bits} bit/s");
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 1);
}

#[test]
fn errors_say_what_is_missing() {
    let scratch = Scratch::new("errors");
    let text = |path: PathBuf, passthrough| {
        let spec = SourceSpec::File { path, looped: true, passthrough };
        prepare(&spec, &EncodeSettings::default()).unwrap_err().to_string()
    };
    let absent = scratch.0.join("absent.mp4");
    let words = scratch.0.join("words.mp4");
    std::fs::write(&words, "there is no picture in these words").unwrap();
    for passthrough in [false, true] {
        let error = text(absent.clone(), passthrough);
        assert!(error.starts_with("cannot open") && error.contains("absent.mp4"), "{error}");
        let error = text(words.clone(), passthrough);
        assert!(error.ends_with("words.mp4 holds no video that GStreamer can find"), "{error}");
        let error = text(scratch.0.clone(), passthrough);
        assert!(error.contains("is a directory"), "{error}");
    }
    let path = scratch.0.join("no/such/folder/field.mp4");
    let small = FixtureSpec { path, geometry: SMALL, seconds: 1, bitrate_bps: 1_000_000, key_interval_frames: 30 };
    let error = make_fixture(&small, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.starts_with("cannot write") && error.contains("no/such/folder"), "{error}");
}

#[test]
fn passthrough_refuses_what_is_not_forwarded() {
    gst::init().unwrap();
    let scratch = Scratch::new("jpeg");
    let path = scratch.0.join("motion.mkv");
    let line =
        "videotestsrc num-buffers=5 ! video/x-raw,width=320,height=240 ! jpegenc ! matroskamux ! filesink name=out";
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("out").unwrap().set_property("location", &path);
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(5), &[gst::MessageType::Eos]);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(end.is_some());
    let spec = SourceSpec::File { path, looped: true, passthrough: true };
    let error = prepare(&spec, &EncodeSettings::default()).unwrap_err().to_string();
    assert!(error.contains("holds image/jpeg: leave --passthrough away"), "{error}");
    // The same file is fine when it is decoded.
    assert!(prepare(&spec.with_file_options(true, false), &EncodeSettings::default()).is_ok());
}
