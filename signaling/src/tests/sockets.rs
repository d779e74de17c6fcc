//! Event sockets over real connections.

use super::serving::Running;
use super::*;
use axum::http::HeaderValue;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::{FeedPaths, FeedState};
use trocar_proto::session::event::LegState;
use trocar_proto::session::ids::FeedId;
use trocar_proto::units::WallMicros;

/// Longest wait for an event.
const SOON: Duration = Duration::from_secs(5);

pub(super) struct Socket(WebSocketStream<TcpStream>);

/// Connects with these headers, without a hello.
async fn dial(world: &Running, headers: &[(&'static str, &str)]) -> Result<Socket, Box<Error>> {
    let addr = world.handle.http_addr().unwrap();
    let mut request = format!("ws://{addr}/v1/sessions/{}/events", world.session).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let stream = TcpStream::connect(addr).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], "trocar.v1");
            Ok(Socket(socket))
        }
        Err(e) => Err(Box::new(e)),
    }
}

const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "trocar.v1");

impl Socket {
    /// Connects and says hello; the welcome is the second part.
    pub(super) async fn open(world: &Running, grant: &TokenGrant) -> (Self, Value) {
        let mut socket = dial(world, &[PROTOCOL]).await.unwrap();
        socket.say(&json!({"type": "hello", "token": grant.token})).await;
        let welcome = socket.next().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (socket, welcome)
    }

    pub(super) async fn say(&mut self, message: &Value) {
        self.0.send(Message::Text(message.to_string().into())).await.unwrap();
    }

    /// The next event.
    async fn next(&mut self) -> Value {
        loop {
            match timeout(SOON, self.0.next()).await.expect("no event came").unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?} came in place of an event"),
            }
        }
    }

    /// The next event of that type; others are passed over.
    pub(super) async fn next_of(&mut self, kind: &str) -> Value {
        self.next_of_any(&[kind]).await
    }

    /// The next event of any of these types.
    pub(super) async fn next_of_any(&mut self, kinds: &[&str]) -> Value {
        loop {
            let event = self.next().await;
            if kinds.iter().any(|kind| event["type"] == *kind) {
                return event;
            }
        }
    }

    /// Reads until the server closes; the close code.
    pub(super) async fn closed(&mut self) -> u16 {
        loop {
            match timeout(SOON, self.0.next()).await.expect("the server did not close") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("{other:?} came in place of a close frame"),
            }
        }
    }

    /// Nothing comes, for a while.
    async fn assert_quiet(&mut self) {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(150);
        while let Ok(message) = tokio::time::timeout_at(deadline, self.0.next()).await {
            assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
        }
    }
}

#[tokio::test]
async fn presence_is_told_on_the_first_and_the_last_socket() {
    let world = Running::new().await;
    let (one, two) = (world.join(Role::Local).await, world.join(Role::Expert).await);
    let (mut first, welcome) = Socket::open(&world, &one).await;
    assert_eq!(welcome["participant"], one.participant.as_str());
    assert_eq!(welcome["session"]["participants"][0]["participant"], one.participant.as_str());
    let (second, welcome) = Socket::open(&world, &two).await;
    assert_eq!(welcome["session"]["participants"].as_array().unwrap().len(), 2);
    let joined = first.next_of("participant_joined").await;
    assert_eq!(joined["participant"]["participant"], two.participant.as_str());
    assert_eq!(joined["participant"]["role"], "expert");

    let (third, _) = Socket::open(&world, &two).await;
    drop(second);
    first.assert_quiet().await;
    drop(third);
    let left = first.next_of("participant_left").await;
    assert_eq!(left["participant"], two.participant.as_str());
}

#[tokio::test]
async fn the_clock_is_answered_at_once() {
    let world = Running::new().await;
    let grant = world.join(Role::Local).await;
    let (mut socket, _) = Socket::open(&world, &grant).await;
    let before = wall_clock().0;
    socket.say(&json!({"type": "clock", "t0": 42})).await;
    let reply = socket.next_of("clock_reply").await;
    let after = wall_clock().0;
    assert_eq!(reply["t0"], 42);
    let (t1, t2) = (reply["t1"].as_u64().unwrap(), reply["t2"].as_u64().unwrap());
    assert!(before <= t1 && t1 <= t2 && t2 <= after);
}

#[tokio::test]
async fn without_a_good_hello_the_socket_closes() {
    let world = Running::with(|c| c.limits.hello_timeout = Duration::from_millis(100)).await;
    let mut silent = dial(&world, &[PROTOCOL]).await.unwrap();
    assert_eq!(silent.closed().await, 4408);
    let grant = world.join(Role::Local).await;
    let other = world.handle.create_session("another", None).await.unwrap();
    let invitation = world.handle.invite(&other, Role::Local, Duration::from_secs(60)).await.unwrap();
    let foreign = world.redeem(&invitation.invitation).await;
    for (message, code) in [
        (json!({"type": "hello", "token": "x"}), 4401),
        (json!({"type": "hello", "token": foreign.token}), 4403),
        (json!({"type": "hello", "token": grant.token, "more": 1}), 1008),
        (json!({"type": "clock", "t0": 1}), 1008),
        (json!([]), 1008),
    ] {
        let mut socket = dial(&world, &[PROTOCOL]).await.unwrap();
        socket.say(&message).await;
        assert_eq!(socket.closed().await, code, "{message}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_and_other_protocols_are_refused() {
    let world = Running::new().await;
    let http = world.handle.http_addr().unwrap();
    for good in
        [format!("http://localhost:{}", http.port()), format!("http://{http}"), "https://console.example".into()]
    {
        assert!(dial(&world, &[PROTOCOL, ("origin", &good)]).await.is_ok(), "{good}");
    }
    for bad in ["https://evil.example", "null", "http://localhost"] {
        let Err(e) = dial(&world, &[PROTOCOL, ("origin", bad)]).await else { panic!("{bad} was let in") };
        let Error::Http(response) = *e else { panic!("{e:?}") };
        assert_eq!(response.status(), 403);
        let problem: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
        assert_eq!((&problem["type"], &problem["field"]), (&json!("urn:trocar:problem:origin"), &json!("Origin")));
    }
    let Err(e) = dial(&world, &[("sec-websocket-protocol", "chat")]).await else { panic!("taken") };
    assert!(matches!(*e, Error::Http(r) if r.status() == 400));
}

#[tokio::test]
async fn broken_and_large_messages_close_the_socket() {
    let world = Running::new().await;
    let grant = world.join(Role::Local).await;
    for (message, code) in [
        (Message::Text("{\"type\": \"shout\"}".into()), 1008),
        (Message::Text("{\"type\": \"clock\", \"t0\": null}".into()), 1008),
        (Message::Text("[".repeat(10_000).into()), 1008),
        (Message::Binary(vec![0; 4].into()), 1003),
        (Message::Text("x".repeat(64 * 1024 + 1).into()), 1009),
    ] {
        let (mut socket, _) = Socket::open(&world, &grant).await;
        socket.0.send(message).await.unwrap();
        assert_eq!(socket.closed().await, code);
    }
}

#[tokio::test]
async fn a_flood_of_messages_closes_the_socket() {
    let world = Running::new().await;
    let grant = world.join(Role::Local).await;
    let (mut socket, _) = Socket::open(&world, &grant).await;
    for _ in 0..200 {
        if socket.0.send(Message::Ping(Vec::new().into())).await.is_err() {
            break;
        }
    }
    assert_eq!(socket.closed().await, 1008);
}

#[tokio::test]
async fn feeds_are_announced_changed_and_removed_on_the_stream() {
    let world = Running::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let (mut publisher, _) = Socket::open(&world, &local).await;
    let (mut socket, _) = Socket::open(&world, &viewer).await;
    world.publish(&local, "scope").await;
    let event = socket.next_of("feed").await;
    assert_eq!((&event["feed"]["state"], &event["feed"]["clock_uncertainty_us"]), (&json!("waiting"), &Value::Null));
    publisher.say(&json!({"type": "clock_report", "offset_us": -5000, "uncertainty_us": 300})).await;
    let event = socket.next_of("feed").await;
    assert_eq!(
        (&event["feed"]["clock_offset_us"], &event["feed"]["clock_uncertainty_us"]),
        (&json!(-5000), &json!(300))
    );
    for (offset, uncertainty) in [(-4800, 290), (-5100, 500), (-4000, 300)] {
        publisher.say(&json!({"type": "clock_report", "offset_us": offset, "uncertainty_us": uncertainty})).await;
    }
    assert_eq!(socket.next_of("feed").await["feed"]["clock_offset_us"], -4000, "small changes are not told");
    world
        .relay_says(RelayEvent::FeedState { key: world.key("scope"), state: FeedState::Live, since: WallMicros(17) })
        .await;
    let event = socket.next_of("feed").await;
    assert_eq!((&event["feed"]["state"], &event["feed"]["since"]), (&json!("live"), &json!(17)));
    assert_eq!(event["feed"].get("paths"), None, "a feed that is not protected says nothing of paths");
    let paths = FeedPaths { expected: 2, alive: 1, since: WallMicros(18) };
    world.relay_says(RelayEvent::Paths { key: world.key("scope"), paths }).await;
    let event = socket.next_of("feed").await;
    assert_eq!(event["feed"]["paths"], json!({"expected": 2, "alive": 1, "since": 18}));
    // The publisher goes: first it leaves, then after the grace period its feed does.
    drop(publisher);
    assert_eq!(socket.next_of("participant_left").await["participant"], local.participant.as_str());
    assert_eq!(socket.next_of("feed_removed").await["feed"], "scope");
    assert!(world.relay.asked().contains(&"close_feed scope".to_owned()));
}

#[tokio::test]
async fn a_clock_report_that_no_honest_clock_makes_closes_the_socket_and_reaches_nobody() {
    let world = Running::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let (_present, _) = Socket::open(&world, &local).await;
    let (mut socket, _) = Socket::open(&world, &viewer).await;
    world.publish(&local, "scope").await;
    socket.next_of("feed").await;
    for (offset, uncertainty) in
        [(0, json!(60_000_001)), (0, json!(u64::MAX)), (i64::MIN, json!(0)), (400_000_000_000_000, json!(0))]
    {
        let (mut publisher, _) = Socket::open(&world, &local).await;
        publisher.say(&json!({"type": "clock_report", "offset_us": offset, "uncertainty_us": uncertainty})).await;
        assert_eq!(publisher.closed().await, 1008, "{offset} {uncertainty}");
    }
    socket.assert_quiet().await;
    let (mut publisher, _) = Socket::open(&world, &local).await;
    publisher.say(&json!({"type": "clock_report", "offset_us": -7, "uncertainty_us": 60_000_000})).await;
    assert_eq!(socket.next_of("feed").await["feed"]["clock_uncertainty_us"], 60_000_000);
}

#[tokio::test]
async fn capture_times_go_to_the_legs_owner_on_the_servers_clock() {
    let world = Running::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let other = world.join(Role::Observer).await;
    let (mut publisher, _) = Socket::open(&world, &local).await;
    let (mut owner, _) = Socket::open(&world, &viewer).await;
    let (mut bystander, _) = Socket::open(&world, &other).await;
    world.publish(&local, "scope").await;
    let leg = world.open_leg(&viewer, "scope").await;
    bystander.next_of("feed").await;
    let capture = |leg: &LegId| RelayEvent::Capture {
        leg: leg.clone(),
        feed: world.key("scope"),
        rtp: 90_000,
        clock_rate: 90_000,
        capture: Some(WallMicros(1_000_000)),
        received: WallMicros(1_020_000),
    };
    world.relay_says(capture(&leg)).await;
    let event = owner.next_of("capture").await;
    assert_eq!((&event["capture"], &event["received"]), (&Value::Null, &json!(1_020_000)), "no clock report yet");

    publisher.say(&json!({"type": "clock_report", "offset_us": 7000, "uncertainty_us": 250})).await;
    assert_eq!(owner.next_of("feed").await["feed"]["clock_uncertainty_us"], 250);
    world.relay_says(capture(&leg)).await;
    let event = owner.next_of("capture").await;
    assert_eq!(event["leg"], leg.as_str());
    assert_eq!((&event["capture"], &event["uncertainty_us"]), (&json!(1_007_000), &json!(250)));
    assert_eq!((&event["rtp"], &event["clock_rate"]), (&json!(90_000), &json!(90_000)));

    bystander.next_of("feed").await;
    bystander.assert_quiet().await;
    world.relay_says(RelayEvent::Leg { leg: leg.clone(), state: LegState::Connected }).await;
    assert_eq!(owner.next_of("leg").await["state"], "connected");
    world.relay_says(RelayEvent::Leg { leg: leg.clone(), state: LegState::Closed }).await;
    assert_eq!(owner.next_of("leg").await["state"], "closed");
    bystander.assert_quiet().await;
}

#[tokio::test]
async fn legs_end_when_their_owner_has_been_away_for_the_grace_period() {
    let world = Running::new().await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    let (_publisher, _) = Socket::open(&world, &local).await;
    world.publish(&local, "scope").await;
    let (socket, _) = Socket::open(&world, &viewer).await;
    let leg = world.open_leg(&viewer, "scope").await;
    drop(socket);
    let closed = format!("close_leg {leg}");
    timeout(SOON, async {
        while !world.relay.asked().contains(&closed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the leg was not closed");
    assert!(!world.relay.asked().contains(&"close_feed scope".to_owned()));
}

#[tokio::test]
async fn a_removed_participant_is_cut_off() {
    let world = Running::new().await;
    let grant = world.join(Role::Expert).await;
    let (mut socket, _) = Socket::open(&world, &grant).await;
    world.handle.remove_participant(&world.session, &grant.participant).await.unwrap();
    socket.next_of("goodbye").await;
    assert_eq!(socket.closed().await, 4403);
    let mut socket = dial(&world, &[PROTOCOL]).await.unwrap();
    socket.say(&json!({"type": "hello", "token": grant.token})).await;
    assert_eq!(socket.closed().await, 4403);
}

#[tokio::test]
async fn shutting_down_says_goodbye() {
    let world = Running::new().await;
    let grant = world.join(Role::Expert).await;
    let (mut socket, _) = Socket::open(&world, &grant).await;
    let addr = world.handle.http_addr().unwrap();
    let (code, ()) = tokio::join!(
        async {
            assert_eq!(socket.next_of("goodbye").await["reason"], "the server is shutting down");
            socket.closed().await
        },
        async { timeout(SOON, world.handle.shutdown()).await.expect("shutdown took too long") }
    );
    assert_eq!(code, 1001);
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_holds_nobody_up() {
    let world = Running::with(|c| c.limits.socket_stall = Duration::from_millis(200)).await;
    let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
    // Published without an event socket, so that the deaf one is the only one.
    world.publish(&local, "scope").await;
    let (deaf, _) = Socket::open(&world, &viewer).await;
    let mut sent = 0_u64;
    while world.figure("trocar_signaling_event_sockets ").await != "0" {
        for _ in 0..2000 {
            sent += 1;
            let (key, since) = (world.key("scope"), WallMicros(sent));
            world.relay_says(RelayEvent::FeedState { key, state: FeedState::Live, since }).await;
        }
        assert!(sent < 1_000_000, "the socket was never closed");
    }
    drop(deaf);
}

#[test]
fn a_full_queue_ends_the_socket_and_captures_go_first() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = config();
        config.limits.socket_queue = 8;
        let world = World::with(config).await;
        let (local, viewer) = (world.join(Role::Local).await, world.join(Role::Observer).await);
        world.publish(&local.token, "scope").await;
        let reply = world.ask(Method::POST, &world.path("/feeds/scope/legs"), Some(&viewer.token), &[], "").await;
        let leg = LegId::new(reply.json()["leg"].as_str().unwrap()).unwrap();
        let mut outbound = world.app.live().attach(wall_clock(), &world.session, &viewer.participant).unwrap();
        let point = crate::live::CapturePoint { rtp: 0, clock_rate: 90_000, capture: None, received: WallMicros(0) };
        for _ in 0..20 {
            world.app.live().handle_capture(&leg, &FeedId::new("scope").unwrap(), point);
        }
        assert_eq!(outbound.queue.len(), 4, "captures fill half of the queue at most");
        assert!(outbound.ending.get().is_none());
        let key = FeedKey { session: world.session.clone(), feed: FeedId::new("scope").unwrap() };
        for _ in 0..5 {
            world.app.live().handle_feed_state(&key, FeedState::Live, WallMicros(0));
        }
        assert_eq!(outbound.ending.get(), Some(&crate::live::Ending::Slow));
        let mut queued = 0;
        while outbound.queue.recv().await.is_some() {
            queued += 1;
        }
        assert_eq!(queued, 8);
    });
}
