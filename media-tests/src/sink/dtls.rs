//! The client's side of DTLS, by `dimpl`: datagrams of the handshake, and the keys of SRTP that come of it.

use anyhow::bail;
use dimpl::{Dtls, DtlsCertificate, Output, SrtpProfile};
use std::sync::Arc;
use std::time::Instant;
use trocar_relay::srtp::Profile;

/// Outputs of one call at most; what is left comes with the next one.
const MAX_OUT: usize = 64;

/// The hash of a certificate as SDP has it, `sha-256` (RFC 8122 section 5).
pub(crate) fn fingerprint(certificate: &DtlsCertificate) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate.certificate);
    let bytes: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    bytes.join(":")
}

/// What comes out.
pub(crate) enum Out {
    /// To be sent.
    Packet(Vec<u8>),
    /// The profile, and the exporter's bytes.
    Keys(Profile, Vec<u8>),
}

/// One client.
pub(crate) struct DtlsClient(Dtls);

impl DtlsClient {
    /// One that has sent nothing yet.
    ///
    /// # Errors
    /// Where the library cannot be set up.
    pub(crate) fn new(certificate: DtlsCertificate, now: Instant) -> anyhow::Result<Self> {
        let config = Arc::new(dimpl::Config::builder().use_server_cookie(false).build()?);
        let mut dtls = Dtls::new_12(config, certificate, now);
        dtls.set_active(true);
        dtls.handle_timeout(now)?;
        Ok(Self(dtls))
    }

    /// A datagram that came. What is wrong with it shows in that no keys come.
    pub(crate) fn handle_packet(&mut self, now: Instant, data: &[u8]) {
        let _ = self.0.handle_timeout(now);
        let _ = self.0.handle_packet(data);
    }

    /// What is due. Begins the handshake at the first call.
    ///
    /// # Errors
    /// Where the handshake has failed, or ended with a profile that nobody offered.
    pub(crate) fn drive(&mut self, now: Instant) -> anyhow::Result<Vec<Out>> {
        self.0.handle_timeout(now)?;
        let mut buffer = vec![0; 2_048];
        let mut out = Vec::new();
        for _ in 0..MAX_OUT {
            match self.0.poll_output(&mut buffer) {
                Output::Packet(p) => out.push(Out::Packet(p.to_vec())),
                Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        SrtpProfile::AEAD_AES_256_GCM => Profile::Aes256Gcm,
                        SrtpProfile::AEAD_AES_128_GCM => Profile::Aes128Gcm,
                        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1,
                        other => bail!("profile {other}"),
                    };
                    out.push(Out::Keys(profile, material.to_vec()));
                }
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        Ok(out)
    }
}
