//! Bytes on their way out of a socket: written at once as far as it takes them, by a task when it does not.

use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

/// Buffers beyond this are given back when they are empty: many connections are quiet most of the time.
pub(crate) const KEPT_BYTES: usize = 16 * 1024;

/// What waits for a socket to take it.
#[derive(Default)]
pub(crate) struct Outlet {
    buffer: RefCell<BytesMut>,
    /// Where it goes; nowhere yet, or no longer.
    writer: RefCell<Option<Rc<OwnedWriteHalf>>>,
    /// There is something for the task to look at.
    news: Notify,
    /// The socket has taken something.
    taken: Notify,
}

impl Outlet {
    /// Adds what `write` writes, for the next [`Outlet::send`]. Returns whether nothing waited before.
    pub(crate) fn add(&self, write: impl FnOnce(&mut BytesMut)) -> bool {
        let mut buffer = self.buffer.borrow_mut();
        let first = buffer.is_empty();
        write(&mut buffer);
        first
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.buffer.borrow().len()
    }

    /// Waits until no more than so many bytes wait.
    pub(crate) async fn at_most(&self, bytes: usize) {
        while self.len() > bytes {
            self.taken.notified().await;
        }
    }

    /// Sends what the socket takes at once. The rest goes when it takes more.
    pub(crate) fn send(&self) {
        if !matches!(self.try_send(), Ok(true)) {
            self.wake();
        }
    }

    /// Lets [`Outlet::carry`] look again.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    /// Returns whether that was all.
    fn try_send(&self) -> std::io::Result<bool> {
        let mut buffer = self.buffer.borrow_mut();
        let writer = self.writer.borrow();
        let Some(writer) = &*writer else { return Ok(false) };
        while !buffer.is_empty() {
            match writer.try_write(&buffer) {
                Ok(written) => {
                    buffer.advance(written);
                    self.taken.notify_one();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if buffer.capacity() > KEPT_BYTES {
            *buffer = BytesMut::new();
        }
        Ok(true)
    }

    /// Sends what [`Outlet::send`] could not, until `ended` says so, told whether all is sent, or the other side
    /// is gone. Dropping the future leaves the socket to [`Outlet::close`].
    pub(crate) async fn carry(
        &self,
        writer: OwnedWriteHalf,
        ended: impl Fn(bool) -> bool,
    ) -> std::io::Result<()> {
        let writer = Rc::new(writer);
        *self.writer.borrow_mut() = Some(Rc::clone(&writer));
        loop {
            let all = self.try_send()?;
            if ended(all) {
                return Ok(());
            }
            tokio::select! {
                writable = writer.writable(), if !all => writable?,
                () = self.news.notified() => {}
            }
        }
    }

    /// Takes the socket back from [`Outlet::carry`], whose future is dropped.
    pub(crate) fn take_writer(&self) -> Option<OwnedWriteHalf> {
        Rc::try_unwrap(self.writer.take()?).ok()
    }

    /// Gives the socket back, which tells the other side that nothing more comes, and forgets what waited.
    pub(crate) fn close(&self) {
        self.writer.take();
        self.buffer.take();
    }
}
