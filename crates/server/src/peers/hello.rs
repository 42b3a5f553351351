//! How two replicas meet: a greeting, and a Hello either way.

use super::own::{Own, Start};
use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wombat_proto::ReplicaId;
use wombat_proto::frame;
use wombat_proto::limits::FRAME_BYTES;
use wombat_proto::wire::VERSION;
use wombat_proto::wire::peer::Hello;

/// What a replica says first; no client's frame begins like it, because none is so long.
pub(crate) const GREETING: &[u8; 8] = b"WOMBAT-1";

/// How long a meeting may take.
const MEET_WITHIN: Duration = Duration::from_secs(2);

impl Own {
    /// What this replica says to one that has said so much, if it has.
    fn hello(&self, to: Option<&Hello>) -> Hello {
        let rolled_back = to.is_some_and(|to| self.takes_back_start(ReplicaId(to.replica), Start::of(to)));
        Hello {
            version: VERSION,
            cell: self.cell.to_string(),
            cell_id: self.cell_id.clone(),
            replica: self.replica.0,
            nonce: self.nonce.clone(),
            founders: self.founders.clone(),
            address: self.address.clone(),
            datagram_key: self.key.to_vec().into(),
            starts: self.start.count,
            life: self.start.life,
            rolled_back,
        }
    }
}

/// A connection through which nothing has come for so long is given up: the kernel itself would go on trying
/// for minutes, at ever longer intervals.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

/// After how many silent seconds the kernel asks whether the other side is still there.
const IDLE_SECONDS: u32 = 10;

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &(GIVE_UP_AFTER.as_millis() as u32))?;
    // Of two machines only one speaks on a connection. The other hears of a death only if it asks.
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE_SECONDS)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    Ok(())
}

/// Connects to a replica, whose name is resolved anew, and meets it.
pub(crate) async fn connect(address: &str, own: &Own) -> io::Result<(TcpStream, Hello)> {
    within(async {
        let mut stream = TcpStream::connect(address).await?;
        prepare(&stream)?;
        let mut out = BytesMut::from(&GREETING[..]);
        frame::write(&own.hello(None), &mut out);
        stream.write_all_buf(&mut out).await?;
        let hello = read_hello(&mut stream, &mut BytesMut::new()).await?;
        Ok((stream, hello))
    })
    .await
}

/// Meets a replica that has connected. What it has sent already beyond its Hello is left in `buffer`.
pub(crate) async fn welcome(stream: &mut TcpStream, own: &Own, buffer: &mut BytesMut) -> io::Result<Hello> {
    within(async {
        prepare(stream)?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting).await?;
        if greeting != *GREETING {
            return Err(io::Error::other("it speaks another protocol"));
        }
        let hello = read_hello(stream, buffer).await?;
        let mut out = BytesMut::new();
        frame::write(&own.hello(Some(&hello)), &mut out);
        stream.write_all_buf(&mut out).await?;
        Ok(hello)
    })
    .await
}

async fn read_hello(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<Hello> {
    loop {
        if let Some(hello) = frame::read_up_to(buffer, FRAME_BYTES).map_err(io::Error::other)? {
            return Ok(hello);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn within<T>(meeting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(MEET_WITHIN, meeting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
