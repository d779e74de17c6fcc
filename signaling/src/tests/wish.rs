//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep), status by status, header by header, verb by verb: the same table for
//! both, since one session resource serves both.

use super::whip::{OFFER, SDP};
use super::*;

const FRAGMENT: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");
const CANDIDATE: &str = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
pub(super) const VOICES: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=recvonly\r\n";

/// An endpoint of either protocol: where to POST, an offer that is good there, and who may.
struct Endpoint {
    rest: &'static str,
    offer: &'static str,
    missing: (&'static str, &'static str),
}

const ENDPOINTS: [Endpoint; 3] = [
    Endpoint { rest: "/whip", offer: OFFER, missing: ("publication-missing", "publication") },
    Endpoint { rest: "/feeds/scope/whep", offer: "v=0\r\n", missing: ("leg-missing", "leg") },
    Endpoint { rest: "/voices/whep", offer: VOICES, missing: ("leg-missing", "leg") },
];

struct Bench {
    world: World,
    token: String,
}

impl Bench {
    async fn new() -> Self {
        let mut config = config();
        config.limits.requests = crate::Rate { burst: 10_000, per_second: 10_000 };
        let world = World::with(config).await;
        let local = world.join(Role::Local).await;
        assert_eq!(world.publish(&local.token, "scope").await.status, 201);
        Self { world, token: local.token }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        self.world.ask(method, path, Some(&self.token), headers, body).await
    }

    async fn post(&self, e: &Endpoint) -> Reply {
        self.ask(Method::POST, &self.world.path(e.rest), &[SDP], e.offer).await
    }

    fn refuse(&self, refusal: Option<AdmitError>) {
        *self.world.relay.refusal.lock().unwrap() = refusal;
    }
}

#[tokio::test]
async fn post_makes_a_resource_with_all_its_headers() {
    let bench = Bench::new().await;
    for e in &ENDPOINTS {
        let reply = bench.post(e).await;
        assert_eq!(reply.status, 201, "{}: {}", e.rest, reply.text);
        for (header, value) in [
            ("content-type", "application/sdp"),
            ("etag", "\"ice-1\""),
            ("accept-patch", "application/trickle-ice-sdpfrag"),
            ("vary", "Origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(reply.header(header), value, "{} {header}", e.rest);
        }
        assert!(reply.header("location").starts_with("/v1/sessions/"));
        let parameters = [("Content-Type", "application/sdp; charset=utf-8")];
        let reply = bench.ask(Method::DELETE, reply.header("location"), &parameters, "").await;
        assert_eq!((reply.status.as_u16(), reply.text.as_str()), (200, ""));
        let with_parameter = bench.ask(Method::POST, &bench.world.path(e.rest), &parameters, e.offer).await;
        assert_eq!(with_parameter.status, 201, "parameters of the media type do no harm");
    }
}

#[tokio::test]
async fn post_refuses_by_the_table() {
    let bench = Bench::new().await;
    let observer = bench.world.join(Role::Observer).await.token;
    let foreign = bench.world.app.create_session("another").await.unwrap();
    for e in &ENDPOINTS {
        let path = bench.world.path(e.rest);
        let post =
            async |headers: &[(&str, &str)], body: &str| bench.ask(Method::POST, &path, headers, body.to_owned()).await;
        post(&[], e.offer).await.assert_problem(415, "media-type", "Content-Type");
        post(&[("Content-Type", "application/json")], "{}").await.assert_problem(415, "media-type", "Content-Type");
        post(&[SDP], &"x".repeat(70_000)).await.assert_problem(413, "body-too-large", "body");
        let not_text = bench.ask(Method::POST, &path, &[SDP], vec![0xff, 0xfe]).await;
        not_text.assert_problem(400, "sdp-invalid", "body");
        let nobody = bench.world.ask(Method::POST, &path, None, &[SDP], e.offer).await;
        nobody.assert_problem(401, "token-missing", "Authorization");
        assert_eq!(nobody.header("www-authenticate"), "Bearer realm=\"trocar\"");
        let forged = bench.world.ask(Method::POST, &path, Some("a.b.c"), &[SDP], e.offer).await;
        forged.assert_problem(401, "token-invalid", "Authorization");
        let elsewhere = format!("/v1/sessions/{foreign}{}", e.rest);
        let reply = bench.ask(Method::POST, &elsewhere, &[SDP], e.offer).await;
        reply.assert_problem(403, "token-session", "session");
        if e.rest == "/whip" {
            let reply = bench.world.ask(Method::POST, &path, Some(&observer), &[SDP], e.offer).await;
            reply.assert_problem(403, "verb-missing", "verbs");
            assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"trocar\", error=\"insufficient_scope\"");
        }
        for (refusal, status, name, field, retry) in [
            (AdmitError::BadSdp("line 3".into()), 400, "sdp-invalid", "body", ""),
            (
                AdmitError::NotAcceptable { detail: "no".into(), alternatives: vec![] },
                406,
                "not-acceptable",
                "body",
                "",
            ),
        ] {
            bench.refuse(Some(refusal));
            let reply = bench.post(e).await;
            reply.assert_problem(status, name, field);
            assert_eq!(reply.header("retry-after"), retry);
        }
        for (refusal, name, retry) in
            [(AdmitError::Full("legs".into()), "relay-full", "5"), (AdmitError::Unavailable, "relay-unavailable", "1")]
        {
            bench.refuse(Some(refusal));
            let reply = bench.post(e).await;
            assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, retry), "{name}");
        }
        bench.refuse(None);
    }
    let reply = bench.ask(Method::POST, &bench.world.path("/feeds/no/whep"), &[SDP], "v=0\r\n").await;
    reply.assert_problem(404, "feed-missing", "feed");
    for (rest, offer) in [
        ("/whip", "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=recvonly\r\n"),
        ("/whip", "v=0\r\nm=video 9 x 96\r\nm=audio 9 x 111\r\n"),
        ("/voices/whep", "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=recvonly\r\n"),
    ] {
        let reply = bench.ask(Method::POST, &bench.world.path(rest), &[SDP], offer).await;
        reply.assert_problem(422, "sdp-unprocessable", "body");
    }
    let reply = bench.ask(Method::POST, &bench.world.path("/whip?feed=scope"), &[SDP], OFFER).await;
    reply.assert_problem(409, "feed-exists", "feed");
}

#[tokio::test]
async fn patch_trickles_and_restarts_by_the_table() {
    let bench = Bench::new().await;
    for e in &ENDPOINTS {
        let made = bench.post(e).await;
        let path = made.header("location");
        let patch =
            async |headers: &[(&str, &str)], body: &'static str| bench.ask(Method::PATCH, path, headers, body).await;
        patch(&[SDP], CANDIDATE).await.assert_problem(415, "media-type", "Content-Type");
        patch(&[FRAGMENT], CANDIDATE).await.assert_problem(428, "if-match-missing", "If-Match");
        for wrong in ["\"ice-0\"", "W/\"ice-1\"", "ice-1", ""] {
            let reply = patch(&[FRAGMENT, ("If-Match", wrong)], CANDIDATE).await;
            reply.assert_problem(412, "if-match-failed", "If-Match");
        }
        let trickled = patch(&[FRAGMENT, ("If-Match", "\"ice-1\"")], CANDIDATE).await;
        assert_eq!((trickled.status.as_u16(), trickled.text.as_str(), trickled.header("etag")), (204, "", ""));
        let restarted = patch(&[FRAGMENT, ("If-Match", "*")], "a=restart\r\n").await;
        assert_eq!((restarted.status.as_u16(), restarted.header("etag")), (200, "\"ice-2\""));
        assert_eq!(restarted.header("content-type"), "application/trickle-ice-sdpfrag");
        assert_eq!(restarted.text, "a=ice-ufrag:new\r\n");
        let late = patch(&[FRAGMENT, ("If-Match", "\"ice-1\"")], CANDIDATE).await;
        late.assert_problem(412, "if-match-failed", "If-Match");
        assert_eq!(patch(&[FRAGMENT, ("If-Match", "\"x\", \"ice-2\"")], CANDIDATE).await.status, 204);
        bench.refuse(Some(AdmitError::BadSdp("no ufrag".into())));
        patch(&[FRAGMENT, ("If-Match", "*")], "x").await.assert_problem(400, "sdp-invalid", "body");
        bench.refuse(None);
        let large = bench.ask(Method::PATCH, path, &[FRAGMENT, ("If-Match", "*")], "x".repeat(70_000)).await;
        large.assert_problem(413, "body-too-large", "body");
        let reply = bench.world.ask(Method::PATCH, path, None, &[FRAGMENT], "x").await;
        reply.assert_problem(401, "token-missing", "Authorization");
        let other = bench.world.join(Role::Coordinator).await.token;
        let reply = bench.world.ask(Method::PATCH, path, Some(&other), &[FRAGMENT, ("If-Match", "*")], "x").await;
        reply.assert_problem(404, e.missing.0, e.missing.1);
        bench.world.delete(path, &other).await.assert_problem(404, e.missing.0, e.missing.1);
        let reply = bench.world.ask(Method::DELETE, path, None, &[], "").await;
        reply.assert_problem(401, "token-missing", "Authorization");
        assert_eq!(bench.world.delete(path, &bench.token).await.status, 200);
        bench.world.delete(path, &bench.token).await.assert_problem(404, e.missing.0, e.missing.1);
    }
}

#[tokio::test]
async fn verbs_that_are_not_taken_are_answered_with_those_that_are() {
    let bench = Bench::new().await;
    for e in &ENDPOINTS {
        let made = bench.post(e).await;
        let endpoint = bench.world.path(e.rest);
        for (path, taken, refused) in [
            (endpoint.as_str(), "POST,OPTIONS", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"]),
            (made.header("location"), "PATCH,DELETE,OPTIONS", ["GET", "HEAD", "PUT", "POST", "TRACE", "PURGE"]),
        ] {
            for method in refused {
                let reply = bench.ask(Method::from_bytes(method.as_bytes()).unwrap(), path, &[], "").await;
                assert_eq!(reply.status, 405, "{method} {path}");
                let mut allow: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
                let mut taken: Vec<&str> = taken.split(',').collect();
                allow.sort_unstable();
                taken.sort_unstable();
                assert_eq!(allow, taken, "{method} {path}");
                if method != "HEAD" {
                    reply.assert_problem(405, "method", "method");
                }
            }
            let reply = bench.world.ask(Method::OPTIONS, path, None, &[], "").await;
            assert_eq!((reply.status.as_u16(), reply.header("allow").replace(' ', "")), (204, taken.to_owned()));
            assert_eq!(reply.header("link"), "", "credentials are for those who are in the session");
        }
        let reply = bench.world.ask(Method::OPTIONS, &endpoint, None, &[], "").await;
        assert_eq!(reply.header("accept-post"), "application/sdp");
        let reply = bench.world.ask(Method::OPTIONS, made.header("location"), None, &[], "").await;
        assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag");
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_and_no_others_may_ask() {
    let bench = Bench::new().await;
    let asked = ("Access-Control-Request-Method", "POST");
    for e in &ENDPOINTS {
        let path = bench.world.path(e.rest);
        for (origin, is_allowed) in [("https://console.example", true), ("https://evil.example", false)] {
            let reply = bench.world.ask(Method::OPTIONS, &path, None, &[("Origin", origin), asked], "").await;
            assert_eq!((reply.status.as_u16(), reply.header("vary")), (204, "Origin"));
            let expected = if is_allowed { origin } else { "" };
            assert_eq!(reply.header("access-control-allow-origin"), expected);
            let expected = if is_allowed { "POST, OPTIONS" } else { "" };
            assert_eq!(reply.header("access-control-allow-methods"), expected);
            assert_eq!(reply.header("access-control-allow-headers").contains("Authorization"), is_allowed);
            for reply in [
                bench.ask(Method::POST, &path, &[SDP, ("Origin", origin)], e.offer).await,
                bench.ask(Method::POST, &path, &[("Origin", origin)], "").await,
            ] {
                let allowed = reply.header("access-control-allow-origin");
                assert_eq!(allowed, if is_allowed { origin } else { "" });
                for exposed in ["Location", "ETag", "Link"] {
                    let found = reply.header("access-control-expose-headers").contains(exposed);
                    assert_eq!(found, is_allowed, "{exposed}");
                }
                if !reply.header("location").is_empty() {
                    bench.world.delete(reply.header("location"), &bench.token).await;
                }
            }
        }
    }
    let reply = bench.ask(Method::GET, &bench.world.path("/feeds"), &[("Origin", "https://console.example")], "").await;
    assert_eq!(reply.header("access-control-allow-origin"), "", "other routes are for pages of this server");
}

#[tokio::test]
async fn a_flood_is_told_to_wait() {
    let mut config = config();
    config.limits.requests = crate::Rate { burst: 2, per_second: 1 };
    let world = World::with(config).await;
    let token = world.join(Role::Local).await.token;
    for e in [&ENDPOINTS[0], &ENDPOINTS[2]] {
        let reply = world.ask(Method::POST, &world.path(e.rest), Some(&token), &[SDP], e.offer).await;
        assert_eq!(reply.status, 201);
    }
    let reply = world.ask(Method::POST, &world.path("/whip"), Some(&token), &[SDP], OFFER).await;
    reply.assert_problem(429, "too-many-requests", "sub");
    assert_eq!(reply.header("retry-after"), "1");
}
