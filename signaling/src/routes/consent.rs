//! The patient's consent: handing a document in, and what it says.

use super::{SessionPath, json, to_the_end};
use crate::app::{App, wall_clock};
use crate::audit::Entry;
use crate::consent::ConsentInfo;
use crate::guard::Bearer;
use crate::input::{self, Names};
use crate::problem::{CONSENT_INVALID, CONSENT_UNUSED, Refusal};
use crate::store::Row;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use trocar_control::consent::Signed;
use trocar_proto::session::ids::ParticipantId;
use trocar_proto::session::role::Verb;

/// `GET /v1/sessions/{session}/consent`.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/consent", operation_id = "showConsent", tag = "sessions", params(SessionPath), security(("token" = [])),
    responses((status = 200, description = "What is consented to now", body = ConsentInfo))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
) -> Result<Response, Refusal> {
    bearer.for_session(&path.session)?;
    let info = app.live().consent_info(wall_clock(), &path.session)?;
    Ok(json(StatusCode::OK, &info))
}

/// `PUT /v1/sessions/{session}/consent`: a signed document, which counts if its signer is trusted here and its serial is the highest. One
/// that withdraws takes effect before it is answered.
#[utoipa::path(
    put, path = "/v1/sessions/{session}/consent", operation_id = "putConsent", tag = "sessions", params(SessionPath), security(("token" = [])),
    request_body(content = serde_json::Value, description = "A document of `trocar consent sign` or `withdraw`", content_type = "application/json"),
    responses(
        (status = 200, description = "What is consented to now", body = ConsentInfo),
        (status = 404, description = "consent-unused: this node has no trust list for consent"),
        (status = 422, description = "consent-invalid: form, signature, signer, session or serial"),
    )
)]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
    request: Request,
) -> Result<Response, Refusal> {
    bearer.may(Verb::Invite, &path.session)?;
    let Some(notary) = &app.notary else {
        return Err(Refusal::new(CONSENT_UNUSED, "the configuration has no [consent] trust").field("session"));
    };
    let text = input::text(&app, request, "application/json").await?;
    let signed = notary.read(text.as_bytes());
    let signed = signed.map_err(|e| Refusal::new(CONSENT_INVALID, e.to_string()).field("body"))?;
    if signed.document.session != path.session {
        return Err(Refusal::new(CONSENT_INVALID, "the document is for another session").field("session"));
    }
    let (task, by) = (app.clone(), bearer.claims.sub);
    let info = to_the_end(async move { take(&task, signed, text, &by).await }).await?;
    Ok(json(StatusCode::OK, &info))
}

async fn take(app: &App, signed: Signed, text: String, by: &ParticipantId) -> Result<ConsentInfo, Refusal> {
    let session = signed.document.session.clone();
    app.live().check_consent(&session, &signed.document)?;
    let withdraws = signed.document.withdrawn;
    let entry = Entry {
        patient: app.live().patient_of(&session),
        ..Entry::now(if withdraws { "consent-withdrawn" } else { "consent-given" }).of(&session).by(by)
    };
    let scope = signed.document.scope;
    let said = format!("{}, signed by {}, {scope:?}", signed.reference(), signed.signer);
    let rows = vec![
        Row::Consent { session: session.clone(), document: text, taken: wall_clock() },
        Row::Event(Box::new(entry.saying(said))),
    ];
    // Consent counts once it is on disk; a withdrawal counts at once, whatever the disk does.
    if !withdraws {
        app.store.write(rows.clone()).await.map_err(crate::error::SessionError::from)?;
    }
    let closings = app.live().take_consent(wall_clock(), &session, signed)?;
    app.close(closings).await;
    if withdraws {
        app.store.write(rows).await.map_err(crate::error::SessionError::from)?;
    }
    Ok(app.live().consent_info(wall_clock(), &session)?)
}
