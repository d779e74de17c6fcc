//! A device's certificate in place of a login: what it signs when it redeems an invitation.
//!
//! Signed are the bytes `trocar-join-1`, and on a line each the SHA-256 of the invitation's secret, the SHA-256 of the device's certificate and
//! the time in microseconds, the first two in hexadecimal; no line feed at the end. So a proof is good for one invitation, for a token that is
//! bound to that certificate, and for as long as [`LIFE_US`].

use crate::audit::record::Hash;
use crate::signed::{self, SignedError};
use crate::trust::{CertName, Identity, Trust, cert_hash};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::Duration;
use trocar_proto::session::api::DeviceProof;
use trocar_proto::session::ids::CertHash;
use trocar_proto::units::WallMicros;

/// How far the proof's time may be from the reader's clock, in microseconds.
pub const LIFE_US: u64 = 60_000_000;
/// The role of certificates that count: `trocar://REALM/publisher/NAME`. A station belongs to a person, who has to be asked.
pub const ROLE: &str = "publisher";

/// Why a proof does not count.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// Chain, signer or signature.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The certificate is of another kind of device.
    #[error("the certificate says {0}: role publisher (trocar://REALM/publisher/NAME) is right")]
    Role(CertName),
    /// The token would be bound to another certificate, or to none.
    #[error("cnf is not the hash of that certificate")]
    Cnf,
    /// It was signed too long ago, or too far in the future.
    #[error("it was signed {0} s from now by this node's clock: within 60 s is right")]
    Time(u64),
}

/// Signs for one invitation.
///
/// # Errors
/// [`ProofError`]: a certificate of another role, a key of another kind or of another certificate.
pub fn sign(invitation: &str, at: WallMicros, device: &Identity) -> Result<DeviceProof, ProofError> {
    if device.name().role != ROLE {
        return Err(ProofError::Role(device.name().clone()));
    }
    let leaf = device.chain.first().ok_or(SignedError::Chain)?;
    let (certificate, signature) = signed::sign(&words(invitation, leaf, at), device)?;
    Ok(DeviceProof { certificate, at, signature })
}

/// Checks a proof for that invitation at `now`; whose it is.
///
/// # Errors
/// [`ProofError`].
pub fn read(
    proof: &DeviceProof,
    invitation: &str,
    cnf: Option<CertHash>,
    trust: &Trust,
    now: WallMicros,
) -> Result<CertName, ProofError> {
    let at = UnixTime::since_unix_epoch(Duration::from_micros(now.0));
    let (name, chain) = signed::signer(&proof.certificate, trust, at)?;
    let leaf = chain.first().ok_or(SignedError::Chain)?;
    signed::verify(&chain, &words(invitation, leaf, proof.at), &proof.signature)?;
    if name.role != ROLE {
        return Err(ProofError::Role(name));
    }
    if cnf != Some(cert_hash(leaf)) {
        return Err(ProofError::Cnf);
    }
    let apart = now.0.abs_diff(proof.at.0);
    if apart > LIFE_US { Err(ProofError::Time(apart / 1_000_000)) } else { Ok(name) }
}

fn words(invitation: &str, leaf: &CertificateDer<'_>, at: WallMicros) -> Vec<u8> {
    format!("trocar-join-1\n{}\n{}\n{}", Hash::of(invitation.as_bytes()), Hash::of(leaf), at.0).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Distrust;
    use trocar_testpki::{Authority, Leaf};

    fn device(authority: &Authority, name: &str) -> Identity {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = authority.issue(&Leaf::device(name)).write(dir.path(), "device");
        Identity::from_pem_files(&certificate, &key).unwrap()
    }

    fn now() -> WallMicros {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        WallMicros(u64::try_from(since.as_micros()).unwrap())
    }

    #[test]
    fn a_proof_names_its_device_and_is_good_for_its_invitation_its_certificate_and_a_minute() {
        let authority = Authority::new();
        let trust = Trust::from_pem(authority.pem().as_bytes(), None).unwrap();
        let device = device(&authority, "trocar://north/publisher/or-1");
        let (cnf, at) = (Some(device.hash()), now());
        let proof = sign("secret", at, &device).unwrap();
        let read_at = |proof: &DeviceProof, at| read(proof, "secret", cnf, &trust, WallMicros(at));
        assert_eq!(read_at(&proof, at.0).unwrap().to_string(), "trocar://north/publisher/or-1");
        for edge in [at.0 - LIFE_US, at.0 + LIFE_US] {
            assert!(read_at(&proof, edge).is_ok());
        }
        for late in [at.0 - LIFE_US - 1, at.0 + LIFE_US + 1] {
            assert!(matches!(read_at(&proof, late), Err(ProofError::Time(60))));
        }
        let unfit = |e| matches!(e, Err(ProofError::Signed(SignedError::Signature)));
        assert!(unfit(read(&proof, "another secret", cnf, &trust, at)));
        assert!(unfit(read_at(&DeviceProof { at: WallMicros(at.0 + 1), ..proof.clone() }, at.0)));
        for other in [None, Some(CertHash([7; 32]))] {
            assert!(matches!(read(&proof, "secret", other, &trust, at), Err(ProofError::Cnf)));
        }
    }

    #[test]
    fn neither_another_role_nor_another_authority_nor_another_key_counts() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let trust = Trust::from_pem(ours.pem().as_bytes(), None).unwrap();
        let (station, at) = (device(&ours, "trocar://north/station/ada"), now());
        assert!(matches!(sign("secret", at, &station), Err(ProofError::Role(_))));
        // As a client would that does not look.
        let leaf = station.chain.first().unwrap();
        let (certificate, signature) = signed::sign(&words("secret", leaf, at), &station).unwrap();
        let proof = DeviceProof { certificate, at, signature };
        let refused = read(&proof, "secret", Some(cert_hash(leaf)), &trust, at);
        assert!(matches!(refused, Err(ProofError::Role(_))), "{refused:?}");

        let stranger = device(&theirs, "trocar://north/publisher/or-1");
        let proof = sign("secret", at, &stranger).unwrap();
        let refused = read(&proof, "secret", Some(stranger.hash()), &trust, at);
        assert!(
            matches!(refused, Err(ProofError::Signed(SignedError::Distrusted { why: Distrust::UnknownIssuer, .. }))),
            "{refused:?}"
        );

        let (one, two) = (device(&ours, "trocar://north/publisher/1"), device(&ours, "trocar://north/publisher/2"));
        let stolen = DeviceProof {
            certificate: sign("secret", at, &one).unwrap().certificate,
            ..sign("secret", at, &two).unwrap()
        };
        let refused = read(&stolen, "secret", Some(one.hash()), &trust, at);
        assert!(matches!(refused, Err(ProofError::Signed(SignedError::Signature))), "{refused:?}");
    }
}
