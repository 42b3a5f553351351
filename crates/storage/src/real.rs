//! A directory of the operating system's.

use crate::StorageError;
use crate::disk::{Disk, DiskFile};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The file whose lock says that a server has the directory open.
pub(crate) const LOCK_FILE: &str = "lock";

/// A directory on a real disk, held by this process alone.
#[derive(Clone)]
pub struct RealDisk {
    directory: Arc<PathBuf>,
    /// Unlocked when the last clone is gone.
    _lock: Arc<File>,
}

impl RealDisk {
    /// Takes the directory, making it if it is missing.
    ///
    /// Errors: [`StorageError::InUse`] if another server has it.
    pub fn open(directory: &Path) -> Result<RealDisk, StorageError> {
        let shown = directory.display().to_string();
        make_directory(directory).map_err(|error| StorageError::io(&shown, "make the directory", error))?;
        let path = directory.join(LOCK_FILE);
        let lock = private().create(true).truncate(false).open(&path);
        let lock = lock.map_err(|error| StorageError::io(path.display().to_string(), "open", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(RealDisk { directory: Arc::new(directory.to_owned()), _lock: Arc::new(lock) }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse { directory: shown }),
            Err(TryLockError::Error(error)) => Err(StorageError::io(shown, "lock", error)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Makes a directory and those above it as far as they are missing. Each is durable in the one above it: else
/// a power failure could take the whole directory away, however well its files are synced.
fn make_directory(directory: &Path) -> io::Result<()> {
    let parent = match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let sync = || File::open(parent)?.sync_all();
    if directory.is_dir() {
        // Who made it may have died before this; but the one above may also be closed to us.
        let _best_effort = sync();
        return Ok(());
    }
    make_directory(parent)?;
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if !directory.is_dir() => Err(error),
        _ => sync(),
    }
}

/// Readable and writable, by us alone: the log holds the cell's key.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&*self.directory)?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        private().open(self.path(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        private().create(true).truncate(true).open(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&*self.directory)?.sync_all()
    }

    fn describe(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut file = self;
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn fingerprint(&self) -> io::Result<String> {
        let metadata = self.metadata()?;
        // Not every file system knows when a file was made.
        let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        let made = made.map_or("an unknown time".into(), |made| format!("{} ns", made.as_nanos()));
        Ok(format!("{} made at {made}", metadata.ino()))
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
