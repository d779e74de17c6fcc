//! Registering passkeys and logging in with them, through the routes.

use super::super::accounts::AccountError;
use super::super::{IdentityConfig, Required};
use super::software::Software;
use super::*;
use crate::identity::tests::{Node, hear};
use crate::tests::Reply;
use axum::http::Method;
use rusqlite::Connection;
use trocar_proto::session::role::Role;

async fn node() -> Node {
    Node::with(IdentityConfig { required: Required::Always, ..IdentityConfig::default() }).await
}

fn ada() -> AccountName {
    "ada".parse().unwrap()
}

fn secret_of(link: &str) -> String {
    link.strip_prefix("https://trocar.example/#passkey=").unwrap().to_owned()
}

/// Adds an account without a password; its link's secret.
fn add(node: &Node, account: &str) -> String {
    let name = format!("Dr {account}");
    secret_of(&node.admin().add_without_password(&account.parse().unwrap(), &name, None).unwrap())
}

async fn begin(node: &Node, link: &str) -> Reply {
    node.world.post("/v1/passkeys/begin", None, &json!({"link": link})).await
}

async fn register(node: &Node, link: &str, device: &mut Software) -> Reply {
    let begun = begin(node, link).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    let begun = begun.json();
    let credential = device.create(&begun["options"]);
    let body = json!({"ceremony": begun["ceremony"], "label": "Key ring", "credential": credential});
    node.world.post("/v1/passkeys/finish", None, &body).await
}

/// An account with a passkey.
async fn enrolled(node: &Node, account: &str) -> Software {
    let mut device = Software::new();
    let done = register(node, &add(node, account), &mut device).await;
    assert_eq!(done.status, 201, "{}", done.text);
    device
}

async fn ask(node: &Node) -> Value {
    let begun = node.world.post_text("/v1/login/passkey/begin", None, String::new()).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    begun.json()
}

async fn finish(node: &Node, begun: &Value, credential: &Value) -> Reply {
    let body = json!({"ceremony": begun["ceremony"], "credential": credential});
    node.world.post("/v1/login/passkey/finish", None, &body).await
}

async fn login(node: &Node, device: &mut Software) -> Reply {
    let begun = ask(node).await;
    let credential = device.get(&begun["options"]);
    finish(node, &begun, &credential).await
}

async fn is_refused(node: &Node, device: &mut Software) {
    login(node, device).await.assert_problem(401, "passkey-refused", "credential");
}

#[tokio::test]
async fn a_passkey_is_registered_with_a_link_and_counts_as_two_factors() {
    let node = node().await;
    let link = add(&node, "ada");
    let begun = begin(&node, &link).await.json();
    assert_eq!((&begun["account"], &begun["name"]), (&json!("ada"), &json!("Dr ada")));
    let mut device = Software::new();
    let done = register(&node, &link, &mut device).await;
    assert_eq!((done.status.as_u16(), &done.json()["account"]), (201, &json!("ada")), "{}", done.text);

    let refused = node.join(Role::Expert, None).await;
    assert_eq!(refused.json()["ways"], json!(["local", "passkey"]));
    let granted = login(&node, &mut device).await;
    assert_eq!(granted.status, 200, "{}", granted.text);
    let granted = granted.json();
    assert_eq!((&granted["account"], &granted["name"]), (&json!("ada"), &json!("Dr ada")));
    let joined = node.join(Role::Expert, granted["identity"].as_str()).await;
    assert_eq!(joined.status, 200, "{}", joined.text);
    assert_eq!(joined.json()["name"], "Dr ada");

    hear(&node).await;
    for (kind, said) in [
        ("account-added", "without a password, on the node"),
        ("passkey-invited", "on the node"),
        ("passkey-added", "Key ring, from"),
        ("login", "with passkey Key ring, from"),
    ] {
        let [(name, detail)] = &node.records(kind).await[..] else { panic!("not one {kind}") };
        assert!(name.as_deref() == Some("ada") && detail.starts_with(said), "{kind}: {detail}");
    }
    let [listed] = &node.admin().passkeys(&ada()).unwrap()[..] else { panic!("not one") };
    assert!(listed.label == "Key ring" && listed.last_login.is_some() && listed.id.len() == 16, "{listed:?}");
    let [account] = &node.admin().list().unwrap()[..] else { panic!("not one") };
    assert!(!account.password && account.passkeys == 1 && account.last_login.is_some(), "{account:?}");
}

#[tokio::test]
async fn whoever_is_not_verified_by_the_authenticator_neither_registers_nor_logs_in() {
    let node = node().await;
    let link = add(&node, "ada");
    let mut device = Software { verifies: false, ..Software::new() };
    let refused = register(&node, &link, &mut device).await;
    refused.assert_problem(422, "passkey-unusable", "credential");
    assert!(refused.json()["detail"].as_str().unwrap().contains("PIN"), "{}", refused.text);
    // The link is good until one is registered.
    device.verifies = true;
    assert_eq!(register(&node, &link, &mut device).await.status, 201);
    device.verifies = false;
    is_refused(&node, &mut device).await;
    device.verifies = true;
    assert_eq!(login(&node, &mut device).await.status, 200);
    for kind in ["passkey-refused", "login-failed"] {
        let [(name, detail)] = &node.records(kind).await[..] else { panic!("not one {kind}") };
        assert!(name.as_deref() == Some("ada") && detail.contains("was not verified"), "{detail}");
    }
}

#[tokio::test]
async fn a_counter_that_goes_backwards_is_refused_and_recorded() {
    let node = node().await;
    let mut device = enrolled(&node, "ada").await;
    assert_eq!(login(&node, &mut device).await.status, 200);
    let copy = device.counter - 1;
    assert_eq!(login(&node, &mut device).await.status, 200);
    device.counter = copy;
    is_refused(&node, &mut device).await;
    let [(name, detail)] = &node.records("login-failed").await[..] else { panic!("not one") };
    assert_eq!(name.as_deref(), Some("ada"));
    assert!(detail.contains("counter went backwards"), "{detail}");
    // One that counts nothing, as most that are on more than one device, goes on doing so.
    let mut counts_nothing = Software { counter: 0, ..Software::new() };
    let link = node.admin().passkey_link(&ada(), None).unwrap();
    assert_eq!(register(&node, &secret_of(&link), &mut counts_nothing).await.status, 201);
    for _ in 0..2 {
        assert_eq!(login(&node, &mut counts_nothing).await.status, 200);
    }
}

#[tokio::test]
async fn a_credential_opens_its_own_account_alone_and_at_this_node_alone() {
    let node = node().await;
    let (mut one, mut other) = (enrolled(&node, "ada").await, enrolled(&node, "grace").await);
    let handles = (one.handle.clone(), other.handle.clone());
    assert_ne!(handles.0, handles.1);
    // Ada's key, said to be Grace's; Grace's own name for a credential, signed by Ada's.
    one.handle.clone_from(&handles.1);
    is_refused(&node, &mut one).await;
    let own = std::mem::replace(&mut one.id, other.id.clone());
    is_refused(&node, &mut one).await;
    (one.id, one.handle) = (own, handles.0);
    "https://trocar.example.evil".clone_into(&mut one.origin);
    is_refused(&node, &mut one).await;
    "https://trocar.example".clone_into(&mut one.origin);
    let mut stranger = Software { handle: one.handle.clone(), ..Software::new() };
    is_refused(&node, &mut stranger).await;
    for device in [&mut one, &mut other] {
        assert_eq!(login(&node, device).await.status, 200);
    }
    // A credential that is registered already is nobody else's.
    let link = add(&node, "mary");
    register(&node, &link, &mut one).await.assert_problem(403, "passkey-link-invalid", "link");
    assert_eq!(node.admin().passkeys(&"mary".parse().unwrap()).unwrap(), []);
}

#[tokio::test]
async fn a_link_is_good_once_for_half_an_hour_and_until_the_next_one() {
    let node = node().await;
    let first = add(&node, "ada");
    let second = secret_of(&node.admin().passkey_link(&ada(), None).unwrap());
    let bad = |reply: Reply| reply.assert_problem(403, "passkey-link-invalid", "link");
    bad(begin(&node, &first).await);
    bad(begin(&node, "made-up").await);
    // Two tabs with the same link: one of them registers.
    let (one, two) = (begin(&node, &second).await.json(), begin(&node, &second).await.json());
    let mut answers = Vec::new();
    for begun in [&one, &two] {
        let credential = Software::new().create(&begun["options"]);
        let body = json!({"ceremony": begun["ceremony"], "credential": credential});
        answers.push(node.world.post("/v1/passkeys/finish", None, &body).await);
    }
    assert_eq!(answers.remove(0).status, 201);
    bad(answers.remove(0));
    bad(begin(&node, &second).await);
    let third = secret_of(&node.admin().passkey_link(&ada(), None).unwrap());
    assert_eq!(begin(&node, &third).await.status, 200);
    let db = Connection::open(&node.path).unwrap();
    let (left, kept): (i64, Vec<u8>) =
        db.query_row("SELECT expires_us, secret_sha256 FROM enrolments", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    assert_eq!(kept, SecretHash::of(&third).0, "a hash of it is kept");
    let minutes = (left.unsigned_abs() - wall_clock().0).div_ceil(60_000_000);
    assert!((29..=30).contains(&minutes), "{minutes}");
    db.execute("UPDATE enrolments SET expires_us = ?1", [crate::store::as_i64(wall_clock())]).unwrap();
    bad(begin(&node, &third).await);
}

#[tokio::test]
async fn a_ceremony_is_taken_once_and_not_after_its_time() {
    let node = node().await;
    let mut device = enrolled(&node, "ada").await;
    let unfinished = |reply: Reply| reply.assert_problem(401, "login-unfinished", "ceremony");
    let begun = ask(&node).await;
    let credential = device.get(&begun["options"]);
    assert_eq!(finish(&node, &begun, &credential).await.status, 200);
    unfinished(finish(&node, &begun, &credential).await);
    // What was signed for one is nothing for another.
    let next = ask(&node).await;
    finish(&node, &next, &credential).await.assert_problem(401, "passkey-refused", "credential");
    let late = ask(&node).await;
    let credential = device.get(&late["options"]);
    // As after five minutes.
    *locked(&node.world.app.identity.passkeys.proving) = Pending::default();
    unfinished(finish(&node, &late, &credential).await);
    let link = secret_of(&node.admin().passkey_link(&ada(), None).unwrap());
    let late = begin(&node, &link).await.json();
    *locked(&node.world.app.identity.passkeys.registering) = Pending::default();
    let credential = Software::new().create(&late["options"]);
    let body = json!({"ceremony": late["ceremony"], "credential": credential});
    unfinished(node.world.post("/v1/passkeys/finish", None, &body).await);
}

#[tokio::test]
async fn a_passkey_that_is_removed_ends_the_logins_of_its_account() {
    let node = node().await;
    let mut device = enrolled(&node, "ada").await;
    let granted = login(&node, &mut device).await.json();
    hear(&node).await;
    assert_eq!(node.join(Role::Observer, granted["identity"].as_str()).await.status, 200);
    let listed = node.admin().passkeys(&ada()).unwrap();
    let missing = node.admin().remove_passkey(&ada(), "0000000000000000");
    assert!(matches!(missing, Err(AccountError::NoPasskey(..))));
    node.admin().remove_passkey(&ada(), &listed[0].id).unwrap();
    hear(&node).await;
    let refused = node.join(Role::Observer, granted["identity"].as_str()).await;
    refused.assert_problem(401, "identity-needed", "Authorization");
    is_refused(&node, &mut device).await;
    let [(name, detail)] = &node.records("passkey-removed").await[..] else { panic!("not one") };
    assert!(name.as_deref() == Some("ada") && detail.contains("Key ring, on the node"), "{detail}");
}

#[tokio::test]
async fn a_password_does_not_open_an_account_without_one_and_a_reset_takes_the_passkeys() {
    let node = node().await;
    let mut device = enrolled(&node, "ada").await;
    let body = json!({"account": "ada", "password": "a long enough password", "code": "000000"});
    node.world.post("/v1/login", None, &body).await.assert_problem(401, "login-failed", "account");
    let [(_, detail)] = &node.records("login-failed").await[..] else { panic!("not one") };
    assert!(detail.starts_with("the account has passkeys and no password"), "{detail}");
    assert_eq!(login(&node, &mut device).await.status, 200);
    node.admin().reset(&ada(), "a long enough password").unwrap();
    is_refused(&node, &mut device).await;
    let [account] = &node.admin().list().unwrap()[..] else { panic!("not one") };
    assert!(account.password && account.passkeys == 0, "{account:?}");
}

#[tokio::test]
async fn tries_are_as_few_as_those_of_a_password_and_apart_from_them() {
    let node = node().await;
    let mut device = enrolled(&node, "ada").await;
    let body = json!({"account": "ada", "password": "a long enough password", "code": "000000"});
    for _ in 0..5 {
        node.world.post("/v1/login", None, &body).await.assert_problem(401, "login-failed", "account");
    }
    node.world.post("/v1/login", None, &body).await.assert_problem(429, "too-many-requests", "account");
    device.verifies = false;
    for _ in 0..5 {
        is_refused(&node, &mut device).await;
    }
    device.verifies = true;
    let slowed = login(&node, &mut device).await;
    slowed.assert_problem(429, "too-many-requests", "account");
    assert_eq!(slowed.header("retry-after"), "60");
    let mut grace = enrolled(&node, "grace").await;
    assert_eq!(login(&node, &mut grace).await.status, 200, "another account is another matter");
}

#[tokio::test]
async fn an_account_has_so_many_passkeys() {
    let node = node().await;
    enrolled(&node, "ada").await;
    for _ in 1..MAX_PASSKEYS {
        let link = secret_of(&node.admin().passkey_link(&ada(), None).unwrap());
        assert_eq!(register(&node, &link, &mut Software::new()).await.status, 201);
    }
    let link = secret_of(&node.admin().passkey_link(&ada(), None).unwrap());
    begin(&node, &link).await.assert_problem(422, "passkey-unusable", "credential");
}

#[tokio::test]
async fn a_node_without_a_name_or_without_accounts_says_which_key_is_at_fault() {
    let identity = IdentityConfig { required: Required::Always, ..IdentityConfig::default() };
    let numbered = Node::known_by("https://192.0.2.1", identity.clone()).await;
    let begun = numbered.world.post_text("/v1/login/passkey/begin", None, String::new()).await;
    begun.assert_problem(404, "passkeys-unused", "signaling.public_url");
    assert!(begun.json()["detail"].as_str().unwrap().contains("https://192.0.2.1, an address"), "{}", begun.text);
    assert_eq!(numbered.join(Role::Expert, None).await.json()["ways"], json!(["local"]));
    let refused = numbered.admin().add_without_password(&ada(), "Ada", None);
    assert!(matches!(refused, Err(AccountError::Address(NoPasskeys::Address(_)))));
    assert_eq!(numbered.admin().list().unwrap(), [], "nothing was made");
    let link = numbered.admin().add_without_password(&ada(), "Ada", Some("http://localhost:8080")).unwrap();
    assert!(link.starts_with("http://localhost:8080/#passkey="), "{link}");

    let dir = tempfile::tempdir().unwrap();
    let never_ran = Accounts::open(&dir.path().join("trocar.db")).unwrap();
    assert!(matches!(never_ran.add_without_password(&ada(), "Ada", None), Err(AccountError::NoAddress)));
    assert!(matches!(never_ran.passkey_link(&ada(), Some("https://x.example")), Err(AccountError::Missing(_))));

    let world = crate::tests::World::new().await;
    let begun = world.post_text("/v1/login/passkey/begin", None, String::new()).await;
    begun.assert_problem(404, "passkeys-unused", "identity.local");
}

#[tokio::test]
async fn a_page_of_another_origin_is_told_where_passkeys_are_used() {
    let node = node().await;
    let ask = async |origin: &str| {
        let headers = [("Origin", origin), ("Content-Type", "application/json")];
        node.world.ask(Method::POST, "/v1/login/passkey/begin", None, &headers, "").await
    };
    assert_eq!(ask("https://trocar.example").await.status, 200);
    let refused = ask("https://192.0.2.1").await;
    refused.assert_problem(403, "origin", "Origin");
    assert!(refused.json()["detail"].as_str().unwrap().contains("https://trocar.example"), "{}", refused.text);
}
