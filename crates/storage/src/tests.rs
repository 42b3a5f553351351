//! Crashes at every operation, rot at every byte, full and failing disks.

mod copies;
mod failures;
mod loss;

use crate::{Disk, Options, RealDisk, SimulatedDisk, StorageError, Store};
use crate::{Identity, Origin};
use bytes::Bytes;
use wombat_proto::{Accepted, Ballot, CellName, Record, Recovered, ReplicaId, Slot, Value};

const SMALL: Options = Options { segment_bytes: 24 * 1024, step_bytes: 8 * 1024 };

fn wanted(cell: &str, replica: u32) -> Identity {
    let cell = CellName::parse(cell).unwrap();
    let origin = match replica {
        1 => Origin::Alone,
        2 => Origin::Joined,
        _ => Origin::Founder { founders: vec!["a:1".into(), "b:2".into(), "c:3".into()], nonce: "07".into() },
    };
    Identity { cell, replica: ReplicaId(replica), cell_id: "0123456789abcdef".into(), origin }
}

fn open<D: Disk>(disk: &D) -> Result<(Store<D>, Recovered), StorageError> {
    Store::open(disk.clone(), &wanted("test", 1), SMALL)
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, replica: ReplicaId(1), incarnation: 1 }
}

fn command(bytes: Vec<u8>) -> Value {
    Value::Command(bytes.into())
}

fn body(accepted: &Accepted) -> &[u8] {
    let Value::Command(command) = &accepted.value else { panic!("{accepted:?} holds no command") };
    command
}

/// The command of a slot: of a length and with bytes that follow from the slot, zeros among them.
fn accepted(slot: u64) -> Accepted {
    let length = (slot * 37 % 1500) as usize;
    let byte = if slot.is_multiple_of(5) { 0 } else { slot as u8 };
    Accepted { slot: Slot(slot), ballot: ballot(1 + slot / 10), value: command(vec![byte; length]) }
}

fn accept(slot: u64) -> Record {
    Record::Accept(accepted(slot))
}

fn slots(recovered: &Recovered) -> Vec<u64> {
    for found in &recovered.accepted {
        assert_eq!(*found, accepted(found.slot.0), "a record came back changed");
    }
    recovered.accepted.iter().map(|accepted| accepted.slot.0).collect()
}

/// Another disk that holds the same.
fn copy(disk: &SimulatedDisk) -> SimulatedDisk {
    let copy = SimulatedDisk::new();
    for name in disk.list().unwrap() {
        let file = copy.create(&name).unwrap();
        crate::DiskFile::write_at(&file, 0, &disk.contents(&name)).unwrap();
    }
    copy
}

#[test]
fn what_was_written_comes_back() {
    let disk = SimulatedDisk::new();
    let (mut store, recovered) = open(&disk).unwrap();
    assert!(store.was_founded() && recovered.starts == 1 && recovered.accepted.is_empty());
    store.append(&[Record::Promise(ballot(9)), accept(1), accept(2)]).unwrap();
    store.sync().unwrap();
    store.append(&[accept(3)]).unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    let (store, recovered) = open(&disk).unwrap();
    assert_eq!((store.was_founded(), recovered.starts, recovered.promised), (false, 2, ballot(9)));
    assert_eq!(slots(&recovered), [1, 2, 3]);
    assert_eq!(store.identity().cell_id, "0123456789abcdef");
}

#[test]
fn of_several_ballots_for_a_slot_the_highest_counts() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    let again =
        Accepted { ballot: ballot(50), value: Value::Command(Bytes::from_static(b"later")), ..accepted(1) };
    store.append(&[accept(1), accept(2), Record::Accept(again.clone())]).unwrap();
    store.sync().unwrap();
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.accepted, [again, accepted(2)]);
    assert_eq!(recovered.promised, ballot(50), "to accept is to promise");
}

#[test]
fn a_snapshot_shortens_the_log_and_keeps_the_promise() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[Record::Promise(ballot(99))]).unwrap();
    for slot in 1..=100 {
        store.append(&[accept(slot)]).unwrap();
        store.sync().unwrap();
    }
    let before = store.log_bytes();
    let mut writer = store.begin_snapshot(Slot(90)).unwrap();
    writer.write(b"one").unwrap();
    writer.write(b"two").unwrap();
    writer.finish().unwrap();
    store.truncate_behind(Slot(90)).unwrap();
    assert!(store.log_bytes() < before / 2);
    let (_, recovered) = open(&disk).unwrap();
    let chunks = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    assert_eq!(recovered.snapshot, Some((Slot(90), chunks)));
    assert_eq!(slots(&recovered), (91..=100).collect::<Vec<_>>());
    assert_eq!(recovered.promised, ballot(99));
}

/// What a workload has been told is durable, and what it had merely written.
#[derive(Default)]
struct Model {
    synced: u64,
    written: u64,
    promised: u64,
    snapshot: u64,
    starts: u32,
}

/// Opens, writes, snapshots and closes until something fails or all is done. Every step is told to the model
/// only when it has succeeded.
fn work(disk: &SimulatedDisk, model: &mut Model, steps: u64) -> Result<(), StorageError> {
    let (mut store, recovered) = open(disk)?;
    check(&recovered, model);
    for step in 1..=steps {
        let batch: Vec<Record> = (1..=1 + step % 3).map(|n| accept(model.written + n)).collect();
        model.written += batch.len() as u64; // It may survive even if the write fails half-way.
        store.append(&batch)?;
        if step % 7 == 0 {
            store.append(&[Record::Promise(ballot(1000 + step))])?;
        }
        if step % 2 == 0 {
            store.sync()?;
            model.synced = model.written;
            model.promised = model.promised.max(1000 + step / 7 * 7);
        }
        if step % 9 == 0 {
            let slot = model.synced;
            let mut writer = store.begin_snapshot(Slot(slot))?;
            writer.write(&slot.to_le_bytes())?;
            // If this fails, whether its name became durable cannot be known.
            writer.finish()?;
            model.snapshot = slot;
            store.truncate_behind(Slot(slot))?;
        }
    }
    store.close()
}

/// Everything durable is there, and nothing that was never written; then the model goes on from there.
fn check(recovered: &Recovered, model: &mut Model) {
    assert!(!recovered.is_copy, "a crash makes no copy");
    let above = recovered.snapshot.as_ref().map_or(0, |(slot, _)| slot.0);
    assert!(above >= model.snapshot, "a durable snapshot is gone");
    let found = slots(recovered);
    let last = found.last().copied().unwrap_or(above);
    assert_eq!(found, (above + 1..=last.max(above)).collect::<Vec<_>>(), "no gap");
    assert!(last >= model.synced, "I18: acknowledged up to {}, came back up to {last}", model.synced);
    assert!(last <= model.written, "something came back that was never written");
    assert!(recovered.starts > model.starts, "starts go up");
    if model.promised > 1000 {
        assert!(recovered.promised >= ballot(model.promised), "a promise is forgotten");
    }
    model.starts = recovered.starts;
    (model.synced, model.written) = (last, last);
}

/// Runs until operation `at`, dies, and soon dies again, and again: of power loss or only as a process.
fn crash_at(at: u64, seed: u64) {
    let disk = SimulatedDisk::new();
    let mut model = Model::default();
    for life in 0..4 {
        disk.stop_after(if life == 0 { at } else { (at * 7 + seed * 11 + life * 5) % 25 });
        let result = work(&disk, &mut model, 40);
        match (seed + life) % 3 {
            0 => disk.kill(),
            _ => disk.crash(seed * 31 + life),
        }
        if result.is_ok() {
            break;
        }
    }
    disk.crash(seed);
    work(&disk, &mut model, 3).unwrap_or_else(|error| panic!("crash at {at}, seed {seed}: {error}"));
}

#[test]
fn a_crash_at_any_operation_loses_nothing_durable_and_never_looks_like_rot() {
    let disk = SimulatedDisk::new();
    work(&disk, &mut Model::default(), 40).unwrap();
    let operations = disk.operations();
    assert!(operations > 150, "the workload is long enough to be worth it: {operations}");
    for at in 0..operations {
        for seed in 0..12 {
            crash_at(at, seed);
        }
    }
}

#[test]
fn rot_anywhere_is_refused_with_its_place_or_changes_nothing() {
    let disk = SimulatedDisk::new();
    work(&disk, &mut Model::default(), 31).unwrap();
    let segments = disk.list().unwrap().iter().filter(|name| name.starts_with("log")).count();
    assert!(segments > 1, "a sealed segment rots as well");
    let key = |found: Recovered| (found.accepted, found.snapshot, found.promised, found.starts);
    let expected = key(open(&copy(&disk)).unwrap().1);
    let (mut refused, mut harmless) = (0, 0);
    for name in disk.list().unwrap() {
        for offset in 0..disk.contents(&name).len() as u64 {
            let disk = copy(&disk);
            disk.flip(&name, offset, (offset % 8) as u8);
            match open(&disk) {
                Err(StorageError::Damaged { file, .. }) => {
                    assert!(!file.is_empty());
                    refused += 1;
                }
                Err(StorageError::OtherFormat { .. } | StorageError::OtherOwner { .. }) => refused += 1,
                Err(error) => panic!("{name} at {offset}: {error}"),
                Ok((_, recovered)) => {
                    assert_eq!(key(recovered), expected, "{name} at {offset}");
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 1000 && harmless > 0, "{refused} refused, {harmless} harmless");
}

#[test]
fn rot_in_the_very_last_record_is_no_torn_tail() {
    // The process is killed right after the acknowledgement: nothing later was ever synced.
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    let zeros = Accepted { value: command(vec![0; 1000]), ..accepted(1) };
    store.append(&[Record::Accept(zeros)]).unwrap();
    store.sync().unwrap();
    drop(store);
    let log = disk.contents("log-0000000000000001");
    let last = log.windows(4).rposition(|window| window == b"WREC").unwrap() - 1000;
    disk.flip("log-0000000000000001", last as u64, 3);
    match open(&disk).err() {
        Some(StorageError::Damaged { file, offset, .. }) => {
            assert_eq!(file, "log-0000000000000001");
            assert!(offset <= last as u64 && offset + 1100 > last as u64);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rot_that_no_tear_explains_is_refused_even_if_the_mark_was_lost() {
    for seed in 0..20 {
        let disk = SimulatedDisk::new();
        let (mut store, _) = open(&disk).unwrap();
        let full = Accepted { value: command(vec![7; 1000]), ..accepted(1) };
        store.append(&[Record::Accept(full)]).unwrap();
        store.sync().unwrap();
        disk.crash(seed); // The mark was not synced: it may be gone.
        let log = disk.contents("log-0000000000000001");
        let inside = log.iter().position(|byte| *byte == 7).unwrap() as u64 + 500;
        disk.flip("log-0000000000000001", inside, 2);
        assert!(matches!(open(&disk), Err(StorageError::Damaged { .. })), "seed {seed}");
    }
}

#[test]
fn a_log_cut_off_by_somebody_is_refused() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    for slot in 1..=10 {
        store.append(&[accept(slot)]).unwrap();
        store.sync().unwrap();
    }
    drop(store);
    for length in [0, 100, 4096, 5000, 7000] {
        let copy = SimulatedDisk::new();
        for name in disk.list().unwrap() {
            let file = copy.create(&name).unwrap();
            crate::DiskFile::write_at(&file, 0, &disk.contents(&name)).unwrap();
        }
        copy.cut("log-0000000000000001", length);
        assert!(matches!(open(&copy), Err(StorageError::Damaged { .. })), "cut to {length}");
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    for slot in 1..=200 {
        store.append(&[accept(slot)]).unwrap();
        store.sync().unwrap();
    }
    let segments: Vec<String> = disk.list().unwrap().into_iter().filter(|n| n.starts_with("log")).collect();
    assert!(segments.len() > 3);
    for missing in &segments[..segments.len() - 1] {
        let file = disk.contents(missing);
        disk.remove(missing).unwrap();
        assert!(matches!(open(&disk), Err(StorageError::Damaged { .. })), "without {missing}");
        let again = disk.create(missing).unwrap();
        crate::DiskFile::write_at(&again, 0, &file).unwrap();
    }
    assert!(open(&disk).is_ok());
}

#[test]
fn a_full_disk_stops_the_store_and_loses_nothing() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    disk.limit(Some(40_000));
    let mut synced = 0;
    let error = loop {
        let result = store.append(&[accept(synced + 1)]).and_then(|()| store.sync());
        match result {
            Ok(()) => synced += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::DiskFull { .. }), "{error}");
    assert!(matches!(store.sync(), Err(StorageError::Stopped)));
    disk.limit(None);
    let (_, recovered) = open(&disk).unwrap();
    assert!(slots(&recovered).len() as u64 >= synced && synced > 0);
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1)]).unwrap();
    disk.fail_next_sync();
    assert!(matches!(store.sync(), Err(StorageError::Io { operation: "sync", .. })));
    assert!(matches!(store.sync(), Err(StorageError::Stopped)));
    assert!(matches!(store.append(&[accept(2)]), Err(StorageError::Stopped)));
    assert!(store.close().is_err());
}

#[test]
fn other_owners_formats_and_strangers_are_refused_with_advice() {
    let disk = SimulatedDisk::new();
    drop(open(&disk).unwrap());
    let message = |disk: &SimulatedDisk, cell, replica| match Store::open(
        disk.clone(),
        &wanted(cell, replica),
        SMALL,
    ) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("opened"),
    };
    assert!(message(&disk, "other", 1).contains("replica 1 of the cell test"));
    assert!(message(&disk, "test", 2).contains("replica 2 of the cell test"));
    let text = String::from_utf8(disk.contents("identity")).unwrap();
    let other = text.replace("format 1", "format 7");
    crate::DiskFile::write_at(&disk.open("identity").unwrap(), 0, other.as_bytes()).unwrap();
    assert!(message(&disk, "test", 1).contains("format 7"));
    let strange = SimulatedDisk::new();
    strange.create("holiday.jpg").unwrap();
    assert!(message(&strange, "test", 1).contains("holiday.jpg"));
}

#[test]
fn a_log_without_its_identity_is_not_founded_anew() {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(1)]).unwrap();
    store.sync().unwrap();
    disk.remove("identity").unwrap();
    assert!(matches!(open(&disk), Err(StorageError::Damaged { .. })));
}

#[test]
fn a_real_directory_is_held_by_one_and_keeps_what_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut store, _) = open(&RealDisk::open(&path).unwrap()).unwrap();
    let second = RealDisk::open(&path).err().map(|error| error.to_string());
    assert!(second.unwrap().contains("in use by another server"));
    store.append(&[accept(1), accept(2)]).unwrap();
    store.sync().unwrap();
    drop(store);
    let (_, recovered) = open(&RealDisk::open(&path).unwrap()).unwrap();
    assert_eq!(slots(&recovered), [1, 2]);
}

#[test]
fn a_real_directory_is_made_with_those_above_it_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/data");
    drop(open(&RealDisk::open(&path).unwrap()).unwrap());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let file = path.join("identity/data");
    assert!(matches!(RealDisk::open(&file), Err(StorageError::Io { .. })), "no directory can be there");
}

#[test]
fn a_real_directory_grows_is_cut_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (mut store, _) = open(&RealDisk::open(&path).unwrap()).unwrap();
    for slot in 1..=200 {
        store.append(&[accept(slot)]).unwrap();
        store.sync().unwrap();
    }
    let mut writer = store.begin_snapshot(Slot(150)).unwrap();
    let other_thread = std::thread::spawn(move || {
        writer.write(b"state").unwrap();
        writer.finish().unwrap();
    });
    other_thread.join().unwrap();
    store.truncate_behind(Slot(150)).unwrap();
    std::fs::write(path.join("snapshot-00000000000000b4.new"), "a crash's").unwrap();
    store.close().unwrap();
    let (_, recovered) = open(&RealDisk::open(&path).unwrap()).unwrap();
    assert_eq!(recovered.snapshot, Some((Slot(150), vec![Bytes::from_static(b"state")])));
    assert_eq!(slots(&recovered), (151..=200).collect::<Vec<_>>());
    assert!(!path.join("snapshot-00000000000000b4.new").exists());
}

#[test]
fn rot_beside_a_kill_is_told_from_a_tear() {
    // The process dies with a batch in flight; what was acknowledged before rots. The mark is in the cache.
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    store.append(&[accept(5), accept(10)]).unwrap(); // Their commands are zeros.
    store.sync().unwrap();
    let synced = store.log_bytes();
    store.append(&[accept(11)]).unwrap();
    drop(store);
    for offset in 4096..synced {
        let copy = copy(&disk);
        copy.flip("log-0000000000000001", offset, 1);
        // The mark itself proves nothing about itself; it may go.
        match open(&copy) {
            Ok((_, recovered)) => assert!(recovered.accepted.len() >= 2, "at {offset}"),
            Err(error) => assert!(matches!(error, StorageError::Damaged { .. }), "at {offset}: {error}"),
        }
    }
}

#[test]
fn an_identity_tells_how_its_replica_came_into_the_cell() {
    for replica in 1..=3 {
        let disk = SimulatedDisk::new();
        assert_eq!(Identity::of(&disk).unwrap(), None);
        let identity = wanted("test", replica);
        Store::open(disk.clone(), &identity, SMALL).unwrap();
        assert_eq!(Identity::of(&disk).unwrap(), Some(identity));
    }
}
