//! A child process whose lines can be waited for. It never outlives its owner.

use anyhow::{Context, bail};
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that wait to be read. Loss policy: the child waits, as on a pipe.
const LINES: usize = 65_536;

/// The binary under test, built beside this test.
///
/// # Errors
/// Where it has not been built.
pub fn trocar() -> anyhow::Result<PathBuf> {
    binary("trocar")
}

/// One of our binaries, built beside this test.
///
/// # Errors
/// Where it has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let found = me.ancestors().skip(1).map(|d| d.join(name)).find(|p| p.is_file());
    found.with_context(|| format!("no {name} beside {}: run `make build` first", me.display()))
}

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    /// The last lines of standard error, for failure messages.
    tail: Arc<Mutex<Vec<String>>>,
    /// Lines of standard error so far.
    said: Arc<AtomicU64>,
}

impl Process {
    /// Starts `command` with its output captured. `name` is for messages.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = sync_channel(LINES);
        let tail = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::new(AtomicU64::new(0));
        if let Some(out) = child.stdout.take() {
            read(out, sender, None);
        }
        if let Some(err) = child.stderr.take() {
            read(err, sync_channel(0).0, Some((Arc::clone(&tail), Arc::clone(&said))));
        }
        Ok(Self { name: name.to_owned(), child, lines, tail, said })
    }

    /// Starts `trocar` with these arguments.
    ///
    /// # Errors
    /// Where it is not built or cannot be started.
    pub fn trocar(name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start(name, Command::new(trocar()?).args(arguments))
    }

    /// The child's standard input, where it was asked for with `Stdio::piped()`.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line of standard output that `wanted` takes, others are passed over.
    ///
    /// # Errors
    /// Where none comes within `patience` or the output ends; with the tail of standard error.
    pub fn line(&mut self, patience: Duration, mut wanted: impl FnMut(&str) -> bool) -> anyhow::Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{}: no such line within {patience:?}\n{}", self.name, self.stderr())
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{}: ended without that line\n{}", self.name, self.stderr())
                }
            }
        }
    }

    /// All lines of standard output that have come and were not read.
    pub fn rest(&mut self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// The last lines of standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Lines of standard error so far.
    #[must_use]
    pub fn error_lines(&self) -> u64 {
        self.said.load(Ordering::Relaxed)
    }

    /// Sends a signal by name, e.g. `TERM`, `STOP`.
    ///
    /// # Errors
    /// Where `kill` fails.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status()?;
        if status.success() { Ok(()) } else { bail!("kill -{name} of {}: {status}", self.name) }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Where it does not end within `patience`.
    pub fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {patience:?}\n{}", self.name, self.stderr());
            }
            // A child's end is no event that std can wait for with a limit; this is a poll, not a delay.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks for an orderly end and waits for it.
    ///
    /// # Errors
    /// Where it does not end, or with another code than 0.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let status = self.wait(Duration::from_secs(10))?;
        if status.success() { Ok(()) } else { bail!("{} ended with {status}\n{}", self.name, self.stderr()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines, and how many there were.
type Errors = (Arc<Mutex<Vec<String>>>, Arc<AtomicU64>);

fn read(from: impl Read + Send + 'static, sender: SyncSender<String>, errors: Option<Errors>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let Some((tail, said)) = &errors {
                said.fetch_add(1, Ordering::Relaxed);
                let mut t = tail.lock().unwrap_or_else(PoisonError::into_inner);
                if t.len() >= 40 {
                    t.remove(0);
                }
                t.push(line);
            } else if sender.send(line).is_err() {
                return;
            }
        }
    });
}
