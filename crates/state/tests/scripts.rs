//! Scripts: a few commands, one after the other, and what each must come to. What chance would seldom try.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use wombat_proto::limits::HANDLES_PER_SESSION;
use wombat_proto::wire::log::{self, command::Op};
use wombat_proto::wire::{self, NewNode};
use wombat_proto::{Error, NodePath, Result, SessionId, Slot, Token};
use wombat_state::{Node, Outcome, State};

/// A founded cell with a session, and what is applied to it.
struct Script {
    state: State,
    slot: u64,
    session: u64,
}

impl Script {
    fn new() -> Script {
        let mut script = Script { state: State::new(), slot: 0, session: 0 };
        script
            .apply_in(0, Op::FoundCell(log::FoundCell { cell: "test".into(), key: vec![1; 32].into() }))
            .unwrap();
        script
            .apply_in(
                1,
                Op::BeginEpoch(log::BeginEpoch { lease_ms: 12_000, cache_lease_ms: 2_000, restored: false }),
            )
            .unwrap();
        script.session = script.new_session();
        script
    }

    fn apply_in(&mut self, epoch: u64, op: Op) -> Result<Outcome> {
        self.slot += 1;
        let (session, number) = (self.session, self.slot);
        let acknowledged = number - 1;
        let command =
            log::Command { epoch, session, number, acknowledged, op: Some(op), ..log::Command::default() };
        let applied = self.state.apply(Slot(self.slot), &command);
        self.state.check();
        applied.result
    }

    fn apply(&mut self, op: Op) -> Result<Outcome> {
        self.apply_in(1, op)
    }

    fn new_session(&mut self) -> u64 {
        match self.apply(Op::CreateSession(log::CreateSession::default())) {
            Ok(Outcome::Session(id)) => id.0,
            other => panic!("{other:?}"),
        }
    }

    /// Makes a node in the root, opened by `handle`; returns its instance.
    fn create(&mut self, name: &str, handle: u64, new: NewNode) -> u64 {
        let parent = self.state.tree().root().unwrap().instance.0;
        self.create_in(parent, name, handle, new)
    }

    fn create_in(&mut self, parent: u64, name: &str, handle: u64, new: NewNode) -> u64 {
        let open = log::Open { parent, name: name.into(), handle, node: Some(new), ..log::Open::default() };
        match self.apply(Op::Open(open)) {
            Ok(Outcome::Opened { stat, .. }) => stat.instance,
            other => panic!("{other:?}"),
        }
    }

    fn grant(&mut self, instance: u64, handle: u64) -> Result<Token> {
        let grant = log::Grant { instance, handle, acquire: self.slot + 1, ..log::Grant::default() };
        match self.apply(Op::Grant(grant))? {
            Outcome::Granted { token, .. } => Ok(token),
            other => panic!("{other:?}"),
        }
    }

    fn release(&mut self, instance: u64, handle: u64) -> Result<Outcome> {
        self.apply(Op::Release(log::Release { instance, handle }))
    }

    fn set_sequencer(&mut self, handle: u64, instance: u64, token: Token) -> Result<Outcome> {
        self.apply(Op::SetSequencer(log::SetSequencer { handle, instance, token: token.0 }))
    }

    fn multi(&mut self, changes: impl IntoIterator<Item = wire::change::Change>) -> Result<Outcome> {
        let changes = changes.into_iter().map(|change| wire::Change { change: Some(change) }).collect();
        self.apply(Op::Multi(log::Multi { steps: Some(wire::Multi { guards: Vec::new(), changes }) }))
    }

    fn node(&self, path: &str) -> Option<&Node> {
        self.state.tree().find(&NodePath::parse(path).unwrap())
    }
}

fn delete(path: &str) -> wire::change::Change {
    wire::change::Change::Delete(path.into())
}

fn make(path: &str) -> wire::change::Change {
    wire::change::Change::Create(wire::CreateNode { path: path.into(), node: Some(NewNode::default()) })
}

#[test]
fn a_grant_is_refused_to_a_handle_whose_sequencer_has_gone_stale() {
    let mut script = Script::new();
    let fence = script.create("fence", 1, NewNode::default());
    let lock = script.create("lock", 2, NewNode::default());
    let token = script.grant(fence, 1).unwrap();
    script.set_sequencer(2, fence, token).unwrap();
    script.grant(lock, 2).unwrap();
    script.release(lock, 2).unwrap();
    // The sequencer goes stale between the proposal of the grant and its turn in the log.
    script.release(fence, 1).unwrap();
    assert_eq!(script.grant(lock, 2), Err(Error::SequencerStale));
    assert!(!script.node("lock").unwrap().lock.is_held());
    assert!(script.grant(lock, 3).is_ok(), "another handle is not tied to it");
}

#[test]
fn a_grant_that_was_made_is_found_again_also_when_the_sequencer_is_stale() {
    let mut script = Script::new();
    let fence = script.create("fence", 1, NewNode::default());
    let lock = script.create("lock", 2, NewNode::default());
    let token = script.grant(fence, 1).unwrap();
    script.set_sequencer(2, fence, token).unwrap();
    let grant = log::Grant { instance: lock, handle: 2, acquire: 77, ..log::Grant::default() };
    let first = script.apply(Op::Grant(grant)).unwrap();
    script.release(fence, 1).unwrap();
    assert_eq!(script.apply(Op::Grant(grant)), Ok(first));
}

#[test]
fn a_session_changes_nothing_once_one_of_its_fences_is_stale() {
    let mut script = Script::new();
    let holder = script.session;
    let (outer, inner) =
        (script.create("outer", 1, NewNode::default()), script.create("inner", 2, NewNode::default()));
    let file = script.create("file", 3, NewNode::default());
    let fences = [(outer, 1), (inner, 2)].map(|(instance, handle)| {
        let token = script.grant(instance, handle).unwrap().0;
        log::Fence { instance, token }
    });
    let create = log::CreateSession { fences: fences.into(), ..log::CreateSession::default() };
    let Ok(Outcome::Session(fenced)) = script.apply(Op::CreateSession(create)) else { panic!("no session") };
    script.session = fenced.0;
    let held = script.create("held", 4, NewNode::default());
    script.grant(held, 4).unwrap();
    script.session = holder;
    script.release(outer, 1).unwrap();
    script.session = fenced.0;
    // Also after a snapshot.
    script.state = State::restore(script.state.snapshot()).unwrap();
    let parent = script.state.tree().root().unwrap().instance.0;
    let multi = wire::Multi {
        changes: vec![wire::Change { change: Some(make("/ls/test/m")) }],
        ..wire::Multi::default()
    };
    let changes = [
        Op::Open(log::Open {
            parent,
            name: "new".into(),
            handle: 9,
            node: Some(NewNode::default()),
            ..log::Open::default()
        }),
        Op::SetContents(log::SetContents { instance: file, handle: 5, ..log::SetContents::default() }),
        Op::Delete(log::Delete { instance: file, handle: 5 }),
        Op::Grant(log::Grant { instance: file, handle: 5, acquire: 1, ..log::Grant::default() }),
        Op::BreakLock(log::BreakLock {
            instance: inner,
            tokens: vec![fences[1].token],
            ..log::BreakLock::default()
        }),
        Op::Multi(log::Multi { steps: Some(multi) }),
    ];
    for change in changes {
        assert_eq!(script.apply(change.clone()), Err(Error::SequencerStale), "{change:?}");
    }
    assert!(script.node("inner").unwrap().lock.is_held() && script.node("new").is_none());
    script.release(held, 4).expect("what a session holds it can always give up");
    script.apply(Op::Close(log::Close { instance: held, handle: 4 })).unwrap();
}

#[test]
fn a_handle_can_be_tied_anew_where_no_further_handle_can() {
    let mut script = Script::new();
    let fence = script.create("fence", 1, NewNode::default());
    let token = script.grant(fence, 1).unwrap();
    for handle in 1..=HANDLES_PER_SESSION as u64 {
        script.set_sequencer(handle, fence, token).unwrap();
    }
    let beyond = script.set_sequencer(HANDLES_PER_SESSION as u64 + 1, fence, token);
    assert!(matches!(beyond, Err(Error::QuotaExceeded { .. })), "{beyond:?}");
    script.release(fence, 1).unwrap();
    let token = script.grant(fence, HANDLES_PER_SESSION as u64 + 2).unwrap();
    script.set_sequencer(1, fence, token).unwrap();
}

#[test]
fn a_multi_that_fails_gives_a_lock_back_to_its_session() {
    let mut script = Script::new();
    let directory = script.create("d", 1, NewNode { directory: true, ephemeral: true, ..NewNode::default() });
    script.create_in(directory, "f", 2, NewNode::default());
    script.grant(directory, 3).unwrap();
    script.apply(Op::Close(log::Close { instance: directory, handle: 1 })).unwrap();
    // The directory goes with its last child, its lock with it; then all of that is taken back.
    let failed = script.multi([delete("/ls/test/d/f"), make("/ls/test/d/f")]);
    assert!(
        matches!(&failed, Err(Error::Step { step: 2, error }) if matches!(**error, Error::NotFound { .. })),
        "{failed:?}"
    );
    let session = script.state.session(SessionId(script.session)).unwrap();
    assert_eq!(session.lock_count(), 1);
    let end = log::EndSessions { sessions: vec![script.session], asked: true };
    script.apply(Op::EndSessions(end)).unwrap();
    assert!(!script.node("d").unwrap().lock.is_held(), "nobody is left who could hold it");
}

#[test]
fn a_multi_that_fails_uses_up_no_instances() {
    let mut script = Script::new();
    let failed =
        script.multi([make("/ls/test/a"), make("/ls/test/b"), make("/ls/test/c"), make("/ls/test/a")]);
    assert_eq!(failed, Err(Error::AlreadyExists.at_step(4)));
    let instance = script.create("a", 1, NewNode::default());
    assert_eq!(instance, script.state.stamp().0, "an instance is the stamp of the creation");
}

fn numbered() -> NewNode {
    NewNode { sequential: true, ..NewNode::default() }
}

#[test]
fn sequential_names_count_up_in_each_directory_whatever_becomes_of_the_nodes() {
    let mut script = Script::new();
    script.create("job-0000000002", 1, NewNode::default());
    script.create("job-", 2, numbered());
    assert!(script.node("job-0000000001").is_some());
    script.create("job-", 3, numbered());
    assert!(script.node("job-0000000003").is_some(), "a name that is taken is passed over");
    script.multi([delete("/ls/test/job-0000000003")]).unwrap();
    let chunks: Vec<_> = script.state.snapshot().collect();
    script.state = State::restore(chunks).unwrap();
    script.create("other-", 4, numbered());
    assert!(script.node("other-0000000004").is_some(), "a number is not given twice, nor after a snapshot");
    let directory = script.create("d", 5, NewNode { directory: true, ..NewNode::default() });
    script.create_in(directory, "x", 6, numbered());
    assert!(script.node("d/x0000000001").is_some());
}

#[test]
fn a_multi_tells_the_names_that_it_completed_and_counts_back_if_it_fails() {
    let mut script = Script::new();
    let sequential = |path: &str| {
        let node = Some(numbered());
        wire::change::Change::Create(wire::CreateNode { path: path.into(), node })
    };
    script.multi([sequential("/ls/test/a"), delete("/ls/test/none")]).unwrap_err();
    match script.multi([make("/ls/test/f"), sequential("/ls/test/a"), delete("/ls/test/f")]) {
        Ok(Outcome::Multi(done)) => assert_eq!(done.names, ["", "a0000000001", ""]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_is_broken_for_the_grants_that_are_named_and_with_their_delay() {
    let mut script = Script::new();
    let lock = script.create("lock", 1, NewNode::default());
    let shared = |handle, lock_delay_ms, acquire| {
        Op::Grant(log::Grant {
            instance: lock,
            handle,
            shared: true,
            lock_delay_ms,
            acquire,
            ..log::Grant::default()
        })
    };
    let mut tokens = Vec::new();
    for (handle, delay) in [(1, 0), (2, 3_000), (3, 1_000)] {
        script.apply(shared(handle, delay, 100 + handle)).unwrap();
        tokens.push(script.state.stamp().0);
    }
    let broken = log::BreakLock { instance: lock, tokens: tokens[1..].into(), what: "broke it".into() };
    script.apply(Op::BreakLock(broken.clone())).unwrap();
    let node = script.node("lock").unwrap();
    assert_eq!(node.lock.holder_count(), 1, "the third grant stays");
    assert_eq!(node.lock.delay().unwrap().length.as_millis(), 3_000, "the longer one covers both");
    script.apply(Op::BreakLock(broken)).unwrap();
    let chunks: Vec<_> = script.state.snapshot().collect();
    let restored = State::restore(chunks).unwrap();
    let audit: Vec<_> = restored.audit_after(Slot(0)).map(|entry| entry.what.as_str()).collect();
    assert_eq!(audit.len(), 2);
    assert!(audit[0] == "broke it" && audit[1].contains("given back"), "{audit:?}");
}

/// What the cell gives out in a later epoch is later, also if the log in between was lost by a restore.
#[test]
fn stamps_of_a_later_epoch_are_greater_whatever_was_lost() {
    let mut script = Script::new();
    let lock = script.create("lock", 1, NewNode::default());
    let mut backup = Script { state: script.state.clone(), ..script };
    let begin = |script: &mut Script, epoch| {
        let begin = log::BeginEpoch::default();
        script.apply_in(epoch, Op::BeginEpoch(begin)).unwrap();
        let grant = log::Grant { instance: lock, handle: 1, acquire: 1, ..log::Grant::default() };
        match script.apply_in(epoch, Op::Grant(grant)).unwrap() {
            Outcome::Granted { token, .. } => token,
            other => panic!("{other:?}"),
        }
    };
    let (millis, later) = (1_800_000_000_000, 1_800_000_000_001);
    let before = begin(&mut script, millis);
    let after = begin(&mut backup, later);
    assert!(after.0 > before.0 + 2000, "{after} was issued after {before}");
    assert!(after.0 < 1 << 53, "JSON readers know numbers as doubles");
    assert!(backup.state.stamp() > backup.state.applied());
}

/// What the original did with a session since the backup is forgotten, so nobody may go on with it; and generations
/// and numbers of names are not given twice.
#[test]
fn a_restored_cell_ends_sessions_and_repeats_no_generation() {
    let mut script = Script::new();
    let file = script.create("file", 1, NewNode::default());
    let token = script.grant(file, 1).unwrap();
    let root = script.state.tree().root().unwrap().instance.0;
    script.create_in(root, "n", 2, numbered());
    let restored = log::BeginEpoch { restored: true, ..log::BeginEpoch::default() };
    script.apply_in(9, Op::BeginEpoch(restored)).unwrap();
    let at = script.state.stamp().0;
    assert_eq!(script.state.session_count(), 0);
    assert_eq!(
        script.apply_in(9, Op::Release(log::Release { instance: file, handle: 1 })),
        Err(Error::SessionExpired)
    );
    script.session = match script.apply_in(9, Op::CreateSession(log::CreateSession::default())) {
        Ok(Outcome::Session(id)) => id.0,
        other => panic!("{other:?}"),
    };
    let set = log::SetContents { instance: file, handle: 1, ..log::SetContents::default() };
    let Ok(Outcome::Written(stat)) = script.apply_in(9, Op::SetContents(set)) else {
        panic!("it was not written")
    };
    assert!(stat.content_generation >= at);
    let grant = log::Grant { instance: file, handle: 1, acquire: 1, ..log::Grant::default() };
    let Ok(Outcome::Granted { token: later, generation }) = script.apply_in(9, Op::Grant(grant)) else {
        panic!("its holder is gone")
    };
    assert!(later > token && generation.0 >= at);
    let open = log::Open {
        parent: root,
        name: "n".into(),
        handle: 3,
        must_create: true,
        node: Some(numbered()),
        ..log::Open::default()
    };
    script.apply_in(9, Op::Open(open)).unwrap();
    let names = script.state.tree().root().unwrap().children().unwrap();
    let last = names.keys().filter_map(|name| name.as_str().strip_prefix('n')?.parse::<u64>().ok()).max();
    assert!(last > Some(at), "{last:?}");
    // A snapshot knows of it, too.
    let again = State::restore(script.state.snapshot().collect::<Vec<_>>()).unwrap();
    assert_eq!(again.digest(), script.state.digest());
    assert_eq!(again.stamp(), script.state.stamp());
}

#[test]
fn the_answers_that_a_session_keeps_fit_into_a_snapshot_however_long_the_names_in_them() {
    // Storage takes chunks of 16 MiB at most, and a session is in one.
    let mut script = Script::new();
    let create = wire::CreateNode {
        path: format!("/ls/test/{}", "n".repeat(245)),
        node: Some(NewNode { sequential: true, ..NewNode::default() }),
    };
    let change = wire::Change { change: Some(wire::change::Change::Create(create)) };
    let steps = wire::Multi { guards: Vec::new(), changes: vec![change; 128] };
    let mut refused = 0;
    for _ in 0..500 {
        script.slot += 1;
        let (session, number, op) =
            (script.session, script.slot, Op::Multi(log::Multi { steps: Some(steps.clone()) }));
        let command = log::Command { epoch: 1, session, number, op: Some(op), ..log::Command::default() };
        let applied = script.state.apply(Slot(script.slot), &command);
        refused += u32::from(matches!(applied.result, Err(Error::Overloaded { .. })));
    }
    let longest = script.state.snapshot().map(|chunk| chunk.len()).max().unwrap();
    assert!(longest <= 16 * 1024 * 1024, "{longest} bytes");
    assert!((300..400).contains(&refused), "{refused}");
}
