//! A console for scripts: acts as JSON lines on standard input, the register as JSON lines on standard output.
//!
//! For tests, demonstrations and consoles that others build. It is as local as the pipe: whoever starts the gate holds its end. Each
//! line that can be read is a sign of life, and so is the open pipe itself, unless the script says `{"alive": false}`.

use crate::core::{Event, Inbox, Lane, View, now};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use trocar_proto::handover::gate::{Act, Input};
use trocar_proto::handover::message::{Mode, Short};
use trocar_proto::handover::types::{Colour, ExpertId, GrantedSet, Oid};

/// Signs of life.
const ALIVE: Duration = Duration::from_millis(200);
/// Longest line that is read.
const MAX_LINE: u64 = 4_096;

/// One line in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// `take`, `offer`, `withdraw`, `confirm`, `confirm-amber`, `estop`, `reset`, `close` or `mute`.
    act: Option<String>,
    /// Of an offer: the expert's certificate name, its last part, or the person; of `mute`: the person.
    to: Option<String>,
    /// Of an offer: `camera`, `instruments`, `energy`, joined by `+`; energy brings instruments with it.
    set: Option<String>,
    /// Of an offer: the declared step.
    step: Option<String>,
    /// Whether the open pipe counts as a sign of life from now on.
    alive: Option<bool>,
}

/// One line out.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told<'a> {
    /// The register changed, or a tenth of a second passed.
    View(Box<Shown<'a>>),
    /// What came of an act.
    Answer { at_us: u64, act: &'a str, error: Option<String> },
    /// A line that could not be used.
    Mistake { line: &'a str, error: String },
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    at_us: u64,
    mode: &'static str,
    epoch: u64,
    since_us: u64,
    until_us: Option<u64>,
    expert: Option<&'a str>,
    person: Option<&'a str>,
    set: u8,
    step: &'a str,
    stopped: Option<u8>,
    alarms: u16,
    colours: [&'static str; 4],
    figures: [u32; 5],
    device: Option<DeviceShown>,
    connected: Vec<Somebody<'a>>,
    notices: Vec<String>,
    counters: Vec<(&'static str, u64)>,
}

#[derive(Debug, Serialize)]
struct DeviceShown {
    heard_us: u64,
    highest: u64,
    selected: String,
    latched: bool,
    overridden: bool,
}

#[derive(Debug, Serialize)]
struct Somebody<'a> {
    channel: u32,
    certificate: &'a str,
    person: Option<&'a str>,
    signaling: bool,
}

/// The register's state as one lower-case word.
#[must_use]
pub const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Hold => "hold",
        Mode::Local => "local",
        Mode::Offered => "offered",
        Mode::Ready => "ready",
        Mode::Granting => "granting",
        Mode::Remote => "remote",
        Mode::Estop => "estop",
        Mode::Closed => "closed",
    }
}

const fn colour_name(colour: Colour) -> &'static str {
    match colour {
        Colour::Unmeasured => "unmeasured",
        Colour::Green => "green",
        Colour::Amber => "amber",
        Colour::Red => "red",
    }
}

/// Starts the two threads: one reads, one writes and shows signs of life. When standard input ends, the signs end, and the console is
/// lost as any other would be.
///
/// # Errors
/// Where a thread cannot be started.
pub fn start(inbox: &Inbox, view: watch::Receiver<Arc<View>>) -> std::io::Result<()> {
    let open = Arc::new(AtomicBool::new(true));
    let (reading, inbox_in, view_in) = (Arc::clone(&open), inbox.clone(), view.clone());
    let spawn =
        |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawn("console-in", Box::new(move || read(&inbox_in, &view_in, &reading)))?;
    let inbox = inbox.clone();
    spawn("console-out", Box::new(move || write(&inbox, &view, &open)))?;
    Ok(())
}

fn read(inbox: &Inbox, view: &watch::Receiver<Arc<View>>, alive: &AtomicBool) {
    let mut input = std::io::BufReader::new(std::io::stdin());
    loop {
        let mut line = String::new();
        match std::io::Read::take(&mut input, MAX_LINE).read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) if line.trim().is_empty() => {}
            Ok(_) => take_line(inbox, view, alive, line.trim()),
        }
    }
    alive.store(false, Ordering::Relaxed);
}

fn take_line(inbox: &Inbox, view: &watch::Receiver<Arc<View>>, alive: &AtomicBool, text: &str) {
    let mistake = |error: String| tell(&Told::Mistake { line: text, error });
    let line: Line = match serde_json::from_str(text) {
        Ok(line) => line,
        Err(e) => return mistake(e.to_string()),
    };
    if let Some(on) = line.alive {
        alive.store(on, Ordering::Relaxed);
    }
    let Some(name) = line.act.clone() else { return };
    let act = match act_of(&line, &name, &view.borrow()) {
        Ok(act) => act,
        Err(error) => return mistake(error),
    };
    let (reply, answer) = oneshot::channel();
    if inbox.push(Lane::Local, Event::Act(act, Some(reply))).is_err() {
        return mistake("the gate is too busy to hear this".to_owned());
    }
    let error = match answer.blocking_recv() {
        Ok(result) => result.err().map(|reason| reason.to_string()),
        Err(_) => Some("the gate has stopped".to_owned()),
    };
    tell(&Told::Answer { at_us: now().0, act: &name, error });
}

fn act_of(line: &Line, name: &str, view: &View) -> Result<Act, String> {
    Ok(match name {
        "take" => Act::Take,
        "withdraw" => Act::Withdraw,
        "confirm" => Act::Confirm,
        "confirm-amber" => Act::ConfirmAmber,
        "estop" => Act::Estop,
        "reset" => Act::Reset,
        "close" => Act::Close,
        "mute" => Act::Mute(short("to", line.to.as_deref())?),
        "offer" => Act::Offer {
            oid: Oid(0),
            expert: expert(line.to.as_deref(), view)?,
            set: set(line.set.as_deref().unwrap_or("instruments"))?,
            step: short("step", line.step.as_deref())?,
        },
        other => {
            return Err(format!(
                "act {other:?}: take, offer, withdraw, confirm, confirm-amber, estop, reset, close or mute is right"
            ));
        }
    })
}

fn short(field: &str, text: Option<&str>) -> Result<Short, String> {
    Short::new(text.unwrap_or_default()).map_err(|e| format!("{field}: {e}"))
}

/// `camera`, `instruments`, `energy`, joined by `+`; energy brings instruments with it.
///
/// # Errors
/// Names the word that is none of them.
pub fn set(text: &str) -> Result<GrantedSet, String> {
    let mut set = GrantedSet::default();
    for word in text.split('+') {
        match word.trim() {
            "camera" => set.camera = true,
            "instruments" => set.instruments = true,
            "energy" => (set.instruments, set.energy) = (true, true),
            other => return Err(format!("set {other:?}: camera, instruments and energy, joined by +, are right")),
        }
    }
    Ok(set)
}

/// The one who is connected and called so; without a name, the only one.
fn expert(name: Option<&str>, view: &View) -> Result<ExpertId, String> {
    let is = |text: &str| name.is_none_or(|n| text == n || text.rsplit('/').next() == Some(n));
    let mut found: Vec<ExpertId> = view
        .connected
        .iter()
        .filter(|c| !c.is_signaling && c.who.person.is_some())
        .filter(|c| is(&c.who.certificate) || c.who.person.as_ref().is_some_and(|p| is(p.as_str())))
        .map(|c| c.who.expert)
        .collect();
    found.dedup();
    match (found.as_slice(), name) {
        ([one], _) => Ok(*one),
        ([], name) => Err(format!("to {name:?}: no such expert has said HELLO")),
        (_, name) => Err(format!("to {name:?}: more than one expert; the certificate's name is right")),
    }
}

fn write(inbox: &Inbox, view: &watch::Receiver<Arc<View>>, alive: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    // Without a timer there are no signs of life, and the gate says that its console is lost.
    let Ok(runtime) = runtime else { return };
    let mut view = view.clone();
    runtime.block_on(async {
        loop {
            if alive.load(Ordering::Relaxed) {
                inbox.input(Lane::Local, Input::Console);
            }
            let latest = Arc::clone(&view.borrow_and_update());
            tell(&Told::View(Box::new(shown(&latest))));
            // A change is told at once; without one, the next line comes with the next sign of life.
            let news = async {
                while view.changed().await.is_ok() {
                    if changed(&latest, &view.borrow_and_update()) {
                        return true;
                    }
                }
                false
            };
            if let Ok(false) = tokio::time::timeout(ALIVE, news).await {
                return;
            }
        }
    });
}

/// Whether there is news, beside the running clock.
fn changed(a: &View, b: &View) -> bool {
    (a.mode, a.epoch, a.stopped, a.alarms, a.colours) != (b.mode, b.epoch, b.stopped, b.alarms, b.colours)
        || a.connected != b.connected
        || a.notices.len() != b.notices.len()
        || a.notices.last() != b.notices.last()
}

fn shown(view: &View) -> Shown<'_> {
    let c = view.colours.all();
    let f = view.figures;
    Shown {
        at_us: view.at.0,
        mode: mode_name(view.mode),
        epoch: view.epoch.0,
        since_us: view.since.0,
        until_us: view.until.map(|at| at.0),
        expert: view.expert.as_ref().map(|w| w.certificate.as_str()),
        person: view.expert.as_ref().and_then(|w| w.person.as_ref()).map(Short::as_str),
        set: view.set.bits(),
        step: view.step.as_str(),
        stopped: view.stopped.map(|c| c.0),
        alarms: view.alarms.0,
        colours: c.map(colour_name),
        figures: [f.loop_p50, f.loop_p95, f.jitter_p95, f.loss_ppm, f.frame_age],
        device: view.device.map(|(d, at)| DeviceShown {
            heard_us: at.0,
            highest: d.highest.0,
            selected: format!("{:?}", d.selected).to_lowercase(),
            latched: d.latched,
            overridden: d.overridden,
        }),
        connected: view
            .connected
            .iter()
            .map(|c| Somebody {
                channel: c.channel.0,
                certificate: &c.who.certificate,
                person: c.who.person.as_ref().map(Short::as_str),
                signaling: c.is_signaling,
            })
            .collect(),
        notices: view.notices.iter().map(|(_, n)| format!("{n:?}")).collect(),
        counters: view.counters.clone(),
    }
}

/// A reader that went away takes nothing with it.
fn tell(told: &Told<'_>) {
    if let Ok(mut line) = serde_json::to_vec(told) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_a_wrong_word_is_named() {
        assert_eq!(set("energy").unwrap(), GrantedSet::ENERGY);
        assert_eq!(set("camera+instruments").unwrap().bits(), 3);
        assert!(set("scalpel").unwrap_err().contains("\"scalpel\""));
    }

    #[test]
    fn a_mistake_in_a_line_is_named() {
        let cfg = Arc::new(trocar_proto::handover::config::Config::default());
        let view = crate::core::first_view(&cfg);
        let act = |text: &str| {
            let line: Line = serde_json::from_str(text).unwrap();
            let name = line.act.clone().unwrap();
            act_of(&line, &name, &view)
        };
        assert_eq!(act(r#"{"act":"take"}"#), Ok(Act::Take));
        assert!(act(r#"{"act":"jump"}"#).unwrap_err().contains("take, offer"));
        assert!(act(r#"{"act":"offer","to":"x"}"#).unwrap_err().contains("no such expert"));
        assert!(serde_json::from_str::<Line>(r#"{"act":"take","now":1}"#).is_err());
    }
}
