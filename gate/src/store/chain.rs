//! Appending to the two copies of the audit chain.

use super::layer::{Layer, Name};
use super::pair::Pair;
use std::io;
use trocar_control::audit::record::{Link, MAX_LINE};
use trocar_control::audit::sector::Head;

/// Where the chain ends.
#[derive(Debug)]
pub(super) struct Chain {
    /// The newest record that is on disk in both copies.
    durable: Link,
    /// How long the copies are up to there.
    lengths: [u64; 2],
    /// What is behind that in the files is not known: a write or a flush failed.
    is_unsure: bool,
    head: Pair,
}

impl Chain {
    /// A chain that ends with `durable`, in copies of these lengths.
    pub(super) const fn new(durable: Link, lengths: [u64; 2], head: Pair) -> Self {
        Self { durable, lengths, is_unsure: false, head }
    }

    /// The newest record that is on disk.
    pub(super) const fn durable(&self) -> Link {
        self.durable
    }

    /// Whether somebody else made a file shorter or longer since: what it now is, for a record. The chain goes on behind it.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn look(&mut self, layer: &mut dyn Layer) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        if self.is_unsure {
            return Ok(found);
        }
        for (name, length) in Name::CHAINS.into_iter().zip(&mut self.lengths) {
            let now = layer.length(name)?.unwrap_or(0);
            if now != *length {
                found.push(format!("{name} has {now} bytes instead of {length}: it was changed while the gate ran"));
                *length = whole_lines(layer, name, now)?;
            }
        }
        Ok(found)
    }

    /// Appends lines, the last of which is `last`, to both copies. When it returns well, they are on disk in both. When not, they are in
    /// neither as far as the next call is concerned, which first cuts away what may be left of them.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn append(&mut self, layer: &mut dyn Layer, lines: &[u8], last: Link) -> io::Result<()> {
        if self.is_unsure {
            for (name, length) in Name::CHAINS.into_iter().zip(self.lengths) {
                if layer.length(name)?.is_some_and(|now| now > length) {
                    layer.cut(name, length)?;
                }
            }
        }
        self.is_unsure = true;
        for (name, length) in Name::CHAINS.into_iter().zip(self.lengths) {
            layer.write(name, length, lines)?;
        }
        for name in Name::CHAINS {
            layer.sync(name)?;
        }
        self.lengths = self.lengths.map(|length| length + lines.len() as u64);
        self.durable = last;
        self.is_unsure = false;
        Ok(())
    }

    /// Notes the chain's end beside it. Late is no harm: the head may lag behind the chain, never lead.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn note_head(&mut self, layer: &mut dyn Layer) -> io::Result<()> {
        self.head.write(layer, &Head(self.durable).encode())
    }
}

/// The length up to the last line feed; what lies behind it is kept aside.
fn whole_lines(layer: &mut dyn Layer, name: Name, length: u64) -> io::Result<u64> {
    let window = length.min(MAX_LINE as u64);
    let bytes = layer.read(name, length - window, MAX_LINE)?;
    let good = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let torn = bytes.get(good..).unwrap_or_default();
    if !torn.is_empty() {
        layer.keep(torn)?;
        layer.cut(name, length - torn.len() as u64)?;
    }
    Ok(length - torn.len() as u64)
}
