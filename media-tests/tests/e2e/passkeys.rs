//! Passkeys with the real binaries and a real browser, whose authenticators are in software: enrolled with a link, logged in, and refused wherever
//! something is not as it should be.

use crate::identity::run;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::stack::{Stack, path};
use trocar_media_tests::story::Story;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node where roles with instruments need a login, and a browser.
struct Clinic {
    stack: Stack,
    state: PathBuf,
    browser: Browser,
}

impl Clinic {
    fn open() -> anyhow::Result<Self> {
        let stack = Stack::start_with("[identity]\nrequired = \"instruments\"\n")?;
        let state = stack.dir.path().join("state");
        Ok(Self { stack, state, browser: Browser::start()? })
    }

    fn user(&self, words: &[&str]) -> anyhow::Result<String> {
        let (verb, rest) = words.split_first().context("no verb")?;
        let fixed = ["admin", "user", verb, "--dir", path(&self.state)?];
        run(&fixed.into_iter().chain(rest.iter().copied()).collect::<Vec<_>>(), "")
    }

    /// Adds an account without a password; the link to register a passkey.
    fn add(&self, account: &str) -> anyhow::Result<String> {
        let link = self.user(&["add", "--passkey", "--name", &format!("Dr {account}"), account])?;
        ensure!(link.starts_with("http://localhost:") && link.contains("/#passkey="), "{link}");
        Ok(link)
    }

    /// The expert's invitation, at the name that passkeys belong to.
    fn invitation(&self) -> anyhow::Result<String> {
        Ok(format!("{}&join=1", self.stack.invitation("expert")?.replace("127.0.0.1", "localhost")))
    }

    /// Opens a link to register with; the page has an authenticator.
    fn visit(&mut self, page: &str, link: &str, authenticator: Value) -> anyhow::Result<()> {
        self.browser.open(page, link)?;
        self.browser.wait(page, ".register-passkey form:not([hidden])", PATIENCE)?;
        self.browser.call("authenticator", page, authenticator).map(drop)
    }

    fn register(&mut self, page: &str) -> anyhow::Result<()> {
        self.browser.call("click", page, json!({"selector": ".register-passkey .primary"}))?;
        self.browser.wait(page, ".register-passkey .notice:not([hidden])", PATIENCE)
    }

    /// Goes to the invitation in the same tab, where a login is asked for.
    fn come(&mut self, page: &str) -> anyhow::Result<()> {
        let url = self.invitation()?;
        self.browser.call("go", page, json!({ "url": url }))?;
        self.browser.wait(page, ".login:not([hidden]) .passkey", PATIENCE)
    }

    fn log_in(&mut self, page: &str) -> anyhow::Result<()> {
        self.browser.call("click", page, json!({"selector": ".login .passkey:enabled"})).map(drop)
    }

    fn is_in(&mut self, page: &str) -> anyhow::Result<()> {
        self.log_in(page)?;
        self.browser.wait(page, "body[data-connection=open]", PATIENCE)
    }

    /// Logs in, and is told why not.
    fn is_refused(&mut self, page: &str, why: &str) -> anyhow::Result<()> {
        self.log_in(page)?;
        // The button is to be pressed again once there is an answer.
        self.browser.wait(page, ".fault:not([hidden])", PATIENCE)?;
        self.browser.wait(page, ".login .passkey:enabled", PATIENCE)?;
        let said = self.browser.call("text", page, json!({"selector": ".fault"}))?.to_string();
        ensure!(said.contains(why), "{page}: {said}");
        let body = self.browser.call("body", page, json!({}))?;
        ensure!(body["connection"] == "joining", "{page} came in all the same: {body}");
        Ok(())
    }

    fn fault(&mut self, page: &str) -> anyhow::Result<String> {
        self.browser.wait(page, ".fault:not([hidden])", PATIENCE)?;
        Ok(self.browser.call("text", page, json!({"selector": ".fault"}))?.to_string())
    }

    fn looks_good(&mut self, page: &str, picture: &str) -> anyhow::Result<()> {
        for (width, height) in [(1280, 800), (834, 1112)] {
            let overflow = self.browser.call("resize", page, json!({"width": width, "height": height}))?;
            ensure!(overflow.as_i64() == Some(0), "the page is {overflow} px too wide at {width}");
        }
        self.browser.screenshot(page, picture)?;
        let amiss = self.browser.call("axe", page, json!({}))?;
        ensure!(amiss.as_array().is_some_and(Vec::is_empty), "{amiss}");
        Ok(())
    }

    /// The only credential of the page's authenticator.
    fn credential(&mut self, page: &str) -> anyhow::Result<Value> {
        let all = self.browser.call("credentials", page, json!({}))?;
        ensure!(all.as_array().is_some_and(|a| a.len() == 1), "{all}");
        Ok(all[0].clone())
    }
}

const NOT_HERE: &str = "This passkey does not log in here";

/// By the link, once, and then into a role with instruments.
fn enrols_by_the_link_and_joins(clinic: &mut Clinic) -> anyhow::Result<()> {
    let link = clinic.add("ada")?;
    clinic.visit("ada", &link, json!({}))?;
    let who = clinic.browser.call("text", "ada", json!({"selector": ".register-passkey strong"}))?;
    ensure!(who == json!(["Dr ada (ada)"]), "{who}");
    let address = clinic.browser.call("address", "ada", json!({}))?.to_string();
    ensure!(!address.contains("passkey"), "the secret is left in the address: {address}");
    clinic.looks_good("ada", "page-passkey.png")?;
    clinic.browser.call("fill", "ada", json!({"selector": "#label", "text": "Ward laptop"}))?;
    clinic.register("ada")?;
    clinic.looks_good("ada", "page-passkey-done.png")?;

    clinic.browser.open("again", &link)?;
    let said = clinic.fault("again")?;
    ensure!(said.contains("This link was used"), "{said}");

    clinic.come("ada")?;
    clinic.looks_good("ada", "page-login-passkey.png")?;
    clinic.is_in("ada")?;
    let body = clinic.browser.call("body", "ada", json!({}))?;
    ensure!(body["role"] == "expert", "{body}");
    let log = clinic.browser.call("log", "ada", json!({}))?;
    ensure!(log["errors"].as_array().is_some_and(Vec::is_empty), "errors on the page: {}", log["errors"]);
    Ok(())
}

/// Authenticators that verify nobody: to begin with, and where the page asks for less than the relay does.
fn wants_to_know_who_it_is(clinic: &mut Clinic) -> anyhow::Result<()> {
    let link = clinic.add("grace")?;
    clinic.visit("no-pin", &link, json!({"hasPin": false, "verifies": false}))?;
    clinic.browser.call("click", "no-pin", json!({"selector": ".register-passkey .primary"}))?;
    let said = clinic.fault("no-pin")?;
    ensure!(said.contains("Nothing was done"), "{said}");

    clinic.visit("grace", &link, json!({}))?;
    clinic.register("grace")?;
    clinic.come("grace")?;
    clinic.browser.call("verifies", "grace", json!({"verifies": false}))?;
    clinic.is_refused("grace", "Nothing was done")?;
    clinic.browser.call("unverified", "grace", json!({}))?;
    clinic.is_refused("grace", NOT_HERE)?;
    clinic.browser.call("asUsual", "grace", json!({}))?;
    clinic.browser.call("verifies", "grace", json!({"verifies": true}))?;
    clinic.is_in("grace")
}

/// A copy of Ada's key: with another account's name on it, with a counter of long ago, and as it is after it was removed.
fn takes_no_other_key(clinic: &mut Clinic) -> anyhow::Result<()> {
    let (ada, grace) = (clinic.credential("ada")?, clinic.credential("grace")?);
    clinic.browser.open("copy", &clinic.invitation()?)?;
    clinic.browser.wait("copy", ".login:not([hidden]) .passkey", PATIENCE)?;
    clinic.browser.call("authenticator", "copy", json!({}))?;
    for (name, value) in [("userHandle", grace["userHandle"].clone()), ("signCount", json!(0))] {
        let mut copy = ada.clone();
        copy[name] = value;
        clinic.browser.call("credential", "copy", json!({ "credential": copy }))?;
        clinic.is_refused("copy", NOT_HERE)?;
    }
    // As it is it opens the account, until it is removed.
    clinic.browser.call("credential", "copy", json!({ "credential": ada }))?;
    clinic.is_in("copy")?;
    let listed: Value = serde_json::from_str(&clinic.user(&["passkeys", "--json", "ada"])?)?;
    ensure!(listed[0]["label"] == "Ward laptop" && listed[0]["last_login"].is_u64(), "{listed}");
    clinic.user(&["remove-passkey", "ada", listed[0]["id"].as_str().context("no id")?])?;
    ensure!(clinic.user(&["passkeys", "ada"])?.is_empty());
    clinic.browser.open("late", &clinic.invitation()?)?;
    clinic.browser.wait("late", ".login:not([hidden]) .passkey", PATIENCE)?;
    clinic.browser.call("authenticator", "late", json!({}))?;
    let mut late = ada;
    late["signCount"] = json!(1_000);
    clinic.browser.call("credential", "late", json!({ "credential": late }))?;
    clinic.is_refused("late", NOT_HERE)
}

/// In Japanese; and at an address that passkeys do not belong to.
fn says_it_in_japanese_and_where(clinic: &mut Clinic) -> anyhow::Result<()> {
    let link = clinic.user(&["passkey", "ada"])?;
    clinic.browser.call("open", "japanese", json!({"url": link, "locale": "ja-JP"}))?;
    clinic.browser.wait("japanese", ".register-passkey form:not([hidden])", PATIENCE)?;
    let heading = clinic.browser.call("text", "japanese", json!({"selector": "h1"}))?;
    ensure!(heading == json!(["パスキーの登録"]), "{heading}");
    clinic.looks_good("japanese", "page-passkey-ja.png")?;

    clinic.browser.open("numbered", &format!("{}&join=1", clinic.stack.invitation("expert")?))?;
    clinic.browser.wait("numbered", ".login:not([hidden]) .passkey", PATIENCE)?;
    clinic.is_refused("numbered", "passkeys of this node are used at http://localhost:")
}

#[test]
fn a_passkey_is_enrolled_by_a_link_and_logs_in_and_another_one_does_not() -> anyhow::Result<()> {
    let mut clinic = Clinic::open()?;
    enrols_by_the_link_and_joins(&mut clinic)?;
    wants_to_know_who_it_is(&mut clinic)?;
    takes_no_other_key(&mut clinic)?;
    says_it_in_japanese_and_where(&mut clinic)?;

    let db = clinic.state.join("trocar.db");
    Story::of(&db)?.has(&[
        ("account-added", "ada", "without a password, on the node", 1),
        ("passkey-invited", "ada", "on the node", 2),
        ("passkey-added", "ada", "Ward laptop", 1),
        ("passkey-added", "grace", "passkey", 1),
        ("passkey-refused", "", "a link that is not good", 1),
        ("login", "ada", "with passkey Ward laptop", 2),
        ("login", "grace", "with passkey passkey", 1),
        ("login-failed", "grace", "its owner was not verified", 1),
        ("login-failed", "ada", "its signature counter went backwards", 1),
        ("login-failed", "", "a passkey that is not known here", 2),
        ("passkey-removed", "ada", "Ward laptop, on the node", 1),
        ("joined", "", "account ada", 2),
        ("joined", "", "account grace", 1),
    ])?;
    run(&["audit", "verify", path(&db)?], "")?;
    Ok(())
}
