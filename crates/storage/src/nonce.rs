//! A founder's contribution to the id of its cell. It is durable before it is sent to the other founders: so a founder
//! that restarts before it has founded the cell sends them the same one again.

use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;
use crate::whole_file::write_whole;

pub(crate) const FILE: &str = "nonce";
pub(crate) const TEMPORARY: &str = "nonce.new";

/// Makes a directory's nonce durable.
pub(crate) fn write<D: Disk>(disk: &D, nonce: &str) -> Result<(), StorageError> {
    write_whole(disk, FILE, TEMPORARY, &to_text(nonce))
}

/// Removes the nonce of a directory that is founded, if it is still there: it has no use any more.
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

/// Reads a directory's nonce.
pub(crate) fn read<D: Disk>(disk: &D) -> Result<String, StorageError> {
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
