//! Starting, stopping, looking after it: what an operator meets at the command line.

use crate::{runtime, span};
use anyhow::{Context, ensure};
use std::process::Command;
use std::time::Duration;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack, path};
use trocar_media_tests::{http_builder, http_client, workspace};

/// Runs `trocar` to its end: exit code, standard output, standard error.
fn run(arguments: &[&str]) -> anyhow::Result<(i32, String, String)> {
    let out = Command::new(trocar()?).args(arguments).current_dir(workspace()).output()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Ok((out.status.code().context("ended by a signal")?, text(&out.stdout), text(&out.stderr)))
}

#[test]
fn health_readiness_and_figures_answer_and_a_stop_is_orderly() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let mut publisher = stack.publish(&["--source", "test:320x180@15"])?;
    let mut viewer = stack.watch(&["--frames", "30"])?;
    trocar_media_tests::stack::summary(&mut viewer, PATIENCE)?;
    let page = stack.text("/page")?;
    runtime().block_on(async {
        for path in ["healthz", "readyz"] {
            let response = http_client()?.get(format!("{page}{path}")).send().await?;
            ensure!(response.status() == 200, "{path}: {}", response.status());
        }
        for name in
            ["trocar_feed_packets_total", "trocar_feed_relay_delay_seconds_count", "trocar_signaling_joins_total"]
        {
            ensure!(stack.metric(name).await? > 0.0, "{name} is 0");
        }
        ensure!(stack.metric("trocar_no_such_figure").await.is_err());
        let text = http_client()?.get(stack.text("/metrics")?).send().await?.text().await?;
        ensure!(text.matches("# EOF").count() <= 1 && !text.contains("NaN"), "{text}");
        Ok::<_, anyhow::Error>(())
    })?;
    publisher.stop()?;
    stack.up.stop()?;
    runtime().block_on(async {
        ensure!(http_client()?.get(format!("{page}healthz")).send().await.is_err(), "it still answers");
        Ok(())
    })
}

#[test]
fn https_is_served_under_the_local_authority_and_by_no_other_trust() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let url = format!("{}healthz", stack.text("/https")?);
    let pem = std::fs::read(stack.text("/ca_file")?)?;
    runtime().block_on(async {
        let certificate = reqwest::Certificate::from_pem(&pem)?;
        let trusting = http_builder().tls_certs_only([certificate]).build()?;
        ensure!(trusting.get(&url).send().await?.status() == 200);
        let strange = http_builder().tls_certs_only([]).build()?;
        ensure!(strange.get(&url).send().await.is_err(), "a client without that trust got in");
        Ok(())
    })
}

#[test]
fn a_configuration_is_checked_and_an_unknown_key_named() -> anyhow::Result<()> {
    let (code, out, _) = run(&["config", "check", "configs/trocar.toml"])?;
    ensure!(code == 0 && out.contains("ok"), "{out}");
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, "[signaling]\nlisen = '127.0.0.1:1'\n")?;
    for arguments in [vec!["config", "check", path(&file)?], vec!["up", "--config", path(&file)?]] {
        let (code, _, error) = run(&arguments)?;
        ensure!(code == 1 && error.contains("unknown field `lisen`") && error.contains("bad.toml"), "{code}: {error}");
    }
    Ok(())
}

#[test]
fn mistakes_at_the_command_line_are_answered_with_what_would_be_right() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
    let observer = stack.invitation("observer")?;
    let publish = |link: &str, more: &[&str]| {
        let all: Vec<&str> =
            ["publish", "--invite", link, "--ca", &ca].into_iter().chain(more.iter().copied()).collect();
        run(&all)
    };
    let missing = stack.dir.path().join("missing.mp4");
    let text = stack.dir.path().join("notes.mp4");
    std::fs::write(&text, "this is not a video")?;
    for (result, want) in [
        (publish("https://nowhere", &[])?, "https://HOST:PORT/#invitation=SECRET"),
        (publish(&link, &["--source", "camera"])?, "test:1920x1080@60"),
        (publish(&link, &["--source", &format!("file:{}", path(&missing)?)])?, "missing.mp4"),
        (publish(&link, &["--source", &format!("file:{}", path(&text)?)])?, "notes.mp4"),
        (publish(&link, &["--size", "8k"])?, "auto, 720p, 1080p, 2160p"),
        (publish(&link, &["--bitrate", "4000"])?, "0.1 to 400 Mbit/s"),
        (publish(&link, &["--feed", "a/b"])?, "1 to 64 characters"),
        (publish(&observer, &["--source", "test:320x180@15"])?, "publish"),
        (run(&["publish", "--invite", &link, "--ca", "/nonexistent.pem"])?, "--ca"),
        (run(&["watch", "--invite", &link, "--ca", &ca])?, "--headless"),
        (run(&["up", "--host", "0.0.0.0"])?, "--host"),
        (run(&["ca", "issue", "--dir", path(stack.dir.path())?, "../x"])?, "1 to 64 characters"),
    ] {
        ensure!(result.0 != 0, "taken: {want}");
        ensure!(result.2.contains(want), "{want:?} is not in: {}", result.2);
        ensure!(!result.2.contains("panicked"), "{}", result.2);
    }
    Ok(())
}

#[test]
fn a_missing_gstreamer_element_is_named_with_its_debian_package() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
    // A plugin path without plugins stands for a machine on which they are not installed.
    let empty = tempfile::tempdir()?;
    let out = Command::new(trocar()?)
        .args(["publish", "--invite", &link, "--ca", &ca, "--source", "test:320x180@15"])
        .env("GST_PLUGIN_SYSTEM_PATH_1_0", empty.path())
        .env("GST_PLUGIN_PATH_1_0", empty.path())
        .env("GST_REGISTRY_1_0", empty.path().join("registry.bin"))
        .output()?;
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(!out.status.success() && error.contains("on Debian it is in the package gstreamer1.0-"), "{error}");
    Ok(())
}

#[test]
fn a_certificate_of_another_authority_is_not_let_in_over_quic() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let other = stack.dir.path().join("other");
    let (code, _, error) = run(&["ca", "issue", "--dir", path(&other)?, "intruder"])?;
    ensure!(code == 0, "{error}");
    let (link, ca) = (stack.invitation("local")?, stack.text("/ca_file")?);
    let (cert, key) = (other.join("intruder.pem"), other.join("intruder.key"));
    let fixed = ["publish", "--invite", &link, "--ca", &ca, "--source", "test:320x180@15"];
    let identity = ["--cert", path(&cert)?, "--key", path(&key)?];
    let all: Vec<&str> = fixed.into_iter().chain(identity).collect();
    let mut intruder = Process::trocar("intruder", &all)?;
    let began = intruder.line(Duration::from_secs(4), |l| l.starts_with("publishing "));
    ensure!(began.is_err(), "a stranger's packets flow");
    ensure!(intruder.stderr().contains("connection to the relay"), "{}", intruder.stderr());
    runtime().block_on(async {
        ensure!(stack.metric("trocar_feed_packets_total").await? == 0.0, "the relay took packets");
        Ok(())
    })
}

#[test]
fn the_roles_in_the_docs_are_the_ones_in_the_code() -> anyhow::Result<()> {
    let (_, table, _) = run(&["roles"])?;
    let docs = std::fs::read_to_string(workspace().join("docs/ROLES.md"))?;
    ensure!(docs.contains(table.trim()), "docs/ROLES.md is not what `trocar roles` prints:\n{table}");
    Ok(())
}

#[test]
fn the_api_answers_as_its_own_description_says() -> anyhow::Result<()> {
    let mut command = Command::new(workspace().join("scripts/openapi-check.sh"));
    command.arg(span("3", "20")).env("TROCAR_BIN", trocar()?).env("PYTHONDONTWRITEBYTECODE", "1");
    let out = command.output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    println!("{}", said.lines().rev().take(12).collect::<Vec<_>>().join("\n"));
    ensure!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    ensure!(said.contains(" passed"), "nothing was asked: {said}");
    Ok(())
}
