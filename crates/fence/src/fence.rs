//! The fence: which locks guard a service, and whose sequencers it admits.

use crate::Refused;
use crate::memory::{Memory, Seen};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError, RwLock};
use wombat_proto::{CellName, Error, NodePath, Sequencer, Token};

type Keep = dyn Fn(&Sequencer) -> io::Result<()> + Send + Sync;

/// How many locks below directories a fence remembers if nothing else is said.
const MOST_LOCKS: usize = 16 * 1024;

/// Checks the sequencers of the locks that guard a service (P§2.4). One for all the threads of a service; a
/// check of a sequencer that is as new as the newest takes a read lock for one look-up.
///
/// It guards nothing until it is told by which locks: [`Fence::lock`], [`Fence::locks_below`].
pub struct Fence {
    cell: CellName,
    /// The locks that are named one by one.
    locks: BTreeSet<NodePath>,
    /// The directories below which every lock will do.
    directories: BTreeSet<NodePath>,
    /// Of the named locks nothing is ever forgotten: they are as many as were named.
    of_locks: RwLock<Memory>,
    of_directories: RwLock<Memory>,
    keep: Option<Box<Keep>>,
    /// Whoever brings a newer token than all before holds it until that is kept and remembered; those with
    /// known ones pass meanwhile.
    newcomer: Mutex<()>,
}

impl Fence {
    /// A fence for locks of one cell, by its own name: sequencers never say `local` unless the cell is called
    /// so.
    pub fn of_cell(cell: &str) -> Result<Fence, Error> {
        Ok(Fence {
            cell: CellName::parse(cell)?,
            locks: BTreeSet::new(),
            directories: BTreeSet::new(),
            of_locks: RwLock::new(Memory::new(usize::MAX)),
            of_directories: RwLock::new(Memory::new(MOST_LOCKS)),
            keep: None,
            newcomer: Mutex::new(()),
        })
    }

    /// Admits holders of this lock, `primary` for `/ls/<cell>/primary`.
    pub fn lock(mut self, path: &str) -> Result<Fence, Error> {
        self.locks.insert(NodePath::parse(path)?);
        Ok(self)
    }

    /// Admits holders of every lock below this directory. Whoever may create nodes there can bring a lock of
    /// his own; and where each lock guards something else, [`Fence::check_of`] says which is wanted.
    ///
    /// Errors: [`Error::InvalidArgument`] for the root, below which everybody has a lock.
    pub fn locks_below(mut self, directory: &str) -> Result<Fence, Error> {
        let directory = NodePath::parse(directory)?;
        if directory.is_root() {
            return Err(Error::invalid("below the root every lock would do; name a directory"));
        }
        self.directories.insert(directory);
        Ok(self)
    }

    /// Remembers so many of the locks below directories, at least one, instead of 16,384. When there are more
    /// it forgets those that were granted first, and from then on refuses of locks that it does not know every
    /// sequencer that was granted before one that it forgot: it may refuse a holder of long standing, who can
    /// acquire again, but never admits a stale one.
    #[must_use]
    pub fn remembering(mut self, most_locks: usize) -> Fence {
        self.of_directories = RwLock::new(Memory::new(most_locks.max(1)));
        self
    }

    /// Makes each newer token durable before it is admitted: `keep` stores the sequencer's text under its path,
    /// in place of the last one, and returns when it is safe, or fails and the sequencer is refused. It is
    /// called once for a grant, by one thread at a time, on the caller's own thread.
    #[must_use]
    pub fn keeping(mut self, keep: impl Fn(&Sequencer) -> io::Result<()> + Send + Sync + 'static) -> Fence {
        self.keep = Some(Box::new(keep));
        self
    }

    /// Remembers what was kept before a restart, in any order. What is of no lock of this fence is passed over.
    #[must_use]
    pub fn restore(self, kept: impl IntoIterator<Item = Sequencer>) -> Fence {
        for sequencer in kept {
            if let Ok(memory) = self.memory_of(&sequencer) {
                let mut memory = write(memory);
                match memory.judge(&sequencer) {
                    Ok(Seen::Newer) => memory.remember(&sequencer),
                    Ok(Seen::AsNew) | Err(_) => {}
                }
            }
        }
        self
    }

    /// Refuses what was granted before `token`, of locks that it does not know. For a fence that keeps nothing
    /// durable: with the token of some lock that the service takes for itself when it starts, no sequencer from
    /// before the start passes, and holders of that time acquire again.
    #[must_use]
    pub fn refuse_before(self, token: Token) -> Fence {
        write(&self.of_locks).raise_floor(token);
        write(&self.of_directories).raise_floor(token);
        self
    }

    /// The newest sequencer of each lock that it remembers, in no order: with [`Fence::floor`], all that a
    /// fence knows.
    pub fn newest(&self) -> Vec<Sequencer> {
        let (locks, directories) = (read(&self.of_locks), read(&self.of_directories));
        locks.newest().chain(directories.newest()).collect()
    }

    /// What was granted before it is refused, of locks below directories that the fence does not know. What
    /// was kept of smaller tokens there can be thrown away once [`Fence::refuse_before`] is given this at the
    /// next start.
    pub fn floor(&self) -> Token {
        read(&self.of_directories).floor()
    }

    /// Admits a sequencer, or says why not. Once it is admitted, those of earlier tenures of its lock never are.
    pub fn check(&self, sequencer: &Sequencer) -> Result<(), Refused> {
        let judged = read(self.memory_of(sequencer)?).judge(sequencer)?;
        match judged {
            Seen::AsNew => Ok(()),
            Seen::Newer => self.admit_newer(sequencer),
        }
    }

    /// As [`Fence::check`], for a request that one lock guards: `shards/7`, and not some other below `shards`.
    pub fn check_of(&self, lock: &str, sequencer: &Sequencer) -> Result<(), Refused> {
        self.is_of(lock, sequencer)?;
        self.check(sequencer)
    }

    /// As [`Fence::check`], of a sequencer's text.
    pub fn check_text(&self, text: &str) -> Result<Sequencer, Refused> {
        let sequencer = text.parse().map_err(Refused::Damaged)?;
        self.check(&sequencer)?;
        Ok(sequencer)
    }

    /// As [`Fence::check`], and asks the cell, too: it knows at once of a lock that was given back or lost, also
    /// of one share of many, and cannot be lied to. `answer` is the question, which is not asked if the
    /// sequencer is stale by what the fence has seen:
    /// `fence.check_and_ask(&sequencer, cell.check_sequencer(&sequencer))`.
    pub async fn check_and_ask(
        &self,
        sequencer: &Sequencer,
        answer: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Refused> {
        read(self.memory_of(sequencer)?).judge(sequencer)?;
        match answer.await {
            // What the cell has not confirmed is not remembered either: it might be made up.
            Ok(()) => self.check(sequencer),
            Err(Error::SequencerStale) => Err(Refused::NotHeld { path: sequencer.path.to_string() }),
            Err(error) => Err(Refused::CellSilent(error)),
        }
    }

    /// Keeps and remembers a sequencer that was newer than all before when it was judged. While it waited for
    /// its turn a newer one may have come in: it is judged again.
    pub(crate) fn admit_newer(&self, sequencer: &Sequencer) -> Result<(), Refused> {
        let _one_at_a_time = self.newcomer.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = self.memory_of(sequencer)?;
        let judged = read(memory).judge(sequencer)?;
        if judged == Seen::Newer {
            self.keep.as_ref().map_or(Ok(()), |keep| keep(sequencer)).map_err(Refused::NotKept)?;
            write(memory).remember(sequencer);
        }
        Ok(())
    }

    /// Whether a sequencer is of the lock that is meant.
    pub(crate) fn is_of(&self, lock: &str, sequencer: &Sequencer) -> Result<(), Refused> {
        let wanted = format!("/ls/{}/{lock}", self.cell);
        let path = sequencer.path.to_string();
        if path == wanted { Ok(()) } else { Err(Refused::OtherLock { path, wanted }) }
    }

    /// Where the sequencers of its lock are remembered.
    ///
    /// Errors: the lock guards nothing here.
    fn memory_of(&self, sequencer: &Sequencer) -> Result<&RwLock<Memory>, Refused> {
        let node = &sequencer.path.node;
        let below = |directory: &NodePath| {
            node.names().len() > directory.names().len() && node.names().starts_with(directory.names())
        };
        if sequencer.path.cell != self.cell {
            Err(self.other_lock(sequencer))
        } else if self.locks.contains(node) {
            Ok(&self.of_locks)
        } else if self.directories.iter().any(below) {
            Ok(&self.of_directories)
        } else {
            Err(self.other_lock(sequencer))
        }
    }

    fn other_lock(&self, sequencer: &Sequencer) -> Refused {
        let locks = self.locks.iter().map(|lock| format!("/ls/{}/{lock}", self.cell));
        let below = self.directories.iter().map(|it| format!("a lock below /ls/{}/{it}", self.cell));
        let wanted = locks.chain(below).collect::<Vec<_>>().join(", or ");
        Refused::OtherLock { path: sequencer.path.to_string(), wanted }
    }
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Fence { cell, locks, directories, .. } = self;
        f.debug_struct("Fence")
            .field("cell", cell)
            .field("locks", locks)
            .field("directories", directories)
            .finish_non_exhaustive()
    }
}

fn read(memory: &RwLock<Memory>) -> std::sync::RwLockReadGuard<'_, Memory> {
    memory.read().expect("nobody panics with it")
}

fn write(memory: &RwLock<Memory>) -> std::sync::RwLockWriteGuard<'_, Memory> {
    memory.write().expect("nobody panics with it")
}
