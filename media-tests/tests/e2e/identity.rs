//! Who people are, with the real binaries: accounts made on the node, logins by HTTP, by the command line and in a browser, and the
//! record of all of it.

use crate::runtime;
use anyhow::{Context, ensure};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{Stack, path};
use trocar_media_tests::story::Story;
use trocar_media_tests::{http_client, workspace};

const PASSWORD: &str = "a long enough password";
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `trocar` with these lines on its standard input; what it printed.
pub(crate) fn run(words: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(trocar()?);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

/// What an authenticator does with the address that it is enrolled with (RFC 6238).
struct Authenticator(Vec<u8>);

impl Authenticator {
    fn of(address: &str) -> anyhow::Result<Self> {
        let text = address.split("secret=").nth(1).and_then(|t| t.split('&').next()).context("no secret")?;
        let mut bits = (0_u64, 0_u32);
        let mut key = Vec::new();
        for c in text.bytes() {
            let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|b| *b == c).context("not base32")?;
            bits = (bits.0 << 5 | u64::try_from(value)?, bits.1 + 5);
            if bits.1 >= 8 {
                bits.1 -= 8;
                key.push(u8::try_from(bits.0 >> bits.1 & 0xff)?);
            }
        }
        Ok(Self(key))
    }

    fn step() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 30)
    }

    fn code(&self, step: u64) -> String {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = aws_lc_rs::hmac::sign(&key, &step.to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 0xf);
        let four = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap());
        format!("{:06}", (four & 0x7fff_ffff) % 1_000_000)
    }
}

/// A node where roles with instruments need a login.
struct Clinic {
    stack: Stack,
    state: PathBuf,
    page: String,
}

impl Clinic {
    fn open() -> anyhow::Result<Self> {
        let stack = Stack::start_with("[identity]\nrequired = \"instruments\"\n")?;
        let (state, page) = (stack.dir.path().join("state"), stack.text("/page")?);
        Ok(Self { stack, state, page })
    }

    fn add(&self, account: &str) -> anyhow::Result<Authenticator> {
        let name = format!("Dr {account}");
        let words = ["admin", "user", "add", "--dir", path(&self.state)?, "--name", &name, account];
        Authenticator::of(&run(&words, &format!("{PASSWORD}\n"))?)
    }

    /// Status, problem and body of a request.
    async fn post(&self, to: &str, bearer: Option<&str>, body: &Value) -> anyhow::Result<(StatusCode, String, Value)> {
        let mut request = http_client()?.post(format!("{}v1/{to}", self.page)).json(body);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let response = request.send().await?;
        let status = response.status();
        let body: Value = response.json().await?;
        let problem = body["type"].as_str().unwrap_or_default().replace("urn:trocar:problem:", "");
        Ok((status, problem, body))
    }

    async fn login(&self, account: &str, password: &str, code: &str) -> anyhow::Result<(StatusCode, String, Value)> {
        self.post("login", None, &json!({"account": account, "password": password, "code": code})).await
    }

    async fn join(&self, role: &str, bearer: Option<&str>) -> anyhow::Result<(StatusCode, String, Value)> {
        self.post("join", bearer, &json!({"invitation": self.stack.text(&format!("/tokens/{role}"))?})).await
    }
}

/// Everything that can be wrong with a login, and a right one.
async fn logs_in_with_everything_right_only(clinic: &Clinic, ada: &Authenticator) -> anyhow::Result<()> {
    let (status, problem, body) = clinic.join("expert", None).await?;
    ensure!(
        (status.as_u16(), problem.as_str()) == (401, "identity-needed") && body["ways"] == json!(["local", "passkey"]),
        "{body}"
    );
    ensure!(clinic.join("observer", None).await?.0 == 200, "an observer needs no login");
    let code = ada.code(Authenticator::step());
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let (status, _, right) = {
        for (password, code) in [("not the password", code.as_str()), (PASSWORD, wrong)] {
            let (status, problem, body) = clinic.login("ada", password, code).await?;
            ensure!((status.as_u16(), problem.as_str()) == (401, "login-failed"), "{body}");
        }
        clinic.login("ada", PASSWORD, &code).await?
    };
    ensure!(status == 200, "{right}");
    let (_, problem, body) = clinic.login("ada", PASSWORD, &code).await?;
    ensure!(problem == "login-failed", "a code that was used was taken again: {body}");
    let identity = right["identity"].as_str().context("no identity")?;
    let (status, _, joined) = clinic.join("expert", Some(identity)).await?;
    ensure!(status == 200 && joined["name"] == "Dr ada" && joined["grade"] == "energy", "{joined}");
    let session = format!("{}v1/sessions/{}", clinic.page, clinic.stack.text("/session")?);
    let asked = http_client()?.get(&session).bearer_auth(identity).send().await?;
    ensure!(asked.status() == 401, "an identity opened a session by itself");
    let token = joined["token"].as_str().context("no token")?;
    let (status, problem, _) = clinic.join("expert", Some(token)).await?;
    ensure!((status.as_u16(), problem.as_str()) == (401, "identity-needed"), "a session's token was taken for a login");
    Ok(())
}

async fn is_slowed_down(clinic: &Clinic, account: &str) -> anyhow::Result<()> {
    for _ in 0..5 {
        ensure!(clinic.login(account, "not the password", "000000").await?.0 == 401);
    }
    let (status, problem, body) = clinic.login(account, PASSWORD, "000000").await?;
    ensure!((status.as_u16(), problem.as_str()) == (429, "too-many-requests"), "{body}");
    Ok(())
}

/// A wrong password, then the right one, typed into the page; and a second tab, which knows nothing of it.
fn logs_in_on_the_page(clinic: &Clinic, account: &str, code: impl Fn() -> String) -> anyhow::Result<()> {
    let mut browser = Browser::start()?;
    let link = clinic.stack.invitation("expert")?;
    browser.join("expert", &link, "")?;
    browser.wait("expert", ".login:not([hidden]) #account", PATIENCE)?;
    for (width, height) in [(1280, 800), (834, 1112)] {
        let overflow = browser.call("resize", "expert", json!({"width": width, "height": height}))?;
        ensure!(overflow.as_i64() == Some(0), "the page is {overflow} px too wide at {width}");
    }
    browser.screenshot("expert", "page-login.png")?;
    let amiss = browser.call("axe", "expert", json!({}))?;
    ensure!(amiss.as_array().is_some_and(Vec::is_empty), "{amiss}");
    for (password, code) in [("not the password", "000000".to_owned()), (PASSWORD, code())] {
        browser.call("fill", "expert", json!({"selector": "#account", "text": account}))?;
        browser.call("fill", "expert", json!({"selector": "#password", "text": password}))?;
        browser.call("fill", "expert", json!({"selector": "#code", "text": code}))?;
        // By the keyboard, as somebody who types does.
        browser.call("press", "expert", json!({"key": "Enter"}))?;
        if password != PASSWORD {
            browser.wait("expert", ".fault:not([hidden])", PATIENCE)?;
        }
    }
    browser.wait("expert", "body[data-connection=open]", PATIENCE)?;
    let log = browser.call("log", "expert", json!({}))?;
    ensure!(log["errors"].as_array().is_some_and(Vec::is_empty), "errors on the page: {}", log["errors"]);
    Ok(())
}

#[test]
fn a_camera_that_nobody_logs_in_for_publishes_by_its_certificate() -> anyhow::Result<()> {
    let stack = Stack::start_with("[identity]\nrequired = \"always\"\n")?;
    let state = stack.dir.path().join("state");
    run(&["ca", "issue", "--dir", path(&state)?, "--role", "publisher", "or-1"], "")?;
    let (link, ca) = (stack.invitation("publisher")?, stack.text("/ca_file")?);
    let (cert, key) = (state.join("or-1.pem"), state.join("or-1.key"));
    let camera = ["publish", "--invite", &link, "--ca", &ca, "--source", "test", "--size", "320x240@30"];
    let with = ["--cert", path(&cert)?, "--key", path(&key)?];
    // The certificate beside the trust list is a station's, which belongs to a person; and the role local to the team.
    let refused = |words: &[&str], why: &str| {
        let out = Command::new(trocar()?).args(words).output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(!out.status.success() && said.contains(why), "{words:?}: {said}");
        anyhow::Ok(())
    };
    refused(&camera, "log in")?;
    let team = stack.invitation("local")?;
    let words = [&["publish", "--invite", &team, "--ca", &ca, "--source", "test"], &with[..]].concat();
    refused(&words, "role publisher")?;

    let mut publisher = Process::trocar("trocar publish", &[&camera[..], &with[..]].concat())?;
    publisher.line(PATIENCE, |l| l.starts_with("publishing "))?;
    let story = Story::of(&state.join("trocar.db"))?;
    let joined: Vec<_> = story.of_kind("joined").collect();
    ensure!(joined.len() == 1, "{}", story.text);
    ensure!(
        joined[0]["detail"] == "device trocar://local/publisher/or-1" && joined[0]["name"] == "or-1",
        "{}",
        story.text
    );
    let denied =
        |r: &&Value| r["detail"].as_str().is_some_and(|d| d.starts_with("device trocar://local/publisher/or-1: "));
    ensure!(story.of_kind("denied").filter(denied).count() == 1, "{}", story.text);
    Ok(())
}

#[test]
fn a_role_with_instruments_is_joined_by_whoever_logs_in_and_all_of_it_is_recorded() -> anyhow::Result<()> {
    let clinic = Clinic::open()?;
    let (ada, grace) = (clinic.add("ada")?, clinic.add("grace")?);
    clinic.add("mary")?;
    runtime().block_on(async {
        logs_in_with_everything_right_only(&clinic, &ada).await?;
        is_slowed_down(&clinic, "mary").await
    })?;
    // Grace by the command line, which takes the step before this one, and then in the browser.
    let input = format!("{PASSWORD}\n{}\n", grace.code(Authenticator::step()));
    let identity = run(&["login", "--invite", &clinic.stack.invitation("expert")?, "grace"], &input)?;
    ensure!(runtime().block_on(clinic.join("expert", Some(&identity)))?.0 == 200);
    // A code of the step to come is taken as well, so nobody has to wait for it here.
    logs_in_on_the_page(&clinic, "grace", || grace.code(Authenticator::step() + 1))?;

    let db = clinic.state.join("trocar.db");
    let story = Story::of(&db)?;
    let text = &story.text;
    let count = |kind: &str| story.of_kind(kind).count();
    ensure!((count("account-added"), count("login"), count("login-failed")) == (3, 3, 3 + 5 + 1), "{text}");
    let known = story.of_kind("joined").filter(|r| r["detail"] == "account grace");
    ensure!(known.count() == 2, "{text}");
    ensure!(!text.contains(PASSWORD) && !text.contains("not the password"), "a password is in the chain");
    run(&["audit", "verify", path(&db)?], "")?;
    Ok(())
}

/// The lines of the shell blocks of docs/IDENTITY.md, as a reader types them.
#[test]
fn the_commands_of_the_page_on_identity_do_what_it_says() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(workspace().join("docs/IDENTITY.md"))?;
    let dir = tempfile::tempdir()?;
    let bin = trocar()?;
    let bin = bin.parent().and_then(Path::to_str).context("the binary has no folder")?;
    let mut run = 0;
    for line in page.split("```sh\n").skip(1).filter_map(|b| b.split("```").next()).flat_map(str::lines) {
        let shell = format!("export PATH={bin}:$PATH\n{line}");
        let out = Command::new("bash").args(["-euo", "pipefail", "-c", &shell]).current_dir(dir.path()).output()?;
        ensure!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let want = match line {
            l if l.contains("user add --passkey") || l.contains("user passkey ") => {
                "https://trocar.example.org/#passkey="
            }
            l if l.contains("user add") || l.contains("user reset") => "otpauth://totp/Trocar:ada?secret=",
            l if l.contains("user list") => "Dr Ada",
            _ => "",
        };
        ensure!(said.contains(want), "{line}: {said}");
        run += 1;
    }
    ensure!(run >= 5, "{run} commands were found");
    Ok(())
}
