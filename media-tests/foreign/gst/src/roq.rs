//! RTP over QUIC. The relay's listener, the flow id and a client certificate come from outside.

use crate::{Seen, Wanted, card_source, decode, packets, tone_source};
use anyhow::Context;
use gst::prelude::*;

/// Properties that `quinnquicsink` and `quinnquicsrc` share.
fn connection(element: &str, wanted: &Wanted) -> anyhow::Result<gst::Element> {
    let (host, port) = wanted.need("url")?.rsplit_once(':').context("--url is HOST:PORT")?;
    let element = gst::ElementFactory::make(element)
        .property_from_str("role", "client")
        .property("server-name", wanted.need("server-name")?)
        .property("address", host)
        .property("port", port.parse::<u32>()?)
        .property("alpn-protocols", gst::Array::new(["roq-14"]))
        .property("secure-connection", true)
        .property("certificate-file", wanted.need("cert")?)
        .property("private-key-file", wanted.need("key")?)
        .property("certificate-database-file", wanted.need("ca")?)
        .property("use-datagram", wanted.text("mode") != "stream")
        .build()?;
    Ok(element)
}

/// One flow, as datagrams or as streams.
pub fn publish(pipeline: &gst::Pipeline, wanted: &Wanted) -> anyhow::Result<()> {
    let sink = connection("quinnquicsink", wanted)?;
    let mux = gst::ElementFactory::make("quinnroqmux").build()?;
    let codec = if wanted.audio() { "OPUS" } else { wanted.need("video")? };
    let source = if wanted.audio() { tone_source(wanted)? } else { card_source()? };
    let packets = gst::parse::bin_from_description(packets(codec)?, true)?;
    pipeline.add_many([&source, packets.upcast_ref(), &mux, &sink])?;
    source.link(&packets)?;
    mux.link(&sink)?;
    let template = if wanted.text("mode") == "stream" { "stream_%u" } else { "datagram_%u" };
    let pad = mux.request_pad_simple(template).context("no pad of the multiplexer")?;
    pad.set_property("flow-id", wanted.need("flow")?.parse::<u64>()?);
    packets.static_pad("src").context("the bin has a source pad")?.link(&pad)?;
    Ok(())
}

/// Any flow that comes, taken for the wanted codec.
pub fn view(pipeline: &gst::Pipeline, wanted: &Wanted, seen: &Seen) -> anyhow::Result<()> {
    let source = connection("quinnquicsrc", wanted)?;
    let demux = gst::ElementFactory::make("quinnroqdemux").build()?;
    let codec = if wanted.audio() { "OPUS".to_owned() } else { wanted.need("video")?.to_owned() };
    let audio = wanted.audio();
    let payload: i32 = wanted.text("pt").parse().unwrap_or(96);
    demux.connect("request-flow-id-map", false, move |_| {
        let caps = gst::Caps::builder("application/x-rtp")
            .field("media", if audio { "audio" } else { "video" })
            .field("encoding-name", codec.as_str())
            .field("payload", payload)
            .field("clock-rate", if audio { 48_000 } else { 90_000 });
        Some(caps.build().to_value())
    });
    pipeline.add_many([&source, &demux])?;
    source.link(&demux)?;
    if wanted.text("mode") == "stream" {
        return gather(pipeline, &demux, seen);
    }
    let (weak, seen) = (pipeline.downgrade(), seen.clone());
    demux.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        if let Err(e) = decode(&pipeline, pad, &seen) {
            crate::say(&serde_json::json!({ "event": "warning", "reason": format!("{e:#}") }));
        }
    });
    Ok(())
}

/// A stream is a frame, and the demultiplexer gives each stream a pad of its own: all of them lead to one decoder.
fn gather(pipeline: &gst::Pipeline, demux: &gst::Element, seen: &Seen) -> anyhow::Result<()> {
    // The caps of each new pad are those of the first: sent on, they would make the depayloader begin anew with every frame.
    let funnel = gst::ElementFactory::make("funnel").property("forward-sticky-events", false).build()?;
    pipeline.add(&funnel)?;
    let out = funnel.static_pad("src").context("a funnel has a source pad")?;
    // The end of a frame's stream is not the end of the feed.
    out.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| match info.event().map(|e| e.type_()) {
        Some(gst::EventType::Eos) => gst::PadProbeReturn::Drop,
        _ => gst::PadProbeReturn::Ok,
    });
    decode(pipeline, &out, seen)?;
    let weak = funnel.downgrade();
    demux.connect_pad_added(move |_, pad| {
        let Some(into) = weak.upgrade().and_then(|f| f.request_pad_simple("sink_%u")) else { return };
        if let Err(e) = pad.link(&into) {
            crate::say(&serde_json::json!({ "event": "warning", "reason": format!("{e:?}") }));
        }
    });
    let weak = funnel.downgrade();
    demux.connect_pad_removed(move |_, pad| {
        if let (Some(funnel), Some(into)) = (weak.upgrade(), pad.peer()) {
            funnel.release_request_pad(&into);
        }
    });
    Ok(())
}
