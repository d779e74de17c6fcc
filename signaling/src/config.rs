//! What signaling is told before it starts. Plain values: whoever assembles the process reads files and arguments.

use axum::http::Uri;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use trocar_proto::session::ids::RealmId;

/// Everything that [`crate::Server::start`] needs.
#[derive(Clone)]
pub struct Config {
    /// Address of the TLS listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of an additional plain HTTP listener. Refused unless it is a loopback address: browsers treat loopback as
    /// a secure context, so that a demonstration on one machine needs no certificate.
    pub loopback_http: Option<SocketAddr>,
    /// Address of a listener of its own for `/metrics`, `/healthz` and `/readyz`, which the other listeners then do not answer: plain HTTP on
    /// a loopback address, else TLS with the same certificate. Whoever reaches it is told.
    pub admin_listen: Option<SocketAddr>,
    /// Certificate chain and key of the TLS listener.
    pub tls: TlsIdentity,
    /// Whether the HTTPS listeners of page and API, the other realms' and the operators', speak TLS 1.2 beside 1.3: ECDHE with an AEAD cipher and
    /// the extended master secret, nothing else of it.
    pub tls12: bool,
    /// Ed25519 key that signs tokens, PKCS#8 DER (see [`crate::generate_token_key`]).
    pub token_key_pkcs8: Vec<u8>,
    /// Ed25519 key that signs heads of the audit chain, PKCS#8 DER; without one heads are not signed.
    pub audit_key_pkcs8: Option<Vec<u8>>,
    /// Where audit records are sent; the store has to be a file.
    pub audit_export: Option<crate::audit::Repository>,
    /// How long audit records are kept. Needs `audit_key_pkcs8` and a store in a file.
    pub audit_retention: crate::audit::Retention,
    /// Directory with the trust list of those who sign consent (`ca.pem`, `crl.pem`). With it nobody but the role local sees or hears anything
    /// of a session before a document that consents to it was handed in.
    pub consent_trust: Option<PathBuf>,
    /// Trust list (PEM; a `crl.pem` beside it counts) of devices that join by their certificate where an invitation of the role publisher asks for
    /// a login. Without one none do.
    pub device_trust: Option<PathBuf>,
    /// What this node was configured with, in a few words or as a hash: stands in the record of each start.
    pub configured: String,
    /// This node's id: `iss` of its tokens, and always one of their audiences.
    pub issuer: String,
    /// Ids of the relay and the gates that tokens are also for.
    pub audiences: Vec<String>,
    /// Base of links, e.g. `https://trocar.example.org`; its origin may open event sockets. Where left out: the loopback
    /// listener if there is one, else the TLS listener.
    pub public_url: Option<String>,
    /// Further origins whose pages may open event sockets and use WHIP and WHEP, e.g. `https://console.example.org`.
    pub origins: Vec<String>,
    /// The hospital network that this node lets people into.
    pub realm: RealmId,
    /// Listeners for people of other realms.
    pub realms: Vec<crate::RealmDoor>,
    /// What people of other realms may do; nothing where it does not say so.
    pub realm_policies: Vec<crate::RealmPolicy>,
    /// Where sessions, invitations, participants and audit events are kept.
    pub store: StoreAt,
    /// Whether `/metrics` answers to anyone. Otherwise only to loopback peers.
    pub metrics_open: bool,
    /// STUN and TURN servers that WebRTC clients are told.
    pub ice: Ice,
    /// Who is called on events; at most 16.
    pub webhooks: Vec<Webhook>,
    /// The relay's control rendezvous; without it sessions have no gate.
    pub control: Option<crate::ControlConfig>,
    /// Where traces go; none: nowhere.
    pub traces: Option<crate::TracesConfig>,
    /// What answers measurements of the line to this node; none: nothing does.
    pub link_tests: Option<std::sync::Arc<dyn crate::LinkTests>>,
    /// How people are known.
    pub identity: crate::IdentityConfig,
    /// Bounds.
    pub limits: Limits,
}

/// STUN and TURN servers for WebRTC clients.
#[derive(Clone, Default)]
pub struct Ice {
    /// `stun:` and `stuns:` URIs (RFC 7064), at most 8.
    pub stun: Vec<String>,
    /// A TURN server that makes credentials from a shared secret.
    pub turn: Option<Turn>,
}

/// A TURN server with time-limited credentials, coturn's `use-auth-secret`.
#[derive(Clone)]
pub struct Turn {
    /// `turn:` and `turns:` URIs (RFC 7065), 1 to 8.
    pub urls: Vec<String>,
    /// The TURN server's `static-auth-secret`, 16 to 512 bytes.
    pub secret: Vec<u8>,
    /// How long a credential is good for, 60 s to an hour.
    pub lifetime: Duration,
}

/// A system that is called on events (Standard Webhooks).
#[derive(Clone)]
pub struct Webhook {
    /// Where: https, or http on a loopback address. Redirects are not followed.
    pub url: String,
    /// The key of the signatures, 24 to 64 bytes.
    pub secret: Vec<u8>,
    /// Which of [`crate::WEBHOOK_EVENTS`]; all of them where it is empty.
    pub events: Vec<String>,
}

/// PEM texts of a TLS identity.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Certificate chain, leaf first.
    pub cert_chain_pem: Vec<u8>,
    /// Private key of the leaf.
    pub key_pem: Vec<u8>,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAt {
    /// In memory: gone with the process.
    Memory,
    /// A SQLite file, created where it is missing. A second process that opens it is refused.
    File(PathBuf),
}

/// So many at once, and so many more each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once.
    pub burst: u32,
    /// How many a second in the long run.
    pub per_second: u32,
}

/// Bounds. Each queue, list and wait of signaling has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes; larger ones are answered 413 before they are buffered.
    pub body_bytes: usize,
    /// Longest wait for a whole request body; then 408.
    pub body_timeout: Duration,
    /// Largest request head, in bytes; larger ones are answered 431.
    pub header_bytes: usize,
    /// Longest wait for a request head and for a TLS handshake; then the connection is closed. Also how long a
    /// connection may idle between requests.
    pub header_timeout: Duration,
    /// How long a write may stay without progress before the connection is closed.
    pub write_stall: Duration,
    /// Connections at a time, over both listeners, and as many over each of [`Config::realms`]. Further ones are closed at once.
    pub connections: usize,
    /// Connections at a time from one IPv4 address or IPv6 /64.
    pub connections_per_ip: u32,
    /// Connections at a time from one IPv4 /24 or IPv6 /48: many neighbours together leave places to the others. Loopback
    /// networks have [`Self::connections_loopback`] here as well.
    pub connections_per_network: u32,
    /// The same for loopback addresses, behind which whole test fleets or a reverse proxy sit.
    pub connections_loopback: u32,
    /// Redemptions of invitations, per IPv4 address or IPv6 /64; above it 429 with `Retry-After`.
    pub joins: Rate,
    /// Requests with a token, per participant; above it 429 with `Retry-After`.
    pub requests: Rate,
    /// Messages on one event socket; above it the socket is closed.
    pub socket_messages: Rate,
    /// Chat messages of one participant, over all of its sockets; above it a message is refused, to its writer alone.
    pub chat: Rate,
    /// Largest WebSocket message and frame, in bytes; larger ones close the socket with 1009.
    pub socket_message_bytes: usize,
    /// Outbound messages that wait for one event socket. Capture events are dropped when it is half full; when it is
    /// full the socket is closed, since a client that missed another event would show a wrong state.
    pub socket_queue: usize,
    /// How long one write to an event socket may take before the socket is closed.
    pub socket_stall: Duration,
    /// How long a new event socket may take to say hello.
    pub hello_timeout: Duration,
    /// Event sockets of one participant.
    pub sockets_per_participant: usize,
    /// How long feeds and legs outlive the last event socket of their participant.
    pub grace: Duration,
    /// Open sessions.
    pub sessions: usize,
    /// Invitations of one session that have not expired.
    pub invitations_per_session: usize,
    /// Participants of one session.
    pub participants_per_session: usize,
    /// Feeds of one session.
    pub feeds_per_session: usize,
    /// Bits per second that the feeds by WHIP of one participant, or of all guests of one invitation, may have together:
    /// the relay keeps memory for what they might send.
    pub bitrate_per_participant: u64,
    /// The same of native feeds, which a device certificate vouches for: uncompressed pictures are among them.
    pub native_bitrate_per_participant: u64,
    /// Legs of one session.
    pub legs_per_session: usize,
    /// Legs of one participant.
    pub legs_per_participant: usize,
    /// Longest wait for an answer of the relay; then 503.
    pub admission_timeout: Duration,
    /// How long [`crate::ServerHandle::shutdown`] waits for connections to end.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 64 * 1024,
            body_timeout: Duration::from_secs(5),
            header_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(5),
            write_stall: Duration::from_secs(10),
            connections: 1024,
            connections_per_ip: 64,
            connections_per_network: 256,
            connections_loopback: 512,
            joins: Rate { burst: 60, per_second: 5 },
            requests: Rate { burst: 120, per_second: 40 },
            socket_messages: Rate { burst: 60, per_second: 20 },
            chat: Rate { burst: 5, per_second: 1 },
            socket_message_bytes: 64 * 1024,
            socket_queue: 256,
            socket_stall: Duration::from_secs(2),
            hello_timeout: Duration::from_secs(2),
            sockets_per_participant: 8,
            grace: Duration::from_secs(10),
            sessions: 256,
            invitations_per_session: 256,
            participants_per_session: 256,
            feeds_per_session: 64,
            bitrate_per_participant: 400_000_000,
            native_bitrate_per_participant: 4_000_000_000,
            legs_per_session: 1024,
            legs_per_participant: 32,
            admission_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(3),
        }
    }
}

/// A value of [`Config`] that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {expected}")]
pub struct ConfigError {
    /// Name of the value in [`Config`].
    pub field: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

impl Config {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first value that cannot be used, and what would be right.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, expected| Err(ConfigError { field, expected });
        let is_id = |s: &str| (1..=128).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        if self.loopback_http.is_some_and(|a| !a.ip().is_loopback()) {
            return bad("loopback_http", "a loopback address: plain HTTP is not served to other machines");
        }
        if !is_id(&self.issuer) {
            return bad("issuer", "1 to 128 printable ASCII characters without spaces and quotes");
        }
        if self.audiences.len() > 16 || !self.audiences.iter().all(|a| is_id(a)) {
            return bad("audiences", "at most 16 ids of 1 to 128 printable ASCII characters without spaces and quotes");
        }
        if self.public_url.as_deref().is_some_and(|u| origin_of(u).is_none()) {
            return bad("public_url", "an absolute URL, https://HOST[:PORT], without query and fragment");
        }
        if !self.origins.iter().all(|o| origin_of(o).as_deref() == Some(o)) {
            return bad("origins", "origins as browsers send them: https://HOST[:PORT], no path");
        }
        if let Some(repository) = &self.audit_export {
            repository.check(&self.store)?;
        }
        self.audit_retention.check()?;
        let removes = !self.audit_retention.is_forever();
        if removes && (self.audit_key_pkcs8.is_none() || self.store == StoreAt::Memory) {
            return bad(
                "audit.retention",
                "a store in a file and an audit key: what is removed is said in a signed record",
            );
        }
        crate::ice::check(&self.ice)?;
        self.identity.check()?;
        crate::realms::check(&self.realm, &self.realms, &self.realm_policies)?;
        if self.webhooks.len() > 16 {
            return bad("webhook", "at most 16");
        }
        self.webhooks.iter().try_for_each(crate::webhooks::check)?;
        if self.limits.socket_queue < 8 || self.limits.socket_queue > 65_536 {
            return bad("limits.socket_queue", "8 to 65536 messages");
        }
        Ok(())
    }
}

/// The origin (RFC 6454 section 6.2) of an absolute http or https URL, lower-case, default ports left out.
pub(crate) fn origin_of(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str().filter(|s| matches!(*s, "http" | "https"))?;
    let authority = uri.authority().filter(|a| !a.as_str().contains('@'))?;
    if uri.query().is_some() || url.contains('#') {
        return None;
    }
    let default_port = if scheme == "https" { 443 } else { 80 };
    let host = authority.host().to_ascii_lowercase();
    match authority.port_u16() {
        Some(port) if port != default_port => Some(format!("{scheme}://{host}:{port}")),
        _ => Some(format!("{scheme}://{host}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        assert_eq!(origin_of("https://Example.org:443/x").as_deref(), Some("https://example.org"));
        assert_eq!(origin_of("http://127.0.0.1:8080").as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(origin_of("http://[::1]:8080/").as_deref(), Some("http://[::1]:8080"));
        for bad in ["example.org", "ftp://x", "https://a@b", "https://x/?q", "https://x/#f", "/x"] {
            assert_eq!(origin_of(bad), None, "{bad}");
        }
    }
}
