//! Passkeys: logging in with one, and registering one with a link.

use super::login::{IdentityGrant, refused};
use super::{json, to_the_end};
use crate::app::App;
use crate::guard::{self, Peer};
use crate::identity::Ceremony;
use crate::input;
use crate::problem::{ORIGIN as ORIGIN_REFUSED, Refusal};
use axum::extract::{Request, State};
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use trocar_proto::units::WallMicros;
use utoipa::ToSchema;
use webauthn_rs::prelude::{PublicKeyCredential, RegisterPublicKeyCredential};

/// What the browser is to ask the authenticator.
#[derive(Serialize, ToSchema)]
pub(crate) struct BegunPasskey {
    /// What finishes it, once.
    ceremony: String,
    /// Until when.
    expires: WallMicros,
    /// `publicKey` of `navigator.credentials.get` (WebAuthn section 5.5), as JSON: bytes are base64url without padding.
    #[schema(value_type = Object)]
    options: Value,
}

/// `POST /v1/login/passkey/finish`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasskeyProof {
    /// As it was begun.
    ceremony: String,
    /// What the authenticator answered: `PublicKeyCredential` as JSON (WebAuthn section 5.1), bytes as base64url without padding.
    #[schema(value_type = Object)]
    credential: PublicKeyCredential,
}

/// `POST /v1/passkeys/begin`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasskeyLink {
    /// The secret of the link that `trocar admin user` printed: what stands after `#passkey=`.
    #[schema(format = Password)]
    link: String,
}

/// What the browser is to have the authenticator make, and for whom.
#[derive(Serialize, ToSchema)]
pub(crate) struct BegunRegistration {
    /// What finishes it, once.
    ceremony: String,
    /// Until when.
    expires: WallMicros,
    /// Whose the passkey will be.
    account: String,
    /// How the person is shown.
    name: String,
    /// `publicKey` of `navigator.credentials.create` (WebAuthn section 5.4), as JSON: bytes are base64url without padding.
    #[schema(value_type = Object)]
    options: Value,
}

/// `POST /v1/passkeys/finish`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    /// As it was begun.
    ceremony: String,
    /// What the passkey is to be called in lists and records, at most 40 characters.
    label: Option<String>,
    /// What the authenticator answered: `PublicKeyCredential` as JSON (WebAuthn section 5.1), bytes as base64url without padding.
    #[schema(value_type = Object)]
    credential: RegisterPublicKeyCredential,
}

/// A passkey was registered.
#[derive(Serialize, ToSchema)]
pub(crate) struct Registered {
    /// Whose it is.
    account: String,
    /// How the person is shown.
    name: String,
}

/// `POST /v1/login/passkey/begin`: begin a login by passkey.
#[utoipa::path(
    post, path = "/v1/login/passkey/begin", operation_id = "beginPasskeyLogin", tag = "identity",
    responses(
        (status = 200, description = "What the authenticator is asked", body = BegunPasskey),
        (status = 403, description = "origin: a page of another origin"),
        (status = 404, description = "passkeys-unused"),
        (status = 429, description = "too-many-requests"),
        (status = 503, description = "limit-reached"),
    )
)]
pub(super) async fn begin_login(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    guard::take_join(&app, request.extensions())?;
    check_origin(&app, request.headers())?;
    let Ceremony { ceremony, expires, options } = app.begin_passkey_login(peer).map_err(refused)?;
    Ok(json(StatusCode::OK, &BegunPasskey { ceremony, expires, options }))
}

/// `POST /v1/login/passkey/finish`: say who one is, with what the authenticator answered.
#[utoipa::path(
    post, path = "/v1/login/passkey/finish", operation_id = "finishPasskeyLogin", tag = "identity",
    request_body = PasskeyProof,
    responses(
        (status = 200, description = "An identity, to be shown when an invitation is redeemed", body = IdentityGrant),
        (status = 401, description = "passkey-refused, login-unfinished"),
        (status = 404, description = "passkeys-unused"),
        (status = 429, description = "too-many-requests"),
    )
)]
pub(super) async fn finish_login(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    guard::take_join(&app, request.extensions())?;
    let PasskeyProof { ceremony, credential } = input::json(&app, request).await?;
    // To its end: a ceremony is used up whether or not somebody waits for the answer.
    let work = async move { app.finish_passkey_login(peer, &ceremony, credential).await.map_err(refused) };
    Ok(json(StatusCode::OK, &IdentityGrant::from(to_the_end(work).await?)))
}

/// `POST /v1/passkeys/begin`: begin to register a passkey with a link.
#[utoipa::path(
    post, path = "/v1/passkeys/begin", operation_id = "beginPasskey", tag = "identity", request_body = PasskeyLink,
    responses(
        (status = 200, description = "What the authenticator is to make, and for whom", body = BegunRegistration),
        (status = 403, description = "passkey-link-invalid, origin: a page of another origin"),
        (status = 404, description = "passkeys-unused"),
        (status = 422, description = "passkey-unusable: the account has as many as it may have"),
        (status = 429, description = "too-many-requests"),
    )
)]
pub(super) async fn begin(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    guard::take_join(&app, request.extensions())?;
    check_origin(&app, request.headers())?;
    let PasskeyLink { link } = input::json(&app, request).await?;
    let (begun, owner) = app.begin_registration(peer, &link).await.map_err(refused)?;
    let Ceremony { ceremony, expires, options } = begun;
    let begun = BegunRegistration { ceremony, expires, account: owner.account, name: owner.name, options };
    Ok(json(StatusCode::OK, &begun))
}

/// `POST /v1/passkeys/finish`: register the passkey that the authenticator has made. The link is used up by it.
#[utoipa::path(
    post, path = "/v1/passkeys/finish", operation_id = "finishPasskey", tag = "identity", request_body = Registration,
    responses(
        (status = 201, description = "It logs in from now on", body = Registered),
        (status = 401, description = "login-unfinished"),
        (status = 403, description = "passkey-link-invalid"),
        (status = 404, description = "passkeys-unused"),
        (status = 422, description = "passkey-unusable"),
        (status = 429, description = "too-many-requests"),
    )
)]
pub(super) async fn finish(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let peer = Peer::ip_of(request.extensions());
    guard::take_join(&app, request.extensions())?;
    let Registration { ceremony, label, credential } = input::json(&app, request).await?;
    // To its end: link and ceremony are used up whether or not somebody waits for the answer.
    let work =
        async move { app.finish_registration(peer, &ceremony, label.as_deref(), credential).await.map_err(refused) };
    let owner = to_the_end(work).await?;
    Ok(json(StatusCode::CREATED, &Registered { account: owner.account, name: owner.name }))
}

/// A passkey is used at one origin: a page at another one is told, before the authenticator is.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let right = app.passkey_origin().map_err(refused)?;
    match headers.get(ORIGIN) {
        Some(origin) if origin.as_bytes() != right.as_bytes() => {
            Err(Refusal::new(ORIGIN_REFUSED, format!("passkeys of this node are used at {right}")).field("Origin"))
        }
        _ => Ok(()),
    }
}
