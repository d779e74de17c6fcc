//! Letting a network engineer measure the line.

use super::*;
use crate::audit;
use crate::link_tests::LinkTests;
use trocar_proto::session::link_test::{LinkTestGrant, LinkTestRefused};

/// Answers as it is told.
struct FakeTests(Mutex<Option<LinkTestRefused>>);

impl LinkTests for FakeTests {
    fn grant(&self) -> Result<LinkTestGrant, LinkTestRefused> {
        match self.0.lock().unwrap().clone() {
            Some(why) => Err(why),
            None => Ok(LinkTestGrant {
                relay: None,
                addresses: vec!["192.0.2.1:4436".parse().unwrap()],
                quic: vec!["192.0.2.1:4433".parse().unwrap()],
                grant: 7,
                key: "ab".repeat(32),
                mbit_s_max: 200.0,
                seconds_max: 120.0,
            }),
        }
    }
}

async fn ask(world: &World, role: Role) -> Reply {
    let token = world.join(role).await.token;
    world.ask(Method::POST, &world.path("/link-tests"), Some(&token), &[], "").await
}

#[tokio::test]
async fn an_engineer_is_let_in_for_one_measurement_and_that_stands_in_the_audit_trail() {
    let tests = Arc::new(FakeTests(Mutex::default()));
    let dir = tempfile::tempdir().unwrap();
    let store = StoreAt::File(dir.path().join("trocar.db"));
    let world = World::with(Config { link_tests: Some(tests.clone()), store, ..config() }).await;
    let reply = ask(&world, Role::Engineer).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let grant: LinkTestGrant = serde_json::from_str(&reply.text).unwrap();
    assert_eq!((grant.grant, grant.mbit_s_max), (7, 200.0));
    assert_eq!(reply.header("cache-control"), "no-store");
    let rows = audit::search(&dir.path().join("trocar.db"), &audit::Filter::default()).unwrap();
    let noted: Vec<_> = rows.iter().filter(|r| r.record.kind == "link-test").collect();
    assert!(noted.len() == 1 && noted[0].record.detail == "at most 200 Mbit/s for 120 s", "{noted:?}");
    assert!(!format!("{rows:?}").contains(&grant.key), "the key is nobody else's");

    for role in Role::all().filter(|r| *r != Role::Engineer) {
        ask(&world, role).await.assert_problem(403, "verb-missing", "verbs");
    }
    for (why, name) in [
        (LinkTestRefused::Operated("an expert operates".to_owned()), "link-test-operated"),
        (LinkTestRefused::Busy, "link-test-busy"),
    ] {
        *tests.0.lock().unwrap() = Some(why);
        let reply = ask(&world, Role::Engineer).await;
        reply.assert_problem(409, name, "session");
    }
    *tests.0.lock().unwrap() = Some(LinkTestRefused::Operated("an expert operates".to_owned()));
    let told = ask(&world, Role::Engineer).await.json()["detail"].as_str().unwrap().to_owned();
    assert!(told.contains("an expert operates: a measurement fills the line"), "{told}");
}

#[tokio::test]
async fn a_node_that_answers_no_measurements_says_which_line_of_its_configuration_would() {
    let world = World::new().await;
    let reply = ask(&world, Role::Engineer).await;
    reply.assert_problem(404, "link-tests-unused", "session");
    assert!(reply.text.contains("[link_test] enabled = true"), "{}", reply.text);
}
