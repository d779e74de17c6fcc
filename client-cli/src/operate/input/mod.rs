//! Where hands and feet come from. Presence is a dead-man input: what is not held is released, and an input that is gone lets
//! everything go.

mod controls;
mod layout;
pub(super) mod lines;
mod pad;
mod script;
mod source;
pub(super) mod trajectory;

use super::acts::{Act, Hands};
use super::inbox::Inbox;
use super::now;
use anyhow::Context as _;
use controls::Controls;
use layout::Layout;
pub(crate) use layout::Setting;
pub(super) use script::Happenings;
use script::Script;
use source::{Look, Source};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;
use trocar_proto::units::Micros;

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
#[allow(clippy::large_enum_variant, reason = "one or two at a time, and a box would be one more thing to read past")]
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
    pub(super) fn read(&self, gamepad: &[Setting]) -> anyhow::Result<Ready> {
        match self {
            Self::Gamepad(path) => {
                let layout = Layout::gamepad().with(gamepad).context("--gamepad")?;
                Controls::open(path, layout).map(Ready::Controls).context("--input gamepad")
            }
            Self::Pedal(path) => Controls::open(path, Layout::pedal()).map(Ready::Controls).context("--input pedal"),
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
            Self::Stdin => {
                // Without the buffer of `std::io::stdin`, which would hide what waits.
                let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("--input stdin")?;
                spawn("trocar-stdin", Box::new(move || read_lines(File::from(stdin), &inbox)))
            }
            Self::Script(script) => spawn("trocar-script", Box::new(move || script.run(&inbox, &happened))),
        }
    }
}

/// Reads lines until the end. Each is no older than the last moment at which none waited.
fn read_lines(file: impl Read + AsFd, inbox: &Inbox) {
    let mut source = Source::new(file);
    let (mut bytes, mut line) = ([0; 4_096], Vec::new());
    let mut at = now();
    loop {
        let n = match source.look(&mut bytes) {
            Ok(Look::Nothing(_)) => continue,
            Ok(Look::Bytes(n @ 1.., after)) => {
                at = after;
                n
            }
            Ok(Look::Bytes(..)) | Err(_) => break,
        };
        for byte in bytes.get(..n).unwrap_or_default() {
            line.push(*byte);
            if *byte == b'\n' || line.len() >= MAX_LINE {
                do_line(&line, at, inbox);
                line.clear();
            }
        }
    }
    do_line(&line, at, inbox);
    inbox.act(now(), Act::Hands(Hands::released()));
}

fn do_line(line: &[u8], at: Micros, inbox: &Inbox) {
    let text = String::from_utf8_lossy(line);
    if text.trim().is_empty() {
        return;
    }
    match lines::parse(&text) {
        Ok(acts) => acts.into_iter().for_each(|act| {
            inbox.act(at, act);
        }),
        Err(error) => {
            // A hand that cannot be read holds nothing.
            inbox.act(at, Act::Hands(Hands::released()));
            tracing::error!(error = format!("{error:#}"), "--input stdin: everything is let go");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use trocar_proto::handover::device_wire::sim;
    use trocar_proto::handover::message::Payload;

    fn sim_zero() -> Payload {
        Payload::new(sim::Motion::default().encode()).unwrap()
    }

    #[test]
    fn inputs_are_named_by_kind_and_path() {
        let parse = |s: &str| s.parse::<InputSpec>();
        assert_eq!(parse("stdin"), Ok(InputSpec::Stdin));
        assert_eq!(parse("gamepad:/dev/input/event3"), Ok(InputSpec::Gamepad("/dev/input/event3".into())));
        assert_eq!(parse("script:x.jsonl"), Ok(InputSpec::Script("x.jsonl".into())));
        for bad in ["", "gamepad", "gamepad:event3", "script:", "keyboard", "stdin:"] {
            assert_eq!(parse(bad), Err(InvalidInput), "{bad}");
        }
        let missing = InputSpec::Script("/nowhere/s".into()).read(&[]).unwrap_err();
        assert!(format!("{missing:#}").contains("--input script:/nowhere/s"), "{missing:#}");
    }

    #[test]
    fn a_line_that_waited_is_as_old_as_its_wait_and_the_end_lets_everything_go() {
        // HO-T-012, HO-T-013
        let (inbox, lanes) = Inbox::new();
        do_line(b"{\"presence\":true,\"clutch\":\"closed\",\"motion\":{}}\n", Micros(7), &inbox);
        let taken = lanes.take(std::time::Duration::ZERO);
        assert_eq!(taken.motions, [(Micros(7), sim_zero())]);
        assert_eq!(taken.hands.map(|h| h.at), Some(Micros(7)));
        // Cut anywhere, the lines are the same; what cannot be read lets everything go.
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"{\"do\":\"accept\"}\n\n{\"presence\":true}\nrubbish\n{\"do\":\"return\"}").unwrap();
        drop(writer);
        read_lines(reader, &inbox);
        let taken = lanes.take(std::time::Duration::ZERO);
        assert!(matches!(taken.acts.front(), Some((_, Act::Accept))) && taken.give_back);
        let felt = taken.hands.unwrap();
        assert_eq!((felt.latest, felt.let_go), (Hands::released(), Hands::released()));
    }
}
