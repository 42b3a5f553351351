//! What `wombat` and the guardian of its command say to each other: frames of one size over a socket.

use std::io::{Error, ErrorKind, Read, Write};
use wombat_client::Instant;

/// By when the command must have ended, on the clock that leases run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Deadline {
    /// The command is asked to stop.
    pub(super) terminate_at: Instant,
    /// The command is killed.
    pub(super) kill_at: Instant,
}

/// From `wombat` to the guardian. The end of the connection means: kill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Replaces the deadline before.
    Deadline(Deadline),
    /// Send the command this signal.
    Forward(i32),
    /// Kill the command.
    Kill,
}

/// From the guardian to `wombat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Report {
    /// The command runs.
    Started,
    /// The command could not be run, for this reason.
    NotStarted { errno: i32 },
    /// Nothing that the command has started runs any more, except `survivors` processes of other users.
    Ended { code: u8, deadline_passed: bool, survivors: u32 },
}

/// The size of a frame: so small that a socket takes and gives it at once.
pub(super) const FRAME: usize = 17;

fn frame(tag: u8, first: u64, second: u64) -> [u8; FRAME] {
    let mut frame = [tag; FRAME];
    frame[1..9].copy_from_slice(&first.to_ne_bytes());
    frame[9..].copy_from_slice(&second.to_ne_bytes());
    frame
}

fn parts(frame: &[u8; FRAME]) -> (u8, u64, u64) {
    let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| frame[at + byte]));
    (frame[0], number(1), number(9))
}

fn malformed() -> Error {
    Error::new(ErrorKind::InvalidData, "not a frame of the guardian's")
}

impl Order {
    pub(super) fn write(self, mut to: impl Write) -> std::io::Result<()> {
        to.write_all(&match self {
            Order::Deadline(deadline) => {
                frame(0, deadline.terminate_at.as_nanos(), deadline.kill_at.as_nanos())
            }
            Order::Forward(signal) => frame(1, signal as u64, 0),
            Order::Kill => frame(2, 0, 0),
        })
    }

    pub(super) fn read(mut from: impl Read) -> std::io::Result<Order> {
        let mut frame = [0; FRAME];
        from.read_exact(&mut frame)?;
        match parts(&frame) {
            (0, terminate_at, kill_at) => Ok(Order::Deadline(Deadline {
                terminate_at: Instant::from_nanos(terminate_at),
                kill_at: Instant::from_nanos(kill_at),
            })),
            (1, signal, _) => Ok(Order::Forward(signal as i32)),
            (2, ..) => Ok(Order::Kill),
            _ => Err(malformed()),
        }
    }
}

impl Report {
    pub(super) fn write(self, mut to: impl Write) -> std::io::Result<()> {
        to.write_all(&match self {
            Report::Started => frame(0, 0, 0),
            Report::NotStarted { errno } => frame(1, errno as u64, 0),
            Report::Ended { code, deadline_passed, survivors } => {
                frame(2, u64::from(code), u64::from(deadline_passed) << 32 | u64::from(survivors))
            }
        })
    }

    pub(super) fn read(frame: &[u8; FRAME]) -> std::io::Result<Report> {
        match parts(frame) {
            (0, ..) => Ok(Report::Started),
            (1, errno, _) => Ok(Report::NotStarted { errno: errno as i32 }),
            (2, code, more) => Ok(Report::Ended {
                code: code as u8,
                deadline_passed: more >> 32 != 0,
                survivors: more as u32,
            }),
            _ => Err(malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let (terminate_at, kill_at) = (Instant::from_nanos(7), Instant::from_nanos(u64::MAX));
        for order in [Order::Deadline(Deadline { terminate_at, kill_at }), Order::Forward(15), Order::Kill] {
            let mut bytes = Vec::new();
            order.write(&mut bytes).unwrap();
            assert_eq!(Order::read(bytes.as_slice()).unwrap(), order);
        }
        let ended = |deadline_passed| Report::Ended { code: 137, deadline_passed, survivors: 3 };
        for report in [Report::Started, Report::NotStarted { errno: 2 }, ended(true), ended(false)] {
            let mut bytes = Vec::new();
            report.write(&mut bytes).unwrap();
            assert_eq!(Report::read(&bytes.try_into().unwrap()).unwrap(), report);
        }
    }
}
