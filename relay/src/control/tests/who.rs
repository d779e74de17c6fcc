//! Who is let in, and what anything else is answered.

use super::*;
use trocar_proto::control::{MAX_FRAME, ToRelay};

fn quick() -> World {
    World::with(Limits { connect: Duration::from_millis(100), ..Limits::default() })
}

#[tokio::test]
async fn a_role_that_is_not_the_kinds_is_refused_by_name() {
    let world = World::new();
    for (role, kind) in [
        ("station", PartyKind::Gate),
        ("gate", PartyKind::Station),
        ("gate", PartyKind::Signaling),
        ("publisher", PartyKind::Station),
        ("signaling", PartyKind::Gate),
    ] {
        let mut raw = world.dial(role, "x").await;
        let token = raw.token("s1");
        let reason = raw.refused("s1", kind, token).await;
        assert!(reason.contains(&format!("this one has role {role}")), "{reason}");
    }
    assert_eq!(world.figure("trocar_control_refused", &[]).await, 5.0);
    assert_eq!(world.figure("trocar_control_parties", &[]).await, 0.0);
}

#[tokio::test]
async fn a_station_needs_a_token_of_its_session_that_is_bound_to_its_certificate() {
    let world = World::new();
    let other = world.dial("station", "other").await;
    for (token, why) in [
        (None, "shows its session token"),
        (other.token("s1"), "another session or certificate"),
        (Some("token:s2:x".to_owned()), "another session or certificate"),
    ] {
        let mut raw = world.dial("station", "expert-1").await;
        let reason = raw.refused("s1", PartyKind::Station, token).await;
        assert!(reason.contains(why), "{reason}");
    }
    let mut elsewhere = world.dial("station", "expert-1").await;
    let token = elsewhere.token("s1");
    assert!(elsewhere.refused("s2", PartyKind::Station, token).await.contains("another session"));
    // The negative control.
    world.station("s1", "expert-1").await;
}

#[tokio::test]
async fn a_certificate_of_another_realm_authority_or_without_a_name_does_not_get_in() {
    let world = World::new();
    for uri in ["trocar://south/gate/or-1", "https://north/gate/or-1", "trocar://north/gate"] {
        let raw = Raw::dial(world.control.address(), world.pki.named(uri)).await;
        assert!(raw.closed().await.contains("trocar://north/ROLE/NAME"));
    }
    let mut stranger = Pki::new().identity("gate", "or-1");
    stranger.trust = world.pki.identity("gate", "or-1").trust;
    if let Ok(raw) = Raw::try_dial(world.control.address(), stranger).await {
        // The client may be done before the server has looked at its certificate.
        let end = tokio::time::timeout(SOON, raw.connection.closed()).await.unwrap();
        assert!(matches!(end, quinn::ConnectionError::ConnectionClosed(_)), "{end}");
    }
    assert_eq!(world.figure("trocar_control_parties", &[]).await, 0.0);
}

#[tokio::test]
async fn stations_of_another_realm_come_by_its_listener_and_nobody_else_does() {
    let world = World::new();
    let (realm, south) = world.control.others()[0].clone();
    assert_eq!(realm.as_str(), "south");
    let mut gate = world.gate("s1").await;
    let mut station = Raw::dial(south, world.pki.named("trocar://south/station/expert-1")).await;
    station.join("s1", PartyKind::Station).await;
    let FromRelay::Joined { index, kind, certificate } = gate.heard().await else { panic!("nobody came") };
    assert_eq!((index, kind, certificate), (station.index(), PartyKind::Station, station.hash));

    for (role, kind) in [("gate", PartyKind::Gate), ("signaling", PartyKind::Signaling)] {
        let mut other = Raw::dial(south, world.pki.named(&format!("trocar://south/{role}/or-2"))).await;
        assert!(other.refused("s1", kind, None).await.contains("realm south has stations alone"));
    }
    let carried = Raw::dial(south, world.pki.identity("station", "expert-1")).await;
    assert!(carried.closed().await.contains("trocar://south/ROLE/NAME"));
}

#[tokio::test]
async fn whoever_says_nothing_or_half_a_word_is_closed() {
    let world = quick();
    let silent = world.dial("gate", "or-1").await;
    assert!(silent.closed().await.contains("CONNECT did not come within 100 ms"));
    let mut half = world.dial("gate", "or-1").await;
    half.say_bytes(&[0, 0, 0, 9, b'{']).await;
    assert!(half.closed().await.contains("CONNECT did not come within 100 ms"));
}

#[tokio::test]
async fn a_frame_that_is_too_long_or_no_frame_is_closed_with_the_reason() {
    let world = World::new();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes();
    let mut status_first = b"\0\0\0\x1f{\"type\":\"status\",\"bytes\":\"00\"}".to_vec();
    status_first[3] = u8::try_from(status_first.len() - 4).unwrap();
    for (bytes, why) in [
        (too_long.to_vec(), "at most 16384 bytes, this one says 16385"),
        (vec![0xff; 4], "this one says 4294967295"),
        (b"\0\0\0\x02[]".to_vec(), "cannot be used"),
        (b"\0\0\0\x13{\"type\":\"take_over\"}".to_vec(), "take_over"),
        (status_first, "has to be CONNECT"),
    ] {
        let mut raw = world.dial("gate", "or-1").await;
        raw.say_bytes(&bytes).await;
        let reason = raw.closed().await;
        assert!(reason.contains(why), "{reason}");
    }
    // The same once it is let in.
    let (mut gate, mut station) = pair(&world).await;
    gate.say_bytes(&too_long).await;
    assert!(gate.closed().await.contains("this one says 16385"));
    station.say(&ToRelay::Status { bytes: "00".to_owned() }).await;
    assert!(station.closed().await.contains("only a gate has a STATUS"));
}

#[tokio::test]
async fn a_second_connect_and_an_ended_rendezvous_stream_end_the_connection() {
    let world = World::new();
    let mut gate = world.gate("s1").await;
    let session = SessionId::new("s2").unwrap();
    gate.say(&ToRelay::Connect { session, kind: PartyKind::Gate, token: None }).await;
    assert!(gate.closed().await.contains("one CONNECT"));
    let mut ended = world.gate("s1").await;
    ended.stream.as_mut().unwrap().0.finish().unwrap();
    assert!(ended.closed().await.contains("ended"));
}

#[tokio::test]
async fn the_token_is_asked_for_stations_only() {
    let asked = Arc::new(AtomicUsize::new(0));
    let pki = Pki::new();
    let count = Arc::clone(&asked);
    let control = Control::start(ControlListener {
        realm: RealmId::new("north").unwrap(),
        address: "127.0.0.1:0".parse().unwrap(),
        others: Vec::new(),
        identity: pki.identity("relay", "relay-1"),
        tokens: Arc::new(move |_, _, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }),
        limits: Limits::default(),
    })
    .unwrap();
    for (role, kind, asks) in
        [("gate", PartyKind::Gate, 0), ("signaling", PartyKind::Signaling, 0), ("station", PartyKind::Station, 1)]
    {
        let mut raw = Raw::dial(control.address(), pki.identity(role, "x")).await;
        raw.join("s1", kind).await;
        assert_eq!(asked.load(Ordering::Relaxed), asks);
    }
}
