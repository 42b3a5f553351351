//! Clients that reach this replica and not the master: their connections are passed on to the master.
//!
//! A client asks for that in its Hello. The replica copies bytes and decides nothing: the session is the master's,
//! and so are its leases. A client counts its lease from when it sent a KeepAlive, so the way through a relay only
//! shortens what it believes (P§2.8).

use crate::admission::Place;
use crate::socket;
use bytes::BytesMut;
use std::io;
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;
use wombat_proto::limits::{FRAME_BYTES, HELLO_WAIT};
use wombat_proto::wire::{Request, Response, request::Call, response};
use wombat_proto::{ReplicaId, frame};

/// How long the master may take to accept a relayed connection, and again to answer its Hello.
const MASTER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long what the master still says is passed on after the client has said its last.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);

/// The master that this replica knows of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Master {
    pub(crate) replica: ReplicaId,
    pub(crate) address: String,
}

/// What a replica needs to relay.
pub(crate) struct Relay {
    pub(crate) own: ReplicaId,
    /// `None` while it knows of no master.
    pub(crate) master: watch::Receiver<Option<Master>>,
}

impl Relay {
    /// Passes a connection on that has just said `hello`, if it asks for that and there is a master to pass it to.
    /// `rest` is what came behind that frame. Returns whether the connection is over; if it is not, the Hello is to
    /// be answered as if it had not asked.
    pub(crate) async fn pass_on(
        &self,
        client: &mut TcpStream,
        (hello, rest): (&mut Request, &BytesMut),
        place: &Place,
    ) -> bool {
        if !is_wanted(hello) {
            return false;
        }
        let master = self.master(take_wait(hello)).await;
        let Some(master) = master.filter(|_| place.relay()) else { return false };
        let mut out = BytesMut::new();
        frame::write(hello, &mut out);
        out.extend_from_slice(rest);
        match self.connect(&master, out).await {
            Ok((mut upstream, welcome)) => {
                let why = tokio::select! {
                    result = copy(client, &mut upstream, welcome) => format!("{result:?}"),
                    () = self.superseded(&master) => "there is another master".into(),
                };
                debug!(master = master.replica.0, "a relayed connection has ended: {why}");
                true
            }
            Err(error) => {
                debug!("cannot pass a client on to the master at {}: {error}", master.address);
                place.relay_no_more();
                false
            }
        }
    }

    /// The master, once one is known, if it is not this replica.
    async fn master(&self, wait: Duration) -> Option<Master> {
        let mut master = self.master.clone();
        let known = timeout(wait, master.wait_for(Option::is_some)).await;
        let known = known.ok()?.ok()?.clone();
        known.filter(|master| master.replica != self.own)
    }

    /// Waits until another replica is known to be master.
    async fn superseded(&self, master: &Master) {
        let is_other = |now: &Option<Master>| now.as_ref().is_some_and(|now| now != master);
        let mut now = self.master.clone();
        let _or_the_server_stops = now.wait_for(is_other).await;
    }

    /// Connects to the master and says the client's Hello. Returns what to tell the client first.
    async fn connect(&self, master: &Master, mut out: BytesMut) -> io::Result<(TcpStream, BytesMut)> {
        let mut upstream = timeout(MASTER_TIMEOUT, TcpStream::connect(&master.address)).await??;
        socket::prepare(&upstream);
        let mut inward = BytesMut::new();
        let response = timeout(MASTER_TIMEOUT, async {
            upstream.write_all_buf(&mut out).await?;
            read_frame::<Response>(&mut upstream, &mut inward, FRAME_BYTES).await
        });
        let mut response = response.await??;
        if let Some(response::Result::Welcome(welcome)) = &mut response.result {
            welcome.relayed_by = self.own.0;
        }
        let mut welcome = BytesMut::new();
        frame::write(&response, &mut welcome);
        welcome.extend_from_slice(&inward);
        Ok((upstream, welcome))
    }
}

/// Whether a request asks for what [`Relay::pass_on`] does.
pub(crate) fn is_wanted(request: &Request) -> bool {
    matches!(&request.call, Some(Call::Hello(hello)) if hello.relay)
}

/// How long a Hello may wait for a master. From here on it does not: this replica waits, and nobody relays further.
fn take_wait(request: &mut Request) -> Duration {
    let Some(Call::Hello(hello)) = &mut request.call else { return Duration::ZERO };
    hello.relay = false;
    Duration::from_millis(std::mem::take(&mut hello.wait_ms).into()).min(HELLO_WAIT)
}

/// Reads the first frame of a connection, which is no longer than that.
pub(crate) async fn read_frame<M: prost::Message + Default>(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    longest: usize,
) -> io::Result<M> {
    loop {
        if let Some(message) = frame::read_up_to(buffer, longest).map_err(io::Error::other)? {
            return Ok(message);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Copies both ways until either side has ended.
async fn copy(client: &mut TcpStream, master: &mut TcpStream, mut first: BytesMut) -> io::Result<()> {
    client.write_all_buf(&mut first).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_master, mut to_master) = master.split();
    let inward = pin!(copy_to_end(&mut from_client, &mut to_master));
    let mut outward = pin!(copy_to_end(&mut from_master, &mut to_client));
    tokio::select! {
        ended = &mut outward => ended,
        ended = inward => {
            ended?;
            timeout(LAST_ANSWERS_TIMEOUT, outward).await?
        }
    }
}

/// Buffers eight kibibytes, and waits while the writer takes nothing.
async fn copy_to_end(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    tokio::io::copy(reader, writer).await?;
    writer.shutdown().await
}
