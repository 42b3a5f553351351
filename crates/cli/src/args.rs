//! The command line: what every command takes, and which commands there are. The arguments of a command stand
//! beside it.

use crate::commands::{
    admin, completions, dev, elect, get, lock, locks, ls, mkdir, multi, put, rm, semaphore, sequencer, serve,
    stat, tree, watch,
};
use crate::global::Global;
use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed otherwise
  2    the command line or an argument is invalid
  3    not found
  4    refused as things are: exists, another generation, not empty, lock held, sequencer stale
  5    the time allowed (--timeout) has passed, and nothing was changed
  6    the cell cannot be reached (--connect-timeout)
  7    the lock or the session was lost, and what ran under it was stopped
  8    whether the change was made is not known, also after --timeout: look before you retry
  126  CMD cannot be run      127  CMD is not found
  141  nobody reads the output any more, as after SIGPIPE
  Otherwise CMD's own status; 128 + n if the signal n ended it.

Configuration: flags, then environment (WOMBAT_ENDPOINTS, WOMBAT_CELL, WOMBAT_TIMEOUT,
WOMBAT_CONNECT_TIMEOUT, WOMBAT_SEQUENCER, WOMBAT_CONFIG), then the file ~/.config/wombat/config.toml (keys: endpoints,
cell, timeout, connect_timeout).";

const EXAMPLES: &str = "\
Examples:
  wombat dev                                    a cell of one on this machine, to play with
  wombat put /ls/local/greeting hello           write a small file
  wombat get /ls/local/greeting                 read it
  wombat lock /ls/local/backup -- ./backup.sh   run under a lock: one at a time, everywhere
";

/// A Chubby lock service: locks, small files, elections, events.
#[derive(Parser)]
#[command(name = "wombat", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a cell on this machine, for development and tests
    Dev(dev::Dev),
    /// Run a replica
    Serve(serve::Serve),
    /// Write a file
    Put(put::Put),
    /// Read a file
    Get(get::Get),
    /// List a directory
    Ls(ls::Ls),
    /// Make directories
    Mkdir(mkdir::Mkdir),
    /// Delete nodes
    Rm(rm::Rm),
    /// Show a node's metadata
    Stat(stat::Stat),
    /// Show a directory and everything below it
    Tree(tree::Tree),
    /// Make several changes as one, if all conditions hold
    Multi(multi::Multi),
    /// Show what happens to a node, as it happens
    Watch(watch::Watch),
    /// Hold a lock, while a command runs or until interrupted; or break one
    Lock(lock::Lock),
    /// Hold one of N permits, while a command runs or until interrupted
    Semaphore(semaphore::Semaphore),
    /// Campaign to be the leader, and follow whoever is
    Elect(elect::Elect),
    /// Check or show a sequencer
    #[command(subcommand)]
    Sequencer(sequencer::Sequencer),
    /// List the sessions
    Sessions,
    /// List the locks that are held or waited for
    Locks(locks::Locks),
    /// Show how the cell is: its master, its replicas, and how many more may fail
    Status,
    /// Look after a cell
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Print completions for a shell
    Completions(completions::Completions),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_that_takes_something_has_examples() {
        for command in Args::command().get_subcommands().filter(|command| command.get_arguments().count() > 0)
        {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "`wombat {name} --help` shows no examples");
        }
    }
}
