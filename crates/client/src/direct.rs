//! Asking one replica something without a session: how it is, what it knows, or to hand over.

use crate::answer::unexpected;
use crate::links::why;
use crate::race::race;
use bytes::BytesMut;
use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use wombat_proto::wire::{self, Request, Response, request::Call, response::Result as Answer};
use wombat_proto::{Error, Result, frame};

/// How one replica sees itself and its cell; any replica answers, master or not.
///
/// Errors: [`Error::Unreachable`] if it does not answer within `within`, saying why; [`Error::InvalidArgument`]
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
        Ok(answer) => answer.map_err(|failed| Failed::together(vec![failed])),
        Err(_) => Err(Failed::together(vec![Failed::silent(endpoint, within)])),
    }
}

/// Why a replica that was asked gave no answer.
pub(crate) struct Failed {
    endpoint: String,
    why: Why,
}

enum Why {
    /// It refuses.
    Refused(Error),
    /// It is not there, or not any more: what was wrong.
    Gone(String),
}

impl Failed {
    pub(crate) fn refused(endpoint: &str, error: Error) -> Failed {
        Failed { endpoint: endpoint.to_owned(), why: Why::Refused(error) }
    }

    fn gone(endpoint: &str, why: impl Into<String>) -> Failed {
        Failed { endpoint: endpoint.to_owned(), why: Why::Gone(why.into()) }
    }

    fn silent(endpoint: &str, within: Duration) -> Failed {
        Failed::gone(endpoint, format!("no answer within {within:?}"))
    }

    /// The error that it refuses with.
    pub(crate) fn refusal(&self) -> Option<&Error> {
        match &self.why {
            Why::Refused(error) => Some(error),
            Why::Gone(_) => None,
        }
    }

    /// The error that one or several failures come to: the refusal, if all refuse.
    pub(crate) fn together(failures: Vec<Failed>) -> Error {
        let refusal = failures.first().and_then(Failed::refusal);
        if let Some(error) = refusal.filter(|_| failures.iter().all(|failed| failed.refusal().is_some())) {
            return error.clone();
        }
        Error::unreachable(describe(&failures))
    }
}

fn describe(failures: &[Failed]) -> String {
    let describe = |failed: &Failed| match &failed.why {
        Why::Refused(error) => format!("{} answered: {error}", failed.endpoint),
        Why::Gone(why) => format!("{}: {why}", failed.endpoint),
    };
    failures.iter().map(describe).collect::<Vec<_>>().join("; ")
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
    /// Connects to a replica of a cell; empty: whichever it is of. Of the addresses that a name stands for the first
    /// that answers is taken.
    pub(crate) async fn connect(
        endpoint: &str,
        cell: &str,
        within: Duration,
    ) -> std::result::Result<Direct, Failed> {
        Direct::greet(endpoint, hello(cell), within).await
    }

    /// Connects to the master through a replica that passes the connection on.
    pub(crate) async fn connect_through(
        endpoint: &str,
        cell: &str,
        within: Duration,
    ) -> std::result::Result<Direct, Failed> {
        let wait_ms = (within / 2).as_millis() as u32;
        Direct::greet(endpoint, wire::Hello { relay: true, wait_ms, ..hello(cell) }, within).await
    }

    async fn greet(
        endpoint: &str,
        hello: wire::Hello,
        within: Duration,
    ) -> std::result::Result<Direct, Failed> {
        let addresses: Vec<SocketAddr> = match tokio::time::timeout(within, lookup_host(endpoint)).await {
            Ok(Ok(addresses)) => addresses.collect(),
            Ok(Err(error)) => return Err(Failed::gone(endpoint, why(&error))),
            Err(_) => return Err(Failed::gone(endpoint, "its name is not resolved in time")),
        };
        let attempts =
            addresses.into_iter().map(|address| Direct::greet_at(endpoint, address, hello.clone(), within));
        race(attempts).await.map_err(|mut failures| match failures.len() {
            0 => Failed::gone(endpoint, "the name stands for no address"),
            1 => failures.remove(0),
            _ => Failed::gone(endpoint, format!("none of {} addresses answers", failures.len())),
        })
    }

    async fn greet_at(
        endpoint: &str,
        address: SocketAddr,
        hello: wire::Hello,
        within: Duration,
    ) -> std::result::Result<Direct, Failed> {
        let connect = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true).map(|()| stream)
        };
        let stream = match tokio::time::timeout(within, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failed::gone(endpoint, why(&error))),
            Err(_) => return Err(Failed::silent(endpoint, within)),
        };
        let (inward, welcome) = (BytesMut::new(), wire::Welcome::default());
        let endpoint = endpoint.to_owned();
        let mut direct = Direct { endpoint, within, stream, inward, last: 0, welcome };
        match direct.ask(Call::Hello(hello)).await? {
            Answer::Welcome(welcome) => Ok(Direct { welcome, ..direct }),
            _ => Err(direct.refused(unexpected())),
        }
    }

    /// It refuses something with that error.
    pub(crate) fn refused(&self, error: Error) -> Failed {
        Failed::refused(&self.endpoint, error)
    }

    /// Asks it something.
    pub(crate) async fn ask(&mut self, call: Call) -> std::result::Result<Answer, Failed> {
        match tokio::time::timeout(self.within, self.exchange(call)).await {
            Ok(Ok(Answer::Error(error))) => Err(self.refused(error.into())),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failed::gone(
                &self.endpoint,
                match error.kind() {
                    ConnectionReset | UnexpectedEof => "closed without an answer".to_owned(),
                    _ => why(&error),
                },
            )),
            Err(_) => Err(Failed::silent(&self.endpoint, self.within)),
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
