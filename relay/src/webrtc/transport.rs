//! One peer's ICE and DTLS as one machine without a socket or a clock.
//!
//! Driving contract: change one thing ([`Transport::handle_stun`], [`Transport::handle_dtls`],
//! [`Transport::handle_timeout`], [`Transport::restart`]), then drain [`Transport::poll_transmit`] and
//! [`Transport::poll_event`]. Media never passes through here: once [`TransportEvent::Keys`] came, SRTP of a validated
//! five-tuple is the caller's alone.

use super::remote::Remote;
use super::sdp::Fingerprint;
use crate::srtp::Profile;
use aws_lc_rs::digest;
use aws_lc_rs::error::Unspecified;
use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Sending stops when the peer has not checked for this long: it is gone, or no longer wants media (RFC 7675).
pub const CONSENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The peer is dropped after this long without a check.
pub const DROP_TIMEOUT: Duration = Duration::from_secs(15);
/// A handshake that takes longer is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// DTLS datagrams kept while no pair is nominated. Loss policy: the newest is dropped; DTLS sends its flight again.
const MAX_QUEUED: usize = 30;
/// Addresses that one peer may check from (bad-input case 26). The ICE library has no bound of its own for these.
pub const MAX_ADDRESSES: usize = 8;

/// What happened.
#[derive(Debug)]
pub enum TransportEvent {
    /// The certificate is the one of the SDP, and the handshake is complete.
    Keys(Profile, Zeroizing<Vec<u8>>),
    /// The peer cannot be used any more.
    Closed(CloseReason),
}

/// Why a peer is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Its certificate is not the one whose fingerprint the SDP has.
    #[error("DTLS certificate does not match the fingerprint in the SDP")]
    Fingerprint,
    /// The handshake failed or took longer than [`HANDSHAKE_TIMEOUT`].
    #[error("DTLS handshake did not complete")]
    Handshake,
    /// A protection profile that the relay does not have.
    #[error(
        "no common SRTP protection profile: one of AEAD_AES_256_GCM, AEAD_AES_128_GCM and AES128_CM_HMAC_SHA1_80 is needed"
    )]
    Profile,
    /// No connectivity check for [`DROP_TIMEOUT`].
    #[error("no connectivity check any more")]
    Consent,
    /// The peer said goodbye.
    #[error("the peer closed DTLS")]
    Goodbye,
}

/// Random credentials of one ICE session: 64 and 192 bits from the cryptographic library (RFC 8445 section 5.3 wants 24
/// and 128). The ICE library's own generator is not a cryptographic one.
///
/// # Errors
/// Where the system gives no random numbers.
pub fn new_credentials() -> Result<(String, String), Unspecified> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    let text = hex::encode(bytes);
    let (ufrag, password) = text.split_at(16);
    Ok((ufrag.to_owned(), password.to_owned()))
}

/// What a new peer starts from.
pub struct Setup<'a> {
    /// Our credentials.
    pub local: (String, String),
    /// The peer's credentials.
    pub remote: (String, String),
    /// The peer's fingerprint.
    pub fingerprint: Fingerprint,
    /// Addresses that we listen on.
    pub candidates: &'a [Remote],
    /// DTLS settings, shared.
    pub dtls: Arc<dimpl::Config>,
    /// Our certificate.
    pub certificate: &'a DtlsCertificate,
}

/// One peer.
pub struct Transport {
    ice: IceAgent,
    dtls: Dtls,
    candidates: Vec<Remote>,
    fingerprint: Fingerprint,
    verified: bool,
    keys_given: bool,
    started: Instant,
    /// When each address last checked; at most [`MAX_ADDRESSES`].
    checks: Vec<(Remote, Instant)>,
    egress: Option<Remote>,
    /// Where the newest USE-CANDIDATE came from; becomes the egress when authentic media control comes from there.
    wanted: Option<Remote>,
    dtls_due: Option<Instant>,
    ice_due: Option<Instant>,
    queued: VecDeque<Vec<u8>>,
    out: VecDeque<(Remote, Vec<u8>)>,
    events: VecDeque<TransportEvent>,
    closed: bool,
}

impl Transport {
    /// A peer whose offer was accepted. We are ICE-lite and the DTLS server, DTLS 1.2.
    #[must_use]
    pub fn new(setup: Setup<'_>, now: Instant) -> Self {
        let mut ice = IceAgent::new(IceCreds { ufrag: setup.local.0, pass: setup.local.1 });
        ice.set_ice_lite(true);
        ice.set_controlling(false);
        ice.set_max_candidate_pairs(MAX_ADDRESSES);
        for at in setup.candidates {
            if let Ok(c) = Candidate::host(at.address, protocol(*at)) {
                ice.add_local_candidate(c);
            }
        }
        ice.set_remote_credentials(IceCreds { ufrag: setup.remote.0, pass: setup.remote.1 });
        ice.handle_timeout(now);
        let mut dtls = Dtls::new_12(setup.dtls, setup.certificate.clone(), now);
        dtls.set_active(false);
        let mut t = Self {
            ice,
            dtls,
            candidates: setup.candidates.to_vec(),
            fingerprint: setup.fingerprint,
            verified: false,
            keys_given: false,
            started: now,
            checks: Vec::with_capacity(MAX_ADDRESSES),
            egress: None,
            wanted: None,
            dtls_due: None,
            ice_due: None,
            queued: VecDeque::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            closed: false,
        };
        t.drain(now);
        t
    }

    /// Takes a STUN message that carries our user fragment. `to` is the address of ours that it came to.
    /// Returns false where it is not authentic.
    pub fn handle_stun(&mut self, now: Instant, from: Remote, to: SocketAddr, message: StunMessage<'_>) -> bool {
        // The ICE library relies on these two; a request without them is dropped before it gets there.
        if message.is_binding_request() && (message.split_username().is_none() || message.prio().is_none()) {
            return false;
        }
        let known = self.checks.iter().any(|(a, _)| *a == from);
        if !known && self.checks.len() >= MAX_ADDRESSES {
            return false;
        }
        let wants = message.is_binding_request() && message.use_candidate();
        let ours = |c: &&Remote| c.tcp == from.tcp;
        let exact = self.candidates.iter().filter(ours).find(|c| c.address == to);
        let destination = exact.or(self.candidates.iter().find(ours)).map_or(to, |c| c.address);
        let packet = StunPacket { proto: protocol(from), source: from.address, destination, message };
        if !self.ice.handle_packet(now, packet) {
            return false;
        }
        match self.checks.iter_mut().find(|(a, _)| *a == from) {
            Some((_, at)) => *at = now,
            None => self.checks.push((from, now)),
        }
        if wants {
            self.wanted = Some(from);
        }
        self.ice.handle_timeout(now);
        self.drain(now);
        true
    }

    /// Takes a DTLS datagram from a validated address. An error of the library leaves an established session alone:
    /// a spoofed record must not end it.
    pub fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) {
        if self.closed {
            return;
        }
        // The library wants the time first: a ClientHello before the first `handle_timeout` makes it panic (0.9.0).
        if self.dtls.handle_timeout(now).is_err() || self.dtls.handle_packet(datagram).is_err() {
            tracing::debug!(target: "trocar::dtls", "record refused");
        }
        self.drain(now);
    }

    /// Authentic SRTP or SRTCP with a fresh index came from `from`: if the peer wants media there, it goes there.
    pub fn handle_authentic(&mut self, from: Remote) {
        if self.wanted == Some(from) && self.egress != Some(from) {
            self.egress = Some(from);
        }
    }

    /// Lets time pass. To be called at least every 50 ms.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        if self.ice_due.is_none_or(|t| now >= t) {
            self.ice.handle_timeout(now);
        }
        if self.dtls_due.is_some_and(|t| now >= t) && self.dtls.handle_timeout(now).is_err() && !self.keys_given {
            self.close(CloseReason::Handshake);
        }
        if !self.keys_given && now.saturating_duration_since(self.started) > HANDSHAKE_TIMEOUT + DROP_TIMEOUT {
            self.close(CloseReason::Handshake);
        }
        let newest = self.checks.iter().map(|(_, at)| *at).max().unwrap_or(self.started);
        if now.saturating_duration_since(newest) > DROP_TIMEOUT {
            self.close(CloseReason::Consent);
        }
        self.drain(now);
    }

    /// New credentials of the peer (ICE restart); returns ours. DTLS and keys stay, media goes on over the old pair.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn restart(&mut self, now: Instant, remote: (String, String)) -> Result<(String, String), Unspecified> {
        let ours = new_credentials()?;
        self.ice.ice_restart(IceCreds { ufrag: ours.0.clone(), pass: ours.1.clone() }, true);
        // The address that media goes to stays until another one has proved itself; the others begin anew.
        let egress = self.egress;
        self.checks.retain(|(a, _)| Some(*a) == egress);
        self.ice.set_remote_credentials(IceCreds { ufrag: remote.0, pass: remote.1 });
        self.ice.handle_timeout(now);
        self.drain(now);
        Ok(ours)
    }

    /// The peer's present user fragment.
    #[must_use]
    pub fn remote_ufrag(&self) -> Option<&str> {
        self.ice.remote_credentials().map(|c| c.ufrag.as_str())
    }

    /// Where media goes; none while there is no nominated pair or the peer's consent has run out.
    #[must_use]
    pub fn egress(&self, now: Instant) -> Option<Remote> {
        let to = self.egress?;
        // Consent is per address (RFC 7675): a check from elsewhere says nothing about where media goes.
        let (_, at) = self.checks.iter().find(|(a, _)| *a == to)?;
        (!self.closed && now.saturating_duration_since(*at) <= CONSENT_TIMEOUT).then_some(to)
    }

    /// A datagram to send.
    pub fn poll_transmit(&mut self) -> Option<(Remote, Vec<u8>)> {
        self.out.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    fn close(&mut self, reason: CloseReason) {
        if !self.closed {
            self.closed = true;
            self.events.push_back(TransportEvent::Closed(reason));
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(t) = self.ice.poll_transmit() {
            let to = Remote { address: t.destination, tcp: t.proto == Protocol::Tcp };
            self.out.push_back((to, t.contents.into()));
        }
        while let Some(e) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend { proto, destination, .. } = e {
                let to = Remote { address: destination, tcp: proto == Protocol::Tcp };
                // Once there are keys, only an authentic packet moves media elsewhere ([`Self::handle_authentic`]): one
                // check with a forged source must not.
                if self.keys_given { self.wanted = Some(to) } else { self.egress = Some(to) }
            }
        }
        self.ice_due = self.ice.poll_timeout();
        self.drain_dtls(now);
        if let Some(to) = self.egress {
            self.out.extend(self.queued.drain(..).map(|d| (to, d)));
        }
    }

    fn drain_dtls(&mut self, now: Instant) {
        let mut small = [0_u8; 2_048];
        let mut large = Vec::new();
        let mut needed_room = 0;
        // One flight is a handful of datagrams; the bound is far above.
        for _ in 0..64 {
            let buffer = if needed_room == 0 { small.as_mut_slice() } else { large.as_mut_slice() };
            match self.dtls.poll_output(buffer) {
                Output::Packet(p) if self.queued.len() < MAX_QUEUED => self.queued.push_back(p.to_vec()),
                Output::BufferTooSmall { needed } => {
                    needed_room = needed.min(65_535);
                    large.resize(needed_room, 0);
                }
                Output::PeerCert(der) => self.verified = fingerprint_matches(&self.fingerprint, der),
                Output::KeyingMaterial(material, profile) => {
                    let material = Zeroizing::new(material.to_vec());
                    self.give_keys(profile, material);
                }
                Output::CloseNotify => self.close(CloseReason::Goodbye),
                Output::Timeout(t) => {
                    // A due time far away is the library's way to say "never".
                    self.dtls_due = Some(t).filter(|t| *t < now + Duration::from_secs(3_600));
                    return;
                }
                _ => {}
            }
        }
    }

    fn give_keys(&mut self, profile: SrtpProfile, material: Zeroizing<Vec<u8>>) {
        if !self.verified {
            return self.close(CloseReason::Fingerprint);
        }
        let profile = match profile {
            SrtpProfile::AEAD_AES_128_GCM => Profile::Aes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => Profile::Aes256Gcm,
            SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1,
            _ => return self.close(CloseReason::Profile),
        };
        if !self.keys_given {
            self.keys_given = true;
            self.events.push_back(TransportEvent::Keys(profile, material));
        }
    }
}

const fn protocol(at: Remote) -> Protocol {
    if at.tcp { Protocol::Tcp } else { Protocol::Udp }
}

fn fingerprint_matches(want: &Fingerprint, der: &[u8]) -> bool {
    let algorithm = match want.algorithm.as_str() {
        "sha-256" => &digest::SHA256,
        "sha-384" => &digest::SHA384,
        "sha-512" => &digest::SHA512,
        _ => return false,
    };
    digest::digest(algorithm, der).as_ref() == want.value
}

/// A self-signed ECDSA P-256 certificate for DTLS; identity is by fingerprint alone.
///
/// # Errors
/// Where the cryptographic library cannot make a key.
pub fn dtls_certificate() -> Result<DtlsCertificate, rcgen::Error> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "trocar");
    let certificate = params.self_signed(&key)?;
    Ok(DtlsCertificate { certificate: certificate.der().to_vec(), private_key: key.serialize_der() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::srtp::Srtp;

    fn certificate() -> DtlsCertificate {
        dtls_certificate().unwrap()
    }

    fn fingerprint(c: &DtlsCertificate) -> Fingerprint {
        let value = digest::digest(&digest::SHA256, &c.certificate).as_ref().to_vec();
        Fingerprint { algorithm: "sha-256".to_owned(), value }
    }

    struct Pair {
        server: Transport,
        ice: IceAgent,
        dtls: Dtls,
        keys: Option<(SrtpProfile, Vec<u8>)>,
        ours: SocketAddr,
        theirs: SocketAddr,
    }

    impl Pair {
        fn new(claimed: &DtlsCertificate, shown: DtlsCertificate, now: Instant) -> Self {
            let ours: SocketAddr = "127.0.0.1:1000".parse().unwrap();
            let theirs: SocketAddr = "127.0.0.1:2000".parse().unwrap();
            let (a, b) = (IceCreds::new(), IceCreds::new());
            let config = Arc::new(dimpl::Config::builder().use_server_cookie(false).build().unwrap());
            let server = Transport::new(
                Setup {
                    local: (a.ufrag.clone(), a.pass.clone()),
                    remote: (b.ufrag.clone(), b.pass.clone()),
                    fingerprint: fingerprint(claimed),
                    candidates: &[Remote::udp(ours)],
                    dtls: Arc::clone(&config),
                    certificate: &certificate(),
                },
                now,
            );
            let mut ice = IceAgent::new(b);
            ice.set_controlling(true);
            ice.set_remote_credentials(a);
            ice.add_local_candidate(Candidate::host(theirs, "udp").unwrap());
            ice.add_remote_candidate(Candidate::host(ours, "udp").unwrap());
            let mut dtls = Dtls::new_12(config, shown, now);
            dtls.set_active(true);
            Self { server, ice, dtls, keys: None, ours, theirs }
        }

        fn client_dtls(&mut self, now: Instant) {
            let mut b = vec![0; 2_048];
            loop {
                match self.dtls.poll_output(&mut b) {
                    Output::Packet(p) => {
                        let p = p.to_vec();
                        self.server.handle_dtls(now, &p);
                    }
                    Output::KeyingMaterial(m, p) => self.keys = Some((p, m.to_vec())),
                    Output::Timeout(_) => break,
                    _ => {}
                }
            }
        }

        /// Runs both ends on a clock that jumps, for three seconds of their time.
        fn run(&mut self, start: Instant) -> Vec<TransportEvent> {
            let mut events = Vec::new();
            for step in 0..150 {
                let now = start + Duration::from_millis(step * 20);
                self.ice.handle_timeout(now);
                while let Some(t) = self.ice.poll_transmit() {
                    let m: Vec<u8> = t.contents.into();
                    self.server.handle_stun(now, Remote::udp(self.theirs), self.ours, StunMessage::parse(&m).unwrap());
                }
                let _ = self.dtls.handle_timeout(now);
                self.client_dtls(now);
                self.server.handle_timeout(now);
                while let Some((to, p)) = self.server.poll_transmit() {
                    assert_eq!(to, Remote::udp(self.theirs));
                    if p[0] < 2 {
                        let packet = StunPacket {
                            proto: Protocol::Udp,
                            source: self.ours,
                            destination: self.theirs,
                            message: StunMessage::parse(&p).unwrap(),
                        };
                        self.ice.handle_packet(now, packet);
                    } else {
                        let _ = self.dtls.handle_packet(&p);
                        self.client_dtls(now);
                    }
                }
                events.extend(std::iter::from_fn(|| self.server.poll_event()));
            }
            events
        }
    }

    #[test]
    fn two_ends_agree_on_keys_and_open_what_the_other_seals() {
        let (now, cert) = (Instant::now(), certificate());
        let mut pair = Pair::new(&cert, cert.clone(), now);
        let events = pair.run(now);
        let Some(TransportEvent::Keys(profile, material)) = events.first() else { panic!("{events:?}") };
        let (_, theirs) = pair.keys.take().expect("the client has keys as well");
        let mut us = Srtp::from_dtls(*profile, material, false).unwrap();
        let mut them = Srtp::from_dtls(*profile, &theirs, true).unwrap();
        let mut p = trocar_proto::media::rtcp::Builder::default()
            .pli(trocar_proto::units::Ssrc(1), trocar_proto::units::Ssrc(2))
            .finish();
        them.send.seal_rtcp(&mut p).unwrap();
        assert!(us.receive.open_rtcp(&mut p).is_ok());
        assert_eq!(pair.server.egress(now + Duration::from_secs(3)), Some(Remote::udp(pair.theirs)));
        assert_eq!(pair.server.egress(now + Duration::from_secs(30)), None, "consent runs out");
    }

    #[test]
    fn a_certificate_that_is_not_the_one_of_the_sdp_is_refused_before_any_key() {
        let now = Instant::now();
        let mut pair = Pair::new(&certificate(), certificate(), now);
        let events = pair.run(now);
        assert!(events.iter().any(|e| matches!(e, TransportEvent::Closed(CloseReason::Fingerprint))), "{events:?}");
        assert!(!events.iter().any(|e| matches!(e, TransportEvent::Keys(..))));
    }

    #[test]
    fn rubbish_before_and_after_the_handshake_does_not_end_the_session() {
        let (now, cert) = (Instant::now(), certificate());
        let mut pair = Pair::new(&cert, cert.clone(), now);
        // A plaintext fatal alert, a truncated record, a zero-length fragment.
        let rubbish: [&[u8]; 3] = [
            &[21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40],
            &[22, 0xfe],
            &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        let events = pair.run(now);
        assert!(events.iter().any(|e| matches!(e, TransportEvent::Keys(..))));
        for r in rubbish {
            pair.server.handle_dtls(now + Duration::from_secs(3), r);
        }
        pair.server.handle_timeout(now + Duration::from_secs(3));
        assert!(!std::iter::from_fn(|| pair.server.poll_event()).any(|e| matches!(e, TransportEvent::Closed(_))));
    }

    #[test]
    fn after_the_handshake_a_check_alone_moves_nothing_and_an_authentic_packet_does() {
        let (now, cert) = (Instant::now(), certificate());
        let mut pair = Pair::new(&cert, cert.clone(), now);
        pair.run(now);
        let later = now + Duration::from_secs(3);
        let elsewhere: SocketAddr = "127.0.0.1:3000".parse().unwrap();
        // The same agent, seen from another address: authentic checks with USE-CANDIDATE.
        let mut seen = 0;
        for step in 0..200 {
            let t = later + Duration::from_millis(step * 20);
            pair.ice.handle_timeout(t);
            while let Some(x) = pair.ice.poll_transmit() {
                let m: Vec<u8> = x.contents.into();
                for from in [pair.theirs, elsewhere] {
                    seen += usize::from(pair.server.handle_stun(
                        t,
                        Remote::udp(from),
                        pair.ours,
                        StunMessage::parse(&m).unwrap(),
                    ));
                }
            }
        }
        let end = later + Duration::from_secs(4);
        assert!(seen >= 2, "{seen} checks were taken");
        assert_eq!(pair.server.egress(end), Some(Remote::udp(pair.theirs)), "a check alone moves nothing");
        pair.server.handle_authentic(Remote::udp(elsewhere));
        assert_eq!(pair.server.egress(end), Some(Remote::udp(elsewhere)));
    }

    #[test]
    fn a_peer_may_check_from_a_bounded_number_of_addresses() {
        let (now, cert) = (Instant::now(), certificate());
        let mut pair = Pair::new(&cert, cert.clone(), now);
        let mut taken = 0;
        for step in 0..100_u64 {
            let t = now + Duration::from_millis(step * 50);
            pair.ice.handle_timeout(t);
            while let Some(x) = pair.ice.poll_transmit() {
                let m: Vec<u8> = x.contents.into();
                for port in 0..4 {
                    let from = SocketAddr::new(pair.theirs.ip(), 4_000 + u16::try_from(step * 4).unwrap() + port);
                    taken += usize::from(pair.server.handle_stun(
                        t,
                        Remote::udp(from),
                        pair.ours,
                        StunMessage::parse(&m).unwrap(),
                    ));
                }
            }
        }
        assert_eq!(taken, MAX_ADDRESSES);
    }

    #[test]
    fn a_peer_that_never_checks_is_dropped() {
        let (now, cert) = (Instant::now(), certificate());
        let mut pair = Pair::new(&cert, cert.clone(), now);
        pair.server.handle_timeout(now + DROP_TIMEOUT + Duration::from_millis(1));
        let closed = std::iter::from_fn(|| pair.server.poll_event())
            .any(|e| matches!(e, TransportEvent::Closed(CloseReason::Consent)));
        assert!(closed);
    }
}
