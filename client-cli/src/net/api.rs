//! The HTTP API of signaling, as a native client uses it.

use super::link::InvitationLink;
use super::tls::https_client;
use anyhow::Context as _;
use reqwest::{Method, StatusCode};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trocar_control::joining;
use trocar_control::trust::Identity;
use trocar_proto::session::api::{
    FeedInfo, FeedPaths, Invitation, InvitationRequest, JoinRequest, LegRequest, RoqBinding, SessionInfo, TokenGrant,
};
use trocar_proto::session::break_glass::BreakGlass;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::session::ids::{CertHash, FeedId, LegId, ParticipantId};
use trocar_proto::session::link_test::{LinkTestGrant, LinkTestRequest};
use trocar_proto::session::problem::Problem;
use trocar_proto::session::role::Role;
use trocar_proto::units::WallMicros;
use url::Url;

/// Variable with the identity that whoever joins shows, where there is one (`trocar login`).
const IDENTITY: &str = "TROCAR_IDENTITY";
/// Variable with the reason why whoever joins has no time for a login, in an emergency.
const BREAK_GLASS: &str = "TROCAR_BREAK_GLASS";
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What signaling said no to, in its own words.
#[derive(Debug, thiserror::Error)]
#[error("{title}: {detail} (HTTP {status})", title = .0.title, detail = .0.detail, status = .0.status)]
pub(crate) struct Refused(pub(crate) Problem);

/// Somebody who has joined a session.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    link: InvitationLink,
    cnf: Option<CertHash>,
    device: Option<Arc<Identity>>,
    name: String,
    grant: Arc<Mutex<TokenGrant>>,
}

impl Api {
    /// Redeems an invitation. `cnf` is the certificate that media over QUIC will come from or go to, where there is one.
    ///
    /// # Errors
    /// [`Refused`] with the problem document; else what kept the request from an answer.
    pub(crate) async fn join(
        link: InvitationLink,
        trust: &[CertificateDer<'static>],
        cnf: impl Into<Option<CertHash>>,
        name: &str,
    ) -> anyhow::Result<Self> {
        Self::join_as(link, trust, (cnf.into(), None), name).await
    }

    /// The same for a device that publishes by itself: where the invitation asks for a login, its certificate takes that place, if it is one of
    /// the role publisher.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub(crate) async fn join_as(
        link: InvitationLink,
        trust: &[CertificateDer<'static>],
        (cnf, device): (Option<CertHash>, Option<Identity>),
        name: &str,
    ) -> anyhow::Result<Self> {
        let device = device.filter(|d| d.name().role == joining::ROLE).map(Arc::new);
        let http = client(trust)?;
        let grant = redeem(&http, &link, (cnf, device.as_deref()), name, emergency()).await?;
        Ok(Self { http, link, cnf, device, name: name.to_owned(), grant: Arc::new(Mutex::new(grant)) })
    }

    /// The present token and who it is for.
    pub(crate) fn grant(&self) -> TokenGrant {
        self.grant.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Base of the API.
    pub(crate) const fn base(&self) -> &Url {
        &self.link.base
    }

    /// Joins again with the same invitation, as a new participant: after signaling has forgotten this one.
    pub(crate) async fn rejoin(&self) -> anyhow::Result<()> {
        // An emergency is claimed once: what comes back by itself after its time was over would be no end.
        let grant = redeem(&self.http, &self.link, (self.cnf, self.device.as_deref()), &self.name, None).await?;
        *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = grant;
        Ok(())
    }

    /// Refreshes the token before it ends, until the returned task is dropped or aborted.
    pub(crate) fn keep_fresh(&self) -> tokio::task::JoinHandle<()> {
        let api = self.clone();
        tokio::spawn(async move {
            loop {
                let left = api.grant().expires.0.saturating_sub(wall_now().0);
                // Well before the end, but not in a tight loop where the clocks disagree.
                let wait = Duration::from_micros(left / 2).clamp(Duration::from_secs(5), Duration::from_secs(120));
                tokio::time::sleep(wait).await;
                match api.call::<(), TokenGrant>(Method::POST, "v1/token", None).await {
                    Ok(grant) => *api.grant.lock().unwrap_or_else(PoisonError::into_inner) = grant,
                    Err(error) => tracing::warn!(%error, "the token could not be refreshed"),
                }
            }
        })
    }

    fn session_path(&self, rest: &str) -> String {
        format!("v1/sessions/{}/{rest}", self.grant().session)
    }

    /// The session as it is now.
    pub(crate) async fn session(&self) -> anyhow::Result<SessionInfo> {
        self.call::<(), _>(Method::GET, &format!("v1/sessions/{}", self.grant().session), None).await
    }

    /// Announces a feed.
    pub(crate) async fn publish(&self, descriptor: &FeedDescriptor) -> anyhow::Result<RoqBinding> {
        self.call(Method::POST, &self.session_path("feeds"), Some(descriptor)).await
    }

    /// Withdraws a feed.
    pub(crate) async fn withdraw(&self, feed: &FeedId) -> anyhow::Result<()> {
        self.call_empty(&self.session_path(&format!("feeds/{feed}"))).await
    }

    /// Asks for a feed over RoQ.
    pub(crate) async fn view(&self, feed: &FeedId, how: LegRequest) -> anyhow::Result<RoqBinding> {
        self.call(Method::POST, &self.session_path(&format!("feeds/{feed}/legs")), Some(&how)).await
    }

    /// Gives a leg back.
    pub(crate) async fn leave(&self, leg: &LegId) -> anyhow::Result<()> {
        self.call_empty(&self.session_path(&format!("legs/{leg}"))).await
    }

    /// Asks to measure the line to the relay, to that one where several run apart.
    pub(crate) async fn link_test(&self, relay: Option<&str>) -> anyhow::Result<LinkTestGrant> {
        let body = relay.map(|name| LinkTestRequest { relay: Some(name.to_owned()) });
        self.call(Method::POST, &self.session_path("link-tests"), body.as_ref()).await
    }

    /// What the patient consented to; with a document, after handing that in.
    pub(crate) async fn consent(&self, document: Option<&serde_json::Value>) -> anyhow::Result<serde_json::Value> {
        let method = if document.is_some() { Method::PUT } else { Method::GET };
        self.call(method, &self.session_path("consent"), document).await
    }

    /// Closes the session for good.
    pub(crate) async fn close_session(&self) -> anyhow::Result<()> {
        self.call_empty(&format!("v1/sessions/{}", self.grant().session)).await
    }

    /// Writes an invitation that is good for `ttl_s` seconds.
    pub(crate) async fn invite(&self, role: Role, ttl_s: u64) -> anyhow::Result<Invitation> {
        let body = InvitationRequest { role, ttl_s: Some(ttl_s) };
        self.call(Method::POST, &self.session_path("invitations"), Some(&body)).await
    }

    /// One feed as it is now.
    pub(crate) async fn feed(&self, feed: &FeedId) -> anyhow::Result<FeedInfo> {
        self.call::<(), _>(Method::GET, &self.session_path(&format!("feeds/{feed}")), None).await
    }

    /// Removes a participant, or leaves where it is oneself.
    pub(crate) async fn remove_participant(&self, participant: &ParticipantId) -> anyhow::Result<()> {
        self.call_empty(&self.session_path(&format!("participants/{participant}"))).await
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<T> {
        let mut request = self.http.request(method, self.link.base.join(path)?).bearer_auth(self.grant().token);
        if let Some(body) = body {
            request = request.json(body);
        }
        Ok(answer(request).await?.json().await?)
    }

    async fn call_empty(&self, path: &str) -> anyhow::Result<()> {
        let request = self.http.request(Method::DELETE, self.link.base.join(path)?).bearer_auth(self.grant().token);
        answer(request).await.map(drop)
    }
}

/// A client that trusts these authorities and no others.
///
/// # Errors
/// Where they cannot be used.
pub(crate) fn client(trust: &[CertificateDer<'static>]) -> anyhow::Result<reqwest::Client> {
    https_client(trust, TIMEOUT)
}

async fn redeem(
    http: &reqwest::Client,
    link: &InvitationLink,
    (cnf, device): (Option<CertHash>, Option<&Identity>),
    name: &str,
    break_glass: Option<BreakGlass>,
) -> anyhow::Result<TokenGrant> {
    let mut body = JoinRequest {
        invitation: link.secret.clone(),
        name: Some(name.to_owned()),
        organisation: None,
        cnf,
        break_glass,
        device: None,
    };
    let mut request = http.post(link.base.join("v1/join")?).json(&body);
    if let Some(identity) = std::env::var(IDENTITY).ok().filter(|i| !i.trim().is_empty()) {
        request = request.bearer_auth(identity.trim());
    }
    let answered = answer(request).await;
    let asks = |e: &anyhow::Error| e.downcast_ref::<Refused>().is_some_and(|r| r.0.kind.ends_with(":identity-needed"));
    if let (Some(device), Err(error)) = (device, &answered)
        && asks(error)
    {
        body.device = Some(joining::sign(&link.secret, wall_now(), device).context("--cert")?);
        return Ok(answer(http.post(link.base.join("v1/join")?).json(&body)).await?.json().await?);
    }
    Ok(answered?.json().await?)
}

/// That somebody comes in by break-glass, where the variable says why.
fn emergency() -> Option<BreakGlass> {
    let reason = std::env::var(BREAK_GLASS).ok().filter(|r| !r.trim().is_empty())?;
    eprintln!("joining by break-glass, without the login that is asked for: everybody in the session is told why");
    Some(BreakGlass { reason, confirm: true })
}

/// The response where it is a success.
///
/// # Errors
/// [`Refused`] with the problem document; else what kept the request from an answer.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
    let response = request.send().await.map_err(|e| {
        // The cause says what happened ("connection refused"); the outer text only which URL.
        let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        anyhow::anyhow!("signaling does not answer: {cause}")
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = response.json::<Problem>().await.unwrap_or_else(|_| plain(status));
    Err(Refused(problem).into())
}

fn plain(status: StatusCode) -> Problem {
    Problem::new(
        status.as_u16(),
        "http",
        status.canonical_reason().unwrap_or("error"),
        "no problem document came with it",
    )
}

/// The time of day of a wall clock, UTC.
fn time_of_day(at: WallMicros) -> String {
    let s = at.0 / 1_000_000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// Whether one path of a feed or leg may fail, in words.
pub(crate) fn protection(paths: FeedPaths) -> String {
    let since = time_of_day(paths.since);
    match paths.alive {
        alive if paths.is_protected() => format!("protected: {alive} paths since {since} UTC"),
        alive => format!("UNPROTECTED since {since} UTC: {alive} of {} paths brings packets", paths.expected),
    }
}

/// This machine's wall clock.
pub(crate) fn wall_now() -> WallMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
