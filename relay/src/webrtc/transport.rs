//! One peer's ICE and DTLS as one machine without a socket or a clock.
//!
//! Driving contract: change one thing ([`Transport::handle_stun`], [`Transport::handle_dtls`],
//! [`Transport::handle_timeout`], [`Transport::restart`]), then drain [`Transport::poll_transmit`] and
//! [`Transport::poll_event`]. Media never passes through here: once [`TransportEvent::Keys`] came, SRTP of a validated
//! five-tuple is the caller's alone.

use super::dtls::{Dtls, Output};
use super::remote::Remote;
use super::sdp::Fingerprint;
use crate::srtp::Profile;
use aws_lc_rs::digest;
use aws_lc_rs::error::Unspecified;
use dimpl::DtlsCertificate;
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
/// Addresses that one peer may check from within [`DROP_TIMEOUT`] (bad-input case 26).
pub const MAX_ADDRESSES: usize = 8;
/// Addresses that it may check from before an ICE restart: the ICE library forgets none and has no bound of its own.
pub const MAX_MOVES: usize = 256;

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
    /// Addresses since the start or the last ICE restart.
    moves: usize,
    /// When an authentic check last came.
    newest: Instant,
    egress: Option<Remote>,
    /// Where the newest USE-CANDIDATE came from; becomes the egress when authentic media control comes from there.
    wanted: Option<Remote>,
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
        let mut t = Self {
            ice,
            dtls: Dtls::new(setup.dtls, setup.certificate.clone()),
            candidates: setup.candidates.to_vec(),
            fingerprint: setup.fingerprint,
            verified: false,
            keys_given: false,
            started: now,
            checks: Vec::with_capacity(MAX_ADDRESSES),
            moves: 0,
            newest: now,
            egress: None,
            wanted: None,
            ice_due: None,
            queued: VecDeque::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            closed: false,
        };
        t.drain();
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
        if !known {
            // A peer that moves leaves addresses behind; without this it could move so many times only.
            let egress = self.egress;
            let is_live = |at: Instant| now.saturating_duration_since(at) <= DROP_TIMEOUT;
            self.checks.retain(|(a, at)| is_live(*at) || Some(*a) == egress);
            if self.checks.len() >= MAX_ADDRESSES || self.moves >= MAX_MOVES {
                return false;
            }
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
            None => {
                self.moves += 1;
                self.checks.push((from, now));
            }
        }
        self.newest = now;
        if wants {
            self.wanted = Some(from);
            // A handshake whose connection is gone goes on by the next one; the library would stay with the first.
            if !self.keys_given && self.egress.is_none() {
                self.egress = Some(from);
            }
        }
        self.ice.handle_timeout(now);
        self.drain();
        true
    }

    /// Takes a DTLS datagram from a validated address. One that is refused leaves an established session alone: a spoofed
    /// record must not end it.
    pub fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) {
        if self.closed {
            return;
        }
        self.dtls.handle_packet(now, datagram);
        self.drain();
    }

    /// Authentic SRTP or SRTCP with a fresh index came from `from`: if the peer wants media there, it goes there.
    pub fn handle_authentic(&mut self, from: Remote) {
        if self.wanted == Some(from) && self.egress != Some(from) {
            self.egress = Some(from);
        }
    }

    /// The TCP connection that led to `place` is gone. Media waits until the peer has proved another place.
    pub fn forget(&mut self, place: Remote) {
        self.checks.retain(|(a, _)| *a != place);
        for at in [&mut self.egress, &mut self.wanted] {
            *at = at.filter(|a| *a != place);
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
        self.dtls.handle_timeout(now);
        if !self.keys_given && now.saturating_duration_since(self.started) > HANDSHAKE_TIMEOUT + DROP_TIMEOUT {
            self.close(CloseReason::Handshake);
        }
        if now.saturating_duration_since(self.newest) > DROP_TIMEOUT {
            self.close(CloseReason::Consent);
        }
        self.drain();
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
        self.moves = 0;
        self.ice.set_remote_credentials(IceCreds { ufrag: remote.0, pass: remote.1 });
        self.ice.handle_timeout(now);
        self.drain();
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

    fn drain(&mut self) {
        while let Some(t) = self.ice.poll_transmit() {
            let to = Remote { address: t.destination, tcp: t.proto == Protocol::Tcp };
            self.out.push_back((to, t.contents.into()));
        }
        while let Some(e) = self.ice.poll_event() {
            if let IceAgentEvent::NominatedSend { proto, destination, .. } = e {
                let to = Remote { address: destination, tcp: proto == Protocol::Tcp };
                // Once there are keys, only the newest USE-CANDIDATE and an authentic packet from there move media
                // ([`Self::handle_authentic`]): one check with a forged source must not, nor the library, which goes back
                // to an older address when a nominated pair runs out.
                if !self.keys_given {
                    self.egress = Some(to);
                }
            }
        }
        self.ice_due = self.ice.poll_timeout();
        self.drain_dtls();
        if let Some(to) = self.egress {
            self.out.extend(self.queued.drain(..).map(|d| (to, d)));
        }
    }

    fn drain_dtls(&mut self) {
        while let Some(output) = self.dtls.poll() {
            match output {
                Output::Packet(p) if self.queued.len() < MAX_QUEUED => self.queued.push_back(p),
                Output::Packet(_) => {}
                Output::Certificate(der) => self.verified = fingerprint_matches(&self.fingerprint, &der),
                Output::Keys(profile, material) => self.give_keys(profile, material),
                Output::Closed(reason) => self.close(reason),
            }
        }
    }

    fn give_keys(&mut self, profile: Profile, material: Zeroizing<Vec<u8>>) {
        if !self.verified {
            return self.close(CloseReason::Fingerprint);
        }
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
mod tests;
