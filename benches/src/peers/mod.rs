//! Other consensus libraries on the same work that our own core is measured with: commands replicated over
//! replicas that are all in this process and in one thread, with nothing on disk and nothing serialised.
//!
//! Every competitor takes the same arguments, and its clock runs from the first proposal until every replica
//! knows all commands to be decided. A leader is there before that. No message is lost or late, so each
//! competitor is seen at its best.

pub mod omnipaxos;
pub mod raft;
pub mod wombat;

/// The bytes of one command. Its first eight are its number, so that a replica can check what it is given.
struct Command {
    bytes: Vec<u8>,
}

impl Command {
    const NUMBER: usize = size_of::<u64>();

    fn of(size: usize) -> Self {
        assert!(size >= Self::NUMBER, "a command has room for its number");
        Self { bytes: vec![7; size] }
    }

    fn numbered(&mut self, number: usize) -> &[u8] {
        self.bytes[..Self::NUMBER].copy_from_slice(&(number as u64).to_le_bytes());
        &self.bytes
    }
}

/// What one replica has been given so far, which has to be every command once and in order.
#[derive(Clone, Default)]
struct Decided {
    commands: usize,
}

impl Decided {
    fn take(&mut self, command: &[u8], size: usize) {
        assert_eq!(command.len(), size, "command {} came whole", self.commands);
        let number = command.first_chunk().map(|number| u64::from_le_bytes(*number));
        assert_eq!(number, Some(self.commands as u64), "commands come in order");
        self.commands += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{omnipaxos, raft, wombat};

    /// Windows that fit the number of commands and windows that do not; the runs check the contents.
    #[test]
    fn every_replica_gets_every_command() {
        for run in [omnipaxos::run, raft::run, wombat::run] {
            for replicas in [3, 5] {
                for window in [1, 2, 64, 1024] {
                    for entries in [1, 64, 1000, 3000] {
                        assert!(!run(replicas, window, entries, 64).is_zero());
                    }
                }
            }
        }
    }
}
