//! Foreign encoders over UDP, SRT and RTSP: programs that share no code with us send, and their frames are forwarded.

use super::*;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// A foreign program that ends with the test.
pub(crate) struct Foreign(Child);

impl Foreign {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|e| panic!("{program}: {e}; `make setup` installs it")))
    }

    /// ffmpeg, encoding a test picture of 320x180 at 25 frames/s with a key frame every half second.
    pub(crate) fn ffmpeg(coding: &[&str], to: &str) -> Self {
        let picture = "testsrc=size=320x180:rate=25";
        let head = ["-loglevel", "error", "-re", "-f", "lavfi", "-i", picture, "-pix_fmt", "yuv420p", "-g", "12"];
        Self::start("ffmpeg", &[&head, coding, &[to]].concat())
    }

    fn gst_launch(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        Self::start("gst-launch-1.0", &[&["-q"], words.as_slice()].concat())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) const X264: [&str; 6] = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"];
const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1";

/// A UDP port of this machine that nobody uses.
pub(crate) fn free_port() -> u16 {
    // Below the ports that the system gives out, and by process: nobody takes it between here and its use.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let of_process = u16::try_from(std::process::id() % 1_500).unwrap() * 8;
    let port = || 20_000 + (of_process + NEXT.fetch_add(2, Ordering::Relaxed)) % 12_000;
    (0..6_000).map(|_| port()).find(|p| UdpSocket::bind(("127.0.0.1", *p)).is_ok()).unwrap()
}

/// Takes `count` frames of a stream and checks what every one of them is to be.
fn receive(source: &str, codec: Codec, count: usize) -> SourceInfo {
    let (sink, frames) = collector();
    let prepared = prepare(&source.parse().unwrap(), &EncodeSettings::default()).unwrap();
    let info = prepared.info().clone();
    assert_eq!((info.codec, info.width, info.height), (codec, 320, 180), "{info:?}");
    assert!(!info.replay && !info.key_frames_on_request && (24.0..31.0).contains(&info.fps), "{info:?}");
    let mut running = prepared.start(sink).unwrap();
    wait_for(&frames, count);
    running.stop();
    assert!(running.try_event().is_none(), "no error");
    let frames = frames.lock().unwrap().clone();
    check_packets(&frames);
    assert!(frames[0].key, "a viewer can begin with the first frame");
    assert!(
        (2..frames.len() / 4).contains(&frames.iter().filter(|f| f.key).count()),
        "key frames are marked, and only they"
    );
    assert_eq!(codecs::decode_with(&frames, &info, "I420").len(), frames.len());
    // It is live: 40 ms a frame, by arrival and by the media's own time.
    let (first, last) = (&frames[0], &frames[frames.len() - 1]);
    let wall_ms = last.capture.signed_since(first.capture) as f64 / 1e3;
    let media_ms = f64::from(last.rtp_timestamp.wrapping_sub(first.rtp_timestamp)) / 90.0;
    let expected = 40.0 * (frames.len() - 1) as f64;
    assert!((wall_ms - expected).abs() < 1_000.0, "{wall_ms} ms for {expected}");
    // A sender that starts on a busy machine is late with its first frames, and the two clocks are the two ends' own.
    assert!((media_ms - wall_ms).abs() < 400.0, "{media_ms} ms of media in {wall_ms}");
    info
}

#[test]
fn mpeg_ts_over_udp_is_forwarded() {
    let port = free_port();
    let to = format!("udp://127.0.0.1:{port}?pkt_size=1316");
    let _sender = Foreign::ffmpeg(&[&X264[..], &["-f", "mpegts"]].concat(), &to);
    let info = receive(&format!("udp://127.0.0.1:{port}"), Codec::H264, 30);
    assert!(info.fmtp.starts_with("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id="), "{info:?}");
}

#[test]
fn h265_in_mpeg_ts_over_udp_is_forwarded() {
    let port = free_port();
    let coding = ["-c:v", "libx265", "-preset", "ultrafast", "-tune", "zerolatency", "-x265-params", "log-level=error"];
    let to = format!("udp://127.0.0.1:{port}?pkt_size=1316");
    let _sender = Foreign::ffmpeg(&[&coding[..], &["-f", "mpegts"]].concat(), &to);
    let info = receive(&format!("udp://127.0.0.1:{port}"), Codec::H265, 30);
    assert!(info.fmtp.contains("profile-id=1;"), "{info:?}");
}

#[test]
fn rtp_over_udp_is_forwarded() {
    let port = free_port();
    let to = format!("rtp://127.0.0.1:{port}");
    let _sender = Foreign::ffmpeg(&[&X264[..], &["-f", "rtp"]].concat(), &to);
    receive(&format!("udp://127.0.0.1:{port}?format=rtp&codec=h264"), Codec::H264, 30);
}

#[test]
fn mpeg_ts_in_rtp_is_forwarded() {
    let port = free_port();
    let to = format!("rtp://127.0.0.1:{port}");
    let _sender = Foreign::ffmpeg(&[&X264[..], &["-f", "rtp_mpegts"]].concat(), &to);
    receive(&format!("udp://127.0.0.1:{port}?format=rtp&codec=mp2t"), Codec::H264, 30);
}

#[test]
fn vp8_over_rtp_is_forwarded() {
    let port = free_port();
    let _sender = Foreign::gst_launch(&format!(
        "{LIVE} ! vp8enc deadline=1 keyframe-max-dist=12 ! rtpvp8pay ! udpsink host=127.0.0.1 port={port}"
    ));
    receive(&format!("udp://127.0.0.1:{port}?format=rtp&codec=vp8"), Codec::Vp8, 30);
}

#[test]
fn srt_is_forwarded_whoever_calls() {
    let port = free_port();
    let called = Foreign::gst_launch(&format!(
        "{LIVE} ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=12 ! mpegtsmux alignment=7 ! \
         srtsink uri=srt://127.0.0.1:{port}?mode=listener wait-for-connection=false"
    ));
    receive_patiently(&format!("srt://127.0.0.1:{port}"));
    drop(called);
    let port = free_port();
    let inside = std::thread::spawn(move || receive(&format!("srt://127.0.0.1:{port}?mode=listener"), Codec::H264, 30));
    // ffmpeg gives up where nobody listens yet, so it is called until we do.
    let to = format!("srt://127.0.0.1:{port}?mode=caller");
    let begin = Instant::now();
    let mut caller = Foreign::ffmpeg(&[&X264[..], &["-f", "mpegts"]].concat(), &to);
    while !inside.is_finished() && begin.elapsed() < Duration::from_secs(30) {
        if caller.0.try_wait().unwrap().is_some() {
            caller = Foreign::ffmpeg(&[&X264[..], &["-f", "mpegts"]].concat(), &to);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    inside.join().unwrap();
}

/// A listener that is not up yet refuses the first calls, as a supervisor knows.
fn receive_patiently(source: &str) {
    let begin = Instant::now();
    while let Err(error) = prepare(&source.parse().unwrap(), &EncodeSettings::default()) {
        assert!(error.may_pass() && begin.elapsed() < Duration::from_secs(15), "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
    receive(source, Codec::H264, 30);
}

/// gst-rtsp-server, by its Python binding.
const RTSP_SERVER: &str = r#"
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer, GLib
Gst.init(None)
server = GstRtspServer.RTSPServer.new(); server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory.new()
factory.set_launch("( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=12 ! rtph264pay name=pay0 pt=96 "
    "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1 pt=97 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
GLib.MainLoop().run()
"#;

#[test]
fn rtsp_is_forwarded_and_its_sound_does_not_disturb() {
    let port = free_port().to_string();
    let _server = Foreign::start("/usr/bin/python3", &["-c", RTSP_SERVER, &port]);
    receive_patiently(&format!("rtsp://127.0.0.1:{port}/live"));
    let error = prepare(&format!("rtsp://127.0.0.1:{port}/nothing").parse().unwrap(), &EncodeSettings::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&format!("rtsp://127.0.0.1:{port}/nothing")) && error.contains("Not found"), "{error}");
}

#[test]
fn a_stream_with_a_video_that_is_not_forwarded_is_refused_by_its_name() {
    let port = free_port();
    let to = format!("udp://127.0.0.1:{port}?pkt_size=1316");
    let _sender = Foreign::ffmpeg(&["-c:v", "mpeg2video", "-f", "mpegts"], &to);
    let error = prepare(&format!("udp://127.0.0.1:{port}").parse().unwrap(), &EncodeSettings::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("video/mpeg") && error.contains("H.264"), "{error}");
}

#[test]
fn a_silent_address_is_named_and_may_be_tried_again() {
    let port = free_port();
    let begin = Instant::now();
    let error = prepare(&format!("udp://127.0.0.1:{port}").parse().unwrap(), &EncodeSettings::default()).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(error.to_string(), format!("udp://127.0.0.1:{port} gave nothing for 10 s"));
    assert!(error.may_pass());
}

#[test]
fn a_stream_that_falls_silent_is_reported_within_three_seconds() {
    let port = free_port();
    let to = format!("udp://127.0.0.1:{port}?pkt_size=1316");
    let sender = Foreign::ffmpeg(&[&X264[..], &["-f", "mpegts"]].concat(), &to);
    let (sink, frames) = collector();
    let spec = format!("udp://127.0.0.1:{port}").parse().unwrap();
    let mut running = begin(&spec, &EncodeSettings::default(), sink).unwrap();
    wait_for(&frames, 10);
    assert!(running.try_event().is_none(), "a stream that runs reports nothing");
    drop(sender);
    let silent = Instant::now();
    while !running.is_over() && silent.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(silent.elapsed() < Duration::from_secs(3), "{:?}", silent.elapsed());
    let Some(SourceEvent::Error(error)) = running.try_event() else { panic!("no error") };
    assert!(error.may_pass() && error.to_string().ends_with("gave nothing for 2 s"), "{error}");
}

#[test]
fn a_camera_is_encoded_with_the_time_of_its_pictures() {
    let line = "gst:videotestsrc is-live=true ! video/x-raw,format=YUY2,width=640,height=360,framerate=30/1";
    let (sink, frames) = collector();
    let sized = EncodeSettings { size: Some((320, 180)), ..settings(15) };
    let prepared = prepare(&line.parse().unwrap(), &sized).unwrap();
    let info = prepared.info().clone();
    assert_eq!((info.width, info.height, info.replay, info.key_frames_on_request), (320, 180, false, true));
    let mut running = prepared.start(sink).unwrap();
    wait_for(&frames, 40);
    running.stop();
    let frames = frames.lock().unwrap().clone();
    check_packets(&frames);
    assert_eq!(codecs::decode_with(&frames, &info, "I420").len(), frames.len());
    let (first, last) = (&frames[0], &frames[frames.len() - 1]);
    let wall_us = last.capture.signed_since(first.capture) as f64;
    let media_us = f64::from(last.rtp_timestamp.wrapping_sub(first.rtp_timestamp)) / 0.09;
    assert!((wall_us - media_us).abs() < 10_000.0, "{wall_us} against {media_us}");
}

#[test]
fn a_camera_that_is_unplugged_ends_with_a_reason_that_may_pass() {
    let line = "gst:videotestsrc is-live=true num-buffers=15 ! video/x-raw,width=320,height=180,framerate=30/1";
    let (sink, frames) = collector();
    let mut running = begin(&line.parse().unwrap(), &settings(15), sink).unwrap();
    wait_for(&frames, 10);
    let begin = Instant::now();
    while !running.is_over() && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let Some(SourceEvent::Error(error)) = running.try_event() else { panic!("no error") };
    assert!(error.may_pass() && error.to_string().ends_with("ended"), "{error}");
}
