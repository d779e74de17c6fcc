//! The verbs of the command line over the HTTP API, and `trocar top`, against a real relay.

use crate::runtime;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use trocar_media_tests::http_client;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack};

/// A picture that costs little.
const PICTURE: &[&str] = &["--source", "test:320x180@15"];

/// How a command ended and what it said.
struct Ended {
    code: i32,
    out: String,
    error: String,
}

/// Runs `trocar` without a terminal.
fn run(arguments: &[&str]) -> anyhow::Result<Ended> {
    let out = Command::new(trocar()?).args(arguments).stdin(Stdio::null()).output()?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let code = out.status.code().context("ended by a signal")?;
    Ok(Ended { code, out: text(&out.stdout), error: text(&out.stderr) })
}

/// A verb as somebody of that role, over HTTPS where the local authority is to be trusted.
fn verb(stack: &Stack, role: &str, words: &[&str]) -> anyhow::Result<Ended> {
    let (link, ca) = (stack.invitation(role)?, stack.text("/ca_file")?);
    let all: Vec<&str> = words.iter().copied().chain(["--invite", &link, "--ca", &ca]).collect();
    run(&all)
}

fn done(ended: &Ended) -> anyhow::Result<&str> {
    ensure!(ended.code == 0, "exit {}: {}", ended.code, ended.error);
    Ok(&ended.out)
}

fn json(ended: &Ended) -> anyhow::Result<Value> {
    serde_json::from_str(done(ended)?).with_context(|| ended.out.clone())
}

fn refused(ended: &Ended, words: &str) -> anyhow::Result<()> {
    ensure!(ended.code == 1 && ended.out.is_empty(), "exit {}: {}", ended.code, ended.out);
    ensure!(ended.error.contains(words), "{words:?} is not in: {}", ended.error);
    ensure!(!ended.error.contains("panicked"), "{}", ended.error);
    Ok(())
}

#[test]
fn a_session_its_feeds_and_participants_are_shown_to_people_and_to_scripts() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(PICTURE)?;
    let session = stack.text("/session")?;

    let shown = verb(&stack, "observer", &["session", "show"])?;
    for want in [&session, "Operating room", "scope", "live", "H264", "320x180@15.00", "QUIC", "local"] {
        ensure!(done(&shown)?.contains(want), "{want:?} is not in:\n{}", shown.out);
    }
    ensure!(json(&verb(&stack, "observer", &["session", "show", "--json"])?)?["session"] == session);

    let feeds = json(&verb(&stack, "engineer", &["feed", "list", "--json"])?)?;
    ensure!(feeds[0]["descriptor"]["feed"] == "scope" && feeds[0]["state"] == "live", "{feeds}");
    let one = verb(&stack, "engineer", &["feed", "show", "scope"])?;
    ensure!(done(&one)?.contains("200 ms from capture to display"), "{}", one.out);
    refused(&verb(&stack, "engineer", &["feed", "show", "nothing"])?, "(HTTP 404)")?;

    // Six verbs have come and gone: only who is connected is listed.
    let people = json(&verb(&stack, "observer", &["participant", "list", "--json"])?)?;
    ensure!(people.as_array().is_some_and(|p| p.len() == 1) && people[0]["role"] == "local", "{people}");
    Ok(())
}

#[test]
fn what_a_role_may_not_do_is_refused_in_the_servers_words_and_nothing_changes() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _publisher = stack.publish(PICTURE)?;
    let people = json(&verb(&stack, "observer", &["participant", "list", "--json"])?)?;
    let publisher = people[0]["participant"].as_str().context("participant")?;
    for role in ["local", "expert", "observer", "engineer", "recorder"] {
        refused(&verb(&stack, role, &["session", "close", "--yes"])?, "manage")?;
        refused(&verb(&stack, role, &["feed", "remove", "scope", "--yes"])?, "(HTTP 403)")?;
        refused(&verb(&stack, role, &["participant", "remove", publisher, "--yes"])?, "(HTTP 403)")?;
    }
    refused(&verb(&stack, "expert", &["session", "invite", "--role", "observer"])?, "invite")?;
    refused(&verb(&stack, "local", &["session", "invite", "--role", "coordinator"])?, "manage")?;
    let still = json(&verb(&stack, "observer", &["session", "show", "--json"])?)?;
    ensure!(still["feeds"][0]["descriptor"]["feed"] == "scope", "{still}");
    ensure!(still["participants"][0]["participant"] == publisher, "{still}");
    Ok(())
}

#[test]
fn an_invitation_from_the_command_line_opens_the_session() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let ca = stack.text("/ca_file")?;
    let ended = verb(&stack, "local", &["session", "invite", "--role", "expert", "--hours", "2"])?;
    let link = done(&ended)?.trim().to_owned();
    ensure!(link.lines().count() == 1 && ended.error.contains("role expert, good until 20"), "{link} {}", ended.error);
    let grant = json(&run(&["token", "--json", "--invite", &link, "--ca", &ca])?)?;
    ensure!(grant["role"] == "expert" && grant["session"] == stack.text("/session")?, "{grant}");
    let broken = format!("{link}x");
    refused(&run(&["session", "show", "--invite", &broken, "--ca", &ca])?, "(HTTP 403)")?;
    for hours in ["0", "169", "a"] {
        let ended = verb(&stack, "local", &["session", "invite", "--role", "expert", "--hours", hours])?;
        ensure!(ended.code == 2 && ended.error.contains("--hours"), "{hours}: {}", ended.error);
    }
    Ok(())
}

#[test]
fn what_cannot_be_undone_is_not_done_without_yes_and_then_done_for_good() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let mut publisher = stack.publish(PICTURE)?;
    let list = || json(&verb(&stack, "observer", &["participant", "list", "--json"])?);
    let people = list()?;
    let id = people[0]["participant"].as_str().context("participant")?;
    for words in [vec!["session", "close"], vec!["feed", "remove", "scope"], vec!["participant", "remove", id]] {
        refused(&verb(&stack, "coordinator", &words)?, "--yes")?;
    }
    ensure!(list()? == people, "something was done without a yes");

    let removed = verb(&stack, "coordinator", &["feed", "remove", "scope", "--yes"])?;
    ensure!(done(&removed)? == "removed feed scope\n", "{}", removed.out);
    publisher.stop()?;
    let closed = verb(&stack, "coordinator", &["session", "close", "--yes"])?;
    ensure!(done(&closed)?.starts_with("closed session "), "{}", closed.out);
    // The links went with it.
    refused(&verb(&stack, "coordinator", &["session", "show"])?, "(HTTP 403)")?;
    Ok(())
}

#[test]
fn a_participant_that_is_removed_is_gone() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _viewer = stack.watch(&["--feed", "scope"])?;
    let deadline = Instant::now() + PATIENCE;
    let id = loop {
        let people = json(&verb(&stack, "coordinator", &["participant", "list", "--json"])?)?;
        if let Some(id) = people[0]["participant"].as_str() {
            break id.to_owned();
        }
        ensure!(Instant::now() < deadline, "the viewer did not come");
    };
    done(&verb(&stack, "coordinator", &["participant", "remove", &id, "--yes"])?)?;
    let people = done(&verb(&stack, "coordinator", &["participant", "list", "--json"])?)?.to_owned();
    ensure!(!people.contains(&id), "{people}");
    refused(&verb(&stack, "coordinator", &["participant", "remove", &id, "--yes"])?, "(HTTP 40")
}

#[test]
fn a_token_from_the_command_line_is_one_that_the_api_takes() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let ended = verb(&stack, "observer", &["token"])?;
    let token = done(&ended)?.trim().to_owned();
    ensure!(ended.error.contains("role observer") && ended.error.contains("good until 20"), "{}", ended.error);
    let url = format!("{}v1/sessions/{}", stack.text("/page")?, stack.text("/session")?);
    runtime().block_on(async {
        let get = |token: String| async { http_client()?.get(&url).bearer_auth(token).send().await };
        ensure!(get(token.clone()).await?.status() == 200);
        ensure!(get(token.replacen('.', "x.", 1)).await?.status() == 401, "the control: a broken token is refused");
        Ok(())
    })
}

#[test]
fn a_link_over_https_needs_a_trust_list_and_a_server_that_is_away_is_called_so() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let secret = stack.text("/tokens/observer")?;
    let link = format!("{}#invitation={secret}", stack.text("/https")?);
    refused(&run(&["session", "show", "--invite", &link])?, "--ca FILE is needed")?;
    let ca = stack.text("/ca_file")?;
    done(&run(&["session", "show", "--invite", &link, "--ca", &ca])?)?;
    // The page's own link is plain HTTP on this machine, and needs none.
    let plain = stack.invitation("observer")?;
    done(&run(&["session", "show", "--invite", &plain])?)?;
    stack.up.stop()?;
    refused(&run(&["session", "show", "--invite", &plain])?, "signaling does not answer")
}

#[test]
fn top_counts_what_is_published_and_watched_and_does_not_when_it_is_not() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let metrics = stack.text("/metrics")?;
    let top = |more: &[&str]| {
        let fixed = ["top", "--metrics", &metrics, "--once", "--interval", "0.5"];
        run(&fixed.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let empty = top(&[])?;
    ensure!(done(&empty)?.contains("nothing is published") && empty.out.contains("nobody watches"), "{}", empty.out);

    let mut publisher = stack.publish(PICTURE)?;
    let mut viewer = stack.watch(&[])?;
    viewer.line(PATIENCE, |l| l.contains("\"frames\""))?;
    let figures = json(&top(&["--json"])?)?;
    let feed = &figures["feeds"][0];
    let number = |p: &str| feed[p].as_f64().unwrap_or(f64::NAN);
    ensure!(feed["feed"] == "scope" && feed["state"] == "live" && feed["legs"] == 1, "{figures}");
    // 15 pictures a second are published; the relay's figures are up to half a second old at either end of 2.5 s.
    ensure!((11.0..=19.0).contains(&number("frames_per_s")), "{feed}");
    ensure!(number("in_packets_per_s") >= 11.0 && number("out_packets_per_s") > 0.0, "{feed}");
    ensure!(feed["relay_delay"]["p99_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{feed}");
    ensure!(figures["legs"][0]["transport"] == "roq" && figures["legs"][0]["connected"] == true, "{figures}");

    let link = stack.invitation("engineer")?;
    let text = top(&["--invite", &link])?;
    ensure!(done(&text)?.contains("H264 320x180@15"), "{}", text.out);

    publisher.signal("STOP")?;
    let silent = json(&top(&["--json"])?)?;
    ensure!(silent["feeds"][0]["state"] == "silent" && silent["feeds"][0]["trouble"] == true, "{silent}");
    // The first seconds may still have had packets in them; these have not.
    let silent = json(&top(&["--json"])?)?;
    ensure!(silent["feeds"][0]["in_packets_per_s"] == 0.0 && silent["feeds"][0]["relay_delay"].is_null(), "{silent}");
    publisher.signal("CONT")?;
    publisher.stop()?;

    refused(&run(&["top", "--metrics", &metrics])?, "no terminal")?;
    stack.up.stop()?;
    refused(&top(&[])?, "does not answer")
}

/// `trocar top` on a terminal of its own: `script` gives it one.
struct Screen {
    process: std::process::Child,
    drawn: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn open(metrics: &str) -> anyhow::Result<Self> {
        let command = format!("stty cols 100 rows 30; exec {} top --metrics {metrics}", trocar()?.display());
        let mut process = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("script (package bsdutils)")?;
        let mut from = process.stdout.take().context("output")?;
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&drawn);
        std::thread::spawn(move || {
            let mut part = [0; 4_096];
            while let Ok(n @ 1..) = from.read(&mut part) {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&part[..n]);
            }
        });
        Ok(Self { process, drawn })
    }

    /// Waits until this was drawn since the last call.
    fn shows(&self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let drawn =
                String::from_utf8_lossy(&self.drawn.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
            if drawn.contains(text) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{text:?} was not drawn: {drawn:?}");
            }
            // What a terminal shows is no event that can be waited for; this is a poll, not a delay.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn clear(&self) {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn press(&mut self, keys: &str) -> anyhow::Result<()> {
        Ok(self.process.stdin.as_mut().context("input")?.write_all(keys.as_bytes())?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn on_a_screen_old_figures_are_called_old_and_a_pause_a_pause() -> anyhow::Result<()> {
    let mut stack = Stack::start()?;
    let _publisher: Process = stack.publish(PICTURE)?;
    let mut screen = Screen::open(&stack.text("/metrics")?)?;
    screen.shows("scope")?;
    screen.shows("live, 0.")?;
    ensure!(!String::from_utf8_lossy(&screen.drawn.lock().unwrap_or_else(PoisonError::into_inner)).contains("OLD"));
    screen.press("p")?;
    screen.shows("PAUSED")?;
    screen.press("p/nothing")?;
    screen.shows("0 of 1, filtered")?;
    screen.press("\u{1b}")?;
    screen.clear();
    stack.kill()?;
    screen.shows("Below is OLD")?;
    screen.shows("▀")?;
    screen.press("q")?;
    let status = screen.process.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
