//! One line of JSON: what hands and feet do, and the expert's acts. The same words in `stdin` and in scripts.

use super::trajectory::Trajectory;
use crate::operate::acts::{Act, Hands};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use trocar_proto::handover::device_wire::sim;
use trocar_proto::handover::message::{Payload, Pose, Short};
use trocar_proto::handover::types::{Clutch, GrantedSet};

/// A line. What is left out stays as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::operate) struct Line {
    presence: Option<bool>,
    pedal: Option<bool>,
    clutch: Option<ClutchWord>,
    pose: Option<PoseWords>,
    motion: Option<MotionWords>,
    #[serde(rename = "do")]
    act: Option<ActWord>,
    /// Of decline, request and estop.
    reason: Option<String>,
    /// Of request.
    set: Option<Vec<PartWord>>,
    trajectory: Option<String>,
    hz: Option<u32>,
    seconds: Option<f64>,
    radius_um: Option<u32>,
    period_s: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClutchWord {
    Open,
    Closed,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActWord {
    Accept,
    Decline,
    Return,
    Request,
    Estop,
    Quit,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartWord {
    Camera,
    Instruments,
    Energy,
}

/// The `sim` format's pose (docs/DEVICES.md), or the bytes of another device's.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum PoseWords {
    Bytes {
        hex: String,
    },
    Sim {
        /// Degrees.
        #[serde(default)]
        roll: f64,
        #[serde(default)]
        pitch: f64,
        #[serde(default)]
        yaw: f64,
        /// 0 open, 1 closed.
        #[serde(default)]
        grip: f64,
        /// The hands are moving.
        #[serde(default)]
        moving: bool,
    },
}

/// The `sim` format's motion (docs/DEVICES.md), or the bytes of another device's.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum MotionWords {
    Bytes {
        hex: String,
    },
    Sim {
        #[serde(default)]
        axes: [i16; 6],
        #[serde(default)]
        camera: [i16; 3],
        grip: Option<f64>,
    },
}

/// The acts of a line.
///
/// # Errors
/// Names the key, and what would be right.
pub(in crate::operate) fn parse(text: &str) -> anyhow::Result<Vec<Act>> {
    let line: Line = serde_json::from_str(text).with_context(|| {
        "a line is an object with presence, pedal, clutch (\"open\", \"closed\"), pose, motion, trajectory or do \
         (\"accept\", \"decline\", \"return\", \"request\", \"estop\", \"quit\")"
    })?;
    line.acts()
}

impl Line {
    /// What is to be done, in the order in which it makes sense: hands first.
    pub(super) fn acts(self) -> anyhow::Result<Vec<Act>> {
        let trajectory = self.trajectory()?;
        let mut acts = Vec::new();
        let hands = Hands {
            presence: self.presence,
            pedal: self.pedal,
            clutch: self.clutch.map(|c| match c {
                ClutchWord::Open => Clutch::Open,
                ClutchWord::Closed => Clutch::Closed,
            }),
            pose: self.pose.map(PoseWords::pose).transpose()?,
        };
        if hands != Hands::default() {
            acts.push(Act::Hands(hands));
        }
        if let Some(motion) = self.motion {
            acts.push(Act::Motion(motion.payload()?));
        }
        acts.extend(trajectory.map(Act::Trajectory));
        let reason = |given: Option<String>| Short::new(given.unwrap_or_default()).context("reason: at most 128 bytes");
        match (self.act, self.set) {
            (Some(ActWord::Request), set) => {
                let set =
                    set.context("request: set = [\"camera\"], or with \"instruments\" and \"energy\", is missing")?;
                acts.push(Act::Request(granted(&set)?, reason(self.reason)?));
            }
            (_, Some(_)) => bail!("set goes with \"do\": \"request\""),
            (Some(ActWord::Accept), None) => acts.push(Act::Accept),
            (Some(ActWord::Decline), None) => acts.push(Act::Decline(reason(self.reason)?)),
            (Some(ActWord::Return), None) => acts.push(Act::Return),
            (Some(ActWord::Estop), None) => acts.push(Act::Estop(reason(self.reason)?)),
            (Some(ActWord::Quit), None) => acts.push(Act::Quit),
            (None, None) if self.reason.is_some() => bail!("reason goes with \"do\""),
            (None, None) => {}
        }
        if acts.is_empty() {
            bail!("the line says nothing to do");
        }
        Ok(acts)
    }

    fn trajectory(&self) -> anyhow::Result<Option<Trajectory>> {
        let has_figures =
            self.hz.is_some() || self.seconds.is_some() || self.radius_um.is_some() || self.period_s.is_some();
        let Some(name) = &self.trajectory else {
            if has_figures {
                bail!("hz, seconds, radius_um and period_s go with trajectory");
            }
            return Ok(None);
        };
        Trajectory::new(name, self.hz, self.seconds, self.radius_um, self.period_s).map(Some)
    }
}

fn granted(parts: &[PartWord]) -> anyhow::Result<GrantedSet> {
    let has = |wanted: fn(&PartWord) -> bool| parts.iter().any(wanted);
    let set = GrantedSet {
        camera: has(|p| matches!(p, PartWord::Camera)),
        instruments: has(|p| matches!(p, PartWord::Instruments)),
        energy: has(|p| matches!(p, PartWord::Energy)),
    };
    match GrantedSet::from_bits(set.bits()) {
        Some(set) if !set.is_empty() => Ok(set),
        _ => bail!("set: at least one of camera and instruments; energy goes with instruments"),
    }
}

/// 0 to 1 as the device has it.
fn grip_of(grip: f64) -> anyhow::Result<u16> {
    if !(0.0..=1.0).contains(&grip) {
        bail!("grip is 0 (open) to 1 (closed), not {grip}");
    }
    Ok((grip * f64::from(sim::CLOSED)).round() as u16)
}

/// Degrees as the device has them.
fn hundredths(name: &str, degrees: f64) -> anyhow::Result<i32> {
    if !(-360.0..=360.0).contains(&degrees) {
        bail!("{name} is -360 to 360 degrees, not {degrees}");
    }
    Ok((degrees * 100.0).round() as i32)
}

impl PoseWords {
    fn pose(self) -> anyhow::Result<Pose> {
        let bytes = match self {
            Self::Bytes { hex } => hex::decode(hex).context("pose.hex")?,
            Self::Sim { roll, pitch, yaw, grip, moving } => {
                let (roll, pitch, yaw) =
                    (hundredths("roll", roll)?, hundredths("pitch", pitch)?, hundredths("yaw", yaw)?);
                let orientation = sim::orientation(roll, pitch, yaw);
                sim::Pose { motion_zero: !moving, orientation, grip: grip_of(grip)? }.encode()
            }
        };
        Pose::new(bytes).context("pose")
    }
}

impl MotionWords {
    fn payload(self) -> anyhow::Result<Payload> {
        let bytes = match self {
            Self::Bytes { hex } => hex::decode(hex).context("motion.hex")?,
            Self::Sim { axes, camera, grip } => {
                sim::Motion { axes, camera, grip: grip.map(grip_of).transpose()? }.encode()
            }
        };
        Payload::new(bytes).context("motion")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_hands_then_motion_then_an_act() {
        let acts = parse(
            r#"{"presence":true,"clutch":"closed","pedal":false,"motion":{"axes":[100,0,0,0,0,0]},"do":"accept"}"#,
        );
        let [Act::Hands(hands), Act::Motion(payload), Act::Accept] = &acts.unwrap()[..] else { panic!("others") };
        let clutch = Some(Clutch::Closed);
        assert_eq!(*hands, Hands { presence: Some(true), pedal: Some(false), clutch, pose: None });
        let motion = sim::Motion::decode(payload.as_bytes()).unwrap();
        assert_eq!(motion, sim::Motion { axes: [100, 0, 0, 0, 0, 0], ..sim::Motion::default() });
    }

    #[test]
    fn a_pose_is_in_degrees_or_in_bytes() {
        let pose = |text: &str| match parse(text).map(|mut acts| acts.remove(0)) {
            Ok(Act::Hands(Hands { pose: Some(pose), .. })) => Ok(pose),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(format!("{e:#}")),
        };
        let upright = pose(r#"{"pose":{"grip":0.5}}"#).unwrap();
        let decoded = sim::Pose::decode(upright.as_bytes()).unwrap();
        assert_eq!(decoded, sim::Pose { motion_zero: true, orientation: sim::UPRIGHT, grip: 5_000 });
        assert_eq!(pose(r#"{"pose":{"hex":"0102"}}"#).unwrap().as_bytes(), [1, 2]);
        assert!(pose(&format!(r#"{{"pose":{{"hex":"{}"}}}}"#, "00".repeat(65))).unwrap_err().contains("pose"));
        assert!(pose(r#"{"pose":{"grip":2}}"#).unwrap_err().contains("grip is 0"));
        assert!(pose(r#"{"pose":{"roll":400}}"#).unwrap_err().contains("roll is -360"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, want) in [
            ("", "a line is an object"),
            ("{}", "nothing to do"),
            (r#"{"presense":true}"#, "unknown field `presense`"),
            (r#"{"clutch":"half"}"#, "unknown variant `half`"),
            (r#"{"do":"take"}"#, "unknown variant `take`"),
            (r#"{"do":"request"}"#, "set = "),
            (r#"{"do":"request","set":["energy"]}"#, "energy goes with instruments"),
            (r#"{"do":"request","set":[]}"#, "at least one"),
            (r#"{"set":["camera"]}"#, "set goes with"),
            (r#"{"hz":500}"#, "go with trajectory"),
            (r#"{"trajectory":"spiral"}"#, "circle"),
            (r#"{"trajectory":"circle","hz":2000}"#, "hz is 1 to 1000"),
        ] {
            let e = format!("{:#}", parse(line).expect_err(line));
            assert!(e.contains(want), "{want:?} is not in {e:?}");
        }
    }
}
