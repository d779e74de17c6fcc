//! Who is refused, and in which words: problem documents over real HTTP.

use crate::runtime;
use anyhow::{Context, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use trocar_media_tests::http_client;
use trocar_media_tests::sink::some_offer;
use trocar_media_tests::stack::Stack;

struct Caller {
    http: Client,
    base: String,
    session: String,
}

impl Caller {
    fn new(stack: &Stack) -> anyhow::Result<Self> {
        Ok(Self { http: http_client()?, base: stack.text("/page")?, session: stack.text("/session")? })
    }

    async fn join(&self, stack: &Stack, role: &str) -> anyhow::Result<Value> {
        let invitation = stack.text(&format!("/tokens/{role}"))?;
        let body = json!({ "invitation": invitation, "name": "Somebody" });
        Ok(self.http.post(format!("{}v1/join", self.base)).json(&body).send().await?.error_for_status()?.json().await?)
    }

    fn session_request(&self, session: &str) -> RequestBuilder {
        self.http.get(format!("{}v1/sessions/{session}", self.base))
    }

    fn whep(&self, feed: &str) -> RequestBuilder {
        self.http
            .post(format!("{}v1/sessions/{}/feeds/{feed}/whep", self.base, self.session))
            .header("Content-Type", "application/sdp")
            .body("v=0\r\n")
    }
}

/// The request is answered with this status and this problem, as a problem document that names this field.
async fn refused(request: RequestBuilder, status: u16, problem: &str, field: Option<&str>) -> anyhow::Result<()> {
    let response = request.send().await?;
    let got = response.status().as_u16();
    let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let body: Value = response.json().await.context("no JSON")?;
    ensure!(got == status && body["status"] == status, "HTTP {got}: {body}");
    ensure!(kind.starts_with("application/problem+json"), "{kind}: {body}");
    ensure!(body["type"] == format!("urn:trocar:problem:{problem}"), "{body}");
    ensure!(body["field"].as_str() == field, "field is not {field:?}: {body}");
    ensure!(body["detail"].as_str().is_some_and(|d| d.len() > 10), "no detail: {body}");
    Ok(())
}

fn signed(stack: &Stack, claims: &Value) -> anyhow::Result<String> {
    let key = std::fs::read(stack.dir.path().join("state/token.key"))?;
    Ok(encode(&Header::new(Algorithm::EdDSA), claims, &EncodingKey::from_ed_der(&key))?)
}

fn claims_of(token: &str) -> anyhow::Result<Value> {
    let data = jsonwebtoken::dangerous::insecure_decode::<Value>(token)?;
    Ok(data.claims)
}

#[test]
fn tokens_that_are_missing_expired_forged_or_of_another_session_are_refused_in_their_own_words() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    runtime().block_on(async {
        let c = Caller::new(&stack)?;
        let grant = c.join(&stack, "observer").await?;
        let token = grant["token"].as_str().context("token")?;
        let ok = c.session_request(&c.session).bearer_auth(token).send().await?;
        ensure!(ok.status() == 200, "the control: a good token is taken, but {}", ok.status());

        refused(c.session_request(&c.session), 401, "token-missing", Some("Authorization")).await?;
        refused(c.whep("scope"), 401, "token-missing", Some("Authorization")).await?;

        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut claims = claims_of(token)?;
        let control = signed(&stack, &claims)?;
        let ok = c.session_request(&c.session).bearer_auth(control).send().await?;
        ensure!(ok.status() == 200, "the control: the same claims, signed again, are taken, but {}", ok.status());
        claims["exp"] = json!(now - 60);
        let expired = signed(&stack, &claims)?;
        refused(c.session_request(&c.session).bearer_auth(&expired), 401, "token-expired", Some("Authorization"))
            .await?;
        refused(c.whep("scope").bearer_auth(&expired), 401, "token-expired", Some("Authorization")).await?;

        let (head, signature) = token.rsplit_once('.').context("a token has three parts")?;
        let other = if signature.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{head}.{other}{}", &signature[1..]);
        refused(c.session_request(&c.session).bearer_auth(forged), 401, "token-invalid", Some("Authorization")).await?;

        refused(c.session_request("another").bearer_auth(token), 403, "token-session", Some("session")).await?;
        let elsewhere = c.http.post(format!("{}v1/sessions/another/feeds/scope/whep", c.base));
        let elsewhere = elsewhere.header("Content-Type", "application/sdp").body("v=0\r\n").bearer_auth(token);
        refused(elsewhere, 403, "token-session", Some("session")).await
    })
}

#[test]
fn an_observer_cannot_publish_and_bad_bodies_name_their_field() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    runtime().block_on(async {
        let c = Caller::new(&stack)?;
        let observer = c.join(&stack, "observer").await?;
        let token = observer["token"].as_str().context("token")?;
        let feeds = format!("{}v1/sessions/{}/feeds", c.base, c.session);
        refused(c.http.post(&feeds).bearer_auth(token).json(&json!({})), 403, "verb-missing", None).await.or_else(
            |e| {
                // The verb may be named as the field.
                if e.to_string().contains("verb-missing") { Ok(()) } else { Err(e) }
            },
        )?;
        let bad = c.http.post(format!("{}v1/join", c.base)).json(&json!({ "invitation": "x", "nmae": "y" }));
        let response = bad.send().await?;
        let body: Value = response.json().await?;
        ensure!(body["status"] == 400 && body.to_string().contains("nmae"), "{body}");
        let wrong = c.http.post(format!("{}v1/join", c.base)).json(&json!({ "invitation": "x".repeat(32) }));
        let body: Value = wrong.send().await?.json().await?;
        ensure!(body["type"] == "urn:trocar:problem:invitation-invalid", "{body}");
        Ok(())
    })
}

#[test]
fn an_offer_that_cannot_be_used_is_told_what_is_wrong_with_it() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:320x180@15"])?;
    runtime().block_on(async {
        let c = Caller::new(&stack)?;
        let grant = c.join(&stack, "observer").await?;
        let token = grant["token"].as_str().context("token")?;
        let response = c.whep("scope").bearer_auth(token).send().await?;
        let body: Value = response.json().await?;
        ensure!(body["status"] == 400 && body["detail"].as_str().is_some_and(|d| d.contains("SDP")), "{body}");
        let body: Value = c.whep("nothing").bearer_auth(token).send().await?.json().await?;
        ensure!(body["status"] == 404, "{body}");
        let mut request = c.whep("scope").bearer_auth(token).build()?;
        request.headers_mut().insert("Content-Type", "text/plain".parse()?);
        let body: Value = c.http.execute(request).await?.json().await?;
        ensure!(body["status"] == 415, "{body}");
        Ok(())
    })
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned()
}

#[test]
fn a_whep_resource_is_created_patched_restarted_and_deleted_as_specified() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(&["--source", "test:320x180@15"])?;
    runtime().block_on(async {
        let c = Caller::new(&stack)?;
        let grant = c.join(&stack, "observer").await?;
        let token = grant["token"].as_str().context("token")?;
        let response = c.whep("scope").body(some_offer()).bearer_auth(token).send().await?;
        ensure!(response.status() == 201, "{}: {}", response.status(), response.text().await?);
        ensure!(header(&response, "content-type").starts_with("application/sdp"));
        let (tag, location) = (header(&response, "etag"), header(&response, "location"));
        ensure!(tag.starts_with('"') && tag.len() > 10, "ETag {tag}");
        let answer = response.text().await?;
        ensure!(
            answer.contains("a=setup:passive") && answer.contains("a=ice-lite") && answer.contains("m=video 9"),
            "{answer}"
        );

        let leg = format!("{}{}", c.base.trim_end_matches('/'), location);
        let patch = |tag: Option<&str>, body: &str| {
            let request =
                c.http.patch(&leg).bearer_auth(token).header("Content-Type", "application/trickle-ice-sdpfrag");
            let request = request.body(body.to_owned());
            match tag {
                Some(t) => request.header("If-Match", t),
                None => request,
            }
        };
        let ufrag = answer.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:")).context("ufrag")?.to_owned();
        let trickle = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
        ensure!(patch(None, trickle).send().await?.status() == 428, "a PATCH without If-Match");
        ensure!(patch(Some("\"old\""), trickle).send().await?.status() == 412, "a PATCH for another ICE session");
        ensure!(patch(Some(&tag), trickle).send().await?.status() == 204, "a trickled candidate");

        let restart = "a=ice-ufrag:anew\r\na=ice-pwd:0123456789012345678901\r\n";
        let restarted = patch(Some("*"), restart).send().await?;
        ensure!(restarted.status() == 200, "a restart: {}", restarted.status());
        let new_tag = header(&restarted, "etag");
        let fragment = restarted.text().await?;
        ensure!(new_tag != tag && !new_tag.is_empty(), "the ETag stays {tag}");
        let new_ufrag = fragment.lines().find_map(|l| l.strip_prefix("a=ice-ufrag:")).context("no new fragment")?;
        ensure!(new_ufrag != ufrag, "the user fragment stays");
        ensure!(fragment.contains("a=mid:0") && fragment.contains("a=candidate:"), "{fragment}");

        let stranger = c.join(&stack, "observer").await?;
        let stranger = stranger["token"].as_str().context("token")?;
        ensure!(c.http.delete(&leg).bearer_auth(stranger).send().await?.status() == 404, "a stranger's DELETE");
        ensure!(c.http.delete(&leg).bearer_auth(token).send().await?.status() == 200);
        ensure!(c.http.delete(&leg).bearer_auth(token).send().await?.status() == 404, "it is gone");
        Ok(())
    })
}
