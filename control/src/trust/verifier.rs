//! Verifiers of TLS beside those of rustls: a device's certificate seen from a client, and the role in a certificate's name.

use super::identity::cert_name;
use super::{Distrust, TellRefused};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;

/// Why a certificate with another name is not taken.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has no name trocar://REALM/{0}/NAME")]
struct WrongRole(&'static str);

fn check_role(leaf: &CertificateDer<'_>, role: &'static str) -> Result<(), Error> {
    if cert_name(leaf).is_some_and(|n| n.role == role) {
        return Ok(());
    }
    let why = rustls::OtherError(Arc::new(WrongRole(role)));
    Err(Error::InvalidCertificate(CertificateError::Other(why)))
}

/// Signatures are looked at by the verifier in that field.
macro_rules! signatures_as_usual {
    ($usual:tt) => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.$usual.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.$usual.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.$usual.supported_verify_schemes()
        }
    };
}

/// A server that is verified as usual and has that role: what is said to another one is not even sent.
#[derive(Debug)]
pub(super) struct ServerOfRole {
    pub(super) usual: Arc<dyn ServerCertVerifier>,
    pub(super) role: &'static str,
}

impl ServerCertVerifier for ServerOfRole {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        check_role(end_entity, self.role).map(|()| verified)
    }

    signatures_as_usual!(usual);
}

/// A client that is verified as usual and has that role: nobody else gets as far as a request.
#[derive(Debug)]
pub(super) struct ClientOfRole {
    pub(super) usual: Arc<dyn ClientCertVerifier>,
    pub(super) role: &'static str,
}

impl ClientCertVerifier for ClientOfRole {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.usual.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.usual.verify_client_cert(end_entity, intermediates, now)?;
        check_role(end_entity, self.role).map(|()| verified)
    }

    signatures_as_usual!(usual);
}

/// A client that is verified as usual; of one that is not taken somebody hears.
pub(super) struct Telling {
    pub(super) usual: Arc<dyn ClientCertVerifier>,
    pub(super) tell: TellRefused,
}

impl std::fmt::Debug for Telling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telling").field("usual", &self.usual).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Telling {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.usual.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.usual.verify_client_cert(end_entity, intermediates, now);
        verified.inspect_err(|e| (self.tell)(end_entity, Distrust::of(e)))
    }

    signatures_as_usual!(usual);
}

/// Both ends of a channel are devices, whose certificates are for use as clients: the gate connects to its relays as one. The name
/// (`trocar://REALM/ROLE/NAME`) is looked at after the handshake.
#[derive(Debug)]
pub(super) struct ByChain(pub(super) Arc<dyn ClientCertVerifier>);

impl ServerCertVerifier for ByChain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).map(|_| ServerCertVerified::assertion())
    }

    signatures_as_usual!(0);
}
