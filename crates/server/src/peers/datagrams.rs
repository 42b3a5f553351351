//! Small messages between replicas travel twice: on their connection, and as datagrams beside it.
//!
//! TCP answers a lost packet with silence: everything behind it waits for 200 ms, and for twice as long after
//! each further loss. The master lease is hardly longer than that, so a network that loses one packet in ten
//! would change masters again and again (P§4.6: KeepAlives go by UDP for the same reason). Messages of the
//! agreement may be lost, repeated and overtaken, so a copy does no harm, and the first one to arrive counts.
//! Where no datagrams pass, the connections do what they always did.
//!
//! A datagram begins with the key that its receiver has given to those that have met it over TCP, and with its
//! sender's id; then come frames, as on a connection.

use super::callers::Callers;
use super::convert;
use super::own::Key;
use crate::inbox::Inbox;
use bytes::{BufMut, BytesMut};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::UdpSocket;
use tracing::debug;
use wombat_proto::limits::PEER_DATAGRAM_BYTES;
use wombat_proto::wire::peer::Frame;
use wombat_proto::{ReplicaId, frame};

const HEADER_BYTES: usize = size_of::<Key>() + size_of::<u32>();

/// The socket for datagrams from and to all other replicas.
pub(crate) struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// At the same address as the listener for connections.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Datagrams> {
        Ok(Datagrams { socket: UdpSocket::bind(address).await? })
    }

    /// Takes in what the others send, for as long as it is polled.
    pub(crate) async fn listen(self: Rc<Self>, own_key: Key, callers: Rc<Callers>, inbox: Rc<Inbox>) {
        let mut buffer = BytesMut::new();
        loop {
            buffer.clear();
            buffer.reserve(PEER_DATAGRAM_BYTES + 1);
            if let Err(error) = self.socket.recv_buf(&mut buffer).await {
                debug!("a datagram could not be received: {error}"); // An ICMP error of one sent earlier.
            } else if let Some(from) = sender(&mut buffer, &own_key) {
                take_in(from, &mut buffer, &callers, &inbox).await;
            }
        }
    }
}

/// Who has sent a datagram, if it has the key.
fn sender(buffer: &mut BytesMut, own_key: &Key) -> Option<ReplicaId> {
    if buffer.len() < HEADER_BYTES || buffer.len() > PEER_DATAGRAM_BYTES {
        return None;
    }
    let header = buffer.split_to(HEADER_BYTES);
    let (key, id) = header.split_first_chunk::<{ size_of::<Key>() }>()?;
    (key == own_key).then(|| ReplicaId(u32::from_be_bytes(id.try_into().unwrap_or_default())))
}

async fn take_in(from: ReplicaId, buffer: &mut BytesMut, callers: &Callers, inbox: &Inbox) {
    while !buffer.is_empty() && callers.is_admitted(from) {
        let before = buffer.len();
        let Ok(Some(frame)) = frame::read_up_to::<Frame>(buffer, PEER_DATAGRAM_BYTES) else { return };
        let is_new = callers.is_new(from, frame.number);
        let Some(message) = convert::from_frame(frame) else { return };
        if is_new {
            inbox.peer(from, message, before - buffer.len()).await;
        }
    }
}

/// Datagrams on their way to one replica.
pub(super) struct Sender {
    socket: Option<Rc<Datagrams>>,
    header: BytesMut,
    /// Where it takes datagrams, and its key; unknown before it was met over TCP.
    to: Cell<Option<(SocketAddr, Key)>>,
    /// Frames for the next datagram.
    frames: RefCell<BytesMut>,
    /// The number of the next message that travels twice.
    next: Cell<u64>,
}

impl Sender {
    pub(super) fn new(socket: Option<Rc<Datagrams>>, own: ReplicaId, first: u64) -> Sender {
        let mut header = BytesMut::new();
        header.put_u32(own.0);
        Sender {
            socket,
            header,
            to: Cell::default(),
            frames: RefCell::default(),
            next: Cell::new(first.max(1)),
        }
    }

    /// The replica was met at this address; an empty key says that it takes no datagrams.
    pub(super) fn meet(&self, at: SocketAddr, key: &[u8]) {
        self.to.set(key.try_into().ok().map(|key| (at, key)));
    }

    /// Adds a copy of a message that is small enough, and numbers it for that.
    pub(super) fn add(&self, message: &mut Frame) {
        if self.socket.is_none() || self.to.get().is_none() {
            return;
        }
        message.number = self.next.get();
        let bytes = 4 + prost::Message::encoded_len(message);
        if bytes > PEER_DATAGRAM_BYTES - HEADER_BYTES {
            message.number = 0;
            return;
        }
        self.next.set(self.next.get().wrapping_add(1).max(1));
        if self.frames.borrow().len() + bytes > PEER_DATAGRAM_BYTES - HEADER_BYTES {
            self.flush();
        }
        frame::write_up_to(message, &mut self.frames.borrow_mut(), PEER_DATAGRAM_BYTES);
    }

    /// Sends what was added. What the socket does not take is lost: the connection has it, too.
    pub(super) fn flush(&self) {
        let mut frames = self.frames.borrow_mut();
        if frames.is_empty() {
            return;
        }
        if let (Some(datagrams), Some((at, key))) = (&self.socket, self.to.get()) {
            let datagram = [&key[..], &self.header, &frames].concat();
            let _lost = datagrams.socket.try_send_to(&datagram, at);
        }
        frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_without_the_key_has_no_sender() {
        let key = [7; 16];
        let datagram = |key: Key| {
            let mut bytes = BytesMut::from(&key[..]);
            bytes.put_u32(3);
            bytes
        };
        assert_eq!(sender(&mut datagram(key), &key), Some(ReplicaId(3)));
        assert_eq!(sender(&mut datagram([8; 16]), &key), None);
        assert_eq!(sender(&mut BytesMut::from(&key[..]), &key), None);
        assert_eq!(sender(&mut BytesMut::zeroed(PEER_DATAGRAM_BYTES + 1), &[0; 16]), None);
    }
}
