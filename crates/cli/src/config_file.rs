//! The configuration file, which `--config` or WOMBAT_CONFIG names. Clients and servers read the same format, and each
//! takes the keys that it knows.

use crate::duration;
use crate::exit::Failure;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the file says.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// Of both.
    pub(crate) cell: Option<String>,
    // Of clients.
    pub(crate) endpoints: Vec<String>,
    pub(crate) timeout: Option<String>,
    pub(crate) connect_timeout: Option<String>,
    // Of servers.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) listen: Option<String>,
    pub(crate) advertise: Option<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) master_lease: Option<String>,
    pub(crate) max_master_lease: Option<String>,
    pub(crate) session_lease: Option<String>,
    pub(crate) cache_lease: Option<String>,
    pub(crate) metrics: Option<String>,
    pub(crate) connections_per_address: Option<usize>,
}

/// A duration in a configuration file.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Failure> {
    duration::parse(text).map_err(|error| Failure::usage(format!("the duration {text:?}: {error}")))
}

impl ConfigFile {
    /// Reads the file. Unknown keys are refused: a misspelt one would be silently without effect.
    pub(crate) fn read(path: &Path) -> Result<ConfigFile, Failure> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read the configuration {shown}: {error}")))?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let why = error.message().replace('\n', ", ");
            Failure::usage(format!("in the configuration {shown}, line {line}: {why}"))
        })
    }
}

/// Where a client looks when no file is named.
pub(crate) fn usual_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(base.join("wombat/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "endpoint = 'a:1'").unwrap();
        let failure = ConfigFile::read(&path).err().unwrap();
        let failure = format!("{failure:?}");
        assert!(failure.contains("endpoint") && failure.contains("line 1: "), "{failure}");
        assert!(!failure.contains("\\n"), "one line: {failure}");
    }
}
