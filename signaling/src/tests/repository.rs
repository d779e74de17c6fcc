//! The audit chain on its way to real repositories: rsyslog with both of its TLS drivers, killed and started again in the middle of it.

use super::*;
use crate::audit::{Entry, Exporter, Found, Received, Repository, reconcile, resend, verify};
use crate::store::Row;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const DRIVERS: [&str; 2] = ["gtls", "ossl"];
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority, the repository's certificate and ours, and one that nobody vouches for.
fn certificates(dir: &Path) {
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).unwrap();
    for (authority, leaves) in [("ca", ["server", "client"]), ("other-ca", ["other-server", "other-client"])] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, authority);
        write(&format!("{authority}.pem"), params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        for leaf in leaves {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, leaf);
            write(&format!("{leaf}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{leaf}.key"), key.serialize_pem());
        }
    }
}

/// A repository that writes what it got into a file before it reads on.
struct Rsyslog {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Rsyslog {
    fn start(driver: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let at = dir.path().display();
        // Another process may take the port between the two: then rsyslog does not listen, and another port is tried.
        for _ in 0..5 {
            let port = free_port();
            let configuration = format!(
                "global(workDirectory=\"{at}\" maxMessageSize=\"128k\" defaultNetstreamDriver=\"{driver}\"
                   defaultNetstreamDriverCAFile=\"{at}/ca.pem\" defaultNetstreamDriverCertFile=\"{at}/server.pem\"
                   defaultNetstreamDriverKeyFile=\"{at}/server.key\")
                 module(load=\"imtcp\" streamDriver.name=\"{driver}\" streamDriver.mode=\"1\" streamDriver.authMode=\"x509/certvalid\")
                 template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")
                 ruleset(name=\"audit\" queue.type=\"Direct\") {{ action(type=\"omfile\" file=\"{at}/kept\" template=\"raw\") }}
                 input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"audit\")\n"
            );
            std::fs::write(dir.path().join("rsyslog.conf"), configuration).unwrap();
            let mut child = Self::spawn(dir.path());
            if listens(&mut child, port) {
                return Self { dir, port, child };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!(
            "rsyslogd with the driver {driver} does not listen: is it installed (rsyslog, rsyslog-gnutls, rsyslog-openssl)?"
        );
    }

    fn spawn(dir: &Path) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(dir.join("rsyslog.conf")).arg("-i").arg(dir.join("pid"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// As `kill -9`.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.dir.path().join("pid"));
        self.child = Self::spawn(self.dir.path());
        assert!(listens(&mut self.child, self.port), "{}", self.log());
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    fn kept(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("kept")).unwrap_or_default()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn repository(&self, client: &str) -> Repository {
        let file = |name: &str| self.dir.path().join(name);
        Repository {
            address: format!("localhost:{}", self.port),
            server_name: None,
            ca: file("ca.pem"),
            identity: Some((file(&format!("{client}.pem")), file(&format!("{client}.key")))),
            facility: 10,
            app_name: "trocar".into(),
        }
    }

    /// What of the chain has arrived.
    fn found(&self, store: &Path) -> Found {
        reconcile(&Received::read(&*self.kept(), None).unwrap(), Some(store)).unwrap()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that the kernel gives to nobody by itself, so that nobody has it between here and rsyslog.
fn free_port() -> u16 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(37);
    loop {
        let n = first.wrapping_add(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let port = u16::try_from(20_000 + n % 12_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn listens(child: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// A node with a chain and a repository.
struct Node {
    world: World,
    path: PathBuf,
    _dir: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn new(repository: Repository) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trocar.db");
        let config = Config { store: StoreAt::File(path.clone()), audit_export: Some(repository), ..config() };
        config.check().unwrap();
        let world = World::with(config.clone()).await;
        let exporter = Exporter::new(&config, world.app.store.clone(), world.app.figures.clone()).unwrap();
        let task = tokio::spawn(exporter.run());
        Self { world, path, _dir: dir, task }
    }

    async fn add(&self, records: usize, bytes: usize) {
        let entry = || Entry::now("denied").saying("é&<".repeat(bytes / 4));
        let rows = (0..records).map(|_| Row::Event(Box::new(entry()))).collect();
        self.world.app.store.write(rows).await.unwrap();
    }

    fn end(&self) -> u64 {
        verify(&self.path, None).unwrap().end
    }

    /// Waits until the repository is believed to have everything.
    async fn sent(&self, repository: &Rsyslog) -> Found {
        let (end, deadline) = (self.end(), Instant::now() + PATIENCE);
        loop {
            let found = repository.found(&self.path);
            if found.sent == Some(end) {
                return found;
            }
            assert!(Instant::now() < deadline, "{found:?} of {end}, {}\n{}", self.failures(), repository.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a batch did not get there for that reason.
    async fn failed(&self, reason: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.failures().contains(reason) {
            assert!(Instant::now() < deadline, "{}", self.failures());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn failures(&self) -> String {
        let text = self.world.app.figures.render();
        text.lines().filter(|l| l.contains("audit_export_") && !l.starts_with('#')).collect::<Vec<_>>().join("\n")
    }
}

/// Whether messages are valid against our schema, by xmllint.
fn are_valid(messages: &[String]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..messages.len()).map(|i| dir.path().join(format!("{i}.xml"))).collect();
    for (file, text) in files.iter().zip(messages) {
        std::fs::write(file, text).unwrap();
    }
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/schemas/dicom-audit.rng");
    let mut xmllint = Command::new("xmllint");
    xmllint.arg("--noout").arg("--relaxng").arg(schema).args(&files).stderr(Stdio::null());
    xmllint.status().expect("xmllint is of the package libxml2-utils").success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_is_killed_in_the_middle_and_comes_back_has_every_record() {
    for driver in DRIVERS {
        let mut repository = Rsyslog::start(driver);
        let node = Node::new(repository.repository("client")).await;
        node.add(20, 40).await;
        let first = node.sent(&repository).await;
        assert!(first.is_whole() && first.doubled == 0 && first.records == node.end(), "{driver}: {first:?}");
        // Stopped while it has a part of a batch: that is the middle. Where it was too late, another batch is tried.
        let mut cuts = 0;
        for _ in 0..20 {
            let before = repository.kept().len();
            node.add(200, 4_000).await;
            let deadline = Instant::now() + PATIENCE;
            while repository.kept().len() == before {
                assert!(Instant::now() < deadline, "{driver}: {}\n{}", node.failures(), repository.log());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            repository.signal("STOP");
            let has = Received::read(&*repository.kept(), None).unwrap();
            let is_middle = reconcile(&has, Some(&node.path)).unwrap().records < node.end();
            if is_middle {
                repository.kill();
                cuts += 1;
                repository.start_again();
            } else {
                repository.signal("CONT");
            }
            node.sent(&repository).await;
            if cuts == 2 {
                break;
            }
        }
        assert_eq!(cuts, 2, "{driver}: it was never caught in the middle");
        let found = node.sent(&repository).await;
        assert!(found.is_whole() && found.records == node.end(), "{driver}: {found:?}");
        assert!(found.doubled > 0, "{driver}: a batch that was cut is sent again from its beginning: {found:?}");
        println!("{driver}: {} records, {} doubled, 0 lost after {cuts} kills", found.records, found.doubled);
        node.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_is_whole_and_valid_and_what_does_not_is_found_and_sent_again() {
    for driver in DRIVERS {
        let repository = Rsyslog::start(driver);
        let node = Node::new(repository.repository("client")).await;
        let session = node.world.app.create_session_about("Cholecystectomy", Some("NORTH|<4711>&")).await.unwrap();
        let who = node.world.join(Role::Expert).await;
        assert_eq!(node.world.publish(&who.token, "scope").await.status, 201);
        node.world.app.close_session(&session, None).await.unwrap();
        node.add(1, 20_000).await;
        let found = node.sent(&repository).await;
        assert!(found.is_whole() && found.unread == 0, "{driver}: {found:?}");
        let kept = String::from_utf8(repository.kept()).unwrap();
        let longest = kept.lines().map(str::len).max().unwrap();
        assert!(longest > 26_000, "{driver}: the large record was cut to {longest} bytes");
        let messages: Vec<String> =
            kept.lines().filter_map(|l| l.split_once('\u{feff}')).map(|(_, xml)| xml.to_owned()).collect();
        assert_eq!(messages.len() as u64, found.records);
        assert!(are_valid(&messages), "{driver}");
        let spoilt = messages[0].replace("UserIsRequestor", "UserIsRequester");
        assert!(!are_valid(&[spoilt]), "xmllint takes anything");
        // A line that the repository lost after it was written: found, and sent again.
        let fewer: String = kept.lines().skip(1).map(|l| format!("{l}\n")).collect();
        std::fs::write(repository.dir.path().join("kept"), fewer).unwrap();
        let lost = repository.found(&node.path);
        assert_eq!(lost.lost, [1..=1], "{driver}");
        resend(&node.path, 1).unwrap();
        let again = node.sent(&repository).await;
        assert!(again.is_whole() && again.doubled == again.records - 1, "{driver}: {again:?}");
        node.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_does_not_know_us_is_not_believed_and_one_that_we_do_not_know_gets_nothing() {
    for driver in DRIVERS {
        let repository = Rsyslog::start(driver);
        let other = Node::new(repository.repository("other-client")).await;
        let nobody = Node::new(Repository { identity: None, ..repository.repository("client") }).await;
        let imposter =
            Node::new(Repository { ca: repository.dir.path().join("other-ca.pem"), ..repository.repository("client") })
                .await;
        let misnamed =
            Node::new(Repository { server_name: Some("audit.example".into()), ..repository.repository("client") })
                .await;
        for (node, reason) in [(&other, "refused"), (&nobody, "refused"), (&imposter, "tls"), (&misnamed, "tls")] {
            node.add(3, 10).await;
            node.failed(reason).await;
            let found = repository.found(&node.path);
            assert_eq!((found.sent, found.records), (Some(0), 0), "{driver} {reason}: {found:?}");
            node.task.abort();
        }
        assert!(repository.kept().is_empty(), "{driver}");
    }
}
