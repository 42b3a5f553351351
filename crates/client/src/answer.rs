//! What the cell answers.

use wombat_proto::Error;

/// An answer of another kind than the call's: the server is not what it says it is.
pub(crate) fn unexpected() -> Error {
    Error::invalid("the server gave an answer that does not fit the call")
}
