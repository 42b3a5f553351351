//! Locks that are broken, with notice.

use super::*;

/// Answers the pending KeepAlive with what the cell wants back.
fn revoke(script: &mut Script, revocations: &[(u64, u64)]) {
    let revocations =
        revocations.iter().map(|(handle, token)| wire::Revocation { handle: *handle, token: *token });
    let kept = wire::KeptAlive {
        lease_ms: LEASE.as_millis() as u32,
        epoch: 1,
        first_event: 1,
        revocations: revocations.collect(),
        ..wire::KeptAlive::default()
    };
    script.receive(script.pending, Ok(Answer::KeptAlive(kept)));
}

/// What the KeepAlive that was just sent says of revocations: heard and obeyed.
fn said(script: &mut Script) -> (Vec<u64>, Vec<u64>) {
    match script.sent().pop() {
        Some(Call::KeepAlive(keep_alive)) => (keep_alive.revocations_heard, keep_alive.revocations_obeyed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lock_that_is_broken_is_given_up_after_a_notice() {
    let mut script = Script::up();
    revoke(&mut script, &[(7, 70)]);
    let revoked = script.effects.revoked.pop().unwrap();
    assert_eq!((revoked.handle.0, revoked.token.0), (7, 70));
    assert_eq!(said(&mut script), ([70].into(), [].into()), "it is heard at once");
    let notice = revoked.until.since(script.now);
    assert_eq!(notice, LEASE / 3);
    assert_eq!(script.session.next_deadline(), Some(revoked.until));
    script.pass(notice - Duration::from_millis(1));
    assert!(script.sent().is_empty(), "until then somebody may work under it");
    script.pass(Duration::from_millis(1));
    assert_eq!(said(&mut script), ([70].into(), [70].into()), "and obeyed without waiting for the next turn");
    // Told again it is not new; told no more it is forgotten.
    revoke(&mut script, &[(7, 70)]);
    assert!(script.effects.revoked.is_empty());
    assert_eq!(said(&mut script), ([70].into(), [70].into()));
    revoke(&mut script, &[]);
    assert_eq!(said(&mut script), ([].into(), [].into()));
}

#[test]
fn a_notice_that_ends_without_a_connection_is_told_with_the_next() {
    let mut script = Script::up();
    revoke(&mut script, &[(7, 70)]);
    script.requests();
    script.disconnected();
    script.pass(LEASE / 3);
    script.connects();
    script.greet();
    script.sent();
    script.open_session(1);
    assert_eq!(said(&mut script), ([70].into(), [70].into()));
}
