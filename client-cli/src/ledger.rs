//! A ledger of frames: one JSON line each, so that what came can be compared with what was sent.

use anyhow::Context;
use aws_lc_rs::digest;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// A file of frames. Flushed when dropped.
pub(crate) struct Ledger(BufWriter<File>);

impl Ledger {
    /// An empty one.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write the ledger {}", path.display()))?;
        Ok(Self(BufWriter::new(file)))
    }

    /// Adds a frame.
    pub(crate) fn write(&mut self, frame: u32, sha256: &str) {
        if let Err(error) = writeln!(self.0, "{{\"frame\":{frame},\"sha256\":\"{sha256}\"}}") {
            tracing::error!(%error, frame, "the ledger could not be written");
        }
    }
}

/// SHA-256 over a frame's RTP payloads, in hex.
pub(crate) fn digest<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    payloads.for_each(|p| context.update(p));
    hex::encode(context.finish())
}
