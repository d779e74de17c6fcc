//! Checking a chain: names the first bad record.

use super::record::{Hash, LineError, Link, MAX_LINE, Record};
use super::sector::{self, Head, Kind};
use super::{CHAIN, COPY, HEADS};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// A chain without a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The chain's file.
    pub file: PathBuf,
    /// How many records it has.
    pub records: u64,
    /// The last one: note it elsewhere, and a store that is replaced as a whole is found too.
    pub head: Link,
    /// Time of the first and the last record, as they say it.
    pub from_until: Option<(String, String)>,
    /// Records that the gate itself says were lost, because its disk did not take them in time.
    pub lost: u64,
    /// Whether a second copy was there and agrees.
    pub has_copy: bool,
    /// Whether the chain's head was noted beside it and agrees.
    pub has_head: bool,
}

/// The first bad record.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}{}: {why}", file.display(), record.map(|r| format!(" (record {r})")).unwrap_or_default())]
pub struct Bad {
    /// Of which file.
    pub file: PathBuf,
    /// Which line, from 1. One more than there are, where the end is missing.
    pub line: u64,
    /// Which record it says it is, or ought to be, where that is known.
    pub record: Option<u64>,
    /// What is wrong.
    pub why: Why,
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is no line feed at the end.
    #[error("the last line is torn")]
    Torn,
    /// Longer than any record.
    #[error("longer than a record can be (16 KiB)")]
    TooLong,
    /// Its bytes are wrong.
    #[error("{0}")]
    Line(#[from] LineError),
    /// Numbers are left out.
    #[error("records {first} to {last} are missing here")]
    Missing {
        /// The first that is missing.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The number came before.
    #[error("record {expected} belongs here: records were moved, or this one comes twice")]
    Moved {
        /// Which one belongs here.
        expected: u64,
    },
    /// The record after it names another hash.
    #[error("is not the record that was written here: the one after it names another hash")]
    Replaced,
    /// Something remembers records that are not there.
    #[error("{what} says that record {seq} was on disk: the end of the chain was cut off or replaced")]
    Cut {
        /// Who remembers.
        what: String,
        /// The record.
        seq: u64,
    },
    /// The copies differ.
    #[error("differs from its copy")]
    Copies,
}

/// Checks a chain. `path` is the file, or the gate's store, in which case the copy and the noted head are looked at too.
///
/// A chain may be checked while its gate runs: a last line that is just being written is looked at again.
///
/// # Errors
/// [`Bad`]: the first bad record.
pub fn verify(path: &Path) -> Result<Verified, Bad> {
    let mut result = verify_once(path);
    for _ in 0..2 {
        if !matches!(result, Err(Bad { why: Why::Torn, .. })) {
            break;
        }
        result = verify_once(path);
    }
    result
}

fn verify_once(path: &Path) -> Result<Verified, Bad> {
    let is_store = path.is_dir();
    let file = if is_store { path.join(CHAIN) } else { path.to_path_buf() };
    // Read before the chain, which grows meanwhile.
    let head = if is_store { head(path) } else { None };
    let mut chain = Chain::default();
    chain.read(&file, |_, _| {})?;
    if let Some(head) = head
        && chain.hash(head.seq) != Some(head.hash)
    {
        let (line, record) = (chain.line + 1, Some(chain.last.seq + 1));
        let why = Why::Cut { what: HEADS[0].to_owned(), seq: head.seq };
        return Err(Bad { file, line, record, why });
    }
    let copy = path.join(COPY);
    let has_copy = is_store && copy.exists();
    if has_copy {
        chain.compare(&copy, head)?;
    }
    let Chain { last, from_until, lost, .. } = chain;
    Ok(Verified { file, records: last.seq, head: last, from_until, lost, has_copy, has_head: head.is_some() })
}

/// Reads the chain, and hands each good record on. Used by whoever shows it.
///
/// # Errors
/// [`Bad`]: the first bad record; those before it were handed on.
pub(super) fn read(path: &Path, each: impl FnMut(u64, Record)) -> Result<(), Bad> {
    let file = if path.is_dir() { path.join(CHAIN) } else { path.to_path_buf() };
    Chain::default().read(&file, each)
}

/// The newer whole copy of the noted head.
fn head(store: &Path) -> Option<Link> {
    let copies = HEADS.into_iter().filter_map(|name| {
        let mut bytes = Vec::new();
        File::open(store.join(name)).ok()?.take(sector::SIZE as u64 + 1).read_to_end(&mut bytes).ok()?;
        let (sequence, content) = sector::decode(Kind::HEAD, &bytes).ok()?;
        Some((sequence, Head::decode(content).ok()?.0))
    });
    copies.max_by_key(|(sequence, _)| *sequence).map(|(_, link)| link)
}

/// What was read so far.
struct Chain {
    line: u64,
    last: Link,
    /// The hash of each record, from the first.
    hashes: Vec<Hash>,
    from_until: Option<(String, String)>,
    lost: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self { line: 0, last: Link::START, hashes: Vec::new(), from_until: None, lost: 0 }
    }
}

impl Chain {
    fn read(&mut self, file: &Path, mut each: impl FnMut(u64, Record)) -> Result<(), Bad> {
        let bad = |line, record, why| Bad { file: file.to_path_buf(), line, record, why };
        let open = File::open(file).map_err(|e| bad(1, None, e.into()))?;
        let mut lines = BufReader::with_capacity(1 << 16, open);
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = lines.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
            if n.map_err(|e| bad(self.line + 1, None, e.into()))? == 0 {
                return Ok(());
            }
            match self.take(&line) {
                Ok(record) => each(self.line, record),
                Err((line, record, why)) => return Err(bad(line, record, why)),
            }
        }
    }

    /// The next line; what is wrong, and with which line.
    fn take(&mut self, line: &[u8]) -> Result<Record, (u64, Option<u64>, Why)> {
        let (at, expected) = (self.line + 1, self.last.seq + 1);
        if line.len() > MAX_LINE {
            return Err((at, None, Why::TooLong));
        }
        let body = line.strip_suffix(b"\n").ok_or((at, None, Why::Torn))?;
        let (record, hash) = Record::read(body).map_err(|e| (at, Some(expected), e.into()))?;
        let seq = Some(record.seq);
        if record.seq > expected {
            return Err((at, seq, Why::Missing { first: expected, last: record.seq - 1 }));
        }
        if record.seq < expected {
            return Err((at, seq, Why::Moved { expected }));
        }
        if record.previous != self.last.hash {
            // This one's own hash fits, so it is the one before that is not what it was.
            return Err((self.line.max(1), Some(self.last.seq.max(1)), Why::Replaced));
        }
        if let Some(durable) = record.durable
            && (durable.seq >= record.seq || self.hash(durable.seq) != Some(durable.hash))
        {
            return Err((at, seq, Why::Cut { what: "this record".to_owned(), seq: durable.seq }));
        }
        self.line = at;
        self.last = Link { seq: record.seq, hash };
        self.hashes.push(hash);
        self.lost = self.lost.saturating_add(record.lost);
        match &mut self.from_until {
            Some((_, until)) => until.clone_from(&record.utc),
            none => *none = Some((record.utc.clone(), record.utc.clone())),
        }
        Ok(record)
    }

    /// The hash of a record; that of number 0 is what the first one names.
    fn hash(&self, seq: u64) -> Option<Hash> {
        let Some(index) = seq.checked_sub(1) else { return Some(Hash::NONE) };
        usize::try_from(index).ok().and_then(|n| self.hashes.get(n)).copied()
    }

    /// Compares with the second copy, which may be a little behind or ahead while the gate runs.
    fn compare(&self, copy: &Path, head: Option<Link>) -> Result<(), Bad> {
        let mut other = Self::default();
        let result = other.read(copy, |_, _| {});
        let differs = self.hashes.iter().zip(&other.hashes).position(|(a, b)| a != b);
        if let Some(n) = differs {
            let line = n as u64 + 1;
            return Err(Bad { file: copy.to_path_buf(), line, record: Some(line), why: Why::Copies });
        }
        // A last line that is just being written is no fault.
        match result {
            Err(Bad { why: Why::Torn, .. }) | Ok(()) => {}
            Err(bad) => return Err(bad),
        }
        match head.filter(|head| head.seq > other.last.seq) {
            None => Ok(()),
            Some(head) => {
                let (line, record) = (other.line + 1, Some(other.last.seq + 1));
                let why = Why::Cut { what: HEADS[0].to_owned(), seq: head.seq };
                Err(Bad { file: copy.to_path_buf(), line, record, why })
            }
        }
    }
}

#[cfg(test)]
mod tests;
