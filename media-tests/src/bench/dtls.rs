//! The client's side of DTLS, by one of two libraries: `dimpl` offers all profiles, `rtc-dtls` AES-CM alone.

use crate::sink::dtls::DtlsClient;
pub(super) use crate::sink::dtls::Out;
use bytes::BytesMut;
use dimpl::DtlsCertificate;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SignatureScheme as KeyScheme};
use rtc_dtls::endpoint::Endpoint;
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_dtls::signature_hash_algorithm::SignatureScheme;
use rtc_shared::TransportProtocol;
use rustls::pki_types::CertificateDer;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use trocar_relay::srtp::Profile;

/// `rtc-dtls` tells associations apart by address; here each has an endpoint of its own.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);
/// The label of RFC 5764 section 4.2.
const EXPORTER: &str = "EXTRACTOR-dtls_srtp";

/// One client.
pub(super) enum Client {
    Dimpl(Box<DtlsClient>),
    Rtc(Box<CmClient>),
}

/// A client that has nothing but AES-CM.
pub(super) struct CmClient {
    endpoint: Endpoint,
    config: Arc<HandshakeConfig>,
    begun: bool,
    done: bool,
}

impl Client {
    pub(super) fn new(certificate: DtlsCertificate, cm: bool, now: Instant) -> anyhow::Result<Self> {
        if cm {
            let endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
            let config = cm_config(&certificate)?;
            return Ok(Self::Rtc(Box::new(CmClient { endpoint, config, begun: false, done: false })));
        }
        Ok(Self::Dimpl(Box::new(DtlsClient::new(certificate, now)?)))
    }

    pub(super) fn handle_packet(&mut self, now: Instant, data: &[u8]) {
        match self {
            Self::Dimpl(dtls) => dtls.handle_packet(now, data),
            Self::Rtc(client) => {
                // What is wrong with a datagram shows in that no keys come.
                let _ = client.endpoint.read(now, PEER, None, BytesMut::from(data));
            }
        }
    }

    /// What is due. Begins the handshake at the first call.
    pub(super) fn drive(&mut self, now: Instant) -> anyhow::Result<Vec<Out>> {
        match self {
            Self::Dimpl(dtls) => dtls.drive(now),
            Self::Rtc(client) => client.drive(now),
        }
    }
}

impl CmClient {
    fn drive(&mut self, now: Instant) -> anyhow::Result<Vec<Out>> {
        if !self.begun {
            self.begun = true;
            self.endpoint.connect(now, PEER, Arc::clone(&self.config), None)?;
        }
        self.endpoint.handle_timeout(PEER, now)?;
        let sent = std::iter::from_fn(|| self.endpoint.poll_transmit()).map(|t| Out::Packet(t.message.to_vec()));
        let mut out: Vec<Out> = sent.collect();
        if let Some(state) = self.endpoint.get_connection_state(PEER).filter(|_| !self.done) {
            let profile = Profile::Aes128CmSha1;
            let len = 2 * (profile.key_len() + profile.salt_len());
            if let Ok(material) = state.export_keying_material(EXPORTER, &[], len)
                && state.srtp_protection_profile() == SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80
            {
                self.done = true;
                out.push(Out::Keys(profile, material.into_bytes()));
            }
        }
        Ok(out)
    }
}

fn cm_config(certificate: &DtlsCertificate) -> anyhow::Result<Arc<HandshakeConfig>> {
    let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
    let key = provider.crypto().import_signing_key(KeyScheme::EcdsaP256Sha256, &certificate.private_key);
    let key = key.map_err(|e| anyhow::anyhow!("{e}"))?;
    let chain = vec![CertificateDer::from(certificate.certificate.clone())];
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![Certificate::from_signing_key(chain, key)])
        .with_cipher_suites(vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256])
        .with_signature_schemes(vec![SignatureScheme::EcdsaWithP256AndSha256])
        .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])
        // A relay of the benchmark, on loopback.
        .with_insecure_skip_verify(true)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        .with_flight_interval(Duration::from_millis(200))
        .build(true, None)?;
    Ok(Arc::new(config))
}
