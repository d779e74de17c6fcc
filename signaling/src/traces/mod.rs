//! Traces for OpenTelemetry: how long it took from an invitation to the first frame, and how each handover of control went. Made of what
//! signaling sees anyhow, and of a viewer's word that it shows a picture; nothing is asked of the media workers. No name, title or patient is in them: ids and roles alone.
//!
//! Loss policy: what is under way is bounded ([`OPEN_MAX`]); one more is not traced. What waits to be sent is bounded ([`QUEUE`]); one more
//! is dropped, as is one that the collector does not take. All are counted in `trocar_signaling_traces_dropped`.

mod otlp;

pub(crate) use otlp::Exporter;

use crate::config::ConfigError;
use crate::figures::{Figures, ReasonLabels};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use trocar_proto::session::ids::{LegId, ParticipantId, SessionId};
use trocar_proto::session::role::Role;
use trocar_proto::units::WallMicros;

/// Joins, and handovers, that are under way.
const OPEN_MAX: usize = 1_024;
/// Traces that wait to be sent.
const QUEUE: usize = 256;
/// Steps of one trace; what a gate changes to beyond them is in the whole alone.
const STEPS_MAX: usize = 64;
/// A join without a first frame by then is none that somebody waits for, in microseconds.
const JOIN_MAX_US: u64 = 600_000_000;
/// So long after the last that the relay says of a leg, its viewer's word is waited for, in microseconds.
const SHOWN_MAX_US: u64 = 10_000_000;

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// Base of an OTLP/HTTP receiver, such as `http://127.0.0.1:4318`; `/v1/traces` is added.
    pub endpoint: String,
    /// `service.name` of everything that is sent.
    pub service_name: String,
}

impl TracesConfig {
    /// What the types do not say.
    ///
    /// # Errors
    /// Names the value.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, expected| Err(ConfigError { field, expected });
        let good = reqwest::Url::parse(&self.endpoint).is_ok_and(|url| crate::outgoing::is_private(&url));
        if !good {
            return bad(
                "traces.endpoint",
                "https://HOST:PORT, or http://127.0.0.1:4318 of a collector on this machine",
            );
        }
        if !(1..=64).contains(&self.service_name.chars().count()) {
            return bad("traces.service_name", "1 to 64 characters");
        }
        Ok(())
    }
}

/// Something that took a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    name: &'static str,
    begin: WallMicros,
    end: WallMicros,
}

/// A whole trace: one span, and its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    whole: Step,
    attributes: Vec<(&'static str, String)>,
    steps: Vec<Step>,
}

/// What is under way.
#[derive(Debug)]
pub(crate) struct Traces {
    joins: BTreeMap<ParticipantId, Join>,
    legs: BTreeMap<LegId, ParticipantId>,
    handovers: BTreeMap<SessionId, Handover>,
    queue: mpsc::Sender<Trace>,
    figures: Arc<Figures>,
}

#[derive(Debug)]
struct Join {
    session: SessionId,
    role: Role,
    steps: Vec<Step>,
    leg: Option<LegId>,
    /// When the last step that there is ended or, where one is under way, began.
    mark: WallMicros,
    /// The last that the relay says of the leg, where it has said it.
    said: Option<&'static str>,
    /// When its viewer said that it shows a picture. The word and the relay's come by different ways: either may be first.
    shown: Option<WallMicros>,
}

impl Join {
    fn step(&mut self, now: WallMicros, name: &'static str) {
        // A relay may say twice that a leg is connected.
        if self.steps.iter().any(|s| s.name == name) {
            return;
        }
        // What the relay says late was before the picture was seen.
        let end = self.shown.map_or(now, |shown| now.min(shown)).max(self.mark);
        self.steps.push(Step { name, begin: self.mark, end });
        self.mark = end;
    }

    /// Whether nobody is waited for any more.
    fn is_over(&self, now: WallMicros) -> bool {
        let since = self.shown.map_or(self.mark, |shown| shown.max(self.mark));
        let is_late = now.0.saturating_sub(since.0) >= SHOWN_MAX_US;
        match (self.said, self.shown) {
            (Some(_), Some(_)) => true,
            (None, None) => false,
            _ => is_late,
        }
    }
}

#[derive(Debug)]
struct Handover {
    begin: WallMicros,
    mode: &'static str,
    since: WallMicros,
    steps: Vec<Step>,
    granted: bool,
}

impl Handover {
    /// The state that there is ends.
    fn note(&mut self, now: WallMicros) {
        self.granted |= self.mode == "remote";
        if self.steps.len() < STEPS_MAX {
            self.steps.push(Step { name: self.mode, begin: self.since, end: now });
        }
    }
}

impl Traces {
    /// With the other end of its queue.
    pub(crate) fn new(figures: Arc<Figures>) -> (Self, mpsc::Receiver<Trace>) {
        let (queue, traces) = mpsc::channel(QUEUE);
        let traces_of =
            Self { joins: BTreeMap::new(), legs: BTreeMap::new(), handovers: BTreeMap::new(), queue, figures };
        (traces_of, traces)
    }

    /// An invitation that came at `asked` was redeemed by now.
    pub(crate) fn joined(
        &mut self,
        now: WallMicros,
        asked: WallMicros,
        who: &ParticipantId,
        session: &SessionId,
        role: Role,
    ) {
        self.sweep(now);
        if self.joins.len() >= OPEN_MAX {
            return self.drop_one("open");
        }
        let steps = vec![Step { name: "redeem invitation", begin: asked, end: now }];
        let join = Join { session: session.clone(), role, steps, leg: None, mark: now, said: None, shown: None };
        self.joins.insert(who.clone(), join);
    }

    /// A leg is asked for.
    pub(crate) fn leg_asked(&mut self, now: WallMicros, leg: &LegId, owner: &ParticipantId) {
        // The first leg alone is waited for.
        let Some(join) = self.joins.get_mut(owner).filter(|j| j.leg.is_none()) else { return };
        (join.leg, join.mark) = (Some(leg.clone()), now);
        self.legs.insert(leg.clone(), owner.clone());
    }

    /// The relay has answered the offer.
    pub(crate) fn leg_answered(&mut self, now: WallMicros, leg: &LegId) {
        self.step(now, leg, "negotiate");
    }

    /// ICE and DTLS, or QUIC, stand. Of a native leg the relay says no more.
    pub(crate) fn leg_connected(&mut self, now: WallMicros, leg: &LegId, is_native: bool) {
        self.step(now, leg, "connect");
        if is_native {
            self.said_all(now, leg, "connected");
        }
    }

    /// The leg is gone. What was a join until then is one; else its owner may ask for another leg.
    pub(crate) fn leg_gone(&mut self, leg: &LegId) {
        let Some(owner) = self.legs.get(leg).cloned() else { return };
        if self.joins.get(&owner).is_some_and(|j| j.said.is_some() || j.shown.is_some()) {
            return self.join_over(&owner);
        }
        self.legs.remove(leg);
        if let Some(join) = self.joins.get_mut(&owner) {
            join.leg = None;
            join.steps.truncate(1);
        }
    }

    /// The relay sent it a frame, the first or another one.
    pub(crate) fn leg_sent(&mut self, now: WallMicros, leg: &LegId) {
        self.step(now, leg, "first frame");
        self.said_all(now, leg, "first frame");
    }

    /// The viewer says that it shows the leg's first picture. Nobody else's word counts, and the first alone.
    pub(crate) fn leg_shown(&mut self, now: WallMicros, leg: &LegId, by: &ParticipantId) {
        if self.legs.get(leg) != Some(by) {
            return;
        }
        let Some(join) = self.joins.get_mut(by) else { return };
        join.shown.get_or_insert(now.max(join.mark));
        if join.is_over(now) {
            self.join_over(by);
        }
    }

    /// Ends the joins whose viewers' word, or whose relay's, is waited for no longer, and forgets those that led to nothing.
    pub(crate) fn sweep(&mut self, now: WallMicros) {
        let over: Vec<ParticipantId> =
            self.joins.iter().filter(|(_, j)| j.is_over(now)).map(|(who, _)| who.clone()).collect();
        for who in over {
            self.join_over(&who);
        }
        self.joins.retain(|_, j| now.0.saturating_sub(j.mark.0) < JOIN_MAX_US);
        let joins = &self.joins;
        self.legs.retain(|_, owner| joins.contains_key(owner));
    }

    /// The relay says no more of the leg than that.
    fn said_all(&mut self, now: WallMicros, leg: &LegId, what: &'static str) {
        let Some(owner) = self.legs.get(leg).cloned() else { return };
        let Some(join) = self.joins.get_mut(&owner) else { return };
        join.said.get_or_insert(what);
        if join.is_over(now) {
            self.join_over(&owner);
        }
    }

    /// Sends what there is of a join, and says until when that is.
    fn join_over(&mut self, owner: &ParticipantId) {
        let Some(mut join) = self.joins.remove(owner) else { return };
        let Some(leg) = join.leg.take() else { return };
        self.legs.remove(&leg);
        if let Some(shown) = join.shown {
            join.step(shown, "shown");
        }
        let until = if join.shown.is_some() { "shown" } else { join.said.unwrap_or_default() };
        let begin = join.steps.first().map_or(join.mark, |s| s.begin);
        self.send(Trace {
            whole: Step { name: "join", begin, end: join.mark },
            attributes: vec![
                ("trocar.session", join.session.to_string()),
                ("trocar.participant", owner.to_string()),
                ("trocar.role", join.role.name().to_owned()),
                ("trocar.leg", leg.to_string()),
                ("trocar.until", until.to_owned()),
            ],
            steps: join.steps,
        });
    }

    /// Somebody is in the session no more.
    pub(crate) fn left(&mut self, who: &ParticipantId) {
        let leg = self.joins.get(who).and_then(|j| j.leg.clone());
        leg.iter().for_each(|leg| self.leg_gone(leg));
        self.joins.remove(who);
    }

    /// What a session's gate said.
    pub(crate) fn mode(&mut self, now: WallMicros, session: &SessionId, said: &str) {
        let mode = ["offered", "ready", "granting", "remote"].into_iter().find(|m| *m == said);
        let is_full = self.handovers.len() >= OPEN_MAX;
        match (self.handovers.get_mut(session), mode) {
            (None, None) => {}
            (None, Some(_)) if is_full => self.drop_one("open"),
            (None, Some(mode)) => {
                let begun = Handover { begin: now, mode, since: now, steps: Vec::new(), granted: false };
                self.handovers.insert(session.clone(), begun);
            }
            (Some(open), Some(mode)) if open.mode == mode => {}
            (Some(open), Some(mode)) => {
                open.note(now);
                (open.mode, open.since) = (mode, now);
            }
            (Some(_), None) => self.ended(now, session, said),
        }
    }

    /// The gate cannot be heard any more, or the session is closed.
    pub(crate) fn ended(&mut self, now: WallMicros, session: &SessionId, how: &str) {
        let Some(mut open) = self.handovers.remove(session) else { return };
        open.note(now);
        self.send(Trace {
            whole: Step { name: "handover", begin: open.begin, end: now },
            attributes: vec![
                ("trocar.session", session.to_string()),
                ("trocar.granted", open.granted.to_string()),
                ("trocar.ended", how.chars().take(16).collect()),
            ],
            steps: open.steps,
        });
    }

    fn step(&mut self, now: WallMicros, leg: &LegId, name: &'static str) {
        if let Some(join) = self.legs.get(leg).and_then(|owner| self.joins.get_mut(owner)) {
            join.step(now, name);
        }
    }

    fn send(&self, trace: Trace) {
        if self.queue.try_send(trace).is_err() {
            self.drop_one("queue");
        }
    }

    fn drop_one(&self, reason: &'static str) {
        self.figures.traces_dropped.get_or_create(&ReasonLabels { reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> WallMicros {
        WallMicros(1_700_000_000_000_000 + ms * 1_000)
    }

    fn shown(trace: &Trace) -> Vec<(&'static str, u64, u64)> {
        let ms = |s: &Step| (s.name, (s.begin.0 - at(0).0) / 1_000, (s.end.0 - at(0).0) / 1_000);
        [&trace.whole].into_iter().chain(&trace.steps).map(ms).collect()
    }

    fn world() -> (Traces, mpsc::Receiver<Trace>, SessionId, ParticipantId, LegId) {
        let (traces, queue) = Traces::new(Arc::default());
        (traces, queue, SessionId::new("s").unwrap(), ParticipantId::new("p").unwrap(), LegId::new("l").unwrap())
    }

    fn until(trace: &Trace) -> &str {
        trace.attributes.iter().find(|(key, _)| *key == "trocar.until").map_or("", |(_, value)| value)
    }

    /// Has joined, has a leg and its answer.
    fn answered() -> (Traces, mpsc::Receiver<Trace>, ParticipantId, LegId) {
        let (mut t, queue, session, who, leg) = world();
        t.joined(at(5), at(0), &who, &session, Role::Expert);
        t.leg_asked(at(20), &leg, &who);
        t.leg_answered(at(30), &leg);
        (t, queue, who, leg)
    }

    #[test]
    fn a_join_ends_with_its_first_picture_on_the_screen_and_says_what_took_how_long() {
        let (mut t, mut queue, who, leg) = answered();
        t.leg_connected(at(70), &leg, false);
        t.leg_connected(at(75), &leg, false);
        t.leg_sent(at(90), &leg);
        t.leg_sent(at(95), &leg);
        t.leg_shown(at(100), &leg, &ParticipantId::new("other").unwrap());
        t.leg_shown(at(101), &LegId::new("other").unwrap(), &who);
        t.sweep(at(102));
        assert!(queue.try_recv().is_err(), "the control: nothing before the viewer's own word");
        t.leg_shown(at(120), &leg, &who);
        let trace = queue.try_recv().unwrap();
        assert_eq!(
            shown(&trace),
            [
                ("join", 0, 120),
                ("redeem invitation", 0, 5),
                ("negotiate", 20, 30),
                ("connect", 30, 70),
                ("first frame", 70, 90),
                ("shown", 90, 120)
            ]
        );
        assert!(trace.attributes.contains(&("trocar.role", "expert".to_owned())), "{trace:?}");
        assert_eq!(until(&trace), "shown");
        t.leg_sent(at(121), &leg);
        t.leg_shown(at(122), &leg, &who);
        assert!(queue.try_recv().is_err(), "one trace for one join");
        assert!(t.joins.is_empty() && t.legs.is_empty());
    }

    #[test]
    fn of_a_native_leg_the_viewer_alone_says_when_it_shows_a_picture() {
        let (mut t, mut queue, who, leg) = answered();
        t.leg_connected(at(70), &leg, true);
        assert!(queue.try_recv().is_err());
        t.leg_shown(at(110), &leg, &who);
        let trace = queue.try_recv().unwrap();
        assert_eq!(shown(&trace)[3..], [("connect", 30, 70), ("shown", 70, 110)]);
        assert_eq!((until(&trace), trace.whole.end), ("shown", at(110)));
    }

    #[test]
    fn where_no_viewer_says_anything_the_join_ends_with_what_the_relay_said_and_says_so() {
        let wait = SHOWN_MAX_US / 1_000;
        for (is_native, last, said) in
            [(true, ("connect", 30, 70), "connected"), (false, ("first frame", 70, 90), "first frame")]
        {
            let (mut t, mut queue, _, leg) = answered();
            t.leg_connected(at(70), &leg, is_native);
            if !is_native {
                t.leg_sent(at(90), &leg);
            }
            t.sweep(at(last.2 + wait - 1));
            assert!(queue.try_recv().is_err(), "it may still come");
            t.sweep(at(last.2 + wait));
            let trace = queue.try_recv().unwrap();
            assert_eq!((shown(&trace).last(), shown(&trace)[0].2, until(&trace)), (Some(&last), last.2, said));
            assert!(t.joins.is_empty() && t.legs.is_empty());
        }
    }

    #[test]
    fn a_viewers_word_that_overtakes_the_relays_bounds_it_and_is_not_lost_where_that_never_comes() {
        let (mut t, mut queue, who, leg) = answered();
        t.leg_shown(at(60), &leg, &who);
        t.leg_shown(at(65), &leg, &who);
        t.leg_connected(at(70), &leg, false);
        assert!(queue.try_recv().is_err(), "the relay has more to say");
        t.leg_sent(at(80), &leg);
        let whole = shown(&queue.try_recv().unwrap());
        assert_eq!(whole[3..], [("connect", 30, 60), ("first frame", 60, 60), ("shown", 60, 60)]);
        let (mut t, mut queue, who, leg) = answered();
        t.leg_shown(at(60), &leg, &who);
        t.sweep(at(60 + SHOWN_MAX_US / 1_000));
        let trace = queue.try_recv().unwrap();
        assert_eq!((shown(&trace)[3], until(&trace)), (("shown", 30, 60), "shown"));
    }

    #[test]
    fn who_leaves_before_saying_anything_has_joined_all_the_same() {
        for leaves in [true, false] {
            let (mut t, mut queue, who, leg) = answered();
            t.leg_connected(at(70), &leg, true);
            if leaves {
                t.left(&who)
            } else {
                t.leg_gone(&leg)
            }
            assert_eq!(until(&queue.try_recv().unwrap()), "connected");
            assert!(t.joins.is_empty() && t.legs.is_empty());
        }
    }

    #[test]
    fn a_gate_that_changes_without_end_makes_no_trace_without_end() {
        let (mut t, mut queue, session, ..) = world();
        for n in 0..1_000 {
            t.mode(at(n), &session, if n % 2 == 0 { "offered" } else { "ready" });
        }
        t.mode(at(1_000), &session, "remote");
        t.mode(at(1_001), &session, "local");
        let trace = queue.try_recv().unwrap();
        assert_eq!((trace.steps.len(), trace.whole.end), (STEPS_MAX, at(1_001)));
        assert!(
            trace.attributes.contains(&("trocar.granted", "true".to_owned())),
            "it is known all the same: {trace:?}"
        );
    }

    #[test]
    fn a_leg_that_is_given_up_does_not_count_and_who_leaves_is_forgotten() {
        let (mut t, mut queue, session, who, leg) = world();
        t.joined(at(5), at(0), &who, &session, Role::Observer);
        t.leg_asked(at(20), &leg, &who);
        t.leg_answered(at(30), &leg);
        t.leg_gone(&leg);
        t.leg_sent(at(31), &leg);
        t.leg_shown(at(31), &leg, &who);
        assert!(queue.try_recv().is_err());
        let second = LegId::new("l2").unwrap();
        t.leg_asked(at(50), &second, &who);
        t.leg_sent(at(60), &second);
        t.leg_shown(at(61), &second, &who);
        assert_eq!(shown(&queue.try_recv().unwrap())[2..], [("first frame", 50, 60), ("shown", 60, 61)]);
        t.joined(at(100), at(99), &who, &session, Role::Observer);
        t.leg_asked(at(101), &leg, &who);
        t.left(&who);
        t.leg_sent(at(102), &leg);
        t.leg_shown(at(102), &leg, &who);
        assert!(queue.try_recv().is_err() && t.joins.is_empty() && t.legs.is_empty());
    }

    #[test]
    fn a_handover_is_traced_from_the_offer_to_its_end_whatever_that_is() {
        let (mut t, mut queue, session, ..) = world();
        for (ms, mode) in [
            (0, "local"),
            (10, "offered"),
            (12, "offered"),
            (20, "ready"),
            (30, "granting"),
            (35, "remote"),
            (90, "local"),
        ] {
            t.mode(at(ms), &session, mode);
        }
        let trace = queue.try_recv().unwrap();
        assert_eq!(
            shown(&trace),
            [("handover", 10, 90), ("offered", 10, 20), ("ready", 20, 30), ("granting", 30, 35), ("remote", 35, 90)]
        );
        assert!(trace.attributes.contains(&("trocar.granted", "true".to_owned())), "{trace:?}");
        t.mode(at(100), &session, "offered");
        t.ended(at(110), &session, "gate lost");
        let trace = queue.try_recv().unwrap();
        assert!(trace.attributes.contains(&("trocar.granted", "false".to_owned())), "{trace:?}");
        assert!(trace.attributes.contains(&("trocar.ended", "gate lost".to_owned())), "{trace:?}");
        t.ended(at(120), &session, "gate lost");
        assert!(queue.try_recv().is_err(), "nothing was open");
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted() {
        let (mut t, queue, session, ..) = world();
        for i in 0..=OPEN_MAX {
            t.joined(at(1), at(0), &ParticipantId::new(format!("p{i}")).unwrap(), &session, Role::Observer);
        }
        assert_eq!(t.joins.len(), OPEN_MAX);
        let dropped = |t: &Traces, reason| t.figures.traces_dropped.get_or_create(&ReasonLabels { reason }).get();
        assert_eq!(dropped(&t, "open"), 1);
        for i in 0..=QUEUE {
            let session = SessionId::new(format!("s{i}")).unwrap();
            t.mode(at(1), &session, "offered");
            t.ended(at(2), &session, "local");
        }
        assert_eq!((dropped(&t, "queue"), queue.len()), (1, QUEUE));
        t.joined(at(1_000_000), at(999_999), &ParticipantId::new("late").unwrap(), &session, Role::Observer);
        assert_eq!(t.joins.len(), 1, "joins that led to no frame are forgotten");
    }
}
