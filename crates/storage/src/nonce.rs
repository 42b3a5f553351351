//! What a founder throws in to make its cell's id. It is durable before anybody hears of it: a founder that
//! restarts before it has founded is then still the one that the others have met.

use crate::disk::{Disk, DiskFile};
use crate::{StorageError, identity, store};

pub(crate) const FILE: &str = "nonce";
pub(crate) const TEMPORARY: &str = "nonce.new";

/// The nonce of a directory in which nothing is founded yet: the one that it holds, or else `fresh`, durable
/// from now on. It is removed when the directory is founded.
///
/// Errors: the directory holds something else, or its nonce is damaged.
pub fn founding_nonce<D: Disk>(disk: &D, fresh: &str) -> Result<String, StorageError> {
    // A name that is seen may not be durable yet, if the process died before it had synced it.
    disk.sync_directory().map_err(|error| StorageError::io(disk.describe(""), "sync", error))?;
    let names = disk.list().map_err(|error| StorageError::io(disk.describe(""), "list", error))?;
    identity::check_not_condemned(disk, &names)?;
    store::refuse_leftovers(disk, &names)?;
    if names.iter().any(|name| name == FILE) {
        return read(disk);
    }
    identity::write_whole(disk, FILE, TEMPORARY, &to_text(fresh))?;
    Ok(fresh.to_owned())
}

/// Removes the nonce of a directory that is founded, if it is still there: nobody asks for it any more.
pub(crate) fn remove<D: Disk>(disk: &D, names: &[String]) -> Result<(), StorageError> {
    for name in names.iter().filter(|name| [FILE, TEMPORARY].contains(&name.as_str())) {
        disk.remove(name).map_err(|error| StorageError::io(disk.describe(name), "remove", error))?;
    }
    Ok(())
}

fn to_text(nonce: &str) -> String {
    let body = format!("nonce {nonce}\n");
    let crc = crc32fast::hash(body.as_bytes());
    format!("{body}crc {crc:08x}\n")
}

fn read<D: Disk>(disk: &D) -> Result<String, StorageError> {
    let shown = disk.describe(FILE);
    let file = disk.open(FILE).map_err(|error| StorageError::io(&shown, "open", error))?;
    let bytes = file.read_all().map_err(|error| StorageError::io(&shown, "read", error))?;
    let parse = || {
        let text = String::from_utf8(bytes).ok()?;
        let nonce = text.lines().next()?.strip_prefix("nonce ")?;
        (to_text(nonce) == text).then(|| nonce.to_owned())
    };
    parse().ok_or_else(|| StorageError::damaged(&shown, 0, "it is not as it was written"))
}
