//! An answer of a relay to an offer that nobody connects by: where it can be reached, and by which TURN servers.

use super::resource::{Bearer, Endpoint, Resource};
use crate::net::api::Api;
use anyhow::Context as _;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use rustls::pki_types::CertificateDer;
use trocar_proto::session::api::IceServer;

/// It. [`Offered::take_back`] it: until then the relay keeps a place.
pub(crate) struct Offered {
    resource: Resource,
    /// Our user fragment.
    pub(crate) user_fragment: String,
}

impl Offered {
    /// Asks for the voices of the session, at the relay of that name where one is given: those need no publisher.
    ///
    /// # Errors
    /// What the server answered.
    pub(crate) async fn voices(
        api: &Api,
        trust: &[CertificateDer<'static>],
        relay: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut url = api.base().join(&format!("v1/sessions/{}/voices/whep", api.grant().session))?;
        if let Some(relay) = relay {
            url.query_pairs_mut().append_pair("relay", relay);
        }
        let mut drawn = [0; 48];
        SystemRandom::new().fill(&mut drawn).ok().context("no random numbers")?;
        let (names, print) = drawn.split_at(16);
        let (user_fragment, password) = (hex::encode(names.get(..4).unwrap_or_default()), hex::encode(names));
        let print: Vec<String> = print.iter().map(|b| format!("{b:02X}")).collect();
        let offer = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
             c=IN IP4 0.0.0.0\r\na=ice-ufrag:{user_fragment}\r\na=ice-pwd:{password}\r\na=fingerprint:sha-256 {}\r\n\
             a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n",
            print.join(":")
        );
        let resource = Endpoint::new(url, Bearer::Joined(api.clone()), trust)?.offer(offer).await?;
        Ok(Self { resource, user_fragment })
    }

    /// The relay's answer, SDP.
    pub(crate) fn answer(&self) -> &str {
        &self.resource.answer
    }

    /// STUN and TURN servers that came with it.
    pub(crate) fn ice_servers(&self) -> &[IceServer] {
        &self.resource.ice_servers
    }

    /// Gives the place back.
    pub(crate) async fn take_back(self) {
        self.resource.delete().await;
    }
}
