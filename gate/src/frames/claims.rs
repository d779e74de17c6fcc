//! Who reports which source: one connection at a time, or frames of a live camera between those of a frozen one would hide that it is
//! frozen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use trocar_proto::session::ids::CertHash;

/// One connection.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) certificate: CertHash,
    /// Told when another connection of the same publisher takes its place.
    pub(super) replaced: Notify,
}

/// By source. At most as many as there are connections.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<u16, Arc<Holder>>>);

impl Claims {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Holder>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this connection may report the source: it does already, nobody does, or an older connection of the same publisher
    /// does, which is told to end (its publisher has given it up, whatever TCP still believes).
    pub(super) fn take(&self, source: u16, by: &Arc<Holder>) -> bool {
        let mut all = self.lock();
        match all.get(&source) {
            Some(holder) if Arc::ptr_eq(holder, by) => return true,
            Some(holder) if holder.certificate != by.certificate => return false,
            Some(holder) => holder.replaced.notify_one(),
            None => {}
        }
        // One source per connection, so that the table stays as small as the number of connections.
        if all.values().any(|h| Arc::ptr_eq(h, by)) {
            return false;
        }
        all.insert(source, Arc::clone(by));
        true
    }

    /// It is over.
    pub(super) fn release(&self, by: &Arc<Holder>) {
        self.lock().retain(|_, holder| !Arc::ptr_eq(holder, by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(n: u8) -> Arc<Holder> {
        Arc::new(Holder { certificate: CertHash([n; 32]), replaced: Notify::new() })
    }

    #[tokio::test]
    async fn a_source_has_one_publisher_whose_newest_connection_counts() {
        let claims = Claims::default();
        let (first, other, again) = (holder(1), holder(2), holder(1));
        assert!(claims.take(1, &first) && claims.take(1, &first));
        assert!(!claims.take(1, &other) && claims.take(2, &other));
        assert!(claims.take(1, &again));
        first.replaced.notified().await;
        // What the old one gives back is not the new one's.
        claims.release(&first);
        assert!(!claims.take(1, &holder(3)));
        claims.release(&again);
        assert!(claims.take(1, &holder(3)));
    }

    #[test]
    fn a_connection_reports_one_source() {
        let (claims, one) = (Claims::default(), holder(1));
        assert!(claims.take(1, &one) && !claims.take(2, &one));
    }
}
