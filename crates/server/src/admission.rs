//! Which connections a server takes, and which it closes.
//!
//! A connection is *unidentified* until its first frame has arrived. Then it belongs to another replica, which
//! [`crate::peers`] counts, or it becomes a *client*. When there is no room for one more client it becomes an
//! *operator*: it may ask whatever needs no session, and is closed soon. So a crowd of clients, or of
//! connections that say nothing, shuts out neither replicas nor operators.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::{Rc, Weak};
use std::time::Instant;
use tokio::sync::Notify;
use tracing::{debug, warn};
use wombat_proto::limits::{
    CONNECTIONS, IDLE_CONNECTION_TIMEOUT, MAX_CONNECTIONS_PER_ADDRESS, MAX_OPERATOR_CONNECTIONS,
    MAX_OPERATOR_CONNECTIONS_PER_ADDRESS, MAX_RELAYS, MAX_UNIDENTIFIED_CONNECTIONS, OTHER_DESCRIPTORS,
    UNUSED_CONNECTION_TIMEOUT,
};
use wombat_replica::ConnectionId;

/// How many connections of each kind there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    pub(crate) clients: usize,
    per_address: usize,
    per_loopback_address: usize,
    operators: usize,
    unidentified: usize,
    relayed: usize,
}

/// One in so many places of clients is kept for those whose session lives already: a client that has lost its
/// connection does not lose its session to newcomers.
const RETURNING_PART: usize = 16;

impl Limits {
    /// The limits of a process that may have so many files open. Without a configured limit an address may have
    /// [`MAX_CONNECTIONS_PER_ADDRESS`] clients, and this machine any number.
    pub(crate) fn new(descriptors: usize, per_address: Option<usize>) -> Limits {
        let share = descriptors / 16;
        let operators = MAX_OPERATOR_CONNECTIONS.min(share);
        let unidentified = MAX_UNIDENTIFIED_CONNECTIONS.min(share);
        let relayed = MAX_RELAYS.min(share);
        let reserved = OTHER_DESCRIPTORS.min(descriptors / 2) + operators + unidentified + relayed;
        Limits {
            clients: CONNECTIONS.min(descriptors.saturating_sub(reserved)),
            per_address: per_address.unwrap_or(MAX_CONNECTIONS_PER_ADDRESS),
            per_loopback_address: per_address.unwrap_or(usize::MAX),
            operators,
            unidentified,
            relayed,
        }
    }

    fn per_source(&self, source: Source) -> usize {
        if source.0.is_loopback() { self.per_loopback_address } else { self.per_address }
    }
}

/// Where a connection comes from: an address of IPv4, or the 64 bits that name one network of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn new(address: IpAddr) -> Source {
        Source(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
            }
            address => address,
        })
    }
}

/// What a connection has turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Unidentified,
    Client,
    Operator,
    /// A client that this replica passes on to the master.
    Relayed,
    /// It has to end, and does not count any more.
    Closing,
}

/// All connections but those of other replicas.
pub(crate) struct Admission {
    limits: Limits,
    unidentified: RefCell<BTreeMap<ConnectionId, Weak<Entry>>>,
    identified: RefCell<BTreeMap<ConnectionId, Weak<Entry>>>,
    counts: RefCell<BTreeMap<Kind, Count>>,
    /// For how many connections there was no room, since [`Admission::close_idle`] ran last.
    refused: Cell<usize>,
}

/// How many connections there are of one kind, in all and of each source.
#[derive(Default)]
struct Count {
    all: usize,
    by_source: BTreeMap<Source, usize>,
}

struct Entry {
    id: ConnectionId,
    source: Source,
    kind: Cell<Kind>,
    /// When its last frame came.
    active: Cell<Instant>,
    /// Whether it has ever spoken for a session.
    had_session: Cell<bool>,
    closing: Notify,
}

/// A connection's place, for as long as it is kept.
pub(crate) struct Place {
    admission: Rc<Admission>,
    entry: Rc<Entry>,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Rc<Admission> {
        Rc::new(Admission {
            limits,
            unidentified: RefCell::default(),
            identified: RefCell::default(),
            counts: RefCell::default(),
            refused: Cell::new(0),
        })
    }

    /// A place for a new connection. If there is none, the oldest unidentified connection is closed for it, of
    /// the source that has most of them.
    pub(crate) fn accept(self: &Rc<Self>, id: ConnectionId, source: Source, now: Instant) -> Place {
        if self.count(Kind::Unidentified) >= self.limits.unidentified {
            self.evict_unidentified();
        }
        let (kind, active) = (Cell::new(Kind::Unidentified), Cell::new(now));
        let (had_session, closing) = (Cell::new(false), Notify::new());
        let entry = Rc::new(Entry { id, source, kind, active, had_session, closing });
        self.unidentified.borrow_mut().insert(id, Rc::downgrade(&entry));
        self.add(&entry);
        Place { admission: Rc::clone(self), entry }
    }

    /// How many connections there are of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.counts.borrow().get(&kind).map_or(0, |count| count.all)
    }

    fn count_of(&self, kind: Kind, source: Source) -> usize {
        let counts = self.counts.borrow();
        counts.get(&kind).and_then(|count| count.by_source.get(&source)).copied().unwrap_or(0)
    }

    fn add(&self, entry: &Entry) {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(entry.kind.get()).or_default();
        count.all += 1;
        *count.by_source.entry(entry.source).or_default() += 1;
    }

    fn remove(&self, entry: &Entry) {
        let mut counts = self.counts.borrow_mut();
        let count = counts.get_mut(&entry.kind.get()).expect("it was added");
        count.all -= 1;
        let of_source = count.by_source.get_mut(&entry.source).expect("it was added");
        *of_source -= 1;
        if *of_source == 0 {
            count.by_source.remove(&entry.source);
        }
    }

    fn becomes(&self, entry: &Entry, kind: Kind) {
        self.remove(entry);
        entry.kind.set(kind);
        self.add(entry);
    }

    fn close(&self, entry: &Entry) {
        self.becomes(entry, Kind::Closing);
        entry.closing.notify_one();
    }

    fn evict_unidentified(&self) {
        let fullest = self.counts.borrow().get(&Kind::Unidentified).and_then(|count| {
            let (source, _) = count.by_source.iter().max_by_key(|(_, count)| **count)?;
            Some(*source)
        });
        let oldest = self
            .unidentified
            .borrow()
            .values()
            .filter_map(Weak::upgrade)
            .find(|entry| entry.kind.get() == Kind::Unidentified && Some(entry.source) == fullest);
        if let Some(oldest) = oldest {
            self.close(&oldest);
            self.found_no_room();
        }
    }

    /// A connection found no room.
    pub(crate) fn found_no_room(&self) {
        self.refused.set(self.refused.get() + 1);
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What an identified connection becomes; `None`: there is no room for it.
    fn classify(&self, source: Source) -> Option<Kind> {
        let client = self.count(Kind::Client) + self.count(Kind::Relayed) < self.limits.clients
            && self.count_of(Kind::Client, source) < self.limits.per_source(source);
        if client {
            return Some(Kind::Client);
        }
        self.found_no_room();
        let operator = self.count(Kind::Operator) < self.limits.operators
            && self.count_of(Kind::Operator, source) < MAX_OPERATOR_CONNECTIONS_PER_ADDRESS;
        operator.then_some(Kind::Operator)
    }

    /// Closes connections that nobody uses: they speak for no session that lives, and have said nothing for long.
    /// That is sooner if there was one, and if there was no room for others.
    pub(crate) fn close_idle(&self, now: Instant, mut serves_session: impl FnMut(ConnectionId) -> bool) {
        let refused = self.refused.take();
        if refused > 0 {
            warn!(
                "there was no room for {refused} connections: {} of {} clients are connected, of which one \
                 address may have {}",
                self.count(Kind::Client),
                self.limits.clients,
                self.limits.per_address
            );
        }
        let entries: Vec<Rc<Entry>> = self.identified.borrow().values().filter_map(Weak::upgrade).collect();
        for entry in entries {
            let timeout = match entry.kind.get() {
                Kind::Client if serves_session(entry.id) => {
                    entry.had_session.set(true);
                    continue;
                }
                Kind::Client if refused == 0 && !entry.had_session.get() => IDLE_CONNECTION_TIMEOUT,
                Kind::Client | Kind::Operator => UNUSED_CONNECTION_TIMEOUT,
                Kind::Relayed | Kind::Unidentified | Kind::Closing => continue,
            };
            if now.saturating_duration_since(entry.active.get()) >= timeout {
                debug!(connection = entry.id.0, "closed: it serves no session, and is idle");
                self.close(&entry);
            }
        }
    }
}

impl Place {
    /// Its first frame has arrived. Returns what it becomes; `None`: there is no room for it.
    pub(crate) fn identify(&self) -> Option<Kind> {
        let Place { admission, entry } = self;
        let kind = admission.classify(entry.source)?;
        admission.becomes(entry, kind);
        admission.unidentified.borrow_mut().remove(&entry.id);
        admission.identified.borrow_mut().insert(entry.id, Rc::downgrade(entry));
        Some(kind)
    }

    /// Whether it may be passed on to the master; if so, it counts among those from now on.
    pub(crate) fn relay(&self) -> bool {
        let Place { admission, entry } = self;
        let may =
            entry.kind.get() == Kind::Client && admission.count(Kind::Relayed) < admission.limits.relayed;
        if may {
            admission.becomes(entry, Kind::Relayed);
        }
        may
    }

    /// The master could not be reached for it: it is a client like others.
    pub(crate) fn relay_no_more(&self) {
        if self.entry.kind.get() == Kind::Relayed {
            self.admission.becomes(&self.entry, Kind::Client);
        }
    }

    /// Whether it is a client, which may speak for sessions.
    pub(crate) fn is_client(&self) -> bool {
        self.entry.kind.get() != Kind::Operator
    }

    /// Whether it has spoken for a session that lived.
    pub(crate) fn had_session(&self) -> bool {
        self.entry.had_session.get()
    }

    /// Whether it may begin a session.
    pub(crate) fn may_create_session(&self) -> bool {
        let Place { admission, entry } = self;
        let has_room = |used: usize, limit: usize| used <= limit - limit / RETURNING_PART;
        let may = self.is_client()
            && has_room(
                admission.count(Kind::Client) + admission.count(Kind::Relayed),
                admission.limits.clients,
            )
            && has_room(
                admission.count_of(Kind::Client, entry.source),
                admission.limits.per_source(entry.source),
            );
        if !may {
            admission.found_no_room();
        }
        may
    }

    /// A frame has come.
    pub(crate) fn is_active(&self, now: Instant) {
        self.entry.active.set(now);
    }

    /// Waits until the connection has to be closed.
    pub(crate) async fn closing(&self) {
        self.entry.closing.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Place { admission, entry } = self;
        admission.unidentified.borrow_mut().remove(&entry.id);
        admission.identified.borrow_mut().remove(&entry.id);
        admission.remove(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// A server with room for few, whose connections are numbered as they come.
    struct Server {
        admission: Rc<Admission>,
        now: Instant,
        next: u64,
    }

    impl Server {
        fn new() -> Server {
            let limits = Limits {
                clients: 4,
                per_address: 3,
                per_loopback_address: usize::MAX,
                operators: 2,
                unidentified: 3,
                relayed: 1,
            };
            Server { admission: Admission::new(limits), now: Instant::now(), next: 0 }
        }

        fn accept(&mut self, from: IpAddr) -> Place {
            self.next += 1;
            self.admission.accept(ConnectionId(self.next), Source::new(from), self.now)
        }

        /// Connections that have said Hello, and what became of them.
        fn identified(&mut self, from: IpAddr, count: usize) -> (Vec<Place>, Vec<Option<Kind>>) {
            let places: Vec<Place> = (0..count).map(|_| self.accept(from)).collect();
            let kinds = places.iter().map(Place::identify).collect();
            (places, kinds)
        }

        /// Lets time pass, in which the connections of sessions are in use.
        fn passes(&mut self, time: Duration, sessions: &[&Place]) {
            self.now += time;
            self.admission.close_idle(self.now, |id| sessions.iter().any(|place| place.entry.id == id));
        }
    }

    fn is_closing(place: &Place) -> bool {
        place.entry.kind.get() == Kind::Closing
    }

    #[test]
    fn newcomer_to_full_server_is_operator_until_those_are_full() {
        let mut server = Server::new();
        let (_clients, kinds) = server.identified(LOCAL, 4);
        assert_eq!(kinds, [Some(Kind::Client); 4]);
        let (operators, kinds) = server.identified(LOCAL, 3);
        assert_eq!(kinds, [Some(Kind::Operator), Some(Kind::Operator), None]);
        assert!(!operators[0].is_client() && !operators[0].may_create_session());
        drop(operators);
        assert_eq!(server.identified(LOCAL, 1).1, [Some(Kind::Operator)], "their places are free again");
    }

    #[test]
    fn last_places_are_for_sessions_that_live() {
        let limits = Limits { clients: 32, per_address: 16, ..Server::new().admission.limits };
        let mut server = Server { admission: Admission::new(limits), ..Server::new() };
        let (far, _) = server.identified(FAR, 15);
        assert!(far[14].may_create_session());
        let (last, kinds) = server.identified(FAR, 1);
        assert_eq!(kinds, [Some(Kind::Client)]);
        assert!(last[0].is_client() && !last[0].may_create_session(), "the share of its address");
        let (local, _) = server.identified(LOCAL, 14);
        assert!(local[13].may_create_session());
        let (last, kinds) = server.identified(LOCAL, 2);
        assert_eq!(kinds, [Some(Kind::Client); 2]);
        assert!(last[1].is_client() && !last[1].may_create_session());
        drop(local);
        assert!(last[1].may_create_session(), "there is room again");
    }

    #[test]
    fn one_address_gets_no_more_than_its_share() {
        let mut server = Server::new();
        let (_clients, kinds) = server.identified(FAR, 4);
        assert_eq!(kinds[2..], [Some(Kind::Client), Some(Kind::Operator)]);
        assert_eq!(server.identified(LOCAL, 1).1, [Some(Kind::Client)]);
        let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(Source::new(mapped), Source::new(FAR));
        let network = |host: u16| Source::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 1, 2, 3, host)));
        assert_eq!(network(1), network(2));
    }

    #[test]
    fn connections_that_say_nothing_make_room_for_others() {
        let mut server = Server::new();
        let other = server.accept(FAR);
        let silent: Vec<Place> = (0..4).map(|_| server.accept(LOCAL)).collect();
        let closing: Vec<bool> = silent.iter().map(is_closing).collect();
        assert_eq!(closing, [true, true, false, false], "the oldest of the source that has most");
        assert!(!is_closing(&other));
        assert_eq!(server.admission.count(Kind::Unidentified), 3);
    }

    #[test]
    fn connection_whose_session_is_over_is_closed_soon() {
        let mut server = Server::new();
        let (places, _) = server.identified(LOCAL, 2);
        server.passes(UNUSED_CONNECTION_TIMEOUT, &[&places[0]]);
        assert!(!is_closing(&places[0]) && !is_closing(&places[1]));
        server.passes(Duration::ZERO, &[]);
        assert!(is_closing(&places[0]), "its session is over");
        assert!(!is_closing(&places[1]), "it may be about to begin one");
        server.passes(IDLE_CONNECTION_TIMEOUT, &[]);
        assert!(is_closing(&places[1]));
    }

    #[test]
    fn idle_connections_are_closed_soon_when_others_find_no_room() {
        let mut server = Server::new();
        let (places, _) = server.identified(LOCAL, 4);
        let (_refused, _) = server.identified(LOCAL, 1);
        server.now += UNUSED_CONNECTION_TIMEOUT;
        places[1].is_active(server.now);
        server.passes(Duration::ZERO, &[&places[0]]);
        let closing: Vec<bool> = places.iter().map(is_closing).collect();
        assert_eq!(closing, [false, false, true, true]);
        assert_eq!(server.identified(LOCAL, 1).1, [Some(Kind::Client)]);
    }

    #[test]
    fn relayed_connections_have_a_limit_and_are_not_idle() {
        let mut server = Server::new();
        let (places, _) = server.identified(LOCAL, 2);
        assert!(places[0].relay() && !places[1].relay());
        server.passes(2 * IDLE_CONNECTION_TIMEOUT, &[]);
        assert!(!is_closing(&places[0]));
        places[0].relay_no_more();
        assert_eq!(server.admission.count(Kind::Client), 1);
    }

    #[test]
    fn reserves_remain_with_few_descriptors() {
        for descriptors in [64, 256, 1024, 4096, 20_000, 1 << 20] {
            let Limits { clients, operators, unidentified, relayed, .. } = Limits::new(descriptors, None);
            assert!(clients > 0 && clients + operators + unidentified + relayed < descriptors);
            assert!(operators > 0 && unidentified > 0 && relayed > 0);
        }
        assert_eq!(Limits::new(20_000, None).clients, CONNECTIONS);
    }
}
