//! Two people in two browsers look at an operation together: pictures, voices, chat, and what is left of it when parts die.

mod outage;
mod sharing;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use trocar_media_tests::browser::{Browser, Options};
use trocar_media_tests::stack::{Stack, path};
use trocar_media_tests::{artifacts, devices, workspace};

const PATIENCE: Duration = Duration::from_secs(30);
/// Each browser has one page.
const PAGE: &str = "page";
/// A tone above this level, in dB of full scale, is heard …
const HEARD_DB: f64 = -60.0;
/// … where it is not so many dB below another one, as whose overtones and edges are.
const SHADOW_DB: f64 = 25.0;

/// Somebody in the session, with a voice and a face of their own.
struct Person {
    browser: Browser,
    /// Tone of the microphone.
    hz: f64,
    /// Brightness of the two halves of the camera's picture.
    halves: [u8; 2],
    name: &'static str,
    organisation: &'static str,
}

/// Files for the devices of both.
struct Devices {
    tones: [PathBuf; 2],
    cameras: [PathBuf; 2],
    _dir: TempDir,
}

const HZ: [u32; 2] = [440, 660];
const HALVES: [[u8; 2]; 2] = [[64, 192], [192, 64]];

impl Devices {
    fn make() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let tones = [devices::write_tone(dir.path(), HZ[0])?, devices::write_tone(dir.path(), HZ[1])?];
        let camera = |[left, right]: [u8; 2]| devices::write_camera(dir.path(), left, right);
        let cameras = [camera(HALVES[0])?, camera(HALVES[1])?];
        Ok(Self { tones, cameras, _dir: dir })
    }

    fn of(&self, i: usize) -> Options<'_> {
        Options { microphone: Some(&self.tones[i]), camera: Some(&self.cameras[i]), ..Options::default() }
    }
}

impl Person {
    /// The expert is 0, the surgeon in the operating room 1.
    fn new(i: usize, browser: Browser) -> Self {
        let (name, organisation) =
            [("Dr. Maria Keller", "University Hospital North"), ("佐藤 花子", "中央病院 外科")][i];
        Self { browser, hz: f64::from(HZ[i]), halves: HALVES[i], name, organisation }
    }

    /// Goes in through the lobby, with the check of the devices; connects the microphone (muted) and shows the camera.
    fn enter(&mut self, link: &str, locale: &str) -> anyhow::Result<()> {
        let b = &mut self.browser;
        b.call("open", PAGE, json!({ "url": link, "locale": locale, "width": 1280, "height": 720 }))?;
        b.wait(PAGE, ".check[data-camera=good][data-microphone=good]", PATIENCE)?;
        b.call("fill", PAGE, json!({ "selector": "#name", "text": self.name }))?;
        b.call("fill", PAGE, json!({ "selector": "#organisation", "text": self.organisation }))?;
        b.call("click", PAGE, json!({ "selector": "button[type=submit]" }))?;
        b.wait(PAGE, "body[data-connection=open]", PATIENCE)?;
        self.click("publish.camera")?;
        self.wait("body[data-camera=sending][data-mic=muted]")
    }

    fn wait(&mut self, selector: &str) -> anyhow::Result<()> {
        let waited = self.browser.wait(PAGE, selector, PATIENCE);
        if waited.is_err() {
            // What a person would have seen instead.
            self.shoot("missing")?;
        }
        waited.with_context(|| format!("{} waits for {selector}", self.name))
    }

    fn click(&mut self, control: &str) -> anyhow::Result<()> {
        let selector = format!("[data-control=\"{control}\"]");
        self.browser.call("click", PAGE, json!({ "selector": selector })).map(drop)
    }

    fn press(&mut self, key: &str) -> anyhow::Result<()> {
        self.browser.call("press", PAGE, json!({ "key": key })).map(drop)
    }

    /// Holds the space bar down, or lets it go.
    fn hold_to_talk(&mut self, down: bool) -> anyhow::Result<()> {
        self.browser.call("key", PAGE, json!({ "key": " ", "down": down }))?;
        self.wait(if down { "body[data-mic=open]" } else { "body[data-mic=muted]" })
    }

    fn text(&mut self, selector: &str) -> anyhow::Result<String> {
        let found = self.browser.call("text", PAGE, json!({ "selector": selector }))?;
        let lines: Vec<&str> = found.as_array().context("texts")?.iter().filter_map(Value::as_str).collect();
        Ok(lines.join("\n"))
    }

    /// Whether the tones of `hz` are heard, in any of the voices that play; listens for a second.
    fn hears(&mut self, hz: [f64; 2]) -> anyhow::Result<[bool; 2]> {
        let voices = self.browser.call("tones", PAGE, json!({ "ms": 1_000, "at": hz }))?;
        let voices = voices.as_array().context("voices")?;
        let level = |i: usize| voices.iter().filter_map(|v| v["at"][i].as_f64()).fold(-200.0, f64::max);
        println!("{} hears {} Hz at {:.0} dB, {} Hz at {:.0} dB", self.name, hz[0], level(0), hz[1], level(1));
        let floor = HEARD_DB.max(level(0).max(level(1)) - SHADOW_DB);
        Ok([level(0) > floor, level(1) > floor])
    }

    /// Looks at the picture of a feed for a second.
    fn look(&mut self, feed: &str) -> anyhow::Result<Value> {
        self.browser.call("look", PAGE, json!({ "feed": feed, "ms": 1_000 }))
    }

    /// Name of the first feed with that purpose that is on the page.
    fn feed(&mut self, purpose: &str) -> anyhow::Result<String> {
        let tiles = self.browser.call("tiles", PAGE, json!({}))?;
        let found = tiles.as_array().context("tiles")?.iter().find(|t| t["purpose"] == purpose);
        Ok(found.and_then(|t| t["feed"].as_str()).with_context(|| format!("no {purpose} in {tiles}"))?.to_owned())
    }

    fn shoot(&mut self, name: &str) -> anyhow::Result<()> {
        let who = self.name.split(' ').next_back().unwrap_or_default();
        self.browser.screenshot(PAGE, &format!("consultation-{name}-{who}.png"))
    }

    fn has_no_errors(&mut self) -> anyhow::Result<()> {
        let log = self.browser.call("log", PAGE, json!({}))?;
        ensure!(log["errors"].as_array().is_some_and(Vec::is_empty), "{}: {}", self.name, log["errors"]);
        Ok(())
    }
}

/// Whether what was seen is the moving picture of a camera with these halves.
fn is_camera(seen: &Value, halves: [u8; 2]) -> bool {
    let bright = |name: &str| seen[name].as_f64().unwrap_or(0.0) > 128.0;
    let marks = seen["marks"].as_array().map_or(0, Vec::len);
    let frames = seen["frames"].as_u64().unwrap_or(0);
    frames >= 8 && marks >= 3 && [bright("left"), bright("right")] == halves.map(|h| h > 128)
}

/// Both in the session, with their pictures and with the endoscope, nobody talking.
fn meet(stack: &Stack, devices: &Devices) -> anyhow::Result<[Person; 2]> {
    let mut both =
        [Person::new(0, Browser::start_with(devices.of(0))?), Person::new(1, Browser::start_with(devices.of(1))?)];
    both[0].enter(&stack.invitation("expert")?, "en-GB")?;
    both[1].enter(&stack.invitation("local")?, "ja-JP")?;
    for person in &mut both {
        person.wait(".tile[data-purpose=scope][data-place=large][data-state=live][data-age-kind=known]")?;
        person.wait(".tile[data-purpose=room][data-place=small][data-state=live]")?;
        person.wait("audio[data-feed^=voice-]")?;
    }
    Ok(both)
}

#[test]
fn two_physicians_hold_a_consultation() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _scope = stack.publish(&["--source", "test:1280x720@30"])?;
    let devices = Devices::make()?;
    let mut both = meet(&stack, &devices)?;
    they_see_each_other(&mut both)?;
    they_hear_each_other_and_not_themselves(&mut both)?;
    they_write_to_each_other(&mut both)?;
    they_know_who_is_there(&mut both)?;
    every_layout_is_in_order(&mut both)?;
    both.iter_mut().try_for_each(Person::has_no_errors)
}

fn they_see_each_other([a, b]: &mut [Person; 2]) -> anyhow::Result<()> {
    for (viewer, other) in [(&mut *a, b.halves), (&mut *b, HALVES[0])] {
        let room = viewer.feed("room")?;
        let seen = viewer.look(&room)?;
        println!("{} sees {seen}", viewer.name);
        ensure!(is_camera(&seen, other), "{} does not see the other's camera: {seen}", viewer.name);
        // The same look at other pictures: one's own camera, which nobody sends back, and the endoscope.
        ensure!(!is_camera(&seen, viewer.halves), "{} sees their own camera", viewer.name);
        let scope = viewer.look("scope")?;
        ensure!(!is_camera(&scope, other), "the endoscope passes for a camera: {scope}");
        let title = viewer.text(".tile[data-purpose=room] .feed")?;
        ensure!(["Dr. Maria Keller", "佐藤 花子"].contains(&title.as_str()) && title != viewer.name, "called {title}");
        let tiles = viewer.browser.call("tiles", PAGE, json!({}))?;
        ensure!(tiles.as_array().is_some_and(|t| t.len() == 2), "{} has these pictures: {tiles}", viewer.name);
    }
    Ok(())
}

fn they_hear_each_other_and_not_themselves([a, b]: &mut [Person; 2]) -> anyhow::Result<()> {
    let tones = [a.hz, b.hz];
    ensure!(a.hears(tones)? == [false, false], "the microphones are muted");
    ensure!(b.hears(tones)? == [false, false], "the microphones are muted");
    for turn in 0..2 {
        let (speaker, listener) = if turn == 0 { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
        listener.wait(".people:not(:has([data-speaking=yes]))")?;
        speaker.hold_to_talk(true)?;
        listener.wait(".people [data-speaking=yes]")?;
        listener.wait(".tile[data-purpose=room][data-speaking=yes]")?;
        ensure!(listener.hears(tones)? == [turn == 0, turn == 1], "{} speaks", speaker.name);
        ensure!(speaker.hears(tones)? == [false, false], "{} hears their own voice", speaker.name);
        let who = listener.browser.call("body", PAGE, json!({}))?;
        ensure!(who["sound"] == "on", "{who}");
        speaker.hold_to_talk(false)?;
        listener.wait(".tile[data-purpose=room][data-speaking=no]")?;
        ensure!(listener.hears(tones)? == [false, false], "{} let the key go and is heard", speaker.name);
    }
    // Both at once, as people do.
    a.hold_to_talk(true)?;
    b.hold_to_talk(true)?;
    b.wait(".tile[data-purpose=room][data-speaking=yes]")?;
    ensure!(a.hears(tones)? == [false, true] && b.hears(tones)? == [true, false], "both speak");
    b.shoot("speaking")?;
    a.hold_to_talk(false)?;
    b.hold_to_talk(false)
}

fn they_write_to_each_other([a, b]: &mut [Person; 2]) -> anyhow::Result<()> {
    a.click("bar.chat")?;
    b.click("bar.chat")?;
    writes(a, b, "Please retract a little further.\nThen stop.")?;
    writes(b, a, "胆嚢管の同定をお願いします。\n画面中央の索状物です。")?;
    ensure!(a.text(".messages")?.contains("佐藤 花子"), "a message without its writer");
    a.shoot("chat")?;
    b.shoot("chat")
}

fn writes(writer: &mut Person, reader: &mut Person, text: &str) -> anyhow::Result<()> {
    let before = reader.text(".messages .text")?;
    ensure!(!before.contains(text), "the message is there before it was written");
    writer.browser.call("fill", PAGE, json!({ "selector": "#chat-text", "text": text }))?;
    writer.press("Enter")?;
    reader.wait(&format!(".messages li:nth-child({})", before.lines().count() / 2 + 1))?;
    let read = reader.text(".messages .text")?;
    ensure!(read.ends_with(text), "{} reads {read:?}", reader.name);
    Ok(())
}

fn they_know_who_is_there([a, b]: &mut [Person; 2]) -> anyhow::Result<()> {
    for (viewer, words) in [(&mut *a, ["surgical team", "remote expert"]), (&mut *b, ["手術チーム", "遠隔指導医"])]
    {
        viewer.click("bar.participants")?;
        viewer.wait("body[data-side=people]")?;
        let people = viewer.text(".people")?;
        let names = ["Dr. Maria Keller", "University Hospital North", "佐藤 花子", "中央病院 外科"];
        for word in names.iter().chain(&words) {
            ensure!(people.contains(word), "{word} is not among {people}");
        }
        ensure!(!people.contains("observer") && !people.contains("見学"), "{people}");
        viewer.shoot("people")?;
        viewer.click("bar.participants")?;
    }
    Ok(())
}

/// Every layout in both languages, on a laptop and on tablets: nothing sticks out, nothing offends axe-core.
fn every_layout_is_in_order(both: &mut [Person; 2]) -> anyhow::Result<()> {
    for person in both {
        for layout in ["large", "grid", "pair"] {
            person.wait(&format!("body[data-layout={layout}]"))?;
            for (width, height) in [(768, 1024), (1024, 768), (1280, 720)] {
                let over = person.browser.call("resize", PAGE, json!({ "width": width, "height": height }))?;
                ensure!(over == 0, "{layout} at {width}: {over} pixels too wide");
                person.shoot(&format!("{layout}-{width}x{height}"))?;
            }
            let amiss = person.browser.call("axe", PAGE, json!({}))?;
            ensure!(amiss.as_array().is_some_and(Vec::is_empty), "{layout}: {amiss}");
            person.press("l")?;
        }
    }
    Ok(())
}

#[test]
fn the_voice_lives_on_when_every_picture_dies() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let scope = stack.publish(&["--source", "test:640x360@30"])?;
    let devices = Devices::make()?;
    let [mut a, mut b] = meet(&stack, &devices)?;
    b.click("talk.muted")?;
    b.wait("body[data-mic=open]")?;
    a.wait(".tile[data-purpose=room][data-speaking=yes]")?;
    a.browser.call("record", PAGE, json!({ "hz": b.hz }))?;

    scope.signal("KILL")?;
    b.click("publish.camera")?;
    a.wait(".tile[data-purpose=scope][data-state=stalled], .tile[data-purpose=scope][data-state=waiting]")?;
    a.wait(".tiles:not(:has([data-purpose=room]))")?;
    let said = a.text(".tile[data-purpose=scope]")?;
    ensure!(said.contains("LOST") || said.contains("Waiting"), "the tile says {said}");
    a.shoot("pictures-dead")?;
    ensure!(a.hears([a.hz, b.hz])? == [false, true], "the voice died with the pictures");
    let samples = a.browser.call("recorded", PAGE, json!({}))?;
    let gap = longest_silence(&samples)?;
    println!("longest silence while the pictures died: {gap:.0} ms");
    // The tone itself pauses for an eighth of a second after each word.
    ensure!(gap <= 400.0, "{gap} ms of silence");

    // The control: the same ears hear nothing once the microphone is muted.
    b.click("talk.muted")?;
    b.wait("body[data-mic=muted]")?;
    a.wait(".people:not(:has([data-speaking=yes]))")?;
    ensure!(a.hears([a.hz, b.hz])? == [false, false], "a muted microphone is heard");
    Ok(())
}

/// The longest time without the tone, in milliseconds, from the first sample that has it to the end.
fn longest_silence(samples: &Value) -> anyhow::Result<f64> {
    let samples = samples.as_array().context("samples")?;
    let heard: Vec<f64> = samples.iter().filter(|s| is_heard(s)).map(|s| crate::number(s, "/at")).collect();
    let end = samples.last().map(|s| crate::number(s, "/at"));
    ensure!(heard.len() > 20, "only {} of {} samples have the tone", heard.len(), samples.len());
    let all: Vec<f64> = heard.into_iter().chain(end).collect();
    Ok(all.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max))
}

fn is_heard(sample: &Value) -> bool {
    sample["db"].as_f64().is_some_and(|db| db > HEARD_DB)
}

#[test]
fn who_cannot_decode_a_view_is_told_and_given_another() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _h265 = stack.publish(&["--source", "test:640x360@15", "--feed", "scope", "--codec", "h265"])?;
    let mut browser = Browser::start()?;
    browser.join(PAGE, &stack.invitation("expert")?, "Dr.+Sato")?;
    browser.wait(PAGE, ".tile[data-feed=scope][data-undecodable=H265] .message:not([hidden])", PATIENCE)?;
    let alone = browser.call("text", PAGE, json!({ "selector": ".tile[data-feed=scope] .message" }))?.to_string();
    ensure!(alone.contains("cannot show this picture (H265)") && alone.contains("no other view"), "{alone}");

    let _h264 = stack.publish(&["--source", "test:640x360@15", "--feed", "scope-h264", "--purpose", "secondary"])?;
    let offer = ".tile[data-feed=scope] [data-alternative=scope-h264]";
    browser.wait(PAGE, offer, PATIENCE)?;
    let said = browser.call("text", PAGE, json!({ "selector": ".tile[data-feed=scope] .message" }))?.to_string();
    ensure!(said.contains("cannot show this picture (H265). It can show:"), "{said}");
    browser.screenshot(PAGE, "consultation-undecodable.png")?;
    browser.call("click", PAGE, json!({ "selector": offer }))?;
    browser.wait(PAGE, ".tile[data-feed=scope-h264][data-place=large][data-state=live]", PATIENCE)?;
    let spread = browser.call("spread", PAGE, json!({}))?;
    ensure!(spread.as_f64().is_some_and(|s| s > 5.0), "the picture is one colour: {spread}");
    browser.screenshot(PAGE, "consultation-alternative.png")
}

/// Runs `media-tests/browser/screenshots.mjs`: whether it found nothing amiss, and what it said.
fn screenshots(names: &str) -> anyhow::Result<(bool, String)> {
    script("screenshots.mjs", &[path(&artifacts()?.join("screenshots"))?, names])
}

/// Runs a script of `media-tests/browser` that looks at the page without a relay.
fn script(name: &str, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new("node");
    command.current_dir(workspace()).arg(format!("media-tests/browser/{name}"));
    let out = command.args(arguments).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Ok((out.status.success(), said))
}

#[test]
fn the_lobby_and_the_help_are_in_order_in_both_languages_and_at_every_size() -> anyhow::Result<()> {
    let (good, said) = screenshots("lobby-checked,help")?;
    ensure!(good, "{said}");
    ensure!(said.lines().filter(|l| l.contains("\"errors\":[]")).count() == 8, "{said}");
    let (good, said) = screenshots("amiss")?;
    ensure!(!good, "a page with faults passes: {said}");
    for fault in ["thrown on purpose", "button-name", "forgotten", "\"overflow\":5"] {
        ensure!(said.contains(fault), "{fault} was not found: {said}");
    }
    ensure!(!screenshots("no-such-name")?.0, "no screenshot at all passes");
    Ok(())
}

#[test]
fn the_banner_tells_the_truth_about_who_operates_and_stop_stops() -> anyhow::Result<()> {
    // HO-V-001, HO-V-002, HO-V-003, HO-V-004
    let (good, said) = script("control.mjs", &[])?;
    println!("{said}");
    ensure!(good, "{said}");
    ensure!(said.lines().filter(|l| l.contains("\"errors\":[]")).count() == 11, "{said}");
    ensure!(!script("control.mjs", &["no-such-name"])?.0, "no check at all passes");
    Ok(())
}
