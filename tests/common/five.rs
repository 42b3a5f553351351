//! A cell of several real server processes, on loopback or on hosts that the test made itself.

use super::far::relay_slowly;
use super::{WOMBAT, copy, free_addresses, is_stopped, signal, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A replica's process and where it runs.
pub(crate) struct Replica {
    pub(crate) address: String,
    /// Where it listens, if that is not the address.
    listen: Option<String>,
    dir: PathBuf,
    /// The network namespace that it runs in, if not in this one.
    host: Option<String>,
    child: Option<Child>,
}

/// A cell of several replicas, numbered from 0.
pub(crate) struct Five {
    pub(crate) replicas: Vec<Replica>,
    /// What every server is told besides its place.
    settings: Vec<String>,
    /// How many files each may have open; `None`: as many as this process.
    descriptors: Option<usize>,
}

/// The settings of a cell of which no more is said.
pub(crate) const SETTINGS: [&str; 2] = ["--session-lease", "6s"];

impl Five {
    /// Starts as many replicas on free ports.
    pub(crate) fn start(dir: &Path, replicas: usize) -> Five {
        Five::start_with(dir, replicas, &SETTINGS)
    }

    /// Starts as many replicas on free ports, with settings of their own.
    pub(crate) fn start_with(dir: &Path, replicas: usize, settings: &[&str]) -> Five {
        let at = free_addresses(replicas).into_iter().map(|address| (address, None)).collect();
        let five = Five::planned(dir, at, settings).started();
        five.master();
        five
    }

    /// Starts a replica at each address, on that host.
    pub(crate) fn start_without_waiting(dir: &Path, at: Vec<(String, Option<String>)>) -> Five {
        Five::planned(dir, at, &SETTINGS).started()
    }

    /// As many replicas, none of which runs yet.
    pub(crate) fn planned(dir: &Path, at: Vec<(String, Option<String>)>, settings: &[&str]) -> Five {
        let replica = |(number, (address, host)): (usize, (String, Option<String>))| Replica {
            address,
            listen: None,
            dir: dir.join(number.to_string()),
            host,
            child: None,
        };
        let replicas = at.into_iter().enumerate().map(replica).collect();
        Five { replicas, settings: settings.iter().map(ToString::to_string).collect(), descriptors: None }
    }

    /// Starts as many replicas on free ports, each of which may have so many files open.
    pub(crate) fn start_with_descriptors(dir: &Path, replicas: usize, descriptors: usize) -> Five {
        let at = free_addresses(replicas).into_iter().map(|address| (address, None)).collect();
        let mut five = Five::planned(dir, at, &SETTINGS);
        five.descriptors = Some(descriptors);
        let five = five.started();
        five.master();
        five
    }

    /// Starts as many replicas whose ways to each other, and to clients that use their addresses, are so long.
    pub(crate) fn start_far_apart(dir: &Path, replicas: usize, one_way: Duration) -> Five {
        let at = free_addresses(2 * replicas);
        let (addresses, listen) = at.split_at(replicas);
        let at = addresses.iter().map(|address| (address.clone(), None)).collect();
        let mut five = Five::planned(dir, at, &SETTINGS);
        for (replica, listen) in five.replicas.iter_mut().zip(listen) {
            relay_slowly(&replica.address, listen.clone(), one_way);
            replica.listen = Some(listen.clone());
        }
        five.started()
    }

    fn started(mut self) -> Five {
        (0..self.replicas.len()).for_each(|number| self.restart(number));
        self
    }

    /// Where the replicas listen themselves.
    pub(crate) fn near_endpoints(&self) -> String {
        let near = |replica: &Replica| replica.listen.as_ref().unwrap_or(&replica.address).clone();
        self.replicas.iter().map(near).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| replica.address.clone()).collect()
    }

    /// Starts a replica on what its directory holds.
    pub(crate) fn restart(&mut self, number: usize) {
        let peers = self.addresses().join(",");
        let replica = &mut self.replicas[number];
        assert!(replica.child.is_none(), "it runs already");
        let mut command = match &replica.host {
            None => match self.descriptors {
                None => Command::new(WOMBAT),
                Some(descriptors) => {
                    let mut command = Command::new("sh");
                    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), WOMBAT]);
                    command
                }
            },
            Some(host) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", host, WOMBAT]);
                command
            }
        };
        let listen = replica.listen.as_ref().unwrap_or(&replica.address);
        command.args(["serve", "--cell", "local", "--listen", listen, "--advertise", &replica.address]);
        command.args(["--peers", &peers]);
        command.args(&self.settings).args(["--log", "info"]).arg("--dir").arg(&replica.dir);
        let log = replica.dir.with_extension("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        replica.child = Some(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// What a replica has logged.
    pub(crate) fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.replicas[number].dir.with_extension("log")).unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, number: usize) {
        let mut child = self.replicas[number].child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; returns once the process has ended, as it should.
    pub(crate) fn stop(&mut self, number: usize) {
        self.signal(number, "TERM");
        let mut child = self.replicas[number].child.take().expect("it runs");
        assert!(child.wait().unwrap().success());
    }

    /// Takes a dead replica's disk away.
    pub(crate) fn wipe(&mut self, number: usize) {
        self.wipe_at(number);
    }

    fn wipe_at(&self, number: usize) {
        assert!(self.replicas[number].child.is_none(), "it runs");
        std::fs::remove_dir_all(&self.replicas[number].dir).unwrap();
    }

    /// Copies a stopped replica's directory, as an operator does.
    pub(crate) fn back_up(&self, number: usize, to: &Path) {
        assert!(self.replicas[number].child.is_none(), "it runs");
        copy(&self.replicas[number].dir, to);
    }

    /// Puts a copy in the place of a stopped replica's directory.
    pub(crate) fn dir(&self, number: usize) -> &Path {
        &self.replicas[number].dir
    }

    pub(crate) fn put_back(&self, number: usize, from: &Path) {
        self.wipe_at(number);
        copy(from, &self.replicas[number].dir);
    }

    pub(crate) fn signal(&self, number: usize, name: &str) {
        signal(self.replicas[number].child.as_ref().expect("it runs").id(), name);
    }

    /// SIGSTOP; returns once the process stands still.
    pub(crate) fn freeze(&self, number: usize) {
        let pid = self.replicas[number].child.as_ref().expect("it runs").id();
        signal(pid, "STOP");
        wait_for("a replica to stand still", || is_stopped(pid).then_some(()));
    }

    /// SIGCONT.
    pub(crate) fn wake(&self, number: usize) {
        self.signal(number, "CONT");
    }

    /// What the master says, once there is one.
    pub(crate) fn status(&self) -> serde_json::Value {
        wait_for("a master", || self.view(&self.addresses().join(",")))
    }

    /// The status as the tool gives it for these endpoints; `None` while no master answers.
    pub(crate) fn view(&self, endpoints: &str) -> Option<serde_json::Value> {
        let mut command = Command::new(WOMBAT);
        command.args(["status", "--json", "--endpoints", endpoints]).env_remove("WOMBAT_CELL");
        let output = command.output().unwrap();
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        (output.status.success() && status["master_reached"] == true).then_some(status)
    }

    /// Which replica is master, once there is one.
    pub(crate) fn master(&self) -> usize {
        let status = self.status();
        let address = status["master"].as_str().unwrap().to_owned();
        self.replicas.iter().position(|replica| replica.address == address).unwrap()
    }

    /// Waits until every member that should be there has caught up with the master.
    pub(crate) fn settled(&self) -> serde_json::Value {
        wait_for("all replicas to catch up", || {
            let status = self.view(&self.addresses().join(","))?;
            let members = status["members"].as_array()?;
            let well = members.iter().all(|member| {
                member["voter"] == true
                    && member["reached"] == true
                    && member["silent_ms"].as_u64() < Some(1500)
                    && member["lag"].as_u64() < Some(50)
            });
            (well && status["members_changing"] == false).then_some(status)
        })
    }
}

impl Drop for Five {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            if let Some(mut child) = replica.child.take() {
                let _it_is_gone = child.kill();
                let _it_is_gone = child.wait();
            }
        }
    }
}
