use super::*;
use crate::srtp::Srtp;
use aws_lc_rs::hmac;
use rtc_dtls::config::{ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SignatureScheme as KeyScheme};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;

fn certificate() -> DtlsCertificate {
    dtls_certificate().unwrap()
}

fn fingerprint(c: &DtlsCertificate) -> Fingerprint {
    let value = digest::digest(&digest::SHA256, &c.certificate).as_ref().to_vec();
    Fingerprint { algorithm: "sha-256".to_owned(), value }
}

/// Both kinds of peer: one that offers AES-GCM and shows ECDSA, and one that offers AES-CM only and shows RSA.
const KINDS: [fn(Instant) -> (Client, DtlsCertificate); 2] = [
    |now| {
        let shown = certificate();
        (Client::dimpl(shown.clone(), now), shown)
    },
    |_| {
        let shown = rsa_certificate();
        (Client::rtc(Some(&shown)), shown)
    },
];

fn rsa_certificate() -> DtlsCertificate {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let signed = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap().self_signed(&key).unwrap();
    DtlsCertificate { certificate: signed.der().to_vec(), private_key: key.serialize_der() }
}

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1_000);

enum Client {
    Dimpl(Box<dimpl::Dtls>),
    Rtc { endpoint: Box<Endpoint>, config: Arc<HandshakeConfig>, called: bool, done: bool },
}

impl Client {
    fn dimpl(shown: DtlsCertificate, now: Instant) -> Self {
        let config = dimpl::Config::builder().use_server_cookie(false).build().unwrap();
        let mut dtls = dimpl::Dtls::new_12(Arc::new(config), shown, now);
        dtls.set_active(true);
        Self::Dimpl(Box::new(dtls))
    }

    fn rtc(shown: Option<&DtlsCertificate>) -> Self {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let certificate = |c: &DtlsCertificate| {
            let key = provider.crypto().import_signing_key(KeyScheme::RsaPkcs1Sha256, &c.private_key).unwrap();
            Certificate::from_signing_key(vec![c.certificate.clone().into()], key)
        };
        let config = ConfigBuilder::default()
            .with_certificates(shown.map(certificate).into_iter().collect())
            .with_crypto_provider(Arc::clone(&provider))
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])
            .with_insecure_skip_verify(true);
        let config = Arc::new(config.build(true, None).unwrap());
        let endpoint = Box::new(Endpoint::new(SERVER, TransportProtocol::UDP, None));
        Self::Rtc { endpoint, config, called: false, done: false }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Dimpl(dtls) => drop(dtls.handle_timeout(now)),
            Self::Rtc { endpoint, config, called, .. } => {
                if !std::mem::replace(called, true) {
                    endpoint.connect(now, SERVER, Arc::clone(config), None).unwrap();
                }
                let _ = endpoint.handle_timeout(SERVER, now);
            }
        }
    }

    fn handle_packet(&mut self, now: Instant, p: &[u8]) {
        match self {
            Self::Dimpl(dtls) => drop(dtls.handle_packet(p)),
            Self::Rtc { endpoint, done, .. } => {
                let events = endpoint.read(now, SERVER, None, p.into()).unwrap_or_default();
                *done |= events.iter().any(|e| matches!(e, EndpointEvent::HandshakeComplete));
            }
        }
    }

    /// Datagrams to send, and the exporter's bytes once they are there.
    fn poll(&mut self) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let (mut packets, mut keys) = (Vec::new(), None);
        match self {
            Self::Dimpl(dtls) => {
                let mut b = vec![0; 2_048];
                loop {
                    match dtls.poll_output(&mut b) {
                        dimpl::Output::Packet(p) => packets.push(p.to_vec()),
                        dimpl::Output::KeyingMaterial(m, _) => keys = Some(m.to_vec()),
                        dimpl::Output::Timeout(_) => break,
                        _ => {}
                    }
                }
            }
            Self::Rtc { endpoint, done, .. } => {
                packets.extend(std::iter::from_fn(|| endpoint.poll_transmit()).map(|t| t.message.to_vec()));
                if std::mem::take(done) {
                    let state = endpoint.get_connection_state(SERVER).unwrap();
                    keys = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], 60).ok().map(|k| k.into_bytes());
                }
            }
        }
        (packets, keys)
    }
}

struct Pair {
    server: Transport,
    ice: IceAgent,
    client: Client,
    keys: Option<Vec<u8>>,
    ours: SocketAddr,
    theirs: SocketAddr,
    /// Comes to the server besides, at each step.
    noise: Vec<Vec<u8>>,
    /// DTLS datagrams that are lost, by their place in the order sent by both.
    lost: Option<usize>,
    sent: usize,
    /// Fragment and password of the server.
    secrets: (String, String),
}

impl Pair {
    fn new(claimed: &DtlsCertificate, client: Client, now: Instant) -> Self {
        let theirs: SocketAddr = "127.0.0.1:2000".parse().unwrap();
        let (a, b) = (IceCreds::new(), IceCreds::new());
        let server = Transport::new(
            Setup {
                local: (a.ufrag.clone(), a.pass.clone()),
                remote: (b.ufrag.clone(), b.pass.clone()),
                fingerprint: fingerprint(claimed),
                candidates: &[Remote::udp(SERVER), Remote::tcp(SERVER)],
                dtls: Arc::new(dimpl::Config::builder().use_server_cookie(false).build().unwrap()),
                certificate: &certificate(),
            },
            now,
        );
        let secrets = (a.ufrag.clone(), a.pass.clone());
        let mut ice = IceAgent::new(b);
        ice.set_controlling(true);
        ice.set_remote_credentials(a);
        ice.add_local_candidate(Candidate::host(theirs, "udp").unwrap());
        ice.add_remote_candidate(Candidate::host(SERVER, "udp").unwrap());
        let (noise, lost) = (Vec::new(), None);
        Self { server, ice, client, keys: None, ours: SERVER, theirs, noise, lost, sent: 0, secrets }
    }

    /// A peer that shows the certificate of its SDP.
    fn honest(kind: fn(Instant) -> (Client, DtlsCertificate), now: Instant) -> Self {
        let (client, shown) = kind(now);
        Self::new(&shown, client, now)
    }

    fn arrives(&mut self) -> bool {
        self.sent += 1;
        self.lost != Some(self.sent - 1)
    }

    fn client_dtls(&mut self, now: Instant) {
        let (packets, keys) = self.client.poll();
        self.keys = keys.or(self.keys.take());
        for p in packets {
            if self.arrives() {
                self.server.handle_dtls(now, &p);
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
            for n in &self.noise {
                self.server.handle_dtls(now, n);
            }
            self.client.handle_timeout(now);
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
                } else if self.arrives() {
                    self.client.handle_packet(now, &p);
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
    for (kind, expected) in KINDS.into_iter().zip([Profile::Aes256Gcm, Profile::Aes128CmSha1]) {
        let now = Instant::now();
        let mut pair = Pair::honest(kind, now);
        let events = pair.run(now);
        let Some(TransportEvent::Keys(profile, material)) = events.first() else { panic!("{events:?}") };
        assert_eq!(*profile, expected);
        let theirs = pair.keys.take().expect("the client has keys as well");
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
}

#[test]
fn a_certificate_that_is_not_the_one_of_the_sdp_is_refused_before_any_key() {
    for kind in KINDS {
        let now = Instant::now();
        let mut pair = Pair::new(&certificate(), kind(now).0, now);
        let events = pair.run(now);
        assert!(events.iter().any(|e| matches!(e, TransportEvent::Closed(CloseReason::Fingerprint))), "{events:?}");
        assert!(!events.iter().any(|e| matches!(e, TransportEvent::Keys(..))));
    }
}

#[test]
fn a_peer_that_shows_no_certificate_gets_no_keys() {
    let now = Instant::now();
    let mut pair = Pair::new(&certificate(), Client::rtc(None), now);
    let mut events = pair.run(now);
    events.extend(pair.run(now + Duration::from_secs(3)));
    assert!(matches!(events[..], [TransportEvent::Closed(CloseReason::Handshake)]), "{events:?}");
}

#[test]
fn rubbish_before_in_and_after_the_handshake_does_not_end_the_session() {
    for kind in KINDS {
        let now = Instant::now();
        let mut pair = Pair::honest(kind, now);
        // A plaintext fatal alert, a truncated record, records without a fragment or with an empty one, a message of 16 MB.
        pair.noise = vec![
            vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40],
            vec![22, 0xfe],
            vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 7, 0, 12, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0],
            vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 8, 0, 13, 1, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 1, 1],
        ];
        let events = pair.run(now);
        assert!(matches!(events[..], [TransportEvent::Keys(..)]), "{events:?}");
        let later = pair.run(now + Duration::from_secs(3));
        assert!(later.is_empty(), "{later:?}");
    }
}

#[test]
fn a_forged_client_hello_during_and_after_the_handshake_does_not_end_the_session() {
    // TLS_RSA_WITH_NULL_SHA, no extensions.
    let mut hello =
        vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, 54, 1, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 42, 0xfe, 0xfd];
    hello.extend([9; 32]);
    hello.extend([0, 0, 0, 2, 0, 2, 1, 0]);
    for kind in KINDS {
        let now = Instant::now();
        let mut pair = Pair::honest(kind, now);
        pair.server.handle_dtls(now, &hello);
        let events = pair.run(now);
        assert!(matches!(events[..], [TransportEvent::Keys(..)]), "{events:?}");
        pair.noise = vec![hello.clone()];
        let later = pair.run(now + Duration::from_secs(3));
        assert!(later.is_empty(), "{later:?}");
    }
}

#[test]
fn a_lost_datagram_of_the_handshake_costs_time_and_no_session() {
    for kind in KINDS {
        for lost in 0..12 {
            let now = Instant::now();
            let mut pair = Pair::honest(kind, now);
            pair.lost = Some(lost);
            let events = pair.run(now);
            assert!(matches!(events[..], [TransportEvent::Keys(..)]), "datagram {lost}: {events:?}");
        }
    }
}

#[test]
fn after_the_handshake_a_check_alone_moves_nothing_and_an_authentic_packet_does() {
    let now = Instant::now();
    let mut pair = Pair::honest(KINDS[0], now);
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
    let now = Instant::now();
    let mut pair = Pair::honest(KINDS[0], now);
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

/// An authentic check with USE-CANDIDATE from there, and the answer to it. The other agent would take part of the answers
/// for a translated address of its own.
fn nominate(pair: &mut Pair, from: Remote, now: Instant) -> bool {
    let username = format!("{}:{}", pair.secrets.0, pair.server.remote_ufrag().unwrap());
    let message = StunMessage::binding_request(&username, is::stun::TransId::new(), true, 1, 0x6e00_01ff, true);
    let sign = |key: &[u8], parts: &[&[u8]]| {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        hmac::sign(&key, &parts.concat()).as_ref().try_into().unwrap()
    };
    let mut bytes = vec![0; 600];
    let len = message.to_bytes(Some(pair.secrets.1.as_bytes()), &mut bytes, sign).unwrap();
    let taken = pair.server.handle_stun(now, from, pair.ours, StunMessage::parse(&bytes[..len]).unwrap());
    pair.server.handle_timeout(now);
    let answers: Vec<Remote> = std::iter::from_fn(|| pair.server.poll_transmit()).map(|(to, _)| to).collect();
    assert_eq!(answers, if taken { vec![from] } else { vec![] }, "an answer goes where the check came from");
    taken
}

#[test]
fn a_peer_may_move_again_and_again_between_udp_and_tcp_and_media_follows() {
    let now = Instant::now();
    let mut pair = Pair::honest(KINDS[0], now);
    pair.run(now);
    let mut at = now + Duration::from_secs(3);
    for n in 0..200_u16 {
        let address = SocketAddr::new(pair.theirs.ip(), 5_000 + n);
        let from = if n % 2 == 0 { Remote::tcp(address) } else { Remote::udp(address) };
        assert!(nominate(&mut pair, from, at), "move {n}");
        pair.server.handle_authentic(from);
        assert_eq!(pair.server.egress(at), Some(from), "move {n}");
        at += Duration::from_secs(6);
    }
    assert!(pair.server.poll_event().is_none(), "nothing ended");
}

#[test]
fn a_connection_that_is_gone_takes_no_media_and_ends_nothing() {
    let now = Instant::now();
    let mut pair = Pair::honest(KINDS[0], now);
    pair.run(now);
    let at = now + Duration::from_secs(3);
    let tcp = Remote::tcp(pair.theirs);
    assert!(nominate(&mut pair, tcp, at));
    pair.server.handle_authentic(tcp);
    assert_eq!(pair.server.egress(at), Some(tcp));
    pair.server.forget(tcp);
    pair.server.handle_timeout(at);
    assert_eq!(pair.server.egress(at), None);
    pair.server.handle_authentic(tcp);
    assert_eq!(pair.server.egress(at), None);
    assert!(pair.server.poll_event().is_none(), "it may come again");
    let again = Remote::tcp("127.0.0.1:7".parse().unwrap());
    assert!(nominate(&mut pair, again, at));
    pair.server.handle_authentic(again);
    assert_eq!(pair.server.egress(at), Some(again));
}

#[test]
fn a_peer_that_never_checks_is_dropped() {
    let now = Instant::now();
    let mut pair = Pair::honest(KINDS[0], now);
    pair.server.handle_timeout(now + DROP_TIMEOUT + Duration::from_millis(1));
    let closed = std::iter::from_fn(|| pair.server.poll_event())
        .any(|e| matches!(e, TransportEvent::Closed(CloseReason::Consent)));
    assert!(closed);
}
