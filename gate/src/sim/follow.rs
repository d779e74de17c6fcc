//! Draws a device that is another process, from what it writes down (`--record`).

use super::draw::{self, Snapshot};
use super::inputs::Inputs;
use super::{Arm, Status};
use crate::device::words::selection;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Seek as _};
use std::path::Path;
use std::time::{Duration, Instant};
use trocar_proto::handover::device_wire::{Actuated, sim};
use trocar_proto::handover::types::{BootId, Epoch, Selection};

/// Time between two pictures.
const PICTURE: Duration = Duration::from_millis(33);
/// A device that serves a gate writes every 20 ms; after this its picture is no longer how it is.
const SILENCE: Duration = Duration::from_secs(1);
/// A line that is longer is no record's.
const LONGEST: u64 = 64 * 1024;

/// Draws until `q`, Ctrl-C or a signal.
///
/// # Errors
/// Where the record cannot be read, or there is no terminal.
pub fn follow(record: &Path) -> io::Result<()> {
    let mut reader = Reader::open(record)?;
    if !io::stdout().is_terminal() {
        return Err(io::Error::other("drawing needs a terminal"));
    }
    let inputs = Inputs::default();
    inputs.listen_to_signals()?;
    let mut terminal = ratatui::try_init()?;
    let result = (|| {
        while !inputs.stops() {
            reader.read()?;
            let quiet = reader.heard.elapsed() > SILENCE;
            let foot = format!(
                "{}{}   q quit",
                record.display(),
                if quiet { "   NOTHING NEW: not how it is now" } else { "" }
            );
            terminal.draw(|frame| draw::draw(frame, &foot, &reader.snapshot))?;
            if event::poll(PICTURE)?
                && let Event::Key(key) = event::read()?
                && (key.code == KeyCode::Char('q')
                    || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))
            {
                inputs.stop();
            }
        }
        Ok(())
    })();
    ratatui::restore();
    result
}

/// The record as it grows, and what it says of now.
struct Reader {
    file: BufReader<File>,
    part: Vec<u8>,
    snapshot: Snapshot,
    heard: Instant,
}

/// A line `change`, as far as it is drawn.
#[derive(Deserialize)]
struct Change {
    selected: String,
    latched: bool,
    overridden: bool,
    energy: bool,
    held: bool,
    highest: u64,
    owner: Option<String>,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        let status = Status {
            selected: Selection::Nobody,
            latched: true,
            overridden: false,
            energy: false,
            held: true,
            highest: Epoch(0),
            owner: None,
        };
        let snapshot = Snapshot { status, arm: Arm::default(), actuated: None, refusals: 0, lost: 0 };
        let file = BufReader::new(File::open(path)?);
        Ok(Self { file, part: Vec::new(), snapshot, heard: Instant::now() })
    }

    /// Everything that is new. A record that was begun anew is read from its beginning.
    fn read(&mut self) -> io::Result<()> {
        if self.file.get_ref().metadata()?.len() < self.file.stream_position()? {
            self.file.rewind()?;
            self.part.clear();
        }
        while self.file.by_ref().take(LONGEST).read_until(b'\n', &mut self.part)? > 0 {
            if self.part.ends_with(b"\n") || self.part.len() as u64 >= LONGEST {
                if let Ok(line) = serde_json::from_slice(&self.part) {
                    self.take(&line);
                }
                self.part.clear();
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &Value) {
        self.heard = Instant::now();
        let Snapshot { status, arm, actuated, refusals, lost } = &mut self.snapshot;
        let taken = line["verdict"] == "taken";
        match line["event"].as_str() {
            Some("started") => (*refusals, *lost, *actuated) = (0, 0, None),
            Some("change") => *status = Change::deserialize(line).ok().and_then(Change::status).unwrap_or(*status),
            Some("act") if line["act"] == "command" && taken => {
                let number = |key: &str| line[key].as_u64().unwrap_or(0);
                *actuated = Some(Actuated { fence: Epoch(number("fence")), sequence: number("sequence") });
                if let Some(grip) = line.pointer("/motion/grip").and_then(serde_json::Value::as_f64) {
                    arm.grip = (grip.clamp(0.0, 1.0) * f64::from(sim::CLOSED)) as u16;
                }
            }
            Some("act") if !taken => *refusals = refusals.saturating_add(1),
            Some("datagram") => *refusals = refusals.saturating_add(1),
            Some("lost") => *lost += line["lines"].as_u64().unwrap_or(0),
            _ => {}
        }
        if let Ok(axes) = Deserialize::deserialize(&line["position"]) {
            arm.axes = axes;
        }
        if let Ok(camera) = Deserialize::deserialize(&line["camera"]) {
            arm.camera = camera;
        }
    }
}

impl Change {
    fn status(self) -> Option<Status> {
        let all = [Selection::Nobody, Selection::Local, Selection::Remote];
        let owner = self.owner.as_deref().map(|hex| u128::from_str_radix(hex, 16).map(BootId)).transpose().ok()?;
        Some(Status {
            selected: all.into_iter().find(|each| selection(*each) == self.selected)?,
            latched: self.latched,
            overridden: self.overridden,
            energy: self.energy,
            held: self.held,
            highest: Epoch(self.highest),
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_record_is_followed_as_it_grows_and_when_it_is_begun_anew() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut reader = Reader::open(file.path()).unwrap();
        let change = r#"{"at":1,"event":"change","why":"select","selected":"remote","latched":false,"overridden":false,"energy":false,"held":false,"highest":7,"owner":"00ff00000000000000000000000000aa"}"#;
        let act = r#"{"at":2,"event":"act","from":"1","n":3,"act":"command","fence":7,"sequence":3,"verdict":"taken","position":[100,0,-50,0,0,0],"camera":[0,0,0]}"#;
        write!(file, "{change}\n{act}").unwrap();
        reader.read().unwrap();
        assert_eq!(reader.snapshot.status.selected, Selection::Remote);
        assert_eq!(reader.snapshot.status.highest, Epoch(7));
        assert_eq!(reader.snapshot.arm.axes, [0; 6], "the line is not whole");
        writeln!(file, "\n{{\"event\":\"datagram\",\"refused\":\"tag\"}}\nno JSON").unwrap();
        reader.read().unwrap();
        assert_eq!(reader.snapshot.arm.axes, [100, 0, -50, 0, 0, 0]);
        assert_eq!(reader.snapshot.actuated, Some(Actuated { fence: Epoch(7), sequence: 3 }));
        assert_eq!(reader.snapshot.refusals, 1);

        file.as_file().set_len(0).unwrap();
        file.rewind().unwrap();
        writeln!(file, r#"{{"at":9,"event":"local","position":[5,0,0,0,0,0]}}"#).unwrap();
        reader.read().unwrap();
        assert_eq!(reader.snapshot.arm.axes, [5, 0, 0, 0, 0, 0]);
    }
}
