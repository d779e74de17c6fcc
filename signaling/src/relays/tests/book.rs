use crate::relays::places::{Act, Member, Owed, Places, Standing, upstream_prefix};
use crate::tests::descriptor;
use trocar_proto::session::admission::{FeedKey, FlowBinding, LegGrant, RelayEvent};
use trocar_proto::session::api::{FeedPaths, FeedState, LegRequest};
use trocar_proto::session::event::LegState;
use trocar_proto::session::feed::FeedDescriptor;
use trocar_proto::session::ids::{CertHash, FeedId, LegId, ParticipantId, RealmId, SessionId};
use trocar_proto::session::remote::{LegHeld, LegShape, RelayHello, RelayState};
use trocar_proto::units::{FlowId, WallMicros};

fn realm() -> RealmId {
    RealmId::new("north").unwrap()
}

fn hello(name: &str, instance: &str) -> RelayHello {
    let n = name.as_bytes()[0];
    RelayHello {
        name: name.into(),
        instance: instance.into(),
        realm: realm(),
        realms: vec![realm()],
        certificate: CertHash([n; 32]),
        control: None,
        link_tests: matches!(name, "b" | "c"),
    }
}

fn key() -> FeedKey {
    FeedKey { session: SessionId::new("s1").unwrap(), feed: FeedId::new("scope").unwrap() }
}

fn leg(name: &str) -> LegId {
    LegId::new(name).unwrap()
}

fn scope() -> FeedDescriptor {
    serde_json::from_value(descriptor("scope")).unwrap()
}

fn publisher() -> ParticipantId {
    ParticipantId::new("p1").unwrap()
}

fn binding(relay: &str) -> FlowBinding {
    FlowBinding {
        relay: relay.into(),
        relay_alternates: Vec::new(),
        also: Vec::new(),
        server_name: "x".into(),
        rtp_flow_id: FlowId(2),
        rtcp_flow_id: FlowId(3),
    }
}

/// Relays a, b and c that are up; c takes no feeds.
fn three() -> Places {
    let member = |name: &str, feeds| Member::new(name.into(), Vec::new(), (feeds, true));
    let mut places = Places::new(vec![member("a", true), member("b", true), member("c", false)]);
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let turn = places.next_turn();
        places.rise(i, turn, hello(name, "1"), RelayState::default());
    }
    places
}

/// The same with a feed at a that b fetches, and a viewer at b.
fn fetched() -> (Places, LegId) {
    let mut places = three();
    places.note_feed(0, &key(), &publisher(), &scope(), None);
    let up = leg(&format!("{}1", upstream_prefix(CertHash([b'b'; 32]))));
    places.note_upstream(0, up.clone(), key(), binding("a"));
    places.note_mirror(key(), 1);
    places.note_leg(1, &leg("viewer"), None);
    (places, up)
}

#[test]
fn the_feeds_own_relay_is_first_then_the_others_in_order_and_never_one_that_is_not_up() {
    let mut places = three();
    assert_eq!(places.for_feed(&realm()), [0, 1], "c takes no feeds");
    places.note_feed(1, &key(), &publisher(), &scope(), None);
    assert_eq!(places.for_leg(&key(), &realm()), [1, 0, 2]);
    places.fall_silent(1, WallMicros(1));
    assert_eq!(places.for_leg(&key(), &realm()), [0, 2]);
    assert!(places.for_feed(&RealmId::new("south").unwrap()).is_empty());
    assert!(!places.knows_realm(&RealmId::new("south").unwrap()));
    assert!(places.knows_realm(&realm()));
}

#[test]
fn a_feed_is_fetched_once_and_from_every_home_that_is_up() {
    let mut places = three();
    places.note_feed(0, &key(), &publisher(), &scope(), None);
    assert_eq!(places.plan_cascade(&key(), 0), None, "it is at home");
    let plan = places.plan_cascade(&key(), 1).unwrap();
    assert_eq!((plan.open_at, plan.is_whole), (vec![0], false));
    let (places, _) = fetched();
    assert!(places.plan_cascade(&key(), 1).unwrap().is_whole);
    let mut places = places;
    places.note_feed(2, &key(), &publisher(), &scope(), None);
    let plan = places.plan_cascade(&key(), 1).unwrap();
    assert_eq!((plan.open_at, plan.kept, plan.is_whole), (vec![2], vec![binding("a")], false));
}

#[test]
fn states_of_mirrors_are_nobodys_business() {
    let (mut places, _) = fetched();
    let state = |state| RelayEvent::FeedState { key: key(), state, since: WallMicros(5) };
    assert_eq!(places.hear(1, state(FeedState::Stalled)).tell, []);
    assert_eq!(places.hear(0, state(FeedState::Live)).tell, [state(FeedState::Live)]);
}

#[test]
fn a_feed_with_two_homes_is_live_while_one_brings_it_and_has_the_paths_of_both() {
    let mut places = three();
    for home in [0, 1] {
        places.note_feed(home, &key(), &publisher(), &scope(), None);
    }
    let state = |state| RelayEvent::FeedState { key: key(), state, since: WallMicros(5) };
    places.hear(0, state(FeedState::Live));
    places.hear(1, state(FeedState::Live));
    assert_eq!(places.hear(0, state(FeedState::Stalled)).tell, [state(FeedState::Live)]);
    assert_eq!(places.hear(1, state(FeedState::Stalled)).tell, [state(FeedState::Stalled)]);
    let paths = |alive| RelayEvent::Paths { key: key(), paths: FeedPaths { expected: 2, alive, since: WallMicros(6) } };
    assert_eq!(places.hear(0, paths(1)).tell, [paths(1)]);
    assert_eq!(places.hear(1, paths(1)).tell, [paths(2)]);
    let outcome = places.fall(0).unwrap();
    assert!(outcome.tell.iter().all(|e| !matches!(e, RelayEvent::FeedClosed { .. })), "{outcome:?}");
    assert_eq!(places.homes(&key()), [1]);
}

#[test]
fn a_feed_that_a_relay_fetches_from_two_homes_is_unprotected_while_one_of_the_ways_is_gone() {
    let paths = |alive| RelayEvent::Paths { key: key(), paths: FeedPaths { expected: 2, alive, since: WallMicros(6) } };
    let (mut places, _) = fetched();
    places.hear(0, paths(2));
    assert_eq!(places.hear(1, paths(1)).tell, [paths(2)], "a single home brings it to others once");
    let mut places = three();
    for home in [0, 1] {
        places.note_feed(home, &key(), &publisher(), &scope(), None);
        places.hear(home, paths(1));
    }
    assert_eq!(places.hear(2, paths(1)).tell, [], "a relay that was not known to fetch it");
    places.note_mirror(key(), 2);
    assert_eq!(places.hear(2, paths(2)).tell, [paths(2)]);
    assert_eq!(places.hear(2, paths(1)).tell, [paths(1)], "a line between two relays");
    places.note_mirror(key(), 2);
    assert_eq!(places.hear(0, paths(1)).tell, [paths(1)], "one that is mended is not whole yet");
    assert_eq!(places.hear(2, paths(2)).tell, [paths(2)]);
    places.hear(2, paths(1));
    let told = places.hear(2, RelayEvent::CascadeClosed { key: key() }).tell;
    assert!(matches!(&told[..], [RelayEvent::Paths { paths: p, .. }] if p.alive == 2), "nobody views there: {told:?}");
}

#[test]
fn a_relay_whose_process_is_gone_takes_its_feeds_and_legs_along() {
    let (mut places, _) = fetched();
    let outcome = places.fall(1).unwrap();
    assert_eq!(outcome.tell, [RelayEvent::Leg { leg: leg("viewer"), state: LegState::Closed }]);
    assert!(matches!(&outcome.acts[..], [Act::Close(0, Owed::Leg(_))]), "its way to a is closed: {:?}", outcome.acts);
    let (mut places, _) = fetched();
    let outcome = places.fall(0).unwrap();
    assert_eq!(outcome.tell, [RelayEvent::FeedClosed { key: key() }]);
    assert_eq!(outcome.acts, [Act::Close(1, Owed::Feed(key()))], "the mirror ends");
    assert_eq!(places.fall(0), None, "said once");
}

#[test]
fn a_silent_relay_keeps_what_it_has_and_its_people_are_told_that_nothing_is_known() {
    let (mut places, _) = fetched();
    places.hear(0, RelayEvent::FeedState { key: key(), state: FeedState::Live, since: WallMicros(1) });
    let outcome = places.fall_silent(0, WallMicros(9)).unwrap();
    let stalled = RelayEvent::FeedState { key: key(), state: FeedState::Stalled, since: WallMicros(9) };
    assert_eq!((outcome.tell, outcome.acts), (vec![stalled], vec![]));
    let outcome = places.fall_silent(1, WallMicros(9)).unwrap();
    assert_eq!(outcome.tell, [RelayEvent::Leg { leg: leg("viewer"), state: LegState::Connecting }]);
    assert_eq!(places.members[1].standing, Standing::Silent);
    assert!(!places.has_stand_in(0), "c takes no feeds, b is silent too");
    assert!(three().has_stand_in(0));
    assert_eq!(places.of_leg(&leg("viewer")), Some(1));
}

#[test]
fn what_was_closed_while_a_relay_was_silent_is_closed_when_it_is_back_and_not_taken_up() {
    let (mut places, _) = fetched();
    places.fall_silent(1, WallMicros(9));
    assert_eq!(places.close_leg(&leg("viewer")), []);
    let grant = LegGrant {
        leg: leg("viewer"),
        feed: key(),
        viewer: Some(publisher()),
        realm: realm(),
        companion: None,
        roq: LegRequest::default(),
        flows: None,
    };
    let held = LegHeld { shape: LegShape::Roq(grant), state: LegState::Connected, slots: Vec::new() };
    let state = RelayState { legs: vec![held], cascades: vec![key()], ..RelayState::default() };
    let turn = places.next_turn();
    let outcome = places.rise(1, turn, hello("b", "1"), state.clone());
    assert_eq!(outcome.acts, [Act::Close(1, Owed::Leg(leg("viewer")))]);
    assert_eq!(outcome.tell, [RelayEvent::State(Box::default())]);
    // A new process has nothing of the kind to close, and what it has is its own.
    let (mut places, _) = fetched();
    places.fall_silent(1, WallMicros(9));
    places.close_leg(&leg("viewer"));
    let turn = places.next_turn();
    let outcome = places.rise(1, turn, hello("b", "2"), state);
    assert!(outcome.acts.is_empty(), "{outcome:?}");
    assert!(matches!(&outcome.tell[..], [RelayEvent::State(s)] if s.legs.len() == 1), "{outcome:?}");
}

#[test]
fn what_a_relay_no_more_has_when_it_is_back_is_over_but_not_what_was_opened_meanwhile() {
    let (mut places, up) = fetched();
    let turn = places.next_turn();
    places.note_leg(1, &leg("newer"), None);
    let outcome = places.rise(1, turn, hello("b", "1"), RelayState::default());
    assert_eq!(outcome.tell[0], RelayEvent::Leg { leg: leg("viewer"), state: LegState::Closed });
    assert_eq!(outcome.acts, [Act::Close(0, Owed::Leg(up))], "the mirror is over, and a is told");
    assert_eq!(places.of_leg(&leg("newer")), Some(1));
}

#[test]
fn an_upstream_leg_that_ends_is_made_again_while_somebody_fetches() {
    let (mut places, up) = fetched();
    let closed = RelayEvent::Leg { leg: up, state: LegState::Closed };
    let outcome = places.hear(0, closed.clone());
    assert_eq!((outcome.tell, outcome.acts), (vec![], vec![Act::Mend(key(), 1)]));
    let (mut places, _) = fetched();
    let outcome = places.hear(1, RelayEvent::CascadeClosed { key: key() });
    assert!(matches!(&outcome.acts[..], [Act::Close(0, Owed::Leg(_))]));
    assert_eq!(places.hear(0, closed).acts, [], "nobody fetches any more");
    assert!(!places.plan_cascade(&key(), 1).unwrap().is_whole);
}

#[test]
fn after_signaling_was_away_the_copies_and_their_legs_are_found_again() {
    let (_, up) = fetched();
    let mut places = three();
    places.note_feed(0, &key(), &publisher(), &scope(), None);
    let grant = LegGrant {
        leg: up.clone(),
        feed: key(),
        viewer: None,
        realm: realm(),
        companion: None,
        roq: LegRequest::default(),
        flows: None,
    };
    let held = LegHeld { shape: LegShape::Roq(grant), state: LegState::Connected, slots: Vec::new() };
    let turn = places.next_turn();
    let at_a = RelayState { legs: vec![held], ..RelayState::default() };
    // As if a's feed had been taken up in the same line.
    places.note_feed(0, &key(), &publisher(), &scope(), None);
    let told = places.rise(0, turn, hello("a", "1"), at_a).tell;
    assert_eq!(told, [RelayEvent::State(Box::default())], "nobody but relays knows of it");
    let turn = places.next_turn();
    places.rise(1, turn, hello("b", "1"), RelayState { cascades: vec![key()], ..RelayState::default() });
    assert!(places.plan_cascade(&key(), 1).unwrap().is_whole);
    let outcome = places.hear(0, RelayEvent::Leg { leg: up, state: LegState::Closed });
    assert_eq!(outcome.acts, [Act::Mend(key(), 1)]);
}

#[test]
fn closing_a_feed_closes_its_mirrors_and_an_unknown_leg_is_closed_everywhere() {
    let (mut places, _) = fetched();
    assert_eq!(places.close_feed(&key()), [Act::Close(0, Owed::Feed(key())), Act::Close(1, Owed::Feed(key()))]);
    assert_eq!(places.close_leg(&leg("viewer")), [Act::Close(1, Owed::Leg(leg("viewer")))]);
    assert_eq!(places.close_leg(&leg("late")).len(), 3, "one that was opened after the time was up");
}

#[test]
fn what_a_relay_says_of_a_feed_before_its_answer_is_passed_on_and_goes_to_whoever_fetches() {
    let mut of_house = scope();
    of_house.header_extensions = [("urn:trocar:frame".to_owned(), 1)].into_iter().collect();
    let said = RelayEvent::Descriptor { key: key(), descriptor: of_house.clone() };
    let fetched = |places: &mut Places| {
        places.note_feed(0, &key(), &publisher(), &scope(), None);
        places.plan_cascade(&key(), 1).unwrap().descriptor
    };
    let mut places = three();
    places.ask_feed(0, &key());
    assert_eq!(places.hear(1, said.clone()).tell, [], "another relay was not asked");
    assert_eq!(places.hear(0, said.clone()).tell, std::slice::from_ref(&said));
    assert_eq!(fetched(&mut places), of_house);
    // A second home of the feed.
    places.ask_feed(2, &key());
    assert_eq!(places.hear(2, said.clone()).tell, std::slice::from_ref(&said));
    places.note_feed(2, &key(), &publisher(), &scope(), None);
    assert_eq!(places.plan_cascade(&key(), 1).unwrap().descriptor, of_house);
    // What was said of one that was refused, or that nobody asked for, is about no other.
    let mut places = three();
    places.ask_feed(0, &key());
    places.hear(0, said.clone());
    places.refuse_feed(0, &key());
    assert_eq!(places.hear(0, said).tell, []);
    assert_eq!(fetched(&mut places), scope());
}
