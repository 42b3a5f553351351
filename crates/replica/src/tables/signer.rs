//! Check digits (P§2.6): a keyed MAC over every handle, and each session's secret. Nobody can make or guess one,
//! and every master of the cell can check one.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wombat_proto::SessionId;
use wombat_proto::wire::Handle;
use wombat_state::KEY_BYTES;

/// 128 bits of a MAC, as two halves.
pub(crate) type Digits = (u64, u64);

/// Makes and checks check digits with the cell's key.
pub(crate) struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Signer {
        Signer { keyed: Hmac::new_from_slice(key).expect("any length of key will do") }
    }

    /// The secret by which a new connection proves that it speaks for a session.
    pub(crate) fn session_secret(&self, session: SessionId) -> Digits {
        self.digits(b's', &[session.0])
    }

    /// Fills in a handle's check digits.
    pub(crate) fn sign(&self, session: SessionId, handle: Handle) -> Handle {
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

    /// The first 128 bits of the MAC over a purpose and numbers. Each purpose has a fixed count of numbers.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_handle_is_not_genuine() {
        let signer = Signer::new(&[1; KEY_BYTES]);
        let signed = signer.sign(SessionId(4), Handle { id: 9, instance: 3, mode: 1, ..Handle::default() });
        assert!(signer.is_genuine(SessionId(4), &signed));
        assert!(!signer.is_genuine(SessionId(5), &signed), "it belongs to one session");
        for forged in [
            Handle { id: 8, ..signed },
            Handle { instance: 4, ..signed },
            Handle { mode: 3, ..signed },
            Handle { events: 1, ..signed },
            Handle { lock_delay_ms: 1, ..signed },
            Handle { epoch: 1, ..signed },
            Handle { check_high: signed.check_high ^ 1, ..signed },
            Handle { check_low: signed.check_low ^ 1, ..signed },
        ] {
            assert!(!signer.is_genuine(SessionId(4), &forged), "{forged:?}");
        }
    }

    #[test]
    fn cells_with_other_keys_have_other_secrets() {
        let [one, other] = [1, 2].map(|byte| Signer::new(&[byte; KEY_BYTES]));
        assert_ne!(one.session_secret(SessionId(4)), other.session_secret(SessionId(4)));
        assert_ne!(one.session_secret(SessionId(4)), one.session_secret(SessionId(5)));
    }
}
