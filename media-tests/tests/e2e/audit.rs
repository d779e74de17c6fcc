//! Signaling's audit chain with the real binary: who watched is in it while the server runs, and whoever changes it is named.

use anyhow::{Context, ensure};
use std::path::Path;
use std::process::{Command, Stdio};
use trocar_media_tests::process::trocar;
use trocar_media_tests::stack::{PATIENCE, Stack, path, summary};
use trocar_media_tests::story::Story;

/// Runs `trocar audit`: whether it succeeded, and all that it said.
fn audit(words: &[&str]) -> anyhow::Result<(bool, String)> {
    let out = Command::new(trocar()?).arg("audit").args(words).stdin(Stdio::null()).output()?;
    Ok((
        out.status.success(),
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)),
    ))
}

/// Puts a text of the same length in the place of another one in a file.
fn overwrite(file: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    let mut bytes = std::fs::read(file)?;
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).context("the text is not in the file")?;
    bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    Ok(std::fs::write(file, bytes)?)
}

#[test]
fn who_watched_is_in_signalings_chain_and_whoever_changes_it_is_named() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let mut publisher = stack.publish(&["--source", "test:320x180@15"])?;
    let mut viewer = stack.watch(&["--frames", "30"])?;
    summary(&mut viewer, PATIENCE)?;
    viewer.wait(PATIENCE)?;
    publisher.stop()?;
    let state = stack.dir.path().join("state");
    let (db, key) = (state.join("trocar.db"), state.join("audit-key.pub"));
    let (db, key) = (path(&db)?, path(&key)?);
    let (ok, said) = audit(&["verify", db, "--key", key])?;
    println!("{said}");
    ensure!(ok && said.contains("records are whole"), "while the server runs: {said}");

    let views = Story::about(Path::new(db), "view")?.records;
    let kinds: Vec<&str> = views.iter().filter_map(|v| v["kind"].as_str()).collect();
    ensure!(kinds == ["view-started", "view-ended"], "{kinds:?}");
    let seconds = views[1]["duration_us"].as_f64().context("no duration")? / 1e6;
    ensure!((1.0..60.0).contains(&seconds) && views[1]["feed"] == "scope", "{}", views[1]);

    // Killed, and started again: nothing of the chain is lost, and it goes on.
    stack.restart()?;
    let (ok, said) = audit(&["verify", db, "--key", key])?;
    ensure!(ok, "after a kill: {said}");
    let (_, story) = audit(&["show", db, "--kind", "started"])?;
    ensure!(story.lines().count() == 2 && story.contains("token key"), "two starts: {story}");
    stack.up.stop()?;
    overwrite(Path::new(db), "\"kind\":\"view-ended\"", "\"kind\":\"view-ENDED\"")?;
    let (ok, said) = audit(&["verify", db])?;
    ensure!(!ok && said.contains("its bytes were changed"), "a changed record goes unnoticed: {said}");
    Ok(())
}
