//! The connections that clients make: to replicas, and to endpoints behind which there is none. The session says
//! which, and gives up those that do not answer.

use super::client::Client;
use super::endpoint::{Endpoint, Line};
use super::event::Event;
use super::world::World;
use crate::random::Random;
use std::time::Duration;
use wombat_proto::wire::{Close, Request, Response, Welcome, request::Call, response::Result as Answer};
use wombat_proto::{Error, HandleId};
use wombat_session::LinkId;

impl Client {
    /// The link that a connection to a replica belongs to.
    fn link_of(&self, connection: u64) -> Option<LinkId> {
        let found = self.lines.iter().find(|(_, line)| **line == Line::Connection(connection));
        found.map(|(link, _)| *link)
    }
}

/// What an endpoint answers that is no replica of the cell, and after what time.
fn answer_of(endpoint: Endpoint, request: &Request, random: &mut Random) -> Option<(Duration, Answer)> {
    match (endpoint, &request.call) {
        (Endpoint::Foreign, _) => {
            let error = Error::invalid("this is another cell");
            Some((random.millis(0, 5), Answer::Error((&error).into())))
        }
        (Endpoint::Slow, Some(Call::Hello(_))) => {
            let welcome = Welcome { cell: "sim".into(), ..Welcome::default() };
            Some((random.millis(100, 3000), Answer::Welcome(welcome)))
        }
        _ => None,
    }
}

impl World {
    pub(super) fn connect(&mut self, name: usize, link: LinkId, at: &str) {
        let endpoint = Endpoint::of(at, self.machines.len());
        let dropped = match endpoint {
            Endpoint::Dropped => true,
            Endpoint::Replica(id) => self.connections.is_cut(name, id, self.now()),
            _ => false,
        };
        if !dropped {
            let wait = self.random.millis(0, 20);
            self.after(wait, Event::Connected(name, link, endpoint));
        }
    }

    pub(super) fn connected(&mut self, name: usize, link: LinkId, endpoint: Endpoint) {
        if self.clients[name].dead {
            return;
        }
        let line = match endpoint {
            // A cut lets nobody through.
            Endpoint::Replica(id) if self.connections.is_cut(name, id, self.now()) => return,
            // Nobody listens while the replica is down.
            Endpoint::Replica(id) if self.machines[&id].running.is_none() => None,
            Endpoint::Replica(id) => Some(Line::Connection(self.connections.connect(name, id))),
            Endpoint::Refusing => None,
            other => Some(Line::Other(other)),
        };
        let Some(line) = line else {
            return self.with_client(name, |client, now, effects| {
                client.session.disconnected(client.clock.read(now), link, "connection refused", effects);
            });
        };
        self.clients[name].lines.insert(link, line);
        let links = self.clients[name].lines.len() as u64;
        self.tally.at_most("links of a client at most", links);
        self.with_client(name, |client, now, effects| {
            client.session.connected(client.clock.read(now), link, effects);
        });
    }

    pub(super) fn send(&mut self, name: usize, requests: Vec<(LinkId, Request)>) {
        let now = self.now();
        for (link, request) in requests {
            let id = match self.clients[name].lines.get(&link) {
                Some(Line::Connection(id)) => *id,
                Some(Line::Other(endpoint)) => {
                    if let Some((wait, result)) = answer_of(*endpoint, &request, &mut self.random) {
                        let response =
                            Response { number: request.number, result: Some(result), ..Response::default() };
                        self.after(wait, Event::Answered(name, link, Box::new(response)));
                    }
                    continue;
                }
                _ => continue,
            };
            self.oracle.answers.asks(name, &request);
            self.oracle.caches.asks(&request);
            if let Some(Call::Close(Close { handle: Some(handle) })) = &request.call {
                self.oracle.history.events.closed(name, HandleId(handle.id));
            }
            let Some(at) = self.connections.reaches_replica(id, now, &mut self.random) else { continue };
            if self.random.chance(self.swarm.copies) && !self.healed {
                let later = self.random.duration(Duration::ZERO, self.swarm.copied_within);
                self.at(at + later, Event::Request(id, request.clone()));
            }
            self.at(at, Event::Request(id, request));
        }
    }

    /// A client gives up a connection, made or not.
    pub(super) fn close(&mut self, name: usize, link: LinkId) {
        if let Some(Line::Connection(id)) = self.clients[name].lines.remove(&link) {
            self.hang_up(id);
        }
    }

    /// A client has given a connection up; the replica hears of it behind all that was sent before.
    fn hang_up(&mut self, id: u64) {
        let now = self.now();
        self.connections.leave(id, true);
        if let Some(at) = self.connections.reaches_replica(id, now, &mut self.random) {
            self.at(at, Event::LostAtReplica(id));
        }
    }

    /// A client has died.
    pub(super) fn bury(&mut self, name: usize) {
        for (_, line) in std::mem::take(&mut self.clients[name].lines) {
            if let Line::Connection(id) = line {
                self.hang_up(id);
            }
        }
    }

    pub(super) fn response(&mut self, id: u64, response: Response) {
        let Some(connection) = self.connections.get(id).filter(|one| one.at_client) else { return };
        let name = connection.client;
        if let Some(link) = self.clients[name].link_of(id) {
            self.received(name, link, response);
        }
    }

    pub(super) fn received(&mut self, name: usize, link: LinkId, response: Response) {
        self.with_client(name, |client, now, effects| {
            client.session.received(client.clock.read(now), link, response, effects);
        });
        self.with_client(name, |client, now, effects| client.session.tick(client.clock.read(now), effects));
    }

    pub(super) fn lost_at_client(&mut self, id: u64) {
        let Some(connection) = self.connections.get(id).filter(|one| one.at_client) else { return };
        let name = connection.client;
        self.connections.leave(id, true);
        if let Some(link) = self.clients[name].link_of(id) {
            self.clients[name].lines.remove(&link);
            self.with_client(name, |client, now, effects| {
                client.session.disconnected(client.clock.read(now), link, "connection reset", effects);
            });
        }
    }
}
