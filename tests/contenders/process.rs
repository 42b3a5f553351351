//! A contender: a process of its own, which is this test binary once more. It takes its turns as fast as it can,
//! and tells the store when each begins and ends, until the store has enough.

use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use wombat_client::{Cell, Config, Create, Error, LockGuard, LockMode, Node, OpenOptions, Result, now};

pub(crate) const LOCK: &str = "/ls/local/lock";

/// By which a contender's process finds its role; without it there is nothing to do for it.
const ROLE: &str = "CONTENDERS_ROLE";

/// Who a contender is, and where the others are.
pub(crate) struct Role {
    pub(crate) number: usize,
    pub(crate) mode: LockMode,
    /// Of the lock.
    pub(crate) permits: u32,
    pub(crate) endpoints: String,
    pub(crate) store: String,
}

impl Role {
    /// Starts the process.
    pub(crate) fn play(&self) -> Child {
        let Role { number, mode, permits, endpoints, store } = self;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_contender", "--ignored", "--nocapture"]);
        command.env(ROLE, format!("{number} {mode} {permits} {endpoints} {store}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// The role of this process.
    fn own() -> Option<Role> {
        let role = std::env::var(ROLE).ok()?;
        let [number, mode, permits, endpoints, store] = role.split(' ').collect::<Vec<_>>()[..] else {
            panic!("no role: {role}")
        };
        Some(Role {
            number: number.parse().unwrap(),
            mode: if mode == "shared" { LockMode::Shared } else { LockMode::Exclusive },
            permits: permits.parse().unwrap(),
            endpoints: endpoints.into(),
            store: store.into(),
        })
    }
}

/// Plays the role of this process, if it has one.
pub(crate) fn live() {
    let Some(role) = Role::own() else { return };
    // Also one that stands still must not outlive the test.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut store = Line::to(&role.store).await;
        loop {
            match session(&role, &mut store).await {
                Ok(()) => return,
                // It stood still for too long, or the whole machine did, perhaps while it gave the lock back.
                // All it has left is itself.
                Err(Error::SessionExpired | Error::Unknown) => {
                    eprintln!("contender {} lost its session", role.number);
                }
                Err(error) => panic!("contender {}: {error}", role.number),
            }
        }
    });
}

/// Takes turns in one session, until the store has enough.
async fn session(role: &Role, store: &mut Line) -> Result<()> {
    let mut config = Config::new(role.endpoints.split(','));
    config.connect_timeout = std::time::Duration::from_secs(60);
    let cell = Cell::connect_with(config).await?;
    let options = OpenOptions::new().write().create(Create::May).permits(role.permits);
    let node = cell.open(LOCK, options).await?;
    store.ask(&format!("hello {} {} {}", role.number, std::process::id(), cell.session())).await;
    while turn(&node, role.mode, store).await? {}
    cell.close().await
}

/// Takes the lock once. Returns whether the store wants more.
async fn turn(node: &Node, mode: LockMode, store: &mut Line) -> Result<bool> {
    let guard = node.acquire(mode).await?;
    let answer = store.claims("begin", &guard).await;
    if answer == "took" {
        // Without looking whether it still has the lock: whoever looks first may stand still after it.
        store.claims("end", &guard).await;
    }
    guard.release().await?;
    Ok(answer != "enough")
}

/// The connection to the store: a line there, a line back.
struct Line(BufReader<TcpStream>);

impl Line {
    async fn to(store: &str) -> Line {
        Line(BufReader::new(TcpStream::connect(store).await.unwrap()))
    }

    async fn ask(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).await.unwrap();
        answer.trim_end().into()
    }

    /// A write under the lock, with the time and with what the guard believes.
    async fn claims(&mut self, what: &str, guard: &LockGuard) -> String {
        let (until, now) = (guard.safe_until().as_nanos(), now().as_nanos());
        self.ask(&format!("{what} {} {now} {until}", guard.sequencer())).await
    }
}
