//! `wombat multi`: several changes as one.

use crate::exit::Failure;
use crate::output;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use std::io::Read;
use wombat_client::{Cell, Error, Generation, Multi as Changes, limits};

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat multi 'generation /ls/local/a 3' 'set /ls/local/a new' 'create /ls/local/log/entry text'
  wombat multi 'absent /ls/local/d' 'mkdir /ls/local/d' 'create /ls/local/d/f contents'
  wombat multi - < steps.txt                       a step a line

Conditions: exists PATH, absent PATH, generation PATH G.
Changes: create PATH [VALUE], sequential PREFIX [VALUE], mkdir PATH, set PATH [VALUE], delete PATH.
All conditions are checked first; then all changes are made as one, or none of them. A value is
the rest of its step, a path has no blanks. Prints the paths that `sequential` made.")]
pub(crate) struct Multi {
    /// Conditions and changes, or `-`: those that come in on standard input
    #[arg(required = true, value_name = "STEP")]
    pub(crate) steps: Vec<String>,
}

pub(crate) async fn run(cell: &Cell, args: &Multi, json: bool) -> Result<(), Failure> {
    let steps = &args.steps;
    let mut multi = Changes::new();
    for (number, step) in (1..).zip(steps) {
        multi = add(cell, multi, step).map_err(|failure| failure.about(&shown(number, step)))?;
    }
    let changed = cell.multi(multi).await.map_err(|error| match &error {
        Error::Step { step, error } => match in_order(steps, *step) {
            Some((number, step)) => Failure::from(*error.clone()).about(&shown(number, step)),
            None => Failure::from(*error.clone()),
        },
        _ => Failure::from(error),
    })?;
    // Only `sequential` makes a name that was not given.
    let prefixes = steps.iter().filter_map(|step| step.trim_start().strip_prefix("sequential "));
    let directories = prefixes.map(|rest| rest.trim_start().split(' ').next().unwrap_or_default());
    let names = changed.iter().filter_map(|change| change.name.as_deref());
    let paths = directories.zip(names).map(|(prefix, name)| {
        let directory = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
        cell.resolve(&format!("{directory}/{name}"))
    });
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    if json {
        let object = |change: &wombat_client::Changed| json!({ "stat": change.stat.as_ref().map(output::stat), "name": change.name });
        output::line(Value::from(changed.iter().map(object).collect::<Vec<_>>()));
    } else {
        paths.iter().for_each(|path| output::line(output::name(&path.to_string())));
    }
    Ok(())
}

/// Reads the steps that do not stand on the command line.
pub(crate) fn read_steps(args: &mut Multi) -> Result<(), Failure> {
    if args.steps != ["-"] {
        return Ok(());
    }
    let mut text = String::new();
    std::io::stdin().take(limits::FRAME_BYTES as u64 + 1).read_to_string(&mut text)?;
    if text.len() > limits::FRAME_BYTES {
        // What was cut off may be one of the conditions.
        return Err(Failure::usage(format!("steps of more than {} bytes", limits::FRAME_BYTES)));
    }
    args.steps = text.lines().filter(|line| !line.trim().is_empty()).map(String::from).collect();
    Ok(())
}

/// The step that the cell counts as that: it checks the conditions first, and then makes the changes.
fn in_order(steps: &[String], counted: u32) -> Option<(usize, &String)> {
    let numbered = || (1..).zip(steps);
    let conditions = numbered().filter(|(_, step)| CONDITIONS.contains(&verb(step)));
    let changes = numbered().filter(|(_, step)| !CONDITIONS.contains(&verb(step)));
    conditions.chain(changes).nth(counted.checked_sub(1)? as usize)
}

fn verb(step: &str) -> &str {
    step.split_whitespace().next().unwrap_or_default()
}

/// A step with its number and without its value.
fn shown(number: usize, step: &str) -> String {
    let words: Vec<&str> = step.split_whitespace().take(2).collect();
    format!("step {number}, {}", output::name(&words.join(" ")))
}

const CONDITIONS: [&str; 3] = ["exists", "absent", "generation"];

/// Adds one step, a condition or a change.
fn add(cell: &Cell, multi: Changes, step: &str) -> Result<Changes, Failure> {
    let bad = |why: &str| Failure::usage(why);
    let (verb, rest) = step.trim_start().split_once(' ').ok_or_else(|| bad("it names no path"))?;
    let (path, value) = match rest.trim_start().split_once(' ') {
        Some((path, value)) => (path, Some(value)),
        None => (rest.trim(), None),
    };
    if value.is_some_and(|value| !value.trim().is_empty())
        && ["exists", "absent", "mkdir", "delete"].contains(&verb)
    {
        return Err(bad("nothing follows its path, and a path has no blanks"));
    }
    cell.resolve(path)?;
    let contents = || value.unwrap_or_default().to_owned();
    Ok(match verb {
        "exists" => multi.exists(path),
        "absent" => multi.absent(path),
        "generation" => {
            let number = value.and_then(|value| value.trim().parse().ok());
            let number = number.ok_or_else(|| bad("a generation is a number, as `wombat stat` shows it"))?;
            multi.generation_is(path, Generation(number))
        }
        "create" => multi.create(path, contents()),
        "sequential" => multi.create_sequential(path, contents()),
        "mkdir" => multi.create_directory(path),
        "set" => multi.set(path, contents()),
        "delete" => multi.delete(path),
        _ => {
            return Err(bad(
                "a step begins with exists, absent, generation, create, sequential, mkdir, set or delete",
            ));
        }
    })
}
