//! `trocar publish`: pictures and sound from cameras, encoders and files over RoQ to the relay, until it is told to stop.
//!
//! Each feed has a supervisor that opens its source, runs it and opens it again after a failure; the hub announces the feeds
//! and keeps the connection. What goes wrong with one feed never touches another.

pub(crate) mod config;
mod hub;
pub(crate) mod plan;
pub(crate) mod proof;
mod supervise;

use crate::media::{AudioSpec, Codec, Prepared, SourceSpec};
use crate::net::address::Address;
use crate::net::api::Api;
use crate::net::link::InvitationLink;
use crate::net::path::{self, PathSpec};
use crate::net::tls::{IdentityArgs, read_chain};
use crate::rtc::whip;
use crate::sender::Sender;
use crate::stop::Stop;
use anyhow::Context;
use config::RoomConfig;
use hub::{Hub, Slot};
use plan::{Plan, PurposeArg, RoqModeArg, Size, USUAL_BUDGET_MS, Wanted};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Link, Supervisor};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use trocar_proto::session::ids::FeedId;

/// How the publisher is called where nobody says.
const NAME: &str = "Operating room";
/// Supervisors that have not ended this long after a stop are left behind: a device's driver may hang.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Publish pictures and sound into a session.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PublishArgs {
    /// Invitation link of role local or expert.
    #[arg(long, value_name = "LINK", required_unless_present = "whip", conflicts_with = "whip")]
    invite: Option<InvitationLink>,
    /// Address of a WHIP endpoint, of this relay or of another server; instead of an invitation link.
    #[arg(long, value_name = "URL", value_parser = crate::watch::web_address, conflicts_with = "config")]
    whip: Option<url::Url>,
    /// Bearer token for --whip: an access token, or an invitation's secret.
    #[arg(long, value_name = "SECRET", requires = "whip", conflicts_with = "invite")]
    token: Option<String>,
    /// Trust list: the certificate of the authority that signed the servers. A --whip address of http needs none.
    #[arg(long, value_name = "FILE", required_unless_present = "whip")]
    ca: Option<PathBuf>,
    /// This device's certificate; `device.pem` beside the trust list where left out.
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "whip")]
    cert: Option<PathBuf>,
    /// This device's private key; `device.key` beside the trust list where left out.
    #[arg(long, value_name = "FILE", requires = "cert", conflicts_with = "whip")]
    key: Option<PathBuf>,
    /// A file with every feed of an operating room (configs/or-room.toml is one), instead of the options below.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "source", "size", "looped", "passthrough", "codec", "bitrate", "feed", "purpose", "audio", "audio_bitrate",
        "audio_frame", "ledger", "frame_proof", "proof_source", "roq_mode", "budget", "path",
    ])]
    config: Option<PathBuf>,
    /// Where the picture comes from: `test`, `test:1920x1080@60`, `file:PATH`, `v4l2:/dev/video0`, `decklink:0`, `screen`,
    /// `gst:ELEMENTS`, or an encoder's stream, which is not encoded again: `rtsp://…`, `srt://HOST:PORT`,
    /// `srt://:PORT?mode=listener`, `udp://ADDRESS:PORT` (MPEG-TS), `udp://ADDRESS:PORT?format=rtp&codec=h264`.
    #[arg(long, default_value = "test")]
    source: SourceSpec,
    /// Size of a `test` source: auto (the largest that this machine encodes live), 720p, 1080p, 2160p or WIDTHxHEIGHT@FPS;
    /// or what a camera is asked for.
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,
    /// Begin a file again at its end.
    #[arg(long = "loop")]
    looped: bool,
    /// Send a file's H.264, H.265, AV1, VP8 or VP9 as it is, without decoding it.
    #[arg(long)]
    passthrough: bool,
    /// Codec of what is encoded here; H.264 where left out, which every browser shows. `raw` and `j2k` send 4:2:2 with 10 bits
    /// bit for bit, to native viewers.
    #[arg(long, value_enum)]
    codec: Option<Codec>,
    /// Bit rate of the encoder, in Mbit/s; by size where left out. Of a stream: what its encoder sends at most.
    #[arg(long, value_name = "MBPS")]
    bitrate: Option<f64>,
    /// Name of the feed.
    #[arg(long, default_value = "scope")]
    feed: FeedId,
    /// What it shows: scope, room or secondary.
    #[arg(long, default_value = "scope")]
    purpose: PurposeArg,
    /// Sound, as a feed of its own, FEED-audio: `tone`, `tone:440`, `alsa`, `alsa:DEVICE`, `pulse`, `pulse:DEVICE`,
    /// `file:PATH` or `none`.
    #[arg(long, value_name = "SOUND", default_value = "none", hide_default_value = true)]
    audio: AudioArg,
    /// Bit rate of the sound, in kbit/s; 64 where left out.
    #[arg(long, value_name = "KBPS")]
    audio_bitrate: Option<u32>,
    /// Milliseconds of sound in a packet, 10 or 20; 20 where left out.
    #[arg(long, value_name = "MS")]
    audio_frame: Option<u32>,
    /// How the publisher is called in the session.
    #[arg(long)]
    name: Option<String>,
    /// How packets go by RTP over QUIC: one per datagram, or a stream per frame, reset at the frame's deadline.
    #[arg(long, value_enum, default_value = "datagram", conflicts_with = "whip")]
    roq_mode: RoqModeArg,
    /// Milliseconds from capture to display: what is lost is repaired as long as it comes within them, and given up after that.
    #[arg(long, value_name = "MS", default_value_t = USUAL_BUDGET_MS, conflicts_with = "whip")]
    budget: u32,
    /// Local address that the packets leave by, as LOCAL_IP, or LOCAL_IP=HOST:PORT for another address of the relay. Given twice,
    /// every packet goes by both: the feed is protected, and goes on without a gap when one path fails.
    #[arg(long, value_name = "LOCAL_IP", conflicts_with = "whip")]
    path: Vec<PathSpec>,
    /// Write one JSON line per frame of the picture (frame id, SHA-256 of its RTP payloads), to be compared with a viewer's.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Report each frame of the operating field to the gate beside the device, at its frames listener: without it no expert is
    /// given control. Goes with purpose scope.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "whip")]
    frame_proof: Option<Address>,
    /// The number of the source for the gate, where its control_source is another than 1.
    #[arg(long, value_name = "N", requires = "frame_proof", default_value_t = 1, hide_default_value = true)]
    proof_source: u16,
}

impl PublishArgs {
    /// What the transport of the relay needs.
    fn identity(&self) -> anyhow::Result<IdentityArgs> {
        let ca = self.ca.clone().context("--ca FILE is needed to publish over RTP over QUIC")?;
        Ok(IdentityArgs { ca, cert: self.cert.clone(), key: self.key.clone() })
    }
}

/// What `--audio` may say.
#[derive(Debug, Clone)]
struct AudioArg(Option<AudioSpec>);

impl std::str::FromStr for AudioArg {
    type Err = crate::media::MediaError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "none" { Ok(Self(None)) } else { s.parse().map(Some).map(Self) }
    }
}

/// What will be published, and under which name.
struct Room {
    name: String,
    plans: Vec<Plan>,
    paths: Vec<PathSpec>,
    /// Nobody but this feed is to be served: what is wrong with it from the beginning ends the command.
    strict: bool,
}

fn resolve(args: &PublishArgs) -> anyhow::Result<Room> {
    if let Some(path) = &args.config {
        let room = RoomConfig::read(path)?;
        let name = args.name.clone().or_else(|| room.name.clone()).unwrap_or_else(|| NAME.to_owned());
        return Ok(Room { name, plans: room.plans()?, paths: room.paths()?, strict: false });
    }
    let paths = path::paths(&args.path, "--path")?;
    let wanted = Wanted {
        feed: args.feed.clone(),
        source: Some(args.source.clone()),
        size: args.size,
        looped: args.looped,
        passthrough: args.passthrough,
        codec: args.codec,
        bitrate: args.bitrate,
        purpose: args.purpose,
        audio: args.audio.0.clone(),
        audio_bitrate: args.audio_bitrate,
        audio_frame: args.audio_frame,
        ledger: args.ledger.clone(),
        mode: args.roq_mode.into(),
        budget_ms: args.budget,
        protected: paths.len() > 1,
        proof: args.frame_proof.clone().map(|gate| proof::Proof { gate, source: args.proof_source }),
        prefix: "--".to_owned(),
    };
    let name = args.name.clone().unwrap_or_else(|| NAME.to_owned());
    let plans = wanted.plans()?;
    proof::check(&plans, args.frame_proof.is_some()).context("--frame-proof")?;
    Ok(Room { name, plans, paths, strict: true })
}

/// Opens what must be there from the beginning: all of a single command but the streams of others, nothing of a room, whose
/// cameras may be switched on one after the other.
fn open_first(room: &Room) -> anyhow::Result<Vec<Option<Prepared>>> {
    let open = |plan: &Plan| {
        if !room.strict || plan.may_come_later() {
            return Ok(None);
        }
        plan.prepare().map(Some).with_context(|| format!("{} {}", plan.option, plan.place()))
    };
    room.plans.iter().map(open).collect()
}

/// Publishes by WHIP: one picture, and one sound with it.
async fn by_whip(args: &PublishArgs, stop: &Stop) -> anyhow::Result<()> {
    let url = args.whip.clone().context("--invite LINK or --whip URL is needed")?;
    let trust = args.ca.as_deref().map(read_chain).transpose().context("--ca")?.unwrap_or_default();
    let room = resolve(args)?;
    let prepare = |plan: &Plan| {
        let prepared = plan.prepare().with_context(|| format!("{} {}", plan.option, plan.place()))?;
        Ok((plan.describe(prepared.info()), prepared))
    };
    let opened =
        tokio::task::spawn_blocking(move || room.plans.iter().map(prepare).collect::<anyhow::Result<Vec<_>>>());
    let target = whip::WhipTarget { url, token: args.token.clone(), trust };
    whip::run(target, opened.await??, stop).await
}

/// Publishes until a signal or the end of every source.
pub(crate) async fn run(args: PublishArgs) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let Some(link) = args.invite.clone() else { return by_whip(&args, &stop).await };
    let files = args.identity()?;
    let identity = files.load()?;
    let cnf =
        identity.chain.first().map(|c| trocar_control::trust::cert_hash(c)).context("--cert has no certificate")?;
    let room = resolve(&args)?;
    let (room, first) = tokio::task::spawn_blocking(move || open_first(&room).map(|first| (room, first))).await??;

    let device = trocar_control::trust::Identity::new(identity.chain.clone(), identity.key.clone_key()).ok();
    let api = Api::join_as(link, &identity.trust, (Some(cnf), device), &room.name).await?;
    let _fresh = api.keep_fresh();
    let (tell, news) = mpsc::channel(room.plans.len().max(1) * 2);
    let (mut slots, mut supervisors) = (Vec::new(), JoinSet::new());
    // Ended when dropped, with everything else.
    let mut proofs = JoinSet::new();
    for (index, (plan, first)) in room.plans.into_iter().zip(first).enumerate() {
        let (plan, link) = (Arc::new(plan), Arc::new(Link::default()));
        let sender = Arc::new(Sender::new(plan.ledger.as_deref())?);
        if let Some(proof) = &plan.proof {
            sender.report_to(proof::start(proof, plan.feed.as_str(), &files, &mut proofs)?);
        }
        slots.push(Slot::new(Arc::clone(&plan), Arc::clone(&sender), Arc::clone(&link)));
        let supervisor = Supervisor { index, plan, sender, link, news: tell.clone() };
        supervisors.spawn(supervisor.run(first, stop.clone()));
    }
    drop(tell);
    let mut hub = Hub::new(api, identity, &room.paths, slots, news)?;
    let result = hub.serve(&stop).await;
    hub.news.close();
    if result.is_ok() {
        let ended = async { while supervisors.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("a source did not stop in time");
        }
    }
    supervisors.shutdown().await;
    hub.finish().await;
    result
}
