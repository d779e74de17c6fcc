//! The patient's consent as signaling knows it: signed documents (`trocar_control::consent`) whose signers this node's trust list
//! vouches for. Where consent is required, nobody but the surgical team sees or hears anything of a session without it.
//!
//! Of all documents for a session the one with the highest serial decides, and a lower one never counts again, not after a restart
//! either. A withdrawal takes effect first and is written down after it; what gives consent is written down first. A signer who is revoked
//! vouches for nothing any more.

use crate::app::wall_clock;
use crate::store::StoredConsent;
use rustls::pki_types::UnixTime;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use trocar_control::consent::{DocumentError, Signed, read};
use trocar_control::trust::{Distrust, TrustError, TrustList};
use trocar_proto::session::ids::SessionId;
use trocar_proto::units::WallMicros;

/// Reads documents. One trust list, looked at again whenever its files change.
pub(crate) struct Notary(Mutex<TrustList>);

impl Notary {
    /// With the trust list in that directory: `ca.pem`, and `crl.pem` where there is one.
    pub(crate) fn open(directory: &Path) -> Result<Self, TrustError> {
        TrustList::load(directory).map(|list| Self(Mutex::new(list)))
    }

    /// Checks form, signature and signer.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<Signed, DocumentError> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        read(bytes, &list.current(), at(wall_clock()))
    }

    /// Reads the trust list again where its files changed. One that cannot be read any more stays in force as it was.
    pub(crate) fn reload(&self) -> bool {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.reload().unwrap_or_else(|error| {
            tracing::error!(%error, "the trust list for consent cannot be read: it stays in force as it was");
            false
        })
    }

    /// Whether the signer is not vouched for any more: revoked, or its authority gone. One that has merely run out was right when it signed.
    pub(crate) fn is_distrusted(&self, signed: &Signed) -> bool {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = list.current().verify(&signed.chain, at(signed.document.from));
        matches!(verdict, Err(Distrust::Revoked | Distrust::UnknownIssuer))
    }

    /// A document of an earlier run; none where it does not count any more. Its serial does, whatever became of its signer.
    pub(crate) fn again(&self, stored: &StoredConsent) -> Option<Signed> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match read(stored.document.as_bytes(), &list.current(), at(stored.taken)) {
            Ok(signed) => Some(signed),
            Err(error) => {
                tracing::error!(%error, session = %stored.session, "a consent of before does not count any more");
                None
            }
        }
    }
}

fn at(wall: WallMicros) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_micros(wall.0))
}

/// What a session's consent is, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct ConsentInfo {
    /// The session.
    #[schema(value_type = String)]
    pub(crate) session: SessionId,
    /// Whether this node wants one before anybody but the team sees anything.
    pub(crate) required: bool,
    /// Serial of the document that counts; 0 where there is none.
    pub(crate) serial: u64,
    /// Whether it was withdrawn.
    pub(crate) withdrawn: bool,
    /// Whether others may see and hear now.
    pub(crate) view: bool,
    /// Whether it may be recorded now.
    pub(crate) record: bool,
    /// Whether remote operation is consented to now; the gate decides by itself.
    pub(crate) remote_operation: bool,
    /// Whether it may be used for other purposes.
    pub(crate) secondary_use: bool,
    /// From when, UTC; nothing where there is no document.
    pub(crate) from: Option<String>,
    /// Until when, UTC.
    pub(crate) until: Option<String>,
}
