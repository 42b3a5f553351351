//! `wombat elect`: campaign, follow whoever leads, lead.

use super::holding::{Holding, SUPERVISION, hold, run_under};
use super::parents::make_parents;
use crate::exit::{Failure, SIGNAL, TIMEOUT};
use crate::output;
use crate::settings::Settings;
use crate::supervise::Signals;
use crate::time_limit::pass;
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::time::Duration;
use wombat_client::{Cell, Election, Leader, Leadership};

#[derive(ClapArgs)]
#[command(after_help = format!("\
Examples:
  wombat elect /ls/local/primary --value $(hostname):8080
  wombat elect /ls/local/primary --value $(hostname) -- ./primary
  wombat elect --observe /ls/local/primary              a line for each leader: value, token, since when
  wombat elect --observe /ls/local/primary --json --count 1     who leads now

The value ends with its leader: when it resigns, when its session's lease has ended, or when its
lock is broken, the cell empties the file. So `wombat get` prints the leader's value, or nothing.

A campaign that has lost the lead, or its session, goes on with a new session, at the end of the
line; CMD was stopped before, and is run again by the next lead. With --once that is the end, with
code 7. The end of CMD itself ends it in any case.

{SUPERVISION}"))]
pub(crate) struct Elect {
    /// The election's file; made if it does not exist
    pub(crate) path: String,
    /// What the leader says of itself
    #[arg(long, value_name = "V", required_unless_present = "observe")]
    pub(crate) value: Option<String>,
    /// Do not campaign: print who leads, and each change, until interrupted
    #[arg(long, conflicts_with_all = ["value", "command"])]
    pub(crate) observe: bool,
    /// Do not campaign again when the lead is lost
    #[arg(long, conflicts_with = "observe")]
    pub(crate) once: bool,
    /// With --observe: end after so many lines
    #[arg(long, value_name = "N", requires = "observe", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) holding: Holding,
}

/// How long the end of a session may take whose lead is lost.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How long to wait before the cell is looked for again.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a leader waits for its first line to be read before it runs its command.
const READ_WITHIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(cell: &Cell, settings: &Settings, elect: Elect, json: bool) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let Some(value) = &elect.value else {
        let election = Election::new(cell, &elect.path);
        return observe(cell, &election, &elect, json, &mut signals).await;
    };
    let mut cell = cell.clone();
    loop {
        let ended = campaign(&cell, settings, &elect, value, json, &mut signals).await;
        // It frees what is left of the lost lead at once; of the first session, the caller sees to that as well.
        let _gone_either_way = tokio::time::timeout(CLOSE_WITHIN, cell.close()).await;
        // A command that was asked to end meanwhile is not started again.
        let goes_on = !signals.take_asked_to_stop() && !elect.once;
        let lost = match ended {
            Ok(ended) => return ended,
            Err(failure) if failure.is_lost() && goes_on => failure,
            Err(failure) => return Err(failure),
        };
        output::line(match json {
            true => json!({ "event": "lost", "why": lost.message() }).to_string(),
            false => format!("lost: {}", lost.message()),
        });
        // A reader that pauses does not keep it from campaigning.
        if let Ok(written) = tokio::time::timeout(READ_WITHIN, output::flush()).await {
            written?;
        }
        cell = tokio::select! {
            signal = signals.next() => return Ok(SIGNAL + signal as u8),
            cell = reconnect(settings) => cell?,
        };
    }
}

/// Begins another session, however long the cell is away.
async fn reconnect(settings: &Settings) -> Result<Cell, Failure> {
    loop {
        match settings.connect(true, None).await {
            Err(failure) if failure.is_unreachable() => tokio::time::sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// How a campaign ended for good.
type Ended = Result<u8, Failure>;

/// Campaigns, and leads until the command ends, the lead is lost, or a signal comes.
async fn campaign(
    cell: &Cell,
    settings: &Settings,
    elect: &Elect,
    value: &str,
    json: bool,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let election = Election::new(cell, &elect.path).lock_delay(elect.holding.lock_delay);
    if elect.holding.parents {
        make_parents(cell, &elect.path).await?;
    }
    let leadership = tokio::select! {
        biased;
        signal = signals.next() => return Ok(Ok(SIGNAL + signal as u8)),
        won = election.campaign(value.to_owned()) => {
            won.map_err(|error| Failure::from(error).about(&elect.path))?
        }
        followed = follow(&election, json) => return followed.map(Ok),
        () = pass(elect.holding.timeout) => {
            let text = format!("{}: the time allowed has passed, and another leads", elect.path);
            return Err(Failure::new(TIMEOUT, "Timeout", text));
        }
    };
    let token = leadership.guard().token();
    output::line(match json {
        true => json!({ "event": "leading", "value": value, "token": token.0 }).to_string(),
        false => format!("leading {value} (token {token})"),
    });
    lead(cell, settings, elect, leadership, signals).await
}

/// Leads until the command ends, or until interrupted; then resigns. That the lead is lost by then changes nothing: the
/// command has ended.
async fn lead(
    cell: &Cell,
    settings: &Settings,
    elect: &Elect,
    leadership: Leadership,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let guard = leadership.guard();
    let result = match elect.holding.command.is_empty() {
        true => hold(guard, signals).await,
        false => {
            // A reader that pauses does not keep the command from running.
            if let Ok(written) = tokio::time::timeout(READ_WITHIN, output::flush()).await {
                written?;
            }
            run_under(cell, settings, guard, &elect.holding.command, signals).await
        }
    };
    let status = result?;
    Ok(leadership.resign().await.map(|()| status).map_err(Failure::from))
}

/// Prints who leads, and each change.
async fn observe(
    cell: &Cell,
    election: &Election,
    elect: &Elect,
    json: bool,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let path = cell.resolve(&elect.path)?.to_string();
    let print_each = async {
        let about = |error| Failure::from(error).about(&elect.path);
        let mut changes = election.observe().await.map_err(about)?;
        for _ in 0..elect.count.unwrap_or(u64::MAX) {
            let next = changes.next().await.map_err(about)?;
            let leader = next.ok_or_else(|| Failure::lost("the session was lost, and the watch with it"))?;
            match json {
                true => output::line(json!({ "path": path, "leader": leader.as_ref().map(object) })),
                false => output::line(described(leader.as_ref())),
            }
            output::flush().await?;
        }
        Ok(0)
    };
    tokio::select! {
        ended = print_each => ended,
        _ = signals.next() => Ok(0),
        () = output::reader_gone() => Err(Failure::output(ErrorKind::BrokenPipe.into())),
        () = pass(elect.holding.timeout) => {
            let text = format!("{}: the time allowed has passed", elect.path);
            Err(Failure::new(TIMEOUT, "Timeout", text))
        }
    }
}

fn object(leader: &Leader) -> Value {
    let mut object = json!({
        "token": leader.token.0, "since": output::time(leader.since_wall_ms), "client": leader.client,
    });
    output::add_text(&mut object, "value", &leader.value);
    object
}

fn described(leader: Option<&Leader>) -> String {
    let Some(Leader { value, token, since_wall_ms, client }) = leader else { return "nobody leads".into() };
    let (value, since) = (String::from_utf8_lossy(value), output::time(*since_wall_ms));
    format!("{value} leads (token {token}, since {since}, {client})")
}

/// Tells each leader, until it is ourselves.
async fn follow(election: &Election, json: bool) -> Result<u8, Failure> {
    let mut changes = election.observe().await?;
    while let Some(leader) = changes.next().await? {
        if let Some(Leader { value, token, .. }) = leader {
            let value = String::from_utf8_lossy(&value).into_owned();
            output::line(match json {
                true => json!({ "event": "following", "value": value, "token": token.0 }).to_string(),
                false => format!("following {value} (token {token})"),
            });
            output::flush().await?;
        }
    }
    Err(Failure::lost("the session was lost"))
}
