//! Files that somebody took away or emptied, and settings that changed.

use super::*;

/// A log of several segments, behind a snapshot of slot 60.
fn grown() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (mut store, _) = open(&disk).unwrap();
    for slot in 1..=200 {
        store.append(&[accept(slot)]).unwrap();
        store.sync().unwrap();
    }
    for slot in [30, 60] {
        store.begin_snapshot(Slot(slot)).unwrap().finish().unwrap();
        store.truncate_behind(Slot(slot)).unwrap();
    }
    store.close().unwrap();
    disk
}

#[test]
fn a_setting_may_change_between_two_starts() {
    let disk = grown();
    for step_bytes in [4096, 64 * 1024, 12 * 1024, 1024 * 1024, 8 * 1024] {
        let options = Options { segment_bytes: 3 * step_bytes, step_bytes };
        let (mut store, recovered) = Store::open(disk.clone(), &wanted("test", 1), options)
            .unwrap_or_else(|error| panic!("with steps of {step_bytes}: {error}"));
        let next = recovered.accepted.last().unwrap().slot.0 + 1;
        for slot in next..next + 50 {
            store.append(&[accept(slot)]).unwrap();
            store.sync().unwrap();
        }
        disk.crash(step_bytes);
    }
    assert_eq!(slots(&open(&disk).unwrap().1), (61..=450).collect::<Vec<_>>());
}

fn refused_as_damaged(disk: &SimulatedDisk, what: &str) {
    match open(disk) {
        Err(StorageError::Damaged { .. }) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok((_, recovered)) => panic!("{what}: opened with {:?}", slots(&recovered)),
    }
}

#[test]
fn the_last_segment_cannot_vanish_or_be_emptied_unnoticed() {
    let disk = grown();
    let last = disk.list().unwrap().into_iter().rfind(|name| name.starts_with("log-")).unwrap();
    let emptied = copy(&disk);
    emptied.cut(&last, 0);
    refused_as_damaged(&emptied, "emptied");
    disk.remove(&last).unwrap();
    refused_as_damaged(&disk, "removed");
}

#[test]
fn no_file_can_vanish_or_be_emptied_unnoticed() {
    let disk = grown();
    let names = disk.list().unwrap();
    assert!(names.iter().filter(|name| name.starts_with("log-")).count() > 3, "{names:?}");
    for name in names {
        let emptied = copy(&disk);
        emptied.cut(&name, 0);
        if name == "fingerprint" {
            assert!(open(&emptied).unwrap().1.is_copy);
            emptied.remove(&name).unwrap();
            assert!(open(&emptied).unwrap().1.is_copy);
            continue;
        }
        refused_as_damaged(&emptied, &format!("{name} emptied"));
        let removed = copy(&disk);
        removed.remove(&name).unwrap();
        refused_as_damaged(&removed, &format!("without {name}"));
    }
    assert!(open(&disk).is_ok());
}

#[test]
fn an_older_snapshot_does_not_stand_in_for_a_lost_one() {
    let disk = grown();
    let (mut store, _) = open(&disk).unwrap();
    let older = disk.contents("snapshot-000000000000003c");
    store.begin_snapshot(Slot(190)).unwrap().finish().unwrap();
    store.truncate_behind(Slot(190)).unwrap();
    drop(store);
    disk.remove("snapshot-00000000000000be").unwrap();
    let again = disk.create("snapshot-000000000000003c").unwrap();
    crate::DiskFile::write_at(&again, 0, &older).unwrap();
    refused_as_damaged(&disk, "with an older snapshot");
}
