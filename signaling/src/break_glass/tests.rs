//! Coming in without a login, what that is bound to, and who looks into it afterwards.

use super::*;
use crate::audit::{Filter, search};
use crate::identity::{IdentityConfig, Required};
use crate::store::StoreError;
use crate::tests::{Reply, World, config};
use axum::http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

const WHY: &str = "bleeding, the issuer of identities is down";
const LIFE_US: u64 = 3_600_000_000;

fn glass(roles: &[Role]) -> BreakGlassConfig {
    BreakGlassConfig { roles: roles.to_vec(), life: Duration::from_secs(3_600), per_hour: 2, instruments: false }
}

fn asking(break_glass: Option<BreakGlassConfig>) -> IdentityConfig {
    IdentityConfig { required: Required::Instruments, break_glass, ..IdentityConfig::default() }
}

/// A node with a database that asks for a login where instruments are concerned.
struct Node {
    _dir: TempDir,
    path: PathBuf,
    world: World,
}

impl Node {
    async fn new(break_glass: Option<BreakGlassConfig>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trocar.db");
        let world = Self::world(&path, break_glass).await;
        Self { _dir: dir, path, world }
    }

    async fn world(path: &std::path::Path, break_glass: Option<BreakGlassConfig>) -> World {
        let store = StoreAt::File(path.to_owned());
        World::with(Config { store, identity: asking(break_glass), ..config() }).await
    }

    async fn ask(&self, role: Role, break_glass: Value) -> Reply {
        let invitation = self.world.app.invite(&self.world.session, role, 3_600, None).await.unwrap();
        let cnf = "07".repeat(32);
        let body =
            json!({"invitation": invitation.invitation, "name": "Dr. Ito", "cnf": cnf, "break_glass": break_glass});
        self.world.post("/v1/join", None, &body).await
    }

    async fn enter(&self, role: Role) -> Reply {
        self.ask(role, json!({"reason": WHY, "confirm": true})).await
    }

    async fn records(&self, kind: &str) -> Vec<String> {
        self.world.app.settled().await.unwrap();
        let wanted = Filter { kind: Some(kind.to_owned()), ..Filter::default() };
        let rows = search(&self.path, &wanted).unwrap().into_iter();
        rows.filter(|r| r.record.kind == kind).map(|r| r.record.detail).collect()
    }
}

#[tokio::test]
async fn by_default_nobody_comes_in_so_and_the_answer_names_the_key() {
    let node = Node::new(None).await;
    let refused = node.enter(Role::Expert).await;
    refused.assert_problem(403, "break-glass-off", "identity.break_glass");
    assert!(refused.json()["detail"].as_str().unwrap().contains("[identity.break_glass]"), "{}", refused.text);
    let asked = node.ask(Role::Expert, Value::Null).await;
    asked.assert_problem(401, "identity-needed", "Authorization");
    assert_eq!(asked.json()["break_glass"], Value::Null, "a way that is not there is offered");
    assert_eq!(node.records("break-glass-joined").await, Vec::<String>::new());
    assert!(node.records("denied").await.iter().any(|d| d.starts_with("break-glass-off")));
}

#[tokio::test]
async fn only_the_roles_that_are_named_and_only_where_a_login_is_missing() {
    let node = Node::new(Some(glass(&[Role::Expert]))).await;
    let asked = node.ask(Role::Expert, Value::Null).await;
    asked.assert_problem(401, "identity-needed", "Authorization");
    assert_eq!(asked.json()["break_glass"], true, "the way that there is is not offered");
    assert_eq!(node.ask(Role::Local, Value::Null).await.json()["break_glass"], Value::Null);
    let beyond = node.enter(Role::Local).await;
    beyond.assert_problem(403, "break-glass-role", "identity.break_glass.roles");
    node.enter(Role::Observer).await.assert_problem(409, "break-glass-unneeded", "break_glass");
    assert_eq!(node.enter(Role::Expert).await.status, 200);
    assert_eq!(node.world.app.figures.break_glass_joins.get(), 1);
}

#[tokio::test]
async fn without_a_reason_or_without_meaning_it_nobody_comes_in() {
    let node = Node::new(Some(glass(&[Role::Expert]))).await;
    let long = "x".repeat(201);
    for bad in ["", "  ", "ab", "two\nlines", long.as_str()] {
        let refused = node.ask(Role::Expert, json!({"reason": bad, "confirm": true})).await;
        refused.assert_problem(400, "field-invalid", "break_glass.reason");
    }
    let refused = node.ask(Role::Expert, json!({"reason": WHY, "confirm": false})).await;
    refused.assert_problem(400, "field-invalid", "break_glass.confirm");
    assert_eq!(node.ask(Role::Expert, json!({"confirm": true})).await.status, 400);
    assert_eq!(node.world.app.figures.break_glass_joins.get(), 0);
    // What was refused is not counted: as many as there may be come in afterwards.
    for reason in ["救急止血", &"x".repeat(200)] {
        assert_eq!(node.ask(Role::Expert, json!({"reason": reason, "confirm": true})).await.status, 200, "{reason}");
    }
}

#[tokio::test]
async fn everybody_sees_who_came_in_so_and_the_token_has_less_in_it() {
    let node = Node::new(Some(glass(&[Role::Local]))).await;
    let joined = node.enter(Role::Local).await;
    assert_eq!(joined.status, 200, "{}", joined.text);
    let grant = joined.json();
    assert_eq!((&grant["grade"], &grant["verbs"]), (&json!("observe"), &json!(["view", "publish"])));
    let token = grant["token"].as_str().unwrap();
    let invite = node.world.post(&node.world.path("/invitations"), Some(token), &json!({"role": "observer"})).await;
    invite.assert_problem(403, "verb-missing", "verbs");
    assert_eq!(node.world.publish(token, "scope").await.status, 201);
    let shown = node.world.get(&node.world.path(""), token).await.json();
    // A feed alone is no presence: whoever views or opens the event socket is seen.
    let leg = node.world.post(&node.world.path("/feeds/scope/legs"), Some(token), &json!({})).await;
    assert_eq!((leg.status.as_u16(), &shown["participants"]), (201, &json!([])), "{}", leg.text);
    let shown = node.world.get(&node.world.path(""), token).await.json();
    let seen = &shown["participants"][0];
    assert_eq!((&seen["name"], &seen["break_glass"]["reason"]), (&json!("Dr. Ito"), &json!(WHY)), "{shown}");
    let fresh = node.world.ask(Method::POST, "/v1/token", Some(token), &[], "").await.json();
    assert_eq!((&fresh["grade"], &fresh["verbs"]), (&grant["grade"], &grant["verbs"]), "a refresh gave more");
    let said = node.records("break-glass-joined").await;
    assert!(said.len() == 1 && said[0].starts_with(WHY) && said[0].contains("until"), "{said:?}");
}

#[tokio::test]
async fn only_so_many_come_in_so_within_an_hour_and_a_restart_does_not_change_that() {
    let node = Node::new(Some(glass(&[Role::Expert]))).await;
    for _ in 0..2 {
        assert_eq!(node.enter(Role::Expert).await.status, 200);
    }
    let refused = node.enter(Role::Expert).await;
    refused.assert_problem(429, "too-many-requests", "break_glass");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3_600).contains(&wait), "{wait}");
    let session = node.world.session.clone();
    node.world.app.store.stop().await;
    let store = StoreAt::File(node.path.clone());
    let again = Config { store, identity: asking(Some(glass(&[Role::Expert]))), ..config() };
    let emergencies = Emergencies::open(&again, crate::app::wall_clock()).unwrap();
    let take = |s: &SessionId, after| {
        let now = WallMicros(crate::app::wall_clock().0 + after);
        emergencies.take(s, Role::Expert, now)
    };
    assert!(matches!(take(&session, 0), Err(BreakGlassRefused::TooOften(_))));
    assert!(take(&SessionId::new("another").unwrap(), 0).is_ok(), "one session takes the places of another");
    assert!(take(&session, HOUR_US).is_ok(), "an hour later there is none");
}

#[tokio::test]
async fn when_the_time_is_over_the_participant_is_out_but_not_while_somebody_operates() {
    let node = Node::new(Some(glass(&[Role::Expert]))).await;
    let grant = node.enter(Role::Expert).await.json();
    let token = grant["token"].as_str().unwrap();
    let app = &node.world.app;
    let now = crate::app::wall_clock();
    app.end_emergencies(WallMicros(now.0 + LIFE_US - 60_000_000)).await;
    assert_eq!(node.world.get(&node.world.path(""), token).await.status, 200, "it ended before its time");
    let after = WallMicros(now.0 + LIFE_US);
    node.world.operate("remote");
    app.end_emergencies(after).await;
    assert_eq!(node.world.get(&node.world.path(""), token).await.status, 200, "somebody operates");
    node.world.operate("local");
    app.end_emergencies(after).await;
    let out = node.world.get(&node.world.path(""), token).await;
    out.assert_problem(403, "participant-gone", "sub");
    assert_eq!(node.records("break-glass-ended").await.len(), 1);
    // Whoever came in as usual stays.
    let other = node.world.join(Role::Observer).await;
    app.end_emergencies(after).await;
    assert_eq!(node.world.get(&node.world.path(""), &other.token).await.status, 200);
}

#[test]
fn tokens_end_with_the_time_and_carry_no_authority_after_it() {
    let world = tokio::runtime::Runtime::new().unwrap().block_on(World::new());
    let bearing = crate::token::Bearing {
        session: world.session.clone(),
        participant: ParticipantId::new("p1").unwrap(),
        realm: trocar_proto::session::ids::RealmId::new("north").unwrap(),
        role: Role::Expert,
        cnf: None,
    };
    let now = crate::app::wall_clock();
    let issue = |left_s: i64, instruments| {
        let until = WallMicros(now.0.checked_add_signed(left_s * 1_000_000).unwrap());
        world.app.tokens.issue(now, &bearing, |claims| Narrowed { until, instruments }.narrow(now, claims)).unwrap().1
    };
    let claims = issue(1_000, true);
    assert_eq!((claims.exp - claims.iat, claims.grade), (300, Grade::Energy));
    assert_eq!(issue(1_000, false).grade, Grade::Observe);
    assert_eq!(issue(100, true).exp - claims.iat, 100, "the token outlives the time");
    let over = issue(-1, true);
    assert_eq!((over.exp - over.iat, over.grade), (300, Grade::Observe), "for whoever stays because somebody operates");
    assert_eq!(over.verbs, [trocar_proto::session::role::Verb::View, trocar_proto::session::role::Verb::Publish]);
}

#[tokio::test]
async fn a_join_stays_on_the_list_until_somebody_has_looked_into_it_and_that_is_recorded() {
    let node = Node::new(Some(glass(&[Role::Expert]))).await;
    let id = node.enter(Role::Expert).await.json()["participant"].as_str().unwrap().to_owned();
    let desk = BreakGlassDesk::open(&node.path).unwrap();
    assert_eq!(desk.standing().unwrap().unreviewed, 1);
    let [waiting] = &desk.list(false).unwrap()[..] else { panic!("one") };
    assert_eq!((&waiting.id, waiting.reason.as_str(), waiting.role.as_str()), (&id, WHY, "expert"));
    assert!(matches!(desk.review("nobody", "Mori", "ok"), Err(BreakGlassError::Missing(_))));
    assert!(matches!(desk.review(&id, " ", "ok"), Err(BreakGlassError::By)));
    assert!(matches!(desk.review(&id, "Mori", "a\u{202e}b"), Err(BreakGlassError::Note)));
    desk.review(&id, "Dr. Mori", "the issuer was down from 9 to 10").unwrap();
    assert!(matches!(desk.review(&id, "Somebody", "else"), Err(BreakGlassError::Reviewed(_))));
    assert_eq!(desk.list(false).unwrap(), []);
    assert_eq!(desk.list(true).unwrap()[0].review.as_ref().unwrap().by, "Dr. Mori");
    node.world.app.hear_reviews(crate::app::wall_clock()).await;
    assert_eq!(node.world.app.figures.break_glass_unreviewed.get(), 0);
    let said = node.records("break-glass-reviewed").await;
    assert!(said.len() == 1 && said[0].starts_with("by Dr. Mori: the issuer was down"), "{said:?}");
    assert_eq!(desk.standing().unwrap().untold.len(), 0, "it would be recorded a second time");
}

#[tokio::test]
async fn after_a_restart_it_is_known_who_came_in_so() {
    let node = Node::new(Some(glass(&[Role::Expert]))).await;
    let grant = node.enter(Role::Expert).await.json();
    let participant = ParticipantId::new(grant["participant"].as_str().unwrap()).unwrap();
    let before = node.world.app.live().broken_glass_of(&node.world.session, &participant).unwrap();
    node.world.app.store.stop().await;
    let again = Node::world(&node.path, Some(glass(&[Role::Expert]))).await;
    let after = again.app.live().broken_glass_of(&node.world.session, &participant);
    assert_eq!((before.reason.as_str(), after), (WHY, Some(before.clone())));
    again.app.store.stop().await;
}

#[test]
fn what_cannot_be_configured_is_refused_by_name() {
    let good = glass(&[Role::Local, Role::Expert, Role::Observer]);
    assert_eq!(good.check(), Ok(()));
    let field = |c: BreakGlassConfig| c.check().unwrap_err().field;
    assert_eq!(field(glass(&[])), "identity.break_glass.roles");
    assert_eq!(field(glass(&[Role::Expert, Role::Coordinator])), "identity.break_glass.roles");
    for seconds in [299, 14_401] {
        let life = Duration::from_secs(seconds);
        assert_eq!(field(BreakGlassConfig { life, ..good.clone() }), "identity.break_glass.minutes");
    }
    for per_hour in [0, 21] {
        assert_eq!(field(BreakGlassConfig { per_hour, ..good.clone() }), "identity.break_glass.per_hour");
    }
    let identity = IdentityConfig { break_glass: Some(glass(&[])), ..IdentityConfig::default() };
    assert_eq!(identity.check().unwrap_err().field, "identity.break_glass.roles");
}

#[test]
fn a_list_of_a_database_that_is_none_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trocar.db");
    std::fs::write(&path, "no database at all, but long enough to be looked at as one").unwrap();
    let refused = BreakGlassDesk::open(&path).map(drop);
    assert!(matches!(refused, Err(BreakGlassError::Store(StoreError::Open { .. }))), "{refused:?}");
}
