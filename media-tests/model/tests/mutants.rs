//! Each mutant of the specification's section 7 is found: the checker gives a counter-example, and tells it as a story.
//! Its negative control is the test `complete`, where the same worlds with every check in place have none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop the process: that is how it fails")]

use std::time::Duration;
use trocar_model::acts::Act;
use trocar_model::check::explore;
use trocar_model::handover::checks::Checks;
use trocar_model::handover::mutants::{
    AcceptFromAnybody, AcceptWithoutOid, AnyChannel, AnyToken, AuditAfterEffect, AutoResume, EnergyAlone, ForwardJump,
    NoCounter, NoEpoch, NoLatch, NotPersisted, SendersClock, StaleCompletion,
};
use trocar_model::handover::types::GrantedSet;
use trocar_model::parts::{Budget, Relay};
use trocar_model::scopes::{NONE, Scope, named};

/// A world with no more in it than the story needs.
fn world(budget: Budget) -> Scope {
    Scope { budget, heals: false, ..named("handshake").unwrap() }
}

/// One of `properties` is broken; the story is printed.
fn found<C: Checks + Send + Sync>(scope: &Scope, properties: &[&str]) -> String {
    let outcome = explore::<C>(scope, 1, Some(Duration::from_secs(100)));
    let names: Vec<_> = outcome.broken.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = outcome.broken.iter().find(|(name, _)| properties.contains(&name.as_str()));
    let (_, story) =
        wanted.unwrap_or_else(|| panic!("{names:?}, not {properties:?}, in {} situations", outcome.unique));
    println!("{:?}: {} situations\n{story}", C::default(), outcome.unique);
    assert!(story.contains("  1. ") && story.contains("!! "));
    story.clone()
}

#[test]
fn no_epoch_check() {
    // HO-I-003
    found::<NoEpoch>(&world(Budget { forges: 1, ..NONE }), &["HO-I-003"]);
}

#[test]
fn no_counter_check() {
    // HO-I-004
    let copies = Relay { most: 2, copies: true, ..named("forgeries").unwrap().relay };
    found::<NoCounter>(&Scope { relay: copies, ..world(Budget { replays: 1, ..NONE }) }, &["HO-I-004"]);
}

#[test]
fn a_forward_jump_is_adopted() {
    // HO-P-002
    found::<ForwardJump>(&world(Budget { forges: 1, ..NONE }), &["HO-P-002"]);
}

#[test]
fn accept_without_oid() {
    // HO-I-011
    found::<AcceptWithoutOid>(&world(Budget { offers: 2, ..NONE }), &["HO-I-011"]);
}

#[test]
fn accept_from_anybody() {
    // HO-I-011
    found::<AcceptFromAnybody>(&Scope { experts: 2, ..world(Budget { forges: 1, ..NONE }) }, &["HO-I-011"]);
}

#[test]
fn epoch_not_persisted() {
    // HO-I-002
    found::<NotPersisted>(&Scope { covered: 3, ..world(Budget { failures: 1, ..NONE }) }, &["HO-I-002"]);
}

#[test]
fn auto_resume_after_hold() {
    // HO-I-010
    let kept = Relay { most: 1, heartbeats: true, ..named("heartbeats").unwrap().relay };
    found::<AutoResume>(&Scope { relay: kept, ..world(NONE) }, &["HO-I-002", "HO-I-006", "HO-I-010"]);
}

#[test]
fn audit_after_effect() {
    // HO-I-013
    found::<AuditAfterEffect>(&world(NONE), &["HO-I-013"]);
}

#[test]
fn age_from_the_senders_clock() {
    // HO-I-005
    let kept = Relay { most: 5, heartbeats: true, commands: true, ..named("relay").unwrap().relay };
    found::<SendersClock>(&Scope { relay: kept, ..world(NONE) }, &["HO-I-005"]);
}

#[test]
fn unauthenticated_beacon() {
    // HO-T-001, HO-I-003
    found::<AnyChannel>(&world(Budget { forges: 1, cuts: 1, ..NONE }), &["HO-T-001"]);
}

#[test]
fn a_command_under_anothers_key() {
    // HO-I-003
    let allows = |act: &Act| !matches!(act, Act::ForgeBeacon(_));
    let scope = Scope { experts: 2, allows, ..world(Budget { forges: 1, ..NONE }) };
    found::<AnyChannel>(&scope, &["HO-I-003"]);
}

#[test]
fn completion_of_a_stale_granting() {
    // HO-I-013
    found::<StaleCompletion>(&world(Budget { offers: 2, ..NONE }), &["HO-I-013"]);
}

#[test]
fn a_watchdog_hold_that_does_not_latch() {
    // HO-I-010
    let allows = |act: &Act| {
        let pause = matches!(act, Act::Pause(_) | Act::MuteDevice(_) | Act::Reclutch(_));
        let grant = matches!(
            act,
            Act::Offer(..) | Act::Accept(_) | Act::ToGate(_) | Act::ToDesk(_) | Act::Confirm | Act::DiskDone
        );
        pause || grant || matches!(act, Act::Tick | Act::Motion(_) | Act::Deliver(_))
    };
    let budget = Budget { pauses: 1, cuts: 1, experts: 1, motions: 1, ..NONE };
    let scope = Scope { device: true, allows, ..world(budget) };
    found::<NoLatch>(&scope, &["HO-I-010"]);
}

#[test]
fn energy_without_instruments() {
    // HO-I-016
    const ALONE: &[GrantedSet] = &[GrantedSet { camera: true, instruments: false, energy: true }];
    found::<EnergyAlone>(&Scope { sets: ALONE, ..world(Budget { hands: 1, ..NONE }) }, &["HO-I-016"]);
}

#[test]
fn a_token_of_any_grade() {
    // HO-M-005
    const INSTRUMENTS: &[GrantedSet] = &[GrantedSet::INSTRUMENTS];
    found::<AnyToken>(&Scope { experts: 2, sets: INSTRUMENTS, ..world(NONE) }, &["HO-M-005"]);
}
