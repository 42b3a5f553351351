//! A cell, as one client's session sees it.

use crate::answer::unexpected;
use crate::cache::{CacheStats, Store};
use crate::events::SessionEvents;
use crate::handle::open;
use crate::listings;
use crate::shared::{Order, Shared};
use crate::task::Task;
use crate::{Changed, Config, Multi, Node, OpenOptions, placement};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use wombat_proto::limits::CLIENT_DESCRIPTION_BYTES;
use wombat_proto::wire::{self, request::Call};
use wombat_proto::{CellName, Epoch, Error, Instant, Path, Result, Sequencer, SessionId, Token, frame};
use wombat_session::Answer;

/// A session with a cell. Clones are the same session. When the last one is dropped, and with it every node and
/// guard, the session ends as by [`Cell::close`], in the background. A process that ends with its runtime waits for
/// that for a quarter of a second at most; one that exits without dropping them leaves its session to its lease.
#[derive(Clone)]
pub struct Cell {
    name: CellName,
    pub(crate) shared: Arc<Shared>,
}

impl Cell {
    /// Connects to the cell whose replicas listen at these `host:port`s, and begins a session.
    ///
    /// Errors: [`Error::Unreachable`] says what each endpoint answered, or what was wrong with it, when no master was
    /// found in time.
    pub async fn connect(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Cell> {
        Cell::connect_with(Config::new(endpoints)).await
    }

    /// Connects as the configuration says.
    pub async fn connect_with(config: Config) -> Result<Cell> {
        if config.endpoints.is_empty() {
            return Err(Error::invalid("no endpoint is given: say where the cell listens, host:port"));
        }
        if let Some(endpoint) = config.endpoints.iter().find(|endpoint| !endpoint.contains(':')) {
            return Err(Error::invalid(format!("the endpoint {endpoint:?} has no port: write host:port")));
        }
        if let Some(cell) = &config.cell {
            CellName::parse(cell)?;
        }
        if config.client.len() > CLIENT_DESCRIPTION_BYTES {
            let what = format!("the client's description of itself: {} bytes", config.client.len());
            return Err(Error::TooLarge { what });
        }
        let (orders, taken) = mpsc::unbounded_channel();
        let (ready, told) = oneshot::channel();
        let store = Arc::new(Store::new(config.cache_bytes > 0));
        let shared = Arc::new(Shared::new(orders, Arc::clone(&store)));
        let view = Arc::clone(&shared.view);
        let task = |moved| Task::new(&config, view, store, ready, moved).run(taken, config.connect_timeout);
        placement::start(task, &shared)?;
        let name = told.await.map_err(|_| Error::SessionExpired)??;
        Ok(Cell { name, shared })
    }

    /// The cell's name.
    pub fn name(&self) -> &CellName {
        &self.name
    }

    /// The session's id. A session that has no node open and makes no call for a minute is ended, and the next
    /// call begins another; nothing is lost with it.
    pub fn session(&self) -> SessionId {
        self.shared.view.session()
    }

    /// The epoch of the master, as far as the session knows.
    pub fn epoch(&self) -> Epoch {
        self.shared.view.epoch()
    }

    /// Until when the session, and with it every lock that it holds, is surely alive: the client's own view
    /// of its lease (P§2.8). In the past once it is lost.
    pub fn safe_until(&self) -> Instant {
        self.shared.view.safe_until()
    }

    /// The life of the session, from now on.
    pub fn session_events(&self) -> SessionEvents {
        SessionEvents { receiver: self.shared.view.listen() }
    }

    /// How the session's cache is.
    pub fn cache_stats(&self) -> CacheStats {
        self.shared.store.stats()
    }

    /// Opens the node of a name, `/ls/<cell>/…`; the cell `local` stands for this one. If the cache knows that there
    /// is none, or has a handle on it that was opened in the same way and kept, the cell is not asked (P§2.7).
    ///
    /// Errors: [`Error::NotFound`] for it or for the directory to make it in, [`Error::AlreadyExists`],
    /// [`Error::IsDirectory`], [`Error::NotDirectory`], [`Error::InvalidArgument`] for a name that is none.
    pub async fn open(&self, path: &str, options: OpenOptions) -> Result<Node> {
        let path = self.resolve(path)?;
        open(&self.shared, None, path.to_string(), path, options).await.map(Node::new)
    }

    /// A whole name, with this cell for `local`.
    pub fn resolve(&self, path: &str) -> Result<Path> {
        let mut path = Path::parse(path)?;
        if path.cell.as_str() == CellName::LOCAL {
            path.cell = self.name.clone();
        }
        Ok(path)
    }

    /// Makes several changes as one, or none of them.
    ///
    /// Returns what became of each change. Errors: that of the first guard or change that fails.
    pub async fn multi(&self, multi: Multi) -> Result<Vec<Changed>> {
        let multi = multi.into_wire(|path| self.resolve(path).map(|path| path.to_string()))?;
        // With the largest numbers that the request's other fields can have.
        let request = wire::Request {
            session: u64::MAX,
            number: u64::MAX,
            epoch: u64::MAX,
            acknowledged: u64::MAX,
            call: Some(Call::Multi(multi.clone())),
        };
        if !frame::fits(&request) {
            let what = "a Multi that is longer than a frame; write its large files one by one".into();
            return Err(Error::TooLarge { what });
        }
        match self.shared.call(Call::Multi(multi)).await? {
            Answer::MultiDone(done) => {
                let names = done.names.into_iter().chain(std::iter::repeat(String::new()));
                let changed = |(stat, name): (wire::Stat, String)| Changed {
                    stat: (stat.instance != 0).then(|| stat.into()),
                    name: (!name.is_empty()).then_some(name),
                };
                Ok(done.stats.into_iter().zip(names).map(changed).collect())
            }
            _ => Err(unexpected()),
        }
    }

    /// Whether the lock that a sequencer speaks of is still held as it says.
    ///
    /// Errors: [`Error::SequencerStale`] if it is not.
    pub async fn check_sequencer(&self, sequencer: &Sequencer) -> Result<()> {
        let check = wire::CheckSequencer { sequencer: sequencer.to_string() };
        self.shared.call(Call::CheckSequencer(check)).await.map(drop)
    }

    /// Whether nobody has had the lock since that a sequencer speaks of: told from the cache, without a round trip
    /// once the lock's file is cached (P§2.4). It is no less sure than asking the cell, but it says less: a lock
    /// that was given back, and that nobody else has taken yet, passes; and of several who share a lock it knows
    /// none. The lock's file has to be a permanent one: a handle on an ephemeral one is not kept, so that each
    /// check would open and close it through the log, and takes it from everybody's cache.
    ///
    /// Errors: [`Error::SequencerStale`] if somebody has, or the lock's file is gone.
    pub async fn check_sequencer_cached(&self, sequencer: &Sequencer) -> Result<()> {
        let stale = |error| match error {
            Error::NotFound { .. } | Error::StaleHandle => Error::SequencerStale,
            other => other,
        };
        let lock = self.open(&sequencer.path.to_string(), OpenOptions::new()).await.map_err(stale)?;
        let stat = lock.stat().await.map_err(stale)?;
        let newest = (stat.instance, stat.lock_generation) == (sequencer.instance, sequencer.generation);
        if newest { Ok(()) } else { Err(Error::SequencerStale) }
    }

    /// How the replica that serves this session is.
    pub async fn status(&self) -> Result<wire::Status> {
        match self.shared.call(Call::GetStatus(wire::GetStatus {})).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(unexpected()),
        }
    }

    /// All sessions of the cell.
    pub async fn sessions(&self) -> Result<Vec<wire::SessionInfo>> {
        listings::sessions(&*self.shared).await
    }

    /// The locks that are held, waited for or in a lock-delay: of one node and all below it, or of the cell.
    pub async fn locks(&self, path: Option<&str>) -> Result<Vec<wire::LockInfo>> {
        let path = path.map(|path| self.resolve(path)).transpose()?;
        listings::locks(&*self.shared, path.map_or_else(String::new, |path| path.to_string())).await
    }

    /// Takes a lock from whoever holds it, or from the holder of one grant only. Each holder is told first, and
    /// has a few seconds to stop what it does under the lock; one that cannot be reached is waited for until its
    /// lease has ended. Lock-delays are kept. It is noted in the cell's [`Cell::audit`], with the reason.
    ///
    /// Errors: [`Error::NotHeld`], [`Error::NotFound`].
    pub async fn break_lock(&self, path: &str, holder: Option<Token>, reason: &str) -> Result<()> {
        let path = self.resolve(path)?.to_string();
        let token = holder.map_or(0, |token| token.0);
        let call = wire::BreakLock { path, token, reason: reason.into() };
        match self.shared.call(Call::BreakLock(call)).await? {
            Answer::Done(_) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// What administrators did, the oldest first, as far as the cell remembers.
    pub async fn audit(&self) -> Result<Vec<wire::AuditEntry>> {
        listings::audit(&*self.shared).await
    }

    /// Ends the session: its locks go free at once and its ephemeral nodes vanish. Every node, guard and clone
    /// of this cell fails from then on.
    pub async fn close(self) -> Result<()> {
        let (told, ended) = oneshot::channel();
        if self.shared.orders.send(Order::End(told)).is_ok() {
            let _gone_either_way = ended.await;
        }
        Ok(())
    }
}
