//! Every check by which something is refused, each as one small function with one name.
//!
//! The machines are generic over [`Checks`] so that a mutant (HANDOVER.md, and specification section 7) can replace exactly one of
//! them. The trait is sealed and [`Strict`] is its only implementation outside of tests and of the model checker, which compiles
//! these files once more for itself; so no program can be built in which a check is switched off, and there is no flag to set.

use super::gate::{Beacons, Verified};
use super::types::{ChannelId, Clutch, Colour, Counter, Epoch, ExpertId, GrantedSet, Nonce, Oid};
use crate::handover::message::Reason;
use crate::session::role::Role;
use crate::units::Micros;
use std::fmt::Debug;
use std::hash::Hash;

pub(super) mod sealed {
    /// Nobody outside can implement the checks.
    pub trait Sealed {}
}

/// The checks as they are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Strict;

impl sealed::Sealed for Strict {}
impl Checks for Strict {}

/// See the module. The provided bodies are the rules; [`Strict`] overrides none.
pub trait Checks: sealed::Sealed + Debug + Clone + Copy + PartialEq + Eq + Hash + Default + 'static {
    /// For the mutant "auto-resume after HOLD" alone; no code outside of tests reads it.
    #[cfg(any(test, trocar_model))]
    const RESUMES_AFTER_HOLD: bool = false;

    /// HO-I-003: a command of another epoch is nobody's.
    #[must_use]
    fn epoch_matches(current: Epoch, shown: Epoch) -> bool {
        current == shown
    }

    /// HO-P-003: above the newest, so nothing comes twice or late.
    #[must_use]
    fn counter_is_new(newest: Counter, shown: Counter) -> bool {
        shown > newest
    }

    /// HO-P-002: no jump forward.
    #[must_use]
    fn counter_is_near(newest: Counter, shown: Counter, window: u64) -> bool {
        shown.0.saturating_sub(newest.0) <= window
    }

    /// HO-P-004, HO-T-002: the datagram was opened with the keys of the channel that carried the ACCEPT.
    #[must_use]
    fn channel_matches(of_accept: ChannelId, by: ChannelId) -> bool {
        of_accept == by
    }

    /// HO-M-003.
    #[must_use]
    fn accept_names_offer(open: Oid, shown: Oid) -> bool {
        open == shown
    }

    /// HO-M-004.
    #[must_use]
    fn accept_is_addressees(addressee: ExpertId, by: ExpertId) -> bool {
        addressee == by
    }

    /// HO-M-005, HO-M-009.
    ///
    /// # Errors
    /// [`Reason::BadToken`], [`Reason::NotAStation`] or [`Reason::GradeTooLow`].
    fn token_covers(token: Option<&Verified>, expert: ExpertId, set: GrantedSet) -> Result<(), Reason> {
        let token = token.filter(|t| t.expert == expert).ok_or(Reason::BadToken)?;
        if token.role != Role::Expert {
            return Err(Reason::NotAStation);
        }
        if token.grade < set.grade() { Err(Reason::GradeTooLow) } else { Ok(()) }
    }

    /// HO-E-004: the grant's epoch and the one that leaving it takes lie below the end of what is on disk.
    #[must_use]
    fn epochs_are_covered(granted: Epoch, end: Epoch) -> bool {
        granted.next().is_some_and(|after| after < end)
    }

    /// HO-G-013.
    #[must_use]
    fn completion_is_awaited(awaited: (Oid, Epoch), done: (Oid, Epoch)) -> bool {
        awaited == done
    }

    /// HO-U-004: audit before effect.
    #[must_use]
    fn intent_is_durable(durable: bool) -> bool {
        durable
    }

    /// HO-A-002: when the gate issued that nonce; nothing where it did not.
    #[must_use]
    fn issued_at(beacons: &Beacons, nonce: Nonce) -> Option<Micros> {
        beacons.issued_at(nonce)
    }

    /// HO-S-013, HO-I-005.
    #[must_use]
    fn age_is_within(age: u64, limit: u64) -> bool {
        age <= limit
    }

    /// HO-N-001.
    #[must_use]
    fn set_is_consistent(set: GrantedSet) -> bool {
        set.instruments || !set.energy
    }

    /// HO-R-002, HO-R-003. `second` is local's second confirmation.
    ///
    /// # Errors
    /// [`Reason::LinkRed`], [`Reason::LinkUnmeasured`] or [`Reason::LinkAmber`].
    fn links_allow(overall: Colour, second: bool) -> Result<(), Reason> {
        match overall {
            Colour::Green => Ok(()),
            Colour::Amber if second => Ok(()),
            Colour::Amber => Err(Reason::LinkAmber),
            Colour::Unmeasured => Err(Reason::LinkUnmeasured),
            Colour::Red => Err(Reason::LinkRed),
        }
    }

    /// HO-R-008.
    #[must_use]
    fn consent_allows(active: bool) -> bool {
        active
    }

    /// HO-F-004, HO-I-014: `age` of the newest picture shown, nothing where none is proved.
    #[must_use]
    fn frame_is_young(age: Option<u64>, limit: u64) -> bool {
        age.is_some_and(|age| age <= limit)
    }

    /// HO-R-005: held now, and seen released before.
    #[must_use]
    fn presence_is_anew(held: bool, released_before: bool) -> bool {
        held && released_before
    }

    /// HO-S-006: closed now, and seen open since the stop.
    #[must_use]
    fn clutch_is_anew(now: Clutch, opened_since: bool) -> bool {
        now == Clutch::Closed && opened_since
    }

    /// HO-N-002, HO-N-003: the part of the permit that is the hand's and the foot's.
    #[must_use]
    fn pedal_permits_energy(presence: bool, pedal: bool, arrived: u64, limit: u64) -> bool {
        presence && pedal && arrived <= limit
    }

    /// HO-D-001: the device obeys this fence or a higher one.
    #[must_use]
    fn fence_is_high_enough(highest: Epoch, shown: Epoch) -> bool {
        shown >= highest
    }

    /// HO-D-006, HO-D-013: a latched hold is not overcome by the fence that it came under.
    #[must_use]
    fn latch_lets_pass(latched: bool) -> bool {
        !latched
    }

    /// HO-D-002, HO-D-004: who may become the owner.
    #[must_use]
    fn owner_may_change(current: bool, highest: Epoch, shown: Epoch) -> bool {
        !current && shown > highest
    }
}
