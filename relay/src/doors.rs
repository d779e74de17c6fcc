//! Who is at the QUIC listeners, and by which certificates: what is taken back is out within a second, and new files come into force
//! without a packet lost.
//!
//! A thread of its own looks at the files. The media threads meet it where a connection begins and where it ends, never with a packet.
//! Certificates are judged on that thread: by the list that was in force at the handshake already, and then once by each new one.
//!
//! One that is taken back while it holds authority is not cut off here: the gate, which has a trust list of its own, ends REMOTE in HOLD
//! (HO-M-021), and then the connection ends as well. Who holds, the relay knows by the copies of STATUS that gates send to its
//! rendezvous; a relay that has none spares nobody.

use crate::metrics::{self as m, LegFigures, Value};
use crate::quic::{self, QuicError};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::mpsc;
use trocar_control::trust::{
    CredentialError, Credentials, Distrust, Identity, LOOK_EVERY, Look, PeerIdentity, Trust, TrustError, cert_hash,
    cert_name,
};
use trocar_proto::media::roq;
use trocar_proto::session::admission::{CertificateNews, RelayEvent};
use trocar_proto::session::ids::{CertHash, RealmId};

#[cfg(test)]
mod tests;

/// Refusals that wait to be told. Loss policy: the newest is counted and not told.
const REFUSALS: usize = 64;
/// Refusals told in each minute, and of these one of each certificate: whoever knocks a thousand times fills no log and no chain.
const TOLD_A_MINUTE: usize = 20;

/// Files that the listeners of a relay live by, all PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// Certificate chain, leaf first, with a name `trocar://REALM/relay/NAME`.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authorities of publishers, viewers, gates, stations and other relays; a `crl.pem` beside it counts.
    pub trust: PathBuf,
    /// Certificate and key of the listeners for these realms, in place of the ones above: each may name addresses of its own network.
    pub realms: BTreeMap<RealmId, (PathBuf, PathBuf)>,
}

impl CertificateFiles {
    fn load(&self) -> Result<Kept, CredentialError> {
        let load = |cert: &Path, key: &Path| Credentials::load(cert, key, &self.trust);
        let mut realms = BTreeMap::new();
        for (realm, (cert, key)) in &self.realms {
            realms.insert(realm.clone(), load(cert, key)?);
        }
        Ok(Kept { usual: load(&self.cert, &self.key)?, realms })
    }
}

/// What the files have.
struct Kept {
    usual: Credentials,
    realms: BTreeMap<RealmId, Credentials>,
}

impl Kept {
    /// The certificate of the listeners for that realm.
    fn own(&self, realm: &RealmId) -> Arc<Identity> {
        self.realms.get(realm).unwrap_or(&self.usual).own()
    }

    /// As one: each name stays as it is.
    fn is_of_same_names(&self, other: &Self) -> bool {
        let names = |kept: &Self| {
            let all = std::iter::once(&kept.usual).chain(kept.realms.values());
            all.map(|c| c.own().name().clone()).collect::<Vec<_>>()
        };
        names(self) == names(other)
    }

    /// Looks at all files. All have one trust list, which the usual ones see to.
    fn look(&mut self) -> Look {
        let mut all = self.usual.look();
        for credentials in self.realms.values_mut() {
            let Look { own, failed, .. } = credentials.look();
            all.own |= own;
            all.failed.extend(failed.into_iter().filter(|e| !matches!(e, CredentialError::Trust(_))));
        }
        all
    }

    fn is_in_doubt(&self) -> bool {
        self.usual.is_in_doubt() || self.realms.values().any(Credentials::is_in_doubt)
    }
}

/// Which protocol a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Door {
    /// RTP over QUIC.
    Media,
    /// The control rendezvous.
    Control,
    /// A relay that we fetch from.
    Fetching,
}

impl Door {
    const fn name(self) -> &'static str {
        match self {
            Self::Media => "media",
            Self::Control => "control",
            Self::Fetching => "fetching",
        }
    }

    fn close(self, connection: &quinn::Connection, reason: &[u8]) {
        let code = match self {
            Self::Control => crate::control::code::REFUSED,
            Self::Media | Self::Fetching => roq::error_code::GENERAL_ERROR.into(),
        };
        connection.close(code, reason);
    }
}

/// Somebody who is connected.
struct Visitor {
    who: Arc<PeerIdentity>,
    connection: quinn::Connection,
    door: Door,
    /// Number of the list that it was judged by last.
    judged: u64,
    /// Why it has to go.
    condemned: Option<Distrust>,
    /// It was said that it is spared.
    spared: bool,
}

struct Inside {
    fetching: quinn::ClientConfig,
    endpoints: Vec<(Door, RealmId, quinn::Endpoint)>,
    visitors: BTreeMap<u64, Visitor>,
    next: u64,
    holders: BTreeSet<CertHash>,
    refused: VecDeque<(CertHash, String)>,
}

/// Shared by all threads of a relay.
pub(crate) struct Doors {
    inside: Mutex<Inside>,
    events: mpsc::Sender<RelayEvent>,
    look_again: AtomicBool,
    unusable: AtomicBool,
    refusals: AtomicU64,
    revoked: AtomicU64,
}

impl Doors {
    pub(crate) fn new(fetching: quinn::ClientConfig, events: mpsc::Sender<RelayEvent>) -> Arc<Self> {
        let inside = Inside {
            fetching,
            endpoints: Vec::new(),
            visitors: BTreeMap::new(),
            next: 0,
            holders: BTreeSet::new(),
            refused: VecDeque::new(),
        };
        Arc::new(Self {
            inside: Mutex::new(inside),
            events,
            look_again: AtomicBool::new(false),
            unusable: AtomicBool::new(false),
            refusals: AtomicU64::new(0),
            revoked: AtomicU64::new(0),
        })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A realm's listener, whose certificate and trust list are to be kept up to date.
    pub(crate) fn add(&self, door: Door, realm: &RealmId, endpoint: quinn::Endpoint) {
        self.inside().endpoints.push((door, realm.clone(), endpoint));
    }

    /// TLS towards relays that are fetched from, as it is now.
    pub(crate) fn fetching(&self) -> quinn::ClientConfig {
        self.inside().fetching.clone()
    }

    /// A connection begins; it is judged within [`LOOK_EVERY`], and again by each new list. None where the other end has no
    /// certificate with a name.
    pub(crate) fn enter(self: &Arc<Self>, door: Door, connection: &quinn::Connection) -> Option<Guest> {
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        let who = Arc::new(PeerIdentity::of(&chain, UnixTime::now())?);
        let connection = connection.clone();
        let visitor = Visitor { who, connection, door, judged: 0, condemned: None, spared: false };
        let mut inside = self.inside();
        inside.next += 1;
        let id = inside.next;
        inside.visitors.insert(id, visitor);
        Some(Guest { doors: Arc::clone(self), id })
    }

    /// Who holds authority now, by what the gates say.
    pub(crate) fn note_holders(&self, holders: BTreeSet<CertHash>) {
        self.inside().holders = holders;
    }

    #[cfg(test)]
    pub(crate) fn holders(&self) -> BTreeSet<CertHash> {
        self.inside().holders.clone()
    }

    /// The files are to be read at the next look, changed or not.
    pub(crate) fn look_again(&self) {
        self.look_again.store(true, Ordering::Relaxed);
    }

    /// Keeps to the files from now on, for as long as anybody has these doors.
    ///
    /// # Errors
    /// [`CredentialError`] names the file and what it wants; nothing has changed then.
    pub(crate) fn keep(self: &Arc<Self>, files: CertificateFiles) -> Result<(), KeepError> {
        let kept = files.load()?;
        self.renew(&kept)?;
        let doors = Arc::downgrade(self);
        let keeper = Keeper { files, kept, list: 1, told: VecDeque::new(), minute: 0 };
        let thread = std::thread::Builder::new().name("trocar-trust".to_owned());
        thread.spawn(move || keeper.run(&doors)).map(drop).map_err(KeepError::Thread)
    }

    /// Puts certificate and trust list into force for new connections. What stands is not touched.
    fn renew(self: &Arc<Self>, kept: &Kept) -> Result<(), KeepError> {
        let (own, trust) = (kept.usual.own(), kept.usual.trust());
        let fetching = quic::client_config_of(trust.host_client_config(&own, roq::ALPN)?)?;
        // Signatures are not made under the lock, and where one cannot be made, nothing has changed.
        let endpoints = self.inside().endpoints.clone();
        let mut configs: BTreeMap<(Door, &RealmId), quinn::ServerConfig> = BTreeMap::new();
        for (door, realm, _) in &endpoints {
            if let Entry::Vacant(place) = configs.entry((*door, realm)) {
                place.insert(self.server_config(*door, &trust, &kept.own(realm))?);
            }
        }
        self.inside().fetching = fetching;
        for (door, realm, endpoint) in &endpoints {
            endpoint.set_server_config(configs.get(&(*door, realm)).cloned());
        }
        Ok(())
    }

    fn server_config(
        self: &Arc<Self>,
        door: Door,
        trust: &Trust,
        own: &Identity,
    ) -> Result<quinn::ServerConfig, KeepError> {
        let doors = Arc::downgrade(self);
        let tell = Arc::new(move |leaf: &CertificateDer<'_>, why: Distrust| {
            if let Some(doors) = doors.upgrade() {
                doors.note_refused(leaf, why, door);
            }
        });
        if door == Door::Control {
            let tls = trust.server_config_telling(tell, own, trocar_proto::control::ALPN)?;
            return Ok(crate::control::server_config_of(tls)?);
        }
        Ok(quic::server_config_of(trust.server_config_telling(tell, own, roq::ALPN)?)?)
    }

    /// Within a handshake, on the thread of the listener.
    fn note_refused(&self, leaf: &CertificateDer<'_>, why: Distrust, door: Door) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let mut inside = self.inside();
        if inside.refused.len() < REFUSALS {
            let name = cert_name(leaf).map_or_else(|| "a certificate without a name".to_owned(), |n| n.to_string());
            inside.refused.push_back((cert_hash(leaf), format!("{name} at the {} listener: {why}", door.name())));
        }
    }

    /// Says something that the log and the audit chain have to know.
    fn tell(&self, news: CertificateNews, detail: String) {
        match news {
            CertificateNews::Renewed => tracing::info!(detail, "certificates: new files are in force"),
            CertificateNews::Unusable => {
                tracing::error!(detail, "certificates: new files cannot be used; the former stay in force");
            }
            CertificateNews::Revoked => tracing::warn!(detail, "a certificate was taken back"),
            CertificateNews::Refused => tracing::warn!(detail, "a certificate was not taken"),
        }
        if self.events.try_send(RelayEvent::Certificates { news, detail }).is_err() {
            tracing::warn!("signaling's queue is full: what was said of certificates is in this log alone");
        }
    }

    /// Judges those who were not judged by that list, and closes who has to go.
    fn judge(&self, trust: &Trust, list: u64) {
        // The signatures of a thousand certificates take a tenth of a second: not under the lock.
        let new: Vec<(u64, Arc<PeerIdentity>)> = {
            let inside = self.inside();
            let unjudged = inside.visitors.iter().filter(|(_, v)| v.judged != list);
            unjudged.map(|(id, v)| (*id, Arc::clone(&v.who))).collect()
        };
        let judged: Vec<(u64, Option<Distrust>)> = new.iter().map(|(id, who)| (*id, verdict(trust, who))).collect();
        let mut said = Vec::new();
        let mut inside = self.inside();
        for (id, verdict) in judged {
            if let Some(visitor) = inside.visitors.get_mut(&id) {
                (visitor.judged, visitor.condemned) = (list, verdict);
            }
        }
        let Inside { visitors, holders, .. } = &mut *inside;
        for visitor in visitors.values_mut() {
            let Some(why) = visitor.condemned else { continue };
            if visitor.connection.close_reason().is_some() {
                continue;
            }
            let (name, door) = (&visitor.who.name, visitor.door.name());
            // A gate's word counts for the station that it names, and for nobody else.
            if name.role == "station" && holders.contains(&visitor.who.certificate) {
                if !std::mem::replace(&mut visitor.spared, true) {
                    said.push(format!(
                        "{name} at the {door} listener: {why}; it has authority, which the gate ends, and goes then"
                    ));
                }
                continue;
            }
            visitor.door.close(&visitor.connection, why.to_string().as_bytes());
            self.revoked.fetch_add(1, Ordering::Relaxed);
            said.push(format!("{name} at the {door} listener: {why}; its connection is closed"));
        }
        drop(inside);
        said.into_iter().for_each(|detail| self.tell(CertificateNews::Revoked, detail));
    }

    /// What is measured here.
    pub(crate) fn figures(&self) -> Vec<LegFigures> {
        let unusable = f64::from(u8::from(self.unusable.load(Ordering::Relaxed)));
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed) as f64;
        let values = vec![
            Value { metric: &m::CERTIFICATES_REFUSED, value: count(&self.refusals) },
            Value { metric: &m::CERTIFICATES_REVOKED, value: count(&self.revoked) },
            Value { metric: &m::CERTIFICATES_UNUSABLE, value: unusable },
        ];
        vec![LegFigures { labels: Vec::new(), values }]
    }
}

/// A certificate that ran out since it was let in hides nothing and drops nobody.
fn verdict(trust: &Trust, who: &PeerIdentity) -> Option<Distrust> {
    trust.verify(&who.chain, who.since).err().filter(|why| *why != Distrust::Invalid)
}

/// A connection's place at the doors, for as long as it lasts.
pub(crate) struct Guest {
    doors: Arc<Doors>,
    id: u64,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.doors.inside().visitors.remove(&self.id);
    }
}

/// Why files cannot be kept to.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A file.
    #[error(transparent)]
    Files(#[from] CredentialError),
    /// Certificate and trust list together.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// TLS for QUIC.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// The thread that looks.
    #[error("no thread for the files: {0}")]
    Thread(std::io::Error),
}

/// The thread that looks at the files.
struct Keeper {
    files: CertificateFiles,
    kept: Kept,
    /// Number of the list that is in force, from 1.
    list: u64,
    /// Certificates that were told of in this minute.
    told: VecDeque<CertHash>,
    minute: u64,
}

impl Keeper {
    fn run(mut self, doors: &Weak<Doors>) {
        while let Some(doors) = doors.upgrade() {
            self.look(&doors);
            doors.judge(&self.kept.usual.trust(), self.list);
            self.tell_refused(&doors);
            drop(doors);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn look(&mut self, doors: &Arc<Doors>) {
        if doors.look_again.swap(false, Ordering::Relaxed) {
            // As if all had changed: what cannot be read leaves what there is.
            match self.files.load() {
                Ok(new) if new.is_of_same_names(&self.kept) => self.take(doors, new),
                Ok(_) => doors.tell(CertificateNews::Unusable, "the certificate is of another name".to_owned()),
                Err(error) => doors.tell(CertificateNews::Unusable, error.to_string()),
            }
            return;
        }
        let look = self.kept.look();
        doors.unusable.store(self.kept.is_in_doubt(), Ordering::Relaxed);
        for error in &look.failed {
            doors.tell(CertificateNews::Unusable, error.to_string());
        }
        if look.own || look.trust {
            self.in_force(doors, look.own, look.trust);
        }
    }

    fn take(&mut self, doors: &Arc<Doors>, new: Kept) {
        self.kept = new;
        self.in_force(doors, true, true);
    }

    fn in_force(&mut self, doors: &Arc<Doors>, own: bool, trust: bool) {
        self.list += u64::from(trust);
        if let Err(error) = doors.renew(&self.kept) {
            return doors.tell(CertificateNews::Unusable, error.to_string());
        }
        let certificate = self.kept.usual.own().hash();
        let lists = self.kept.usual.trust().revocation_lists();
        let shown = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if own {
            let file = shown(&self.files.cert);
            let mut said = format!("{file}: the relay's certificate is {certificate}");
            for (realm, credentials) in &self.kept.realms {
                said.push_str(&format!(", for realm {realm} {}", credentials.own().hash()));
            }
            doors.tell(CertificateNews::Renewed, said);
        }
        if trust {
            let file = shown(&self.files.trust);
            doors.tell(CertificateNews::Renewed, format!("{file}: trust list, with {lists} revocation lists"));
        }
    }

    fn tell_refused(&mut self, doors: &Doors) {
        let waiting: Vec<(CertHash, String)> = doors.inside().refused.drain(..).collect();
        let minute = UnixTime::now().as_secs() / 60;
        if minute != self.minute {
            self.minute = minute;
            self.told.clear();
        }
        for (certificate, detail) in waiting {
            if self.told.len() < TOLD_A_MINUTE && !self.told.contains(&certificate) {
                self.told.push_back(certificate);
                doors.tell(CertificateNews::Refused, detail);
            }
        }
    }
}
