//! Whole cells with their clients: replica, storage and session as they ship, in a world of faults, and then
//! healed.
//!
//! | file | what lives there |
//! |---|---|
//! | `world.rs` | events, and who they happen to |
//! | `machine.rs` | what stands around a replica: the shell's part |
//! | `client.rs`, `client/choices.rs` | an application and its session, and what it does next |
//! | `client/shelf.rs`, `client/looks.rs` | what its threads read from its cache, and what it looks at |
//! | `links.rs` | the connections that clients make |
//! | `connections.rs` | the network between clients and replicas |
//! | `swarm.rs`, `faults.rs` | what goes wrong |
//! | `search.rs` | runs in which the master is hard to find, and the bound for that |
//! | `history.rs` | what must hold of the log, command by command |
//! | `locks.rs`, `events.rs` | the same of locks, and of what is told of changes |
//! | `stale.rs` | the same of reads at any replica |
//! | `oracle.rs` | what must hold in the eyes of clients |
//! | `cache.rs`, `reading.rs` | what must hold of what they have cached, and when they read it |

mod cache;
mod client;
mod connections;
mod events;
mod faults;
mod history;
mod links;
mod locks;
mod machine;
mod oracle;
mod reading;
mod search;
mod stale;
mod swarm;
mod tally;
mod world;

pub(crate) use tally::Tally;
pub(crate) use world::World;

#[cfg(test)]
mod tests {
    use super::World;

    /// Seeds of their own, so that they are not only those that everybody tries first.
    const FIRST: u64 = 9_000_000;

    #[test]
    fn the_master_is_found_within_the_bound() {
        for seed in FIRST..FIRST + 20 {
            let run = || World::searching(seed, false).run();
            std::panic::catch_unwind(run).unwrap_or_else(|_| panic!("seed {seed} failed"));
        }
    }

    #[test]
    fn seeds_pass_and_do_the_same_twice() {
        for seed in FIRST..FIRST + 10 {
            let run = || World::new(seed, false).run();
            let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| panic!("seed {seed} failed"));
            assert_eq!(outcome, run(), "seed {seed} ran differently the second time");
        }
    }
}
