//! The main job on real processes: fifty of them count together under one lock, while the server and some of
//! the holders are killed with -9.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, signal, wait_for};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const WORKERS: usize = 50;
const ROUNDS: usize = 40;

/// A worker: each round it takes the lock, reads the count, adds one, writes it back. A round that failed, or
/// whose holder was killed, is tried again; the file says which rounds are done, so that none counts twice.
const WORKER: &str = r#"
worker=$1 rounds=$2 grants=$3
round=1
while [ "$round" -le "$rounds" ]; do
    wombat lock /ls/local/lock -- sh -c '
        state=$(wombat get /ls/local/count) || exit 1
        next=$(echo "$state" | awk -v w=$(($1 + 1)) -v r="$2" "{ if (\$w < r) { \$1 += 1; \$w = r } print }")
        [ "$next" = "$state" ] || printf %s "$next" | wombat put /ls/local/count - || exit 1
        echo "$WOMBAT_TOKEN $1 $2" >> "$3"
    ' worker "$worker" "$round" "$grants" && round=$((round + 1))
done
"#;

fn worker(serve: &Serve, number: usize, grants: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", WORKER, "worker", &number.to_string(), &ROUNDS.to_string()]).arg(grants);
    serve.environment(&mut command);
    command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The count, while the server can be asked.
fn count(serve: &Serve) -> Option<usize> {
    let output = serve.wombat(&["get", "/ls/local/count", "--connect-timeout", "1s"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next()?.parse().ok()
}

/// Kills the process that holds the lock with -9. The guardian sees to its children.
fn kill_the_holder(serve: &Serve) {
    let pid = wait_for("a holder", || {
        let output = serve.wombat(&["locks", "--json"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, client) = text.split_once(r#""client":""#)?;
        let (_, pid) = client.split_once(':')?;
        pid.split(' ').next()?.parse().ok()
    });
    signal(pid, "KILL");
}

#[test]
fn fifty_processes_count_to_two_thousand_though_servers_and_holders_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = Serve::start(&dir.path().join("data"), "4s");
    let zeros = vec!["0"; WORKERS + 1].join(" ");
    serve.ok(&["put", "/ls/local/count", &zeros]);
    let grants = dir.path().join("grants");
    let workers: Vec<Child> = (1..=WORKERS).map(|number| worker(&serve, number, &grants)).collect();

    for (kills, milestone) in [300, 700, 1100, 1500].into_iter().enumerate() {
        wait_for("the count to go on", || count(&serve).filter(|count| *count >= milestone));
        kill_the_holder(&serve);
        if kills % 2 == 1 {
            serve.kill();
            serve.restart();
        }
    }
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }

    let total = WORKERS * ROUNDS;
    assert_eq!(count(&serve), Some(total), "every round counted, and none twice");
    let state = serve.ok(&["get", "/ls/local/count"]);
    assert!(state.split(' ').skip(1).all(|done| done == ROUNDS.to_string()), "{state}");

    let log = std::fs::read_to_string(&grants).unwrap();
    let tokens: Vec<u64> = log.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "tokens strictly grow");
    // Whoever was killed between its write and its note did the round again without counting.
    let rounds: BTreeMap<&str, ()> = log.lines().map(|line| (line.split_once(' ').unwrap().1, ())).collect();
    assert_eq!(rounds.len(), total);
}
