//! What must hold whatever happens, as seen from outside of the cell (SPEC §11).

use std::collections::BTreeMap;
use wombat_proto::{LockMode, Sequencer, Slot, Token};

#[derive(Default)]
pub(crate) struct Oracle {
    /// The greatest token granted, and to whom; grants are learned of out of order.
    tokens: BTreeMap<Token, usize>,
    /// What each acknowledged generation of the file holds.
    written: BTreeMap<u64, u64>,
    unknown: u64,
    /// The digest of the state after each slot, as some life of the server saw it.
    digests: BTreeMap<Slot, u64>,
}

impl Oracle {
    /// I4: no two grants share a token.
    pub(crate) fn granted(&mut self, client: usize, sequencer: &Sequencer) {
        let earlier = self.tokens.insert(sequencer.token, client);
        assert!(earlier.is_none(), "I4: token {} was granted to {earlier:?} and {client}", sequencer.token);
    }

    /// I3: of the clients whose own lease view is live, one holds exclusively or several share.
    pub(crate) fn check_holders(&self, holders: &[(usize, LockMode)]) {
        let exclusive = holders.iter().filter(|(_, mode)| *mode == LockMode::Exclusive).count();
        assert!(exclusive == 0 || holders.len() == 1, "I3: {holders:?} hold together");
    }

    /// A write was acknowledged. I13: of two acknowledged writes each has a generation of its own.
    pub(crate) fn wrote(&mut self, text: u64, generation: u64) {
        let earlier = self.written.insert(generation, text);
        assert!(earlier.is_none(), "I13: generation {generation} was acknowledged twice");
    }

    /// A write was sent, and whether it took effect cannot be known.
    pub(crate) fn unknown_write(&mut self) {
        self.unknown += 1;
    }

    /// The newest generation acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.written.last_key_value().map_or(1, |(generation, _)| *generation)
    }

    /// A read is current within the call: not older than what was acknowledged when it began. And what was
    /// acknowledged is what is read (I18).
    pub(crate) fn read(&self, contents: &[u8], generation: u64, at_least: u64) {
        assert!(
            generation >= at_least,
            "a read gave generation {generation} after {at_least} was acknowledged"
        );
        if let Some(text) = self.written.get(&generation) {
            assert_eq!(contents, text.to_string().as_bytes(), "I18: generation {generation} has changed");
        }
    }

    /// The end: every generation came from one write, acknowledged or unknown (I13, I18).
    pub(crate) fn check_end(&self, generation: u64) {
        let acknowledged = self.written.len() as u64;
        let writes = generation.saturating_sub(1);
        assert!(writes >= acknowledged, "I18: {acknowledged} writes were acknowledged, {writes} are there");
        assert!(
            writes <= acknowledged + self.unknown,
            "I13: {writes} writes took effect, but only {acknowledged} + {} were sent",
            self.unknown
        );
    }

    /// I19: the state after a slot is the same in every life: replay gives what was live.
    pub(crate) fn applied(&mut self, slot: Slot, digest: u64) {
        let earlier = self.digests.insert(slot, digest);
        assert!(earlier.is_none_or(|earlier| earlier == digest), "I19: the state after slot {slot} differs");
    }

    /// What was applied above `slot` in a life that ended was lost before anybody was told of it.
    pub(crate) fn restarted_at(&mut self, slot: Slot) {
        self.digests.split_off(&slot.next());
    }
}
