//! The structure of the project: which crate uses which (docs/ARCHITECTURE.md), cycles of modules, sizes of files,
//! and the documents.

#[path = "arrows/documents.rs"]
mod documents;
#[path = "arrows/modules.rs"]
mod modules;

use documents::Document;
use modules::Modules;
use std::collections::BTreeMap;
use std::path::Path;

/// Each crate and what it may use of the others. `sim` and dev-dependencies stand outside the house.
const MAY_USE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("paxos", &["proto"]),
    ("state", &["proto"]),
    ("session", &["proto"]),
    ("storage", &["proto"]),
    ("fence", &["proto"]),
    ("replica", &["proto", "paxos", "state"]),
    ("server", &["proto", "replica", "storage"]),
    ("client", &["proto", "session"]),
    ("cli", &["proto", "server", "client"]),
    ("sim", &["proto", "paxos", "state", "replica", "session", "storage"]),
];

/// Crates whose modules import each other without a cycle.
const ACYCLIC: &[&str] =
    &["cli", "client", "fence", "paxos", "proto", "replica", "server", "session", "sim", "state", "storage"];

/// The cores: no clock, thread, socket or file. The compiler sees to it.
const SANS_IO: &[&str] = &["proto", "paxos", "state", "session", "replica"];

fn crates() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates")
}

fn manifest(name: &str) -> toml::Table {
    let path = crates().join(name).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The crates of the house that a manifest's table of dependencies names.
fn uses(manifest: &toml::Table) -> Vec<String> {
    let table = manifest.get("dependencies").and_then(|table| table.as_table()).cloned().unwrap_or_default();
    table.keys().filter_map(|name| name.strip_prefix("wombat-")).map(str::to_owned).collect()
}

#[test]
fn arrows_point_only_down() {
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    for entry in std::fs::read_dir(crates()).expect("the folder of crates") {
        let name = entry.expect("an entry").file_name().into_string().expect("a plain name");
        let may = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("the crate {name} has no place in the house"));
        for used in uses(&manifest(&name)) {
            assert!(may.contains(&used.as_str()), "{name} uses {used}, which its floor does not allow");
        }
    }
}

#[test]
fn the_cores_have_no_std_and_no_clock() {
    for name in SANS_IO {
        let text = std::fs::read_to_string(crates().join(name).join("src/lib.rs")).expect("a crate's root");
        assert!(text.contains("#![no_std]"), "the core {name} is not no_std");
        let proto = manifest(name).get("dependencies").and_then(|d| d.get("wombat-proto").cloned());
        let clock = proto.is_some_and(|proto| proto.to_string().contains("clock"));
        assert!(!clock, "the core {name} asks for a clock");
    }
}

/// Crates that applications use: they compile none of the types of the log.
const WITHOUT_LOG: &[&str] = &["client", "fence", "session"];

#[test]
fn the_crates_of_applications_do_without_the_types_of_the_log() {
    for name in WITHOUT_LOG {
        let proto = manifest(name).get("dependencies").and_then(|d| d.get("wombat-proto").cloned());
        let proto = proto.unwrap_or_else(|| panic!("{name} uses no wombat-proto"));
        assert!(!proto.to_string().contains("\"log\""), "{name} asks for the feature log of wombat-proto");
    }
}

#[test]
fn modules_import_each_other_without_a_cycle() {
    let cycles: Vec<String> = ACYCLIC
        .iter()
        .filter_map(|name| {
            Some(format!("{name}: {}", Modules::read(&crates().join(name).join("src")).cycle()?))
        })
        .collect();
    assert!(cycles.is_empty(), "{}", cycles.join("\n"));
}

#[test]
fn tables_of_the_master_import_no_coordinator() {
    let src = crates().join("replica/src");
    let found = Modules::read(&src).leave("tables", &["request", "stage"]);
    assert!(found.is_empty(), "{}", found.join("\n"));
    // A table that names Paxos would join it with the log.
    for entry in std::fs::read_dir(src.join("tables")).expect("the folder of tables") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("source is text");
        assert!(!text.contains("wombat_paxos"), "{} names Paxos", path.display());
    }
}

#[test]
fn no_file_is_crowded() {
    let mut folders = vec![crates(), crates().join("../tests"), crates().join("../benches")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let lines = std::fs::read_to_string(&path).expect("source is text").lines().count();
                assert!(lines <= 600, "{} has {lines} lines: split it", path.display());
            }
        }
    }
}

/// The text of every test in a folder and below.
fn sources(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(
                &std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
            );
        }
    }
}

#[test]
fn the_scripts_that_the_paper_map_names_are_there() {
    let mut tests = String::new();
    for folder in ["replica/tests", "session/src", "client/tests", "fence/src", "../tests"] {
        sources(&crates().join(folder), &mut tests);
    }
    let map = std::fs::read_to_string(crates().join("../docs/PAPER-MAP.md")).unwrap_or_default();
    let (_, sentences) = map.split_once("sentence by sentence").unwrap_or_default();
    let named: Vec<&str> =
        sentences.split('`').skip(1).step_by(2).filter(|name| name.contains('_')).collect();
    assert!(named.len() > 30, "the map names {} scripts only", named.len());
    for name in named {
        assert!(tests.contains(&format!("fn {name}(")), "{name} is named in docs/PAPER-MAP.md, and nowhere");
    }
}

/// The documents for users and contributors: README and the others at the top, and `docs`.
fn documents() -> Vec<Document> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = Document::in_folder(top, false);
    documents.extend(Document::in_folder(&top.join("docs"), true));
    assert!(documents.len() > 30, "there are only {} documents", documents.len());
    documents
}

#[test]
fn links_between_documents_lead_to_files_and_headings() {
    let broken: Vec<String> = documents().iter().flat_map(Document::broken_links).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn source_files_that_documents_name_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<String> =
        documents().iter().flat_map(|document| document.missing_sources(top)).collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn documents_have_short_sentences_and_plain_words() {
    let mut documents = documents();
    // Several people add lines to it at the same time.
    documents.retain(|document| !document.path().ends_with("CHANGELOG.md"));
    let long = documents.iter().flat_map(Document::long_sentences);
    let found: Vec<String> = long.chain(documents.iter().flat_map(Document::banned_words)).collect();
    assert!(found.is_empty(), "mend these sentences:\n{}", found.join("\n"));
}

#[test]
fn book_contains_every_document() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let listed: Vec<_> =
        Document::read(&docs.join("SUMMARY.md")).links().iter().map(|link| docs.join(link)).collect();
    for document in Document::in_folder(&docs, true) {
        let is_listed = listed.iter().any(|path| path == document.path());
        let is_summary = document.path().ends_with("SUMMARY.md");
        assert!(is_listed || is_summary, "{} is not in docs/SUMMARY.md", document.path().display());
    }
}
