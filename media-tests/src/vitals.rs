//! What a process holds of the machine, read from `/proc`.

use crate::process::Process;
use anyhow::Context as _;

/// What a process holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// Memory that is its own and no file's, in RAM or swapped out, in KiB: `RssAnon` and `VmSwap` of proc_pid_status(5). Pages of the
    /// program itself, which come in as they are first run, are not in it.
    pub memory_kib: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Vitals {
    /// Those of a running process.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn of(process: &Process) -> anyhow::Result<Self> {
        let status = status(process)?;
        let open = std::fs::read_dir(format!("/proc/{}/fd", process.id())).context("its descriptors cannot be read")?;
        Ok(Self {
            memory_kib: figure(&status, "RssAnon:")? + figure(&status, "VmSwap:")?,
            descriptors: open.count() as u64,
            threads: figure(&status, "Threads:")?,
        })
    }
}

/// Resident memory of a process in KiB, with what it has mapped of files.
///
/// # Errors
/// Where it has ended.
pub fn resident_kib(process: &Process) -> anyhow::Result<u64> {
    figure(&status(process)?, "VmRSS:")
}

fn status(process: &Process) -> anyhow::Result<String> {
    std::fs::read_to_string(format!("/proc/{}/status", process.id())).context("the process has ended")
}

/// A process that has ended and was not waited for has no such lines.
fn figure(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix(name)).context("the process has ended")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn figures_are_read_as_the_kernel_writes_them_and_a_process_that_ended_has_none() {
        let text = "State:\tS (sleeping)\nVmRSS:\t   12345 kB\nRssAnon:\t     678 kB\nThreads:\t13\n";
        let read = |name| figure(text, name).ok();
        assert_eq!((read("VmRSS:"), read("RssAnon:"), read("Threads:")), (Some(12_345), Some(678), Some(13)));
        assert_eq!(read("VmSwap:"), None);
        let patience = std::time::Duration::from_secs(10);
        // Whatever this process was started with goes on to both; the second one has one file more.
        let running = |words: &str| {
            let mut cat = Process::start("cat", Command::new("sh").args(["-c", words]).stdin(Stdio::piped())).unwrap();
            let mut stdin = cat.stdin().unwrap();
            // What answers has opened what it needs.
            stdin.write_all(b"here\n").unwrap();
            cat.line(patience, |l| l == "here").unwrap();
            (cat, stdin)
        };
        let ((mut cat, stdin), (more, _stdin)) = (running("exec cat"), running("exec 8</dev/null; exec cat"));
        let (vitals, with_one_more) = (Vitals::of(&cat).unwrap(), Vitals::of(&more).unwrap());
        assert!(vitals.descriptors >= 3, "{vitals:?}");
        assert_eq!((with_one_more.descriptors - vitals.descriptors, vitals.threads), (1, 1));
        assert!(resident_kib(&cat).unwrap() >= vitals.memory_kib);
        drop(stdin);
        cat.wait(patience).unwrap();
        assert!(Vitals::of(&cat).is_err());
    }
}
