//! The other replicas: links to them, and what comes in from them.

mod arrivals;
mod callers;
mod convert;
mod datagrams;
pub(crate) mod hello;
mod link;
mod listening;
mod own;

pub(crate) use callers::Callers;
pub(crate) use datagrams::Datagrams;
pub(crate) use listening::Listening;
pub(crate) use own::{Own, Start};

use crate::inbox::Inbox;
use bytes::BytesMut;
use link::Link;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tracing::{debug, info, warn};
use wombat_proto::frame;
use wombat_proto::limits::{ADDRESS_BYTES, PEER_FRAME_BYTES};
use wombat_proto::wire::peer::Frame;
use wombat_proto::{Member, ReplicaId};
use wombat_replica::PeerMessage;

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// The links to the other replicas.
pub(crate) struct Peers {
    own: Rc<Own>,
    links: BTreeMap<ReplicaId, Link>,
    datagrams: Option<Rc<Datagrams>>,
    /// Those that have introduced themselves, members or not: whoever speaks may get an answer.
    callers: Rc<Callers>,
    members: Vec<Member>,
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
