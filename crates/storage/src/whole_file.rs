//! Files that are written whole or not at all.

use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;

/// Makes a file durable, whole or not at all.
pub(crate) fn write_whole<D: Disk>(
    disk: &D,
    name: &str,
    temporary: &str,
    text: &str,
) -> Result<(), StorageError> {
    let failed = |operation| move |error| StorageError::io(disk.describe(name), operation, error);
    let file = disk.create(temporary).map_err(failed("make"))?;
    file.write_at(0, text.as_bytes()).map_err(failed("write"))?;
    file.sync().map_err(failed("sync"))?;
    disk.rename(temporary, name).map_err(failed("name"))?;
    disk.sync_directory().map_err(failed("name"))
}
