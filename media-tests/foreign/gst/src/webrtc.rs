//! WHIP and WHEP.

use crate::{Seen, Wanted, card_source, decode, measure, packets, say, tone_source};
use gst::prelude::*;
use serde_json::json;

/// `whipclientsink` encodes by itself; `whipsink` takes RTP.
pub fn publish(pipeline: &gst::Pipeline, wanted: &Wanted, simple: bool) -> anyhow::Result<()> {
    let sink = gst::ElementFactory::make(if simple { "whipsink" } else { "whipclientsink" }).build()?;
    sink.set_property("stun-server", None::<&str>);
    let holder = if simple { sink.clone().upcast() } else { sink.property::<gst::glib::Object>("signaller") };
    holder.set_property("whip-endpoint", wanted.need("url")?);
    holder.set_property("auth-token", wanted.need("token")?);
    pipeline.add(&sink)?;
    let video = wanted.text("video");
    if !simple {
        let caps = match video {
            "" => gst::Caps::new_empty(),
            "H264" => gst::Caps::builder("video/x-h264").field("profile", "constrained-baseline").build(),
            codec => gst::Caps::new_empty_simple(format!("video/x-{}", codec.to_lowercase())),
        };
        sink.set_property("video-caps", caps);
    }
    let mut sources = Vec::new();
    if !video.is_empty() {
        sources.push((card_source()?, video, "video_%u"));
    }
    if wanted.audio() {
        sources.push((tone_source(wanted)?, "OPUS", "audio_%u"));
    }
    for (source, codec, pad) in sources {
        pipeline.add(&source)?;
        if simple {
            let packets = gst::parse::bin_from_description(packets(codec)?, true)?;
            pipeline.add(&packets)?;
            source.link(&packets)?;
            let name = if codec == "OPUS" { "OPUS" } else { codec };
            let caps = gst::Caps::builder("application/x-rtp")
                .field("media", if codec == "OPUS" { "audio" } else { "video" })
                .field("encoding-name", name)
                .field("payload", if codec == "OPUS" { 97 } else { 96 })
                .field("clock-rate", if codec == "OPUS" { 48_000 } else { 90_000 });
            let caps = if codec == "OPUS" { caps.field("encoding-params", "2") } else { caps }.build();
            packets.link_filtered(&sink, &caps)?;
        } else {
            source.link_pads(None, &sink, Some(pad))?;
        }
    }
    Ok(())
}

/// `whepclientsrc` decodes by itself; `whepsrc` gives RTP.
pub fn view(pipeline: &gst::Pipeline, wanted: &Wanted, seen: &Seen, simple: bool) -> anyhow::Result<()> {
    let source = gst::ElementFactory::make(if simple { "whepsrc" } else { "whepclientsrc" }).build()?;
    source.set_property("stun-server", None::<&str>);
    let holder = if simple { source.clone().upcast() } else { source.property::<gst::glib::Object>("signaller") };
    holder.set_property("whep-endpoint", wanted.need("url")?);
    holder.set_property("auth-token", wanted.need("token")?);
    let (video, audio) = (wanted.text("video"), wanted.audio());
    if simple {
        let rtp = |media: &str, codec: &str, rate: i32, pt: i32| {
            let caps = gst::Caps::builder("application/x-rtp").field("media", media).field("encoding-name", codec);
            let caps = caps.field("payload", pt).field("clock-rate", rate);
            if codec == "OPUS" {
                return caps.field("encoding-params", "2").build();
            }
            if codec == "H264" {
                let caps = caps.field("packetization-mode", "1").field("level-asymmetry-allowed", "1");
                return caps.field("profile-level-id", "42e01f").build();
            }
            caps.build()
        };
        source.set_property("video-caps", (!video.is_empty()).then(|| rtp("video", video, 90_000, 101)));
        source.set_property("audio-caps", audio.then(|| rtp("audio", "OPUS", 48_000, 102)));
    } else {
        source.set_property("video-codecs", gst::Array::new(Some(video).filter(|v| !v.is_empty())));
        source.set_property("audio-codecs", gst::Array::new(Some("OPUS").filter(|_| audio)));
    }
    let (weak, seen) = (pipeline.downgrade(), seen.clone());
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        say(&json!({ "event": "pad", "name": pad.name().as_str() }));
        let done = if simple {
            decode(&pipeline, pad, &seen)
        } else {
            measure(&pipeline, pad, pad.name().starts_with("audio"), &seen)
        };
        if let Err(e) = done {
            say(&json!({ "event": "warning", "reason": format!("{e:#}") }));
        }
    });
    pipeline.add(&source)?;
    Ok(())
}
