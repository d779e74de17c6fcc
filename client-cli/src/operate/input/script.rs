//! `script:FILE`: an expert for tests and demonstrations. JSON lines as in `stdin`, each with when it is done: `at_ms` after the start, or
//! `when` something happens, and `after_ms` later.
//!
//! ```json
//! {"when":"offer","do":"accept"}
//! {"when":"accepted","after_ms":100,"presence":true,"pose":{"grip":0.5}}
//! {"when":"grant","after_ms":100,"clutch":"closed"}
//! {"when":"running","trajectory":"circle","hz":500,"seconds":10}
//! {"at_ms":60000,"do":"quit"}
//! ```
//! A line is done once; with `"again":true` each time.

use super::lines;
use crate::operate::acts::Act;
use crate::operate::inbox::Inbox;
use crate::operate::now;
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use trocar_proto::units::Micros;

/// Lines of a script at most.
const MAX_LINES: usize = 10_000;
/// Happenings that wait for a script; one more is not heard.
const WAITING: usize = 256;
/// Acts that wait for their time at most; one more is left out.
const PLANNED: usize = 10_000;

/// What a script can wait for, and what it means.
const TRIGGERS: [&str; 15] = [
    "start",
    "connected",
    "disconnected",
    "offer",
    "withdraw",
    "accepted",
    "grant",
    "control",
    "control_lost",
    "running",
    "stopped",
    "observer",
    "silence",
    "unknown",
    "nack",
];

/// Tells scripts what happens; cloned freely.
#[derive(Debug, Clone, Default)]
pub(in crate::operate) struct Happenings(Arc<Mutex<Vec<SyncSender<Happening>>>>);

/// What, and when.
type Happening = (&'static str, Micros);

/// What a script hears.
pub(in crate::operate) type Happened = Receiver<Happening>;

impl Happenings {
    /// From now on.
    pub(in crate::operate) fn listen(&self) -> Happened {
        let (tell, hear) = sync_channel(WAITING);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        hear
    }

    /// It happened. Never waits.
    pub(in crate::operate) fn tell(&self, what: &'static str, at: Micros) {
        debug_assert!(TRIGGERS.contains(&what), "{what}");
        for script in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = script.try_send((what, at));
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Step {
    when: &'static str,
    after: u64,
    again: bool,
    done: bool,
    acts: Vec<Act>,
}

/// A script that was read.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::operate) struct Script(Vec<Step>);

impl Script {
    /// From JSON lines; empty ones, and those that begin with `#` or `//`, are left out.
    ///
    /// # Errors
    /// Names the line and the key, and what would be right.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let wanted = |l: &&str| !(l.is_empty() || l.starts_with('#') || l.starts_with("//"));
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, l)| wanted(l));
        let steps = lines
            .map(|(n, line)| step(line).with_context(|| format!("line {}", n + 1)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if !(1..=MAX_LINES).contains(&steps.len()) {
            bail!("{} lines: 1 to {MAX_LINES} are right", steps.len());
        }
        Ok(Self(steps))
    }

    /// Does what it says until the core is gone.
    pub(super) fn run(mut self, inbox: &Inbox, happened: &Happened) {
        let mut planned = Planned::default();
        self.plan("start", now(), &mut planned);
        loop {
            for (at, act) in planned.due(now()) {
                inbox.act(at, act);
            }
            match happened.recv_timeout(planned.wait(now())) {
                Ok((what, at)) => self.plan(what, at, &mut planned),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn plan(&mut self, what: &str, at: Micros, planned: &mut Planned) {
        for step in self.0.iter_mut().filter(|s| s.when == what && (s.again || !s.done)) {
            step.done = true;
            planned.put(at.plus(step.after), &step.acts);
        }
    }
}

/// Acts by time, and in the order of the script within one moment.
#[derive(Debug, Default)]
struct Planned(Vec<(Micros, Act)>);

impl Planned {
    fn put(&mut self, at: Micros, acts: &[Act]) {
        for act in acts {
            let place = self.0.partition_point(|(t, _)| *t <= at);
            if self.0.len() < PLANNED {
                self.0.insert(place, (at, act.clone()));
            }
        }
    }

    /// Each with the time at which it was due.
    fn due(&mut self, now: Micros) -> Vec<(Micros, Act)> {
        let n = self.0.partition_point(|(t, _)| *t <= now);
        self.0.drain(..n).collect()
    }

    fn wait(&self, now: Micros) -> Duration {
        let next = self.0.first().map_or(1_000_000, |(t, _)| t.0.saturating_sub(now.0));
        Duration::from_micros(next.min(1_000_000))
    }
}

fn step(line: &str) -> anyhow::Result<Step> {
    let mut value: Value = serde_json::from_str(line).context("a line is a JSON object")?;
    let object = value.as_object_mut().context("a line is a JSON object")?;
    let mut ms = |key: &str| match object.remove(key) {
        None => Ok(None),
        Some(v) => match v.as_u64().filter(|ms| *ms <= 86_400_000) {
            Some(ms) => Ok(Some(ms * 1_000)),
            None => bail!("{key} is a number of milliseconds, at most 86400000"),
        },
    };
    let (at, after) = (ms("at_ms")?, ms("after_ms")?);
    let again = match object.remove("again") {
        None => false,
        Some(v) => v.as_bool().context("again is true or false")?,
    };
    let when = match (at, object.remove("when")) {
        (Some(_), Some(_)) => bail!("at_ms and when do not go together: after_ms goes with when"),
        (Some(_), None) if after.is_some() || again => bail!("at_ms goes alone: after_ms and again go with when"),
        (None, None) => bail!("at_ms or when is missing"),
        (Some(_), None) => "start",
        (None, Some(name)) => {
            let known = TRIGGERS.into_iter().find(|t| name.as_str() == Some(t));
            known.with_context(|| format!("when: {name} never happens; {} do", TRIGGERS.join(", ")))?
        }
    };
    let acts = lines::parse(&value.to_string())?;
    Ok(Step { when, after: at.or(after).unwrap_or(0), again, done: false, acts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_done_when_their_time_comes_and_once_unless_they_say_again() {
        let text = "# a script\n\n{\"when\":\"offer\",\"do\":\"accept\"}\n{\"when\":\"grant\",\"after_ms\":20,\"do\":\"return\"}\n\
                    {\"at_ms\":5,\"presence\":true}\n{\"when\":\"offer\",\"after_ms\":1,\"again\":true,\"clutch\":\"open\"}";
        let mut script = Script::parse(text).unwrap();
        let mut planned = Planned::default();
        let ms = |n: u64| Micros(n * 1_000);
        script.plan("start", ms(100), &mut planned);
        script.plan("offer", ms(101), &mut planned);
        assert_eq!(planned.wait(ms(101)), Duration::ZERO);
        assert_eq!(planned.due(ms(101)), [(ms(101), Act::Accept)]);
        assert_eq!(planned.due(ms(104)).len(), 1, "the clutch");
        assert!(matches!(planned.due(ms(105))[..], [(Micros(105_000), Act::Hands(_))]));
        script.plan("offer", ms(200), &mut planned);
        assert!(matches!(planned.due(ms(300))[..], [(Micros(201_000), Act::Hands(_))]), "accept was done already");
        script.plan("grant", ms(300), &mut planned);
        assert_eq!(planned.due(ms(319)), []);
        assert_eq!(planned.due(ms(320)), [(ms(320), Act::Return)]);
    }

    #[test]
    fn a_script_reaches_the_core_and_ends_with_whoever_tells_it_what_happens() {
        let script = Script::parse(r#"{"when":"offer","do":"accept"}"#).unwrap();
        let (inbox, core) = Inbox::new();
        let happenings = Happenings::default();
        let hear = happenings.listen();
        happenings.tell("connected", now());
        happenings.tell("offer", now());
        let running = std::thread::spawn(move || script.run(&inbox, &hear));
        let first = core.take(Duration::from_secs(5));
        assert!(matches!(first.acts.front(), Some((_, Act::Accept))), "{first:?}");
        drop(happenings);
        running.join().unwrap();
        assert!(core.take(Duration::ZERO).acts.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, want) in [
            ("", "0 lines"),
            ("{\"at_ms\":1,\"do\":\"accept\"}\n[]", "line 2"),
            (r#"{"do":"accept"}"#, "at_ms or when is missing"),
            (r#"{"when":"never","do":"accept"}"#, "never happens"),
            (r#"{"at_ms":1,"when":"offer","do":"accept"}"#, "do not go together"),
            (r#"{"at_ms":1,"after_ms":1,"do":"accept"}"#, "at_ms goes alone"),
            (r#"{"at_ms":-1,"do":"accept"}"#, "milliseconds"),
            (r#"{"at_ms":1}"#, "nothing to do"),
            (r#"{"at_ms":1,"presense":true}"#, "presense"),
        ] {
            let e = format!("{:#}", Script::parse(text).expect_err(text));
            assert!(e.contains(want), "{want:?} is not in {e:?}");
        }
    }
}
