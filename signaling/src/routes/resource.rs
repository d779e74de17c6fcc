//! What WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) resources have in common: answers, preconditions, `OPTIONS`.

use crate::app::App;
use crate::guard::bearer_of;
use crate::ice;
use crate::problem::{IF_MATCH_FAILED, IF_MATCH_MISSING, INTERNAL, Refusal};
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ALLOW, CONTENT_TYPE, ETAG, IF_MATCH, LINK, LOCATION,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use trocar_proto::session::ids::{ParticipantId, RealmId};

pub(super) const SDP: &str = "application/sdp";
pub(super) const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// A resource that was made, and for whom.
pub(super) struct Created {
    pub(super) sdp: String,
    pub(super) ice_session: String,
    pub(super) location: String,
    pub(super) owner: ParticipantId,
}

/// 201 with the SDP answer, the resource's address and entity tag, and the ICE servers.
pub(super) fn created(app: &App, realm: &RealmId, created: Created) -> Result<Response, Refusal> {
    let mut response = (StatusCode::CREATED, created.sdp).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(LOCATION, header(&created.location)?);
    headers.insert(ETAG, entity_tag(&created.ice_session)?);
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    add_links(app, headers, realm, &created.owner);
    Ok(response)
}

/// 204, or after an ICE restart 200 with the relay's fragment and the new entity tag.
pub(super) fn patched(restarted: Option<(String, String)>) -> Result<Response, Refusal> {
    let Some((fragment, ice_session)) = restarted else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    let mut response = (StatusCode::OK, fragment).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SDP_FRAGMENT));
    response.headers_mut().insert(ETAG, entity_tag(&ice_session)?);
    Ok(response)
}

/// The precondition of a PATCH: 428 without `If-Match`, 412 where no tag is the current one (strong comparison, RFC 9110
/// section 13.1.1).
pub(super) fn check_if_match(headers: &HeaderMap, ice_session: &str) -> Result<(), Refusal> {
    let current = format!("\"{ice_session}\"");
    let mut given = headers.get_all(IF_MATCH).iter().peekable();
    if given.peek().is_none() {
        let detail = "send If-Match with the entity tag of the answer, or * for an ICE restart";
        return Err(Refusal::new(IF_MATCH_MISSING, detail).field("If-Match"));
    }
    let mut tags = given.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim);
    if tags.any(|tag| tag == "*" || tag == current) {
        return Ok(());
    }
    Err(Refusal::new(IF_MATCH_FAILED, "the entity tag is not that of the current ICE session").field("If-Match"))
}

/// What `OPTIONS` of an endpoint says, where a POST makes a resource: what is taken (RFC 9725 section 4.2), and to a good
/// bearer the ICE servers, for clients that have to know them before they make an offer (section 4.6).
pub(super) fn endpoint_options(app: &App, request: &Request) -> Response {
    let mut response = options(request.headers(), "POST, OPTIONS");
    let headers = response.headers_mut();
    headers.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    if let Some(claims) = bearer_of(app, request) {
        add_links(app, headers, &claims.realm, &claims.sub);
    }
    response
}

/// `OPTIONS` of a resource.
pub(super) fn resource_options(request: &Request) -> Response {
    let mut response = options(request.headers(), "PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    response
}

/// What a page of another origin may send goes with it; whether it may at all is `Access-Control-Allow-Origin`, which
/// [`crate::guard::watch`] sets by policy.
fn options(asked: &HeaderMap, methods: &'static str) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(methods));
    if asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        let allowed = HeaderValue::from_static("Authorization, Content-Type, If-Match");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

fn add_links(app: &App, headers: &mut HeaderMap, realm: &RealmId, who: &ParticipantId) {
    for link in ice::links(&app.ice_servers(realm, who)) {
        headers.append(LINK, link);
    }
}

fn entity_tag(ice_session: &str) -> Result<HeaderValue, Refusal> {
    header(&format!("\"{ice_session}\""))
}

fn header(value: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(value).map_err(|_| Refusal::new(INTERNAL, "an answer of the relay cannot stand in a header"))
}
