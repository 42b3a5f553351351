//! A cron that runs each job once, wherever it runs: three processes (here: three sessions) stand by, one
//! leads, and when it goes the next one carries on where it stopped.
//!
//! The number of the last run stands in a file that is written under the leader's lock; a leader that lost the
//! lock cannot write it, because the file's handle is tied to its sequencer.
//!
//! `cargo run -- dev -- cargo run --example cron`

use std::time::Duration;
use tokio::sync::mpsc;
use wombat_client::{Cell, Create, Election, OpenOptions, Result};

const RUNS_IN_OFFICE: u64 = 3;
const RUNS: u64 = 9;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (ran, mut runs) = mpsc::unbounded_channel();
    let members: Vec<_> =
        ["mon", "tue", "wed"].into_iter().map(|name| tokio::spawn(member(name, ran.clone()))).collect();
    drop(ran);
    let mut seen = Vec::new();
    while let Some((name, run)) = runs.recv().await {
        println!("run {run} by {name}");
        seen.push(run);
    }
    for member in members {
        member.await.expect("it does not panic")?;
    }
    assert_eq!(seen, (1..=RUNS).collect::<Vec<_>>(), "each run once, in order");
    Ok(())
}

/// One process of the cron: waits for its turn, runs a few jobs, resigns.
async fn member(name: &'static str, ran: mpsc::UnboundedSender<(&'static str, u64)>) -> Result<()> {
    let endpoints = std::env::var("WOMBAT_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7480".into());
    let cell = Cell::connect(endpoints.split(',')).await?;
    let leadership = Election::new(&cell, "/ls/local/cron").campaign(name).await?;
    println!("{name} leads with token {}", leadership.guard().token());
    let options = OpenOptions::new().write().create(Create::May).contents("0");
    let last_run = cell.open("/ls/local/cron-last-run", options).await?;
    last_run.set_sequencer(leadership.guard().sequencer()).await?;
    for _ in 0..RUNS_IN_OFFICE {
        let (contents, stat) = last_run.contents().await?;
        let last: u64 = String::from_utf8_lossy(&contents).parse().unwrap_or(0);
        if last == RUNS {
            break;
        }
        // First the claim, then the job: a run that is claimed and not done is better than one done twice.
        last_run.set_if(stat.content_generation, (last + 1).to_string()).await?;
        let _the_list_is_long_enough = ran.send((name, last + 1));
        tokio::time::sleep(Duration::from_millis(50)).await; // The job.
    }
    leadership.resign().await?;
    cell.close().await
}
