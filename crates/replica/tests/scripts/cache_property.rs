//! A property of what may be cached (SPEC I8): whatever else goes on, and whatever is on its way into the log,
//! what a session was allowed to cache and was not told to drop is what the state says.

use crate::world::{Client, World, may_create, set};
use proptest::prelude::*;
use wombat_proto::wire::{self, open::Create, request::Call, response::Result as Answer};
use wombat_proto::{CacheKey, Error, Instance, Path};
use wombat_replica::State;

/// The first of these reads and caches, the second writes, too; the others only write.
const ACTORS: usize = 4;
const READERS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Open { who: usize, path: String, create: bool, node: (bool, bool, bool) },
    Set { who: usize, handle: usize },
    Delete { who: usize, handle: usize },
    Close { who: usize, handle: usize },
    Acquire { who: usize, handle: usize },
    Release { who: usize, handle: usize },
    Multi { who: usize, changes: Vec<(u8, String)> },
    End { who: usize },
    Read { who: usize, path: String },
    Hear { who: usize },
    Persist { records: u64 },
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![2 => Just("a"), 1 => Just("b")];
    prop::collection::vec(name, 1..4).prop_map(|names| format!("/ls/test/{}", names.join("/")))
}

fn step() -> impl Strategy<Value = Step> {
    let (who, handle) = (0..ACTORS, 0..8usize);
    let node = (prop::bool::weighted(0.6), prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    let both = || (who.clone(), handle.clone());
    prop_oneof![
        8 => (who.clone(), path(), prop::bool::weighted(0.7), node)
            .prop_map(|(who, path, create, node)| Step::Open { who, path, create, node }),
        3 => both().prop_map(|(who, handle)| Step::Set { who, handle }),
        3 => both().prop_map(|(who, handle)| Step::Delete { who, handle }),
        2 => both().prop_map(|(who, handle)| Step::Close { who, handle }),
        3 => both().prop_map(|(who, handle)| Step::Acquire { who, handle }),
        2 => both().prop_map(|(who, handle)| Step::Release { who, handle }),
        4 => (who.clone(), prop::collection::vec((0..4u8, path()), 1..4))
            .prop_map(|(who, changes)| Step::Multi { who, changes }),
        1 => (READERS..ACTORS).prop_map(|who| Step::End { who }),
        12 => (0..READERS, path()).prop_map(|(who, path)| Step::Read { who, path }),
        8 => (0..READERS).prop_map(|who| Step::Hear { who }),
        14 => (1..5u64).prop_map(|records| Step::Persist { records }),
    ]
}

/// Something that may be cached, as the state has it.
#[derive(Clone, PartialEq, Debug)]
enum Seen {
    Node(Option<(wire::Stat, bytes::Bytes)>),
    Listing(Option<Vec<(String, wire::Stat)>>),
    /// Whether there is something at the path.
    Path(String, bool),
}

impl Seen {
    fn of_node(state: &State, instance: u64) -> Seen {
        let node = state.tree().get(Instance(instance));
        Seen::Node(node.map(|node| (node.stat(), node.contents().cloned().unwrap_or_default())))
    }

    fn of_listing(state: &State, instance: u64) -> Seen {
        let children = state.tree().get(Instance(instance)).and_then(|node| node.children());
        Seen::Listing(children.map(|children| {
            let stat = |child| state.tree().get(child).expect("a child exists").stat();
            children.iter().map(|(name, child)| (name.as_str().into(), stat(*child))).collect()
        }))
    }

    fn of_path(state: &State, path: &str) -> Seen {
        let node = Path::parse(path).expect("a good path").node;
        Seen::Path(path.into(), state.tree().find(&node).is_some())
    }

    /// The same, as the state has it now.
    fn now(&self, state: &State, key: &CacheKey) -> Seen {
        match self {
            Seen::Node(_) => Seen::of_node(state, key.instance.0),
            Seen::Listing(_) => Seen::of_listing(state, key.instance.0),
            Seen::Path(path, _) => Seen::of_path(state, path),
        }
    }
}

struct Actor {
    client: Client,
    handles: Vec<wire::Handle>,
    /// Opens that are not answered.
    opening: Vec<u64>,
    keep_alive: u64,
    heard: u64,
    cache: Vec<(CacheKey, Seen)>,
}

struct Cell {
    world: World,
    actors: Vec<Actor>,
}

impl Cell {
    fn new() -> Cell {
        let mut world = World::new();
        let actors = (0..ACTORS).map(|who| actor(&mut world, who)).collect();
        let mut cell = Cell { world, actors };
        (0..READERS).for_each(|who| cell.keep_alive(who));
        for path in ["/ls/test/a", "/ls/test/a/a"] {
            let (path, node) = (path.into(), (true, false, false));
            cell.step(Step::Open { who: READERS, path, create: true, node });
            cell.persist(None);
        }
        cell
    }

    fn keep_alive(&mut self, who: usize) {
        let actor = &mut self.actors[who];
        let keep_alive = wire::KeepAlive {
            events_acknowledged: 1,
            invalidations_acknowledged: actor.heard,
            reads_cache: true,
            ..wire::KeepAlive::default()
        };
        actor.keep_alive = self.world.send(&mut actor.client, Call::KeepAlive(keep_alive));
    }

    fn send(&mut self, who: usize, call: Call) -> u64 {
        let number = self.world.send(&mut self.actors[who].client, call);
        self.check();
        number
    }

    /// Takes in what has been answered.
    fn collect(&mut self) {
        for actor in &mut self.actors {
            for number in std::mem::take(&mut actor.opening) {
                match self.world.answer(&actor.client, number) {
                    None => actor.opening.push(number),
                    Some(Ok(Answer::Opened(opened))) => actor.handles.extend(opened.handle),
                    Some(_) => {}
                }
            }
        }
    }

    fn check(&self) {
        let state = self.world.replica.state();
        for (who, actor) in self.actors.iter().enumerate() {
            for (key, seen) in &actor.cache {
                assert_eq!(*seen, seen.now(state, key), "actor {who} has {key:?} cached");
            }
        }
    }

    fn handle(&self, who: usize, handle: usize) -> Option<wire::Handle> {
        let handles = &self.actors[who].handles;
        handles.get(handle % handles.len().max(1)).copied()
    }

    /// Who writes a node drops his own copy as he sends.
    fn drops_own(&mut self, who: usize, handle: wire::Handle) {
        let own = CacheKey::node(Instance(handle.instance));
        self.actors[who].cache.retain(|(key, _)| *key != own);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open { who, path, create, node: (directory, ephemeral, sequential) } => {
                let node = wire::NewNode { directory, ephemeral, sequential, ..wire::NewNode::default() };
                let must = if sequential { Create::Must } else { Create::May };
                let open = match create {
                    true => wire::Open { path, node: Some(node), create: must.into(), ..may_create() },
                    false => wire::Open { path, mode: 3, ..wire::Open::default() },
                };
                let number = self.send(who, Call::Open(open));
                self.actors[who].opening.push(number);
            }
            Step::Set { who, handle } => {
                let Some(handle) = self.handle(who, handle) else { return };
                self.drops_own(who, handle);
                let text = self.actors[who].client.number.to_string();
                self.send(who, set(handle, &text));
            }
            Step::Delete { who, handle } => {
                let Some(handle) = self.handle(who, handle) else { return };
                self.drops_own(who, handle);
                self.send(who, Call::Delete(wire::Delete { handle: Some(handle) }));
            }
            Step::Close { who, handle } => {
                let Some(handle) = self.handle(who, handle) else { return };
                self.send(who, Call::Close(wire::Close { handle: Some(handle) }));
            }
            Step::Acquire { who, handle } => {
                let Some(handle) = self.handle(who, handle) else { return };
                let acquire =
                    wire::Acquire { handle: Some(handle), clears_contents: true, ..Default::default() };
                self.send(who, Call::Acquire(acquire));
            }
            Step::Release { who, handle } => {
                let Some(handle) = self.handle(who, handle) else { return };
                self.send(who, Call::Release(wire::Release { handle: Some(handle) }));
            }
            Step::Multi { who, changes } => {
                let change = |(kind, path): (u8, String)| {
                    let node = |directory| {
                        Some(wire::NewNode { directory, sequential: kind == 3, ..wire::NewNode::default() })
                    };
                    wire::Change {
                        change: Some(match kind {
                            0 => wire::change::Change::Create(wire::CreateNode { path, node: node(true) }),
                            1 => wire::change::Change::Set(wire::SetNode { path, contents: "m"[..].into() }),
                            2 => wire::change::Change::Delete(path),
                            _ => wire::change::Change::Create(wire::CreateNode { path, node: node(false) }),
                        }),
                    }
                };
                let changes = changes.into_iter().map(change).collect();
                self.send(who, Call::Multi(wire::Multi { changes, ..wire::Multi::default() }));
            }
            Step::End { who } => {
                self.send(who, Call::EndSession(wire::EndSession {}));
                self.persist(None);
                self.hear_all();
                self.actors[who] = actor(&mut self.world, who);
            }
            Step::Read { who, path } => self.read(who, &path),
            Step::Hear { who } => self.hear(who),
            Step::Persist { records } => self.persist(Some(records)),
        }
        self.collect();
    }

    fn persist(&mut self, records: Option<u64>) {
        // One by one: what is seen between two records counts.
        for _ in 0..records.unwrap_or(u64::MAX) {
            self.world.records_left = Some(1);
            self.world.flush();
            self.check();
            if self.world.records_left == Some(1) {
                break;
            }
        }
        self.world.records_left = Some(0);
    }

    /// Reads what a path leads to, all of it, and keeps what may be cached.
    fn read(&mut self, who: usize, path: &str) {
        let open = wire::Open { path: path.into(), mode: 1, ..wire::Open::default() };
        let Some((answer, cachable)) = self.ask(who, Call::Open(open)) else { return };
        let state = self.world.replica.state();
        let opened = match (answer, cachable) {
            (Ok(Answer::Opened(opened)), None) => opened,
            (Err(Error::NotFound { .. }), Some(it)) => {
                let name = wombat_proto::Name::parse(&it.name).unwrap();
                let key = CacheKey::absence(Instance(it.directory), name);
                let seen = Seen::of_path(state, path);
                self.keep(who, key, seen);
                return;
            }
            _ => return,
        };
        let handle = opened.handle;
        let instance = opened.handle.expect("an open has a handle").instance;
        let get = Call::GetStat(wire::GetStat { handle });
        if let Some((Ok(Answer::Stat(stat)), Some(_))) = self.ask(who, get) {
            let seen = Seen::of_node(self.world.replica.state(), instance);
            assert!(matches!(&seen, Seen::Node(Some((now, _))) if *now == stat));
            self.keep(who, CacheKey::node(Instance(instance)), seen);
        }
        let list = Call::ReadDir(wire::ReadDir { handle, ..wire::ReadDir::default() });
        if let Some((Ok(Answer::Entries(_)), Some(_))) = self.ask(who, list) {
            let seen = Seen::of_listing(self.world.replica.state(), instance);
            self.keep(who, CacheKey::listing(Instance(instance)), seen);
        }
    }

    fn ask(&mut self, who: usize, call: Call) -> Option<(Result<Answer, Error>, Option<wire::Cachable>)> {
        let number = self.send(who, call);
        self.world.response(&self.actors[who].client, number)
    }

    fn keep(&mut self, who: usize, key: CacheKey, seen: Seen) {
        self.actors[who].cache.push((key, seen));
    }

    /// Takes the answer to a KeepAlive, drops what it says, and sends the next.
    fn hear(&mut self, who: usize) {
        let actor = &mut self.actors[who];
        while let Some(answer) = self.world.answer(&actor.client, actor.keep_alive) {
            let Ok(Answer::KeptAlive(kept)) = answer else { panic!("{answer:?}") };
            for (number, invalidation) in (kept.first_invalidation..).zip(kept.invalidations) {
                actor.heard = actor.heard.max(number);
                let gone = invalidation.key();
                actor.cache.retain(|(key, _)| gone.as_ref().is_some_and(|gone| !gone.covers(key)));
            }
            let keep_alive = wire::KeepAlive {
                events_acknowledged: 1,
                invalidations_acknowledged: actor.heard,
                reads_cache: true,
                ..wire::KeepAlive::default()
            };
            actor.keep_alive = self.world.send(&mut actor.client, Call::KeepAlive(keep_alive));
        }
        self.check();
    }

    /// Lets everything that waits come to its end.
    fn hear_all(&mut self) {
        for _ in 0..64 {
            (0..READERS).for_each(|who| self.hear(who));
            self.persist(None);
        }
        self.world.records_left = None;
    }
}

fn actor(world: &mut World, who: usize) -> Actor {
    world.records_left = None;
    let connection = world.connect();
    let client = world.client_on(connection, who < READERS);
    world.records_left = Some(0);
    let (handles, opening, cache) = (Vec::new(), Vec::new(), Vec::new());
    Actor { client, handles, opening, keep_alive: 0, heard: 0, cache }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_may_be_cached_is_what_the_state_says(steps in prop::collection::vec(step(), 1..120)) {
        let mut cell = Cell::new();
        for step in steps {
            cell.step(step);
        }
        cell.hear_all();
    }
}
