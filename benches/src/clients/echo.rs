//! No system at all: a thread that answers what it gets. What the machine's sockets and the lean clients reach by
//! themselves, with nobody to agree with; if there are to be syncs, what its disk allows besides.

use super::link::{Asked, Link, Protocol};
use super::{Later, Locker, Service, Watcher, Writer};
use crate::Result;
use crate::measures::{YARDSTICK, YARDSTICK_SYNCED};
use bytes::{Buf, BufMut, BytesMut};
use std::cell::Cell;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// About as much as a request for a lock, and its answer.
const MESSAGE_BYTES: usize = 40;
/// What a message is for, its first byte: to be answered at once, after the next write, or to be such a write.
const ANSWER: u8 = 1;
const AWAIT: u8 = 2;
const WRITE: u8 = 3;
/// As a replica's log: synced zeros, over which is written.
const FILE_BYTES: usize = 4 << 20;

/// The thread.
pub struct Echo {
    name: &'static str,
    address: String,
}

impl Echo {
    /// Starts it, for as long as this process lives.
    pub fn start() -> Result<Echo> {
        Echo::serve(YARDSTICK, None)
    }

    /// One that answers when most of so many files in `dir` have been written and synced, all at once.
    pub fn start_synced(dir: &Path, files: usize) -> Result<Echo> {
        Echo::serve(YARDSTICK_SYNCED, Some(Syncs::start(dir, files)?))
    }

    fn serve(name: &'static str, syncs: Option<Syncs>) -> Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        std::thread::spawn(move || -> std::io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let (syncs, writes) = (Rc::new(syncs), Rc::new(watch::Sender::new(0)));
                loop {
                    let stream = listener.accept().await?.0;
                    tokio::task::spawn_local(answer(stream, Rc::clone(&syncs), Rc::clone(&writes)));
                }
            })
        });
        Ok(Echo { name, address })
    }

    async fn client(&self) -> Result<Box<Client>> {
        Ok(Box::new(Client { link: Link::open(&self.address, Whole).await?, awaited: None }))
    }
}

async fn answer(
    mut stream: TcpStream,
    syncs: Rc<Option<Syncs>>,
    writes: Rc<watch::Sender<u64>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut bytes, mut next_write) = (BytesMut::new(), writes.subscribe());
    while stream.read_buf(&mut bytes).await? > 0 {
        while bytes.len() >= MESSAGE_BYTES {
            let mut message = bytes.split_to(MESSAGE_BYTES);
            match message[0] {
                AWAIT => drop(next_write.changed().await),
                WRITE => writes.send_modify(|writes| *writes += 1),
                _ => syncs.iter().for_each(Syncs::sync),
            }
            stream.write_all_buf(&mut message).await?;
        }
    }
    Ok(())
}

/// Threads that write and sync, each its file, and say which time that was.
struct Syncs {
    threads: Vec<mpsc::Sender<u64>>,
    done: mpsc::Receiver<u64>,
    times: Cell<u64>,
}

impl Syncs {
    fn start(dir: &Path, files: usize) -> Result<Syncs> {
        let (tell, done) = mpsc::channel();
        let threads = (0..files).map(|number| {
            let file = File::create(dir.join(format!("synced-{number}")))?;
            file.write_all_at(&vec![0; FILE_BYTES], 0)?;
            file.sync_all()?;
            let (order, orders) = mpsc::channel();
            let tell = tell.clone();
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut at = 0;
                while let Ok(first) = orders.recv() {
                    // Who is late does at once what has come meanwhile.
                    let time = orders.try_iter().last().unwrap_or(first);
                    file.write_all_at(&[1; 2 * MESSAGE_BYTES], at)?;
                    file.sync_data()?;
                    at = (at + 2 * MESSAGE_BYTES as u64) % (FILE_BYTES / 2) as u64;
                    if tell.send(time).is_err() {
                        break;
                    }
                }
                Ok(())
            });
            Ok(order)
        });
        Ok(Syncs { threads: threads.collect::<Result<_>>()?, done, times: Cell::new(0) })
    }

    /// Returns when most are done.
    fn sync(&self) {
        let (time, most) = (self.times.get() + 1, self.threads.len() / 2 + 1);
        self.times.set(time);
        for thread in &self.threads {
            let _it_has_ended = thread.send(time);
        }
        self.done.iter().filter(|done| *done == time).take(most).for_each(drop);
    }
}

impl Service for Echo {
    fn name(&self) -> &'static str {
        self.name
    }

    fn alone(&self, _number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async { Ok(self.client().await? as Box<dyn Locker>) })
    }

    fn contender(&self, _number: usize) -> Later<'_, Box<dyn Locker>> {
        Box::pin(async { Err("nobody keeps anybody waiting".into()) })
    }

    fn watcher(&self, _number: usize) -> Later<'_, Box<dyn Watcher>> {
        Box::pin(async { Ok(self.client().await? as Box<dyn Watcher>) })
    }

    fn writer(&self) -> Later<'_, Box<dyn Writer>> {
        Box::pin(async { Ok(self.client().await? as Box<dyn Writer>) })
    }
}

struct Whole;

impl Protocol for Whole {
    type Key = ();
    type Answer = ();

    fn read(&mut self, inward: &mut BytesMut, _outward: &mut BytesMut) -> Result<Option<((), ())>> {
        let whole = inward.len() >= MESSAGE_BYTES;
        Ok(whole.then(|| inward.advance(MESSAGE_BYTES)).map(|()| ((), ())))
    }
}

struct Client {
    link: Link<Whole>,
    /// What it will be told.
    awaited: Option<Asked<()>>,
}

impl Client {
    fn ask(&self, what: u8) -> Asked<()> {
        self.link.ask((), |outward| outward.put_bytes(what, MESSAGE_BYTES))
    }

    async fn answered(&self, what: u8) -> Result<()> {
        Ok(self.ask(what).await?)
    }
}

impl Locker for Client {
    fn acquire(&mut self) -> Later<'_, ()> {
        Box::pin(self.answered(ANSWER))
    }

    fn release(&mut self) -> Later<'_, ()> {
        Box::pin(self.answered(ANSWER))
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Watcher for Client {
    fn arm(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            self.awaited = Some(self.ask(AWAIT));
            Ok(())
        })
    }

    fn told(&mut self) -> Later<'_, ()> {
        Box::pin(async {
            let awaited = self.awaited.take().ok_or("it has not asked for that")?;
            Ok(awaited.await?)
        })
    }

    fn close(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async { Ok(()) })
    }
}

impl Writer for Client {
    fn write(&mut self) -> Later<'_, ()> {
        Box::pin(self.answered(WRITE))
    }
}
