//! As much of gRPC over HTTP/2 as clients need that trust their server: what headers say is not looked at, and
//! the windows are wider than anything that is ever on its way.

use super::link::{Asked, Link, Protocol};
use crate::Result;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::marker::PhantomData;
use tokio::sync::mpsc::UnboundedReceiver;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of every frame.
const HEAD_BYTES: usize = 9;
/// Before every message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
const LARGEST_WINDOW: u32 = i32::MAX as u32;
const USUAL_WINDOW: u32 = 65_535;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// A connection to a gRPC server.
pub(super) struct Grpc {
    link: Link<Http2>,
    next: Cell<u32>,
}

/// The answer to a call, which is still to come.
pub(super) struct Called<A>(Asked<Option<Bytes>>, PhantomData<A>);

/// A call that goes on: messages both ways.
pub(super) struct Stream<A> {
    id: u32,
    heard: UnboundedReceiver<Option<Bytes>>,
    answer: PhantomData<A>,
}

impl Grpc {
    pub(super) async fn open(address: &str) -> Result<Grpc> {
        let link = Link::open(address, Http2::default()).await?;
        link.say(|outward| {
            outward.put_slice(PREFACE);
            put_head(outward, SETTINGS, 0, 0, 6);
            outward.put_u16(INITIAL_WINDOW_SIZE);
            outward.put_u32(LARGEST_WINDOW);
            put_head(outward, WINDOW_UPDATE, 0, 0, 4);
            outward.put_u32(LARGEST_WINDOW - USUAL_WINDOW);
        });
        Ok(Grpc { link, next: Cell::new(1) })
    }

    /// Calls what is answered once.
    pub(super) fn call<A>(&self, path: &str, request: &impl Message) -> Called<A> {
        let id = self.next_id();
        let asked = self.link.ask(id, |outward| {
            put_headers(outward, id, path);
            put_message(outward, id, request, END_STREAM);
        });
        Called(asked, PhantomData)
    }

    /// Calls what is answered time and again.
    pub(super) fn stream<A>(&self, path: &str) -> Stream<A> {
        let id = self.next_id();
        let heard = self.link.listen(id);
        self.link.say(|outward| put_headers(outward, id, path));
        Stream { id, heard, answer: PhantomData }
    }

    /// Says something more.
    pub(super) fn say<A>(&self, stream: &Stream<A>, message: &impl Message) {
        self.link.say(|outward| put_message(outward, stream.id, message, 0));
    }

    /// Clients' streams have odd numbers.
    fn next_id(&self) -> u32 {
        self.next.replace(self.next.get() + 2)
    }
}

impl<A: Message + Default> Called<A> {
    pub(super) async fn answer(self) -> Result<A> {
        Ok(A::decode(self.0.await?.ok_or("the call failed")?)?)
    }
}

impl<A: Message + Default> Stream<A> {
    pub(super) async fn next(&mut self) -> Result<A> {
        let message = self.heard.recv().await.ok_or("the connection is gone")?;
        Ok(A::decode(message.ok_or("the stream has ended")?)?)
    }
}

/// The server's side of a connection, as it arrives.
#[derive(Default)]
struct Http2 {
    /// Of each stream, what has arrived of a message that has not arrived whole.
    partly: HashMap<u32, BytesMut>,
    /// Whole messages; `None`: a stream has ended.
    ready: VecDeque<(u32, Option<Bytes>)>,
}

impl Protocol for Http2 {
    type Key = u32;
    /// `None`: there is none, and will be none.
    type Answer = Option<Bytes>;

    fn read(
        &mut self,
        inward: &mut BytesMut,
        outward: &mut BytesMut,
    ) -> Result<Option<(u32, Option<Bytes>)>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Ok(Some(ready));
            }
            let Some(head) = inward.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if inward.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            inward.advance(HEAD_BYTES);
            let body = inward.split_to(length);
            match kind {
                DATA => self.arrived(stream, body),
                SETTINGS if flags & ACK == 0 => put_head(outward, SETTINGS, ACK, 0, 0),
                PING if flags & ACK == 0 => {
                    put_head(outward, PING, ACK, 0, body.len());
                    outward.put_slice(&body);
                }
                RESET => self.ready.push_back((stream, None)),
                GO_AWAY => return Err("the server goes away".into()),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                self.ready.push_back((stream, None));
            }
        }
    }
}

impl Http2 {
    fn arrived(&mut self, stream: u32, body: BytesMut) {
        let mut bytes = match self.partly.remove(&stream) {
            Some(mut bytes) => {
                bytes.unsplit(body);
                bytes
            }
            None => body,
        };
        while let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            if bytes.len() < PREFIX_BYTES + length {
                break;
            }
            bytes.advance(PREFIX_BYTES);
            self.ready.push_back((stream, Some(bytes.split_to(length).freeze())));
        }
        if !bytes.is_empty() {
            self.partly.insert(stream, bytes);
        }
    }
}

fn put_head(outward: &mut BytesMut, kind: u8, flags: u8, stream: u32, length: usize) {
    outward.put_uint(length as u64, 3);
    outward.put_u8(kind);
    outward.put_u8(flags);
    outward.put_u32(stream);
}

/// The headers of a call. Names by their places in HPACK's table, values as they are.
fn put_headers(outward: &mut BytesMut, stream: u32, path: &str) {
    let mut block = BytesMut::new();
    block.put_slice(&[0x83, 0x86]); // method POST, scheme http
    for (name, value) in [(&[0x04][..], path), (&[0x01], "localhost"), (&[0x0f, 0x10], "application/grpc")] {
        block.put_slice(name); // path, authority, content-type
        put_text(&mut block, value);
    }
    block.put_u8(0);
    put_text(&mut block, "te");
    put_text(&mut block, "trailers");
    put_head(outward, HEADERS, END_HEADERS, stream, block.len());
    outward.put_slice(&block);
}

/// Shorter than 127 bytes, which all of them are.
fn put_text(block: &mut BytesMut, text: &str) {
    block.put_u8(text.len() as u8);
    block.put_slice(text.as_bytes());
}

fn put_message(outward: &mut BytesMut, stream: u32, message: &impl Message, flags: u8) {
    let length = message.encoded_len();
    put_head(outward, DATA, flags, stream, PREFIX_BYTES + length);
    outward.put_u8(0);
    outward.put_u32(length as u32);
    outward.put_slice(&message.encode_to_vec());
}
