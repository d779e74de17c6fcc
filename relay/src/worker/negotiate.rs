//! What signaling asks for browsers and other WebRTC clients: an offer becomes a peer with legs that leave by it (WHEP), or
//! tracks that come in by it (WHIP).

use super::out;
use super::peer::{FecStream, LegExtensions, Listening, Part, Peer, RECENT_REPEATS, RepairBudget, Role, WebrtcWay};
use super::police::RtcpPolice;
use super::state::{Core, Resource, Way, random_u32};
use crate::webrtc::codec::{choose_for_viewer, fec_for, rtx_for};
use crate::webrtc::layers::Demux;
use crate::webrtc::remote::Remote;
use crate::webrtc::sdp::{
    AcceptedMedia, CandidateAddress, Codec, Feedback, Fragment, FragmentAnswer, Media, MediaDirection, Offer,
    PeerTransport, SdpError, SendIds, SessionAnswer,
};
use crate::webrtc::transport::{Setup, Transport, new_credentials};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use trocar_proto::media::codec::Codec as PayloadCodec;
use trocar_proto::media::codec::pictures::Pictures;
use trocar_proto::media::ext::{
    ABS_CAPTURE_TIME_URI, AUDIO_LEVEL_URI, DEPENDENCY_DESCRIPTOR_URI, MID_URI, PLAYOUT_DELAY_URI, TRANSPORT_CC_URI,
};
use trocar_proto::media::leg::{Leg, Numbering};
use trocar_proto::session::admission::{AdmitError, LegGrant, VoicesGrant, WebrtcAnswer};
use trocar_proto::session::feed::{FeedDescriptor, MediaKind};
use trocar_proto::session::ids::{FeedId, LegId, PublicationId, SessionId};
use trocar_proto::units::{Bitrate, Micros, SeqNo, Ssrc};

/// Voices that one listener hears at once at most.
pub(crate) const MAX_VOICES: usize = 12;
/// Rate of a voice, for the repair budget of a place whose voice may change.
const VOICE_RATE: Bitrate = Bitrate(128_000);
/// Other feeds that a client is told of when it can take nothing of the one that it asked for.
const MAX_ALTERNATIVES: usize = 8;

/// Extensions are sent in the one-byte form wherever they fit it (RFC 8285 section 4.2).
const HIGHEST_SENT_ID: u8 = 14;

/// Header extensions that a viewer's sound can have.
const VOICE_EXTENSIONS: &[&str] = &[TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI, MID_URI, AUDIO_LEVEL_URI];

/// Header extensions that a viewer of such a feed may be sent.
fn known_to_viewers(kind: MediaKind, codec: &str) -> &'static [&'static str] {
    const PICTURE: &[&str] =
        &[PLAYOUT_DELAY_URI, TRANSPORT_CC_URI, ABS_CAPTURE_TIME_URI, MID_URI, DEPENDENCY_DESCRIPTOR_URI];
    match kind {
        MediaKind::Video if codec.eq_ignore_ascii_case("AV1") => PICTURE,
        // The last is AV1's.
        MediaKind::Video => PICTURE.split_last().map_or(PICTURE, |(_, rest)| rest),
        _ => VOICE_EXTENSIONS,
    }
}

/// One m-line on its way into the answer.
pub(super) struct Line<'a> {
    pub(super) index: usize,
    pub(super) media: &'a Media,
    pub(super) codec: &'a Codec,
    pub(super) rtx: Option<u8>,
    pub(super) extensions: Vec<(u8, &'a str)>,
    /// SSRCs that we send on it, and what the track is called; none where we receive.
    pub(super) send: Option<(Ssrc, Ssrc, String)>,
    pub(super) max_bitrate: Option<Bitrate>,
    /// Simulcast layers that we take, by their ids.
    pub(super) layers: Vec<&'a str>,
    /// FlexFEC that we send.
    pub(super) fec: Option<FecStream>,
}

impl<'a> Line<'a> {
    /// `highest` is the highest extension id that can be used.
    pub(super) fn new(index: usize, media: &'a Media, codec: &'a Codec, known: &[&str], highest: u8) -> Self {
        let can = |id: u8| (1..=highest).contains(&id) && id != 15;
        let wanted = media.extensions.iter().filter(|(id, uri)| can(*id) && known.contains(&uri.as_str()));
        Self {
            index,
            media,
            codec,
            rtx: rtx_for(media, codec.payload_type),
            extensions: wanted.map(|(id, uri)| (*id, uri.as_str())).collect(),
            send: None,
            max_bitrate: None,
            layers: Vec::new(),
            fec: None,
        }
    }

    /// The same, sent by us.
    fn sent_as(mut self, track: &str) -> Self {
        let [media, rtx, fec] = [(); 3].map(|()| Ssrc(random_u32()));
        self.send = Some((media, rtx, track.to_owned()));
        self.fec = fec_for(self.media, self.codec.clock_rate).map(|payload_type| FecStream { ssrc: fec, payload_type });
        self
    }

    /// The SSRCs that we send on it.
    fn ssrcs(&mut self) -> impl Iterator<Item = &mut Ssrc> {
        let sent = self.send.iter_mut().flat_map(|(media, rtx, _)| [media, rtx]);
        sent.chain(self.fec.iter_mut().map(|f| &mut f.ssrc))
    }

    pub(super) fn extension(&self, uri: &str) -> Option<u8> {
        self.extensions.iter().find(|(_, u)| *u == uri).map(|(id, _)| *id)
    }

    pub(super) fn has_feedback(&self, feedback: Feedback) -> bool {
        self.codec.feedback.contains(&feedback)
    }

    fn way(&self, peer: usize, part: Part, rate: Bitrate) -> WebrtcWay {
        let (ssrc, rtx_ssrc) = self.send.as_ref().map_or((Ssrc(0), Ssrc(0)), |(a, b, _)| (*a, *b));
        WebrtcWay {
            peer,
            mid: self.media.mid.clone(),
            part,
            paused: false,
            repair: RepairBudget::new(rate),
            streams: None,
            codec: self.codec.clone(),
            rtx_payload_type: self.rtx,
            ext: LegExtensions {
                playout_delay: self.extension(PLAYOUT_DELAY_URI),
                transport_cc: self.extension(TRANSPORT_CC_URI).filter(|_| self.has_feedback(Feedback::TransportCc)),
                abs_capture_time: self.extension(ABS_CAPTURE_TIME_URI),
                mid: self.extension(MID_URI),
                audio_level: self.extension(AUDIO_LEVEL_URI),
                dependency_descriptor: self.extension(DEPENDENCY_DESCRIPTOR_URI),
            },
            renumber: self.extension(DEPENDENCY_DESCRIPTOR_URI).map(|_| Box::default()),
            pictures: Pictures::of(PayloadCodec::from_encoding_name(&self.codec.name)),
            fec: self.fec,
            flex: None,
            ssrc,
            rtx_ssrc,
            clock_offset: None,
            last_fir: None,
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
        // Others may have to go for a leg: never for one that comes to nothing.
        transport_for(&offer, &lines)?;
        self.admit_leg(listener, &grant.leg, &feeds)?;
        keep_apart(lines.iter_mut().flat_map(Line::ssrcs));
        let role = Role::Viewer(grant.leg.clone());
        let (peer, answer) = self.insert_peer(listener, role, &offer, &lines, grant.feed.feed.as_str(), now)?;
        // The line starts at what its feeds were granted.
        let grants = feeds.iter().filter_map(|f| self.feeds.get(*f)).map(|f| f.descriptor.max_bitrate.0);
        let granted = Bitrate(grants.fold(0, u64::saturating_add));
        self.peers.get_mut(peer).into_iter().for_each(|p| p.line = RefCell::new(out::Line::new(granted)));
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
                lines.push(
                    Line::new(index, media, codec, VOICE_EXTENSIONS, HIGHEST_SENT_ID)
                        .sent_as(&format!("voice-{}", lines.len())),
                );
            }
        }
        if lines.is_empty() {
            let detail = "voices are Opus: an offer with 1 to 12 audio m-lines that receive opus/48000/2 is right";
            return Err(not_acceptable(detail.to_owned(), Vec::new()));
        }
        self.check_room(lines.len())?;
        transport_for(&offer, &lines)?;
        let rate = Bitrate(VOICE_RATE.0.saturating_mul(lines.len() as u64));
        self.admit_voices(listener, &grant.leg, rate)?;
        keep_apart(lines.iter_mut().flat_map(Line::ssrcs));
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
        Ok(Line::new(index, media, codec, known_to_viewers(feed.kind, &feed.codec), HIGHEST_SENT_ID)
            .sent_as(feed.feed.as_str()))
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
    pub(super) fn insert_peer(
        &mut self,
        listener: usize,
        role: Role,
        offer: &Offer,
        lines: &[Line<'_>],
        stream: &str,
        now: Instant,
    ) -> Result<(usize, WebrtcAnswer), AdmitError> {
        let accepted: Vec<usize> = lines.iter().map(|l| l.index).collect();
        let remote = transport_for(offer, lines)?;
        let local = new_credentials().map_err(|_| AdmitError::Unavailable)?;
        let addresses = self.listeners.get(listener).map(|l| l.candidates.clone()).unwrap_or_default();
        let candidates: Vec<CandidateAddress> = addresses.iter().map(candidate).collect();
        // The transport belongs to the first of the accepted m-lines in the group's order (RFC 9143 section 7.3.1).
        let tagged = offer.bundle.iter().find(|i| accepted.contains(i)).or(accepted.first());
        let tagged = tagged.and_then(|i| offer.media.get(*i)).ok_or_else(no_common_transport)?;
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
        let at = self.micros(now);
        let peer = self.peers.insert(Peer {
            role,
            transport: Transport::new(setup, now),
            line: RefCell::new(out::Line::new(VOICE_RATE)),
            listener,
            mid: tagged.mid.clone(),
            kind: tagged.kind.clone(),
            cname: stream.to_owned(),
            ufrags: vec![local.0.clone()],
            addresses: Vec::new(),
            keys: None,
            legs: Vec::new(),
            tracks: Vec::new(),
            demux: Demux::default(),
            ssrc: Ssrc(random_u32()),
            transport_cc: None,
            last_remb: Micros(0),
            rtcp: RtcpPolice::new(at),
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

/// The transport of an offer for these m-lines.
fn transport_for<'a>(offer: &'a Offer, lines: &[Line<'_>]) -> Result<&'a PeerTransport, AdmitError> {
    let accepted: Vec<usize> = lines.iter().map(|l| l.index).collect();
    offer.transport(&accepted).ok_or_else(no_common_transport)
}

fn no_common_transport() -> AdmitError {
    AdmitError::BadSdp("the accepted m-lines have no common transport: offer max-bundle".to_owned())
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
        layers: line.layers.clone(),
        fec: line.fec.map(|f| (f.payload_type, f.ssrc)),
    }
}

pub(super) const fn kind_name(kind: MediaKind) -> &'static str {
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

pub(super) fn nothing_to_take(offer: &Offer) -> AdmitError {
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

pub(super) fn bad_sdp(e: SdpError) -> AdmitError {
    AdmitError::BadSdp(e.to_string())
}

/// Makes the SSRCs of a connection differ, of all its m-lines: one key seals them, and it is the SSRC that keeps nonces apart.
/// Ends because there are fewer of them than numbers.
fn keep_apart<'a>(ssrcs: impl Iterator<Item = &'a mut Ssrc>) {
    let mut given = BTreeSet::new();
    for ssrc in ssrcs {
        while !given.insert(*ssrc) {
            ssrc.0 = ssrc.0.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_by_one_connection_has_an_ssrc_of_its_own_whatever_was_drawn() {
        let apart = |mut drawn: Vec<u32>| {
            let mut all: Vec<Ssrc> = drawn.drain(..).map(Ssrc).collect();
            keep_apart(all.iter_mut());
            all.into_iter().map(|s| s.0).collect::<Vec<_>>()
        };
        assert_eq!(apart(vec![1, 2, 3, 9, 8, 7]), [1, 2, 3, 9, 8, 7], "what differs stays as it is");
        // Two legs of which one's media has the other's media, repeats and redundancy.
        assert_eq!(apart(vec![5, 6, 7, 5, 6, 7]), [5, 6, 7, 8, 9, 10]);
        assert_eq!(apart(vec![u32::MAX; 3]), [u32::MAX, 0, 1]);
        assert_eq!(apart(vec![0; 36]), (0..36).collect::<Vec<_>>(), "a random source that fails");
    }
}
