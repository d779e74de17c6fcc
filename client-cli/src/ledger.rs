//! A ledger of frames: one JSON line each, so that what came can be compared with what was sent.

use anyhow::Context;
use aws_lc_rs::digest;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use trocar_proto::units::WallMicros;

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
        self.line(frame, format_args!("{{\"frame\":{frame},\"sha256\":\"{sha256}\"}}"));
    }

    /// Adds a frame that came: when it could be shown, on this machine's clock, and how old it was when its last packet came, both in
    /// microseconds; no age where that is unknown.
    pub(crate) fn write_came(&mut self, frame: u32, sha256: &str, at: WallMicros, age_us: Option<i64>) {
        let age = age_us.map_or_else(|| "null".to_owned(), |us| us.to_string());
        let at = at.0;
        self.line(frame, format_args!("{{\"frame\":{frame},\"sha256\":\"{sha256}\",\"at_us\":{at},\"age_us\":{age}}}"));
    }

    fn line(&mut self, frame: u32, text: std::fmt::Arguments<'_>) {
        if let Err(error) = writeln!(self.0, "{text}") {
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
