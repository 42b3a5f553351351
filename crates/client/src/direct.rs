//! Asking one replica something without a session: how it is, or to hand over.

use bytes::BytesMut;
use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wombat_proto::wire::{self, Request, Response, request::Call, response::Result as Answer};
use wombat_proto::{Error, Result, frame};

/// How one replica sees itself and its cell; any replica answers, master or not.
///
/// Errors: [`Error::NotFound`] if it cannot be reached within `within`, saying why; [`Error::InvalidArgument`]
/// if it is of another cell than `cell`; empty: whichever it is.
pub async fn replica_status(endpoint: &str, cell: &str, within: Duration) -> Result<wire::Status> {
    match ask(endpoint, cell, Call::GetStatus(wire::GetStatus {}), within).await? {
        Answer::Status(status) => Ok(status),
        _ => Err(crate::convert::unexpected()),
    }
}

/// Tells the master at `endpoint` to hand over to another voter; 0: to the one that is furthest.
///
/// Errors: [`Error::NotMaster`] with a hint where the master is; [`Error::InvalidArgument`] if the replica
/// has no vote.
pub async fn transfer_mastership(endpoint: &str, to: u32, within: Duration) -> Result<()> {
    ask(endpoint, "", Call::Transfer(wire::Transfer { replica: to }), within).await.map(drop)
}

async fn ask(endpoint: &str, cell: &str, call: Call, within: Duration) -> Result<Answer> {
    match tokio::time::timeout(within, exchange(endpoint, cell, call)).await {
        Ok(Ok(Answer::Error(error))) => Err(error.into()),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if matches!(error.kind(), ConnectionReset | UnexpectedEof) => {
            Err(Error::not_found(format!("a replica at {endpoint} (closed without an answer)")))
        }
        Ok(Err(error)) => Err(Error::not_found(format!("a replica at {endpoint} ({error})"))),
        Err(_) => Err(Error::not_found(format!("a replica at {endpoint} (no answer)"))),
    }
}

async fn exchange(endpoint: &str, cell: &str, call: Call) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(endpoint).await?;
    stream.set_nodelay(true)?;
    let hello =
        Call::Hello(wire::Hello { version: wire::VERSION, cell: cell.into(), ..wire::Hello::default() });
    let mut buffer = BytesMut::new();
    for (number, call) in (1..).zip([hello, call]) {
        frame::write(&Request { number, call: Some(call), ..Request::default() }, &mut buffer);
    }
    stream.write_all_buf(&mut buffer).await?;
    loop {
        while let Some(response) = frame::read::<Response>(&mut buffer).map_err(std::io::Error::other)? {
            match (response.number, response.result) {
                (2, Some(answer)) | (_, Some(answer @ Answer::Error(_))) => return Ok(answer),
                _ => {}
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
