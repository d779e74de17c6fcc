//! Logins by way of an issuer that says what it is told to say.

use super::super::tests::Node;
use super::super::{IdentityConfig, Required};
use super::config::tests::issuer;
use super::*;
use crate::tests::Reply;
use crate::token::{generate_token_key, token_public_key};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use trocar_proto::session::role::Role;
use trocar_proto::units::Micros;

/// What only the tab knows.
const TAB: &str = "a value that only this tab knows";

/// What an issuer says, and how often it was asked.
#[derive(Default)]
struct Script {
    metadata: Map<String, Value>,
    keys: Value,
    id_token: String,
    token_error: Option<(u16, &'static str)>,
    redirects: bool,
    asked: BTreeMap<&'static str, usize>,
    /// What the token endpoint was sent: the form, and `Authorization`.
    sent: (BTreeMap<String, String>, String),
}

/// An issuer on this machine. It ends with the test's runtime.
struct FakeIssuer {
    base: String,
    key: Vec<u8>,
    script: Arc<Mutex<Script>>,
}

type Scripted = State<Arc<Mutex<Script>>>;

impl FakeIssuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let key = generate_token_key().unwrap();
        let mut script = Script { keys: json!({"keys": [public(&key, "k1")]}), ..Script::default() };
        for (name, path) in
            [("issuer", ""), ("authorization_endpoint", "/auth"), ("token_endpoint", "/token"), ("jwks_uri", "/keys")]
        {
            script.metadata.insert(name.to_owned(), json!(format!("{base}{path}")));
        }
        let script = Arc::new(Mutex::new(script));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base, key, script }
    }

    fn say(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn asked(&self, what: &str) -> usize {
        self.script.lock().unwrap().asked.get(what).copied().unwrap_or_default()
    }

    /// What a good ID token says to a login.
    fn claims(&self, begun: &BTreeMap<String, String>) -> Map<String, Value> {
        let now = wall_clock().0 / 1_000_000;
        let claims = json!({
            "iss": self.base, "aud": "trocar", "sub": "u1", "name": "Dr Ada", "nonce": begun["nonce"], "iat": now,
            "exp": now + 60, "auth_time": now, "amr": ["pwd", "otp"],
        });
        claims.as_object().unwrap().clone()
    }

    fn sign(&self, claims: &Map<String, Value>) -> String {
        signed(&self.key, "k1", claims)
    }
}

fn public(pkcs8: &[u8], kid: &str) -> Value {
    let x = URL_SAFE_NO_PAD.encode(token_public_key(pkcs8).unwrap());
    json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"})
}

fn signed(pkcs8: &[u8], kid: &str, claims: &Map<String, Value>) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(pkcs8)).unwrap()
}

async fn metadata(State(script): Scripted) -> Response {
    let mut script = script.lock().unwrap();
    *script.asked.entry("metadata").or_default() += 1;
    if script.redirects { Redirect::to("/keys").into_response() } else { Json(&script.metadata).into_response() }
}

async fn keys(State(script): Scripted) -> Response {
    let mut script = script.lock().unwrap();
    *script.asked.entry("keys").or_default() += 1;
    Json(&script.keys).into_response()
}

async fn token(State(script): Scripted, headers: HeaderMap, body: String) -> Response {
    let mut script = script.lock().unwrap();
    *script.asked.entry("token").or_default() += 1;
    let header = headers.get("authorization").map_or("", |v| v.to_str().unwrap()).to_owned();
    script.sent = (fields(&body), header);
    match script.token_error {
        Some((status, error)) => (StatusCode::from_u16(status).unwrap(), Json(json!({"error": error}))).into_response(),
        None => Json(json!({"id_token": script.id_token, "token_type": "Bearer", "access_token": "x"})).into_response(),
    }
}

fn fields(query: &str) -> BTreeMap<String, String> {
    let url = Url::parse(&format!("form:?{query}")).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn hashed(tab: &str) -> String {
    URL_SAFE_NO_PAD.encode(SecretHash::of(tab).0)
}

async fn node(configs: Vec<IssuerConfig>) -> Node {
    Node::with(IdentityConfig { required: Required::Instruments, issuers: configs, ..IdentityConfig::default() }).await
}

/// A node with one issuer.
async fn world() -> (Node, FakeIssuer) {
    let fake = FakeIssuer::start().await;
    (node(vec![issuer(&fake.base)]).await, fake)
}

/// Begins a login; what the browser is sent to the issuer with.
async fn begin(node: &Node, issuer: &str, step_up: bool) -> BTreeMap<String, String> {
    let body = json!({"issuer": issuer, "tab": hashed(TAB), "step_up": step_up});
    let reply = node.world.post("/v1/login/begin", None, &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let url = Url::parse(reply.json()["url"].as_str().unwrap()).unwrap();
    assert_eq!(url.path(), "/auth");
    fields(url.query().unwrap())
}

async fn finish(node: &Node, body: Value) -> Reply {
    node.world.post("/v1/login/finish", None, &body).await
}

async fn come_back(node: &Node, begun: &BTreeMap<String, String>) -> Reply {
    finish(node, json!({"state": begun["state"], "code": "c1", "tab": TAB})).await
}

/// A login whose ID token is made from good claims.
async fn login_with(
    node: &Node,
    fake: &FakeIssuer,
    make: impl FnOnce(&FakeIssuer, Map<String, Value>) -> String,
) -> Reply {
    let begun = begin(node, "North", false).await;
    let id_token = make(fake, fake.claims(&begun));
    fake.say(|s| s.id_token = id_token);
    come_back(node, &begun).await
}

#[tokio::test]
async fn whom_an_issuer_vouches_for_comes_in_and_the_record_says_how() {
    let (node, fake) = world().await;
    let refused = node.join(Role::Expert, None).await;
    assert_eq!(refused.json()["ways"], json!(["local", "passkey", "North"]));

    let begun = begin(&node, "North", false).await;
    let want = [("response_type", "code"), ("client_id", "trocar"), ("scope", "openid"), ("max_age", "900")];
    for (name, value) in want {
        assert_eq!(begun[name], value);
    }
    assert_eq!(
        (&begun["redirect_uri"][..], &begun["code_challenge_method"][..]),
        ("https://trocar.example/login", "S256")
    );
    assert!(!begun.contains_key("prompt"));
    let id_token = fake.sign(&fake.claims(&begun));
    fake.say(|s| s.id_token = id_token);
    let done = come_back(&node, &begun).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let done = done.json();
    assert_eq!((&done["account"], &done["name"]), (&json!("North:u1"), &json!("Dr Ada")));
    let (form, header) = fake.script.lock().unwrap().sent.clone();
    assert_eq!(hashed(&form["code_verifier"]), begun["code_challenge"]);
    assert_eq!((&form["code"][..], &form["redirect_uri"], &header[..]), ("c1", &begun["redirect_uri"], ""));

    assert_eq!(node.join(Role::Expert, done["identity"].as_str()).await.json()["name"], "Dr Ada");
    let logins = node.records("login").await;
    assert_eq!(logins[0].0.as_deref(), Some("North:u1"));
    assert!(logins[0].1.starts_with("by North, with a second factor, acr none, amr pwd otp, from"), "{}", logins[0].1);
    assert!(node.records("joined").await.iter().any(|(_, d)| d == "account North:u1"));
    // The same answer a second time.
    come_back(&node, &begun).await.assert_problem(401, "login-unfinished", "state");
    assert_eq!(fake.asked("token"), 1);
}

#[tokio::test]
async fn one_factor_opens_no_instruments_and_a_step_up_asks_anew() {
    let fake = FakeIssuer::start().await;
    let mut config = issuer(&fake.base);
    config.second_factor.acr = vec!["two".into()];
    let node = node(vec![config]).await;
    let one = login_with(&node, &fake, |fake, mut claims| {
        claims.insert("amr".into(), json!(["pwd"]));
        fake.sign(&claims)
    });
    let one = one.await.json();
    let refused = node.join(Role::Expert, one["identity"].as_str()).await;
    refused.assert_problem(401, "second-factor-needed", "Authorization");
    assert_eq!(refused.json()["ways"], json!(["local", "passkey", "North"]));
    assert!(node.records("denied").await.iter().any(|(name, _)| name.as_deref() == Some("North:u1")));
    assert_eq!(node.join(Role::Observer, one["identity"].as_str()).await.status, 200);

    let begun = begin(&node, "North", true).await;
    assert_eq!((&begun["prompt"][..], &begun["max_age"][..], &begun["acr_values"][..]), ("login", "0", "two"));
    let mut claims = fake.claims(&begun);
    claims.insert("auth_time".into(), json!(wall_clock().0 / 1_000_000 - 60));
    let old = fake.sign(&claims);
    fake.say(|s| s.id_token = old);
    let reply = come_back(&node, &begun).await;
    reply.assert_problem(401, "login-unfinished", "state");
    assert!(reply.text.contains("did not ask you anew"), "{}", reply.text);

    let begun = begin(&node, "North", true).await;
    let mut claims = fake.claims(&begun);
    claims.insert("amr".into(), json!([]));
    claims.insert("acr".into(), json!("two"));
    let fresh = fake.sign(&claims);
    fake.say(|s| s.id_token = fresh);
    let two = come_back(&node, &begun).await.json();
    assert_eq!(node.join(Role::Expert, two["identity"].as_str()).await.status, 200);
}

#[tokio::test]
async fn an_id_token_that_does_not_hold_logs_nobody_in_and_the_record_says_why() {
    let (node, fake) = world().await;
    type Make = fn(&FakeIssuer, Map<String, Value>) -> String;
    fn with(fake: &FakeIssuer, mut claims: Map<String, Value>, name: &str, value: Value) -> String {
        claims.insert(name.to_owned(), value);
        fake.sign(&claims)
    }
    let cases: [(&str, Make); 10] = [
        ("header is not understood", |_, claims| {
            let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
            format!("{}.{}.", part(json!({"alg": "none"})), part(Value::Object(claims)))
        }),
        ("signed in a way that is not taken", |fake, claims| {
            // The public key taken for a shared secret.
            let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
            let secret = token_public_key(&fake.key).unwrap();
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap()
        }),
        ("signature is wrong", |_, claims| signed(&generate_token_key().unwrap(), "k1", &claims)),
        ("signature is wrong", |fake, claims| {
            let other = fake.sign(&Map::new());
            let (good, _) = fake.sign(&claims).rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
            format!("{good}.{}", other.rsplit('.').next().unwrap())
        }),
        ("key that the issuer does not have", |fake, claims| signed(&fake.key, "k2", &claims)),
        ("for another client", |fake, claims| with(fake, claims, "aud", json!("other"))),
        ("has expired", |fake, claims| with(fake, claims, "exp", json!(1_700_000_000))),
        ("nonce is not that of the login", |fake, claims| with(fake, claims, "nonce", json!("x"))),
        ("of another issuer", |fake, claims| with(fake, claims, "iss", json!("https://south.example"))),
        ("token: invalid_grant", |fake, _| {
            fake.say(|s| s.token_error = Some((400, "invalid_grant")));
            String::new()
        }),
    ];
    for (i, (why, make)) in cases.into_iter().enumerate() {
        let reply = login_with(&node, &fake, make).await;
        reply.assert_problem(401, "login-unfinished", "state");
        assert!(!reply.text.contains(why), "told too much: {}", reply.text);
        let records = node.records("login-failed").await;
        assert!(records.len() == i + 1 && records[i].1.contains(why), "{why}: {records:?}");
    }
    fake.say(|s| s.token_error = None);
    assert_eq!(login_with(&node, &fake, |fake, claims| fake.sign(&claims)).await.status, 200);
}

#[tokio::test]
async fn an_answer_belongs_to_one_tab_one_issuer_and_one_login() {
    let (north, south) = (FakeIssuer::start().await, FakeIssuer::start().await);
    let of_south = IssuerConfig { name: "South".into(), ..issuer(&south.base) };
    let node = node(vec![issuer(&north.base), of_south]).await;
    south.say(|s| drop(s.metadata.insert("authorization_response_iss_parameter_supported".into(), json!(true))));
    let wrong = |reply: Reply| reply.assert_problem(401, "login-unfinished", "state");

    // A login that somebody else began, and one of nobody.
    let begun = begin(&node, "North", false).await;
    wrong(finish(&node, json!({"state": begun["state"], "code": "c1", "tab": "another tab"})).await);
    wrong(come_back(&node, &begun).await);
    wrong(finish(&node, json!({"state": "x", "code": "c1", "tab": TAB})).await);
    // The answer of one issuer to a login at the other; and one that keeps quiet about whose it is, though it promised.
    let begun = begin(&node, "North", false).await;
    wrong(finish(&node, json!({"state": begun["state"], "code": "c1", "iss": south.base, "tab": TAB})).await);
    let begun = begin(&node, "South", false).await;
    wrong(come_back(&node, &begun).await);
    // An issuer that says no.
    let begun = begin(&node, "North", false).await;
    let reply = finish(&node, json!({"state": begun["state"], "error": "access_denied", "tab": TAB})).await;
    assert!(reply.text.contains("North did not log you in (access_denied)"), "{}", reply.text);
    wrong(reply);
    assert_eq!((north.asked("token"), south.asked("token")), (0, 0), "no code was passed on");
    // A token of the one, good as it is, handed over by the other.
    let begun = begin(&node, "North", false).await;
    let id_token = south.sign(&south.claims(&begun));
    north.say(|s| s.id_token = id_token);
    wrong(come_back(&node, &begun).await);
    let why: Vec<String> = node.records("login-failed").await.into_iter().map(|(_, d)| d).collect();
    assert_eq!(why.iter().filter(|w| w.contains("this tab did not begin")).count(), 3, "{why:?}");
    assert_eq!(why.iter().filter(|w| w.contains("the answer is not of")).count(), 2, "{why:?}");
    // And one that is right, with the issuer's own name in the answer.
    let begun = begin(&node, "South", false).await;
    let id_token = south.sign(&south.claims(&begun));
    south.say(|s| s.id_token = id_token);
    let reply = finish(&node, json!({"state": begun["state"], "code": "c1", "iss": south.base, "tab": TAB})).await;
    assert_eq!(reply.json()["account"], "South:u1");
    // Neither is the local account of that name, nor the other issuer's.
    node.world.app.identity.logins().0.values().for_each(|l| assert_eq!(l.account, "South:u1"));
    assert!("South:u1".parse::<super::super::AccountName>().is_err());
}

#[tokio::test]
async fn whoever_signs_with_unknown_keys_makes_nobody_ask_for_keys_all_the_time() {
    let fake = FakeIssuer::start().await;
    let provider = Provider::new(issuer(&fake.base)).unwrap();
    let redeem = async |now: u64, pkcs8: &[u8], kid: &str| {
        let id_token = signed(pkcs8, kid, &Map::new());
        fake.say(|s| s.id_token = id_token);
        provider.redeem(Micros(now), "c1", "v", "https://trocar.example/login").await.is_ok()
    };
    let other = generate_token_key().unwrap();
    assert!(redeem(0, &fake.key, "k1").await);
    for n in 0..20 {
        assert!(!redeem(n, &other, &format!("x{n}")).await);
    }
    assert_eq!(fake.asked("keys"), 1);
    assert!(redeem(30, &fake.key, "k1").await, "those that are known are good meanwhile");
    // The issuer changes its key: it is found out after ten seconds, and the former one is gone.
    fake.say(|s| s.keys = json!({"keys": [public(&other, "k2"), {"kty": "new"}, 7]}));
    assert!(!redeem(9_999_999, &other, "k2").await);
    assert!(redeem(10_000_000, &other, "k2").await);
    assert!(!redeem(10_000_001, &fake.key, "k1").await);
    assert_eq!(fake.asked("keys"), 2);
    assert_eq!(fake.asked("metadata"), 1);
}

#[tokio::test]
async fn an_issuer_whose_metadata_does_not_hold_is_not_used_and_left_alone_for_a_while() {
    type Change = fn(&mut Script);
    let changes: [(&str, Change); 6] = [
        ("names another issuer", |s| drop(s.metadata.insert("issuer".into(), json!("https://south.example")))),
        ("without TLS", |s| drop(s.metadata.insert("token_endpoint".into(), json!("http://192.0.2.1/token")))),
        ("PKCE", |s| drop(s.metadata.insert("code_challenge_methods_supported".into(), json!(["plain"])))),
        ("not understood", |s| drop(s.metadata.remove("jwks_uri"))),
        ("too long", |s| drop(s.metadata.insert("x".into(), json!("x".repeat(70_000))))),
        ("HTTP 303", |s| s.redirects = true),
    ];
    for (why, change) in changes {
        let fake = FakeIssuer::start().await;
        fake.say(change);
        let provider = Provider::new(issuer(&fake.base)).unwrap();
        for now in [0, 4_999_999] {
            let trouble = provider.metadata(Micros(now)).await.unwrap_err().to_string();
            assert!(trouble.contains(why), "{why}: {trouble}");
        }
        assert_eq!((fake.asked("metadata"), fake.asked("keys")), (1, 0), "{why}");
        assert!(provider.metadata(Micros(5_000_000)).await.is_err());
        assert_eq!(fake.asked("metadata"), 2, "{why}");
    }
}

#[tokio::test]
async fn a_secret_is_shown_as_the_issuer_takes_it() {
    let fake = FakeIssuer::start().await;
    let config = IssuerConfig { client_secret: Some(ClientSecret::new("a:b".into())), ..issuer(&fake.base) };
    let id_token = fake.sign(&Map::new());
    fake.say(|s| s.id_token = id_token);
    for (methods, in_header) in [(Value::Null, true), (json!(["client_secret_post"]), false)] {
        fake.say(|s| drop(s.metadata.insert("token_endpoint_auth_methods_supported".into(), methods)));
        let provider = Provider::new(config.clone()).unwrap();
        provider.redeem(Micros(0), "c1", "v", "https://trocar.example/login").await.unwrap();
        let (form, header) = fake.script.lock().unwrap().sent.clone();
        // trocar:a%3Ab
        assert_eq!(header == "Basic dHJvY2FyOmElM0Fi", in_header, "{header}");
        assert_eq!(form.get("client_secret").map(String::as_str), (!in_header).then_some("a:b"));
    }
}

#[tokio::test]
async fn what_begins_no_login_is_refused_by_name() {
    let (node, fake) = world().await;
    let body = |issuer: &str, tab: &str| json!({"issuer": issuer, "tab": tab}).to_string();
    let ask = async |origin: Option<&str>, body: String| {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(origin.map(|o| ("Origin", o)));
        node.world.ask(Method::POST, "/v1/login/begin", None, &headers, body).await
    };
    let tab = hashed(TAB);
    ask(None, body("East", &tab)).await.assert_problem(404, "issuer-unknown", "issuer");
    ask(None, body("North", "short")).await.assert_problem(400, "field-invalid", "tab");
    ask(Some("https://evil.example"), body("North", &tab)).await.assert_problem(403, "origin", "Origin");
    assert_eq!(ask(Some("https://trocar.example"), body("North", &tab)).await.status, 200);
    let mut gone = issuer(&fake.base);
    // Nobody listens there.
    gone.issuer = "http://127.0.0.1:9".into();
    let node = self::node(vec![gone]).await;
    let reply = node.world.post_text("/v1/login/begin", None, body("North", &tab)).await;
    reply.assert_problem(503, "issuer-unavailable", "issuer");
    assert!(!reply.header("retry-after").is_empty());
}
