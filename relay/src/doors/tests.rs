use super::*;
use crate::{Relay, RelayConfig};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, ExtendedKeyUsagePurpose,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::time::{Duration, Instant, SystemTime};
use trocar_proto::session::ids::RealmId;

const HOUR: Duration = Duration::from_secs(3_600);
/// What is promised of a certificate that is taken back.
const PROMISE: Duration = Duration::from_secs(1);
/// Far more than anything here takes.
const SOON: Duration = Duration::from_secs(20);

/// An authority in a directory, and a relay that lives by it.
struct Site {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    relay: Relay,
    events: mpsc::Receiver<RelayEvent>,
}

/// How a certificate is made.
struct Made {
    serial: u64,
    usage: ExtendedKeyUsagePurpose,
    begins: SystemTime,
    ends: SystemTime,
}

impl Made {
    fn good(serial: u64) -> Self {
        let now = SystemTime::now();
        Self { serial, usage: ExtendedKeyUsagePurpose::ClientAuth, begins: now - HOUR, ends: now + HOUR }
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, both PEM.
fn issue(ca: &CertifiedIssuer<'static, KeyPair>, name: &str, made: &Made) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(format!("trocar://north/{name}").as_str().try_into().unwrap()));
    params.extended_key_usages = vec![made.usage.clone()];
    params.serial_number = Some(SerialNumber::from(made.serial));
    (params.not_before, params.not_after) = (made.begins.into(), made.ends.into());
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

impl Site {
    fn open() -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), authority());
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = CertificateFiles { cert: at("relay.pem"), key: at("relay.key"), trust: at("ca.pem") };
        write_own(&dir, &issue(&ca, "relay/r", &relays(900)));
        let own = Identity::from_pem_files(&files.cert, &files.key).unwrap();
        let identity =
            quic::Identity { chain: own.chain.clone(), key: own.key.clone_key(), trust: vec![ca.der().clone()] };
        let listener = crate::worker::RealmListener {
            realm: RealmId::new("north").unwrap(),
            webrtc: "127.0.0.1:0".parse().unwrap(),
            quic: "127.0.0.1:0".parse().unwrap(),
            advertise: Vec::new(),
            server_name: "localhost".to_owned(),
            uplink: None,
        };
        let limits = crate::worker::Limits::default();
        let config = RelayConfig { listeners: vec![listener], identity, workers: 1, pin: None, limits, control: None };
        let (relay, events) = Relay::start(config).unwrap();
        relay.keep_certificates(files).unwrap();
        Self { dir, ca, relay, events }
    }

    async fn dial_with(&self, (cert, key): &(String, String)) -> quinn::Connection {
        let key = KeyPair::from_pem(key).unwrap();
        let identity = quic::Identity {
            chain: vec![rustls::pki_types::pem::PemObject::from_pem_slice(cert.as_bytes()).unwrap()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            trust: vec![self.ca.der().clone()],
        };
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quic::client_config(identity).unwrap());
        endpoint.connect(self.relay.addresses()[0].quic, "localhost").unwrap().await.unwrap()
    }

    async fn dial(&self, name: &str, made: &Made) -> quinn::Connection {
        self.dial_with(&issue(&self.ca, name, made)).await
    }

    fn revoke(&self, serials: &[u64]) {
        let now = SystemTime::now();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - HOUR).into(),
            next_update: (now + HOUR).into(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        replace(&self.dir, "crl.pem", &list.signed_by(&self.ca).unwrap().pem().unwrap());
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

fn relays(serial: u64) -> Made {
    Made { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Made::good(serial) }
}

fn replace(dir: &tempfile::TempDir, name: &str, text: &str) {
    let new = dir.path().join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, dir.path().join(name)).unwrap();
}

fn write_own(dir: &tempfile::TempDir, (cert, key): &(String, String)) {
    replace(dir, "relay.key", key);
    replace(dir, "relay.pem", cert);
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
    let good = site.dial("publisher/good", &Made::good(1)).await;
    let revoked = Made::good(2);
    let over = Made { begins: now - 2 * HOUR, ends: now - HOUR, ..Made::good(3) };
    let servers = Made { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Made::good(4) };
    for (name, made, why) in [
        ("publisher/revoked", &revoked, "is revoked"),
        ("publisher/over", &over, "is not valid"),
        ("relay/a-server", &servers, "is not valid"),
    ] {
        let connection = site.dial(name, made).await;
        assert!(ended(&connection).await.contains("certificate"), "{name}");
        let (news, detail) = site.told().await;
        assert!(news == CertificateNews::Refused && detail.contains(name) && detail.contains(why), "{detail}");
    }
    let stranger = site.dial_with(&issue(&authority(), "publisher/stranger", &Made::good(1))).await;
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
    let good = site.dial("station/good", &Made::good(1)).await;
    let gone = site.dial("station/gone", &Made::good(2)).await;
    let relay = site.dial("relay/other", &Made::good(3)).await;
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
    let station = issue(&site.ca, "station/holder", &Made::good(2));
    let gate = issue(&site.ca, "gate/or-1", &Made::good(3));
    let (holder, gate) = (site.dial_with(&station).await, site.dial_with(&gate).await);
    let hash = |pem: &str| {
        cert_hash(&<CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(pem.as_bytes()).unwrap())
    };
    // Of a gate's own name nothing follows: it would spare itself.
    let gates = shown_by(&site, "gate");
    site.relay.doors.note_holders([hash(&station.0), gates].into());
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
    let before = site.dial("station/early", &Made::good(1)).await;
    write_own(&site.dir, &issue(&site.ca, "relay/r", &relays(901)));
    let (news, detail) = site.told().await;
    assert!(news == CertificateNews::Renewed && detail.contains("relay.pem"), "{detail}");
    let after = site.dial("station/late", &Made::good(2)).await;
    assert_ne!(shown(&before), shown(&after));
    assert!(detail.contains(&shown(&after).to_string()), "{detail}");
    lives(&before).await;
    lives(&after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_used_change_nothing_and_are_told_once_until_they_can() {
    let mut site = Site::open();
    let unusable = |site: &Site| site.relay.doors.figures()[0].values[2].value;
    let there = site.dial("station/there", &Made::good(1)).await;
    let own = std::fs::read_to_string(site.dir.path().join("relay.pem")).unwrap();
    let now = SystemTime::now();
    let over = Made { begins: now - 2 * HOUR, ends: now - HOUR, ..relays(901) };
    let (other_key, _) = issue(&site.ca, "relay/r", &relays(902));
    let wrong = [
        ("relay.pem", "no certificate".to_owned(), "relay.pem"),
        ("relay.pem", other_key, "own certificate"),
        ("relay.pem", issue(&site.ca, "relay/r", &over).0, "not good now"),
        ("relay.pem", issue(&site.ca, "relay/another", &relays(903)).0, "trocar://north/relay/another"),
    ];
    for (file, text, want) in wrong {
        replace(&site.dir, file, &text);
        let (news, detail) = site.told().await;
        assert!(news == CertificateNews::Unusable && detail.contains(want), "{want}: {detail}");
        assert_eq!(unusable(&site), 1.0);
        assert_eq!(shown(&site.dial("station/new", &Made::good(2)).await), shown(&there), "{want}");
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
