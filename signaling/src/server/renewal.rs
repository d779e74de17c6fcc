//! Certificates and keys of a running server: new ones come into force without a connection lost, and what cannot be used changes nothing.

use super::ServerHandle;
use crate::config::TlsIdentity;
use crate::secret::SecretHash;
use crate::tls::{TlsError, server_config};
use crate::token::{TokenKeyError, token_public_key};
use std::sync::Arc;
use tokio::sync::watch;
use trocar_proto::session::admission::CertificateNews;
use trocar_proto::session::ids::RealmId;

impl ServerHandle {
    /// Shows this certificate to whoever connects from now on; connections that stand go on. It has to fit its key and to be good now.
    /// Recorded as `certificates-renewed`.
    ///
    /// # Errors
    /// [`TlsError`]; the former certificate stays.
    pub fn renew_tls(&self, identity: &TlsIdentity) -> Result<(), TlsError> {
        self.show(&self.tls, "HTTPS", identity)
    }

    /// The same for the listener of another realm.
    ///
    /// # Errors
    /// [`TlsError`]; the former certificate stays.
    pub fn renew_realm_tls(&self, realm: &RealmId, identity: &TlsIdentity) -> Result<(), TlsError> {
        for place in self.realms.iter().filter(|r| &r.realm == realm) {
            self.show(&place.tls, &format!("HTTPS of realm {realm}"), identity)?;
        }
        Ok(())
    }

    fn show(
        &self,
        listener: &watch::Sender<Arc<rustls::ServerConfig>>,
        name: &str,
        identity: &TlsIdentity,
    ) -> Result<(), TlsError> {
        let config = server_config(identity, self.tls12)?;
        crate::tls::check_time(identity)?;
        listener.send_replace(config);
        let shown = SecretHash::of_bytes(&identity.cert_chain_pem).short();
        tracing::info!(certificate = shown, "{name} has a new certificate");
        self.app.note_certificates(CertificateNews::Renewed, &format!("{name}: certificate {shown}"));
        Ok(())
    }

    /// Signs tokens with this key from now on, an Ed25519 key as PKCS#8 DER. Tokens of the key before are taken until the last of them has
    /// run out. Recorded as `certificates-renewed`. Identities from `/v1/login` keep to the key of the start.
    ///
    /// # Errors
    /// [`TokenKeyError`]; the former key stays.
    pub fn renew_token_key(&self, pkcs8: &[u8]) -> Result<(), TokenKeyError> {
        self.app.tokens.renew(pkcs8)?;
        let shown = SecretHash::of_bytes(&token_public_key(pkcs8)?).short();
        tracing::info!(key = shown, "tokens are signed with a new key");
        self.app.note_certificates(CertificateNews::Renewed, &format!("tokens: key {shown}"));
        Ok(())
    }

    /// Says how files of certificates and keys are: where some cannot be used, that is in the log, in the audit chain as
    /// `certificates-unusable`, and in `trocar_signaling_certificates_unusable` until this is called without.
    pub fn note_unusable(&self, wrong: Option<&str>) {
        self.app.figures.certificates_unusable.set(i64::from(wrong.is_some()));
        if let Some(detail) = wrong {
            tracing::error!(detail, "new files cannot be used; the former stay in force");
            self.app.note_certificates(CertificateNews::Unusable, detail);
        }
    }

    /// Where the listener for operators is, if there is one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<std::net::SocketAddr> {
        self.admin
    }
}
