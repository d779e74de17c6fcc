//! A disk in memory that can stop at any byte.

use crate::store::layer::{Layer, Name};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct Files {
    /// What programs see.
    pub(in crate::store) live: BTreeMap<Name, Vec<u8>>,
    /// What was flushed.
    pub(in crate::store) durable: BTreeMap<Name, Vec<u8>>,
    pub(in crate::store) kept: Vec<Vec<u8>>,
    /// Bytes, cuts and flushes until the power fails.
    pub(in crate::store) power: Option<u64>,
    /// No file can grow.
    pub(in crate::store) full: bool,
    /// Nothing can be written at all.
    pub(in crate::store) broken: bool,
    /// After how much of `power` it is worth failing: the edges of each write, every flush, and a part of what lies between.
    pub(in crate::store) edges: Vec<u64>,
    /// Operations so far, counted as for `power`.
    pub(in crate::store) spent: u64,
}

/// One more handle of the same disk.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Memory(pub(in crate::store) Arc<Mutex<Files>>);

/// What of the unflushed is on the disk when the power is back.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Image {
    /// All of it.
    All,
    /// None of it.
    Flushed,
    /// The lengths, with zeros for the content.
    Zeros,
    /// Of files with an even number all of it, of the others none; and the other way round.
    Even,
    Odd,
}

impl Image {
    pub(in crate::store) const ALL: [Self; 5] = [Self::All, Self::Flushed, Self::Zeros, Self::Even, Self::Odd];
}

impl Memory {
    /// The disk after the power failed.
    pub(in crate::store) fn after(&self, image: Image) -> Self {
        let files = self.0.lock().unwrap();
        let mut now = BTreeMap::new();
        for name in Name::ALL {
            let (live, durable) = (files.live.get(&name), files.durable.get(&name));
            let has_all = match image {
                Image::All => true,
                Image::Flushed | Image::Zeros => false,
                Image::Even => (name as u8).is_multiple_of(2),
                Image::Odd => !(name as u8).is_multiple_of(2),
            };
            let content = match (image, live, durable) {
                (Image::Zeros, Some(live), durable) => {
                    let old = durable.map_or(&[][..], Vec::as_slice);
                    let zeroed = live.iter().enumerate().map(|(at, b)| if old.get(at) == Some(b) { *b } else { 0 });
                    Some(zeroed.collect())
                }
                _ if has_all => live.cloned(),
                _ => durable.cloned(),
            };
            if let Some(content) = content {
                now.insert(name, content);
            }
        }
        let files = Files { live: now.clone(), durable: now, kept: files.kept.clone(), ..Files::default() };
        Self(Arc::new(Mutex::new(files)))
    }

    pub(in crate::store) fn content(&self, name: Name) -> Vec<u8> {
        self.0.lock().unwrap().live.get(&name).cloned().unwrap_or_default()
    }

    pub(in crate::store) fn change(&self, change: impl FnOnce(&mut Files)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl Files {
    /// How much of so much can still be done.
    fn spend(&mut self, wanted: usize) -> io::Result<usize> {
        if self.broken {
            return Err(io::Error::other("the disk is broken"));
        }
        let inner = |n: &usize| *n < 80 || n + 2 >= wanted || n.is_multiple_of(61);
        let spent = self.spent;
        self.edges.extend((0..=wanted).filter(inner).map(|n| spent + n as u64));
        self.spent += wanted as u64;
        let Some(power) = &mut self.power else { return Ok(wanted) };
        let can = usize::try_from(*power).unwrap().min(wanted);
        *power -= can as u64;
        Ok(can)
    }

    fn all_of(&mut self, wanted: usize) -> io::Result<()> {
        if self.spend(wanted)? == wanted { Ok(()) } else { Err(no_power()) }
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power failed")
}

impl Layer for Memory {
    fn length(&mut self, name: Name) -> io::Result<Option<u64>> {
        Ok(self.0.lock().unwrap().live.get(&name).map(|c| c.len() as u64))
    }

    fn read(&mut self, name: Name, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let content = self.content(name);
        let from = usize::try_from(offset).unwrap().min(content.len());
        Ok(content[from..content.len().min(from.saturating_add(length))].to_vec())
    }

    fn write(&mut self, name: Name, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let length = files.live.get(&name).map_or(0, Vec::len);
        if files.full && from + bytes.len() > length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let can = files.spend(bytes.len())?;
        let content = files.live.entry(name).or_default();
        content.resize(content.len().max(from + can), 0);
        content[from..from + can].copy_from_slice(&bytes[..can]);
        if can == bytes.len() { Ok(()) } else { Err(no_power()) }
    }

    fn cut(&mut self, name: Name, length: u64) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        files.all_of(1)?;
        if let Some(content) = files.live.get_mut(&name) {
            content.truncate(usize::try_from(length).unwrap());
        }
        Ok(())
    }

    fn sync(&mut self, name: Name) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        files.all_of(1)?;
        if let Some(content) = files.live.get(&name).cloned() {
            files.durable.insert(name, content);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<String> {
        let mut files = self.0.lock().unwrap();
        files.all_of(1)?;
        files.kept.push(bytes.to_vec());
        Ok(format!("audit.torn-{}", files.kept.len()))
    }

    fn set_aside(&mut self, name: Name) -> io::Result<String> {
        let mut files = self.0.lock().unwrap();
        files.all_of(1)?;
        let content = files.live.remove(&name).unwrap();
        files.durable.remove(&name);
        files.kept.push(content);
        Ok(format!("audit.torn-{}", files.kept.len()))
    }
}
