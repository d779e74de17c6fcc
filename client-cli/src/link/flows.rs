//! Runs flows over a session and hands out what came of them.

use super::session::Session;
use super::show::Show;
use anyhow::{Context as _, bail};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use trocar_link::measure::Stamp;
use trocar_link::measure::clock::{ClockModel, Estimate};
use trocar_link::measure::flow::{Known, Received, Way, evaluate};
use trocar_link::measure::log::Log;
use trocar_link::measure::message::{Answer, Ask};
use trocar_link::measure::pair::{Pair, compare};
use trocar_link::measure::schedule::FlowSpec;

/// A flow begins so long after it was agreed, in microseconds.
const BEGIN_US: Stamp = 5_000;
/// What has not come so long after the flow's end is lost (RFC 7680 section 2.8.2 wants such a threshold).
const LATE: Duration = Duration::from_secs(3);
/// Quiet for so long and two round trips, in microseconds: nothing more comes.
const QUIET_US: i64 = 300_000;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A flow that has run.
pub(super) struct Ran {
    pub(super) phase: u16,
    pub(super) way: Way,
    pub(super) spec: FlowSpec,
    pub(super) sent: u32,
    /// What came, where it came to us.
    log: Option<Log>,
}

/// Runs flows, and counts them.
pub(super) struct Flows {
    pub(super) session: Session,
    pub(super) second: Option<Session>,
    phase: u16,
}

impl Flows {
    pub(super) fn new(session: Session, second: Option<Session>) -> Self {
        Self { session, second, phase: 0 }
    }

    /// Runs flows at the same time, until everything has come that will.
    pub(super) fn run(
        &mut self,
        flows: &[(Way, FlowSpec)],
        show: &mut Show,
        name: &str,
        text: impl Fn(f64) -> String,
    ) -> anyhow::Result<Vec<Ran>> {
        let phases = self.number(flows.len());
        let ran = both(&[&self.session], flows, &phases, show, name, text)?;
        ran.into_iter().next().context("no flow")
    }

    /// The same flows on both sessions: what came on the first, and what the two have in common.
    pub(super) fn run_on_both(
        &mut self,
        flows: &[(Way, FlowSpec)],
        show: &mut Show,
        name: &str,
        text: impl Fn(f64) -> String,
    ) -> anyhow::Result<(Vec<Ran>, Vec<Pair>)> {
        let phases = self.number(flows.len());
        let Some(second) = &self.second else { bail!("no second path") };
        let mut ran = both(&[&self.session, second], flows, &phases, show, name, text)?;
        let (Some(others), Some(firsts)) = (ran.pop(), ran.pop()) else { bail!("no flow") };
        let mut pairs = Vec::new();
        for (a, b) in firsts.iter().zip(&others) {
            let sent = a.sent.min(b.sent);
            pairs.push(match (&a.log, &b.log) {
                (Some(a), Some(b)) => compare(a, b, sent),
                _ => match self.session.ask(Ask::Compare { phase: a.phase, other: second.id(), sent })? {
                    Answer::Compared { pair } => pair,
                    other => bail!("the two paths could not be compared: {other:?}"),
                },
            });
            second.ask(Ask::Forget { phase: b.phase })?;
        }
        Ok((firsts, pairs))
    }

    fn number(&mut self, flows: usize) -> Vec<u16> {
        let first = self.phase + 1;
        self.phase += flows as u16;
        (first..=self.phase).collect()
    }

    /// How the other clock stands, by everything so far.
    pub(super) fn clock(&self) -> Option<Estimate> {
        self.session.filter().estimate()
    }

    /// The figures of a flow, for the last time: the other end may forget it then.
    pub(super) fn received(&self, ran: &Ran, floor_us: Option<f64>, detail: bool) -> anyhow::Result<Received> {
        let received = self.look_at(ran, floor_us, detail)?;
        self.session.ask(Ask::Forget { phase: ran.phase })?;
        Ok(received)
    }

    /// The figures of a flow, by what is known of the clock so far.
    pub(super) fn look_at(&self, ran: &Ran, floor_us: Option<f64>, detail: bool) -> anyhow::Result<Received> {
        let clock = self.clock().map_or_else(ClockModel::default, |e| e.model);
        let known = Known { way: ran.way, sent: ran.sent, clock, floor_us, detail };
        let received = match &ran.log {
            Some(log) => evaluate(log, &known),
            None => self.session.report(ran.phase, known)?,
        };
        if received.overflow > 0 {
            bail!("{} packets came twice and more: this is no measurement", received.overflow);
        }
        Ok(received)
    }
}

/// Runs the same flows on several sessions at once: what has run, by session.
fn both(
    sessions: &[&Session],
    flows: &[(Way, FlowSpec)],
    phases: &[u16],
    show: &mut Show,
    name: &str,
    text: impl Fn(f64) -> String,
) -> anyhow::Result<Vec<Vec<Ran>>> {
    let began = Instant::now();
    for session in sessions {
        for ((way, spec), phase) in flows.iter().zip(phases) {
            session.begin(*phase, *way, *spec)?;
        }
    }
    let mut sending = Vec::new();
    let begin = sessions.first().map_or(0, |s| s.now()) + BEGIN_US;
    for session in sessions {
        for ((way, spec), phase) in flows.iter().zip(phases) {
            sending.push(if *way == Way::Up { Some(session.send(*phase, *spec, begin)?) } else { None });
        }
    }
    let longest = flows.iter().map(|(_, s)| s.duration_us).max().unwrap_or(0);
    let end = Instant::now() + Duration::from_micros(longest) + Duration::from_millis(10);
    while Instant::now() < end {
        std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
        if let Some(ended) = sessions.iter().find_map(|s| s.still().err()) {
            // At once: somebody needs the line.
            sending.iter().flatten().for_each(|(_, progress)| progress.stop.store(true, Ordering::Relaxed));
            return Err(ended);
        }
        show.tick(name, || text(began.elapsed().as_secs_f64()));
    }
    let mut all = Vec::new();
    let mut sending = sending.into_iter();
    for session in sessions {
        let mut ran = Vec::new();
        for ((way, spec), phase) in flows.iter().zip(phases) {
            let sent = match sending.next().flatten() {
                Some((thread, progress)) => {
                    // A thread that is late has a second more; what it did not send by then is not part of the flow.
                    let give_up = Instant::now() + Duration::from_secs(1);
                    while !thread.is_finished() && Instant::now() < give_up {
                        std::thread::sleep(LOOK);
                    }
                    progress.stop.store(true, Ordering::Relaxed);
                    thread.join().ok().context("the sender stopped")?
                }
                None => 0,
            };
            ran.push(drain(session, *way, *spec, *phase, sent)?);
        }
        all.push(ran);
    }
    Ok(all)
}

/// Waits until everything has come that will.
fn drain(session: &Session, way: Way, spec: FlowSpec, phase: u16, sent: u32) -> anyhow::Result<Ran> {
    let ended = Instant::now();
    let slowest = session.trips(session.now() - 2_000_000).iter().map(|t| t.rtt_us).fold(0.0, f64::max);
    let quiet_enough = QUIET_US + 2 * slowest as i64;
    let mut sent = sent;
    loop {
        let (remote_came, remote_quiet) = match session.ask(Ask::End { phase })? {
            Answer::Ended { sent: theirs, came, quiet_us } => {
                sent = if way == Way::Down { theirs } else { sent };
                (came, quiet_us)
            }
            // Its sender has not ended yet.
            Answer::No { .. } if ended.elapsed() < LATE * 2 => {
                std::thread::sleep(LOOK);
                continue;
            }
            other => bail!("the flow does not end: {other:?}"),
        };
        let (came, quiet) = if way == Way::Down { session.came(phase) } else { (remote_came, remote_quiet) };
        let waited = ended.elapsed();
        let quiet = quiet.min(waited.as_micros() as i64);
        if (came >= sent && quiet >= quiet_enough / 8) || quiet >= quiet_enough || waited >= LATE {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let log = if way == Way::Down { session.take_log(phase) } else { None };
    Ok(Ran { phase, way, spec, sent, log })
}
