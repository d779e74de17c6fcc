//! Where hands and feet come from. Presence is a dead-man input: what is not held is released, and an input that is gone lets
//! everything go.

mod controls;
pub(super) mod lines;
mod script;
pub(super) mod trajectory;

use super::acts::{Act, Hands, Inbox};
use anyhow::Context as _;
use controls::Controls;
pub(super) use script::Happenings;
use script::Script;
use std::io::BufRead as _;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest line of `stdin`, in bytes; a longer one is refused.
const MAX_LINE: usize = 16 << 10;

/// What `--input` may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InputSpec {
    /// A gamepad's event device.
    Gamepad(PathBuf),
    /// A pedal's event device.
    Pedal(PathBuf),
    /// JSON lines on standard input.
    Stdin,
    /// A timed script.
    Script(PathBuf),
}

/// Why a text is no input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("gamepad:/dev/input/eventN, pedal:/dev/input/eventN, stdin or script:FILE is right")]
pub(crate) struct InvalidInput;

impl FromStr for InputSpec {
    type Err = InvalidInput;

    fn from_str(s: &str) -> Result<Self, InvalidInput> {
        match s.split_once(':') {
            None if s == "stdin" => Ok(Self::Stdin),
            Some(("gamepad", path)) if path.starts_with('/') => Ok(Self::Gamepad(path.into())),
            Some(("pedal", path)) if path.starts_with('/') => Ok(Self::Pedal(path.into())),
            Some(("script", path)) if !path.is_empty() => Ok(Self::Script(path.into())),
            _ => Err(InvalidInput),
        }
    }
}

/// An input that was looked at and can begin.
#[derive(Debug)]
pub(super) enum Ready {
    Controls(Controls),
    Stdin,
    Script(Script),
}

impl InputSpec {
    /// Reads what can be wrong before anything is connected.
    ///
    /// # Errors
    /// Names the flag and what would be right.
    pub(super) fn read(&self) -> anyhow::Result<Ready> {
        match self {
            Self::Gamepad(path) => {
                Controls::open(path, controls::GAMEPAD).map(Ready::Controls).context("--input gamepad")
            }
            Self::Pedal(path) => Controls::open(path, controls::PEDAL).map(Ready::Controls).context("--input pedal"),
            Self::Stdin => Ok(Ready::Stdin),
            Self::Script(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("--input script:{}", path.display()))?;
                Script::parse(&text).map(Ready::Script).with_context(|| format!("--input script:{}", path.display()))
            }
        }
    }
}

impl Ready {
    /// Begins, on threads of its own that end with the process.
    pub(super) fn start(self, inbox: Inbox, happened: script::Happened) -> anyhow::Result<()> {
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).context("no thread for an input")
        };
        match self {
            Self::Controls(controls) => spawn("trocar-controls", Box::new(move || controls.run(&inbox))),
            Self::Stdin => spawn("trocar-stdin", Box::new(move || read_stdin(&inbox))),
            Self::Script(script) => spawn("trocar-script", Box::new(move || script.run(&inbox, &happened))),
        }
    }
}

fn read_stdin(inbox: &Inbox) {
    let mut stdin = std::io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        match std::io::Read::take(&mut stdin, MAX_LINE as u64).read_until(b'\n', &mut line) {
            Ok(n) if n > 0 => {}
            _ => break,
        }
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        match lines::parse(&text) {
            Ok(acts) => acts.into_iter().for_each(|act| {
                inbox.act(act);
            }),
            Err(error) => {
                // A hand that cannot be read holds nothing.
                inbox.act(Act::Hands(Hands::released()));
                tracing::error!(error = format!("{error:#}"), "--input stdin: everything is let go");
            }
        }
    }
    inbox.act(Act::Hands(Hands::released()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_named_by_kind_and_path() {
        let parse = |s: &str| s.parse::<InputSpec>();
        assert_eq!(parse("stdin"), Ok(InputSpec::Stdin));
        assert_eq!(parse("gamepad:/dev/input/event3"), Ok(InputSpec::Gamepad("/dev/input/event3".into())));
        assert_eq!(parse("script:x.jsonl"), Ok(InputSpec::Script("x.jsonl".into())));
        for bad in ["", "gamepad", "gamepad:event3", "script:", "keyboard", "stdin:"] {
            assert_eq!(parse(bad), Err(InvalidInput), "{bad}");
        }
        let missing = InputSpec::Script("/nowhere/s".into()).read().unwrap_err();
        assert!(format!("{missing:#}").contains("--input script:/nowhere/s"), "{missing:#}");
    }
}
