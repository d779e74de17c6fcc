//! What an encoder sends over RTSP, SRT or UDP, forwarded without being decoded: taken out of its wrapping, parsed and
//! packetised again.
//!
//! Capture time is the time at which a frame has arrived here, for these protocols do not say when it was captured. The age
//! that viewers see counts from there: camera, encoder and the way to this machine come on top.

use super::clock::wall_now;
use super::codec::Codec;
use super::elements::{self, Playing, chain, make};
use super::encoder::packets;
use super::error::MediaError;
use super::frame::{Assembler, Frame, FrameSink, RawFrame};
use super::funnel::Funnel;
use super::place::{SourceSpec, Stream, Wrapping};
use super::raw::Raw;
use super::running::Shared;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as app;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use trocar_proto::units::WallMicros;

/// Seconds in which the first key frame must be there.
const FIRST_KEY_FRAME_S: u64 = 10;
/// Seconds without a frame after which a stream is given up and opened again.
const SILENCE_S: u64 = 2;
/// Frames that wait between arrival and sending; when there are more, everything up to the next key frame is left out.
const QUEUE: usize = 256;
/// Milliseconds that a lost or overtaken RTP packet is waited for.
const REORDERING_MS: u32 = 50;
/// Bytes of the UDP socket's receive buffer, so that a key frame's burst fits.
const SOCKET_BUFFER: i32 = 4 << 20;
/// Bits per second that a stream is taken to have where the command line does not say.
pub(super) const DEFAULT_BITS: u64 = 20_000_000;

/// A frame and when it had arrived.
type Arrived = (WallMicros, RawFrame);

/// An encoder's stream that has begun.
#[derive(Debug)]
pub(super) struct Ingest {
    name: String,
    pipeline: Playing,
    frames: Receiver<Arrived>,
    first: Option<Arrived>,
    pub(super) codec: Codec,
    pub(super) fmtp: String,
    /// Width, height, frames per second.
    pub(super) size: (u32, u32, f64),
}

impl Ingest {
    /// Opens a stream and waits for its first key frame.
    ///
    /// # Errors
    /// [`MediaError`] where nobody answers, nothing comes, or no video that is forwarded.
    pub(super) fn open(stream: &Stream) -> Result<Self, MediaError> {
        let name = SourceSpec::Stream(stream.clone()).to_string();
        let pipeline = gst::Pipeline::new();
        let funnel = Funnel::new(&pipeline)?;
        source(stream, &pipeline, &funnel)?;
        let (arrive, frames) = sync_channel(QUEUE);
        receive(&funnel, arrive);
        let pipeline = Playing::start(pipeline);
        let deadline = Instant::now() + Duration::from_secs(FIRST_KEY_FRAME_S);
        let first = loop {
            if let Ok(frame) = frames.recv_timeout(Duration::from_millis(50)) {
                break frame;
            }
            // The pipeline is read first and speaks last: a video that nothing takes ends it with an error that names no video.
            let checked = pipeline.check(&name);
            if let Some(error) = funnel.error() {
                return Err(error);
            }
            if let Some(found) = funnel.refused() {
                return Err(MediaError::NotForwarded { source_name: name, found });
            }
            checked?;
            if Instant::now() > deadline {
                return Err(MediaError::Stalled { step: name, seconds: FIRST_KEY_FRAME_S });
            }
        };
        let (codec, fmtp) = (funnel.codec().unwrap_or_default(), funnel.fmtp(&first.1));
        let size = funnel.size();
        Ok(Self { name, pipeline, frames, first: Some(first), codec, fmtp, size })
    }

    /// Hands frames over until it is stopped.
    ///
    /// # Errors
    /// [`MediaError`] where the stream fails, ends or gives nothing for [`SILENCE_S`].
    pub(super) fn run(&mut self, sink: &mut FrameSink, shared: &Shared) -> Result<(), MediaError> {
        let (mut frame_id, mut heard) = (0_u32, Instant::now());
        while !shared.stopped() {
            let next = self.first.take().or_else(|| self.frames.recv_timeout(Duration::from_millis(50)).ok());
            let Some((capture, raw)) = next else {
                self.pipeline.check(&self.name)?;
                if heard.elapsed() > Duration::from_secs(SILENCE_S) {
                    return Err(MediaError::Stalled { step: self.name.clone(), seconds: SILENCE_S });
                }
                continue;
            };
            heard = Instant::now();
            let (key, (_, rtp_timestamp)) = (raw.key, raw.first_header());
            let packets = raw.into_packets();
            let raw = Raw::Elsewhere;
            let frame = Frame { frame_id, key, capture, rtp_timestamp, audio_level: None, raw, packets };
            shared.count(&frame);
            sink(frame);
            frame_id = frame_id.wrapping_add(1);
        }
        Ok(())
    }
}

/// Puts the frames of the funnel into a queue with their time of arrival, from a key frame on.
fn receive(funnel: &Funnel, arrive: SyncSender<Arrived>) {
    let (codec, mut assembler, mut wait_for_key) = (funnel.codec_probe(), None, true);
    let new_sample = move |appsink: &app::AppSink| {
        let sample = appsink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let arrived = wall_now();
        for packet in packets(&sample) {
            let assembler = assembler.get_or_insert_with(|| Assembler::new(codec().unwrap_or_default()));
            let Some(raw) = assembler.handle(packet).map_err(|_| gst::FlowError::Error)? else { continue };
            if wait_for_key && !raw.key {
                continue;
            }
            wait_for_key = match arrive.try_send((arrived, raw)) {
                Ok(()) => false,
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Disconnected(_)) => return Err(gst::FlowError::Eos),
            };
        }
        Ok(gst::FlowSuccess::Ok)
    };
    funnel.appsink.set_callbacks(app::AppSinkCallbacks::builder().new_sample(new_sample).build());
}

/// Puts into the pipeline what leads from the network to the funnel.
fn source(stream: &Stream, pipeline: &gst::Pipeline, funnel: &Funnel) -> Result<(), MediaError> {
    match stream {
        Stream::Rtsp(url) => {
            elements::require(&["rtspsrc"])?;
            let source = make("rtspsrc")?;
            source.set_property("location", url);
            source.set_property("latency", REORDERING_MS);
            // Where a firewall keeps UDP out, TCP is tried after this many microseconds.
            source.set_property("timeout", 2_000_000_u64);
            funnel.watch(&source);
            pipeline.add(&source).map_err(|e| MediaError::pipeline("rtspsrc", e))
        }
        Stream::Srt(uri) => {
            elements::require(&["srtsrc", "tsdemux"])?;
            let (source, demux) = (make("srtsrc")?, make("tsdemux")?);
            source.set_property("uri", uri);
            // A connection that is lost ends the stream, so that it is seen, said and opened again.
            if source.has_property("auto-reconnect") {
                source.set_property("auto-reconnect", false);
            }
            funnel.watch(&demux);
            chain(pipeline, &[&source, &demux])
        }
        Stream::Udp { host, port, wrapping } => {
            elements::require(&["udpsrc", "tsdemux", "rtpjitterbuffer"])?;
            let source = make("udpsrc")?;
            source.set_property("address", host.to_string());
            source.set_property("port", i32::from(*port));
            source.set_property("buffer-size", SOCKET_BUFFER);
            source.set_property("caps", udp_caps(*wrapping));
            match wrapping {
                Wrapping::Ts => {
                    let demux = make("tsdemux")?;
                    funnel.watch(&demux);
                    chain(pipeline, &[&source, &demux])
                }
                Wrapping::RtpTs | Wrapping::Rtp(_) => {
                    let buffer = make("rtpjitterbuffer")?;
                    buffer.set_property("latency", REORDERING_MS);
                    chain(pipeline, &[&source, &buffer])?;
                    link_rtp(&buffer, udp_caps(*wrapping), funnel);
                    Ok(())
                }
            }
        }
    }
}

/// Links the jitter buffer's only pad, which is there from the beginning and has no caps yet.
fn link_rtp(buffer: &gst::Element, caps: gst::Caps, funnel: &Funnel) {
    if let Some(pad) = buffer.static_pad("src") {
        funnel.offer_as(&pad, &caps);
    }
}

fn udp_caps(wrapping: Wrapping) -> gst::Caps {
    let rtp = |encoding: &str| {
        gst::Caps::builder("application/x-rtp")
            .field("media", "video")
            .field("clock-rate", 90_000)
            .field("encoding-name", encoding)
            .build()
    };
    match wrapping {
        Wrapping::Ts => gst::Caps::builder("video/mpegts").field("systemstream", true).build(),
        Wrapping::RtpTs => rtp("MP2T"),
        Wrapping::Rtp(codec) => rtp(codec.encoding_name()),
    }
}
