//! `make bench`: what the relay costs. One row for now: CPU per packet that leaves it, one 4K feed of 50 Mbit/s to 1 and
//! to 16 WebRTC viewers. The floor beside it and the targets come with the media path.

use anyhow::{Context, ensure};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use trocar_media_tests::sink::{Counts, Viewer};
use trocar_media_tests::stack::{Stack, path, scope_fixture};

/// How long each row is measured.
const SECONDS: u64 = 15;

struct Row {
    viewers: usize,
    ns_per_packet: f64,
    cpu_share: f64,
    gbit_out: f64,
    packets_out: u64,
    lost: u64,
    delay_p50_us: f64,
    delay_p99_us: f64,
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut rows = Vec::new();
        for viewers in [1, 16] {
            rows.push(measure(viewers).await?);
        }
        Ok::<_, anyhow::Error>(rows)
    })?;
    let table = render(&rows)?;
    println!("{table}");
    let file = trocar_media_tests::workspace().join("media-tests/bench/RESULTS.md");
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&file, table).with_context(|| file.display().to_string())
}

/// CPU time of a process so far, user and system, the kernel's half of its sends included.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields after the name in parentheses; utime and stime are the 12th and 13th of them, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let tick = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).context("/proc/PID/stat");
    Ok(Duration::from_millis(10 * (tick(11)? + tick(12)?)))
}

fn sum(counts: &[Arc<Counts>], of: impl Fn(&Counts) -> u64) -> u64 {
    counts.iter().map(|c| of(c)).sum()
}

async fn measure(viewers: usize) -> anyhow::Result<Row> {
    let stack = Stack::start()?;
    let source = format!("file:{}", path(&scope_fixture()?)?);
    let _publisher = stack.publish(&["--source", &source, "--loop", "--passthrough"])?;
    let viewer = Viewer::join(&stack.text("/page")?, &stack.text("/tokens/observer")?).await?;
    let mut counts = Vec::new();
    for _ in 0..viewers {
        counts.push(viewer.fetch("scope").await?.0);
    }
    // Each viewer starts at a key frame, at most a second away.
    let deadline = Instant::now() + Duration::from_secs(5);
    while counts.iter().any(|c| c.packets.load(Ordering::Relaxed) < 1_000) {
        ensure!(Instant::now() < deadline, "a viewer got no packets");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let packets = |c: &Counts| c.packets.load(Ordering::Relaxed);
    let bytes = |c: &Counts| c.bytes.load(Ordering::Relaxed);
    let before = (Instant::now(), cpu(stack.up.id())?, sum(&counts, packets), sum(&counts, bytes));
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    let after = (Instant::now(), cpu(stack.up.id())?, sum(&counts, packets), sum(&counts, bytes));
    let wall = (after.0 - before.0).as_secs_f64();
    let spent = (after.1 - before.1).as_secs_f64();
    let out = after.2 - before.2;
    let refused = sum(&counts, |c| c.refused.load(Ordering::Relaxed));
    ensure!(refused == 0, "{refused} packets did not authenticate");
    ensure!(out > 1_000 * SECONDS * viewers as u64, "{out} packets in {wall} s");
    let gbit_out = (after.3 - before.3) as f64 * 8.0 / 1e9;
    Ok(Row {
        viewers,
        ns_per_packet: spent * 1e9 / out as f64,
        cpu_share: spent / wall,
        gbit_out: gbit_out / wall,
        packets_out: out,
        lost: sum(&counts, |c| c.gaps.load(Ordering::Relaxed)),
        delay_p50_us: delay(&stack, 0.5).await?,
        delay_p99_us: delay(&stack, 0.99).await?,
    })
}

/// Upper bound of the bucket of the relay's own delay histogram that holds the quantile, in microseconds.
async fn delay(stack: &Stack, quantile: f64) -> anyhow::Result<f64> {
    let text = trocar_media_tests::http_client()?.get(stack.text("/metrics")?).send().await?.text().await?;
    let mut buckets: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|l| {
            let rest = l.strip_prefix("trocar_feed_relay_delay_seconds_bucket{le=\"")?;
            let (bound, _) = rest.split_once('"')?;
            Some((bound.parse().unwrap_or(f64::INFINITY), rest.rsplit(' ').next()?.parse().ok()?))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let all = buckets.last().context("no delay histogram")?.1;
    let found = buckets.iter().find(|(_, n)| *n >= quantile * all).context("no bucket")?;
    Ok(found.0 * 1e6)
}

fn render(rows: &[Row]) -> anyhow::Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let cores = std::thread::available_parallelism()?;
    let commit = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output()?;
    let model = std::fs::read_to_string("/proc/cpuinfo")?;
    let model =
        model.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("").trim_start_matches([' ', '\t', ':']);
    let mut out = String::new();
    writeln!(out, "# What the relay costs\n")?;
    writeln!(
        out,
        "Printed by `make bench`. Machine: {cores} cores, {model}; load average {}; commit {}.",
        load.trim(),
        String::from_utf8_lossy(&commit.stdout).trim()
    )?;
    writeln!(
        out,
        "The build is the one of tests and demo (optimised, with debug and overflow assertions). CPU is the whole"
    )?;
    writeln!(
        out,
        "process's, kernel included; on loopback that has the receivers' half of the kernel's work in it. Generator and"
    )?;
    writeln!(out, "viewers are other processes. Delay is the relay's own histogram: the bucket's upper bound.\n")?;
    writeln!(
        out,
        "| what | viewers | CPU ns per output packet | Gbit/s out | Gbit/s per core | packets | lost | delay p50 ≤ | p99 ≤ |"
    )?;
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for r in rows {
        writeln!(
            out,
            "| 2160p60 H.264 50 Mbit/s, RoQ in, SRTP AES-256-GCM out | {} | {:.0} | {:.3} | {:.2} | {} | {} | {:.0} µs | {:.0} µs |",
            r.viewers,
            r.ns_per_packet,
            r.gbit_out,
            r.gbit_out / r.cpu_share,
            r.packets_out,
            r.lost,
            r.delay_p50_us,
            r.delay_p99_us
        )?;
    }
    Ok(out)
}
