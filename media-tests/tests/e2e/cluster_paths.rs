//! Two paths between relays: a feed at two homes that a third relay fetches from both.

use crate::cluster::{figure, publish, until};
use crate::lines::times;
use crate::native::ledger;
use crate::{number, runtime};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use trocar_media_tests::cluster::Cluster;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{PATIENCE, path, summary};

/// How soon everybody knows that a path is gone.
const ALARM: Duration = Duration::from_secs(1);
/// Pictures after the failure that the viewer is to have before it is asked what is missing: four seconds of them.
const ON: f64 = 120.0;
/// Pictures at the end that may be under way still: half a second.
const UNDER_WAY: usize = 15;

/// A protected feed at one home or two, and a native viewer at relay b, which is home of nothing.
struct Scene {
    cluster: Cluster,
    publisher: Process,
    viewer: Process,
    sent: PathBuf,
    came: PathBuf,
}

impl Scene {
    /// Relay b comes to each home through a line of its own; the publisher does not.
    fn start(homes: &[&str]) -> anyhow::Result<Self> {
        const FEEDS: &[&str] = &["feeds"];
        let relays: Vec<(&str, &[&str])> = homes.iter().map(|h| (*h, FEEDS)).chain([("b", &["legs"] as _)]).collect();
        let mut cluster = Cluster::start_behind(&relays, homes)?;
        let (sent, came) = (cluster.stack.dir.path().join("sent.jsonl"), cluster.stack.dir.path().join("came.jsonl"));
        let at = |home: &str, local: &str, c: &mut Cluster| {
            Ok::<_, anyhow::Error>(format!("{local}={}", c.relay(home)?.quic()?))
        };
        let (first, last) = homes.first().zip(homes.last()).context("no home")?;
        let paths = [at(first, "127.0.0.1", &mut cluster)?, at(last, "127.0.0.2", &mut cluster)?];
        let arguments = ["--path", &paths[0], "--path", &paths[1], "--bitrate", "8", "--ledger", path(&sent)?];
        let publisher = publish(&cluster, &arguments)?;
        let mut viewer = cluster.stack.watch(&["--ledger", path(&came)?])?;
        viewer.line(PATIENCE, |l| shown(l) > 60.0)?;
        until(&cluster.stack, "trocar_feed_paths_alive", "relay=\"b\"", homes.len() as f64)?;
        Ok(Self { cluster, publisher, viewer, sent, came })
    }

    /// Something was just done to the paths: that everybody was told in time.
    fn told(&mut self, since: Instant) -> anyhow::Result<()> {
        self.publisher.line(PATIENCE, |l| l.starts_with("scope: UNPROTECTED since "))?;
        let alarm = since.elapsed();
        println!("everybody knows after {alarm:?} that there is one path left");
        ensure!(alarm < ALARM, "{alarm:?}");
        until(&self.cluster.stack, "trocar_feed_paths_alive", "relay=\"b\"", 1.0).map(drop)
    }

    /// Waits for as many more pictures as `ON` says.
    fn goes_on(&mut self) -> anyhow::Result<()> {
        let mut first = None;
        let enough = |l: &str| shown(l).is_finite() && shown(l) > *first.get_or_insert(shown(l)) + ON;
        self.viewer.line(PATIENCE, enough).map(drop)
    }

    /// The pictures that were sent and did not come, from the first one that did to what was under way at the end.
    fn lost(&mut self) -> anyhow::Result<usize> {
        self.publisher.stop()?;
        self.viewer.signal("TERM")?;
        println!("{}", summary(&mut self.viewer, PATIENCE)?);
        self.viewer.wait(PATIENCE)?;
        let (sent, came) = (ledger(&self.sent)?, ledger(&self.came)?);
        let first = *came.keys().next().context("no picture came")?;
        let due: Vec<_> = sent.range(first..).collect();
        let due = due.get(..due.len().saturating_sub(UNDER_WAY)).unwrap_or_default();
        let lost = due.iter().filter(|(frame, sum)| came.get(frame) != Some(sum)).count();
        println!("{lost} of {} pictures are missing", due.len());
        Ok(lost)
    }
}

/// How many pictures of a viewer's ledger could be shown after that moment.
fn came_after(came: &Path, us: u64) -> anyhow::Result<usize> {
    Ok(times(came)?.into_iter().filter(|at| *at > us).count())
}

fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64)
}

/// How many pictures a line of the viewer says that it had; not a number where it says nothing of it.
fn shown(line: &str) -> f64 {
    serde_json::from_str::<Value>(line).map_or(f64::NAN, |v| number(&v, "/frames"))
}

#[test]
fn a_relay_that_fetches_from_two_homes_loses_no_frame_when_one_is_killed() -> anyhow::Result<()> {
    let mut scene = Scene::start(&["a", "a2"])?;
    scene.cluster.kill_relay("a")?;
    let killed = wall_us();
    scene.told(Instant::now())?;
    scene.goes_on()?;
    ensure!(scene.lost()? == 0);
    ensure!(came_after(&scene.came, killed + 1_000_000)? > 0);
    Ok(())
}

#[test]
fn a_relay_that_fetches_from_two_homes_loses_no_frame_when_its_way_to_one_is_cut() -> anyhow::Result<()> {
    let mut scene = Scene::start(&["a", "a2"])?;
    scene.cluster.relay("a")?.line.as_ref().context("no line")?.cut(true);
    scene.told(Instant::now())?;
    // The homes themselves miss nothing: it is the line between relays that is seen.
    for home in ["a", "a2"] {
        let label = format!("relay=\"{home}\"");
        let alive = runtime().block_on(figure(&scene.cluster.stack, "trocar_feed_paths_alive", &label))?;
        ensure!(alive == Some(1.0), "{home}: {alive:?}");
    }
    scene.goes_on()?;
    scene.cluster.relay("a")?.line.as_ref().context("no line")?.cut(false);
    scene.publisher.line(PATIENCE, |l| l.starts_with("scope: protected: 2 paths since "))?;
    ensure!(scene.lost()? == 0);
    Ok(())
}

#[test]
fn the_control_a_relay_that_fetches_from_one_home_loses_frames_with_it_or_with_the_way_to_it() -> anyhow::Result<()> {
    let mut scene = Scene::start(&["a"])?;
    let line = scene.cluster.relay("a")?.line.as_ref().context("no line")?;
    line.cut(true);
    std::thread::sleep(ALARM);
    line.cut(false);
    scene.goes_on()?;
    ensure!(scene.lost()? > 0, "a way that was cut for a second cost nothing");
    // Its publisher has nobody to send to any more: what is missing is all that would have come.
    let mut scene = Scene::start(&["a"])?;
    scene.cluster.kill_relay("a")?;
    let killed = wall_us();
    std::thread::sleep(2 * ALARM);
    scene.viewer.signal("TERM")?;
    scene.viewer.wait(PATIENCE)?;
    ensure!(came_after(&scene.came, killed + 1_000_000)? == 0, "the only home was killed and pictures come");
    Ok(())
}
