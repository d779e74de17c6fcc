//! Sound: a tone, a microphone or a recording, as Opus in RTP (RFC 7587).

use super::clock::wall_now;
use super::codec::Codec;
use super::decoder::{file_source, preroll};
use super::elements::{self, Playing, chain, make};
use super::encoder::{packets, rtp_sink};
use super::error::MediaError;
use super::frame::{Assembler, Frame, FrameSink};
use super::raw::Raw;
use super::running::Shared;
use super::{MTU, PAYLOAD_TYPE};
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use trocar_proto::units::WallMicros;

/// Samples per second and channel.
const RATE: i32 = 48_000;
/// Frequency of `tone` in Hz where none is named.
const TONE_HZ: u32 = 440;
/// Seconds in which a device must give its first packet.
const FIRST_PACKET_S: u64 = 5;
/// Seconds without a packet after which a device is given up and opened again.
const SILENCE_S: u64 = 2;
/// Louder than this, in decibels below overload, counts as activity: a threshold, it does not know voices.
const ACTIVE_ABOVE_DB: u8 = 50;
/// Loss that Opus's own redundancy is made for, in percent.
const EXPECTED_LOSS: i32 = 5;

/// Where the sound comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AudioSpec {
    /// A sine of so many Hz.
    Tone(u32),
    /// An ALSA device, or the default one.
    Alsa(Option<String>),
    /// A PulseAudio (or PipeWire) source, or the default one.
    Pulse(Option<String>),
    /// The sound of a recording, played in real time.
    File {
        /// Anything that GStreamer can decode.
        path: PathBuf,
        /// Begin again at the end.
        looped: bool,
    },
}

/// How sound is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AudioSettings {
    /// Bits per second, 6,000 to 510,000.
    pub(crate) bitrate_bps: u32,
    /// Milliseconds of sound in a packet, 10 or 20.
    pub(crate) frame_ms: u32,
}

impl Default for AudioSettings {
    /// 64 kbit/s, 20 ms.
    fn default() -> Self {
        Self { bitrate_bps: 64_000, frame_ms: 20 }
    }
}

impl FromStr for AudioSpec {
    type Err = MediaError;

    /// `tone`, `tone:440`, `alsa`, `alsa:DEVICE`, `pulse`, `pulse:DEVICE` or `file:PATH` (looped).
    fn from_str(s: &str) -> Result<Self, MediaError> {
        let bad = |reason| Err(MediaError::Audio { given: s.to_owned(), reason });
        match s.split_once(':') {
            None if s == "tone" => Ok(Self::Tone(TONE_HZ)),
            Some(("tone", hz)) => match hz.parse() {
                Ok(hz @ 20..=20_000) => Ok(Self::Tone(hz)),
                _ => bad("a tone has 20 to 20000 Hz"),
            },
            None if s == "alsa" => Ok(Self::Alsa(None)),
            None if s == "pulse" => Ok(Self::Pulse(None)),
            Some(("alsa" | "pulse" | "file", "")) => bad("a name is missing after the colon"),
            Some(("alsa", device)) => Ok(Self::Alsa(Some(device.to_owned()))),
            Some(("pulse", device)) => Ok(Self::Pulse(Some(device.to_owned()))),
            Some(("file", path)) => Ok(Self::File { path: PathBuf::from(path), looped: true }),
            _ => bad("no such kind of sound"),
        }
    }
}

impl std::fmt::Display for AudioSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let device = |d: &Option<String>| d.as_ref().map(|d| format!(":{d}")).unwrap_or_default();
        match self {
            Self::Tone(hz) => write!(f, "tone:{hz}"),
            Self::Alsa(d) => write!(f, "alsa{}", device(d)),
            Self::Pulse(d) => write!(f, "pulse{}", device(d)),
            Self::File { path, .. } => write!(f, "file:{}", path.display()),
        }
    }
}

/// What the streaming thread needs and the owner puts in.
type Outlet = Arc<Mutex<Option<(FrameSink, Arc<Shared>)>>>;

/// Sound that is ready: a device that already gives packets, or a recording at its beginning.
#[derive(Debug)]
pub(super) struct Sound {
    name: String,
    playing: Option<Playing>,
    /// A recording that waits for its start.
    waiting: Option<gst::Pipeline>,
    outlet: OutletHandle,
    looped: bool,
    /// Packets that came.
    came: Arc<AtomicU64>,
}

/// An [`Outlet`] with a `Debug` that has nothing to show.
struct OutletHandle(Outlet);

impl std::fmt::Debug for OutletHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlet")
    }
}

impl Sound {
    /// Opens a device and waits for its first packet, or a recording and decodes its beginning.
    ///
    /// # Errors
    /// [`MediaError`] with what is missing.
    pub(super) fn open(spec: &AudioSpec, settings: AudioSettings) -> Result<Self, MediaError> {
        elements::require(&["audioconvert", "audioresample", "opusenc", "rtpopuspay", "appsink"])?;
        let (name, pipeline) = (spec.to_string(), gst::Pipeline::new());
        let of_file = matches!(spec, AudioSpec::File { .. });
        let (head, appsink, level) = encoding(&pipeline, settings, of_file)?;
        let outlet: Outlet = Arc::default();
        let came = Arc::new(AtomicU64::new(0));
        deliver(&appsink, Arc::clone(&outlet), level, Arc::clone(&came), of_file.then_some(settings.frame_ms));
        let sound = |playing, waiting, looped| {
            let (outlet, came) = (OutletHandle(outlet), Arc::clone(&came));
            Self { name: name.clone(), playing, waiting, outlet, looped, came }
        };
        if let AudioSpec::File { path, looped } = spec {
            let (source, decode) = (file_source(path)?, make("decodebin")?);
            chain(&pipeline, &[&source, &decode])?;
            link_sound(&decode, &head);
            let linked = || head.static_pad("sink").is_some_and(|s| s.is_linked());
            preroll(&pipeline, path, linked, || None).map_err(|e| match e {
                MediaError::NoVideo { path } => MediaError::NoSound { path },
                other => other,
            })?;
            return Ok(sound(None, Some(pipeline), *looped));
        }
        let source = source(spec)?;
        pipeline.add(&source).map_err(|e| MediaError::pipeline("pipeline", e))?;
        source.link(&head).map_err(|e| MediaError::pipeline("link", e))?;
        let playing = Playing::start(pipeline);
        let deadline = Instant::now() + Duration::from_secs(FIRST_PACKET_S);
        while came.load(Ordering::Relaxed) == 0 {
            playing.check(&name)?;
            if Instant::now() > deadline {
                return Err(MediaError::Stalled { step: name, seconds: FIRST_PACKET_S });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(sound(Some(playing), None, false))
    }

    /// Hands packets over until it is stopped, or a recording is over.
    ///
    /// # Errors
    /// [`MediaError`] where the device fails or gives nothing for [`SILENCE_S`].
    pub(super) fn run(&mut self, sink: FrameSink, shared: &Arc<Shared>) -> Result<(), MediaError> {
        *lock(&self.outlet.0) = Some((sink, Arc::clone(shared)));
        let recording = self.waiting.is_some();
        let playing = match (self.playing.take(), self.waiting.take()) {
            (Some(playing), _) => playing,
            (None, Some(pipeline)) => Playing::start(pipeline),
            (None, None) => return Ok(()),
        };
        let (mut seen, mut heard) = (0, Instant::now());
        while !shared.stopped() {
            match playing.check(&self.name) {
                Err(MediaError::Ended { .. }) if self.looped => {
                    playing.rewind(&self.name)?;
                    shared.restarted();
                }
                Err(MediaError::Ended { .. }) if recording => break,
                other => other?,
            }
            let came = self.came.load(Ordering::Relaxed);
            if came != seen {
                (seen, heard) = (came, Instant::now());
            } else if heard.elapsed() > Duration::from_secs(SILENCE_S) {
                return Err(MediaError::Stalled { step: self.name.clone(), seconds: SILENCE_S });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Nothing is handed over after this returns.
        *lock(&self.outlet.0) = None;
        Ok(())
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        if let Some(pipeline) = &self.waiting {
            let _ = pipeline.set_state(gst::State::Null);
        }
    }
}

fn lock(outlet: &Outlet) -> std::sync::MutexGuard<'_, Option<(FrameSink, Arc<Shared>)>> {
    outlet.lock().unwrap_or_else(PoisonError::into_inner)
}

fn source(spec: &AudioSpec) -> Result<gst::Element, MediaError> {
    let device = |element: &'static str, device: &Option<String>| {
        elements::require(&[element])?;
        let source = make(element)?;
        if let Some(device) = device {
            source.set_property("device", device);
        }
        // Microseconds: a device's usual fifth of a second would be most of the age of a voice.
        source.set_property("buffer-time", 40_000_i64);
        source.set_property("latency-time", 10_000_i64);
        Ok(source)
    };
    match spec {
        AudioSpec::Alsa(name) => device("alsasrc", name),
        AudioSpec::Pulse(name) => device("pulsesrc", name),
        AudioSpec::Tone(hz) => {
            elements::require(&["audiotestsrc"])?;
            let source = make("audiotestsrc")?;
            source.set_property("is-live", true);
            source.set_property("freq", f64::from(*hz));
            source.set_property("volume", 0.25_f64);
            source.set_property("samplesperbuffer", RATE / 100);
            Ok(source)
        }
        // A recording has its own way.
        AudioSpec::File { .. } => make("fakesrc"),
    }
}

/// `audioconvert ! audioresample ! opusenc ! rtpopuspay ! appsink`; gives its head, its sink and the level of the sound.
fn encoding(
    pipeline: &gst::Pipeline,
    settings: AudioSettings,
    in_real_time: bool,
) -> Result<(gst::Element, app::AppSink, Arc<AtomicU8>), MediaError> {
    let (convert, resample, filter) = (make("audioconvert")?, make("audioresample")?, make("capsfilter")?);
    let caps = gst::Caps::builder("audio/x-raw").field("format", "S16LE").field("layout", "interleaved");
    filter.set_property("caps", caps.field("rate", RATE).field("channels", 2_i32).build());
    let encode = make("opusenc")?;
    encode.set_property("bitrate", i32::try_from(settings.bitrate_bps).unwrap_or(64_000));
    encode.set_property_from_str("frame-size", if settings.frame_ms == 10 { "10" } else { "20" });
    encode.set_property("inband-fec", true);
    encode.set_property("packet-loss-percentage", EXPECTED_LOSS);
    let pay = make("rtpopuspay")?;
    pay.set_property("mtu", MTU);
    pay.set_property("pt", u32::from(PAYLOAD_TYPE));
    let appsink = rtp_sink();
    appsink.set_sync(in_real_time);
    chain(pipeline, &[&convert, &resample, &filter, &encode, &pay, appsink.upcast_ref()])?;
    let level = Arc::new(AtomicU8::new(127));
    if let Some(pad) = encode.static_pad("sink") {
        let inside = Arc::clone(&level);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(map) = info.buffer().and_then(|b| b.map_readable().ok()) {
                inside.store(level_of(&map), Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
    }
    Ok((convert, appsink, level))
}

fn link_sound(decode: &gst::Element, head: &gst::Element) {
    let sink = head.static_pad("sink");
    decode.connect_pad_added(move |_, pad| {
        let sound = pad.current_caps().is_some_and(|c| c.structure(0).is_some_and(|s| s.name().starts_with("audio/")));
        if let Some(sink) = sink.as_ref().filter(|s| sound && !s.is_linked()) {
            // Where it does not link, no packet comes, and that is reported.
            let _ = pad.link(sink);
        }
    });
}

/// The byte of the audio level extension for 16 bit samples: decibels below overload, with the activity flag on top.
fn level_of(samples: &[u8]) -> u8 {
    let (pairs, _) = samples.as_chunks::<2>();
    let square: f64 = pairs.iter().map(|p| f64::from(i16::from_le_bytes(*p)).powi(2)).sum();
    let rms = (square / pairs.len().max(1) as f64).sqrt() / 32_768.0;
    let below = if rms > 0.0 { (-20.0 * rms.log10()).clamp(0.0, 127.0).round() as u8 } else { 127 };
    below | if below < ACTIVE_ABOVE_DB { 0x80 } else { 0 }
}

/// Hands each packet to the outlet. Of a recording (`frame_ms`) timestamps and numbers are counted here, for a new round
/// would begin with the old ones.
fn deliver(
    appsink: &app::AppSink,
    outlet: Outlet,
    level: Arc<AtomicU8>,
    came: Arc<AtomicU64>,
    recording_frame_ms: Option<u32>,
) {
    let (mut assembler, mut frame_id) = (Assembler::new(Codec::Opus), 0_u32);
    let mut counted: Option<(u16, u32)> = None;
    let new_sample = move |appsink: &app::AppSink| {
        let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>()).cloned();
        for packet in packets(&sample) {
            let Some(mut raw) = assembler.handle(packet).map_err(|_| gst::FlowError::Error)? else { continue };
            came.fetch_add(1, Ordering::Relaxed);
            let mut outlet = lock(&outlet);
            let Some((sink, shared)) = outlet.as_mut() else { continue };
            let pts = raw.pts.map(gst::ClockTime::from_nseconds);
            let at = segment.as_ref().and_then(|s| s.to_running_time(pts));
            if let Some(ms) = recording_frame_ms {
                let (sequence, timestamp) = *counted.get_or_insert_with(|| raw.first_header());
                let next = raw.restamp(sequence, timestamp);
                counted = Some((next, timestamp.wrapping_add(ms * (Codec::Opus.clock_rate() / 1_000))));
            }
            let capture = if recording_frame_ms.is_some() { wall_now() } else { captured(appsink, at) };
            let (_, rtp_timestamp) = raw.first_header();
            let audio_level = Some(level.load(Ordering::Relaxed));
            let packets = raw.into_packets();
            let frame = Frame { frame_id, key: true, capture, rtp_timestamp, audio_level, raw: Raw::NotAsked, packets };
            frame_id = frame_id.wrapping_add(1);
            shared.count(&frame);
            sink(frame);
        }
        Ok(gst::FlowSuccess::Ok)
    };
    appsink.set_callbacks(app::AppSinkCallbacks::builder().new_sample(new_sample).build());
}

/// A running time as a moment of the wall clock.
fn captured(appsink: &app::AppSink, at: Option<gst::ClockTime>) -> WallMicros {
    let wall = wall_now();
    let age = appsink.current_running_time().zip(at).map_or(0, |(now, at)| now.saturating_sub(at).useconds());
    WallMicros(wall.0.saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_are_parsed_and_what_is_none_is_refused_with_the_reason() {
        assert_eq!("tone".parse::<AudioSpec>().unwrap(), AudioSpec::Tone(440));
        assert_eq!("tone:1000".parse::<AudioSpec>().unwrap(), AudioSpec::Tone(1_000));
        assert_eq!("alsa:hw:1,0".parse::<AudioSpec>().unwrap(), AudioSpec::Alsa(Some("hw:1,0".to_owned())));
        for (given, reason) in
            [("tone:5", "20 to 20000"), ("alsa:", "name is missing"), ("mic", "no such kind"), ("file:", "missing")]
        {
            let error = given.parse::<AudioSpec>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("`tone:440`"), "{given}: {error}");
        }
    }

    #[test]
    fn levels_are_decibels_below_overload_with_the_activity_flag() {
        let constant = |v: i16| v.to_le_bytes().repeat(480);
        assert_eq!(level_of(&constant(i16::MIN)), 0x80);
        assert_eq!(level_of(&constant(3_277)), 0x80 | 20);
        assert_eq!(level_of(&constant(33)), 60);
        assert_eq!((level_of(&constant(0)), level_of(&[])), (127, 127));
    }
}
