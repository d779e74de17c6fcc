//! What the relay shows of the register.

use super::*;
use trocar_proto::control::ToRelay;
use trocar_proto::handover::message::{Figures, FromGate, Mode, Status, encode_from_gate};
use trocar_proto::handover::types::{Colours, Epoch, ExpertId, GrantedSet, Nonce};

fn status(mode: Mode, epoch: u64, answers: &[u64]) -> ToRelay {
    status_of(None, mode, epoch, answers)
}

fn status_of(expert: Option<ExpertId>, mode: Mode, epoch: u64, answers: &[u64]) -> ToRelay {
    let status = Status {
        epoch: Epoch(epoch),
        mode,
        expert,
        set: GrantedSet::default(),
        since_ms: 0,
        stopped: 0,
        alarms: 0,
        colours: Colours::default(),
        figures: Figures::default(),
        answers: answers.iter().map(|n| Nonce(*n)).collect(),
        paths: trocar_proto::handover::paths::Protection::default(),
        timers: trocar_proto::handover::message::Timers::default(),
    };
    ToRelay::Status { bytes: hex::encode(encode_from_gate(1, &FromGate::Status(status))) }
}

/// The next probe.
async fn probed(gate: &mut Raw) -> u64 {
    loop {
        if let FromRelay::Probe { nonce } = gate.heard_any().await {
            return nonce;
        }
    }
}

const GATE: [(&str, &str); 2] = [("session", "s1"), ("gate", "or-1")];

async fn mode_is(world: &World, mode: &str) -> bool {
    let labels = [GATE[0], GATE[1], ("mode", mode)];
    world.figure("trocar_control_mode", &labels).await == 1.0 && world.figure("trocar_control_mode", &GATE).await == 1.0
}

#[tokio::test]
async fn the_register_is_known_by_answers_to_own_questions_only_and_not_for_long() {
    // HO-V-001, HO-V-002, HO-V-004
    let world = World::new();
    let mut gate = world.gate("s1").await;
    gate.say(&status(Mode::Remote, 5, &[1, 2, 3])).await;
    let nonce = probed(&mut gate).await;
    assert!(mode_is(&world, "unknown").await, "nobody was asked that");
    gate.say(&status(Mode::Local, 5, &[nonce])).await;
    world.until("trocar_control_mode", &[GATE[0], GATE[1], ("mode", "local")], 1.0).await;
    assert!(mode_is(&world, "local").await);
    assert!(world.figure("trocar_control_status_age_seconds", &GATE).await < 0.5);
    // Another answer makes it another state; no answer makes it unknown, while the questions go on.
    let nonce = probed(&mut gate).await;
    gate.say(&status(Mode::Remote, 6, &[nonce])).await;
    world.until("trocar_control_mode", &[GATE[0], GATE[1], ("mode", "remote")], 1.0).await;
    world.until("trocar_control_mode", &[GATE[0], GATE[1], ("mode", "unknown")], 1.0).await;
    assert!(world.figure("trocar_control_status_age_seconds", &GATE).await > 0.5);
    assert_ne!(probed(&mut gate).await, nonce);
}

#[tokio::test]
async fn five_times_a_second_each_gate_is_asked() {
    let world = World::new();
    let mut gate = world.gate("s1").await;
    probed(&mut gate).await;
    let began = std::time::Instant::now();
    let mut nonces = std::collections::BTreeSet::new();
    for _ in 0..5 {
        nonces.insert(probed(&mut gate).await);
    }
    let took = began.elapsed();
    assert!(took > Duration::from_millis(600) && took < Duration::from_millis(2_500), "{took:?}");
    assert_eq!(nonces.len(), 5);
}

#[tokio::test]
async fn a_relay_that_restarts_knows_nothing_until_the_gate_tells_it() {
    // HO-V-006, HO-X-007
    for _ in 0..2 {
        let world = World::new();
        let mut gate = world.gate("s1").await;
        let nonce = probed(&mut gate).await;
        assert!(mode_is(&world, "unknown").await);
        gate.say(&status(Mode::Hold, 9, &[nonce])).await;
        world.until("trocar_control_mode", &[GATE[0], GATE[1], ("mode", "hold")], 1.0).await;
    }
}

#[tokio::test]
async fn a_copy_that_cannot_be_read_is_no_reason_to_cut_a_gate_off() {
    let world = World::new();
    let mut gate = world.gate("s1").await;
    for bytes in ["", "zz", "00", "01ff", "0"] {
        gate.say(&ToRelay::Status { bytes: bytes.to_owned() }).await;
    }
    for _ in 0..300 {
        gate.say(&status(Mode::Local, 5, &[])).await;
    }
    // A flood empties the credit; it comes back.
    let known = async {
        while !mode_is(&world, "local").await {
            let nonce = probed(&mut gate).await;
            gate.say(&status(Mode::Local, 5, &[nonce])).await;
        }
    };
    tokio::time::timeout(SOON, known).await.expect("it is believed again");
    assert!(gate.connection.close_reason().is_none());
}

#[tokio::test]
async fn who_is_not_cut_off_is_who_a_gate_names_as_the_holder_for_as_long_as_it_does() {
    let pki = Pki::new();
    let fetching = crate::quic::client_config(pki.identity("relay", "r")).unwrap();
    let doors = crate::doors::Doors::new(fetching, tokio::sync::mpsc::channel(8).0);
    let listener = ControlListener {
        realm: RealmId::new("north").unwrap(),
        address: "127.0.0.1:0".parse().unwrap(),
        others: Vec::new(),
        identity: pki.identity("relay", "relay-1"),
        tokens: Arc::new(|_, _, _| Ok(())),
        limits: Limits::default(),
    };
    let control = Control::start_with(listener, Some(Arc::clone(&doors))).unwrap();
    let mut gate = Raw::dial(control.address(), pki.identity("gate", "or-1")).await;
    gate.join("s1", PartyKind::Gate).await;
    let expert = Some(ExpertId([7; 32]));
    let holder = std::collections::BTreeSet::from([CertHash([7; 32])]);
    let none = std::collections::BTreeSet::new();
    // Offered is not held; what is held counts until the gate says otherwise.
    for (mode, epoch, wanted) in [(Mode::Remote, 5, &holder), (Mode::Hold, 6, &none), (Mode::Remote, 7, &holder)] {
        let nonce = probed(&mut gate).await;
        gate.say(&status_of(expert, mode, epoch, &[nonce])).await;
        let told = async {
            while doors.holders() != *wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, told).await.unwrap_or_else(|_| panic!("{mode:?}: {:?}", doors.holders()));
    }
    drop(gate);
    let gone = async {
        while doors.holders() != none {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, gone).await.expect("a gate that is gone names nobody");
}
