//! The README keeps its word: its commands are run as a reader would type them, and what it points at exists.

use anyhow::{Context, bail, ensure};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::path;
use trocar_media_tests::workspace;

/// A command gets this long, and the demo to be up; machines under load are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commands that other targets run: CI, `make clean-room`, or whoever installs the machine.
const ELSEWHERE: &[&str] =
    &["make demo", "make test", "make bench", "make clean-room", "sudo apt-get install make git"];

/// What a command is to do.
enum Promise {
    /// Sets variables for the blocks below.
    Sets,
    /// Ends with 0 and says this.
    Says(&'static str),
    /// Says this, goes on, and ends with 0 when it is told to.
    Stays(&'static str),
    /// Says where the gate's console is. Control is handed over there, as the README tells it, and every page says so.
    HandsOver,
    /// Ends with 0, and after it every page says that nobody operates, until local takes control.
    StopsTheArm,
}
use Promise::{HandsOver, Says, Sets, Stays, StopsTheArm};

/// By the beginning of a command. A command that has no row here is not documented, it is hoped for.
const PROMISES: &[(&str, Promise)] = &[
    ("export PATH=", Sets),
    ("source var/demo/up.env", Sets),
    ("echo \"$TROCAR_INVITE_EXPERT\"", Says("/#invitation=")),
    ("trocar fixture ", Says("recording.mp4: 1280x720@30")),
    ("echo \"$TROCAR_CONSOLE\"", HandsOver),
    ("kill -9 \"$(cat var/demo/expert.pid)\"", StopsTheArm),
    ("trocar audit show ", Says("control ended; nobody moves (HOLD)")),
    ("trocar audit verify ", Says("records are whole")),
    ("trocar publish ", Stays("publishing room 1280x720@30.000 H.264")),
    ("trocar ca issue ", Says("var/demo/or-2.key")),
    ("trocar watch ", Says("summary  scope")),
    ("trocar report classes", Says("telesurgery-single")),
    ("curl --fail --silent \"${TROCAR_PAGE}healthz\"", Says("ok")),
    ("curl --fail --silent \"${TROCAR_PAGE}readyz\"", Says("ready")),
    ("curl --fail --silent \"$TROCAR_METRICS\" | grep ", Says("trocar_feed_relay_delay_seconds_count")),
    ("trocar feed list ", Says("scope")),
    ("trocar top --once ", Says("scope")),
    ("trocar config check ", Says(".toml: ok")),
    ("trocar up ", Stays("Trocar is up")),
];

/// The lines of all fenced blocks of that language, in order; a backslash joins a line to the next.
fn commands(readme: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut inside = false;
    let mut begun = String::new();
    for line in readme.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            "" => {}
            l if !inside || l.starts_with('#') => {}
            l => match l.strip_suffix('\\') {
                Some(part) => begun.push_str(part),
                None => out.push(std::mem::take(&mut begun) + l),
            },
        }
    }
    out
}

/// A folder that looks like a clone in which `make demo` runs.
struct Room {
    dir: TempDir,
    demo: Option<Process>,
}

impl Room {
    fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir_all(dir.path().join("target"))?;
        std::fs::create_dir_all(dir.path().join("var/demo"))?;
        symlink(trocar()?.parent().context("the binary has no folder")?, dir.path().join("target/debug"))?;
        symlink(workspace().join("configs"), dir.path().join("configs"))?;
        Ok(Self { dir, demo: None })
    }

    /// What `make demo` does after building, on free ports.
    fn with_demo() -> anyhow::Result<Self> {
        let mut room = Self::new()?;
        let mut command = Command::new(workspace().join("scripts/demo.sh"));
        command.env("TROCAR_BIN", trocar()?).env("DEMO_DIR", room.dir.path().join("var/demo"));
        command.env("DEMO_PORT", "0").env("DEMO_SIZE", "720p");
        let demo = room.demo.insert(Process::start("make demo", &mut command)?);
        demo.line(PATIENCE, |l| l.contains("Ctrl-C stops everything"))?;
        Ok(room)
    }

    /// The command in a shell of its own, after the lines that set variables.
    fn shell(&self, set: &[String], command: &str) -> Command {
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &format!("{}\n{command}", set.join("\n"))]);
        bash.current_dir(self.dir.path());
        bash
    }

    /// What the command says, which has to end with 0.
    fn said(&self, set: &[String], command: &str) -> anyhow::Result<String> {
        let out = self.shell(set, command).output()?;
        ensure!(out.status.success(), "{command}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?.trim().to_owned())
    }
}

/// The surgeon beside the arm: the gate's console in one window, the page of a physician in another.
struct Surgeon(Browser);

impl Surgeon {
    fn hands_over(console: &str, page: &str) -> anyhow::Result<Self> {
        let mut surgeon = Self(Browser::start()?);
        surgeon.0.join("page", page, "Dr. Keller")?;
        surgeon.0.open("console", console)?;
        surgeon.takes()?;
        // On a machine that is busy with other things a link gate may be red until the offer runs out: once more then.
        for _ in 0..4 {
            if surgeon.offers()? {
                surgeon.0.wait("page", "body[data-control=remote]", PATIENCE)?;
                let banner = surgeon.0.call("text", "page", json!({ "selector": ".words" }))?;
                ensure!(banner.to_string().contains("Demo expert"), "the page does not say who operates: {banner}");
                surgeon.0.wait("console", "#motion:not(.stopped):not([hidden])", PATIENCE)?;
                return Ok(surgeon);
            }
        }
        bail!("four offers came to nothing")
    }

    fn takes(&mut self) -> anyhow::Result<()> {
        self.0.wait("console", "body:not([data-control=unknown])", PATIENCE)?;
        self.0.call("press", "console", json!({ "key": "t" }))?;
        self.0.wait("console", "body[data-control=local]", PATIENCE)
    }

    /// Whether the expert has control at the end.
    fn offers(&mut self) -> anyhow::Result<bool> {
        self.0.wait("console", "#act-offer:not(:disabled)", PATIENCE)?;
        self.0.call("press", "console", json!({ "key": "o" }))?;
        for choice in ["#experts label:has-text(\"expert\")", "#sets label:has(input[value=\"2\"])", "#offer-send"] {
            self.0.call("click", "console", json!({ "selector": choice }))?;
        }
        // Ready and green, or withdrawn again.
        self.0.wait("console", "#act-withdraw:not(:disabled)", PATIENCE)?;
        self.0.wait("console", "#act-confirm:not(:disabled), #act-offer:not(:disabled)", PATIENCE)?;
        self.0.call("press", "console", json!({ "key": "c" }))?;
        Ok(self.0.wait("console", "body[data-control=remote]", Duration::from_secs(5)).is_ok())
    }

    fn sees_the_hold_and_takes(&mut self) -> anyhow::Result<()> {
        self.0.wait("page", "body[data-control=hold]", PATIENCE)?;
        self.0.wait("console", "body[data-control=nobody]", PATIENCE)?;
        self.takes()?;
        self.0.wait("page", "body[data-control=local]", PATIENCE)
    }
}

impl Drop for Room {
    /// The demo is asked, since it has children that it stops itself.
    fn drop(&mut self) {
        if let Some(demo) = &mut self.demo {
            let _ = demo.stop();
        }
    }
}

/// Runs every command of a README and holds it to what it promises.
fn follow(readme: &str, room: &Room) -> anyhow::Result<()> {
    let mut set = Vec::new();
    let mut staying = Vec::new();
    let mut surgeon = None;
    for command in commands(readme) {
        if ELSEWHERE.contains(&command.as_str()) {
            continue;
        }
        println!("$ {command}");
        let promise = PROMISES.iter().find(|(start, _)| command.starts_with(start));
        let (_, promise) = promise.with_context(|| format!("nobody has said what this is to do: {command}"))?;
        match promise {
            Sets => {
                let status = room.shell(&set, &command).status()?;
                ensure!(status.success(), "{command}: {status}");
                set.push(command);
            }
            Says(wanted) => {
                let mut p = Process::start(&command, &mut room.shell(&set, &command))?;
                let status = p.wait(PATIENCE)?;
                let said = p.rest().join("\n");
                println!("{said}");
                ensure!(status.success(), "{command}: {status}\n{said}\n{}", p.stderr());
                ensure!(said.contains(wanted), "{command}: {wanted:?} is not in what it said:\n{said}");
            }
            Stays(wanted) => {
                // The shell becomes the command, so that a signal reaches it.
                let mut p = Process::start(&command, &mut room.shell(&set, &format!("exec {command}")))?;
                println!("{}", p.line(PATIENCE, |l| l.contains(wanted))?);
                staying.push(p);
            }
            HandsOver => {
                let said = room.said(&set, &command)?;
                let page = room.said(&set, "echo \"$TROCAR_INVITE_EXPERT\"")?;
                surgeon = Some(Surgeon::hands_over(&said, &page)?);
            }
            StopsTheArm => {
                room.said(&set, &command)?;
                surgeon.as_mut().context("nobody handed over before")?.sees_the_hold_and_takes()?;
            }
        }
    }
    for mut p in staying {
        p.stop()?;
    }
    Ok(())
}

#[test]
fn readme_commands_do_what_the_readme_says() -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(workspace().join("README.md"))?;
    for (start, _) in PROMISES {
        ensure!(commands(&readme).iter().any(|c| c.starts_with(start)), "the README no longer has: {start}");
    }
    let mut room = Room::with_demo()?;
    follow(&readme, &room)?;
    // Publisher and relay of the demo end in an orderly way, too.
    room.demo.take().context("no demo")?.stop()
}

#[test]
fn readme_commands_that_are_wrong_are_found() -> anyhow::Result<()> {
    let room = Room::new()?;
    let path_line = "export PATH=\"$PWD/target/debug:$PATH\"";
    let fenced = |command: &str| format!("# T\n\n```sh\n{path_line}\n{command}\n```\n\n```text\nnot run\n```\n");
    follow(&fenced("trocar config check configs/trocar.toml"), &room).context("the control: a right one passes")?;
    for (command, why) in [
        ("trocar config check configs/trocra.toml", "exit status: 1"),
        ("trocar watch --headles", "exit status: 2"),
        ("trocar watch --help", "is not in what it said"),
        ("trocar up --dir", "ended without that line"),
        ("make coffee", "nobody has said what this is to do"),
        ("trocar config \\\n    check nothing.toml", "nothing.toml"),
    ] {
        let Err(error) = follow(&fenced(command), &room) else { bail!("{command} passed") };
        ensure!(format!("{error:#}").contains(why), "{command}: {why:?} is not in {error:#}");
    }
    Ok(())
}

/// Targets of the links to files, from the Markdown file's own folder. What is fenced is no text.
fn broken_links(text: &str, folder: &Path) -> Vec<String> {
    let prose: String = text.split("\n```").step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|t| !t.contains("://") && !t.starts_with('#'));
    files.filter(|t| !folder.join(t.split('#').next().unwrap_or(t)).exists()).map(ToOwned::to_owned).collect()
}

#[test]
fn readme_and_docs_link_to_what_is_there() -> anyhow::Result<()> {
    let docs = workspace().join("docs");
    let mut files = vec![workspace().join("README.md"), workspace().join("CONTRIBUTING.md")];
    files.extend(std::fs::read_dir(&docs)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_file()));
    for file in files {
        let broken = broken_links(&std::fs::read_to_string(&file)?, file.parent().context("folder")?);
        ensure!(broken.is_empty(), "{} links to nothing: {broken:?}", path(&file)?);
    }
    let text = "[a](OPERATING.md) [b](none.md#x) [c](https://x/)\n```sh\nall[0](x)\n```\n[d](lost.md)";
    ensure!(broken_links(text, &docs) == ["none.md#x", "lost.md"]);
    Ok(())
}

/// Steps `1. `FILE` `FUNCTION`: …` whose file has no such function.
fn lost_steps(text: &str) -> Vec<&str> {
    let is_step = |l: &&str| l.split_once(". `").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    let is_there = |step: &str| {
        let mut ticked = step.split('`').skip(1).step_by(2);
        let source = ticked.next().and_then(|f| std::fs::read_to_string(workspace().join(f)).ok());
        source.zip(ticked.next()).is_some_and(|(s, function)| s.contains(&format!("fn {function}(")))
    };
    text.lines().filter(is_step).filter(|l| !is_there(l)).collect()
}

#[test]
fn readme_shows_the_ways_of_a_packet_and_of_a_command_through_functions_that_exist() -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(workspace().join("README.md"))?;
    for heading in ["## How a packet travels", "## How a command travels"] {
        let (_, way) = readme.split_once(heading).with_context(|| format!("the README has no {heading}"))?;
        let (way, _) = way.split_once("\n## ").context("end of the section")?;
        ensure!(way.lines().filter(|l| l.contains(". `")).count() >= 9, "too few steps:\n{way}");
        ensure!(lost_steps(way).is_empty(), "not there any more: {:#?}", lost_steps(way));
    }
    ensure!(lost_steps("1. `proto/src/media/feed.rs` `handle_pocket`: gone").len() == 1);
    Ok(())
}
