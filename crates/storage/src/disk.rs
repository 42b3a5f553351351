//! The little that the storage asks of a disk: one flat directory of files.

use std::io::Result;

/// A directory of files.
pub trait Disk: Clone + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names of all files.
    fn list(&self) -> Result<Vec<String>>;
    /// Opens an existing file.
    fn open(&self, name: &str) -> Result<Self::File>;
    /// Makes an empty file, in place of an earlier one of that name.
    fn create(&self, name: &str) -> Result<Self::File>;
    /// Renames a file, in place of an earlier one of the new name.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> Result<()>;
    /// Makes what [`Disk::create`], [`Disk::rename`] and [`Disk::remove`] did durable.
    fn sync_directory(&self) -> Result<()>;
    /// How to name a file to people.
    fn describe(&self, name: &str) -> String;
}

/// An open file.
pub trait DiskFile: Send + 'static {
    /// Its length in bytes.
    fn length(&self) -> Result<u64>;
    /// The whole of it.
    fn read_all(&self) -> Result<Vec<u8>>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// What no copy of the file shares with it.
    fn fingerprint(&self) -> Result<String>;
    /// Makes what was written durable, and the length with it.
    fn sync(&self) -> Result<()>;
}
