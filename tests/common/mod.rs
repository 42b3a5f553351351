//! Real processes for the tests: a server that can be killed and started again, and the tool.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub(crate) mod far;
pub(crate) mod five;
pub(crate) mod network;
pub(crate) mod raw;
pub(crate) mod store;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use wombat_client::{Cell, Create, Node, OpenOptions};

pub(crate) const WOMBAT: &str = env!("CARGO_BIN_EXE_wombat");

/// Addresses of this machine's at which nobody listens.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    let listeners: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
}

/// A server process on a data directory.
pub(crate) struct Serve {
    pub(crate) dir: PathBuf,
    pub(crate) address: String,
    pub(crate) lease: String,
    /// Where it tells its metrics.
    pub(crate) metrics: String,
    child: Option<Child>,
}

impl Serve {
    /// Starts a server on a free port.
    pub(crate) fn start(dir: &Path, lease: &str) -> Serve {
        let (address, metrics) = ("127.0.0.1:0".into(), String::new());
        let mut serve = Serve { dir: dir.to_owned(), address, lease: lease.into(), metrics, child: None };
        serve.restart();
        serve
    }

    /// Starts it again, at the same address.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        self.address = loop {
            let Some(Ok(line)) = lines.next() else { panic!("the server did not start: {said}") };
            if let Some((_, address)) = line.split_once("ready: wombat serves at ") {
                break address.to_owned();
            }
            if let Some((_, url)) = line.split_once("metrics at http://") {
                self.metrics = url.trim_end_matches("/metrics").to_owned();
            }
            said.push_str(&line);
            said.push('\n');
        };
        // Whatever it says further must not fill the pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(WOMBAT);
        command.args(["serve", "--cell", "local", "--listen", &self.address, "--session-lease", &self.lease]);
        command.args(["--metrics", "127.0.0.1:0"]).arg("--dir").arg(&self.dir).env_remove("RUST_LOG");
        command
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; returns its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), "TERM");
        child.wait().unwrap().code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The tool, speaking to this server.
    pub(crate) fn wombat(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(WOMBAT);
        command.args(arguments).stdin(Stdio::null());
        self.environment(&mut command);
        command
    }

    /// Lets a command find this server and the tool.
    pub(crate) fn environment(&self, command: &mut Command) {
        let tool = Path::new(WOMBAT).parent().unwrap().display().to_string();
        command.env("WOMBAT_ENDPOINTS", &self.address);
        command.env("PATH", format!("{tool}:{}", std::env::var("PATH").unwrap()));
        command.env_remove("WOMBAT_CELL").env_remove("WOMBAT_SEQUENCER");
    }

    /// Runs the tool and returns what it printed; panics if it fails.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.wombat(arguments).output().unwrap();
        assert!(output.status.success(), "wombat {arguments:?}: {}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the tool, expects it to fail with a code, and returns what it said.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.wombat(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "wombat {arguments:?}: {}", shown(&output));
        String::from_utf8(output.stderr).unwrap()
    }
}

/// A server with an empty directory and that session lease.
pub(crate) fn serve(lease: &str) -> (tempfile::TempDir, Serve) {
    let dir = tempfile::tempdir().unwrap();
    let serve = Serve::start(&dir.path().join("data"), lease);
    (dir, serve)
}

/// A session with a server's cell.
pub(crate) async fn connect(serve: &Serve) -> Cell {
    connect_to(&serve.address).await
}

/// A session with the cell at an address.
pub(crate) async fn connect_to(address: &str) -> Cell {
    Cell::connect([address]).await.unwrap()
}

/// A file that is made if it does not exist.
pub(crate) async fn open(cell: &Cell, path: &str) -> Node {
    cell.open(path, OpenOptions::new().write().create(Create::May)).await.unwrap()
}

impl Drop for Serve {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// `cp -a`, of everything in a directory to another.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success());
}

pub(crate) fn shown(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{} {} {}", output.status, text(&output.stdout), text(&output.stderr))
}

pub(crate) fn signal(pid: u32, name: &str) {
    let _gone_already =
        Command::new("kill").args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Looks again and again until there is something to see; three minutes are far more than anything here takes.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn is_alive(pid: u32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z') // A zombie is dead, too.
}

/// Whether a SIGSTOP has taken hold of all of a process.
pub(crate) fn is_stopped(pid: u32) -> bool {
    state_of(pid) == Some('T')
}

fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Runs a future for two minutes at most.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), future).await.expect("in two minutes")
    })
}

/// Waits until so many wait for a lock.
pub(crate) async fn wait_for_waiters(cell: &Cell, path: &str, count: u64) {
    loop {
        let locks = cell.locks(Some(path)).await.unwrap();
        if locks.iter().map(|lock| lock.waiting).sum::<u64>() == count {
            return;
        }
    }
}

/// Lets a future run for as long as several calls take, and sees that it does not end.
pub(crate) async fn does_not_end<T>(cell: &Cell, future: impl Future<Output = T>) {
    let calls = async {
        for _ in 0..10 {
            cell.status().await.unwrap();
        }
    };
    tokio::select! {
        biased;
        _ = future => panic!("it has ended"),
        () = calls => {}
    }
}
