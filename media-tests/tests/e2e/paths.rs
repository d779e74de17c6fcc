//! Two paths, hitless, and a stream per frame: real processes with `trocar impair` between them.

use crate::native::{ledger, same_frames};
use crate::{number, runtime, span};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};
use trocar_media_tests::browser::Browser;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack, path, scope_fixture, summary};

/// How soon everybody knows that a path is gone.
const ALARM: Duration = Duration::from_secs(1);
/// The page of figures is made anew at most twice a second: so much older than an event may a figure be.
const FIGURES_AGE: Duration = Duration::from_millis(500);
/// Between two looks at a figure.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A way to the relay that can be made bad, and cut.
pub(crate) struct Way {
    process: Option<Process>,
    to: String,
    listen: String,
    flags: Vec<&'static str>,
}

impl Way {
    pub(crate) fn open(to: &str, flags: &[&'static str]) -> anyhow::Result<Self> {
        let mut way =
            Self { process: None, to: to.to_owned(), listen: "127.0.0.1:0".to_owned(), flags: flags.to_vec() };
        way.mend()?;
        Ok(way)
    }

    /// Nothing gets through any more.
    fn cut(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("is cut already")?;
        process.signal("KILL")?;
        process.wait(PATIENCE).map(drop)
    }

    /// It is there again, at the address that it had.
    fn mend(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(trocar()?);
        command.args(["impair", "--listen", &self.listen, "--to", &self.to, "--json", "--seed", "5"]);
        let mut process = Process::start("impair", command.args(&self.flags))?;
        let ready: Value = serde_json::from_str(&process.line(PATIENCE, |l| l.contains("\"ready\""))?)?;
        self.listen = ready["listen"].as_str().context("listen")?.to_owned();
        self.process = Some(process);
        Ok(())
    }

    /// As `--path` names it.
    pub(crate) fn option(&self) -> String {
        format!("127.0.0.1={}", self.listen)
    }
}

/// 50 Mbit/s at 60 frames a second through two ways, to the relay or from it.
struct Journey {
    stack: Stack,
    ways: Vec<Way>,
    publisher: Process,
    viewer: Process,
}

/// Which part of the journey has the ways.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Up,
    Down,
}

const FRAMES_PER_S: f64 = 60.0;

impl Journey {
    fn start(part: Part, ways: &[&[&'static str]], mode: &str, seconds: u64) -> anyhow::Result<Self> {
        let stack = Stack::start()?;
        let relay = stack.text("/relay/quic")?;
        let ways = ways.iter().map(|flags| Way::open(&relay, flags)).collect::<anyhow::Result<Vec<_>>>()?;
        let options: Vec<String> = ways.iter().flat_map(|w| ["--path".to_owned(), w.option()]).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(["--roq-mode", mode]).collect();
        let of = |p: Part| if p == part { options.clone() } else { Vec::new() };
        let (sent, came) = (stack.dir.path().join("sent.jsonl"), stack.dir.path().join("came.jsonl"));
        let source = format!("file:{}", path(&scope_fixture()?)?);
        let fixed = ["--source", &source, "--loop", "--passthrough", "--ledger", path(&sent)?];
        let publisher = stack.publish(&[&fixed[..], &of(Part::Up)].concat())?;
        let seconds = seconds.to_string();
        let fixed = ["--duration", &seconds, "--ledger", path(&came)?];
        let viewer = stack.watch(&[&fixed[..], &of(Part::Down)].concat())?;
        Ok(Self { stack, ways, publisher, viewer })
    }

    /// Waits until the viewer says that so many paths are alive, and how long that took.
    fn await_alive(&mut self, of: &str, alive: u64) -> anyhow::Result<Duration> {
        let (began, of) = (Instant::now(), format!("\"of\":\"{of}\""));
        self.viewer.line(PATIENCE, |l| {
            l.contains("\"type\":\"paths\"")
                && l.contains(&of)
                && serde_json::from_str::<Value>(l).is_ok_and(|v| v["paths"]["alive"] == alive)
        })?;
        Ok(began.elapsed())
    }

    /// Waits until the relay's own figure says so, which is to be by the time that the page of figures is made anew.
    fn await_figure(&self, alive: f64) -> anyhow::Result<()> {
        let (began, runtime) = (Instant::now(), runtime());
        let figure = |name| runtime.block_on(self.stack.metric(name));
        ensure!(figure("trocar_feed_paths_expected")? == 2.0);
        loop {
            let now = figure("trocar_feed_paths_alive")?;
            if now == alive {
                return Ok(());
            }
            ensure!(began.elapsed() <= 2 * FIGURES_AGE, "trocar_feed_paths_alive is {now}, {alive} is right");
            // A figure is no event: it can only be looked at.
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The viewer's summary, and whether every frame between its first and its last one is there as it was sent.
    fn end(&mut self) -> anyhow::Result<(Value, anyhow::Result<()>)> {
        let s = summary(&mut self.viewer, Duration::from_secs(60))?;
        ensure!(self.viewer.wait(PATIENCE)?.success(), "{}", self.viewer.stderr());
        self.publisher.stop()?;
        let read = |name: &str| ledger(&self.stack.dir.path().join(name));
        let (sent, came): (BTreeMap<u64, String>, _) = (read("sent.jsonl")?, read("came.jsonl")?);
        println!("{s}");
        Ok((s, same_frames(&sent, &came)))
    }

    /// Nothing was lost, from the first whole frame on: before the second path is up, one that loses may lose.
    fn whole(mut self, seconds: f64) -> anyhow::Result<()> {
        let (s, same) = self.end()?;
        ensure!(number(&s, "/frames_skipped") == 0.0, "skipped: {s}");
        ensure!(number(&s, "/frames") >= (seconds - 4.0) * (FRAMES_PER_S - 1.0), "too few frames: {s}");
        ensure!(number(&s, "/packets") / number(&s, "/frames") > 80.0, "that is not 50 Mbit/s: {s}");
        same
    }
}

/// Cuts one path and mends it, with everything that has to be seen.
fn cut_and_mend(part: Part, mode: &str) -> anyhow::Result<()> {
    let of = if part == Part::Up { "feed" } else { "leg" };
    let mut j = Journey::start(part, &[&[], &[]], mode, 14)?;
    j.await_alive(of, 2)?;
    if part == Part::Up {
        // The control: before the cut both bring packets.
        j.await_figure(2.0)?;
    }
    j.ways[0].cut()?;
    let cut = Instant::now();
    j.await_alive(of, 1)?;
    let alarm = cut.elapsed();
    ensure!(alarm <= ALARM, "the alarm took {alarm:?}");
    if part == Part::Up {
        j.await_figure(1.0)?;
        j.publisher.line(PATIENCE, |l| l.starts_with("scope: UNPROTECTED since "))?;
    }
    j.ways[0].mend()?;
    let back = j.await_alive(of, 2)?;
    println!("{of}, {mode}: alarm after {alarm:?}, both again {back:?} after the path was back");
    if part == Part::Up {
        j.await_figure(2.0)?;
        j.publisher.line(PATIENCE, |l| l.starts_with("scope: protected: 2 paths since "))?;
        ensure!(
            runtime().block_on(j.stack.metric("trocar_feed_refused_packets_total"))? == 0.0,
            "copies are suspicious"
        );
    }
    j.whole(14.0)
}

#[test]
fn a_publisher_loses_nothing_when_one_of_its_paths_is_cut_and_everybody_knows_within_a_second() -> anyhow::Result<()> {
    cut_and_mend(Part::Up, "datagram")
}

#[test]
fn a_viewer_loses_nothing_when_one_of_its_paths_is_cut_and_knows_within_a_second() -> anyhow::Result<()> {
    cut_and_mend(Part::Down, "datagram")
}

#[test]
fn a_page_says_which_feed_is_protected_and_that_it_is_not_when_a_path_is_cut() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let relay = stack.text("/relay/quic")?;
    let mut ways = [Way::open(&relay, &[])?, Way::open(&relay, &[])?];
    let [one, other] = [ways[0].option(), ways[1].option()];
    let picture = ["--source", "test:320x240@30", "--bitrate", "1"];
    let _publisher = stack.publish(&[&picture[..], &["--path", &one, "--path", &other]].concat())?;
    // The control: a feed that comes by one path says nothing of the kind.
    let _plain = stack.publish(&[&picture[..], &["--feed", "room", "--purpose", "room"]].concat())?;
    let mut browser = Browser::start()?;
    browser.join("expert", &stack.invitation("expert")?, "Dr.+Sato")?;
    let tile = |feed: &str, paths: &str| format!(".tile[data-feed={feed}][data-paths=\"{paths}\"]");
    browser.wait("expert", &tile("scope", "protected"), PATIENCE)?;
    browser.wait("expert", &tile("room", ""), PATIENCE)?;
    ways[0].cut()?;
    let lost = tile("scope", "unprotected");
    browser.wait("expert", &lost, PATIENCE)?;
    let said = browser.call("text", "expert", json!({ "selector": format!("{lost} .paths") }))?;
    ensure!(said.to_string().contains("UNPROTECTED since"), "{said}");
    browser.wait("expert", &tile("room", ""), PATIENCE)?;
    ways[0].mend()?;
    browser.wait("expert", &tile("scope", "protected"), PATIENCE)
}

#[test]
fn two_paths_of_streams_lose_nothing_when_one_is_cut() -> anyhow::Result<()> {
    if span(false, true) {
        cut_and_mend(Part::Up, "stream")?;
    }
    cut_and_mend(Part::Down, "stream")
}

#[test]
fn nothing_is_lost_with_one_path_at_ten_percent_and_one_50_ms_behind() -> anyhow::Result<()> {
    for part in [Part::Up, Part::Down] {
        if span(false, true) {
            Journey::start(part, &[&["--loss", "10%"], &[]], "datagram", 10)?.whole(10.0)?;
            Journey::start(part, &[&[], &["--delay", "50ms"]], "datagram", 10)?.whole(10.0)?;
        }
        // Both at once: the slower path brings what the quicker one lost, 50 ms later.
        Journey::start(part, &[&["--loss", "10%"], &["--delay", "50ms"]], "datagram", 10)?.whole(10.0)?;
    }
    Ok(())
}

#[test]
fn the_control_one_path_that_fails_loses() -> anyhow::Result<()> {
    for part in [Part::Up, Part::Down] {
        let mut j = Journey::start(part, &[&["--loss", "10%", "--blackout", "4s+400ms"]], "datagram", 10)?;
        let (s, same) = j.end()?;
        ensure!(number(&s, "/frames") > 60.0, "the control shows nothing: {s}");
        ensure!(same.is_err(), "one path alone lost nothing: {s}");
    }
    Ok(())
}
