//! What requests bring, and how what cannot be used is named.

use super::*;
use crate::config::Rate;

async fn join_body(world: &World, body: &str) -> Reply {
    world.post_text("/v1/join", None, body.to_owned()).await
}

#[tokio::test]
async fn json_problems_name_the_field() {
    let world = World::new().await;
    for (body, name, field) in [
        ("{\"invitation\": \"x\", \"nmae\": \"y\"}", "json-field", "nmae"),
        ("{\"name\": \"y\"}", "json-field", "invitation"),
        ("{\"invitation\": 5}", "json-field", "invitation"),
        ("{\"invitation\": \"x\", \"cnf\": \"zz\"}", "json-field", "cnf"),
        ("{\"invitation\": \"x\", \"invitation\": \"y\"}", "json-field", "invitation"),
        ("null", "json-field", "body"),
        ("[\"secret\", \"name\"]", "json-field", "body"),
        ("{\"invitation\": NaN}", "json-syntax", "invitation"),
        ("{\"invitation\": \"\\ud800\"}", "json-field", "invitation"),
        ("{\"invitation\": \"x\"} x", "json-syntax", "body"),
        ("", "json-syntax", "body"),
    ] {
        let reply = join_body(&world, body).await;
        reply.assert_problem(400, name, field);
    }
}

#[tokio::test]
async fn nested_fields_are_named_by_their_path() {
    let world = World::new().await;
    let token = world.join(Role::Local).await.token;
    for (pointer, value, name, field) in [
        ("/transport", json!({"roq": {"mode": "pigeon"}}), "json-field", "transport.roq.mode"),
        ("/transport", json!({"roq": {"mode": "datagram", "x": 1}}), "json-field", "transport.roq.x"),
        ("/transport", json!("webrtc"), "field-invalid", "transport"),
        (
            "/transport",
            json!({"roq": {"mode": "datagram", "rtp_flow_id": 4}}),
            "field-invalid",
            "transport.roq.rtp_flow_id",
        ),
        ("/feed", json!("../etc"), "json-field", "feed"),
        ("/kind", Value::Null, "json-field", "kind"),
        ("/clock_rate", json!(0), "field-invalid", "clock_rate"),
        ("/payload_type", json!(300), "json-field", "payload_type"),
        ("/source", json!("a b"), "field-invalid", "source"),
        ("/header_extensions", json!({"urn:x": 15}), "field-invalid", "header_extensions"),
    ] {
        let mut body = descriptor("scope");
        *body.pointer_mut(pointer).unwrap() = value;
        let reply = world.post(&world.path("/feeds"), Some(&token), &body).await;
        reply.assert_problem(400, name, field);
    }
    assert!(world.relay.asked().is_empty());
}

#[tokio::test]
async fn deep_json_is_refused_without_much_work() {
    let world = World::new().await;
    let deep = format!("{{\"invitation\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    join_body(&world, &deep).await.assert_problem(400, "json-field", "invitation");
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    join_body(&world, &deep).await.assert_problem(400, "json-field", "body");
}

#[tokio::test]
async fn large_bodies_are_refused_whether_announced_or_not() {
    let world = World::new().await;
    let large = "x".repeat(64 * 1024 + 1);
    join_body(&world, &large).await.assert_problem(413, "body-too-large", "body");
    let headers = [("Content-Type", "application/json"), ("Content-Length", "100000000")];
    let reply = world.ask(Method::POST, "/v1/join", None, &headers, Body::empty()).await;
    reply.assert_problem(413, "body-too-large", "body");
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let mut config = config();
    config.limits.body_timeout = Duration::from_millis(50);
    let world = World::with(config).await;
    let endless = Body::from_stream(futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
    let reply = world.ask(Method::POST, "/v1/join", None, &[("Content-Type", "application/json")], endless).await;
    reply.assert_problem(408, "body-timeout", "body");
}

#[tokio::test]
async fn other_media_types_methods_and_paths_are_problems_too() {
    let world = World::new().await;
    let reply = world.ask(Method::POST, "/v1/join", None, &[("Content-Type", "text/plain")], "{}").await;
    reply.assert_problem(415, "media-type", "Content-Type");
    let reply = world.ask(Method::PUT, "/v1/join", None, &[], "").await;
    reply.assert_problem(405, "method", "method");
    assert_eq!(reply.header("allow"), "POST");
    let reply = world.ask(Method::GET, "/v2/", None, &[], "").await;
    assert_eq!((reply.status.as_u16(), reply.json()["type"].as_str().unwrap()), (404, "urn:trocar:problem:not-found"));
    let token = world.join(Role::Local).await.token;
    let reply = world.get("/v1/sessions/..%2Fetc", &token).await;
    reply.assert_problem(400, "path-invalid", "session");
    let reply = world.get(&world.path("/feeds/%E2%80%AEx"), &token).await;
    reply.assert_problem(400, "path-invalid", "feed");
    let reply = world.get(&world.path("/feeds/%ff"), &token).await;
    reply.assert_problem(400, "path-invalid", "feed");
}

#[tokio::test]
async fn names_that_deceive_are_refused() {
    let world = World::new().await;
    let invitation = world.app.invite(&world.session, Role::Observer, 3600, None).await.unwrap().invitation;
    for name in ["", "a\u{0}b", "a\nb", "\u{202e}evil", &"x".repeat(65)] {
        let reply = world.post("/v1/join", None, &json!({"invitation": invitation, "name": name})).await;
        reply.assert_problem(400, "field-invalid", "name");
    }
    let reply = world.post("/v1/join", None, &json!({"invitation": invitation, "name": "林".repeat(64)})).await;
    assert_eq!(reply.status, 200);
    let bad = world.app.create_session("\u{202e}").await;
    assert!(matches!(bad, Err(crate::SessionError::Invalid { field: "title", .. })));
}

#[tokio::test]
async fn a_key_that_nobody_knows_does_not_echo_whole() {
    let world = World::new().await;
    let reply = join_body(&world, &format!("{{\"{}\u{202e}\": 1}}", "k".repeat(20_000))).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.len() < 1024 && !reply.text.contains('\u{202e}'));
}

#[tokio::test]
async fn a_flood_of_joins_is_told_to_wait() {
    let mut config = config();
    config.limits.joins = Rate { burst: 2, per_second: 1 };
    let world = World::with(config).await;
    for _ in 0..2 {
        join_body(&world, "{\"invitation\": \"x\"}").await.assert_problem(403, "invitation-invalid", "invitation");
    }
    let reply = join_body(&world, "{\"invitation\": \"x\"}").await;
    reply.assert_problem(429, "too-many-requests", "address");
    assert_eq!(reply.header("retry-after"), "1");
}

#[tokio::test]
async fn one_participant_cannot_ask_without_end() {
    let mut config = config();
    config.limits.requests = Rate { burst: 3, per_second: 1 };
    let world = World::with(config).await;
    let (one, two) = (world.join(Role::Observer).await, world.join(Role::Observer).await);
    for _ in 0..3 {
        assert_eq!(world.get(&world.path(""), &one.token).await.status, 200);
    }
    let reply = world.get(&world.path(""), &one.token).await;
    reply.assert_problem(429, "too-many-requests", "sub");
    assert!(!reply.header("retry-after").is_empty());
    assert_eq!(world.get(&world.path(""), &two.token).await.status, 200);
}

#[tokio::test]
async fn limits_on_sessions_and_invitations_hold() {
    let mut config = config();
    config.limits.sessions = 1;
    config.limits.invitations_per_session = 2;
    let world = World::with(config).await;
    assert!(matches!(world.app.create_session("x").await, Err(crate::SessionError::Full("sessions"))));
    let boss = world.join(Role::Coordinator).await;
    let invite = json!({"role": "observer"});
    assert_eq!(world.post(&world.path("/invitations"), Some(&boss.token), &invite).await.status, 201);
    let reply = world.post(&world.path("/invitations"), Some(&boss.token), &invite).await;
    reply.assert_problem(503, "limit-reached", "invitations");
}

#[tokio::test]
async fn the_page_comes_with_its_policy() {
    let world = World::new().await;
    for path in ["/", "/s/anything/at-all"] {
        let reply = world.ask(Method::GET, path, None, &[], "").await;
        assert_eq!(reply.status, 200);
        assert!(reply.header("content-security-policy").starts_with("default-src 'self'; connect-src 'self' wss: ws:"));
        assert_eq!(reply.header("referrer-policy"), "no-referrer");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    let reply = world.ask(Method::GET, "/app.js", None, &[], "").await;
    assert_eq!(reply.header("content-type"), "text/javascript; charset=utf-8");
}

#[tokio::test]
async fn health_readiness_and_figures() {
    let mut config = config();
    config.metrics_open = true;
    let world = World::with(config).await;
    assert_eq!(world.ask(Method::GET, "/healthz", None, &[], "").await.status, 200);
    assert_eq!(world.ask(Method::GET, "/readyz", None, &[], "").await.status, 200);
    *world.relay.not_ready.lock().unwrap() = true;
    world.ask(Method::GET, "/readyz", None, &[], "").await.assert_problem(503, "not-ready", "relay");
    let text = world.ask(Method::GET, "/metrics", None, &[], "").await.text;
    assert!(text.contains("trocar_signaling_http_requests_total{route=\"/readyz\",method=\"GET\",status=\"503\"} 1"));
    assert!(text.contains("relay_feeds 7"));
    assert_eq!(text.matches("# EOF").count(), 1);
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn figures_are_not_for_everyone() {
    let world = World::new().await;
    world.ask(Method::GET, "/metrics", None, &[], "").await.assert_problem(403, "metrics-closed", "address");
}
