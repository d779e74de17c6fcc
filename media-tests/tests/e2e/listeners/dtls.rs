//! What the media port offers by DTLS, as OpenSSL's `s_client` finds out behind ICE that is done for it.

use super::openssl::{ALL, SIGNATURES, chosen};
use anyhow::{Context as _, ensure};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::task::JoinSet;
use trocar_media_tests::sink::door::Entrance;
use trocar_media_tests::stack::path;
use trocar_testpki::{Authority, Leaf};

/// Seconds. The relay ends a handshake that is not complete after five, and what it does not take it does not answer.
const AT_MOST: &str = "6";
/// SRTP as browsers do it, and as encoders do that have no GCM: each is served by a DTLS library of its own.
pub(super) const PROFILES: [&str; 2] = ["SRTP_AEAD_AES_128_GCM", "SRTP_AES128_CM_SHA1_80"];
/// Curves that are fit, and some that OpenSSL has beside.
const GROUPS: [&str; 7] = ["X25519", "P-256", "P-384", "P-521", "X448", "brainpoolP256r1", "secp224r1"];
const VERSIONS: [(&str, &str); 2] = [("DTLS 1.0", "-dtls1"), ("DTLS 1.2", "-dtls1_2")];

/// What was found for one profile of SRTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) versions: Vec<&'static str>,
    pub(super) suites: Vec<String>,
    pub(super) groups: Vec<&'static str>,
    pub(super) signatures: Vec<&'static str>,
}

/// Where somebody knocks.
pub(super) enum To {
    /// At the media port of a relay.
    Relay(Entrance),
    /// At a server that needs no ICE.
    Server(SocketAddr),
}

/// Somebody who knocks, with a certificate.
pub(super) struct Client {
    to: To,
    certificate: PathBuf,
    key: PathBuf,
    fingerprint: String,
    count: AtomicU32,
    _dir: tempfile::TempDir,
}

impl Client {
    pub(super) fn new(to: To) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let own = Authority::new().issue(&Leaf::default());
        let (certificate, key) = own.write(dir.path(), "own");
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &own.der);
        let fingerprint = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
        Ok(Self { to, certificate, key, fingerprint, count: AtomicU32::new(0), _dir: dir })
    }

    /// Tries all of it at a time, since what is not taken is waited for.
    pub(super) async fn scan(self: &Arc<Self>, profile: &'static str) -> anyhow::Result<Offer> {
        let own = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let weak = format!("{ALL}:@SECLEVEL=0");
        let mut tries = Vec::new();
        for (name, flag) in VERSIONS {
            tries.push((name, own(&[flag, "-cipher", &weak])));
        }
        for group in GROUPS {
            tries.push((group, own(&["-dtls1_2", "-groups", group])));
        }
        for signature in SIGNATURES {
            tries.push((signature, own(&["-dtls1_2", "-cipher", &weak, "-sigalgs", signature])));
        }
        let mut running = JoinSet::new();
        for (name, options) in tries {
            let client = Arc::clone(self);
            running.spawn(async move { anyhow::Ok((name, client.ask(profile, options).await?.is_some())) });
        }
        let suites = self.suites(profile).await?;
        let mut found = Vec::new();
        while let Some(done) = running.join_next().await {
            found.push(done??);
        }
        let taken = |name: &&'static str| found.contains(&(*name, true));
        Ok(Offer {
            versions: VERSIONS.iter().map(|(name, _)| *name).filter(taken).collect(),
            suites,
            groups: GROUPS.iter().copied().filter(taken).collect(),
            signatures: SIGNATURES.iter().copied().filter(taken).collect(),
        })
    }

    /// Offers every suite, and then every one but those that were chosen, until nothing is chosen.
    pub(super) async fn suites(&self, profile: &str) -> anyhow::Result<Vec<String>> {
        let (mut found, mut list) = (Vec::new(), ALL.to_owned());
        loop {
            let options = ["-dtls1_2", "-cipher", &format!("{list}:@SECLEVEL=0")].map(ToOwned::to_owned);
            let Some(said) = self.ask(profile, options.to_vec()).await? else { return Ok(found) };
            let suite = chosen(&said).context("no suite")?.to_owned();
            ensure!(!found.contains(&suite), "{suite} was chosen without being offered");
            list += &format!(":!{suite}");
            found.push(suite);
        }
    }

    /// Whether there is a connection with these options and that profile, and what was said of it.
    pub(super) async fn ask(&self, profile: &str, options: Vec<String>) -> anyhow::Result<Option<String>> {
        match &self.to {
            To::Server(at) => self.s_client(*at, profile, options).await,
            To::Relay(entrance) => {
                let feed = format!("feed-{}", self.count.fetch_add(1, Ordering::Relaxed));
                let door = entrance.open(&feed, &self.fingerprint).await?;
                let at = door.address()?;
                tokio::select! {
                    said = self.s_client(at, profile, options) => said,
                    failed = door.hand_on() => Err(failed.err().context("the door is open for ever")?),
                }
            }
        }
    }

    async fn s_client(&self, to: SocketAddr, profile: &str, options: Vec<String>) -> anyhow::Result<Option<String>> {
        let mut command = Command::new("timeout");
        command.args([AT_MOST, "openssl", "s_client", "-connect", &to.to_string(), "-use_srtp", profile]);
        command.args(["-cert", path(&self.certificate)?, "-key", path(&self.key)?]).args(&options);
        command.env("OPENSSL_CONF", "/dev/null").stdin(std::process::Stdio::null());
        let out = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if chosen(&said).is_some() {
            let agreed = format!("SRTP Extension negotiated, profile={profile}");
            ensure!(said.contains(&agreed), "without keys for media: {said}");
            return Ok(Some(said));
        }
        // The certificate is of P-256: where that is not offered, OpenSSL itself ends what the relay has agreed to.
        if said.contains(":tls12_check_peer_sigalg:wrong curve:") {
            return Ok(Some(said));
        }
        // Whoever does not look at what groups and signatures it may use is refused by OpenSSL.
        let signs = [":tls_process_ske_ecdhe:wrong curve:", ":wrong signature type:", "SSL alert number"];
        let is_refused = signs.iter().any(|sign| said.contains(sign)) || out.status.code() == Some(124);
        ensure!(is_refused, "{options:?} was not tried: {said}");
        Ok(None)
    }
}
