//! A client that speaks the protocol by hand, on one connection, and never looks for another master.

use bytes::BytesMut;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use wombat_proto::frame;
use wombat_proto::wire::{self, Request, Response, SessionOpened, request::Call, response::Result as Answer};

pub(crate) struct Raw {
    stream: TcpStream,
    inward: BytesMut,
    last: u64,
    /// Its session; number 0 before it has one.
    pub(crate) session: SessionOpened,
}

impl Raw {
    /// Connects and says Hello; whether somebody hears it is another matter.
    pub(crate) fn dial(address: &str) -> Raw {
        Raw::dial_with(address, wire::Hello::default())
    }

    /// The same with a Hello of one's own, but for its version.
    pub(crate) fn dial_with(address: &str, hello: wire::Hello) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut raw = Raw { stream, inward: BytesMut::new(), last: 0, session: SessionOpened::default() };
        raw.send(Call::Hello(wire::Hello { version: wire::VERSION, ..hello }));
        raw
    }

    /// Connects to the master and begins a session.
    pub(crate) fn attach(address: &str) -> Raw {
        let mut raw = Raw::dial(address);
        assert!(matches!(raw.answer(1), Some(Answer::Welcome(welcome)) if welcome.epoch > 0));
        raw.begin_session();
        raw
    }

    /// Begins a session on a connection that has been welcomed.
    pub(crate) fn begin_session(&mut self) {
        let create =
            Call::CreateSession(wire::CreateSession { client: "by hand".into(), ..Default::default() });
        let Some(Answer::SessionOpened(opened)) = self.ask(create) else { panic!("no session") };
        self.session = opened;
    }

    /// Sends a request and returns its number.
    pub(crate) fn send(&mut self, call: Call) -> u64 {
        let session = match &call {
            Call::Hello(_) | Call::CreateSession(_) | Call::CheckSequencer(_) => 0,
            Call::ListLocks(_) | Call::ListSessions(_) | Call::GetStatus(_) => 0,
            _ => self.session.session,
        };
        self.send_as(session, call)
    }

    /// Shows another session's secret, as the first thing that this connection says of a session.
    pub(crate) fn resume(&mut self, other: &SessionOpened) -> u64 {
        let (secret_high, secret_low) = (other.secret_high, other.secret_low);
        self.send_as(other.session, Call::ResumeSession(wire::ResumeSession { secret_high, secret_low }))
    }

    fn send_as(&mut self, session: u64, call: Call) -> u64 {
        self.last += 1;
        let (number, epoch) = (self.last, self.session.epoch);
        let mut frame = BytesMut::new();
        frame::write(&Request { session, number, epoch, acknowledged: 0, call: Some(call) }, &mut frame);
        let _who_reads_hears_that_it_is_closed = self.stream.write_all(&frame);
        number
    }

    /// The next answer, with its number; `None` once the connection is closed.
    pub(crate) fn next(&mut self) -> Option<(u64, Answer)> {
        loop {
            if let Some(response) = frame::read::<Response>(&mut self.inward).unwrap() {
                return Some((response.number, response.result.expect("an answer says something")));
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(length) => self.inward.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("neither an answer nor the end of the connection: {error}"),
            }
        }
    }

    /// The answer to a request; those to others are passed over.
    pub(crate) fn answer(&mut self, to: u64) -> Option<Answer> {
        loop {
            let (number, answer) = self.next()?;
            if number == to {
                return Some(answer);
            }
        }
    }

    pub(crate) fn ask(&mut self, call: Call) -> Option<Answer> {
        let number = self.send(call);
        self.answer(number)
    }

    /// Keeps a server busy with a question until it closes the connection.
    pub(crate) fn pester(mut self, call: &Call) {
        loop {
            for _ in 0..500 {
                self.send(call.clone());
            }
            if self.answer(self.last).is_none() {
                return;
            }
        }
    }
}
