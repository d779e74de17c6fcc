//! A console for scripts: acts as JSON lines on standard input, the register as JSON lines on standard output.
//!
//! For tests, demonstrations and consoles that others build. It is as local as the pipe: whoever starts the gate holds its end. Each
//! line that can be read is a sign of life, and nothing else is: a script says `{"alive": true}` as long as somebody is there, five times
//! a second. What a script does not read is dropped, and delays nobody.

use crate::consent::Withdrawal;
use crate::core::{Event, Inbox, Lane, View, now};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use trocar_proto::handover::gate::{Act, Input};
use trocar_proto::handover::message::Short;
use trocar_proto::handover::types::{Colour, ExpertId, GrantedSet, Oid};

/// A view is told at least this often.
const EVERY: Duration = Duration::from_millis(200);
/// Lines that wait for a script to read them. Loss policy: the newest is dropped; the next view says how things are.
const LINES: usize = 64;
/// Longest line that is read.
const MAX_LINE: u64 = 4_096;

/// One line in.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// `take`, `offer`, `withdraw`, `confirm`, `confirm-amber`, `estop`, `reset`, `close` or `mute`; or `withdraw-consent`, which is
    /// no act of the register.
    act: Option<String>,
    /// Of an offer: the expert's certificate name, its last part, or the person; of `mute`: the person.
    to: Option<String>,
    /// Of an offer: `camera`, `instruments`, `energy`, joined by `+`; energy brings instruments with it.
    set: Option<String>,
    /// Of an offer: the declared step.
    step: Option<String>,
    /// A sign of life; every other line is one too, unless it says false here.
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
    paths: &'static str,
    colours: [&'static str; 4],
    figures: [u32; 5],
    device: Option<DeviceShown>,
    connected: Vec<Somebody<'a>>,
    notices: Vec<String>,
    /// What keeps remote operation from being possible: `key: why` of each.
    troubles: &'a [String],
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

/// Starts three threads: one reads, one says how things are, one writes what the others say. When standard input ends, the signs of life
/// end, and the console is lost as any other would be.
///
/// # Errors
/// Where a thread cannot be started.
pub fn start(inbox: &Inbox, withdrawal: Withdrawal, view: watch::Receiver<Arc<View>>) -> std::io::Result<()> {
    let (lines, waiting) = sync_channel(LINES);
    let spawn =
        |name: &str, run: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let hand = Hand { inbox: inbox.clone(), withdrawal, view: view.clone(), answers: Teller(lines.clone()) };
    spawn("console-in", Box::new(move || hand.read()))?;
    spawn("console-views", Box::new(move || show(&view, &Teller(lines))))?;
    spawn("console-out", Box::new(move || write(&waiting)))?;
    Ok(())
}

/// Where lines are handed to the one who writes; never waits.
struct Teller(SyncSender<Vec<u8>>);

impl Teller {
    fn tell(&self, told: &Told<'_>) {
        if let Ok(mut line) = serde_json::to_vec(told) {
            line.push(b'\n');
            let _ = self.0.try_send(line);
        }
    }
}

/// A reader that went away takes nothing with it.
fn write(waiting: &Receiver<Vec<u8>>) {
    let mut out = std::io::stdout().lock();
    for line in waiting {
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

/// What a script can do.
struct Hand {
    inbox: Inbox,
    withdrawal: Withdrawal,
    view: watch::Receiver<Arc<View>>,
    answers: Teller,
}

impl Hand {
    fn read(&self) {
        let mut input = std::io::BufReader::new(std::io::stdin());
        loop {
            let mut line = String::new();
            match std::io::Read::take(&mut input, MAX_LINE).read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim().is_empty() => {}
                Ok(_) => self.take_line(line.trim()),
            }
        }
    }

    fn take_line(&self, text: &str) {
        let line: Line = match serde_json::from_str(text) {
            Ok(line) => line,
            Err(e) => return self.answers.tell(&Told::Mistake { line: text, error: e.to_string() }),
        };
        if line.alive != Some(false) {
            self.inbox.input(Lane::Local, Input::Console);
        }
        let Some(name) = &line.act else { return };
        if let Err(error) = self.act(&line, name) {
            self.answers.tell(&Told::Mistake { line: text, error });
        }
    }

    fn act(&self, line: &Line, name: &str) -> Result<(), String> {
        if name == "withdraw-consent" {
            let error =
                (!(self.withdrawal)()).then(|| "nobody heard it: the watch of the consent has ended".to_owned());
            self.answers.tell(&Told::Answer { at_us: now().0, act: name, error });
            return Ok(());
        }
        // A copy: whoever holds the view itself keeps the core from making the next one.
        let latest = Arc::clone(&self.view.borrow());
        let act = act_of(line, name, &latest)?;
        let (reply, answer) = oneshot::channel();
        let given = self.inbox.push(Lane::Local, Event::Act(act, Some(reply)));
        given.map_err(|_| "the gate is too busy to hear this".to_owned())?;
        let error = match answer.blocking_recv() {
            Ok(result) => result.err().map(|reason| reason.to_string()),
            Err(_) => Some("the gate has stopped".to_owned()),
        };
        self.answers.tell(&Told::Answer { at_us: now().0, act: name, error });
        Ok(())
    }
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
                "act {other:?}: take, offer, withdraw, confirm, confirm-amber, estop, reset, close, mute or withdraw-consent is right"
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

fn show(view: &watch::Receiver<Arc<View>>, views: &Teller) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return };
    let mut view = view.clone();
    runtime.block_on(async {
        loop {
            let latest = Arc::clone(&view.borrow_and_update());
            views.tell(&Told::View(Box::new(shown(&latest))));
            // A change is told at once; without one, the next line comes a fifth of a second later.
            let news = async {
                while view.changed().await.is_ok() {
                    if changed(&latest, &view.borrow_and_update()) {
                        return true;
                    }
                }
                false
            };
            if let Ok(false) = tokio::time::timeout(EVERY, news).await {
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
        || a.troubles != b.troubles
}

fn shown(view: &View) -> Shown<'_> {
    let c = view.colours.all();
    let f = view.figures;
    Shown {
        at_us: view.at.0,
        mode: view.mode.name(),
        epoch: view.epoch.0,
        since_us: view.since.0,
        until_us: view.until.map(|at| at.0),
        expert: view.expert.as_ref().map(|w| w.certificate.as_str()),
        person: view.expert.as_ref().and_then(|w| w.person.as_ref()).map(Short::as_str),
        set: view.set.bits(),
        step: view.step.as_str(),
        stopped: view.stopped.map(|c| c.0),
        alarms: view.alarms.0,
        paths: view.paths.name(),
        colours: c.map(Colour::name),
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
        troubles: &view.troubles,
        counters: view.counters.clone(),
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
