//! The OpenAPI document against the routes that it was made from.

use super::*;
use std::collections::BTreeSet;

async fn document(world: &World) -> Value {
    let reply = world.ask(Method::GET, "/v1/openapi.json", None, &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/json"));
    reply.json()
}

/// The document's path with something in place of each parameter.
fn filled(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "x1" } else { part }).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn each_documented_path_takes_the_documented_verbs_and_no_others() {
    let world = World::new().await;
    let document = document(&world).await;
    assert_eq!(document["openapi"], "3.1.0");
    for (path, item) in document["paths"].as_object().unwrap() {
        let reply = world.ask(Method::from_bytes(b"PURGE").unwrap(), &filled(path), None, &[], "").await;
        assert_eq!(reply.status, 405, "{path} has no route");
        let served: BTreeSet<String> =
            reply.header("allow").split(',').map(|m| m.trim().to_lowercase()).filter(|m| m != "head").collect();
        let documented: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
        assert_eq!(served, documented, "{path}");
    }
    // A path that is not documented is not served: the negative control of the loop above.
    let reply = world.ask(Method::from_bytes(b"PURGE").unwrap(), "/v1/undocumented", None, &[], "").await;
    assert_eq!(reply.status, 404);
}

/// The router can be filled from documented handlers alone; only the page's files come in another way.
#[test]
fn no_route_is_made_beside_the_document() {
    let sources = [
        include_str!("../routes/mod.rs"),
        include_str!("../routes/openapi.rs"),
        include_str!("../routes/operate.rs"),
        include_str!("../routes/sessions.rs"),
        include_str!("../events.rs"),
        include_str!("../server.rs"),
    ];
    assert!(sources.iter().all(|s| !s.contains(".route(") && !s.contains(".nest(")));
    assert!(include_str!("../page.rs").contains(".route("), "the pattern finds routes where there are some");
}

#[tokio::test]
async fn every_operation_says_who_may_and_what_can_go_wrong() {
    let world = World::new().await;
    let document = document(&world).await;
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is twice");
            assert!(operation["summary"].as_str().is_some_and(|s| !s.is_empty()), "{id} has no summary");
            let has = |status: &str| operation["responses"].get(status).is_some();
            let is_login = path.starts_with("/v1/login") || path.starts_with("/v1/passkeys/");
            let without_bearer = ["/v1/join", "/v1/openapi.json", "/v1/docs"].contains(&path.as_str())
                || is_login
                || !path.starts_with("/v1/")
                || path.ends_with("/events")
                || verb == "options";
            assert_eq!(operation.get("security").is_none(), without_bearer, "{id}");
            let may_need_identity = path == "/v1/join" || (is_login && !path.ends_with("/begin"));
            assert_eq!(has("401"), !without_bearer || may_need_identity, "{id}");
            assert_eq!(has("413"), operation.get("requestBody").is_some(), "{id}");
            assert!(has("400") || !path.contains('{') || verb == "options", "{id}");
            let named = operation["parameters"].as_array().cloned().unwrap_or_default();
            for name in path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')) {
                assert!(named.iter().any(|p| p["name"] == name && p["in"] == "path"), "{id}: {name}");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].as_str().is_some_and(|d| !d.is_empty()), "{id} {status}");
                if status.as_str() >= "400" {
                    assert!(response["content"]["application/problem+json"]["schema"]["$ref"].is_string());
                }
            }
        }
    }
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to and not there");
    }
    let descriptor = &schemas["FeedDescriptor"];
    assert_eq!(descriptor["additionalProperties"], false, "unknown keys are refused, and the document says so");
    assert_eq!(schemas["FeedId"]["pattern"], "^[A-Za-z0-9_-]{1,64}$");
}

#[tokio::test]
async fn every_kind_of_problem_is_in_the_document() {
    let world = World::new().await;
    let text = document(&world).await.to_string();
    let kinds = include_str!("../problem.rs").lines().filter(|l| l.contains(": Kind = ("));
    let names: Vec<&str> = kinds.map(|l| l.split('"').nth(1).unwrap()).collect();
    assert!(names.len() > 30, "{}", names.len());
    // A path without a route and a verb without a handler are no operations.
    for name in names.into_iter().filter(|n| !matches!(*n, "not-found" | "method")) {
        assert!(text.contains(name), "{name} is not documented");
    }
}

#[tokio::test]
async fn the_viewer_needs_nothing_from_elsewhere() {
    let world = World::new().await;
    let reply = world.ask(Method::GET, "/v1/docs", None, &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(reply.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(!reply.text.contains("<script") && !reply.text.contains("src="), "no scripts, nothing fetched");
    for shown in ["publishWhip", "/v1/sessions/{session}/whip", "sdp-unprocessable", "schema-FeedDescriptor"] {
        assert!(reply.text.contains(shown), "{shown}");
    }
}
