//! Scripts of what the fake server cannot time: between the steps of a reader, and the bounds of the shelf. The
//! entries come from a session machine, as they do at work.

use super::*;
use wombat_proto::limits::KEPT_HANDLES;
use wombat_proto::wire::request::Call;
use wombat_proto::wire::response::Result as Answer;
use wombat_proto::{Epoch, Rho};
use wombat_session::{Config, Effects, LinkId, Session};

const NODE: Instance = Instance(7);

struct Script {
    session: Session,
    effects: Effects,
    store: Arc<Store>,
    publisher: Publisher,
    link: LinkId,
    /// The KeepAlive that is pending.
    keep_alive: u64,
}

impl Script {
    /// A session that is up, without a cache lease.
    fn new() -> Script {
        let config = Config {
            endpoints: vec!["a:1".into()],
            cell: String::new(),
            client: "script".into(),
            sequencers: Vec::new(),
            cache_bytes: 1 << 20,
            grace: Duration::from_secs(45),
            rho: Rho::default(),
            seed: 1,
        };
        let store = Arc::new(Store::new(true));
        let publisher = Publisher::new(Arc::clone(&store));
        let (session, effects) = (Session::new(config, clock::now()), Effects::default());
        let mut script = Script { session, effects, store, publisher, link: LinkId(0), keep_alive: 0 };
        script.session.tick(clock::now(), &mut script.effects);
        let (link, _) = script.effects.connect.pop().unwrap();
        script.link = link;
        script.session.connected(clock::now(), link, &mut script.effects);
        script.answer(0, 0, Answer::Welcome(wire::Welcome { epoch: 1, ..Default::default() }));
        let opened = wire::SessionOpened { session: 5, lease_ms: 60_000, epoch: 1, ..Default::default() };
        script.answer(0, 0, Answer::SessionOpened(opened));
        script
    }

    /// Answers a request. What comes of it is not published yet.
    fn answer(&mut self, number: u64, epoch: u64, result: Answer) {
        let cachable = (epoch > 0).then(|| wire::Cachable { epoch, ..Default::default() });
        let response = wire::Response { session: 5, number, cachable, result: Some(result) };
        self.session.received(clock::now(), self.link, response, &mut self.effects);
        for (_, request) in self.effects.send.drain(..) {
            if matches!(request.call, Some(Call::KeepAlive(_))) {
                self.keep_alive = request.number;
            }
        }
    }

    fn kept_alive(&mut self, epoch: u64, cache_lease_ms: u32) {
        let kept = wire::KeptAlive { lease_ms: 60_000, cache_lease_ms, epoch, ..Default::default() };
        self.answer(self.keep_alive, 0, Answer::KeptAlive(kept));
    }

    /// Reads a node at the master of that epoch.
    fn read(&mut self, instance: Instance, epoch: u64, text: &'static str) {
        let handle = Some(wire::Handle { instance: instance.0, ..Default::default() });
        let get = Call::GetContents(wire::GetContents { handle });
        let number = self.session.submit(get, &mut self.effects);
        let contents = wire::Contents { contents: text.into(), stat: Some(Default::default()) };
        self.answer(number, epoch, Answer::Contents(contents));
    }

    fn publish(&mut self) {
        self.publisher.publish(&self.session, &mut self.effects.cache);
    }

    fn slot(&self) -> Arc<Slot> {
        self.store.slots.of(NODE)
    }

    /// A handle on the node, in use.
    fn handle(&self, path: &str) -> Arc<WireHandle> {
        let token = wire::Handle { instance: NODE.0, mode: 1, ..Default::default() };
        self.store.opened(token, Path::parse(path).expect("a path"), false)
    }

    fn takes(&self, path: &str) -> bool {
        let open = wire::Open { path: path.into(), mode: 1, ..Default::default() };
        self.store.open(&Opening::of(&open).expect("it may be cached")).is_some()
    }
}

#[test]
fn a_reader_that_is_stopped_does_not_take_one_master_s_lease_for_another_s() {
    let mut script = Script::new();
    script.kept_alive(1, 60_000);
    script.read(NODE, 1, "a");
    script.publish();
    let slot = script.slot();
    assert!(script.store.contents(&slot).is_some());
    // A reader has looked at the lease, and stops for a while. The next master has promised nothing yet: it may
    // change what was read there without a word.
    let glance = script.store.lease.glance();
    script.kept_alive(2, 0);
    script.read(NODE, 2, "b");
    script.publish();
    assert_eq!(script.session.epoch(), Epoch(2));
    let node = slot.node.load();
    assert_eq!(node.as_ref().unwrap().contents.as_deref(), Some(&b"b"[..]));
    assert!(clock::now().as_nanos() < glance.until, "that lease would last");
    assert!(!glance.covers(&node.as_ref().unwrap().mark));
    assert!(script.store.contents(&slot).is_none());
}

#[test]
fn what_is_cleared_is_gone_and_so_is_the_lease_before_anything_else_comes() {
    let mut script = Script::new();
    script.kept_alive(1, 60_000);
    script.read(NODE, 1, "a");
    script.publish();
    let (slot, era) = (script.slot(), script.store.lease.glance().era);
    script.publisher.clear(era + 1);
    assert_eq!((script.store.lease.glance().until, script.store.lease.glance().era), (0, era + 1));
    assert!(slot.node.load().is_none() && script.publisher.filled.is_empty());
}

#[test]
fn a_lease_comes_when_all_is_gone_that_it_was_granted_without() {
    let mut script = Script::new();
    script.read(NODE, 1, "a");
    script.publish();
    assert!(script.store.put_away(&script.handle("/ls/c/f")).is_none());
    assert!(script.store.contents(&script.slot()).is_none());
    script.kept_alive(1, 60_000);
    assert!(script.store.contents(&script.slot()).is_none(), "it is the task that tells of it");
    assert!(!script.takes("/ls/c/f"), "whether the node is there is not sure either");
    script.publish();
    assert!(script.store.contents(&script.slot()).is_some() && script.takes("/ls/c/f"));
}

#[test]
fn slots_are_there_as_long_as_somebody_has_a_use_for_them() {
    let mut script = Script::new();
    script.read(NODE, 1, "a");
    script.publish();
    assert!(script.slot().node.load().is_some(), "nobody has it open, and it is found again");
    let handle = script.handle("/ls/c/f");
    let set = wire::SetContents { handle: Some(handle.token), ..Default::default() };
    script.session.submit(Call::SetContents(set), &mut script.effects);
    script.publish();
    assert_eq!(script.store.slots.len(), 1);
    drop(handle);
    assert_eq!(script.store.slots.len(), 0);
    // A slot that is made while the last one dies is another.
    let (one, two) = (script.slot(), script.slot());
    drop(one);
    assert!(Arc::ptr_eq(&two, &script.slot()));
}

#[test]
fn the_shelf_holds_so_many_handles_and_then_the_oldest_unused_goes() {
    let mut script = Script::new();
    script.kept_alive(1, 60_000);
    script.read(NODE, 1, "a");
    script.publish();
    let path = |number: usize| format!("/ls/c/{number}");
    let handles: Vec<_> = (0..KEPT_HANDLES + 2).map(|number| script.handle(&path(number))).collect();
    for handle in &handles[..KEPT_HANDLES] {
        assert!(script.store.put_away(handle).is_none());
    }
    assert!(script.takes(&path(0)), "the oldest is used");
    let gone = script.store.put_away(&handles[KEPT_HANDLES]).expect("one gives way");
    assert!(Arc::ptr_eq(&gone, &handles[1]));
    assert!(!script.takes(&path(1)) && script.takes(&path(KEPT_HANDLES)));
    assert_eq!(script.store.stats().kept_handles, KEPT_HANDLES);
    // If all are used, the one that comes cannot stay.
    for number in 2..KEPT_HANDLES {
        assert!(script.takes(&path(number)));
    }
    let gone = script.store.put_away(&handles[KEPT_HANDLES + 1]).expect("one gives way");
    assert!(Arc::ptr_eq(&gone, &handles[KEPT_HANDLES + 1]));
}

#[test]
fn a_handle_that_nobody_uses_for_a_while_is_closed() {
    let mut script = Script::new();
    script.kept_alive(1, 60_000);
    script.read(NODE, 1, "a");
    script.publish();
    let (unused, used) = (script.handle("/ls/c/unused"), script.handle("/ls/c/used"));
    for handle in [&unused, &used] {
        assert!(script.store.put_away(handle).is_none());
    }
    assert!(script.store.clear_out(false).is_empty(), "both have come just now");
    assert!(script.takes("/ls/c/used"));
    let gone = script.store.clear_out(false);
    assert!(matches!(&gone[..], [handle] if Arc::ptr_eq(handle, &unused)), "one is used");
    assert!(!script.takes("/ls/c/unused"));
    assert!(script.store.put_away(&used).is_none());
    assert!(script.store.clear_out(false).is_empty(), "it was used just now");
    assert!(script.takes("/ls/c/used"));
    assert!(script.store.clear_out(true).is_empty(), "whoever uses it does not lose it");
    assert!(script.store.put_away(&used).is_none());
    assert_eq!(script.store.clear_out(true).len(), 1);
}
