//! The relay as signaling sees it.

use std::future::Future;
use std::pin::Pin;
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant, VoicesGrant,
    WebrtcAnswer,
};
use trocar_proto::session::ids::{CertHash, LegId, PublicationId};

/// What an admission call gives back: a future that may move between threads.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What signaling asks of the relay. In one process the calls go to the relay's own handle, between machines over HTTP.
///
/// Signaling waits for each answer at most [`crate::Limits::admission_timeout`] and then takes the relay for
/// unavailable; it closes afterwards what it may have opened. Closing is idempotent: what is not there is closed already.
pub trait Admission: Send + Sync + 'static {
    /// Lets a publisher send a feed, on connections that show the grant's certificate.
    fn open_feed(&self, grant: FeedGrant) -> Answer<'_, Result<FlowBinding, AdmitError>>;

    /// Ends a feed and all legs that show it.
    fn close_feed<'a>(&'a self, feed: &'a FeedKey) -> Answer<'a, ()>;

    /// Sends a feed to a viewer by RTP over QUIC, on connections that show certificate `cnf`.
    fn open_roq_leg(&self, grant: LegGrant, cnf: CertHash) -> Answer<'_, Result<FlowBinding, AdmitError>>;

    /// Sends a feed to a viewer by WebRTC. `sdp_offer` is the WHEP client's offer, at most
    /// [`crate::Limits::body_bytes`] long and otherwise unchecked.
    fn open_webrtc_leg(&self, grant: LegGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>>;

    /// Takes an SDP fragment (RFC 8840) of a WebRTC leg. For an ICE restart the answer is the relay's own fragment and
    /// the name of the new ICE session; for candidates alone it is none.
    fn patch_webrtc_leg<'a>(
        &'a self,
        leg: &'a LegId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>>;

    /// Lets a publisher send by WebRTC (WHIP). `sdp_offer` is checked as little as a viewer's.
    fn open_publication(
        &self,
        grant: PublicationGrant,
        sdp_offer: String,
    ) -> Answer<'_, Result<PublicationAnswer, AdmitError>>;

    /// Takes an SDP fragment of a publication; answers as [`Admission::patch_webrtc_leg`] does.
    fn patch_publication<'a>(
        &'a self,
        publication: &'a PublicationId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>>;

    /// Ends a publication, its feeds and all legs that show them.
    fn close_publication<'a>(&'a self, publication: &'a PublicationId) -> Answer<'a, ()>;

    /// Sends the voices of a session to a listener. What it hears on which m-line comes as an event; the leg is patched
    /// and closed like any other.
    fn open_voices(&self, grant: VoicesGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>>;

    /// Lets a WebRTC leg go on with another feed of its source, from that feed's next key frame on. That it does is an
    /// event; until then it goes on as it was.
    fn switch_leg<'a>(&'a self, leg: &'a LegId, feed: FeedKey) -> Answer<'a, Result<(), AdmitError>>;

    /// Ends a leg of either kind.
    fn close_leg<'a>(&'a self, leg: &'a LegId) -> Answer<'a, ()>;

    /// The relay's figures in Prometheus or OpenMetrics text. Quick and not blocking.
    fn metrics_text(&self) -> String;

    /// Whether feeds and legs can be opened now. Quick and not blocking.
    fn ready(&self) -> bool;
}
