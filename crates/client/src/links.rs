//! The connections of a session: those that are being made, and those that are there.

use bytes::BytesMut;
use std::future::poll_fn;
use std::io::ErrorKind::{
    BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
    TimedOut,
};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use wombat_proto::frame;
use wombat_proto::wire::{Request, Response};
use wombat_session::LinkId;

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// What happened to a connection.
pub(crate) enum LinkEvent {
    /// It was made.
    Connected,
    /// Its endpoint is a name that stands for several addresses: it was not made.
    Resolved(Vec<String>),
    /// Something was sent on it.
    Sent,
    /// Something arrived.
    Received,
    /// It could not be made, or is gone, for this reason.
    Lost(String),
}

/// What an attempt to connect came to.
enum Attempt {
    Connected(TcpStream),
    Resolved(Vec<String>),
}

/// A connection that is there.
struct Open {
    link: LinkId,
    stream: TcpStream,
    inward: BytesMut,
    outward: BytesMut,
}

/// A connection that is being made. It belongs to the session's task, not to one of its own: so it ends with the
/// session, and whatever the runtime does.
struct Attempting {
    link: LinkId,
    attempt: Pin<Box<dyn Future<Output = Result<Attempt, String>> + Send>>,
}

/// All connections of a session.
#[derive(Default)]
pub(crate) struct Links {
    attempts: Vec<Attempting>,
    open: Vec<Open>,
}

impl Links {
    /// Connects to `endpoint`, whose name is resolved anew each time.
    pub(crate) fn connect(&mut self, link: LinkId, endpoint: String) {
        self.attempts.push(Attempting { link, attempt: Box::pin(async move { attempt(&endpoint).await }) });
    }

    /// Queues a request.
    pub(crate) fn send(&mut self, link: LinkId, request: &Request) {
        if let Some(open) = self.open.iter_mut().find(|open| open.link == link) {
            frame::write(request, &mut open.outward);
        }
    }

    /// Gives a connection up, made or not, with what is queued on it.
    pub(crate) fn close(&mut self, link: LinkId) {
        self.open.retain(|open| open.link != link);
        self.attempts.retain(|one| one.link != link);
    }

    /// The next response that has arrived, or why the connection is of no use.
    pub(crate) fn receive(&mut self, link: LinkId) -> Option<Result<Response, String>> {
        let open = self.open.iter_mut().find(|open| open.link == link)?;
        frame::read::<Response>(&mut open.inward).map_err(|error| error.to_string()).transpose()
    }

    /// What happens next to one of them.
    pub(crate) async fn next(&mut self) -> (LinkId, LinkEvent) {
        poll_fn(|context| match poll_open(&mut self.open, context) {
            Poll::Ready(event) => Poll::Ready(event),
            Poll::Pending => self.poll_attempts(context),
        })
        .await
    }

    fn poll_attempts(&mut self, context: &mut Context<'_>) -> Poll<(LinkId, LinkEvent)> {
        for place in 0..self.attempts.len() {
            let Poll::Ready(ended) = self.attempts[place].attempt.as_mut().poll(context) else { continue };
            let link = self.attempts.swap_remove(place).link;
            let event = match ended {
                Ok(Attempt::Connected(stream)) => {
                    let (inward, outward) = (BytesMut::new(), BytesMut::new());
                    self.open.push(Open { link, stream, inward, outward });
                    LinkEvent::Connected
                }
                Ok(Attempt::Resolved(addresses)) => LinkEvent::Resolved(addresses),
                Err(problem) => LinkEvent::Lost(problem),
            };
            return Poll::Ready((link, event));
        }
        Poll::Pending
    }

    /// Goes on on the runtime that this is called on. Returns the connections that are lost with the one before:
    /// those that were being made.
    pub(crate) fn move_here(&mut self) -> Vec<LinkId> {
        let mut lost: Vec<LinkId> = self.attempts.drain(..).map(|one| one.link).collect();
        for mut open in std::mem::take(&mut self.open) {
            match open.stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => {
                    open.stream = stream;
                    self.open.push(open);
                }
                Err(_) => lost.push(open.link),
            }
        }
        lost
    }
}

/// Sends or receives on the first connection that is ready.
fn poll_open(open: &mut [Open], context: &mut Context<'_>) -> Poll<(LinkId, LinkEvent)> {
    for one in open {
        let link = one.link;
        if !one.outward.is_empty()
            && let Poll::Ready(written) = pin!(one.stream.write_buf(&mut one.outward)).poll(context)
        {
            let event = written.map_or_else(|error| LinkEvent::Lost(why(&error)), |_| LinkEvent::Sent);
            return Poll::Ready((link, event));
        }
        one.inward.reserve(READ_BYTES);
        if let Poll::Ready(read) = pin!(one.stream.read_buf(&mut one.inward)).poll(context) {
            let event = match read {
                Ok(0) => LinkEvent::Lost("closed without an answer".into()),
                Ok(_) => LinkEvent::Received,
                Err(error) => LinkEvent::Lost(why(&error)),
            };
            return Poll::Ready((link, event));
        }
    }
    Poll::Pending
}

async fn attempt(endpoint: &str) -> Result<Attempt, String> {
    let addresses: Vec<SocketAddr> = lookup_host(endpoint).await.map_err(|error| why(&error))?.collect();
    match &addresses[..] {
        [] => Err("the name stands for no address".into()),
        [address] => {
            let stream = TcpStream::connect(address).await.map_err(|error| why(&error))?;
            stream.set_nodelay(true).map_err(|error| why(&error))?;
            Ok(Attempt::Connected(stream))
        }
        several => Ok(Attempt::Resolved(several.iter().map(ToString::to_string).collect())),
    }
}

/// An error of the system, for people.
pub(crate) fn why(error: &std::io::Error) -> String {
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable
        | NetworkUnreachable | TimedOut => error.kind().to_string(),
        _ => error.to_string(),
    }
}
