use super::*;
use trocar_proto::handover::message::{Beacon, Command, Short};
use trocar_proto::handover::types::{Binding, Counter, GrantedSet, Oid};

const ME: ExpertId = ExpertId([1; 32]);
const C: ChannelId = ChannelId(1);

/// A core in control of epoch 9, whose line leads nowhere; with an open clutch.
fn in_control() -> (Core, Inbox, Lanes) {
    let (inbox, lanes) = Inbox::new();
    let token: TokenSource = Arc::new(|| "token".to_owned());
    let (report, happenings) = (Report::start(false), Happenings::default());
    let mut core = Core::new(ME, token, report, happenings, None, inbox.clone(), 1);
    let (oid, set, epoch) = (Oid(1), GrantedSet::INSTRUMENTS, Epoch(9));
    let beacon = |binding| Beacon { binding, counter: Counter(1), nonce: Nonce(1) };
    for input in [
        Input::Opened(C),
        Input::Message(FromGate::Offer { oid, set, grade: set.grade(), step: Short::default(), expires_ms: 60_000 }),
        Input::Accept(Token::default()),
        Input::Beacon(C, beacon(Binding::Offer(oid))),
        Input::Message(FromGate::Grant { holder: ME, epoch, set, lease_ms: 500 }),
        Input::Beacon(C, beacon(Binding::Epoch(epoch))),
    ] {
        assert!(core.machine(input));
    }
    let serve = |clutch| inbox.act(now(), Act::Hands(Hands { clutch: Some(clutch), ..Hands::default() }));
    serve(Clutch::Open);
    core.serve(lanes.take(Duration::ZERO), 0);
    (core, inbox, lanes)
}

fn clutch(clutch: Clutch) -> Act {
    Act::Hands(Hands { clutch: Some(clutch), ..Hands::default() })
}

/// As the gate would hear of the clutch with a motion that is made now.
fn said(core: &mut Core) -> Clutch {
    core.station.handle(now(), Input::Motion(Payload::default())).unwrap();
    match core.station.poll() {
        Some(Output::Seal(_, Datagram::Command(Command { clutch, .. }))) => clutch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backlog_after_a_gap_moves_nothing_until_the_clutch_is_opened_and_closed_after_it() {
    // HO-T-011, HO-X-010
    let (mut core, inbox, lanes) = in_control();
    let mut serve = |acts: &[Act], age: u64, gap: u64| {
        let at = Micros(now().0 - age);
        for act in acts {
            inbox.act(at, act.clone());
        }
        core.serve(lanes.take(Duration::ZERO), gap);
        (said(&mut core), core.sent.late)
    };
    let reclutch = [clutch(Clutch::Open), clutch(Clutch::Closed), Act::Motion(Payload::default())];
    // Negative control: without a gap it counts at once.
    assert_eq!(serve(&reclutch, 0, 2_000), (Clutch::Closed, 0));
    // The core itself stood still.
    assert_eq!(serve(&reclutch, 0, 300_000), (Clutch::Open, 1));
    assert_eq!(serve(&[clutch(Clutch::Closed)], 0, 0).0, Clutch::Open);
    assert_eq!(serve(&reclutch, 0, 0), (Clutch::Closed, 1));
    // What comes from the backlog after the core is awake, in two pieces.
    assert_eq!(serve(&reclutch[..1], 300_000, 0).0, Clutch::Open);
    assert_eq!(serve(&reclutch[1..], 299_000, 0), (Clutch::Open, 2));
    assert_eq!(serve(&reclutch, 0, 0), (Clutch::Closed, 2));
}

#[test]
fn a_motion_that_waited_for_more_than_50_ms_is_dropped_and_counted() {
    // HO-T-012
    let (mut core, inbox, lanes) = in_control();
    inbox.act(now(), clutch(Clutch::Closed));
    for age in [0, 60_000, 10_000, 5_000_000] {
        inbox.act(Micros(now().0 - age), Act::Motion(Payload::default()));
    }
    let taken = lanes.take(Duration::ZERO);
    assert_eq!(taken.motions.len(), 4);
    core.serve(taken, 0);
    assert_eq!(core.sent.late, 2);
    assert_eq!(said(&mut core), Clutch::Closed, "a late motion alone opens nothing");
}

#[test]
fn presence_that_is_let_go_under_a_flood_is_let_go_at_the_station() {
    // HO-T-013, HO-I-015, HO-I-016
    let (mut core, inbox, lanes) = in_control();
    inbox.act(now(), Act::Hands(Hands { presence: Some(true), pedal: Some(true), ..Hands::default() }));
    core.serve(lanes.take(Duration::ZERO), 0);
    assert!(core.senses.presence && core.senses.pedal);
    (0..5_000).for_each(|_| inbox.datagram(0, bytes::Bytes::from_static(b"abc")));
    inbox.act(now(), Act::Hands(Hands::released()));
    (0..5_000).for_each(|_| inbox.datagram(0, bytes::Bytes::from_static(b"abc")));
    core.serve(lanes.take(Duration::ZERO), 0);
    assert!(!core.senses.presence && !core.senses.pedal && core.senses.clutch == Clutch::Open);
}

#[test]
fn an_accept_of_a_backlog_accepts_nothing_and_a_return_always_counts() {
    let (mut core, inbox, lanes) = in_control();
    inbox.act(Micros(now().0 - 3_000_000), Act::Return);
    core.serve(lanes.take(Duration::ZERO), 0);
    assert_eq!(core.station.phase(), Phase::Observer);
    let set = GrantedSet::CAMERA;
    let offer = FromGate::Offer { oid: Oid(2), set, grade: set.grade(), step: Short::default(), expires_ms: 60_000 };
    core.machine(Input::Message(offer));
    for (age, phase) in [(3_000_000, Phase::Offered), (0, Phase::Accepted)] {
        inbox.act(Micros(now().0 - age), Act::Accept);
        core.serve(lanes.take(Duration::ZERO), 0);
        assert_eq!(core.station.phase(), phase, "{age}");
    }
}
