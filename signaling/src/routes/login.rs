//! Logging in and out: who somebody is, before any session.

use super::{json, to_the_end};
use crate::app::App;
use crate::guard::{self, Peer};
use crate::identity::{Login, LoginError};
use crate::input;
use crate::problem::{LIMIT, LOGIN_FAILED, LOGIN_UNUSED, Refusal, TOO_MANY};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
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
    guard::take_join(&app, peer)?;
    let body: LoginRequest = input::json(&app, request).await?;
    let (account, password, code) = (body.account, Zeroizing::new(body.password), body.code);
    // To its end: a code is used up whether or not somebody waits for the answer.
    let done = to_the_end(async move { app.login(peer, &account, password, code).await.map_err(refused) }).await?;
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

fn refused(error: LoginError) -> Refusal {
    let detail = error.to_string();
    match error {
        LoginError::TooMany(seconds) => Refusal::new(TOO_MANY, detail).field("account").retry_after(seconds),
        LoginError::Busy => Refusal::new(LIMIT, detail).field("logins").retry_after(1),
        LoginError::Wrong => Refusal::new(LOGIN_FAILED, detail).field("account"),
        LoginError::NoAccounts => Refusal::new(LOGIN_UNUSED, detail).field("account"),
        LoginError::Session(e) => e.into(),
    }
}
