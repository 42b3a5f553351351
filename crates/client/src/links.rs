//! The connections of a session: those that are being made, and those that are there.

use bytes::BytesMut;
use std::future::{pending, poll_fn};
use std::io::ErrorKind::{
    BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
    TimedOut,
};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::{AbortHandle, JoinSet};
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

/// All connections of a session.
#[derive(Default)]
pub(crate) struct Links {
    attempts: JoinSet<(LinkId, Result<Attempt, String>)>,
    /// By which an attempt is given up.
    aborts: Vec<(LinkId, AbortHandle)>,
    open: Vec<Open>,
}

impl Links {
    /// Connects to `endpoint`, whose name is resolved anew each time.
    pub(crate) fn connect(&mut self, link: LinkId, endpoint: String) {
        let abort = self.attempts.spawn(async move { (link, attempt(&endpoint).await) });
        self.aborts.push((link, abort));
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
        for (_, abort) in self.aborts.extract_if(.., |(attempt, _)| *attempt == link) {
            abort.abort();
        }
    }

    /// The next response that has arrived, or why the connection is of no use.
    pub(crate) fn receive(&mut self, link: LinkId) -> Option<Result<Response, String>> {
        let open = self.open.iter_mut().find(|open| open.link == link)?;
        frame::read::<Response>(&mut open.inward).map_err(|error| error.to_string()).transpose()
    }

    /// What happens next to one of them.
    pub(crate) async fn next(&mut self) -> (LinkId, LinkEvent) {
        let Links { attempts, aborts, open } = self;
        tokio::select! {
            biased;
            event = next_event(open) => event,
            (link, attempt) = next_attempt(attempts) => {
                let known = aborts.extract_if(.., |(attempt, _)| *attempt == link).count() > 0;
                match attempt {
                    Ok(Attempt::Connected(stream)) if known => {
                        let (inward, outward) = (BytesMut::new(), BytesMut::new());
                        open.push(Open { link, stream, inward, outward });
                        (link, LinkEvent::Connected)
                    }
                    Ok(Attempt::Connected(_)) => (link, LinkEvent::Sent), // It was given up meanwhile.
                    Ok(Attempt::Resolved(addresses)) => (link, LinkEvent::Resolved(addresses)),
                    Err(problem) => (link, LinkEvent::Lost(problem)),
                }
            }
        }
    }

    /// Goes on on the runtime that this is called on. Returns the connections that are lost with the one before:
    /// those that were being made.
    pub(crate) fn move_here(&mut self) -> Vec<LinkId> {
        self.attempts = JoinSet::new();
        let mut lost: Vec<LinkId> = self.aborts.drain(..).map(|(link, _)| link).collect();
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
async fn next_event(open: &mut [Open]) -> (LinkId, LinkEvent) {
    poll_fn(|context| {
        for one in open.iter_mut() {
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
    })
    .await
}

async fn next_attempt(
    attempts: &mut JoinSet<(LinkId, Result<Attempt, String>)>,
) -> (LinkId, Result<Attempt, String>) {
    loop {
        match attempts.join_next().await {
            Some(Ok(ended)) => return ended,
            Some(Err(_given_up)) => {}
            None => pending().await,
        }
    }
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
