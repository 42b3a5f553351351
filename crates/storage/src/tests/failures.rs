//! Full disks, snapshots that come to nothing, and what callers get wrong.

use super::*;
use crate::founding_nonce;
use crate::record::{self, Entry, Placed};

#[test]
fn a_snapshot_that_is_being_written_survives_a_truncation() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1), accept(2)]).unwrap();
    store.sync().unwrap();
    store.begin_snapshot(Slot(1)).unwrap().finish().unwrap();
    let mut writer = store.begin_snapshot(Slot(2)).unwrap();
    store.truncate_behind(Slot(1)).unwrap();
    writer.write(b"two").unwrap();
    writer.finish().unwrap();
    let snapshot = open(&disk).unwrap().1.snapshot;
    assert_eq!(snapshot, Some((Slot(2), vec![Bytes::from_static(b"two")])));
}

#[test]
fn a_snapshot_that_finds_no_room_leaves_none_taken_and_the_log_goes_on() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1)]).unwrap();
    store.sync().unwrap();
    disk.limit(Some(12_000));
    let mut writer = store.begin_snapshot(Slot(1)).unwrap();
    writer.write(&[1; 3000]).unwrap();
    assert!(matches!(writer.write(&[1; 3000]), Err(StorageError::DiskFull { .. })));
    drop(writer);
    assert!(!disk.list().unwrap().iter().any(|name| name.starts_with("snapshot")));
    store.append(&[accept(2)]).unwrap();
    store.sync().unwrap();
}

#[test]
fn two_snapshots_of_one_slot_do_not_mix() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1)]).unwrap();
    store.sync().unwrap();
    let mut first = store.begin_snapshot(Slot(1)).unwrap();
    first.write(b"one").unwrap();
    let second = store.begin_snapshot(Slot(1));
    first.finish().unwrap();
    assert!(matches!(second.err(), Some(StorageError::Io { operation: "make", .. })));
    let snapshot = open(&disk).unwrap().1.snapshot;
    assert_eq!(snapshot, Some((Slot(1), vec![Bytes::from_static(b"one")])));
}

#[test]
fn what_is_too_long_to_be_read_back_is_not_written() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    let of = |bytes| Record::Accept(Accepted { value: command(vec![1; bytes]), ..accepted(1) });
    let longest = wombat_proto::limits::COMMAND_BYTES;
    let refused = store.append(&[accept(2), of(longest + 1)]).and_then(|()| store.sync()).err();
    assert!(matches!(refused, Some(StorageError::TooLong { .. })), "{refused:?}");
    store.append(&[of(longest)]).unwrap();
    store.sync().unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.accepted.len(), 1);
    assert_eq!(body(&recovered.accepted[0]).len(), longest);
}

#[test]
fn the_log_is_not_cut_for_a_snapshot_that_is_not_there() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    (1..=100).for_each(|slot| store.append(&[accept(slot)]).unwrap());
    store.sync().unwrap();
    store.begin_snapshot(Slot(20)).unwrap().finish().unwrap();
    assert!(store.truncate_behind(Slot(90)).is_err());
    store.append(&[accept(101)]).unwrap();
    store.sync().unwrap();
    drop(store);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.snapshot, Some((Slot(20), vec![])));
    assert_eq!(slots(&recovered), (21..=101).collect::<Vec<_>>());
}

#[test]
fn a_store_that_has_stopped_touches_nothing_any_more() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1), accept(2)]).unwrap();
    store.sync().unwrap();
    for slot in [1, 2] {
        store.begin_snapshot(Slot(slot)).unwrap().finish().unwrap();
    }
    let before = disk.list().unwrap();
    disk.fail_next_sync();
    assert!(store.sync().is_err());
    assert!(matches!(store.truncate_behind(Slot(2)), Err(StorageError::Stopped)));
    assert!(matches!(store.begin_snapshot(Slot(3)).err(), Some(StorageError::Stopped)));
    assert_eq!(disk.list().unwrap(), before);
}

#[test]
fn names_that_the_storage_never_gives_are_nothing_of_its() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1)]).unwrap();
    store.sync().unwrap();
    drop(store);
    for name in
        ["snapshot-7", "snapshot-+000000000000007", "log-9", "log-000000000000000A", "snapshot-old.new"]
    {
        disk.create(name).unwrap();
        let (_, recovered) = open(&disk).unwrap_or_else(|error| panic!("beside {name}: {error}"));
        assert_eq!((slots(&recovered), recovered.snapshot), (vec![1], None), "beside {name}");
        assert!(disk.list().unwrap().iter().any(|found| found == name), "{name} is somebody's");
    }
}

#[test]
fn the_root_of_a_file_system_may_be_a_data_directory() {
    let disk = SimulatedDisk::new();
    disk.create("lost+found").unwrap();
    assert!(open(&disk).unwrap().0.was_founded());
}

#[test]
fn a_failed_sync_then_a_restart_then_a_power_failure_lose_nothing_that_counted() {
    // After the failed sync, the records can be read but are not on the disk, and no later sync puts them
    // there. They count for the life that reads them: it tells its peers of them.
    for syncs in 0..25 {
        for seed in 0..24 {
            let disk = SimulatedDisk::new();
            let mut model = Model::default();
            disk.fail_sync_after(syncs);
            work(&disk, &mut model, 30).unwrap_err();
            disk.kill();
            let explain = |error| panic!("sync {syncs} failed, seed {seed}: {error}");
            work(&disk, &mut model, seed % 5).unwrap_or_else(explain);
            disk.crash(seed);
            work(&disk, &mut model, 3).unwrap_or_else(explain);
        }
    }
}

#[test]
fn a_command_that_looks_like_records_makes_no_crash_look_like_rot() {
    // The client even knows the format and every number in it, but not the salt.
    let placed = Placed { sequence: 900, durable: 800, entry: Entry::Mark };
    for seed in 0..200 {
        let disk = SimulatedDisk::new();
        let (mut store, _) = open(&disk).unwrap();
        let mut forged = Vec::new();
        record::write(&placed, seed, &mut forged);
        let value = command(forged.repeat(50));
        store.append(&[Record::Accept(Accepted { value, ..accepted(1) })]).unwrap();
        disk.crash(seed.into());
        open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn a_disk_that_fills_up_at_any_size_loses_nothing_and_works_again_with_room() {
    for capacity in (13_000..90_000).step_by(512 * 3) {
        let disk = SimulatedDisk::new();
        let (mut store, _) = open(&disk).unwrap();
        disk.limit(Some(capacity));
        let mut synced = 0;
        let error = loop {
            match store.append(&[accept(synced + 1)]).and_then(|()| store.sync()) {
                Ok(()) => synced += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StorageError::DiskFull { .. }), "{error}");
        if capacity / 512 % 2 == 0 {
            disk.crash(capacity as u64)
        } else {
            disk.kill()
        }
        let (mut store, recovered) = open(&disk).unwrap();
        assert!(slots(&recovered).len() as u64 >= synced, "capacity {capacity}");
        let next = slots(&recovered).len() as u64 + 1;
        store.append(&[accept(next)]).unwrap();
        store.sync().unwrap();
        drop(store);
        assert_eq!(slots(&open(&disk).unwrap().1).len() as u64, next);
    }
}

#[test]
fn a_crash_while_many_segments_are_removed_leaves_no_gap() {
    for at in 0..40 {
        for seed in 0..10 {
            let disk = SimulatedDisk::new();
            let (mut store, _) = open(&disk).unwrap();
            (1..=250).for_each(|slot| store.append(&[accept(slot)]).unwrap());
            store.sync().unwrap();
            for slot in [20, 240] {
                store.begin_snapshot(Slot(slot)).unwrap().finish().unwrap();
            }
            disk.stop_after(at);
            let done = store.truncate_behind(Slot(240)).is_ok();
            disk.crash(seed);
            let (_, recovered) = open(&disk).unwrap_or_else(|error| panic!("at {at}, seed {seed}: {error}"));
            assert_eq!(slots(&recovered), (241..=250).collect::<Vec<_>>());
            assert!(done || at < 39, "forty operations are enough");
        }
    }
}

#[test]
fn dropped_bytes_never_come_back() {
    // A batch is torn; the next life writes other values to the same slots, and dies as well.
    for seed in 0..200 {
        let disk = SimulatedDisk::new();
        let (mut store, _) = open(&disk).unwrap();
        store.append(&(1..=9).map(accept).collect::<Vec<_>>()).unwrap();
        disk.crash(seed);
        let (mut store, first) = open(&disk).unwrap();
        let from = first.accepted.len() as u64 + 1;
        let other = |slot| Accepted { ballot: ballot(99), value: command(vec![3; 40]), ..accepted(slot) };
        store.append(&[Record::Accept(other(from))]).unwrap();
        store.sync().unwrap();
        store.append(&[Record::Accept(other(from + 1))]).unwrap();
        disk.crash(seed + 1000);
        let (_, second) = open(&disk).unwrap();
        let found: Vec<_> = second.accepted.iter().filter(|found| found.slot.0 >= from).cloned().collect();
        let expected = [other(from), other(from + 1)];
        assert!(found == expected[..1] || found == expected, "seed {seed}: {found:?}");
    }
}

#[test]
fn a_snapshot_that_fails_anywhere_costs_the_log_nothing() {
    for at in 0..8 {
        for seed in 0..20 {
            let disk = SimulatedDisk::new();
            let (mut store, _) = open(&disk).unwrap();
            (1..=50).for_each(|slot| store.append(&[accept(slot)]).unwrap());
            store.sync().unwrap();
            disk.stop_after(at);
            let snapshot = store.begin_snapshot(Slot(40)).and_then(|mut writer| {
                writer.write(b"forty")?;
                writer.finish()
            });
            disk.kill();
            // The server goes on, and tries again later.
            store.append(&[accept(51)]).unwrap();
            store.sync().unwrap();
            if seed % 2 == 0 {
                let mut writer = store.begin_snapshot(Slot(51)).unwrap();
                writer.write(b"more").unwrap();
                writer.finish().unwrap();
                store.truncate_behind(Slot(51)).unwrap();
            }
            disk.crash(seed);
            let (_, recovered) = open(&disk).unwrap_or_else(|error| panic!("at {at}, seed {seed}: {error}"));
            let above = recovered.snapshot.as_ref().map_or(0, |(slot, _)| slot.0);
            assert_eq!(slots(&recovered), (above + 1..=51).collect::<Vec<_>>());
            assert!(above >= if snapshot.is_ok() { 40 } else { 0 }, "at {at}, seed {seed}");
        }
    }
}

#[test]
fn a_snapshot_ahead_of_the_log_replaces_it() {
    // As one that comes from a peer.
    for seed in 0..40 {
        let disk = SimulatedDisk::new();
        let (mut store, _) = open(&disk).unwrap();
        (1..=100).for_each(|slot| store.append(&[accept(slot), Record::Promise(ballot(99))]).unwrap());
        store.sync().unwrap();
        store.begin_snapshot(Slot(1000)).unwrap().finish().unwrap();
        store.truncate_behind(Slot(1000)).unwrap();
        assert!(disk.list().unwrap().iter().filter(|name| name.starts_with("log")).count() == 1);
        disk.crash(seed);
        let (mut store, recovered) = open(&disk).unwrap();
        assert_eq!((recovered.accepted.len(), recovered.promised, recovered.starts), (0, ballot(99), 2));
        store.append(&[accept(1001)]).unwrap();
        store.sync().unwrap();
        disk.crash(seed);
        assert_eq!(slots(&open(&disk).unwrap().1), [1001]);
    }
}

#[test]
fn torn_records_of_any_length_are_no_rot() {
    for length in [1, 447, 448, 449, 8 * 1024, 100_000, 448 * 1024] {
        for seed in 0..20 {
            for byte in [0, 7] {
                let disk = SimulatedDisk::new();
                let (mut store, _) = open(&disk).unwrap();
                let long = Accepted { value: command(vec![byte; length]), ..accepted(1) };
                store.append(&[Record::Accept(long.clone())]).unwrap();
                store.sync().unwrap();
                store.append(&[Record::Accept(Accepted { slot: Slot(2), ..long.clone() })]).unwrap();
                disk.crash(seed);
                let (_, recovered) =
                    open(&disk).unwrap_or_else(|error| panic!("{length} times {byte}, seed {seed}: {error}"));
                assert_eq!(recovered.accepted[0], long);
            }
        }
    }
}

#[test]
fn data_that_was_given_up_is_never_opened_again() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk).unwrap();
    store.snapshot_reader().condemn("it differs").unwrap();
    drop(store);
    disk.crash(1);
    let Err(error) = open(&disk) else { panic!("opened") };
    assert!(error.to_string().contains("it differs") && error.to_string().contains("joins its cell again"));
}

#[test]
fn a_nonce_that_was_given_once_comes_back_until_the_directory_is_founded() {
    // A power failure after each operation: either nobody was told a nonce, or it is the one that comes back.
    for operations in 0.. {
        let disk = SimulatedDisk::new();
        disk.stop_after(operations);
        let told = founding_nonce(&disk, "0a");
        disk.crash(operations);
        let later = founding_nonce(&disk, "0b").unwrap();
        assert!(told.is_err() || later == "0a", "after {operations} operations {later} replaces {told:?}");
        assert_eq!(founding_nonce(&disk, "0c").unwrap(), later);
        assert!(open(&disk).unwrap().0.was_founded());
        assert!(!disk.list().unwrap().iter().any(|name| name.starts_with("nonce")));
        if told.is_ok() {
            assert!(operations > 4, "{operations} operations make nothing durable");
            return;
        }
    }
}

#[test]
fn a_damaged_nonce_is_refused() {
    let disk = SimulatedDisk::new();
    founding_nonce(&disk, "0a").unwrap();
    for offset in 0..disk.contents("nonce").len() as u64 {
        let damaged = copy(&disk);
        damaged.flip("nonce", offset, 3);
        let refused = founding_nonce(&damaged, "0b");
        assert!(matches!(refused, Err(StorageError::Damaged { .. })), "{offset}: {refused:?}");
    }
}

#[test]
fn a_nonce_does_not_hide_a_lost_identity_or_somebody_elses_files() {
    let disk = SimulatedDisk::new();
    founding_nonce(&disk, "0a").unwrap();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1)]).unwrap();
    store.close().unwrap();
    disk.remove("identity").unwrap();
    assert!(matches!(founding_nonce(&disk, "0b"), Err(StorageError::Damaged { .. })));
    let disk = SimulatedDisk::new();
    disk.create("thesis.tex").unwrap();
    assert!(matches!(founding_nonce(&disk, "0b"), Err(StorageError::NotADataDirectory { .. })));
}
