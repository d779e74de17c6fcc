//! Feeds and RTP over QUIC legs.

use super::*;
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::{FeedState, RoqBinding};
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::{Micros, WallMicros};

#[tokio::test]
async fn a_publisher_gets_flow_ids_and_everyone_sees_the_feed() {
    let world = World::new().await;
    let (local, observer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let reply = world.publish(&local.token, "scope").await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert_eq!(reply.header("location"), world.path("/feeds/scope"));
    let binding: RoqBinding = serde_json::from_str(&reply.text).unwrap();
    assert_eq!((binding.rtp_flow_id, binding.rtcp_flow_id), (FlowId(2), FlowId(3)));
    assert_eq!(world.relay.asked(), ["open_feed scope north"]);

    let feed = world.get(reply.header("location"), &observer.token).await.json();
    assert_eq!(feed["publisher"], local.participant.as_str());
    assert_eq!(feed["state"], "waiting");
    assert_eq!(feed["descriptor"]["transport"]["roq"]["rtp_flow_id"], 2);
    let feeds = world.get(&world.path("/feeds"), &observer.token).await.json();
    assert_eq!(feeds.as_array().unwrap().len(), 1);
    assert_eq!(world.get(&world.path(""), &observer.token).await.json()["feeds"][0], feed);
    world.get(&world.path("/feeds/room"), &observer.token).await.assert_problem(404, "feed-missing", "feed");
}

#[tokio::test]
async fn a_name_is_given_once() {
    let world = World::new().await;
    let (local, expert) = (world.join(Role::Local).await, world.join(Role::Expert).await);
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
    world.publish(&local.token, "scope").await.assert_problem(409, "feed-exists", "feed");
    let other_device = world.join_with(Role::Expert, Some(CertHash([8; 32]))).await;
    world.publish(&other_device.token, "scope").await.assert_problem(409, "feed-exists", "feed");
    drop(expert);
}

#[tokio::test]
async fn a_publisher_that_dropped_and_joined_again_goes_on_with_its_feed() {
    let world = World::new().await;
    let first = world.join(Role::Local).await;
    assert_eq!(world.publish(&first.token, "scope").await.status, 201);
    let again = world.join(Role::Local).await;
    let mut changed = descriptor("scope");
    changed["codec"] = json!("H265");
    let reply = world.post(&world.path("/feeds"), Some(&again.token), &changed).await;
    reply.assert_problem(409, "feed-exists", "feed");
    let socket = world.app.live().attach(wall_clock(), &world.session, &first.participant).unwrap();
    world.publish(&again.token, "scope").await.assert_problem(409, "feed-exists", "feed");
    world.app.live().detach(world.app.now(), &world.session, &first.participant, socket.serial);
    let reply = world.publish(&again.token, "scope").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["rtp_flow_id"], 2);
    assert_eq!(world.relay.asked(), ["open_feed scope north"]);
    let feed = world.get(&world.path("/feeds/scope"), &again.token).await.json();
    assert_eq!(feed["publisher"], again.participant.as_str());
}

#[tokio::test]
async fn publishing_and_viewing_by_quic_need_a_certificate() {
    let world = World::new().await;
    let (local, bare) = (world.join(Role::Local).await, world.join_with(Role::Local, None).await);
    world.publish(&bare.token, "scope").await.assert_problem(403, "cnf-missing", "cnf");
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
    let path = world.path("/feeds/scope/legs");
    let reply = world.ask(Method::POST, &path, Some(&bare.token), &[], "").await;
    reply.assert_problem(403, "cnf-missing", "cnf");
}

#[tokio::test]
async fn only_the_publisher_or_a_manager_ends_a_feed() {
    let world = World::new().await;
    let (local, boss) = (world.join(Role::Local).await, world.join(Role::Coordinator).await);
    let viewer = world.join(Role::Expert).await;
    for manager in [&local, &boss] {
        assert_eq!(world.publish(&local.token, "scope").await.status, 201);
        let path = world.path("/feeds/scope");
        world.delete(&path, &viewer.token).await.assert_problem(403, "verb-missing", "verbs");
        assert_eq!(world.delete(&path, &manager.token).await.status, 204);
        assert_eq!(world.relay.asked().last().unwrap(), "close_feed scope");
        world.delete(&path, &manager.token).await.assert_problem(404, "feed-missing", "feed");
    }
}

#[tokio::test]
async fn a_viewer_opens_and_ends_a_leg() {
    let world = World::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    world.publish(&local.token, "scope").await;
    let path = world.path("/feeds/scope/legs");
    let reply = world.ask(Method::POST, &path, Some(&viewer.token), &[], "").await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let binding: RoqBinding = serde_json::from_str(&reply.text).unwrap();
    let leg = binding.leg.unwrap();
    assert_eq!(binding.feed.feed, FeedId::new("scope").unwrap());
    assert_eq!(reply.header("location"), world.path(&format!("/legs/{leg}")));
    let reply = world.post(&path, Some(&viewer.token), &json!({"speed": 1})).await;
    reply.assert_problem(400, "json-field", "speed");

    let other = world.join(Role::Expert).await;
    let leg_path = world.path(&format!("/legs/{leg}"));
    world.delete(&leg_path, &other.token).await.assert_problem(404, "leg-missing", "leg");
    assert_eq!(world.delete(&leg_path, &viewer.token).await.status, 204);
    assert_eq!(world.relay.asked().last().unwrap(), &format!("close_leg {leg}"));
    let reply = world.ask(Method::POST, &world.path("/feeds/room/legs"), Some(&viewer.token), &[], "").await;
    reply.assert_problem(404, "feed-missing", "feed");
}

#[tokio::test]
async fn a_leg_may_ask_for_streams_and_two_paths_and_for_nothing_that_is_not_there() {
    let world = World::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    world.publish(&local.token, "scope").await;
    let path = world.path("/feeds/scope/legs");
    for right in [json!({}), json!({"mode": "stream"}), json!({"mode": "datagram", "paths": 2})] {
        let reply = world.post(&path, Some(&viewer.token), &right).await;
        assert_eq!(reply.status, 201, "{right}: {}", reply.text);
        let binding: RoqBinding = serde_json::from_str(&reply.text).unwrap();
        assert_eq!(binding.relay_alternates, ["10.1.0.1:4433"]);
    }
    for (wrong, kind, field) in [
        (json!({"paths": 0}), "field-invalid", "paths"),
        (json!({"paths": 3}), "field-invalid", "paths"),
        (json!({"mode": "carrier-pigeon"}), "json-field", "mode"),
    ] {
        world.post(&path, Some(&viewer.token), &wrong).await.assert_problem(400, kind, field);
    }
}

#[tokio::test]
async fn ending_a_feed_ends_its_legs() {
    let world = World::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    world.publish(&local.token, "scope").await;
    let reply = world.ask(Method::POST, &world.path("/feeds/scope/legs"), Some(&viewer.token), &[], "").await;
    let leg = reply.json()["leg"].as_str().unwrap().to_owned();
    world.delete(&world.path("/feeds/scope"), &local.token).await;
    let asked = world.relay.asked();
    assert!(asked.contains(&format!("close_leg {leg}")) && asked.contains(&"close_feed scope".to_owned()));
    world.delete(&world.path(&format!("/legs/{leg}")), &viewer.token).await.assert_problem(404, "leg-missing", "leg");
}

#[tokio::test]
async fn a_feed_that_the_relay_ended_is_announced_again_at_once_and_nobody_closes_that_one() {
    let world = World::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    world.publish(&local.token, "scope").await;
    world.ask(Method::POST, &world.path("/feeds/scope/legs"), Some(&viewer.token), &[], "").await;
    let key = FeedKey { session: world.session.clone(), feed: FeedId::new("scope").unwrap() };
    crate::server::hear(&world.app, RelayEvent::FeedClosed { key });
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
    let asked = || world.relay.asked().iter().map(|a| a.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    let all_done = async {
        while asked().len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), all_done).await.unwrap();
    let mut seen = asked();
    seen.sort();
    assert_eq!(
        seen,
        ["close_leg", "open_feed", "open_feed", "open_roq_leg"],
        "where its owner ends it, it is closed: see above"
    );
}

#[tokio::test]
async fn what_the_relay_refuses_is_a_problem_and_frees_the_name() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let cases = [
        (AdmitError::Full("feeds".into()), 503, "relay-full"),
        (AdmitError::Unavailable, 503, "relay-unavailable"),
        (AdmitError::NoSuchRealm(RealmId::new("north").unwrap()), 503, "realm-unserved"),
        (AdmitError::FeedExists, 409, "feed-exists"),
    ];
    for (refusal, status, name) in cases {
        *world.relay.refusal.lock().unwrap() = Some(refusal);
        let reply = world.publish(&local.token, "scope").await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["type"].clone()),
            (status, json!(format!("urn:trocar:problem:{name}")))
        );
    }
    *world.relay.refusal.lock().unwrap() = None;
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
}

#[tokio::test]
async fn a_relay_that_does_not_answer_is_given_up_and_cleaned_up() {
    let mut config = config();
    config.limits.admission_timeout = Duration::from_millis(50);
    let world = World::with(config).await;
    let local = world.join(Role::Local).await;
    *world.relay.silent.lock().unwrap() = true;
    let reply = world.publish(&local.token, "scope").await;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(world.relay.asked(), ["open_feed scope north", "close_feed scope"]);
}

#[tokio::test]
async fn a_session_that_closes_while_the_relay_is_asked_leaves_nothing_behind() {
    let mut config = config();
    config.limits.admission_timeout = Duration::from_millis(100);
    let world = World::with(config).await;
    let local = world.join(Role::Local).await;
    *world.relay.silent.lock().unwrap() = true;
    let publishing = world.publish(&local.token, "scope");
    let closing = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.app.close_session(&world.session, None).await.unwrap();
    };
    let (reply, ()) = tokio::join!(publishing, closing);
    assert_eq!(reply.status, 503);
    assert_eq!(world.relay.asked().last().unwrap(), "close_feed scope");
}

#[tokio::test]
async fn limits_on_feeds_and_legs_hold() {
    let mut config = config();
    config.limits.feeds_per_session = 1;
    config.limits.legs_per_participant = 1;
    let world = World::with(config).await;
    let local = world.join(Role::Local).await;
    assert_eq!(world.publish(&local.token, "scope").await.status, 201);
    world.publish(&local.token, "room").await.assert_problem(503, "limit-reached", "feeds");
    let path = world.path("/feeds/scope/legs");
    assert_eq!(world.ask(Method::POST, &path, Some(&local.token), &[], "").await.status, 201);
    let reply = world.ask(Method::POST, &path, Some(&local.token), &[], "").await;
    reply.assert_problem(503, "limit-reached", "legs");
}

#[tokio::test]
async fn feeds_and_legs_outlive_the_last_socket_by_the_grace_period() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let id = &local.participant;
    let socket = world.app.live().attach(wall_clock(), &world.session, id).unwrap();
    world.publish(&local.token, "scope").await;
    world.ask(Method::POST, &world.path("/feeds/scope/legs"), Some(&local.token), &[], "").await;
    let gone = world.app.now();
    world.app.live().detach(gone, &world.session, id, socket.serial);
    let grace = Micros(gone.0 + 200_000);
    let early = world.app.live().sweep(Micros(grace.0 - 1), wall_clock());
    assert!(early.closings.is_empty());
    // Back in time: nothing happens.
    let socket = world.app.live().attach(wall_clock(), &world.session, id).unwrap();
    assert!(world.app.live().sweep(Micros(grace.0 + 1_000_000), wall_clock()).closings.is_empty());
    world.app.live().detach(gone, &world.session, id, socket.serial);
    assert_eq!(world.app.live().sweep(grace, wall_clock()).closings.len(), 2);
    assert!(world.app.live().feed_infos(&world.session).unwrap().is_empty());
}

#[tokio::test]
async fn an_expired_token_does_not_end_what_carries_media() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    world.publish(&local.token, "scope").await;
    let key = FeedKey { session: world.session.clone(), feed: FeedId::new("scope").unwrap() };
    world.app.live().handle_feed_state(&key, FeedState::Live, wall_clock());
    let later = WallMicros(wall_clock().0 + 400_000_000);
    assert!(world.app.live().sweep(world.app.now(), later).closings.is_empty());
    world.app.live().handle_feed_state(&key, FeedState::Stalled, wall_clock());
    let swept = world.app.live().sweep(world.app.now(), later);
    assert_eq!(swept.closings.len(), 1);
    assert_eq!(swept.forgotten.len(), 1);
}
