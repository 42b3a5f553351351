//! What the tool says when it is refused: the message names what is wrong, and where.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, serve};

/// The command fails with that code and says all that.
#[track_caller]
fn check(serve: &Serve, code: i32, arguments: &[&str], says: &[&str]) {
    let said = serve.fails(code, arguments);
    for part in says {
        assert!(said.contains(part), "wombat {arguments:?} does not say {part:?}: {said}");
    }
    assert!(!said.contains("P§"), "{said}");
}

#[test]
fn refused_multi_names_the_step_and_its_path() {
    let (_dir, serve) = serve("12s");
    serve.ok(&["put", "/ls/local/a", "1"]);
    let refused: [(i32, &[&str], &[&str]); 9] = [
        (
            3,
            &["exists /ls/local/a", "exists /ls/local/b"],
            &["step 2, exists /ls/local/b: ", "does not exist"],
        ),
        (4, &["absent /ls/local/a"], &["step 1, absent /ls/local/a: ", "exists already"]),
        (
            4,
            &["set /ls/local/a 2", "generation /ls/local/a 7"],
            &["step 2, generation /ls/local/a: ", "generation 1", "hint: "],
        ),
        // Conditions come first, wherever they stand.
        (
            4,
            &["set /ls/local/a 2", "exists /ls/local/a", "create /ls/local/a x"],
            &["step 3, create /ls/local/a: ", "exists already"],
        ),
        (3, &["set /ls/local/b 2"], &["step 1, set /ls/local/b: ", "does not exist"]),
        (4, &["exists /ls/local/a", "set /ls/local 2"], &["step 2, set /ls/local: ", "directory"]),
        (2, &["exists /ls/local/a", "set relative 2"], &["step 2, set relative: "]),
        (2, &["exists /ls/local/a", "set /ls/other/f 2"], &["step 2, set /ls/other/f: "]),
        (2, &["exists /ls/local/a", "remove /ls/local/a"], &["step 2, remove /ls/local/a: "]),
    ];
    for (code, steps, says) in refused {
        check(&serve, code, &[&["multi"], steps].concat(), says);
    }
    let said = serve.fails(4, &["multi", "absent /ls/local/a", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(error["error"]["name"], "AlreadyExists");
    assert_eq!(serve.ok(&["get", "/ls/local/a"]), "1", "nothing was done");
}
