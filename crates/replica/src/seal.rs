//! Check digits: a keyed MAC over every handle, and each session's secret, so that nobody makes or guesses
//! one, and any master of the cell can tell (P§2.6).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wombat_proto::SessionId;
use wombat_proto::wire::Handle;
use wombat_state::KEY_BYTES;

/// 128 bits of a MAC, as two halves.
pub(crate) type Digits = (u64, u64);

/// Makes check digits with the cell's key.
pub(crate) struct Seal {
    keyed: Hmac<Sha256>,
}

impl Seal {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Seal {
        Seal { keyed: Hmac::new_from_slice(key).expect("any length of key will do") }
    }

    /// The secret that speaks for a session on a new connection.
    pub(crate) fn session_secret(&self, session: SessionId) -> Digits {
        self.digits(b's', &[session.0])
    }

    /// Fills in a handle's check digits.
    pub(crate) fn seal(&self, session: SessionId, handle: Handle) -> Handle {
        let (check_high, check_low) = self.handle_digits(session, &handle);
        Handle { check_high, check_low, ..handle }
    }

    /// Whether the cell made this handle, for this session.
    pub(crate) fn is_genuine(&self, session: SessionId, handle: &Handle) -> bool {
        self.handle_digits(session, handle) == (handle.check_high, handle.check_low)
    }

    fn handle_digits(&self, session: SessionId, handle: &Handle) -> Digits {
        let Handle { id, instance, mode, events, lock_delay_ms, epoch, check_high: _, check_low: _ } =
            *handle;
        self.digits(b'h', &[session.0, id, instance, mode.into(), events.into(), lock_delay_ms.into(), epoch])
    }

    /// The first 128 bits of the MAC over a purpose and numbers; every purpose has its own count of numbers.
    fn digits(&self, purpose: u8, numbers: &[u64]) -> Digits {
        let mut mac = self.keyed.clone();
        mac.update(&[purpose]);
        for number in numbers {
            mac.update(&number.to_be_bytes());
        }
        let bytes = mac.finalize().into_bytes();
        let half = |from: usize| {
            let eight: [u8; 8] = bytes[from..from + 8].try_into().expect("eight bytes are eight bytes");
            u64::from_be_bytes(eight)
        };
        (half(0), half(8))
    }
}
