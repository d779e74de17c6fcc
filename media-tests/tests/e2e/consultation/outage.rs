//! One of the two drops off the network for ten seconds and comes back.

use super::{Devices, HEARD_DB, PAGE, Person};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use trocar_media_tests::browser::{Browser, Options};
use trocar_media_tests::netns::{Namespace, Outage};
use trocar_media_tests::stack::Stack;

/// How long the network is gone.
const OUTAGE: Duration = Duration::from_secs(10);
/// Everything is back so soon after the network, in milliseconds.
const BACK_MS: f64 = 3_000.0;
/// A picture that stands still for longer must not be called live: the page's limit, its tick, and a busy machine.
const STANDS_MS: f64 = 700.0;
/// How long it takes a page at most to say that it has no connection, in milliseconds.
const SAID_MS: f64 = 4_500.0;

#[test]
fn who_loses_the_network_for_ten_seconds_is_back_within_three() -> anyhow::Result<()> {
    lose_the_network(Outage::Unplugged)
}

#[test]
fn whose_packets_are_swallowed_for_ten_seconds_is_back_within_three() -> anyhow::Result<()> {
    lose_the_network(Outage::Silent)
}

fn lose_the_network(outage: Outage) -> anyhow::Result<()> {
    let space = Namespace::new()?;
    let stack = Stack::start_at(&space.host())?;
    let _scope = stack.publish(&["--source", "test:640x360@30"])?;
    let devices = Devices::make()?;
    let here = Options { any_certificate: true, ..devices.of(0) };
    let there = Options { namespace: Some(space.name()), ..devices.of(1) };
    let mut a = Person::new(0, Browser::start_with(here)?);
    let mut b = Person::new(1, Browser::start_with(there)?);
    a.enter(&stack.invitation("expert")?, "en-GB")?;
    b.enter(&stack.invitation("local")?, "ja-JP")?;
    for person in [&mut a, &mut b] {
        person.click("talk.muted")?;
        person.wait("body[data-mic=open]")?;
    }
    for person in [&mut a, &mut b] {
        person.wait(".tile[data-purpose=scope][data-state=live][data-age-kind=known]")?;
        person.wait(".tile[data-purpose=room][data-state=live][data-speaking=yes]")?;
    }
    a.browser.call("record", PAGE, json!({ "hz": b.hz }))?;
    b.browser.call("record", PAGE, json!({ "hz": a.hz }))?;
    // The control of what follows: for a second everything is live and heard.
    std::thread::sleep(Duration::from_secs(1));

    space.cut(outage)?;
    let down = wall_ms()?;
    std::thread::sleep(OUTAGE / 2);
    b.shoot("outage")?;
    a.shoot("outage-of-the-other")?;
    std::thread::sleep(OUTAGE / 2);
    let up = space.mend(outage)?;
    for person in [&mut a, &mut b] {
        person.wait("body[data-connection=open]")?;
        person.wait(".tile[data-purpose=scope][data-state=live][data-age-kind=known]")?;
        person.wait(".tile[data-purpose=room][data-state=live][data-speaking=yes]")?;
    }
    // What came back has to stay: two seconds more are looked at.
    std::thread::sleep(Duration::from_secs(2));
    let (a_saw, b_saw) = (record(&mut a)?, record(&mut b)?);
    b.shoot("after-outage")?;
    println!("{outage:?}: {}", requests(&mut b, up)?);
    back_in_time(&b_saw, down, up)?;
    nothing_old_was_called_live(&b_saw)?;
    nothing_old_was_called_live(&a_saw)?;
    the_other_was_told(&a_saw, down, up)?;
    a.has_no_errors()
}

/// What the page asked the relay for since then: method, last part of the address, and after how many milliseconds.
fn requests(person: &mut Person, since: f64) -> anyhow::Result<String> {
    let log = person.browser.call("log", PAGE, json!({}))?;
    let all = log["requests"].as_array().context("requests")?.iter().filter(|r| at(r) >= since);
    let said = all.map(|r| {
        let (method, url) = (r["method"].as_str().unwrap_or("?"), r["url"].as_str().unwrap_or("?"));
        let path = url.split('?').next().unwrap_or(url);
        let mut parts = path.rsplit('/');
        let (last, above) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        format!("{method} {above}/{last} at {:.0}", at(r) - since)
    });
    Ok(said.collect::<Vec<_>>().join(", "))
}

fn wall_ms() -> anyhow::Result<f64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64() * 1e3)
}

fn record(person: &mut Person) -> anyhow::Result<Vec<Value>> {
    let samples = person.browser.call("recorded", PAGE, json!({}))?;
    Ok(samples.as_array().context("samples")?.clone())
}

fn at(sample: &Value) -> f64 {
    crate::number(sample, "/at")
}

/// The tile of a feed whose name begins so.
fn tile<'a>(sample: &'a Value, feed: &str) -> Option<&'a Value> {
    sample["tiles"].as_array()?.iter().find(|t| t["feed"].as_str().is_some_and(|f| f.starts_with(feed)))
}

fn is_moving(sample: &Value, feed: &str, since: f64) -> bool {
    tile(sample, feed).is_some_and(|t| {
        let last = crate::number(t, "/lastFrame");
        t["state"] == "live" && last > since && at(sample) - last < STANDS_MS
    })
}

fn is_heard(sample: &Value) -> bool {
    sample["db"].as_f64().is_some_and(|db| db > HEARD_DB)
}

/// How long after `from` something is true for the first time, in milliseconds.
fn first(samples: &[Value], from: f64, what: impl Fn(&Value) -> bool) -> f64 {
    samples.iter().find(|s| at(s) >= from && what(s)).map_or(f64::INFINITY, |s| at(s) - from)
}

/// The longest time in which something is never true, in milliseconds.
fn longest(samples: &[Value], what: impl Fn(&Value) -> bool) -> f64 {
    let ends = samples.first().into_iter().chain(samples.last());
    let mut times: Vec<f64> = samples.iter().filter(|s| what(s)).chain(ends).map(at).collect();
    times.sort_by(f64::total_cmp);
    times.windows(2).map(|w| w[1] - w[0]).fold(0.0, f64::max)
}

/// The page of the one who was away.
fn back_in_time(samples: &[Value], down: f64, up: f64) -> anyhow::Result<()> {
    let before = |s: &&Value| at(s) < down;
    ensure!(samples.iter().filter(before).any(is_heard), "nothing was heard before the outage");
    ensure!(samples.iter().filter(before).any(|s| is_moving(s, "scope", 0.0)), "nothing moved before the outage");
    let said = first(samples, down, |s| s["connection"] == "lost");
    let away = |s: &&Value| at(s) > down + said && at(s) < up;
    ensure!(
        samples.iter().filter(away).all(|s| s["connection"] == "lost" && s["banner"] != ""),
        "the page says nothing"
    );
    let sends = |s: &Value| s["sends"] == json!(["again", "again"]);
    ensure!(samples.iter().filter(away).all(sends), "the page says that microphone and camera are sent");
    ensure!(samples.first().is_some_and(|s| s["sends"] == json!(["open", "sending"])), "{:?}", samples.first());
    ensure!(!samples.iter().filter(away).any(is_heard), "a voice crossed a cable that was pulled out");
    let socket = first(samples, up, |s| s["connection"] == "open");
    let scope = first(samples, up, |s| is_moving(s, "scope", up));
    let camera = first(samples, up, |s| is_moving(s, "cam-", up));
    let voice = first(samples, up, is_heard);
    println!(
        "loss said after {said:.0} ms; back after: socket {socket:.0}, endoscope {scope:.0}, camera {camera:.0}, voice {voice:.0} ms"
    );
    ensure!(said <= SAID_MS, "the loss was said after {said} ms");
    for (what, ms) in [("socket", socket), ("endoscope", scope), ("camera", camera), ("voice", voice)] {
        ensure!(ms <= BACK_MS, "{what} was back after {ms} ms");
    }
    let last = samples.last().context("no samples")?;
    ensure!(is_moving(last, "scope", at(last) - STANDS_MS) && is_moving(last, "cam-", at(last) - STANDS_MS), "{last}");
    let age = tile(last, "scope").map_or(f64::NAN, |t| crate::number(t, "/age"));
    println!("age of the endoscope's picture {:.0} ms after the network came back: {age} ms", at(last) - up);
    ensure!(age < 300.0, "what was held up is still being played: {age} ms");
    Ok(())
}

/// At no moment a picture that stands still is called live, whoever's page it is.
fn nothing_old_was_called_live(samples: &[Value]) -> anyhow::Result<()> {
    for pair in samples.windows(2) {
        // A sample that comes late comes while the page was held up; so was what it would have written.
        if at(&pair[1]) - at(&pair[0]) > 200.0 {
            continue;
        }
        for t in pair[1]["tiles"].as_array().context("tiles")? {
            let stands = at(&pair[1]) - crate::number(t, "/lastFrame");
            ensure!(
                t["state"] != "live" || stands < STANDS_MS,
                "called live, and stands still for {stands} ms: {}",
                pair[1]
            );
        }
    }
    Ok(())
}

/// The page of the other one: the camera and the voice of who is away stop, and come back; everything else goes on.
fn the_other_was_told(samples: &[Value], down: f64, up: f64) -> anyhow::Result<()> {
    let stalled = first(samples, down, |s| tile(s, "cam-").is_some_and(|t| t["state"] == "stalled"));
    let camera = first(samples, up, |s| is_moving(s, "cam-", up));
    let voice = first(samples, up, is_heard);
    println!("the other: camera stalled after {stalled:.0} ms; back after: camera {camera:.0}, voice {voice:.0} ms");
    ensure!(stalled <= SAID_MS, "the other's camera was called stalled after {stalled} ms");
    ensure!(samples.iter().all(|s| s["connection"] == "open"), "the other lost the connection too");
    // Said or not, a busy machine holds a picture up now and then: that is not ten seconds.
    let (scope, away) =
        (longest(samples, |s| is_moving(s, "scope", 0.0)), longest(samples, |s| is_moving(s, "cam-", 0.0)));
    println!("the other: endoscope stood still for {scope:.0} ms at most, camera for {away:.0} ms");
    ensure!(scope <= 2_000.0 && away >= 9_000.0, "the endoscope stood still for the other too");
    ensure!(camera <= BACK_MS && voice <= BACK_MS, "camera back after {camera} ms, voice after {voice} ms");
    Ok(())
}
