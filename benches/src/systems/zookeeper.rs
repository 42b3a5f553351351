//! ZooKeeper, by a small client of its own protocol: Debian's package `zookeeper`.

use super::{PATIENCE, Process, System, Writer};
use crate::Result;
use crate::replicas::free_addresses;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where Debian has it, and its configuration of a server's logging.
const CLASS_PATH: &str = "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar";
const JAR: &str = "/usr/share/java/zookeeper.jar";
const PATH: &str = "/bench";
/// What the client asks for; its library's usual value.
pub(crate) const SESSION_TIMEOUT_MS: i32 = 30_000;
/// How long a client waits for an answer before it asks the next node; nodes that lose their leader say so by
/// closing the connection, so this matters little.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long a client waits after it has been sent away by each node.
const RETRY: Duration = Duration::from_millis(10);
/// How long a node may take to say how it is.
const STATUS_WITHIN: Duration = Duration::from_secs(1);

pub(crate) const CREATE: i32 = 1;
pub(crate) const SET_DATA: i32 = 5;
pub(crate) const CLOSE: i32 = -11;
pub(crate) const NODE_EXISTS: i32 = -110;
const ALL_PERMISSIONS: i32 = 31;

/// Its servers.
pub struct ZooKeeper {
    dir: PathBuf,
    clients: Vec<String>,
    configuration: String,
    servers: Vec<Option<Process>>,
}

impl ZooKeeper {
    /// Starts so many, or tells why there are none.
    pub fn start(dir: &Path, nodes: usize) -> Result<ZooKeeper> {
        if !Path::new(JAR).exists() {
            return Err(format!("{JAR} is missing").into());
        }
        let (clients, quorum, election) =
            (free_addresses(nodes)?, free_addresses(nodes)?, free_addresses(nodes)?);
        // The values of its sample configuration, but for the console on port 8080, which several cannot share,
        // and the limit of sixty connections from one machine.
        let mut configuration = String::from(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\nadmin.enableServer=false\nmaxClientCnxns=0\n",
        );
        for (number, (quorum, election)) in quorum.iter().zip(&election).enumerate() {
            let election = election.rsplit(':').next().unwrap_or_default();
            configuration += &format!("server.{}={quorum}:{election}\n", number + 1);
        }
        let servers = (0..nodes).map(|_| None).collect();
        let mut zookeeper = ZooKeeper { dir: dir.join("zookeeper"), clients, configuration, servers };
        (0..nodes).try_for_each(|node| zookeeper.start(node))?;
        Ok(zookeeper)
    }
}

impl System for ZooKeeper {
    fn name(&self) -> &'static str {
        "zookeeper"
    }

    fn addresses(&self) -> &[String] {
        &self.clients
    }

    fn leader(&mut self) -> Option<usize> {
        // A follower that serves has what its leader has.
        let modes: Vec<String> = self.clients.iter().map(|at| mode(at).ok()).collect::<Option<_>>()?;
        modes.iter().position(|mode| mode == "leader")
    }

    fn kill(&mut self, node: usize) -> Result<()> {
        self.servers[node].take().map_or(Ok(()), Process::kill)
    }

    fn start(&mut self, node: usize) -> Result<()> {
        let dir = self.dir.join(node.to_string());
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("myid"), (node + 1).to_string())?;
        let port = self.clients[node].rsplit(':').next().unwrap_or_default();
        let file = dir.join("zoo.cfg");
        let own = format!("dataDir={}\nclientPort={port}\n", dir.display());
        std::fs::write(&file, format!("{}{own}", self.configuration))?;
        let mut command = Command::new("java");
        command.arg(format!("-Dzookeeper.log.dir={}", dir.display())).args(["-cp", CLASS_PATH]);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(file);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.servers[node] = Some(Process(child));
        Ok(())
    }

    fn writer(&self, node: usize) -> Result<Box<dyn Writer>> {
        let mut client = Client {
            nodes: self.clients.clone(),
            node,
            stream: None,
            session: 0,
            password: vec![0; 16],
            seen: 0,
            number: 0,
        };
        let mut create = BytesMut::new();
        put_create(&mut create, PATH, 0);
        match client.call_somewhere(CREATE, &create)? {
            0 | NODE_EXISTS => Ok(Box::new(client)),
            error => Err(format!("zookeeper's error {error}").into()),
        }
    }
}

/// Whether a server leads or follows; an error while it does neither.
fn mode(address: &str) -> Result<String> {
    let mut stream = connect(address, STATUS_WITHIN)?;
    stream.write_all(b"srvr")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.lines().find_map(|line| line.strip_prefix("Mode: ")).ok_or("it does not serve")?.into())
}

fn connect(address: &str, within: Duration) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address.parse()?, within)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(within))?;
    Ok(stream)
}

/// A client with one session.
struct Client {
    nodes: Vec<String>,
    node: usize,
    stream: Option<TcpStream>,
    session: i64,
    password: Vec<u8>,
    /// The last transaction that it knows of: a server that is behind that does not take it.
    seen: i64,
    number: i32,
}

impl Writer for Client {
    fn write(&mut self) -> Result<()> {
        let mut set = BytesMut::new();
        put_bytes(&mut set, PATH.as_bytes());
        put_bytes(&mut set, b"value");
        set.put_i32(-1);
        match self.call_somewhere(SET_DATA, &set)? {
            0 => Ok(()),
            error => Err(format!("zookeeper's error {error}").into()),
        }
    }
}

impl Client {
    /// Asks whichever server answers. Returns the answer's error, 0 for none.
    fn call_somewhere(&mut self, kind: i32, body: &[u8]) -> Result<i32> {
        let until = Instant::now() + PATIENCE;
        let mut refused = 0;
        while Instant::now() < until {
            if let Ok(error) = self.call(kind, body) {
                return Ok(error);
            }
            self.stream = None;
            self.node = (self.node + 1) % self.nodes.len();
            refused += 1;
            if refused % self.nodes.len() == 0 {
                std::thread::sleep(RETRY);
            }
        }
        Err("zookeeper took no request".into())
    }

    fn call(&mut self, kind: i32, body: &[u8]) -> Result<i32> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.attach()?,
        };
        self.number += 1;
        let mut request = BytesMut::new();
        request.put_i32(self.number);
        request.put_i32(kind);
        request.put_slice(body);
        send(&mut stream, &request)?;
        let mut answer = receive(&mut stream, 16)?;
        let (number, zxid, error) = (answer.get_i32(), answer.get_i64(), answer.get_i32());
        if number != self.number {
            return Err("an answer to something else".into());
        }
        self.seen = self.seen.max(zxid);
        self.stream = Some(stream);
        Ok(error)
    }

    /// Connects to the present server, and makes or resumes the session.
    fn attach(&mut self) -> Result<TcpStream> {
        let mut stream = connect(&self.nodes[self.node], ANSWER_WITHIN)?;
        let mut request = BytesMut::new();
        request.put_i32(0);
        request.put_i64(self.seen);
        request.put_i32(SESSION_TIMEOUT_MS);
        request.put_i64(self.session);
        put_bytes(&mut request, &self.password);
        request.put_u8(0);
        send(&mut stream, &request)?;
        let mut answer = receive(&mut stream, 20)?;
        let (_version, timeout) = (answer.get_i32(), answer.get_i32());
        self.session = answer.get_i64();
        let length = answer.get_i32() as usize;
        if timeout <= 0 || answer.len() < length {
            return Err("the session is over".into());
        }
        self.password = answer.copy_to_bytes(length).to_vec();
        Ok(stream)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _best_effort = self.call(CLOSE, &[]);
    }
}

/// Sends what is preceded by its length.
fn send(stream: &mut TcpStream, body: &[u8]) -> Result<()> {
    let mut frame = BytesMut::new();
    put_bytes(&mut frame, body);
    Ok(stream.write_all(&frame)?)
}

/// Receives what is preceded by its length, and is at least so long.
fn receive(stream: &mut TcpStream, least: usize) -> Result<Bytes> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body)?;
    if body.len() < least { Err("a short answer".into()) } else { Ok(body.into()) }
}

pub(crate) fn put_bytes(buffer: &mut BytesMut, bytes: &[u8]) {
    buffer.put_i32(bytes.len() as i32);
    buffer.put_slice(bytes);
}

/// What asks for a node that everybody may use.
pub(crate) fn put_create(buffer: &mut BytesMut, path: &str, flags: i32) {
    put_bytes(buffer, path.as_bytes());
    put_bytes(buffer, b"");
    buffer.put_i32(1);
    buffer.put_i32(ALL_PERMISSIONS);
    put_bytes(buffer, b"world");
    put_bytes(buffer, b"anyone");
    buffer.put_i32(flags);
}
