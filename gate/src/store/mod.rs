//! The gate's disk: epoch blocks and the audit chain, on disk ahead of use (HANDOVER.md sections 4 and 15).
//!
//! In the store's directory, for the gate alone (mode 0700):
//!
//! - `lock`: held while a gate runs, so that two do not share a store.
//! - `epochs.a`, `epochs.b`: the end of the reserved epochs, two copies.
//! - `audit.jsonl`, `audit.copy.jsonl`: the audit chain, two copies ([`trocar_control::audit`]).
//! - `audit.head.a`, `audit.head.b`: the last record of the chain that is known to be on disk, so that a cut tail is found.
//! - `consent.a`, `consent.b`: highest serials of consent documents, so that an old one is not played again after a restart.
//! - `audit.torn-N`: what was found behind the last good record, kept as it was.
//!
//! Both copies are written, one after the other, each followed by fdatasync, before anybody is told that something is durable: a write that
//! tears leaves the other copy whole, and a copy that is damaged later is no loss either. The small files are written in place and never
//! grow, so that a full disk takes reservations still. [`open`] makes both copies equal again.
//!
//! Everything here waits for the disk in a thread of its own; the core waits for nothing (HO-G-021, HO-E-008).

mod chain;
mod consents;
mod entry;
mod layer;
mod pair;
mod queue;
mod recover;
mod thread;

#[cfg(test)]
mod tests;

pub use consents::{Consents, Known};
pub use queue::{DiskHandle, Media};

use crate::core::Inbox;
use layer::{Directory, Layer, Name};
use pair::{Pair, PairError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trocar_control::audit::record::{Hash, Party, Patient};
use trocar_control::audit::sector::Kind;
use trocar_proto::handover::config::Config;
use trocar_proto::handover::gate;
use trocar_proto::handover::types::Epoch;
use trocar_proto::session::ids::SessionId;

/// A disk that does not answer for so long at the start counts as unreadable: the gate is needed (HO-X-009).
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What all audit records of this run have in common.
#[derive(Debug, Clone)]
pub struct Run {
    /// The session.
    pub session: SessionId,
    /// Whom it is about.
    pub patient: Vec<Patient>,
    /// This gate: who acts where local does, at its console.
    pub gate: Party,
    /// Hash of the effective configuration.
    pub configuration: Hash,
    /// Name and version of the program.
    pub software: String,
}

/// An opened store.
#[derive(Debug)]
pub struct Opened {
    /// For [`gate::Start`].
    pub store: gate::Store,
    /// For the core, and clones of it for whoever else has something to record. The store stays locked while one of them lives.
    pub disk: DiskHandle,
    /// For the consent watcher; nothing where they cannot be read, and then no consent is active.
    pub consents: Option<Consents>,
    /// What was found, for people: the log, the console and the record of the start. Nothing where all is well.
    pub found: Vec<String>,
}

/// Why a store cannot be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another gate runs with it.
    #[error("{}: another gate runs with this store (it holds the file `lock`); stop it, or give this gate a store of its own in [store] dir", .0.display())]
    InUse(PathBuf),
    /// The thread for the disk could not be started.
    #[error("cannot start the disk's thread: {0}")]
    Thread(std::io::Error),
}

/// Opens the store in `dir`, makes it where there is none, and reserves the first block of `cfg.epoch_block` epochs, all before it
/// returns. Whatever cannot be read or written gives [`gate::Store::Unreadable`] (HO-E-005) and its reason in [`Opened::found`]: the gate
/// runs all the same, for local. Gives up waiting for the disk after 1.5 s.
///
/// Blocks: call it before the core runs. Answers of the disk go to `inbox`.
///
/// # Errors
/// [`OpenError`]: another gate has the store.
pub fn open(dir: &Path, cfg: &Config, run: Run, inbox: Inbox) -> Result<Opened, OpenError> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let (path, block) = (dir.to_path_buf(), cfg.epoch_block);
    let opening = std::thread::Builder::new().name("trocar-store".to_owned());
    let opening = opening.spawn(move || {
        // Whoever waited may have given up.
        let _ = tell.send(open_directory(&path, block));
    });
    opening.map_err(OpenError::Thread)?;
    let parts = told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let why = format!("{}: the disk did not answer within {} ms", dir.display(), PATIENCE.as_millis());
        Ok(Parts { store: gate::Store::Unreadable, disk: None, consents: None, found: vec![why] })
    });
    let Parts { store, disk, consents, found } = parts?;
    let disk = queue::start(disk, run, inbox, &found).map_err(OpenError::Thread)?;
    Ok(Opened { store, disk, consents, found })
}

/// Makes a new store whose first epoch is `above` + 1, for a device that has seen epochs of a store that is lost: the device shows its
/// highest fence, and remote stays refused as long as that is above the gate's epochs (HO-E-006).
///
/// # Errors
/// What cannot be written, or that there is a store already.
pub fn create(dir: &Path, above: Epoch) -> Result<(), String> {
    let mut layer = Directory::open(dir).map_err(|e| e.to_string())?;
    if Name::ALL.into_iter().any(|name| !matches!(layer.length(name), Ok(None))) {
        return Err(format!("{}: there is a store already; move its files away first", dir.display()));
    }
    let first = above.next().ok_or("no epochs are left above that one")?;
    let mut pair = Pair::new(Kind::EPOCHS, Name::EPOCHS);
    pair.write(&mut layer, &first.0.to_be_bytes()).map_err(|e| format!("{}: {e}", dir.display()))
}

/// What the opening thread found.
struct Parts {
    store: gate::Store,
    disk: Option<thread::Writer<Directory>>,
    consents: Option<Consents>,
    found: Vec<String>,
}

fn open_directory(dir: &Path, block: u64) -> Result<Parts, OpenError> {
    let layer = match Directory::open(dir) {
        Ok(layer) => layer,
        Err(layer::DirectoryError::InUse) => return Err(OpenError::InUse(dir.to_path_buf())),
        Err(e) => {
            let found = vec![format!("{}: {e}; {WHAT_TO_DO}", dir.display())];
            return Ok(Parts { store: gate::Store::Unreadable, disk: None, consents: None, found });
        }
    };
    let others = layer.another();
    let (store, disk, mut found) = open_layer(layer, &dir.display().to_string(), block);
    let consents = Consents::load(Box::new(others));
    let consents = consents.map_err(|why| found.push(format!("{}: {why}; no consent counts", dir.display()))).ok();
    Ok(Parts { store, disk, consents, found })
}

/// Recovers the chain and reserves the first block. Without a chain there is no writer.
fn open_layer<L: Layer>(mut layer: L, name: &str, block: u64) -> (gate::Store, Option<thread::Writer<L>>, Vec<String>) {
    let mut found = Vec::new();
    let is_new = Name::ALL.into_iter().all(|name| name == Name::EpochsA || matches!(layer.length(name), Ok(None)));
    let chain = recover::recover(&mut layer, &mut found);
    let last_epoch = chain.as_ref().ok().and_then(|c| c.last_epoch);
    let reserved = match &chain {
        Ok(_) => reserve(&mut layer, is_new, block, last_epoch),
        Err(why) => Err(why.clone()),
    };
    let (store, epochs) = match reserved {
        Ok((store, epochs)) => (store, Some(epochs)),
        Err(why) => {
            found.push(format!("{name}: {why}; {WHAT_TO_DO}"));
            (gate::Store::Unreadable, None)
        }
    };
    let disk = chain.ok().map(|recovered| thread::Writer::new(layer, recovered.chain, epochs));
    (store, disk, found)
}

/// What a person can do about a store that cannot be relied on.
const WHAT_TO_DO: &str = "remote is refused for this session, local works. Repair the disk, or move the directory's files to a safe place \
     and make a new one with `trocar-gate new-store --dir DIR --above FENCE`, where FENCE is the highest fence that the device shows";

/// The block of this start: durable before anything is told (HO-E-003).
fn reserve(
    layer: &mut dyn Layer,
    is_new: bool,
    block: u64,
    last_epoch: Option<u64>,
) -> Result<(gate::Store, thread::Epochs), String> {
    let (mut pair, end) = match pair::load(layer, Kind::EPOCHS, Name::EPOCHS) {
        Ok(Some((pair, content))) => {
            (pair, thread::Epochs::decode(&content).ok_or("epochs.a: not a number of an epoch")?)
        }
        Ok(None) if is_new => (Pair::new(Kind::EPOCHS, Name::EPOCHS), 1),
        // A first start that was cut off before anything was durable has handed out nothing.
        Err(PairError::Both { torn_first: true, .. }) if is_new => (Pair::new(Kind::EPOCHS, Name::EPOCHS), 1),
        Ok(None) => return Err("epochs.a and epochs.b are missing, although the store is not new".to_owned()),
        Err(e) => return Err(e.to_string()),
    };
    if last_epoch.is_some_and(|epoch| epoch >= end) {
        let last = last_epoch.unwrap_or_default();
        return Err(format!(
            "epochs.a and epochs.b are older than the audit chain, which has epoch {last} (they end at {end})"
        ));
    }
    let first = end;
    let end = first.checked_add(block).ok_or("no epochs are left")?;
    pair.write(layer, &end.to_be_bytes()).map_err(|e| format!("epochs.a, epochs.b: cannot be written: {e}"))?;
    Ok((gate::Store::Block { first: Epoch(first), end: Epoch(end) }, thread::Epochs { pair, end }))
}
