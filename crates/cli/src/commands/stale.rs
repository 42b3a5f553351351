//! `get`, `ls` and `stat` with `--stale`: what any one replica knows, and how old that may be. There need not be a
//! master.

use super::files;
use crate::args::Ls;
use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use serde_json::{Value, json};
use std::time::Duration;
use wombat_client::{Error, StaleReader, Staleness};

/// How long one replica may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

pub(crate) async fn get(settings: &Settings, path: &str, json: bool) -> Result<u8, Failure> {
    let about = |error: Error| Failure::from(error).about(path);
    let mut reader = connect(settings).await?;
    let read = reader.contents(path).await.map_err(about)?;
    let (contents, stat) = read.value;
    match json {
        true => {
            tell_object(files::contents_object(&reader.resolve(path)?, &contents, &stat), &read.staleness)
        }
        false => {
            output::bytes(&contents);
            tell(&read.staleness);
        }
    }
    Ok(0)
}

pub(crate) async fn ls(settings: &Settings, ls: &Ls, json: bool) -> Result<u8, Failure> {
    let about = |error: Error| Failure::from(error).about(&ls.path);
    let mut reader = connect(settings).await?;
    let read = reader.list(&ls.path).await.map_err(about)?;
    match json {
        true => {
            let path = reader.resolve(&ls.path)?.to_string();
            let object = json!({ "path": path, "entries": files::entries_array(&read.value) });
            tell_object(object, &read.staleness);
        }
        false => {
            files::show_entries(&read.value, ls.long);
            tell(&read.staleness);
        }
    }
    Ok(0)
}

pub(crate) async fn stat(settings: &Settings, path: &str, json: bool) -> Result<u8, Failure> {
    let about = |error: Error| Failure::from(error).about(path);
    let mut reader = connect(settings).await?;
    let read = reader.stat(path).await.map_err(about)?;
    let path = reader.resolve(path)?;
    match json {
        true => tell_object(files::stat_object(&path, &read.value), &read.staleness),
        false => {
            files::show_stat(&path, &read.value);
            tell(&read.staleness);
        }
    }
    Ok(0)
}

async fn connect(settings: &Settings) -> Result<StaleReader, Failure> {
    let cell = settings.cell.as_deref().unwrap_or_default();
    let within = settings.connect_timeout.min(ANSWER_WITHIN);
    Ok(StaleReader::connect(settings.endpoints.iter().cloned(), cell, within).await?)
}

/// Says how old it may be, beside what was read.
fn tell(staleness: &Staleness) {
    let Staleness { applied, replica, age } = staleness;
    let age = match age {
        Some(age) => format!("at most {} ms old", whole_ms(*age)),
        None => "of unknown age".to_owned(),
    };
    output::notice(format!("as of slot {applied} at replica {replica}, {age}"));
}

/// The same within what was read.
fn tell_object(mut object: Value, staleness: &Staleness) {
    object["stale"] = json!({
        "applied_slot": staleness.applied.0,
        "replica": staleness.replica.0,
        "age_ms": staleness.age.map(whole_ms),
    });
    output::line(object);
}

/// Rounded up: it is a bound.
fn whole_ms(age: Duration) -> u64 {
    age.as_nanos().div_ceil(1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::whole_ms;
    use std::time::Duration;

    #[test]
    fn a_bound_is_rounded_up() {
        let micros = [0, 1, 999, 1000, 1001];
        assert_eq!(micros.map(|micros| whole_ms(Duration::from_micros(micros))), [0, 1, 1, 1, 2]);
    }
}
