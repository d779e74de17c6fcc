//! Logging in, and what an identity opens.

use super::*;
use crate::audit::{Filter, search};
use crate::tests::{Reply, World, config};
use axum::http::Method;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;
use trocar_proto::session::ids::CertHash;

const PASSWORD: &str = "a long enough password";

/// A node with a database, and one who administers it.
pub(super) struct Node {
    _dir: TempDir,
    pub(super) path: PathBuf,
    pub(super) world: World,
}

impl Node {
    async fn new(required: Required) -> Self {
        Self::with(IdentityConfig { required, ..IdentityConfig::default() }).await
    }

    pub(super) async fn with(identity: IdentityConfig) -> Self {
        Self::known_by("https://trocar.example", identity).await
    }

    pub(super) async fn known_by(url: &str, identity: IdentityConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trocar.db");
        let (store, public_url) = (StoreAt::File(path.clone()), Some(url.to_owned()));
        let world = World::with(Config { store, public_url, identity, ..config() }).await;
        Self { _dir: dir, path, world }
    }

    /// What `trocar admin user` does beside the running node.
    pub(super) fn admin(&self) -> Accounts {
        Accounts::open(&self.path).unwrap()
    }

    /// Adds an account; its authenticator.
    fn add(&self, account: &str) -> totp::Secret {
        let address = self.admin().add(&account.parse().unwrap(), &format!("Dr {account}"), PASSWORD).unwrap();
        secret_in(&address)
    }

    async fn login(&self, account: &str, password: &str, code: &str) -> Reply {
        let body = json!({"account": account, "password": password, "code": code});
        self.world.post("/v1/login", None, &body).await
    }

    /// The identity of somebody who logs in with everything right.
    pub(super) async fn identity(&self, account: &str) -> String {
        let totp = self.add(account);
        let reply = self.login(account, PASSWORD, &now(&totp, 0)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["identity"].as_str().unwrap().to_owned()
    }

    pub(super) async fn join(&self, role: Role, identity: Option<&str>) -> Reply {
        let invitation = self.world.app.invite(&self.world.session, role, 3_600, None).await.unwrap();
        let body = json!({"invitation": invitation.invitation, "name": "Somebody"});
        self.world.post("/v1/join", identity, &body).await
    }

    /// Kind, name and detail of the records of that kind.
    pub(super) async fn records(&self, kind: &str) -> Vec<(Option<String>, String)> {
        self.world.app.settled().await.unwrap();
        let wanted = Filter { kind: Some(kind.to_owned()), ..Filter::default() };
        let rows = search(&self.path, &wanted).unwrap().into_iter();
        rows.filter(|r| r.record.kind == kind).map(|r| (r.record.name, r.record.detail)).collect()
    }
}

/// Takes note of what was done to accounts, as the sweep does twice a second.
pub(super) async fn hear(node: &Node) {
    *node.world.app.identity.looked.lock().unwrap() = None;
    node.world.app.hear_account_changes().await;
}

/// Base32 of the address back into bytes, as an authenticator reads it.
fn secret_in(address: &str) -> totp::Secret {
    let text = address.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    let mut bits = String::new();
    for c in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|b| *b == c).unwrap();
        bits += &format!("{value:05b}");
    }
    let bytes: Vec<u8> = (0..20).map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap()).collect();
    totp::Secret::new(bytes.try_into().unwrap())
}

/// The code that is shown so many steps from now.
fn now(totp: &totp::Secret, steps: i64) -> String {
    totp.code((wall_clock().0 / 30_000_000).checked_add_signed(steps).unwrap())
}

fn ways(reply: &Reply) -> Value {
    reply.json()["ways"].clone()
}

#[tokio::test]
async fn a_login_opens_a_role_with_instruments_and_the_record_says_who() {
    let node = Node::new(Required::Instruments).await;
    let refused = node.join(Role::Expert, None).await;
    refused.assert_problem(401, "identity-needed", "Authorization");
    assert_eq!(ways(&refused), json!(["local", "passkey"]));
    assert!(refused.header("www-authenticate").contains("insufficient_user_authentication"));
    assert_eq!(node.join(Role::Observer, None).await.status, 200, "who never holds instruments needs no login");

    let identity = node.identity("ada").await;
    let joined = node.join(Role::Expert, Some(&identity)).await;
    assert_eq!(joined.status, 200, "{}", joined.text);
    assert_eq!(joined.json()["name"], "Dr ada", "the name that is known goes before the one that was typed");
    assert_eq!(node.records("login").await[0].0.as_deref(), Some("ada"));
    let details: Vec<String> = node.records("joined").await.into_iter().map(|(_, d)| d).collect();
    assert_eq!(details, ["", "account ada"]);
}

#[tokio::test]
async fn by_default_links_alone_open_everything_as_before() {
    let node = Node::new(Required::Never).await;
    for role in Role::all() {
        assert_eq!(node.join(role, None).await.status, 200, "{role:?}");
    }
    // Who has logged in is known all the same.
    let identity = node.identity("ada").await;
    assert_eq!(node.join(Role::Observer, Some(&identity)).await.json()["name"], "Dr ada");
}

#[tokio::test]
async fn what_is_wrong_with_a_login_is_recorded_and_not_told() {
    let node = Node::new(Required::Always).await;
    let totp = node.add("ada");
    let code = now(&totp, 0);
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let mut texts = Vec::new();
    for (account, password, code) in [
        ("ada", "not the password", code.as_str()),
        ("ada", PASSWORD, wrong),
        ("grace", PASSWORD, code.as_str()),
        ("no such/name", PASSWORD, code.as_str()),
    ] {
        let reply = node.login(account, password, code).await;
        reply.assert_problem(401, "login-failed", "account");
        texts.push(reply.text);
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "all of them look alike");
    // Neither of them used the code up; it is used up now.
    assert_eq!(node.login("ADA", PASSWORD, &code).await.status, 200);
    node.login("ada", PASSWORD, &code).await.assert_problem(401, "login-failed", "account");
    let records = node.records("login-failed").await;
    let said: Vec<&str> = records.iter().map(|(_, d)| d.split(',').next().unwrap()).collect();
    let want = ["wrong password", "wrong code", "there is no account grace", "no account can have that name"];
    assert_eq!(said[..4], want);
    assert_eq!(said[4], "a code that was used before");
    assert!(records.iter().all(|(_, d)| !d.contains(PASSWORD) && !d.contains("not the password")));
}

#[tokio::test]
async fn guessing_is_slowed_down_and_others_are_not() {
    let node = Node::new(Required::Always).await;
    let totp = node.add("ada");
    node.add("grace");
    for _ in 0..5 {
        node.login("ada", "not the password", "000000").await.assert_problem(401, "login-failed", "account");
    }
    let slowed = node.login("ada", PASSWORD, &now(&totp, 0)).await;
    slowed.assert_problem(429, "too-many-requests", "account");
    assert_eq!(slowed.header("retry-after"), "60");
    node.login("grace", "not the password", "000000").await.assert_problem(401, "login-failed", "account");
}

#[tokio::test]
async fn an_old_second_factor_opens_no_instruments_and_a_new_one_does() {
    let node = Node::new(Required::Always).await;
    let identity = node.identity("ada").await;
    let long_ago = wall_clock().0 - 901_000_000;
    let person = |at| Person { account: "ada".into(), name: "Ada".into(), at: WallMicros(at), second_factor: true };
    let old = node.world.app.identity.begin(person(long_ago)).unwrap().token;
    let refused = node.join(Role::Expert, Some(&old)).await;
    refused.assert_problem(401, "identity-needed", "Authorization");
    assert!(refused.json()["detail"].as_str().unwrap().contains("900 s"), "{}", refused.text);
    assert_eq!(node.join(Role::Observer, Some(&old)).await.status, 200, "for watching it is good enough");
    assert_eq!(node.join(Role::Expert, Some(&identity)).await.status, 200);

    let one_factor = Person { second_factor: false, ..person(wall_clock().0) };
    let one_factor = node.world.app.identity.begin(one_factor).unwrap().token;
    for role in [Role::Observer, Role::Expert] {
        node.join(role, Some(&one_factor)).await.assert_problem(401, "second-factor-needed", "Authorization");
    }
    let kept_out = node.records("denied").await.into_iter().filter(|(name, _)| name.as_deref() == Some("ada"));
    assert_eq!(kept_out.count(), 3, "whoever is known is recorded by name");
}

#[tokio::test]
async fn a_logout_ends_the_login_and_a_restart_ends_all() {
    let node = Node::new(Required::Always).await;
    let identity = node.identity("ada").await;
    let other = node.world.app.identity.begin(Person {
        account: "grace".into(),
        name: "Grace".into(),
        at: wall_clock(),
        second_factor: true,
    });
    let other = other.unwrap().token;
    for _ in 0..2 {
        assert_eq!(node.world.post("/v1/logout", Some(&identity), &json!({})).await.status, 204);
    }
    node.join(Role::Observer, Some(&identity)).await.assert_problem(401, "identity-needed", "Authorization");
    assert_eq!(node.join(Role::Observer, Some(&other)).await.status, 200);
    assert_eq!(node.records("logout").await, [(Some("ada".to_owned()), String::new())]);
    // As after a restart: the signature is good, and nobody knows the login.
    *node.world.app.identity.logins() = Logins::default();
    node.join(Role::Observer, Some(&other)).await.assert_problem(401, "identity-needed", "Authorization");
}

#[tokio::test]
async fn an_account_that_is_removed_takes_its_logins_and_its_people_along() {
    let node = Node::new(Required::Always).await;
    let identity = node.identity("ada").await;
    let joined = node.join(Role::Expert, Some(&identity)).await.json();
    let token = joined["token"].as_str().unwrap();
    assert_eq!(node.world.get(&node.world.path(""), token).await.status, 200);
    node.admin().remove(&"ada".parse().unwrap()).unwrap();
    hear(&node).await;
    node.world.get(&node.world.path(""), token).await.assert_problem(403, "participant-gone", "sub");
    node.join(Role::Observer, Some(&identity)).await.assert_problem(401, "identity-needed", "Authorization");
    assert_eq!(node.records("account-added").await[0].0.as_deref(), Some("ada"));
    assert_eq!(node.records("account-removed").await.len(), 1);
    hear(&node).await;
    assert_eq!(node.records("account-removed").await.len(), 1, "each is recorded once");
}

#[tokio::test]
async fn neither_a_session_token_nor_an_invitation_is_an_identity_and_the_other_way_round() {
    let node = Node::new(Required::Instruments).await;
    let observer = node.world.join_with(Role::Observer, Some(CertHash([7; 32]))).await;
    node.join(Role::Expert, Some(&observer.token)).await.assert_problem(401, "identity-needed", "Authorization");
    let identity = node.identity("ada").await;
    node.world.get(&node.world.path(""), &identity).await.assert_problem(401, "token-invalid", "Authorization");
    // An invitation's secret alone makes no resource of a role that needs more.
    let secret = node.world.app.invite(&node.world.session, Role::Expert, 3_600, None).await.unwrap().invitation;
    let offer = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=sendonly\r\n";
    let sdp = [("Content-Type", "application/sdp")];
    let reply = node.world.ask(Method::POST, &node.world.path("/whip"), Some(&secret), &sdp, offer).await;
    reply.assert_problem(401, "identity-needed", "Authorization");
}

#[tokio::test]
async fn a_node_without_a_file_has_no_accounts() {
    let world = World::new().await;
    let body = json!({"account": "ada", "password": PASSWORD, "code": "000000"});
    world.post("/v1/login", None, &body).await.assert_problem(404, "login-unused", "account");
}

#[test]
fn one_account_has_so_many_logins_and_the_oldest_ends() {
    let mut logins = Logins::default();
    let live = |n: u64| Live { account: "ada".into(), since: WallMicros(n), ends: u64::MAX };
    for n in 0..20 {
        logins.add(n.to_string(), live(n), WallMicros(0));
    }
    assert_eq!(logins.0.len(), MAX_OF_ACCOUNT);
    assert!(!logins.0.contains_key("3") && logins.0.contains_key("4") && logins.0.contains_key("19"));
    let all = MAX_LOGINS + 10;
    for n in 0..all {
        logins.add(format!("x{n}"), Live { account: n.to_string(), ..live(100) }, WallMicros(0));
    }
    assert_eq!(logins.0.len(), MAX_LOGINS);
    logins.add("y".into(), Live { ends: 1, ..live(200) }, WallMicros(0));
    logins.add("z".into(), live(200), WallMicros(2_000_000));
    assert!(!logins.0.contains_key("y"), "what has ended goes first");
}
