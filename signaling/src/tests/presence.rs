//! Who is seen: nobody watches or sends without the others knowing.

use super::whip::{OFFER, PICTURE, SDP, feeds, publication, publish};
use super::*;
use crate::live::Outbound;
use trocar_proto::session::event::LegState;

/// What the socket was told about presence, in order.
fn told(outbound: &mut Outbound) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(text) = outbound.queue.try_recv() {
        let event: Value = serde_json::from_str(&text).unwrap();
        match event["type"].as_str().unwrap() {
            "participant_joined" => {
                let guest = if event["participant"]["guest"] == true { " guest" } else { "" };
                all.push(format!("joined {}{guest}", event["participant"]["name"].as_str().unwrap()));
            }
            "participant_left" => all.push("left".to_owned()),
            _ => {}
        }
    }
    all
}

async fn people(world: &World, token: &str) -> Vec<(String, bool)> {
    let session = world.get(&world.path(""), token).await.json();
    let one = |p: &Value| (p["name"].as_str().unwrap().to_owned(), p["guest"].as_bool().unwrap());
    session["participants"].as_array().unwrap().iter().map(one).collect()
}

#[tokio::test]
async fn a_guest_by_secret_is_seen_for_as_long_as_it_watches_or_sends() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let mut socket = world.app.live().attach(wall_clock(), &world.session, &local.participant).unwrap();
    let secret = world.app.invite(&world.session, Role::Expert, 3600, None).await.unwrap().invitation;
    let sends = publish(&world, &secret, "?feed=obs", OFFER).await;
    assert_eq!(sends.status, 201, "{}", sends.text);
    assert_eq!(told(&mut socket), ["joined WHIP client guest"]);
    let path = world.path("/feeds/obs/whep");
    let watches = world.ask(Method::POST, &path, Some(&secret), &[SDP], "v=0\r\n").await;
    assert_eq!(watches.status, 201, "{}", watches.text);
    assert_eq!(told(&mut socket), ["joined WHEP client guest"]);
    let mut seen = people(&world, &local.token).await;
    seen.sort();
    let guest = |name: &str| (name.to_owned(), true);
    assert_eq!(seen, [guest("WHEP client"), guest("WHIP client"), ("local".to_owned(), false)]);

    assert_eq!(world.delete(watches.header("location"), &secret).await.status, 200);
    assert_eq!(told(&mut socket), ["left"]);
    world.app.live().handle_publication_state(&publication(&sends), LegState::Closed);
    assert_eq!(told(&mut socket), ["left"], "the relay lost its connection");
    assert_eq!(people(&world, &local.token).await, [("local".to_owned(), false)]);
    *world.relay.refusal.lock().unwrap() = Some(AdmitError::Full("feeds".into()));
    publish(&world, &secret, "?feed=obs", OFFER).await;
    assert_eq!(told(&mut socket), [""; 0], "what came to nothing is not told");
}

#[tokio::test]
async fn who_watches_without_an_event_socket_is_seen_and_no_guest() {
    let world = World::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let mut socket = world.app.live().attach(wall_clock(), &world.session, &local.participant).unwrap();
    world.publish(&local.token, "scope").await;
    let path = world.path("/feeds/scope/whep");
    let reply = world.ask(Method::POST, &path, Some(&viewer.token), &[SDP], "v=0\r\n").await;
    assert_eq!(told(&mut socket), ["joined observer"]);
    // A socket that comes and goes meanwhile changes nothing: the pictures are still watched.
    let second = world.app.live().attach(wall_clock(), &world.session, &viewer.participant).unwrap();
    world.app.live().detach(world.app.now(), &world.session, &viewer.participant, second.serial);
    assert_eq!(told(&mut socket), [""; 0]);
    assert_eq!(people(&world, &local.token).await.len(), 2);
    world.delete(reply.header("location"), &viewer.token).await;
    assert_eq!(told(&mut socket), ["left"]);
}

#[tokio::test]
async fn only_the_role_local_publishes_a_scope_by_whip() {
    let world = World::new().await;
    let (local, expert) = (world.join(Role::Local).await, world.join(Role::Expert).await);
    let secret = |role| world.app.invite(&world.session, role, 3600, None);
    let (theatre, remote) = (secret(Role::Local).await.unwrap(), secret(Role::Expert).await.unwrap());
    for bearer in [&expert.token, &remote.invitation] {
        let reply = publish(&world, bearer, "?feed=fake&purpose=scope", PICTURE).await;
        reply.assert_problem(403, "purpose-role", "purpose");
    }
    assert!(world.relay.asked().is_empty());
    for (bearer, query) in [
        (&local.token, "?feed=a&purpose=scope"),
        (&theatre.invitation, "?feed=b&purpose=scope"),
        (&expert.token, "?feed=c&purpose=secondary"),
    ] {
        assert_eq!(publish(&world, bearer, query, PICTURE).await.status, 201, "{query}");
    }
    assert_eq!(feeds(&world, &local.token).await, ["a", "b", "c"]);
}
