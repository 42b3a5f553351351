//! Lean clients of lock services, each by its system's own protocol over plain sockets, all made of the same
//! parts: one thread, non-blocking sockets, a task for each client, so that what is compared are the systems.

pub mod echo;
pub mod etcd;
mod grpc;
mod link;
pub mod redlock;
pub mod wombat;
pub mod zookeeper;

use crate::Result;
use std::pin::Pin;
use std::rc::Rc;
use tokio::sync::Mutex;

/// What will be, on this thread.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// A lock service that runs.
pub trait Service {
    /// Its name.
    fn name(&self) -> &'static str;

    /// A client with a lock that nobody else asks for.
    fn alone(&self, number: usize) -> Later<'_, Box<dyn Locker>>;

    /// A client that asks for one lock with all the others that were made so: first come, first served, if the
    /// system can do that.
    fn contender(&self, number: usize) -> Later<'_, Box<dyn Locker>>;

    /// A client that is told whenever a certain file is written.
    fn watcher(&self, _number: usize) -> Later<'_, Box<dyn Watcher>> {
        no_files()
    }

    /// A client that writes that file, and makes it if it is not there.
    fn writer(&self) -> Later<'_, Box<dyn Writer>> {
        no_files()
    }

    /// A client that reads that file.
    fn reader(&self, _number: usize) -> Later<'_, Box<dyn Reader>> {
        no_files()
    }
}

fn no_files<T>() -> Later<'static, T> {
    Box::pin(async { Err("there are no files".into()) })
}

/// A client with one lock.
pub trait Locker {
    /// Returns when it holds the lock.
    fn acquire(&mut self) -> Later<'_, ()>;

    /// Returns when the release is acknowledged.
    fn release(&mut self) -> Later<'_, ()>;

    /// Ends its session.
    fn close(self: Box<Self>) -> Later<'static, ()>;
}

/// A client that watches a file.
pub trait Watcher {
    /// Returns when the next write will be told. Where that takes a read, the contents have been read, too.
    fn arm(&mut self) -> Later<'_, ()>;

    /// Returns when a write has been told.
    fn told(&mut self) -> Later<'_, ()>;

    /// Ends its session.
    fn close(self: Box<Self>) -> Later<'static, ()>;
}

/// A client that writes a file.
pub trait Writer {
    /// Returns when the write is acknowledged.
    fn write(&mut self) -> Later<'_, ()>;
}

/// A client that reads a file.
pub trait Reader {
    /// Returns when it has its contents.
    fn read(&mut self) -> Later<'_, ()>;

    /// Ends its session.
    fn close(self: Box<Self>) -> Later<'static, ()>;
}

/// Connections, each of which so many clients share.
struct Pool<T> {
    clients_each: usize,
    /// The last, and for how many more it is.
    last: Mutex<Option<(Rc<T>, usize)>>,
}

impl<T> Pool<T> {
    fn new(clients_each: usize) -> Pool<T> {
        Pool { clients_each, last: Mutex::default() }
    }

    /// The connection of the next client.
    async fn next(&self, open: impl Future<Output = Result<T>>) -> Result<Rc<T>> {
        let mut last = self.last.lock().await;
        if let Some((connection, room)) = last.as_mut().filter(|(_, room)| *room > 0) {
            *room -= 1;
            return Ok(Rc::clone(connection));
        }
        let opened = Rc::new(open.await?);
        *last = Some((Rc::clone(&opened), self.clients_each - 1));
        Ok(opened)
    }
}
