//! The page's files, and its acts.

use super::super::hand::NotDone;
use super::super::model::{ActName, Model};
use super::guard::{self, Refused};
use super::{Page, live};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trocar_proto::handover::gate::Act;
use trocar_proto::handover::message::Short;
use trocar_proto::handover::types::{ExpertId, GrantedSet, Oid};

const INDEX: &str = include_str!("console.html");
const STYLE: &str = include_str!("console.css");
const SCRIPT: &str = include_str!("console.js");
const WORDS: &str = include_str!("words.js");

/// Longest act, in bytes.
const MOST_BODY: usize = 2_048;

/// Everything that there is.
pub(super) fn router(page: Arc<Page>) -> Router {
    // Scripts, styles and connections of this page only, and no markup from text.
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://{}; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        page.host
    );
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    Router::new()
        .route("/", get(|| async { file("text/html; charset=utf-8", INDEX) }))
        .route("/console.css", get(|| async { file("text/css; charset=utf-8", STYLE) }))
        .route("/console.js", get(|| async { file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/words.js", get(|| async { file("text/javascript; charset=utf-8", WORDS) }))
        .route("/act", post(act))
        .route("/live", get(live::live))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(page.clone(), guard::guard))
        .layer(middleware::map_response(move |response| with_headers(policy.clone(), response)))
        .with_state(page)
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// On every answer, refusals too.
async fn with_headers(policy: HeaderValue, mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// One act as the page sends it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    act: ActName,
    /// [`Model::stamp`] of what the person saw. TAKE and ESTOP need none.
    seen: Option<String>,
    /// OFFER: the certificate's hash, hexadecimal.
    expert: Option<String>,
    /// OFFER: the set, as bits.
    set: Option<u8>,
    /// OFFER: the declared step.
    step: Option<String>,
    /// MUTE: who, as the news say it.
    person: Option<String>,
}

/// The answer to an act.
#[derive(Debug, Serialize)]
struct Told {
    done: bool,
    text: String,
}

async fn act(State(page): State<Arc<Page>>, body: Bytes) -> Response {
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => {
            page.shared.refusals.count(Refused::Form);
            return told(StatusCode::BAD_REQUEST, false, format!("not an act: {error}"));
        }
    };
    let act = match to_act(asked, &page.shared.model()) {
        Ok(act) => act,
        Err((status, why)) => return told(status, false, why.to_owned()),
    };
    let label = act.as_ref().map_or("END CONSENT", super::super::words::act);
    let done = match act.map(|act| page.shared.hand.act(act)) {
        Some(Ok(pending)) => pending.wait().await,
        Some(Err(why)) => Err(why),
        None => page.shared.hand.withdraw_consent(),
    };
    match done {
        Ok(()) => told(StatusCode::OK, true, format!("{label}: done")),
        Err(why @ NotDone::Refused(_)) => told(StatusCode::CONFLICT, false, format!("{label} {why}")),
        Err(why) => told(StatusCode::SERVICE_UNAVAILABLE, false, format!("{label} {why}")),
    }
}

fn told(status: StatusCode, done: bool, text: String) -> Response {
    (status, Json(Told { done, text })).into_response()
}

type No = (StatusCode, &'static str);

/// The act, if the person saw the state that is; none for the withdrawal of consent, which is no act of the register.
fn to_act(asked: Asked, model: &Model) -> Result<Option<Act>, No> {
    let bad = |why| (StatusCode::BAD_REQUEST, why);
    match asked.act {
        ActName::Take => return Ok(Some(Act::Take)),
        ActName::Estop => return Ok(Some(Act::Estop)),
        _ => {}
    }
    if asked.seen.as_deref() != Some(model.stamp.as_str()) {
        return Err((StatusCode::CONFLICT, "did not count: the state has just changed. Look and press again"));
    }
    Ok(Some(match asked.act {
        ActName::WithdrawConsent => return Ok(None),
        ActName::Take => Act::Take,
        ActName::Estop => Act::Estop,
        ActName::Confirm => Act::Confirm,
        ActName::ConfirmAmber => Act::ConfirmAmber,
        ActName::Withdraw => Act::Withdraw,
        ActName::Reset => Act::Reset,
        ActName::Close => Act::Close,
        ActName::Mute => {
            let same = |n: &&super::super::model::News| n.mute.is_some() && n.mute == asked.person;
            let person = model.news.iter().find(same).and_then(|n| n.person.clone());
            Act::Mute(person.ok_or(bad("person: nobody of that name pressed STOP"))?)
        }
        ActName::Offer => {
            let mut expert = [0; 32];
            let id = asked.expert.ok_or(bad("expert: is missing"))?;
            hex::decode_to_slice(id, &mut expert).map_err(|_| bad("expert: 64 hexadecimal digits are right"))?;
            let set = asked.set.and_then(GrantedSet::from_bits).ok_or(bad("set: 1, 2, 3, 6 or 7 is right"))?;
            let step = Short::new(asked.step.unwrap_or_default().trim());
            let step = step.map_err(|_| bad("step: at most 128 bytes are right"))?;
            // The core draws the oid.
            Act::Offer { oid: Oid(0), expert: ExpertId(expert), set, step }
        }
    }))
}
