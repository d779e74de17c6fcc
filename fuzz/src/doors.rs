//! What strangers' text meets first: SDP, tokens, JSON.

use std::sync::OnceLock;
use trocar_control::token::{IssuerKey, TokenVerifier};
use trocar_proto::session::ids::{CertHash, SessionId};
use trocar_relay::webrtc::sdp::{Fragment, MAX_CANDIDATES, MAX_EXTENSIONS, MAX_MEDIA, MAX_RIDS, MAX_SSRCS, Offer};

/// SDP offers and fragments: what is taken is within its bounds.
///
/// # Panics
/// Where it is not.
pub fn sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    trocar_signaling::doors::offer(&text);
    let _ = Fragment::parse(&text);
    let Ok(offer) = Offer::parse(&text) else { return };
    assert!(offer.media.len() <= MAX_MEDIA && offer.candidates.len() <= MAX_CANDIDATES);
    assert!(offer.bundle.iter().all(|i| *i < offer.media.len()));
    for m in &offer.media {
        assert!(m.rids.len() <= MAX_RIDS && m.ssrcs.len() <= MAX_SSRCS && m.extensions.len() <= MAX_EXTENSIONS);
        assert!(m.simulcast.iter().all(|rid| m.rids.contains(rid)));
        assert!(m.codecs.iter().all(|c| c.payload_type < 128));
        let _ = m.check();
    }
    let all: Vec<usize> = (0..offer.media.len()).collect();
    let _ = offer.transport(&all);
}

/// Tokens, as signaling and gates take them: as they are, and as the claims of a token whose signature is right.
pub fn token(data: &[u8]) {
    static GATE: OnceLock<Option<TokenVerifier>> = OnceLock::new();
    let gate = GATE.get_or_init(|| {
        let session = SessionId::new("s").ok()?;
        Some(TokenVerifier::new("signaling.local", &IssuerKey([7; 32]), session))
    });
    if let (Some(gate), Ok(text)) = (gate, std::str::from_utf8(data)) {
        assert!(gate.verify(text, CertHash([0; 32])).is_err(), "nobody signs for this key");
    }
    trocar_signaling::doors::token(data);
}

/// Bodies of requests and messages of event sockets.
pub fn json(data: &[u8]) {
    trocar_signaling::doors::json(data);
}
