//! Who asks: the bearer token on each request, and the layer that all requests go through.

use crate::app::App;
use crate::figures::{ProblemLabels, RequestLabels};
use crate::problem::{
    CNF_MISSING, ProblemName, Refusal, TOKEN_EXPIRED, TOKEN_INVALID, TOKEN_MISSING, TOKEN_SESSION, TOO_MANY,
};
use crate::token::TokenError;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use trocar_proto::session::claims::Claims;
use trocar_proto::session::ids::{CertHash, SessionId};
use trocar_proto::session::role::Verb;

/// Where a request came from; put into each request by the accept loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    from: SocketAddr,
    same_machine: bool,
}

impl Peer {
    /// `to` is the address of ours that it connected to.
    pub(crate) fn new(from: SocketAddr, to: Option<SocketAddr>) -> Self {
        let ip = from.ip().to_canonical();
        // Who connects from the address that it connects to is on this machine.
        Self { from, same_machine: ip.is_loopback() || to.is_some_and(|t| t.ip().to_canonical() == ip) }
    }

    /// Whether the request came from this machine.
    pub(crate) fn is_same_machine(extensions: &axum::http::Extensions) -> bool {
        extensions.get::<Self>().is_some_and(|p| p.same_machine)
    }

    /// The address, or the unspecified one where no accept loop was involved.
    pub(crate) fn ip_of(extensions: &axum::http::Extensions) -> IpAddr {
        extensions.get::<Self>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |p| p.from.ip())
    }
}

/// A verified token of a participant that is still in its session.
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) claims: Claims,
}

impl Bearer {
    /// The token is for this session.
    pub(crate) fn for_session(&self, session: &SessionId) -> Result<(), Refusal> {
        if &self.claims.session == session {
            return Ok(());
        }
        let detail = format!("the path names session {session}, the token is for {}", self.claims.session);
        Err(Refusal::new(TOKEN_SESSION, detail).field("session"))
    }

    /// The token is for this session and its role may do `verb`.
    pub(crate) fn may(&self, verb: Verb, session: &SessionId) -> Result<(), Refusal> {
        self.for_session(session)?;
        if self.claims.allows(verb) { Ok(()) } else { Err(Refusal::verb(verb)) }
    }

    /// The client certificate that the token is bound to.
    pub(crate) fn cnf(&self) -> Result<CertHash, Refusal> {
        let cnf = self.claims.cnf.as_ref().ok_or_else(|| {
            Refusal::new(CNF_MISSING, "RTP over QUIC needs a client certificate: join with its hash as cnf")
                .field("cnf")
        })?;
        Ok(cnf.x5t_s256)
    }
}

impl FromRequestParts<Arc<App>> for Bearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let claims = claims_of(app, bearer_token(&parts.headers)?)?;
        match app.live().take_request(app.now(), &claims.session, &claims.sub)? {
            Ok(()) => Ok(Self { claims }),
            Err(seconds) => {
                Err(Refusal::new(TOO_MANY, "too many requests of this participant").field("sub").retry_after(seconds))
            }
        }
    }
}

/// Verifies a token wherever it came from.
pub(crate) fn claims_of(app: &App, token: &str) -> Result<Claims, Refusal> {
    app.tokens
        .verify(token)
        .map_err(|e| match e {
            TokenError::Expired => {
                Refusal::new(TOKEN_EXPIRED, "refresh tokens before they end, or join again with the link")
            }
            TokenError::Invalid { reason } => Refusal::new(TOKEN_INVALID, reason),
        })
        .map_err(|refusal| refusal.field("Authorization"))
}

fn bearer_token(headers: &HeaderMap) -> Result<&str, Refusal> {
    let missing = || Refusal::new(TOKEN_MISSING, "send Authorization: Bearer TOKEN").field("Authorization");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or_else(missing)?;
    if values.next().is_some() {
        return Err(Refusal::new(TOKEN_INVALID, "send Authorization once").field("Authorization"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

/// Counts each request, records denials, and sets the headers that all answers have.
pub(crate) async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = method_name(request.method());
    let peer = Peer::ip_of(request.extensions());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    if let Some(ProblemName(problem)) = response.extensions().get::<ProblemName>().copied() {
        app.figures.problems.get_or_create(&ProblemLabels { problem }).inc();
        if matches!(status, 401 | 403 | 429) {
            app.record_denial("denied", &format!("{problem} {method} {route} from {peer}"));
        }
    }
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if route.contains("/whep") {
        // Any page may be a WHEP player: what counts is the bearer token, and browsers send none by themselves.
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let exposed = HeaderValue::from_static("Location, ETag, Accept-Patch, Link, Retry-After, WWW-Authenticate");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    app.figures.requests.get_or_create(&RequestLabels { route, method, status }).inc();
    response
}

/// One of a fixed set of names, since methods are free text.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
