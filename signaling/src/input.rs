//! Reading what requests bring: names in the path, bodies, JSON. Everything that cannot be used is refused by name.

use crate::app::App;
use crate::problem::{
    BODY_BROKEN, BODY_TIMEOUT, BODY_TOO_LARGE, JSON_FIELD, JSON_SYNTAX, MEDIA_TYPE, PATH_INVALID, Refusal,
};
use axum::body::Bytes;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, RawPathParams, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::sync::Arc;
use trocar_proto::session::ids::SessionId;

/// Path parameters as typed names; a bad one is answered 400 with the parameter's name.
pub(crate) struct Names<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Names<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let refusal = Refusal::new(PATH_INVALID, "names are 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'");
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(names)) => return Ok(Self(names)),
            Err(PathRejection::FailedToDeserializePathParams(e)) => {
                if let ErrorKind::InvalidUtf8InPathParam { key } = e.kind() {
                    return Err(refusal.field(key));
                }
            }
            Err(_) => {}
        }
        let Ok(params) = RawPathParams::from_request_parts(parts, app).await else { return Err(refusal.field("path")) };
        // All kinds of names have one grammar, so any of them can judge.
        let wrong = params.iter().find(|(_, value)| SessionId::new(*value).is_err());
        Err(refusal.field(wrong.map_or("path", |(key, _)| key)))
    }
}

/// The whole body, where its `Content-Type` is `media_type` (parameters are not looked at).
pub(crate) async fn body(app: &App, request: Request, media_type: &'static str) -> Result<Bytes, Refusal> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(media_type) {
        return Err(Refusal::new(MEDIA_TYPE, format!("expected {media_type}")).field("Content-Type"));
    }
    bytes(app, request).await
}

/// The whole body, whatever it is.
async fn bytes(app: &App, request: Request) -> Result<Bytes, Refusal> {
    let limit = app.limits.body_bytes;
    let too_large = || Refusal::new(BODY_TOO_LARGE, format!("at most {limit} bytes")).field("body");
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|n| n > limit as u64) {
        return Err(too_large());
    }
    // The router's DefaultBodyLimit stops the read at the same limit where no length was announced.
    match tokio::time::timeout(app.limits.body_timeout, Bytes::from_request(request, &())).await {
        Err(_) => Err(Refusal::new(BODY_TIMEOUT, "the body has to arrive within 5 s").field("body")),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(BODY_BROKEN, "the connection ended or the framing was wrong").field("body")),
    }
}

/// The body as text, for SDP.
pub(crate) async fn text(app: &App, request: Request, media_type: &'static str) -> Result<String, Refusal> {
    let bytes = body(app, request, media_type).await?;
    String::from_utf8(bytes.into())
        .map_err(|_| Refusal::new(crate::problem::SDP_INVALID, "the body is not UTF-8").field("body"))
}

/// The body as JSON.
pub(crate) async fn json<T: DeserializeOwned>(app: &App, request: Request) -> Result<T, Refusal> {
    parse_json(&body(app, request, "application/json").await?)
}

/// The body as JSON, where there is one; otherwise the default.
pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(app: &App, request: Request) -> Result<T, Refusal> {
    if request.headers().contains_key(CONTENT_TYPE) {
        return json(app, request).await;
    }
    let bytes = bytes(app, request).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parse_json(&bytes) }
}

/// A body that is there, as JSON.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // Without this, an array of the fields' values would pass for the object.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let kind = if is_json(bytes) { JSON_FIELD } else { JSON_SYNTAX };
        return Err(Refusal::new(kind, "expected a JSON object").field("body"));
    }
    // serde_json stops at 128 levels, so that depth costs no stack.
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut de).map_err(|e| {
        let path = e.path().to_string();
        let cause = e.into_inner();
        let message = cause.to_string();
        // serde_json calls a null in place of an enum a syntax error.
        let kind = if cause.is_data() || is_json(bytes) { JSON_FIELD } else { JSON_SYNTAX };
        Refusal::new(kind, &message).field(field_at_fault(&path, &message))
    })?;
    de.end().map_err(|e| Refusal::new(JSON_SYNTAX, e.to_string()).field("body"))?;
    Ok(value)
}

/// Whether it is JSON of any shape. Takes no memory, and no stack for depth.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// The dotted path of the field at fault; `body` where it is the whole.
fn field_at_fault(path: &str, message: &str) -> String {
    // serde reports an unknown, missing or repeated key at the object that it is a key of, and quotes it.
    let quoted = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|lead| message.strip_prefix(lead))
        .and_then(|rest| rest.split('`').next());
    match (path, quoted) {
        ("." | "", None) => "body".to_owned(),
        ("." | "", Some(key)) => key.to_owned(),
        (path, Some(key)) if path == key || path.ends_with(&format!(".{key}")) => path.to_owned(),
        (path, Some(key)) => format!("{path}.{key}"),
        (path, None) => path.to_owned(),
    }
}
