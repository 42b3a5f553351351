//! The recipes of groups on real servers, barriers, members and leaders: what each is for, and its hard case.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{connect, does_not_end, open, run, serve, signal, wait_for_waiters};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use wombat_client::{
    Barrier, Cell, Election, Error, Gate, LeaderChanges, Lost, Membership, MembershipChanges, OpenOptions,
};

/// What the client process that a test starts does, and in which cell.
const TASK: &str = "RECIPES_TASK";
/// See [`TASK`].
const CELL: &str = "RECIPES_CELL";

/// A client as a process of its own, which a test starts and kills.
#[test]
#[ignore = "the other tests start it"]
fn client_process() {
    let (Ok(task), Ok(cell)) = (std::env::var(TASK), std::env::var(CELL)) else { return };
    run(async {
        let cell = Cell::connect(cell.split(',')).await.unwrap();
        match task.as_str() {
            "member" => {
                let _member = Membership::new(&cell, "/ls/local/group").join("dies", "1").await.unwrap();
                std::future::pending().await
            }
            "leader" => {
                let _lead = Election::new(&cell, "/ls/local/primary").campaign("dies").await.unwrap();
                std::future::pending().await
            }
            "frozen" => {
                let lead = Election::new(&cell, "/ls/local/primary").campaign("frozen").await.unwrap();
                let leads = lead.guard().run(Duration::from_millis(100), std::future::pending::<()>());
                assert_eq!(leads.await, Err(Lost));
                lead.lost().await;
                assert!(lead.proclaim("late").await.is_err());
            }
            "party" => drop(Barrier::new(&cell, "/ls/local/barrier", usize::MAX).enter().await),
            "inside" => {
                let _inside = Barrier::new(&cell, "/ls/local/barrier", 3).enter().await.unwrap();
                std::future::pending().await
            }
            _ => panic!("{task}"),
        }
    });
}

/// A process that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(task: &str, endpoints: &str) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "client_process", "--ignored", "--nocapture"]);
        command.env(TASK, task).env(CELL, endpoints);
        Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _it_is_gone = self.0.kill();
        let _it_is_gone = self.0.wait();
    }
}
/// How many parties are at the barrier.
async fn parties(cell: &Cell) -> usize {
    match cell.open("/ls/local/barrier", OpenOptions::new()).await {
        Ok(directory) => directory.list().await.unwrap().iter().filter(|entry| entry.stat.ephemeral).count(),
        Err(Error::NotFound { .. }) => 0,
        Err(error) => panic!("{error}"),
    }
}

async fn wait_for_parties(cell: &Cell, count: usize) {
    while parties(cell).await != count {}
}

#[test]
fn a_barrier_lets_all_begin_together_and_go_on_together_round_after_round() {
    let (_dir, serve) = serve("12s");
    run(async {
        let came: Arc<[AtomicUsize; 10]> = Arc::default();
        let finished: Arc<[AtomicUsize; 10]> = Arc::default();
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let barrier = Barrier::new(&connect(&serve).await, "/ls/local/barrier", 3);
            let (came, finished) = (Arc::clone(&came), Arc::clone(&finished));
            tasks.push(tokio::spawn(async move {
                for round in 0..10 {
                    came[round].fetch_add(1, Ordering::SeqCst);
                    let inside = barrier.enter().await.unwrap();
                    assert_eq!(came[round].load(Ordering::SeqCst), 3, "all are there");
                    finished[round].fetch_add(1, Ordering::SeqCst);
                    inside.leave().await.unwrap();
                    assert_eq!(finished[round].load(Ordering::SeqCst), 3, "all have finished");
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn who_leaves_a_barrier_waits_for_those_inside() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let barrier = Barrier::new(&cell, "/ls/local/barrier", 2);
        let (one, two) = tokio::join!(barrier.enter(), barrier.enter());
        let mut leaves = Box::pin(one.unwrap().leave());
        does_not_end(&cell, &mut leaves).await;
        assert_eq!(parties(&cell).await, 1);
        drop(two);
        leaves.await.unwrap();
    });
}

#[test]
fn who_looks_late_passes_a_barrier_though_the_others_have_left() {
    let (_dir, serve) = serve("12s");
    run(async {
        let cell = connect(&serve).await;
        let barrier = Barrier::new(&cell, "/ls/local/barrier", 3);
        let mut late = Box::pin(barrier.enter());
        tokio::select! {
            biased;
            _ = &mut late => panic!("alone"),
            () = wait_for_parties(&cell, 1) => {}
        }
        let (one, two) = tokio::join!(barrier.enter(), barrier.enter());
        // One who comes for the next time, while the first two wait for the late one to leave.
        let mut next = Box::pin(barrier.enter());
        let late = async {
            wait_for_parties(&cell, 1).await;
            tokio::select! {
                biased;
                _ = &mut next => panic!("it was not there when the barrier opened"),
                () = wait_for_parties(&cell, 2) => {}
            }
            // It is nobody whom these wait for.
            late.await.unwrap().leave().await.unwrap();
        };
        let (one, two, ()) = tokio::join!(one.unwrap().leave(), two.unwrap().leave(), late);
        one.and(two).unwrap();
        let (next, ..) = tokio::join!(next, barrier.enter(), barrier.enter());
        next.unwrap();
    });
}

#[test]
fn a_party_that_dies_is_not_counted_before_and_not_waited_for_after() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let barrier = Barrier::new(&cell, "/ls/local/barrier", 3);
        let dies = Process::start("party", &serve.address);
        wait_for_parties(&cell, 1).await;
        let mut first = Box::pin(barrier.enter());
        let with_first = async {
            wait_for_parties(&cell, 2).await;
            dies.kill();
            wait_for_parties(&cell, 1).await;
        };
        tokio::select! {
            biased;
            _ = &mut first => panic!("two are not three"),
            () = with_first => {}
        }
        let dies = Process::start("inside", &serve.address);
        let (first, second) = tokio::join!(first, barrier.enter());
        dies.kill();
        let (first, second) = tokio::join!(first.unwrap().leave(), second.unwrap().leave());
        first.and(second).unwrap();
    });
}

#[test]
fn a_gate_holds_everyone_until_it_is_opened() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let gate = Gate::new(&cell, "/ls/local/gate");
        gate.pass().await.unwrap();
        gate.shut().await.unwrap();
        gate.shut().await.unwrap();
        let elsewhere = Gate::new(&connect(&serve).await, "/ls/local/gate");
        let (here, there) = (gate.clone(), elsewhere.clone());
        let waits =
            [tokio::spawn(async move { here.pass().await }), tokio::spawn(async move { there.pass().await })];
        does_not_end(&cell, gate.pass()).await;
        elsewhere.open().await.unwrap();
        elsewhere.open().await.unwrap();
        for wait in waits {
            wait.await.unwrap().unwrap();
        }
        // Who waited for an ephemeral file would keep it there.
        let _member = Membership::new(&cell, "/ls/local/group").join("anna", "").await.unwrap();
        let never = Gate::new(&cell, "/ls/local/group/anna");
        assert!(matches!(never.pass().await, Err(Error::InvalidArgument { .. })));
    });
}

/// Follows the changes until these are the members. Each must be what the one before, and what it says is new,
/// come to.
async fn until(changes: &mut MembershipChanges, members: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let wanted: BTreeMap<String, bytes::Bytes> =
        members.iter().map(|(name, value)| (name.to_string(), value.to_string().into())).collect();
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    loop {
        let change = changes.next().await.unwrap().unwrap();
        assert!(change.joined.iter().chain(&change.updated).all(|name| change.members.contains_key(name)));
        joined.extend(change.joined);
        left.extend(change.left);
        if change.members == wanted {
            return (joined, left);
        }
    }
}

#[test]
fn members_come_say_something_else_and_go() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let (group, theirs) = (Membership::new(&cell, "/ls/local/g"), Membership::new(&other, "/ls/local/g"));
        let mut changes = group.changes().await.unwrap();
        until(&mut changes, &[]).await;
        let anna = theirs.join("anna", "1").await.unwrap();
        assert_eq!(anna.name(), "anna");
        until(&mut changes, &[("anna", "1")]).await;
        assert_eq!(group.join("anna", "9").await.err(), Some(Error::AlreadyExists));
        anna.set("2").await.unwrap();
        let change = changes.next().await.unwrap().unwrap();
        assert_eq!((change.joined.len(), change.left.len(), change.updated), (0, 0, vec!["anna".into()]));
        assert_eq!(change.members["anna"], "2");
        assert_eq!(group.members().await.unwrap(), change.members);
        // She leaves and comes again while nobody looks.
        anna.leave().await.unwrap();
        let _anna = theirs.join("anna", "2").await.unwrap();
        let bert = theirs.join("bert", "").await.unwrap();
        let (joined, left) = until(&mut changes, &[("anna", "2"), ("bert", "")]).await;
        assert_eq!((joined, left), (vec!["anna".into(), "bert".into()], vec!["anna".into()]));
        // More than a stream keeps.
        for number in 0..300 {
            bert.set(number.to_string()).await.unwrap();
        }
        let (joined, left) = until(&mut changes, &[("anna", "2"), ("bert", "299")]).await;
        assert_eq!(joined.len() + left.len(), 0);
        other.close().await.unwrap();
        until(&mut changes, &[]).await;
        // And in a directory that is another one.
        cell.open("/ls/local/g", OpenOptions::new().write()).await.unwrap().delete().await.unwrap();
        let _carl = group.join("carl", "").await.unwrap();
        until(&mut changes, &[("carl", "")]).await;
        cell.close().await.unwrap();
        assert_eq!(changes.next().await.unwrap(), None);
    });
}

#[test]
fn a_member_that_was_killed_is_gone_when_its_lease_is_over() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let mut changes = Membership::new(&cell, "/ls/local/group").changes().await.unwrap();
        let dies = Process::start("member", &serve.address);
        until(&mut changes, &[("dies", "1")]).await;
        dies.kill();
        let (_, left) = until(&mut changes, &[]).await;
        assert_eq!(left, ["dies"]);
    });
}

#[test]
fn no_change_of_members_or_leaders_is_missed_when_masters_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut three = Five::start(dir.path(), 3);
    run(async {
        let (cell, other) = (Cell::connect(three.addresses()), Cell::connect(three.addresses()));
        let (cell, other) = (cell.await.unwrap(), other.await.unwrap());
        let group = Membership::new(&other, "/ls/local/g");
        let mut changes = Membership::new(&cell, "/ls/local/g").changes().await.unwrap();
        let mut leaders = Election::new(&cell, "/ls/local/e").observe().await.unwrap();
        let mut here = Vec::new();
        for round in ["first", "second", "third"] {
            let leadership = Election::new(&other, "/ls/local/e").campaign(round).await.unwrap();
            assert_eq!(next_leader(&mut leaders).await, round);
            let master = three.master();
            three.kill(master);
            // Nobody looks while these happen, and the events of the dead master are gone with it.
            here.push((round, group.join(round, round).await.unwrap()));
            if here.len() > 1 {
                here.remove(0).1.leave().await.unwrap();
            }
            leadership.resign().await.unwrap();
            until(&mut changes, &[(round, round)]).await;
            until_nobody(&mut leaders).await;
            three.restart(master);
            three.settled();
        }
    });
}

/// The value of the next leader.
async fn next_leader(leaders: &mut LeaderChanges) -> String {
    loop {
        if let Some(leader) = leaders.next().await.unwrap().unwrap() {
            return String::from_utf8(leader.value.to_vec()).unwrap();
        }
    }
}

async fn until_nobody(leaders: &mut LeaderChanges) {
    while leaders.next().await.unwrap().unwrap().is_some() {}
}

#[test]
fn every_change_of_the_leader_is_told_also_when_it_dies_and_nobody_follows() {
    let (_dir, serve) = serve("2s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let election = Election::new(&cell, "/ls/local/primary");
        assert_eq!(election.leader().await.unwrap(), None);
        let mut leaders = election.observe().await.unwrap();
        assert_eq!(leaders.next().await.unwrap(), Some(None));
        let leadership = election.campaign("anna").await.unwrap();
        let anna = leaders.next().await.unwrap().unwrap().unwrap();
        assert_eq!((&anna.value[..], anna.token), (&b"anna"[..], leadership.guard().token()));
        leadership.proclaim("anna, too").await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "anna, too");
        assert!(matches!(leadership.proclaim("").await, Err(Error::InvalidArgument { .. })));
        let next = Election::new(&other, "/ls/local/primary");
        let next = tokio::spawn(async move { next.campaign("bert").await.unwrap() });
        wait_for_waiters(&cell, "/ls/local/primary", 1).await;
        leadership.resign().await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "bert");
        assert!(next.await.unwrap().guard().token() > anna.token);
        // It was dropped, not resigned: the value ends with the lead all the same.
        until_nobody(&mut leaders).await;
        assert_eq!(open(&cell, "/ls/local/primary").await.contents().await.unwrap().0, "");
        let dies = Process::start("leader", &serve.address);
        assert_eq!(next_leader(&mut leaders).await, "dies");
        dies.kill();
        assert_eq!(leaders.next().await.unwrap(), Some(None));
        assert_eq!(open(&cell, "/ls/local/primary").await.contents().await.unwrap().0, "");
        // In a file of the same name.
        open(&cell, "/ls/local/primary").await.delete().await.unwrap();
        let _leadership = election.campaign("carl").await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "carl");
    });
}

#[test]
fn a_campaign_that_is_given_up_leaves_nothing_behind() {
    let (_dir, serve) = serve("12s");
    run(async {
        let (cell, other) = (connect(&serve).await, connect(&serve).await);
        let leads = Election::new(&cell, "/ls/local/e").campaign("anna").await.unwrap();
        let election = Election::new(&other, "/ls/local/e");
        tokio::select! {
            biased;
            won = election.campaign("bert") => panic!("{won:?}"),
            () = wait_for_waiters(&cell, "/ls/local/e", 1) => {}
        }
        wait_for_waiters(&cell, "/ls/local/e", 0).await;
        leads.resign().await.unwrap();
        assert_eq!(cell.locks(None).await.unwrap(), []);
        assert_eq!(election.leader().await.unwrap(), None);
    });
}

#[test]
fn a_leader_that_was_frozen_stops_when_it_wakes() {
    let (_dir, serve) = serve("2s");
    run(async {
        let cell = connect(&serve).await;
        let election = Election::new(&cell, "/ls/local/primary");
        let mut leaders = election.observe().await.unwrap();
        let mut frozen = Process::start("frozen", &serve.address);
        assert_eq!(next_leader(&mut leaders).await, "frozen");
        signal(frozen.0.id(), "STOP");
        let _leadership = election.campaign("bert").await.unwrap();
        assert_eq!(next_leader(&mut leaders).await, "bert");
        signal(frozen.0.id(), "CONT");
        assert!(frozen.0.wait().unwrap().success());
        assert_eq!(election.leader().await.unwrap().unwrap().value, "bert");
    });
}

#[test]
fn a_leader_knows_that_its_lead_is_not_sure_while_the_cell_is_silent() {
    let (_dir, serve) = serve("1s");
    run(async {
        let cell = connect(&serve).await;
        let leadership = Election::new(&cell, "/ls/local/e").campaign("anna").await.unwrap();
        signal(serve.pid(), "STOP");
        leadership.lost().await;
        assert!(!leadership.guard().is_safe());
        signal(serve.pid(), "CONT");
    });
}
