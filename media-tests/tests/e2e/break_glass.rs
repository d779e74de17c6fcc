//! Break-glass with the real binaries: an expert who cannot log in comes in on the page and by the command line, everybody sees it, and
//! somebody looks into it afterwards.

use crate::identity::run;
use crate::runtime;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::http_client;
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{Stack, path};
use trocar_media_tests::story::Story;

const PATIENCE: Duration = Duration::from_secs(20);
const WHY: &str = "bleeding, the issuer is down";
const AGAIN: &str = "still bleeding";
const CONFIGURED: &str =
    "[identity]\nrequired = \"instruments\"\n[identity.break_glass]\nroles = [\"expert\"]\nper_hour = 2\n";

/// Status, problem and field of a join.
async fn join(stack: &Stack, role: &str) -> anyhow::Result<(u16, String, String)> {
    let body =
        json!({"invitation": stack.text(&format!("/tokens/{role}"))?, "break_glass": {"reason": WHY, "confirm": true}});
    let response = http_client()?.post(format!("{}v1/join", stack.text("/page")?)).json(&body).send().await?;
    let status = response.status().as_u16();
    let body: Value = response.json().await?;
    let text = |key: &str| body[key].as_str().unwrap_or_default().replace("urn:trocar:problem:", "");
    Ok((status, text("type"), text("field")))
}

fn texts(browser: &mut Browser, page: &str, selector: &str) -> anyhow::Result<String> {
    Ok(browser.call("text", page, json!({ "selector": selector }))?.to_string())
}

fn is_accessible(browser: &mut Browser, page: &str) -> anyhow::Result<()> {
    let amiss = browser.call("axe", page, json!({}))?;
    ensure!(amiss.as_array().is_some_and(Vec::is_empty), "{page}: {amiss}");
    let overflow = browser.call("resize", page, json!({"width": 834, "height": 1112}))?;
    ensure!(overflow.as_i64() == Some(0), "{page} is {overflow} px too wide");
    Ok(())
}

/// The way in of somebody in a hurry: found, opened, and not taken before a reason and a confirmation are there.
fn enters_on_the_page(browser: &mut Browser, link: &str) -> anyhow::Result<()> {
    let page = "expert";
    browser.join(page, link, "Dr.%20Ito")?;
    // Closed until somebody opens it.
    browser.wait(page, ".emergency:not([hidden]):not([open])", PATIENCE)?;
    browser.call("click", page, json!({"selector": ".emergency summary"}))?;
    is_accessible(browser, page)?;
    browser.screenshot(page, "page-break-glass.png")?;
    let press = json!({"selector": ".emergency .enter-anyway"});
    browser.call("click", page, press.clone())?;
    ensure!(texts(browser, page, ".emergency .fault")?.contains("say why"), "no reason was asked for");
    browser.call("fill", page, json!({"selector": "#emergency-reason", "text": WHY}))?;
    browser.call("click", page, press.clone())?;
    ensure!(texts(browser, page, ".emergency .fault")?.contains("confirm"), "it was not asked to be confirmed");
    ensure!(browser.call("body", page, json!({}))?["connection"] == "joining", "the page joined without being told to");
    browser.call("click", page, json!({"selector": "#emergency-confirm"}))?;
    browser.call("click", page, press)?;
    browser.wait(page, "body[data-connection=open]", PATIENCE)
}

/// What the others see, in both languages.
fn is_seen_by_the_others(browser: &mut Browser) -> anyhow::Result<()> {
    for page in ["observer", "japanese", "expert"] {
        browser.wait(page, ".glass-banner:not([hidden]) li", PATIENCE)?;
        let said = texts(browser, page, ".glass-banner")?;
        ensure!(said.contains("Dr. Ito") && said.contains(WHY), "{page}: {said}");
        is_accessible(browser, page)?;
    }
    ensure!(texts(browser, "japanese", ".glass-banner")?.contains("ログインなし"));
    browser.screenshot("observer", "page-break-glass-observer.png")?;
    let log = browser.call("log", "observer", json!({}))?;
    ensure!(log["errors"].as_array().is_some_and(Vec::is_empty), "errors on the page: {}", log["errors"]);
    Ok(())
}

/// The number that the node shows now.
async fn figure(stack: &Stack, name: &str) -> anyhow::Result<String> {
    let text = http_client()?.get(format!("{}metrics", stack.text("/page")?)).send().await?.text().await?;
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("trocar_signaling_break_glass_{name} ")));
    Ok(line.context("no such figure")?.to_owned())
}

async fn becomes(stack: &Stack, name: &str, wanted: &str) -> anyhow::Result<()> {
    let reached = async {
        while figure(stack, name).await? != wanted {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, reached).await.with_context(|| format!("{name} did not become {wanted}"))?
}

/// By a program, which takes the reason from its environment.
fn enters_by_the_command_line(stack: &Stack) -> anyhow::Result<String> {
    let link = stack.invitation("expert")?;
    let out = Command::new(trocar()?)
        .args(["session", "show", "--invite", &link])
        .env("TROCAR_BREAK_GLASS", AGAIN)
        .output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

#[test]
fn somebody_comes_in_by_break_glass_everybody_sees_it_and_it_is_reviewed() -> anyhow::Result<()> {
    let stack = Stack::start_with(CONFIGURED)?;
    let mut browser = Browser::start()?;
    let watching = stack.invitation("observer")?;
    browser.join("observer", &watching, "Nurse")?;
    browser.wait("observer", "body[data-connection=open]", PATIENCE)?;
    let japanese = format!("{watching}&name=Sato&join=1");
    browser.call("open", "japanese", json!({"url": japanese, "locale": "ja-JP"}))?;
    browser.wait("japanese", "body[data-connection=open]", PATIENCE)?;
    browser.wait("observer", ".glass-banner[hidden]", PATIENCE)?;
    enters_on_the_page(&mut browser, &stack.invitation("expert")?)?;
    is_seen_by_the_others(&mut browser)?;

    let shown = enters_by_the_command_line(&stack)?;
    ensure!(shown.contains("BY BREAK-GLASS") && shown.contains(WHY), "{shown}");
    let metrics = stack.text("/page")?;
    let top = run(&["top", "--metrics", &metrics, "--invite", &watching, "--interval", "0.5", "--once"], "")?;
    ensure!(top.contains("BREAK-GLASS:") && top.contains(WHY), "{top}");
    runtime().block_on(async {
        let beyond = join(&stack, "local").await?;
        ensure!(beyond == (403, "break-glass-role".into(), "identity.break_glass.roles".into()), "{beyond:?}");
        let third = join(&stack, "expert").await?;
        ensure!(third == (429, "too-many-requests".into(), "break_glass".into()), "{third:?}");
        becomes(&stack, "joins_total", "2").await?;
        becomes(&stack, "unreviewed", "2").await
    })?;

    let state = stack.dir.path().join("state");
    let list = |more: &[&str]| run(&[&["admin", "break-glass", "list", "--dir", path(&state)?], more].concat(), "");
    let waiting: Value = serde_json::from_str(&list(&["--json"])?)?;
    ensure!((&waiting[0]["reason"], &waiting[1]["reason"]) == (&json!(WHY), &json!(AGAIN)), "{waiting}");
    for join in waiting.as_array().context("no list")? {
        let id = join["id"].as_str().context("no id")?;
        let words =
            ["admin", "break-glass", "review", "--dir", path(&state)?, "--by", "Dr. Mori", "--note", "it was so", id];
        run(&words, "")?;
        ensure!(run(&words, "").is_err(), "a review was changed");
    }
    ensure!(list(&[])?.contains("none waits") && list(&["--all"])?.contains("by Dr. Mori: it was so"));
    runtime().block_on(becomes(&stack, "unreviewed", "0"))?;

    let db = state.join("trocar.db");
    run(&["audit", "verify", path(&db)?], "")?;
    let story = Story::of(&db)?;
    let count = |kind: &str| story.of_kind(kind).count();
    ensure!((count("break-glass-joined"), count("break-glass-reviewed")) == (2, 2), "{}", story.text);
    Ok(())
}

#[test]
fn where_it_is_not_configured_there_is_no_such_way_in() -> anyhow::Result<()> {
    let stack = Stack::start_with("[identity]\nrequired = \"instruments\"\n")?;
    let refused = runtime().block_on(join(&stack, "expert"))?;
    ensure!(refused == (403, "break-glass-off".into(), "identity.break_glass".into()), "{refused:?}");
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.%20Ito")?;
    browser.wait("expert", ".login:not([hidden])", PATIENCE)?;
    browser.wait("expert", ".emergency[hidden]", PATIENCE)
}
