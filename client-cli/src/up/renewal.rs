//! Certificates and keys of signaling while it runs: files that change are read again, and certificates of the local authority are made
//! anew before they run out. The relay looks at its own files.

use super::media::relay_files;
use super::{Media, https_files, realm_files, tls_identity};
use crate::ca::{Authority, IdentityFiles};
use crate::config::{Config, Realm};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use trocar_control::trust::{Doubt, Watched};
use trocar_proto::session::ids::RealmId;
use trocar_signaling::ServerHandle;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often certificates of the local authority are looked at: those that end within a month are made anew.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);

/// What is watched.
pub(super) struct Renewal {
    config: Config,
    https: IdentityFiles,
    /// Of the HTTPS listeners for other realms.
    realms: Vec<(RealmId, IdentityFiles)>,
    token_key: PathBuf,
    hung_up: tokio::signal::unix::Signal,
}

/// One thing of the server that files make, and how they were last.
struct Part {
    watched: Watched,
    doubt: Doubt<String>,
}

impl Part {
    fn new(files: Vec<PathBuf>) -> Self {
        Self { watched: Watched::new(files), doubt: Doubt::default() }
    }

    /// Has `take` read the files where they changed, or at any rate; what is to be said where they cannot be used.
    fn look(&mut self, anyway: bool, take: impl FnOnce() -> anyhow::Result<()>) -> Option<String> {
        let seen = self.watched.look();
        if seen.is_none() && !anyway {
            return self.doubt.next(None);
        }
        match take() {
            Ok(()) => {
                seen.into_iter().for_each(|seen| self.watched.take(seen));
                self.doubt.next(None)
            }
            Err(error) => self.doubt.next(Some(format!("{error:#}"))),
        }
    }
}

impl Renewal {
    /// Watches from now on.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let authority = Authority::open_or_create(&config.dir, &config.realm)?;
        let https = https_files(config, &authority)?;
        let of_realm = |r: &Realm| Ok((r.name.clone(), realm_files(config, &authority, r)?));
        let realms = config.realms.iter().map(of_realm).collect::<anyhow::Result<_>>()?;
        let token_key = config.dir.join("token.key");
        Ok(Self { config: config.clone(), https, realms, token_key, hung_up: signal(SignalKind::hangup())? })
    }

    /// Never ends.
    pub(super) async fn run(mut self, server: &ServerHandle, media: &Media) {
        let part = |files: &IdentityFiles| Part::new(vec![files.cert.clone(), files.key.clone()]);
        let mut https = part(&self.https);
        let mut realms: Vec<Part> = self.realms.iter().map(|(_, files)| part(files)).collect();
        let mut tokens = Part::new(vec![self.token_key.clone()]);
        let (mut looks, mut renewals) = (interval(LOOK_EVERY), interval(RENEW_EVERY));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_wrong = false;
        loop {
            let anyway = tokio::select! {
                _ = looks.tick() => false,
                Some(()) = self.hung_up.recv() => {
                    media.read_certificates_again();
                    true
                }
                _ = renewals.tick() => {
                    if let Err(error) = self.renew() {
                        tracing::error!(error = format!("{error:#}"), "certificates cannot be made anew");
                    }
                    continue;
                }
            };
            let mut said =
                vec![https.look(anyway, || self.take_https(server)), tokens.look(anyway, || self.take_key(server))];
            for (part, (realm, files)) in realms.iter_mut().zip(&self.realms) {
                said.push(part.look(anyway, || take_realm(server, realm, files)));
            }
            said.iter().flatten().for_each(|wrong| server.note_unusable(Some(wrong)));
            let is_wrong = [&https, &tokens].into_iter().chain(&realms).any(|part| part.doubt.stands());
            if was_wrong && !is_wrong {
                server.note_unusable(None);
            }
            was_wrong = is_wrong;
        }
    }

    fn take_https(&self, server: &ServerHandle) -> anyhow::Result<()> {
        server.renew_tls(&tls_identity(&self.https)?).with_context(|| self.https.cert.display().to_string())
    }

    /// Gates learn the new key by the file that they name.
    fn take_key(&self, server: &ServerHandle) -> anyhow::Result<()> {
        let name = || self.token_key.display().to_string();
        let key = std::fs::read(&self.token_key).with_context(name)?;
        server.renew_token_key(&key).with_context(name)?;
        let public = trocar_signaling::token_public_key(&key)?;
        let file = self.config.dir.join("token-key.pub");
        crate::consent::replace(&file, format!("{}\n", URL_SAFE_NO_PAD.encode(public)).as_bytes())
    }

    /// Makes those certificates anew that end soon; what is new is found at the next look.
    fn renew(&self) -> anyhow::Result<()> {
        let config = &self.config;
        let authority = Authority::open_or_create(&config.dir, &config.realm)?;
        https_files(config, &authority)?;
        for realm in &config.realms {
            realm_files(config, &authority, realm)?;
        }
        if config.relay.apart().is_empty() {
            relay_files(config, &authority)?;
        }
        Ok(())
    }
}

fn take_realm(server: &ServerHandle, realm: &RealmId, files: &IdentityFiles) -> anyhow::Result<()> {
    server.renew_realm_tls(realm, &tls_identity(files)?).with_context(|| files.cert.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_changed_are_taken_once_and_bad_ones_said_once_until_they_are_good() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token.key");
        let write = |text: &str| {
            let new = dir.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &file).unwrap();
        };
        write("good 1");
        let mut part = Part::new(vec![file.clone()]);
        let taken = std::cell::RefCell::new(Vec::new());
        let take = || {
            let text = std::fs::read_to_string(&file)?;
            anyhow::ensure!(text.starts_with("good"), "{text} is not good");
            taken.borrow_mut().push(text);
            Ok(())
        };
        assert_eq!(part.look(false, take), None);
        assert!(taken.borrow().is_empty(), "nothing changed");
        write("bad");
        assert_eq!(part.look(false, take), None, "somebody may be writing");
        assert_eq!(part.look(false, take).as_deref(), Some("bad is not good"));
        assert_eq!((part.look(false, take), part.doubt.stands()), (None, true), "said before");
        write("good 2");
        assert_eq!((part.look(false, take), part.doubt.stands()), (None, false));
        assert_eq!(part.look(false, take), None);
        assert_eq!(*taken.borrow(), ["good 2"]);
        part.look(true, take);
        assert_eq!(taken.borrow().len(), 2, "on request even where nothing changed");
    }
}
