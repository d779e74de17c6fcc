use super::served::{Ca, PATIENCE, Running, at, one, realm};
use crate::admission::Admission as _;
use crate::link_tests::{LinkTests as _, NoLinkTest};
use crate::relays::Relays;
use tokio::time::timeout;
use trocar_proto::session::admission::{AdmitError, VoicesGrant};
use trocar_proto::session::ids::{LegId, ParticipantId, RealmId, SessionId};
use trocar_proto::session::link_test::LinkTestRefused;
use trocar_relay::link_test::LinkTest;

/// An offer that a relay takes for the voices of a session.
const VOICES: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
    c=IN IP4 0.0.0.0\r\na=ice-ufrag:abcd1234\r\na=ice-pwd:0123456789abcdef0123456789abcdef\r\na=fingerprint:sha-256 \
    01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F:20\r\n\
    a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n";

/// Waits until signaling knows that somebody operates through these relays, in its words.
async fn until_operated(relays: &Relays, through: &[&str]) {
    let mut operated = relays.inner.kept.operated();
    let told = timeout(PATIENCE, operated.wait_for(|o| o.values().eq(through))).await;
    told.expect("signaling was not told").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_somebody_operates_through_one_relay_the_line_of_none_is_measured_though_that_one_is_not_heard() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let on = LinkTest { enabled: true, listen: "127.0.0.1:0".parse().unwrap(), ..LinkTest::default() };
    let a = Running::start_with(&ca, ("a", 1), "127.0.0.1:0", on.clone()).await;
    let b = Running::start_with(&ca, ("b", 2), "127.0.0.1:0", on.clone()).await;
    let c = Running::start(&ca, "c", 3, "127.0.0.1:0").await;
    let list = [("a", &a), ("b", &b), ("c", &c)].map(|(name, r)| at(&ca, name, r.url(), (true, true)));
    let (relays, _events) = Relays::start(list.to_vec(), PATIENCE).await.unwrap();
    let begin = async |name: Option<&str>| relays.begin(name.map(ToOwned::to_owned), realm()).await;
    let refused = |relay: &str, why| Err(NoLinkTest::Refused { relay: Some(relay.to_owned()), why });

    assert_eq!(begin(None).await, Err(NoLinkTest::Several(vec!["a".into(), "b".into()])));
    let unknown = begin(Some("d")).await.unwrap_err().to_string();
    assert!(unknown.contains("those here are a, b, c"), "{unknown}");
    assert_eq!(begin(Some("c")).await, refused("c", LinkTestRefused::Unused.into()));
    let grant = begin(Some("b")).await.unwrap();
    assert_eq!((grant.relay.as_deref(), grant.addresses), (Some("b"), vec![b.link_tests.as_ref().unwrap().address()]));
    assert_eq!(grant.quic, [b.relay.addresses()[0].quic]);

    a.operated.send_replace(true);
    until_operated(&relays, &["relay a"]).await;
    let why = begin(Some("b")).await.unwrap_err().to_string();
    assert!(why.starts_with("relay b: an expert operates through relay a, or is about to: a measurement"), "{why}");
    let why = begin(Some("a")).await.unwrap_err().to_string();
    assert!(why.starts_with("relay a: an expert operates through this relay"), "{why}");
    // Signaling hears no more of it: he may operate still.
    let address = a.admission.address().to_string();
    a.stop().await;
    until_operated(&relays, &["relay a (which was the last that was heard of it)"]).await;
    assert_eq!(begin(Some("a")).await, refused("a", AdmitError::Unavailable));
    let why = begin(Some("b")).await.unwrap_err().to_string();
    assert!(why.contains("through relay a (which was the last that was heard of it)"), "{why}");
    // It is back, and nobody operates.
    let a = Running::start_with(&ca, ("a", 1), &address, on).await;
    until_operated(&relays, &[]).await;
    assert_eq!(begin(Some("b")).await.unwrap().relay.as_deref(), Some("b"));
    for relay in [a, b, c] {
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signaling_that_starts_again_is_told_who_operates_and_the_only_relay_that_answers_needs_no_name() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let on = LinkTest { enabled: true, listen: "127.0.0.1:0".parse().unwrap(), ..LinkTest::default() };
    let relay = Running::start_with(&ca, ("a", 1), "127.0.0.1:0", on).await;
    let (relays, events) = one(&ca, &relay).await;
    assert_eq!(relays.begin(None, realm()).await.unwrap().relay.as_deref(), Some("a"));
    let elsewhere = relays.begin(None, RealmId::new("south").unwrap()).await.unwrap_err().to_string();
    assert!(elsewhere.contains("realm south has no listener on this relay"), "{elsewhere}");
    relay.operated.send_replace(true);
    until_operated(&relays, &["relay a"]).await;
    drop((relays, events));
    let (relays, _events) = one(&ca, &relay).await;
    until_operated(&relays, &["relay a"]).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_relay_is_asked_for_by_name_is_at_that_relay() {
    let ca = Ca::new();
    ca.issue("signaling", "signaling-1", 100);
    let a = Running::start(&ca, "a", 1, "127.0.0.1:0").await;
    let b = Running::start(&ca, "b", 2, "127.0.0.1:0").await;
    let list = [("a", &a), ("b", &b)].map(|(name, r)| at(&ca, name, r.url(), (true, true)));
    let (relays, _events) = Relays::start(list.to_vec(), PATIENCE).await.unwrap();
    for (leg, relay, member, port) in [("l1", None, 0, &a), ("l2", Some("b"), 1, &b), ("l3", Some("a"), 0, &a)] {
        let grant = VoicesGrant {
            leg: LegId::new(leg).unwrap(),
            session: SessionId::new("s1").unwrap(),
            realm: realm(),
            listener: ParticipantId::new("e1").unwrap(),
            relay: relay.map(ToOwned::to_owned),
        };
        let answer = relays.open_voices(grant.clone(), VOICES.to_owned()).await.unwrap();
        assert_eq!(relays.inner.places().of_leg(&grant.leg), Some(member), "{leg}");
        let port = port.relay.addresses()[0].webrtc.port().to_string();
        assert!(answer.sdp.contains(&port), "{leg}: {} is not in {}", port, answer.sdp);
    }
    // Nobody listens by those that a relay was named for: no voice is fetched for them.
    assert_eq!(relays.inner.places().listened_at(&SessionId::new("s1").unwrap()), [0].into());
    relays.close_leg(&LegId::new("l1").unwrap()).await;
    assert!(relays.inner.places().listened_at(&SessionId::new("s1").unwrap()).is_empty());
    a.stop().await;
    b.stop().await;
}
