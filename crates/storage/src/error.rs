//! What can be wrong with a data directory, and what to do about it.

use std::fmt;
use std::io;

/// A failure of the storage. After one from a write or a sync the store takes no more calls.
#[derive(Debug)]
pub enum StorageError {
    /// The operating system refused something.
    Io {
        /// Which file.
        file: String,
        /// What was tried.
        operation: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// There is no space left. Nothing that was acknowledged is lost.
    DiskFull {
        /// Which file could not grow.
        file: String,
    },
    /// Something that had been durable has changed.
    Damaged {
        /// In which file.
        file: String,
        /// Where, in bytes from its beginning.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// Another server has the directory open.
    InUse {
        /// Which directory.
        directory: String,
    },
    /// The directory holds something, but no data of Wombat's.
    NotADataDirectory {
        /// Which directory.
        directory: String,
        /// A file that it holds.
        found: String,
    },
    /// The directory was written in another format.
    OtherFormat {
        /// Which file says so.
        file: String,
        /// The format that it is in.
        found: String,
    },
    /// The data has turned out to be wrong, and was given up.
    Condemned {
        /// Where that is said.
        file: String,
        /// Why.
        why: String,
    },
    /// The directory belongs to another cell or replica.
    OtherOwner {
        /// Which file says so.
        file: String,
        /// Whose it is.
        found: String,
        /// Who wants it.
        wanted: String,
    },
    /// A command is longer than one may be. Nothing was written, and the store goes on.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// An earlier write or sync failed.
    Stopped,
}

impl StorageError {
    pub(crate) fn io(file: impl Into<String>, operation: &'static str, source: io::Error) -> StorageError {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::DiskFull { file },
            _ => StorageError::Io { file, operation, source },
        }
    }

    pub(crate) fn damaged(file: impl Into<String>, offset: u64, what: impl Into<String>) -> StorageError {
        StorageError::Damaged { file: file.into(), offset, what: what.into() }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Io { file, operation, source } => write!(f, "cannot {operation} {file}: {source}"),
            StorageError::DiskFull { file } => write!(
                f,
                "the disk is full: {file} cannot grow. Nothing that was acknowledged is lost; \
                 make room, then start the server again"
            ),
            StorageError::Damaged { file, offset, what } => write!(
                f,
                "{file} is damaged at byte {offset}: {what}. It had been written and synced, so this is no \
                 crash's leftover, and starting without it could lose what was acknowledged. Look at the \
                 disk. A replica with peers: move this directory away and start again, it joins the cell \
                 again. A cell of one: restore the directory from a backup"
            ),
            StorageError::InUse { directory } => {
                write!(
                    f,
                    "{directory} is in use by another server; stop that one, or choose another directory"
                )
            }
            StorageError::NotADataDirectory { directory, found } => write!(
                f,
                "{directory} holds {found}, but no Wombat data; choose an empty directory or the right one"
            ),
            StorageError::OtherFormat { file, found } => write!(
                f,
                "{file} says that the directory is in the format {found}; this version reads format 1. \
                 Use the version that wrote it"
            ),
            StorageError::Condemned { file, why } => write!(
                f,
                "{file} says that the data here must not be used: {why}. Move the directory away and start \
                 again: the replica then joins its cell again"
            ),
            StorageError::OtherOwner { file, found, wanted } => write!(
                f,
                "{file} says that the directory belongs to {found}, but it was opened for {wanted}. \
                 Choose the right directory, or the right cell and replica"
            ),
            StorageError::TooLong { bytes, limit } => {
                write!(f, "a command of {bytes} bytes is too long for the log: it may have at most {limit}")
            }
            StorageError::Stopped => f.write_str("the storage has stopped after an earlier failure"),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StorageError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
