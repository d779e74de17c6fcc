//! One cell of the matrix, and how it is run.

use super::client::Ask;
use super::hub::{complaint, free_udp_port, reason_of};
use super::{Client, Hub, Media, Wire, judge};
use crate::process::Process;
use crate::stack::path;
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// How long a viewer looks.
const VIEW_SECONDS: u32 = 5;
/// Publishers are stopped from outside; this bounds one that is forgotten.
const PUBLISH_SECONDS: u32 = 120;
/// A feed gets this long to become live; browsers and live encoders start slowly under load.
const LIVE: Duration = Duration::from_secs(25);
/// A viewer's start and end on a loaded machine, beside the time that it looks.
const SLACK: Duration = Duration::from_secs(90);

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nothing: it must work.
    None,
    /// The bearer (for RoQ: the flow id) is not one that was given out: it must fail.
    WrongToken,
    /// There is no publisher: it must see nothing.
    NoPublisher,
}

/// One client, one kind of media, one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Who.
    pub client: Client,
    /// Whether it publishes; else it views.
    pub publish: bool,
    /// What.
    pub media: Media,
    /// Whether it is a negative control.
    pub control: Control,
}

/// A feed that is being sent while cells look at it.
struct Source {
    feed: String,
    hz: u32,
    /// In the order in which they were started; ended when dropped.
    processes: Vec<Process>,
}

impl Cell {
    /// A cell that must work.
    #[must_use]
    pub const fn new(client: Client, publish: bool, media: Media) -> Self {
        Self { client, publish, media, control: Control::None }
    }

    /// As one line.
    #[must_use]
    pub fn label(&self) -> String {
        let (does, media) = (if self.publish { "publishes" } else { "views" }, self.media.label());
        let control = match self.control {
            Control::None => "",
            Control::WrongToken => " (control: wrong token)",
            Control::NoPublisher => " (control: no publisher)",
        };
        format!("{} {does} {media}{control}", self.client.name())
    }

    /// Runs it. `number` keeps names and tones of cells apart. `checker` views what the client publishes.
    ///
    /// # Errors
    /// Why it does not work, in words that may stand in the table. For a control: what came through all the same.
    pub fn run(&self, hub: &mut Hub, number: u32, checker: Client) -> Result<String, String> {
        let done = match (self.publish, self.control) {
            (true, Control::WrongToken) => self.publish_refused(hub, number),
            (true, _) => self.published_at_last(hub, number, checker),
            (false, _) => self.viewed(hub, number),
        };
        let alive = hub.check();
        let done = done.map_err(|e| self.explained(tidy(&format!("{e:#}"))));
        match alive {
            Ok(()) if self.control == Control::None => done,
            Ok(()) => match done {
                Ok(came) => Err(format!("it should have failed, but: {came}")),
                Err(why) if self.expected(&why) => Ok(why),
                Err(why) => Err(format!("void: it failed, but not for the reason that it should: {why}")),
            },
            Err(e) => Err(format!("THE RELAY DIED: {e:#}")),
        }
    }

    /// Whether a control failed for what is wrong with it on purpose, not for what would fail it anyway.
    fn expected(&self, why: &str) -> bool {
        match self.control {
            Control::None => false,
            // A binding that was taken back has no answer to tell by: nothing comes.
            Control::WrongToken => why.contains("401") || why == "no picture was decoded",
            Control::NoPublisher => why.contains("404") || why == "no picture was decoded",
        }
    }

    /// Says whose fault it is where that was found out once and for all (docs/INTEROP.md).
    fn explained(&self, why: String) -> String {
        let streams = self.client == Client::QuinnStream && !self.publish && self.control == Control::None;
        if streams && (why.contains("Failed to add pad") || why.contains("not the test card")) {
            return format!(
                "the plug-in's own faults with frames that are streams of several packets (see above); this time: {why}"
            );
        }
        why
    }

    /// webrtcbin of GStreamer 1.22 leaves its input unlinked in about one of eight starts when the answer comes quickly (it
    /// is connected and sends nothing): it alone gets a second try, and the row says so.
    fn published_at_last(&self, hub: &Hub, number: u32, checker: Client) -> anyhow::Result<String> {
        let first = self.published(hub, number, checker);
        match (self.client, self.control, first) {
            (Client::GstClient, Control::None, Err(why)) => {
                let second = self.published(hub, number + 1_000, checker)?;
                Ok(format!("{second}; at the second try, the first: {}", tidy(&format!("{why:#}"))))
            }
            (_, _, first) => first,
        }
    }

    /// The client publishes, `checker` looks.
    fn published(&self, hub: &Hub, number: u32, checker: Client) -> anyhow::Result<String> {
        let feed = format!("cell{number}");
        let hz = 400 + 10 * (number % 40);
        let mut source = self.source(hub, &feed, hz)?;
        let watched = if self.media.video.is_some() { source.feed.clone() } else { format!("{feed}-audio") };
        if self.control == Control::None {
            let publisher = source.processes.last_mut().context("a source has a process")?;
            hub.live(&watched, publisher, LIVE)?;
        }
        let said = look(hub, checker, &watched, self.media, source.hz, Control::None)?;
        Ok(format!("{said} (seen by {})", checker.name()))
    }

    /// Everything that it takes for the client to publish.
    fn source(&self, hub: &Hub, feed: &str, hz: u32) -> anyhow::Result<Source> {
        let codec = self.media.video.unwrap_or("OPUS");
        let processes = match self.client {
            Client::FfmpegWhip => bail!("{}", no_whip_muxer()?),
            Client::Ffmpeg(_) | Client::Gstreamer(_) => self.encoder(hub, feed, codec)?,
            Client::QuinnDatagram | Client::QuinnStream => {
                let (url, flow) = announce(hub, self.client, feed, self.media)?;
                let ask = Ask { publish: true, url: &url, token: "", media: self.media, hz, seconds: PUBLISH_SECONDS };
                let flow = if self.control == Control::None { flow } else { flow + 1_000 };
                vec![Process::start(self.client.name(), &mut self.client.roq(hub, &ask, flow)?)?]
            }
            client => {
                let url = hub.url(&format!("whip?feed={feed}&audio_feed={feed}-audio&source={feed}"))?;
                let token = hub.token("local", false)?;
                let ask =
                    Ask { publish: true, url: &url, token: &token, media: self.media, hz, seconds: PUBLISH_SECONDS };
                vec![Process::start(client.name(), &mut client.whip_or_whep(hub, &ask)?)?]
            }
        };
        Ok(Source { feed: feed.to_owned(), hz, processes })
    }

    /// `trocar publish` and the encoder that feeds it; without the encoder in a control.
    fn encoder(&self, hub: &Hub, feed: &str, codec: &str) -> anyhow::Result<Vec<Process>> {
        let port = free_udp_port()?;
        let (mut encoder, source) = self.client.encoder(codec, &hub.card, port)?;
        let serves = self.client == Client::Gstreamer(Wire::Rtsp);
        let mut first = None;
        if serves && self.control == Control::None {
            let mut p = Process::start(self.client.name(), &mut encoder)?;
            p.line(LIVE, |l| l.contains("serving"))?;
            first = Some(p);
        }
        let publish = native(hub, feed, &["--source", &source, "--bitrate", "2"])?;
        let last = (!serves && self.control == Control::None).then(|| Process::start(self.client.name(), &mut encoder));
        Ok(first.into_iter().chain(Some(publish)).chain(last.transpose()?).collect())
    }

    /// The client publishes with a bearer that is none.
    fn publish_refused(&self, hub: &Hub, number: u32) -> anyhow::Result<String> {
        match self.client {
            Client::QuinnDatagram | Client::QuinnStream | Client::Ffmpeg(_) | Client::Gstreamer(_) => {
                bail!("it has no bearer: the control is the missing publisher")
            }
            client => {
                let url = hub.url(&format!("whip?feed=cell{number}"))?;
                let token = wrong(&hub.token("local", false)?);
                let ask = Ask { publish: true, url: &url, token: &token, media: self.media, hz: 440, seconds: 5 };
                let ended = finish(client.name(), client.whip_or_whep(hub, &ask)?, 5)?;
                Ok(format!("it went on with a wrong token: {ended}"))
            }
        }
    }

    /// A reference of ours publishes, the client looks.
    fn viewed(&self, hub: &Hub, number: u32) -> anyhow::Result<String> {
        let feed = format!("cell{number}");
        let hz = 400 + 10 * (number % 40);
        let watched = if self.media.video.is_some() { feed.clone() } else { format!("{feed}-audio") };
        let mut reference = None;
        if self.control != Control::NoPublisher {
            let mut p = reference_publisher(hub, &feed, self.media, hz)?;
            hub.live(&watched, &mut p, LIVE).context("the reference publisher")?;
            reference = Some(p);
        }
        let said = look(hub, self.client, &watched, self.media, hz, self.control);
        drop(reference);
        said
    }
}

/// aiortc listens to a feed of sound: what it heard, where that is the tone of `hz`.
///
/// # Errors
/// What was heard instead, or why nothing was.
pub fn hear(hub: &Hub, feed: &str, hz: u32) -> anyhow::Result<String> {
    look(hub, Client::Aiortc, feed, Media::SOUND, hz, Control::None)
}

/// `client` views a feed and says what it saw.
fn look(hub: &Hub, client: Client, feed: &str, media: Media, hz: u32, control: Control) -> anyhow::Result<String> {
    let seconds = VIEW_SECONDS;
    let command = match client {
        Client::QuinnDatagram | Client::QuinnStream => {
            let token = hub.token("observer", true)?;
            let mode = if client == Client::QuinnStream { "stream" } else { "datagram" };
            let asked = json!({ "mode": mode });
            let leg =
                hub.request(Method::POST, &hub.url(&format!("feeds/{feed}/legs"))?, Some(&token), Some(&asked))?;
            let url = leg.get("relay").and_then(Value::as_str).context("a binding has a relay")?.to_owned();
            let flow = leg.get("rtp_flow_id").and_then(Value::as_u64).context("a binding has a flow")?;
            if control == Control::WrongToken {
                hub.request(Method::DELETE, &hub.url(&format!("legs/{}", text(&leg, "leg")))?, Some(&token), None)?;
            }
            client.roq(hub, &Ask { publish: false, url: &url, token: "", media, hz, seconds }, flow)?
        }
        client => {
            let url = hub.url(&format!("feeds/{feed}/whep"))?;
            let token = hub.token("observer", false)?;
            let token = if control == Control::WrongToken { wrong(&token) } else { token };
            client.whip_or_whep(hub, &Ask { publish: false, url: &url, token: &token, media, hz, seconds })?
        }
    };
    let result = finish(client.name(), command, seconds)?;
    let judged = if client == Client::WebrtcCrate { judge_watch(&result) } else { judge(media, hz, seconds, &result) };
    judged.map_err(anyhow::Error::msg)
}

/// `trocar watch` counts whole frames over WebRTC; it decodes none.
fn judge_watch(summary: &Value) -> Result<String, String> {
    let frames = summary.get("frames").and_then(Value::as_f64).unwrap_or(0.0);
    let lost = summary.get("packets_missing").and_then(Value::as_f64).unwrap_or(0.0);
    let said = format!("{frames} whole frames, {lost} packets missing; not decoded");
    if frames >= 15.0 * f64::from(VIEW_SECONDS) * 0.4 && lost == 0.0 { Ok(said) } else { Err(said) }
}

/// Runs a client to its end: its result line.
fn finish(name: &str, mut command: Command, seconds: u32) -> anyhow::Result<Value> {
    let mut p = Process::start(name, &mut command)?;
    let status = p.wait(Duration::from_secs(u64::from(seconds)) + SLACK)?;
    let lines = p.rest();
    let wanted = ["\"result\"", "\"type\":\"summary\""];
    if let (true, Some(line)) = (status.success(), lines.iter().find(|l| wanted.iter().any(|w| l.contains(w)))) {
        return Ok(serde_json::from_str(line)?);
    }
    match lines.iter().find(|l| l.contains("\"error\"")) {
        Some(line) => bail!("{}", reason_of(line)),
        None => bail!("{} ({status})", complaint(&p.stderr())),
    }
}

/// `trocar publish` sends the card by RTP over QUIC: what every viewer is measured with.
fn reference_publisher(hub: &Hub, feed: &str, media: Media, hz: u32) -> anyhow::Result<Process> {
    let (card, tone) = (format!("file:{}", path(&hub.card)?), format!("tone:{hz}"));
    let codec = media.video.unwrap_or("H264").to_lowercase();
    let mut arguments = vec!["--source", &card, "--loop"];
    match codec.as_str() {
        "h264" => arguments.push("--passthrough"),
        other => arguments.extend(["--codec", other, "--bitrate", "1"]),
    }
    if media.sound {
        arguments.extend(["--audio", &tone]);
    }
    native(hub, feed, &arguments)
}

fn native(hub: &Hub, feed: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let (link, ca) = (hub.text("/invitations/local")?, hub.text("/ca_file")?);
    let fixed = ["publish", "--invite", link, "--ca", ca, "--feed", feed, "--purpose", "room"];
    let all: Vec<&str> = fixed.into_iter().chain(arguments.iter().copied()).collect();
    Process::trocar("trocar publish", &all)
}

/// Describes a RoQ feed as a publisher does that knows nothing of our header extensions.
fn announce(hub: &Hub, client: Client, feed: &str, media: Media) -> anyhow::Result<(String, u64)> {
    let token = hub.token("local", true)?;
    let mode = if client == Client::QuinnStream { "stream" } else { "datagram" };
    let fmtp = if media.video == Some("H264") { "packetization-mode=1;profile-level-id=42e01f" } else { "" };
    let mut descriptor = json!({
        "feed": feed, "source": feed, "view": "overview", "kind": "video", "purpose": "room",
        "codec": media.video, "fmtp": fmtp, "clock_rate": 90_000, "payload_type": 96, "width": 320, "height": 240,
        "fps": 15.0, "max_bitrate": 2_000_000, "budget_ms": 200, "header_extensions": {},
        "transport": { "roq": { "mode": mode } },
    });
    if media.video.is_none() {
        let sound = json!({
            "feed": format!("{feed}-audio"), "source": feed, "view": "overview", "kind": "audio", "purpose": "voice",
            "codec": "opus", "fmtp": "", "clock_rate": 48_000, "payload_type": 97, "max_bitrate": 128_000,
            "budget_ms": 200, "header_extensions": {}, "transport": { "roq": { "mode": mode } },
        });
        descriptor = sound;
    }
    let binding = hub.request(Method::POST, &hub.url("feeds")?, Some(&token), Some(&descriptor))?;
    let flow = binding.get("rtp_flow_id").and_then(Value::as_u64).context("a binding has a flow")?;
    Ok((text(&binding, "relay"), flow))
}

fn text(of: &Value, key: &str) -> String {
    of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A token whose signature is not the server's.
fn wrong(token: &str) -> String {
    let (head, signature) = token.rsplit_once('.').unwrap_or((token, ""));
    let turned: String = signature.chars().rev().collect();
    format!("{head}.{turned}")
}

/// Why ffmpeg publishes nothing by WHIP here.
fn no_whip_muxer() -> anyhow::Result<String> {
    let out = Command::new("ffmpeg").args(["-hide_banner", "-muxers"]).output().context("ffmpeg is missing")?;
    let has = String::from_utf8_lossy(&out.stdout).lines().any(|l| l.contains(" whip "));
    Ok(if has {
        "this ffmpeg has a WHIP muxer: the cell wants writing"
    } else {
        "this ffmpeg has no WHIP muxer (it came with 8.0)"
    }
    .to_owned())
}

/// One line, without this machine's paths, short enough for a table's notes.
fn tidy(why: &str) -> String {
    let words = why.split_whitespace().filter(|w| !w.contains("/.cargo/") && !w.starts_with("../ext/"));
    let line = words.collect::<Vec<_>>().join(" ");
    let line = line.replace("(video null, audio null)", "").replace('|', "/");
    line.chars().take(420).collect()
}
