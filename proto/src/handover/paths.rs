//! Two paths between one station and the gate: which copy of a datagram is the first, and whether both paths still bring something
//! (HANDOVER.md section 5.1).
//!
//! Every message goes by every path; the first copy counts, by whichever path it comes. Both ends keep this book of what comes in.

use super::types::{Binding, Counter};
use crate::units::Micros;

/// Paths of one station at most: two, and their successors while the old ones are not known to be gone.
pub const MOST: usize = 4;
/// A path that brought nothing for so long is lost, in microseconds: PROBE and STATUS come ten times a second even when nothing moves.
/// With the quarter of a second in which it is looked at, the alarm is there within 1 s (HO-C-011).
pub const LOST_AFTER: u64 = 600_000;
/// A path that came back counts again after so long without a gap.
pub const STEADY: u64 = 2_000_000;
/// Numbers that are remembered; as many as the gate's own window (HO-P-002).
const KEPT: u64 = 1_024;

/// Whether the loss of one path would be felt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protection {
    /// There was never more than one path.
    #[default]
    Single,
    /// Two paths bring what is sent.
    Protected,
    /// There were two, and one is gone.
    Unprotected,
}

impl Protection {
    /// All, in the order of their numbers on the wire.
    pub const ALL: [Self; 3] = [Self::Single, Self::Protected, Self::Unprotected];

    /// `single`, `protected` or `unprotected`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Protected => "protected",
            Self::Unprotected => "unprotected",
        }
    }
}

/// Which copy of a datagram this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copy {
    /// The first: it counts.
    First,
    /// Another path brought it before: dropped, and nothing is wrong.
    Other,
    /// The same path brings it once more: somebody repeats it. The machine refuses and records it (HO-P-003).
    Again,
}

/// What one path brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Figures {
    /// Datagrams that it brought first.
    pub first: u64,
    /// Those that another path had brought before.
    pub copies: u64,
    /// Those that another path brought and this one never did, as far as the book goes back.
    pub lost: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct One {
    path: u32,
    heard: Micros,
    /// Since when it was heard without a gap; from the start for the first time.
    steady: Micros,
    figures: Figures,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    binding: Binding,
    counter: Counter,
    /// Paths that brought it, by their numbers.
    by: Vec<u32>,
}

/// The book of one station's paths, at either end. Numbers of paths are the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Paths {
    all: Vec<One>,
    seen: Vec<Option<Seen>>,
    was_protected: bool,
}

impl Paths {
    /// A path is there. More than [`MOST`] are not told from each other.
    pub fn opened(&mut self, now: Micros, path: u32) {
        if self.all.len() < MOST && self.get(path).is_none() {
            // The first time it needs no proof, after a loss it does.
            let steady = if self.was_protected { now.plus(STEADY) } else { now };
            self.all.push(One { path, heard: now, steady, figures: Figures::default() });
        }
    }

    /// It is gone, and its figures with it.
    pub fn gone(&mut self, path: u32) {
        self.all.retain(|one| one.path != path);
    }

    /// Anything came by it that only the other end can have sent.
    pub fn heard(&mut self, now: Micros, path: u32) {
        if let Some(one) = self.all.iter_mut().find(|one| one.path == path) {
            if now.since(one.heard) >= LOST_AFTER {
                one.steady = now.plus(STEADY);
            }
            one.heard = now;
        }
    }

    /// A sealed datagram was opened.
    pub fn datagram(&mut self, now: Micros, path: u32, binding: Binding, counter: Counter) -> Copy {
        self.heard(now, path);
        if self.seen.is_empty() {
            self.seen.resize(KEPT as usize, None);
        }
        let place = usize::try_from(counter.0 % KEPT).unwrap_or(0);
        let Some(slot) = self.seen.get_mut(place) else { return Copy::First };
        let which = match slot {
            Some(seen) if (seen.binding, seen.counter) == (binding, counter) => {
                if seen.by.contains(&path) {
                    return Copy::Again;
                }
                if seen.by.len() < MOST {
                    seen.by.push(path);
                }
                Copy::Other
            }
            _ => Copy::First,
        };
        if which == Copy::First {
            let before = slot.replace(Seen { binding, counter, by: vec![path] });
            self.settle(before.as_ref());
        }
        if let Some(one) = self.all.iter_mut().find(|one| one.path == path) {
            match which {
                Copy::First => one.figures.first += 1,
                _ => one.figures.copies += 1,
            }
        }
        which
    }

    /// Who never brought what leaves the book.
    fn settle(&mut self, before: Option<&Seen>) {
        let Some(seen) = before else { return };
        for one in self.all.iter_mut().filter(|one| !seen.by.contains(&one.path)) {
            one.figures.lost += 1;
        }
    }

    /// Whether the loss of one path would be felt, as of now.
    pub fn protection(&mut self, now: Micros) -> Protection {
        let live = |one: &&One| now.since(one.heard) < LOST_AFTER && now >= one.steady;
        if self.all.iter().filter(live).count() >= 2 {
            self.was_protected = true;
            return Protection::Protected;
        }
        if self.was_protected { Protection::Unprotected } else { Protection::Single }
    }

    /// Whether that path brought something lately.
    #[must_use]
    pub fn is_live(&self, now: Micros, path: u32) -> bool {
        self.get(path).is_some_and(|one| now.since(one.heard) < LOST_AFTER)
    }

    /// What that path brought.
    #[must_use]
    pub fn figures(&self, path: u32) -> Option<Figures> {
        self.get(path).map(|one| one.figures)
    }

    fn get(&self, path: u32) -> Option<&One> {
        self.all.iter().find(|one| one.path == path)
    }
}

#[cfg(test)]
mod lossy;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::types::Epoch;

    const E: Binding = Binding::Epoch(Epoch(3));
    const SECOND: u64 = 1_000_000;

    fn two() -> Paths {
        let mut paths = Paths::default();
        paths.opened(Micros(0), 0);
        paths.opened(Micros(0), 1);
        paths
    }

    #[test]
    fn the_first_copy_counts_by_whichever_path_it_comes_and_a_repetition_is_told_from_a_copy() {
        // HO-C-009
        let mut paths = two();
        let mut came = |path, n| paths.datagram(Micros(0), path, E, Counter(n));
        assert_eq!(
            [came(0, 1), came(1, 1), came(1, 2), came(0, 2)],
            [Copy::First, Copy::Other, Copy::First, Copy::Other]
        );
        assert_eq!([came(0, 1), came(1, 2)], [Copy::Again, Copy::Again]);
        // An older one that nobody brought yet is a first copy: the machine judges its age.
        assert_eq!([came(0, 5), came(1, 4)], [Copy::First, Copy::First]);
        // The same number under another binding is another message.
        let other = Binding::Epoch(Epoch(4));
        assert_eq!(paths.datagram(Micros(0), 0, other, Counter(1)), Copy::First);
        let f = |p| paths.figures(p).unwrap();
        assert_eq!((f(0).first, f(0).copies, f(1).first, f(1).copies), (3, 1, 2, 1));
    }

    #[test]
    fn what_one_path_never_brought_is_counted_as_its_loss() {
        let mut paths = two();
        for n in 1..=KEPT + 100 {
            let _ = paths.datagram(Micros(0), 0, E, Counter(n));
            if n % 10 != 0 {
                let _ = paths.datagram(Micros(0), 1, E, Counter(n));
            }
        }
        assert_eq!(paths.figures(1).unwrap().lost, 10);
        assert_eq!(paths.figures(0).unwrap().lost, 0);
    }

    #[test]
    fn one_path_alone_is_single_two_are_protected_and_one_that_falls_silent_is_an_alarm_within_a_second() {
        // HO-C-010, HO-C-011
        let mut single = Paths::default();
        single.opened(Micros(0), 0);
        assert_eq!(single.protection(Micros(10 * SECOND)), Protection::Single);
        let mut paths = two();
        assert_eq!(paths.protection(Micros(0)), Protection::Protected);
        let mut unprotected = None;
        for ms in 0..1_000 {
            let now = Micros(ms * 1_000);
            if ms % 100 == 0 {
                paths.heard(now, 0);
            }
            if paths.protection(now) == Protection::Unprotected {
                unprotected = unprotected.or(Some(ms));
            }
        }
        assert_eq!(unprotected, Some(600));
        // Back: only after two steady seconds, so that a path that comes and goes does not make the word flicker.
        let mut protected = None;
        for ms in 1_000..5_000 {
            let now = Micros(ms * 1_000);
            paths.heard(now, 0);
            paths.heard(now, 1);
            if paths.protection(now) == Protection::Protected {
                protected = protected.or(Some(ms));
            }
        }
        assert_eq!(protected, Some(3_000));
        paths.gone(1);
        assert_eq!(paths.protection(Micros(5 * SECOND)), Protection::Unprotected);
        paths.opened(Micros(5 * SECOND), 2);
        paths.heard(Micros(5 * SECOND), 0);
        assert_eq!(paths.protection(Micros(5 * SECOND)), Protection::Unprotected);
    }
}
