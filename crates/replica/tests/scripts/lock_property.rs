//! Random scripts over locks, with clients that die and masters that fall, against a naive model. After each
//! step everyone has been told what the model tells, and holds and waits as there.

use crate::lock_model::{Holder, Model, Said, Who};
use crate::lock_steps::{DELAYS_MS, PEOPLE, PERMITS, Patience, Step, step};
use crate::world::{self, World, may_create};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::wire::{self, Handle, Response, request::Call, response::Result as Answer};
use wombat_proto::{Error, HandleId, Instance, LockMode, Record, Sequencer, SessionId, Token, Value};

/// The session lease.
const LEASE: Duration = Duration::from_secs(2);
/// Something asked and not answered.
#[derive(Clone, Debug)]
struct Asked {
    call: Call,
    handle: u64,
    instance: Instance,
    at: Duration,
}

struct Person {
    client: world::Client,
    life: Life,
    /// Its handles by node and place, until they are closed or found to be stale.
    handles: BTreeMap<(usize, usize), Handle>,
    asked: BTreeMap<u64, Asked>,
    /// The KeepAlive that is pending.
    keep_alive: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Lives,
    Leaves,
    Dies,
    Ended,
}

impl Person {
    fn has_asked(&self, handle: u64, only_acquires: bool) -> bool {
        let counts = |asked: &Asked| !only_acquires || matches!(asked.call, Call::Acquire(_));
        self.asked.values().any(|asked| asked.handle == handle && counts(asked))
    }

    /// Whether an Acquire is being taken back: its client does not send it again.
    fn is_taken_back(&self, number: u64, acquire: &Asked) -> bool {
        self.asked.values().any(|other| match &other.call {
            Call::CancelAcquire(cancel) => cancel.acquire == number,
            Call::Close(_) => other.handle == acquire.handle,
            _ => false,
        })
    }
}

struct Test {
    world: World,
    model: Model,
    people: Vec<Person>,
    /// Someone who only looks.
    observer: u64,
    /// How many records of the log have been looked at.
    seen: usize,
    /// The instance that each node has now, and the tokens that were granted of its name.
    nodes: [Option<Instance>; PERMITS.len()],
    tokens: [BTreeSet<Token>; PERMITS.len()],
    /// What each Acquire was given.
    sequencers: Vec<((u64, u64), Sequencer)>,
    steps: u64,
}

fn path(node: usize) -> String {
    format!("/ls/test/lock-{node}")
}

impl Test {
    fn new() -> Test {
        let mut world = World::with_lease(LEASE);
        let observer = world.connect();
        let mut test = Test {
            observer,
            model: Model::new(world.now()),
            people: Vec::new(),
            seen: 0,
            nodes: [None; PERMITS.len()],
            tokens: Default::default(),
            sequencers: Vec::new(),
            steps: 0,
            world,
        };
        for _ in 0..PEOPLE {
            let person = test.person();
            test.people.push(person);
        }
        test
    }

    fn person(&mut self) -> Person {
        Person {
            client: self.world.client(),
            life: Life::Lives,
            handles: BTreeMap::new(),
            asked: BTreeMap::new(),
            keep_alive: None,
        }
    }

    fn run(&mut self, step: Step) {
        self.steps += 1;
        // No two clocks begin within the same microsecond of a millisecond, so that none end together.
        self.pass(Duration::from_micros(1_000 + 7 * (self.steps % 140)));
        if !self.world.hold_disk {
            self.open_handles();
        }
        match step {
            Step::Pass { ms } => self.pass(Duration::from_millis(ms)),
            Step::Disk { busy } => self.world.hold_disk = busy,
            Step::FailOver { survives, first } => self.fail_over(survives, first),
            Step::Reconnect { who } => self.attach(who),
            Step::Dies { who } if self.people[who].life == Life::Lives => self.people[who].life = Life::Dies,
            Step::Dies { .. } => {}
            Step::EndSession { who } => self.end_session(who),
            Step::Cancel { who, which } => self.cancel(who, which),
            Step::Acquire { who, node, handle, shared, patience } => {
                if let Some(handle) = self.handle(who, node, handle) {
                    self.acquire(who, handle, shared, patience);
                }
            }
            Step::Release { who, node, handle } => {
                if let Some(handle) = self.handle(who, node, handle) {
                    let release = Call::Release(wire::Release { handle: Some(handle) });
                    self.ask(who, handle, release);
                }
            }
            Step::Delete { who, node, handle } => {
                if let Some(handle) = self.handle(who, node, handle) {
                    self.ask(who, handle, Call::Delete(wire::Delete { handle: Some(handle) }));
                }
            }
            Step::Close { who, node, handle } => self.close(who, (node, handle)),
            Step::CloseWaiting { who, which } => {
                let person = &self.people[who];
                let waits = person.handles.iter().filter(|(_, handle)| person.has_asked(handle.id, true));
                let waits: Vec<(usize, usize)> = waits.map(|(place, _)| *place).collect();
                if !waits.is_empty() {
                    self.close(who, waits[which % waits.len()]);
                }
            }
        }
        self.settle();
    }

    /// Everyone who lives opens what he has not open; somebody new takes the place of one who has ended.
    fn open_handles(&mut self) {
        let places = (0..PERMITS.len()).flat_map(|node| (0..DELAYS_MS.len()).map(move |place| (node, place)));
        for (who, (node, place)) in (0..PEOPLE).flat_map(|who| places.clone().map(move |at| (who, at))) {
            if self.people[who].life == Life::Ended {
                self.people[who] = self.person();
            }
            let person = &mut self.people[who];
            let stale = |handle: &Handle| self.nodes[node] != Some(Instance(handle.instance));
            let known = person.handles.get(&(node, place)).copied();
            if person.life != Life::Lives || known.is_some_and(|handle| !stale(&handle)) {
                continue;
            }
            // Some keep what they have of a node that is gone, until it is recreated.
            if known.is_some_and(|handle| person.has_asked(handle.id, false)) {
                continue;
            }
            let node_wanted = Some(wire::NewNode { permits: PERMITS[node], ..wire::NewNode::default() });
            let lock_delay_ms = DELAYS_MS[place];
            let open = wire::Open { path: path(node), node: node_wanted, lock_delay_ms, ..may_create() };
            let handle = self.world.open_with(&mut person.client, open);
            let instance = Instance(handle.instance);
            if self.nodes[node] != Some(instance) {
                self.model.create(instance, PERMITS[node]);
                self.nodes[node] = Some(instance);
            }
            person.handles.insert((node, place), handle);
        }
    }

    /// A handle of someone who lives. It does one thing at a time, but for being released while it waits, which
    /// frees nothing.
    fn handle(&self, who: usize, node: usize, place: usize) -> Option<Handle> {
        let person = &self.people[who];
        let handle = *person.handles.get(&(node, place)).filter(|_| person.life == Life::Lives)?;
        let alone = |asked: &Asked| asked.handle != handle.id || matches!(asked.call, Call::Acquire(_));
        person.asked.values().all(alone).then_some(handle)
    }

    fn ask(&mut self, who: usize, handle: Handle, call: Call) {
        let person = &mut self.people[who];
        let number = self.world.send(&mut person.client, call.clone());
        let (at, instance) = (self.world.elapsed(), Instance(handle.instance));
        person.asked.insert(number, Asked { call, handle: handle.id, instance, at });
        self.tell_model(who, number);
    }

    fn acquire(&mut self, who: usize, handle: Handle, shared: bool, patience: Patience) {
        let holder = (SessionId(self.people[who].client.session), HandleId(handle.id));
        let lock = self.world.replica.state().tree().get(Instance(handle.instance)).map(|node| &node.lock);
        let holds = lock.is_some_and(|lock| lock.holder(holder.0, holder.1).is_some());
        if holds || self.people[who].has_asked(handle.id, false) {
            return; // A handle takes its lock once.
        }
        let timeout_ms = if let Patience::Some(ms) = patience { ms } else { 0 };
        let r#try = matches!(patience, Patience::None);
        let acquire = wire::Acquire { handle: Some(handle), shared, r#try, timeout_ms, ..Default::default() };
        self.ask(who, handle, Call::Acquire(acquire));
    }

    fn close(&mut self, who: usize, place: (usize, usize)) {
        let person = &mut self.people[who];
        if person.life == Life::Lives
            && let Some(handle) = person.handles.remove(&place)
        {
            self.ask(who, handle, Call::Close(wire::Close { handle: Some(handle) }));
        }
    }

    fn cancel(&mut self, who: usize, which: usize) {
        let person = &self.people[who];
        let acquires = person.asked.iter().filter(|(number, asked)| {
            matches!(asked.call, Call::Acquire(_)) && !person.is_taken_back(**number, asked)
        });
        let acquires: Vec<(u64, Call)> =
            acquires.map(|(number, asked)| (*number, asked.call.clone())).collect();
        let one = acquires.get(which % acquires.len().max(1)).cloned();
        let Some((acquire, Call::Acquire(call))) = one else { return };
        if let Some(handle) = call.handle.filter(|_| person.life == Life::Lives) {
            let open = person.handles.values().any(|open| *open == handle);
            let free = !person
                .asked
                .values()
                .any(|asked| asked.handle == handle.id && !matches!(asked.call, Call::Acquire(_)));
            if open && free {
                let cancel = wire::CancelAcquire { handle: Some(handle), acquire };
                self.ask(who, handle, Call::CancelAcquire(cancel));
            }
        }
    }

    fn end_session(&mut self, who: usize) {
        if self.people[who].life == Life::Lives {
            self.people[who].life = Life::Leaves;
            self.ask(who, Handle::default(), Call::EndSession(wire::EndSession {}));
        }
    }

    /// What a request means to the model.
    fn tell_model(&mut self, who: usize, number: u64) {
        let person = &self.people[who];
        let session = person.client.session;
        let Asked { call, handle, instance, at } = person.asked[&number].clone();
        let (holder, asked): (Who, _) = ((session, handle), (session, number));
        match call {
            Call::Acquire(acquire) => {
                let lock_delay =
                    Duration::from_millis(acquire.handle.unwrap_or_default().lock_delay_ms.into());
                let mode = if acquire.shared { LockMode::Shared } else { LockMode::Exclusive };
                let holder = Holder { who: holder, mode, lock_delay, acquire: number };
                // Its word for having waited counts for the time before the present master.
                let waited = Duration::from_millis((self.world.elapsed() - at).as_millis() as u64);
                let said = self.model.now - waited;
                let since = if said <= self.model.master_since { said } else { self.model.now };
                let timeout = (acquire.timeout_ms != 0).then(|| Duration::from_millis(acquire.timeout_ms));
                self.model.acquire(instance, holder, since, timeout, acquire.r#try);
            }
            Call::CancelAcquire(cancel) => self.model.cancel(instance, holder, cancel.acquire, asked),
            Call::Release(_) => self.model.release(instance, holder, asked),
            Call::Close(_) => self.model.close(instance, holder, asked),
            Call::Delete(_) => self.model.delete(instance, holder, asked),
            Call::EndSession(_) => self.model.end(vec![session], Some(asked)),
            other => unreachable!("{other:?}"),
        }
    }

    /// Someone comes on another connection, and asks again what was not answered.
    fn attach(&mut self, who: usize) {
        let person = &mut self.people[who];
        if person.life != Life::Lives {
            return;
        }
        person.keep_alive = None;
        if self.world.resume(&mut person.client).is_err() {
            person.life = Life::Ended;
            return person.asked.clear();
        }
        for number in person.asked.keys().copied().collect::<Vec<_>>() {
            let person = &self.people[who];
            let Some(asked) = person.asked.get(&number).cloned() else { continue };
            let mut call = asked.call.clone();
            if let Call::Acquire(acquire) = &mut call {
                if person.is_taken_back(number, &asked) {
                    continue;
                }
                acquire.waited_ms = (self.world.elapsed() - asked.at).as_millis() as u64;
            }
            // A change that is on its way is not asked for twice of the model.
            let on_its_way = self.model.is_on_its_way((person.client.session, number));
            self.world.send_again(&self.people[who].client.clone(), number, call);
            if !on_its_way {
                self.tell_model(who, number);
            }
        }
    }

    fn fail_over(&mut self, survives: bool, first: usize) {
        if survives {
            self.world.persist_unheard();
        }
        self.world.hold_disk = false;
        self.world.restart();
        self.model.fail_over(survives);
        self.seen = self.world.records().len();
        for person in &mut self.people {
            person.keep_alive = None;
            if person.life == Life::Leaves {
                person.life = Life::Dies; // Nobody asks again for its end.
            }
        }
        self.observer = self.world.connect();
        for who in 0..PEOPLE {
            self.pass(Duration::from_micros(1_013));
            self.attach((first + who) % PEOPLE);
            self.settle();
        }
    }

    /// Time passes, in pieces that end when something is due.
    fn pass(&mut self, duration: Duration) {
        let end = self.world.now() + duration;
        while self.world.now() < end {
            self.keep_alive();
            let due = self.world.replica.next_deadline().map_or(end, |due| due.min(end));
            let most = Duration::from_millis(200);
            let piece = due.since(self.world.now()).clamp(Duration::from_nanos(1), most);
            self.world.pass(piece);
            self.adopt_ends();
            self.model.pass(self.world.now());
            self.settle();
        }
    }

    fn keep_alive(&mut self) {
        for person in &mut self.people {
            if person.life == Life::Lives && person.keep_alive.is_none() {
                let events_acknowledged = u64::MAX;
                let alive =
                    Call::KeepAlive(wire::KeepAlive { events_acknowledged, ..wire::KeepAlive::default() });
                person.keep_alive = Some(self.world.send(&mut person.client, alive));
            }
        }
    }

    /// The master ends the sessions that nothing was heard of for a lease, and no others.
    fn adopt_ends(&mut self) {
        for record in &self.world.records()[self.seen..] {
            let Record::Accept(accepted) = record else { continue };
            let Value::Command(command) = &accepted.value else { continue };
            let command: log::Command = prost::Message::decode(command.clone()).unwrap();
            if let Some(Op::EndSessions(end)) = command.op
                && !end.asked
            {
                for person in &self.people {
                    let ends = end.sessions.contains(&person.client.session);
                    assert!(!ends || person.life != Life::Lives, "{} was ended", person.client.session);
                }
                self.model.end(end.sessions, None);
            }
        }
        self.seen = self.world.records().len();
    }

    /// What the model says and does is what happens.
    fn settle(&mut self) {
        self.adopt_ends();
        if !self.world.hold_disk {
            self.world.flush();
            self.model.flush();
        }
        self.check_answers();
        self.check_locks();
        for ((session, acquire), sequencer) in &self.sequencers {
            let holds = |holder: &Holder| (holder.who.0, holder.acquire) == (*session, *acquire);
            let lock = self.model.locks.get(&sequencer.instance);
            let valid = lock.is_some_and(|lock| lock.holders.iter().any(holds));
            let said = self.world.replica.state().check_sequencer(sequencer);
            assert_eq!(said.is_ok(), valid, "I4: {sequencer}: {said:?}");
        }
    }

    fn check_answers(&mut self) {
        let mut said = Vec::new();
        for Response { session, number, result, .. } in
            std::mem::take(&mut self.world.replies).into_values().flatten()
        {
            let Some(who) = self.people.iter().position(|person| person.client.session == session) else {
                continue; // Of someone whose place is taken.
            };
            let person = &mut self.people[who];
            if person.keep_alive == Some(number) {
                person.keep_alive = None;
            }
            let Some(asked) = person.asked.remove(&number) else { continue };
            let one = match result {
                Some(Answer::Granted(granted)) => {
                    let sequencer: Sequencer = granted.sequencer.parse().unwrap();
                    let mode = sequencer.mode;
                    self.sequencers.push(((session, number), sequencer));
                    Said::Granted(mode)
                }
                Some(Answer::Done(_)) => Said::Done,
                Some(Answer::Error(error)) => Said::Error(Error::from(error).name()),
                other => panic!("{other:?}"),
            };
            let person = &mut self.people[who];
            match asked.call {
                Call::EndSession(_) => person.life = Life::Ended,
                // What was taken back is over with that, also where nobody answers it any more.
                Call::Close(_) => person.asked.retain(|_, other| {
                    other.handle != asked.handle || !matches!(other.call, Call::Acquire(_))
                }),
                Call::CancelAcquire(cancel) => drop(person.asked.remove(&cancel.acquire)),
                _ => {}
            }
            said.push(((session, number), one));
        }
        for person in &mut self.people {
            let alive = self.world.replica.state().session(SessionId(person.client.session)).is_some();
            if !alive {
                person.life = Life::Ended;
            }
        }
        let mut expected = std::mem::take(&mut self.model.said);
        said.sort_unstable();
        expected.sort_unstable();
        assert_eq!(said, expected, "who was told what");
    }

    fn check_locks(&mut self) {
        let list = Call::ListLocks(wire::ListLocks::default());
        self.world.send_raw(self.observer, world::request(list));
        let Some(Answer::Locks(listed)) = self.world.take(self.observer).result else { panic!("no list") };
        let listed: BTreeMap<String, wire::LockInfo> =
            listed.locks.into_iter().map(|lock| (lock.path.clone(), lock)).collect();
        let tree = self.world.replica.state().tree();
        for (node, instance) in self.nodes.iter().enumerate() {
            let Some(instance) = instance else { continue };
            let (real, model) = (tree.get(*instance), self.model.locks.get(instance));
            assert_eq!(real.is_some(), model.is_some(), "{instance} exists");
            let (Some(real), Some(model)) = (real.map(|node| &node.lock), model) else { continue };
            let holders = real.holders().map(|((session, handle), holder)| Holder {
                who: (session.0, handle.0),
                mode: holder.mode,
                lock_delay: holder.lock_delay,
                acquire: holder.acquire,
            });
            let mut expected = model.holders.clone();
            expected.sort_unstable();
            assert_eq!(holders.collect::<Vec<_>>(), expected, "who holds {instance}");
            assert_eq!(real.generation().0, model.generation, "{instance}");
            let delay = real.delay().map(|delay| (delay.mode, delay.length));
            assert_eq!(delay, model.delay.map(|delay| (delay.mode, delay.length)), "the delay of {instance}");
            let (waiting, delay_left) =
                listed.get(&path(node)).map_or((0, 0), |lock| (lock.waiting, lock.delay_left_ms));
            assert_eq!(waiting, model.queue.len() as u64, "who waits for {instance}");
            let left = model.delay.map_or(Duration::ZERO, |delay| delay.until.since(self.world.now()));
            assert_eq!(delay_left, left.as_micros().div_ceil(1000) as u64, "I7: {instance}");
            // I4: what was granted since then has greater tokens than whatever was granted of that name before.
            let known = &mut self.tokens[node];
            let last = known.last().copied();
            let new: Vec<Token> = real.holders().map(|(_, holder)| holder.token).collect();
            assert!(new.iter().all(|token| known.contains(token) || Some(*token) > last), "I4: {new:?}");
            known.extend(new);
        }
    }

    /// Everyone who has a lock gives it back, until nobody waits: whoever lives has been told something.
    fn drain(&mut self) {
        self.world.hold_disk = false;
        for _ in 0..60 {
            self.settle();
            if self.people.iter().all(|person| person.life != Life::Lives || person.asked.is_empty()) {
                return;
            }
            for who in 0..PEOPLE {
                for handle in self.people[who].handles.values().copied().collect::<Vec<_>>() {
                    let holder = (self.people[who].client.session, handle.id);
                    let lock = self.model.locks.get(&Instance(handle.instance));
                    let holds = lock.is_some_and(|lock| lock.holders.iter().any(|one| one.who == holder));
                    if holds && self.people[who].life == Life::Lives {
                        self.ask(who, handle, Call::Release(wire::Release { handle: Some(handle) }));
                        self.settle();
                    }
                }
            }
            self.pass(Duration::from_millis(251));
        }
        panic!("somebody waits for ever");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn locks_do_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut test = Test::new();
        for step in steps {
            test.run(step);
        }
        test.drain();
    }
}
