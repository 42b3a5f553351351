//! A running server: its thread, its listener, and how it stops.

use crate::admission::{Admission, Limits};
use crate::core::Core;
use crate::entrance::{Entrance, IDLE_CHECK_INTERVAL};
use crate::inbox::Inbox;
use crate::metrics::Scrapes;
use crate::peers::Datagrams;
use crate::{Config, ServerError, founding};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};
use wombat_proto::limits::{CONNECTIONS, DESCRIPTORS};
use wombat_storage::{Identity, RealDisk};

/// How long a master that was told to stop waits at most until another has taken its place.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

/// A server that is running on a thread of its own.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: Arc<Ended>,
    thread: Option<JoinHandle<()>>,
}

/// How the server's thread ended.
#[derive(Default)]
struct Ended {
    result: Mutex<Option<Result<(), ServerError>>>,
    notify: Notify,
}

impl Server {
    /// Starts a server and returns when it serves.
    ///
    /// Errors: the configuration cannot work, the data directory is of another cell, damaged or in use, the
    /// address is taken.
    pub fn start(config: Config) -> Result<Server, ServerError> {
        let (ready_sender, ready) = mpsc::channel();
        let ready_sender = move |address| {
            let _nobody_waits = ready_sender.send(address);
        };
        let starting = Starting::begin(config, ready_sender)?;
        starting.ended_or(ready.recv().ok())
    }

    /// Starts a server and returns when it serves, or `None` once `stop` is ready and the server has stopped
    /// before it served. A founder that waits for the others may do so for long.
    ///
    /// Errors: as [`Server::start`].
    pub async fn start_unless(
        config: Config,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Server>, ServerError> {
        let (ready_sender, ready) = oneshot::channel();
        let ready_sender = move |address| {
            let _nobody_waits = ready_sender.send(address);
        };
        let starting = Starting::begin(config, ready_sender)?;
        tokio::select! {
            address = ready => starting.ended_or(address.ok()).map(Some),
            () = stop => starting.give_up().map(|()| None),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it cleanly: connections are closed, the log is closed.
    pub fn stop(mut self) -> Result<(), ServerError> {
        self.stop_and_join();
        self.ended.take()
    }

    /// Waits until it stops by itself, which it does only when it cannot go on, and tells why.
    pub async fn failed(&self) -> ServerError {
        self.ended.notify.notified().await;
        self.ended.take().err().unwrap_or(ServerError::Vanished)
    }

    fn stop_and_join(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _it_told_why = thread.join();
        }
    }
}

/// A server's thread that does not serve yet.
struct Starting {
    stop: oneshot::Sender<()>,
    ended: Arc<Ended>,
    thread: JoinHandle<()>,
}

impl Starting {
    /// Calls `ready` once it serves, and drops it if it never will.
    fn begin(config: Config, ready: impl FnOnce(SocketAddr) + Send + 'static) -> Result<Self, ServerError> {
        let descriptors = allow_many_files();
        let (stop, stopped) = oneshot::channel();
        let ended = Arc::new(Ended::default());
        let told = Arc::clone(&ended);
        let thread = std::thread::Builder::new().name("wombat-core".into()).spawn(move || {
            let result = run(&config, descriptors, ready, stopped);
            *told.result.lock().expect("nobody panics with it") = Some(result);
            told.notify.notify_one();
        })?;
        Ok(Starting { stop, ended, thread })
    }

    /// The server at its address; without one, why it ended.
    fn ended_or(self, address: Option<SocketAddr>) -> Result<Server, ServerError> {
        let Starting { stop, ended, thread } = self;
        if let Some(address) = address {
            return Ok(Server { address, stop: Some(stop), ended, thread: Some(thread) });
        }
        let _it_told_why = thread.join();
        Err(ended.take().err().unwrap_or(ServerError::Vanished))
    }

    fn give_up(self) -> Result<(), ServerError> {
        drop(self.stop);
        let _it_told_why = self.thread.join();
        self.ended.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

impl Ended {
    fn take(&self) -> Result<(), ServerError> {
        let result = self.result.lock().expect("nobody panics with it").take();
        result.unwrap_or(Err(ServerError::Vanished))
    }
}

/// Every connection takes a descriptor; the usual soft limit of 1,024 is for programs that use select. Returns how
/// many there may be.
fn allow_many_files() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return DESCRIPTORS };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

/// The life of the server's thread.
fn run(
    config: &Config,
    descriptors: usize,
    ready: impl FnOnce(SocketAddr),
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        config.check()?;
        if config.session_lease < 8 * config.master_lease {
            warn!(
                "a session lease of {} ms is short beside a master lease of {} ms: a master that stalls may cost \
                 sessions their lives; let it be eight times as long",
                config.session_lease.as_millis(),
                config.master_lease.as_millis()
            );
        }
        let disk = RealDisk::open(&config.dir)?;
        let listen = |source| ServerError::Listen { address: config.listen.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen)?;
        let address = listener.local_addr()?;
        let scrapes = Scrapes::listen(config.metrics.as_deref()).await?;
        let reached_at = config.advertise.clone().unwrap_or_else(|| address.to_string());
        let identity = match Identity::of(&disk)? {
            Some(identity) => Identity { cell: config.cell.clone(), ..identity },
            None => tokio::select! {
                identity = founding::found(config, &disk, &listener, &reached_at) => identity?,
                _ = &mut stopped => return Ok(()),
            },
        };
        let limits = Limits::new(descriptors, config.connections_per_address);
        if limits.clients < CONNECTIONS {
            warn!(
                "{descriptors} open files are allowed, which is enough for {} of {CONNECTIONS} clients: raise the \
                 limit (LimitNOFILE=, ulimit -n) to {DESCRIPTORS}",
                limits.clients
            );
        }
        let datagrams = datagrams(address).await;
        let mut core = Core::start(config, disk, &identity, reached_at, Admission::new(limits), datagrams)?;
        info!(%address, "serving replica {} of cell {} in {}", identity.replica, config.cell, config.dir.display());
        ready(address);
        let served = serve(&mut core, listener, scrapes, stopped).await;
        served.and(core.close())
    })
}

/// The socket for datagrams, if the system gives one: replicas do without.
async fn datagrams(address: SocketAddr) -> Option<Rc<Datagrams>> {
    let socket = Datagrams::bind(address).await;
    socket.map(Rc::new).inspect_err(|error| warn!("no datagrams at UDP {address}: {error}")).ok()
}

/// Serves until told to stop, or until the disk fails.
async fn serve(
    core: &mut Core,
    listener: TcpListener,
    mut scrapes: Scrapes,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), ServerError> {
    let mut entrance = Entrance::new(listener, core);
    let ways = Rc::clone(entrance.ways());
    if let Some(datagrams) = core.peers.datagrams(&ways.inbox) {
        ways.listening.add(datagrams);
    }
    let mut idle_check = tokio::time::interval(IDLE_CHECK_INTERVAL);
    idle_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Once told to stop: after which epoch, and by when at the latest.
    let mut leaving = None;
    // Turns and new connections take turns, so that no flood of either keeps the other out.
    let mut turned = false;
    loop {
        let idle_for = core.idle_for();
        if leaving.is_some_and(|(epoch, at)| core.epoch() > epoch || Instant::now() >= at) {
            return Ok(());
        }
        tokio::select! {
            biased;
            _ = &mut stopped, if leaving.is_none() => {
                if !core.hand_over()? {
                    return Ok(());
                }
                info!("another is to be master before this replica stops");
                leaving = Some((core.epoch(), Instant::now() + HAND_OVER_WITHIN));
            }
            () = ways.listening.listen() => {}
            done = core.disk_done() => {
                let done = done?;
                core.take_done(done)?;
            }
            asked = scrapes.next() => asked.answer(&core.status()),
            accepted = entrance.accept(), if turned => {
                turned = false;
                entrance.admit(core, accepted);
            }
            () = ways.inbox.filled() => {
                turned = true;
                turn(core, &ways.inbox).await?;
            }
            accepted = entrance.accept(), if !turned => entrance.admit(core, accepted),
            _ = idle_check.tick() => entrance.close_idle(core),
            () = tokio::time::sleep(idle_for) => turn(core, &ways.inbox).await?,
        }
    }
}

/// Whoever else is ready to hand something in may share this turn and its fsync; after a stall, the KeepAlives
/// that lie in the sockets come before anybody's lease is looked at.
async fn turn(core: &mut Core, inbox: &Inbox) -> Result<(), ServerError> {
    tokio::task::yield_now().await;
    core.turn(inbox)
}
