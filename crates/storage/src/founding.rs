//! A directory in which nothing is founded yet: what it may hold, and the founder's nonce.

use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;
use crate::{condemned, fingerprint, identity, nonce, real, segment};

/// The nonce of a directory in which nothing is founded yet: the one that it holds, or else `fresh`, durable
/// from now on. It is removed when the directory is founded.
///
/// Errors: the directory holds something else, or its nonce is damaged.
pub fn founding_nonce<D: Disk>(disk: &D, fresh: &str) -> Result<String, StorageError> {
    // A name that is seen may not be durable yet, if the process died before it had synced it.
    disk.sync_directory().map_err(|error| StorageError::io(disk.describe(""), "sync", error))?;
    let names = disk.list().map_err(|error| StorageError::io(disk.describe(""), "list", error))?;
    condemned::check(disk, &names)?;
    refuse_leftovers(disk, &names)?;
    if names.iter().any(|name| name == nonce::FILE) {
        return nonce::read(disk);
    }
    nonce::write(disk, fresh)?;
    Ok(fresh.to_owned())
}

/// A directory without an identity may hold only what a crash leaves of founding it, and no record.
pub(crate) fn refuse_leftovers<D: Disk>(disk: &D, names: &[String]) -> Result<(), StorageError> {
    let missing = || {
        let identity = disk.describe(identity::FILE);
        StorageError::damaged(identity, 0, "the log is there, but the identity is missing")
    };
    if let Some(found) = names.iter().find(|name| !is_of_founding(name)) {
        if names.iter().any(|name| segment::first_of(name).is_some_and(|first| first > 1)) {
            return Err(missing());
        }
        let directory = disk.describe("");
        return Err(StorageError::NotADataDirectory { directory, found: found.clone() });
    }
    let first = segment::name(1);
    if names.contains(&first) {
        let shown = disk.describe(&first);
        let file = disk.open(&first).map_err(|error| StorageError::io(&shown, "open", error))?;
        let bytes = file.read_all().map_err(|error| StorageError::io(&shown, "read", error))?;
        if segment::holds_anything(&bytes) {
            return Err(missing());
        }
    }
    Ok(())
}

/// Whether a file may stand in a directory that is not founded yet: what a crash leaves of founding it, and
/// what a file system has at its root.
fn is_of_founding(name: &str) -> bool {
    let expected = [
        identity::TEMPORARY,
        nonce::FILE,
        nonce::TEMPORARY,
        fingerprint::FILE,
        fingerprint::TEMPORARY,
        real::LOCK_FILE,
        "lost+found",
    ];
    expected.contains(&name) || name == segment::name(1)
}
