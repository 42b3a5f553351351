//! Real input: a tree of a few thousand real files goes in by a script with `put`, and comes out byte for byte
//! after a restart.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Serve, shown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most files that the test takes.
const FILES: usize = 2500;

/// All files below a directory.
fn files_below(top: &Path) -> Vec<PathBuf> {
    let mut folders = vec![top.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

/// A tree of real files: Rust's own documentation where it is installed, else the sources of the libraries
/// that this build has fetched.
fn real_tree() -> PathBuf {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap().stdout;
    let documentation = Path::new(String::from_utf8(sysroot).unwrap().trim()).join("share/doc/rust/html");
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"));
    [documentation, home.join("registry/src")]
        .into_iter()
        .find(|tree| files_below(tree).len() >= FILES)
        .expect("a tree of a few thousand real files")
}

#[test]
fn a_tree_of_real_files_goes_in_and_comes_out_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    // A sample of the tree: every so many files, so that all sorts are in it.
    let tree = real_tree();
    let all = files_below(&tree);
    let copy = dir.path().join("tree");
    let mut sample = Vec::new();
    for file in all.iter().step_by((all.len() / FILES).max(1)).take(FILES) {
        if file.metadata().unwrap().len() > 256 * 1024 {
            continue;
        }
        let name = file.strip_prefix(&tree).unwrap().to_owned();
        std::fs::create_dir_all(copy.join(&name).parent().unwrap()).unwrap();
        std::fs::copy(file, copy.join(&name)).unwrap();
        sample.push(name);
    }
    assert!(sample.len() > 2000);

    let mut serve = Serve::start(&dir.path().join("data"), "12s");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/import.sh");
    let mut import = Command::new("sh");
    import.arg(script).arg(&copy).arg("/ls/local/docs");
    serve.environment(&mut import);
    let output = import.output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));

    serve.kill();
    serve.restart();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cell = wombat_client::Cell::connect([serve.address.clone()]).await.unwrap();
        for name in &sample {
            let path = format!("/ls/local/docs/{}", name.display());
            let node = cell.open(&path, wombat_client::OpenOptions::new()).await.unwrap();
            let (contents, _) = node.contents().await.unwrap();
            assert!(contents == std::fs::read(copy.join(name)).unwrap(), "{path} came out changed");
        }
    });
    // And as a person would look at it.
    let first = sample[0].display().to_string();
    let read = serve.wombat(&["get", &format!("/ls/local/docs/{first}")]).output().unwrap().stdout;
    assert_eq!(read, std::fs::read(copy.join(&sample[0])).unwrap());
}
