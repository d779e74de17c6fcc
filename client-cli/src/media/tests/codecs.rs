//! Every codec, from the drawn picture to a decoder that is not ours.

use super::*;
use trocar_proto::media::rtp::Header;

const TINY: Geometry = Geometry { width: 320, height: 180, fps: 15 };

fn coded(codec: Codec) -> EncodeSettings {
    EncodeSettings { codec, bitrate_bps: 1_000_000, key_interval_frames: 8, ..EncodeSettings::default() }
}

/// Elements from RTP to pictures.
fn decoding(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "rtph264depay ! avdec_h264",
        Codec::H265 => "rtph265depay ! avdec_h265",
        Codec::Av1 => "rtpav1depay ! av1parse ! av1dec",
        Codec::Vp8 => "rtpvp8depay ! vp8dec",
        Codec::Vp9 => "rtpvp9depay ! vp9parse ! vp9dec",
        Codec::Raw => "rtpvrawdepay",
        Codec::J2k => "rtpj2kdepay ! jpeg2000parse ! openjpegdec",
        Codec::Opus => "rtpopusdepay ! opusdec",
    }
}

/// Caps of the packets as a receiver makes them from the feed's descriptor.
fn described(info: &SourceInfo) -> String {
    let fields: String =
        info.fmtp.split(';').filter_map(|f| f.split_once('=')).map(|(k, v)| format!(",{k}=(string)\"{v}\"")).collect();
    let name = info.codec.encoding_name().to_uppercase();
    format!(
        "application/x-rtp,media=video,encoding-name={name},payload=96,clock-rate={}{fields}",
        info.codec.clock_rate()
    )
}

/// Decoded pictures' planes, in `format`.
pub(super) fn decode_with(frames: &[Frame], info: &SourceInfo, format: &str) -> Vec<Vec<u8>> {
    let caps = described(info);
    let line = format!(
        "appsrc name=in format=time caps=\"{}\" ! {} ! videoconvert dither=none ! video/x-raw,format={format} ! appsink name=out \
         sync=false",
        caps.replace('"', "\\\""),
        decoding(info.codec)
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let appsrc = pipeline.by_name("in").unwrap().downcast::<app::AppSrc>().unwrap();
    let appsink = pipeline.by_name("out").unwrap().downcast::<app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for (i, frame) in frames.iter().enumerate() {
        for packet in &frame.packets {
            let mut buffer = gst::Buffer::from_slice(packet.clone());
            buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(i as u64 * 66));
            appsrc.push_buffer(buffer).unwrap();
        }
    }
    appsrc.end_of_stream().unwrap();
    let mut pictures = Vec::new();
    while let Ok(sample) = appsink.pull_sample() {
        pictures.push(sample.buffer().unwrap().map_readable().unwrap().to_vec());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    pictures
}

/// Frames of a source, and what it said of itself.
fn run(spec: &SourceSpec, settings: &EncodeSettings, count: usize) -> (SourceInfo, Vec<Frame>) {
    let (sink, frames) = collector();
    let prepared = prepare(spec, settings).unwrap();
    let info = prepared.info().clone();
    let mut running = prepared.start(sink).unwrap();
    wait_for(&frames, count);
    running.stop();
    let frames = frames.lock().unwrap().clone();
    (info, frames)
}

/// What holds for every codec: packets, a first frame that is independent, and a decoder that shows every picture.
fn check_codec(codec: Codec) -> (SourceInfo, Vec<Frame>) {
    let (info, frames) = run(&SourceSpec::Test(TINY), &coded(codec), 12);
    check_packets(&frames);
    assert_eq!(info.codec, codec);
    assert!(frames[0].key, "{codec:?}: the first frame is not marked independent");
    assert_eq!(decode_with(&frames, &info, "I420").len(), frames.len(), "{codec:?}");
    (info, frames)
}

/// A codec with key frames: one at least every eight, not each, and without the first nothing is shown.
fn check_key_frames(codec: Codec) {
    let (info, frames) = check_codec(codec);
    let keys = frames.iter().filter(|f| f.key).count();
    assert!((2..=4).contains(&keys), "{codec:?}: {keys} key frames of {}", frames.len());
    let second = frames.iter().skip(1).position(|f| f.key).unwrap() + 1;
    // The mark tells where a viewer may begin, and is right: from there everything is shown.
    assert_eq!(decode_with(&frames[second..], &info, "I420").len(), frames.len() - second, "{codec:?}");
    // The negative control: between two key frames nobody can begin.
    assert!(decode_with(&frames[1..second], &info, "I420").len() < second - 1, "{codec:?}");
}

#[test]
fn h264_begins_with_an_independent_frame_and_decodes() {
    check_key_frames(Codec::H264);
}

#[test]
fn h265_begins_with_an_independent_frame_and_decodes() {
    check_key_frames(Codec::H265);
}

#[test]
fn vp8_begins_with_an_independent_frame_and_decodes() {
    check_key_frames(Codec::Vp8);
}

#[test]
fn vp9_begins_with_an_independent_frame_and_decodes() {
    check_key_frames(Codec::Vp9);
}

#[test]
fn av1_begins_with_an_independent_frame_and_decodes() {
    check_key_frames(Codec::Av1);
}

#[test]
fn jpeg_2000_is_independent_in_every_frame_and_decodes() {
    let (_, frames) = check_codec(Codec::J2k);
    assert!(frames.iter().all(|f| f.key));
}

#[test]
fn encoders_give_a_key_frame_when_they_are_asked() {
    for codec in [Codec::H265, Codec::Vp8, Codec::Vp9] {
        let (sink, frames) = collector();
        let rare = EncodeSettings { key_interval_frames: 10_000, ..coded(codec) };
        let mut running = begin(&SourceSpec::Test(TINY), &rare, sink).unwrap();
        wait_for(&frames, 6);
        let asked_at = frames.lock().unwrap().len();
        assert!(running.request_key_frame());
        wait_for(&frames, asked_at + 8);
        running.stop();
        let frames = frames.lock().unwrap();
        assert!(frames[1..asked_at].iter().all(|f| !f.key), "{codec:?}: none without asking");
        assert!(frames[asked_at..].iter().any(|f| f.key), "{codec:?}: none after asking");
    }
}

#[test]
fn av1_gives_no_key_frame_when_it_is_asked_and_so_one_each_second() {
    let (sink, frames) = collector();
    let rare = EncodeSettings { key_interval_frames: 10_000, ..coded(Codec::Av1) };
    let prepared = prepare(&SourceSpec::Test(TINY), &rare).unwrap();
    assert!(!prepared.info().key_frames_on_request);
    let mut running = prepared.start(sink).unwrap();
    assert!(!running.request_key_frame());
    wait_for(&frames, 2 * TINY.fps as usize + 1);
    running.stop();
    let frames = frames.lock().unwrap();
    let bits = frames.iter().map(Frame::bytes).sum::<usize>() * 8 * TINY.fps as usize / frames.len();
    assert!(bits < 2_000_000, "{bits} bit/s of 1,000,000: what it is set to, with the key frames' overhead");
    let keys: Vec<_> = frames.iter().filter(|f| f.key).map(|f| f.frame_id).collect();
    assert!(keys.len() >= 3 && keys.windows(2).all(|w| w[1] - w[0] <= TINY.fps), "{keys:?}");
}

/// Ten bits: the payloads are the picture, byte for byte, and what the descriptor says is what the payloader says.
#[test]
fn uncompressed_ten_bit_pictures_come_back_bit_for_bit() {
    let line = "gst:videotestsrc is-live=true pattern=gradient ! video/x-raw,format=v210,width=192,height=108,\
                framerate=10/1,colorimetry=bt709";
    let (info, frames) = run(&line.parse().unwrap(), &coded(Codec::Raw), 4);
    check_packets(&frames);
    assert!(frames.iter().all(|f| f.key));
    assert_eq!(info.fmtp, "sampling=YCbCr-4:2:2;width=192;height=108;depth=10;colorimetry=BT709-2");
    assert_eq!(info.bits_per_second, 192 * 108 * 10 * 20 * 21 / 20);
    // Rows of 192 pixels have 480 bytes: RFC 4175 has the payload of every packet behind its headers.
    let bytes: usize = frames[0].packets.iter().map(|p| payload_4175(p).len()).sum();
    assert_eq!(bytes, 192 * 108 * 5 / 2);
    let came = decode_with(&frames, &info, "v210");
    let reference = reference_v210();
    assert_eq!(came.len(), frames.len());
    assert!(came.iter().all(|picture| *picture == reference), "a picture differs");
    // The negative control: one bit of one sample.
    let mut broken = frames.clone();
    let mut packet = broken[0].packets[0].to_vec();
    *packet.last_mut().unwrap() ^= 1;
    broken[0].packets[0] = packet.into();
    assert!(decode_with(&broken, &info, "v210")[0] != reference);
}

/// The samples of an RFC 4175 payload: two bytes of extended sequence number, line headers of six bytes up to the one
/// without the continuation bit.
fn payload_4175(packet: &Bytes) -> &[u8] {
    let header = Header::parse(packet).unwrap();
    let payload = header.payload(packet);
    let mut at = 2;
    while payload[at + 4] & 0x80 != 0 {
        at += 6;
    }
    &payload[at + 6..]
}

/// The gradient by the same element, without us.
fn reference_v210() -> Vec<u8> {
    let line = "videotestsrc num-buffers=1 pattern=gradient ! video/x-raw,format=v210,width=192,height=108,\
                framerate=10/1,colorimetry=bt709 ! appsink name=out";
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let appsink = pipeline.by_name("out").unwrap().downcast::<app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sample = appsink.pull_sample().unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
    sample.buffer().unwrap().map_readable().unwrap().to_vec()
}

/// A recording made by foreign elements.
fn recording(scratch: &Scratch, name: &str, coding: &str) -> PathBuf {
    elements::init().unwrap();
    let path = scratch.0.join(name);
    let line = format!(
        "videotestsrc num-buffers=24 ! video/x-raw,format=I420,width=320,height=180,framerate=25/1 ! {coding} ! \
         filesink name=out"
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("out").unwrap().set_property("location", &path);
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(end.unwrap().type_(), gst::MessageType::Eos);
    path
}

#[test]
fn recordings_of_every_codec_are_passed_through_and_decode() {
    let scratch = Scratch::new("codecs");
    let cases = [
        (
            Codec::H265,
            "x265enc key-int-max=8 tune=zerolatency speed-preset=ultrafast ! h265parse ! mp4mux",
            "level-id=",
        ),
        (Codec::Vp8, "vp8enc deadline=1 keyframe-max-dist=8 ! matroskamux", ""),
        (Codec::Vp9, "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=8 ! vp9parse ! matroskamux", "profile-id=0"),
        (
            Codec::Av1,
            "av1enc usage-profile=realtime cpu-used=10 keyframe-max-dist=8 lag-in-frames=0 ! av1parse ! mp4mux",
            "profile=0;level-idx=",
        ),
    ];
    for (codec, coding, fmtp) in cases {
        let path = recording(&scratch, &format!("{}.bin", codec.encoding_name()), coding);
        let spec = SourceSpec::File { path, looped: true, passthrough: true };
        let (info, frames) = run(&spec, &EncodeSettings::default(), 20);
        assert_eq!((info.codec, info.width, info.height, info.replay), (codec, 320, 180, true), "{info:?}");
        assert!(info.fmtp.starts_with(fmtp), "{info:?}");
        assert!((24.0..26.0).contains(&info.fps), "{info:?}");
        check_packets(&frames);
        assert!(frames[0].key && frames.iter().filter(|f| f.key).count() >= 2, "{codec:?}");
        assert_eq!(decode_with(&frames, &info, "I420").len(), frames.len(), "{codec:?}");
    }
}
