//! Logging in and out: who somebody is, before any session.

use super::{json, to_the_end};
use crate::app::App;
use crate::config::origin_of;
use crate::guard::{self, Peer};
use crate::identity::{Login, LoginError, NoPasskeys, Returned};
use crate::input;
use crate::problem::{
    FIELD_INVALID, ISSUER_UNAVAILABLE, ISSUER_UNKNOWN, LIMIT, LOGIN_FAILED, LOGIN_UNFINISHED, LOGIN_UNUSED,
    ORIGIN as ORIGIN_REFUSED, PASSKEY_LINK, PASSKEY_REFUSED, PASSKEY_UNUSABLE, PASSKEYS_UNUSED, Refusal, TOO_MANY,
};
use axum::extract::{Request, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trocar_proto::units::WallMicros;
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// `POST /v1/login`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// Name of the account.
    account: String,
    /// Its password.
    #[schema(format = Password)]
    password: String,
    /// The six digits that the authenticator shows now. Each is taken once.
    code: String,
}

/// `POST /v1/login/begin`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeginRequest {
    /// Name of the issuer, one of the `ways` of `identity-needed`.
    issuer: String,
    /// SHA-256 of a random value that only this client knows, base64url without padding. The value itself finishes the login.
    tab: String,
    /// Whether the issuer is to ask the person anew, for all factors, whatever it remembers.
    #[serde(default)]
    step_up: bool,
}

/// Answer to the begin of a login.
#[derive(Serialize, ToSchema)]
pub(crate) struct BegunLogin {
    /// Where the browser goes. It comes back to `/login`, with `state` and `code`, or `error`, in the query.
    url: String,
    /// Until when it has to be back.
    expires: WallMicros,
}

/// `POST /v1/login/finish`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinishRequest {
    /// As the browser came back with it. It is used up by this request, whatever comes of it.
    state: String,
    /// Likewise; left out where there is an error.
    code: Option<String>,
    /// Likewise, where the issuer says it (RFC 9207).
    iss: Option<String>,
    /// Likewise, where the issuer did not log the person in.
    error: Option<String>,
    /// The random value whose hash the login was begun with.
    tab: String,
}

/// Answer to a login.
#[derive(Serialize, ToSchema)]
pub(crate) struct IdentityGrant {
    /// The bearer for `POST /v1/join` and `POST /v1/logout`. No other request takes it.
    identity: String,
    /// When the login ends.
    expires: WallMicros,
    /// Whose it is.
    account: String,
    /// How the person is shown in sessions.
    name: String,
}

impl From<Login> for IdentityGrant {
    fn from(login: Login) -> Self {
        let person = login.person;
        Self { identity: login.token, expires: login.expires, account: person.account, name: person.name }
    }
}

/// `POST /v1/login`: say who one is, with a local account.
#[utoipa::path(
    post, path = "/v1/login", operation_id = "login", tag = "identity", request_body = LoginRequest,
    responses(
        (status = 200, description = "An identity, to be shown when an invitation is redeemed", body = IdentityGrant),
        (status = 401, description = "login-failed"),
        (status = 404, description = "login-unused"),
        (status = 429, description = "too-many-requests"),
    )
)]
pub(super) async fn login(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    guard::take_join(&app, request.extensions())?;
    let body: LoginRequest = input::json(&app, request).await?;
    let (account, password, code) = (body.account, Zeroizing::new(body.password), body.code);
    // To its end: a code is used up whether or not somebody waits for the answer.
    let done = to_the_end(async move { app.login(peer, &account, password, code).await.map_err(refused) }).await?;
    Ok(json(StatusCode::OK, &IdentityGrant::from(done)))
}

/// `POST /v1/login/begin`: begin a login at an issuer (OpenID Connect).
#[utoipa::path(
    post, path = "/v1/login/begin", operation_id = "beginLogin", tag = "identity", request_body = BeginRequest,
    responses(
        (status = 200, description = "Where the browser goes", body = BegunLogin),
        (status = 403, description = "origin: a page of another origin"),
        (status = 404, description = "issuer-unknown"),
        (status = 429, description = "too-many-requests"),
        (status = 503, description = "issuer-unavailable"),
    )
)]
pub(super) async fn begin(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    guard::take_join(&app, request.extensions())?;
    if let Some(realm) = app.realms.foreign(request.extensions().get()) {
        let detail = format!("issuers send people back to the node's own realm, and this address is for realm {realm}");
        return Err(Refusal::new(ORIGIN_REFUSED, detail).field("Origin"));
    }
    // The browser comes back to one address: a tab at another one, which has what finishes the login, would not be found again.
    let origin = request.headers().get(ORIGIN).map(|o| o.to_str().unwrap_or_default().to_owned());
    if origin.is_some() && origin != origin_of(&app.public_url) {
        return Err(Refusal::new(ORIGIN_REFUSED, format!("log in at {}", app.public_url)).field("Origin"));
    }
    let body: BeginRequest = input::json(&app, request).await?;
    let tab = URL_SAFE_NO_PAD.decode(&body.tab).ok().and_then(|t| <[u8; 32]>::try_from(t).ok());
    let tab = tab.ok_or_else(|| {
        Refusal::new(FIELD_INVALID, "a SHA-256, base64url without padding (43 characters)").field("tab")
    })?;
    let begun = app.begin_login(peer, &body.issuer, tab, body.step_up).await.map_err(refused)?;
    Ok(json(StatusCode::OK, &BegunLogin { url: begun.url, expires: begun.expires }))
}

/// `POST /v1/login/finish`: say what the issuer has sent the browser back with.
#[utoipa::path(
    post, path = "/v1/login/finish", operation_id = "finishLogin", tag = "identity", request_body = FinishRequest,
    responses(
        (status = 200, description = "An identity, to be shown when an invitation is redeemed", body = IdentityGrant),
        (status = 401, description = "login-unfinished"),
        (status = 429, description = "too-many-requests"),
        (status = 503, description = "issuer-unavailable"),
    )
)]
pub(super) async fn finish(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    guard::take_join(&app, request.extensions())?;
    let FinishRequest { state, code, iss, error, tab } = input::json(&app, request).await?;
    let returned = Returned { state, code, iss, error, tab };
    // To its end: a code is used up whether or not somebody waits for the answer.
    let done = to_the_end(async move { app.finish_login(peer, returned).await.map_err(refused) }).await?;
    Ok(json(StatusCode::OK, &IdentityGrant::from(done)))
}

/// `POST /v1/logout`: end the login that the identity belongs to.
#[utoipa::path(
    post, path = "/v1/logout", operation_id = "logout", tag = "identity", security(("identity" = [])),
    responses((status = 204, description = "Ended, or had ended before"))
)]
pub(super) async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<StatusCode, Refusal> {
    app.logout(guard::bearer_token(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn refused(error: LoginError) -> Refusal {
    let detail = error.to_string();
    match error {
        LoginError::TooMany(seconds) => Refusal::new(TOO_MANY, detail).field("account").retry_after(seconds),
        LoginError::Busy => Refusal::new(LIMIT, detail).field("logins").retry_after(1),
        LoginError::Wrong => Refusal::new(LOGIN_FAILED, detail).field("account"),
        LoginError::NoAccounts => Refusal::new(LOGIN_UNUSED, detail).field("account"),
        LoginError::NoPasskeys(NoPasskeys::NoAccounts) => Refusal::new(PASSKEYS_UNUSED, detail).field("identity.local"),
        LoginError::NoPasskeys(_) => Refusal::new(PASSKEYS_UNUSED, detail).field("signaling.public_url"),
        LoginError::NoCeremony => Refusal::new(LOGIN_UNFINISHED, detail).field("ceremony"),
        LoginError::PasskeyRefused => Refusal::new(PASSKEY_REFUSED, detail).field("credential"),
        LoginError::PasskeyLink => Refusal::new(PASSKEY_LINK, detail).field("link"),
        LoginError::PasskeyUnusable(_) => Refusal::new(PASSKEY_UNUSABLE, detail).field("credential"),
        LoginError::NoIssuer => Refusal::new(ISSUER_UNKNOWN, detail).field("issuer"),
        LoginError::Unavailable(_) => Refusal::new(ISSUER_UNAVAILABLE, detail).field("issuer").retry_after(5),
        LoginError::NotBegun
        | LoginError::Denied(..)
        | LoginError::Old(_)
        | LoginError::NoMember(_)
        | LoginError::NotBelieved(_) => Refusal::new(LOGIN_UNFINISHED, detail).field("state"),
        LoginError::Session(e) => e.into(),
    }
}
