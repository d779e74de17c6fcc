//! The OpenAPI 3.1 document, made from the routes and types themselves, and a page that shows it.

use crate::problem::Refusal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::sync::LazyLock;
use trocar_proto::session::api::ChatMessage;
use trocar_proto::session::event::{ClientEvent, ServerEvent};
use trocar_proto::session::problem::{PROBLEM_JSON, Problem};
use utoipa::OpenApi;

/// Everything but the paths.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Trocar",
        description = "Sessions, feeds and legs of a relay for remote surgery; WHIP (RFC 9725) and WHEP. Errors are \
                       problem documents (RFC 9457). Times are microseconds since the Unix epoch.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    components(schemas(Problem, ClientEvent, ServerEvent, ChatMessage)),
    tags(
        (name = "sessions", description = "Joining, tokens, sessions, invitations, participants"),
        (name = "identity", description = "Who somebody is, where that is asked for"),
        (name = "feeds", description = "Feeds and legs by RTP over QUIC"),
        (name = "webrtc", description = "WHIP and WHEP, for browsers and encoders"),
        (name = "events", description = "What changes, as it changes"),
        (name = "operating", description = "For whoever runs the server"),
    )
)]
struct Preface;

/// The document before the routes are added to it.
pub(super) fn preface() -> utoipa::openapi::OpenApi {
    Preface::openapi()
}

/// The whole document, made once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = serde_json::to_value(super::api().to_openapi()).unwrap_or_default();
    complete(&mut document);
    document
});

/// `GET /v1/openapi.json`.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "openapi", tag = "operating",
    responses((status = 200, description = "This document", body = Value, content_type = "application/json"))
)]
pub(super) async fn document() -> Response {
    ([(CACHE_CONTROL, "no-cache")], axum::Json(&*DOCUMENT)).into_response()
}

/// `GET /v1/docs`: the document as a page without scripts.
#[utoipa::path(
    get, path = "/v1/docs", operation_id = "docs", tag = "operating",
    responses((status = 200, description = "The document as a page", body = String, content_type = "text/html"))
)]
pub(super) async fn viewer() -> Result<Response, Refusal> {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()).as_ref());
    let policy = format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors 'none'");
    let mut response = render(&DOCUMENT).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// Adds what is the same for all routes: how bearers are shown, and the problems that each layer answers with.
fn complete(document: &mut Value) {
    let bearer = |format: &str, what: &str| json!({"type": "http", "scheme": "bearer", "bearerFormat": format, "description": what});
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        let schemes = json!({
            "token": bearer("JWT", "A token from /v1/join or /v1/token"),
            "identity": bearer("JWT", "An identity from /v1/login"),
            "invitation": bearer("opaque", "An invitation's secret, for encoders and players that know no more"),
        });
        components.insert("securitySchemes".to_owned(), schemes);
    }
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    for (path, item) in paths.iter_mut() {
        for (verb, operation) in item.as_object_mut().into_iter().flatten() {
            complete_operation((path, verb), operation);
        }
    }
}

fn complete_operation((path, verb): (&str, &str), operation: &mut Value) {
    let schemes = operation.get("security").and_then(Value::as_array).into_iter().flatten();
    let has_bearer = schemes.clone().any(|s| s.get("identity").is_none());
    let has_identity = schemes.clone().any(|s| s.get("identity").is_some());
    let has_body = operation.get("requestBody").is_some();
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    let mut add = |status: &str, what: &str| {
        let described = responses.entry(status).or_insert_with(|| json!({"description": ""}));
        let before = described.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = if before.is_empty() { what.to_owned() } else { format!("{before}, {what}") };
        if let Some(described) = described.as_object_mut() {
            described.insert("description".to_owned(), Value::String(text));
        }
    };
    // OPTIONS looks at no name; the events' own line says it beside another reason.
    if path.contains('{') && !path.ends_with("/events") && verb != "options" {
        add("400", "path-invalid");
    }
    if has_bearer {
        add("401", "token-missing, token-expired, token-invalid");
        add(
            "403",
            "token-session, token-realm, realm-denied, verb-missing, cnf-missing, session-closed, participant-gone",
        );
        add("429", "too-many-requests");
    }
    if has_identity {
        add("401", "token-missing, token-invalid");
    }
    if has_body {
        add("400", "json-syntax, json-field, field-invalid, sdp-invalid, body-broken");
        add("408", "body-timeout");
        add("413", "body-too-large");
        add("415", "media-type");
    }
    if has_bearer || has_body {
        add("500", "internal");
        add("503", "limit-reached, store-unavailable, relay-full, relay-unavailable, realm-unserved");
    }
    for (status, response) in responses.iter_mut().filter(|(status, _)| status.as_str() >= "400") {
        let Some(response) = response.as_object_mut() else { continue };
        let schema = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
        response.insert("content".to_owned(), json!({PROBLEM_JSON: schema}));
        if matches!(status.as_str(), "429" | "503") {
            let header = json!({"description": "Seconds", "schema": {"type": "integer", "minimum": 1}});
            response.insert("headers".to_owned(), json!({"Retry-After": header}));
        }
        if status == "401" {
            let header = json!({"description": "RFC 6750", "schema": {"type": "string"}});
            response.insert("headers".to_owned(), json!({"WWW-Authenticate": header}));
        }
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1a1a1a;background:#fff}h2{margin-top:2.5rem}section{border-top:1px solid #bbb;padding:.5rem 0}\
code,pre{font:14px/1.4 ui-monospace,monospace}pre{background:#f2f2f2;padding:.75rem;overflow:auto}\
.verb{font-weight:700;text-transform:uppercase;margin-right:.5rem}table{border-collapse:collapse}\
td,th{text-align:left;vertical-align:top;padding:.15rem 1rem .15rem 0}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#111}pre{background:#222}a{color:#8cf}}";

/// The document as HTML: each operation with its parameters, body and answers, then the schemas.
fn render(document: &Value) -> String {
    let mut out = String::from("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Trocar API</title>");
    let text = |v: &Value, key: &str| escape(v.get(key).and_then(Value::as_str).unwrap_or_default());
    let empty = Map::new();
    let entries = |v: &Value, key: &str| {
        v.get(key).and_then(Value::as_object).unwrap_or(&empty).clone().into_iter().collect::<Vec<_>>()
    };
    // Writing to a String cannot fail, here and below.
    let _ = write!(out, "<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>");
    let info = document.get("info").cloned().unwrap_or_default();
    let _ = write!(
        out,
        "<h1>{} {}</h1><p>{}</p><p><a href=\"openapi.json\">openapi.json</a></p><h2>Operations</h2>",
        text(&info, "title"),
        text(&info, "version"),
        text(&info, "description")
    );
    for (path, item) in entries(document, "paths") {
        for (verb, operation) in item.as_object().into_iter().flatten() {
            let _ = write!(out, "<section id=\"{}\">", text(operation, "operationId"));
            let _ = write!(out, "<h3><span class=\"verb\">{}</span><code>{}</code></h3>", escape(verb), escape(&path));
            let _ = write!(out, "<p>{} {}</p>", text(operation, "summary"), text(operation, "description"));
            out.push_str("<table>");
            for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
                let _ = write!(
                    out,
                    "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                    text(parameter, "name"),
                    text(parameter, "in"),
                    text(parameter, "description")
                );
            }
            if let Some(body) = operation.get("requestBody") {
                let _ = write!(out, "<tr><td>body</td><td colspan=\"2\">{}</td></tr>", contents(body));
            }
            for (status, response) in entries(operation, "responses") {
                let _ = write!(
                    out,
                    "<tr><td>{}</td><td colspan=\"2\">{} {}</td></tr>",
                    escape(&status),
                    text(&response, "description"),
                    contents(&response)
                );
            }
            out.push_str("</table></section>");
        }
    }
    out.push_str("<h2>Schemas</h2>");
    for (name, schema) in entries(document.get("components").unwrap_or(&Value::Null), "schemas") {
        let pretty = serde_json::to_string_pretty(&schema).unwrap_or_default();
        let _ = write!(
            out,
            "<section id=\"schema-{0}\"><h3>{0}</h3><pre>{1}</pre></section>",
            escape(&name),
            escape(&pretty)
        );
    }
    out + "</html>"
}

/// Media types and schemas of a body.
fn contents(body: &Value) -> String {
    let mut out = String::new();
    for (media_type, content) in body.get("content").and_then(Value::as_object).into_iter().flatten() {
        let schema = content.get("schema").and_then(|s| s.get("$ref")).and_then(Value::as_str).unwrap_or_default();
        let name = escape(schema.rsplit('/').next().unwrap_or_default());
        let _ = write!(out, "<code>{}</code> <a href=\"#schema-{name}\">{name}</a> ", escape(media_type));
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
