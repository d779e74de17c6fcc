//! The clients: how each is called, started, and asked for its version.

use super::{Hub, Media, folder, installed};
use crate::process::trocar;
use crate::stack::path;
use anyhow::bail;
use std::path::Path;
use std::process::Command;

/// How an encoder's stream reaches `trocar publish --source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// MPEG-TS over SRT, the encoder calls.
    Srt,
    /// MPEG-TS over UDP.
    Ts,
    /// RTP over UDP.
    Rtp,
    /// MPEG-TS in RTP over UDP.
    RtpTs,
    /// RTSP, the encoder is asked.
    Rtsp,
}

/// A client that nobody here wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// aiortc: WebRTC in Python.
    Aiortc,
    /// Chromium, headless.
    Chromium,
    /// Firefox, headless.
    Firefox,
    /// `whipclientsink`, `whepclientsrc` of gst-plugin-webrtc.
    GstClient,
    /// `whipsink`, `whepsrc` of gst-plugin-webrtchttp.
    GstSimple,
    /// gst-plugin-quinn, RTP over QUIC in datagrams.
    QuinnDatagram,
    /// gst-plugin-quinn, RTP over QUIC in streams.
    QuinnStream,
    /// The `webrtc` crate, by `trocar publish --whip` and `trocar watch --whep`.
    WebrtcCrate,
    /// ffmpeg.
    Ffmpeg(Wire),
    /// ffmpeg's own WHIP muxer.
    FfmpegWhip,
    /// GStreamer's own elements.
    Gstreamer(Wire),
}

/// What a client is asked to do.
pub struct Ask<'a> {
    /// Publish or view.
    pub publish: bool,
    /// WHIP or WHEP endpoint.
    pub url: &'a str,
    /// Bearer.
    pub token: &'a str,
    /// What to send or to expect.
    pub media: Media,
    /// The tone, in Hz.
    pub hz: u32,
    /// How long.
    pub seconds: u32,
}

impl Client {
    /// Its name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aiortc => "aiortc",
            Self::Chromium => "Chromium",
            Self::Firefox => "Firefox",
            Self::GstClient => "gst-plugin-webrtc",
            Self::GstSimple => "gst-plugin-webrtchttp",
            Self::QuinnDatagram => "gst-plugin-quinn, datagrams",
            Self::QuinnStream => "gst-plugin-quinn, streams",
            Self::WebrtcCrate => "`webrtc` crate",
            Self::FfmpegWhip => "ffmpeg, WHIP",
            Self::Ffmpeg(Wire::Srt) => "ffmpeg, SRT",
            Self::Ffmpeg(Wire::Ts) => "ffmpeg, MPEG-TS/UDP",
            Self::Ffmpeg(Wire::Rtp) => "ffmpeg, RTP/UDP",
            Self::Ffmpeg(Wire::RtpTs) => "ffmpeg, MPEG-TS/RTP/UDP",
            Self::Ffmpeg(Wire::Rtsp) => "ffmpeg, RTSP",
            Self::Gstreamer(Wire::Srt) => "GStreamer, SRT",
            Self::Gstreamer(Wire::Rtp) => "GStreamer, RTP/UDP",
            Self::Gstreamer(Wire::Rtsp) => "GStreamer, RTSP server",
            Self::Gstreamer(Wire::Ts | Wire::RtpTs) => "GStreamer, MPEG-TS",
        }
    }

    /// The command that does what is asked over WHIP or WHEP.
    ///
    /// # Errors
    /// Where it is not installed, or is no WHIP or WHEP client.
    pub fn whip_or_whep(self, hub: &Hub, ask: &Ask<'_>) -> anyhow::Result<Command> {
        let action = if ask.publish { "publish" } else { "view" };
        let mut command = match self {
            Self::Aiortc => {
                let mut c = python()?;
                c.arg(folder().join(if ask.publish { "whip.py" } else { "whep.py" }));
                c
            }
            Self::Firefox => {
                let mut c = python()?;
                c.arg(folder().join("firefox.py")).arg(action);
                c
            }
            Self::Chromium => {
                let mut c = Command::new("node");
                c.arg(folder().join("chromium.mjs")).arg(action);
                c
            }
            Self::GstClient | Self::GstSimple => {
                let mut c = gst()?;
                c.arg(if self == Self::GstClient { "client" } else { "simple" }).arg(action);
                c
            }
            Self::WebrtcCrate => return webrtc_crate(hub, ask),
            other => bail!("{} knows neither WHIP nor WHEP", other.name()),
        };
        if matches!(self, Self::Chromium | Self::Firefox) {
            let [publisher, viewer] = hub.pages;
            command.args(["--page-port", &(if ask.publish { publisher } else { viewer }).to_string()]);
        }
        command.args(["--url", ask.url, "--token", ask.token]);
        arguments(&mut command, ask);
        Ok(command)
    }

    /// The command that sends or receives one RoQ flow.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn roq(self, hub: &Hub, ask: &Ask<'_>, flow: u64) -> anyhow::Result<Command> {
        let (cert, key, ca) = hub.device()?;
        let mode = if self == Self::QuinnStream { "stream" } else { "datagram" };
        let mut c = gst()?;
        c.arg("roq").arg(if ask.publish { "publish" } else { "view" });
        c.args(["--url", ask.url, "--server-name", "localhost", "--flow", &flow.to_string(), "--mode", mode]);
        c.args(["--cert", cert, "--key", key, "--ca", ca]);
        arguments(&mut c, ask);
        Ok(c)
    }

    /// The command of an encoder that sends the card over a wire, and the `--source` that takes it.
    ///
    /// # Errors
    /// Where the client cannot do it, with the reason.
    pub fn encoder(self, codec: &str, card: &Path, port: u16) -> anyhow::Result<(Command, String)> {
        let lower = codec.to_lowercase();
        match self {
            Self::Ffmpeg(Wire::Rtsp) => bail!(
                "ffmpeg pushes RTSP to a server (ANNOUNCE) or pulls it; it serves none that `--source rtsp://` could ask"
            ),
            Self::Ffmpeg(wire) => Ok((ffmpeg(wire, codec, card, port)?, source(wire, &lower, port))),
            Self::Gstreamer(wire) => Ok((gstreamer(wire, codec, card, port)?, source(wire, &lower, port))),
            other => bail!("{} is no encoder", other.name()),
        }
    }
}

fn source(wire: Wire, codec: &str, port: u16) -> String {
    match wire {
        Wire::Srt => format!("srt://:{port}?mode=listener"),
        Wire::Ts => format!("udp://127.0.0.1:{port}"),
        Wire::Rtp => format!("udp://127.0.0.1:{port}?format=rtp&codec={codec}"),
        Wire::RtpTs => format!("udp://127.0.0.1:{port}?format=rtp&codec=mp2t"),
        Wire::Rtsp => format!("rtsp://127.0.0.1:{port}/card"),
    }
}

fn arguments(command: &mut Command, ask: &Ask<'_>) {
    command.args(["--seconds", &ask.seconds.to_string(), "--hz", &ask.hz.to_string()]);
    if let Some(codec) = ask.media.video {
        command.args(["--video", codec]);
    }
    if ask.media.sound {
        command.arg("--audio");
    }
}

fn python() -> anyhow::Result<Command> {
    let mut c = Command::new(installed("venv/bin/python")?);
    // No compiled files in the tree.
    c.arg("-B");
    Ok(c)
}

fn gst() -> anyhow::Result<Command> {
    let mut c = Command::new(installed("foreign-gst/debug/trocar-foreign-gst")?);
    // The plug-ins put backtraces into their messages where they can.
    c.env("RUST_BACKTRACE", "0");
    Ok(c)
}

fn webrtc_crate(hub: &Hub, ask: &Ask<'_>) -> anyhow::Result<Command> {
    let mut c = Command::new(trocar()?);
    let Some(codec) = ask.media.video else { bail!("`trocar` over WHIP and WHEP is asked for pictures here") };
    if ask.publish {
        let source = format!("file:{}", path(&hub.card)?);
        c.args(["publish", "--whip", ask.url, "--token", ask.token, "--source", &source, "--loop"]);
        c.args(["--codec", &codec.to_lowercase(), "--ca", hub.text("/ca_file")?]);
    } else {
        c.args(["watch", "--whep", ask.url, "--token", ask.token, "--headless", "--json"]);
        c.args(["--duration", &ask.seconds.to_string()]);
    }
    Ok(c)
}

fn ffmpeg(wire: Wire, codec: &str, card: &Path, port: u16) -> anyhow::Result<Command> {
    let mut c = Command::new("ffmpeg");
    c.args(["-hide_banner", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", path(card)?, "-an"]);
    let live = ["-g", "15", "-b:v", "400k"];
    match codec {
        // An endoscopy tower's encoder, as good as: constrained baseline, parameter sets with each key frame.
        "H264" => c.args(["-c:v", "libx264", "-profile:v", "baseline", "-tune", "zerolatency"]).args(live),
        "H265" => c.args(["-c:v", "libx265", "-preset", "ultrafast", "-tune", "zerolatency"]).args(live),
        "VP8" => c.args(["-c:v", "libvpx", "-deadline", "realtime"]).args(live),
        "VP9" => c
            .args(["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-strict", "experimental"])
            .args(live),
        other => bail!("no encoder for {other} is asked of ffmpeg here"),
    };
    match codec {
        "H264" => c.args(["-bsf:v", "dump_extra"]),
        "H265" => c.args(["-x265-params", "repeat-headers=1:log-level=error"]),
        _ => &mut c,
    };
    let (format, to) = match wire {
        Wire::Srt => ("mpegts", format!("srt://127.0.0.1:{port}?mode=caller")),
        Wire::Ts => ("mpegts", format!("udp://127.0.0.1:{port}?pkt_size=1316")),
        Wire::Rtp => ("rtp", format!("rtp://127.0.0.1:{port}?pkt_size=1200")),
        Wire::RtpTs => ("rtp_mpegts", format!("rtp://127.0.0.1:{port}?pkt_size=1200")),
        Wire::Rtsp => bail!("ffmpeg serves no RTSP"),
    };
    if wire == Wire::RtpTs {
        // As GStreamer's, below.
        c.args(["-mpegts_muxer_options", "muxrate=2000000"]);
    }
    c.args(["-f", format, &to]);
    Ok(c)
}

fn gstreamer(wire: Wire, codec: &str, card: &Path, port: u16) -> anyhow::Result<Command> {
    if wire == Wire::Rtsp {
        let mut c = Command::new("/usr/bin/python3");
        c.arg("-B").arg(folder().join("rtsp.py")).arg(port.to_string()).arg(card).arg(codec);
        return Ok(c);
    }
    let encode = match codec {
        "H264" => "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=400",
        "H265" => "x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=400",
        "VP8" => "vp8enc deadline=1 keyframe-max-dist=15 target-bitrate=400000",
        "VP9" => "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=15 target-bitrate=400000",
        other => bail!("no encoder for {other} is asked of GStreamer here"),
    };
    // A multiplexer of constant rate, as encoders are: without stuffing a small frame waits until others fill its packet.
    let wrap = match (wire, codec) {
        (Wire::Rtp, "H264") => "video/x-h264,profile=constrained-baseline ! rtph264pay config-interval=-1 mtu=1200",
        (Wire::Rtp, "H265") => "h265parse ! rtph265pay config-interval=-1 mtu=1200",
        (Wire::Rtp, "VP8") => "rtpvp8pay mtu=1200",
        (Wire::Rtp, "VP9") => "rtpvp9pay mtu=1200",
        (Wire::Srt, "H264") => {
            "video/x-h264,profile=constrained-baseline ! h264parse config-interval=-1 ! mpegtsmux alignment=7 bitrate=2000000"
        }
        (Wire::Srt, "H265") => "h265parse config-interval=-1 ! mpegtsmux alignment=7 bitrate=2000000",
        _ => bail!("GStreamer is not asked for {codec} over that wire here"),
    };
    let out = match wire {
        Wire::Srt => format!("srtsink uri=srt://127.0.0.1:{port}?mode=caller"),
        _ => format!("udpsink host=127.0.0.1 port={port}"),
    };
    let card = path(card)?;
    let line =
        format!("filesrc location={card} ! qtdemux ! avdec_h264 ! identity sync=true ! {encode} ! {wrap} ! {out}");
    let mut c = Command::new("gst-launch-1.0");
    c.arg("-q").args(line.split(' '));
    Ok(c)
}

/// Names and versions of everything that took part, as they say themselves.
#[must_use]
pub fn versions() -> Vec<(&'static str, String)> {
    let first = |command: &mut Command| {
        let out = command.output().ok().filter(|o| o.status.success())?;
        let text = String::from_utf8_lossy(&out.stdout);
        Some(text.lines().find(|l| !l.trim().is_empty())?.trim().to_owned())
    };
    let python = |code: &str| first(python().ok()?.args(["-c", code]));
    let lock = |folder: &str, name: &str| {
        let text = std::fs::read_to_string(crate::workspace().join(folder).join("Cargo.lock")).ok()?;
        let at = text.split_once(&format!("name = \"{name}\"\nversion = \""))?.1;
        Some(at.split('"').next()?.to_owned())
    };
    let gst = "media-tests/foreign/gst";
    [
        ("aiortc", python("import aiortc; print(aiortc.__version__)")),
        ("Chromium", first(Command::new("chromium").arg("--version"))),
        ("Firefox", first(Command::new("firefox-esr").arg("--version"))),
        ("GStreamer", first(Command::new("gst-launch-1.0").arg("--version"))),
        ("gst-plugin-webrtc", lock(gst, "gst-plugin-webrtc")),
        ("gst-plugin-webrtchttp", lock(gst, "gst-plugin-webrtchttp")),
        ("gst-plugin-quinn", lock(gst, "gst-plugin-quinn")),
        ("`webrtc` crate", lock(".", "webrtc")),
        ("ffmpeg", first(Command::new("ffmpeg").arg("-version"))),
    ]
    .map(|(name, version)| (name, version.unwrap_or_else(|| "not installed".to_owned())))
    .into()
}
