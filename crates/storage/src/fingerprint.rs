//! Whether a data directory is the one that this replica wrote, or a copy of it: a backup that was put back, a
//! directory that was moved to another disk file by file.
//!
//! A small file says which file it is itself: its inode number and the time at which it was made, neither of which a
//! copy keeps. It is made anew at every start. So a copy that is written over the files of the directory shows as
//! well: it says which file the one of an earlier start was.
//!
//! What puts back whole disks or file systems (a machine's snapshot, an image, a snapshot of ZFS or btrfs) changes
//! neither, and is not seen here.

use crate::StorageError;
use crate::disk::{Disk, DiskFile};

pub(crate) const FILE: &str = "fingerprint";
pub(crate) const TEMPORARY: &str = "fingerprint.new";

/// Whether the directory is a copy. One without the file may be one: it is of an earlier version, or the file was left
/// out.
pub(crate) fn is_copy<D: Disk>(disk: &D, names: &[String]) -> Result<bool, StorageError> {
    if !names.iter().any(|name| name == FILE) {
        return Ok(true);
    }
    let failed = |operation| move |error| StorageError::io(disk.describe(FILE), operation, error);
    let file = disk.open(FILE).map_err(failed("open"))?;
    let is = to_text(&file.fingerprint().map_err(failed("look at"))?);
    Ok(file.read_all().map_err(failed("read"))? != is.as_bytes())
}

/// Makes the directory the original from now on, durably.
pub(crate) fn write<D: Disk>(disk: &D) -> Result<(), StorageError> {
    let failed = |operation| move |error| StorageError::io(disk.describe(FILE), operation, error);
    let file = disk.create(TEMPORARY).map_err(failed("make"))?;
    let is = to_text(&file.fingerprint().map_err(failed("look at"))?);
    file.write_at(0, is.as_bytes()).map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    disk.rename(TEMPORARY, FILE).map_err(failed("name"))?;
    disk.sync_directory().map_err(failed("name"))
}

/// Makes the directory a copy from now on, durably.
pub(crate) fn remove<D: Disk>(disk: &D) -> Result<(), StorageError> {
    let failed = |operation| move |error| StorageError::io(disk.describe(FILE), operation, error);
    let names = disk.list().map_err(failed("list"))?;
    if names.iter().any(|name| name == FILE) {
        disk.remove(FILE).map_err(failed("remove"))?;
    }
    disk.sync_directory().map_err(failed("remove"))
}

fn to_text(fingerprint: &str) -> String {
    format!("the file {fingerprint}, unless this is a copy of it\n")
}
