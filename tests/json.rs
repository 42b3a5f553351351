//! `--json`: the commands of docs/JSON.md print what is documented there, field for field.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::five::Five;
use common::{WOMBAT, shown};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

/// A command of the document and what it prints.
struct Example {
    command: String,
    /// One value, or one a line.
    printed: Vec<Value>,
    /// The fields that can be null.
    nullable: BTreeSet<String>,
}

/// The examples of the document, in their order: a `sh` block, then a `json` or `jsonl` block. A line before them says
/// which fields can be null.
fn examples() -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/JSON.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut examples, mut nullable, mut command) = (Vec::new(), BTreeSet::new(), None);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut block = || lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>().join("\n");
        match line {
            "```sh" => command = Some(block()),
            "```json" | "```jsonl" => {
                let block = block();
                let printed = match line {
                    "```json" => vec![serde_json::from_str(&block).unwrap()],
                    _ => block.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
                };
                let command = command.take().expect("a command stands before its output");
                examples.push(Example { command, printed, nullable: std::mem::take(&mut nullable) });
            }
            _ => {
                if let Some(fields) = line.strip_prefix("Can be null: ") {
                    nullable = fields.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                }
            }
        }
    }
    assert!(command.is_none(), "a command without its output");
    examples
}

/// Whether a value has the fields and types of an example; otherwise where it does not.
fn compare(at: &str, actual: &Value, example: &Value, nullable: &BTreeSet<String>) -> Result<(), String> {
    let field = at.rsplit('.').next().unwrap_or_default().trim_end_matches("[]");
    match (actual, example) {
        (Value::Null, Value::Null) | (Value::Bool(_), Value::Bool(_)) => Ok(()),
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => Ok(()),
        (Value::Null, _) | (_, Value::Null) if nullable.contains(field) => Ok(()),
        (Value::Array(actual), Value::Array(examples)) => {
            let at = format!("{at}[]");
            actual.iter().filter(|_| !examples.is_empty()).try_for_each(|value| {
                let fits = |example: &Value| compare(&at, value, example, nullable);
                if examples.iter().any(|example| fits(example).is_ok()) { Ok(()) } else { fits(&examples[0]) }
            })
        }
        (Value::Object(actual), Value::Object(example)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            if names(actual) != names(example) {
                return Err(format!("{at} has {:?}, documented are {:?}", names(actual), names(example)));
            }
            actual.iter().try_for_each(|(name, value)| {
                compare(&format!("{at}.{name}"), value, &example[name], nullable)
            })
        }
        _ => Err(format!("{at} is {actual}, documented is {example}")),
    }
}

/// Runs a command of the document with the cell in its environment. Returns what it prints.
fn printed(command: &str, endpoints: &str, directory: &Path) -> Vec<Value> {
    let tool = Path::new(WOMBAT).parent().unwrap().display().to_string();
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(directory)
        .env("WOMBAT_ENDPOINTS", endpoints)
        .env("PATH", format!("{tool}:{}", std::env::var("PATH").unwrap()))
        .env_remove("WOMBAT_CELL")
        .env_remove("WOMBAT_SEQUENCER")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let values: Result<Vec<Value>, _> = values.collect();
    values.unwrap_or_else(|error| panic!("{command}: {error}: {}", shown(&output)))
}

#[test]
fn every_command_prints_what_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let mut three = Five::start(dir.path(), 3);
    let endpoints = three.addresses().join(",");
    let examples = examples();
    assert!(examples.len() > 25, "{} examples only", examples.len());
    for Example { command, printed: documented, nullable } in &examples {
        let printed = printed(command, &endpoints, dir.path());
        assert_eq!(printed.len(), documented.len(), "{command}: {printed:?}");
        for (actual, example) in printed.iter().zip(documented) {
            compare("", actual, example, nullable).unwrap_or_else(|error| panic!("{command}: {error}"));
            let empty = actual.as_array().is_some_and(Vec::is_empty);
            assert!(!empty, "{command}: an empty array shows nothing");
        }
    }
    // The same fields without a master, and what only the master knows is null.
    let status = examples.iter().find(|example| example.command == "wombat status --json").unwrap();
    let master = three.master();
    let others: Vec<usize> = (0..3).filter(|number| *number != master).collect();
    three.kill(master);
    three.kill(others[0]);
    let left = three.replicas[others[1]].address.clone();
    let status_now = common::wait_for("the lease of the master to end", || {
        let printed = printed("wombat status --json", &left, dir.path());
        printed.into_iter().find(|status| status["master"].is_null())
    });
    let documented = status.printed[0].as_object().unwrap();
    let actual = status_now.as_object().unwrap();
    assert_eq!(actual.keys().collect::<Vec<_>>(), documented.keys().collect::<Vec<_>>());
    let known = ["cell", "cell_id", "master_reached", "replicas"];
    for (name, value) in actual {
        assert_eq!(value.is_null(), !known.contains(&name.as_str()), "{name}: {value}");
    }
    let reached = status_now["replicas"].as_array().unwrap().iter().find(|one| one["reached"] == true);
    let example = &documented["replicas"][0];
    compare("replicas", reached.unwrap(), example, &status.nullable).unwrap();
}

#[test]
fn every_command_of_the_help_is_documented() {
    let output = Command::new(WOMBAT).arg("help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, commands) = help.split_once("Commands:").unwrap();
    let (commands, _) =
        commands.split_once("Everywhere:").or_else(|| commands.split_once("Options:")).unwrap();
    let names: Vec<&str> = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !name.starts_with('-') && !["help", "completions", "dev", "serve"].contains(name))
        .collect();
    assert!(names.len() > 12, "{names:?}");
    let text: String = examples().into_iter().map(|example| example.command + "\n").collect();
    for name in names {
        let documented = text.contains(&format!("wombat {name} ")) || name == "semaphore"; // As `lock`.
        assert!(documented, "docs/JSON.md has no example of `wombat {name}`");
    }
}
