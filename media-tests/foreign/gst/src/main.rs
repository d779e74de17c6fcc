//! GStreamer's Rust plugins as clients: `trocar-foreign-gst CLIENT publish|view --url … …` prints the same JSON lines as
//! the other clients in this folder. CLIENT is `client` (whipclientsink, whepclientsrc), `simple` (whipsink, whepsrc) or
//! `roq` (quinnroqmux, quinnroqdemux).

mod card;
mod roq;
mod webrtc;

use anyhow::{Context, bail};
use card::{Picture, Sound};
use gst::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What was asked for.
pub struct Wanted {
    options: HashMap<String, String>,
}

impl Wanted {
    fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").with_context(|| format!("{word} is no option"))?.to_owned();
            let value = if name == "audio" { String::new() } else { words.next().context("an option has no value")? };
            options.insert(name, value);
        }
        Ok(Self { options })
    }

    /// An option's text, empty where left out.
    pub fn text(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    /// An option that must be there.
    pub fn need(&self, name: &str) -> anyhow::Result<&str> {
        self.options.get(name).map(String::as_str).with_context(|| format!("--{name} is missing"))
    }

    /// Whether sound is wanted.
    pub fn audio(&self) -> bool {
        self.options.contains_key("audio")
    }

    fn number(&self, name: &str, otherwise: f64) -> f64 {
        self.options.get(name).and_then(|v| v.parse().ok()).unwrap_or(otherwise)
    }
}

/// What a viewer saw and heard.
#[derive(Clone, Default)]
pub struct Seen {
    pub picture: Arc<Mutex<Picture>>,
    pub sound: Arc<Mutex<Sound>>,
}

fn say(line: &Value) {
    println!("{line}");
}

fn main() {
    if let Err(e) = run() {
        say(&json!({ "event": "error", "reason": format!("{e:#}") }));
        std::process::exit(1);
    }
}

fn run() -> anyhow::Result<()> {
    gst::init()?;
    let told = remember_errors();
    gstrswebrtc::plugin_register_static()?;
    gstwebrtchttp::plugin_register_static()?;
    gstrsrtp::plugin_register_static()?;
    gstquinn::plugin_register_static()?;
    let mut words = std::env::args().skip(1);
    let (client, action) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let wanted = Wanted::parse(words)?;
    say(
        &json!({ "event": "client", "name": "gst-plugins-rs", "version": "0.15.4", "gstreamer": gst::version_string().as_str() }),
    );
    let (pipeline, seen) = (gst::Pipeline::new(), Seen::default());
    match (client.as_str(), action.as_str()) {
        ("client" | "simple", "publish") => webrtc::publish(&pipeline, &wanted, client == "simple")?,
        ("client" | "simple", "view") => webrtc::view(&pipeline, &wanted, &seen, client == "simple")?,
        ("roq", "publish") => roq::publish(&pipeline, &wanted)?,
        ("roq", "view") => roq::view(&pipeline, &wanted, &seen)?,
        _ => bail!("client, simple or roq, then publish or view: not {client} {action}"),
    }
    let outcome = play(&pipeline, Duration::from_secs_f64(wanted.number("seconds", 6.0)));
    let (video, audio) = (seen.picture.lock().unwrap().report(), seen.sound.lock().unwrap().report());
    pipeline.set_state(gst::State::Null)?;
    match outcome {
        Ok(()) => say(&json!({ "event": "result", "video": video, "audio": audio })),
        Err(e) => {
            let told = told.lock().unwrap().join("; ");
            if told.is_empty() {
                bail!("{e:#} (video {video}, audio {audio})")
            }
            bail!("{e:#} [{told}]")
        }
    }
    Ok(())
}

/// GStreamer's first lines of level error: an element's message on the bus says less.
fn remember_errors() -> Arc<Mutex<Vec<String>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&told);
    if std::env::var_os("GST_DEBUG").is_none() {
        gst::log::set_default_threshold(gst::DebugLevel::Error);
        gst::log::set_active(true);
        gst::log::remove_default_log_function();
    }
    gst::log::add_log_function(move |category, level, _, _, _, _, message| {
        let mut told = keep.lock().unwrap();
        // webrtcbin minds an empty address of a STUN server, and goes on without one.
        if level == gst::DebugLevel::Error && category.name() != "webrtcnice" && told.len() < 2 {
            told.push(format!("{}: {}", category.name(), message.get().map(|m| m.to_string()).unwrap_or_default()));
        }
    });
    let (panicked, said) = (Arc::clone(&told), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        // The plug-in ends the process with a panic after some failures: the failure is the reason.
        let mut told = panicked.lock().map(|t| t.clone()).unwrap_or_default();
        told.push(format!("the plug-in panicked: {}", panic_text(panic)));
        say(&json!({ "event": "error", "reason": told.join("; then ") }));
        said(panic);
    }));
    told
}

fn panic_text(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let text = panic.payload_as_str().unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Plays for a while; the pipeline's first error ends it.
fn play(pipeline: &gst::Pipeline, duration: Duration) -> anyhow::Result<()> {
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    pipeline.set_state(gst::State::Playing)?;
    say(&json!({ "event": "publishing" }));
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let wait = gst::ClockTime::try_from(left)?;
        let Some(message) = bus.timed_pop_filtered(wait, &[gst::MessageType::Error, gst::MessageType::Eos]) else {
            break;
        };
        match message.view() {
            gst::MessageView::Error(e) => {
                let source = message.src().map(|s| s.name().to_string()).unwrap_or_default();
                let debug = e.debug().unwrap_or_default();
                bail!("{source}: {} {}", e.error(), debug.lines().last().unwrap_or_default());
            }
            _ => bail!("the stream ended"),
        }
    }
    Ok(())
}

/// The card as a live source of raw video.
pub fn card_source() -> anyhow::Result<gst::Element> {
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", card::WIDTH as i32)
        .field("height", card::HEIGHT as i32)
        .field("framerate", gst::Fraction::new(card::FPS as i32, 1))
        .build();
    let source = gst_app::AppSrc::builder().caps(&caps).is_live(true).format(gst::Format::Time).build();
    let feeder = source.clone();
    std::thread::spawn(move || {
        let began = Instant::now();
        for frame in 0.. {
            let due = Duration::from_secs_f64(frame as f64 / card::FPS as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let mut buffer = gst::Buffer::from_mut_slice(card::draw(frame));
            if let Some(b) = buffer.get_mut() {
                b.set_pts(feeder.current_running_time());
                b.set_duration(gst::ClockTime::from_nseconds(1_000_000_000 / card::FPS as u64));
            }
            // Refused while the pipeline is not running yet and after it has stopped.
            let _ = feeder.push_buffer(buffer);
        }
    });
    Ok(source.upcast())
}

/// The tone as a live source of raw audio.
pub fn tone_source(wanted: &Wanted) -> anyhow::Result<gst::Element> {
    let source = gst::ElementFactory::make("audiotestsrc").property("is-live", true);
    Ok(source.property("freq", wanted.number("hz", 440.0)).property("volume", 0.25).build()?)
}

/// A sink behind `pad` that measures; encoded streams are decoded on the way.
pub fn measure(pipeline: &gst::Pipeline, pad: &gst::Pad, audio: bool, seen: &Seen) -> anyhow::Result<()> {
    let (convert, caps) = if audio {
        let caps = gst::Caps::builder("audio/x-raw").field("format", "F32LE").field("channels", 1);
        ("audioconvert", caps.field("rate", Sound::RATE as i32).build())
    } else {
        ("videoconvert", gst::Caps::builder("video/x-raw").field("format", "I420").build())
    };
    let convert = gst::ElementFactory::make(convert).build()?;
    let second = gst::ElementFactory::make(if audio { "audioresample" } else { "identity" }).build()?;
    let seen = seen.clone();
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else { return Ok(gst::FlowSuccess::Ok) };
        let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        if audio {
            let samples = map.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            seen.sound.lock().unwrap().hear(samples);
        } else if let Some(s) = caps.structure(0) {
            let size = (s.get::<i32>("width").unwrap_or(0) as usize, s.get::<i32>("height").unwrap_or(0) as usize);
            // Rows of I420 are padded to four bytes.
            seen.picture.lock().unwrap().see(&map, size.0.next_multiple_of(4), size);
        }
        Ok(gst::FlowSuccess::Ok)
    });
    let sink = gst_app::AppSink::builder().caps(&caps).sync(false).callbacks(callbacks.build()).build();
    let chain = [&convert, &second, sink.upcast_ref()];
    pipeline.add_many(chain)?;
    gst::Element::link_many(chain)?;
    for e in chain {
        e.sync_state_with_parent()?;
    }
    pad.link(&convert.static_pad("sink").context("a converter has a sink pad")?)?;
    Ok(())
}

/// `measure` behind a decoder.
pub fn decode(pipeline: &gst::Pipeline, pad: &gst::Pad, seen: &Seen) -> anyhow::Result<()> {
    let decoder = gst::ElementFactory::make("decodebin").build()?;
    let (weak, seen) = (pipeline.downgrade(), seen.clone());
    decoder.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let audio = pad.current_caps().and_then(|c| Some(c.structure(0)?.name().starts_with("audio"))).unwrap_or(false);
        if let Err(e) = measure(&pipeline, pad, audio, &seen) {
            say(&json!({ "event": "warning", "reason": format!("{e:#}") }));
        }
    });
    pipeline.add(&decoder)?;
    decoder.sync_state_with_parent()?;
    pad.link(&decoder.static_pad("sink").context("a decoder has a sink pad")?)?;
    Ok(())
}

/// Encoder and payloader of a codec, as a bin description, for the elements that take RTP.
pub fn packets(codec: &str) -> anyhow::Result<&'static str> {
    Ok(match codec {
        "H264" => {
            "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=400 \
             ! video/x-h264,profile=constrained-baseline \
             ! rtph264pay config-interval=-1 aggregate-mode=zero-latency pt=96 mtu=1100"
        }
        "H265" => {
            "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=400 ! h265parse \
             ! rtph265pay config-interval=-1 pt=96 mtu=1100"
        }
        "VP8" => {
            "vp8enc deadline=1 keyframe-max-dist=15 target-bitrate=400000 ! rtpvp8pay pt=96 mtu=1100 picture-id-mode=15-bit"
        }
        "VP9" => {
            "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=15 target-bitrate=400000 ! rtpvp9pay pt=96 mtu=1100 picture-id-mode=15-bit"
        }
        "OPUS" => "opusenc ! rtpopuspay pt=97",
        other => bail!("no encoder for {other} here"),
    })
}
