//! `trocar audit`: the chains of records of a gate and of signaling, checked, told and handed out.

use anyhow::{Context, bail, ensure};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use trocar_control::audit;
use trocar_control::audit::clock::{parse_utc, utc};
use trocar_control::trust::{Identity, TrustList};
use trocar_proto::units::WallMicros;
use trocar_signaling::audit as signaling;

/// Look at an audit chain: of a gate (its store) or of signaling (its trocar.db).
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum AuditCommand {
    /// Say whether the chain is whole, and where it is not, which record is the first bad one.
    ///
    /// What cannot be found by the chain alone is a store whose every file was replaced: note the head that is printed, elsewhere.
    Verify {
        /// The gate's store or its file audit.jsonl, or signaling's trocar.db.
        path: PathBuf,
        /// File with the public key that signaling's heads have to be signed by, 32 bytes in hex (audit-key.pub). Left out: any key.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Tell what happened, as a story.
    Show {
        /// The gate's store or its file audit.jsonl, or signaling's trocar.db.
        path: PathBuf,
        /// With the gates' records that signaling's trocar.db has, by time.
        #[arg(long)]
        gates: bool,
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Seal a gate's chain: check it, and sign its number and head with the gate's certificate. The gate may run meanwhile.
    Seal {
        /// The gate's store or its file audit.jsonl.
        path: PathBuf,
        /// The gate's certificate chain, PEM.
        #[arg(long, value_name = "FILE")]
        cert: PathBuf,
        /// Its key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Where the seal is written.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Take a gate's sealed chain into signaling's trocar.db, which a server may have open: it notes it in its own chain.
    Ingest {
        /// Signaling's trocar.db.
        store: PathBuf,
        /// The gate's file audit.jsonl, or a copy of it that was made after the seal.
        chain: PathBuf,
        /// The seal.
        #[arg(long, value_name = "FILE")]
        seal: PathBuf,
        /// Directory with the trust list that gates' certificates are checked with (ca.pem, crl.pem).
        #[arg(long, value_name = "DIR")]
        trust: PathBuf,
    },
    /// Say which of signaling's records an audit repository has kept: lost, doubled and changed ones, by their numbers.
    Reconcile {
        /// What the repository has kept: lines with the messages as they came.
        kept: PathBuf,
        /// Signaling's trocar.db; without it the records are compared with one another.
        #[arg(long, value_name = "TROCAR_DB")]
        store: Option<PathBuf>,
        /// The node whose records are meant, where several send there: AuditSourceID.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Have everything from the first lost record on sent again.
        #[arg(long, requires = "store")]
        resend: bool,
    },
    /// Hand out signaling's records, as CSV or as JSON lines that can be checked one by one.
    Export {
        /// Signaling's trocar.db.
        path: PathBuf,
        /// How.
        #[arg(long, value_enum, default_value_t = Format::Json)]
        format: Format,
        #[command(flatten)]
        wanted: Wanted,
    },
}

/// Which of signaling's records.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Wanted {
    /// Of this session.
    #[arg(long)]
    session: Option<String>,
    /// Of this participant: its id, or a part of its name.
    #[arg(long)]
    participant: Option<String>,
    /// Of this patient: ASSIGNER|VALUE, or the value alone.
    #[arg(long)]
    patient: Option<String>,
    /// Of this kind, or of all that begin so, e.g. view.
    #[arg(long)]
    kind: Option<String>,
    /// Not before, e.g. 2026-11-22T08:00:00Z.
    #[arg(long, value_name = "UTC", value_parser = utc_time)]
    from: Option<WallMicros>,
    /// Before.
    #[arg(long, value_name = "UTC", value_parser = utc_time)]
    until: Option<WallMicros>,
}

/// What it is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// RFC 4180, with a header line.
    Csv,
    /// One object a line, as it was hashed, with its hash.
    Json,
}

fn utc_time(text: &str) -> Result<WallMicros, String> {
    parse_utc(text).ok_or_else(|| "a time in UTC such as 2026-11-22T08:00:00Z is right".to_owned())
}

impl Wanted {
    fn filter(self) -> signaling::Filter {
        signaling::Filter {
            session: self.session,
            participant: self.participant,
            patient: self.patient,
            kind: self.kind,
            from_us: self.from.map(|t| t.0),
            until_us: self.until.map(|t| t.0),
        }
    }

    fn is_all(&self) -> bool {
        let texts = [&self.session, &self.participant, &self.patient, &self.kind];
        texts.iter().all(|t| t.is_none()) && self.from.is_none() && self.until.is_none()
    }
}

impl AuditCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Verify { path, key } if is_database(&path) => {
                let key = key.map(|k| read_key(&k)).transpose()?;
                verify_signaling(&path, key.as_deref())
            }
            Self::Verify { path, key } => {
                ensure!(key.is_none(), "--key is for signaling's trocar.db: a gate's chain has no key");
                verify_gate(&path)
            }
            Self::Show { path, wanted, gates: true } if is_database(&path) => {
                crate::verbs::print(&signaling::merged_story(&path, &wanted.filter())?)
            }
            Self::Show { path, wanted, .. } if is_database(&path) => {
                crate::verbs::print(&signaling::as_story(&signaling::search(&path, &wanted.filter())?))
            }
            Self::Seal { path, cert, key, out } => {
                let identity = Identity::from_pem_files(&cert, &key)?;
                let seal = signaling::seal(&path, &identity, crate::consent::now()?)?;
                crate::consent::replace(&out, seal.as_bytes())?;
                println!("{}: sealed by {}", out.display(), identity.name());
                Ok(())
            }
            Self::Ingest { store, chain, seal, trust } => ingest(&store, &chain, &seal, &trust),
            Self::Show { path, wanted, gates } => {
                ensure!(
                    wanted.is_all() && !gates,
                    "only signaling's trocar.db can be searched: leave the filters out for a gate's chain"
                );
                match audit::show(&path) {
                    Ok(story) => crate::verbs::print(&story),
                    Err((story, bad)) => {
                        crate::verbs::print(&story)?;
                        bail!("the story ends here: {bad}")
                    }
                }
            }
            Self::Reconcile { kept, store, source, resend } => {
                reconcile(&kept, store.as_deref(), source.as_deref(), resend)
            }
            Self::Export { path, format, wanted } => {
                ensure!(
                    is_database(&path),
                    "{}: signaling's trocar.db is right; a gate's chain is the file audit.jsonl itself",
                    path.display()
                );
                let rows = signaling::search(&path, &wanted.filter())?;
                crate::verbs::print(&match format {
                    Format::Csv => signaling::as_csv(&rows),
                    Format::Json => signaling::as_json(&rows),
                })
            }
        }
    }
}

/// Whether the file is a SQLite database, by its first bytes.
fn is_database(path: &Path) -> bool {
    let mut first = [0; 16];
    std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut first)).is_ok() && &first == b"SQLite format 3\0"
}

fn read_key(path: &Path) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--key: cannot read {}", path.display()))?;
    let key = hex::decode(text.trim()).ok().filter(|k| k.len() == 32);
    key.with_context(|| format!("--key: {} has to hold 32 bytes in hex", path.display()))
}

fn verify_signaling(path: &Path, key: Option<&[u8]>) -> anyhow::Result<()> {
    let v = signaling::verify(path, key).map_err(|bad| anyhow::anyhow!("{}: {bad}", path.display()))?;
    let time = |us| utc(WallMicros(us));
    let when = v.from_until_us.map_or_else(String::new, |(from, until)| format!(", {} to {}", time(from), time(until)));
    println!("{}: {} records are whole{when}", path.display(), v.records);
    println!("end: record {}, {}", v.end, v.hash);
    if v.pruned > 0 {
        println!("{} more were removed because their time was over, as signed records of the chain say", v.pruned);
    }
    match &v.head {
        Some(h) => println!("newest of {} signed heads: record {}, {}", v.heads, h.seq, h.hash),
        None => println!("no head is signed: a chain that was made anew could not be told from this one"),
    }
    for key in &v.keys {
        println!("signed by {key}");
    }
    for gate in signaling::verify_gates(path)? {
        let (name, records, vouched) = (&gate.gate, gate.records, gate.vouched);
        println!("{name}: {records} records are whole; signaling's chain vouches up to record {vouched}");
    }
    if v.lost > 0 {
        println!("{} records were lost because the disk did not take them in time, as the chain says", v.lost);
    }
    Ok(())
}

fn ingest(store: &Path, chain: &Path, seal: &Path, trust: &Path) -> anyhow::Result<()> {
    let seal = std::fs::read(seal).with_context(|| format!("cannot read {}", seal.display()))?;
    let trust = TrustList::load(trust)?.current();
    let taken = signaling::ingest(store, chain, &seal, &trust, crate::consent::now()?)?;
    println!("{}: {} new records, up to record {} with head {}", taken.gate, taken.new, taken.seq, taken.head);
    Ok(())
}

fn reconcile(kept: &Path, store: Option<&Path>, source: Option<&str>, resend: bool) -> anyhow::Result<()> {
    let file = std::fs::File::open(kept).with_context(|| format!("cannot read {}", kept.display()))?;
    let received = signaling::Received::read(std::io::BufReader::new(file), source)?;
    let found = signaling::reconcile(&received, store)?;
    println!("{} records have arrived, {} messages came again", found.records, found.doubled);
    if let Some(sent) = found.sent {
        println!("believed to be there: up to record {sent}");
    }
    if found.unread > 0 {
        println!("{} messages are torn or none of ours", found.unread);
    }
    let lost: Vec<String> = found.lost.iter().map(|r| format!("{}-{}", r.start(), r.end())).collect();
    if let (Some(first), Some(store), true) = (found.lost.first(), store, resend) {
        signaling::resend(store, *first.start())?;
        println!("records from {} on are sent again", first.start());
    }
    ensure!(found.changed.is_empty(), "these are not what the chain has: {:?}", found.changed);
    ensure!(found.ahead == 0, "{} records are newer than the store: it is an older copy", found.ahead);
    ensure!(lost.is_empty(), "these are lost: {}", lost.join(", "));
    Ok(())
}

fn verify_gate(path: &Path) -> anyhow::Result<()> {
    let v = audit::verify(path)?;
    let when = v.from_until.map_or_else(String::new, |(from, until)| format!(", {from} to {until}"));
    println!("{}: {} records are whole{when}", v.file.display(), v.records);
    println!("head: record {}, {}", v.head.seq, hex::encode(v.head.hash.0));
    let there = |is: bool| if is { "is there and agrees" } else { "is not there" };
    println!("copy {}; noted head {}", there(v.has_copy), there(v.has_head));
    if v.lost > 0 {
        println!("{} records were lost because the disk did not take them in time, as the chain says", v.lost);
    }
    Ok(())
}
