//! STUN and TURN servers for WebRTC clients, with credentials that end by themselves: the user name is the time of its end
//! and the participant, the password an HMAC of it under a secret that the TURN server knows as well (coturn's
//! `use-auth-secret`, draft-uberti-behave-turn-rest).

use crate::config::{ConfigError, Ice};
use aws_lc_rs::hmac;
use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;
use trocar_proto::session::api::IceServer;
use trocar_proto::session::ids::ParticipantId;
use trocar_proto::units::WallMicros;

/// Longest and shortest life of a credential.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(3_600);
const MIN_LIFETIME: Duration = Duration::from_secs(60);

/// Checks what the types do not.
pub(crate) fn check(ice: &Ice) -> Result<(), ConfigError> {
    let bad = |field, expected| Err(ConfigError { field, expected });
    if ice.stun.len() > 8 || !ice.stun.iter().all(|u| is_uri(u, &["stun:", "stuns:"], false)) {
        return bad("ice.stun", "at most 8 of stun:HOST[:PORT] (RFC 7064)");
    }
    let Some(turn) = &ice.turn else { return Ok(()) };
    if turn.urls.is_empty() || turn.urls.len() > 8 || !turn.urls.iter().all(|u| is_uri(u, &["turn:", "turns:"], true)) {
        return bad("ice.turn.urls", "1 to 8 of turn:HOST[:PORT][?transport=udp|tcp] or turns:… (RFC 7065)");
    }
    if !(16..=512).contains(&turn.secret.len()) {
        return bad("ice.turn.secret", "16 to 512 bytes, the same as the TURN server's static-auth-secret");
    }
    if !(MIN_LIFETIME..=MAX_LIFETIME).contains(&turn.lifetime) {
        return bad("ice.turn.lifetime", "60 to 3600 seconds");
    }
    Ok(())
}

fn is_uri(uri: &str, schemes: &[&str], with_transport: bool) -> bool {
    let Some(rest) = schemes.iter().find_map(|s| uri.strip_prefix(s)) else { return false };
    let place = match rest.split_once('?') {
        Some((place, query)) => {
            if !with_transport || !matches!(query, "transport=udp" | "transport=tcp") {
                return false;
            }
            place
        }
        None => rest,
    };
    let is_host = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    (1..=255).contains(&place.len()) && place.bytes().all(is_host)
}

/// The servers for one participant from now on.
pub(crate) fn servers(ice: &Ice, wall: WallMicros, who: &ParticipantId) -> Vec<IceServer> {
    let mut servers = Vec::new();
    if !ice.stun.is_empty() {
        servers.push(IceServer { urls: ice.stun.clone(), username: None, credential: None, expires: None });
    }
    if let Some(turn) = &ice.turn {
        let end_s = (wall.0 / 1_000_000).saturating_add(turn.lifetime.as_secs());
        let username = format!("{end_s}:{who}");
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &turn.secret);
        let credential = STANDARD.encode(hmac::sign(&key, username.as_bytes()).as_ref());
        servers.push(IceServer {
            urls: turn.urls.clone(),
            username: Some(username),
            credential: Some(credential),
            expires: Some(WallMicros(end_s.saturating_mul(1_000_000))),
        });
    }
    servers
}

/// One `Link` header for each URL (RFC 9725 section 4.6).
pub(crate) fn links(servers: &[IceServer]) -> Vec<HeaderValue> {
    let mut links = Vec::new();
    for server in servers {
        let credential = server.username.as_ref().zip(server.credential.as_ref()).map(|(username, credential)| {
            format!("; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\"")
        });
        for url in &server.urls {
            let link = format!("<{url}>; rel=\"ice-server\"{}", credential.as_deref().unwrap_or_default());
            links.extend(HeaderValue::from_str(&link).ok());
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_other_kinds_are_refused() {
        let turn = |u: &str| is_uri(u, &["turn:", "turns:"], true);
        assert!(turn("turn:turn.example.org") && turn("turns:turn.example.org:443?transport=tcp"));
        assert!(turn("turn:[2001:db8::1]:3478?transport=udp"));
        for bad in
            ["turn:", "stun:x", "turn:x?transport=sctp", "turn:x>; rel=\"y\"", "turn:a b", "turn://x", "turn:u@x"]
        {
            assert!(!turn(bad), "{bad} was taken");
        }
        assert!(!is_uri("stun:x?transport=udp", &["stun:"], false));
    }

    /// HMAC-SHA1 of a known pair, worked out with `openssl dgst -sha1 -hmac`.
    #[test]
    fn the_password_is_the_hmac_of_the_name() {
        let turn = crate::config::Turn {
            urls: vec!["turn:t.example:3478".into()],
            secret: b"north-and-south-16".to_vec(),
            lifetime: Duration::from_secs(600),
        };
        let ice = Ice { stun: vec![], turn: Some(turn) };
        let found = servers(&ice, WallMicros(1_000_000_000_000_000), &ParticipantId::new("p1").unwrap());
        assert_eq!(found[0].username.as_deref(), Some("1000000600:p1"));
        assert_eq!(found[0].credential.as_deref(), Some("rV4FcT1KUMFou7qMTzydrziYOWA="));
        let link = links(&found);
        assert_eq!(
            link[0].to_str().unwrap(),
            "<turn:t.example:3478>; rel=\"ice-server\"; username=\"1000000600:p1\"; credential=\"rV4FcT1KUMFou7qMTzydrziYOWA=\"; \
             credential-type=\"password\""
        );
    }
}
