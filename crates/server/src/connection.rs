//! One client's connection: frames in, frames out.

use crate::inbox::Inbox;
use crate::outlet::{KEPT_BYTES, Outlet};
use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tracing::debug;
use wombat_proto::frame;
use wombat_proto::limits::{CONTENTS_BYTES, OUTBOX_BYTES, OUTBOX_FULL_BYTES};
use wombat_proto::wire::{Request, Response};
use wombat_replica::ConnectionId;

/// How long a new connection may take to say Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// After how many silent seconds the kernel asks whether the other side is still there.
const IDLE_SECONDS: u32 = 60;

/// How much is read at once, so that one busy connection does not starve the others.
const READ_BYTES: usize = 64 * 1024;

/// After how many frames in a row a connection lets the others have their turn at the inbox, which may be full.
const FRAMES_IN_A_ROW: usize = 64;

// A connection has its turn once or twice before the core has one.
const _: () = assert!(OUTBOX_FULL_BYTES + 2 * FRAMES_IN_A_ROW * CONTENTS_BYTES < OUTBOX_BYTES);

/// Frames on their way out of a connection.
#[derive(Default)]
pub(crate) struct Outbox {
    outlet: Outlet,
    /// Whether to close the connection once they are sent, or at once.
    closing: Cell<bool>,
    overflowed: Cell<bool>,
}

impl Outbox {
    /// Adds a frame, for the next [`Outbox::send`]. A client that does not read its answers is cut off. Returns
    /// whether nothing waited before.
    pub(crate) fn push(&self, response: &Response) -> bool {
        let first = self.outlet.add(|buffer| frame::write(response, buffer));
        if self.outlet.len() > OUTBOX_BYTES {
            self.overflowed.set(true);
            self.outlet.wake();
        }
        first
    }

    /// Sends what was added.
    pub(crate) fn send(&self) {
        self.outlet.send();
    }

    /// Lets the connection's task send what was added.
    pub(crate) fn send_later(&self) {
        self.outlet.wake();
    }

    /// Closes the connection once what is in has been sent.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.outlet.wake();
    }
}

/// Serves a connection until either side closes it.
pub(crate) async fn serve(id: ConnectionId, stream: TcpStream, inbox: Rc<Inbox>, outbox: Rc<Outbox>) {
    let _best_effort = stream.set_nodelay(true);
    // A client whose machine is gone says nothing, for ever: the kernel asks it.
    let _best_effort = setsockopt(&stream, sockopt::KeepAlive, &true);
    let _best_effort = setsockopt(&stream, sockopt::TcpKeepIdle, &IDLE_SECONDS);
    let (reader, writer) = stream.into_split();
    let ended = |all_sent| outbox.overflowed.get() || all_sent && outbox.closing.get();
    tokio::select! {
        why = read_frames(id, reader, &inbox, &outbox) => debug!(connection = id.0, "closed: {why}"),
        _gone_or_closing = outbox.outlet.carry(writer, ended) => {}
    }
    outbox.outlet.close();
    inbox.disconnected(id);
}

/// Hands every request to the inbox. Returns why it stopped. Who asks faster than it takes its answers waits: to
/// ask for much at once is no offence.
async fn read_frames(id: ConnectionId, mut reader: OwnedReadHalf, inbox: &Inbox, outbox: &Outbox) -> String {
    let mut buffer = BytesMut::new();
    let mut said_hello = false;
    let mut in_a_row = 0;
    loop {
        outbox.outlet.at_most(OUTBOX_FULL_BYTES).await;
        let before = buffer.len();
        match frame::read::<Request>(&mut buffer) {
            Ok(Some(request)) => {
                inbox.request(id, request, before - buffer.len()).await;
                said_hello = true;
                in_a_row += 1;
                if in_a_row == FRAMES_IN_A_ROW {
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return error.to_string(),
        }
        if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
            buffer = BytesMut::new();
        }
        buffer.reserve(READ_BYTES.min(KEPT_BYTES));
        let read = reader.read_buf(&mut buffer);
        let read = if said_hello {
            read.await
        } else {
            match tokio::time::timeout(HELLO_WITHIN, read).await {
                Ok(read) => read,
                Err(_) => return "it said nothing".into(),
            }
        };
        match read {
            Ok(0) => return "by the client".into(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use wombat_proto::wire::{Contents, response};

    #[test]
    fn a_client_that_takes_nothing_of_what_it_has_not_asked_for_is_cut_off() {
        let outbox = Outbox::default();
        let contents = Contents { contents: Bytes::from(vec![0; CONTENTS_BYTES]), ..Contents::default() };
        let response = Response { result: Some(response::Result::Contents(contents)), ..Response::default() };
        for _ in 0..OUTBOX_BYTES / CONTENTS_BYTES - 1 {
            outbox.push(&response);
        }
        assert!(!outbox.overflowed.get(), "there is room for that");
        outbox.push(&response);
        assert!(outbox.overflowed.get());
    }
}
