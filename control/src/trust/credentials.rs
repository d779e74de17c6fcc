//! A process's own certificate together with its trust list, from files that are read again when they change.
//!
//! Nothing is taken before it was checked: a new certificate has to fit its key, bear the name of the one before and be good now. What
//! does not, leaves the former in force and is said once. Certificate and key are two files, and whoever writes them writes one
//! after the other: what is wrong is said only when it is still wrong at the next look.

use super::{Identity, IdentityError, Stamp, Trust, TrustError, TrustList, stamp};
use rustls::pki_types::UnixTime;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How often the files are to be looked at: a certificate that is taken back is out within a second.
pub const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(250);

/// Why new files are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The own certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The trust list.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The certificate is of another device than the one before.
    #[error("{}: the certificate is of {found}: one of {wanted} is right", file.display())]
    OtherName {
        /// Which file.
        file: PathBuf,
        /// What it says.
        found: String,
        /// Who this process is.
        wanted: String,
    },
    /// The certificate's time has not begun, or is over.
    #[error("{}: the certificate is not good now: its time is {from} to {until}", file.display())]
    Time {
        /// Which file.
        file: PathBuf,
        /// Begin of its validity.
        from: String,
        /// End of its validity.
        until: String,
    },
}

/// Files that can be told apart from their former versions without being read.
#[derive(Debug, Clone)]
pub struct Watched {
    files: Vec<PathBuf>,
    taken: Vec<Stamp>,
}

/// How files were at a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen(Vec<Stamp>);

impl Watched {
    /// These files, as they are now.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        let taken = files.iter().map(|f| stamp(f)).collect();
        Self { files, taken }
    }

    /// How they are, where that is not how they were when they were taken.
    #[must_use]
    pub fn look(&self) -> Option<Seen> {
        let now: Vec<Stamp> = self.files.iter().map(|f| stamp(f)).collect();
        (now != self.taken).then_some(Seen(now))
    }

    /// What was read is as seen then: a change since is one more.
    pub fn take(&mut self, seen: Seen) {
        self.taken = seen.0;
    }
}

/// Something that is wrong, which is said once, and only when it is the same at two looks.
#[derive(Debug, Clone)]
pub struct Doubt<E> {
    seen: Option<E>,
    told: Option<E>,
}

impl<E> Default for Doubt<E> {
    fn default() -> Self {
        Self { seen: None, told: None }
    }
}

impl<E> Doubt<E> {
    /// Whether something was said and is wrong still.
    #[must_use]
    pub const fn stands(&self) -> bool {
        self.told.is_some()
    }
}

impl<E: Clone + PartialEq> Doubt<E> {
    /// What is to be said now.
    pub fn next(&mut self, wrong: Option<E>) -> Option<E> {
        let again = wrong.is_some() && wrong == self.seen;
        self.seen.clone_from(&wrong);
        if wrong.is_none() {
            self.told = None;
        }
        if !again || wrong == self.told {
            return None;
        }
        self.told.clone_from(&wrong);
        wrong
    }
}

/// What came of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// There is a new certificate.
    pub own: bool,
    /// There is a new trust or revocation list.
    pub trust: bool,
    /// Files that changed and cannot be used; what was there before stays in force.
    pub failed: Vec<CredentialError>,
}

/// Own certificate and trust list.
#[derive(Debug)]
pub struct Credentials {
    files: (PathBuf, PathBuf),
    watched: Watched,
    own: Arc<Identity>,
    trust: TrustList,
    doubts: (Doubt<CredentialError>, Doubt<CredentialError>),
}

impl Credentials {
    /// Certificate chain and key, and a file of authorities with the `crl.pem` beside it where there is one; all PEM.
    ///
    /// # Errors
    /// [`CredentialError`] names the file and what it wants.
    pub fn load(cert: &Path, key: &Path, trust: &Path) -> Result<Self, CredentialError> {
        let watched = Watched::new(vec![cert.to_owned(), key.to_owned()]);
        let trust = TrustList::of_file(trust)?;
        let own = Arc::new(Identity::from_pem_files(cert, key)?);
        trust.current().server_config(&own, b"")?;
        Ok(Self { files: (cert.to_owned(), key.to_owned()), watched, own, trust, doubts: Default::default() })
    }

    /// The own certificate as it is now.
    #[must_use]
    pub fn own(&self) -> Arc<Identity> {
        Arc::clone(&self.own)
    }

    /// Who is trusted now.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.current()
    }

    /// Whether there are files that were said to be unusable and still are.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        self.doubts.0.stands() || self.doubts.1.stands()
    }

    /// Looks at the files and takes what is new and good. Cheap where nothing changed; meant to be called every [`LOOK_EVERY`].
    pub fn look(&mut self) -> Look {
        let (own, wrong_own) = told_apart(self.renew());
        let (trust, wrong_trust) = told_apart(self.trust.reload().map_err(CredentialError::from));
        let failed = [self.doubts.0.next(wrong_own), self.doubts.1.next(wrong_trust)];
        Look { own, trust, failed: failed.into_iter().flatten().collect() }
    }

    fn renew(&mut self) -> Result<bool, CredentialError> {
        let Some(seen) = self.watched.look() else { return Ok(false) };
        let (cert, key) = &self.files;
        let new = Identity::from_pem_files(cert, key)?;
        if new.name() != self.own.name() {
            let (found, wanted) = (new.name().to_string(), self.own.name().to_string());
            return Err(CredentialError::OtherName { file: cert.clone(), found, wanted });
        }
        check_time(&new, cert)?;
        // Certificate and key fit together.
        self.trust.current().server_config(&new, b"")?;
        self.watched.take(seen);
        let is_new = new.hash() != self.own.hash();
        self.own = Arc::new(new);
        Ok(is_new)
    }
}

fn told_apart(result: Result<bool, CredentialError>) -> (bool, Option<CredentialError>) {
    result.map_or_else(|e| (false, Some(e)), |changed| (changed, None))
}

fn check_time(own: &Identity, file: &Path) -> Result<(), CredentialError> {
    let times = own.chain.first().and_then(|leaf| times(leaf)).ok_or(IdentityError::NoName)?;
    if times.is_now {
        return Ok(());
    }
    Err(CredentialError::Time { file: file.to_owned(), from: times.from, until: times.until })
}

/// When a certificate is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// Begin of its validity, for people.
    pub from: String,
    /// Its end.
    pub until: String,
    /// Whether that is now, by the wall clock.
    pub is_now: bool,
}

/// When this certificate (DER) is good; none where it is none.
#[must_use]
pub fn times(der: &[u8]) -> Option<Times> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let now = i64::try_from(UnixTime::now().as_secs()).ok()?;
    let is_now = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
    Some(Times { from: validity.not_before.to_string(), until: validity.not_after.to_string(), is_now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_once_and_only_when_it_stays_so() {
        let mut doubt = Doubt::default();
        assert_eq!(doubt.next(Some("half a file")), None, "somebody may be writing");
        assert_eq!(doubt.next(None), None);
        assert_eq!(doubt.next(Some("bad")), None);
        assert_eq!(doubt.next(Some("bad")), Some("bad"));
        assert_eq!(doubt.next(Some("bad")), None, "said before");
        assert_eq!(doubt.next(Some("worse")), None);
        assert_eq!(doubt.next(Some("worse")), Some("worse"));
        assert_eq!(doubt.next(None), None);
        assert_eq!(doubt.next(Some("worse")), None);
        assert_eq!(doubt.next(Some("worse")), Some("worse"), "it was good in between");
    }
}
