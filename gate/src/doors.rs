//! Room for those whose handshake is under way, none of whom can take the room of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Places, so many in all and so many for each.
#[derive(Debug, Clone)]
pub(crate) struct Doors<K: Ord> {
    all: usize,
    each: usize,
    inside: Arc<Mutex<BTreeMap<K, usize>>>,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Ord> {
    who: K,
    inside: Arc<Mutex<BTreeMap<K, usize>>>,
}

impl<K: Ord + Clone> Doors<K> {
    pub(crate) fn new(all: usize, each: usize) -> Self {
        Self { all, each, inside: Arc::default() }
    }

    /// A place, where there is one for this one.
    pub(crate) fn enter(&self, who: K) -> Option<Place<K>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let own = inside.get(&who).copied().unwrap_or(0);
        if own >= self.each || inside.values().sum::<usize>() >= self.all {
            return None;
        }
        inside.insert(who.clone(), own + 1);
        Some(Place { who, inside: Arc::clone(&self.inside) })
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = inside.get_mut(&self.who) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                inside.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_share_and_what_is_left_is_free_again() {
        let doors = Doors::new(3, 2);
        let (first, second) = (doors.enter("a").unwrap(), doors.enter("a").unwrap());
        assert!(doors.enter("a").is_none());
        let third = doors.enter("b").unwrap();
        assert!(doors.enter("c").is_none(), "all places are taken");
        drop(first);
        let again = doors.enter("a").unwrap();
        drop((second, third, again));
        assert!(doors.inside.lock().unwrap().is_empty());
    }
}
