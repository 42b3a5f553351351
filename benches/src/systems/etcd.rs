//! etcd, by its JSON gateway: Debian's package `etcd-server`.

use super::{PATIENCE, Process, System, Writer};
use crate::Result;
use crate::replicas::free_addresses;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a client waits for an answer before it asks the next node. A node that has lost its leader and does
/// not know it yet keeps a write for seven seconds, so clients had better be quick; a write takes a few
/// milliseconds at most.
const ANSWER_WITHIN: Duration = Duration::from_millis(50);
/// How long a client waits after a refusal: there is no leader.
const RETRY: Duration = Duration::from_millis(10);
/// How long a node may take to say how it is.
const STATUS_WITHIN: Duration = Duration::from_secs(1);

/// Its members.
pub struct Etcd {
    dir: PathBuf,
    clients: Vec<String>,
    peers: Vec<String>,
    members: Vec<Option<Process>>,
}

impl Etcd {
    /// Starts so many, or tells why there are none.
    pub fn start(dir: &Path, nodes: usize) -> Result<Etcd> {
        let (clients, peers) = (free_addresses(nodes)?, free_addresses(nodes)?);
        let members = (0..nodes).map(|_| None).collect();
        let mut etcd = Etcd { dir: dir.join("etcd"), clients, peers, members };
        std::fs::create_dir_all(&etcd.dir)?;
        (0..nodes).try_for_each(|node| etcd.start(node))?;
        Ok(etcd)
    }
}

impl System for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn addresses(&self) -> &[String] {
        &self.clients
    }

    fn leader(&mut self) -> Option<usize> {
        let status = |at: &String| {
            let mut connection = Connection::open(at, STATUS_WITHIN).ok()?;
            connection.post("/v3/maintenance/status", &json!({})).ok()
        };
        let statuses: Vec<Value> = self.clients.iter().map(status).collect::<Option<_>>()?;
        let first = &statuses[0];
        let same = |field: &str| statuses.iter().all(|status| status[field] == first[field]);
        let equal = same("leader") && same("raftAppliedIndex") && first["leader"].is_string();
        statuses.iter().position(|status| status["header"]["member_id"] == first["leader"]).filter(|_| equal)
    }

    fn kill(&mut self, node: usize) -> Result<()> {
        self.members[node].take().map_or(Ok(()), Process::kill)
    }

    fn start(&mut self, node: usize) -> Result<()> {
        let url = |address: &String| format!("http://{address}");
        let (client, peer) = (url(&self.clients[node]), url(&self.peers[node]));
        let all: Vec<String> =
            self.peers.iter().enumerate().map(|(node, at)| format!("node-{node}={}", url(at))).collect();
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("node-{node}"), "--initial-cluster", &all.join(",")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg("--data-dir").arg(self.dir.join(node.to_string()));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.members[node] = Some(Process(child));
        Ok(())
    }

    fn writer(&self, node: usize) -> Result<Box<dyn Writer>> {
        Ok(Box::new(Client { nodes: self.clients.clone(), node, connection: None }))
    }
}

struct Client {
    nodes: Vec<String>,
    node: usize,
    connection: Option<Connection>,
}

impl Writer for Client {
    fn write(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let put = json!({ "key": "YmVuY2g=", "value": "dmFsdWU=" });
        while Instant::now() < until {
            let asked = match self.connection.take() {
                Some(connection) => Ok(connection),
                None => Connection::open(&self.nodes[self.node], ANSWER_WITHIN),
            };
            let mut connection = match asked {
                Ok(connection) => connection,
                Err(_) => {
                    self.node = (self.node + 1) % self.nodes.len();
                    continue;
                }
            };
            match connection.post("/v3/kv/put", &put) {
                Ok(answer) if answer["header"].is_object() => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                // Nobody leads, and another node will hardly know better.
                Ok(_refusal) => std::thread::sleep(RETRY),
                Err(_) => {}
            }
            self.node = (self.node + 1) % self.nodes.len();
        }
        Err("etcd took no write".into())
    }
}

/// A connection that speaks as much HTTP as the gateway needs.
struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    fn open(address: &str, within: Duration) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&address.parse()?, within)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(within))?;
        Ok(Connection { stream: BufReader::new(stream), host: address.into() })
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let (host, body) = (&self.host, body.to_string());
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut length = None;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("closed".into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.ok_or("an answer of unknown length")?];
        self.stream.read_exact(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }
}
