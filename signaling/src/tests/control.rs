//! Operation authority at the event sockets, with a stand-in for the gate.

use super::serving::Running;
use super::sockets::Socket;
use super::*;
use crate::control::{Answer as Dialed, Dialer, GateLink, GateLinks};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trocar_proto::handover::gate::Alarms;
use trocar_proto::handover::message::{Figures, FromGate, Mode, Reason, Status, ToGate};
use trocar_proto::handover::types::{Colours, Epoch, ExpertId, GrantedSet, Nonce};

const SOON: Duration = Duration::from_secs(5);

/// The gate's end of a link.
struct Gate {
    from_signaling: mpsc::Receiver<ToGate>,
    to_signaling: mpsc::Sender<FromGate>,
    session: SessionId,
}

impl Gate {
    /// What signaling says next.
    async fn hears(&mut self) -> ToGate {
        timeout(SOON, self.from_signaling.recv()).await.expect("signaling said something").expect("it is there")
    }

    async fn says(&self, message: FromGate) {
        self.to_signaling.send(message).await.unwrap();
    }

    /// What signaling says next other than a probe.
    async fn hears_act(&mut self) -> ToGate {
        loop {
            match self.hears().await {
                ToGate::Probe { .. } => {}
                act => return act,
            }
        }
    }

    /// The number of the probe that signaling sends next.
    async fn hears_probe(&mut self) -> Nonce {
        let ToGate::Probe { nonce } = self.hears().await else { panic!("no probe") };
        nonce
    }

    async fn tells(&self, epoch: u64, mode: Mode, expert: Option<[u8; 32]>, answers: &[Nonce]) {
        self.tells_alarm(Alarms::CONSENT, (epoch, mode, expert), answers).await;
    }

    /// That it was stopped, to whoever asks by that probe.
    async fn tells_stop(&self, answers: &[Nonce]) {
        self.tells_alarm(Alarms::ESTOP, (7, Mode::Local, None), answers).await;
    }

    async fn tells_alarm(
        &self,
        alarms: Alarms,
        (epoch, mode, expert): (u64, Mode, Option<[u8; 32]>),
        answers: &[Nonce],
    ) {
        let status = Status {
            epoch: Epoch(epoch),
            mode,
            expert: expert.map(ExpertId),
            set: GrantedSet::INSTRUMENTS,
            since_ms: 40,
            stopped: 0,
            alarms: alarms.0,
            colours: Colours::GREEN,
            figures: Figures::default(),
            answers: answers.to_vec(),
            paths: trocar_proto::handover::paths::Protection::default(),
            timers: trocar_proto::handover::message::Timers::default(),
        };
        self.says(FromGate::Status(status)).await;
    }
}

/// Gives out links to gates that a test plays; without one it waits, as for a gate that is not there.
struct Gates {
    dials: mpsc::Sender<Gate>,
    /// Gates of one session.
    at_once: usize,
}

impl Dialer for Gates {
    fn dial<'a>(&'a self, session: &'a SessionId) -> Dialed<'a, Result<GateLinks, String>> {
        Box::pin(async move {
            let (found, links) = mpsc::channel(self.at_once);
            for _ in 0..self.at_once {
                let (to_gate, from_signaling) = mpsc::channel(64);
                let (to_signaling, from_gate) = mpsc::channel(64);
                let gate = Gate { from_signaling, to_signaling, session: session.clone() };
                // A channel of one: the test takes a gate when it wants one.
                self.dials.send(gate).await.map_err(|_| "no gates here".to_owned())?;
                found.try_send(GateLink { to_gate, from_gate }).unwrap();
            }
            Ok(links)
        })
    }
}

/// A server whose sessions' gates the test plays.
async fn world() -> (Running, mpsc::Receiver<Gate>) {
    world_of(1).await
}

/// The same with so many gates in each session.
async fn world_of(at_once: usize) -> (Running, mpsc::Receiver<Gate>) {
    let (dials, gates) = mpsc::channel(at_once);
    (Running::with_gates(Arc::new(Gates { dials, at_once })).await, gates)
}

/// The next gate, which was greeted.
async fn greeted(gates: &mut mpsc::Receiver<Gate>) -> Gate {
    let mut gate = timeout(SOON, gates.recv()).await.expect("somebody dialled").unwrap();
    assert!(matches!(gate.hears().await, ToGate::Hello { .. }), "HELLO comes first");
    gate
}

async fn listener(world: &Running, role: Role) -> (TokenGrant, Socket) {
    let invitation = world.handle.invite(&world.session, role, Duration::from_secs(3600)).await.unwrap();
    let grant = world.redeem_with(&invitation.invitation, &"07".repeat(32)).await;
    let (socket, _) = Socket::open(world, &grant).await;
    (grant, socket)
}

#[tokio::test]
async fn a_probe_goes_to_the_gate_and_its_answer_comes_back_to_whoever_asked() {
    // HO-V-001, HO-M-012, HO-M-013
    let (world, mut gates) = world().await;
    let (_, mut one) = listener(&world, Role::Observer).await;
    let mut gate = greeted(&mut gates).await;
    assert_eq!(gate.session, world.session);
    one.say(&json!({"type": "control_probe", "nonce": "00000000000000ab"})).await;
    let ToGate::Probe { nonce } = gate.hears().await else { panic!("no probe") };
    assert_ne!(nonce, Nonce(0xab), "many browsers' probes are one of signaling's own");
    gate.tells(7, Mode::Local, None, &[Nonce(1)]).await;
    gate.tells(7, Mode::Local, None, &[nonce]).await;
    let unanswered = one.next_of("control").await;
    assert_eq!(unanswered["control"]["answers"], json!([]), "{unanswered}");
    let answered = one.next_of("control").await["control"].clone();
    assert_eq!(answered["answers"], json!(["00000000000000ab"]));
    assert_eq!((&answered["mode"], &answered["epoch"]), (&json!("local"), &json!(7)));
    assert_eq!(answered["alarms"], json!(["consent not active"]));
    assert_eq!(answered["colours"], json!(["green", "green", "green", "green"]));
    assert_eq!((&answered["figures"][0], &answered["status_age_ms"]), (&Value::Null, &json!(500)));
}

#[tokio::test]
async fn a_probe_that_is_no_number_closes_the_socket_and_too_many_are_dropped() {
    let (world, mut gates) = world().await;
    let (_, mut one) = listener(&world, Role::Observer).await;
    let (_, mut two) = listener(&world, Role::Observer).await;
    let mut gate = greeted(&mut gates).await;
    one.say(&json!({"type": "control_probe", "nonce": "12"})).await;
    assert_eq!(one.closed().await, 1008);
    for n in 0..30 {
        two.say(&json!({"type": "control_probe", "nonce": format!("{n:016x}")})).await;
    }
    two.say(&json!({"type": "clock", "t0": 1})).await;
    two.next_of("clock_reply").await;
    let dropped: u64 = world.figure("trocar_signaling_control_probes_dropped_total ").await.parse().unwrap();
    assert!((15..=20).contains(&dropped), "{dropped}");
    // What was not dropped is answered, in one or more batches.
    let mut answered = 0;
    while answered < 30 - dropped {
        let ToGate::Probe { nonce } = gate.hears().await else { panic!("no probe") };
        gate.tells(1, Mode::Hold, None, &[nonce]).await;
        let control = two.next_of("control").await;
        answered += control["control"]["answers"].as_array().unwrap().len() as u64;
    }
}

#[tokio::test]
async fn an_expert_asks_for_control_and_nobody_else_does() {
    // HO-M-008
    let (world, mut gates) = world().await;
    let (expert, mut asks) = listener(&world, Role::Expert).await;
    let (_, mut sees) = listener(&world, Role::Observer).await;
    let mut gate = greeted(&mut gates).await;
    let request = json!({"type": "control_request", "reason": "retract",
        "set": {"camera": false, "instruments": true, "energy": false}});
    sees.say(&request).await;
    let refused = sees.next_of("refused").await;
    assert_eq!(refused["what"], "control_request");
    assert!(refused["detail"].as_str().unwrap().contains("observer does not ask for control"), "{refused}");
    asks.say(&request).await;
    let ToGate::Request { set, grade, reason } = gate.hears().await else { panic!("no request") };
    assert_eq!((set, grade), (GrantedSet::INSTRUMENTS, GrantedSet::INSTRUMENTS.grade()));
    assert_eq!(reason.as_str(), format!("expert ({}): retract", expert.participant));
    let receipt = gate.hears_probe().await;
    gate.tells(7, Mode::Local, None, &[receipt]).await;
    let notice = sees.next_of("control_notice").await;
    assert_eq!((&notice["what"], &notice["reason"]), (&json!("request"), &json!("retract")));
    // What the gate answers comes to whoever asked, and to nobody else.
    asks.say(&request).await;
    assert!(matches!(gate.hears().await, ToGate::Request { .. }));
    gate.hears_probe().await;
    gate.says(FromGate::Nack { reason: Reason::NoConsent, epoch: Epoch(7) }).await;
    let refused = asks.next_of("refused").await;
    assert_eq!(refused["detail"], format!("the gate: {}", Reason::NoConsent));
    for (set, reason) in [
        (json!({"camera": false, "instruments": false, "energy": false}), "x".to_owned()),
        (json!({"camera": true, "instruments": false, "energy": true}), "x".to_owned()),
        (json!({"camera": true, "instruments": false, "energy": false}), "x".repeat(129)),
    ] {
        asks.say(&json!({"type": "control_request", "set": set, "reason": reason})).await;
        let refused = asks.next_of("refused").await;
        assert!(refused["detail"].as_str().unwrap().contains("right") || reason.len() > 128, "{refused}");
    }
    assert!(gate.from_signaling.try_recv().is_err(), "nothing of that reached the gate");
}

#[tokio::test]
async fn anybody_stops_once_in_ten_seconds_and_by_name() {
    // HO-M-017, HO-M-018
    let (world, mut gates) = world().await;
    let (observer, mut one) = listener(&world, Role::Observer).await;
    let (_, mut two) = listener(&world, Role::Engineer).await;
    let mut gate = greeted(&mut gates).await;
    one.say(&json!({"type": "control_estop", "reason": "bleeding\n"})).await;
    let ToGate::Estop { person, reason } = gate.hears().await else { panic!("no estop") };
    let who = format!("observer ({})", observer.participant);
    assert_eq!((person.unwrap().as_str(), reason.as_str()), (who.as_str(), "bleeding"));
    let receipt = gate.hears_probe().await;
    // A stop that was only sent is nobody's news: the STATUS before it was judged says nothing of it.
    gate.tells_stop(&[]).await;
    let told = one.next_of_any(&["control", "control_notice"]).await;
    assert_eq!(told["type"], "control");
    gate.tells_stop(&[receipt]).await;
    for socket in [&mut one, &mut two] {
        let notice = socket.next_of("control_notice").await;
        assert_eq!((&notice["what"], &notice["person"]), (&json!("estop"), &json!(who)));
    }
    one.say(&json!({"type": "control_estop", "reason": ""})).await;
    let refused = one.next_of("refused").await;
    assert_eq!(refused["what"], "control_estop");
    assert!(refused["detail"].as_str().unwrap().contains("10 s"), "{refused}");
    // Another person is another matter.
    two.say(&json!({"type": "control_estop", "reason": "x".repeat(5_000)})).await;
    let ToGate::Estop { reason, .. } = gate.hears_act().await else { panic!("no estop") };
    assert_eq!(reason.as_str().len(), 128, "a stop is cut, never refused, for its words");
}

#[tokio::test]
async fn a_stop_that_no_gate_took_is_refused_to_its_sender_and_can_be_sent_again() {
    let (world, mut gates) = world().await;
    let (_, mut one) = listener(&world, Role::Observer).await;
    let mut gate = greeted(&mut gates).await;
    let stop = json!({"type": "control_estop", "reason": ""});
    // The gate says no.
    one.say(&stop).await;
    assert!(matches!(gate.hears().await, ToGate::Estop { .. }));
    gate.hears_probe().await;
    gate.says(FromGate::Nack { reason: Reason::EstopLimited, epoch: Epoch(7) }).await;
    let told = one.next_of_any(&["refused", "control_notice"]).await;
    assert_eq!(told["detail"], format!("the gate: {}", Reason::EstopLimited), "{told}");
    // The gate answers and does not show it.
    one.say(&stop).await;
    assert!(matches!(gate.hears().await, ToGate::Estop { .. }));
    let receipt = gate.hears_probe().await;
    gate.tells(7, Mode::Local, None, &[receipt]).await;
    let told = one.next_of_any(&["refused", "control_notice"]).await;
    assert!(told["detail"].as_str().unwrap().contains("shows no stop"), "{told}");
    // The gate is lost with the stop on its way.
    one.say(&stop).await;
    assert!(matches!(gate.hears().await, ToGate::Estop { .. }));
    drop(gate);
    let told = one.next_of_any(&["refused", "control_notice"]).await;
    assert!(told["detail"].as_str().unwrap().contains("lost before it answered"), "{told}");
}

#[tokio::test]
async fn what_still_waits_when_the_gate_is_lost_is_refused_to_its_sender() {
    let (world, mut gates) = world().await;
    let (_, mut one) = listener(&world, Role::Observer).await;
    let mut gate = greeted(&mut gates).await;
    // A gate that reads nothing: its queue is full of stops, and the one too many ends the link.
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(listener(&world, Role::Observer).await.1);
    }
    for other in &mut others {
        other.say(&json!({"type": "control_estop", "reason": ""})).await;
    }
    for other in &mut others {
        let told = other.next_of_any(&["refused", "control_notice"]).await;
        assert_eq!((&told["type"], &told["what"]), (&json!("refused"), &json!("control_estop")), "{told}");
    }
    gate.from_signaling.close();
    one.say(&json!({"type": "control_estop", "reason": ""})).await;
    assert_eq!(one.next_of("refused").await["what"], "control_estop");
}

#[tokio::test]
async fn a_stop_goes_to_every_gate_and_is_news_when_all_have_answered_or_are_gone() {
    let (world, mut gates) = world_of(2).await;
    let (_, mut one) = listener(&world, Role::Observer).await;
    let mut dead = greeted(&mut gates).await;
    let mut gate = greeted(&mut gates).await;
    one.say(&json!({"type": "control_estop", "reason": "bleeding"})).await;
    for each in [&mut dead, &mut gate] {
        assert!(matches!(each.hears().await, ToGate::Estop { .. }));
    }
    let receipt = gate.hears_probe().await;
    assert_eq!(dead.hears_probe().await, receipt);
    gate.tells_stop(&[receipt]).await;
    let told = one.next_of_any(&["control", "control_notice"]).await;
    assert_eq!(told["type"], "control", "the newest gate that answers is shown");
    drop(dead);
    let notice = one.next_of("control_notice").await;
    assert_eq!(notice["what"], "estop");
    // The gate that is left goes on.
    gate.tells(8, Mode::Local, None, &[]).await;
    assert_eq!(one.next_of("control").await["control"]["epoch"], 8);
}

#[tokio::test]
async fn two_gates_that_contradict_each_other_leave_everybody_with_unknown() {
    let (world, mut gates) = world_of(2).await;
    let (_, mut one) = listener(&world, Role::Expert).await;
    let old = greeted(&mut gates).await;
    let new = greeted(&mut gates).await;
    old.tells(7, Mode::Remote, Some([7; 32]), &[]).await;
    assert_eq!(one.next_of("control").await["control"]["epoch"], 7);
    new.tells(1, Mode::Hold, None, &[]).await;
    let told = one.next_of_any(&["control", "control_gone"]).await;
    assert_eq!(told["type"], "control_gone", "{told}");
    let notice = one.next_of("control_notice").await;
    assert_eq!((&notice["what"], &notice["person"]), (&json!("second_gate"), &json!("second gate")));
    let (_, mut late) = listener(&world, Role::Observer).await;
    let told = late.next_of_any(&["control", "control_gone", "participant_joined"]).await;
    assert_eq!(told["type"], "control_gone", "{told}");
    one.say(&json!({"type": "control_request", "reason": "",
        "set": {"camera": true, "instruments": false, "energy": false}}))
        .await;
    assert!(one.next_of("refused").await["detail"].as_str().unwrap().contains("two gates"));
    // One of them goes: the other one is believed again.
    drop(old);
    new.tells(1, Mode::Hold, None, &[]).await;
    assert_eq!(late.next_of("control").await["control"]["epoch"], 1);
}

#[tokio::test]
async fn without_a_gate_nothing_is_promised_and_a_stop_is_not_used_up() {
    let (world, mut gates) = world().await;
    // The first gate goes away before anybody listens to it.
    let (_, mut one) = listener(&world, Role::Expert).await;
    let gate = greeted(&mut gates).await;
    gate.tells(3, Mode::Local, None, &[]).await;
    one.next_of("control").await;
    drop(gate);
    one.next_of("control_gone").await;
    // Whoever comes now sees that nobody knows who operates, and not a session without a gate.
    let (_, mut late) = listener(&world, Role::Observer).await;
    let told = late.next_of_any(&["control", "control_gone", "participant_joined"]).await;
    assert_eq!(told["type"], "control_gone", "{told}");
    // The pause before the next attempt is long enough for these two.
    for (what, event) in [
        ("control_estop", json!({"type": "control_estop", "reason": ""})),
        (
            "control_request",
            json!({"type": "control_request", "reason": "",
            "set": {"camera": true, "instruments": false, "energy": false}}),
        ),
    ] {
        one.say(&event).await;
        let refused = one.next_of("refused").await;
        assert_eq!(refused["what"], what);
        assert!(refused["detail"].as_str().unwrap().contains("no gate"), "{refused}");
    }
    // It is found again, and the stop is heard.
    let mut gate = greeted(&mut gates).await;
    gate.tells(4, Mode::Local, None, &[]).await;
    late.next_of("control").await;
    let (_, mut later) = listener(&world, Role::Observer).await;
    let told = later.next_of_any(&["control", "control_gone", "participant_joined"]).await;
    assert_eq!((&told["type"], &told["control"]["epoch"]), (&json!("control"), &json!(4)), "{told}");
    one.say(&json!({"type": "control_estop", "reason": ""})).await;
    assert!(matches!(gate.hears().await, ToGate::Estop { .. }));
}

#[tokio::test]
async fn whoever_comes_later_is_told_at_once_and_whoever_holds_is_known_by_the_certificate() {
    let (world, mut gates) = world().await;
    let invitation = world.handle.invite(&world.session, Role::Expert, Duration::from_secs(3600)).await.unwrap();
    let expert = world.redeem_with(&invitation.invitation, &"0c".repeat(32)).await;
    let (mut first, _) = Socket::open(&world, &expert).await;
    let gate = greeted(&mut gates).await;
    gate.tells(9, Mode::Remote, Some([0x0c; 32]), &[]).await;
    let control = first.next_of("control").await["control"].clone();
    assert_eq!((&control["participant"], &control["expert"]), (&json!(expert.participant), &json!("0c".repeat(32))));
    let (_, mut late) = listener(&world, Role::Observer).await;
    let told = late.next_of_any(&["control", "participant_joined"]).await;
    assert_eq!((&told["type"], &told["control"]["epoch"]), (&json!("control"), &json!(9)), "{told}");
    // Of a certificate that nobody here has, the hash is told alone.
    gate.tells(10, Mode::Remote, Some([0x0d; 32]), &[]).await;
    let control = late.next_of("control").await["control"].clone();
    assert_eq!((&control["participant"], &control["expert"]), (&Value::Null, &json!("0d".repeat(32))));
    // A gate that falls silent is lost without a word.
    let gone = timeout(SOON, late.next_of("control_gone")).await;
    assert!(gone.is_ok());
    drop(gate);
}

#[tokio::test]
async fn a_gate_is_looked_for_only_where_somebody_listens() {
    let (world, mut gates) = world().await;
    world.handle.create_session("Another", None).await.unwrap();
    assert!(timeout(Duration::from_millis(1_200), gates.recv()).await.is_err());
    let (_, _one) = listener(&world, Role::Observer).await;
    let gate = greeted(&mut gates).await;
    assert_eq!(gate.session, world.session);
    assert!(timeout(Duration::from_millis(700), gates.recv()).await.is_err(), "nobody listens to the other one");
}

#[tokio::test]
async fn a_relay_is_told_which_stations_may_come() {
    let world = Running::new().await;
    let check = world.handle.token_check();
    let mine = CertHash([7; 32]);
    let expert = world.join(Role::Expert).await;
    assert_eq!(check(&expert.token, &world.session, mine), Ok(()));
    let why = |token: &str, session: &SessionId, certificate| check(token, session, certificate).unwrap_err();
    assert!(why(&expert.token, &world.session, CertHash([8; 32])).contains("claim cnf"));
    let other = world.handle.create_session("Another", None).await.unwrap();
    assert!(why(&expert.token, &other, mine).contains("claim session"));
    let observer = world.join(Role::Observer).await;
    assert!(why(&observer.token, &world.session, mine).contains("claim role is observer"));
    assert!(why("x", &world.session, mine).contains("no token of this server"));
    world.handle.remove_participant(&world.session, &expert.participant).await.unwrap();
    assert!(check(&expert.token, &world.session, mine).is_err(), "whoever was removed does not come back");
    world.handle.shutdown().await;
    assert!(check(&observer.token, &world.session, mine).unwrap_err().contains("going away"));
}
