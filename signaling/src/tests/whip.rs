//! WHIP as encoders and browsers drive it: what is made, what ends it, and who may.

use super::*;
use trocar_proto::session::event::LegState;
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::WallMicros;

pub(super) const SDP: (&str, &str) = ("Content-Type", "application/sdp");
const FRAGMENT: (&str, &str) = ("Content-Type", "application/trickle-ice-sdpfrag");
/// A picture and a sound.
pub(super) const OFFER: &str = "v=0\r\na=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=sendonly\r\n\
                                m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=sendonly\r\n";
pub(super) const PICTURE: &str = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=sendonly\r\n";

pub(super) async fn publish(world: &World, token: &str, query: &str, offer: &str) -> Reply {
    world.ask(Method::POST, &world.path(&format!("/whip{query}")), Some(token), &[SDP], offer.to_owned()).await
}

pub(super) async fn feeds(world: &World, token: &str) -> Vec<String> {
    let feeds = world.get(&world.path("/feeds"), token).await.json();
    feeds.as_array().unwrap().iter().map(|f| f["descriptor"]["feed"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn publication(reply: &Reply) -> PublicationId {
    PublicationId::new(reply.header("location").rsplit('/').next().unwrap()).unwrap()
}

#[tokio::test]
async fn one_post_publishes_a_picture_and_its_sound() {
    let world = World::new().await;
    let (expert, viewer) = (world.join_with(Role::Expert, None).await, world.join(Role::Observer).await);
    let reply = publish(&world, &expert.token, "", OFFER).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(reply.text, format!("answer to {OFFER}"));
    assert_eq!(reply.header("content-type"), "application/sdp");
    assert_eq!(reply.header("etag"), "\"ice-1\"");
    assert_eq!(reply.header("accept-patch"), "application/trickle-ice-sdpfrag");
    assert!(reply.header("location").starts_with(&world.path("/whip/w")));
    let name = format!("cam-{}", &expert.participant.as_str()[..8]);
    assert_eq!(feeds(&world, &viewer.token).await, [name.clone(), format!("{name}-audio")]);
    let sound = world.get(&world.path(&format!("/feeds/{name}-audio")), &viewer.token).await.json();
    assert_eq!(sound["publisher"], expert.participant.as_str());
    assert_eq!(sound["descriptor"]["source"], name);
    assert_eq!(sound["descriptor"]["purpose"], "voice");
    assert_eq!(sound["descriptor"]["transport"], "webrtc");
    assert_eq!(sound["descriptor"]["max_bitrate"], 128_000);
}

#[tokio::test]
async fn the_address_says_what_the_feeds_are() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let query = "?feed=scope&audio_feed=talk&source=tower-1&view=detail&purpose=scope&max_bitrate=40000000\
                 &budget_ms=120&replay=true";
    assert_eq!(publish(&world, &local.token, query, OFFER).await.status, 201);
    assert_eq!(world.relay.asked(), ["open_publication scope talk"]);
    let feed = world.get(&world.path("/feeds/scope"), &local.token).await.json()["descriptor"].clone();
    let expected = json!({"source": "tower-1", "view": "detail", "purpose": "scope", "max_bitrate": 40_000_000,
                          "budget_ms": 120, "replay": true});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&feed[key], value, "{key}");
    }
    // Only what the offer sends is reserved.
    assert_eq!(publish(&world, &local.token, "?feed=room&audio_feed=talk", PICTURE).await.status, 201);
    assert_eq!(world.relay.asked().last().unwrap(), "open_publication room");
}

#[tokio::test]
async fn a_query_that_cannot_be_used_names_its_key() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let long = format!("?feed={}", "x".repeat(64));
    for (query, field) in [
        ("?colour=red", "colour"),
        ("?feed=a%20b", "feed"),
        ("?feed=a&feed=b", "feed"),
        ("?feed=a&audio_feed=a", "audio_feed"),
        (long.as_str(), "audio_feed"),
        ("?source=", "source"),
        ("?view=a%0Ab", "view"),
        ("?purpose=voice", "purpose"),
        ("?max_bitrate=0", "max_bitrate"),
        ("?max_bitrate=%2B5000", "max_bitrate"),
        ("?max_bitrate=100000001", "max_bitrate"),
        ("?budget_ms=10001", "budget_ms"),
        ("?replay=yes", "replay"),
    ] {
        publish(&world, &local.token, query, OFFER).await.assert_problem(400, "field-invalid", field);
    }
    assert!(world.relay.asked().is_empty());
}

#[tokio::test]
async fn names_are_given_once_and_freed_with_the_publication() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let first = publish(&world, &local.token, "?feed=scope", OFFER).await;
    assert_eq!(first.status, 201);
    let other = world.join(Role::Local).await;
    publish(&world, &other.token, "?feed=scope", OFFER).await.assert_problem(409, "feed-exists", "feed");
    let taken = publish(&world, &local.token, "?feed=room&audio_feed=scope-audio", OFFER).await;
    taken.assert_problem(409, "feed-exists", "audio_feed");
    world.publish(&local.token, "scope").await.assert_problem(409, "feed-exists", "feed");
    assert_eq!(world.delete(first.header("location"), &local.token).await.status, 200);
    assert!(world.relay.asked().last().unwrap().starts_with("close_publication w"));
    assert!(feeds(&world, &local.token).await.is_empty());
    assert_eq!(publish(&world, &local.token, "?feed=scope", OFFER).await.status, 201);
}

#[tokio::test]
async fn whatever_goes_wrong_neither_side_keeps_half() {
    let mut config = config();
    config.limits.admission_timeout = Duration::from_millis(50);
    let world = World::with(config).await;
    let local = world.join(Role::Local).await;
    for (refusal, status, name) in [
        (AdmitError::BadSdp("m=video: a=rtcp-mux".into()), 400, "sdp-invalid"),
        (AdmitError::NotAcceptable { detail: "no codec".into(), alternatives: vec![] }, 406, "not-acceptable"),
        (AdmitError::Full("feeds".into()), 503, "relay-full"),
        (AdmitError::Unavailable, 503, "relay-unavailable"),
    ] {
        *world.relay.refusal.lock().unwrap() = Some(refusal);
        let reply = publish(&world, &local.token, "?feed=scope", OFFER).await;
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.json()["type"], format!("urn:trocar:problem:{name}"));
    }
    *world.relay.refusal.lock().unwrap() = None;
    assert!(world.relay.asked().last().unwrap().starts_with("close_publication w"), "it may have been opened");

    let nothing = OFFER.to_owned() + "a=nothing that fits\r\n";
    let reply = publish(&world, &local.token, "?feed=scope", &nothing).await;
    reply.assert_problem(422, "sdp-unprocessable", "body");
    assert!(world.relay.asked().last().unwrap().starts_with("close_publication w"));

    *world.relay.silent.lock().unwrap() = true;
    assert_eq!(publish(&world, &local.token, "?feed=scope", OFFER).await.status, 503);
    let overtaken = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let closings = world.app.live().remove_participant(&world.session, &local.participant, "bye").unwrap();
        assert!(closings.is_empty(), "a reservation is not closed by others");
    };
    let (reply, ()) = tokio::join!(publish(&world, &local.token, "?feed=scope", OFFER), overtaken);
    assert_eq!(reply.status, 503);
    assert!(world.relay.asked().last().unwrap().starts_with("close_publication w"));
    *world.relay.silent.lock().unwrap() = false;
    let again = world.join(Role::Local).await;
    assert_eq!(publish(&world, &again.token, "?feed=scope", OFFER).await.status, 201, "the names are free");
}

#[tokio::test]
async fn a_publication_ends_with_its_last_feed() {
    let world = World::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let reply = publish(&world, &local.token, "?feed=scope", OFFER).await;
    let leg = world.ask(Method::POST, &world.path("/feeds/scope/whep"), Some(&viewer.token), &[SDP], "v=0\r\n").await;
    let leg = leg.header("location").rsplit('/').next().unwrap().to_owned();
    assert_eq!(world.delete(&world.path("/feeds/scope"), &local.token).await.status, 204);
    let asked = world.relay.asked();
    assert_eq!(asked[asked.len() - 2..], [format!("close_leg {leg}"), "close_feed scope".to_owned()]);
    assert_eq!(world.delete(&world.path("/feeds/scope-audio"), &local.token).await.status, 204);
    assert_eq!(world.relay.asked().last().unwrap(), &format!("close_publication {}", publication(&reply)));
    let gone = world.delete(reply.header("location"), &local.token).await;
    gone.assert_problem(404, "publication-missing", "publication");
}

#[tokio::test]
async fn what_the_relay_lost_is_gone_and_its_publisher_is_told() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let mut socket = world.app.live().attach(wall_clock(), &world.session, &local.participant).unwrap();
    let reply = publish(&world, &local.token, "?feed=scope", OFFER).await;
    let id = publication(&reply);
    world.app.live().handle_publication_state(&id, LegState::Connected);
    world.app.live().handle_publication_state(&id, LegState::Closed);
    world.app.live().handle_publication_state(&id, LegState::Closed);
    assert!(feeds(&world, &local.token).await.is_empty());
    let mut said = Vec::new();
    while let Ok(text) = socket.queue.try_recv() {
        let event: Value = serde_json::from_str(&text).unwrap();
        said.push(match event["type"].as_str().unwrap() {
            "publication" => format!("publication {}", event["state"].as_str().unwrap()),
            other => other.to_owned(),
        });
    }
    let expected =
        ["welcome", "feed", "feed", "publication connected", "feed_removed", "feed_removed", "publication closed"];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn leaving_and_closing_end_publications_at_the_relay() {
    let world = World::new().await;
    let (local, expert) = (world.join(Role::Local).await, world.join(Role::Expert).await);
    let one = publication(&publish(&world, &local.token, "?feed=scope", OFFER).await);
    let two = publication(&publish(&world, &expert.token, "", OFFER).await);
    world.app.remove_participant(&world.session, &local.participant, None).await.unwrap();
    assert_eq!(world.relay.asked().last().unwrap(), &format!("close_publication {one}"));
    world.app.close_session(&world.session, None).await.unwrap();
    assert_eq!(world.relay.asked().last().unwrap(), &format!("close_publication {two}"));
}

#[tokio::test]
async fn what_the_relay_learns_about_a_feed_is_told() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    publish(&world, &local.token, "?feed=scope", PICTURE).await;
    let key = FeedKey { session: world.session.clone(), feed: FeedId::new("scope").unwrap() };
    let mut learnt = world.app.live().feed_info(&key).unwrap().descriptor;
    (learnt.width, learnt.height, learnt.feed) = (1920, 1080, FeedId::new("another").unwrap());
    world.app.live().handle_descriptor(&key, learnt);
    let feed = world.get(&world.path("/feeds/scope"), &local.token).await.json()["descriptor"].clone();
    assert_eq!((&feed["width"], &feed["feed"]), (&json!(1920), &json!("scope")));
}

#[tokio::test]
async fn a_secret_is_a_bearer_for_encoders_and_players_and_for_nothing_else() {
    let world = World::new().await;
    let secret = world.app.invite(&world.session, Role::Expert, 3600, None).await.unwrap().invitation;
    let other = world.app.invite(&world.session, Role::Expert, 3600, None).await.unwrap().invitation;
    let watching = world.app.invite(&world.session, Role::Observer, 3600, None).await.unwrap().invitation;
    let viewer = world.join(Role::Observer).await;
    let reply = publish(&world, &secret, "?feed=obs", OFFER).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let resource = reply.header("location").to_owned();
    let feed = world.get(&world.path("/feeds/obs"), &viewer.token).await.json();
    let guest = ParticipantId::new(feed["publisher"].as_str().unwrap()).unwrap();
    assert_eq!(world.app.live().name_of(&world.session, &guest).unwrap(), "WHIP client");

    publish(&world, &watching, "?feed=x", OFFER).await.assert_problem(403, "verb-missing", "verbs");
    let restart = [FRAGMENT, ("If-Match", "*")];
    let patch = async |secret: &str| world.ask(Method::PATCH, &resource, Some(secret), &restart, "a=restart").await;
    assert_eq!(patch(&secret).await.status, 200);
    patch(&other).await.assert_problem(404, "publication-missing", "publication");
    patch("A".repeat(32).as_str()).await.assert_problem(401, "token-invalid", "Authorization");
    patch(&viewer.token).await.assert_problem(404, "publication-missing", "publication");

    for path in ["", "/feeds", "/feeds/obs", "/ice-servers"] {
        world.get(&world.path(path), &secret).await.assert_problem(401, "token-invalid", "Authorization");
    }
    world.delete(&world.path("/feeds/obs"), &secret).await.assert_problem(401, "token-invalid", "Authorization");
    assert_eq!(world.delete(&resource, &secret).await.status, 200);
    assert!(world.app.live().name_of(&world.session, &guest).is_err(), "the guest goes with its resource");
}

#[tokio::test]
async fn a_secret_from_another_session_or_past_its_time_is_refused() {
    let world = World::new().await;
    let elsewhere = world.app.create_session("elsewhere").await.unwrap();
    let foreign = world.app.invite(&elsewhere, Role::Expert, 3600, None).await.unwrap().invitation;
    publish(&world, &foreign, "", OFFER).await.assert_problem(403, "token-session", "session");
    let secret = world.app.invite(&world.session, Role::Expert, 60, None).await.unwrap().invitation;
    let made = publish(&world, &secret, "", OFFER).await;
    let later = WallMicros(wall_clock().0 + 61_000_000);
    world.app.live().sweep(world.app.now(), later);
    publish(&world, &secret, "?feed=b", OFFER).await.assert_problem(401, "token-invalid", "Authorization");
    let reply = world.delete(made.header("location"), &secret).await;
    assert_eq!(reply.status, 200, "what it made can be ended: {}", reply.text);
}

#[tokio::test]
async fn a_failed_attempt_leaves_no_guest_and_guessing_is_slowed_down() {
    let mut config = config();
    config.limits.joins = crate::Rate { burst: 4, per_second: 1 };
    config.limits.participants_per_session = 1;
    let world = World::with(config).await;
    let secret = world.app.invite(&world.session, Role::Expert, 3600, None).await.unwrap().invitation;
    *world.relay.refusal.lock().unwrap() = Some(AdmitError::Full("feeds".into()));
    for _ in 0..2 {
        publish(&world, &secret, "", OFFER).await;
    }
    *world.relay.refusal.lock().unwrap() = None;
    assert_eq!(publish(&world, &secret, "", OFFER).await.status, 201, "there is room for one");
    publish(&world, "guess", "", OFFER).await.assert_problem(401, "token-invalid", "Authorization");
    let reply = publish(&world, "guess-again", "", OFFER).await;
    reply.assert_problem(429, "too-many-requests", "address");
    assert_eq!(reply.header("retry-after"), "1");
    publish(&world, &secret, "", OFFER).await.assert_problem(429, "too-many-requests", "address");
}

/// A picture in three layers, with its sound.
fn layered() -> String {
    OFFER.replacen("a=sendonly", "a=simulcast:send q;h;f\r\na=sendonly", 1)
}

#[tokio::test]
async fn layers_of_a_picture_are_feeds_of_one_source_that_come_and_go_together() {
    let world = World::new().await;
    let expert = world.join_with(Role::Expert, None).await;
    let reply = publish(&world, &expert.token, "?feed=cam&max_bitrate=2000000", &layered()).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(world.relay.asked(), ["open_publication cam cam-half cam-quarter cam-audio"]);
    assert_eq!(feeds(&world, &expert.token).await, ["cam", "cam-audio", "cam-half", "cam-quarter"]);
    let described = |feed: &str| {
        let (path, token) = (world.path(&format!("/feeds/{feed}")), expert.token.clone());
        let world = &world;
        async move { world.get(&path, &token).await.json()["descriptor"].clone() }
    };
    for (feed, view, rate) in [
        ("cam", "overview", 2_000_000),
        ("cam-half", "overview-half", 1_000_000),
        ("cam-quarter", "overview-quarter", 500_000),
    ] {
        let d = described(feed).await;
        assert_eq!((&d["source"], &d["view"], &d["max_bitrate"]), (&json!("cam"), &json!(view), &json!(rate)));
    }
    let gone = world.delete(reply.header("location"), &expert.token).await;
    assert_eq!(gone.status, 200);
    assert_eq!(feeds(&world, &expert.token).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_layer_that_the_relay_did_not_open_leaves_its_name_free_and_one_that_is_taken_refuses_the_offer() {
    let world = World::new().await;
    let (a, b) = (world.join_with(Role::Expert, None).await, world.join_with(Role::Expert, None).await);
    let fewer = format!("{}a=note:one layer less\r\n", layered());
    assert_eq!(publish(&world, &a.token, "?feed=cam&max_bitrate=1000000", &fewer).await.status, 201);
    assert_eq!(feeds(&world, &a.token).await, ["cam", "cam-audio", "cam-half"]);
    assert_eq!(publish(&world, &b.token, "?feed=cam-quarter&max_bitrate=1000000", PICTURE).await.status, 201);
    // The same publisher comes back, and now all layers are there: one of the names is somebody else's.
    publish(&world, &a.token, "?feed=cam&max_bitrate=1000000", &layered()).await.assert_problem(
        409,
        "feed-exists",
        "feed",
    );
    assert_eq!(feeds(&world, &a.token).await, ["cam", "cam-audio", "cam-half", "cam-quarter"]);
}
