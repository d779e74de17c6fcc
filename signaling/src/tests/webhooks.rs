//! Webhooks, with a receiver that checks what it gets.

use super::serving::Running;
use super::*;
use crate::Webhook;
use aws_lc_rs::hmac;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use tokio::time::timeout;
use trocar_proto::session::admission::RelayEvent;
use trocar_proto::session::api::FeedState;

const SECRET: [u8; 32] = [9; 32];
/// Longest wait for a call: the first retry comes after 1 s, the second 5 s later.
const SOON: Duration = Duration::from_secs(15);

/// What a call brought.
#[derive(Debug)]
struct Call {
    id: String,
    timestamp: String,
    signature: String,
    body: String,
}

impl Call {
    /// What any receiver has to do before it believes a call (Standard Webhooks, "verifying").
    fn is_genuine(&self, secret: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let age = wall_clock().0 / 1_000_000 - self.timestamp.parse::<u64>().unwrap_or(0);
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.body);
        let tag = self.signature.strip_prefix("v1,").and_then(|t| STANDARD.decode(t).ok()).unwrap_or_default();
        age < 300 && hmac::verify(&key, signed.as_bytes(), &tag).is_ok()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Clone)]
struct Receiver {
    calls: mpsc::Sender<Call>,
    /// How many calls are still to be refused, and how.
    refusals: Arc<Mutex<(u32, StatusCode)>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let call = Call { id, timestamp, signature: header("webhook-signature"), body };
    receiver.calls.send(call).await.unwrap();
    let mut refusals = receiver.refusals.lock().unwrap();
    if refusals.0 == 0 {
        return StatusCode::NO_CONTENT.into_response();
    }
    refusals.0 -= 1;
    (refusals.1, [("Location", "/elsewhere")]).into_response()
}

/// A receiver on a loopback port that refuses so many calls first: its address and what it gets.
async fn receiver(refuses: u32, how: StatusCode) -> (String, mpsc::Receiver<Call>) {
    let (calls, got) = mpsc::channel(64);
    let receiver = Receiver { calls, refusals: Arc::new(Mutex::new((refuses, how))) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().fallback(receive).with_state(receiver);
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, got)
}

fn hook(url: &str, events: &[&str]) -> Webhook {
    Webhook { url: url.to_owned(), secret: SECRET.to_vec(), events: events.iter().map(|e| (*e).to_owned()).collect() }
}

async fn next(got: &mut mpsc::Receiver<Call>) -> Call {
    timeout(SOON, got.recv()).await.expect("no call came").unwrap()
}

#[tokio::test]
async fn what_happens_is_told_in_order_and_signed() {
    let (url, mut got) = receiver(0, StatusCode::OK).await;
    let world = Running::with(|c| c.webhooks = vec![hook(&url, &[])]).await;
    let local = world.join(Role::Local).await;
    let (socket, _) = super::sockets::Socket::open(&world, &local).await;
    world.publish(&local, "scope").await;
    for state in [FeedState::Live, FeedState::Live, FeedState::Stalled] {
        let since = wall_clock();
        world.relay_says(RelayEvent::FeedState { key: world.key("scope"), state, since }).await;
    }
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let call = next(&mut got).await;
        assert!(call.is_genuine(&SECRET), "{call:?}");
        let forged = Call { body: call.body.replace("scope", "other") + " ", ..call };
        assert!(!forged.is_genuine(&SECRET), "a forged body was believed");
        kinds.push(forged.json()["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["session.opened", "participant.joined", "feed.announced", "feed.live", "feed.stalled"]);
    drop(socket);
    assert_eq!(next(&mut got).await.json()["type"], "participant.left");
    world.handle.close_session(&world.session).await.unwrap();
    assert_eq!(next(&mut got).await.json()["type"], "session.closed");
    assert_eq!(world.figure("trocar_signaling_webhooks_total ").await, "7");
}

#[tokio::test]
async fn the_body_has_ids_and_names_and_nothing_private() {
    let (url, mut got) = receiver(0, StatusCode::OK).await;
    let only = ["participant.joined", "feed.announced"];
    let world = Running::with(|c| c.webhooks = vec![hook(&url, &only)]).await;
    let local = world.join(Role::Local).await;
    let (_socket, _) = super::sockets::Socket::open(&world, &local).await;
    world.publish(&local, "scope").await;
    let joined = next(&mut got).await.json();
    let who = json!({"session": world.session, "participant": local.participant, "name": "local", "role": "local",
                     "realm": "north", "guest": false});
    assert_eq!((&joined["type"], &joined["data"]), (&json!("participant.joined"), &who));
    assert!(joined["time"].as_u64().unwrap().abs_diff(wall_clock().0) < 60_000_000);
    let announced = next(&mut got).await.json();
    let feed = json!({"session": world.session, "feed": "scope", "publisher": local.participant, "kind": "video",
                      "purpose": "scope", "source": "tower-1", "view": "overview"});
    assert_eq!((&announced["type"], &announced["data"]), (&json!("feed.announced"), &feed));
}

#[tokio::test]
async fn a_receiver_that_fails_is_called_again_with_the_same_message() {
    let (url, mut got) = receiver(2, StatusCode::TEMPORARY_REDIRECT).await;
    let _world = Running::with(|c| c.webhooks = vec![hook(&url, &["session.opened"])]).await;
    let (first, second, third) = (next(&mut got).await, next(&mut got).await, next(&mut got).await);
    assert_eq!((&first.id, &first.body), (&second.id, &second.body));
    assert_eq!((&first.id, &first.body), (&third.id, &third.body));
    assert!(third.is_genuine(&SECRET) && third.timestamp > first.timestamp, "each attempt is signed anew");
    assert!(!third.is_genuine(&[8; 32]), "the signature of another secret was believed");
    let replayed = Call { timestamp: "1000000000".into(), ..first };
    assert!(!replayed.is_genuine(&SECRET), "an old call was believed");
}

#[tokio::test]
async fn what_no_receiver_takes_is_dropped_and_counted() {
    // Nobody listens there.
    let figures = crate::figures::Figures::default();
    let (hooks, couriers) = crate::webhooks::Hooks::open(&[hook("http://127.0.0.1:9/", &[])]).unwrap();
    let session = SessionId::new("s1").unwrap();
    for _ in 0..crate::webhooks::QUEUE + 3 {
        hooks.call(&figures, crate::webhooks::Happening::session("session.opened", &session, "x"));
    }
    let dropped = |figures: &crate::figures::Figures, reason: &'static str| {
        figures.webhooks_dropped.get_or_create(&crate::figures::ReasonLabels { reason }).get()
    };
    assert_eq!(dropped(&figures, "queue"), 3);
    let figures = Arc::new(figures);
    drop(hooks);
    for courier in couriers {
        courier.hurried().run(figures.clone()).await;
    }
    assert_eq!((dropped(&figures, "failed"), figures.webhooks_sent.get()), (crate::webhooks::QUEUE as u64, 0));
}

#[test]
fn receivers_that_cannot_be_called_are_refused_by_name() {
    let with = |webhook: Webhook| Config { webhooks: vec![webhook], ..config() }.check();
    for good in ["https://x.example/hook?a=b", "http://127.0.0.1:8080/", "http://[::1]/x", "http://localhost/x"] {
        with(hook(good, &[])).unwrap();
    }
    for bad in ["http://x.example/", "ftp://x", "x", "https://", "https://u:p@x.example/", "https://x/#f"] {
        assert_eq!(with(hook(bad, &[])).unwrap_err().field, "webhook.url", "{bad}");
    }
    assert_eq!(with(hook("https://x/", &["feed.gone"])).unwrap_err().field, "webhook.events");
    let short = Webhook { secret: vec![1; 23], ..hook("https://x/", &[]) };
    assert_eq!(with(short).unwrap_err().field, "webhook.secret");
    assert!(Config { webhooks: vec![hook("https://x/", &[]); 17], ..config() }.check().is_err());
}
