//! WHEP as ordinary clients drive it.

use super::*;
use trocar_proto::session::event::LegState;
use trocar_proto::session::ids::FeedId;

const SDP: (&str, &str) = ("Content-Type", "application/sdp");
const FRAGMENT: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");

/// A world with a feed, and a viewer.
async fn with_feed() -> (World, String) {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
    let viewer = world.join_with(Role::Observer, None).await;
    (world, viewer.token)
}

async fn open(world: &World, token: &str) -> Reply {
    world.ask(Method::POST, &world.path("/feeds/scope/whep"), Some(token), &[SDP], "v=0\r\n").await
}

#[tokio::test]
async fn an_offer_is_answered_with_a_resource() {
    let (world, token) = with_feed().await;
    let reply = open(&world, &token).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(reply.text, "answer to v=0\r\n");
    assert_eq!(reply.header("content-type"), "application/sdp");
    assert_eq!(reply.header("etag"), "\"ice-1\"");
    assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag");
    assert!(reply.header("location").starts_with(&world.path("/whep/l")));
    assert_eq!(reply.header("vary"), "Origin");
}

#[tokio::test]
async fn what_is_no_offer_is_refused() {
    let (world, token) = with_feed().await;
    let path = world.path("/feeds/scope/whep");
    let reply = world.ask(Method::POST, &path, Some(&token), &[("Content-Type", "application/json")], "{}").await;
    reply.assert_problem(415, "media-type", "Content-Type");
    let reply = world.ask(Method::POST, &path, Some(&token), &[SDP], vec![0xff, 0xfe]).await;
    reply.assert_problem(400, "sdp-invalid", "body");
    let reply = world.ask(Method::POST, &path, Some(&token), &[SDP], "x".repeat(70_000)).await;
    reply.assert_problem(413, "body-too-large", "body");
    let reply = world.ask(Method::POST, &world.path("/feeds/room/whep"), Some(&token), &[SDP], "v=0").await;
    reply.assert_problem(404, "feed-missing", "feed");
    world.ask(Method::POST, &path, None, &[SDP], "v=0").await.assert_problem(401, "token-missing", "Authorization");
    for (refusal, status, name) in [
        (AdmitError::BadSdp("line 3: no m= line".into()), 400, "sdp-invalid"),
        (
            AdmitError::NotAcceptable { detail: "the offer has no H264".into(), alternatives: vec![] },
            406,
            "not-acceptable",
        ),
    ] {
        *world.relay.refusal.lock().unwrap() = Some(refusal);
        open(&world, &token).await.assert_problem(status, name, "body");
    }
}

#[tokio::test]
async fn get_and_put_are_not_allowed() {
    let (world, token) = with_feed().await;
    let location = open(&world, &token).await.header("location").to_owned();
    for (path, allowed) in [(world.path("/feeds/scope/whep"), "POST"), (location, "PATCH")] {
        for method in [Method::GET, Method::PUT, Method::HEAD] {
            let reply = world.ask(method.clone(), &path, Some(&token), &[], "").await;
            assert_eq!(reply.status, 405, "{method} {path}");
            assert!(reply.header("allow").contains(allowed));
        }
    }
}

#[tokio::test]
async fn candidates_and_restarts_go_by_the_entity_tag() {
    let (world, token) = with_feed().await;
    let path = open(&world, &token).await.header("location").to_owned();
    let patch = async |headers: &[(&str, &str)], body: &'static str| {
        world.ask(Method::PATCH, &path, Some(&token), headers, body).await
    };
    let candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    patch(&[SDP], candidate).await.assert_problem(415, "media-type", "Content-Type");
    patch(&[FRAGMENT], candidate).await.assert_problem(428, "if-match-missing", "If-Match");
    for wrong in ["\"ice-0\"", "W/\"ice-1\"", "ice-1"] {
        let reply = patch(&[FRAGMENT, ("If-Match", wrong)], candidate).await;
        reply.assert_problem(412, "if-match-failed", "If-Match");
    }
    assert!(!world.relay.asked().contains(&"patch_webrtc_leg".to_owned()));
    let reply = patch(&[FRAGMENT, ("If-Match", "\"ice-1\"")], candidate).await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (204, ""));

    let reply = patch(&[FRAGMENT, ("If-Match", "*")], "a=restart\r\n").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("etag"), "\"ice-2\"");
    assert_eq!(reply.header("content-type"), "application/trickle-ice-sdpfrag");
    assert_eq!(reply.text, "a=ice-ufrag:new\r\n");
    let reply = patch(&[FRAGMENT, ("If-Match", "\"ice-1\"")], candidate).await;
    reply.assert_problem(412, "if-match-failed", "If-Match");
    let reply = patch(&[FRAGMENT, ("If-Match", "\"x\", \"ice-2\"")], candidate).await;
    assert_eq!(reply.status, 204);
    *world.relay.refusal.lock().unwrap() = Some(AdmitError::BadSdp("no ufrag".into()));
    patch(&[FRAGMENT, ("If-Match", "*")], "x").await.assert_problem(400, "sdp-invalid", "body");
}

#[tokio::test]
async fn a_resource_is_its_owners_alone() {
    let (world, token) = with_feed().await;
    let path = open(&world, &token).await.header("location").to_owned();
    let other = world.join(Role::Coordinator).await.token;
    let headers = [FRAGMENT, ("If-Match", "*")];
    let reply = world.ask(Method::PATCH, &path, Some(&other), &headers, "x").await;
    reply.assert_problem(404, "leg-missing", "leg");
    world.delete(&path, &other).await.assert_problem(404, "leg-missing", "leg");
    let reply = world.ask(Method::DELETE, &path, None, &[], "").await;
    reply.assert_problem(401, "token-missing", "Authorization");
    assert_eq!(world.delete(&path, &token).await.status, 200);
    assert!(world.relay.asked().last().unwrap().starts_with("close_leg l"));
    world.delete(&path, &token).await.assert_problem(404, "leg-missing", "leg");
    let reply = world.ask(Method::PATCH, &path, Some(&token), &headers, "x").await;
    reply.assert_problem(404, "leg-missing", "leg");
}

#[tokio::test]
async fn a_player_gets_the_sound_that_belongs_to_the_picture() {
    let world = World::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join_with(Role::Observer, None).await);
    for (feed, kind, source) in
        [("scope", "video", "tower-1"), ("music", "audio", "radio"), ("tower-sound", "audio", "tower-1")]
    {
        let mut feed = descriptor(feed);
        feed["kind"] = json!(kind);
        feed["source"] = json!(source);
        assert_eq!(world.post(&world.path("/feeds"), Some(&local.token), &feed).await.status, 201);
    }
    for (feed, asked) in [
        ("scope", "open_webrtc_leg scope with tower-sound"),
        ("tower-sound", "open_webrtc_leg tower-sound with scope"),
        ("music", "open_webrtc_leg music"),
    ] {
        let path = world.path(&format!("/feeds/{feed}/whep"));
        assert_eq!(world.ask(Method::POST, &path, Some(&viewer.token), &[SDP], "v=0\r\n").await.status, 201);
        assert_eq!(world.relay.asked().last().unwrap(), asked);
    }
}

#[tokio::test]
async fn who_cannot_decode_a_feed_is_told_which_it_can() {
    let (world, token) = with_feed().await;
    let alternatives = vec![FeedId::new("scope-h264").unwrap(), FeedId::new("room").unwrap()];
    *world.relay.refusal.lock().unwrap() =
        Some(AdmitError::NotAcceptable { detail: "the offer has no H265".into(), alternatives });
    let reply = open(&world, &token).await;
    reply.assert_problem(406, "not-acceptable", "body");
    assert_eq!(reply.json()["alternatives"], json!(["scope-h264", "room"]));
    *world.relay.refusal.lock().unwrap() = Some(AdmitError::BadSdp("line 2".into()));
    assert!(open(&world, &token).await.json().get("alternatives").is_none());
}

#[tokio::test]
async fn a_leg_that_the_relay_lost_is_gone() {
    let (world, token) = with_feed().await;
    let path = open(&world, &token).await.header("location").to_owned();
    let leg = LegId::new(path.rsplit('/').next().unwrap()).unwrap();
    world.app.live().handle_leg_state(&leg, LegState::Connected);
    world.app.live().handle_leg_state(&leg, LegState::Closed);
    world.delete(&path, &token).await.assert_problem(404, "leg-missing", "leg");
}

#[tokio::test]
async fn a_leg_goes_on_with_another_feed_when_its_owner_asks() {
    let (world, token) = with_feed().await;
    let local = world.join(Role::Local).await;
    assert_eq!(world.publish(&local.token, "scope-detail").await.status, 201);
    let location = open(&world, &token).await.header("location").to_owned();
    let name = location.rsplit('/').next().unwrap().to_owned();
    let path = world.path(&format!("/legs/{name}"));
    let patch = |token: String, body: Value| {
        let (world, path) = (&world, &path);
        let json = [("Content-Type", "application/json")];
        async move { world.ask(Method::PATCH, path, Some(&token), &json, body.to_string()).await }
    };
    assert_eq!(patch(token.clone(), json!({"feed": "scope-detail"})).await.status, 202);
    assert_eq!(world.relay.asked().last().unwrap(), &format!("switch_leg {name} to scope-detail"));
    patch(token.clone(), json!({"feed": "none"})).await.assert_problem(404, "feed-missing", "feed");
    patch(token.clone(), json!({"feed": "scope", "x": 1})).await.assert_problem(400, "json-field", "x");
    let other = world.join_with(Role::Observer, None).await.token;
    patch(other, json!({"feed": "scope"})).await.assert_problem(404, "leg-missing", "leg");
    *world.relay.refusal.lock().unwrap() =
        Some(AdmitError::NotAcceptable { detail: "another source".into(), alternatives: vec![] });
    patch(token.clone(), json!({"feed": "scope"})).await.assert_problem(406, "not-acceptable", "feed");
    *world.relay.refusal.lock().unwrap() = None;

    // Until the relay says that it did, the leg belongs to the feed that it shows: its end ends the leg.
    let leg = trocar_proto::session::ids::LegId::new(name.clone()).unwrap();
    world.app.live().handle_switched(&leg, FeedId::new("scope-detail").unwrap());
    assert_eq!(world.delete(&world.path("/feeds/scope-detail"), &local.token).await.status, 204);
    patch(token, json!({"feed": "scope"})).await.assert_problem(404, "leg-missing", "leg");
}
