//! The other side: a feed whose packets come from its home.

use super::ring::{Place, Receiver};
use super::{Crossings, Image, Message, wake};
use crate::worker::state::{Core, FeedEntry, Origin};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use trocar_proto::session::admission::FeedKey;
use trocar_proto::units::Micros;

/// Packets that a worker takes from one ring before its legs send: as many as one read of a socket brings at most.
const BATCH: usize = 64;
/// A home is told again after this time that there is a mirror, in microseconds.
const BEGIN_AGAIN_US: u64 = 500_000;

/// Takes what other workers bring, until the worker ends.
pub(crate) async fn read_crossings(core: Rc<RefCell<Core>>, mut crossings: Crossings) {
    let woken = Arc::clone(&crossings.woken);
    wake::serve(&*woken, || crossings.take(&mut core.borrow_mut()), tokio::task::yield_now).await;
}

impl Crossings {
    /// Takes a batch out of each ring and lets the legs of its feeds send; true where there may be more.
    pub(in crate::worker) fn take(&mut self, core: &mut Core) -> bool {
        let pop =
            |core: &mut Core, ring: &mut Receiver| ring.pop(|place, at, packet| core.store_mirrored(place, at, packet));
        wake::take_batches(&mut self.rings, BATCH, core, pop, |core| core.send_on(Instant::now()))
    }
}

impl Core {
    /// Makes mirrors of feeds that live elsewhere, where there are none yet. One that no leg takes is gone with the next tick.
    pub(crate) fn admit_mirrors(&mut self, images: Vec<Image>) {
        for Image { home, key, publisher, descriptor } in images {
            if let Some(index) = self.feed_by_key.get(&key) {
                if let Some(entry) = self.feeds.get_mut(*index).filter(|f| matches!(f.origin, Origin::Mirror { .. })) {
                    entry.descriptor = descriptor;
                }
                continue;
            }
            let serial = self.cross.serial();
            let index = self.insert_feed(key.clone(), publisher, descriptor, Origin::Mirror { home, serial }, None);
            let Ok(slot) = u32::try_from(index) else { continue };
            let (to, place) = (self.cross.me, Place { index: slot, serial });
            self.cross.send(home, Message::Begin { key, to, place });
        }
    }

    /// Tells homes again of mirrors that have got no packet yet: what was said of one may have found no room. Bounded by the
    /// number of mirrors, twice a second.
    pub(super) fn begin_again(&mut self, at: Micros) {
        if at.since(self.cross.begun) < BEGIN_AGAIN_US {
            return;
        }
        self.cross.begun = at;
        let to = self.cross.me;
        for (index, f) in &self.feeds {
            let Origin::Mirror { home, serial } = f.origin else { continue };
            let Some(slot) = u32::try_from(index).ok().filter(|_| f.feed.ring().head() == 0) else { continue };
            let place = Place { index: slot, serial };
            self.cross.send(home, Message::Begin { key: f.key.clone(), to, place });
        }
    }

    /// The mirror of that name and number.
    pub(super) fn mirror_of(&self, key: &FeedKey, serial: u32) -> Option<usize> {
        let index = *self.feed_by_key.get(key)?;
        self.feeds.get(index).filter(|f| f.origin.is_mirror(serial)).map(|_| index)
    }

    /// One packet from a feed's home. What it makes due is sent by [`Self::send_on`].
    pub(super) fn store_mirrored(&mut self, place: Place, arrived: Micros, packet: &[u8]) {
        let index = place.index as usize;
        // Packets of a mirror that is gone may still be on their way.
        let Some(entry) = self.feeds.get_mut(index).filter(|f| f.origin.is_mirror(place.serial)) else { return };
        if let Err(refused) = entry.feed.handle_packet(arrived, packet) {
            return tracing::debug!(feed = %entry.key.feed, %refused, "packet of a mirror refused");
        }
        if !self.touched.note(index) {
            self.send_on(Instant::now());
            self.touched.note(index);
        }
    }

    /// Asks the home for a key frame.
    pub(in crate::worker) fn ask_home(&mut self, index: usize) {
        let Some(FeedEntry { key, origin: Origin::Mirror { home, .. }, .. }) = self.feeds.get(index) else { return };
        self.cross.send(*home, Message::KeyFrame { key: key.clone() });
    }

    /// A mirror was taken down.
    pub(in crate::worker) fn end_at_home(&mut self, entry: &FeedEntry, home: usize, serial: u32) {
        let (key, to, delay) = (entry.key.clone(), self.cross.me, entry.delay);
        self.cross.send(home, Message::End { key, to, serial, delay });
    }

    /// Takes mirrors down that no leg needs any more.
    pub(super) fn drop_idle_mirrors(&mut self) {
        let mirror = |f: &FeedEntry| matches!(f.origin, Origin::Mirror { .. });
        let idle = |f: &FeedEntry| mirror(f) && f.legs.is_empty() && !self.is_awaited(&f.key);
        let keys: Vec<FeedKey> = self.feeds.iter().filter(|(_, f)| idle(f)).map(|(_, f)| f.key.clone()).collect();
        for key in keys {
            self.close_feed(&key);
        }
    }
}
