//! Sound: what is sent is what is heard.

use super::*;
use trocar_proto::media::rtp::Header;

/// Samples per second and channel.
const RATE: f64 = 48_000.0;

fn listen(spec: &AudioSpec, settings: AudioSettings, count: usize) -> (SourceInfo, Vec<Frame>) {
    let (sink, frames) = collector();
    let prepared = prepare_audio(spec, settings).unwrap();
    let info = prepared.info().clone();
    let mut running = prepared.start(sink).unwrap();
    wait_for(&frames, count);
    running.stop();
    let frames = frames.lock().unwrap().clone();
    (info, frames)
}

/// Decodes packets to the samples of the left channel.
fn hear(frames: &[Frame]) -> Vec<f64> {
    let line = "appsrc name=in format=time caps=application/x-rtp,media=audio,encoding-name=OPUS,payload=96,\
                clock-rate=48000 ! rtpopusdepay ! opusdec ! audioconvert ! audioresample ! \
                audio/x-raw,format=F32LE,rate=48000,channels=2,layout=interleaved ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let appsrc = pipeline.by_name("in").unwrap().downcast::<app::AppSrc>().unwrap();
    let appsink = pipeline.by_name("out").unwrap().downcast::<app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for (i, frame) in frames.iter().enumerate() {
        let mut buffer = gst::Buffer::from_slice(frame.packets[0].clone());
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(i as u64 * 20));
        appsrc.push_buffer(buffer).unwrap();
    }
    appsrc.end_of_stream().unwrap();
    let mut samples = Vec::new();
    while let Ok(sample) = appsink.pull_sample() {
        let map = sample.buffer_owned().unwrap().into_mapped_buffer_readable().unwrap();
        samples.extend(map.chunks_exact(8).map(|c| f64::from(f32::from_le_bytes([c[0], c[1], c[2], c[3]]))));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    samples
}

/// Part of the power that is at a frequency (Goertzel).
fn share_at(samples: &[f64], hz: f64) -> f64 {
    let w = 2.0 * std::f64::consts::PI * hz / RATE;
    let (mut re, mut im, mut power) = (0.0, 0.0, 0.0);
    for (n, s) in samples.iter().enumerate() {
        re += s * (w * n as f64).cos();
        im += s * (w * n as f64).sin();
        power += s * s;
    }
    2.0 * (re * re + im * im) / (samples.len() as f64 * power)
}

fn check_sound(frames: &[Frame], ticks: u32) {
    let mut next = sequence(&frames[0].packets[0]);
    for (i, frame) in frames.iter().enumerate() {
        assert_eq!((frame.frame_id as usize, frame.packets.len(), frame.key), (i, 1, true));
        assert_eq!(sequence(&frame.packets[0]), next);
        next = next.wrapping_add(1);
        let media = frame.rtp_timestamp.wrapping_sub(frames[0].rtp_timestamp);
        assert_eq!(media, u32::try_from(i).unwrap() * ticks, "packet {i}");
    }
}

#[test]
fn a_tone_comes_back_with_its_frequency_its_level_and_its_time() {
    for (frame_ms, ticks) in [(20, 960), (10, 480)] {
        let settings = AudioSettings { frame_ms, ..AudioSettings::default() };
        let (info, frames) = listen(&AudioSpec::Tone(1_000), settings, 50);
        assert_eq!((info.codec, info.width, info.bits_per_second), (Codec::Opus, 0, 64_000));
        check_sound(&frames, ticks);
        let samples = hear(&frames);
        let middle = &samples[samples.len() / 4..samples.len() / 4 + 9_600];
        assert!(share_at(middle, 1_000.0) > 0.95, "{}", share_at(middle, 1_000.0));
        // The negative control: it is that tone and no other.
        assert!(share_at(middle, 1_200.0) < 0.01);
        // A sine of a quarter of full scale is 15 dB below overload, and active.
        assert!(frames.iter().all(|f| f.audio_level == Some(0x80 | 15)), "{:?}", frames[9].audio_level);
        // Capture time follows media time.
        let (first, last) = (&frames[5], &frames[frames.len() - 1]);
        let media_us = i64::from(last.rtp_timestamp.wrapping_sub(first.rtp_timestamp)) * 1_000 / 48;
        let off = (last.capture.signed_since(first.capture) - media_us).abs();
        assert!(off < 20_000, "{off} µs");
    }
}

#[test]
fn the_sound_of_a_recording_loops_without_a_gap_in_its_numbers() {
    let scratch = Scratch::new("sound");
    let path = scratch.0.join("tone.mkv");
    let line = "audiotestsrc num-buffers=40 samplesperbuffer=480 freq=600 ! audio/x-raw,rate=48000,channels=1 ! \
                opusenc ! matroskamux ! filesink name=out";
    elements::init().unwrap();
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("out").unwrap().set_property("location", &path);
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(10), &[gst::MessageType::Eos]);
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(end.is_some());
    let begin = Instant::now();
    let (info, frames) = listen(&AudioSpec::File { path: path.clone(), looped: true }, AudioSettings::default(), 50);
    assert!(info.replay && begin.elapsed() > Duration::from_millis(700), "it is played in real time");
    check_sound(&frames, 960);
    assert!(share_at(&hear(&frames[5..15]), 600.0) > 0.9);
    // Once, it ends.
    let (sink, _frames) = collector();
    let mut running =
        prepare_audio(&AudioSpec::File { path, looped: false }, AudioSettings::default()).unwrap().start(sink).unwrap();
    let begin = Instant::now();
    while !running.is_over() && begin.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(running.try_event(), Some(SourceEvent::EndOfStream)));
}

#[test]
fn sound_packets_have_no_extension_and_leave_room_for_ours() {
    let (_, frames) = listen(&AudioSpec::Tone(440), AudioSettings::default(), 3);
    let header = Header::parse(&frames[0].packets[0]).unwrap();
    assert_eq!((header.payload_offset, header.payload_type), (12, PAYLOAD_TYPE));
    assert!(frames.iter().all(|f| f.packets[0].len() < 400));
}

#[test]
fn what_is_missing_is_said() {
    let scratch = Scratch::new("silence");
    let error = |spec: AudioSpec| prepare_audio(&spec, AudioSettings::default()).unwrap_err().to_string();
    let absent = error(AudioSpec::File { path: scratch.0.join("absent.wav"), looped: false });
    assert!(absent.starts_with("cannot open"), "{absent}");
    let silent = scratch.fixture(SMALL);
    let silent = error(AudioSpec::File { path: silent, looped: false });
    assert!(silent.contains("holds no sound"), "{silent}");
    let device = error(AudioSpec::Alsa(Some("no-such-device".to_owned())));
    assert!(device.starts_with("alsa:no-such-device") || device.contains("gstreamer1.0-alsa"), "{device}");
}
