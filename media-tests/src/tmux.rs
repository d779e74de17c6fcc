//! A program on a terminal that nobody sits at: a tmux server of its own holds it, its screen is read as text, its window can change
//! size, keys can be pressed.

use crate::process::Process;
use crate::stack::{PATIENCE, path};
use anyhow::{Context as _, bail, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How often a screen is looked at: tmux has no event for what stands on it.
const LOOK: Duration = Duration::from_millis(50);
/// The whole window is the program's, and the screen of one that has ended stays to be read: as it was, where no line is put under it.
const CONFIGURATION: &str = "set -g status off\nset -g remain-on-exit on\nset -g remain-on-exit-format ''\n\
                             set -g default-terminal screen-256color\n";

/// A terminal with a program on it. Both end with their owner.
pub struct Tmux {
    dir: TempDir,
    /// The server, a child as others: whoever ends this process's group ends it too.
    server: Process,
}

impl Tmux {
    /// Runs `command` on a terminal of so many columns and rows; arguments and environment of it count, nothing else.
    ///
    /// # Errors
    /// Where tmux is missing or cannot start the program.
    pub fn start((columns, rows): (u16, u16), command: &Command) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let configuration = dir.path().join("tmux.conf");
        std::fs::write(&configuration, CONFIGURATION)?;
        let socket = dir.path().join("socket");
        let mut server = Command::new("tmux");
        server.args(["-u", "-D", "-f", path(&configuration)?, "-S", path(&socket)?]).env_remove("TMUX");
        let server =
            Process::start("tmux", &mut server).context("tmux is Debian's package of that name: run `make setup`")?;
        let tmux = Self { dir, server };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut words = ["new-session", "-d", "-x", &columns, "-y", &rows, "env"].map(str::to_owned).to_vec();
        let word = |w: &OsStr| w.to_string_lossy().into_owned();
        // What is taken out of the environment comes before what is put into it.
        let (set, unset): (Vec<_>, Vec<_>) = command.get_envs().partition(|(_, value)| value.is_some());
        words.extend(unset.into_iter().flat_map(|(name, _)| ["-u".to_owned(), word(name)]));
        words.extend(set.into_iter().filter_map(|(name, value)| Some(format!("{}={}", word(name), word(value?)))));
        words.extend([command.get_program()].into_iter().chain(command.get_args()).map(word));
        let began = Instant::now();
        loop {
            match tmux.say(&words) {
                Ok(_) => return Ok(tmux),
                // The server has not opened its socket yet.
                Err(error) => ensure!(began.elapsed() < PATIENCE, "{error:#}"),
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Says something to the server; its answer.
    fn say<S: AsRef<OsStr>>(&self, words: &[S]) -> anyhow::Result<String> {
        let mut client = Command::new("tmux");
        // A client that finds no server starts none of its own.
        client.args(["-u", "-N", "-S"]).arg(self.dir.path().join("socket")).args(words).env_remove("TMUX");
        let out = client.output().context("tmux is Debian's package of that name: run `make setup`")?;
        ensure!(out.status.success(), "tmux: {}", String::from_utf8_lossy(&out.stderr).trim());
        Ok(String::from_utf8(out.stdout)?)
    }

    /// What stands on the screen now, a line for each row, blanks at their ends left out.
    ///
    /// # Errors
    /// Where tmux does not answer.
    pub fn screen(&self) -> anyhow::Result<String> {
        self.say(&["capture-pane", "-p"])
    }

    /// The screen once `wanted` takes it.
    ///
    /// # Errors
    /// Where it does not within `patience`, or the program ends without; with the last screen.
    pub fn until(&self, patience: Duration, mut wanted: impl FnMut(&str) -> bool) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            // In this order: what a program wrote last is seen before its end is.
            let ended = self.exit_code()?;
            let screen = self.screen()?;
            if wanted(&screen) {
                return Ok(screen);
            }
            if let Some(code) = ended {
                bail!("ended with {code} and never showed that:\n{screen}");
            }
            ensure!(began.elapsed() < patience, "not shown within {patience:?}:\n{screen}");
            std::thread::sleep(LOOK);
        }
    }

    /// The program's exit code, once it has ended (128 and the signal where one ended it); none while it runs.
    ///
    /// # Errors
    /// Where tmux does not answer.
    pub fn exit_code(&self) -> anyhow::Result<Option<i32>> {
        let said = self.say(&["display-message", "-p", "#{pane_dead} #{pane_dead_status} #{pane_dead_signal}"])?;
        let words: Vec<&str> = said.trim_end_matches('\n').split(' ').collect();
        match words.as_slice() {
            // The terminal is closed, and the program may be a zombie whose SIGCHLD tmux has missed (one in sixty): it looks again at the next.
            ["1", "", ""] => self.server.signal("CHLD").map(|()| None),
            ["1", "", signal] => Ok(Some(128 + signal.parse::<i32>()?)),
            ["1", code, ..] => Ok(Some(code.parse()?)),
            _ => Ok(None),
        }
    }

    /// Waits for the program's end; its exit code.
    ///
    /// # Errors
    /// Where it does not end within `patience`; with the last screen.
    pub fn end(&self, patience: Duration) -> anyhow::Result<i32> {
        let began = Instant::now();
        loop {
            if let Some(code) = self.exit_code()? {
                return Ok(code);
            }
            ensure!(began.elapsed() < patience, "did not end within {patience:?}:\n{}", self.screen()?);
            std::thread::sleep(LOOK);
        }
    }

    /// Presses keys, by tmux's names: `q`, `Enter`, `C-c`, `Down`.
    ///
    /// # Errors
    /// Where tmux does not take them.
    pub fn press(&self, keys: &[&str]) -> anyhow::Result<()> {
        self.say(&[&["send-keys"][..], keys].concat()).map(drop)
    }

    /// Gives the window so many columns and rows, as somebody does who pulls at its corner.
    ///
    /// # Errors
    /// Where tmux does not.
    pub fn resize(&self, (columns, rows): (u16, u16)) -> anyhow::Result<()> {
        self.say(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).map(drop)
    }

    /// Keeps the screen among the [artifacts](crate::artifacts) as `NAME.txt`, and with its colours as `NAME.ansi` (for `cat`).
    ///
    /// # Errors
    /// Where the files cannot be written.
    pub fn keep(&self, name: &str) -> anyhow::Result<PathBuf> {
        let file = crate::artifacts()?.join(format!("{name}.txt"));
        std::fs::write(&file, self.screen()?)?;
        std::fs::write(file.with_extension("ansi"), self.say(&["capture-pane", "-p", "-e"])?)?;
        Ok(file)
    }

    /// The folder that lives as long as the terminal, for what the program reads and writes.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Lines of a screen that are wider than its columns, or whose frame is open: a border that begins and does not end, as where
/// text ran over it. A terminal that is too narrow for what stands on it shows such.
#[must_use]
pub fn garbled(screen: &str, columns: usize) -> Vec<&str> {
    let bad = |line: &&str| {
        let bordered = line.starts_with(['│', '┌', '└']);
        line.chars().count() > columns || (bordered && !line.trim_end().ends_with(['│', '┐', '┘']))
    };
    screen.lines().filter(bad).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("GREETING", "good morning").env_remove("TMUX_PANE");
        command
    }

    #[test]
    fn a_program_is_seen_as_on_a_terminal_takes_keys_and_its_end_is_told() -> anyhow::Result<()> {
        let script = "stty size; echo \"$GREETING $TMUX_PANE.\"; read key; stty size; echo \"heard $key\"; exit 7";
        let tmux = Tmux::start((60, 20), &shell(script))?;
        let screen = tmux.until(PATIENCE, |s| s.contains("good morning ."))?;
        ensure!(screen.starts_with("20 60\n") && tmux.exit_code()?.is_none(), "{screen}");
        tmux.resize((100, 30))?;
        tmux.press(&["a", "Enter"])?;
        ensure!(tmux.end(PATIENCE)? == 7, "{}", tmux.screen()?);
        ensure!(tmux.until(PATIENCE, |s| s.contains("heard a"))?.contains("30 100"), "{}", tmux.screen()?);
        Ok(())
    }

    #[test]
    fn what_is_never_shown_is_told_at_the_programs_end_with_the_screen() -> anyhow::Result<()> {
        let tmux = Tmux::start((60, 20), &shell("echo something else; kill -TERM $$"))?;
        let error = tmux.until(PATIENCE, |s| s.contains("heard")).err().context("seen")?.to_string();
        ensure!(error.contains("ended with 143") && error.contains("something else"), "{error}");
        let missing = Tmux::start((60, 20), &Command::new("/nonexistent"))?;
        ensure!(missing.end(PATIENCE)? == 127, "{}", missing.screen()?);
        Ok(())
    }

    #[test]
    fn a_line_that_ran_over_its_frame_is_seen() {
        let right = "┌ Now ──┐\n│ all   │\n└───────┘\nno frame";
        assert!(garbled(right, 9).is_empty());
        assert_eq!(garbled("│ all of this too lo", 20), ["│ all of this too lo"]);
        assert_eq!(garbled(right, 8).len(), 3);
    }
}
