//! Electing a primary, and a store that is safe even from a primary that does not know that it is none.
//!
//! Two servers campaign. The first leads and then freezes, for longer than its session lease: a suspended machine.
//! The second takes over. When the first wakes up, it writes to the store, with its old sequencer; the store refuses,
//! because it has seen a greater token.
//!
//! `cargo run -- dev --session-lease 1s -- cargo run --example primary`

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use wombat_client::{Cell, Election, Sequencer, Token};

const ELECTION: &str = "/ls/local/primary";

/// A service that knows nothing of Wombat but sequencers: it takes writes from the newest primary only.
#[derive(Default)]
struct Store {
    newest: Token,
    writes: Vec<String>,
}

impl Store {
    fn write(&mut self, sequencer: &str, text: &str) -> Result<(), String> {
        let sequencer: Sequencer = sequencer.parse().map_err(|error| format!("no sequencer: {error}"))?;
        if sequencer.token < self.newest {
            return Err(format!("token {} is stale: {} was here", sequencer.token, self.newest));
        }
        self.newest = sequencer.token;
        self.writes.push(text.to_owned());
        Ok(())
    }
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    if std::env::args().nth(1).as_deref() == Some("alpha") {
        return alpha().await;
    }
    let mut store = Store::default();
    let mut first = Command::new(std::env::current_exe()?)
        .arg("alpha")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut wake, says) = (first.stdin.take().expect("piped"), first.stdout.take().expect("piped"));
    let mut says = BufReader::new(says).lines();
    let mut heard = || says.next().ok_or("the first server has ended")?.map_err(Failure::from);
    println!("{}", heard()?);
    let sequencer = heard()?;
    store.write(&sequencer, "alpha was here")?;

    println!("alpha freezes");
    signal(first.id(), "STOP")?;
    let (cell, leadership) = tokio::time::timeout(Duration::from_secs(60), campaign("beta")).await??;
    store.write(&leadership.guard().sequencer().to_string(), "beta was here")?;
    leadership.resign().await?;
    cell.close().await?;

    signal(first.id(), "CONT")?;
    writeln!(wake)?;
    println!("{}", heard()?);
    let refusal = store.write(&sequencer, "alpha was here again");
    println!("alpha writes all the same: {refusal:?}");
    println!("store: {:?}", store.writes);
    assert_eq!(store.writes, ["alpha was here", "beta was here"]);
    assert!(refusal.is_err(), "the zombie's write was taken");
    first.wait()?;
    Ok(())
}

async fn campaign(name: &str) -> wombat_client::Result<(Cell, wombat_client::Leadership)> {
    let endpoints = std::env::var("WOMBAT_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7480".into());
    let cell = Cell::connect(endpoints.split(',')).await?;
    let leadership = Election::new(&cell, ELECTION).campaign(name.to_owned()).await?;
    println!("{name} leads with token {}", leadership.guard().token());
    Ok((cell, leadership))
}

/// The first server, a process of its own: it leads, says how, and waits until it is woken.
async fn alpha() -> Result<(), Failure> {
    let (_cell, leadership) = campaign("alpha").await?;
    println!("{}", leadership.guard().sequencer());
    // On another thread, so that the session goes on.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    println!("alpha wakes up; is its lock safe? {}", leadership.guard().is_safe());
    Ok(())
}

fn signal(process: u32, name: &str) -> std::io::Result<()> {
    Command::new("kill").args(["-s", name, &process.to_string()]).status().map(drop)
}
