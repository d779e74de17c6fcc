//! `trocar consent`: signed documents that say what the patient consented to (`trocar_control::consent`).

use crate::ca::{Authority, Subject, Use};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use trocar_control::consent::{peek, sign, withdrawal};
use trocar_control::trust::Identity;
use trocar_proto::handover::consent::{Document, Scope};
use trocar_proto::session::ids::{RealmId, SessionId};
use trocar_proto::units::WallMicros;

/// The signer's files in an authority's directory.
const SIGNER: &str = "consent";
/// The document in that directory.
const FILE: &str = "consent.json";

/// Sign or withdraw the patient's consent, with the authority of a site that has none of its own.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum ConsentCommand {
    /// Sign what the patient consented to. The gate takes the document with the highest serial.
    Sign(SignArgs),
    /// Sign the document that withdraws the one in the file.
    Withdraw(Place),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Directory with ca.pem and ca.key; the signer's certificate is made there where there is none.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Hospital network.
    #[arg(long, default_value = "local")]
    realm: RealmId,
    /// The document; DIR/consent.json where nothing is said.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    place: Place,
    /// For which session.
    #[arg(long, value_name = "ID")]
    session: SessionId,
    /// To what: view, record, remote-operation, secondary-use.
    #[arg(long, value_delimiter = ',', default_value = "view,remote-operation")]
    scope: Vec<Part>,
    /// From now on, for so many hours.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=720))]
    hours: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    View,
    Record,
    RemoteOperation,
    SecondaryUse,
}

impl ConsentCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (place, document) = match self {
            Self::Sign(args) => {
                let document = args.document()?;
                (args.place, document)
            }
            Self::Withdraw(place) => {
                let file = place.file();
                let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let document = withdrawal(&peek(&bytes).with_context(|| file.display().to_string())?);
                (place, document)
            }
        };
        place.write(&document)?;
        println!("{}: serial {}", place.file().display(), document.serial);
        Ok(())
    }
}

impl SignArgs {
    fn document(&self) -> anyhow::Result<Document> {
        let file = self.place.file();
        let serial = match std::fs::read(&file) {
            Ok(bytes) => peek(&bytes).with_context(|| file.display().to_string())?.serial,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => bail!("cannot read {}: {e}", file.display()),
        };
        let has = |part| self.scope.contains(&part);
        let now = now()?;
        Ok(Document {
            session: self.session.clone(),
            serial: serial.checked_add(1).context("no serials are left")?,
            scope: Scope {
                view: has(Part::View),
                record: has(Part::Record),
                remote_operation: has(Part::RemoteOperation),
                secondary_use: has(Part::SecondaryUse),
            },
            from: now,
            until: WallMicros(now.0.saturating_add(self.hours.saturating_mul(3_600_000_000))),
            withdrawn: false,
        })
    }
}

impl Place {
    fn file(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| self.dir.join(FILE))
    }

    fn write(&self, document: &Document) -> anyhow::Result<()> {
        let subject = Subject { realm: &self.realm, role: "consent", name: SIGNER, hosts: &[] };
        let files = Authority::open_or_create(&self.dir, &self.realm)?.identity(SIGNER, &subject, Use::Device)?;
        let text = sign(document, &Identity::from_pem_files(&files.cert, &files.key)?)?;
        replace(&self.file(), text.as_bytes())
    }
}

/// This machine's wall clock.
///
/// # Errors
/// Where it is before 1970.
pub(crate) fn now() -> anyhow::Result<WallMicros> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(WallMicros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX)))
}

/// A gate that watches the file sees the old one or the new one, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes).with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}
