//! Acts and reports as JSON: one object in one line, for programs behind `stdio` and for records.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use trocar_proto::handover::device_wire::{Actuated, Refusal, Refused, Report, State, sim};
use trocar_proto::handover::gate::{DeviceAct, DeviceReport};
use trocar_proto::handover::types::{BootId, Epoch, GrantedSet, Selection};

/// An act, as a program reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum ActWords {
    /// This gate lives.
    KeepAlive {
        /// 32 hexadecimal digits.
        boot: String,
        /// Its epoch.
        fence: u64,
    },
    /// Obey this one.
    Select {
        /// 32 hexadecimal digits.
        boot: String,
        /// `nobody`, `local` or `remote`.
        to: &'static str,
        /// The epoch.
        fence: u64,
        /// Its place.
        sequence: u64,
    },
    /// Stop remote motion, hold position.
    Hold {
        /// The epoch.
        fence: u64,
        /// Its place.
        sequence: u64,
    },
    /// Remote energy off.
    EnergyOff {
        /// The epoch.
        fence: u64,
        /// Its place.
        sequence: u64,
    },
    /// One motion.
    Command {
        /// The epoch.
        fence: u64,
        /// Its place.
        sequence: u64,
        /// The expert's own number.
        counter: u64,
        /// Some of `camera`, `instruments`, `energy`.
        set: Vec<&'static str>,
        /// Whether energy may act with it.
        energy: bool,
        /// Base64.
        payload: String,
        /// What the payload says, where it is of the `sim` format.
        #[serde(skip_serializing_if = "Option::is_none")]
        motion: Option<MotionWords>,
    },
}

/// A `sim` payload: see `device_wire::sim::Motion` for the units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MotionWords {
    /// Changes of x, y, z, roll, pitch, yaw.
    pub axes: [i16; 6],
    /// Changes of pan, tilt, insertion.
    pub camera: [i16; 3],
    /// Where the grip shall be.
    pub grip: Option<u16>,
}

impl From<&DeviceAct> for ActWords {
    fn from(act: &DeviceAct) -> Self {
        match act {
            DeviceAct::KeepAlive { boot, fence } => Self::KeepAlive { boot: hex_of(*boot), fence: fence.0 },
            DeviceAct::Select { boot, to, fence, sequence } => {
                Self::Select { boot: hex_of(*boot), to: selection(*to), fence: fence.0, sequence: *sequence }
            }
            DeviceAct::Hold { fence, sequence } => Self::Hold { fence: fence.0, sequence: *sequence },
            DeviceAct::EnergyOff { fence, sequence } => Self::EnergyOff { fence: fence.0, sequence: *sequence },
            DeviceAct::Command { fence, sequence, counter, set, energy, payload } => Self::Command {
                fence: fence.0,
                sequence: *sequence,
                counter: counter.0,
                set: set_words(*set),
                energy: *energy,
                payload: STANDARD.encode(payload.as_bytes()),
                motion: sim::Motion::decode(payload.as_bytes())
                    .ok()
                    .map(|sim::Motion { axes, camera, grip }| MotionWords { axes, camera, grip }),
            },
        }
    }
}

/// A report, as a program writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportWords {
    /// The highest fence that it accepted.
    pub highest: u64,
    /// The gate whose keep-alive is current: 32 hexadecimal digits, or null.
    pub owner: Option<String>,
    /// `nobody`, `local` or `remote`.
    pub selected: String,
    /// Sequence of the selection that it obeys.
    pub sequence: u64,
    /// The watchdog's hold is latched.
    pub latched: bool,
    /// The hardware override gave it to local.
    pub overridden: bool,
    /// Remote energy is on.
    pub energy: bool,
    /// No command was actuated since remote motion was held, selected or taken away last.
    pub held: bool,
    /// Another gate was refused within the last second (HO-D-024). A program that does not say it cannot warn.
    #[serde(default)]
    pub rival: bool,
    /// Something moves.
    pub moving: bool,
    /// The device's watchdog, in microseconds.
    pub watchdog_us: u32,
    /// How often the camera moved without a command.
    #[serde(default)]
    pub camera_moves: u32,
    /// `n` of the newest act that was dealt with, 0 for none.
    pub echo: u64,
    /// The newest command that was actuated.
    #[serde(default)]
    pub actuated: Option<ActuatedWords>,
    /// How many acts were refused.
    #[serde(default)]
    pub refusals: u32,
    /// The newest act that was refused.
    #[serde(default)]
    pub refused: Option<RefusedWords>,
    /// The pose, against which the expert's controls are judged.
    #[serde(default)]
    pub pose: Option<PoseWords>,
}

/// Names an actuated command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActuatedWords {
    /// Its fence.
    pub fence: u64,
    /// Its sequence.
    pub sequence: u64,
}

/// Names a refused act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedWords {
    /// Its `n`.
    pub n: u64,
    /// One of the words of [`Refused::word`].
    pub reason: String,
}

/// How the instrument is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoseWords {
    /// Quaternion w, x, y, z of length 1.
    pub orientation: [f64; 4],
    /// 0 open to 1 closed.
    pub grip: f64,
}

/// A report in which a word is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} must be {rule}")]
pub struct WordError {
    field: &'static str,
    value: String,
    rule: &'static str,
}

impl TryFrom<&ReportWords> for Report {
    type Error = WordError;

    fn try_from(words: &ReportWords) -> Result<Self, WordError> {
        let wrong = |field, value: &str, rule| WordError { field, value: value.chars().take(64).collect(), rule };
        let selected = [Selection::Nobody, Selection::Local, Selection::Remote]
            .into_iter()
            .find(|each| selection(*each) == words.selected)
            .ok_or_else(|| wrong("selected", &words.selected, "nobody, local or remote"))?;
        let boot = |text: &String| {
            let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
            let number = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
            number.map(BootId).ok_or_else(|| wrong("owner", text, "32 hexadecimal digits"))
        };
        let refused = |words: &RefusedWords| {
            let reason = Refused::ALL.into_iter().find(|each| each.word() == words.reason);
            let rule = "one of the reasons of docs/DEVICES.md";
            reason
                .map(|reason| Refusal { counter: words.n, reason })
                .ok_or_else(|| wrong("refused.reason", &words.reason, rule))
        };
        let device = DeviceReport {
            highest: Epoch(words.highest),
            owner: words.owner.as_ref().map(boot).transpose()?,
            selected,
            sequence: words.sequence,
            latched: words.latched,
            overridden: words.overridden,
            energy: words.energy,
            held: words.held,
            rival: words.rival,
        };
        Ok(Self {
            device,
            moving: words.moving,
            watchdog: words.watchdog_us,
            camera_moves: words.camera_moves,
            echo: words.echo,
            actuated: words.actuated.map(|a| Actuated { fence: Epoch(a.fence), sequence: a.sequence }),
            refusals: words.refusals,
            refused: words.refused.as_ref().map(refused).transpose()?,
            state: words.pose.map(|pose| pose.state(words.moving)).transpose()?.unwrap_or_default(),
        })
    }
}

impl PoseWords {
    fn state(self, moving: bool) -> Result<State, WordError> {
        let wrong = |field, value: String, rule| WordError { field, value, rule };
        if !(0.0..=1.0).contains(&self.grip) {
            return Err(wrong("pose.grip", self.grip.to_string(), "0 to 1"));
        }
        if !self.orientation.iter().all(|part| (-1.0..=1.0).contains(part)) {
            return Err(wrong("pose.orientation", format!("{:?}", self.orientation), "four numbers of -1 to 1"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both ranges are checked above")]
        let (orientation, grip) = (
            self.orientation.map(|part| (part * f64::from(i16::MAX)).round() as i16),
            (self.grip * f64::from(sim::CLOSED)).round() as u16,
        );
        let state = sim::State { moving, orientation, grip, axes: [0; 6], camera: [0; 3] };
        State::new(state.encode()).map_err(|e| wrong("pose", e.to_string(), "short"))
    }
}

/// The word for a selection.
#[must_use]
pub const fn selection(to: Selection) -> &'static str {
    match to {
        Selection::Nobody => "nobody",
        Selection::Local => "local",
        Selection::Remote => "remote",
    }
}

/// A boot id as 32 hexadecimal digits.
#[must_use]
pub fn hex_of(boot: BootId) -> String {
    format!("{:032x}", boot.0)
}

fn set_words(set: GrantedSet) -> Vec<&'static str> {
    let all = [(set.camera, "camera"), (set.instruments, "instruments"), (set.energy, "energy")];
    all.into_iter().filter_map(|(granted, word)| granted.then_some(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::message::Payload;
    use trocar_proto::handover::types::Counter;

    #[test]
    fn a_command_in_words_is_as_the_documentation_shows_it() {
        let act = DeviceAct::Command {
            fence: Epoch(7),
            sequence: 3,
            counter: Counter(99),
            set: GrantedSet::ENERGY,
            energy: false,
            payload: Payload::new(sim::Motion { axes: [100, 0, -50, 0, 0, 0], ..sim::Motion::default() }.encode())
                .unwrap(),
        };
        let line = serde_json::to_string(&ActWords::from(&act)).unwrap();
        assert_eq!(
            line,
            r#"{"act":"command","fence":7,"sequence":3,"counter":99,"set":["instruments","energy"],"energy":false,"payload":"AQAAZAAA/84AAAAAAAAAAAAAAAAAAA==","motion":{"axes":[100,0,-50,0,0,0],"camera":[0,0,0],"grip":null}}"#
        );
        let documented = include_str!("../../../docs/DEVICES.md");
        assert!(documented.contains(line.trim_start_matches('{')), "docs/DEVICES.md shows another line than {line}");
    }

    #[test]
    fn a_report_in_words_becomes_a_report_and_a_wrong_word_is_named() {
        let line = r#"{"highest":7,"owner":"000000000000000000000000000000ff","selected":"remote","sequence":1,"latched":false,
            "overridden":false,"energy":false,"held":true,"moving":true,"watchdog_us":150000,"echo":5,"refusals":1,
            "refused":{"n":4,"reason":"low-fence"},"pose":{"orientation":[1,0,0,0],"grip":0.5}}"#;
        let words: ReportWords = serde_json::from_str(line).unwrap();
        let report = Report::try_from(&words).unwrap();
        assert_eq!((report.device.owner, report.device.selected), (Some(BootId(255)), Selection::Remote));
        assert_eq!(report.refused, Some(Refusal { counter: 4, reason: Refused::LowFence }));
        let state = sim::State::decode(report.state.as_bytes()).unwrap();
        assert_eq!((state.orientation, state.grip, state.moving), (sim::UPRIGHT, 5_000, true));

        for (field, wrong) in [
            ("selected", ReportWords { selected: "surgeon".into(), ..words.clone() }),
            ("owner", ReportWords { owner: Some("+0000000000000000000000000000000f".into()), ..words.clone() }),
            ("owner", ReportWords { owner: Some("ff".into()), ..words.clone() }),
            (
                "refused.reason",
                ReportWords { refused: Some(RefusedWords { n: 1, reason: "no".into() }), ..words.clone() },
            ),
            ("pose.grip", ReportWords { pose: Some(PoseWords { orientation: [1.0; 4], grip: 2.0 }), ..words.clone() }),
            ("pose.orientation", ReportWords { pose: Some(PoseWords { orientation: [9.0; 4], grip: 0.0 }), ..words }),
        ] {
            assert_eq!(Report::try_from(&wrong).unwrap_err().field, field);
        }
    }
}
