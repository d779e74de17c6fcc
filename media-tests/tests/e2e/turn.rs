//! A browser behind a firewall that lets nothing out but a TURN server (RFC 8656): coturn, which nobody here wrote.

use anyhow::{Context, ensure};
use serde_json::json;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{PATIENCE, Stack};

pub(crate) const SECRET: &str = "north-entrance-42";

/// coturn on a loopback port of its own, and that port. `more` are further lines of its configuration.
pub(crate) fn coturn(dir: &Path, more: &str) -> anyhow::Result<(Process, u16)> {
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = dir.join("turnserver.conf");
    let lines = format!(
        "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nlistening-port={port}\nuse-auth-secret\n\
         static-auth-secret={SECRET}\nrealm=north\n{more}no-dtls\nno-cli\nallow-loopback-peers\nsimple-log\n\
         log-file=stdout\nuserdb={0}/turndb\npidfile={0}/pid\n",
        dir.display()
    );
    std::fs::write(&config, lines)?;
    let server = Process::start("turnserver", Command::new("turnserver").arg("-c").arg(&config))
        .context("turnserver is missing: `make setup` installs coturn")?;
    // It is up when it answers a STUN binding request (RFC 8489 section 5); until then the system refuses at once.
    let probe = UdpSocket::bind("127.0.0.1:0")?;
    probe.connect(("127.0.0.1", port))?;
    probe.set_read_timeout(Some(Duration::from_millis(100)))?;
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    let began = std::time::Instant::now();
    while began.elapsed() < PATIENCE {
        let _ = probe.send(&request);
        if probe.recv(&mut [0; 256]).is_ok() {
            return Ok((server, port));
        }
        std::thread::yield_now();
    }
    anyhow::bail!("coturn did not come up: {}", server.stderr())
}

/// A stack whose pages are told of that server, with that secret.
fn stack(dir: &Path, port: u16, secret: &str) -> anyhow::Result<Stack> {
    stack_with(dir, &format!("\"turn:127.0.0.1:{port}\""), secret, "")
}

/// The same with these URLs, as TOML, and more of a configuration.
pub(crate) fn stack_with(dir: &Path, urls: &str, secret: &str, more: &str) -> anyhow::Result<Stack> {
    use std::os::unix::fs::PermissionsExt as _;
    let file = dir.join("turn-secret");
    std::fs::write(&file, secret)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    Stack::start_with(&format!("{more}[turn]\nurls = [{urls}]\nsecret_file = {file:?}\n"))
}

#[test]
fn a_browser_that_has_nothing_but_turn_sees_the_picture_and_one_with_a_wrong_secret_does_not() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (_server, port) = coturn(dir.path(), "no-tls\n")?;
    let mut browser = Browser::start()?;
    for (secret, good) in [(SECRET, true), ("south-entrance-43", false)] {
        let stack = stack(dir.path(), port, secret)?;
        let _scope = stack.publish(&["--source", "test:640x360@15", "--feed", "scope"])?;
        let page = format!("turn-{good}");
        let url = format!("{}&name=Dr.+Sato&join=1", stack.invitation("expert")?);
        browser.call("open", &page, json!({ "url": url, "turnOnly": true }))?;
        if good {
            browser.wait(&page, ".tile[data-feed=scope][data-state=live]", PATIENCE)?;
        }
        browser.call("gathered", &page, json!({}))?;
        let ways = browser.call("ways", &page, json!({}))?;
        println!("{ways}");
        let all = |key: &str| ways[key].as_array().cloned().unwrap_or_default();
        if good {
            ensure!(!all("taken").is_empty(), "no candidate pair: {ways}");
            ensure!(
                all("taken").iter().chain(&all("candidates")).all(|t| t == "relay"),
                "another way was taken: {ways}"
            );
        } else {
            // The control: without the server there is no other way to the relay.
            ensure!(all("candidates").is_empty() && all("taken").is_empty(), "a wrong secret is taken: {ways}");
        }
        browser.call("close", &page, json!({}))?;
    }
    Ok(())
}
