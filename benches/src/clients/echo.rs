//! No system at all: a thread that sends back what it gets. What the machine's sockets and the lean clients reach
//! by themselves, with neither a disk nor anybody to agree with.

use super::link::{Link, Protocol};
use super::{Later, Locker, Service};
use crate::Result;
use crate::measures::YARDSTICK;
use bytes::{Buf, BufMut, BytesMut};
use std::net::TcpListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// About as much as a request for a lock, and its answer.
const MESSAGE: [u8; 40] = [7; 40];

/// The thread.
pub struct Echo {
    address: String,
}

impl Echo {
    /// Starts it, for as long as this process lives.
    pub fn start() -> Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        std::thread::spawn(move || -> std::io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    tokio::task::spawn_local(send_back(listener.accept().await?.0));
                }
            })
        });
        Ok(Echo { address })
    }
}

async fn send_back(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = BytesMut::new();
    while stream.read_buf(&mut bytes).await? > 0 {
        stream.write_all_buf(&mut bytes).await?;
    }
    Ok(())
}

impl Service for Echo {
    fn name(&self) -> &'static str {
        YARDSTICK
    }

    fn alone(&self, _number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async {
            Ok(Box::new(Client { link: Link::open(&self.address, Whole).await? }) as Box<dyn Locker>)
        })
    }

    fn contender(&self, _number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async { Err("nobody keeps anybody waiting".into()) })
    }
}

struct Whole;

impl Protocol for Whole {
    type Key = ();
    type Answer = ();

    fn read(&mut self, inward: &mut BytesMut, _outward: &mut BytesMut) -> Result<Option<((), ())>> {
        let whole = inward.len() >= MESSAGE.len();
        Ok(whole.then(|| inward.advance(MESSAGE.len())).map(|()| ((), ())))
    }
}

struct Client {
    link: Link<Whole>,
}

impl Client {
    async fn ask(&self) -> Result<()> {
        Ok(self.link.ask((), |outward| outward.put_slice(&MESSAGE)).await?)
    }
}

impl Locker for Client {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(self.ask())
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(self.ask())
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}
