//! Whole cells with their clients: replica, storage and session as they ship, in a world of faults, and then
//! healed.
//!
//! | file | what lives there |
//! |---|---|
//! | `world.rs`, `event.rs` | the queue, and where each event goes |
//! | `replicas.rs`, `clients.rs` | what happens to replicas and clients, and what they do |
//! | `machine.rs` | what stands around a replica: the shell's part |
//! | `client.rs`, `client/choices.rs` | an application and its session, and what it does next |
//! | `client/shelf.rs`, `client/looks.rs` | what its threads read from its cache, and what it looks at |
//! | `links.rs`, `endpoint.rs` | the connections that clients make, and what they lead to |
//! | `connections.rs` | the network between clients and replicas |
//! | `swarm.rs`, `faults.rs` | what goes wrong |
//! | `search_plan.rs`, `search.rs` | runs in which the master is hard to find |
//! | `reading.rs`, `stale_reads.rs` | when clients read their caches; reads at any replica |
//! | `observer.rs` | an observer that reaches only some replicas |
//! | `oracle/` | what must hold |

mod client;
mod clients;
mod connections;
mod endpoint;
mod event;
mod faults;
mod links;
mod machine;
mod observer;
mod oracle;
mod reading;
mod replicas;
mod search;
mod search_plan;
mod stale_reads;
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
