//! Electing a primary (P§2.1, P§2.4): whoever holds the lock of a file leads, and its contents say who.

use crate::events::NodeEvents;
use crate::{Cell, Create, EventKind, LockGuard, Node, OpenOptions};
use bytes::Bytes;
use std::time::Duration;
use wombat_proto::{Error, Result, Token};

/// An election at a file.
///
/// The leader holds the file's lock and has written its value into the file, under a handle tied to its
/// sequencer, so that a value never comes from someone whose lock was lost. The value ends with the lock: when the
/// leader resigns, when its session has ended, or when its lock is broken, the cell empties the file in the same
/// instant. So a plain read of the file is right, too: it names the leader, or it is empty.
///
/// ```no_run
/// # use wombat_client::*;
/// # use std::time::Duration;
/// # async fn lead(token: Token) {}
/// # async fn example(cell: Cell) -> Result<()> {
/// let election = Election::new(&cell, "/ls/local/primary").lock_delay(Duration::from_secs(15));
/// let leadership = election.campaign("web-1:8080").await?;
/// let guard = leadership.guard();
/// match guard.run(Duration::from_secs(1), lead(guard.token())).await {
///     Ok(()) => leadership.resign().await,
///     Err(Lost) => Ok(()),
/// }
/// # }
/// ```
///
/// Who does not stand for it can watch:
///
/// ```no_run
/// # use wombat_client::*;
/// # async fn example(election: Election) -> Result<()> {
/// let mut changes = election.observe().await?;
/// while let Some(leader) = changes.next().await? {
///     match leader {
///         Some(leader) => println!("{:?} leads, token {}", leader.value, leader.token),
///         None => println!("nobody leads"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Election {
    cell: Cell,
    path: String,
    lock_delay: Duration,
}

/// Who leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    /// What it says of itself.
    pub value: Bytes,
    /// Its fencing token.
    pub token: Token,
    /// Since when it holds the lock: wall time in milliseconds since 1970, for people.
    pub since_wall_ms: u64,
    /// What its client says of itself, for people.
    pub client: String,
}

/// The lead, held until it is resigned, dropped or lost.
#[derive(Debug)]
pub struct Leadership {
    guard: LockGuard,
    file: Node,
}

impl Election {
    /// The election at `path`, a file that is made if it does not exist.
    pub fn new(cell: &Cell, path: &str) -> Election {
        Election { cell: cell.clone(), path: path.into(), lock_delay: Duration::ZERO }
    }

    /// For how long nobody else may lead after a leader's session ended without its resigning (P§2.4).
    #[must_use]
    pub fn lock_delay(mut self, delay: Duration) -> Election {
        self.lock_delay = delay;
        self
    }

    /// Waits until this session leads, then says `value` for everyone to read.
    ///
    /// Errors: [`Error::InvalidArgument`] for an empty value, and those of [`Node::acquire`].
    pub async fn campaign(&self, value: impl Into<Bytes>) -> Result<Leadership> {
        let value = leading(value.into())?;
        let options = || OpenOptions::new().write().create(Create::May).lock_delay(self.lock_delay);
        let lock = self.cell.open(&self.path, options()).await?;
        let guard = lock.acquire_as_author().await?;
        let file = self.cell.open(&self.path, options().lock_delay(Duration::ZERO)).await?;
        file.set_sequencer(guard.sequencer()).await?;
        file.set(value).await?;
        Ok(Leadership { guard, file })
    }

    /// Who leads now; `None` if nobody does.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        let leader = match self.cell.open(&self.path, OpenOptions::new()).await {
            Ok(file) => self.leader_of(&file).await,
            Err(error) => Err(error),
        };
        match leader {
            // There is no file, or it was deleted before it was read.
            Err(Error::NotFound { .. } | Error::StaleHandle) => Ok(None),
            other => other,
        }
    }

    /// The changes of the leader, beginning with the present one. The cell tells of them; only while the file does
    /// not exist it is looked for again and again. Nothing is changed.
    pub async fn observe(&self) -> Result<LeaderChanges> {
        let file = self.subscribe().await?;
        Ok(LeaderChanges { election: self.clone(), file, last: None, told: false })
    }

    /// Opens the file, if there is one, with the events after which another may lead.
    async fn subscribe(&self) -> Result<Option<(Node, NodeEvents)>> {
        let kinds = [
            EventKind::ContentsModified,
            EventKind::LockAcquired,
            EventKind::LockReleased,
            EventKind::HandleInvalid,
        ];
        match self.cell.open(&self.path, OpenOptions::new().events(&kinds)).await {
            Ok(file) => {
                let events = file.events();
                Ok(Some((file, events)))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn leader_of(&self, file: &Node) -> Result<Option<Leader>> {
        // First the value, then the lock: a value that was written after the grant to whoever still holds the
        // lock is the holder's. The other way about, it could be that of the next one.
        let (value, stat) = file.contents().await?;
        let locks = self.cell.locks(Some(&self.path)).await.map_err(|error| match error {
            Error::NotFound { .. } => Error::StaleHandle, // It was deleted since.
            other => other,
        })?;
        let path = file.path().to_string();
        let lock = locks.into_iter().find(|lock| lock.path == path);
        let holder = lock.and_then(|lock| lock.holders.into_iter().next());
        // What was written before the grant is no word of this holder's.
        let leads = holder.filter(|holder| !value.is_empty() && stat.modified_slot.0 > holder.token);
        Ok(leads.map(|holder| Leader {
            value,
            token: Token(holder.token),
            since_wall_ms: holder.since_wall_ms,
            client: holder.client,
        }))
    }
}

impl Leadership {
    /// The lock that makes the leader.
    pub fn guard(&self) -> &LockGuard {
        &self.guard
    }

    /// Waits until the lead is no longer sure. What a leader does is best done in its [`LockGuard::run`].
    pub async fn lost(&self) {
        self.guard.lost().await;
    }

    /// Says another value.
    ///
    /// Errors: [`Error::SequencerStale`] if the lead was lost, [`Error::InvalidArgument`] for an empty value.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<()> {
        self.file.set(leading(value.into())?).await.map(drop)
    }

    /// Gives the lead up: the lock goes free, and the file is empty.
    pub async fn resign(self) -> Result<()> {
        self.guard.release().await
    }
}

/// Refuses a value that nobody would take for a leader's.
fn leading(value: Bytes) -> Result<Bytes> {
    if value.is_empty() {
        return Err(Error::invalid("a leader's value is not empty: an empty file means that nobody leads"));
    }
    Ok(value)
}

/// The leaders of an election, one after the other.
pub struct LeaderChanges {
    election: Election,
    /// `None`: it did not exist at the last look.
    file: Option<(Node, NodeEvents)>,
    last: Option<Leader>,
    told: bool,
}

impl LeaderChanges {
    /// The leader, whenever it is another one than last told; `None` inside: nobody leads. The outer `None`
    /// comes when the session is over. Leaders who came and went between two looks are not told; tokens only
    /// grow. The future may be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Option<Leader>>> {
        loop {
            match self.look().await {
                Ok(leader) if !self.told || leader != self.last => {
                    self.told = true;
                    self.last.clone_from(&leader);
                    return Ok(Some(leader));
                }
                Ok(_) => {}
                Err(Error::SessionExpired) => return Ok(None),
                Err(error) => return Err(error),
            }
            match &mut self.file {
                Some((_, events)) => {
                    if events.recv().await.is_none() {
                        return Ok(None);
                    }
                    events.skip();
                }
                None => tokio::time::sleep(LOOK_FOR_FILE_EVERY).await,
            }
        }
    }

    /// Who leads, in a new file if somebody deleted the old one.
    async fn look(&mut self) -> Result<Option<Leader>> {
        loop {
            if let Some((file, _)) = &self.file {
                match self.election.leader_of(file).await {
                    Err(Error::StaleHandle) => {}
                    looked => return looked,
                }
            }
            self.file = self.election.subscribe().await?;
            if self.file.is_none() {
                return Ok(None);
            }
        }
    }
}

/// How often an observer looks for a file that does not exist. A client that caches knows it without asking.
const LOOK_FOR_FILE_EVERY: Duration = Duration::from_millis(500);
