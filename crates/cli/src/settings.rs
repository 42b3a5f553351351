//! Where the cell is, and as whom to speak to it: flags, then environment, then file, then defaults.

use crate::args::{self, Global};
use crate::exit::Failure;
use crate::time_limit::TimeLimit;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wombat_client::{Cell, Config, Error};
use wombat_server::DEFAULT_PORT;

/// The client's configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    endpoints: Vec<String>,
    cell: Option<String>,
    timeout: Option<String>,
    connect_timeout: Option<String>,
}

/// How to reach the cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Settings {
    pub(crate) endpoints: Vec<String>,
    pub(crate) cell: Option<String>,
    /// How long to look for the cell.
    pub(crate) connect_timeout: Duration,
    /// How long a command that ends by itself may take, if that was said.
    pub(crate) timeout: Option<Duration>,
    pub(crate) no_cache: bool,
}

impl Settings {
    /// What the flags, the environment and the file say, in this order. clap has put the first two together.
    pub(crate) fn load(global: &Global) -> Result<Settings, Failure> {
        let file = match &global.config {
            Some(path) => read_toml(path)?,
            None => match usual_file().filter(|path| path.exists()) {
                Some(path) => read_toml(&path)?,
                None => File::default(),
            },
        };
        Settings::merge(global, file)
    }

    fn merge(global: &Global, file: File) -> Result<Settings, Failure> {
        let mut endpoints: Vec<String> =
            global.endpoints.iter().map(|endpoint| endpoint.trim().to_owned()).collect();
        endpoints.retain(|endpoint| !endpoint.is_empty());
        if endpoints.is_empty() {
            endpoints = file.endpoints;
        }
        if endpoints.is_empty() {
            endpoints.push(format!("127.0.0.1:{DEFAULT_PORT}"));
        }
        let timeout = file.timeout.as_deref().map(parse_duration).transpose()?;
        let connect_timeout = file.connect_timeout.as_deref().map(parse_duration).transpose()?;
        Ok(Settings {
            endpoints,
            cell: global.cell.clone().filter(|cell| !cell.is_empty()).or(file.cell),
            connect_timeout: global.connect_timeout.or(connect_timeout).unwrap_or(Duration::from_secs(10)),
            timeout: global.timeout.or(timeout),
            no_cache: global.no_cache,
        })
    }

    /// Begins a session with the cell. One that does not stay has no time to use a cache, and nobody's change
    /// shall have to wait for it.
    pub(crate) async fn connect(&self, stays: bool, limit: Option<&TimeLimit>) -> Result<Cell, Failure> {
        let mut config = Config::new(self.endpoints.iter().cloned());
        config.cell.clone_from(&self.cell);
        config.connect_timeout =
            limit.map_or(self.connect_timeout, |limit| limit.left().min(self.connect_timeout));
        if self.no_cache || !stays {
            config = config.no_cache();
        }
        Cell::connect_with(config).await.map_err(|error| match error {
            Error::NotFound { what } => Failure::unreachable(&what),
            error => Failure::from(error),
        })
    }
}

/// A duration in a configuration file.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Failure> {
    args::duration(text).map_err(|error| Failure::usage(format!("the duration {text:?}: {error}")))
}

/// Reads a TOML file. Unknown keys are refused: a misspelt one would be silently without effect.
pub(crate) fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read the configuration {shown}: {error}")))?;
    toml::from_str(&text).map_err(|error| Failure::usage(format!("in the configuration {shown}: {error}")))
}

fn usual_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(base.join("wombat/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoints: &[&str], file: &str, expected: &str) {
        let global = Global {
            endpoints: endpoints.iter().map(ToString::to_string).collect(),
            cell: None,
            config: None,
            json: false,
            timeout: None,
            connect_timeout: None,
            no_cache: false,
        };
        let settings = Settings::merge(&global, toml::from_str(file).unwrap()).unwrap();
        assert_eq!(settings.endpoints.join(","), expected);
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_the_default() {
        check(&["a:1", " b:2"], "endpoints = ['c:3']", "a:1,b:2");
        check(&[], "endpoints = ['c:3']", "c:3");
        check(&[""], "", "127.0.0.1:7480");
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "endpoint = 'a:1'").unwrap();
        let failure = read_toml::<File>(&path).err().unwrap();
        assert!(format!("{failure:?}").contains("endpoint"));
    }
}
