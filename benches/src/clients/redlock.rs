//! Redlock over separate Redis servers: who sets a key on a quorum of them within the time that it asks for has
//! the lock. <https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/>

use super::link::{Asked, Link, Protocol};
use super::{Later, Locker, Pool, Service};
use crate::Result;
use bytes::{Buf, Bytes, BytesMut};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// For how long a lock is asked for.
const VALID: Duration = Duration::from_secs(10);
/// How much of that is given up for clocks that differ.
const DRIFT: Duration = Duration::from_millis(102);
/// How long at most a client waits, after another had the lock, before it asks again. Of 2, 10, 50 and 200 ms this
/// made the most hand-offs.
const RETRY: Duration = Duration::from_millis(10);
/// Releases a lock unless it has passed to somebody else meanwhile.
const RELEASE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";

/// The servers.
pub struct Redlock {
    servers: Vec<String>,
    connections: Pool<Servers>,
}

impl Redlock {
    /// So many clients share each connection.
    pub fn new(servers: &[String], clients_each: usize) -> Redlock {
        Redlock { servers: servers.into(), connections: Pool::new(clients_each) }
    }

    async fn locker(&self, key: String) -> Result<Box<dyn Locker>> {
        let servers = self.connections.next(Servers::open(&self.servers)).await?;
        Ok(Box::new(Client { servers, key, value: String::new() }))
    }
}

impl Service for Redlock {
    fn name(&self) -> &'static str {
        "redlock"
    }

    fn alone(&self, number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(self.locker(format!("alone-{number}")))
    }

    fn contender(&self, _number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(self.locker("contended".into()))
    }
}

/// A connection to each server.
struct Servers {
    all: Vec<Server>,
    /// How the servers know the script.
    release: String,
}

impl Servers {
    async fn open(addresses: &[String]) -> Result<Servers> {
        let mut servers = Servers { all: Vec::new(), release: String::new() };
        for address in addresses {
            let link = Link::open(address, Resp { answered: 0 }).await?;
            let server = Server { link, asked: Cell::new(0) };
            match server.ask(&["SCRIPT", "LOAD", RELEASE]).await? {
                Reply::Text(digest) => servers.release = String::from_utf8_lossy(&digest).into_owned(),
                other => return Err(format!("{other:?}").into()),
            }
            servers.all.push(server);
        }
        Ok(servers)
    }

    /// Asks all at once. Returns whether a quorum agrees, as soon as that is sure.
    async fn agree(&self, command: &[&str]) -> bool {
        let quorum = self.all.len() / 2 + 1;
        let mut asked: Vec<Asked<Reply>> = self.all.iter().map(|server| server.ask(command)).collect();
        let mut agreed = 0;
        poll_fn(|context| {
            asked.retain_mut(|one| match Pin::new(one).poll(context) {
                Poll::Pending => true,
                Poll::Ready(reply) => {
                    agreed += usize::from(matches!(reply, Ok(Reply::Yes)));
                    false
                }
            });
            let sure = agreed >= quorum || agreed + asked.len() < quorum;
            if sure { Poll::Ready(agreed >= quorum) } else { Poll::Pending }
        })
        .await
    }
}

struct Server {
    link: Link<Resp>,
    asked: Cell<u64>,
}

impl Server {
    fn ask(&self, command: &[&str]) -> Asked<Reply> {
        let number = self.asked.replace(self.asked.get() + 1);
        self.link.ask(number, |outward| {
            outward.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for word in command {
                outward.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
            }
        })
    }
}

#[derive(Debug)]
enum Reply {
    /// OK, or 1.
    Yes,
    /// Nothing, or 0.
    No,
    Text(Bytes),
    Error,
}

/// Its frames. Answers come in the order of the questions.
struct Resp {
    answered: u64,
}

impl Protocol for Resp {
    type Key = u64;
    type Answer = Reply;

    fn read(&mut self, inward: &mut BytesMut, _outward: &mut BytesMut) -> Result<Option<(u64, Reply)>> {
        let Some(end) = inward.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&inward[..end])?;
        let (head, text) = line.split_at_checked(1).ok_or("an empty line")?;
        let mut whole = end + 2;
        let reply = match (head, text) {
            ("+", "OK") | (":", "1") => Reply::Yes,
            ("$", "-1") | (":", "0") => Reply::No,
            ("$", length) => {
                let length: usize = length.parse()?;
                whole += length + 2;
                if inward.len() < whole {
                    return Ok(None);
                }
                Reply::Text(Bytes::copy_from_slice(&inward[end + 2..][..length]))
            }
            _ => Reply::Error,
        };
        inward.advance(whole);
        self.answered += 1;
        Ok(Some((self.answered - 1, reply)))
    }
}

struct Client {
    servers: Rc<Servers>,
    key: String,
    /// What nobody else sets.
    value: String,
}

impl Client {
    async fn release_all(&self) -> bool {
        self.servers.agree(&["EVALSHA", &self.servers.release, "1", &self.key, &self.value]).await
    }
}

impl Locker for Client {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let valid_ms = VALID.as_millis().to_string();
            loop {
                self.value = format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?);
                let begun = Instant::now();
                let set = ["SET", &self.key, &self.value, "NX", "PX", &valid_ms];
                if self.servers.agree(&set).await && begun.elapsed() + DRIFT < VALID {
                    return Ok(());
                }
                self.release_all().await;
                let share = getrandom::u32()? as f64 / f64::from(u32::MAX);
                tokio::time::sleep(RETRY.mul_f64(share)).await;
            }
        })
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(async { if self.release_all().await { Ok(()) } else { Err("the lock was lost".into()) } })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}
