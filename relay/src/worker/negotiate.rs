//! What signaling asks for browsers and other WebRTC clients: an offer becomes a peer with legs that leave by it (WHEP), or
//! tracks that come in by it (WHIP).

use super::peer::{Listening, Part, Peer, RECENT_REPEATS, RepairBudget, Role, Track, TransportCc, WebrtcWay};
use super::state::{Core, Origin, Resource, Way, random_u32};
use crate::webrtc::codec::{choose_for_viewer, choose_from_publisher, rtx_for};
use crate::webrtc::remote::Remote;
use crate::webrtc::sdp::{
    AcceptedMedia, CandidateAddress, Codec, Feedback, Fragment, FragmentAnswer, Media, MediaDirection, Offer, SdpError,
    SendIds, SessionAnswer,
};
use crate::webrtc::transport::{Setup, Transport, new_credentials};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use trocar_proto::media::ext::{
    ABS_CAPTURE_TIME_URI, AUDIO_LEVEL_URI, ExtensionIds, FRAME_URI, PLAYOUT_DELAY_URI, TRANSPORT_CC_URI,
};
use trocar_proto::media::ingest::{Ingest, IngestConfig};
use trocar_proto::media::leg::{Leg, Numbering};
use trocar_proto::media::nack::NackGenerator;
use trocar_proto::media::twcc::Recorder;
use trocar_proto::session::admission::{
    AdmitError, FeedKey, FeedOutline, LegGrant, PublicationAnswer, PublicationGrant, VoicesGrant, WebrtcAnswer,
};
use trocar_proto::session::feed::{FeedDescriptor, MediaKind, Transport as FeedTransport};
use trocar_proto::session::ids::{FeedId, LegId, PublicationId, SessionId};
use trocar_proto::units::{Bitrate, Micros, SeqNo, Ssrc};

/// Payload types that feeds from WebRTC have inside the relay and on native legs: outside of what could be taken for
/// RTCP (RFC 5761 section 4), whatever the browser calls them.
const VIDEO_PAYLOAD_TYPE: u8 = 96;
const AUDIO_PAYLOAD_TYPE: u8 = 97;
/// Voices that one listener hears at once at most.
pub(crate) const MAX_VOICES: usize = 12;
/// Rate of a voice, for the repair budget of a place whose voice may change.
const VOICE_RATE: Bitrate = Bitrate(128_000);
/// Other feeds that a client is told of when it can take nothing of the one that it asked for.
const MAX_ALTERNATIVES: usize = 8;

/// One m-line on its way into the answer.
struct Line<'a> {
    index: usize,
    media: &'a Media,
    codec: &'a Codec,
    rtx: Option<u8>,
    extensions: Vec<(u8, &'a str)>,
    /// SSRCs that we send on it, and what the track is called; none where we receive.
    send: Option<(Ssrc, Ssrc, String)>,
    max_bitrate: Option<Bitrate>,
}

impl<'a> Line<'a> {
    fn new(index: usize, media: &'a Media, codec: &'a Codec, known: &[&str]) -> Self {
        let wanted = media.extensions.iter().filter(|(id, uri)| (1..=14).contains(id) && known.contains(&uri.as_str()));
        Self {
            index,
            media,
            codec,
            rtx: rtx_for(media, codec.payload_type),
            extensions: wanted.map(|(id, uri)| (*id, uri.as_str())).collect(),
            send: None,
            max_bitrate: None,
        }
    }

    /// The same, sent by us.
    fn sent_as(mut self, track: &str) -> Self {
        let (media, rtx) = distinct_ssrcs();
        self.send = Some((media, rtx, track.to_owned()));
        self
    }

    fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, u)| *u == uri).map(|(id, _)| *id)
    }

    fn has_feedback(&self, feedback: Feedback) -> bool {
        self.codec.feedback.contains(&feedback)
    }

    fn way(&self, peer: usize, part: Part, rate: Bitrate) -> WebrtcWay {
        let (ssrc, rtx_ssrc) = self.send.as_ref().map_or_else(distinct_ssrcs, |(a, b, _)| (*a, *b));
        WebrtcWay {
            peer,
            mid: self.media.mid.clone(),
            part,
            paused: false,
            repair: RepairBudget::new(rate),
            streams: None,
            rtx_payload_type: self.rtx,
            playout_delay_id: self.extension(PLAYOUT_DELAY_URI),
            ssrc,
            rtx_ssrc,
            recent_repeats: Box::new([(0, Micros(0)); RECENT_REPEATS]),
            next_rtx: SeqNo(u64::from(random_u32() & 0x7fff)),
        }
    }

    fn numbering(&self) -> Numbering {
        let ssrc = self.send.as_ref().map_or(Ssrc(0), |(a, _, _)| *a);
        let first_seq = u16::try_from(random_u32() & 0x7fff).unwrap_or(0);
        Numbering::Own { ssrc, payload_type: self.codec.payload_type, first_seq }
    }
}

impl Core {
    /// Somebody may view a feed by WebRTC.
    pub(crate) fn open_webrtc_leg(
        &mut self,
        grant: LegGrant,
        offer: &str,
        now: Instant,
    ) -> Result<WebrtcAnswer, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        let feed_index = self.find_feed(&grant.feed)?;
        self.check_room(2)?;
        let offer = Offer::parse(offer).map_err(bad_sdp)?;
        let main = self.line_for_viewer(&offer, feed_index)?;
        // What cannot come along is left out: the picture is what was asked for.
        let beside = grant.companion.as_ref().and_then(|key| {
            let index = self.find_feed(key).ok()?;
            let line = self.line_for_viewer(&offer, index).ok()?;
            let both = [main.index, line.index];
            (line.index != main.index && offer.share_transport(&both)).then_some((index, line))
        });
        let mut feeds = vec![feed_index];
        let mut lines = vec![main];
        if let Some((index, line)) = beside {
            feeds.push(index);
            lines.push(line);
        }
        let role = Role::Viewer(grant.leg.clone());
        let (peer, answer) = self.insert_peer(listener, role, &offer, &lines, grant.feed.feed.as_str(), now)?;
        for ((feed, line), part) in feeds.into_iter().zip(&lines).zip([Part::Primary, Part::Companion]) {
            let rate = self.feeds.get(feed).map_or(VOICE_RATE, |f| f.descriptor.max_bitrate);
            let way = Way::Webrtc(Box::new(line.way(peer, part, rate)));
            let leg = self.insert_leg(&grant.leg, feed, line.numbering(), way, now)?;
            self.peers.get_mut(peer).into_iter().for_each(|p| p.legs.push(leg));
        }
        self.leg_by_id.insert(grant.leg, Resource::Peer(peer));
        Ok(answer)
    }

    /// Somebody may hear the voices of a session.
    pub(crate) fn open_voices(
        &mut self,
        grant: VoicesGrant,
        offer: &str,
        now: Instant,
    ) -> Result<WebrtcAnswer, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        let offer = Offer::parse(offer).map_err(bad_sdp)?;
        let mut lines = Vec::new();
        for (index, media) in offer.receivers("audio").take(MAX_VOICES) {
            media.check().map_err(bad_sdp)?;
            if let Some(codec) = choose_for_viewer(media, "opus", "", 48_000) {
                lines.push(Line::new(index, media, codec, &[]).sent_as(&format!("voice-{}", lines.len())));
            }
        }
        if lines.is_empty() {
            let detail = "voices are Opus: an offer with 1 to 12 audio m-lines that receive opus/48000/2 is right";
            return Err(not_acceptable(detail.to_owned(), Vec::new()));
        }
        self.check_room(lines.len())?;
        let who = Listening { leg: grant.leg.clone(), session: grant.session.clone(), listener: grant.listener };
        let (peer, answer) = self.insert_peer(listener, Role::Listener(who), &offer, &lines, "voices", now)?;
        let at = self.micros(now);
        for line in &lines {
            let way = Way::Webrtc(Box::new(line.way(peer, Part::Voice, VOICE_RATE)));
            let entry = super::state::LegEntry::new(grant.leg.clone(), None, Leg::silent(line.numbering()), way, at);
            let leg = self.legs.insert(entry);
            self.peers.get_mut(peer).into_iter().for_each(|p| p.legs.push(leg));
        }
        self.leg_by_id.insert(grant.leg, Resource::Peer(peer));
        self.add_listener(&grant.session, peer, lines.len());
        Ok(answer)
    }

    /// Somebody may publish by WebRTC.
    pub(crate) fn open_publication(
        &mut self,
        grant: PublicationGrant,
        offer: &str,
        now: Instant,
    ) -> Result<PublicationAnswer, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        let offer = Offer::parse(offer).map_err(bad_sdp)?;
        let wanted = [(MediaKind::Video, grant.video), (MediaKind::Audio, grant.audio)];
        let mut lines: Vec<Line<'_>> = Vec::new();
        let mut outlines = Vec::new();
        for (kind, outline) in wanted.into_iter().filter_map(|(k, o)| Some((k, o?))) {
            let Some((media, line)) = line_of_publisher(&offer, kind)? else { continue };
            let together: Vec<usize> = lines.iter().map(|l| l.index).chain([line.index]).collect();
            if !offer.share_transport(&together) {
                let hint = "several m-lines are taken in one BUNDLE group only (RFC 9143): offer max-bundle";
                return Err(AdmitError::BadSdp(format!("m={}: {hint}", media.kind)));
            }
            self.check_feed(&FeedKey { session: grant.session.clone(), feed: outline.feed.clone() })?;
            lines.push(Line { max_bitrate: Some(outline.max_bitrate), ..line });
            outlines.push((kind, outline));
        }
        let Some((_, first)) = outlines.first() else { return Err(nothing_to_take(&offer)) };
        let name = first.feed.to_string();
        let role = Role::Publisher(grant.publication.clone());
        let (peer, answer) = self.insert_peer(listener, role, &offer, &lines, &name, now)?;
        let mut feeds = Vec::new();
        for ((kind, outline), line) in outlines.into_iter().zip(&lines) {
            let descriptor = describe(kind, outline, line.codec);
            let ingest = Ingest::new(IngestConfig {
                codec: trocar_proto::media::codec::Codec::from_encoding_name(&descriptor.codec),
                payload_type: descriptor.payload_type,
                abs_capture_time: line.extension(ABS_CAPTURE_TIME_URI).unwrap_or(0),
            });
            let key = FeedKey { session: grant.session.clone(), feed: descriptor.feed.clone() };
            let origin = Origin::Webrtc { peer, media: None };
            let feed = self.insert_feed(key, grant.publisher.clone(), descriptor.clone(), origin, Some(ingest));
            if let Some(entry) = self.feeds.get_mut(feed) {
                entry.level_id = line.extension(AUDIO_LEVEL_URI).unwrap_or(0);
            }
            self.add_track(peer, feed, line, &descriptor);
            feeds.push(descriptor);
        }
        self.publications.insert(grant.publication, peer);
        Ok(PublicationAnswer { sdp: answer.sdp, ice_session: answer.ice_session, feeds })
    }

    fn add_track(&mut self, peer: usize, feed: usize, line: &Line<'_>, descriptor: &FeedDescriptor) {
        let Some(p) = self.peers.get_mut(peer) else { return };
        let budget = u64::from(descriptor.budget_ms) * 1_000;
        p.tracks.push(Track {
            feed: Some(feed),
            payload_type: line.codec.payload_type,
            rtx_payload_type: line.rtx,
            media: None,
            nack: line.has_feedback(Feedback::Nack).then(|| NackGenerator::new(budget)),
            remb: (line.has_feedback(Feedback::GoogRemb) && !line.has_feedback(Feedback::TransportCc))
                .then_some(descriptor.max_bitrate),
        });
        if let Some(id) = line.extension(TRANSPORT_CC_URI).filter(|_| line.has_feedback(Feedback::TransportCc)) {
            p.transport_cc.get_or_insert_with(|| TransportCc { id, recorder: Recorder::default() });
        }
    }

    /// The m-line and payload type that a feed goes out on.
    fn line_for_viewer<'a>(&self, offer: &'a Offer, feed_index: usize) -> Result<Line<'a>, AdmitError> {
        let entry = self.feeds.get(feed_index).ok_or(AdmitError::NoSuchFeed)?;
        let feed = &entry.descriptor;
        let kind = kind_name(feed.kind);
        let refused = |detail| not_acceptable(detail, self.alternatives(offer, &entry.key.session, feed));
        let Some((index, media)) = offer.receiving(kind) else {
            return Err(refused(format!("the offer has no {kind} m-line that can receive")));
        };
        media.check().map_err(bad_sdp)?;
        let Some(codec) = choose_for_viewer(media, &feed.codec, &feed.fmtp, feed.clock_rate) else {
            let (name, codec, fmtp, offered) = (&feed.feed, &feed.codec, &feed.fmtp, codecs_of(media));
            return Err(refused(format!("feed {name} is {codec} ({fmtp}); the offer has: {offered}")));
        };
        let known: &[&str] = if feed.kind == MediaKind::Video { &[PLAYOUT_DELAY_URI] } else { &[] };
        Ok(Line::new(index, media, codec, known).sent_as(feed.feed.as_str()))
    }

    /// Feeds of the session that the offer could take: other views of the same source first.
    fn alternatives(&self, offer: &Offer, session: &SessionId, asked: &FeedDescriptor) -> Vec<FeedId> {
        let fits = |d: &FeedDescriptor| {
            offer
                .receiving(kind_name(d.kind))
                .is_some_and(|(_, m)| choose_for_viewer(m, &d.codec, &d.fmtp, d.clock_rate).is_some())
        };
        let of_session: BTreeMap<(bool, &FeedId), ()> = self
            .feeds
            .iter()
            .map(|(_, f)| f)
            .filter(|f| &f.key.session == session && f.descriptor.kind == asked.kind && fits(&f.descriptor))
            .map(|f| ((f.descriptor.source != asked.source, &f.key.feed), ()))
            .collect();
        of_session.into_keys().take(MAX_ALTERNATIVES).map(|(_, feed)| feed.clone()).collect()
    }

    /// Takes a peer in and answers its offer for these m-lines.
    fn insert_peer(
        &mut self,
        listener: usize,
        role: Role,
        offer: &Offer,
        lines: &[Line<'_>],
        stream: &str,
        now: Instant,
    ) -> Result<(usize, WebrtcAnswer), AdmitError> {
        let accepted: Vec<usize> = lines.iter().map(|l| l.index).collect();
        let apart = || AdmitError::BadSdp("the accepted m-lines have no common transport: offer max-bundle".to_owned());
        let remote = offer.transport(&accepted).ok_or_else(apart)?;
        let local = new_credentials().map_err(|_| AdmitError::Unavailable)?;
        let addresses = self.listeners.get(listener).map(|l| l.candidates.clone()).unwrap_or_default();
        let candidates: Vec<CandidateAddress> = addresses.iter().map(candidate).collect();
        // The transport belongs to the first of the accepted m-lines in the group's order (RFC 9143 section 7.3.1).
        let tagged = offer.bundle.iter().find(|i| accepted.contains(i)).or(accepted.first());
        let tagged = tagged.and_then(|i| offer.media.get(*i)).ok_or_else(apart)?;
        let media: Vec<AcceptedMedia<'_>> = lines.iter().map(|l| accept(l, stream)).collect();
        let sdp = SessionAnswer {
            ufrag: &local.0,
            password: &local.1,
            fingerprint: &self.fingerprint,
            candidates: &candidates,
            session_id: u64::from(random_u32() >> 1),
            media: &media,
        }
        .render(offer);
        let setup = Setup {
            local: local.clone(),
            remote: (remote.ufrag.clone(), remote.password.clone()),
            fingerprint: remote.fingerprint.clone(),
            candidates: &addresses,
            dtls: Arc::clone(&self.dtls),
            certificate: &self.certificate,
        };
        let peer = self.peers.insert(Peer {
            role,
            transport: Transport::new(setup, now),
            listener,
            mid: tagged.mid.clone(),
            kind: tagged.kind.clone(),
            ufrags: vec![local.0.clone()],
            addresses: Vec::new(),
            keys: None,
            legs: Vec::new(),
            tracks: Vec::new(),
            ssrc: Ssrc(random_u32()),
            transport_cc: None,
            last_remb: Micros(0),
        });
        self.peer_by_ufrag.insert((listener, local.0.clone()), peer);
        Ok((peer, WebrtcAnswer { sdp, ice_session: local.0 }))
    }

    /// A fragment of a viewer or listener.
    pub(crate) fn patch_webrtc_leg(
        &mut self,
        id: &LegId,
        fragment: &str,
        now: Instant,
    ) -> Result<Option<(String, String)>, AdmitError> {
        match self.leg_by_id.get(id) {
            Some(Resource::Peer(peer)) => self.patch_peer(*peer, fragment, now),
            _ => Err(AdmitError::NoSuchLeg),
        }
    }

    /// A fragment of a publisher.
    pub(crate) fn patch_publication(
        &mut self,
        id: &PublicationId,
        fragment: &str,
        now: Instant,
    ) -> Result<Option<(String, String)>, AdmitError> {
        let peer = *self.publications.get(id).ok_or(AdmitError::NoSuchPublication)?;
        self.patch_peer(peer, fragment, now)
    }

    /// Trickled candidates are not needed (the peer's checks teach us its addresses); new credentials are an ICE restart.
    fn patch_peer(
        &mut self,
        index: usize,
        fragment: &str,
        now: Instant,
    ) -> Result<Option<(String, String)>, AdmitError> {
        let fragment = Fragment::parse(fragment).map_err(bad_sdp)?;
        let peer = self.peers.get_mut(index).ok_or(AdmitError::Unavailable)?;
        let Some((ufrag, password)) = fragment.credentials(&peer.mid).map_err(bad_sdp)? else { return Ok(None) };
        if peer.transport.remote_ufrag() == Some(ufrag) {
            return Ok(None);
        }
        let remote = (ufrag.to_owned(), password.to_owned());
        let (ours, secret) = peer.transport.restart(now, remote).map_err(|_| AdmitError::Unavailable)?;
        // The old fragment still finds the peer while its checks are under way; only the newest two are kept.
        peer.ufrags.push(ours.clone());
        let old = if peer.ufrags.len() > 2 { Some(peer.ufrags.remove(0)) } else { None };
        let (listener, kind, mid) = (peer.listener, peer.kind.clone(), peer.mid.clone());
        if let Some(old) = old {
            self.peer_by_ufrag.remove(&(listener, old));
        }
        self.peer_by_ufrag.insert((listener, ours.clone()), index);
        let addresses = self.listeners.get(listener).map(|l| l.candidates.clone()).unwrap_or_default();
        let candidates: Vec<CandidateAddress> = addresses.iter().map(candidate).collect();
        let answer =
            FragmentAnswer { ufrag: &ours, password: &secret, kind: &kind, mid: &mid, candidates: &candidates };
        Ok(Some((answer.render(), ours)))
    }
}

fn candidate(at: &Remote) -> CandidateAddress {
    CandidateAddress { address: at.address, tcp: at.tcp }
}

fn accept<'a>(line: &'a Line<'a>, stream: &'a str) -> AcceptedMedia<'a> {
    let send = line.send.as_ref().map(|(ssrc, rtx, track)| SendIds {
        ssrc: *ssrc,
        rtx_ssrc: line.rtx.map(|_| *rtx),
        cname: stream,
        stream,
        track,
    });
    AcceptedMedia {
        index: line.index,
        direction: if send.is_some() { MediaDirection::SendOnly } else { MediaDirection::RecvOnly },
        codec: line.codec,
        rtx: line.rtx,
        extensions: line.extensions.clone(),
        send,
        max_bitrate: line.max_bitrate,
    }
}

/// The m-line that a publisher sends that kind of media on, if any.
fn line_of_publisher(offer: &Offer, kind: MediaKind) -> Result<Option<(&Media, Line<'_>)>, AdmitError> {
    let known: &[&str] = match kind {
        MediaKind::Audio => &[TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI, AUDIO_LEVEL_URI],
        _ => &[TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI],
    };
    let Some((index, media)) = offer.senders(kind_name(kind)).next() else { return Ok(None) };
    media.check().map_err(bad_sdp)?;
    // By the offer's own order: what a publisher prefers is what its encoder does best.
    let codec = choose_from_publisher(media, &[]);
    Ok(codec.map(|c| (media, Line::new(index, media, c, known))))
}

/// What a feed from WebRTC is to those who view it.
fn describe(kind: MediaKind, outline: FeedOutline, codec: &Codec) -> FeedDescriptor {
    let ours = ExtensionIds::OURS;
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
        header_extensions: BTreeMap::from([
            (FRAME_URI.to_owned(), ours.frame),
            (ABS_CAPTURE_TIME_URI.to_owned(), ours.abs_capture_time),
        ]),
        priority: outline.priority,
        protected: false,
        replay: outline.replay,
        transport: FeedTransport::Webrtc,
    }
}

const fn kind_name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Video => "video",
        MediaKind::Audio => "audio",
        MediaKind::Data => "data",
    }
}

/// The codecs of an m-line, for a message.
fn codecs_of(media: &Media) -> String {
    let known = |name: &str| !matches!(name, "rtx" | "red" | "ulpfec" | "flexfec-03");
    let named = media.codecs.iter().filter(|c| known(c.name.to_ascii_lowercase().as_str()));
    let texts: Vec<String> = named.take(16).map(|c| format!("{} {}", c.name, c.fmtp).trim().to_owned()).collect();
    texts.join(", ")
}

fn nothing_to_take(offer: &Offer) -> AdmitError {
    let sent: Vec<String> = ["video", "audio"]
        .into_iter()
        .flat_map(|kind| offer.senders(kind).map(move |(_, m)| format!("{kind}: {}", codecs_of(m))))
        .collect();
    let right = "an m-line that sends H264, H265, VP8, VP9 or AV1 video, or opus audio, is right";
    let detail = if sent.is_empty() {
        format!("the offer sends nothing; {right}")
    } else {
        format!("the offer sends {}; {right}", sent.join("; "))
    };
    not_acceptable(detail, Vec::new())
}

fn not_acceptable(detail: String, alternatives: Vec<FeedId>) -> AdmitError {
    AdmitError::NotAcceptable { detail, alternatives }
}

fn bad_sdp(e: SdpError) -> AdmitError {
    AdmitError::BadSdp(e.to_string())
}

fn distinct_ssrcs() -> (Ssrc, Ssrc) {
    let a = random_u32();
    let b = random_u32();
    (Ssrc(a), Ssrc(if a == b { b.wrapping_add(1) } else { b }))
}
