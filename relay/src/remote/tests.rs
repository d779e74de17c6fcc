use super::book::Book;
use super::problem::Refusal;
use trocar_proto::media::ext::FRAME_URI;
use trocar_proto::session::admission::{AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, RelayEvent};
use trocar_proto::session::api::{FeedState, LegRequest};
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::session::ids::{CertHash, FeedId, LegId, ParticipantId, RealmId, SessionId};
use trocar_proto::session::link_test::LinkTestRefused;
use trocar_proto::session::remote::{LegShape, RelayHello, StreamLine, Word};
use trocar_proto::units::{FlowId, WallMicros};

fn hello() -> RelayHello {
    let realm = RealmId::new("north").unwrap();
    RelayHello {
        name: "a".into(),
        instance: "1".into(),
        realms: vec![realm.clone()],
        realm,
        certificate: CertHash([7; 32]),
        control: None,
        link_tests: false,
    }
}

fn key() -> FeedKey {
    FeedKey { session: SessionId::new("s1").unwrap(), feed: FeedId::new("scope").unwrap() }
}

fn leg(name: &str) -> LegGrant {
    LegGrant {
        leg: LegId::new(name).unwrap(),
        feed: key(),
        viewer: None,
        realm: RealmId::new("north").unwrap(),
        companion: None,
        roq: LegRequest::default(),
        flows: None,
    }
}

fn closed(name: &str) -> RelayEvent {
    RelayEvent::Leg { leg: LegId::new(name).unwrap(), state: LegState::Closed }
}

#[test]
fn every_error_of_the_relay_comes_through_http_as_it_was() {
    let all = [
        AdmitError::NoSuchFeed,
        AdmitError::NoSuchLeg,
        AdmitError::NoSuchPublication,
        AdmitError::FeedExists,
        AdmitError::NoSuchRealm(RealmId::new("north").unwrap()),
        AdmitError::BadSdp("m= line 3".into()),
        AdmitError::NotAcceptable { detail: "VP8".into(), alternatives: vec![FeedId::new("room").unwrap()] },
        AdmitError::Full("64 feeds are open".into()),
        AdmitError::Unavailable,
        AdmitError::LinkTest(LinkTestRefused::Operated("an expert operates".into())),
        AdmitError::LinkTest(LinkTestRefused::Busy),
        AdmitError::LinkTest(LinkTestRefused::Unused),
        AdmitError::LinkTest(LinkTestRefused::Failed("no random numbers".into())),
    ];
    for error in all {
        let refusal = Refusal::from(error.clone());
        assert!((400..600).contains(&refusal.problem.status));
        let text = serde_json::to_string(&refusal).unwrap();
        let back: Refusal = serde_json::from_str(&text).unwrap();
        assert_eq!(back.admit_error, Some(error.clone()), "{text}");
        assert_eq!(back.problem.detail, error.to_string());
    }
}

#[test]
fn a_leg_that_ends_before_its_answer_is_written_down_is_not_there() {
    let book = Book::new(hello());
    for name in ["quick", "other"] {
        book.ask(name);
    }
    book.hear(closed("quick"));
    book.hear(RelayEvent::Leg { leg: LegId::new("other").unwrap(), state: LegState::Connected });
    book.note_leg(LegShape::Roq(leg("quick")));
    book.note_leg(LegShape::Roq(leg("other")));
    let legs = book.state().legs;
    assert_eq!(legs.len(), 1, "{legs:?}");
    assert_eq!((legs[0].leg().as_str(), legs[0].state), ("other", LegState::Connected));
    book.hear(closed("other"));
    assert_eq!(book.state(), Default::default());
    // The word about one that is not known is kept nowhere.
    book.hear(closed("never-asked"));
    book.note_leg(LegShape::Roq(leg("never-asked")));
    assert_eq!(book.state(), Default::default());
}

#[test]
fn a_listener_hears_first_all_that_is_there_and_then_each_thing_once_with_its_number() {
    let book = Book::new(hello());
    book.ask("l1");
    book.note_leg(LegShape::Roq(leg("l1")));
    let mut lines = book.listen().unwrap();
    book.hear(closed("l1"));
    book.alive();
    book.hear(RelayEvent::Operated { operated: true });
    let got: Vec<StreamLine> = std::iter::from_fn(|| lines.try_recv().ok()).collect();
    assert_eq!(got.iter().map(|l| l.seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(matches!(&got[0].word, Word::Hello(h, s) if **h == hello() && s.legs.len() == 1), "{got:?}");
    assert_eq!(got[1].word, Word::Event(closed("l1")));
    assert_eq!(got[2].word, Word::Alive);
    // Who comes later is told at once what was said before.
    let first = book.listen().unwrap().try_recv().unwrap();
    assert!(matches!(&first.word, Word::Hello(_, s) if s.operated && s.legs.is_empty()), "{first:?}");
}

#[test]
fn a_listener_that_does_not_read_loses_points_first_and_then_its_stream() {
    let book = Book::new(hello());
    let mut lines = book.listen().unwrap();
    let point = |n: u32| RelayEvent::Capture {
        leg: LegId::new("l1").unwrap(),
        feed: key(),
        rtp: n,
        clock_rate: 90_000,
        capture: None,
        received: WallMicros(1),
    };
    for n in 0..5_000 {
        book.hear(point(n));
    }
    let half = lines.len();
    assert!((2_000..=2_050).contains(&half), "{half}");
    let state = |since| RelayEvent::FeedState { key: key(), state: FeedState::Live, since: WallMicros(since) };
    for n in 0..5_000 {
        book.hear(state(n));
    }
    let mut last = None;
    let mut count = 0;
    while let Ok(line) = lines.try_recv() {
        assert_eq!(line.seq, count, "nothing is missing before the end");
        count += 1;
        last = Some(line.word);
    }
    assert_eq!(count, 4_096);
    assert!(matches!(last, Some(Word::Event(RelayEvent::FeedState { .. }))));
    assert!(lines.is_closed(), "the stream has ended: the listener learns all anew from the next one");
}

#[test]
fn more_listeners_than_allowed_are_refused_until_one_goes() {
    let book = Book::new(hello());
    let mut all: Vec<_> = (0..4).map(|_| book.listen().unwrap()).collect();
    assert!(book.listen().is_none());
    all.pop();
    assert!(book.listen().is_some());
}

#[test]
fn what_the_worker_says_of_a_feed_before_its_answer_is_written_down() {
    let descriptor = |ids: serde_json::Value| -> FeedDescriptor {
        let all = serde_json::json!({
            "feed": "scope", "source": "tower-1", "view": "overview", "kind": "video", "purpose": "scope", "codec": "VP8",
            "clock_rate": 90_000, "payload_type": 96, "max_bitrate": 4_000_000, "budget_ms": 100,
            "header_extensions": ids, "transport": { "roq": { "mode": "datagram" } },
        });
        serde_json::from_value(all).unwrap()
    };
    let granted = descriptor(serde_json::json!({ "urn:x": 9 }));
    let of_house = descriptor(serde_json::json!({ FRAME_URI: 1 }));
    let grant = FeedGrant {
        key: key(),
        realm: RealmId::new("north").unwrap(),
        publisher: ParticipantId::new("p1").unwrap(),
        cnf: CertHash([1; 32]),
        descriptor: granted.clone(),
        flows: None,
    };
    let binding = FlowBinding {
        relay: "127.0.0.1:1".into(),
        relay_alternates: Vec::new(),
        also: Vec::new(),
        server_name: "x".into(),
        rtp_flow_id: FlowId(2),
        rtcp_flow_id: FlowId(3),
    };
    let book = Book::new(hello());
    let says = || book.hear(RelayEvent::Descriptor { key: key(), descriptor: of_house.clone() });
    let opened = || {
        book.note_feed(grant.clone(), binding.clone());
        let held = book.state().feeds.remove(0).descriptor;
        book.forget_feed(&key());
        held
    };
    book.ask_feed(&key());
    says();
    assert_eq!(opened(), of_house);
    // What was said of one that was refused, or that nobody asked for, is about no other.
    book.ask_feed(&key());
    says();
    book.refused_feed(&key());
    says();
    book.ask_feed(&key());
    assert_eq!(opened(), granted);
}
