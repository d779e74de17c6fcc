//! Letting a network engineer measure the line to this node.

use super::{SessionPath, json, to_the_end};
use crate::app::App;
use crate::audit::Entry;
use crate::error::SessionError;
use crate::guard::Bearer;
use crate::input::Names;
use crate::problem::{INTERNAL, LINK_TEST_BUSY, LINK_TEST_OPERATED, LINK_TESTS_UNUSED, Refusal};
use crate::store::Row;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use trocar_proto::session::link_test::{LinkTestGrant, LinkTestRefused};
use trocar_proto::session::role::Verb;

/// `POST /v1/sessions/{session}/link-tests`: ports and a fresh key for one measurement. It fills the line, so it is for the role engineer
/// alone, and refused while somebody operates.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/link-tests", operation_id = "beginLinkTest", tag = "operating", params(SessionPath),
    security(("token" = [])),
    responses(
        (status = 201, description = "Where to measure, with which key, and how much", body = LinkTestGrant),
        (status = 403, description = "verb-missing: the role is not engineer"),
        (status = 404, description = "link-tests-unused: this node does not answer measurements"),
        (status = 409, description = "link-test-operated: somebody operates; link-test-busy: another one runs"),
    )
)]
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    Names(path): Names<SessionPath>,
    bearer: Bearer,
) -> Result<Response, Refusal> {
    bearer.may(Verb::Measure, &path.session)?;
    let Some(tests) = app.link_tests.clone() else {
        return Err(
            Refusal::new(LINK_TESTS_UNUSED, "the configuration has no [link_test] enabled = true").field("session")
        );
    };
    let who = bearer.claims.sub;
    let grant = to_the_end(async move {
        let grant = tests.grant().map_err(|e| refusal(&e))?;
        let said = format!("at most {} Mbit/s for {} s", grant.mbit_s_max, grant.seconds_max);
        let entry = Entry::now("link-test").of(&path.session).by(&who).saying(said);
        // It counts once it is on disk.
        app.store.write(vec![Row::Event(Box::new(entry))]).await.map_err(SessionError::from)?;
        Ok(grant)
    })
    .await?;
    Ok(json(StatusCode::CREATED, &grant))
}

fn refusal(why: &LinkTestRefused) -> Refusal {
    let kind = match why {
        LinkTestRefused::Operated(_) => LINK_TEST_OPERATED,
        LinkTestRefused::Busy => LINK_TEST_BUSY,
        LinkTestRefused::Unused => LINK_TESTS_UNUSED,
        LinkTestRefused::Failed(_) => INTERNAL,
    };
    Refusal::new(kind, why.to_string()).field("session")
}
