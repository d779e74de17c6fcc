//! `--audio pulse:…` and `--audio alsa:…` without a sound card: a sound server of the test's own, whose sink plays a tone to nobody.
//! The relay's listener is a stack that shares no code with ours, and tells the tone by its frequency.

use anyhow::{Context, ensure};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use trocar_media_tests::foreign::{Hub, cell};
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, path};

const HZ: u32 = 700;

/// A Pulse server with two sinks that lead nowhere: `room`, and `silent`.
struct Server<'a> {
    dir: &'a Path,
    process: Option<Process>,
}

impl<'a> Server<'a> {
    fn start(dir: &'a Path) -> anyhow::Result<Self> {
        let mut server = Self { dir, process: None };
        server.begin()?;
        Ok(server)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        let socket = format!("module-native-protocol-unix auth-anonymous=1 socket={}", self.socket());
        let mut command = Command::new("pulseaudio");
        command.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--log-target=stderr"]);
        for module in ["module-null-sink sink_name=room", "module-null-sink sink_name=silent", &socket] {
            command.args(["-L", module]);
        }
        command.env("HOME", self.dir).env("XDG_RUNTIME_DIR", self.dir);
        self.process = Some(Process::start("pulseaudio", &mut command)?);
        Ok(())
    }

    fn socket(&self) -> String {
        format!("{}/native", self.dir.display())
    }

    /// A program that finds this server and no other, by Pulse and by ALSA.
    fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
        let names = self.dir.join("asound.conf");
        std::fs::write(&names, "pcm.theatre {\n  type pulse\n  device \"room.monitor\"\n}\n")?;
        let mut command = Command::new(program);
        command.env("PULSE_SERVER", format!("unix:{}", self.socket())).env("PULSE_COOKIE", self.dir.join("cookie"));
        command.env("ALSA_CONFIG_PATH", format!("/usr/share/alsa/alsa.conf:{}", path(&names)?));
        Ok(command)
    }

    /// The tone, into the sink `room`.
    fn play(&self) -> anyhow::Result<Process> {
        let mut command = self.client("gst-launch-1.0")?;
        command.args(["audiotestsrc", "is-live=true", &format!("freq={HZ}"), "!", "pulsesink", "device=room"]);
        let started = std::time::Instant::now();
        // The server takes a moment to listen.
        while !Path::new(&self.socket()).exists() {
            ensure!(started.elapsed() < PATIENCE, "pulseaudio has opened no socket");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut player = Process::start("gst-launch-1.0", &mut command)?;
        player.line(PATIENCE, |l| l.contains("to PLAYING"))?;
        Ok(player)
    }

    fn publish(&self, hub: &Hub, feed: &str, audio: &str) -> anyhow::Result<Process> {
        let mut command = self.client(trocar()?)?;
        let (link, ca) = (hub.text("/invitations/local")?, hub.text("/ca_file")?);
        command.args(["publish", "--invite", link, "--ca", ca, "--feed", feed, "--audio", audio]);
        Process::start("trocar publish", &mut command)
    }
}

#[test]
fn what_pulse_and_alsa_devices_hear_is_heard() -> anyhow::Result<()> {
    let hub = Hub::start(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let dir = tempfile::tempdir()?;
    let server = Server::start(dir.path())?;
    let _tone = server.play()?;
    let mut pulse = server.publish(&hub, "pulse", "pulse:room.monitor")?;
    let mut alsa = server.publish(&hub, "alsa", "alsa:theatre")?;
    let mut silent = server.publish(&hub, "silent", "pulse:silent.monitor")?;
    for (feed, publisher) in [("pulse", &mut pulse), ("alsa", &mut alsa), ("silent", &mut silent)] {
        hub.live(feed, publisher, PATIENCE).with_context(|| publisher.stderr())?;
    }
    for feed in ["pulse-audio", "alsa-audio"] {
        println!("{feed}: {}", cell::hear(&hub, feed, HZ)?);
    }
    // The control: a device that hears nothing brings sound, and no tone.
    let said = cell::hear(&hub, "silent-audio", HZ).unwrap_err().to_string();
    ensure!(said.starts_with("not the tone"), "{said}");

    Ok(())
}
