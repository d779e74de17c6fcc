//! Files that somebody damaged, moved or brought back.

use super::memory::{Image, Memory};
use super::{intent, note, open, records, run};
use crate::store::layer::Name;
use trocar_proto::handover::gate::Store;

/// A store that was used: two starts, an intent each.
fn used() -> Memory {
    let disk = Memory::default();
    for epoch in [3, 19] {
        let (_, writer, _) = open(disk.clone());
        let mut writer = writer.unwrap();
        writer.write(&[note(1), intent(epoch), note(2)], 0, &run()).unwrap();
        writer.note_head();
    }
    disk
}

fn refused(disk: &Memory, why: &str) {
    let (store, _, found) = open(disk.clone());
    assert_eq!(store, Store::Unreadable, "{why}");
    assert!(found.iter().any(|f| f.contains(why) && f.contains("remote is refused")), "{why:?} is not in {found:?}");
}

#[test]
fn a_store_whose_epochs_cannot_be_read_is_unreadable_and_says_which_file_and_why() {
    // HO-E-005, HO-E-010
    let disk = used();
    disk.change(|f| Name::EPOCHS.map(|n| f.live.get_mut(&n).unwrap()[30] ^= 1).into_iter().collect());
    refused(&disk, "epochs.a is torn or was changed: its checksum does not fit; epochs.b is torn");
    let disk = used();
    disk.change(|f| Name::EPOCHS.map(|n| drop(f.live.remove(&n))).into_iter().collect());
    refused(&disk, "epochs.a and epochs.b are missing, although the store is not new");
    let disk = used();
    disk.change(|f| Name::EPOCHS.map(|n| f.live.get_mut(&n).unwrap().truncate(7)).into_iter().collect());
    refused(&disk, "epochs.a has 7 bytes");
    let disk = used();
    disk.change(|f| {
        let head = f.live[&Name::HeadA].clone();
        Name::EPOCHS.map(|n| f.live.insert(n, head.clone())).map(drop).into_iter().collect()
    });
    refused(&disk, "epochs.a is a copy of another file");
}

#[test]
fn epochs_that_cannot_be_written_are_unreadable() {
    // HO-E-003, HO-E-005
    let disk = used();
    disk.change(|f| f.broken = true);
    refused(&disk, "the disk is broken");
    // The negative control: a disk without room has room for what is there already.
    let disk = used();
    disk.change(|f| f.full = true);
    let (store, writer, _) = open(disk);
    assert!(matches!(store, Store::Block { .. }));
    assert!(writer.unwrap().cover(1_000).is_ok());
}

#[test]
fn an_older_copy_of_the_epochs_that_is_brought_back_is_found() {
    // HO-E-001: the chain knows of epochs that this block has not reserved.
    let disk = Memory::default();
    let (_, writer, _) = open(disk.clone());
    let old = disk.after(Image::All);
    let mut writer = writer.unwrap();
    writer.cover(100).unwrap();
    writer.write(&[intent(50)], 0, &run()).unwrap();
    disk.change(|f| Name::EPOCHS.map(|n| drop(f.live.insert(n, old.content(n)))).into_iter().collect());
    refused(&disk, "older than the audit chain, which has epoch 50");
}

#[test]
fn a_chain_with_no_good_end_refuses_remote_and_goes_on_when_it_is_moved_away() {
    // HO-E-005
    let disk = used();
    let before = records(&disk.content(Name::Chain)).len() as u64;
    disk.change(|f| Name::CHAINS.map(|n| f.live.get_mut(&n).unwrap()[5] ^= 1).into_iter().collect());
    refused(&disk, "have no good record at their ends");
    disk.change(|f| Name::CHAINS.map(|n| drop(f.live.remove(&n))).into_iter().collect());
    let (store, writer, found) = open(disk.clone());
    assert!(matches!(store, Store::Block { .. }));
    assert!(found[0].contains(&format!("records 1 to {before} were on disk and are missing")), "{found:?}");
    writer.unwrap().write(&[note(1)], 0, &run()).unwrap();
    let text = String::from_utf8(disk.content(Name::Chain)).unwrap();
    assert!(text.contains(&format!("\"seq\":{},", before + 1)), "{text}");
    // And once more: the gap does not grow.
    let (_, _, found) = open(disk);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_torn_last_line_is_kept_aside_and_told_and_the_chain_goes_on() {
    // HO-E-010
    let disk = used();
    let good = disk.content(Name::Chain);
    disk.change(|f| f.live.get_mut(&Name::Chain).unwrap().extend(b"{\"format\":1,\"seq\":7"));
    let (store, writer, found) = open(disk.clone());
    assert!(matches!(store, Store::Block { .. }));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("audit.jsonl: 19 bytes behind record 6"), "{found:?}");
    assert_eq!(disk.0.lock().unwrap().kept, [b"{\"format\":1,\"seq\":7"]);
    assert_eq!(disk.content(Name::Chain), good);
    writer.unwrap().write(&[note(3)], 0, &run()).unwrap();
    assert_eq!(records(&disk.content(Name::Chain)).len(), 7);
}

#[test]
fn a_damaged_or_missing_copy_is_made_anew_from_the_other() {
    for name in Name::CHAINS {
        let disk = used();
        let good = disk.content(name);
        disk.change(|f| f.live.get_mut(&name).unwrap()[700] ^= 1);
        let (_, _, found) = open(disk.clone());
        assert!(found[0].contains("was made anew"), "{found:?}");
        assert_eq!(disk.content(name), good);
        disk.change(|f| drop(f.live.remove(&name)));
        let (_, _, found) = open(disk.clone());
        assert!(found[0].contains("was missing and was made anew"), "{found:?}");
        assert_eq!(disk.content(name), good);
    }
}

#[test]
fn a_tail_that_is_cut_off_both_copies_is_told_by_the_head_and_stays_visible() {
    // HO-U-007
    let disk = used();
    let text = disk.content(Name::Chain);
    let cut = text.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(3).unwrap().0 + 1;
    disk.change(|f| Name::CHAINS.map(|n| f.live.get_mut(&n).unwrap().truncate(cut)).into_iter().collect());
    let (_, writer, found) = open(disk.clone());
    assert!(found[0].contains("ends with record 4: records 5 to 6 were on disk and are missing"), "{found:?}");
    writer.unwrap().write(&[note(3)], 0, &run()).unwrap();
    let last = disk.content(Name::Chain)[cut..].to_vec();
    let (record, _) = trocar_control::audit::Record::read(last.strip_suffix(b"\n").unwrap()).unwrap();
    assert_eq!((record.seq, record.durable.unwrap().seq), (7, 6));
}

#[test]
fn a_file_that_is_cut_while_the_gate_runs_is_told_in_the_chain() {
    let disk = used();
    let (_, writer, _) = open(disk.clone());
    let mut writer = writer.unwrap();
    let cut = disk.content(Name::Chain).len() - 10;
    disk.change(|f| f.live.get_mut(&Name::Chain).unwrap().truncate(cut));
    writer.write(&[note(3)], 0, &run()).unwrap();
    let whole = records(&disk.content(Name::ChainCopy));
    let told: Vec<_> =
        whole.iter().filter_map(|r| r.note.clone()).filter(|n| n.contains("while the gate ran")).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("audit.jsonl has"), "{told:?}");
    // The next start makes the damaged copy anew.
    let (_, _, found) = open(disk.clone());
    assert!(found.iter().any(|f| f.contains("made anew")), "{found:?}");
    assert_eq!(disk.content(Name::Chain), disk.content(Name::ChainCopy));
}

#[test]
fn a_chain_longer_than_what_a_start_reads_goes_on_all_the_same() {
    let disk = Memory::default();
    let (_, writer, _) = open(disk.clone());
    let mut writer = writer.unwrap();
    let batch: Vec<_> = (0..400).map(note).collect();
    for _ in 0..4 {
        writer.write(&batch, 0, &run()).unwrap();
        writer.note_head();
    }
    assert!(disk.content(Name::Chain).len() > 1 << 20);
    let copy = disk.content(Name::ChainCopy).len() - 5;
    disk.change(|f| f.live.get_mut(&Name::ChainCopy).unwrap().truncate(copy));
    let (store, writer, found) = open(disk.clone());
    assert!(matches!(store, Store::Block { .. }));
    assert!(found[0].starts_with("audit.copy.jsonl:"), "{found:?}");
    writer.unwrap().write(&[note(3)], 0, &run()).unwrap();
    assert_eq!(records(&disk.content(Name::Chain)).len(), 1_601);
    assert_eq!(disk.content(Name::Chain), disk.content(Name::ChainCopy));
}
