//! Whose a feed is: what outlives a token, what belongs together, who takes up what, and how much one may have.

use super::whip::{OFFER, PICTURE, SDP, feeds, publication, publish};
use super::*;
use trocar_proto::session::api::FeedState;
use trocar_proto::session::event::LegState;
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::WallMicros;

const SOUND: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=sendonly\r\n";

const LISTENS: &str = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=recvonly\r\n";

fn key(world: &World, feed: &str) -> FeedKey {
    FeedKey { session: world.session.clone(), feed: FeedId::new(feed).unwrap() }
}

fn after(seconds: u64) -> WallMicros {
    WallMicros(wall_clock().0 + seconds * 1_000_000)
}

fn voice(feed: &str) -> Value {
    let mut voice = descriptor(feed);
    for (name, value) in [
        ("kind", json!("audio")),
        ("purpose", json!("voice")),
        ("codec", json!("opus")),
        ("clock_rate", json!(48_000)),
        ("max_bitrate", json!(128_000)),
    ] {
        voice[name] = value;
    }
    voice
}

#[tokio::test]
async fn a_stall_after_the_token_ended_blinds_nobody_while_the_publication_is_connected() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let secret = world.app.invite(&world.session, Role::Local, 3600, None).await.unwrap().invitation;
    for (bearer, query) in [(&local.token, "?feed=one"), (&secret, "?feed=two")] {
        let id = publication(&publish(&world, bearer, query, OFFER).await);
        world.app.live().handle_publication_state(&id, LegState::Connected);
    }
    let voices = world.ask(Method::POST, &world.path("/voices/whep"), Some(&local.token), &[SDP], LISTENS).await;
    let leg = LegId::new(voices.header("location").rsplit('/').next().unwrap()).unwrap();
    world.app.live().handle_leg_state(&leg, LegState::Connected);
    for feed in ["one", "two"] {
        world.app.live().handle_feed_state(&key(&world, feed), FeedState::Live, wall_clock());
        world.app.live().handle_feed_state(&key(&world, feed), FeedState::Stalled, wall_clock());
    }
    let swept = world.app.live().sweep(world.app.now(), after(400));
    assert!(swept.closings.is_empty() && swept.forgotten.is_empty(), "{swept:?}");
    // What is no longer connected goes, and with it its participant.
    let id = world.app.live().feed_info(&key(&world, "one")).unwrap().publisher;
    assert_eq!(id, local.participant);
    world.app.live().handle_leg_state(&leg, LegState::Connecting);
    let closings = world.app.live().sweep(world.app.now(), after(400)).closings;
    assert_eq!(closings, [crate::live::Closing::Leg(leg)]);
}

#[tokio::test]
async fn a_native_feed_that_just_stalled_outlives_its_token_by_the_grace_period() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    world.publish(&local.token, "scope").await;
    world.app.live().handle_feed_state(&key(&world, "scope"), FeedState::Stalled, after(400));
    assert!(world.app.live().sweep(world.app.now(), after(400)).closings.is_empty());
    assert_eq!(world.app.live().sweep(world.app.now(), after(401)).closings.len(), 1);
}

#[tokio::test]
async fn the_sound_beside_a_picture_is_never_a_strangers_and_never_the_viewers_own() {
    let world = World::new().await;
    let (local, stranger) = (world.join(Role::Local).await, world.join(Role::Expert).await);
    let viewer = world.join(Role::Observer).await;
    publish(&world, &local.token, "?feed=scope&source=tower", PICTURE).await;
    publish(&world, &stranger.token, "?audio_feed=intruder&source=tower", SOUND).await;
    let watch = async |token: &str| {
        world.ask(Method::POST, &world.path("/feeds/scope/whep"), Some(token), &[SDP], "v=0\r\n").await;
        world.relay.asked().last().unwrap().clone()
    };
    assert_eq!(watch(&viewer.token).await, "open_webrtc_leg scope");
    publish(&world, &local.token, "?audio_feed=talk&source=tower", SOUND).await;
    assert_eq!(watch(&viewer.token).await, "open_webrtc_leg scope with talk");
    assert_eq!(watch(&local.token).await, "open_webrtc_leg scope", "nobody hears themselves");
}

#[tokio::test]
async fn picture_and_sound_of_one_invitation_or_one_device_belong_together() {
    let world = World::new().await;
    let viewer = world.join(Role::Observer).await;
    let secret = world.app.invite(&world.session, Role::Local, 3600, None).await.unwrap().invitation;
    publish(&world, &secret, "?feed=obs&source=desk", PICTURE).await;
    publish(&world, &secret, "?audio_feed=obs-talk&source=desk", SOUND).await;
    // Two participants with one certificate, as after a publisher joined again.
    let (one, two) = (world.join(Role::Local).await, world.join(Role::Local).await);
    world.publish(&one.token, "scope").await;
    assert_eq!(world.post(&world.path("/feeds"), Some(&two.token), &voice("theatre")).await.status, 201);
    for (feed, expected) in
        [("obs", "open_webrtc_leg obs with obs-talk"), ("scope", "open_webrtc_leg scope with theatre")]
    {
        world
            .ask(Method::POST, &world.path(&format!("/feeds/{feed}/whep")), Some(&viewer.token), &[SDP], "v=0\r\n")
            .await;
        assert_eq!(world.relay.asked().last().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_crashed_encoder_takes_its_feed_name_again_at_once() {
    let world = World::new().await;
    let (local, other) = (world.join(Role::Local).await, world.join(Role::Local).await);
    let secret = world.app.invite(&world.session, Role::Local, 3600, None).await.unwrap().invitation;
    let foreign = world.app.invite(&world.session, Role::Local, 3600, None).await.unwrap().invitation;
    for (owner, query, stranger) in [
        (&local.token, "?feed=scope", &other.token),
        (&secret, "?feed=obs", &foreign),
        (&secret, "?feed=obs2", &local.token),
    ] {
        let old = publish(&world, owner, query, OFFER).await;
        assert_eq!(old.status, 201);
        publish(&world, stranger, query, OFFER).await.assert_problem(409, "feed-exists", "feed");
        let before = world.relay.asked().len();
        let new = publish(&world, owner, query, OFFER).await;
        assert_eq!(new.status, 201, "{}", new.text);
        let feed = &query["?feed=".len()..];
        let expected =
            [format!("close_publication {}", publication(&old)), format!("open_publication {feed} {feed}-audio")];
        assert_eq!(world.relay.asked()[before..], expected, "the old one is closed first");
        // What the relay says about the old one late concerns nobody.
        world.app.live().handle_publication_state(&publication(&old), LegState::Closed);
        assert!(feeds(&world, &local.token).await.contains(&feed.to_owned()));
        assert_eq!(world.delete(old.header("location"), owner).await.status, 404);
        assert_eq!(world.delete(new.header("location"), owner).await.status, 200);
    }
}

#[tokio::test]
async fn what_is_refused_takes_no_place_of_anything() {
    let mut config = config();
    config.limits.bitrate_per_participant = 20_000_000;
    let world = World::with(config).await;
    let local = world.join(Role::Local).await;
    publish(&world, &local.token, "?feed=scope", OFFER).await;
    let reply = publish(&world, &local.token, "?feed=scope&max_bitrate=20000000", OFFER).await;
    reply.assert_problem(400, "field-invalid", "max_bitrate");
    publish(&world, &local.token, "?feed=scope&audio_feed=x&purpose=voice", OFFER).await;
    assert_eq!(feeds(&world, &local.token).await, ["scope", "scope-audio"]);
    assert_eq!(world.relay.asked(), ["open_publication scope scope-audio"]);
}

#[tokio::test]
async fn a_voice_taken_up_by_a_new_participant_is_opened_anew_so_that_it_does_not_hear_itself() {
    let world = World::new().await;
    let first = world.join(Role::Local).await;
    let announce = async |token: &str| world.post(&world.path("/feeds"), Some(token), &voice("talk")).await;
    assert_eq!(announce(&first.token).await.status, 201);
    let again = world.join(Role::Local).await;
    let reply = announce(&again.token).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(world.relay.asked(), ["open_feed talk north", "close_feed talk", "open_feed talk north"]);
    assert_eq!(*world.relay.publishers.lock().unwrap(), [first.participant, again.participant.clone()]);
    let feed = world.get(&world.path("/feeds/talk"), &again.token).await.json();
    assert_eq!(feed["publisher"], again.participant.as_str());
    let other = world.join_with(Role::Local, Some(CertHash([8; 32]))).await;
    announce(&other.token).await.assert_problem(409, "feed-exists", "feed");
}

#[tokio::test]
async fn the_feeds_of_one_participant_have_a_bit_rate_together() {
    let world = World::new().await;
    let (local, other) = (world.join(Role::Local).await, world.join(Role::Local).await);
    let mut native = descriptor("native");
    // A device's uncompressed pictures; what comes by WHIP has a limit of its own.
    native["max_bitrate"] = json!(2_000_000_000);
    assert_eq!(world.post(&world.path("/feeds"), Some(&local.token), &native).await.status, 201);
    (native["feed"], native["max_bitrate"]) = (json!("second"), json!(1_900_000_000));
    assert_eq!(world.post(&world.path("/feeds"), Some(&local.token), &native).await.status, 201);
    (native["feed"], native["max_bitrate"]) = (json!("third"), json!(250_000_000));
    let reply = world.post(&world.path("/feeds"), Some(&local.token), &native).await;
    reply.assert_problem(400, "field-invalid", "max_bitrate");
    assert!(reply.json()["detail"].as_str().unwrap().contains("100000000"), "{}", reply.text);
    let whip = async |token: &str, query: &str| publish(&world, token, query, PICTURE).await;
    for n in ["a", "a2", "a3"] {
        assert_eq!(whip(&local.token, &format!("?feed={n}&max_bitrate=100000000")).await.status, 201);
    }
    assert_eq!(whip(&local.token, "?feed=a4&max_bitrate=50000000").await.status, 201);
    whip(&local.token, "?feed=b&max_bitrate=50000001").await.assert_problem(400, "field-invalid", "max_bitrate");
    assert_eq!(whip(&local.token, "?feed=b&max_bitrate=50000000").await.status, 201);
    assert_eq!(whip(&other.token, "?feed=c").await.status, 201, "others have their own");
    assert_eq!(whip(&local.token, "?feed=b&max_bitrate=50000000").await.status, 201, "what ends does not count");
    // Guests of one invitation are one.
    let secret = world.app.invite(&world.session, Role::Local, 3600, None).await.unwrap().invitation;
    for n in 0..4 {
        assert_eq!(whip(&secret, &format!("?feed=g{n}&max_bitrate=100000000")).await.status, 201);
    }
    whip(&secret, "?feed=g4&max_bitrate=1000").await.assert_problem(400, "field-invalid", "max_bitrate");
}

#[tokio::test]
async fn a_sound_alone_may_have_half_a_megabit() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let reply = publish(&world, &local.token, "?audio_feed=a&max_bitrate=512001", SOUND).await;
    reply.assert_problem(400, "field-invalid", "max_bitrate");
    assert_eq!(publish(&world, &local.token, "?audio_feed=a&max_bitrate=512000", SOUND).await.status, 201);
    let feed = world.app.live().feed_info(&key(&world, "a")).unwrap();
    assert_eq!(feed.descriptor.max_bitrate.0, 512_000);
}

#[tokio::test]
async fn a_name_is_free_only_when_the_relay_has_closed_what_it_may_have_opened() {
    let world = World::new().await;
    let (local, other) = (world.join(Role::Local).await, world.join(Role::Expert).await);
    for kind in ["feed", "publication"] {
        let open = async |token: &str| match kind {
            "feed" => world.publish(token, "scope").await,
            _ => publish(&world, token, "?feed=scope", PICTURE).await,
        };
        *world.relay.refusal.lock().unwrap() = Some(AdmitError::Unavailable);
        *world.relay.holds_close.lock().unwrap() = true;
        let meanwhile = async {
            world.relay.closes.notified().await;
            assert!(world.relay.asked().last().unwrap().starts_with(&format!("close_{kind}")));
            *world.relay.refusal.lock().unwrap() = None;
            *world.relay.holds_close.lock().unwrap() = false;
            open(&other.token).await.assert_problem(409, "feed-exists", "feed");
            world.relay.may_close.notify_one();
        };
        let (reply, ()) = tokio::join!(open(&local.token), meanwhile);
        assert_eq!(reply.status, 503);
        assert_eq!(open(&other.token).await.status, 201, "the name is free");
        world.delete(&world.path("/feeds/scope"), &other.token).await;
    }
}

#[tokio::test]
async fn what_the_relay_says_about_a_feed_that_ended_does_not_stick_to_the_next_of_its_name() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    publish(&world, &local.token, "?feed=scope", PICTURE).await;
    let old = world.app.live().feed_info(&key(&world, "scope")).unwrap().descriptor;
    world.delete(&world.path("/feeds/scope"), &local.token).await;
    world.publish(&local.token, "scope").await;
    let before = world.app.live().feed_info(&key(&world, "scope")).unwrap().descriptor;
    let mut learnt = old;
    (learnt.width, learnt.height) = (320, 180);
    world.app.live().handle_descriptor(&key(&world, "scope"), learnt);
    assert_eq!(world.app.live().feed_info(&key(&world, "scope")).unwrap().descriptor, before, "that was WebRTC");
    for change in [("codec", json!("VP8")), ("clock_rate", json!(48_000)), ("source", json!("other"))] {
        let mut stale = serde_json::to_value(&before).unwrap();
        stale[change.0] = change.1;
        stale["width"] = json!(320);
        world.app.live().handle_descriptor(&key(&world, "scope"), serde_json::from_value(stale).unwrap());
        assert_eq!(world.app.live().feed_info(&key(&world, "scope")).unwrap().descriptor, before, "{}", change.0);
    }
    let mut own = before.clone();
    own.width = 1280;
    world.app.live().handle_descriptor(&key(&world, "scope"), own);
    assert_eq!(world.app.live().feed_info(&key(&world, "scope")).unwrap().descriptor.width, 1280);
}

#[tokio::test]
async fn a_feed_that_is_being_opened_has_no_state_yet() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let descriptor = serde_json::from_value(descriptor("scope")).unwrap();
    let offer = crate::live::FeedOffer {
        session: world.session.clone(),
        publisher: local.participant.clone(),
        cnf: CertHash([7; 32]),
        descriptor,
    };
    let reserved = world.app.live().reserve_feed(world.app.now(), wall_clock(), offer).unwrap();
    let crate::live::Announced::New(ticket, _, first) = reserved else { panic!("{reserved:?}") };
    assert!(first.is_empty());
    world.app.live().handle_feed_state(&key(&world, "scope"), FeedState::Live, wall_clock());
    world.app.live().commit_feed(&ticket, FakeRelay::binding()).unwrap();
    assert_eq!(world.app.live().feed_info(&key(&world, "scope")).unwrap().state, FeedState::Waiting);
}

#[tokio::test]
async fn a_voice_is_opus_and_frames_may_come_by_stream() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let announce = async |body: &Value| world.post(&world.path("/feeds"), Some(&local.token), body).await;
    for (name, value) in [("codec", json!("L16")), ("clock_rate", json!(16_000))] {
        let mut bad = voice("talk");
        bad[name] = value;
        announce(&bad).await.assert_problem(400, "field-invalid", "codec");
        bad["purpose"] = json!("room");
        bad["feed"] = json!(format!("room-{name}"));
        assert_eq!(announce(&bad).await.status, 201, "only voices are heard by everybody");
    }
    let mut by_stream = voice("talk");
    by_stream["codec"] = json!("OPUS");
    by_stream["transport"]["roq"]["mode"] = json!("stream");
    let reply = announce(&by_stream).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(reply.json()["feed"]["transport"]["roq"]["mode"], "stream");
}
