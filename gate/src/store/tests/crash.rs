//! The power fails at every byte.

use super::memory::{Image, Memory};
use super::{intent, note, open, records, run};
use crate::store::layer::{Layer, Name};
use crate::store::pair::{self, Pair};
use crate::store::thread::Epochs;
use trocar_control::audit::sector::{Kind, SIZE};
use trocar_proto::handover::gate::Store;
use trocar_proto::handover::types::Epoch;

/// Opens, reserves twice more, writes records: until the power fails. The first epoch that nobody may have used.
fn work(disk: &Memory) -> u64 {
    let mut unused = 0;
    let (store, writer, _) = open(disk.clone());
    if let (Store::Block { end, .. }, Some(mut writer)) = (store, writer) {
        unused = end.0;
        for n in 1..=2 {
            let end = unused + 16;
            if writer.cover(end).is_ok() {
                unused = end;
            }
            if writer.write(&[note(n), intent(unused - 2)], 0, &run()).is_ok() {
                writer.note_head();
            }
        }
    }
    unused
}

/// Where it is worth that the power fails within [`work`] on a copy of this disk.
fn edges(disk: &Memory) -> Vec<u64> {
    let trial = disk.after(Image::All);
    work(&trial);
    let mut edges = std::mem::take(&mut trial.0.lock().unwrap().edges);
    edges.sort_unstable();
    edges.dedup();
    edges
}

fn each_crash(disk: &Memory, mut check: impl FnMut(&Memory, u64, &str)) {
    let edges = edges(disk);
    assert!(edges.len() > 1_000, "{}", edges.len());
    for power in edges {
        let trial = disk.after(Image::All);
        trial.change(|f| f.power = Some(power));
        let unused = work(&trial);
        for image in Image::ALL {
            check(&trial.after(image), unused, &format!("power {power}, {image:?}"));
        }
    }
}

#[test]
fn at_each_byte_of_a_block_the_power_may_fail_and_the_former_or_the_new_value_is_there() {
    // HO-E-010
    let mut before = Memory::default();
    let mut pair = Pair::new(Kind::EPOCHS, Name::EPOCHS);
    pair.write(&mut before, &7_u64.to_be_bytes()).unwrap();
    let (mut last, mut seen) = (0, [0, 0]);
    for power in 0..=2 * (SIZE as u64 + 1) {
        let trial = before.after(Image::All);
        let (mut pair, _) = pair::load(&mut trial.clone(), Kind::EPOCHS, Name::EPOCHS).unwrap().unwrap();
        trial.change(|f| f.power = Some(power));
        let is_durable = pair.write(&mut trial.clone(), &8_u64.to_be_bytes()).is_ok();
        for image in Image::ALL {
            let loaded = pair::load(&mut trial.after(image), Kind::EPOCHS, Name::EPOCHS);
            let (_, content) = loaded.unwrap_or_else(|e| panic!("{power}, {image:?}: {e}")).unwrap();
            last = Epochs::decode(&content).unwrap();
            assert!(last == 8 || (last == 7 && !is_durable), "{power}, {image:?}: {last}");
            seen[usize::from(last == 8)] += 1;
        }
    }
    assert_eq!(last, 8);
    assert!(seen[0] > 200 && seen[1] > 200, "{seen:?}");
}

#[test]
fn wherever_the_power_fails_no_epoch_is_given_twice_and_the_store_can_be_read() {
    // HO-E-001, HO-E-003, HO-E-010
    let new = Memory::default();
    let used = Memory::default();
    let before = work(&used);
    for disk in [new, used] {
        let old = if disk.content(Name::EpochsA).is_empty() { 0 } else { before };
        each_crash(&disk, |after, unused, at| {
            let (store, writer, found) = open(after.clone());
            let Store::Block { first, end } = store else { panic!("{at}: {found:?}") };
            assert!(first.0 >= unused.max(old), "{at}: {first:?} after {unused}");
            assert!(first.0 >= 1 && end.0 == first.0 + 16, "{at}");
            drop(writer);
            // Both copies are equal again, so that either may be lost now.
            for gone in Name::EPOCHS {
                let half = after.after(Image::All);
                half.change(|f| drop(f.live.remove(&gone)));
                let (again, ..) = open(half);
                assert!(matches!(again, Store::Block { first, .. } if first == end), "{at} without {gone}");
            }
        });
    }
}

#[test]
fn wherever_the_power_fails_the_chain_goes_on_behind_what_was_durable_and_both_copies_are_equal() {
    // HO-E-010, HO-U-007
    let used = Memory::default();
    work(&used);
    let before = records(&used.content(Name::Chain)).len();
    each_crash(&used, |after, _, at| {
        let (_, writer, _) = open(after.clone());
        let mut writer = writer.unwrap_or_else(|| panic!("{at}: no chain"));
        writer.write(&[note(9)], 0, &run()).unwrap();
        let chain = after.content(Name::Chain);
        assert_eq!(chain, after.content(Name::ChainCopy), "{at}");
        let records = records(&chain);
        assert!(records.len() > before, "{at}");
        assert_eq!(records.last().unwrap().durable.unwrap().seq + 1, records.len() as u64, "{at}");
    });
}

#[test]
fn what_was_told_to_be_durable_is_there_wherever_the_power_fails_later() {
    // HO-U-004
    let disk = Memory::default();
    let (_, writer, _) = open(disk.clone());
    let mut writer = writer.unwrap();
    writer.write(&[note(1), intent(3)], 0, &run()).unwrap();
    for image in Image::ALL {
        let after = disk.after(image);
        assert_eq!(records(&after.content(Name::Chain)).len(), 2, "{image:?}");
        assert_eq!(after.content(Name::Chain), after.content(Name::ChainCopy), "{image:?}");
    }
    // The negative control: a write that was not flushed is not there.
    let mut layer = disk.clone();
    layer.write(Name::Chain, 10_000, b"x").unwrap();
    assert!(disk.after(Image::Flushed).content(Name::Chain).len() < 10_000);
}

#[test]
fn a_torn_first_start_is_a_first_start() {
    let disk = Memory::default();
    disk.change(|f| drop(f.live.insert(Name::EpochsA, vec![1; 100])));
    assert_eq!(open(disk).0, Store::Block { first: Epoch(1), end: Epoch(17) });
}

#[test]
fn a_pair_writes_first_the_copy_that_is_not_known_to_be_whole() {
    // HO-E-010: a write that fails between the copies, then one that tears, must not hit both.
    for name in Name::EPOCHS {
        let mut disk = Memory::default();
        let mut pair = Pair::new(Kind::EPOCHS, Name::EPOCHS);
        pair.write(&mut disk, &7_u64.to_be_bytes()).unwrap();
        disk.change(|f| f.live.get_mut(&name).unwrap()[20] ^= 1);
        let (mut pair, content) = pair::load(&mut disk, Kind::EPOCHS, Name::EPOCHS).unwrap().unwrap();
        assert_eq!(Epochs::decode(&content), Some(7));
        disk.change(|f| f.power = Some(40));
        assert!(pair.write(&mut disk, &8_u64.to_be_bytes()).is_err());
        let (_, content) = pair::load(&mut disk, Kind::EPOCHS, Name::EPOCHS).unwrap().unwrap();
        assert_eq!(Epochs::decode(&content), Some(7), "{name}");
    }
}
