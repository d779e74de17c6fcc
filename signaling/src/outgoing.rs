//! What this process asks of others by HTTP: one way to make the client, and one rule for addresses.

use reqwest::Url;
use reqwest::redirect::Policy;
use rustls::RootCertStore;
use rustls_platform_verifier::BuilderVerifierExt as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A client that trusts these authorities, or the system's where none are given, follows no redirect and uses no proxy. `timeout` is for a
/// call from the connection to the end of the answer. None where the system's authorities cannot be read.
pub(crate) fn client(authorities: Option<RootCertStore>, timeout: Duration) -> Option<reqwest::Client> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let tls = match authorities {
        Some(authorities) => builder.with_root_certificates(authorities),
        None => builder.with_platform_verifier().ok()?,
    };
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls.with_no_client_auth());
    client.redirect(Policy::none()).no_proxy().timeout(timeout).build().ok()
}

/// Whether what goes there is read by nobody on the way: https, or http that does not leave the machine.
pub(crate) fn is_private(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.has_host() && matches!((url.scheme(), is_loopback), ("https", _) | ("http", true))
}
