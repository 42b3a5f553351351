//! Copies of data directories: backups that are put back.

use super::{accept, open, slots};
use crate::{RealDisk, SimulatedDisk};
use std::path::Path;

/// Opens a directory and closes it again. Returns whether it was a copy, and what was in it.
fn look(path: &Path) -> (bool, Vec<u64>) {
    let (store, recovered) = open(&RealDisk::open(path).unwrap()).unwrap();
    store.close().unwrap();
    (recovered.is_copy, slots(&recovered))
}

fn write(path: &Path, slot: u64) {
    let (mut store, _) = open(&RealDisk::open(path).unwrap()).unwrap();
    store.append(&[accept(slot)]).unwrap();
    store.sync().unwrap();
    store.close().unwrap();
}

/// Copies all files into a directory, over those that have the same names.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_copy_is_one_until_it_is_reinstated() {
    let disk = SimulatedDisk::new();
    let (mut store, recovered) = open(&disk).unwrap();
    assert!(!recovered.is_copy, "it was founded");
    store.append(&[accept(1)]).unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    let copy = disk.copy();
    for disk in [&disk, &disk] {
        assert!(!open(disk).unwrap().1.is_copy, "the original stays one");
    }
    for _ in 0..2 {
        let (_, recovered) = open(&copy).unwrap();
        assert!(recovered.is_copy);
        assert_eq!(slots(&recovered), [1]);
    }
    open(&copy).unwrap().0.snapshot_reader().reinstate().unwrap();
    copy.crash(1);
    assert!(!open(&copy).unwrap().1.is_copy, "that is durable");
    assert!(open(&copy.copy()).unwrap().1.is_copy, "a copy of a copy");
}

#[test]
fn a_real_directory_that_is_copied_shows_and_one_that_is_moved_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    write(&data, 1);
    copy_files(&data, &backup);
    write(&data, 2);
    assert_eq!(look(&backup), (true, vec![1]));
    let moved = dir.path().join("moved");
    std::fs::rename(&data, &moved).unwrap();
    assert_eq!(look(&moved), (false, vec![1, 2]));
}

/// The copy keeps the inodes of what it is written over; but since it was made the directory has been opened.
#[test]
fn a_backup_that_is_written_over_a_directory_shows() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    write(&data, 1);
    copy_files(&data, &backup);
    write(&data, 2);
    copy_files(&backup, &data);
    assert_eq!(look(&data), (true, vec![1]));
}

#[test]
fn a_directory_without_a_fingerprint_may_be_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1);
    std::fs::remove_file(dir.path().join("fingerprint")).unwrap();
    assert!(look(dir.path()).0);
}
