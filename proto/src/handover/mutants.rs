//! The mutants of the specification's section 7: each replaces exactly one check, and each must be caught. They exist in tests and in the
//! model checker only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and the model checker alone: a fault stops them"
)]

use super::checks::{Checks, sealed::Sealed};
use super::gate::{Beacons, Verified};
use super::message::Reason;
use super::types::{ChannelId, Counter, Epoch, ExpertId, GrantedSet, Nonce, Oid};
use crate::units::Micros;

/// A mutant: its name, what it is, and the one function that it replaces.
macro_rules! mutant {
    ($(#[$doc:meta])* $name:ident { $($body:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name;
        impl Sealed for $name {}
        impl Checks for $name { $($body)* }
    };
}

mutant!(
    /// No epoch check.
    NoEpoch {
        fn epoch_matches(_: Epoch, _: Epoch) -> bool { true }
    }
);
mutant!(
    /// No counter check.
    NoCounter {
        fn counter_is_new(_: Counter, _: Counter) -> bool { true }
    }
);
mutant!(
    /// A forward jump is adopted.
    ForwardJump {
        fn counter_is_near(_: Counter, _: Counter, _: u64) -> bool { true }
    }
);
mutant!(
    /// ACCEPT without oid.
    AcceptWithoutOid {
        fn accept_names_offer(_: Oid, _: Oid) -> bool { true }
    }
);
mutant!(
    /// ACCEPT from anybody.
    AcceptFromAnybody {
        fn accept_is_addressees(_: ExpertId, _: ExpertId) -> bool { true }
    }
);
mutant!(
    /// Epoch not persisted.
    NotPersisted {
        fn epochs_are_covered(_: Epoch, _: Epoch) -> bool { true }
    }
);
mutant!(
    /// Auto-resume after HOLD.
    AutoResume {
        const RESUMES_AFTER_HOLD: bool = true;
    }
);
mutant!(
    /// Audit after effect.
    AuditAfterEffect {
        fn intent_is_durable(_: bool) -> bool { true }
    }
);
mutant!(
    /// Age from the sender's clock: the number in the message is believed to be the time at which it was made.
    SendersClock {
        fn issued_at(_: &Beacons, nonce: Nonce) -> Option<Micros> { Some(Micros(nonce.0)) }
    }
);
mutant!(
    /// Unauthenticated BEACON (and any datagram of another's keys).
    AnyChannel {
        fn channel_matches(_: ChannelId, _: ChannelId) -> bool { true }
    }
);
mutant!(
    /// Completion of a stale GRANTING accepted, also one of an earlier oid.
    StaleCompletion {
        fn completion_is_awaited(_: (Oid, Epoch), _: (Oid, Epoch)) -> bool { true }
    }
);
mutant!(
    /// Watchdog hold that does not latch.
    NoLatch {
        fn latch_lets_pass(_: bool) -> bool { true }
    }
);
mutant!(
    /// Energy without instruments.
    EnergyAlone {
        fn set_is_consistent(_: GrantedSet) -> bool { true }
    }
);
mutant!(
    /// A token of any grade.
    AnyToken {
        fn token_covers(_: Option<&Verified>, _: ExpertId, _: GrantedSet) -> Result<(), Reason> { Ok(()) }
    }
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::checks::Strict;
    use crate::handover::config::Config;
    use crate::handover::gate::{Act, DiskDone, Input};
    use crate::handover::message::{Mode, ToGate, Token};
    use crate::handover::rig::{CX, CY, Rig, X, Y, ms, token};
    use crate::handover::types::{Binding, Clutch, GrantedSet as Set};

    /// A world with that check, in that state.
    fn at<C: Checks>(mode: Mode) -> Rig<C> {
        let mut rig = Rig::with_checks(Config::default());
        rig.reach(mode, Set::ENERGY);
        rig
    }

    fn running<C: Checks>() -> Rig<C> {
        let mut rig = at(Mode::Remote);
        rig.engage();
        rig
    }

    fn accept<C: Checks>(rig: &mut Rig<C>, channel: ChannelId, oid: u128, token: Option<Verified>) -> bool {
        let _ = rig.say_with(channel, ToGate::Accept { oid: Oid(oid), token: Token::default() }, token);
        rig.gate.mode() == Mode::Ready
    }

    fn another_epoch_moves<C: Checks>() -> bool {
        let mut rig = running::<C>();
        let mut command = rig.cmd(Clutch::Closed);
        command.epoch = Epoch(3);
        let _ = rig.input(Input::Command(CX, command));
        !rig.moved.is_empty()
    }

    fn moves_twice<C: Checks>() -> bool {
        let mut rig = running::<C>();
        let command = rig.cmd(Clutch::Closed);
        let _ = rig.input(Input::Command(CX, command.clone()));
        let _ = rig.input(Input::Command(CX, command));
        rig.moved.len() > 1
    }

    fn jump_locks_the_holder_out<C: Checks>() -> bool {
        let mut rig = running::<C>();
        let newest = rig.counter;
        let mut command = rig.cmd(Clutch::Closed);
        command.counter = Counter(u64::MAX);
        let _ = rig.input(Input::Command(CX, command));
        rig.counter = newest;
        rig.command(Clutch::Closed).is_err()
    }

    fn foreign_oid_is_accepted<C: Checks>() -> bool {
        accept(&mut at::<C>(Mode::Offered), CX, 99, Some(token(X)))
    }

    fn another_accepts<C: Checks>() -> bool {
        accept(&mut at::<C>(Mode::Offered), CY, 1, Some(token(Y)))
    }

    fn no_token_is_needed<C: Checks>() -> bool {
        accept(&mut at::<C>(Mode::Offered), CX, 1, None)
    }

    fn an_epoch_is_used_that_is_not_on_disk<C: Checks>() -> bool {
        let mut rig = Rig::<C>::with_checks(Config::default());
        rig.world.disk = false;
        for _ in 0..9 {
            rig.reach(Mode::Granting, Set::CAMERA);
            let epoch = Epoch(rig.gate.epoch().0 + 1);
            rig.input(Input::Disk(DiskDone::Durable(Oid(rig.oid), epoch))).unwrap();
            rig.act(Act::Take).unwrap();
        }
        rig.gate.epoch() >= Epoch(26)
    }

    fn who_comes_back_holds<C: Checks>() -> bool {
        let mut rig = at::<C>(Mode::Remote);
        let epoch = rig.gate.epoch();
        rig.world.heartbeats = false;
        rig.run(ms(600));
        assert_eq!(rig.gate.mode(), Mode::Hold);
        let mut hb = rig.hb();
        hb.binding = Binding::Epoch(epoch);
        let _ = rig.input(Input::Heartbeat(CX, hb));
        rig.gate.mode() == Mode::Remote
    }

    fn effect_comes_before_the_audit<C: Checks>() -> bool {
        let mut rig = at::<C>(Mode::Ready);
        rig.world.disk = false;
        rig.act(Act::Confirm).unwrap();
        rig.gate.mode() == Mode::Remote
    }

    fn the_senders_word_makes_it_young<C: Checks>() -> bool {
        let mut rig = at::<C>(Mode::Ready);
        rig.world.heartbeats = false;
        let mut hb = rig.hb();
        hb.nonce = Nonce(rig.now);
        rig.input(Input::Heartbeat(CX, hb)).is_ok()
    }

    fn anothers_keys_open_it<C: Checks>() -> bool {
        let mut rig = running::<C>();
        let command = rig.cmd(Clutch::Closed);
        let _ = rig.input(Input::Command(CY, command));
        !rig.moved.is_empty()
    }

    fn an_earlier_intent_grants<C: Checks>() -> bool {
        let mut rig = Rig::<C>::with_checks(Config::default());
        rig.world.disk = false;
        rig.reach(Mode::Granting, Set::CAMERA);
        rig.act(Act::Take).unwrap();
        rig.reach(Mode::Granting, Set::CAMERA);
        rig.input(Input::Disk(DiskDone::Durable(Oid(1), Epoch(11)))).unwrap();
        rig.gate.mode() == Mode::Remote
    }

    /// The gate is paused for 300 ms, shorter than its lease, and does not hear that the device held.
    fn the_device_moves_again_by_itself<C: Checks>() -> bool {
        let mut rig = running::<C>();
        rig.now += ms(300);
        rig.world.reports = false;
        rig.tick();
        rig.new_frame();
        rig.run(ms(60));
        if !rig.gate.motion_runs() {
            rig.command(Clutch::Open).unwrap();
            rig.command(Clutch::Closed).unwrap();
        }
        rig.command(Clutch::Closed).unwrap();
        !rig.moved.is_empty()
    }

    fn energy_comes_without_instruments<C: Checks>() -> bool {
        let mut rig = Rig::<C>::with_checks(Config::default());
        rig.reach(Mode::Local, Set::CAMERA);
        rig.offer(X, Set { camera: true, instruments: false, energy: true }).is_ok()
    }

    #[test]
    fn every_mutant_does_the_harm_that_its_check_prevents() {
        // HO-I-002, HO-I-003, HO-I-004, HO-I-005, HO-I-006, HO-I-010, HO-I-011, HO-I-013, HO-I-016: each pair is a mutant and the
        // negative control.
        macro_rules! kills {
            ($($harm:ident by $mutant:ty),* $(,)?) => {$(
                assert!($harm::<$mutant>(), concat!(stringify!($harm), ": the mutant is harmless, the check is not seen"));
                assert!(!$harm::<Strict>(), stringify!($harm));
            )*};
        }
        kills!(
            another_epoch_moves by NoEpoch,
            moves_twice by NoCounter,
            jump_locks_the_holder_out by ForwardJump,
            foreign_oid_is_accepted by AcceptWithoutOid,
            another_accepts by AcceptFromAnybody,
            no_token_is_needed by AnyToken,
            an_epoch_is_used_that_is_not_on_disk by NotPersisted,
            who_comes_back_holds by AutoResume,
            effect_comes_before_the_audit by AuditAfterEffect,
            the_senders_word_makes_it_young by SendersClock,
            anothers_keys_open_it by AnyChannel,
            an_earlier_intent_grants by StaleCompletion,
            the_device_moves_again_by_itself by NoLatch,
            energy_comes_without_instruments by EnergyAlone,
        );
    }
}
