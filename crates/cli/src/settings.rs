//! Where the cell is, and as whom to speak to it: flags, then environment, then file, then defaults.

use crate::config_file::{ConfigFile, parse_duration, usual_file};
use crate::exit::Failure;
use crate::global::Global;
use crate::time_limit::TimeLimit;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use wombat_client::{Cell, Config, Error, Operator, Sequencer};
use wombat_server::DEFAULT_PORT;

/// How long one replica may take to answer without a session.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long to wait before a master is looked for again.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);

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
    /// The locks that this command runs under, the innermost last: it changes nothing once one of them is lost.
    pub(crate) sequencers: Vec<Sequencer>,
}

impl Settings {
    /// What the flags, the environment and the file say, in this order. clap has put the first two together.
    pub(crate) fn load(global: &Global) -> Result<Settings, Failure> {
        let file = match &global.config {
            Some(path) => ConfigFile::read(path)?,
            None => match usual_file().filter(|path| path.exists()) {
                Some(path) => ConfigFile::read(&path)?,
                None => ConfigFile::default(),
            },
        };
        let outer = std::env::var(OUTER_SEQUENCERS).unwrap_or_default();
        let own = std::env::var(SEQUENCER).ok().filter(|own| Some(own) == global.fence.as_ref());
        let outer = if own.is_some() { outer.split_whitespace().collect() } else { Vec::new() };
        Settings::merge(global, &outer, file)
    }

    /// `outer`: the sequencers of the locks around the one that `global` names.
    fn merge(global: &Global, outer: &[&str], file: ConfigFile) -> Result<Settings, Failure> {
        let mut endpoints: Vec<String> =
            global.endpoints.iter().map(|endpoint| endpoint.trim().to_owned()).collect();
        endpoints.retain(|endpoint| !endpoint.is_empty());
        if endpoints.is_empty() && !global.endpoints.is_empty() {
            let text = "--endpoints (or WOMBAT_ENDPOINTS) is empty: name HOST:PORT, or leave it out";
            return Err(Failure::usage(text));
        }
        if endpoints.is_empty() {
            endpoints = file.endpoints;
        }
        if endpoints.is_empty() {
            endpoints.push(format!("127.0.0.1:{DEFAULT_PORT}"));
        }
        let timeout = file.timeout.as_deref().map(parse_duration).transpose()?;
        let connect_timeout = file.connect_timeout.as_deref().map(parse_duration).transpose()?;
        let own = global.fence.as_deref().filter(|own| !own.is_empty() && !global.no_sequencer);
        let all = own.into_iter().flat_map(|own| outer.iter().copied().chain([own]));
        let sequencers = all.map(str::parse).collect::<Result<_, Error>>()?;
        Ok(Settings {
            endpoints,
            cell: global.cell.clone().filter(|cell| !cell.is_empty()).or(file.cell),
            connect_timeout: global.connect_timeout.or(connect_timeout).unwrap_or(Duration::from_secs(10)),
            timeout: global.timeout.or(timeout),
            no_cache: global.no_cache,
            sequencers,
        })
    }

    /// For a change that no session makes: refuses it once a lock that this command runs under is lost.
    pub(crate) async fn check_sequencers(&self) -> Result<(), Failure> {
        if self.sequencers.is_empty() {
            return Ok(());
        }
        let mut operator = self.operator().await?;
        for sequencer in &self.sequencers {
            operator.check_sequencer(sequencer).await?;
        }
        Ok(())
    }

    /// Connects to the master without a session, once there is one, as for [`Settings::connect`].
    pub(crate) async fn operator(&self) -> Result<Operator, Failure> {
        let cell = self.cell.as_deref().unwrap_or_default();
        let deadline = Instant::now() + self.connect_timeout;
        loop {
            match Operator::connect(&self.endpoints, cell, ANSWER_WITHIN.min(self.connect_timeout)).await {
                Err(Error::Unreachable { .. } | Error::Overloaded { .. }) if Instant::now() < deadline => {
                    sleep(SEARCH_PAUSE).await;
                }
                found => return Ok(found?),
            }
        }
    }

    /// Begins a session with the cell, which changes nothing once a lock that this command runs under is lost. A session
    /// that does not stay has no cache: it has no time to use one, and no change of another client waits for it.
    pub(crate) async fn connect(&self, stays: bool, limit: Option<&TimeLimit>) -> Result<Cell, Failure> {
        let mut config = Config::new(self.endpoints.iter().cloned());
        config.cell.clone_from(&self.cell);
        config.sequencers.clone_from(&self.sequencers);
        config.connect_timeout =
            limit.map_or(self.connect_timeout, |limit| limit.left().min(self.connect_timeout));
        if self.no_cache || !stays {
            config = config.no_cache();
        }
        Ok(Cell::connect_with(config).await?)
    }
}

/// Names the sequencer of the lock that a command runs under.
pub(crate) const SEQUENCER: &str = "WOMBAT_SEQUENCER";
/// Names those of the locks around it, where locks are nested, separated by blanks.
pub(crate) const OUTER_SEQUENCERS: &str = "WOMBAT_OUTER_SEQUENCERS";

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global {
            endpoints: Vec::new(),
            cell: None,
            config: None,
            json: false,
            timeout: None,
            connect_timeout: None,
            fence: None,
            no_sequencer: false,
            no_cache: false,
        }
    }

    fn check(endpoints: &[&str], file: &str, expected: &str) {
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        let global = Global { endpoints, ..global() };
        let settings = Settings::merge(&global, &[], toml::from_str(file).unwrap()).unwrap();
        assert_eq!(settings.endpoints.join(","), expected);
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_the_default() {
        check(&["a:1", " b:2"], "endpoints = ['c:3']", "a:1,b:2");
        check(&[], "endpoints = ['c:3']", "c:3");
        check(&[], "", "127.0.0.1:7480");
    }

    #[test]
    fn an_empty_list_of_endpoints_is_refused() {
        let global = Global { endpoints: vec![String::new()], ..global() };
        let failure = Settings::merge(&global, &[], ConfigFile::default()).err().unwrap();
        assert!(format!("{failure:?}").contains("--endpoints"), "{failure:?}");
    }
}
