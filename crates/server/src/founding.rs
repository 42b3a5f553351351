//! How a replica comes into its cell: it founds it, alone or together with others, or it joins it.
//!
//! Founders each throw in a random nonce, and the cell's id is a hash of all of them. So nobody founds a cell
//! who has not met every other founder, and a founder whose disk was wiped meanwhile, and which therefore has
//! another nonce, can never pass for what it was: it finds the cell founded with an id that it cannot
//! compute, and joins it under an id of its own. A nonce is durable before anybody hears of it, so that one
//! that merely restarts stays a founder.

use crate::peers::hello;
use crate::peers::{Own, Start};
use crate::{Config, ServerError};
use bytes::BytesMut;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};
use wombat_proto::wire::peer::Hello;
use wombat_proto::wire::{self, Request, Response, request::Call, response::Result as Answer};
use wombat_proto::{Error, Members, ReplicaId, SplitMix64, frame};
use wombat_storage::{Identity, Origin, RealDisk, founding_nonce};

/// How often the other founders are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many rounds a replica that finds its cell founded looks for the founders that it has not met, before it
/// takes itself for none of them. To join is always safe, only more work.
const ROUNDS_BEFORE_JOINING: u32 = 30;
/// How long one attempt to join may take.
const JOIN_WITHIN: Duration = Duration::from_secs(5);

/// The identity that a replica without one gets.
pub(crate) async fn found(
    config: &Config,
    disk: &RealDisk,
    listener: &TcpListener,
    address: &str,
) -> Result<Identity, ServerError> {
    let fresh = hex(&random::<16>()?);
    let founders = config.founders(address)?;
    if founders.len() == 1 && !config.join {
        return Ok(Identity::alone(config.cell.clone(), fresh[..16].to_owned()));
    }
    if config.join && founders.iter().all(|at| at == address) {
        return Err(ServerError::Config(
            "to join a cell, name some replicas of it: --peers HOST:PORT,…".into(),
        ));
    }
    let own = Rc::new(Own {
        cell: config.cell.clone(),
        cell_id: String::new(),
        replica: ReplicaId(0),
        nonce: if config.join { fresh } else { founding_nonce(disk, &fresh)? },
        founders,
        address: address.to_owned(),
        key: random()?,
        start: Start { count: 0, life: 0 },
        known_starts: RefCell::default(),
        rolled_back: Cell::default(),
        random: RefCell::new(SplitMix64::new(u64::from_ne_bytes(random()?))),
    });
    let answering = tokio::task::spawn_local(answer(listener_of(listener)?, Rc::clone(&own)));
    let identity = meet_founders(&own, config.join).await;
    answering.abort();
    identity
}

/// Answers whoever comes while the cell is not founded: replicas hear who this one is, clients go elsewhere.
async fn answer(listener: TcpListener, own: Rc<Own>) {
    loop {
        let (mut stream, own) = match listener.accept().await {
            Ok((stream, _)) => (stream, Rc::clone(&own)),
            Err(error) => {
                // Out of descriptors, or the other side is gone already.
                warn!("cannot accept a connection: {error}");
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        tokio::task::spawn_local(async move {
            let _it_comes_again = hello::welcome(&mut stream, &own, &mut BytesMut::new()).await;
        });
    }
}

/// The same socket once more: nothing that comes is lost between the two who accept from it.
fn listener_of(listener: &TcpListener) -> Result<TcpListener, ServerError> {
    use std::os::fd::AsFd;
    let socket = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    Ok(TcpListener::from_std(socket)?)
}

/// Looks for the other founders until all have been met, or one shows that the cell exists already.
async fn meet_founders(own: &Rc<Own>, join: bool) -> Result<Identity, ServerError> {
    let mut missing_before = Vec::new();
    let mut rounds_founded = 0;
    let mut joining = Joining::default();
    let mut unknown = BTreeSet::new();
    loop {
        let mut founded = None;
        // Only those that are met in one round count: one that was wiped meanwhile has another nonce.
        let mut nonces = BTreeMap::from([(own.address.clone(), own.nonce.clone())]);
        let others: Vec<String> = own.founders.iter().filter(|at| **at != own.address).cloned().collect();
        for at in &others {
            match hello::connect(at, own).await {
                Ok((_, hello)) if hello.cell == own.cell.as_str() => {
                    if !join {
                        check_founders(own, at, &hello)?;
                    }
                    if !hello.cell_id.is_empty() {
                        founded = Some(hello.cell_id.clone());
                    }
                    nonces.insert(at.clone(), hello.nonce);
                }
                Ok((_, hello)) => {
                    return Err(ServerError::Config(format!(
                        "at {at} is a replica of the cell {}, not of {}",
                        hello.cell, own.cell
                    )));
                }
                Err(error) => {
                    // No error: the name may be of a machine that is still to come.
                    if !unknown.contains(at) && !is_resolved(at).await {
                        warn!("the peer {at} cannot be found by its name: {error}; is it spelt right?");
                        unknown.insert(at.clone());
                    }
                }
            }
        }
        let missing: Vec<String> = others.into_iter().filter(|at| !nonces.contains_key(at)).collect();
        let cell_id = missing.is_empty().then(|| cell_id(own, &nonces));
        match (founded, cell_id) {
            (None, Some(id)) if !join => return Ok(founder(own, id)),
            (Some(theirs), Some(id)) if theirs == id && !join => return Ok(founder(own, id)),
            // It may still be one of the founders, as long as it has not met all of them.
            (Some(_), None) if !join && rounds_founded < ROUNDS_BEFORE_JOINING => rounds_founded += 1,
            // To ask in vain does no harm: it may still meet the rest, and found.
            (Some(_), _) => match joining.ask(own).await {
                Some(identity) => return Ok(identity),
                None => tokio::time::sleep(own.jitter(4 * LOOK_EVERY)).await,
            },
            (None, _) => {}
        }
        if join && missing_before.is_empty() {
            info!(
                "looking for the cell {} at {}: nobody there is in it yet",
                own.cell,
                own.founders.join(", ")
            );
        } else if missing != missing_before {
            match missing.is_empty() {
                true => info!("all founders answer, and the cell exists: asking it to take this replica in"),
                false => info!("waiting for the other founders at {}", missing.join(", ")),
            }
        }
        missing_before = missing;
        tokio::time::sleep(own.jitter(LOOK_EVERY)).await;
    }
}

/// Refuses to found a cell together with replicas that have other founders in mind, and to pass for a founder
/// of a cell that had others. Whoever joined a cell later knows nothing of its founders.
fn check_founders(own: &Own, at: &str, hello: &Hello) -> Result<(), ServerError> {
    if hello.founders == own.founders || (hello.founders.is_empty() && !hello.cell_id.is_empty()) {
        return Ok(());
    }
    let (theirs, ours) = (hello.founders.join(", "), own.founders.join(", "));
    Err(ServerError::Config(match hello.cell_id.is_empty() {
        true => format!(
            "the replica at {at} was told that the founders are {theirs}, and this one that they are {ours}: \
             give all the same list of peers"
        ),
        false => format!(
            "the cell exists already: the replica at {at} founded it with {theirs}, and this one was told \
             that the founders are {ours}. If it is one of them, give it their list; if it is another, --join"
        ),
    }))
}

/// Whether an address is one, or a name that somebody knows.
async fn is_resolved(address: &str) -> bool {
    tokio::net::lookup_host(address).await.is_ok_and(|mut all| all.next().is_some())
}

fn cell_id(own: &Own, nonces: &BTreeMap<String, String>) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(own.cell.as_str());
    for (address, nonce) in nonces {
        hasher.update([0]);
        hasher.update(address);
        hasher.update([0]);
        hasher.update(nonce);
    }
    hex(&hasher.finalize()[..8])
}

fn founder(own: &Own, cell_id: String) -> Identity {
    let place = own.founders.iter().position(|at| *at == own.address).unwrap_or_default();
    info!("founding the cell {} with {}", own.cell, own.founders.join(", "));
    Identity {
        cell: own.cell.clone(),
        cell_id,
        replica: ReplicaId(place as u32 + 1),
        origin: Origin::Founder { founders: own.founders.clone(), nonce: own.nonce.clone() },
    }
}

/// A replica's attempts to join its cell.
#[derive(Default)]
struct Joining {
    begun: bool,
    /// Who did not let it in, and why, as was told last.
    told: Vec<String>,
}

impl Joining {
    /// Asks each of the cell's replicas once, and whomever they take for the master.
    async fn ask(&mut self, own: &Own) -> Option<Identity> {
        if !std::mem::replace(&mut self.begun, true) {
            warn!("the cell {} exists already, and the data directory is empty: joining the cell", own.cell);
        }
        let mut to_ask: Vec<String> = own.founders.iter().rev().cloned().collect();
        let mut asked = BTreeSet::from([own.address.clone()]);
        let mut refusals = Vec::new();
        while let Some(address) = to_ask.pop() {
            if !asked.insert(address.clone()) {
                continue;
            }
            match tokio::time::timeout(JOIN_WITHIN, ask_to_join(&address, own)).await {
                Ok(Ok(Ok(joined))) if joined.replica != 0 && !joined.cell_id.is_empty() => {
                    info!("joined the cell {} as replica {}", own.cell, joined.replica);
                    return Some(Identity {
                        cell: own.cell.clone(),
                        cell_id: joined.cell_id,
                        replica: ReplicaId(joined.replica),
                        origin: Origin::Joined,
                    });
                }
                Ok(Ok(Err(Error::NotMaster { hint: Some(master) }))) => to_ask.push(master),
                Ok(Ok(Err(error))) => refusals.push(format!("{address}: {error}")),
                Ok(Ok(Ok(_)) | Err(_)) | Err(_) => {}
            }
        }
        if !refusals.is_empty() && refusals != self.told {
            info!("no replica admits this one yet: {}", refusals.join("; "));
            self.told = refusals;
        }
        None
    }
}

async fn ask_to_join(address: &str, own: &Own) -> std::io::Result<Result<wire::Joined, Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let hello = Call::Hello(wire::Hello {
        version: wire::VERSION,
        cell: own.cell.to_string(),
        ..wire::Hello::default()
    });
    let join = Call::Join(wire::Join { address: own.address.clone() });
    let mut buffer = BytesMut::new();
    for (number, call) in (1..).zip([hello, join]) {
        frame::write(&Request { number, call: Some(call), ..Request::default() }, &mut buffer);
    }
    stream.write_all_buf(&mut buffer).await?;
    loop {
        while let Some(response) = frame::read::<Response>(&mut buffer).map_err(std::io::Error::other)? {
            match response.result {
                Some(Answer::Joined(joined)) => return Ok(Ok(joined)),
                Some(Answer::Error(error)) => return Ok(Err(error.into())),
                _ => {}
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The members that a replica begins with, if it has no snapshot yet.
pub(crate) fn founders(identity: &Identity, address: &str) -> Members {
    match &identity.origin {
        Origin::Alone => Members::founding([address.to_owned()]),
        Origin::Founder { founders, .. } => Members::founding(founders.iter().cloned()),
        Origin::Joined => Members::default(),
    }
}

/// Bytes that nobody can foresee.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], ServerError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| ServerError::System(std::io::Error::other(error)))?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
