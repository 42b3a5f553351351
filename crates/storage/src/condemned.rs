//! The mark of a directory whose data must not be used any more.

use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;

const FILE: &str = "condemned";

/// Marks a directory whose data has turned out to be wrong.
pub(crate) fn mark<D: Disk>(disk: &D, why: &str) -> Result<(), StorageError> {
    let failed = |operation| move |error| StorageError::io(disk.describe(FILE), operation, error);
    let file = disk.create(FILE).map_err(failed("make"))?;
    file.write_at(0, why.as_bytes()).map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    disk.sync_directory().map_err(failed("name"))
}

/// Refuses a directory that is marked.
pub(crate) fn check<D: Disk>(disk: &D, names: &[String]) -> Result<(), StorageError> {
    if !names.iter().any(|name| name == FILE) {
        return Ok(());
    }
    let file = disk.describe(FILE);
    let contents = disk.open(FILE).and_then(|file| file.read_all()).unwrap_or_default();
    Err(StorageError::Condemned { file, why: String::from_utf8_lossy(&contents).into_owned() })
}
