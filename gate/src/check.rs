//! What a configuration comes to, in lines for people: `trocar-gate check`.

use crate::config::{Config, changed_timers};
use crate::console::{ConsoleConfig, InputConfig};
use crate::device::{DeviceConfig, PayloadFormat};
use crate::frames::FramesConfig;
use std::path::Path;

/// Width of the names in front.
const NAMES: usize = 10;

/// One line for each thing that a person would look for; of the timers those that were changed. No secret stands in it.
#[must_use]
pub fn in_effect(config: &Config) -> String {
    let mut out = Lines::default();
    out.add("session", config.session.id.to_string());
    for patient in &config.session.patient {
        out.add("patient", format!("{} of {}", patient.value, patient.assigner));
    }
    out.add("identity", format!("{}, key {}", shown(&config.identity.cert), shown(&config.identity.key)));
    out.add("trust", format!("{}/ca.pem, and crl.pem where there is one", shown(&config.trust.dir)));
    out.add("tokens", format!("of {}, by {}", config.trust.issuer, shown(&config.trust.issuer_key)));
    for relay in &config.relays {
        out.add("relay", relay.to_string());
    }
    out.add("store", shown(&config.store));
    out.add("device", device(&config.device));
    out.add("frames", config.frames.as_ref().map_or_else(no_frames, frames));
    let consent = config.consent.as_deref().map(shown);
    out.add(
        "consent",
        consent.unwrap_or_else(|| "no document: nothing is consented to, nothing is offered".to_owned()),
    );
    console(&config.console, &mut out);
    out.add("log", format!("{}, as {}", config.log.filter, if config.log.json { "JSON lines" } else { "text" }));
    let changed = changed_timers(&config.timers);
    if changed.is_empty() {
        out.add("timers", "all have their defaults".to_owned());
    }
    for (key, value, default) in changed {
        out.add("timer", format!("{key} = {value} (default {default})"));
    }
    out.add("hash", format!("{}, in every audit record", config.hash));
    out.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, text: String) {
        self.0.push_str(&format!("  {name:NAMES$} {text}\n"));
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn device(device: &DeviceConfig) -> String {
    let (what, payload) = match device {
        DeviceConfig::Udp { address, key_file, payload } => {
            (format!("udp {address}, key {}", shown(key_file)), payload)
        }
        DeviceConfig::Stdio { program, args, payload } => {
            let command = std::iter::once(shown(program)).chain(args.iter().map(|arg| format!("{arg:?}")));
            (format!("stdio {}", command.collect::<Vec<_>>().join(" ")), payload)
        }
    };
    let payload = match payload {
        PayloadFormat::Sim => "sim",
        PayloadFormat::Opaque => "opaque: the device judges",
    };
    format!("{what}, payload {payload}")
}

fn frames(frames: &FramesConfig) -> String {
    let who: Vec<String> = frames.publishers.iter().map(ToString::to_string).collect();
    format!("{}, from {}, at most {} ms under way", frames.listen, who.join(", "), frames.max_lag.as_millis())
}

fn no_frames() -> String {
    "none: without frame proof, camera and instruments are refused".to_owned()
}

fn console(console: &ConsoleConfig, out: &mut Lines) {
    if console.terminal {
        out.add("console", "screen in the terminal".to_owned());
    }
    if let Some(page) = console.page {
        let link = console.page_link.as_deref().map(|file| format!(", link in {}", shown(file)));
        out.add("console", format!("page http://{page}{}", link.unwrap_or_default()));
    }
    for InputConfig { name, device, keys } in &console.inputs {
        let keys: Vec<String> =
            keys.iter().map(|(key, act)| format!("{key} = {}", format!("{act:?}").to_uppercase())).collect();
        out.add("console", format!("{name:?} {}: {}", shown(device), keys.join(", ")));
    }
    if !console.terminal && console.page.is_none() {
        // HO-A-012: a pedal shows nothing.
        out.add("console", "no screen: none but `run --console stdio` is alive, and nothing is offered".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_told_and_no_timer_of_it_differs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/gate.toml");
        let text = in_effect(&Config::read(&path).unwrap());
        for line in [
            "  session    or-1\n",
            "  tokens     of signaling.local, by var/trocar/token-key.pub\n",
            "  relay      127.0.0.1:4434\n",
            "  store      var/gate/store\n",
            "  device     udp 127.0.0.1:7600, key var/gate/device.key, payload sim\n",
            "  consent    var/gate/consent.json\n",
            "  console    page http://127.0.0.1:7070\n",
            "  timers     all have their defaults\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn what_was_changed_and_what_is_missing_is_said() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/gate.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace("lease_ms = 500 ", "lease_ms = 450.5 ");
        let (head, tail) = text.split_once("[consent]").unwrap();
        let tail = tail.split_once("[timers]").unwrap().1;
        let head = head.replace("terminal = true", "terminal = false").replace("page = \"127.0.0.1:7070\"", "");
        let head =
            format!("{head}[[console.inputs]]\nname = \"pedal\"\ndevice = \"/dev/p\"\nkeys = {{ KEY_A = \"take\" }}\n");
        let told = in_effect(&Config::parse(&format!("{head}[timers]{tail}")).unwrap());
        for line in [
            "  timer      lease_ms = 450.5 (default 500)\n",
            "  consent    no document: nothing is consented to, nothing is offered\n",
            "  console    \"pedal\" /dev/p: KEY_A = TAKE\n",
            "  console    no screen: ",
        ] {
            assert!(told.contains(line), "{line:?} is not in\n{told}");
        }
        assert_eq!(told.matches("  timer ").count(), 1, "{told}");
    }
}
