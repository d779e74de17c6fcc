//! Signaling's door to a relay in the same process: each question is a call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use trocar_proto::session::admission::{
    AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, PublicationAnswer, PublicationGrant, VoicesGrant,
    WebrtcAnswer,
};
use trocar_proto::session::ids::{CertHash, LegId, PublicationId};
use trocar_relay::Relay;
use trocar_relay::control::TokenCheck;
use trocar_signaling::{Admission, Answer, ServerHandle};

/// Figures are taken from the relay this often; a scrape gets the last ones.
const FIGURES_EVERY: Duration = Duration::from_millis(500);
/// A relay that has not answered for this long is not ready.
const READY_WITHIN: Duration = Duration::from_secs(3);

struct Figures {
    text: String,
    at: Instant,
}

impl Figures {
    /// The relay answered not long ago.
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < READY_WITHIN
    }

    /// Nothing once the relay has stopped answering: series that end are noticed, figures that stand still look alive.
    fn text(&self, now: Instant) -> String {
        if self.is_fresh(now) { self.text.clone() } else { String::new() }
    }
}

/// The relay beside us.
pub(crate) struct InProcess {
    relay: Relay,
    figures: Arc<Mutex<Figures>>,
}

impl InProcess {
    /// Starts asking for figures; to be called on a runtime.
    pub(crate) fn new(relay: Relay) -> Self {
        let figures = Arc::new(Mutex::new(Figures { text: String::new(), at: Instant::now() }));
        let (asked, kept) = (relay.clone(), Arc::downgrade(&figures));
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(FIGURES_EVERY);
            // Ends with the last owner of the figures.
            while let Some(kept) = kept.upgrade() {
                if let Some(s) = asked.snapshot().await {
                    let text = s.render();
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Figures { text, at: Instant::now() };
                }
                drop(kept);
                tick.tick().await;
            }
        });
        Self { relay, figures }
    }

    /// Where the relay's control rendezvous is.
    pub(crate) fn control_address(&self) -> Option<SocketAddr> {
        self.relay.control_address()
    }
}

/// What the rendezvous asks about stations' tokens: signaling, once that is up. The relay is up first.
#[derive(Clone, Default)]
pub(crate) struct StationTokens(Arc<OnceLock<trocar_signaling::TokenCheck>>);

impl StationTokens {
    /// From now on signaling is asked.
    pub(crate) fn ask(&self, server: &ServerHandle) {
        // Only the first call counts, and there is one.
        let _ = self.0.set(server.token_check());
    }

    /// For the relay.
    pub(crate) fn check(&self) -> TokenCheck {
        let asked = Arc::clone(&self.0);
        Arc::new(move |token, session, certificate| {
            let check = asked.get().ok_or("signaling is not up yet: try again")?;
            check(token, session, certificate)
        })
    }
}

impl Admission for InProcess {
    fn open_feed(&self, grant: FeedGrant) -> Answer<'_, Result<FlowBinding, AdmitError>> {
        Box::pin(self.relay.open_feed(grant))
    }

    fn close_feed<'a>(&'a self, feed: &'a FeedKey) -> Answer<'a, ()> {
        Box::pin(self.relay.close_feed(feed.clone()))
    }

    fn open_roq_leg(&self, grant: LegGrant, cnf: CertHash) -> Answer<'_, Result<FlowBinding, AdmitError>> {
        Box::pin(self.relay.open_roq_leg(grant, cnf))
    }

    fn open_webrtc_leg(&self, grant: LegGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>> {
        Box::pin(self.relay.open_webrtc_leg(grant, sdp_offer))
    }

    fn patch_webrtc_leg<'a>(
        &'a self,
        leg: &'a LegId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>> {
        Box::pin(self.relay.patch_webrtc_leg(leg.clone(), sdp_fragment))
    }

    fn open_publication(
        &self,
        grant: PublicationGrant,
        sdp_offer: String,
    ) -> Answer<'_, Result<PublicationAnswer, AdmitError>> {
        Box::pin(self.relay.open_publication(grant, sdp_offer))
    }

    fn patch_publication<'a>(
        &'a self,
        publication: &'a PublicationId,
        sdp_fragment: String,
    ) -> Answer<'a, Result<Option<(String, String)>, AdmitError>> {
        Box::pin(self.relay.patch_publication(publication.clone(), sdp_fragment))
    }

    fn close_publication<'a>(&'a self, publication: &'a PublicationId) -> Answer<'a, ()> {
        Box::pin(self.relay.close_publication(publication.clone()))
    }

    fn open_voices(&self, grant: VoicesGrant, sdp_offer: String) -> Answer<'_, Result<WebrtcAnswer, AdmitError>> {
        Box::pin(self.relay.open_voices(grant, sdp_offer))
    }

    fn switch_leg<'a>(&'a self, leg: &'a LegId, feed: FeedKey) -> Answer<'a, Result<(), AdmitError>> {
        Box::pin(self.relay.switch_leg(leg.clone(), feed))
    }

    fn close_leg<'a>(&'a self, leg: &'a LegId) -> Answer<'a, ()> {
        Box::pin(self.relay.close_leg(leg.clone()))
    }

    fn metrics_text(&self) -> String {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).text(Instant::now())
    }

    fn ready(&self) -> bool {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).is_fresh(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_relay_that_stopped_answering_are_not_shown() {
        let at = Instant::now();
        let f = Figures { text: "trocar_relay_legs 3\n".to_owned(), at };
        let soon = at + READY_WITHIN - Duration::from_millis(1);
        assert!(f.is_fresh(soon));
        assert_eq!(f.text(soon), f.text);
        assert!(!f.is_fresh(at + READY_WITHIN));
        assert_eq!(f.text(at + READY_WITHIN), "");
    }
}
