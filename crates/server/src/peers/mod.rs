//! The other replicas: links to them, and what comes in from them.

mod convert;
mod datagrams;
pub(crate) mod hello;
mod link;
mod listening;

pub(crate) use datagrams::Datagrams;
pub(crate) use listening::Listening;

use crate::inbox::Inbox;
use bytes::BytesMut;
use datagrams::{Arrivals, Key};
use link::Link;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tracing::{debug, info, warn};
use wombat_proto::frame;
use wombat_proto::limits::{ADDRESS_BYTES, CELL_REPLICAS, CONNECTIONS_PER_REPLICA, PEER_FRAME_BYTES};
use wombat_proto::wire::peer::{Frame, Hello};
use wombat_proto::{CellName, Member, ReplicaId, SplitMix64};
use wombat_replica::PeerMessage;

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// What a replica says of itself when it meets another.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) cell: CellName,
    /// Empty until the cell is founded.
    pub(crate) cell_id: String,
    /// 0 until it has an id.
    pub(crate) replica: ReplicaId,
    pub(crate) nonce: String,
    pub(crate) founders: Vec<String>,
    pub(crate) address: String,
    /// What datagrams to this replica begin with.
    pub(crate) key: Key,
    /// Which of this replica's starts this is.
    pub(crate) start: Start,
    /// The last start of each replica that was met at its address.
    pub(crate) known_starts: RefCell<BTreeMap<ReplicaId, Start>>,
    /// Whether another replica knows a later start of this one.
    pub(crate) rolled_back: Cell<bool>,
    /// For waits of different lengths.
    pub(crate) random: RefCell<SplitMix64>,
}

/// A start of a replica: how often it has started, as its disk says, and a random number that tells apart two
/// starts that say the same because the disk was put back in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    pub(crate) count: u32,
    pub(crate) life: u64,
}

impl Start {
    pub(crate) fn of(hello: &Hello) -> Start {
        Start { count: hello.starts, life: hello.life }
    }

    /// Whether a replica cannot start like this after it has started like the other, unless its disk was put back.
    fn is_before(self, other: Start) -> bool {
        self.count < other.count || self.count == other.count && self.life != other.life
    }
}

impl Own {
    /// A replica was met at the address that the members say. What a caller says of itself would prove nothing.
    pub(crate) fn note_start(&self, id: ReplicaId, start: Start) {
        let mut known = self.known_starts.borrow_mut();
        if known.get(&id).is_none_or(|known| known.count < start.count) {
            known.insert(id, start);
        }
    }

    /// Whether a later start of a replica is known than the one that it speaks of. That is said once: when it has
    /// heard of it, this start is the last one known.
    pub(crate) fn takes_back_start(&self, id: ReplicaId, start: Start) -> bool {
        let mut known = self.known_starts.borrow_mut();
        let Some(known) = known.get_mut(&id).filter(|known| start.is_before(**known)) else { return false };
        *known = start;
        true
    }

    /// Between half of `whole` and all of it.
    pub(crate) fn jitter(&self, whole: Duration) -> Duration {
        self.random.borrow_mut().jitter(whole)
    }
}

/// The links to the other replicas.
pub(crate) struct Peers {
    own: Rc<Own>,
    links: BTreeMap<ReplicaId, Link>,
    datagrams: Option<Rc<Datagrams>>,
    /// Those that have introduced themselves, members or not: whoever speaks may get an answer.
    callers: Rc<Callers>,
    members: Vec<Member>,
}

/// Replicas that have connected to this one.
#[derive(Default)]
pub(crate) struct Callers {
    known: RefCell<BTreeMap<ReplicaId, Member>>,
    new: Cell<bool>,
    /// The members, which are welcome whoever else has called.
    members: RefCell<BTreeSet<ReplicaId>>,
    /// Each is held once more by every connection of that replica.
    admitted: RefCell<BTreeMap<ReplicaId, Rc<()>>>,
    arrivals: Arrivals,
}

impl Callers {
    /// Counts a connection for as long as what it returns is kept; `None`: there are too many of this replica,
    /// or too many of which nobody knows.
    fn admit(&self, id: ReplicaId) -> Option<Rc<()>> {
        let mut admitted = self.admitted.borrow_mut();
        admitted.retain(|_, held| Rc::strong_count(held) > 1);
        self.arrivals.retain(|id| admitted.contains_key(id));
        let members = self.members.borrow();
        let strangers = admitted.keys().filter(|id| !members.contains(id)).count();
        let welcome = members.contains(&id) || admitted.contains_key(&id) || strangers < CELL_REPLICAS;
        let held = welcome.then(|| admitted.entry(id).or_default())?;
        (Rc::strong_count(held) <= CONNECTIONS_PER_REPLICA).then(|| Rc::clone(held))
    }

    /// Whether a replica has a connection.
    fn is_admitted(&self, id: ReplicaId) -> bool {
        self.admitted.borrow().get(&id).is_some_and(|held| Rc::strong_count(held) > 1)
    }

    /// Whether a message has not arrived by another way before.
    fn is_new(&self, from: ReplicaId, number: u64) -> bool {
        self.arrivals.is_new(from, number)
    }

    fn note(&self, member: Member) {
        let mut known = self.known.borrow_mut();
        if known.len() < 2 * CELL_REPLICAS || known.contains_key(&member.id) {
            let earlier = known.insert(member.id, member.clone());
            self.new.set(self.new.get() || earlier != Some(member));
        }
    }
}

impl Peers {
    /// Without datagrams, connections are all there is.
    pub(crate) fn new(own: Own, datagrams: Option<Rc<Datagrams>>) -> Peers {
        let (links, callers, members) = (BTreeMap::new(), Rc::default(), Vec::new());
        Peers { own: Rc::new(own), links, datagrams, callers, members }
    }

    /// What takes in the datagrams of other replicas, if there are any.
    pub(crate) fn datagrams(&self, inbox: &Rc<Inbox>) -> Option<impl Future<Output = ()> + use<>> {
        let datagrams = self.datagrams.clone()?;
        Some(datagrams.listen(self.own.key, Rc::clone(&self.callers), Rc::clone(inbox)))
    }

    pub(crate) fn own(&self) -> &Rc<Own> {
        &self.own
    }

    pub(crate) fn callers(&self) -> &Rc<Callers> {
        &self.callers
    }

    /// Keeps links to these members, and to whoever else has called.
    pub(crate) fn meet(&mut self, members: Vec<Member>) {
        *self.callers.members.borrow_mut() = members.iter().map(|member| member.id).collect();
        self.members = members;
        self.keep_links();
    }

    /// Sees to it that those who have called can be answered.
    pub(crate) fn meet_callers(&mut self) {
        if self.callers.new.take() {
            self.keep_links();
        }
    }

    fn keep_links(&mut self) {
        let mut wanted = self.callers.known.borrow().clone();
        wanted.extend(self.members.iter().map(|member| (member.id, member.clone())));
        self.links.retain(|id, link| wanted.get(id) == Some(&link.member));
        for (id, member) in wanted {
            let (own, datagrams) = (&self.own, &self.datagrams);
            self.links.entry(id).or_insert_with(|| Link::new(member, own, datagrams.clone()));
        }
    }

    /// Sends a message with the next [`Peers::flush`], if there is a way.
    pub(crate) fn send(&self, to: ReplicaId, message: PeerMessage) {
        if let Some(link) = self.links.get(&to) {
            link.send(message);
        }
    }

    /// Whether there is a way to a replica now.
    pub(crate) fn is_connected(&self, id: ReplicaId) -> bool {
        self.links.get(&id).is_some_and(Link::is_connected)
    }

    /// Lets go what was sent.
    pub(crate) fn flush(&self) {
        self.links.values().for_each(Link::flush);
    }
}

/// Meets a replica that has connected. Returns what hands everything that it says to the inbox, if it may speak.
pub(crate) async fn meet(
    mut stream: TcpStream,
    own: &Own,
    callers: &Rc<Callers>,
    inbox: &Rc<Inbox>,
) -> Option<impl Future<Output = ()> + use<>> {
    let mut buffer = BytesMut::new();
    let met = hello::welcome(&mut stream, own, &mut buffer).await;
    let hello = met.inspect_err(|error| debug!("a replica did not introduce itself: {error}")).ok()?;
    if hello.cell_id != own.cell_id || hello.replica == 0 {
        // One that is not founded yet has learned from the Hello what it wanted to know.
        if !hello.cell_id.is_empty() {
            warn!("refused replica {} of another cell, {} {}", hello.replica, hello.cell, hello.cell_id);
        }
        return None;
    }
    let from = ReplicaId(hello.replica);
    if from == own.replica {
        warn!("refused a replica that calls itself {from}, like this one");
        return None;
    }
    let Some(admitted) = callers.admit(from) else {
        warn!("refused a connection of replica {from}: there are too many already");
        return None;
    };
    if !hello.address.is_empty() && hello.address.len() <= ADDRESS_BYTES {
        callers.note(Member { id: from, address: hello.address });
    }
    let (inbox, callers) = (Rc::clone(inbox), Rc::clone(callers));
    Some(async move {
        let _admitted = admitted;
        listen(&mut stream, from, &mut buffer, &callers, &inbox).await;
        inbox.peer_lost(from);
    })
}

/// Takes in what a replica says until its connection ends.
async fn listen(
    stream: &mut TcpStream,
    from: ReplicaId,
    buffer: &mut BytesMut,
    callers: &Callers,
    inbox: &Inbox,
) {
    loop {
        let before = buffer.len();
        match frame::read_up_to::<Frame>(buffer, PEER_FRAME_BYTES) {
            Ok(Some(frame)) if !callers.is_new(from, frame.number) => {}
            Ok(Some(frame)) => match convert::from_frame(frame) {
                Some(message) => inbox.peer(from, message, before - buffer.len()).await,
                None => return warn!("replica {from} says something that this version does not understand"),
            },
            Ok(None) => {
                buffer.reserve(READ_BYTES);
                match stream.read_buf(buffer).await {
                    Ok(0) => return debug!("replica {from} has closed a connection"),
                    Ok(_) => {}
                    Err(error) => return info!("a connection of replica {from} is gone: {error}"),
                }
            }
            Err(error) => return warn!("replica {from} sends what cannot be read: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_before_a_known_one_shows_a_disk_put_back() {
        let start = |count, life| Start { count, life };
        assert!(!start(8, 2).is_before(start(7, 1)), "it has started once more");
        assert!(!start(7, 1).is_before(start(7, 1)), "another connection of the same start");
        assert!(start(7, 2).is_before(start(7, 1)), "the same count twice");
        assert!(start(3, 2).is_before(start(7, 1)));
    }
}
