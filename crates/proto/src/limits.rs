//! Every bound in the system, with what it bounds (SPEC I20: every queue and table is finite).

use core::time::Duration;

/// Longest component of a name, in bytes.
pub const NAME_BYTES: usize = 255;
/// Longest whole path, in bytes, `/ls/<cell>` included.
pub const PATH_BYTES: usize = 1024;
/// Longest cell name, in bytes.
pub const CELL_NAME_BYTES: usize = 63;
/// Largest contents of a file, in bytes (P§2.3: files are small).
pub const CONTENTS_BYTES: usize = 256 * 1024;
/// Largest frame in either direction, in bytes, its four length bytes not counted.
pub const FRAME_BYTES: usize = 512 * 1024;
/// Largest command in the log, in bytes.
pub const COMMAND_BYTES: usize = 448 * 1024;
/// Longest description that a client may give of itself, in bytes.
pub const CLIENT_DESCRIPTION_BYTES: usize = 256;
/// Most bytes of entries in one page of a directory listing.
pub const PAGE_BYTES: usize = 256 * 1024;
/// Most entries in one page of any listing.
pub const PAGE_ENTRIES: usize = 1000;
/// Most guards plus operations in one Multi.
pub const MULTI_STEPS: usize = 128;

/// Largest frame between replicas, in bytes: a batch, or a chunk of a snapshot.
pub const PEER_FRAME_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that wait to be sent to another replica, on each lane, before what comes further is dropped. One that
/// reads nothing holds twice as much: as much again is on its way.
pub const PEER_OUTBOX_BYTES: usize = 32 * 1024 * 1024;
/// Largest datagram between replicas, in bytes: it fits any path of the internet in one piece.
pub const PEER_DATAGRAM_BYTES: usize = 1200;
/// Most replicas in a cell, learners included.
pub const CELL_REPLICAS: usize = 15;
/// Longest address of a replica, `host:port`, in bytes.
pub const ADDRESS_BYTES: usize = 300;
/// Most bytes of values in one message between replicas; one value may be longer by itself.
pub const PEER_BATCH_BYTES: usize = 256 * 1024;

/// Most nodes in a cell.
pub const NODES: usize = 4_000_000;
/// Most sessions in a cell.
pub const SESSIONS: usize = 200_000;
/// Most sequencers that a session is created with.
pub const SEQUENCERS_PER_SESSION: usize = 16;
/// Most open handles of one session.
pub const HANDLES_PER_SESSION: usize = 16_384;
/// Most shared holders of one lock.
pub const SHARED_HOLDERS: usize = 65_536;
/// Most requests waiting for one lock.
pub const LOCK_WAITERS: usize = 65_536;
/// Most locks that are being broken at one time.
pub const BREAKS: usize = 256;
/// Most revocations that a session is told of, and speaks of, at one time.
pub const REVOCATIONS: usize = 1024;
/// Longest reason that may be given for breaking a lock, in bytes.
pub const REASON_BYTES: usize = 256;
/// How many entries of the audit a cell keeps.
pub const AUDIT_ENTRIES: usize = 1000;
/// Most entries that all sessions together may have cached, as the master's directory of them counts: a hundred
/// bytes or so of its memory each.
pub const CACHED_ENTRIES: usize = 4_000_000;
/// Most of them that one session may have; the client's own bound is in bytes.
pub const CACHED_ENTRIES_PER_SESSION: usize = 65_536;
/// Most names of one directory of which it may be cached that they are missing: a sequential create takes all of
/// them away in one step.
pub const CACHED_ABSENCES_PER_DIRECTORY: usize = 2048;
/// Most invalidations that wait for one session before they become one that is of everything.
pub const INVALIDATIONS_PER_SESSION: usize = 1024;
/// Most bytes of them in one answer to a KeepAlive; the others come with the next.
pub const INVALIDATION_BYTES: usize = 64 * 1024;
/// What a client's cache may weigh in memory, in bytes, when nothing else is configured.
pub const CLIENT_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Most handles that a client keeps open for the next who opens their nodes.
pub const KEPT_HANDLES: usize = 1024;
/// Most changes that wait at one time until nobody has cached any more what they change.
pub const WAITING_CHANGES: usize = 16_384;
/// Most bytes of them.
pub const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Most outcomes that a session may leave unacknowledged; also how many changes it may have in flight.
pub const UNACKNOWLEDGED_OUTCOMES: usize = 1024;
/// Most names that these may hold together, of nodes that Multis have made: a session is one record of a snapshot.
pub const UNACKNOWLEDGED_NAMES: usize = 16_384;
/// Most events waiting for one session before they coalesce into a gap.
pub const EVENTS_PER_SESSION: usize = 1024;
/// Most client connections of one server.
pub const CONNECTIONS: usize = 16_384;
/// Most client connections from one address, unless the server is configured otherwise: no single host fills a server.
pub const MAX_CONNECTIONS_PER_ADDRESS: usize = CONNECTIONS / 2;
/// Most connections that have not said yet what they are.
pub const MAX_UNIDENTIFIED_CONNECTIONS: usize = 1024;
/// Most connections for calls without a session when there is no room for more clients: for operators, and for
/// replicas that join.
pub const MAX_OPERATOR_CONNECTIONS: usize = 256;
/// Most of these from one address.
pub const MAX_OPERATOR_CONNECTIONS_PER_ADDRESS: usize = 64;
/// Most clients that a replica passes on to the master.
pub const MAX_RELAYS: usize = 1024;
/// Most connections of one replica: a few times its lanes, for those that broke and are not known to be gone.
pub const CONNECTIONS_PER_REPLICA: usize = 12;
/// Descriptors of a server beside those of clients: for other replicas, members or not, the log, snapshots, metrics.
pub const OTHER_DESCRIPTORS: usize = 2 * CELL_REPLICAS * (CONNECTIONS_PER_REPLICA + 4) + 256;
/// Most descriptors of a process, as is usual where an administrator has raised the limit of a service.
pub const DESCRIPTORS: usize = 20_000;
/// Largest first frame of a connection, in bytes: little memory for those who have not said what they are.
pub const HELLO_BYTES: usize = 4096;
/// How long a new connection may take until its first frame has arrived.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may say nothing that has never spoken for a session.
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may say nothing after its last session, or when it is one of an operator, or while others find no room.
pub const UNUSED_CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory of requests that wait for the replica's next turn, in each of its two lanes, before connections are
/// read no further.
pub const INBOX_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of requests that a master holds back while its lease has lapsed, or a fail-over goes on.
pub const HELD_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of answers that wait for a client to read them before its requests are read no further.
pub const OUTBOX_FULL_BYTES: usize = 1024 * 1024;
/// Bytes of answers that wait for a client to read them before its connection is closed: more than a turn answers
/// of what it has asked for, so that this is about what it has not.
pub const OUTBOX_BYTES: usize = 48 * 1024 * 1024;
/// Most commands proposed and not yet chosen.
pub const PROPOSALS_IN_FLIGHT: usize = 16_384;
/// Most bytes of commands proposed and not yet chosen.
pub const PROPOSAL_BYTES_IN_FLIGHT: usize = 64 * 1024 * 1024;

/// Longest lock-delay that a handle may ask for (P§2.4: at most a minute).
pub const LOCK_DELAY: Duration = Duration::from_secs(60);
/// The master lease when nothing else is configured (P§2.2: a few seconds).
pub const MASTER_LEASE: Duration = Duration::from_millis(300);
/// The longest one that a master asks for by itself, where round trips are too long for [`MASTER_LEASE`].
pub const MAX_MASTER_LEASE: Duration = Duration::from_secs(3);
/// Shortest and longest master lease that may be configured.
pub const SHORTEST_MASTER_LEASE: Duration = Duration::from_millis(100);
/// See [`SHORTEST_MASTER_LEASE`].
pub const LONGEST_MASTER_LEASE: Duration = Duration::from_secs(60);
/// No ballot has a round beyond this; a message that names one is dropped.
pub const MAX_ROUND: u64 = 1 << 48;
/// A wall clock beyond this, in milliseconds since 1970 (the year 2109), is not taken for the least round of a
/// candidate: a clock that is so wrong must not use up rounds that no later candidate can pass.
pub const MAX_CLOCK_ROUND: u64 = 1 << 42;
/// The session lease when nothing else is configured (P§2.8: 12 s).
pub const DEFAULT_LEASE: Duration = Duration::from_secs(12);
/// The cache lease in a cell without much load (SPEC §6): for how long at most a client that does not answer
/// delays a change.
pub const CACHE_LEASE: Duration = Duration::from_secs(2);
/// Shortest cache lease that may be configured. One that is longer than the session lease ends with it.
pub const SHORTEST_CACHE_LEASE: Duration = Duration::from_millis(200);
/// Longest session lease that a master may grant (SPEC §3: L_max).
pub const LEASE: Duration = Duration::from_secs(60);
/// Shortest session lease that may be configured; shorter ones would end by scheduling noise alone.
pub const SHORTEST_LEASE: Duration = Duration::from_millis(500);
/// What a fail-over and the search for the new master may take so that half of the lease is left (SPEC §12).
pub const FIND_MASTER: Duration = Duration::from_millis(2500);
/// How many KeepAlives a second a master lets come in before it lengthens leases (SPEC §3).
pub const KEEP_ALIVES_PER_SECOND: u32 = 10_000;
/// A session that has no open handle and makes no call for so long is ended (P§2.8).
pub const IDLE_END: Duration = Duration::from_secs(60);
/// How long after a fail-over clients have to present their handles on ephemeral nodes (P§2.9: a minute).
pub const ORPHANS_AFTER: Duration = Duration::from_secs(60);
/// For how long at most a Hello waits until a master is known.
pub const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long a client in jeopardy waits for a master (P§2.8: 45 s).
pub const GRACE: Duration = Duration::from_secs(45);
/// Longest time that an Acquire may ask to wait.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest time for which a master holds a KeepAlive without news. A master that fails just before it answers
/// leaves the session time to find the next one with half of the lease left (SPEC §12).
pub fn keep_alive_hold(lease: Duration) -> Duration {
    (lease / 2).saturating_sub(FIND_MASTER).max(lease / 4)
}

/// The shortest lease of which KeepAlives are held for that long.
pub fn lease_for_hold(hold: Duration) -> Duration {
    (hold.saturating_add(FIND_MASTER).saturating_mul(2)).min(hold.saturating_mul(4))
}

// A command holds a file, its path and its names; a frame holds a command's worth of request or a page.
const _: () = assert!(CONTENTS_BYTES + 2 * PATH_BYTES < COMMAND_BYTES);
const _: () = assert!(COMMAND_BYTES < FRAME_BYTES);
const _: () = assert!(MAX_CLOCK_ROUND < MAX_ROUND);
const _: () = assert!(2 * (PEER_BATCH_BYTES + COMMAND_BYTES) < PEER_FRAME_BYTES);
const _: () = assert!(PEER_FRAME_BYTES < PEER_OUTBOX_BYTES);
// Neither one host nor a relay may take the places of all others, and all places together have descriptors.
const _: () = assert!(MAX_CONNECTIONS_PER_ADDRESS <= CONNECTIONS / 2);
const _: () = assert!(MAX_RELAYS * (CELL_REPLICAS - 1) <= CONNECTIONS);
const _: () = assert!(MAX_RELAYS <= MAX_CONNECTIONS_PER_ADDRESS / 4);
const _: () = assert!(2 * MAX_OPERATOR_CONNECTIONS_PER_ADDRESS <= MAX_OPERATOR_CONNECTIONS);
const _: () = assert!(
    CONNECTIONS + MAX_UNIDENTIFIED_CONNECTIONS + MAX_OPERATOR_CONNECTIONS + MAX_RELAYS + OTHER_DESCRIPTORS
        <= DESCRIPTORS
);
// A client that pauses between Hello and its session is not taken for one that has none.
const _: () = assert!(UNUSED_CONNECTION_TIMEOUT.as_millis() >= HELLO_TIMEOUT.as_millis());
// An answer to a KeepAlive holds a page of events, and revocations of some thirty bytes each.
const _: () = assert!(PAGE_BYTES + INVALIDATION_BYTES + 64 * REVOCATIONS + 4096 < FRAME_BYTES);
const _: () = assert!(NAME_BYTES + CELL_NAME_BYTES + "/ls//".len() < PATH_BYTES);
const _: () = assert!(LOCK_DELAY.as_secs() <= u32::MAX as u64 / 1000);
const _: () = assert!(CACHE_LEASE.as_millis() <= DEFAULT_LEASE.as_millis());
const _: () = assert!(DEFAULT_LEASE.as_millis() <= LEASE.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_for_a_hold_is_the_shortest_one() {
        for millis in [1, 500, 1000, 2499, 2500, 2501, 3500, 9000, 30_000] {
            let hold = Duration::from_millis(millis);
            let lease = lease_for_hold(hold);
            assert!(keep_alive_hold(lease) >= hold, "{hold:?}");
            assert!(keep_alive_hold(lease - Duration::from_millis(1)) < hold, "{hold:?}");
        }
    }
}
