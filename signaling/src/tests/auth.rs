//! Tokens, roles, invitations.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use trocar_proto::session::claims::Claims;
use trocar_proto::session::ids::ParticipantId;

/// The claims of a token, unverified.
fn claims_of(grant: &TokenGrant) -> Claims {
    let body = grant.token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

fn raw_token(header: &Value, claims: &Value) -> String {
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    format!("{}.{}.", part(header), part(claims))
}

#[tokio::test]
async fn a_token_carries_what_the_role_allows_for_five_minutes() {
    let world = World::new().await;
    let grant = world.join(Role::Expert).await;
    let claims = claims_of(&grant);
    assert_eq!(claims.exp - claims.nbf, 300);
    assert_eq!(claims.verbs, Role::Expert.verbs());
    assert_eq!(claims.grade, Role::Expert.highest_grade());
    assert_eq!(claims.aud, ["signaling-1", "relay-1", "gate-1"]);
    assert_eq!((claims.iss.as_str(), &claims.session), ("signaling-1", &world.session));
    assert_eq!(world.get(&world.path(""), &grant.token).await.status, 200);
}

#[tokio::test]
async fn a_missing_token_is_told_apart_from_a_bad_and_an_expired_one() {
    let world = World::new().await;
    let grant = world.join(Role::Observer).await;
    let reply = world.ask(Method::GET, &world.path(""), None, &[], "").await;
    reply.assert_problem(401, "token-missing", "Authorization");
    assert!(reply.header("www-authenticate").starts_with("Bearer"));
    let reply = world.ask(Method::GET, &world.path(""), None, &[("Authorization", "Basic eDp5")], "").await;
    reply.assert_problem(401, "token-missing", "Authorization");

    let reply = world.get(&world.path(""), "not.a.token").await;
    reply.assert_problem(401, "token-invalid", "Authorization");
    assert!(reply.header("www-authenticate").contains("error=\"invalid_token\""));

    let mut claims = claims_of(&grant);
    claims.iat -= 306;
    claims.nbf -= 306;
    claims.exp -= 306;
    let expired = world.app.tokens.sign(&claims).unwrap();
    let reply = world.get(&world.path(""), &expired).await;
    reply.assert_problem(401, "token-expired", "Authorization");
    assert!(reply.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn tokens_of_other_algorithms_are_refused() {
    let world = World::new().await;
    let grant = world.join(Role::Local).await;
    let claims = serde_json::to_value(claims_of(&grant)).unwrap();
    let none = raw_token(&json!({"alg": "none", "typ": "JWT"}), &claims);
    world.get(&world.path(""), &none).await.assert_problem(401, "token-invalid", "Authorization");

    // The classic confusion: the public key taken for a shared secret.
    let public = crate::token_public_key(&config().token_key_pkcs8).unwrap();
    let confused =
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&public)).unwrap();
    world.get(&world.path(""), &confused).await.assert_problem(401, "token-invalid", "Authorization");

    // A key that the token itself points to is never fetched.
    let pointed = raw_token(&json!({"alg": "EdDSA", "jku": "https://evil.example/keys", "kid": "../../etc"}), &claims);
    world.get(&world.path(""), &pointed).await.assert_problem(401, "token-invalid", "Authorization");
}

#[tokio::test]
async fn tokens_of_another_key_issuer_or_audience_are_refused() {
    let world = World::new().await;
    let grant = world.join(Role::Local).await;
    let elsewhere = World::new().await;
    let foreign = elsewhere.app.tokens.sign(&claims_of(&grant)).unwrap();
    world.get(&world.path(""), &foreign).await.assert_problem(401, "token-invalid", "Authorization");
    let changes: [fn(&mut Claims); 4] =
        [|c| c.iss = "another".into(), |c| c.aud = vec!["relay-1".into()], |c| c.nbf += 100, |c| c.exp += 3600];
    for change in changes {
        let mut claims = claims_of(&grant);
        change(&mut claims);
        let token = world.app.tokens.sign(&claims).unwrap();
        world.get(&world.path(""), &token).await.assert_problem(401, "token-invalid", "Authorization");
    }
}

#[tokio::test]
async fn claims_of_the_wrong_type_are_refused() {
    let config = config();
    let key = EncodingKey::from_ed_der(&config.token_key_pkcs8);
    let world = World::with(config.clone()).await;
    let grant = world.join(Role::Local).await;
    let good = serde_json::to_value(claims_of(&grant)).unwrap();
    let sign = |claims: &Value| jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).unwrap();
    assert_eq!(world.get(&world.path(""), &sign(&good)).await.status, 200);
    for (claim, value) in [
        ("exp", json!("9999999999")),
        ("exp", json!(1e308)),
        ("exp", json!(-1)),
        ("exp", Value::Null),
        ("nbf", json!("0")),
        ("nbf", Value::Null),
        ("aud", Value::Null),
        ("iss", json!(["signaling-1"])),
        ("jti", Value::Null),
        ("session", json!("../x")),
        ("role", json!("root")),
    ] {
        let mut claims = good.clone();
        claims[claim] = value.clone();
        let reply = world.get(&world.path(""), &sign(&claims)).await;
        assert_eq!(reply.status, 401, "{claim}: {value} was taken");
    }
    for claim in ["exp", "nbf", "aud", "iss", "jti", "sub"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(claim);
        let reply = world.get(&world.path(""), &sign(&claims)).await;
        assert_eq!(reply.status, 401, "a token without {claim} was taken");
    }
}

#[tokio::test]
async fn a_token_is_good_for_one_session() {
    let world = World::new().await;
    let grant = world.join(Role::Local).await;
    let other = world.app.create_session("another").await.unwrap();
    let reply = world.get(&format!("/v1/sessions/{other}"), &grant.token).await;
    reply.assert_problem(403, "token-session", "session");
    let reply = world.post(&format!("/v1/sessions/{other}/feeds"), Some(&grant.token), &descriptor("scope")).await;
    reply.assert_problem(403, "token-session", "session");
}

#[tokio::test]
async fn an_observer_cannot_publish_invite_or_manage() {
    let world = World::new().await;
    let token = world.join(Role::Observer).await.token;
    let reply = world.publish(&token, "scope").await;
    reply.assert_problem(403, "verb-missing", "verbs");
    assert!(reply.header("www-authenticate").contains("insufficient_scope"));
    let reply = world.post(&world.path("/invitations"), Some(&token), &json!({"role": "observer"})).await;
    reply.assert_problem(403, "verb-missing", "verbs");
    world.delete(&world.path(""), &token).await.assert_problem(403, "verb-missing", "verbs");
    assert!(world.relay.asked().is_empty());
}

#[tokio::test]
async fn a_refreshed_token_is_the_same_participant() {
    let world = World::new().await;
    let first = world.join(Role::Expert).await;
    let reply = world.ask(Method::POST, "/v1/token", Some(&first.token), &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let second: TokenGrant = serde_json::from_str(&reply.text).unwrap();
    assert_eq!(second.participant, first.participant);
    assert_ne!(claims_of(&second).jti, claims_of(&first).jti);
    assert_eq!(claims_of(&second).cnf, claims_of(&first).cnf);
    assert_eq!(reply.header("cache-control"), "no-store");
}

#[tokio::test]
async fn a_token_that_was_exchanged_gives_no_second_line_of_tokens() {
    let world = World::new().await;
    let refresh = async |token: &str| world.ask(Method::POST, "/v1/token", Some(token), &[], "").await;
    let first = world.join(Role::Expert).await;
    let lost = refresh(&first.token).await;
    assert_eq!(lost.status, 200, "{}", lost.text);
    let again = refresh(&first.token).await;
    assert_eq!(again.status, 200, "the answer may have been lost: {}", again.text);
    let second: TokenGrant = serde_json::from_str(&again.text).unwrap();
    assert_eq!(world.get(&world.path(""), &second.token).await.status, 200);
    let replay = refresh(&first.token).await;
    replay.assert_problem(401, "token-invalid", "jti");
    assert_eq!(world.get(&world.path(""), &first.token).await.status, 200, "what it is good for ends with its time");
    assert_eq!(refresh(&second.token).await.status, 200, "the line goes on");
    assert_eq!(world.join(Role::Expert).await.role, Role::Expert, "and the link is as good as before");
}

#[tokio::test]
async fn no_refresh_after_removal_or_closing() {
    let world = World::new().await;
    let (one, two) = (world.join(Role::Expert).await, world.join(Role::Observer).await);
    world.app.remove_participant(&world.session, &one.participant, None).await.unwrap();
    let reply = world.ask(Method::POST, "/v1/token", Some(&one.token), &[], "").await;
    reply.assert_problem(403, "participant-gone", "sub");
    world.app.close_session(&world.session, None).await.unwrap();
    let reply = world.ask(Method::POST, "/v1/token", Some(&two.token), &[], "").await;
    reply.assert_problem(403, "session-closed", "session");
}

#[tokio::test]
async fn a_link_can_be_redeemed_again_until_it_expires_or_the_session_closes() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let reply = world.post(&world.path("/invitations"), Some(&local.token), &json!({"role": "expert"})).await;
    assert_eq!(reply.status, 201);
    let invitation = reply.json();
    let secret = invitation["invitation"].as_str().unwrap();
    assert_eq!(invitation["link"], format!("https://trocar.example/#invitation={secret}"));
    assert!(secret.len() >= 22, "fewer than 128 bits");
    let join = json!({"invitation": secret, "name": "Dr. Müller"});
    let (one, two) = (world.post("/v1/join", None, &join).await, world.post("/v1/join", None, &join).await);
    assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(one.json()["name"], "Dr. Müller");
    assert_eq!(one.json()["role"], "expert");
    assert_ne!(one.json()["participant"], two.json()["participant"]);

    let wrong = world.post("/v1/join", None, &json!({"invitation": "x".repeat(32)})).await;
    wrong.assert_problem(403, "invitation-invalid", "invitation");
    let after = trocar_proto::units::WallMicros(wall_clock().0 + 8 * 86_400_000_000);
    world.app.live().sweep(world.app.now(), after);
    world.post("/v1/join", None, &join).await.assert_problem(403, "invitation-invalid", "invitation");
}

#[tokio::test]
async fn nobody_invites_into_more_than_they_are() {
    let world = World::new().await;
    let local = world.join(Role::Local).await;
    let reply = world.post(&world.path("/invitations"), Some(&local.token), &json!({"role": "coordinator"})).await;
    reply.assert_problem(403, "verb-missing", "role");
    let coordinator = world.join(Role::Coordinator).await;
    for role in ["coordinator", "local", "expert"] {
        let reply = world.post(&world.path("/invitations"), Some(&coordinator.token), &json!({"role": role})).await;
        assert_eq!(reply.status, 201);
    }
    let reply =
        world.post(&world.path("/invitations"), Some(&coordinator.token), &json!({"role": "expert", "ttl_s": 5})).await;
    reply.assert_problem(400, "field-invalid", "ttl_s");
}

#[tokio::test]
async fn a_coordinator_removes_people_and_closes_the_session() {
    let world = World::new().await;
    let (boss, guest) = (world.join(Role::Coordinator).await, world.join(Role::Observer).await);
    let path = |p: &ParticipantId| world.path(&format!("/participants/{p}"));
    world.delete(&path(&boss.participant), &guest.token).await.assert_problem(403, "verb-missing", "verbs");
    assert_eq!(world.delete(&path(&guest.participant), &boss.token).await.status, 204);
    world.get(&world.path(""), &guest.token).await.assert_problem(403, "participant-gone", "sub");
    assert_eq!(world.delete(&world.path(""), &boss.token).await.status, 204);
    world.get(&world.path(""), &boss.token).await.assert_problem(403, "session-closed", "session");
}
