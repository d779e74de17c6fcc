//! A screen that is shared, and a browser that lets no sound out before a click.

use super::{Devices, PAGE, PATIENCE, Person, meet};
use anyhow::ensure;
use serde_json::{Value, json};
use trocar_media_tests::browser::{Browser, Options};
use trocar_media_tests::stack::Stack;

#[test]
fn a_shared_screen_is_seen_by_the_other_until_it_is_taken_back() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let _scope = stack.publish(&["--source", "test:640x360@15"])?;
    let devices = Devices::make()?;
    let [mut a, mut b] = meet(&stack, &devices)?;
    ensure!(b.feed("secondary").is_err(), "a screen is there before it is shared");

    a.press("s")?;
    a.wait("body[data-screen=sending]")?;
    b.wait(".tile[data-purpose=secondary][data-state=live]")?;
    let feed = b.feed("secondary")?;
    ensure!(feed.starts_with("screen-"), "the screen is called {feed}");
    let title = b.text(&format!(".tile[data-feed=\"{feed}\"] .feed"))?;
    ensure!(title.contains("Dr. Maria Keller") && title.contains("画面"), "the tile is called {title}");
    let seen = b.look(&feed)?;
    println!("the other sees {seen}");
    ensure!(seen["frames"].as_u64().is_some_and(|n| n > 0), "no frame of the screen: {seen}");
    ensure!(a.feed("secondary").is_err(), "one's own screen is sent back");
    b.shoot("screen")?;

    a.press("s")?;
    a.wait("body[data-screen=off]")?;
    b.wait(".tiles:not(:has([data-purpose=secondary]))")?;
    both_are_well(&mut a, &mut b)?;

    // The control: who may only watch shares nothing with the same key.
    let mut watcher = Browser::start()?;
    watcher.join(PAGE, &stack.invitation("observer")?, "Dr.+Sato")?;
    watcher.wait(PAGE, "body[data-connection=open][data-role=observer]", PATIENCE)?;
    watcher.call("press", PAGE, json!({ "key": "s" }))?;
    watcher.wait(PAGE, ".tile[data-purpose=scope][data-state=live]", PATIENCE)?;
    let body = watcher.call("body", PAGE, json!({}))?;
    ensure!(body["screen"] != "sending" && body["screen"] != "starting", "an observer shares: {body}");
    ensure!(b.feed("secondary").is_err(), "an observer's screen is seen");
    Ok(())
}

fn both_are_well(a: &mut Person, b: &mut Person) -> anyhow::Result<()> {
    a.has_no_errors()?;
    b.has_no_errors()
}

#[test]
fn a_browser_that_lets_no_sound_out_says_so_and_one_click_helps() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let devices = Devices::make()?;
    let mut speaker = Person::new(1, Browser::start_with(devices.of(1))?);
    speaker.enter(&stack.invitation("local")?, "ja-JP")?;

    let mut shut = Browser::start_with(Options { no_autoplay: true, ..Options::default() })?;
    shut.join(PAGE, &stack.invitation("expert")?, "Dr.+Keller")?;
    shut.call("untouched", PAGE, json!({ "selector": "body[data-sound=blocked]" }))?;
    ensure!(playing(&mut shut)? == 0, "sound is out, and the page says that it is not");
    let said = shut.call("text", PAGE, json!({ "selector": ".sound:not([hidden])" }))?.to_string();
    ensure!(said.contains("Sound is off"), "{said}");
    shut.screenshot(PAGE, "consultation-sound-blocked.png")?;
    shut.call("click", PAGE, json!({ "selector": ".sound" }))?;
    shut.wait(PAGE, "body[data-sound=on]", PATIENCE)?;
    shut.wait(PAGE, ".sound[hidden]", PATIENCE)?;
    ensure!(playing(&mut shut)? > 0, "a click, and still no sound");

    // The control: a browser that lets sound out never shows that button.
    let mut open = Browser::start()?;
    open.join(PAGE, &stack.invitation("expert")?, "Dr.+Sato")?;
    open.call("untouched", PAGE, json!({ "selector": "audio[data-feed^=voice-]" }))?;
    open.call("untouched", PAGE, json!({ "selector": "body[data-sound=on] .sound[hidden]" }))?;
    ensure!(playing(&mut open)? > 0, "nothing plays where nothing is blocked");
    Ok(())
}

/// How many of the voices' elements play.
fn playing(browser: &mut Browser) -> anyhow::Result<usize> {
    let voices = browser.call("tones", PAGE, json!({ "ms": 100 }))?;
    Ok(voices.as_array().map_or(0, |all| all.iter().filter(|v| v["paused"] == Value::Bool(false)).count()))
}
