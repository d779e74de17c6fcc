//! Letting a network engineer measure the line.

use super::wish::VOICES;
use super::*;
use crate::audit;
use crate::link_tests::{LinkTests, NoLinkTest};
use trocar_proto::session::link_test::{LinkTestGrant, LinkTestRefused};

/// Answers as it is told.
#[derive(Default)]
struct FakeTests {
    relays: Vec<String>,
    refusal: Mutex<Option<NoLinkTest>>,
}

impl LinkTests for FakeTests {
    fn relays(&self) -> Vec<String> {
        self.relays.clone()
    }

    fn begin(&self, relay: Option<String>, realm: RealmId) -> Answer<'_, Result<LinkTestGrant, NoLinkTest>> {
        assert_eq!(realm.as_str(), "north", "who measures comes by the listener of that realm");
        let begun = match self.refusal.lock().unwrap().clone() {
            Some(why) => Err(why),
            None => Ok(LinkTestGrant {
                relay,
                addresses: vec!["192.0.2.1:4436".parse().unwrap()],
                quic: vec!["192.0.2.1:4433".parse().unwrap()],
                grant: 7,
                key: "ab".repeat(32),
                mbit_s_max: 200.0,
                seconds_max: 120.0,
            }),
        };
        Box::pin(std::future::ready(begun))
    }
}

async fn ask(world: &World, role: Role, body: &str) -> Reply {
    let token = world.join(role).await.token;
    let json: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    world.ask(Method::POST, &world.path("/link-tests"), Some(&token), json, body.to_owned()).await
}

#[tokio::test]
async fn an_engineer_is_let_in_for_one_measurement_and_that_stands_in_the_audit_trail() {
    let tests = Arc::new(FakeTests::default());
    let dir = tempfile::tempdir().unwrap();
    let store = StoreAt::File(dir.path().join("trocar.db"));
    let world = World::with(Config { link_tests: Some(tests.clone()), store, ..config() }).await;
    let reply = ask(&world, Role::Engineer, "").await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    assert!(!reply.text.contains("relay"), "the only one has no name: {}", reply.text);
    let grant: LinkTestGrant = serde_json::from_str(&reply.text).unwrap();
    assert_eq!((grant.grant, grant.mbit_s_max), (7, 200.0));
    assert_eq!(reply.header("cache-control"), "no-store");
    let reply = ask(&world, Role::Engineer, r#"{"relay":"edge"}"#).await;
    assert_eq!((reply.status.as_u16(), reply.json()["relay"].as_str()), (201, Some("edge")), "{}", reply.text);
    let rows = audit::search(&dir.path().join("trocar.db"), &audit::Filter::default()).unwrap();
    let noted: Vec<_> =
        rows.iter().filter(|r| r.record.kind == "link-test").map(|r| r.record.detail.as_str()).collect();
    assert_eq!(noted, ["at most 200 Mbit/s for 120 s", "relay edge, at most 200 Mbit/s for 120 s"]);
    assert!(!format!("{rows:?}").contains(&grant.key), "the key is nobody else's");

    for role in Role::all().filter(|r| *r != Role::Engineer) {
        ask(&world, role, "").await.assert_problem(403, "verb-missing", "verbs");
    }
    let operated = LinkTestRefused::Operated("an expert operates".to_owned());
    let at = |relay: Option<&str>, why: AdmitError| NoLinkTest::Refused { relay: relay.map(ToOwned::to_owned), why };
    for (why, status, name, field, says) in [
        (
            at(None, operated.clone().into()),
            409,
            "link-test-operated",
            "session",
            "an expert operates: a measurement fills",
        ),
        (at(Some("edge"), operated.into()), 409, "link-test-operated", "session", "relay edge: an expert operates"),
        (at(None, LinkTestRefused::Busy.into()), 409, "link-test-busy", "session", "one at a time"),
        (
            at(Some("a"), LinkTestRefused::Unused.into()),
            404,
            "link-tests-unused",
            "session",
            "relay a: the relay's configuration",
        ),
        (at(Some("a"), AdmitError::Unavailable), 503, "relay-unavailable", "", "relay a: the relay does not answer"),
        (NoLinkTest::Several(vec!["a".into(), "b".into()]), 400, "field-invalid", "relay", "name one of a, b"),
        (NoLinkTest::unknown("x", vec!["a".into(), "b".into()]), 400, "field-invalid", "relay", "those here are a, b"),
        (NoLinkTest::unknown("x", Vec::new()), 400, "field-invalid", "relay", "leave it out"),
    ] {
        *tests.refusal.lock().unwrap() = Some(why);
        let reply = ask(&world, Role::Engineer, "").await;
        if field.is_empty() {
            assert_eq!(
                (reply.status.as_u16(), reply.json()["type"].as_str()),
                (status, Some("urn:trocar:problem:relay-unavailable"))
            );
        } else {
            reply.assert_problem(status, name, field);
        }
        assert!(reply.json()["detail"].as_str().unwrap().contains(says), "{says}: {}", reply.text);
    }
    *tests.refusal.lock().unwrap() = None;
    for (body, field) in [(r#"{"relay":3}"#, "relay"), (r#"{"realy":"edge"}"#, "realy")] {
        ask(&world, Role::Engineer, body).await.assert_problem(400, "json-field", field);
    }
}

#[tokio::test]
async fn a_node_that_answers_no_measurements_says_which_line_of_its_configuration_would() {
    let world = World::new().await;
    let reply = ask(&world, Role::Engineer, "").await;
    reply.assert_problem(404, "link-tests-unused", "session");
    assert!(reply.text.contains("[link_test] enabled = true"), "{}", reply.text);
    // Its relay has no name, and whoever gives one is told that first.
    ask(&world, Role::Engineer, r#"{"relay":"edge"}"#).await.assert_problem(400, "field-invalid", "relay");
}

#[tokio::test]
async fn the_voices_of_a_named_relay_are_for_those_who_measure_its_line() {
    let tests = Arc::new(FakeTests { relays: vec!["theatre".into(), "edge".into()], ..FakeTests::default() });
    let world = World::with(Config { link_tests: Some(tests), ..config() }).await;
    let ask = async |role, query: &str| {
        let token = world.join(role).await.token;
        let path = format!("{}{query}", world.path("/voices/whep"));
        world.ask(Method::POST, &path, Some(&token), &[("content-type", "application/sdp")], VOICES).await
    };
    assert_eq!(ask(Role::Engineer, "?relay=edge").await.status, 201);
    assert_eq!(world.relay.voices.lock().unwrap().last().unwrap().relay.as_deref(), Some("edge"));
    assert_eq!(ask(Role::Observer, "").await.status, 201);
    assert_eq!(world.relay.voices.lock().unwrap().last().unwrap().relay, None);
    ask(Role::Observer, "?relay=edge").await.assert_problem(403, "verb-missing", "verbs");
    let unknown = ask(Role::Engineer, "?relay=west").await;
    unknown.assert_problem(400, "field-invalid", "relay");
    assert!(unknown.text.contains("those here are theatre, edge"), "{}", unknown.text);
    ask(Role::Engineer, "?relay=edge&relay=theatre").await.assert_problem(400, "field-invalid", "relay");
    assert_eq!(world.relay.voices.lock().unwrap().len(), 2, "who was refused has asked no relay");
}
