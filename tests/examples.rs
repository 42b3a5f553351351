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
    dev.args(["dev", "--session-lease", lease, "--"]).args(command).stdin(Stdio::null());
    let output = dev.output().expect("it runs");
    assert!(output.status.success(), "{}", shown(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in says {
        assert!(text.contains(part), "{command:?} does not say {part:?}: {text}");
    }
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
fn cron() {
    check("12s", &[&example("cron")], &["mon leads", "tue leads", "wed leads", "run 9"]);
}

#[test]
fn config_watcher() {
    check("12s", &[&example("config_watcher")], &["generation 1: workers = 1", "workers = 4"]);
}

#[test]
fn contend() {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/contend.sh").display().to_string();
    check(
        "12s",
        &["sh", &script],
        &["anna holds the lock", "bert holds the lock", "tokens grew", "stale now"],
    );
}
