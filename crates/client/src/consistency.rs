//! Who answers a read.

/// Who answers a read, or an [`crate::Cell::open`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Consistency {
    /// The cache, if it can, otherwise the master. What it says was true at some instant within the call: nothing
    /// changes before those who have it cached have dropped it, or their leases have ended (P§2.7).
    #[default]
    Cached,
    /// The master, in any case. It is as true, and does not rely on the rate of this machine's clock.
    Master,
}
