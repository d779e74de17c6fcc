//! `[device]` of the gate's configuration file.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use trocar_proto::handover::device_wire::sim::Motion;
use trocar_proto::handover::gate::DeviceAct;

/// What moves, and how to reach it. `kind` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum DeviceConfig {
    /// A controller that speaks the datagrams of docs/DEVICES.md.
    Udp {
        /// Where it listens.
        address: SocketAddr,
        /// The key that both have: 64 hexadecimal digits or 32 bytes, mode 600.
        key_file: PathBuf,
        /// What payloads are.
        #[serde(default)]
        payload: PayloadFormat,
    },
    /// A program of the user's own, which gets acts on its standard input and says how it is on its standard output. It is not
    /// started again when it ends: nobody knows then what the device does, and a person has to look.
    Stdio {
        /// Which.
        program: PathBuf,
        /// Its arguments.
        #[serde(default)]
        args: Vec<String>,
        /// What payloads are.
        #[serde(default)]
        payload: PayloadFormat,
    },
}

/// What the adapter knows of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadFormat {
    /// `device_wire::sim`: the adapter refuses what is outside the granted set before the device sees it.
    #[default]
    Sim,
    /// The device's own: the device refuses by the set that comes with each command.
    Opaque,
}

impl PayloadFormat {
    /// Whether this may go to the device (HO-S-016). All but commands may.
    pub(super) fn allows(self, act: &DeviceAct) -> bool {
        let DeviceAct::Command { set, energy, payload, .. } = act else { return true };
        let energy_is_granted = set.energy || !*energy;
        energy_is_granted
            && match self {
                Self::Opaque => true,
                Self::Sim => Motion::decode(payload.as_bytes()).is_ok_and(|motion| motion.is_within(*set)),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trocar_proto::handover::message::Payload;
    use trocar_proto::handover::types::{Counter, Epoch, GrantedSet};

    #[test]
    fn both_kinds_are_read_and_an_unknown_key_is_refused_by_name() {
        let udp = "kind = 'udp'\naddress = '10.0.0.2:7000'\nkey_file = 'device.key'\n";
        assert_eq!(
            toml::from_str::<DeviceConfig>(udp).unwrap(),
            DeviceConfig::Udp {
                address: "10.0.0.2:7000".parse().unwrap(),
                key_file: "device.key".into(),
                payload: PayloadFormat::Sim
            }
        );
        let stdio = "kind = 'stdio'\nprogram = './arm.py'\nargs = ['--slow']\npayload = 'opaque'\n";
        assert_eq!(
            toml::from_str::<DeviceConfig>(stdio).unwrap(),
            DeviceConfig::Stdio {
                program: "./arm.py".into(),
                args: vec!["--slow".into()],
                payload: PayloadFormat::Opaque
            }
        );
        let error = toml::from_str::<DeviceConfig>(&format!("{udp}restart = true\n")).unwrap_err();
        assert!(error.to_string().contains("restart"), "{error}");
    }

    #[test]
    fn a_command_outside_the_granted_set_goes_to_no_device() {
        // HO-S-016
        let command = |motion: Motion, set, energy| DeviceAct::Command {
            fence: Epoch(1),
            sequence: 1,
            counter: Counter(1),
            set,
            energy,
            payload: Payload::new(motion.encode()).unwrap(),
        };
        let tool = Motion { axes: [1, 0, 0, 0, 0, 0], ..Motion::default() };
        let camera = Motion { camera: [0, 0, -1], ..Motion::default() };
        let sim = PayloadFormat::Sim;
        assert!(sim.allows(&command(tool, GrantedSet::INSTRUMENTS, false)));
        assert!(sim.allows(&command(tool, GrantedSet::ENERGY, true)));
        assert!(sim.allows(&command(camera, GrantedSet::CAMERA, false)));
        assert!(!sim.allows(&command(tool, GrantedSet::CAMERA, false)));
        assert!(!sim.allows(&command(camera, GrantedSet::INSTRUMENTS, false)));
        assert!(!sim.allows(&command(tool, GrantedSet::INSTRUMENTS, true)), "energy that nobody granted");
        assert!(!PayloadFormat::Opaque.allows(&command(tool, GrantedSet::INSTRUMENTS, true)));
        assert!(PayloadFormat::Opaque.allows(&command(tool, GrantedSet::CAMERA, false)), "the device judges");
    }
}
