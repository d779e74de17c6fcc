//! `trocar feed`.

use super::confirm::Consent;
use super::table::{Align, Table, clean, since};
use super::{Access, EXIT_STATUS, name_of};
use crate::net::api::{protection, wall_now};
use anyhow::Context as _;
use std::fmt::Write as _;
use trocar_proto::session::api::{FeedInfo, FeedState, SessionInfo};
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Purpose, Transport};
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::WallMicros;

/// Look at what is published, and remove it.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum FeedCommand {
    /// List the feeds of the session.
    #[command(after_help = EXIT_STATUS)]
    List {
        #[command(flatten)]
        access: Access,
    },
    /// Print everything that is known about one feed.
    #[command(after_help = EXIT_STATUS)]
    Show {
        #[command(flatten)]
        access: Access,
        /// Name of the feed.
        feed: FeedId,
    },
    /// Take a feed out of the session. Its publisher may announce it again. Needs the role coordinator.
    #[command(after_help = EXIT_STATUS)]
    Remove {
        #[command(flatten)]
        access: Access,
        #[command(flatten)]
        consent: Consent,
        /// Name of the feed.
        feed: FeedId,
    },
}

impl FeedCommand {
    /// Does it.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { access } => {
                let info = access.visit(async |api| api.session().await).await?;
                access.answer(&info.feeds, || feed_table(&info, wall_now()).render())
            }
            Self::Show { access, feed } => {
                // One feed comes from its own route, so that a name which is not there is refused in the server's words.
                let (info, one) = access.visit(async |api| Ok((api.session().await?, api.feed(&feed).await?))).await?;
                access.answer(&one, || details(&one, &info, wall_now()))
            }
            Self::Remove { access, consent, feed } => {
                consent.can_be_had()?;
                access
                    .visit(async |api| {
                        let info = api.session().await?;
                        let one = api.feed(&feed).await?;
                        let publisher = clean(&name_of(&info.participants, &one.publisher));
                        let state = state_name(one.state);
                        consent.ask(&format!("Remove feed {feed} ({state}, published by {publisher})?"))?;
                        api.withdraw(&feed).await.context("not removed")
                    })
                    .await?;
                access.answer(&serde_json::json!({ "removed": feed }), || format!("removed feed {feed}\n"))
            }
        }
    }
}

/// The feeds of a session, one a row.
pub(super) fn feed_table(info: &SessionInfo, now: WallMicros) -> Table {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("FEED", Left),
        ("STATE", Left),
        ("SINCE", Right),
        ("MEDIA", Left),
        ("CODEC", Left),
        ("PICTURE", Left),
        ("MBIT/S AT MOST", Right),
        ("PURPOSE", Left),
        ("BY", Left),
        ("PATHS", Left),
        ("PUBLISHER", Left),
    ]);
    for feed in &info.feeds {
        let d = &feed.descriptor;
        table.row([
            d.feed.to_string(),
            state_name(feed.state).to_owned(),
            since(feed.since, now),
            kind_name(d.kind).to_owned(),
            clean(&d.codec),
            picture(d),
            mbps(d),
            purpose_name(d.purpose).to_owned(),
            transport_name(&d.transport).to_owned(),
            short_paths(feed),
            clean(&name_of(&info.participants, &feed.publisher)),
        ]);
    }
    table.or_say("no feeds")
}

fn details(feed: &FeedInfo, info: &SessionInfo, now: WallMicros) -> String {
    let d = &feed.descriptor;
    let clock = match (feed.clock_offset_us, feed.clock_uncertainty_us) {
        (Some(offset), Some(doubt)) => {
            format!("server is {:+.3} ms from it, ± {:.3} ms", offset as f64 / 1e3, doubt as f64 / 1e3)
        }
        _ => "unknown: the age of its pictures cannot be told".to_owned(),
    };
    let paths = match (feed.paths, d.protected) {
        (Some(paths), _) => protection(paths),
        (None, true) => "to be protected by two; nothing has come yet".to_owned(),
        (None, false) => "one, unprotected by choice".to_owned(),
    };
    let lines = [
        ("feed", d.feed.to_string()),
        ("state", format!("{} for {}", state_name(feed.state), since(feed.since, now))),
        ("publisher", clean(&name_of(&info.participants, &feed.publisher))),
        ("source", format!("{}, view {}", clean(&d.source), clean(&d.view))),
        ("media", format!("{}, {}", kind_name(d.kind), purpose_name(d.purpose))),
        ("codec", format!("{} {}", clean(&d.codec), clean(&d.fmtp)).trim_end().to_owned()),
        ("picture", picture(d)),
        ("rtp", format!("payload type {}, clock {} Hz", d.payload_type, d.clock_rate)),
        ("at most", format!("{} Mbit/s", mbps(d))),
        ("budget", format!("{} ms from capture to display", d.budget_ms)),
        ("comes by", transport_name(&d.transport).to_owned()),
        ("paths", paths),
        ("clock", clock),
        ("recording", if d.replay { "yes, not a live camera" } else { "no" }.to_owned()),
    ];
    let mut out = String::new();
    for (key, value) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{key:9}  {value}");
    }
    out
}

const fn state_name(state: FeedState) -> &'static str {
    match state {
        FeedState::Waiting => "waiting",
        FeedState::Live => "live",
        FeedState::Stalled => "STALLED",
    }
}

const fn kind_name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Video => "video",
        MediaKind::Audio => "audio",
        MediaKind::Data => "data",
    }
}

const fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Scope => "scope",
        Purpose::Room => "room",
        Purpose::Voice => "voice",
        Purpose::Secondary => "secondary",
    }
}

const fn transport_name(transport: &Transport) -> &'static str {
    match transport {
        Transport::Webrtc => "WebRTC",
        Transport::Roq { .. } => "QUIC",
    }
}

fn short_paths(feed: &FeedInfo) -> String {
    match feed.paths {
        Some(p) if p.is_protected() => "protected".to_owned(),
        Some(p) => format!("UNPROTECTED {}/{}", p.alive, p.expected),
        None => "-".to_owned(),
    }
}

fn picture(d: &FeedDescriptor) -> String {
    match (d.kind, d.width, d.height) {
        (MediaKind::Video, 0, _) | (MediaKind::Video, _, 0) => "size not known yet".to_owned(),
        (MediaKind::Video, w, h) if d.fps > 0.0 => format!("{w}x{h}@{:.2}", d.fps),
        (MediaKind::Video, w, h) => format!("{w}x{h}"),
        _ => "-".to_owned(),
    }
}

fn mbps(d: &FeedDescriptor) -> String {
    format!("{:.3}", d.max_bitrate.0 as f64 / 1e6)
}
