//! What a TLS listener on TCP offers, as OpenSSL's `s_client` finds out: one thing is offered at a time, so that what a listener would take
//! only if it had no choice shows as well.

use anyhow::{Context as _, bail, ensure};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use trocar_media_tests::process::Process;
use trocar_media_tests::stack::{PATIENCE, path};

/// A client that is still there after this long is ended: nothing here takes a second.
const AT_MOST: &str = "30";
/// Everything that this OpenSSL can do, what is insecure as well.
pub(super) const ALL: &str = "ALL:COMPLEMENTOFALL";
/// Suites with a shared key or a password are offered by a client that has one only.
const SECRETS: [&str; 6] = ["-psk", "00", "-srpuser", "somebody", "-srppass", "pass:something"];
/// What the control offers.
pub(super) const CBC: &str = "ECDHE-ECDSA-AES128-SHA";
/// The alert `certificate_required` (RFC 8446 section 6.2).
const NO_CERTIFICATE: &str = "SSL alert number 116";
const BEFORE_1_3: [(&str, &str); 3] = [("TLS 1.0", "-tls1"), ("TLS 1.1", "-tls1_1"), ("TLS 1.2", "-tls1_2")];
const SUITES_OF_1_3: [&str; 5] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
];
/// All that OpenSSL has for TLS 1.3.
const GROUPS: [&str; 10] =
    ["X25519", "P-256", "P-384", "P-521", "X448", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"];
pub(super) const SIGNATURES: [&str; 15] = [
    "ECDSA+SHA256",
    "ECDSA+SHA384",
    "ECDSA+SHA512",
    "ECDSA+SHA224",
    "ECDSA+SHA1",
    "ed25519",
    "ed448",
    "RSA-PSS+SHA256",
    "RSA-PSS+SHA384",
    "RSA-PSS+SHA512",
    "RSA+SHA256",
    "RSA+SHA384",
    "RSA+SHA512",
    "RSA+SHA224",
    "RSA+SHA1",
];
const PROTOCOLS: [&str; 8] = [
    "http/1.1",
    "h2",
    "http/1.0",
    "trocar-frames/1",
    "trocar-handover/1",
    "trocar-control/1",
    "roq-14",
    "a protocol that nobody has",
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// SSL 3.0 to TLS 1.3.
    pub(super) versions: Vec<&'static str>,
    /// Of all versions, in the order in which they were found.
    pub(super) suites: Vec<String>,
    /// Of TLS 1.3.
    pub(super) groups: Vec<&'static str>,
    pub(super) signatures: Vec<&'static str>,
    /// By ALPN.
    pub(super) protocols: Vec<&'static str>,
    /// Session tickets of one connection.
    pub(super) tickets: usize,
    pub(super) early_data: bool,
    pub(super) compression: bool,
    /// Only TLS 1.2 and older can.
    pub(super) renegotiation: bool,
    /// Whether nobody gets in without a certificate.
    pub(super) wants_certificate: bool,
    /// Whether SHA-1 or SHA-224 would do for it.
    pub(super) takes_weak_certificates: bool,
    /// Certificates that it shows.
    pub(super) chain: usize,
    /// Whether they are good by the authority's file.
    pub(super) is_trusted: bool,
    /// Of its key.
    pub(super) bits: u32,
}

/// A listener, and what it takes to talk to it.
pub(super) struct Listener {
    pub(super) name: &'static str,
    pub(super) at: SocketAddr,
    /// Who has signed its certificate.
    pub(super) authority: PathBuf,
    /// A certificate that it lets in, with the key, both PEM.
    pub(super) certificate: Option<(PathBuf, PathBuf)>,
    /// What makes it say something and close the connection.
    pub(super) last_words: &'static [u8],
    /// For files of ours.
    pub(super) dir: tempfile::TempDir,
}

impl Listener {
    /// Tries all of it.
    pub(super) fn scan(&self) -> anyhow::Result<Offer> {
        let mut versions = Vec::new();
        // SSL 3.0 to TLS 1.2, each with an offer to compress, which OpenSSL is built without; TLS 1.3 has none.
        let hellos: Vec<_> = (0x0300..=0x0303).map(|v| hello(self.at, v, true)).collect::<anyhow::Result<_>>()?;
        if hellos.first().is_some_and(Option::is_some) {
            versions.push("SSL 3.0");
        }
        let mut suites = Vec::new();
        for (name, flag) in BEFORE_1_3 {
            let found = self.suites_before_1_3(flag)?;
            if !found.is_empty() {
                versions.push(name);
            }
            suites.extend(found.into_iter().filter(|s| !suites.contains(s)).collect::<Vec<_>>());
        }
        let is_1_2 = versions.contains(&"TLS 1.2");
        let of_1_3 = self.each(&SUITES_OF_1_3, |suite| vec!["-tls1_3", "-ciphersuites", suite])?;
        if !of_1_3.is_empty() {
            versions.push("TLS 1.3");
        }
        suites.extend(of_1_3.into_iter().map(ToOwned::to_owned));
        let groups = self.each(&GROUPS, |group| vec!["-tls1_3", "-groups", group])?;
        // A hello for TLS 1.3 alone may not offer SHA-1, so TLS 1.2 is offered beside it.
        let weak = format!("{ALL}:@SECLEVEL=0");
        let mut signatures = self.each(&SIGNATURES, |s| vec!["-cipher", &weak, "-sigalgs", s])?;
        if is_1_2 {
            let more = self.each(&SIGNATURES, |s| vec!["-tls1_2", "-cipher", &weak, "-sigalgs", s])?;
            signatures.extend(more.into_iter().filter(|s| !signatures.contains(s)).collect::<Vec<_>>());
        }
        let mut protocols = Vec::new();
        for one in PROTOCOLS {
            let said = self.ask(&["-alpn", one])?;
            protocols.extend(said.filter(|s| s.contains(&format!("ALPN protocol: {one}\n"))).map(|_| one));
        }
        let (said, early_data) = self.talk()?;
        let number = |after: &str| said.split(after).nth(1).and_then(|t| t.split_whitespace().next()?.parse().ok());
        let asks = said.lines().find_map(|l| l.strip_prefix("Requested Signature Algorithms: ")).unwrap_or_default();
        Ok(Offer {
            versions,
            suites,
            groups,
            signatures,
            protocols,
            tickets: said.matches(", NewSessionTicket").count(),
            early_data,
            compression: hellos.into_iter().flatten().any(|method| method != 0),
            renegotiation: is_1_2 && self.renegotiates()?,
            wants_certificate: self.s_client(&["-ign_eof"], self.last_words)?.contains(NO_CERTIFICATE),
            takes_weak_certificates: asks.contains("SHA1") || asks.contains("SHA224"),
            chain: said.matches("-----BEGIN CERTIFICATE-----").count(),
            is_trusted: said.contains("Verify return code: 0 (ok)"),
            bits: number("Server public key is ").with_context(|| format!("{}: no key in {said}", self.name))?,
        })
    }

    /// Those of `all` with which there is a connection.
    fn each<'o>(
        &self,
        all: &[&'static str],
        options: impl Fn(&'static str) -> Vec<&'o str>,
    ) -> anyhow::Result<Vec<&'static str>> {
        let mut found = Vec::new();
        for one in all {
            if self.ask(&options(one))?.is_some() {
                found.push(*one);
            }
        }
        Ok(found)
    }

    /// Offers every suite, and then every one but those that were chosen, until nothing is chosen.
    fn suites_before_1_3(&self, version: &str) -> anyhow::Result<Vec<String>> {
        let (mut found, mut list) = (Vec::new(), ALL.to_owned());
        loop {
            let ciphers = format!("{list}:@SECLEVEL=0");
            let Some(said) = self.ask(&[&[version, "-cipher", &ciphers], &SECRETS[..]].concat())? else {
                return Ok(found);
            };
            let suite = chosen(&said).context("no suite")?.to_owned();
            ensure!(!found.contains(&suite), "{suite} was chosen without being offered");
            list += &format!(":!{suite}");
            found.push(suite);
        }
    }

    /// Whether there is a connection with these options, and what was said of it.
    fn ask(&self, options: &[&str]) -> anyhow::Result<Option<String>> {
        let said = self.s_client(options, &[])?;
        // A suite is chosen before the rest is looked at. What comes for want of a certificate comes after all that.
        let is_alert = said.contains("SSL alert number") && !said.contains(NO_CERTIFICATE);
        if chosen(&said).is_some() && !is_alert {
            return Ok(Some(said));
        }
        // Whatever else went wrong is our own mistake.
        let is_refused = is_alert || ["unexpected eof", "errno=104"].iter().any(|sign| said.contains(sign));
        ensure!(is_refused, "{}: {options:?} was not tried: {said}", self.name);
        Ok(None)
    }

    /// A connection that lasts until the listener ends it, and whether data was taken early in the next one.
    fn talk(&self) -> anyhow::Result<(String, bool)> {
        let (session, early) = (self.dir.path().join("session.pem"), self.dir.path().join("early"));
        std::fs::write(&early, "too early")?;
        // Certificates of devices, gates among them, are for clients too or for clients alone.
        let mut options = vec!["-ign_eof", "-CAfile", path(&self.authority)?, "-purpose", "any"];
        if let Some((certificate, key)) = &self.certificate {
            options.extend(["-cert", path(certificate)?, "-key", path(key)?]);
        }
        let first = [&options[..], &["-showcerts", "-msg", "-sess_out", path(&session)?]].concat();
        let said = self.s_client(&first, self.last_words)?;
        ensure!(chosen(&said).is_some() && !said.contains("SSL alert number"), "{}: {said}", self.name);
        if !session.exists() {
            return Ok((said, false));
        }
        let again = [&options[..], &["-sess_in", path(&session)?, "-early_data", path(&early)?]].concat();
        let later = self.s_client(&again, self.last_words)?;
        ensure!(later.contains("Early data was "), "{}: {later}", self.name);
        Ok((said, later.contains("Early data was accepted")))
    }

    /// Asks for a second handshake in a connection of TLS 1.2.
    fn renegotiates(&self) -> anyhow::Result<bool> {
        let weak = format!("{ALL}:@SECLEVEL=0");
        let mut command = self.command(&["-tls1_2", "-msg", "-cipher", &weak]);
        let mut client = Process::start("openssl s_client", command.stdin(Stdio::piped()))?;
        let mut input = client.stdin().context("no standard input")?;
        client.line(PATIENCE, |l| l.starts_with("<<<") && l.contains(", Finished"))?;
        input.write_all(b"R\n")?;
        Ok(client.line(PATIENCE, |l| l.contains(", ServerHello")).is_ok())
    }

    fn command(&self, options: &[&str]) -> Command {
        // Whatever this machine's OpenSSL is configured to refuse is offered too.
        let mut command = Command::new("timeout");
        command.args([AT_MOST, "openssl", "s_client", "-connect", &self.at.to_string()]).args(options);
        command.env("OPENSSL_CONF", "/dev/null");
        command
    }

    fn s_client(&self, options: &[&str], words: &[u8]) -> anyhow::Result<String> {
        let mut command = self.command(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().context("openssl")?;
        // The listener may have closed before it is written.
        let _ = client.stdin.take().context("no standard input")?.write_all(words);
        let out = client.wait_with_output()?;
        ensure!(out.status.code() != Some(124), "{}: {options:?} came to no end", self.name);
        Ok(format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    }
}

/// The suite of a connection; nothing where there is none.
pub(super) fn chosen(said: &str) -> Option<&str> {
    let suite = said.lines().find_map(|l| l.strip_prefix("New, ").or_else(|| l.strip_prefix("Reused, ")))?;
    suite.split_once("Cipher is ").map(|(_, name)| name).filter(|name| *name != "(NONE)")
}

/// Suites that every server of those days had.
const OLD: [u16; 12] = [0xc009, 0xc00a, 0xc013, 0xc014, 0xc02b, 0xc02f, 0x002f, 0x0035, 0x009c, 0x000a, 0x0005, 0x0004];

/// Says hello by hand as a client of that version which can compress, since no OpenSSL of today does SSL 3.0: the compression method of
/// the answer, nothing where it is refused. From TLS 1.0 on with or without the extended master secret (RFC 7627).
pub(super) fn hello(to: SocketAddr, version: u16, extended: bool) -> anyhow::Result<Option<u8>> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(u16::try_from(OLD.len() * 2)?.to_be_bytes());
    body.extend(OLD.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([2, 1, 0]);
    if version > 0x0300 {
        // Which groups, points and signatures there are: without them no suite with elliptic curves is taken.
        let mut more = vec![0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3];
        more.extend_from_slice(if extended { &[0, 23, 0, 0] } else { &[] });
        body.extend(u16::try_from(more.len())?.to_be_bytes());
        body.extend(more);
    }
    let mut record = vec![22];
    record.extend(version.to_be_bytes());
    record.extend(u16::try_from(body.len() + 4)?.to_be_bytes());
    record.extend([1, 0]);
    record.extend(u16::try_from(body.len())?.to_be_bytes());
    record.extend(body);
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&record)?;
    // A record with one message: version, random, session, suite, compression.
    let mut head = [0; 5 + 4 + 2 + 32 + 1];
    match stream.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("{to} neither answers nor refuses")),
    }
    if (head[0], head[5]) != (22, 2) {
        bail!("{to} answers {head:02x?}");
    }
    let mut rest = vec![0; usize::from(head[43]) + 3];
    stream.read_exact(&mut rest)?;
    Ok(rest.last().copied())
}

/// How many suites older than TLS 1.3 are offered here.
pub(super) fn suites_offered() -> anyhow::Result<usize> {
    let mut command = Command::new("openssl");
    command.args(["ciphers", "-s", "-tls1_2", "-psk", "-srp", &format!("{ALL}:@SECLEVEL=0")]);
    let out = command.env("OPENSSL_CONF", "/dev/null").output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?.trim().split(':').count())
}

/// What [`Careless`] hears before it closes a connection.
pub(super) const BYE: &[u8] = b"BYE\n";

/// A listener of OpenSSL that offers what nobody should, for as long as this lives.
pub(super) struct Careless {
    pub(super) at: SocketAddr,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Careless {
    /// Starts one with this certificate and these options: all versions from TLS 1.0 on, one suite with CBC and SHA-1.
    pub(super) fn start(certificate: &Path, key: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-cert", path(certificate)?, "-key", path(key)?]);
        command.args(["-cipher", &format!("{CBC}:@SECLEVEL=0")]).args(options);
        command.env("OPENSSL_CONF", "/dev/null").stdin(Stdio::piped());
        let mut server = Process::start("openssl s_server", &mut command)?;
        let mut input = server.stdin().context("no standard input")?;
        let line = server.line(PATIENCE, |l| l.starts_with("ACCEPT "))?;
        let at = line.trim_start_matches("ACCEPT ").trim().parse()?;
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        // It closes a connection when it is told to.
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if server.line(Duration::from_millis(100), |l| l.contains("BYE")).is_ok() {
                    let _ = input.write_all(b"q\n");
                }
            }
        });
        Ok(Self { at, end, thread: Some(thread) })
    }
}

impl Drop for Careless {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
