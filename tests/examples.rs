//! Every example runs, on a cell of its own, and says what it is there to say.

mod common;

use common::{WOMBAT, shown};
use std::path::Path;
use std::process::{Command, Stdio};

/// An example, as `cargo test` has built it beside the tool; `cargo test --test examples` alone does not.
fn example(name: &str) -> String {
    let path = Path::new(WOMBAT).parent().expect("a folder").join("examples").join(name);
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "wombat", "--example", name]);
        assert!(build.status().expect("cargo runs").success());
    }
    path.display().to_string()
}

#[track_caller]
fn check(lease: &str, command: &[&str], says: &[&str]) {
    let mut dev = Command::new(WOMBAT);
    dev.args(["dev", "--session-lease", lease, "--"]).args(command);
    check_says(&mut dev, says);
}

/// Runs a command, which says all that; returns what it says.
#[track_caller]
fn check_says(command: &mut Command, says: &[&str]) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{}", shown(&output));
    let text = String::from_utf8(output.stdout).expect("it speaks UTF-8");
    // A sentence that is wrapped says the same.
    let in_one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in says {
        assert!(in_one_line.contains(part), "{command:?} does not say {part:?}: {text}");
    }
    text
}

#[test]
fn primary() {
    check(
        "1s",
        &[&example("primary")],
        &["alpha leads", "beta leads", "is its lock safe? false", "is stale"],
    );
}

#[test]
fn zombie() {
    let says = [
        "the master, is killed",
        "still, session",
        "its lock-delay",
        "is frozen",
        "refused: token",
        "is its lock safe? no",
        "the session has expired",
        "the zombie has done no harm",
        "4 replicas of 5",
    ];
    // It brings a cell of its own.
    let text = check_says(&mut Command::new(example("zombie")), &says);
    let wide = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "it fits into 80 columns");
    assert!(!text.contains('\x1b'), "colours are for terminals");
}

#[test]
fn seats() {
    let says = ["is frozen, about to write", "wakes up, and writes as it was about to: refused token"];
    let text = check_says(&mut Command::new(example("seats")), &says);
    assert!(text.contains("zombies refused: 2 of 2; seats sold twice: 0 of 8"), "{text}");
}

/// Without the guard the same story sells seats twice, and fails: so the guard is what saves the other.
#[test]
fn seats_unguarded() {
    let output = Command::new(example("seats")).arg("--unguarded").stdin(Stdio::null()).output();
    let output = output.expect("it runs");
    assert!(!output.status.success(), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("SOLD TWICE") && text.contains("zombies refused: 0 of 2"), "{}", shown(&output));
}

#[test]
fn cron() {
    check("12s", &[&example("cron")], &["mon leads", "tue leads", "wed leads", "run 9"]);
}

#[test]
fn config_watcher() {
    check("12s", &[&example("config_watcher")], &["generation 1: workers = 1", "workers = 4"]);
}

#[test]
fn contend() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/contend.sh").display().to_string();
    check(
        "12s",
        &["sh", &script],
        &["anna holds the lock", "bert holds the lock", "tokens grew", "stale now"],
    );
}
