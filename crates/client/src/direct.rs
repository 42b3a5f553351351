//! Asking one replica something without a session: how it is, what it knows, or to hand over.

use crate::convert::unexpected;
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
    match ask(endpoint, hello(cell), Call::GetStatus(wire::GetStatus {}), within).await? {
        Answer::Status(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

/// Tells the master at `endpoint` to hand over to another voter; 0: to the one that is furthest.
///
/// Errors: [`Error::NotMaster`] with a hint where the master is; [`Error::InvalidArgument`] if the replica
/// has no vote.
pub async fn transfer_mastership(endpoint: &str, to: u32, within: Duration) -> Result<()> {
    ask(endpoint, hello(""), Call::Transfer(wire::Transfer { replica: to }), within).await.map(drop)
}

/// The same for a client that does not reach the master: the replica at `endpoint` passes it on.
///
/// Errors: as [`transfer_mastership`]; [`Error::NotMaster`] also if that replica does not reach the master, either.
pub async fn relay_transfer(endpoint: &str, to: u32, within: Duration) -> Result<()> {
    let hello = wire::Hello { relay: true, ..hello("") };
    ask(endpoint, hello, Call::Transfer(wire::Transfer { replica: to }), within).await.map(drop)
}

fn hello(cell: &str) -> wire::Hello {
    wire::Hello { version: wire::VERSION, cell: cell.to_owned(), ..wire::Hello::default() }
}

async fn ask(endpoint: &str, hello: wire::Hello, call: Call, within: Duration) -> Result<Answer> {
    let both = async { Direct::greet(endpoint, hello, within).await?.ask(call).await };
    match tokio::time::timeout(within, both).await {
        Ok(answer) => answer.map_err(Failed::into_error),
        Err(_) => Err(Failed::silent(endpoint).into_error()),
    }
}

/// Why a replica that was asked gave no answer.
pub(crate) enum Failed {
    /// It refuses.
    Refused(Error),
    /// It is not there, or not any more: what was wrong.
    Gone(String),
}

impl Failed {
    fn silent(endpoint: &str) -> Failed {
        Failed::Gone(format!("a replica at {endpoint} (no answer)"))
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Failed::Refused(error) => error,
            Failed::Gone(what) => Error::not_found(what),
        }
    }
}

/// A connection to one replica that belongs to no session.
pub(crate) struct Direct {
    endpoint: String,
    /// How long an answer may take.
    within: Duration,
    stream: TcpStream,
    inward: BytesMut,
    last: u64,
    /// What it said of itself.
    pub(crate) welcome: wire::Welcome,
}

impl Direct {
    /// Connects to a replica of a cell; empty: whichever it is of.
    pub(crate) async fn connect(
        endpoint: &str,
        cell: &str,
        within: Duration,
    ) -> std::result::Result<Direct, Failed> {
        Direct::greet(endpoint, hello(cell), within).await
    }

    async fn greet(
        endpoint: &str,
        hello: wire::Hello,
        within: Duration,
    ) -> std::result::Result<Direct, Failed> {
        let connect = async {
            let stream = TcpStream::connect(endpoint).await?;
            stream.set_nodelay(true).map(|()| stream)
        };
        let stream = match tokio::time::timeout(within, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failed::Gone(format!("a replica at {endpoint} ({error})"))),
            Err(_) => return Err(Failed::silent(endpoint)),
        };
        let (inward, welcome) = (BytesMut::new(), wire::Welcome::default());
        let endpoint = endpoint.to_owned();
        let mut direct = Direct { endpoint, within, stream, inward, last: 0, welcome };
        match direct.ask(Call::Hello(hello)).await? {
            Answer::Welcome(welcome) => Ok(Direct { welcome, ..direct }),
            _ => Err(Failed::Refused(unexpected())),
        }
    }

    /// Asks it something.
    pub(crate) async fn ask(&mut self, call: Call) -> std::result::Result<Answer, Failed> {
        match tokio::time::timeout(self.within, self.exchange(call)).await {
            Ok(Ok(Answer::Error(error))) => Err(Failed::Refused(error.into())),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failed::Gone(match error.kind() {
                ConnectionReset | UnexpectedEof => {
                    format!("a replica at {} (closed without an answer)", self.endpoint)
                }
                _ => format!("a replica at {} ({error})", self.endpoint),
            })),
            Err(_) => Err(Failed::silent(&self.endpoint)),
        }
    }

    async fn exchange(&mut self, call: Call) -> std::io::Result<Answer> {
        self.last += 1;
        let mut outward = BytesMut::new();
        frame::write(&Request { number: self.last, call: Some(call), ..Request::default() }, &mut outward);
        self.stream.write_all_buf(&mut outward).await?;
        loop {
            while let Some(response) =
                frame::read::<Response>(&mut self.inward).map_err(std::io::Error::other)?
            {
                if let (number, Some(answer)) = (response.number, response.result)
                    && number == self.last
                {
                    return Ok(answer);
                }
            }
            if self.stream.read_buf(&mut self.inward).await? == 0 {
                return Err(UnexpectedEof.into());
            }
        }
    }
}
