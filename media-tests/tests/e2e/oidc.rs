//! People by OpenID Connect, with two issuers that nobody here wrote (oidc-provider): in a browser as people do it, and by hand where somebody cheats.

use crate::runtime;
use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{Stack, path};
use trocar_media_tests::story::Story;
use trocar_media_tests::{http_builder, http_client, workspace};

const PATIENCE: Duration = Duration::from_secs(20);
/// The issuers' names here: one that is written with spaces, and one in Japanese.
const NAMES: [&str; 2] = ["North Hospital", "北病院"];
const SECRET: &str = "a-secret-of-this-node-and-the-issuer";
/// What the tab of somebody who does it by hand keeps.
const TAB: &str = "a value that only this tab knows";

/// Two issuers, and a node that believes both.
struct Clinic {
    stack: Stack,
    page: String,
    issuers: Vec<String>,
    // They end with their input.
    _process: Process,
    _input: std::process::ChildStdin,
}

impl Clinic {
    fn open() -> anyhow::Result<Self> {
        let mut command = Command::new("node");
        command.arg("oidc.mjs").arg(json!({"alg": "RS256", "secret": SECRET}).to_string());
        command.arg(json!({"alg": "ES256"}).to_string()).current_dir(workspace().join("media-tests/browser"));
        let mut process = Process::start("oidc-provider", command.stdin(Stdio::piped()))?;
        let mut input = process.stdin().context("no standard input")?;
        let said: Value = serde_json::from_str(&process.line(PATIENCE, |l| l.contains("issuers"))?)?;
        let issuers: Vec<String> = serde_json::from_value(said["issuers"].clone())?;

        let secret = tempfile::NamedTempFile::new()?;
        std::fs::write(secret.path(), SECRET)?;
        std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o600))?;
        let mut text = "[identity]\nrequired = \"instruments\"\n".to_owned();
        for (name, issuer) in NAMES.iter().zip(&issuers) {
            text += &format!("[[identity.issuers]]\nname = {name:?}\nissuer = {issuer:?}\nclient_id = \"trocar\"\n");
            if *name == NAMES[0] {
                text += &format!("client_secret_file = {:?}\n", path(secret.path())?);
            }
        }
        let stack = Stack::start_with(&text)?;
        let page = stack.text("/page")?;
        writeln!(input, "{page}login")?;
        process.line(PATIENCE, |l| l.contains("ready"))?;
        Ok(Self { stack, page, issuers, _process: process, _input: input })
    }

    async fn post(&self, to: &str, body: Value) -> anyhow::Result<(u16, Value)> {
        let response = http_client()?.post(format!("{}v1/{to}", self.page)).json(&body).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    /// Begins a login; where the browser is sent.
    async fn begin(&self, issuer: &str) -> anyhow::Result<Url> {
        let tab = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TAB.as_bytes());
        let body = json!({"issuer": issuer, "tab": URL_SAFE_NO_PAD.encode(tab.as_ref())});
        let (status, begun) = self.post("login/begin", body).await?;
        ensure!(status == 200, "{begun}");
        Ok(begun["url"].as_str().context("no address")?.parse()?)
    }

    /// Logs in at an issuer as a browser does: what comes back to this node.
    async fn walk(&self, from: Url) -> anyhow::Result<BTreeMap<String, String>> {
        let http = http_builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let mut cookies = BTreeMap::new();
        let mut at = from;
        for _ in 0..10 {
            if at.as_str().starts_with(&format!("{}login", self.page)) {
                return Ok(at.query_pairs().into_owned().collect());
            }
            let is_form = at.path().starts_with("/interaction/");
            let request = if is_form {
                let form = "account=ada&how=pwd+otp";
                http.post(at.clone()).header("content-type", "application/x-www-form-urlencoded").body(form)
            } else {
                http.get(at.clone())
            };
            let shown: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let response = request.header(COOKIE, shown.join("; ")).send().await?;
            for cookie in response.headers().get_all(SET_COOKIE) {
                let pair = cookie.to_str()?.split(';').next().and_then(|pair| pair.split_once('='));
                let (name, value) = pair.context("not a cookie")?;
                cookies.insert(name.to_owned(), value.to_owned());
            }
            let to = response.headers().get(LOCATION).context("the issuer sends nowhere")?.to_str()?;
            at = at.join(to)?;
        }
        anyhow::bail!("the issuer leads in circles")
    }

    /// Finishes a login; the problem, or nothing.
    async fn finish(&self, back: &BTreeMap<String, String>, tab: &str) -> anyhow::Result<Option<String>> {
        let mut body = json!({"tab": tab});
        for name in ["state", "code", "iss", "error"] {
            if let Some(value) = back.get(name) {
                body[name] = json!(value);
            }
        }
        let (_, said) = self.post("login/finish", body).await?;
        Ok(said["type"].as_str().map(|t| t.replace("urn:trocar:problem:", "")))
    }
}

/// The address of one issuer with what belongs to a login at the other: how somebody is led astray.
fn at_other(begun: &Url, other: &str) -> anyhow::Result<Url> {
    let mut url: Url = other.parse()?;
    url.set_path(begun.path());
    url.set_query(begun.query());
    Ok(url)
}

/// Answers that are not of this login, this issuer or this tab.
async fn refuses_what_was_mixed_up(clinic: &Clinic) -> anyhow::Result<()> {
    let refused = Some("login-unfinished".to_owned());
    let good = clinic.walk(clinic.begin(NAMES[0]).await?).await?;
    ensure!(clinic.finish(&good, TAB).await?.is_none(), "a good login was refused");
    ensure!(clinic.finish(&good, TAB).await? == refused, "an answer was taken twice");
    let stolen = clinic.walk(clinic.begin(NAMES[0]).await?).await?;
    ensure!(clinic.finish(&stolen, "another tab").await? == refused, "another tab finished a login");
    // At the other issuer in place of the one; then as if it had not said so, or had said otherwise.
    for iss in [Some(&clinic.issuers[1]), None, Some(&clinic.issuers[0])] {
        let begun = clinic.begin(NAMES[0]).await?;
        let mut back = clinic.walk(at_other(&begun, &clinic.issuers[1])?).await?;
        ensure!(back["iss"] == clinic.issuers[1]);
        back.remove("iss");
        back.extend(iss.map(|iss| ("iss".to_owned(), iss.clone())));
        ensure!(clinic.finish(&back, TAB).await? == refused, "the answer of another issuer was taken: {iss:?}");
    }
    // The code of one login with the state of another.
    let one = clinic.walk(clinic.begin(NAMES[1]).await?).await?;
    let mut two = clinic.walk(clinic.begin(NAMES[1]).await?).await?;
    two.insert("code".to_owned(), one["code"].clone());
    ensure!(clinic.finish(&two, TAB).await? == refused, "a code of another login was taken");
    Ok(())
}

/// Types the account at the issuer, and shows so many factors.
fn answer_issuer(browser: &mut Browser, page: &str, button: &str) -> anyhow::Result<()> {
    browser.wait(page, "#two", PATIENCE)?;
    browser.call("fill", page, json!({"selector": "#account", "text": "ada"}))?;
    browser.call("click", page, json!({"selector": button}))?;
    Ok(())
}

fn fault(browser: &mut Browser, page: &str) -> anyhow::Result<String> {
    browser.wait(page, ".fault:not([hidden])", PATIENCE)?;
    Ok(browser.call("text", page, json!({"selector": ".fault"}))?.to_string())
}

/// By the keyboard: no, one factor, and then both.
fn logs_in_on_the_page(clinic: &Clinic, browser: &mut Browser) -> anyhow::Result<()> {
    browser.join("expert", &clinic.stack.invitation("expert")?, "")?;
    browser.wait("expert", ".issuer", PATIENCE)?;
    let names = browser.call("text", "expert", json!({"selector": ".issuer"}))?;
    ensure!(names == json!(["Log in with North Hospital", "Log in with 北病院"]), "{names}");
    let amiss = browser.call("axe", "expert", json!({}))?;
    ensure!(amiss.as_array().is_some_and(Vec::is_empty), "{amiss}");
    browser.screenshot("expert", "page-issuers.png")?;
    // From the account's field, which has the focus, back over both.
    for key in ["Shift+Tab", "Shift+Tab", "Enter"] {
        browser.call("press", "expert", json!({ "key": key }))?;
    }
    answer_issuer(browser, "expert", "#no")?;
    let said = fault(browser, "expert")?;
    ensure!(said.contains("North Hospital did not log you in (access_denied)"), "{said}");

    browser.call("click", "expert", json!({"selector": ".issuer"}))?;
    answer_issuer(browser, "expert", "#one")?;
    let said = fault(browser, "expert")?;
    ensure!(said.contains("no second factor"), "{said}");
    let amiss = browser.call("axe", "expert", json!({}))?;
    ensure!(amiss.as_array().is_some_and(Vec::is_empty), "{amiss}");
    // The issuer remembers who that is, and is told to ask anew all the same.
    browser.call("click", "expert", json!({"selector": ".issuer"}))?;
    answer_issuer(browser, "expert", "#two")?;
    browser.wait("expert", "body[data-connection=open]", PATIENCE)?;
    let address = browser.call("address", "expert", json!({}))?;
    ensure!(address.as_str() == Some(clinic.page.as_str()), "what the issuer sent is left in the address: {address}");
    let log = browser.call("log", "expert", json!({}))?;
    ensure!(log["errors"].as_array().is_some_and(Vec::is_empty), "errors on the page: {}", log["errors"]);
    Ok(())
}

/// The other issuer, in Japanese; and a tab that is sent an answer to a login that it did not begin.
fn knows_the_other_and_no_stranger(clinic: &Clinic, browser: &mut Browser) -> anyhow::Result<()> {
    let link = format!("{}&join=1", clinic.stack.invitation("expert")?);
    browser.call("open", "japanese", json!({"url": link, "locale": "ja-JP"}))?;
    browser.wait("japanese", ".issuer", PATIENCE)?;
    let names = browser.call("text", "japanese", json!({"selector": ".issuer"}))?;
    ensure!(names == json!(["North Hospital でログイン", "北病院 でログイン"]), "{names}");
    browser.call("click", "japanese", json!({"selector": ".issuer[data-issuer=北病院]"}))?;
    answer_issuer(browser, "japanese", "#two")?;
    browser.wait("japanese", "body[data-connection=open]", PATIENCE)?;

    let back = runtime().block_on(async { clinic.walk(clinic.begin(NAMES[0]).await?).await })?;
    let mut sent: Url = format!("{}login", clinic.page).parse()?;
    sent.query_pairs_mut().extend_pairs(&back);
    browser.open("victim", sent.as_str())?;
    let said = fault(browser, "victim")?;
    ensure!(said.contains("not begun in this tab"), "{said}");
    ensure!(browser.call("address", "victim", json!({}))?.as_str() == Some(clinic.page.as_str()));
    Ok(())
}

#[test]
fn people_of_two_issuers_come_in_with_a_second_factor_and_answers_that_were_mixed_up_do_not() -> anyhow::Result<()> {
    let clinic = Clinic::open()?;
    runtime().block_on(refuses_what_was_mixed_up(&clinic))?;
    let mut browser = Browser::start()?;
    logs_in_on_the_page(&clinic, &mut browser)?;
    knows_the_other_and_no_stranger(&clinic, &mut browser)?;

    let story = Story::of(&clinic.stack.dir.path().join("state/trocar.db"))?;
    let (north, south) = ("North Hospital:ada", "北病院:ada");
    story.has(&[
        ("login", north, "by North Hospital, with a second factor, acr none, amr pwd otp", 2),
        ("login", north, "by North Hospital, without a second factor, acr none, amr pwd", 1),
        ("login", south, "by 北病院, with a second factor", 1),
        ("denied", north, "the login had no second factor", 1),
        ("joined", "", "account North Hospital:ada", 1),
        ("joined", "", "account 北病院:ada", 1),
        ("login-failed", "", "a login that this tab did not begin", 2),
        ("login-failed", "", "the answer is not of North Hospital", 2),
        ("login-failed", "", "North Hospital: token: invalid_grant", 1),
        ("login-failed", "", "北病院: token: invalid_grant", 1),
        ("login-failed", "", "North Hospital refused: access_denied", 1),
    ])?;
    ensure!(!story.text.contains(SECRET) && !story.text.contains(TAB), "a secret is in the chain");
    Ok(())
}
