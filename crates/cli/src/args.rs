//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed otherwise
  2    the command line or an argument makes no sense
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

const SUPERVISION: &str = "\
CMD and all processes that it has started, daemons too, are stopped before the lock can be lost:
SIGTERM, then SIGKILL. They are killed if wombat is killed, and on time if wombat stands still.
What CMD leaves running gets SIGTERM when CMD ends, SIGKILL 2s later, and then the lock is
released. Not reached are processes that another service starts for CMD (systemd-run, at, docker,
ssh), and those of another user (sudo) unless wombat runs as root.

SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are forwarded; what is ignored at the start
(nohup) stays ignored. Three Ctrl-C in a row kill CMD. Ctrl-Z stops wombat as well: its lock then
ends with the session lease, and CMD is killed.";

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

/// What every command takes.
#[derive(ClapArgs, Clone)]
pub(crate) struct Global {
    /// Where the cell's replicas listen [default: 127.0.0.1:7480]
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "HOST:PORT,…",
        env = "WOMBAT_ENDPOINTS",
        value_delimiter = ','
    )]
    pub(crate) endpoints: Vec<String>,
    /// The cell that is meant [default: whichever answers]
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "NAME", env = "WOMBAT_CELL")]
    pub(crate) cell: Option<String>,
    /// The configuration file [default: ~/.config/wombat/config.toml]
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "FILE", env = "WOMBAT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON, errors too
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// How long the command may take in all; of lock, semaphore, elect and watch see there [default: 30s]
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "DURATION",
        env = "WOMBAT_TIMEOUT",
        value_parser = duration
    )]
    pub(crate) timeout: Option<Duration>,
    /// How long to look for the cell [default: 10s]
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "DURATION",
        env = "WOMBAT_CONNECT_TIMEOUT",
        value_parser = duration
    )]
    pub(crate) connect_timeout: Option<Duration>,
    /// Change something only while the lock of this sequencer is held; under a lock, that lock's
    #[arg(
        long = "sequencer",
        global = true,
        help_heading = "Everywhere",
        value_name = "SEQ",
        env = "WOMBAT_SEQUENCER"
    )]
    pub(crate) fence: Option<String>,
    /// Change it whatever became of the lock that WOMBAT_SEQUENCER names
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) no_sequencer: bool,
    /// Ask the cell at every read. Commands that end by themselves do so anyway
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) no_cache: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a cell on this machine, for development and tests
    Dev(Dev),
    /// Run a replica
    Serve(Serve),
    /// Write a file
    Put(Put),
    /// Read a file
    Get(Get),
    /// List a directory
    Ls(Ls),
    /// Make directories
    Mkdir(Mkdir),
    /// Delete nodes
    Rm(Rm),
    /// Show a node's metadata
    Stat(Stat),
    /// Show a directory and everything below it
    Tree(Tree),
    /// Make several changes as one, if all conditions hold
    Multi(Multi),
    /// Show what happens to a node, as it happens
    Watch(Watch),
    /// Hold a lock, while a command runs or until interrupted; or break one
    Lock(Lock),
    /// Hold one of N permits, while a command runs or until interrupted
    Semaphore(Semaphore),
    /// Campaign to be the leader, and follow whoever is
    Elect(Elect),
    /// Check or show a sequencer
    #[command(subcommand)]
    Sequencer(Sequencer),
    /// List the sessions
    Sessions,
    /// List the locks that are held or waited for
    Locks(Locks),
    /// Show how the cell is: its master, its replicas, what may fail
    Status,
    /// Look after a cell
    #[command(subcommand)]
    Admin(Admin),
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  wombat completions bash > /etc/bash_completion.d/wombat")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
pub(crate) enum Admin {
    /// Let another replica be master; clients barely notice
    #[command(after_help = "Examples:\n  wombat admin transfer\n  wombat admin transfer --to 3")]
    Transfer {
        /// Which replica, as `wombat status` numbers them [default: the one that is furthest]
        #[arg(long, value_name = "REPLICA")]
        to: Option<u32>,
    },
    /// Show what administrators did: which locks were broken, by whom, and why
    Audit,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat dev                             stay, and show what goes on
  wombat dev -- ./integration-test.sh    a fresh cell for the test, gone afterwards
  wombat dev --dir ./cell                keep the data
  wombat dev --replicas 5                five replicas, five processes; kill any two

CMD finds the cell through WOMBAT_ENDPOINTS and WOMBAT_CELL, and this very `wombat` on its PATH.
It is ended with all that it has started, as under `wombat lock`, when the cell ends.")]
pub(crate) struct Dev {
    /// How many replicas: more than one are processes of their own, which may be killed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) replicas: u32,
    /// Keep the data here [default: a temporary directory]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Where to listen [default: any free port with CMD; else port 7480 if it is free]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The session lease
    #[arg(long, value_name = "DURATION", default_value = "12s", value_parser = duration)]
    pub(crate) session_lease: Duration,
    /// Run this with the cell, and exit with its status
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat serve --config /etc/wombat/server.toml
  wombat serve --cell main --dir /var/lib/wombat --listen 0.0.0.0:7480
  wombat serve --cell main --dir /var/lib/wombat --listen 0.0.0.0:7480 --advertise a:7480 \
      --peers a:7480,b:7480,c:7480,d:7480,e:7480

A cell is founded when all its peers have met: start each with the same list. A replica whose
data is lost is started again with an empty directory: it joins anew, and takes the place of what
it was. The file's keys: cell, dir, listen, advertise, metrics, peers (a list), session_lease,
master_lease, max_master_lease and cache_lease (durations as text). Flags and the environment go
before it. Stops cleanly on SIGTERM.")]
pub(crate) struct Serve {
    /// The replica's configuration file
    #[arg(long, value_name = "FILE", env = "WOMBAT_SERVER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The data directory
    #[arg(long, env = "WOMBAT_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7480]
    #[arg(long, value_name = "HOST:PORT", env = "WOMBAT_LISTEN")]
    pub(crate) listen: Option<String>,
    /// Where the other replicas and the clients reach it [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", env = "WOMBAT_ADVERTISE")]
    pub(crate) advertise: Option<String>,
    /// All founders of the cell, this one among them [default: it is alone]
    #[arg(long, value_name = "HOST:PORT,…", env = "WOMBAT_PEERS", value_delimiter = ',')]
    pub(crate) peers: Vec<String>,
    /// Join a cell that exists as a further replica, which learns but has no vote; --peers names some of it
    #[arg(long)]
    pub(crate) join: bool,
    /// The session lease [default: 12s]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_SESSION_LEASE", value_parser = duration)]
    pub(crate) session_lease: Option<Duration>,
    /// The cache lease: how long a client that does not answer delays a change of what it has cached [default: 2s]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_CACHE_LEASE", value_parser = duration)]
    pub(crate) cache_lease: Option<Duration>,
    /// The master lease: how long the others wait for a master that is gone [default: 300ms]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_MASTER_LEASE", value_parser = duration)]
    pub(crate) master_lease: Option<Duration>,
    /// The longest master lease that a master asks for by itself, when round trips are too long for the usual one
    /// [default: 3s]
    #[arg(long, value_name = "DURATION", env = "WOMBAT_MAX_MASTER_LEASE", value_parser = duration)]
    pub(crate) max_master_lease: Option<Duration>,
    /// Where to tell metrics, at http://HOST:PORT/metrics, to whoever can connect [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = "WOMBAT_METRICS")]
    pub(crate) metrics: Option<String>,
    /// How many clients may connect from one address [default: 8192, and any number from this machine]
    #[arg(long, value_name = "N", env = "WOMBAT_CONNECTIONS_PER_ADDRESS")]
    pub(crate) connections_per_address: Option<usize>,
    /// What to log, as in RUST_LOG
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub(crate) log: String,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum CreateFlag {
    /// The file must exist
    Never,
    /// The file is made if it does not exist
    May,
    /// The file must not exist
    Must,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat put /ls/local/greeting hello
  wombat put -p /ls/local/a/b/config - < config.toml
  wombat put /ls/local/counter 42 --if-generation 7    only if nobody wrote since
  wombat put /ls/local/alive/$(hostname) up --ephemeral
  wombat put /ls/local/jobs/job- work --sequential     makes job-0000000001, …2, and prints its path

Under `wombat lock … -- CMD` the environment holds WOMBAT_SEQUENCER, so that each change that CMD
makes with wombat is refused once the lock is lost, even if CMD was frozen and does not know.")]
pub(crate) struct Put {
    /// The file, /ls/CELL/…
    pub(crate) path: String,
    /// What to write; `-` or nothing: what comes in on standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: Option<OsString>,
    /// Write only if the contents are of this generation
    #[arg(long, value_name = "G", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["create", "ephemeral"])]
    pub(crate) if_generation: Option<u64>,
    /// Whether to make the file
    #[arg(long, value_name = "WHEN", value_enum, default_value = "may")]
    pub(crate) create: CreateFlag,
    /// Make a file that vanishes when this command ends; stay until interrupted
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// Make a new file, its name completed by a number that rises with each; print its path
    #[arg(long, conflicts_with_all = ["create", "if_generation"])]
    pub(crate) sequential: bool,
    /// Make the directories above it
    #[arg(short, long)]
    pub(crate) parents: bool,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat get /ls/local/greeting
  wombat get /ls/local/config > config.toml    byte for byte
  wombat get --json /ls/local/greeting         with its generation
  wombat get --stale /ls/local/config          also while there is no master")]
pub(crate) struct Get {
    /// Read what any one replica knows, also while there is no master, and say how old that may be
    #[arg(long)]
    pub(crate) stale: bool,
    /// The file, /ls/CELL/…
    pub(crate) path: String,
}

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  wombat ls\n  wombat ls -l /ls/local/services\n  wombat ls --stale /ls/local/services"
)]
pub(crate) struct Ls {
    /// Read what any one replica knows, also while there is no master, and say how old that may be
    #[arg(long)]
    pub(crate) stale: bool,
    /// Show kinds, sizes, generations and times
    #[arg(short)]
    pub(crate) long: bool,
    /// The directory
    #[arg(default_value = "/ls/local")]
    pub(crate) path: String,
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat mkdir /ls/local/services\n  wombat mkdir -p /ls/local/a/b/c")]
pub(crate) struct Mkdir {
    /// Make the directories above too, and do not mind if it exists
    #[arg(short, long)]
    pub(crate) parents: bool,
    /// The directories
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
}

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  wombat rm /ls/local/greeting\n  wombat rm -r /ls/local/services\n  wombat rm -rf /ls/local/services      also if it does not exist"
)]
pub(crate) struct Rm {
    /// Delete everything below too
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Do not mind what does not exist
    #[arg(short, long)]
    pub(crate) force: bool,
    /// What to delete
    #[arg(required = true)]
    pub(crate) paths: Vec<String>,
}

#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  wombat stat /ls/local/greeting\n  wombat stat --json /ls/local/greeting"
)]
pub(crate) struct Stat {
    /// Read what any one replica knows, also while there is no master, and say how old that may be
    #[arg(long)]
    pub(crate) stale: bool,
    /// The node
    pub(crate) path: String,
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat tree\n  wombat tree /ls/local/services")]
pub(crate) struct Tree {
    /// Where to begin
    #[arg(default_value = "/ls/local")]
    pub(crate) path: String,
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat watch /ls/local/config                 a line for each change, with the new contents
  wombat watch /ls/local/services --json        children that come and go, a JSON object a line
  wombat watch -r /ls/local                     everything below it, too
  wombat watch /ls/local/config --count 1       wait for the next change
  wombat watch --wait /ls/local/config          also while it does not exist

It goes on over restarts of the cell, and ends when the node is deleted.")]
pub(crate) struct Watch {
    /// A file, or a directory whose children are meant
    pub(crate) path: String,
    /// Of a directory: everything below it
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Wait for it if it does not exist, and again when it is deleted
    #[arg(long)]
    pub(crate) wait: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// How long to watch; then the exit code is 5 [default: until interrupted]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = format!("\
Examples:
  wombat lock /ls/local/backup -- ./backup.sh
  wombat lock /ls/local/report --timeout 30s -- make report    give up after 30 s, with code 5
  wombat lock /ls/local/report --timeout 0s -- make report     only if it is free now
  wombat lock /ls/local/db --shared -- pg_dump                 beside other shared holders
  wombat lock /ls/local/maintenance                            hold it until Ctrl-C
  wombat lock break /ls/local/backup --reason 'its host hangs' take it from whoever holds it

CMD gets WOMBAT_SEQUENCER (for the services that it talks to: they can check it),
WOMBAT_TOKEN (a number that grows with each grant) and WOMBAT_LOCK (the path). What CMD changes
with wombat is refused once the lock is lost, or another that this command itself runs under.

{SUPERVISION}"))]
pub(crate) struct Lock {
    #[command(subcommand)]
    pub(crate) action: Option<LockAction>,
    /// The file whose lock to take; made if it does not exist
    #[arg(required = true)]
    pub(crate) path: Option<String>,
    /// Share it with other shared holders
    #[arg(long)]
    pub(crate) shared: bool,
    #[command(flatten)]
    pub(crate) holding: Holding,
}

#[derive(Subcommand)]
pub(crate) enum LockAction {
    /// Take a lock from whoever holds it; it is told first, and its lock-delay is kept
    Break(Break),
}

#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  wombat lock break /ls/local/backup --reason 'its host hangs'
  wombat lock break /ls/local/db --token 4711                     only that holder of a shared lock

The holder hears of it and has a few seconds to stop what it does under the lock; `wombat lock`
stops its CMD. Only then the lock goes to the next in line, or after the holder's lock-delay if
it asked for one. A holder that cannot be reached is waited for until its session's lease has
ended. The break is noted for good: `wombat admin audit`.")]
pub(crate) struct Break {
    /// The locked node
    pub(crate) path: String,
    /// Only the holder with that token, as `wombat locks` shows it [default: all holders]
    #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) token: Option<u64>,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(ClapArgs)]
#[command(after_help = format!("\
Examples:
  wombat semaphore /ls/local/crawlers --permits 3 -- ./crawl.sh    at most three at a time, everywhere
  wombat semaphore /ls/local/crawlers --permits 3 --timeout 10s -- ./crawl.sh
  wombat semaphore /ls/local/crawlers --permits 3                  hold one until Ctrl-C

The first who comes makes the file with that many permits; whoever names another number is
refused. CMD gets WOMBAT_SEQUENCER, WOMBAT_TOKEN and WOMBAT_LOCK.

{SUPERVISION}"))]
pub(crate) struct Semaphore {
    /// The semaphore's file; made if it does not exist
    pub(crate) path: String,
    /// How many may hold it at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) permits: u32,
    #[command(flatten)]
    pub(crate) holding: Holding,
}

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

/// What `lock`, `semaphore` and `elect` have in common: how to take the lock, and what to do with it.
#[derive(ClapArgs)]
pub(crate) struct Holding {
    /// How long to wait for it; 0s: not at all [default: for as long as it takes]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// For how long nobody else may have it if this holder dies (at most 60s)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) lock_delay: Duration,
    /// Make the directories above the file
    #[arg(short, long)]
    pub(crate) parents: bool,
    /// What to run meanwhile
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(ClapArgs)]
#[command(after_help = format!("\
Examples:
  wombat elect /ls/local/primary --value $(hostname):8080
  wombat elect /ls/local/primary --value $(hostname) -- ./primary
  wombat elect --observe /ls/local/primary              a line for each leader: value, token, since when
  wombat elect --observe /ls/local/primary --json --count 1     who leads now

The value ends with its leader: when it resigns, when its session's lease has ended, or when its
lock is broken, the cell empties the file. So `wombat get` prints the leader's value, or nothing.

{SUPERVISION}"))]
pub(crate) struct Elect {
    /// The election's file; made if it does not exist
    pub(crate) path: String,
    /// What the leader says of itself
    #[arg(long, value_name = "V", required_unless_present = "observe")]
    pub(crate) value: Option<String>,
    /// Do not stand for it: print who leads, and each change, until interrupted
    #[arg(long, conflicts_with_all = ["value", "command"])]
    pub(crate) observe: bool,
    /// With --observe: end after so many lines
    #[arg(long, value_name = "N", requires = "observe", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) holding: Holding,
}

#[derive(Subcommand)]
pub(crate) enum Sequencer {
    /// Ask the cell whether its lock is still held: exits with 0 if it is, 4 if not
    #[command(after_help = "Examples:\n  wombat sequencer check \"$WOMBAT_SEQUENCER\"")]
    Check {
        /// The sequencer
        sequencer: String,
    },
    /// Show what it says, without asking the cell
    Show {
        /// The sequencer
        sequencer: String,
    },
}

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat locks\n  wombat locks /ls/local/backup")]
pub(crate) struct Locks {
    /// A node, with all below it [default: the whole cell]
    pub(crate) path: Option<String>,
}

/// A duration with its unit: 500ms, 12s, 5m, "1h 30m".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 12s or 5m"))?;
    if duration > LONGEST {
        return Err("it is longer than a year".into());
    }
    Ok(duration)
}

/// The longest duration that a flag takes; what is longer is a slip.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

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

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("5").unwrap_err().contains("12s"));
        assert!(duration("-5s").is_err());
    }
}
