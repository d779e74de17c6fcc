//! What strangers' bytes meet first, as plain functions: for the fuzz targets, and for nothing else.

use crate::input::parse_json;
use crate::routes;
use crate::token::{Tokens, generate_token_key};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::OnceLock;
use trocar_proto::session::api::{InvitationRequest, JoinRequest, LegRequest};
use trocar_proto::session::event::ClientEvent;
use trocar_proto::session::feed::FeedDescriptor;

/// A body of each kind, and a message of an event socket.
pub fn json(bytes: &[u8]) {
    let told = [
        parse_json::<JoinRequest>(bytes).err(),
        parse_json::<InvitationRequest>(bytes).err(),
        parse_json::<LegRequest>(bytes).err(),
        parse_json::<FeedDescriptor>(bytes).err(),
    ];
    // What is told is short, whatever came.
    debug_assert!(told.iter().flatten().all(|r| r.detail().len() < 1_024));
    drop(serde_json::from_slice::<ClientEvent>(bytes));
}

/// An SDP offer, as far as signaling looks at it.
pub fn offer(text: &str) {
    routes::look_at_offer(text);
}

/// A token as it is, and the same bytes as the claims of one that is signed.
pub fn token(bytes: &[u8]) {
    static TOKENS: OnceLock<Option<(Tokens, Vec<u8>)>> = OnceLock::new();
    let made = TOKENS.get_or_init(|| {
        let key = generate_token_key().ok()?;
        Some((Tokens::new(&key, "signaling.local", &[]).ok()?, key))
    });
    let Some((tokens, key)) = made else { return };
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(tokens.verify(text));
    }
    let Ok(pair) = Ed25519KeyPair::from_pkcs8(key) else { return };
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","typ":"JWT"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(bytes));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    drop(tokens.verify(&format!("{signed}.{signature}")));
}
