//! Letting a network engineer measure the line to a relay.

use super::{SessionPath, json, to_the_end};
use crate::app::App;
use crate::audit::Entry;
use crate::error::SessionError;
use crate::guard::Bearer;
use crate::input::{self, Names};
use crate::link_tests::NoLinkTest;
use crate::problem::{FIELD_INVALID, LINK_TESTS_UNUSED, Refusal, refused_saying};
use crate::store::Row;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use trocar_proto::session::link_test::{LinkTestGrant, LinkTestRequest};
use trocar_proto::session::role::Verb;

/// `POST /v1/sessions/{session}/link-tests`: ports and a fresh key for one measurement. It fills the line, so it is for the role engineer
/// alone, and refused while somebody operates.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/link-tests", operation_id = "beginLinkTest", tag = "operating", params(SessionPath),
    request_body(content = Option<LinkTestRequest>, description = "Which relay, where several run apart; may be left out"),
    security(("token" = [])),
    responses(
        (status = 201, description = "Where to measure, with which key, and how much", body = LinkTestGrant),
        (status = 400, description = "field-invalid: no such relay, or several answer and none is named"),
        (status = 403, description = "verb-missing: the role is not engineer"),
        (status = 404, description = "link-tests-unused: the relay does not answer measurements"),
        (status = 409, description = "link-test-operated: somebody operates; link-test-busy: another one runs"),
        (status = 503, description = "relay-unavailable, realm-unserved"),
    )
)]
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
    request: Request,
) -> Result<Response, Refusal> {
    bearer.may(Verb::Measure, &path.session)?;
    let LinkTestRequest { relay } = input::json_or_default(&app, request).await?;
    let Some(tests) = app.link_tests.clone() else {
        check_named(&app, relay.as_deref())?;
        return Err(
            Refusal::new(LINK_TESTS_UNUSED, "the configuration has no [link_test] enabled = true").field("session")
        );
    };
    let (who, realm) = (bearer.claims.sub, bearer.claims.realm);
    let grant = to_the_end(async move {
        let grant = tests.begin(relay, realm).await.map_err(|e| refusal(&e))?;
        let at = grant.relay.as_ref().map(|name| format!("relay {name}, ")).unwrap_or_default();
        let said = format!("{at}at most {} Mbit/s for {} s", grant.mbit_s_max, grant.seconds_max);
        let entry = Entry::now("link-test").of(&path.session).by(&who).saying(said);
        // It counts once it is on disk.
        app.store.write(vec![Row::Event(Box::new(entry))]).await.map_err(SessionError::from)?;
        Ok(grant)
    })
    .await?;
    Ok(json(StatusCode::CREATED, &grant))
}

/// Whether there is a relay of that name, where one is given.
pub(super) fn check_named(app: &App, relay: Option<&str>) -> Result<(), Refusal> {
    let Some(name) = relay else { return Ok(()) };
    let there = app.link_tests.as_ref().map(|tests| tests.relays()).unwrap_or_default();
    if there.iter().any(|relay| relay == name) {
        return Ok(());
    }
    Err(refusal(&NoLinkTest::unknown(name, there)))
}

fn refusal(why: &NoLinkTest) -> Refusal {
    let detail = why.to_string();
    match why {
        NoLinkTest::Unknown { .. } | NoLinkTest::Several(_) => Refusal::new(FIELD_INVALID, detail).field("relay"),
        NoLinkTest::Refused { why, .. } => refused_saying(why, detail, "session"),
    }
}
