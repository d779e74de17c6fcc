//! The highest serials of consent documents, on disk (HO-U-001): so that an old document, or one that was withdrawn at the console, does not
//! count again after a restart.

use super::layer::{Layer, Name};
use super::pair::{self, Pair};
use trocar_control::audit::Hash;
use trocar_control::audit::sector::{Kind, MAX_CONTENT};
use trocar_proto::session::ids::SessionId;

/// What is known of a session's newest document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its serial.
    pub serial: u64,
    /// SHA-256 of what was signed: another document with the same serial does not count.
    pub document: Hash,
    /// It was withdrawn at the gate's console.
    pub is_withdrawn: bool,
}

/// The sessions that are remembered, newest first. Beyond [`Consents::MOST`] the oldest is forgotten.
pub struct Consents {
    layer: Box<dyn Layer>,
    pair: Pair,
    known: Vec<(Hash, Known)>,
}

impl std::fmt::Debug for Consents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consents").field("known", &self.known).finish_non_exhaustive()
    }
}

/// Session (hash), serial, document, withdrawn.
const ENTRY: usize = 32 + 8 + 32 + 1;

impl Consents {
    /// Sessions that are remembered.
    pub const MOST: usize = MAX_CONTENT / ENTRY;

    pub(super) fn load(mut layer: Box<dyn Layer>) -> Result<Self, String> {
        let names = Name::CONSENT;
        let loaded = pair::load(layer.as_mut(), Kind::CONSENT, names).map_err(|e| e.to_string())?;
        let (mut pair, content) = loaded.unwrap_or_else(|| (Pair::new(Kind::CONSENT, names), Vec::new()));
        if !content.is_empty() {
            // Makes both copies equal, and durable where the last run was killed before it could see to that.
            pair.write(layer.as_mut(), &content).map_err(|e| format!("{}: {e}", Name::ConsentA))?;
        }
        let known = content.chunks(ENTRY).map(decode).collect::<Option<Vec<_>>>();
        let known = known.ok_or_else(|| format!("{} holds something that is not understood", Name::ConsentA))?;
        Ok(Self { layer, pair, known })
    }

    /// The newest document that was known for a session, in this run or an earlier one.
    #[must_use]
    pub fn of(&self, session: &SessionId) -> Option<Known> {
        let name = Hash::of(session.as_str().as_bytes());
        self.known.iter().find(|(of, _)| *of == name).map(|(_, known)| *known)
    }

    /// Remembers it, on disk when this returns. Blocks.
    ///
    /// # Errors
    /// The disk's; nothing is remembered then.
    pub fn remember(&mut self, session: &SessionId, known: Known) -> std::io::Result<()> {
        let name = Hash::of(session.as_str().as_bytes());
        let others = self.known.iter().filter(|(of, _)| *of != name).copied();
        let all: Vec<_> = std::iter::once((name, known)).chain(others).take(Self::MOST).collect();
        let content: Vec<u8> = all.iter().flat_map(|(of, known)| encode(of, known)).collect();
        self.pair.write(self.layer.as_mut(), &content)?;
        self.known = all;
        Ok(())
    }
}

fn encode(of: &Hash, known: &Known) -> Vec<u8> {
    [&of.0[..], &known.serial.to_be_bytes(), &known.document.0, &[u8::from(known.is_withdrawn)]].concat()
}

fn decode(entry: &[u8]) -> Option<(Hash, Known)> {
    let (of, rest) = entry.split_first_chunk::<32>()?;
    let (serial, rest) = rest.split_first_chunk::<8>()?;
    let (document, rest) = rest.split_first_chunk::<32>()?;
    let is_withdrawn = match rest {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let serial = u64::from_be_bytes(*serial);
    Some((Hash(*of), Known { serial, document: Hash(*document), is_withdrawn }))
}
