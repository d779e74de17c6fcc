//! Certificates and keys from files, as TLS and QUIC want them.

use anyhow::{Context, bail};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use trocar_relay::quic::Identity;
use url::Url;

/// Where a client's certificates are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct IdentityArgs {
    /// Trust list: the certificate of the authority that signed the servers.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// This device's certificate; `device.pem` beside the trust list where left out.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// This device's private key; `device.key` beside the trust list where left out.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

impl IdentityArgs {
    fn beside(&self, file: &str) -> PathBuf {
        self.ca.parent().unwrap_or(Path::new(".")).join(file)
    }

    /// Reads the files.
    pub(crate) fn load(&self) -> anyhow::Result<Identity> {
        let trust = read_chain(&self.ca).context("--ca")?;
        let cert = self.cert.clone().unwrap_or_else(|| self.beside("device.pem"));
        let key = self.key.clone().unwrap_or_else(|| self.beside("device.key"));
        Ok(Identity { chain: read_chain(&cert).context("--cert")?, key: read_key(&key).context("--key")?, trust })
    }
}

/// The certificates of a PEM file, at least one.
pub(crate) fn read_chain(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let iter = CertificateDer::pem_file_iter(path).with_context(|| format!("cannot read {}", path.display()))?;
    let chain: Vec<_> =
        iter.collect::<Result<_, _>>().with_context(|| format!("{} is not a PEM certificate", path.display()))?;
    if chain.is_empty() {
        bail!("{} has no certificate", path.display());
    }
    Ok(chain)
}

/// The private key of a PEM file.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("cannot read a private key from {}", path.display()))
}

/// TLS 1.3 that trusts these certificates and nothing else.
pub(crate) fn https_config(trust: &[CertificateDer<'static>]) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for c in trust {
        roots.add(c.clone())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// An HTTP client that trusts these certificates and nothing else, asks no proxy and waits for so long.
pub(crate) fn https_client(trust: &[CertificateDer<'static>], timeout: Duration) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(https_config(trust)?);
    builder.timeout(timeout).no_proxy().build().context("HTTP client")
}

/// Where figures are: `/metrics`, if a URL names no other place.
pub(crate) fn metrics_url(url: &Url) -> Url {
    let mut url = url.clone();
    if url.path() == "/" {
        url.set_path("/metrics");
    }
    url
}
