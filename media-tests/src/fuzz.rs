//! Fuzzing on a stable compiler: the targets of `fuzz/`, driven by mutations of their kept corpora from a seeded generator. libFuzzer
//! drives the same functions where a nightly compiler is at hand, and finds more, since it sees which branches were taken.

mod mutate;
mod seeds;

#[allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a target stops where something is wrong: that is how it tells"
)]
#[path = "../../fuzz/src/all.rs"]
mod targets;

use anyhow::{Context as _, bail, ensure};
use mutate::Dice;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One input takes no longer than this.
const SLOWEST: Duration = Duration::from_millis(250);

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Longest input, in bytes.
    pub max_len: usize,
    /// The function.
    pub run: fn(&[u8]),
}

/// All of them.
pub const ALL: &[Target] = &[
    Target { name: "rtp", max_len: 2_048, run: targets::media::rtp },
    Target { name: "rtcp", max_len: 2_048, run: targets::media::rtcp },
    Target { name: "extensions", max_len: 2_048, run: targets::media::extensions },
    Target { name: "headers", max_len: 4_096, run: targets::media::headers },
    Target { name: "relay", max_len: 4_096, run: targets::media::relay },
    Target { name: "roq", max_len: 8_192, run: targets::media::roq },
    Target { name: "codec", max_len: 4_096, run: targets::codec },
    Target { name: "gate", max_len: 4_096, run: targets::gate },
    Target { name: "sdp", max_len: 70_000, run: targets::doors::sdp },
    Target { name: "token", max_len: 8_192, run: targets::doors::token },
    Target { name: "json", max_len: 16_384, run: targets::doors::json },
];

/// What came of a run.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Inputs.
    pub inputs: u64,
    /// The slowest one.
    pub slowest: Duration,
}

/// Where a target's inputs are kept.
#[must_use]
pub fn corpus_of(name: &str) -> PathBuf {
    crate::workspace().join("fuzz/corpus").join(name)
}

fn corpus(name: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let dir = corpus_of(name);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir)
        .with_context(|| dir.display().to_string())?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    // In one order everywhere: the seed then says all.
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).with_context(|| p.display().to_string())).collect()
}

/// Every kept input once; how many there are.
///
/// # Errors
/// Where the corpus is not there, or an input stops the target or takes too long.
pub fn replay(target: &Target) -> anyhow::Result<usize> {
    let all = corpus(target.name)?;
    for input in &all {
        try_one(target, input)?;
    }
    Ok(all.len())
}

/// Mutates the corpus for so long. An input that stops the target is kept in the corpus and named.
///
/// # Errors
/// As [`replay`].
pub fn run(target: &Target, time: Duration, seed: u64) -> anyhow::Result<Ran> {
    let corpus = corpus(target.name)?;
    ensure!(!corpus.is_empty(), "{} has no corpus", target.name);
    let mut dice = Dice::new(seed);
    let until = Instant::now() + time;
    let mut ran = Ran { inputs: 0, slowest: Duration::ZERO };
    while Instant::now() < until {
        let input = mutate::mutated(&mut dice, &corpus, target.max_len);
        match try_one(target, &input) {
            Ok(took) => ran = Ran { inputs: ran.inputs + 1, slowest: ran.slowest.max(took) },
            Err(error) => {
                let path = keep(target.name, &input)?;
                bail!("{}: input {} of seed {seed}: {error:#}; kept as {}", target.name, ran.inputs, path.display());
            }
        }
    }
    Ok(ran)
}

fn try_one(target: &Target, input: &[u8]) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let run = target.run;
    if catch_unwind(|| run(input)).is_err() {
        bail!("{} stopped at {} bytes", target.name, input.len());
    }
    let took = began.elapsed();
    ensure!(took < SLOWEST, "{}: {} bytes took {took:?}", target.name, input.len());
    Ok(took)
}

fn keep(name: &str, input: &[u8]) -> anyhow::Result<PathBuf> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, input);
    let path = corpus_of(name).join(hex::encode(hash.as_ref()));
    std::fs::write(&path, input)?;
    Ok(path)
}

/// Writes the inputs that every corpus begins with; those that are there stay.
///
/// # Errors
/// Where a file cannot be written.
pub fn write_seeds() -> anyhow::Result<usize> {
    let all = seeds::all(&crate::workspace().join("relay/src/webrtc/sdp/offers"))?;
    for (name, input) in &all {
        std::fs::create_dir_all(corpus_of(name))?;
        keep(name, input)?;
    }
    Ok(all.len())
}

/// Whether libFuzzer has a way in to that target.
#[must_use]
pub fn has_way_in(name: &str) -> bool {
    Path::new(&crate::workspace().join("fuzz/fuzz_targets").join(format!("{name}.rs"))).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kept_input_of_every_target_passes() {
        for target in ALL {
            let count = replay(target).unwrap();
            assert!(count >= 8, "{} holds {count} inputs", target.name);
            assert!(has_way_in(target.name), "{} is not driven by libFuzzer", target.name);
        }
        // The control: a target that is stopped by what the corpus of another holds.
        let picky = Target { run: |data| assert!(data.is_empty()), ..ALL[0] };
        assert!(replay(&picky).is_err());
    }

    #[test]
    fn a_moment_of_mutations_finds_nothing_and_a_fault_is_found() {
        for (n, target) in ALL.iter().enumerate() {
            run(target, Duration::from_millis(300), n as u64).unwrap();
        }
        // The control: a fault behind two bytes that no kept input has there.
        let corpus = corpus("rtp").unwrap();
        let mut dice = Dice::new(1);
        let found = (0..500_000).any(|_| mutate::mutated(&mut dice, &corpus, 64).starts_with(&[0xff, 0x7f]));
        assert!(found, "mutations do not get anywhere");
    }
}
