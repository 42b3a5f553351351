//! Frames: four bytes of length, big-endian, then that many bytes of one protobuf message.

use crate::limits::FRAME_BYTES;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use core::fmt;
use prost::Message;

/// Why a stream of frames cannot be read on: the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The length says more than [`FRAME_BYTES`].
    TooLong {
        /// What it says.
        length: usize,
    },
    /// The bytes are no message of the expected kind, or it has fields that this version does not know.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { length } => {
                write!(f, "a frame of {length} bytes is longer than the limit of {FRAME_BYTES}")
            }
            FrameError::Malformed => f.write_str("a frame holds no message that this version knows"),
        }
    }
}

impl core::error::Error for FrameError {}

/// Whether a message is short enough for a frame.
pub fn fits(message: &impl Message) -> bool {
    message.encoded_len() <= FRAME_BYTES
}

/// Appends `message` to `buffer` as one frame.
///
/// Panics if the message is longer than [`FRAME_BYTES`]: whoever builds one keeps to the limits.
pub fn write(message: &impl Message, buffer: &mut BytesMut) {
    write_up_to(message, buffer, FRAME_BYTES);
}

/// As [`write`], for frames of at most `longest` bytes.
pub fn write_up_to(message: &impl Message, buffer: &mut BytesMut, longest: usize) {
    let length = message.encoded_len();
    assert!(length <= longest, "a message of {length} bytes does not fit a frame");
    buffer.reserve(4 + length);
    buffer.put_u32(length as u32);
    message.encode(buffer).expect("room was reserved");
}

/// Takes the first whole frame out of `buffer`; `None` until one has arrived.
///
/// Refuses a message with unknown fields: its canonical encoding is shorter than what came.
pub fn read<M: Message + Default>(buffer: &mut BytesMut) -> Result<Option<M>, FrameError> {
    read_up_to(buffer, FRAME_BYTES)
}

/// As [`read`], for frames of at most `longest` bytes.
pub fn read_up_to<M: Message + Default>(
    buffer: &mut BytesMut,
    longest: usize,
) -> Result<Option<M>, FrameError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > longest {
        return Err(FrameError::TooLong { length });
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    // A copy: what is kept of the message keeps its own bytes only, and the buffer is there for the next read.
    let body = Bytes::copy_from_slice(&buffer[..length]);
    buffer.advance(length);
    let message = M::decode(body).map_err(|_| FrameError::Malformed)?;
    if message.encoded_len() != length {
        return Err(FrameError::Malformed);
    }
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Contents;

    #[test]
    fn what_is_kept_of_a_message_does_not_keep_the_buffer() {
        let mut buffer = BytesMut::with_capacity(FRAME_BYTES);
        let contents = Bytes::from_static(b"contents");
        write(&Contents { contents: contents.clone(), stat: None }, &mut buffer);
        let kept = read::<Contents>(&mut buffer).unwrap().unwrap();
        assert!(buffer.try_reclaim(FRAME_BYTES), "the buffer is whole again");
        assert_eq!(kept.contents, contents);
    }
}
