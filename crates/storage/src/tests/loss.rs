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
