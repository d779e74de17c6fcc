//! Watches the patient's consent: a signed file ([`trocar_control::consent`]), its validity, and local's withdrawal. Tells the core whether remote
//! operation is consented to.
//!
//! Nothing is consented to until a document was read whose signer the gate's own trust list vouches for, and whose serial is on disk, so
//! that an older one never counts again (HO-U-001). A file that is removed withdraws nothing; a document that withdraws does.

use crate::core::{Event, Inbox, Lane};
use crate::fail_stop::{self, Asked};
use crate::store::{Consents, DiskHandle, Known};
use rustls::pki_types::UnixTime;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trocar_control::audit::record::Outcome;
use trocar_control::consent::{MAX_DOCUMENT, Signed, read};
use trocar_control::trust::{Distrust, Trust, TrustError, TrustList};
use trocar_proto::handover::consent::{Consent, ConsentError, Document, Scope};
use trocar_proto::handover::gate::Input;
use trocar_proto::session::ids::SessionId;
use trocar_proto::units::WallMicros;

/// The file is looked at this often.
const EVERY: Duration = Duration::from_millis(250);

/// No thread for the watch.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread that watches the consent document: {0}")]
pub struct WatchError(std::io::Error);

/// What is watched, and who is told.
#[derive(Debug)]
pub struct Watched {
    /// The document's file; nothing for none, and then nothing is consented to.
    pub file: Option<PathBuf>,
    /// The session that it has to be for.
    pub session: SessionId,
    /// The gate's trust list: a directory with `ca.pem`, and `crl.pem` where there is one.
    pub trust: PathBuf,
    /// Serials of earlier runs; without them nothing counts, since an old document could not be told from a new one.
    pub consents: Option<Consents>,
    /// For the records.
    pub disk: DiskHandle,
    /// The core.
    pub inbox: Inbox,
}

/// Local's withdrawal of consent, as consoles have it: says whether it was heard ([`ConsentWatch::withdraw`]). It is no act of the
/// register: REMOTE goes on until local takes (HO-U-003).
pub type Withdrawal = Arc<dyn Fn() -> bool + Send + Sync>;

/// The watch. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct ConsentWatch {
    withdraw: SyncSender<()>,
    scope: Arc<Mutex<Scope>>,
}

impl ConsentWatch {
    /// Local withdraws consent at the gate's console; only a document with a higher serial brings it back. Returns at once whether it
    /// was heard.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        // One that waits is enough.
        !matches!(self.withdraw.try_send(()), Err(TrySendError::Disconnected(())))
    }

    /// What is consented to now.
    #[must_use]
    pub fn scope(&self) -> Scope {
        *self.scope.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the watch. The first look is at once. A trust list or a document that cannot be used is no error: it is told, and looked at
/// again, and nothing is consented to meanwhile.
///
/// # Errors
/// [`WatchError`].
pub fn start(watched: Watched) -> Result<ConsentWatch, WatchError> {
    let (withdraw, acts) = sync_channel(1);
    let scope = Arc::default();
    let watcher = Watcher::new(watched, Arc::clone(&scope));
    fail_stop::spawn("trocar-consent", move || Ok(run(watcher, &acts))).map_err(WatchError)?;
    Ok(ConsentWatch { withdraw, scope })
}

fn run(mut watcher: Watcher, acts: &Receiver<()>) -> Asked {
    loop {
        watcher.look(wall());
        match acts.recv_timeout(EVERY) {
            Ok(()) => watcher.withdraw(wall()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Asked,
        }
    }
}

struct Watcher {
    watched: Watched,
    /// Whose signature counts; nothing as long as the list could not be read once.
    trust: Option<TrustList>,
    scope: Arc<Mutex<Scope>>,
    consent: Consent,
    /// The document that counts, and when its signer was vouched for.
    current: Option<(Signed, UnixTime)>,
    /// The file as it was read last, where nothing is left to do about it.
    seen: Option<Vec<u8>>,
    /// What was wrong at the last look: told once.
    trouble: Option<String>,
    /// The signer was revoked since.
    is_distrusted: bool,
    /// A withdrawal at the console that is not on disk yet.
    unsaved: Option<Known>,
    /// What the core knows.
    told: Option<bool>,
}

/// Why a document does not count.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{}: cannot be read: {why}", file.display())]
    Read { file: PathBuf, why: std::io::Error },
    #[error(transparent)]
    Document(#[from] trocar_control::consent::DocumentError),
    #[error(transparent)]
    Consent(#[from] ConsentError),
    #[error("another document with serial {0} came first")]
    SameSerial(u64),
    #[error("its serial cannot be kept: {0}")]
    Keep(std::io::Error),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the gate's store does not know which documents came before")]
    NoStore,
}

impl Watcher {
    fn new(watched: Watched, scope: Arc<Mutex<Scope>>) -> Self {
        let consent = Consent::new(watched.session.clone());
        Self {
            watched,
            trust: None,
            scope,
            consent,
            current: None,
            seen: None,
            trouble: None,
            is_distrusted: false,
            unsaved: None,
            told: None,
        }
    }

    /// One look at trust list, file and clock.
    fn look(&mut self, now: WallMicros) {
        // A list that cannot be read any more stays in force as it was; the network's watch tells that it cannot.
        if self.trust.as_mut().is_some_and(|list| list.reload().unwrap_or(false)) {
            self.look_at_signer();
        }
        match self.look_at_file(now) {
            Ok(()) => self.trouble = None,
            Err(why) => self.tell_trouble(&why.to_string()),
        }
        self.save();
        self.tell(now);
    }

    /// Local's act at the console. The core is told first, the disk after it.
    fn withdraw(&mut self, now: WallMicros) {
        self.consent.withdraw();
        let known = self.current.as_ref().map(|(signed, _)| known(signed, true));
        self.unsaved = known;
        self.tell(now);
        let reference = self.current.as_ref().map(|(signed, _)| signed.reference());
        self.watched.disk.consent(reference, "withdrawn at the gate's console".to_owned(), Outcome::Done);
        self.save();
    }

    /// A signer that was revoked, or whose authority is gone, vouches for nothing any more.
    fn look_at_signer(&mut self) {
        let (Some((signed, since)), Some(list)) = (&self.current, &self.trust) else { return };
        let verdict = list.current().verify(&signed.chain, *since);
        let is_distrusted = matches!(verdict, Err(Distrust::Revoked | Distrust::UnknownIssuer));
        if is_distrusted && !self.is_distrusted {
            let what = format!("the signer {} is not trusted any more", signed.signer);
            self.watched.disk.consent(Some(signed.reference()), what, Outcome::Done);
        }
        self.is_distrusted = is_distrusted;
    }

    fn look_at_file(&mut self, now: WallMicros) -> Result<(), Refused> {
        let Some(file) = self.watched.file.clone() else { return Ok(()) };
        let bytes = match content(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(why) => return Err(Refused::Read { file, why }),
        };
        if self.seen.as_ref() == Some(&bytes) {
            return Ok(());
        }
        let at = UnixTime::since_unix_epoch(Duration::from_micros(now.0));
        let trust = self.trust()?;
        let signed = read(&bytes, &trust, at)?;
        let is_current = self.current.as_ref().is_some_and(|(current, _)| current.hash == signed.hash);
        if !is_current {
            self.take(signed, at)?;
        }
        self.seen = Some(bytes);
        Ok(())
    }

    /// The list in force, read now where it could not be read before.
    fn trust(&mut self) -> Result<Arc<Trust>, TrustError> {
        let list = match self.trust.take() {
            Some(list) => list,
            None => TrustList::load(&self.watched.trust)?,
        };
        let trust = list.current();
        self.trust = Some(list);
        Ok(trust)
    }

    /// HO-U-001: the highest serial decides, in this run and in earlier ones.
    fn take(&mut self, signed: Signed, at: UnixTime) -> Result<(), Refused> {
        let document = &signed.document;
        if document.session != self.watched.session {
            return Err(ConsentError::OtherSession.into());
        }
        let consents = self.watched.consents.as_mut().ok_or(Refused::NoStore)?;
        let before = consents.of(&document.session);
        let is_withdrawn = match before {
            Some(before) if document.serial < before.serial => {
                let (serial, highest) = (document.serial, before.serial);
                return Err(ConsentError::OldSerial { serial, highest }.into());
            }
            Some(before) if document.serial == before.serial && before.document != signed.hash => {
                return Err(Refused::SameSerial(document.serial));
            }
            Some(before) if document.serial == before.serial => before.is_withdrawn,
            _ => {
                consents.remember(&document.session, known(&signed, false)).map_err(Refused::Keep)?;
                false
            }
        };
        self.consent.take(document.clone())?;
        if is_withdrawn {
            self.consent.withdraw();
        }
        self.unsaved = None;
        self.is_distrusted = false;
        let what = told(&signed, is_withdrawn);
        self.watched.disk.consent(Some(signed.reference()), what, Outcome::Done);
        self.current = Some((signed, at));
        Ok(())
    }

    /// Keeps a withdrawal on disk; tried again at the next look where that fails.
    fn save(&mut self) {
        if let (Some(known), Some(consents)) = (self.unsaved, &mut self.watched.consents) {
            match consents.remember(&self.watched.session, known) {
                Ok(()) => self.unsaved = None,
                Err(e) => tracing::warn!(error = %e, "the withdrawal of consent is not on disk yet"),
            }
        }
    }

    /// Tells the core where something changed; tried again at the next look where its queue is full.
    fn tell(&mut self, now: WallMicros) {
        let scope = if self.is_distrusted { Scope::default() } else { self.consent.scope(now) };
        *self.scope.lock().unwrap_or_else(PoisonError::into_inner) = scope;
        let active = scope.remote_operation;
        if self.told == Some(active) {
            return;
        }
        if self.watched.inbox.push(Lane::Local, Event::Input(Input::Consent(active))).is_err() {
            return;
        }
        // The first answer is news only where it is yes.
        if active || self.told.is_some() {
            let what = if active {
                "remote operation is consented to"
            } else {
                "remote operation is not consented to any more"
            };
            let reference = self.current.as_ref().map(|(signed, _)| signed.reference());
            self.watched.disk.consent(reference, what.to_owned(), Outcome::Done);
        }
        self.told = Some(active);
    }

    fn tell_trouble(&mut self, why: &str) {
        if self.trouble.as_deref() != Some(why) {
            tracing::warn!(why, "the consent document does not count");
            let reference = self.current.as_ref().map(|(signed, _)| signed.reference());
            self.watched.disk.consent(reference, format!("a document does not count: {why}"), Outcome::Refused);
            self.trouble = Some(why.to_owned());
        }
    }
}

const fn known(signed: &Signed, is_withdrawn: bool) -> Known {
    Known { serial: signed.document.serial, document: signed.hash, is_withdrawn }
}

/// The document for people.
fn told(signed: &Signed, is_withdrawn: bool) -> String {
    let Document { serial, scope, from, until, withdrawn, .. } = &signed.document;
    let parts = [
        (scope.view, "view"),
        (scope.record, "record"),
        (scope.remote_operation, "remote operation"),
        (scope.secondary_use, "secondary use"),
    ];
    let parts: Vec<&str> = parts.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    let parts = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
    let utc = trocar_control::audit::clock::utc_seconds;
    let (from, until, signer) = (utc(*from), utc(*until), &signed.signer);
    let state = match (withdrawn, is_withdrawn) {
        (true, _) => "withdraws",
        (false, true) => "was withdrawn at the console before",
        (false, false) => "counts",
    };
    format!("document {serial} by {signer} {state}: {parts}, from {from} until {until}")
}

/// The file, as far as a document can be long.
fn content(file: &Path) -> std::io::Result<Vec<u8>> {
    // A pipe would hold up this thread for ever.
    if !std::fs::metadata(file)?.is_file() {
        return Err(std::io::Error::other("is not an ordinary file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn wall() -> WallMicros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
