//! DTLS by `dimpl`.

use super::super::transport::CloseReason;
use super::Output;
use crate::srtp::Profile;
use dimpl::{Dtls, DtlsCertificate, SrtpProfile};
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// One association.
pub(super) struct ByDimpl {
    dtls: Dtls,
    due: Option<Instant>,
}

impl ByDimpl {
    /// A server that waits for a ClientHello.
    pub(super) fn new(config: Arc<dimpl::Config>, certificate: DtlsCertificate, now: Instant) -> Self {
        let mut dtls = Dtls::new_12(config, certificate, now);
        dtls.set_active(false);
        Self { dtls, due: None }
    }

    pub(super) fn handle_packet(&mut self, now: Instant, datagram: &[u8]) {
        // The library wants the time first: a ClientHello before the first `handle_timeout` makes it panic (0.9.0).
        if self.dtls.handle_timeout(now).is_err() || self.dtls.handle_packet(datagram).is_err() {
            tracing::debug!(target: "trocar::dtls", "record refused");
        }
    }

    /// # Errors
    /// Where the library gives the handshake up.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), dimpl::Error> {
        if self.due.is_some_and(|t| now >= t) { self.dtls.handle_timeout(now) } else { Ok(()) }
    }

    pub(super) fn drain(&mut self, now: Instant) -> Vec<Output> {
        let mut out = Vec::new();
        let mut small = [0_u8; 2_048];
        let mut large = Vec::new();
        let mut needed_room = 0;
        // One flight is a handful of datagrams; the bound is far above.
        for _ in 0..64 {
            let buffer = if needed_room == 0 { small.as_mut_slice() } else { large.as_mut_slice() };
            match self.dtls.poll_output(buffer) {
                dimpl::Output::Packet(p) => out.push(Output::Packet(p.to_vec())),
                dimpl::Output::BufferTooSmall { needed } => {
                    needed_room = needed.min(65_535);
                    large.resize(needed_room, 0);
                }
                dimpl::Output::PeerCert(der) => out.push(Output::Certificate(der.to_vec())),
                dimpl::Output::KeyingMaterial(material, profile) => {
                    out.push(keys(profile, Zeroizing::new(material.to_vec())));
                }
                dimpl::Output::CloseNotify => out.push(Output::Closed(CloseReason::Goodbye)),
                dimpl::Output::Timeout(t) => {
                    // A due time far away is the library's way to say "never".
                    self.due = Some(t).filter(|t| *t < now + Duration::from_secs(3_600));
                    break;
                }
                _ => {}
            }
        }
        out
    }
}

fn keys(profile: SrtpProfile, material: Zeroizing<Vec<u8>>) -> Output {
    let profile = match profile {
        SrtpProfile::AEAD_AES_128_GCM => Profile::Aes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::Aes256Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1,
        _ => return Output::Closed(CloseReason::Profile),
    };
    Output::Keys(profile, material)
}
