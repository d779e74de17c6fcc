//! The HTTP side of WHIP and WHEP: an offer is POSTed, the resource that it makes is PATCHed and in the end DELETEd (RFC 9725
//! section 4, draft-ietf-wish-whep section 4).

use super::link::ice_servers;
use crate::net::api::{Api, answer};
use crate::net::tls::https_client;
use anyhow::{Context, bail, ensure};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH, LINK, LOCATION};
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use trocar_proto::session::api::IceServer;
use trocar_proto::session::ids::LegId;
use url::Url;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer larger than this is none.
const MAX_ANSWER: usize = 256 << 10;
const SDP: &str = "application/sdp";
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// What is shown as `Authorization: Bearer`.
#[derive(Clone)]
pub(crate) enum Bearer {
    /// Nothing.
    None,
    /// A token or an invitation secret, as it was given.
    Fixed(String),
    /// The present token of somebody who has joined.
    Joined(Api),
}

/// An address that takes offers.
#[derive(Clone)]
pub(crate) struct Endpoint {
    http: reqwest::Client,
    /// Where the offer goes.
    pub(crate) url: Url,
    bearer: Bearer,
}

/// What an offer has made.
pub(super) struct Resource {
    endpoint: Endpoint,
    entity_tag: Option<String>,
    /// The other side's answer, SDP.
    pub(super) answer: String,
    /// STUN and TURN servers that came with it.
    pub(super) ice_servers: Vec<IceServer>,
}

impl Endpoint {
    /// `trust` are the only authorities of an https address.
    ///
    /// # Errors
    /// Where the certificates cannot be used.
    pub(crate) fn new(url: Url, bearer: Bearer, trust: &[CertificateDer<'static>]) -> anyhow::Result<Self> {
        if url.scheme() == "https" && trust.is_empty() {
            bail!("{url} is https: --ca names the certificate of the authority that signed the server's");
        }
        let http = https_client(trust, TIMEOUT)?;
        Ok(Self { http, url, bearer })
    }

    fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        let request = self.http.request(method, url);
        match &self.bearer {
            Bearer::None => request,
            Bearer::Fixed(token) => request.bearer_auth(token),
            Bearer::Joined(api) => request.bearer_auth(api.grant().token),
        }
    }

    /// POSTs an offer.
    ///
    /// # Errors
    /// [`crate::net::api::Refused`] with the problem document; else what kept the answer from being one.
    pub(super) async fn offer(&self, sdp: String) -> anyhow::Result<Resource> {
        let request = self.request(Method::POST, self.url.clone()).header(CONTENT_TYPE, SDP).body(sdp);
        let response = answer(request).await?;
        let status = response.status().as_u16();
        ensure!(status == 201, "{}: HTTP {status} instead of 201 Created", self.url);
        let headers = response.headers().clone();
        let kind = text(&headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        ensure!(media_type(kind) == SDP, "{}: the answer is {kind:?}, not {SDP}", self.url);
        // Relative to where the answer came from: a redirect may have led elsewhere.
        let url = locate(response.url(), text(&headers, LOCATION.as_str()))?;
        let body = response.text().await.context("the answer broke off")?;
        ensure!(body.len() <= MAX_ANSWER, "{}: an answer of {} bytes", self.url, body.len());
        Ok(Resource {
            endpoint: Self { url, ..self.clone() },
            entity_tag: text(&headers, ETAG.as_str()).map(ToOwned::to_owned),
            answer: body,
            ice_servers: ice_servers(headers.get_all(LINK).iter().filter_map(|v| v.to_str().ok())),
        })
    }
}

impl Resource {
    /// The leg or publication, where this is a resource of a Trocar relay: the last segment of its address.
    pub(super) fn leg(&self) -> Option<LegId> {
        self.endpoint.url.path_segments()?.next_back().and_then(|s| LegId::new(s).ok())
    }

    /// PATCHes candidates. A server that takes none says so, which is logged and harmless where it is ICE-lite or has a
    /// public address.
    pub(super) async fn trickle(&self, fragment: String) {
        let request = self.endpoint.request(Method::PATCH, self.endpoint.url.clone());
        let request = match &self.entity_tag {
            Some(tag) => request.header(IF_MATCH, tag),
            None => request,
        };
        if let Err(error) = answer(request.header(CONTENT_TYPE, SDP_FRAGMENT).body(fragment)).await {
            tracing::info!(error = format!("{error:#}"), "candidates were not taken");
        }
    }

    /// DELETEs it.
    pub(super) async fn delete(&self) {
        let request = self.endpoint.request(Method::DELETE, self.endpoint.url.clone());
        if let Err(error) = answer(request).await {
            tracing::debug!(error = format!("{error:#}"), "the resource was not deleted");
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// `application/sdp; charset=utf-8` without its parameters.
fn media_type(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The address of the resource.
fn locate(base: &Url, location: Option<&str>) -> anyhow::Result<Url> {
    let location = location.with_context(|| format!("{base}: the answer has no Location (RFC 9725 section 4.2)"))?;
    let url = base.join(location).with_context(|| format!("{base}: Location {location:?} is no address"))?;
    // The bearer goes there too.
    ensure!(
        url.scheme() == "https" || url.scheme() == base.scheme(),
        "{base}: Location {location:?} leaves {} for {}",
        base.scheme(),
        url.scheme()
    );
    ensure!(url.host().is_some(), "{base}: Location {location:?} has no host");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(s: &str) -> Url {
        s.parse().unwrap()
    }

    #[test]
    fn a_location_may_be_relative_and_never_leaves_tls() {
        let base = url("https://h:1/v1/sessions/s/feeds/f/whep?x=1");
        let at = |location| locate(&base, location).map(String::from);
        assert_eq!(at(Some("/v1/sessions/s/whep/l")).unwrap(), "https://h:1/v1/sessions/s/whep/l");
        assert_eq!(at(Some("abc")).unwrap(), "https://h:1/v1/sessions/s/feeds/f/abc");
        assert_eq!(at(Some("https://other/x")).unwrap(), "https://other/x");
        assert!(at(Some("http://h:1/x")).unwrap_err().to_string().contains("leaves https for http"));
        assert!(at(None).unwrap_err().to_string().contains("no Location"));
        assert!(at(Some("data:x")).is_err());
        assert!(locate(&url("http://h/x"), Some("http://h/y")).is_ok());
    }

    #[test]
    fn a_media_type_is_compared_without_its_parameters() {
        assert_eq!(media_type("Application/SDP; charset=utf-8"), SDP);
        assert_ne!(media_type("text/html"), SDP);
    }

    #[test]
    fn https_without_an_authority_is_told_the_flag() {
        let e = Endpoint::new(url("https://h/whep"), Bearer::None, &[]).err().unwrap().to_string();
        assert!(e.contains("--ca"), "{e}");
    }
}
