use super::*;
use crate::{Relay, RelayConfig};
use std::time::{Duration, Instant, SystemTime};
use trocar_proto::session::ids::RealmId;
use trocar_testpki::{Authority, Issued, Leaf};

const HOUR: Duration = Duration::from_secs(3_600);
/// What is promised of a certificate that is taken back.
const PROMISE: Duration = Duration::from_secs(1);
/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// An authority in a directory, and a relay that lives by it.
struct Site {
    dir: tempfile::TempDir,
    ca: Authority,
    relay: Relay,
    events: mpsc::Receiver<RelayEvent>,
}

/// A device's certificate, good for an hour.
fn device(name: &str, serial: u64) -> Leaf {
    let now = SystemTime::now();
    Leaf::device(format!("trocar://north/{name}")).at("localhost").serial(serial).good(now - HOUR, now + HOUR)
}

fn client(name: &str, serial: u64) -> Leaf {
    device(name, serial).for_clients()
}

fn server(name: &str, serial: u64) -> Leaf {
    device(name, serial).for_servers()
}

impl Site {
    fn open() -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Authority::new());
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let at = |name: &str| dir.path().join(name);
        let south = (RealmId::new("south").unwrap(), (at("south.pem"), at("south.key")));
        let realms = BTreeMap::from([south]);
        let files = CertificateFiles { cert: at("relay.pem"), key: at("relay.key"), trust: at("ca.pem"), realms };
        write_south(&dir, &ca.issue(&server("relay/r", 950)));
        write_own(&dir, &ca.issue(&server("relay/r", 900)));
        let own = Identity::from_pem_files(&files.cert, &files.key).unwrap();
        let identity = quic::Identity { chain: own.chain.clone(), key: own.key.clone_key(), trust: vec![ca.der()] };
        let listener = |realm| crate::worker::RealmListener {
            realm: RealmId::new(realm).unwrap(),
            webrtc: "127.0.0.1:0".parse().unwrap(),
            quic: "127.0.0.1:0".parse().unwrap(),
            advertise: Vec::new(),
            server_name: "localhost".to_owned(),
            uplink: None,
        };
        let limits = crate::worker::Limits::default();
        let listeners = vec![listener("north"), listener("south")];
        let config = RelayConfig { listeners, identity, workers: 1, pin: None, limits, control: None };
        let (relay, events) = Relay::start(config).unwrap();
        relay.keep_certificates(files).unwrap();
        Self { dir, ca, relay, events }
    }

    async fn dial_with(&self, shown: &Issued) -> quinn::Connection {
        self.dial_at(0, shown).await
    }

    /// At that listener: north's is the first one, south's the second.
    async fn dial_at(&self, listener: usize, shown: &Issued) -> quinn::Connection {
        let identity = quic::Identity { chain: vec![shown.der.clone()], key: shown.key(), trust: vec![self.ca.der()] };
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quic::client_config(identity).unwrap());
        endpoint.connect(self.relay.addresses()[listener].quic, "localhost").unwrap().await.unwrap()
    }

    async fn dial(&self, leaf: &Leaf) -> quinn::Connection {
        self.dial_with(&self.ca.issue(leaf)).await
    }

    fn revoke(&self, serials: &[u64]) {
        replace(&self.dir, "crl.pem", &self.ca.revocation_list(serials));
    }

    /// The next thing that is told of certificates.
    async fn told(&mut self) -> (CertificateNews, String) {
        let next = async {
            loop {
                if let Some(RelayEvent::Certificates { news, detail }) = self.events.recv().await {
                    return (news, detail);
                }
            }
        };
        tokio::time::timeout(SOON, next).await.expect("nothing is told")
    }
}

fn replace(dir: &tempfile::TempDir, name: &str, text: &str) {
    let new = dir.path().join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, dir.path().join(name)).unwrap();
}

fn write_own(dir: &tempfile::TempDir, own: &Issued) {
    replace(dir, "relay.key", &own.key_pem());
    replace(dir, "relay.pem", &own.pem);
}

fn write_south(dir: &tempfile::TempDir, own: &Issued) {
    replace(dir, "south.key", &own.key_pem());
    replace(dir, "south.pem", &own.pem);
}

fn hash_of(pem: &str) -> CertHash {
    let certificate: CertificateDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
    cert_hash(&certificate)
}

/// Why the relay ended it.
async fn ended(connection: &quinn::Connection) -> String {
    tokio::time::timeout(SOON, connection.closed()).await.expect("it goes on").to_string()
}

/// It refuses a flow that nobody knows: it is served.
async fn lives(connection: &quinn::Connection) {
    let mut stream = connection.open_uni().await.expect("it is closed");
    // A packet of one byte, of a flow that nobody has.
    stream.write_all(&[0, 1, 0x80]).await.expect("it is closed");
    tokio::time::timeout(SOON, stream.stopped()).await.expect("it is not served").expect("it is closed");
}

fn shown(connection: &quinn::Connection) -> CertHash {
    let chain = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    cert_hash(&chain[0])
}

#[tokio::test]
async fn a_certificate_that_is_revoked_run_out_for_another_use_or_of_another_authority_is_refused_and_named() {
    let mut site = Site::open();
    site.revoke(&[2]);
    assert_eq!(site.told().await.0, CertificateNews::Renewed);
    let now = SystemTime::now();
    let good = site.dial(&client("publisher/good", 1)).await;
    let over = client("publisher/over", 3).good(now - 2 * HOUR, now - HOUR);
    for (name, leaf, why) in [
        ("publisher/revoked", client("publisher/revoked", 2), "is revoked"),
        ("publisher/over", over, "is not valid"),
        ("relay/a-server", server("relay/a-server", 4), "is not valid"),
    ] {
        let connection = site.dial(&leaf).await;
        assert!(ended(&connection).await.contains("certificate"), "{name}");
        let (news, detail) = site.told().await;
        assert!(news == CertificateNews::Refused && detail.contains(name) && detail.contains(why), "{detail}");
    }
    let stranger = site.dial_with(&Authority::new().issue(&client("publisher/stranger", 1))).await;
    ended(&stranger).await;
    let (_, detail) = site.told().await;
    assert!(detail.contains("publisher/stranger") && detail.contains("no authority"), "{detail}");
    lives(&good).await;
    let refused = site.relay.doors.figures().iter().flat_map(|f| &f.values).map(|v| v.value).collect::<Vec<_>>();
    assert_eq!(refused, [4.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_certificate_that_is_taken_back_is_out_within_a_second_and_the_others_go_on() {
    let mut site = Site::open();
    let good = site.dial(&client("station/good", 1)).await;
    let gone = site.dial(&client("station/gone", 2)).await;
    let relay = site.dial(&client("relay/other", 3)).await;
    for each in [&good, &gone, &relay] {
        lives(each).await;
    }
    site.revoke(&[2, 3]);
    let began = Instant::now();
    for each in [&gone, &relay] {
        assert!(ended(each).await.contains("revoked"));
    }
    assert!(began.elapsed() < PROMISE, "{:?}", began.elapsed());
    let mut told: Vec<String> = Vec::new();
    while told.len() < 2 {
        let (news, detail) = site.told().await;
        if news == CertificateNews::Revoked {
            told.push(detail);
        }
    }
    assert!(told[0].contains("trocar://north/station/gone at the media listener"), "{told:?}");
    assert!(told[1].contains("trocar://north/relay/other"), "{told:?}");
    lives(&good).await;
}

#[tokio::test]
async fn whoever_holds_authority_is_not_cut_off_before_its_gate_has_ended_that() {
    let mut site = Site::open();
    let station = site.ca.issue(&client("station/holder", 2));
    let gate = site.ca.issue(&client("gate/or-1", 3));
    let (holder, gate) = (site.dial_with(&station).await, site.dial_with(&gate).await);
    // Of a gate's own name nothing follows: it would spare itself.
    let gates = shown_by(&site, "gate");
    site.relay.doors.note_holders([cert_hash(&station.der), gates].into());
    site.revoke(&[2, 3]);
    assert!(ended(&gate).await.contains("revoked"));
    loop {
        let (_, detail) = site.told().await;
        if detail.contains("station/holder") {
            assert!(detail.contains("it has authority"), "{detail}");
            break;
        }
    }
    lives(&holder).await;
    site.relay.doors.note_holders(BTreeSet::new());
    let began = Instant::now();
    assert!(ended(&holder).await.contains("revoked"));
    assert!(began.elapsed() < PROMISE, "{:?}", began.elapsed());
    // It was spared, not let in: a new connection is refused.
    let again = site.dial_with(&station).await;
    assert!(ended(&again).await.contains("certificate"));
}

/// Hash of whoever of that role is connected, as soon as it is.
fn shown_by(site: &Site, role: &str) -> CertHash {
    let began = Instant::now();
    loop {
        let inside = site.relay.doors.inside();
        if let Some(v) = inside.visitors.values().find(|v| v.who.name.role == role) {
            return v.who.certificate;
        }
        drop(inside);
        assert!(began.elapsed() < SOON);
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_to_who_comes_and_nobody_who_is_there_notices() {
    let mut site = Site::open();
    let before = site.dial(&client("station/early", 1)).await;
    write_own(&site.dir, &site.ca.issue(&server("relay/r", 901)));
    let (news, detail) = site.told().await;
    assert!(news == CertificateNews::Renewed && detail.contains("relay.pem"), "{detail}");
    let after = site.dial(&client("station/late", 2)).await;
    assert_ne!(shown(&before), shown(&after));
    assert!(detail.contains(&shown(&after).to_string()), "{detail}");
    lives(&before).await;
    lives(&after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_change_nothing_and_are_told_once_until_they_can() {
    let mut site = Site::open();
    let unusable = |site: &Site| site.relay.doors.figures()[0].values[2].value;
    let there = site.dial(&client("station/there", 1)).await;
    let own = std::fs::read_to_string(site.dir.path().join("relay.pem")).unwrap();
    let now = SystemTime::now();
    let over = server("relay/r", 901).good(now - 2 * HOUR, now - HOUR);
    let other_key = site.ca.issue(&server("relay/r", 902)).pem;
    let wrong = [
        ("relay.pem", "no certificate".to_owned(), "relay.pem"),
        ("relay.pem", other_key, "own certificate"),
        ("relay.pem", site.ca.issue(&over).pem, "not good now"),
        ("relay.pem", site.ca.issue(&server("relay/another", 903)).pem, "trocar://north/relay/another"),
    ];
    for (file, text, want) in wrong {
        replace(&site.dir, file, &text);
        let (news, detail) = site.told().await;
        assert!(news == CertificateNews::Unusable && detail.contains(want), "{want}: {detail}");
        assert_eq!(unusable(&site), 1.0);
        assert_eq!(shown(&site.dial(&client("station/new", 2)).await), shown(&there), "{want}");
    }
    replace(&site.dir, "relay.pem", &own);
    replace(&site.dir, "crl.pem", "no list");
    let (news, detail) = site.told().await;
    assert!(news == CertificateNews::Unusable && detail.contains("crl.pem"), "{detail}");
    lives(&there).await;
    // The control: a good one counts.
    site.revoke(&[1]);
    assert!(ended(&there).await.contains("revoked"));
    assert_eq!(unusable(&site), 0.0);
}

#[tokio::test]
async fn each_realms_listener_shows_the_certificate_of_its_realm_and_a_new_one_of_it_alone() {
    let mut site = Site::open();
    let device = site.ca.issue(&client("publisher/good", 1));
    let at = async |site: &Site, listener| shown(&site.dial_at(listener, &device).await);
    let file = |site: &Site, name: &str| hash_of(&std::fs::read_to_string(site.dir.path().join(name)).unwrap());
    let (north, south) = (at(&site, 0).await, at(&site, 1).await);
    assert_eq!((north, south), (file(&site, "relay.pem"), file(&site, "south.pem")));
    assert_ne!(north, south);

    write_south(&site.dir, &site.ca.issue(&server("relay/r", 951)));
    let (news, detail) = site.told().await;
    assert_eq!(news, CertificateNews::Renewed);
    let newer = file(&site, "south.pem");
    assert!(detail.contains(&format!("for realm south {newer}")), "{detail}");
    assert_eq!((at(&site, 0).await, at(&site, 1).await), (north, newer));
    assert_ne!(newer, south);
}
