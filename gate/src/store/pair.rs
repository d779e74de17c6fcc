//! One small value in two checksummed copies (HO-E-010).

use super::layer::{Layer, Name};
use std::io;
use trocar_control::audit::sector::{self, Damaged, Kind};

/// Where the next value goes.
#[derive(Debug)]
pub(super) struct Pair {
    kind: Kind,
    /// The first one is written first: where one of them is not known to be whole, it is that one.
    names: [Name; 2],
    sequence: u64,
}

/// Neither copy counts.
#[derive(Debug, thiserror::Error)]
pub(super) enum PairError {
    /// The disk says no.
    #[error("{0}: cannot be read: {1}")]
    Io(Name, io::Error),
    /// Both copies are damaged, or one is and the other is missing.
    #[error("{first}; {second}")]
    Both {
        /// What is wrong with the first copy.
        first: String,
        /// And with the second.
        second: String,
        /// The first is damaged and there is no second: so does a first write that tore leave them.
        torn_first: bool,
    },
    /// Both copies are whole and say different things under one number.
    #[error("{0} and its copy contradict each other")]
    Contradiction(Name),
}

/// Reads both copies. The newest whole one counts; nothing where neither file is there.
///
/// # Errors
/// [`PairError`].
pub(super) fn load(layer: &mut dyn Layer, kind: Kind, names: [Name; 2]) -> Result<Option<(Pair, Vec<u8>)>, PairError> {
    let [a, b] = names;
    let first = read(layer, kind, a).map_err(|e| PairError::Io(a, e))?;
    let second = read(layer, kind, b).map_err(|e| PairError::Io(b, e))?;
    let pair = |sequence, names| Pair { kind, names, sequence };
    match (first, second) {
        (Copy::Missing, Copy::Missing) => Ok(None),
        (Copy::Whole(n, x), Copy::Whole(m, y)) if n == m && x != y => Err(PairError::Contradiction(a)),
        (Copy::Whole(n, x), Copy::Whole(m, _)) if n >= m => Ok(Some((pair(n, [b, a]), x))),
        (Copy::Whole(n, x), Copy::Damaged(_) | Copy::Missing) => Ok(Some((pair(n, [b, a]), x))),
        (_, Copy::Whole(m, y)) => Ok(Some((pair(m, [a, b]), y))),
        (first, second) => {
            let torn_first = matches!((&first, &second), (Copy::Damaged(_), Copy::Missing));
            Err(PairError::Both { first: first.wrong(a), second: second.wrong(b), torn_first })
        }
    }
}

impl Pair {
    /// A pair of files that are not there yet.
    pub(super) const fn new(kind: Kind, names: [Name; 2]) -> Self {
        Self { kind, names, sequence: 0 }
    }

    /// Writes both copies, one after the other. When it returns well, both are on disk; when not, at least one copy is whole, and has the
    /// former value or this one.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn write(&mut self, layer: &mut dyn Layer, content: &[u8]) -> io::Result<()> {
        // A number is used once, even where the write failed: what reached the disk is not known then.
        self.sequence = self.sequence.checked_add(1).ok_or_else(|| io::Error::other("no numbers are left"))?;
        let bytes = sector::encode(self.kind, self.sequence, content);
        let bytes = bytes.ok_or_else(|| io::Error::other("the content is too long"))?;
        let [first, second] = self.names;
        layer.write(first, 0, &bytes).and_then(|()| layer.sync(first))?;
        let result = layer.write(second, 0, &bytes).and_then(|()| layer.sync(second));
        if result.is_err() {
            self.names = [second, first];
        }
        result
    }
}

enum Copy {
    Missing,
    Damaged(Damaged),
    Whole(u64, Vec<u8>),
}

impl Copy {
    fn wrong(&self, name: Name) -> String {
        match self {
            Self::Missing => format!("{name} is missing"),
            Self::Damaged(why) => format!("{name} {why}"),
            Self::Whole(..) => format!("{name} is whole"),
        }
    }
}

fn read(layer: &mut dyn Layer, kind: Kind, name: Name) -> io::Result<Copy> {
    let Some(length) = layer.length(name)? else { return Ok(Copy::Missing) };
    let bytes = layer.read(name, 0, sector::SIZE)?;
    let too_long = usize::try_from(length).unwrap_or(usize::MAX);
    Ok(match sector::decode(kind, &bytes) {
        _ if too_long > sector::SIZE => Copy::Damaged(Damaged::Length(too_long)),
        Ok((sequence, content)) => Copy::Whole(sequence, content.to_vec()),
        Err(why) => Copy::Damaged(why),
    })
}
