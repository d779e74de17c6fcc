//! Opening and closing of feeds and legs, as signaling asks for it.

use super::state::{
    Core, FeedEntry, Flow, LegEntry, RECENT_REPEATS, RepairBudget, ReportedLoss, RoqWay, Way, WebrtcWay, random_u32,
    wall_now,
};
use crate::metrics::DelayHistogram;
use crate::webrtc::h264;
use crate::webrtc::sdp::{self, Answer, Codec, Fragment, Media, Offer, SdpError};
use crate::webrtc::transport::{Setup, Transport, new_credentials};
use std::sync::Arc;
use std::time::Instant;
use trocar_proto::media::ext::{ABS_CAPTURE_TIME_URI, ExtensionIds, FRAME_URI, PLAYOUT_DELAY_URI};
use trocar_proto::media::feed::{Feed, FeedConfig};
use trocar_proto::media::leg::{Leg, Numbering};
use trocar_proto::media::ring::Ring;
use trocar_proto::media::roq::FlowPrefix;
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, RelayEvent, WebrtcAnswer,
};
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::session::ids::{CertHash, LegId, RealmId};
use trocar_proto::units::{FlowId, Micros, SeqNo, Ssrc};

/// What a native leg may have waiting in its connection, in milliseconds at the feed's rate, and at least that many
/// bytes: one large key frame. Loss policy: whole frames are left out up to the next key frame.
const MAX_QUEUE_MS: u64 = 200;
const MIN_QUEUE: usize = 1 << 20;

/// Bytes of a ring slot: our publishers make packets of at most 1,120 bytes, foreign ones of at most one Ethernet frame.
const SLOT_SIZE: usize = 2_048;

impl Core {
    fn listener_of(&self, realm: &RealmId) -> Result<usize, AdmitError> {
        self.listeners.iter().position(|l| &l.realm == realm).ok_or_else(|| AdmitError::NoSuchRealm(realm.clone()))
    }

    fn new_flows(&mut self) -> (FlowId, FlowId) {
        let rtp = self.next_flow;
        self.next_flow += 2;
        (FlowId(rtp), FlowId(rtp + 1))
    }

    fn binding(&self, listener: usize, rtp: FlowId, rtcp: FlowId) -> Result<FlowBinding, AdmitError> {
        let l = self.listeners.get(listener).ok_or(AdmitError::Unavailable)?;
        Ok(FlowBinding {
            relay: l.quic_address.clone(),
            server_name: l.server_name.clone(),
            rtp_flow_id: rtp,
            rtcp_flow_id: rtcp,
        })
    }

    /// A publisher may send.
    pub(crate) fn open_feed(&mut self, grant: FeedGrant) -> Result<FlowBinding, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        if self.feed_by_key.contains_key(&grant.key) {
            return Err(AdmitError::FeedExists);
        }
        if self.feeds.len() >= self.limits.max_feeds {
            return Err(AdmitError::Full(format!("{} feeds are open", self.feeds.len())));
        }
        let d = &grant.descriptor;
        let config = FeedConfig {
            clock_rate: d.clock_rate,
            payload_type: d.payload_type,
            extensions: ExtensionIds {
                frame: d.extension_id(FRAME_URI).unwrap_or(0),
                abs_capture_time: d.extension_id(ABS_CAPTURE_TIME_URI).unwrap_or(0),
            },
            slots: Ring::slots_for(d.max_bitrate.0),
            slot_size: SLOT_SIZE,
        };
        let (rtp_flow, rtcp_flow) = self.new_flows();
        let index = self.feeds.insert(FeedEntry {
            key: grant.key.clone(),
            descriptor: grant.descriptor,
            rtp_flow,
            rtcp_flow,
            feed: Feed::new(config),
            legs: Vec::new(),
            publisher: None,
            state: FeedState::Waiting,
            delay: DelayHistogram::default(),
            last_sr: None,
            last_report: Micros(0),
            reported: ReportedLoss::default(),
            receiver_ssrc: Ssrc(random_u32()),
        });
        self.flows.insert(rtp_flow, (grant.cnf, Flow::FeedRtp(index)));
        self.flows.insert(rtcp_flow, (grant.cnf, Flow::FeedRtcp(index)));
        self.feed_by_key.insert(grant.key, index);
        self.binding(listener, rtp_flow, rtcp_flow)
    }

    /// A feed ends, and its legs with it.
    pub(crate) fn close_feed(&mut self, key: &FeedKey) {
        let Some(index) = self.feed_by_key.remove(key) else { return };
        let Some(entry) = self.feeds.get(index) else { return };
        for leg in entry.legs.clone() {
            self.drop_leg(leg);
        }
        if let Some(entry) = self.feeds.try_remove(index) {
            self.flows.remove(&entry.rtp_flow);
            self.flows.remove(&entry.rtcp_flow);
        }
    }

    /// A native viewer may fetch.
    pub(crate) fn open_roq_leg(
        &mut self,
        grant: LegGrant,
        cnf: CertHash,
        now: Instant,
    ) -> Result<FlowBinding, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        let feed_index = self.check_leg(&grant)?;
        let (rtp_flow, rtcp_flow) = self.new_flows();
        let prefix = FlowPrefix::new(rtp_flow).ok_or(AdmitError::Unavailable)?;
        let rtcp_prefix = FlowPrefix::new(rtcp_flow).ok_or(AdmitError::Unavailable)?;
        let budget = self.feeds.get(feed_index).map_or(0, |f| f.descriptor.max_bitrate.0);
        let max_queue = usize::try_from(budget / 8 * MAX_QUEUE_MS / 1_000).unwrap_or(usize::MAX).max(MIN_QUEUE);
        let way = Way::Roq(RoqWay { cnf, rtcp_flow, prefix, rtcp_prefix, connection: None, max_queue });
        let index = self.insert_leg(grant, feed_index, Numbering::Verbatim, way, now)?;
        self.flows.insert(rtcp_flow, (cnf, Flow::LegRtcp(index)));
        self.binding(listener, rtp_flow, rtcp_flow)
    }

    /// A browser may fetch.
    pub(crate) fn open_webrtc_leg(
        &mut self,
        grant: LegGrant,
        offer: &str,
        now: Instant,
    ) -> Result<WebrtcAnswer, AdmitError> {
        let listener = self.listener_of(&grant.realm)?;
        let feed_index = self.check_leg(&grant)?;
        let descriptor = self.feeds.get(feed_index).map(|f| f.descriptor.clone()).ok_or(AdmitError::NoSuchFeed)?;
        let offer = Offer::parse(offer).map_err(bad_sdp)?;
        let (media_index, media, codec) = choose(&offer, &descriptor)?;
        let rtx = h264::rtx_for(media, codec.payload_type);
        let playout = media.extensions.iter().find(|(id, uri)| uri == PLAYOUT_DELAY_URI && (1..=14).contains(id));
        let extensions: Vec<(u8, &str)> = playout.iter().map(|(id, uri)| (*id, uri.as_str())).collect();
        let candidates = self.listeners.get(listener).map(|l| l.candidates.clone()).unwrap_or_default();
        let (ssrc, rtx_ssrc) = distinct_ssrcs();
        let local = new_credentials().map_err(|_| AdmitError::Unavailable)?;
        let answer = Answer {
            ufrag: &local.0,
            password: &local.1,
            fingerprint: &self.fingerprint,
            candidates: &candidates,
            media_index,
            codec,
            rtx,
            extensions: &extensions,
            ssrc,
            rtx_ssrc,
            stream: grant.feed.feed.as_str(),
            session_id: u64::from(random_u32() >> 1),
        }
        .render(&offer);
        let setup = Setup {
            local: local.clone(),
            remote: (offer.ufrag.clone(), offer.password.clone()),
            fingerprint: offer.fingerprint.clone(),
            candidates: &candidates,
            dtls: Arc::clone(&self.dtls),
            certificate: &self.certificate,
        };
        let ice_session = local.0.clone();
        let way = WebrtcWay {
            transport: Transport::new(setup, now),
            listener,
            mid: media.mid.clone(),
            paused: false,
            repair: RepairBudget::new(descriptor.max_bitrate),
            ufrags: vec![local.0.clone()],
            addresses: Vec::new(),
            keys: None,
            rtx_payload_type: rtx,
            playout_delay_id: playout.map(|(id, _)| *id),
            ssrc,
            rtx_ssrc,
            recent_repeats: Box::new([(0, Micros(0)); RECENT_REPEATS]),
            next_rtx: SeqNo(u64::from(random_u32() & 0x7fff)),
        };
        let first_seq = u16::try_from(random_u32() & 0x7fff).unwrap_or(0);
        let numbering = Numbering::Own { ssrc, payload_type: codec.payload_type, first_seq };
        let index = self.insert_leg(grant, feed_index, numbering, Way::Webrtc(Box::new(way)), now)?;
        self.leg_by_ufrag.insert((listener, local.0), index);
        Ok(WebrtcAnswer { sdp: answer, ice_session })
    }

    /// Trickled candidates are not needed (the peer's checks teach us its addresses); new credentials are an ICE restart.
    pub(crate) fn patch_webrtc_leg(
        &mut self,
        id: &LegId,
        fragment: &str,
        now: Instant,
    ) -> Result<Option<(String, String)>, AdmitError> {
        let index = *self.leg_by_id.get(id).ok_or(AdmitError::NoSuchLeg)?;
        let fragment = Fragment::parse(fragment).map_err(bad_sdp)?;
        let Some(LegEntry { way: Way::Webrtc(way), .. }) = self.legs.get_mut(index) else {
            return Err(AdmitError::NoSuchLeg);
        };
        let (Some(ufrag), Some(password)) = (fragment.ufrag, fragment.password) else { return Ok(None) };
        if way.transport.remote_ufrag() == Some(&ufrag) {
            return Ok(None);
        }
        if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&password.len()) {
            let limits = "a=ice-ufrag has 4 to 256 characters, a=ice-pwd 22 to 256 (RFC 8839 section 5.4)";
            return Err(AdmitError::BadSdp(limits.to_owned()));
        }
        let (ours, secret) = way.transport.restart(now, (ufrag, password)).map_err(|_| AdmitError::Unavailable)?;
        // The old fragment still finds the peer while its checks are under way; only the newest two are kept.
        way.ufrags.push(ours.clone());
        let old = if way.ufrags.len() > 2 { Some(way.ufrags.remove(0)) } else { None };
        let (listener, way_mid) = (way.listener, way.mid.clone());
        if let Some(old) = old {
            self.leg_by_ufrag.remove(&(listener, old));
        }
        self.leg_by_ufrag.insert((listener, ours.clone()), index);
        let candidates = self.listeners.get(listener).map(|l| l.candidates.clone()).unwrap_or_default();
        Ok(Some((sdp::render_restart(&ours, &secret, &way_mid, &candidates), ours)))
    }

    /// A leg ends.
    pub(crate) fn close_leg(&mut self, id: &LegId) {
        if let Some(index) = self.leg_by_id.get(id).copied() {
            self.drop_leg(index);
        }
    }

    fn check_leg(&self, grant: &LegGrant) -> Result<usize, AdmitError> {
        if self.legs.len() >= self.limits.max_legs {
            return Err(AdmitError::Full(format!("{} legs are open", self.legs.len())));
        }
        self.feed_by_key.get(&grant.feed).copied().ok_or(AdmitError::NoSuchFeed)
    }

    fn insert_leg(
        &mut self,
        grant: LegGrant,
        feed_index: usize,
        numbering: Numbering,
        way: Way,
        now: Instant,
    ) -> Result<usize, AdmitError> {
        let at = self.micros(now);
        let entry = self.feeds.get_mut(feed_index).ok_or(AdmitError::NoSuchFeed)?;
        let leg = Leg::new(numbering, &entry.feed, at);
        let index = self.legs.insert(LegEntry {
            id: grant.leg.clone(),
            feed: feed_index,
            leg,
            way,
            state: LegState::Connecting,
            sent: super::state::LegSent::default(),
            viewer: super::state::ViewerReport::default(),
            last_sr: at,
            last_point: Micros(0),
            unconnected_since: at,
        });
        entry.legs.push(index);
        self.leg_by_id.insert(grant.leg, index);
        Ok(index)
    }

    /// Removes a leg and everything that leads to it.
    pub(crate) fn drop_leg(&mut self, index: usize) {
        let Some(leg) = self.legs.try_remove(index) else { return };
        self.leg_by_id.remove(&leg.id);
        if let Some(feed) = self.feeds.get_mut(leg.feed) {
            feed.legs.retain(|l| *l != index);
        }
        match leg.way {
            Way::Webrtc(way) => {
                for u in way.ufrags {
                    self.leg_by_ufrag.remove(&(way.listener, u));
                }
                for a in way.addresses {
                    // Another peer may have proved itself at that address since.
                    if self.leg_by_address.get(&(way.listener, a)) == Some(&index) {
                        self.leg_by_address.remove(&(way.listener, a));
                    }
                }
            }
            Way::Roq(way) => {
                self.flows.remove(&way.rtcp_flow);
            }
        }
        self.tell(RelayEvent::Leg { leg: leg.id, state: LegState::Closed });
    }

    /// Puts a feed into a state and says so.
    pub(crate) fn set_feed_state(&mut self, index: usize, state: FeedState) {
        let Some(f) = self.feeds.get_mut(index).filter(|f| f.state != state) else { return };
        f.state = state;
        let key = f.key.clone();
        self.tell(RelayEvent::FeedState { key, state, since: wall_now() });
    }

    /// Puts a leg into a state and says so.
    pub(crate) fn set_leg_state(&mut self, index: usize, state: LegState) {
        let Some(l) = self.legs.get_mut(index).filter(|l| l.state != state) else { return };
        l.state = state;
        let leg = l.id.clone();
        self.tell(RelayEvent::Leg { leg, state });
    }
}

fn not_acceptable(detail: String) -> AdmitError {
    AdmitError::NotAcceptable { detail, alternatives: Vec::new() }
}

fn bad_sdp(e: SdpError) -> AdmitError {
    AdmitError::BadSdp(e.to_string())
}

fn distinct_ssrcs() -> (Ssrc, Ssrc) {
    let a = random_u32();
    let b = random_u32();
    (Ssrc(a), Ssrc(if a == b { b.wrapping_add(1) } else { b }))
}

/// The m-line and payload type that the feed goes out on.
fn choose<'a>(offer: &'a Offer, feed: &FeedDescriptor) -> Result<(usize, &'a Media, &'a Codec), AdmitError> {
    let kind = format!("{:?}", feed.kind).to_lowercase();
    let (index, media) = offer
        .receiving(&kind)
        .ok_or_else(|| not_acceptable(format!("the offer has no {kind} m-line that can receive")))?;
    if !media.protocol.contains("SAVPF") {
        return Err(AdmitError::BadSdp(format!("m={kind}: the protocol is UDP/TLS/RTP/SAVPF (RFC 5764)")));
    }
    if !media.rtcp_mux {
        return Err(AdmitError::BadSdp(format!("m={kind}: a=rtcp-mux is needed (RFC 8834)")));
    }
    let codec = if feed.codec.eq_ignore_ascii_case("H264") { h264::choose(media, &feed.fmtp) } else { None };
    codec.map(|c| (index, media, c)).ok_or_else(|| {
        let offered: Vec<String> = media
            .codecs
            .iter()
            .filter(|c| !matches!(c.name.to_ascii_lowercase().as_str(), "rtx" | "red" | "ulpfec" | "flexfec-03"))
            .take(16)
            .map(|c| format!("{} {}", c.name, c.fmtp).trim().to_owned())
            .collect();
        not_acceptable(format!(
            "feed {} is {} ({}); the offer has: {}",
            feed.feed,
            feed.codec,
            feed.fmtp,
            offered.join(", ")
        ))
    })
}
