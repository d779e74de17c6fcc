//! The window of `trocar watch` on a display without a screen: each codec's picture, with its age on it.

use anyhow::{Context, ensure};
use std::process::Command;
use std::time::Instant;
use trocar_media_tests::process::{Process, trocar};
use trocar_media_tests::stack::{PATIENCE, Stack};

/// An X server of its own, without a screen.
pub(crate) struct Display {
    _server: Process,
    /// As `DISPLAY` has it.
    pub(crate) name: String,
    width: usize,
    height: usize,
}

impl Display {
    /// Starts one with a black screen of that size.
    pub(crate) fn start(width: usize, height: usize) -> anyhow::Result<Self> {
        let size = format!("{width}x{height}x24");
        let mut command = Command::new("Xvfb");
        // Without -noreset the server begins anew whenever its last client leaves, which may be the one that takes pictures.
        command.args(["-displayfd", "1", "-screen", "0", &size, "-nolisten", "tcp", "-noreset"]);
        let mut server =
            Process::start("Xvfb", &mut command).context("Xvfb is missing: `make setup` installs it (xvfb)")?;
        let number = server.line(PATIENCE, |l| l.parse::<u32>().is_ok())?;
        Ok(Self { _server: server, name: format!(":{number}"), width, height })
    }

    /// What is on the screen.
    fn shot(&self) -> anyhow::Result<Shot> {
        let grab = Command::new("import")
            .args(["-display", &self.name, "-window", "root", "-depth", "8", "rgb:-"])
            .output()
            .context("import is missing: `make setup` installs it (imagemagick)")?;
        ensure!(grab.status.success(), "import: {}", String::from_utf8_lossy(&grab.stderr));
        ensure!(grab.stdout.len() == self.width * self.height * 3, "a screenshot of {} bytes", grab.stdout.len());
        Ok(Shot { width: self.width, rgb: grab.stdout })
    }
}

/// A screenshot.
struct Shot {
    width: usize,
    rgb: Vec<u8>,
}

/// Size of the screen, of the picture and of the window, which opens with it.
const SIZE: (usize, usize) = (1_280, 720);
/// What is published: seven bars of 75 % in the upper two thirds (SMPTE ECR 1-1978), which stand still.
const SOURCE: &str = "gst:videotestsrc is-live=true pattern=smpte75 ! video/x-raw,width=1280,height=720,framerate=10/1";
const BARS: [[u8; 3]; 7] =
    [[191, 191, 191], [191, 191, 0], [0, 191, 191], [0, 191, 0], [191, 0, 191], [191, 0, 0], [0, 0, 191]];
/// What an alarm is written in.
const RED: [u8; 3] = [255, 48, 48];
/// How far a colour may be off after its way through an encoder.
const NEAR: u8 = 40;

impl Shot {
    fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// Whether all seven bars are where they belong, looked at below the corner's caption and above the middle.
    fn has_bars(&self) -> bool {
        let bar = SIZE.0 / BARS.len();
        BARS.iter().enumerate().all(|(n, colour)| is_near(self.at(n * bar + bar / 2, SIZE.1 / 5), *colour))
    }

    /// Pixels of a rectangle that have not their bar's colour, as words on it have not.
    fn written(&self, (x0, x1): (usize, usize), (y0, y1): (usize, usize)) -> usize {
        let bar = SIZE.0 / BARS.len();
        let places = (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y)));
        // Beside the seams, where an encoder blurs.
        let inside = |x: usize| (12..bar - 12).contains(&(x % bar)) && x / bar < BARS.len();
        places.filter(|(x, y)| inside(*x) && !is_near(self.at(*x, *y), BARS[*x / bar])).count()
    }

    /// How much of the corner is written on: an age stands there, an alarm in the middle.
    fn corner(&self) -> usize {
        self.written((0, SIZE.0 / 2), (0, SIZE.1 / 6))
    }

    fn has_alarm(&self) -> bool {
        let places = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
        places.filter(|(x, y)| is_near(self.at(*x, *y), RED)).count() > 200
    }
}

fn is_near(a: [u8; 3], b: [u8; 3]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= NEAR)
}

/// Opens a window on that display.
fn window(stack: &Stack, display: &Display) -> anyhow::Result<Process> {
    let (link, ca) = (stack.invitation("observer")?, stack.text("/ca_file")?);
    let mut command = Command::new(trocar()?);
    command.args(["watch", "--invite", &link, "--ca", &ca]);
    command.env("DISPLAY", &display.name).env_remove("WAYLAND_DISPLAY");
    Process::start("trocar watch", &mut command)
}

/// Screenshots until one is as wanted.
fn until(display: &Display, wanted: impl Fn(&Shot) -> bool) -> anyhow::Result<Option<Shot>> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let shot = display.shot()?;
        if wanted(&shot) {
            return Ok(Some(shot));
        }
    }
    Ok(None)
}

#[test]
fn a_window_shows_the_picture_of_every_codec_with_its_age_on_it() -> anyhow::Result<()> {
    let display = Display::start(SIZE.0, SIZE.1)?;
    for codec in ["h264", "h265", "vp8", "vp9", "av1"] {
        let stack = Stack::start()?;
        ensure!(until(&display, |s| !s.has_bars())?.is_some(), "an empty screen passes for the picture");
        let _publisher = stack.publish(&["--source", SOURCE, "--codec", codec])?;
        let mut viewer = window(&stack, &display)?;
        // What is found in the corner is not there because bars look like that; an age that is late has longer words.
        let beside = |s: &Shot| s.written((SIZE.0 / 2, SIZE.0), (0, SIZE.1 / 6));
        let good = |s: &Shot| s.has_bars() && s.corner() > 200 && beside(s) < 50 && !s.has_alarm();
        let shown = until(&display, good)?;
        let shown = shown.with_context(|| format!("{codec}: no picture with its age\n{}", viewer.stderr()))?;
        println!("{codec}: {} pixels of age, {} beside it", shown.corner(), beside(&shown));
        viewer.stop()?;
    }
    Ok(())
}

#[test]
fn a_window_without_frames_says_so_and_a_picture_that_stops_has_no_age_any_more() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let display = Display::start(SIZE.0, SIZE.1)?;
    ensure!(!display.shot()?.has_alarm(), "an empty screen passes for an alarm");
    let publisher = stack.publish(&["--source", SOURCE, "--codec", "vp8"])?;
    publisher.signal("STOP")?;
    let mut viewer = window(&stack, &display)?;
    let said = until(&display, Shot::has_alarm)?.with_context(|| format!("no alarm: {}", viewer.stderr()))?;
    ensure!(!said.has_bars(), "a window without frames passes for the picture");
    publisher.signal("CONT")?;
    let shown = until(&display, |s| s.has_bars() && s.corner() > 200 && !s.has_alarm())?;
    ensure!(shown.is_some(), "no picture: {}", viewer.stderr());
    publisher.signal("STOP")?;
    let stopped = until(&display, Shot::has_alarm)?.context("a picture that stopped has no alarm on it")?;
    ensure!(stopped.has_bars() && stopped.corner() < 50, "an age stands on a picture that stopped");
    publisher.signal("CONT")?;
    viewer.stop()
}
