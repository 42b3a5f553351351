//! A connection over which many tasks of one thread ask, and what each answer is the answer to. It is the same
//! for every system; a [`Protocol`] says how one of them frames its answers.

use crate::Result;
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;

/// How a system frames what it says.
pub(super) trait Protocol: 'static {
    /// What ties an answer to its question.
    type Key: Copy + Eq + Hash + 'static;
    /// An answer.
    type Answer: 'static;

    /// Takes the first answer out of what has arrived, with what it belongs to; `None` until one has. What the
    /// protocol itself has to say goes out.
    fn read(
        &mut self,
        inward: &mut BytesMut,
        outward: &mut BytesMut,
    ) -> Result<Option<(Self::Key, Self::Answer)>>;
}

/// An answer that is still to come; an error once it cannot come any more.
pub(super) type Asked<A> = oneshot::Receiver<A>;

/// A connection. Nobody hears of it any more when it is dropped.
pub(super) struct Link<P: Protocol> {
    shared: Rc<Shared<P>>,
    tasks: [AbortHandle; 2],
}

struct Shared<P: Protocol> {
    outward: RefCell<BytesMut>,
    filled: Notify,
    /// Nothing comes any more.
    ended: Cell<bool>,
    /// Who waits for one answer.
    calls: RefCell<HashMap<P::Key, oneshot::Sender<P::Answer>>>,
    /// Who listens to all answers of a key.
    streams: RefCell<HashMap<P::Key, mpsc::UnboundedSender<P::Answer>>>,
}

impl<P: Protocol> Link<P> {
    /// Connects, on this thread's local tasks.
    pub(super) async fn open(address: &str, protocol: P) -> Result<Link<P>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let shared = Rc::new(Shared {
            outward: RefCell::default(),
            filled: Notify::new(),
            ended: Cell::new(false),
            calls: RefCell::default(),
            streams: RefCell::default(),
        });
        let reading = tokio::task::spawn_local(Rc::clone(&shared).read(reader, protocol));
        let writing = tokio::task::spawn_local(Rc::clone(&shared).write(writer));
        Ok(Link { shared, tasks: [reading.abort_handle(), writing.abort_handle()] })
    }

    /// Says something.
    pub(super) fn say(&self, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.shared.outward.borrow_mut());
        self.shared.filled.notify_one();
    }

    /// Says something that is answered once.
    pub(super) fn ask(&self, key: P::Key, write: impl FnOnce(&mut BytesMut)) -> Asked<P::Answer> {
        let (sender, asked) = oneshot::channel();
        if self.shared.ended.get() {
            return asked;
        }
        self.shared.calls.borrow_mut().insert(key, sender);
        self.say(write);
        asked
    }

    /// Hears all answers of that key that nobody has asked for.
    pub(super) fn listen(&self, key: P::Key) -> mpsc::UnboundedReceiver<P::Answer> {
        let (sender, heard) = mpsc::unbounded_channel();
        self.shared.streams.borrow_mut().insert(key, sender);
        heard
    }
}

impl<P: Protocol> Drop for Link<P> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl<P: Protocol> Shared<P> {
    async fn read(self: Rc<Self>, mut reader: OwnedReadHalf, mut protocol: P) {
        let mut inward = BytesMut::new();
        loop {
            inward.reserve(READ_BYTES);
            match reader.read_buf(&mut inward).await {
                Ok(length) if length > 0 => {}
                _ => break,
            }
            if let Err(error) = self.take(&mut protocol, &mut inward) {
                eprintln!("a connection is given up: {error}");
                break;
            }
        }
        // Whoever waits waits in vain, and whoever asks from now on.
        self.ended.set(true);
        self.calls.take();
        self.streams.take();
    }

    fn take(&self, protocol: &mut P, inward: &mut BytesMut) -> Result<()> {
        while let Some((key, answer)) = protocol.read(inward, &mut self.outward.borrow_mut())? {
            if let Some(call) = self.calls.borrow_mut().remove(&key) {
                let _nobody_waits = call.send(answer);
            } else if let Some(stream) = self.streams.borrow().get(&key) {
                let _nobody_listens = stream.send(answer);
            }
        }
        if !self.outward.borrow().is_empty() {
            self.filled.notify_one();
        }
        Ok(())
    }

    async fn write(self: Rc<Self>, mut writer: OwnedWriteHalf) {
        loop {
            self.filled.notified().await;
            let mut bytes = self.outward.take();
            if writer.write_all_buf(&mut bytes).await.is_err() {
                return; // The reader tells.
            }
        }
    }
}
