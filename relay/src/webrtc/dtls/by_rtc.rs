//! DTLS by `rtc-dtls`, for peers whose certificate may be RSA.
//!
//! The library keeps fragments of handshake messages without a bound, puts them together by recursion, and answers what
//! nobody has authenticated. So it gets whole messages only, of the kinds that a client sends, each at most
//! [`MAX_MESSAGE`](super::wire::MAX_MESSAGE) bytes and no more than [`MAX_RECORDS`] in all; and once it is connected,
//! nothing that is not encrypted. It does not compare what the client's Finished says (0.21.1), so the extended master
//! secret is required: the keys are then bound to the messages before it (RFC 7627), the client's signature covers the same,
//! and a Finished that decrypts says as much. Its timer stops at the first datagram of an incomplete flight, so flights are
//! repeated from here.

use super::super::transport::CloseReason;
use super::Output;
use super::wire::{self, ALERT, Assembler, CHANGE_CIPHER_SPEC, HANDSHAKE, Record};
use crate::srtp::Profile;
use bytes::BytesMut;
use dimpl::DtlsCertificate;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SignatureScheme as KeyScheme};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_dtls::signature_hash_algorithm::SignatureScheme;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;
use rustls::pki_types::CertificateDer;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// The library tells associations apart by address; here each has an endpoint of its own.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// Records that reach the library in the life of an association; what comes later is dropped. A handshake has about ten.
const MAX_RECORDS: usize = 128;
/// Longest encrypted record that reaches it: Finished has 48 bytes, an alert 26.
const MAX_ENCRYPTED: usize = 64;
/// The flight is repeated after this long without an answer, then after twice as long, and so on.
const REPEAT_AFTER: Duration = Duration::from_millis(400);
/// The label of RFC 5764 section 4.2.
const EXPORTER: &str = "EXTRACTOR-dtls_srtp";

/// One association.
pub(super) struct ByRtc {
    endpoint: Endpoint,
    assembler: Assembler,
    records_left: usize,
    connected: bool,
    closed: bool,
    /// What was last sent before the handshake was complete.
    flight: Vec<Vec<u8>>,
    repeat: Option<(Instant, Duration)>,
    out: Vec<Output>,
}

impl ByRtc {
    /// A server that waits for a ClientHello.
    ///
    /// # Errors
    /// Where the library does not take the certificate.
    pub(super) fn new(certificate: &DtlsCertificate) -> Result<Self, Error> {
        Ok(Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, Some(config(certificate)?)),
            assembler: Assembler::default(),
            records_left: MAX_RECORDS,
            connected: false,
            closed: false,
            flight: Vec::new(),
            repeat: None,
            out: Vec::new(),
        })
    }

    pub(super) fn handle_packet(&mut self, now: Instant, datagram: &[u8]) {
        if self.closed {
            return;
        }
        let mut admitted = BytesMut::new();
        for record in wire::records(datagram) {
            self.admit(&record, &mut admitted);
        }
        if admitted.is_empty() {
            return;
        }
        match self.endpoint.read(now, PEER, None, admitted) {
            Ok(events) => events.into_iter().for_each(|e| self.handle_event(&e)),
            Err(error) => tracing::debug!(target: "trocar::dtls", %error, "record refused"),
        }
        self.collect(now);
    }

    /// Appends what the library may see of a record.
    fn admit(&mut self, record: &Record<'_>, out: &mut BytesMut) {
        let before = out.len();
        match (record.kind, record.epoch, self.connected) {
            (HANDSHAKE, 0, false) => self.admit_messages(record, out),
            (CHANGE_CIPHER_SPEC, 0, false) if record.body == [1] => out.extend_from_slice(record.whole),
            // After the handshake a repeated Finished says that ours was lost.
            (HANDSHAKE, 1, _) | (ALERT, 1, true) if record.body.len() <= MAX_ENCRYPTED => {
                out.extend_from_slice(record.whole);
            }
            _ => {}
        }
        if out.len() > before {
            match self.records_left.checked_sub(1) {
                Some(left) => self.records_left = left,
                None => out.truncate(before),
            }
        }
    }

    /// Messages that a record completes, whole and in a record of the same number.
    fn admit_messages(&mut self, record: &Record<'_>, out: &mut BytesMut) {
        let mut body = Vec::new();
        for f in wire::fragments(record.body) {
            let kinds = [wire::CLIENT_HELLO, wire::CERTIFICATE, wire::CLIENT_KEY_EXCHANGE, wire::CERTIFICATE_VERIFY];
            if let Some(message) = self.assembler.handle_fragment(&f).filter(|m| kinds.contains(&m.kind)) {
                message.write(&mut body);
            }
        }
        if let (Ok(len), Some(head)) = (u16::try_from(body.len()), record.whole.get(..11))
            && len > 0
        {
            out.extend_from_slice(head);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&body);
        }
    }

    fn handle_event(&mut self, event: &EndpointEvent) {
        match event {
            EndpointEvent::HandshakeComplete if !self.connected => {
                self.connected = true;
                (self.repeat, self.flight) = (None, Vec::new());
                match self.secrets() {
                    Some((certificate, material)) => {
                        self.out.push(Output::Certificate(certificate));
                        self.out.push(Output::Keys(Profile::Aes128CmSha1, material));
                    }
                    None => self.close(CloseReason::Handshake),
                }
            }
            EndpointEvent::PeerClosed => self.close(CloseReason::Goodbye),
            // Nobody sends application data to us.
            _ => {}
        }
    }

    /// The peer's certificate and the exporter's bytes.
    fn secrets(&self) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
        let state = self.endpoint.get_connection_state(PEER)?;
        if state.srtp_protection_profile() != SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 {
            return None;
        }
        let certificate = state.peer_certificates.first()?.clone();
        let profile = Profile::Aes128CmSha1;
        let len = 2 * (profile.key_len() + profile.salt_len());
        let material = state.export_keying_material(EXPORTER, &[], len).ok()?;
        Some((certificate, Zeroizing::new(material.into_bytes())))
    }

    fn close(&mut self, reason: CloseReason) {
        self.closed = true;
        self.out.push(Output::Closed(reason));
    }

    /// Takes what the library has to send.
    fn collect(&mut self, now: Instant) {
        let sent: Vec<Vec<u8>> =
            std::iter::from_fn(|| self.endpoint.poll_transmit()).map(|t| t.message.to_vec()).collect();
        if sent.is_empty() {
            return;
        }
        self.out.extend(sent.iter().cloned().map(Output::Packet));
        if !self.connected {
            self.flight = sent;
            self.repeat = Some((now + REPEAT_AFTER, REPEAT_AFTER));
        }
    }

    /// Repeats the flight where it is time to. The bytes are the same ones, so a client drops those that it has.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some((at, after)) = self.repeat
            && now >= at
        {
            self.out.extend(self.flight.iter().cloned().map(Output::Packet));
            self.repeat = Some((now + 2 * after, 2 * after));
        }
    }

    pub(super) fn drain(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.out)
    }
}

fn config(certificate: &DtlsCertificate) -> Result<Arc<HandshakeConfig>, Error> {
    let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
    let key = provider
        .crypto()
        .import_signing_key(KeyScheme::EcdsaP256Sha256, &certificate.private_key)
        .map_err(|e| Error::Crypto(e.to_string()))?;
    let chain = vec![CertificateDer::from(certificate.certificate.clone())];
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![Certificate::from_signing_key(chain, key)])
        .with_cipher_suites(vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256])
        .with_signature_schemes(vec![
            SignatureScheme::EcdsaWithP256AndSha256,
            SignatureScheme::EcdsaWithP384AndSha384,
            SignatureScheme::Pkcs1WithSha256,
            SignatureScheme::Pkcs1WithSha384,
            SignatureScheme::Pkcs1WithSha512,
        ])
        .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])
        // Any certificate, and proof of its key; whose it is, its fingerprint says.
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_insecure_skip_verify(true)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        // The library's own timer is out of the way.
        .with_flight_interval(Duration::from_secs(3_600))
        .build(false, None)?;
    Ok(Arc::new(config))
}
