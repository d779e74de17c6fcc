use crate::admission::Admission as _;
use crate::relays::door::{Door, DoorConfig};
use crate::relays::places::{Act, Owed};
use crate::relays::{RelayAt, Relays};
use crate::tests::descriptor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use trocar_proto::media::ext::FRAME_URI;
use trocar_proto::session::admission::{AdmitError, FeedGrant, FeedKey, FlowBinding, LegGrant, RelayEvent};
use trocar_proto::session::api::LegRequest;
use trocar_proto::session::event::LegState;
use trocar_proto::session::ids::{CertHash, FeedId, LegId, ParticipantId, RealmId, SessionId};
use trocar_proto::session::remote::RelayState;
use trocar_relay::link_test::{Answering, LinkTest};
use trocar_relay::quic::Identity;
use trocar_relay::remote::{AdmissionListener, RemoteAdmission};
use trocar_relay::worker::{Limits, RealmListener};
use trocar_relay::{Relay, RelayConfig};
use trocar_testpki::{Authority, Leaf};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// An authority in a folder.
pub(super) struct Ca {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Ca {
    pub(super) fn new() -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        Self { dir, authority }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate `trocar://north/ROLE/NAME` in NAME.pem and NAME.key.
    pub(super) fn issue(&self, role: &str, name: &str, serial: u8) -> (PathBuf, PathBuf) {
        self.issue_in("north", role, name, serial)
    }

    fn issue_in(&self, realm: &str, role: &str, name: &str, serial: u8) -> (PathBuf, PathBuf) {
        let leaf = Leaf::device(format!("trocar://{realm}/{role}/{name}")).at("127.0.0.1").serial(serial.into());
        self.authority.issue(&leaf).write(self.dir.path(), name)
    }

    fn revoke(&self, serial: u8) {
        std::fs::write(self.file("crl.new"), self.authority.revocation_list(&[serial.into()])).unwrap();
        std::fs::rename(self.file("crl.new"), self.file("crl.pem")).unwrap();
    }
}

pub(super) fn realm() -> RealmId {
    RealmId::new("north").unwrap()
}

pub(super) struct Running {
    pub(super) relay: Relay,
    /// Says that somebody operates by its rendezvous.
    pub(super) operated: watch::Sender<bool>,
    pub(super) link_tests: Option<Arc<Answering>>,
    pub(super) admission: RemoteAdmission,
}

impl Running {
    pub(super) async fn start(ca: &Ca, name: &str, serial: u8, address: &str) -> Self {
        Self::start_with(ca, (name, serial), address, LinkTest::default()).await
    }

    pub(super) async fn start_with(ca: &Ca, (name, serial): (&str, u8), address: &str, link_test: LinkTest) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let (cert, key) = ca.issue("relay", name, serial);
        let chain = |f: &Path| CertificateDer::pem_file_iter(f).unwrap().map(Result::unwrap).collect::<Vec<_>>();
        let identity = Identity {
            chain: chain(&cert),
            key: PrivateKeyDer::from_pem_file(&key).unwrap(),
            trust: chain(&ca.file("ca.pem")),
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = RealmListener {
            realm: realm(),
            webrtc: any,
            quic: any,
            advertise: Vec::new(),
            server_name: "127.0.0.1".into(),
            uplink: None,
        };
        let config = RelayConfig {
            listeners: vec![listener],
            identity,
            workers: 1,
            pin: None,
            limits: Limits { max_feeds: 2, ..Limits::default() },
            control: None,
        };
        let (relay, events) = Relay::start(config).unwrap();
        let address = address.parse().unwrap();
        let (operated, says) = watch::channel(false);
        let listeners = [(realm(), Vec::new())];
        let link_tests =
            Answering::start(&link_test, name.to_owned(), &listeners, relay.addresses(), says.clone()).unwrap();
        let (trust, realms) = (ca.file("ca.pem"), vec![realm()]);
        let listener =
            AdmissionListener { address, cert, key, trust, realms, link_tests: link_tests.clone(), operated: says };
        let admission = RemoteAdmission::start(listener, relay.clone(), events).await.unwrap();
        Self { relay, operated, link_tests, admission }
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.admission.address())
    }

    pub(super) async fn stop(self) {
        self.admission.shutdown().await;
        self.link_tests.iter().for_each(|answering| answering.stop());
        self.relay.shutdown().await;
    }
}

pub(super) fn at(ca: &Ca, name: &str, url: String, takes: (bool, bool)) -> RelayAt {
    let (cert, key) = (ca.file("signaling-1.pem"), ca.file("signaling-1.key"));
    let (takes_feeds, takes_legs) = takes;
    RelayAt { name: name.into(), url, cert, key, ca: ca.file("ca.pem"), realms: Vec::new(), takes_feeds, takes_legs }
}

fn key(feed: &str) -> FeedKey {
    FeedKey { session: SessionId::new("s1").unwrap(), feed: FeedId::new(feed).unwrap() }
}

fn feed(name: &str) -> FeedGrant {
    FeedGrant {
        key: key(name),
        realm: realm(),
        publisher: ParticipantId::new("p1").unwrap(),
        cnf: CertHash([1; 32]),
        descriptor: serde_json::from_value(descriptor(name)).unwrap(),
        flows: None,
    }
}

fn leg(name: &str, feed: &str) -> LegGrant {
    LegGrant {
        leg: LegId::new(name).unwrap(),
        feed: key(feed),
        viewer: Some(ParticipantId::new("v1").unwrap()),
        realm: realm(),
        companion: None,
        roq: LegRequest::default(),
        flows: None,
    }
}

/// The next event that the picker takes.
async fn event<T>(events: &mut mpsc::Receiver<RelayEvent>, pick: impl Fn(RelayEvent) -> Option<T>) -> T {
    timeout(PATIENCE, async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("events end")) {
                return found;
            }
        }
    })
    .await
    .expect("no such event")
}

fn state(event: RelayEvent) -> Option<RelayState> {
    match event {
        RelayEvent::State(state) => Some(*state),
        _ => None,
    }
}

pub(super) async fn one(ca: &Ca, relay: &Running) -> (Arc<Relays>, mpsc::Receiver<RelayEvent>) {
    Relays::start(vec![at(ca, "a", relay.url(), (true, true))], PATIENCE).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_apart_answers_as_one_in_the_process_does_and_keeps_all_while_signaling_is_away() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let relay = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let (relays, mut events) = one(&ca, &relay).await;
    assert_eq!(event(&mut events, state).await, RelayState::default(), "heard before start returned");
    assert!(relays.ready());
    let binding = relays.open_feed(feed("scope")).await.unwrap();
    assert!(binding.relay.starts_with("127.0.0.1:"));
    let missing = relays.open_roq_leg(leg("l0", "nothing"), CertHash([2; 32])).await;
    assert_eq!(missing, Err(AdmitError::NoSuchFeed));
    let bad = relays.open_webrtc_leg(leg("l1", "scope"), "no SDP".into()).await;
    assert!(matches!(bad, Err(AdmitError::BadSdp(_))), "{bad:?}");
    relays.open_roq_leg(leg("l2", "scope"), CertHash([2; 32])).await.unwrap();
    relays.open_feed(feed("room")).await.unwrap();
    assert!(matches!(relays.open_feed(feed("third")).await, Err(AdmitError::Full(_))));
    relays.close_feed(&key("room")).await;
    assert_eq!(relays.inner.places().homes(&key("scope")), [0]);
    drop((relays, events));

    let (relays, mut events) = one(&ca, &relay).await;
    let kept = event(&mut events, state).await;
    assert_eq!(kept.feeds.iter().map(|f| f.key.clone()).collect::<Vec<_>>(), [key("scope")]);
    assert_eq!(kept.legs.iter().map(|l| l.leg().as_str()).collect::<Vec<_>>(), ["l2"]);
    assert_eq!(kept.legs[0].viewer(), leg("l2", "scope").viewer.as_ref());
    relays.close_leg(&LegId::new("l2").unwrap()).await;
    let closed = event(&mut events, |e| match e {
        RelayEvent::Leg { leg, state: LegState::Closed } => Some(leg),
        _ => None,
    });
    assert_eq!(closed.await.as_str(), "l2");
    // What signaling takes for free and the relay does not, was left behind.
    drop((relays, events));
    let (relays, _events) = one(&ca, &relay).await;
    relays.inner.places().close_feed(&key("scope"));
    relays.open_feed(feed("scope")).await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_that_comes_late_spares_what_was_opened_since_and_a_feed_that_a_relay_lost_is_announced_again() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let relay = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let (relays, mut events) = one(&ca, &relay).await;
    let viewer = |name| relays.open_roq_leg(leg(name, "scope"), CertHash([2; 32]));
    let late = || Act::Close(0, Owed::Feed(key("scope")));
    relays.open_feed(feed("scope")).await.unwrap();
    relays.inner.act(late()).await;
    viewer("l1").await.unwrap();
    // The control: what the book does not have is closed.
    relays.inner.places().close_feed(&key("scope"));
    relays.inner.act(late()).await;
    let opened: Result<FlowBinding, _> = relays.inner.ask(0, "open-feed", &feed("scope")).await;
    assert!(opened.is_ok(), "it was not closed: {opened:?}");

    relays.open_feed(feed("scope")).await.unwrap();
    let () = relays.inner.ask(0, "close-feed", &key("scope")).await.unwrap();
    assert_eq!(viewer("l2").await, Err(AdmitError::NoSuchFeed));
    let lost = event(&mut events, |e| match e {
        RelayEvent::FeedClosed { key } => Some(key),
        _ => None,
    });
    assert_eq!(lost.await, key("scope"));
    assert!(relays.inner.places().homes(&key("scope")).is_empty());
    relays.open_feed(feed("scope")).await.unwrap();
    viewer("l3").await.unwrap();
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_signaling_is_let_in_and_only_until_it_is_revoked() {
    let ca = Ca::new();
    let relay = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let door = |cert: &(PathBuf, PathBuf)| {
        let (cert, key) = cert.clone();
        Door::new(&DoorConfig { url: relay.url(), cert, key, ca: ca.file("ca.pem") })
    };
    let good = door(&ca.issue("signaling", "signaling-1", 100)).unwrap();
    assert!(good.listen().await.is_ok());
    let () = good.ask("close-leg", &"l1").await.unwrap();
    let nothing: Result<(), _> = good.ask("no-such-command", &"l1").await;
    assert_eq!(nothing, Err(AdmitError::Unavailable));

    // Another role: its own program refuses it, and the relay does not let it through TLS.
    let observer = ca.issue("station", "observer-1", 101);
    assert!(door(&observer).err().unwrap().contains("role signaling"));
    let sent = client(&ca, Some(&observer)).get(format!("{}/v1/metrics", relay.url())).send().await;
    assert!(sent.is_err(), "{sent:?}");
    // The role is right and the realm is another's.
    let elsewhere = client(&ca, Some(&ca.issue_in("south", "signaling", "signaling-2", 102)));
    for (method, path) in [("POST", "/v1/admission/close-leg"), ("GET", "/v1/events"), ("GET", "/v1/metrics")] {
        let request = elsewhere.request(method.parse().unwrap(), format!("{}{path}", relay.url())).body("\"l1\"");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 403, "{path}");
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["type"], "urn:trocar:problem:not-signaling");
        assert!(problem["detail"].as_str().unwrap().contains("trocar://north/signaling/NAME"), "{problem}");
    }
    // No certificate, one of another authority: not even an answer.
    let stranger = Ca::new();
    let forged = stranger.issue("signaling", "signaling-1", 100);
    for identity in [None, Some(&forged)] {
        let sent = self::client(&ca, identity).get(format!("{}/v1/metrics", relay.url())).send().await;
        assert!(sent.is_err(), "{sent:?}");
    }
    // A body that is too large.
    let signaling = (ca.file("signaling-1.pem"), ca.file("signaling-1.key"));
    let client = self::client(&ca, Some(&signaling));
    let post = |body: String| client.post(format!("{}/v1/admission/close-leg", relay.url())).body(body).send();
    assert_eq!(post("\"l1\"".into()).await.unwrap().status(), 200);
    assert_eq!(post(format!("\"{}\"", "x".repeat(600 << 10))).await.unwrap().status(), 413);
    assert_eq!(post("3".into()).await.unwrap().status(), 400);

    // Revoked: on the connection that it has, and on a new one; the stream ends.
    let (mut stream, _) = good.listen().await.unwrap();
    ca.revoke(100);
    let ended = timeout(PATIENCE, async { while let Ok(Some(_)) = stream.chunk().await {} }).await;
    assert!(ended.is_ok(), "the event stream of somebody revoked goes on");
    assert_eq!(post("\"l1\"".into()).await.map(|r| r.status().as_u16()).unwrap_or(403), 403);
    let anew: Result<(), _> = door(&signaling).unwrap().ask("close-leg", &"l1").await;
    assert_eq!(anew, Err(AdmitError::Unavailable));
    relay.stop().await;
}

fn client(ca: &Ca, identity: Option<&(PathBuf, PathBuf)>) -> reqwest::Client {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = rustls::RootCertStore::empty();
    for c in CertificateDer::pem_file_iter(ca.file("ca.pem")).unwrap() {
        roots.add(c.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let tls = match identity {
        None => tls.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
            tls.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
    };
    reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_is_fetched_to_the_relay_of_the_viewers_and_a_relay_that_is_gone_is_told_within_two_seconds() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let a = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let b = Running::start(&ca, "b", 2, "127.0.0.1:0").await;
    let list = vec![at(&ca, "a", a.url(), (true, false)), at(&ca, "b", b.url(), (false, true))];
    let (relays, mut events) = Relays::start(list, PATIENCE).await.unwrap();
    relays.open_feed(feed("scope")).await.unwrap();
    assert_eq!(relays.inner.places().homes(&key("scope")), [0]);
    // Two viewers at once: one copy.
    let (l1, l2) = tokio::join!(
        relays.open_roq_leg(leg("l1", "scope"), CertHash([2; 32])),
        relays.open_roq_leg(leg("l2", "scope"), CertHash([2; 32]))
    );
    let quic = |r: &Running| r.relay.addresses()[0].quic.to_string();
    assert_eq!((l1.unwrap().relay, l2.unwrap().relay), (quic(&b), quic(&b)));
    let figures = |r: &Running| {
        let relay = r.relay.clone();
        async move { relay.snapshot().await.unwrap().render() }
    };
    let legs = |text: &str| text.lines().filter(|l| l.starts_with("trocar_leg_connected{")).count();
    assert_eq!(legs(&figures(&a).await), 1, "{}", figures(&a).await);
    assert_eq!(legs(&figures(&b).await), 2);
    // b connects to a with its own certificate.
    timeout(PATIENCE, async {
        while !figures(&a).await.lines().any(|l| l.starts_with("trocar_leg_connected{") && l.ends_with(" 1.0")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("b does not fetch from a");

    let address = b.admission.address().to_string();
    let began = tokio::time::Instant::now();
    b.stop().await;
    let mut closed = Vec::new();
    while closed.len() < 2 {
        closed.push(
            event(&mut events, |e| match e {
                RelayEvent::Leg { leg, state: LegState::Closed } => Some(leg.as_str().to_owned()),
                _ => None,
            })
            .await,
        );
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(closed, ["l1", "l2"]);
    assert!(!relays.ready());
    let refused = relays.open_roq_leg(leg("l3", "scope"), CertHash([2; 32])).await;
    assert_eq!(refused, Err(AdmitError::Unavailable));

    let b = Running::start(&ca, "b", 2, &address).await;
    event(&mut events, state).await;
    relays.open_roq_leg(leg("l3", "scope"), CertHash([2; 32])).await.unwrap();
    assert!(relays.metrics_text().contains("trocar_relay_up{relay=\"b\"} 1"));
    a.stop().await;
    let gone = event(&mut events, |e| match e {
        RelayEvent::FeedClosed { key } => Some(key),
        _ => None,
    });
    assert_eq!(gone.await, key("scope"));
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_foreign_feeds_packets_are_marked_is_known_to_all_however_soon_the_relay_says_it() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let relay = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let (relays, mut events) = one(&ca, &relay).await;
    relays.open_feed(feed("scope")).await.unwrap();
    let described = event(&mut events, |e| match e {
        RelayEvent::Descriptor { key, descriptor } => Some((key, descriptor)),
        _ => None,
    });
    let (of, descriptor) = described.await;
    assert_eq!(of, key("scope"));
    assert!(descriptor.extension_id(FRAME_URI).is_some(), "{descriptor:?}");
    drop((relays, events));
    // A signaling that starts again is told the same.
    let (_relays, mut events) = one(&ca, &relay).await;
    assert_eq!(event(&mut events, state).await.feeds[0].descriptor, descriptor);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_cannot_be_fetched_leaves_nothing_behind_and_keeps_no_other_waiting() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let a = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let b = Running::start(&ca, "b", 2, "127.0.0.1:0").await;
    let list = vec![at(&ca, "a", a.url(), (true, false)), at(&ca, "b", b.url(), (false, true))];
    let (relays, _events) = Relays::start(list, PATIENCE).await.unwrap();
    relays.open_feed(feed("scope")).await.unwrap();
    // b is full.
    for name in ["own-1", "own-2"] {
        b.relay.open_feed(feed(name)).await.unwrap();
    }
    let refused = relays.open_roq_leg(leg("l1", "scope"), CertHash([2; 32])).await;
    assert!(matches!(refused, Err(AdmitError::Full(_))), "{refused:?}");
    let plan = relays.inner.places().plan_cascade(&key("scope"), 1).unwrap();
    assert_eq!((plan.open_at, plan.kept, plan.is_whole), (vec![0], vec![], false));
    let figures = a.relay.snapshot().await.unwrap().render();
    assert!(!figures.lines().any(|l| l.starts_with("trocar_leg_connected{")), "{figures}");

    b.relay.close_feed(key("own-1")).await;
    let turn = relays.inner.turn(&key("room"), 1);
    let _somebody_waits_for_a_home_of_another_feed = turn.lock().await;
    let opened = timeout(PATIENCE, relays.open_roq_leg(leg("l2", "scope"), CertHash([2; 32]))).await;
    opened.expect("it waits for another feed").unwrap();
    a.stop().await;
    b.stop().await;
}

/// Answers every request with `null`, and shows that certificate; counts what it was asked.
async fn answer_as(
    ca: &Ca,
    (cert, key): (PathBuf, PathBuf),
) -> (String, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use trocar_control::trust::{Identity, TrustList};
    let identity = Identity::from_pem_files(&cert, &key).unwrap();
    let trust = TrustList::of_file(&ca.file("ca.pem")).unwrap();
    let tls = trust.current().server_config(&identity, b"http/1.1").unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", socket.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answering = tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4_096];
            if matches!(stream.read(&mut request).await, Ok(1..)) {
                count.fetch_add(1, Ordering::SeqCst);
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnull";
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.shutdown().await;
                while matches!(stream.read(&mut request).await, Ok(1..)) {}
            }
        }
    });
    (url, asked, answering)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_relay_is_believed_and_only_the_one_that_is_listened_to() {
    let ca = Ca::new();
    let (cert, key) = ca.issue("signaling", "signaling-1", 100);
    let door =
        |url| Door::new(&DoorConfig { url, cert: cert.clone(), key: key.clone(), ca: ca.file("ca.pem") }).unwrap();
    for (role, believed) in [("relay", true), ("station", false)] {
        let (url, asked, answering) = answer_as(&ca, ca.issue(role, "other", 3)).await;
        let answer: Result<(), AdmitError> = door(url.clone()).ask("close-leg", &"l1").await;
        assert_eq!(answer.is_ok(), believed, "{role}: {answer:?}");
        assert_eq!(door(url).figures().await.is_some(), believed, "{role}");
        assert_eq!(asked.load(Ordering::SeqCst), if believed { 2 } else { 0 }, "what a {role} was told");
        answering.abort();
    }
    let first = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let door = door(first.url());
    assert!(door.listen().await.is_ok());
    let () = door.ask("close-leg", &"l1").await.unwrap();
    let address = first.admission.address().to_string();
    first.stop().await;
    // Another one in its place, which has not been listened to.
    let second = Running::start(&ca, "b", 2, &address).await;
    // The first question may find the former connection still.
    for _ in 0..3 {
        let answer: Result<(), AdmitError> = door.ask("close-leg", &"l1").await;
        assert_eq!(answer, Err(AdmitError::Unavailable));
    }
    assert!(door.listen().await.is_ok());
    let () = door.ask("close-leg", &"l1").await.unwrap();
    second.stop().await;
}
