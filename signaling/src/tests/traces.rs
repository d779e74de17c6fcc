//! The word of a viewer that it shows a picture, over real event sockets, in the trace of its join.

use super::serving::Running;
use super::sockets::Socket;
use super::*;
use tokio::sync::mpsc;
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::event::LegState;

/// A collector, and a server that sends its traces there.
async fn traced() -> (Running, mpsc::Receiver<Value>) {
    let (told, bodies) = mpsc::channel(16);
    let take = move |axum::Json(body): axum::Json<Value>| {
        let told = told.clone();
        async move { told.send(body).await.map_or("", |()| "{}") }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = axum::Router::new().route("/v1/traces", axum::routing::post(take));
    tokio::spawn(axum::serve(listener, collector).into_future());
    let config = crate::TracesConfig { endpoint, service_name: "test".to_owned() };
    (Running::with(|c| c.traces = Some(config)).await, bodies)
}

/// The participants, and until when, of the joins in a request.
fn joins(body: &Value) -> Vec<(String, String)> {
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let value = |span: &Value, key: &str| {
        let of = span["attributes"].as_array().unwrap().iter().find(|a| a["key"] == key).unwrap();
        of["value"]["stringValue"].as_str().unwrap().to_owned()
    };
    let roots = spans.iter().filter(|s| s["name"] == "join");
    roots.map(|s| (value(s, "trocar.participant"), value(s, "trocar.until"))).collect()
}

#[tokio::test]
async fn a_viewers_own_word_ends_the_trace_of_its_join_and_nobody_elses_does() {
    let (world, mut bodies) = traced().await;
    let local = world.join(Role::Local).await;
    world.publish(&local, "scope").await;
    let (one, two) = (world.join(Role::Observer).await, world.join(Role::Observer).await);
    let (mut first, welcome) = Socket::open(&world, &one).await;
    assert_eq!(welcome["traced"], true);
    let (mut second, _) = Socket::open(&world, &two).await;
    let legs = (world.open_leg(&one, "scope").await, world.open_leg(&two, "scope").await);
    for (leg, socket) in [(&legs.0, &mut first), (&legs.1, &mut second)] {
        world.relay_says(RelayEvent::Leg { leg: leg.clone(), state: LegState::Connected }).await;
        assert_eq!(socket.next_of("leg").await["leg"], leg.as_str());
    }
    // The second speaks of the first one's leg, of none, and then of its own: that alone counts.
    for leg in [legs.0.as_str(), "nobodys", legs.1.as_str()] {
        second.say(&json!({"type": "shown", "leg": leg})).await;
    }
    assert_eq!(joins(&bodies.recv().await.unwrap()), [(two.participant.to_string(), "shown".to_owned())]);
    first.say(&json!({"type": "shown", "leg": legs.0})).await;
    assert_eq!(joins(&bodies.recv().await.unwrap()), [(one.participant.to_string(), "shown".to_owned())]);
    first.say(&json!({"type": "shown", "leg": "no leg's name"})).await;
    assert_eq!(first.closed().await, 1008);
}

#[tokio::test]
async fn a_server_that_traces_nothing_asks_for_no_word_and_takes_one() {
    let world = Running::new().await;
    let grant = world.join(Role::Observer).await;
    let (mut socket, welcome) = Socket::open(&world, &grant).await;
    assert_eq!(welcome["traced"], false);
    socket.say(&json!({"type": "shown", "leg": "l1"})).await;
    socket.say(&json!({"type": "clock", "t0": 42})).await;
    assert_eq!(socket.next_of("clock_reply").await["t0"], 42);
}
