//! Where the threads that carry media may run, as the kernel has it.

use anyhow::{Context as _, ensure};
use std::fs;
use trocar_media_tests::stack::Stack;

/// The CPUs of each thread whose name begins like that, by name, as `/proc` lists them.
fn allowed(process: u32, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let of = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned());
        let called = of("Name:").context("Name")?;
        if called.starts_with(name) {
            found.push((called, of("Cpus_allowed_list:").context("Cpus_allowed_list")?));
        }
    }
    found.sort();
    Ok(found)
}

/// The CPUs that this process may use, as numbers.
fn ours() -> anyhow::Result<Vec<usize>> {
    let (_, list) = allowed(std::process::id(), "")?.into_iter().next().context("no thread")?;
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(all)
}

#[test]
fn a_relay_that_is_told_to_pins_its_workers_and_nothing_else() -> anyhow::Result<()> {
    let cpus = ours()?;
    let last = *cpus.last().context("no CPU")?;
    let pinned = Stack::start_with(&format!("[relay]\nworkers = 1\npin = {last}\n"))?;
    let workers = allowed(pinned.up.id(), "trocar-relay-")?;
    ensure!(workers == [("trocar-relay-0".to_owned(), last.to_string())], "{workers:?}");
    let all = allowed(pinned.up.id(), "")?;
    let free = allowed(std::process::id(), "")?.into_iter().next().context("no thread")?.1;
    ensure!(all.iter().any(|(name, cpus)| !name.starts_with("trocar-relay-") && *cpus == free), "{all:?}");
    // The control: one that is not told to runs wherever there is room, which is somewhere else where there are two CPUs.
    let free_one = Stack::start_with("[relay]\nworkers = 1\n")?;
    let workers = allowed(free_one.up.id(), "trocar-relay-")?;
    ensure!(workers == [("trocar-relay-0".to_owned(), free)], "{workers:?}");
    ensure!(cpus.len() == 1 || workers[0].1 != last.to_string(), "{workers:?}");
    Ok(())
}
