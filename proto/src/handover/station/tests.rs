use super::*;
use crate::handover::message::{Figures, Status};
use crate::handover::types::Colours;

const ME: ExpertId = ExpertId([1; 32]);
const OTHER: ExpertId = ExpertId([2; 32]);
const C: ChannelId = ChannelId(4);

struct Desk {
    station: Station,
    now: u64,
    beacons: u64,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self { station: Station::new(Config::default(), ME, Micros(0)), now: 0, beacons: 0 };
        desk.input(Input::Opened(C)).unwrap();
        desk
    }

    fn input(&mut self, input: Input) -> Result<(), Reason> {
        self.station.handle(Micros(self.now * 1_000), input)
    }

    fn gate(&mut self, message: FromGate) {
        self.input(Input::Message(message)).unwrap();
    }

    fn offer(&mut self) {
        let (oid, set) = (Oid(1), GrantedSet::ENERGY);
        self.gate(FromGate::Offer { oid, set, grade: set.grade(), step: Short::default(), expires_ms: 30_000 });
    }

    fn beacon(&mut self, binding: Binding) -> Result<(), Reason> {
        self.beacons += 1;
        let (counter, nonce) = (Counter(self.beacons), Nonce(self.beacons));
        self.input(Input::Beacon(C, Beacon { binding, counter, nonce }))
    }

    fn granted(&mut self, holder: ExpertId, epoch: u64) {
        let epoch = Epoch(epoch);
        self.beacons = 0;
        self.gate(FromGate::Grant { holder, epoch, set: GrantedSet::ENERGY, lease_ms: 500 });
    }

    /// In control of epoch 9.
    fn control() -> Self {
        let mut desk = Self::new();
        desk.offer();
        desk.input(Input::Accept(Token::default())).unwrap();
        desk.beacon(Binding::Offer(Oid(1))).unwrap();
        desk.granted(ME, 9);
        desk.beacon(Binding::Epoch(Epoch(9))).unwrap();
        desk.outs();
        desk
    }

    fn outs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.station.poll()).collect()
    }

    /// Time passes in steps of 5 ms, with or without beacons; what was sealed.
    fn run(&mut self, ms: u64, beacons: Option<Binding>) -> Vec<Datagram> {
        let end = self.now + ms;
        while self.now < end {
            self.now += 5;
            if let Some(binding) = beacons.filter(|_| self.now.is_multiple_of(20)) {
                self.beacon(binding).unwrap();
            }
            self.input(Input::Tick).unwrap();
        }
        self.outs().into_iter().filter_map(|o| if let Output::Seal(_, d) = o { Some(d) } else { None }).collect()
    }

    fn senses(&mut self, presence: bool, clutch: Clutch) {
        self.input(Input::Senses(Senses { presence, clutch, ..Senses::default() })).unwrap();
    }
}

fn number(datagram: &Datagram) -> Counter {
    match datagram {
        Datagram::Heartbeat(hb) => hb.counter,
        Datagram::Command(command) => command.counter,
        Datagram::Beacon(beacon) => beacon.counter,
    }
}

fn status(epoch: u64, mode: Mode, expert: Option<ExpertId>) -> FromGate {
    FromGate::Status(Status {
        epoch: Epoch(epoch),
        mode,
        expert,
        set: GrantedSet::ENERGY,
        since_ms: 0,
        stopped: 0,
        alarms: 0,
        colours: Colours::GREEN,
        figures: Figures::default(),
        answers: Vec::new(),
        paths: crate::handover::paths::Protection::default(),
        timers: crate::handover::message::Timers::default(),
    })
}

const NINE: Binding = Binding::Epoch(Epoch(9));

#[test]
fn a_station_that_hears_no_beacon_for_250_ms_stops_sending_and_goes_on_when_it_does() {
    // HO-T-001, HO-X-016
    let mut desk = Desk::control();
    assert!(desk.run(100, Some(NINE)).len() >= 5);
    assert!(!desk.run(260, None).is_empty());
    assert!(desk.run(400, None).is_empty());
    assert_eq!(desk.input(Input::Motion(Payload::default())), Err(Reason::NotHeard));
    assert!(!desk.run(40, Some(NINE)).is_empty());
}

#[test]
fn after_silence_the_stations_clutch_is_open_until_the_expert_opens_and_closes_it() {
    // HO-T-004, HO-I-010
    let clutches = |sealed: Vec<Datagram>| -> Vec<Clutch> {
        sealed.iter().filter_map(|d| if let Datagram::Command(c) = d { Some(c.clutch) } else { None }).collect()
    };
    let mut desk = Desk::control();
    desk.senses(true, Clutch::Closed);
    assert!(clutches(desk.run(40, Some(NINE))).iter().all(|c| *c == Clutch::Open), "closed since before the grant");
    desk.senses(true, Clutch::Open);
    desk.senses(true, Clutch::Closed);
    desk.outs();
    assert_eq!(clutches(desk.run(40, Some(NINE))), []);
    desk.input(Input::Motion(Payload::default())).unwrap();
    assert!(matches!(&desk.outs()[..], [Output::Seal(_, Datagram::Command(c))] if c.clutch == Clutch::Closed));
    desk.run(260, None);
    let after = clutches(desk.run(60, Some(NINE)));
    assert!(!after.is_empty() && after.iter().all(|c| *c == Clutch::Open));
}

#[test]
fn after_a_time_in_which_the_station_did_not_run_the_clutch_is_open_until_the_expert_opens_and_closes_it() {
    // HO-T-011, HO-I-010
    let moves = |desk: &mut Desk| -> Vec<Clutch> {
        desk.input(Input::Motion(Payload::default())).unwrap();
        let commands = desk.outs().into_iter();
        commands
            .filter_map(|o| if let Output::Seal(_, Datagram::Command(c)) = o { Some(c.clutch) } else { None })
            .collect()
    };
    let mut desk = Desk::control();
    desk.senses(true, Clutch::Open);
    desk.senses(true, Clutch::Closed);
    desk.outs();
    assert_eq!(moves(&mut desk), [Clutch::Closed]);
    // 300 ms without a tick, with a re-clutch and BEACONs in the backlog.
    desk.now += 300;
    desk.beacon(NINE).unwrap();
    desk.senses(true, Clutch::Open);
    desk.senses(true, Clutch::Closed);
    desk.outs();
    // Negative control: without the word, the backlog's re-clutch counts.
    let mut deaf = Desk { station: desk.station.clone(), ..desk };
    assert_eq!(moves(&mut deaf), [Clutch::Closed]);
    desk.input(Input::Woke).unwrap();
    assert!(matches!(&desk.outs()[..], [Output::Seal(_, Datagram::Command(c))] if c.clutch == Clutch::Open));
    assert_eq!(moves(&mut desk), [Clutch::Open]);
    desk.senses(true, Clutch::Closed);
    assert_eq!(moves(&mut desk), [Clutch::Open]);
    desk.senses(true, Clutch::Open);
    desk.senses(true, Clutch::Closed);
    desk.outs();
    assert_eq!(moves(&mut desk), [Clutch::Closed]);
    let mut observer = Desk::new();
    observer.input(Input::Woke).unwrap();
    assert_eq!(observer.outs(), []);
}

#[test]
fn a_beacon_of_another_channel_or_binding_or_an_older_one_does_not_count() {
    // HO-T-002
    let mut desk = Desk::control();
    let beacon = Beacon { binding: NINE, counter: Counter(50), nonce: Nonce(1) };
    assert_eq!(desk.input(Input::Beacon(ChannelId(5), beacon)), Err(Reason::WrongChannel));
    let other = Beacon { binding: Binding::Epoch(Epoch(8)), ..beacon };
    assert_eq!(desk.input(Input::Beacon(C, other)), Err(Reason::WrongEpoch));
    desk.input(Input::Beacon(C, beacon)).unwrap();
    assert_eq!(desk.input(Input::Beacon(C, beacon)), Err(Reason::OldCounter));
}

#[test]
fn a_grant_that_was_not_accepted_is_given_back() {
    // HO-T-003, HO-T-005
    let mut observer = Desk::new();
    observer.granted(ME, 9);
    assert_eq!(observer.station.phase(), Phase::Observer);
    assert_eq!(observer.outs(), [Output::Send(ToGate::Return { epoch: Epoch(9) })]);
    let mut declined = Desk::new();
    declined.offer();
    declined.input(Input::Accept(Token::default())).unwrap();
    declined.input(Input::Decline(Short::default())).unwrap();
    declined.outs();
    declined.granted(ME, 9);
    assert_eq!(declined.outs(), [Output::Send(ToGate::Return { epoch: Epoch(9) })]);
    let mut others = Desk::new();
    others.granted(OTHER, 9);
    assert_eq!(others.outs(), []);
}

#[test]
fn numbers_begin_at_one_with_each_binding_and_rise_by_one() {
    // HO-T-006
    let mut desk = Desk::new();
    desk.offer();
    desk.input(Input::Accept(Token::default())).unwrap();
    let before: Vec<_> = desk.run(100, Some(Binding::Offer(Oid(1)))).iter().map(number).collect();
    assert_eq!(before, (1..=before.len() as u64).map(Counter).collect::<Vec<_>>());
    desk.granted(ME, 9);
    let after: Vec<_> = desk.run(100, Some(NINE)).iter().map(number).collect();
    assert!(after.len() > 8);
    assert_eq!(after, (1..=after.len() as u64).map(Counter).collect::<Vec<_>>());
}

#[test]
fn a_higher_epoch_or_another_holder_ends_control_and_an_old_status_does_not() {
    // HO-T-007
    for (message, keeps) in [
        (status(9, Mode::Remote, Some(ME)), true),
        (status(8, Mode::Granting, Some(ME)), true),
        (status(10, Mode::Hold, None), false),
        (status(9, Mode::Remote, Some(OTHER)), false),
        (FromGate::Nack { reason: Reason::TooOld, epoch: Epoch(9) }, true),
        (FromGate::Nack { reason: Reason::NotTheHolder, epoch: Epoch(10) }, false),
    ] {
        let mut desk = Desk::control();
        desk.gate(message.clone());
        assert_eq!(desk.station.phase() == Phase::Control, keeps, "{message:?}");
        assert_eq!(desk.input(Input::Motion(Payload::default())).is_ok(), keeps);
    }
}

#[test]
fn an_offer_is_gone_after_its_time_a_withdrawal_a_decline_or_a_new_channel() {
    // HO-T-008, HO-T-010
    let mut late = Desk::new();
    late.offer();
    late.now = 30_000;
    assert_eq!(late.input(Input::Accept(Token::default())), Err(Reason::NoSuchOffer));
    let mut withdrawn = Desk::new();
    withdrawn.offer();
    withdrawn.gate(FromGate::Withdraw { oid: Oid(2) });
    assert_eq!(withdrawn.station.phase(), Phase::Offered);
    withdrawn.gate(FromGate::Withdraw { oid: Oid(1) });
    assert_eq!(withdrawn.station.phase(), Phase::Observer);
    let mut back = Desk::control();
    back.input(Input::Opened(ChannelId(5))).unwrap();
    assert_eq!(back.station.phase(), Phase::Control, "a second tunnel");
    for channel in [C, ChannelId(5)] {
        back.input(Input::Gone(channel)).unwrap();
    }
    assert_eq!(back.station.phase(), Phase::Control, "the keys stay good");
    back.input(Input::Opened(ChannelId(6))).unwrap();
    assert_eq!(back.station.phase(), Phase::Observer);
}

#[test]
fn the_echo_is_the_newest_frame_shown() {
    // HO-T-009
    let mut desk = Desk::control();
    let echoes = |sealed: Vec<Datagram>| -> Vec<Option<FrameRef>> {
        sealed.iter().filter_map(|d| if let Datagram::Heartbeat(hb) = d { Some(hb.echo) } else { None }).collect()
    };
    assert!(echoes(desk.run(40, Some(NINE))).iter().all(Option::is_none));
    let frame = FrameRef { source: 1, view: 0, frame: 7, digest: 1 };
    desk.input(Input::Shown(frame)).unwrap();
    assert!(echoes(desk.run(40, Some(NINE))).iter().all(|e| *e == Some(frame)));
}
