//! Who asks: the bearer token on each request, and the layer that all requests go through.

use crate::app::{App, wall_clock};
use crate::error::SessionError;
use crate::figures::{ProblemLabels, RequestLabels};
use crate::identity::Person;
use crate::live::{Live, Secret};
use crate::problem::{
    CNF_MISSING, ProblemName, Refusal, TOKEN_EXPIRED, TOKEN_INVALID, TOKEN_MISSING, TOKEN_SESSION, TOO_MANY,
};
use crate::realms::CameBy;
use crate::secret::SecretHash;
use crate::token::TokenError;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CACHE_CONTROL, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use trocar_proto::session::claims::Claims;
use trocar_proto::session::ids::{CertHash, LegId, ParticipantId, PublicationId, RealmId, SessionId};
use trocar_proto::session::role::{Role, Verb};

/// What pages of allowed origins may read of WHIP and WHEP answers.
const EXPOSED: &str = "Location, ETag, Accept-Patch, Accept-Post, Link, Retry-After, WWW-Authenticate";
/// What pages of other origins are not told.
const PREFLIGHT: [HeaderName; 3] = [ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_MAX_AGE];

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
    pub(crate) fn is_same_machine(extensions: &Extensions) -> bool {
        extensions.get::<Self>().is_some_and(|p| p.same_machine)
    }

    /// The address, or the unspecified one where no accept loop was involved.
    pub(crate) fn ip_of(extensions: &Extensions) -> IpAddr {
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

/// Who asks for a WHIP or WHEP resource: the bearer of a token, or of an invitation's secret. Encoders and players know
/// nothing but a URL and a bearer, so each resource that they make is a participant of its own.
#[derive(Debug)]
pub(crate) enum Caller {
    /// A participant.
    Token(Bearer),
    /// Whoever has the link, in that realm.
    Secret(SecretHash, RealmId),
}

/// A caller that may make a resource in a session.
pub(crate) struct Entry {
    session: SessionId,
    role: Role,
    who: Caller,
}

impl Caller {
    /// May it make a resource here? A secret that is none is refused as a bad token is.
    pub(crate) fn enter(self, app: &App, session: &SessionId, verb: Verb) -> Result<Entry, Refusal> {
        let role = match &self {
            Self::Token(bearer) => {
                bearer.may(verb, session)?;
                bearer.claims.role
            }
            Self::Secret(hash, realm) => {
                let role = invited(app, session, hash)?.ok_or_else(no_secret)?;
                if !app.realms.verbs(realm, role).contains(&verb) {
                    return Err(Refusal::verb(verb));
                }
                role
            }
        };
        Ok(Entry { session: session.clone(), role, who: self })
    }

    /// The participant for whom it may ask about a leg: itself, or the guest that made it.
    pub(crate) fn owner_of_leg(&self, app: &App, session: &SessionId, leg: &LegId) -> Result<ParticipantId, Refusal> {
        self.owner(app, session, |live, by| live.guest_with_leg(session, leg, by), SessionError::NoLeg)
    }

    /// The same about a publication.
    pub(crate) fn owner_of_publication(
        &self,
        app: &App,
        session: &SessionId,
        publication: &PublicationId,
    ) -> Result<ParticipantId, Refusal> {
        let find = |live: &Live, by: Secret<'_>| live.guest_with_publication(session, publication, by);
        self.owner(app, session, find, SessionError::NoPublication)
    }

    fn owner(
        &self,
        app: &App,
        session: &SessionId,
        find: impl Fn(&Live, Secret<'_>) -> Option<ParticipantId>,
        missing: SessionError,
    ) -> Result<ParticipantId, Refusal> {
        let (hash, realm) = match self {
            Self::Token(bearer) => {
                bearer.for_session(session)?;
                return Ok(bearer.claims.sub.clone());
            }
            Self::Secret(hash, realm) => (hash, realm),
        };
        let (found, is_known) = {
            let live = app.live();
            (find(&live, (hash, realm)), live.has_guest(session, (hash, realm)))
        };
        match found {
            Some(owner) => Ok(owner),
            None if is_known || invited(app, session, hash)?.is_some() => Err(missing.into()),
            None => Err(no_secret()),
        }
    }

    /// A guest goes with its resource.
    pub(crate) async fn leave(&self, app: &App, session: &SessionId, owner: &ParticipantId) {
        if matches!(self, Self::Secret(..)) {
            app.dismiss_guest(session, owner).await;
        }
    }
}

impl Entry {
    /// The realm that the caller came by.
    pub(crate) fn realm(&self) -> &RealmId {
        match &self.who {
            Caller::Token(bearer) => &bearer.claims.realm,
            Caller::Secret(_, realm) => realm,
        }
    }

    /// The caller's role.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The participant that is to own the resource; a guest is let in now.
    pub(crate) async fn participant(&self, app: &App, guest: &str) -> Result<ParticipantId, Refusal> {
        match &self.who {
            Caller::Token(bearer) => Ok(bearer.claims.sub.clone()),
            Caller::Secret(hash, realm) => Ok(app.admit_guest(hash, guest, realm).await?),
        }
    }

    /// A guest stays where its resource was made.
    pub(crate) async fn settle<T>(&self, app: &App, owner: &ParticipantId, made: &Result<T, Refusal>) {
        if made.is_err() {
            self.who.leave(app, &self.session, owner).await;
        }
    }
}

/// The role that an invitation gives in this session; none where it is no good.
fn invited(app: &App, session: &SessionId, hash: &SecretHash) -> Result<Option<Role>, Refusal> {
    let redeemed = app.live().redeem(hash, wall_clock());
    match redeemed {
        Ok((own, role)) if &own == session => Ok(Some(role)),
        Ok(_) => Err(Refusal::new(TOKEN_SESSION, "the invitation is for another session").field("session")),
        Err(SessionError::InvitationInvalid) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn no_secret() -> Refusal {
    let detail = "it is neither a token of this server nor an invitation that is good";
    Refusal::new(TOKEN_INVALID, detail).field("Authorization")
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let text = bearer_token(&parts.headers)?;
        // A token is three parts joined by dots (RFC 7515 section 3.1); a secret has none.
        if text.contains('.') {
            return Bearer::from_request_parts(parts, app).await.map(Self::Token);
        }
        let hash = SecretHash::of(text);
        take_join(app, &parts.extensions)?;
        Ok(Self::Secret(hash, app.realms.came(parts.extensions.get()).clone()))
    }
}

/// Counts an attempt with an invitation's secret, right or wrong, so that nobody guesses many.
pub(crate) fn take_join(app: &App, extensions: &Extensions) -> Result<(), Refusal> {
    app.take_join(app.realms.came(extensions.get()), Peer::ip_of(extensions)).map_err(|seconds| {
        Refusal::new(TOO_MANY, "too many joins from this address").field("address").retry_after(seconds)
    })
}

/// What is claimed, where there is a good token, by the listener of its realm, and its bearer is still in the session.
pub(crate) fn bearer_of(app: &App, request: &Request) -> Option<Claims> {
    let claims = claims_of(app, bearer_token(request.headers()).ok()?, request.extensions().get()).ok()?;
    app.live().take_request(app.now(), &claims.session, &claims.sub).ok()?.ok()?;
    Some(claims)
}

impl FromRequestParts<Arc<App>> for Bearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let claims = claims_of(app, bearer_token(&parts.headers)?, parts.extensions.get())?;
        match app.live().take_request(app.now(), &claims.session, &claims.sub)? {
            Ok(()) => Ok(Self { claims }),
            Err(seconds) => {
                Err(Refusal::new(TOO_MANY, "too many requests of this participant").field("sub").retry_after(seconds))
            }
        }
    }
}

/// Who asks, where an identity is shown. One that has ended is refused and not passed over: whoever shows it means to be known.
pub(crate) fn person(app: &App, headers: &HeaderMap) -> Result<Option<Person>, Refusal> {
    let Ok(shown) = bearer_token(headers) else { return Ok(None) };
    let person = app.identity.person(shown, wall_clock());
    person.map(Some).ok_or_else(|| SessionError::IdentityNeeded(app.identity.ended()).into())
}

/// Verifies a token wherever it came from. Its bearer may do what the policies say now, whatever they said when it was made.
pub(crate) fn claims_of(app: &App, token: &str, came_by: Option<&CameBy>) -> Result<Claims, Refusal> {
    let claims = app
        .tokens
        .verify(token)
        .map_err(|e| match e {
            TokenError::Expired => {
                Refusal::new(TOKEN_EXPIRED, "refresh tokens before they end, or join again with the link")
            }
            TokenError::Invalid { reason } => Refusal::new(TOKEN_INVALID, reason),
        })
        .map_err(|refusal| refusal.field("Authorization"))?;
    app.within_realm(claims, came_by)
}

pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<&str, Refusal> {
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
    let realm = request.extensions().get::<CameBy>().map(|by| format!(" in realm {}", by.0)).unwrap_or_default();
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    if let Some(ProblemName(problem)) = response.extensions().get::<ProblemName>().copied() {
        app.figures.problems.get_or_create(&ProblemLabels { problem }).inc();
        if matches!(status, 401 | 403 | 429) {
            app.record_denial("denied", &format!("{problem} {method} {route} from {peer}{realm}"));
        }
    }
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if route.contains("/whep") || route.contains("/whip") {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin.filter(|o| app.origins.iter().any(|a| o == a)) {
            // Which page it is, is asked besides the bearer: a page that was handed a link must be one of ours.
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        } else {
            PREFLIGHT.iter().for_each(|name| drop(headers.remove(name)));
        }
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
