//! One client's connection: frames in, frames out.

use crate::admission::Place;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::outlet::KEPT_BYTES;
use crate::relay::{self, Relay, read_frame};
use crate::socket;
use bytes::BytesMut;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;
use tracing::debug;
use wombat_proto::limits::{CONTENTS_BYTES, HELLO_BYTES, HELLO_TIMEOUT, OUTBOX_BYTES, OUTBOX_FULL_BYTES};
use wombat_proto::wire::{Request, Response, request::Call, response};
use wombat_proto::{Error, frame};
use wombat_replica::ConnectionId;

/// After how long a client may ask again that found no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much is read at once, so that one busy connection does not starve the others.
const READ_BYTES: usize = 64 * 1024;

/// After how many frames in a row a connection lets the others have their turn at the inbox, which may be full.
const FRAMES_IN_A_ROW: usize = 64;

// A connection has its turn once or twice before the core has one.
const _: () = assert!(OUTBOX_FULL_BYTES + 2 * FRAMES_IN_A_ROW * CONTENTS_BYTES < OUTBOX_BYTES);

/// Serves a connection until either side closes it.
pub(crate) async fn serve(
    id: ConnectionId,
    mut stream: TcpStream,
    place: &Place,
    (inbox, relay): (&Inbox, &Relay),
    outbox: &Outbox,
) {
    socket::prepare(&stream);
    let mut buffer = BytesMut::new();
    let first = timeout(HELLO_TIMEOUT, read_frame::<Request>(&mut stream, &mut buffer, HELLO_BYTES)).await;
    let first = match first {
        Ok(Ok(first)) => first,
        Ok(Err(error)) => return debug!(connection = id.0, "closed before its first request: {error}"),
        Err(_) => return debug!(connection = id.0, "closed: it said no Hello in time"),
    };
    if place.identify().is_none() {
        let mut out = BytesMut::new();
        frame::write(&overloaded(&first), &mut out);
        let _best_effort = stream.try_write(&out);
        return;
    }
    let conversation = Conversation { id, place, inbox, outbox };
    let mut request = first;
    while !relay.pass_on(&mut stream, (&mut request, &buffer), place).await {
        let (reader, writer) = stream.into_split();
        let ended = |all_sent| outbox.overflowed.get() || all_sent && outbox.closing.get();
        let ended = tokio::select! {
            ended = conversation.read_frames(request, reader, buffer) => ended,
            _gone_or_closing = outbox.outlet.carry(writer, ended) => return,
        };
        let reader;
        (request, reader, buffer) = match ended {
            Ended::AsksForRelay(request, reader, rest) => (request, reader, rest),
            Ended::Closed(why) => return debug!(connection = id.0, "closed: {why}"),
        };
        let Some(writer) = outbox.outlet.take_writer() else { return };
        let Ok(whole) = reader.reunite(writer) else { return };
        stream = whole;
    }
}

/// What a client that found no room is answered.
fn overloaded(request: &Request) -> Response {
    let error = Error::Overloaded { retry_after: RETRY_AFTER };
    let result = Some(response::Result::Error((&error).into()));
    Response { session: request.session, number: request.number, result, ..Response::default() }
}

/// What the requests of a connection need.
struct Conversation<'a> {
    id: ConnectionId,
    place: &'a Place,
    inbox: &'a Inbox,
    outbox: &'a Outbox,
}

/// Why no further requests are read.
enum Ended {
    Closed(String),
    /// Every answer has been sent.
    AsksForRelay(Request, OwnedReadHalf, BytesMut),
}

impl Conversation<'_> {
    /// Hands every request to the inbox. A client that asks faster than it takes its answers waits: to ask for much
    /// at once is no offence.
    async fn read_frames(&self, first: Request, mut reader: OwnedReadHalf, mut buffer: BytesMut) -> Ended {
        let bytes = prost::Message::encoded_len(&first);
        self.inbox.request(self.id, first, bytes).await;
        let mut in_a_row = 0;
        loop {
            self.outbox.outlet.at_most(OUTBOX_FULL_BYTES).await;
            let before = buffer.len();
            match frame::read::<Request>(&mut buffer) {
                Ok(Some(request)) if relay::is_wanted(&request) => {
                    self.outbox.outlet.at_most(0).await;
                    return Ended::AsksForRelay(request, reader, buffer);
                }
                Ok(Some(request)) if self.may_ask(&request) => {
                    self.inbox.request(self.id, request, before - buffer.len()).await;
                    in_a_row += 1;
                    if in_a_row == FRAMES_IN_A_ROW {
                        in_a_row = 0;
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
                Ok(Some(request)) => {
                    self.outbox.push(&overloaded(&request));
                    self.outbox.send();
                    // A place of the last ones is not for a client that only wants another session.
                    if !self.place.had_session() {
                        return Ended::Closed("there is no room for its session".into());
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => return Ended::Closed(error.to_string()),
            }
            if buffer.is_empty() && buffer.capacity() > KEPT_BYTES {
                buffer = BytesMut::new();
            }
            buffer.reserve(READ_BYTES.min(KEPT_BYTES));
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return Ended::Closed("by the client".into()),
                Ok(_) => self.place.is_active(Instant::now()),
                Err(error) => return Ended::Closed(error.to_string()),
            }
        }
    }

    fn may_ask(&self, request: &Request) -> bool {
        match request.call {
            Some(Call::CreateSession(_)) => self.place.may_create_session(),
            // The places of operators are for questions about the cell.
            Some(Call::ResumeSession(_) | Call::ReadPath(_)) => self.place.is_client(),
            _ => true,
        }
    }
}
