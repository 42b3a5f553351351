//! Scripts: sequencers are brought to a fence one after the other, and it admits or refuses them (P§2.4).

mod histories;
#[cfg(feature = "tower")]
mod layer;

use crate::{Fence, Refused};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use wombat_proto::{Error, Generation, Instance, LockMode, Path, Sequencer, Token};

/// A sequencer as a script writes it: `primary x 12 4.2` is of /ls/foo/primary, exclusive, token 12, instance 4,
/// lock generation 2. A path that begins with `/` is a whole one.
fn sequencer(text: &str) -> Sequencer {
    let [path, mode, token, tenure] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{text:?} is not PATH x|s TOKEN INSTANCE.GENERATION")
    };
    let (instance, generation) = tenure.split_once('.').unwrap();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/ls/foo/{path}") };
    Sequencer {
        path: Path::parse(&path).unwrap(),
        instance: Instance(instance.parse().unwrap()),
        mode: if mode == "x" { LockMode::Exclusive } else { LockMode::Shared },
        generation: Generation(generation.parse().unwrap()),
        token: Token(token.parse().unwrap()),
    }
}

/// Each line: a sequencer, `:`, and `admitted` or a part of what it is told.
#[track_caller]
fn check(fence: &Fence, script: &str) {
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        let (brought, expected) = line.split_once(':').unwrap();
        let told = match fence.check(&sequencer(brought)) {
            Ok(()) => "admitted".to_owned(),
            Err(refused) => refused.to_string(),
        };
        assert!(told.contains(expected.trim()), "{}: {told:?}", line.trim());
    }
}

fn primary() -> Fence {
    Fence::of_cell("foo").unwrap().lock("primary").unwrap()
}

fn shards() -> Fence {
    Fence::of_cell("foo").unwrap().locks_below("shards").unwrap()
}

#[test]
fn of_an_exclusive_lock_the_newest_holder_alone() {
    check(
        &primary(),
        "
        primary x 10 4.1: admitted
        primary x 10 4.1: admitted
        primary x 12 4.2: admitted
        primary x 10 4.1: its token is 10, and 12 was seen
        primary x 12 4.2: admitted
        ",
    );
}

#[test]
fn a_lock_that_was_deleted_and_made_anew_is_another() {
    check(
        &primary(),
        "
        primary x 30 4.7: admitted
        primary x 42 40.1: admitted
        primary x 30 4.7: 42 was seen
        ",
    );
}

#[test]
fn shares_of_one_tenure_live_together_and_end_together() {
    check(
        &primary(),
        "
        primary s 20 4.1: admitted
        primary s 10 4.1: admitted
        primary s 30 4.1: admitted
        primary s 10 4.1: admitted
        primary x 50 4.2: admitted
        primary s 10 4.1: stale
        primary s 30 4.1: stale
        primary s 60 4.3: admitted
        primary s 70 4.3: admitted
        primary x 50 4.2: stale
        primary s 30 4.1: stale
        primary s 60 4.3: admitted
        ",
    );
}

/// The tokens and the lock generations of a restored cell begin at a stamp of a later epoch: what was granted
/// since the backup is stale.
#[test]
fn a_restored_cell_is_newer_by_its_tokens_and_generations() {
    let restored = 1_u64 << 52;
    check(
        &primary(),
        &format!(
            "
            primary s 60 4.6: admitted
            primary x 90 4.9: admitted
            primary s {} 4.{restored}: admitted
            primary x 90 4.9: stale
            primary s 60 4.6: stale
            ",
            restored + 5
        ),
    );
}

#[test]
fn what_no_cell_has_granted_is_stale() {
    check(
        &primary(),
        "
        primary x 10 4.2: admitted
        primary x 10 4.1: stale
        primary s 10 4.2: stale
        primary x 9 4.2: stale
        ",
    );
}

/// A client could make a lock of its own and bring that.
#[test]
fn the_service_says_which_lock_guards_it() {
    let fence = primary().locks_below("shards").unwrap();
    check(
        &fence,
        "
        primary x 10 4.1: admitted
        mine x 99 5.1: the lock /ls/foo/mine guards nothing here
        mine x 99 5.1: bring the sequencer of /ls/foo/primary, or a lock below /ls/foo/shards
        /ls/bar/primary x 99 5.1: guards nothing here
        /ls/foo x 99 5.1: guards nothing here
        primary/mine x 99 5.1: guards nothing here
        shards x 99 5.1: guards nothing here
        shards-of-mine/1 x 99 5.1: guards nothing here
        mine/shards/1 x 99 5.1: guards nothing here
        shards/1 x 20 6.1: admitted
        shards/1/a x 21 7.1: admitted
        primary x 10 4.1: admitted
        ",
    );
    let seventh = sequencer("shards/7 x 30 8.1");
    assert!(matches!(fence.check_of("shards/8", &seventh), Err(Refused::OtherLock { .. })));
    fence.check_of("shards/7", &seventh).unwrap();
    assert!(Fence::of_cell("foo").unwrap().locks_below("").is_err(), "below the root is everybody's lock");
}

#[test]
fn what_is_forgotten_is_refused_and_never_admitted_by_mistake() {
    let fence = shards().lock("primary").unwrap().remembering(2);
    check(
        &fence,
        "
        primary x 1 2.1: admitted
        shards/a x 10 3.1: admitted
        shards/a x 15 3.2: admitted
        shards/b x 20 4.1: admitted
        shards/c x 30 5.1: admitted
        shards/a x 10 3.1: what was granted before 15 is forgotten
        shards/b x 20 4.1: admitted
        shards/d x 14 6.1: forgotten
        shards/a x 40 3.3: admitted
        shards/a x 15 3.2: stale
        primary x 1 2.1: admitted
        ",
    );
    // A crowd: it stays as small as it was told to.
    for n in 0..1000 {
        fence.check(&sequencer(&format!("shards/{n} x {} 3.1", 100 + n))).unwrap();
    }
    let newest = fence.newest();
    assert!(newest.len() <= 3, "{} are remembered", newest.len());
    assert!(newest.contains(&sequencer("primary x 1 2.1")), "a lock that was named is never forgotten");
    assert!(fence.floor() >= Token(1097), "{:?}", fence.floor());
}

#[test]
fn a_fence_in_memory_forgets_when_it_restarts_and_one_that_keeps_does_not() {
    let (old, new) = ("shards/a x 10 3.1", "shards/a x 20 3.2");
    let kept = Arc::new(Mutex::new(Vec::new()));
    let disk = Arc::clone(&kept);
    let fence = shards().keeping(move |sequencer| {
        disk.lock().unwrap().push(sequencer.to_string());
        Ok(())
    });
    check(&fence, &format!("{old}: admitted \n {new}: admitted \n {new}: admitted"));
    let kept: Vec<Sequencer> = kept.lock().unwrap().iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(kept, [sequencer(old), sequencer(new)], "each grant is kept, once");

    check(&shards(), &format!("{old}: admitted"));
    let newest_first = kept.iter().rev().cloned();
    check(&shards().restore(newest_first), &format!("{old}: 20 was seen \n {new}: admitted"));
    check(&shards().restore(fence.newest()), &format!("{old}: 20 was seen \n {new}: admitted"));
    check(&shards().refuse_before(Token(20)), &format!("{old}: forgotten \n {new}: admitted"));
    // More than it may remember.
    let crowd = (0..9).map(|n| sequencer(&format!("shards/{n} x {} 3.1", 30 + n)));
    let small = shards().remembering(1).restore(kept.into_iter().chain(crowd));
    check(&small, &format!("{old}: forgotten \n {new}: forgotten \n shards/8 x 38 3.1: admitted"));
}

#[test]
fn nothing_is_admitted_before_it_is_kept() {
    let fails = Arc::new(AtomicU64::new(1));
    let (failing, this) = (Arc::clone(&fails), Arc::new(OnceLock::<Weak<Fence>>::new()));
    let itself = Arc::clone(&this);
    let fence = Arc::new(primary().restore([sequencer("primary x 5 4.1")]).keeping(move |new| {
        let fence = itself.get().and_then(Weak::upgrade).unwrap();
        assert!(!fence.newest().contains(new), "it is remembered, and could be admitted, before it is kept");
        check(&fence, "primary x 5 4.1: admitted"); // Nobody waits for the disk who needs not.
        match failing.fetch_sub(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::Error::other("the disk is full")),
        }
    }));
    this.set(Arc::downgrade(&fence)).unwrap();
    check(
        &fence,
        "primary x 10 4.2: could not be made durable: the disk is full \n primary x 5 4.1: admitted",
    );
    check(&fence, "primary x 10 4.2: admitted \n primary x 5 4.1: 10 was seen");
}

/// Two that were both newer than all before when they came, and take their turns in the wrong order.
#[test]
fn whoever_is_overtaken_while_it_waits_for_its_turn_is_refused() {
    let fence = primary();
    fence.admit_newer(&sequencer("primary x 10 4.2")).unwrap();
    let overtaken = fence.admit_newer(&sequencer("primary x 9 4.1"));
    assert!(matches!(overtaken, Err(Refused::Stale { .. })), "{overtaken:?}");
    // Of two shares both pass, and the greater token stays.
    fence.admit_newer(&sequencer("primary s 20 4.3")).unwrap();
    fence.admit_newer(&sequencer("primary s 15 4.3")).unwrap();
    assert_eq!(fence.newest(), [sequencer("primary s 20 4.3")]);
}

#[test]
fn threads_agree_on_what_is_stale() {
    let fence = primary();
    let (next, newest) = (AtomicU64::new(1), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    let token = next.fetch_add(1, Ordering::SeqCst);
                    let seen = newest.load(Ordering::SeqCst);
                    if fence.check(&sequencer(&format!("primary x {token} 4.{token}"))).is_ok() {
                        assert!(token > seen, "{token} was admitted after {seen}");
                        newest.fetch_max(token, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(fence.newest()[0].token, Token(newest.into_inner()));
}

#[test]
fn texts_are_sequencers_or_damaged() {
    let fence = primary();
    let good = sequencer("primary x 10 4.1");
    assert_eq!(fence.check_text(&good.to_string()).unwrap(), good);
    let damaged = good.to_string().replace(".10.", ".99.");
    assert!(matches!(fence.check_text(&damaged), Err(Refused::Damaged(_))));
    assert!(matches!(fence.check_text(""), Err(Refused::Damaged(_))));
    check(&fence, "primary x 11 4.2: admitted");
}

#[tokio::test]
async fn the_cell_knows_better_and_is_asked_before_anything_is_remembered() {
    let fence = primary();
    let huge = sequencer("primary x 999 4.9");
    let no = fence.check_and_ask(&huge, async { Err(Error::SequencerStale) }).await;
    assert!(matches!(no, Err(Refused::NotHeld { .. })), "{no:?}");
    let silent = fence.check_and_ask(&huge, async { Err(Error::NoQuorum) }).await;
    assert!(matches!(silent, Err(Refused::CellSilent(Error::NoQuorum))), "{silent:?}");
    check(&fence, "primary x 10 4.1: admitted");
    fence.check_and_ask(&sequencer("primary x 20 4.2"), async { Ok(()) }).await.unwrap();
    let unasked = async { panic!("the cell is asked about what is stale already") };
    let stale = fence.check_and_ask(&sequencer("primary x 10 4.1"), unasked).await;
    assert!(matches!(stale, Err(Refused::Stale { .. })), "{stale:?}");
}
