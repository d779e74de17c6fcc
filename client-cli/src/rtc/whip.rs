//! `trocar publish --whip`: sources, prepared as for the relay's own transport, sent by WHIP.

use super::publish::{Inlet, Outgoing, Publication, TrackSpec, Wish};
use super::resource::{Bearer, Endpoint};
use crate::media::{Frame, Prepared, Running, SourceEvent};
use crate::stop::Stop;
use anyhow::ensure;
use rustls::pki_types::CertificateDer;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;
use trocar_proto::session::feed::{FeedDescriptor, MediaKind};
use url::Url;

/// Payload type of sound.
const SOUND: u8 = 111;

/// Where to, and by which right.
#[derive(Debug, Clone)]
pub(crate) struct WhipTarget {
    /// The WHIP endpoint.
    pub(crate) url: Url,
    /// Bearer token, or an invitation's secret.
    pub(crate) token: Option<String>,
    /// The authorities of an https address.
    pub(crate) trust: Vec<CertificateDer<'static>>,
}

/// Publishes one picture, one sound or both, until a signal or the end of every source.
///
/// # Errors
/// What the server answered to the first offer; what stops a source.
pub(crate) async fn run(
    target: WhipTarget,
    sources: Vec<(FeedDescriptor, Prepared)>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let sounds = sources.iter().filter(|(d, _)| d.kind == MediaKind::Audio).count();
    ensure!(
        sounds <= 1 && sources.len() - sounds <= 1 && !sources.is_empty(),
        "WHIP carries one picture and one sound (RFC 9725 section 4.2), not {} feeds",
        sources.len()
    );
    let bearer = target.token.map_or(Bearer::None, Bearer::Fixed);
    let endpoint = Endpoint::new(target.url, bearer, &target.trust)?;
    let (publication, inlets) = Publication::new(sources.iter().map(|(d, _)| spec(d)).collect());
    let mut running = Vec::new();
    for ((_, prepared), inlet) in sources.into_iter().zip(inlets.iter().cloned()) {
        let sink = move |f: Frame| inlet.send(Outgoing { packets: f.packets, capture: f.capture });
        running.push(prepared.start(Box::new(sink))?);
    }
    let (ask, mut asked) = tokio::sync::mpsc::channel(16);
    let mut ends = JoinSet::new();
    let mut keys = Vec::new();
    for source in running {
        // A task for each source: it hears of wishes and of its end.
        let (wish, wishes) = tokio::sync::mpsc::channel(4);
        keys.push(wish);
        ends.spawn(follow(source, wishes));
    }
    let ended = async {
        while let Some(end) = ends.join_next().await {
            end??;
        }
        anyhow::Ok(())
    };
    let passing = async {
        while let Some(track) = asked.recv().await {
            // Loss policy: the source has a wish under way already.
            let _: Option<()> = keys.get::<usize>(track).and_then(|k| k.try_send(()).ok());
        }
    };
    let (hang_up, over) = Stop::by_hand();
    let publishing = publication.publish(&endpoint, &hang_up, |wish| match wish {
        Wish::Connected(url) => println!("publishing by WHIP to {url}"),
        // Loss policy: as many wishes as fit are as good as one.
        Wish::KeyFrame(track) => drop(ask.try_send(track)),
    });
    tokio::pin!(publishing);
    let ended = tokio::select! {
        result = &mut publishing => return result,
        () = stop.requested() => Ok(()),
        result = ended => result,
        () = passing => Ok(()),
    };
    // The resource is deleted whatever ended it.
    over.send_replace(true);
    let published = publishing.await;
    report(&inlets);
    ended.and(published)
}

/// Runs a source to its end; stops it when dropped.
async fn follow(mut source: Running, mut wishes: tokio::sync::mpsc::Receiver<()>) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            event = source.next_event() => match event {
                Some(SourceEvent::Error(error)) => return Err(error.into()),
                Some(SourceEvent::EndOfStream) | None => return Ok(()),
                Some(SourceEvent::Restarted { rounds }) => tracing::info!(rounds, "the file begins again"),
            },
            Some(()) = wishes.recv() => {
                if !source.request_key_frame() {
                    tracing::debug!("a key frame is wanted; this source has them only where it has them");
                }
            }
        }
    }
}

fn report(inlets: &[Inlet]) {
    for (track, inlet) in inlets.iter().enumerate() {
        let count = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        tracing::info!(track, frames = count(&inlet.sent().frames), left_out = count(&inlet.sent().dropped), "sent");
    }
}

fn spec(feed: &FeedDescriptor) -> TrackSpec {
    let sound = feed.kind == MediaKind::Audio;
    TrackSpec {
        sound,
        codec: if sound { feed.codec.to_ascii_lowercase() } else { feed.codec.clone() },
        fmtp: feed.fmtp.clone(),
        clock_rate: feed.clock_rate,
        // Opus is announced with two whatever is in it (RFC 7587 section 7).
        channels: if sound { 2 } else { 0 },
        // Pictures and sound go side by side and come with one number.
        payload_type: if sound { SOUND } else { feed.payload_type },
    }
}
