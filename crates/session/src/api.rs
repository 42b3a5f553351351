//! What a session needs of its client and its shell, and what it wants of them.

use crate::cache::CacheChange;
use crate::revocations::Revoked;
use crate::search::LinkId;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use wombat_proto::wire::{Request, event, response};
use wombat_proto::{Epoch, HandleId, Result, Rho, Slot};

/// The answer to a call that succeeded.
pub type Answer = response::Result;

/// The configuration of a session.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the replicas of the cell are reached, `host:port`, in the order in which they are tried first.
    pub endpoints: Vec<String>,
    /// The name of the cell; empty: the first cell that answers.
    pub cell: String,
    /// A description of the client, for operators.
    pub client: String,
    /// The sequencers that fence every change of the session (P§2.4).
    pub sequencers: Vec<String>,
    /// Most that the cache may weigh, in bytes; 0: there is none. For a client that caches changes wait until it
    /// has dropped what they change, and a new master until it has acknowledged the fail-over, and so has dropped
    /// everything, or until its lease has ended (SPEC I10).
    pub cache_bytes: usize,
    /// How long after the end of its lease view the session looks for a master (P§2.8: 45 s).
    pub grace: Duration,
    /// By how much the master's clock may differ in rate.
    pub rho: Rho,
    /// The seed of the jitter: random, so that clients do not retry at the same instants.
    pub seed: u64,
}

/// A change in the life of the session, for the application (P§2.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionEvent {
    /// The session may be lost: its lease view has ended. Calls wait.
    Jeopardy,
    /// It is not lost: a master was found in time.
    Safe,
    /// It is lost, with all its handles and locks. Every call fails.
    Expired,
    /// Another master serves now. Events of the earlier one may be lost.
    FailedOver {
        /// Its epoch.
        epoch: Epoch,
    },
}

/// A change of a node that a handle is subscribed to (P§2.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeEvent {
    /// The handle; [`HandleId`] 0: all of the session's.
    pub handle: HandleId,
    /// The kind of change.
    pub kind: event::Kind,
    /// The child that has changed, if it is about one.
    pub child: Option<String>,
    /// The change's place in the log.
    pub slot: Slot,
}

/// What the shell has to do after an input.
#[derive(Default, Debug)]
pub struct Effects {
    /// Changes of the entries that readers may use: to be carried out, in order, before anything is sent. Then
    /// readers may be given [`Session::cache_until`](crate::Session::cache_until).
    pub cache: Vec<CacheChange>,
    /// Requests to send, each on its link.
    pub send: Vec<(LinkId, Request)>,
    /// Calls that have ended.
    pub done: Vec<(u64, Result<Answer>)>,
    /// Changes in the life of the session, in order.
    pub session_events: Vec<SessionEvent>,
    /// Events of nodes, in order.
    pub node_events: Vec<NodeEvent>,
    /// Locks that are being broken.
    pub revoked: Vec<Revoked>,
    /// Connections to make, each to its address.
    pub connect: Vec<(LinkId, String)>,
    /// Connections to give up, made or not, after everything else.
    pub disconnect: Vec<LinkId>,
}
