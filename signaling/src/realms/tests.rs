//! What people of other realms get, and what not.

use super::*;
use crate::tests::{Reply, World, config, descriptor};
use crate::token::Bearing;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use trocar_proto::session::ids::CertHash;

fn realm(name: &str) -> RealmId {
    RealmId::new(name).unwrap()
}

fn door(name: &str) -> RealmDoor {
    let listen = "127.0.0.1:0".parse().unwrap();
    RealmDoor { realm: realm(name), listen, advertise: Vec::new(), tls: config().tls }
}

fn policy(from: &str, verbs: &[RealmVerb]) -> RealmPolicy {
    RealmPolicy { from: realm(from), to: realm("north"), verbs: verbs.to_vec() }
}

/// A node of the realm north with a listener for south and one for east.
async fn node(policies: Vec<RealmPolicy>) -> World {
    let config = crate::Config { realms: vec![door("south"), door("east")], realm_policies: policies, ..config() };
    config.check().unwrap();
    World::with(config).await
}

/// A request that came by the listener of that realm.
async fn by(world: &World, came: &str, path: &str, token: Option<&str>, body: &Value) -> Reply {
    let mut request = Request::post(path).header("Content-Type", "application/json");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut request = request.body(Body::from(body.to_string())).unwrap();
    request.extensions_mut().insert(CameBy(Arc::new(realm(came))));
    world.send(request).await
}

async fn join(world: &World, came: &str, role: Role) -> Reply {
    let invitation = world.app.invite(&world.session, role, 3_600, None).await.unwrap();
    by(world, came, "/v1/join", None, &json!({"invitation": invitation.invitation, "cnf": "07".repeat(32)})).await
}

#[tokio::test]
async fn without_a_policy_nobody_of_another_realm_comes_in_and_the_answer_names_it() {
    let world = node(vec![policy("south", &[RealmVerb::View])]).await;
    let refused = join(&world, "east", Role::Expert).await;
    refused.assert_problem(403, "realm-denied", "realm_policy");
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("of realm east") && detail.contains("of realm north") && detail.contains("expert"),
        "{detail}"
    );
    assert_eq!(join(&world, "south", Role::Expert).await.status, 200);
    assert_eq!(join(&world, "north", Role::Expert).await.status, 200, "the node's own realm needs no policy");
}

#[tokio::test]
async fn a_policy_gives_what_it_says_of_the_role_and_a_refresh_no_more() {
    let world =
        node(vec![policy("south", &[RealmVerb::View]), policy("east", &[RealmVerb::View, RealmVerb::Operate])]).await;
    let joined = join(&world, "south", Role::Local).await.json();
    assert_eq!(
        (&joined["realm"], &joined["verbs"], &joined["grade"]),
        (&json!("south"), &json!(["view"]), &json!("observe"))
    );
    let token = joined["token"].as_str().unwrap();
    let feed = by(&world, "south", &world.path("/feeds"), Some(token), &descriptor("scope")).await;
    feed.assert_problem(403, "verb-missing", "verbs");
    let fresh = by(&world, "south", "/v1/token", Some(token), &json!({})).await.json();
    assert_eq!((&fresh["verbs"], &fresh["grade"]), (&joined["verbs"], &joined["grade"]));
    let expert = join(&world, "east", Role::Expert).await.json();
    assert_eq!((&expert["verbs"], &expert["grade"]), (&json!(["view"]), &json!("energy")));
}

#[tokio::test]
async fn a_token_is_not_taken_by_another_realms_listener() {
    let world = node(vec![policy("south", &[RealmVerb::View, RealmVerb::Publish])]).await;
    let joined = join(&world, "south", Role::Local).await.json();
    let token = joined["token"].as_str().unwrap();
    for path in ["/v1/token".to_owned(), world.path("/feeds")] {
        by(&world, "north", &path, Some(token), &descriptor("cam")).await.assert_problem(403, "token-realm", "realm");
    }
    assert_eq!(by(&world, "south", &world.path("/feeds"), Some(token), &descriptor("cam")).await.status, 201);
    assert!(world.relay.asked().contains(&"open_feed cam south".to_owned()), "{:?}", world.relay.asked());
}

/// What a token of somebody of south said when more was allowed, or before anything was.
fn bearing(world: &World, role: Role) -> Bearing {
    let (session, participant) = (world.session.clone(), ParticipantId::new("p1").unwrap());
    Bearing { session, participant, realm: realm("south"), role, cnf: Some(CertHash([7; 32])) }
}

#[tokio::test]
async fn a_policy_that_was_taken_back_counts_for_tokens_that_were_made_before() {
    let south = CameBy(Arc::new(realm("south")));
    for (policies, left) in [(Vec::new(), None), (vec![policy("south", &[RealmVerb::View])], Some(vec![Verb::View]))] {
        let world = node(policies).await;
        let fresh = world.app.grant(bearing(&world, Role::Local));
        assert_eq!(matches!(fresh, Err(SessionError::RealmDenied { .. })), left.is_none());
        let (_, former) = world.app.tokens.issue(wall_clock(), &bearing(&world, Role::Local), |_| ()).unwrap();
        assert_eq!((former.verbs.len(), former.grade), (3, Grade::Energy), "nothing was taken from it");
        match (world.app.within_realm(former, Some(&south)), left) {
            (Ok(claims), Some(left)) => assert_eq!((claims.verbs, claims.grade), (left, Grade::Observe)),
            (Err(refusal), None) => assert_eq!((refusal.status(), refusal.name()), (403, "realm-denied")),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_whoever_may_operate_here_comes_to_the_rendezvous() {
    for (verbs, is_let_in) in [(vec![RealmVerb::View], false), (vec![RealmVerb::View, RealmVerb::Operate], true)] {
        let world = node(vec![policy("south", &verbs)]).await;
        let joined = join(&world, "south", Role::Expert).await.json();
        let came = world.app.check_station(joined["token"].as_str().unwrap(), &world.session, CertHash([7; 32]));
        assert_eq!(came.is_ok(), is_let_in, "{came:?}");
        if let Err(why) = came {
            assert!(why.contains("people of realm south operate"), "{why}");
        }
    }
}

/// A question without a body by the listener of that realm.
async fn ask(world: &World, came: &str, method: &str, path: &str, bearer: &str) -> Reply {
    let request = Request::builder().method(method).uri(path).header("Authorization", format!("Bearer {bearer}"));
    let mut request = request.header("If-Match", "*").header("Content-Type", "application/trickle-ice-sdpfrag");
    request.extensions_mut().unwrap().insert(CameBy(Arc::new(realm(came))));
    world.send(request.body(Body::from("restart")).unwrap()).await
}

#[tokio::test]
async fn a_guests_resource_answers_by_the_listener_that_it_was_made_by_and_by_no_other() {
    let world = node(vec![policy("south", &[RealmVerb::View, RealmVerb::Publish])]).await;
    let local = join(&world, "north", Role::Local).await.json();
    let feed = by(&world, "north", &world.path("/feeds"), local["token"].as_str(), &descriptor("scope")).await;
    assert_eq!(feed.status, 201);
    let invitation = world.app.invite(&world.session, Role::Observer, 3_600, None).await.unwrap().invitation;
    let mut request = Request::post(world.path("/feeds/scope/whep"))
        .header("Content-Type", "application/sdp")
        .header("Authorization", format!("Bearer {invitation}"));
    request.extensions_mut().unwrap().insert(CameBy(Arc::new(realm("south"))));
    let made = world.send(request.body(Body::from("v=0")).unwrap()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let leg = made.header("location").to_owned();
    // An ICE restart names candidates of the listener that the leg is at.
    ask(&world, "north", "PATCH", &leg, &invitation).await.assert_problem(404, "leg-missing", "leg");
    ask(&world, "north", "DELETE", &leg, &invitation).await.assert_problem(404, "leg-missing", "leg");
    assert_eq!(ask(&world, "south", "PATCH", &leg, &invitation).await.status, 200);
    assert_eq!(ask(&world, "south", "DELETE", &leg, &invitation).await.status, 200);
}

#[tokio::test]
async fn servers_figures_and_addresses_of_the_nodes_own_network_are_told_to_its_own_people_alone() {
    let ice = crate::Ice { stun: vec!["stun:10.1.1.1:3478".into()], turn: None };
    let allowed = vec![policy("south", &[RealmVerb::View, RealmVerb::Publish])];
    let realms = vec![door("south")];
    let config = crate::Config { realms, realm_policies: allowed, ice, metrics_open: true, ..config() };
    let world = World::with(config).await;
    for (came, is_told) in [("north", true), ("south", false)] {
        let token = join(&world, came, Role::Local).await.json()["token"].as_str().unwrap().to_owned();
        let asked = [("GET", world.path("/ice-servers")), ("OPTIONS", world.path("/whip"))];
        for (method, path) in asked {
            let reply = ask(&world, came, method, &path, &token).await;
            assert!(reply.status.is_success(), "{path}: {}", reply.text);
            let told = format!("{:?}{}", reply.headers, reply.text);
            assert_eq!(told.contains("10.1.1.1"), is_told, "{came} {path}: {told}");
        }
        assert_eq!(ask(&world, came, "GET", "/metrics", &token).await.status == 200, is_told, "{came}");
        let login = by(&world, came, "/v1/login/begin", None, &json!({"issuer": "x", "tab": "A".repeat(43)})).await;
        assert!(!login.text.contains("trocar.example"), "{}", login.text);
        assert_eq!(login.status.as_u16(), if is_told { 404 } else { 403 }, "{}", login.text);
    }
}

#[tokio::test]
async fn two_peers_with_one_address_in_two_realms_have_joins_of_their_own() {
    let limits = crate::Limits { joins: crate::Rate { burst: 1, per_second: 1 }, ..config().limits };
    let world = World::with(crate::Config { limits, ..config() }).await;
    let address = "192.168.1.10".parse().unwrap();
    let take = |name| world.app.take_join(&realm(name), address);
    assert_eq!((take("south"), take("north")), (Ok(()), Ok(())));
    assert_eq!((take("south"), take("north")), (Err(1), Err(1)));
}

#[tokio::test]
async fn the_secret_of_an_invitation_gives_no_more_across_realms_than_a_token() {
    let world = node(vec![policy("south", &[RealmVerb::View])]).await;
    let invitation = world.app.invite(&world.session, Role::Local, 3_600, None).await.unwrap();
    let send = async |came: &str| {
        let mut request = Request::post(world.path("/whip"))
            .header("Content-Type", "application/sdp")
            .header("Authorization", format!("Bearer {}", invitation.invitation))
            .body(Body::from("v=0"))
            .unwrap();
        request.extensions_mut().insert(CameBy(Arc::new(realm(came))));
        world.send(request).await
    };
    send("south").await.assert_problem(403, "verb-missing", "verbs");
    send("east").await.assert_problem(403, "verb-missing", "verbs");
    // From its own realm it is the offer that cannot be served.
    let reply = send("north").await;
    assert_eq!(reply.json()["type"], "urn:trocar:problem:sdp-unprocessable", "{}", reply.text);
}

#[test]
fn what_cannot_be_configured_is_refused_by_name() {
    let own = realm("north");
    let field = |doors: &[RealmDoor], policies: &[RealmPolicy]| check(&own, doors, policies).map_err(|e| e.field);
    let good = policy("south", &[RealmVerb::View]);
    assert_eq!(field(&[door("south")], std::slice::from_ref(&good)), Ok(()));
    assert_eq!(field(&[], &[]), Ok(()), "a node of one realm needs no table");
    assert_eq!(field(&[door("north")], &[]), Err("realms.name"));
    assert_eq!(field(&[door("south"), door("south")], &[]), Err("realms.name"));
    assert_eq!(field(&[], std::slice::from_ref(&good)), Err("realm_policy"), "nobody can come from there");
    assert_eq!(field(&[door("south")], &[good.clone(), good.clone()]), Err("realm_policy"));
    assert_eq!(field(&[door("south")], &[RealmPolicy { to: realm("east"), ..good.clone() }]), Err("realm_policy"));
    assert_eq!(field(&[door("south")], &[policy("south", &[])]), Err("realm_policy.verbs"));
    let many: Vec<RealmDoor> = (0..17).map(|n| door(&format!("r{n}"))).collect();
    assert_eq!(field(&many, &[]), Err("realms"));
}
