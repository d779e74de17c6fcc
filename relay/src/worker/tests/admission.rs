//! Who gets a place on a realm's line, and by whom a feed is fetched.

use super::*;
use crate::worker::cascade::is_relay;
use crate::worker::state::Resource;
use trocar_proto::session::admission::CHOSEN_FLOWS;

fn leg(name: &str) -> LegId {
    LegId::new(name).unwrap()
}

/// A view of a source of that name, without a connection.
fn feed(w: &mut World, name: &str, (source, purpose): (&str, Purpose), mbit: u64) -> usize {
    let descriptor = serde_json::from_value(serde_json::json!({
        "feed": name, "source": source, "view": name, "kind": "video", "purpose": purpose, "codec": "VP8",
        "clock_rate": 90_000, "payload_type": 96, "max_bitrate": mbit * 1_000_000, "budget_ms": 200, "transport": "webrtc",
    }));
    let (publisher, cnf) = (ParticipantId::new("p1").unwrap(), CertHash([1; 32]));
    let descriptor = descriptor.unwrap();
    w.core.open_feed(FeedGrant { key: key(name), realm: north(), publisher, cnf, descriptor, flows: None }).unwrap();
    w.core.find_feed(&key(name)).unwrap()
}

fn line_takes(w: &mut World, mbit: u64) {
    let listener = RealmListener { uplink: Some(Bitrate(mbit * 1_000_000)), ..listener() };
    w.core.listeners[0].uplink = crate::uplink::Uplink::of(&listener);
}

fn grant(name: &str, feed: &str) -> LegGrant {
    let (roq, realm) = (LegRequest::default(), north());
    LegGrant { leg: leg(name), feed: key(feed), viewer: None, realm, companion: None, roq, flows: None }
}

fn native(w: &mut World, name: &str, feed: &str) -> Result<FlowBinding, AdmitError> {
    w.core.open_roq_leg(grant(name, feed), CertHash([1; 32]), w.now)
}

/// A browser that views the feed: its leg.
fn browser(w: &mut World, name: &str, feed: &str) -> usize {
    let offer = include_str!("../../webrtc/sdp/offers/chromium-whep.sdp").replace('\n', "\r\n");
    w.core.open_webrtc_leg(grant(name, feed), &offer, w.now).unwrap();
    let Some(Resource::Peer(peer)) = w.core.leg_by_id.get(&leg(name)).copied() else { panic!("a peer") };
    w.core.peers[peer].legs[0]
}

fn is_full(answer: Result<FlowBinding, AdmitError>) -> bool {
    matches!(answer, Err(AdmitError::Full(_)))
}

#[tokio::test]
async fn a_leg_that_is_refused_throws_nobody_off_the_line() {
    let mut w = World::new();
    feed(&mut w, "room", ("room", Purpose::Room), 8);
    feed(&mut w, "scope", ("scope", Purpose::Scope), 4);
    line_takes(&mut w, 10);
    native(&mut w, "viewer", "room").unwrap();
    let one = FlowId(CHOSEN_FLOWS.start);
    let unusable = LegGrant { flows: Some((one, one)), ..grant("leg1", "scope") };
    assert!(is_full(w.core.open_roq_leg(unusable, CertHash([1; 32]), w.now)));
    w.core.tick(w.now);
    assert!(w.core.leg_by_id.contains_key(&leg("viewer")), "it went for a leg that is not there");
    native(&mut w, "leg1", "scope").unwrap();
    w.core.tick(w.now);
    assert!(!w.core.leg_by_id.contains_key(&leg("viewer")), "the control");
}

#[tokio::test]
async fn a_leg_has_the_larger_layers_place_before_it_comes_and_gives_it_back_when_it_shows_the_smaller_one() {
    let mut w = World::new();
    let small = feed(&mut w, "small", ("scope", Purpose::Scope), 4);
    let large = feed(&mut w, "large", ("scope", Purpose::Scope), 8);
    line_takes(&mut w, 10);
    let shown = browser(&mut w, "leg1", "small");
    native(&mut w, "leg2", "small").unwrap();
    let to = |w: &mut World, feed: &str| w.core.switch_leg(&leg("leg1"), &key(feed), Vec::new(), w.now);
    let pictures = |w: &mut World, feed: usize| {
        for _ in 0..3 {
            w.advance(33);
            w.picture(feed, &[&KEY]);
        }
        w.core.legs[shown].feed == Some(feed)
    };
    let refused = to(&mut w, "large");
    assert!(matches!(&refused, Err(AdmitError::Full(why)) if why.contains("6.0 are left")), "{refused:?}");
    assert!(!pictures(&mut w, large), "what was refused does not come");
    w.core.close_leg(&leg("leg2"));

    to(&mut w, "large").unwrap();
    assert!(is_full(native(&mut w, "leg2", "small")), "it is promised");
    to(&mut w, "small").unwrap();
    native(&mut w, "leg2", "small").unwrap();
    w.core.close_leg(&leg("leg2"));

    to(&mut w, "large").unwrap();
    assert!(pictures(&mut w, large));
    assert!(is_full(native(&mut w, "leg2", "small")));
    to(&mut w, "small").unwrap();
    assert!(is_full(native(&mut w, "leg2", "small")), "the larger one goes on until the smaller one comes");
    assert!(pictures(&mut w, small));
    native(&mut w, "leg2", "small").unwrap();
    w.core.close_leg(&leg("leg2"));

    to(&mut w, "large").unwrap();
    w.core.close_feed(&key("large"));
    w.core.tick(w.now);
    native(&mut w, "leg2", "small").expect("what it waited for is no more");
}

#[tokio::test]
async fn a_feed_is_fetched_from_a_relay_and_not_from_a_device_at_its_address() {
    let [relay, device] = identities();
    for (server, client, ok) in [(&relay, &device, true), (&device, &relay, false)] {
        let any = "127.0.0.1:0".parse().unwrap();
        let server = quinn::Endpoint::server(quic::server_config(server.duplicate()).unwrap(), any).unwrap();
        let mut endpoint = quinn::Endpoint::client(any).unwrap();
        endpoint.set_default_client_config(quic::client_config(client.duplicate()).unwrap());
        let accepting = async { server.accept().await.unwrap().await };
        let connecting = endpoint.connect(server.local_addr().unwrap(), "localhost").unwrap();
        let (accepted, connection) = tokio::join!(accepting, connecting);
        let judged = is_relay(&connection.unwrap());
        assert_eq!(judged.is_ok(), ok, "{judged:?}");
        drop(accepted);
    }
}
