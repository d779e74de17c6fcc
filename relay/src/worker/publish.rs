//! What signaling asks for publishers by WebRTC (WHIP): an offer becomes a peer with tracks that come in by it, one for each
//! m-line, or for each of its layers where it is simulcast.

use super::negotiate::{Line, bad_sdp, kind_name, nothing_to_take};
use super::peer::{Role, Track, TransportCc};
use super::state::{Core, Origin};
use crate::webrtc::codec::choose_from_publisher;
use crate::webrtc::layers::{Lane, by_size};
use crate::webrtc::sdp::{Feedback, Offer};
use std::collections::BTreeMap;
use std::time::Instant;
use trocar_proto::media::ext::{
    ABS_CAPTURE_TIME_URI, AUDIO_LEVEL_URI, DEPENDENCY_DESCRIPTOR_URI, ExtensionIds, FRAME_URI, MID_URI,
    REPAIRED_RID_URI, RID_URI, TRANSPORT_CC_URI,
};
use trocar_proto::media::ingest::{Ingest, IngestConfig};
use trocar_proto::media::nack::NackGenerator;
use trocar_proto::media::twcc::Recorder;
use trocar_proto::session::admission::{AdmitError, FeedKey, FeedOutline, PublicationAnswer, PublicationGrant};
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Transport as FeedTransport};
use trocar_proto::units::Bitrate;

/// Payload types that feeds from WebRTC have inside the relay and on native legs: outside of what could be taken for
/// RTCP (RFC 5761 section 4), whatever the browser calls them.
const VIDEO_PAYLOAD_TYPE: u8 = 96;
const AUDIO_PAYLOAD_TYPE: u8 = 97;

/// A feed that an m-line is to bring: the whole line, or one of its layers.
struct Wanted {
    kind: MediaKind,
    outline: FeedOutline,
    /// Index of its m-line among the accepted ones.
    line: usize,
    rid: Option<String>,
}

impl Core {
    /// Somebody may publish by WebRTC.
    pub(crate) fn open_publication(
        &mut self,
        grant: PublicationGrant,
        offer: &str,
        now: Instant,
    ) -> Result<PublicationAnswer, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        let offer = Offer::parse(offer).map_err(bad_sdp)?;
        let kinds = [(MediaKind::Video, grant.video, grant.layers), (MediaKind::Audio, grant.audio, Vec::new())];
        let mut lines: Vec<Line<'_>> = Vec::new();
        let mut wanted: Vec<Wanted> = Vec::new();
        for (kind, outline, smaller) in kinds.into_iter().filter_map(|(k, o, s)| Some((k, o?, s))) {
            let Some(line) = line_of_publisher(&offer, kind)? else { continue };
            let together: Vec<usize> = lines.iter().map(|l| l.index).chain([line.index]).collect();
            if !offer.share_transport(&together) {
                let hint = "several m-lines are taken in one BUNDLE group only (RFC 9143): offer max-bundle";
                return Err(AdmitError::BadSdp(format!("m={}: {hint}", line.media.kind)));
            }
            let layers = layers_of(&line, outline, smaller);
            for (outline, _) in &layers {
                self.check_feed(&FeedKey { session: grant.session.clone(), feed: outline.feed.clone() })?;
            }
            let sum = layers.iter().map(|(o, _)| o.max_bitrate.0).fold(0, u64::saturating_add);
            let taken = layers.iter().filter_map(|(_, rid)| rid.as_deref());
            let rids = line.media.simulcast.iter().filter(|r| taken.clone().any(|t| t == *r)).map(String::as_str);
            let rids = rids.collect();
            wanted.extend(layers.into_iter().map(|(outline, rid)| Wanted { kind, outline, line: lines.len(), rid }));
            lines.push(Line { max_bitrate: Some(Bitrate(sum)), layers: rids, ..line });
        }
        let Some(first) = wanted.first() else { return Err(nothing_to_take(&offer)) };
        let name = first.outline.feed.to_string();
        let role = Role::Publisher(grant.publication.clone());
        let (peer, answer) = self.insert_peer(listener, role, &offer, &lines, &name, now)?;
        let mut feeds = Vec::new();
        for w in wanted {
            let Some(line) = lines.get(w.line) else { continue };
            let descriptor = describe(w.kind, w.outline, line);
            let ingest = Ingest::new(IngestConfig {
                codec: trocar_proto::media::codec::Codec::from_encoding_name(&descriptor.codec),
                payload_type: descriptor.payload_type,
                abs_capture_time: line.extension(ABS_CAPTURE_TIME_URI).unwrap_or(0),
                audio_level: line.extension(AUDIO_LEVEL_URI).unwrap_or(0),
                dependency_descriptor: line.extension(DEPENDENCY_DESCRIPTOR_URI).unwrap_or(0),
            });
            let key = FeedKey { session: grant.session.clone(), feed: descriptor.feed.clone() };
            let origin = Origin::Webrtc { peer, media: None };
            let feed = self.insert_feed(key, grant.publisher.clone(), descriptor.clone(), origin, Some(ingest));
            if let Some(entry) = self.feeds.get_mut(feed) {
                entry.level_id = line.extension(AUDIO_LEVEL_URI).unwrap_or(0);
            }
            self.add_track(peer, feed, line, w.rid, &descriptor);
            feeds.push(descriptor);
        }
        self.publications.insert(grant.publication, peer);
        Ok(PublicationAnswer { sdp: answer.sdp, ice_session: answer.ice_session, feeds })
    }

    fn add_track(
        &mut self,
        peer: usize,
        feed: usize,
        line: &Line<'_>,
        rid: Option<String>,
        descriptor: &FeedDescriptor,
    ) {
        let Some(p) = self.peers.get_mut(peer) else { return };
        let budget = u64::from(descriptor.budget_ms) * 1_000;
        let given = |uri| line.extension(uri).unwrap_or(0);
        p.demux.add(Lane::new(line.codec.payload_type, line.rtx, rid), given(RID_URI), given(REPAIRED_RID_URI));
        p.tracks.push(Track {
            feed: Some(feed),
            nack: line.has_feedback(Feedback::Nack).then(|| NackGenerator::new(budget)),
            fir: (line.has_feedback(Feedback::CcmFir) && !line.has_feedback(Feedback::NackPli)).then_some(0),
            remb: (line.has_feedback(Feedback::GoogRemb) && !line.has_feedback(Feedback::TransportCc))
                .then_some(descriptor.max_bitrate),
        });
        if let Some(id) = line.extension(TRANSPORT_CC_URI).filter(|_| line.has_feedback(Feedback::TransportCc)) {
            p.transport_cc.get_or_insert_with(|| TransportCc { id, recorder: Recorder::default() });
        }
    }
}

/// The feeds of an m-line with the ids of their layers, the largest first. A layer without an outline is not taken.
fn layers_of(line: &Line<'_>, outline: FeedOutline, smaller: Vec<FeedOutline>) -> Vec<(FeedOutline, Option<String>)> {
    let rids = &line.media.simulcast;
    let has_names = line.extension(RID_URI).is_some();
    if rids.len() < 2 || !has_names {
        return vec![(outline, None)];
    }
    let order = by_size(rids).into_iter().filter_map(|i| rids.get(i).cloned());
    std::iter::once(outline).chain(smaller).zip(order).map(|(outline, rid)| (outline, Some(rid))).collect()
}

/// The m-line that a publisher sends that kind of media on, if any.
fn line_of_publisher(offer: &Offer, kind: MediaKind) -> Result<Option<Line<'_>>, AdmitError> {
    const SOUND: &[&str] = &[TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI, MID_URI, AUDIO_LEVEL_URI];
    const PICTURE: &[&str] = &[TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI, MID_URI, RID_URI, REPAIRED_RID_URI];
    const AV1: &[&str] =
        &[TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI, MID_URI, RID_URI, REPAIRED_RID_URI, DEPENDENCY_DESCRIPTOR_URI];
    let Some((index, media)) = offer.senders(kind_name(kind)).next() else { return Ok(None) };
    media.check().map_err(bad_sdp)?;
    // By the offer's own order: what a publisher prefers is what its encoder does best.
    let Some(codec) = choose_from_publisher(media, &[]) else { return Ok(None) };
    let known = match kind {
        MediaKind::Audio => SOUND,
        _ if codec.name.eq_ignore_ascii_case("AV1") => AV1,
        _ => PICTURE,
    };
    // Both element forms are read (RFC 8285), so ids above 14 are fine where the offer may mix them.
    let highest = if offer.extmap_allow_mixed || media.extmap_allow_mixed { u8::MAX } else { 14 };
    Ok(Some(Line::new(index, media, codec, known, highest)))
}

/// What a feed from WebRTC is to those who view it.
fn describe(kind: MediaKind, outline: FeedOutline, line: &Line<'_>) -> FeedDescriptor {
    let (codec, ours) = (line.codec, ExtensionIds::OURS);
    let mut header_extensions =
        BTreeMap::from([(FRAME_URI.to_owned(), ours.frame), (ABS_CAPTURE_TIME_URI.to_owned(), ours.abs_capture_time)]);
    for (uri, id) in [(AUDIO_LEVEL_URI, ours.audio_level), (DEPENDENCY_DESCRIPTOR_URI, ours.dependency_descriptor)] {
        if line.extension(uri).is_some() {
            header_extensions.insert(uri.to_owned(), id);
        }
    }
    FeedDescriptor {
        feed: outline.feed,
        source: outline.source,
        view: outline.view,
        kind,
        purpose: outline.purpose,
        codec: codec.name.clone(),
        fmtp: codec.fmtp.clone(),
        clock_rate: codec.clock_rate,
        payload_type: if kind == MediaKind::Video { VIDEO_PAYLOAD_TYPE } else { AUDIO_PAYLOAD_TYPE },
        width: 0,
        height: 0,
        fps: 0.0,
        max_bitrate: outline.max_bitrate,
        budget_ms: outline.budget_ms,
        header_extensions,
        priority: outline.priority,
        protected: false,
        replay: outline.replay,
        fec: None,
        transport: FeedTransport::Webrtc,
    }
}
