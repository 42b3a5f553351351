//! Seats that are never sold twice: several ticket offices, each a process, sell from one table of SQLite under
//! one lock, and some freeze at the worst moment: after they have chosen a free seat, before they write.
//!
//! `cargo run --release --example seats`; with `-- --unguarded` no write compares tokens, and seats are sold
//! twice.

mod office;
#[path = "../zombie/process.rs"]
mod process;
#[path = "../zombie/stage.rs"]
mod stage;
mod table;

use process::{Process, Result};
use stage::{Stage, Who};
use std::path::Path;
use std::time::Duration;
use table::Table;
use wombat_client::CellName;
use wombat_server::{Config, Server};

const LOCK: &str = "/ls/local/seats";
const SEATS: u32 = 8;
const SESSION_LEASE: Duration = Duration::from_secs(2);
/// How long the whole story may take.
const AT_MOST: Duration = Duration::from_secs(55);

const CELL: Who = Who { name: "cell", colour: 36 };
const TABLE: Who = Who { name: "table", colour: 35 };
const OFFICES: [Who; 3] =
    [Who { name: "north", colour: 33 }, Who { name: "south", colour: 32 }, Who { name: "east", colour: 34 }];

/// Every process of the story is this program, in another role. It fails if a seat was sold twice.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let guarded = match role[..] {
        ["office", cell, table, guarded] => {
            process::end_with_the_story()?;
            return office::play(cell, Table::open(table.as_ref(), guarded == "guarded")?).await;
        }
        [] => true,
        ["--unguarded"] => false,
        _ => return Err("the story takes no arguments but --unguarded".into()),
    };
    tokio::select! {
        told = tokio::time::timeout(AT_MOST, tell(guarded)) => told?,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

async fn tell(guarded: bool) -> Result<()> {
    let stage = Stage::new();
    stage.line(&format!("Three offices sell {SEATS} seats from one table, under a lock: one at a time."));
    stage.line("Now and then one freezes when it has chosen a seat and not yet written.");
    stage.scene("A cell, a table, and three offices");
    let dir = tempfile::tempdir()?;
    let mut config = Config::new(CellName::parse(CellName::LOCAL)?, dir.path().join("cell"));
    config.listen = "127.0.0.1:0".into();
    config.session_lease = SESSION_LEASE;
    let server = Server::start(config)?;
    stage
        .says(CELL, format!("one replica; a session lasts {SESSION_LEASE:?} without a word from its client"));
    let path = dir.path().join("seats.sqlite");
    let table = Table::create(&path)?;
    let compares =
        if guarded { "compares its token with the newest, in the same transaction" } else { "just writes" };
    stage.says(TABLE, format!("{SEATS} seats, nobody in them; every write {compares}"));
    let mut offices = Offices::open(&stage, &server.address().to_string(), &path, guarded)?;

    stage.scene("Two seats in peace");
    for _ in 0..2 {
        offices.next_sale().await?;
    }

    stage.scene("SIGSTOP: one freezes with the money in its hand; another takes the lock");
    let (zombie, heir) = offices.freezes().await?;
    offices.sell(&heir).await?;
    let first = offices.wakes(&zombie).await?;

    stage.scene("SIGSTOP: again, and this one wakes up before its heir has written");
    let (zombie, heir) = offices.freezes().await?;
    let second = offices.wakes(&zombie).await?;
    offices.sell(&heir).await?;

    stage.scene("The other seats");
    while table.free()? > 0 {
        offices.next_sale().await?;
    }

    stage.scene("The end");
    let tickets = table.tickets()?;
    for (seat, sold) in &tickets {
        let remark = if sold.len() > 1 { ": SOLD TWICE" } else { "" };
        stage.says(TABLE, format!("seat {seat}: {}{remark}", sold.join(", and ")));
    }
    let twice = tickets.values().filter(|sold| sold.len() > 1).count();
    let refused = [first, second].iter().filter(|wrote| wrote.starts_with("refused")).count();
    stage.says(TABLE, format!("zombies refused: {refused} of 2; seats sold twice: {twice} of {SEATS}"));
    match twice {
        0 if guarded && refused < 2 => Err("the story went wrong: a zombie wrote".into()),
        0 => Ok(()),
        _ => Err(format!("{twice} seats were sold twice").into()),
    }
}

/// The processes that sell. Each waits for the lock, tells which seat it chose, and writes when it is told to.
struct Offices<'a> {
    stage: &'a Stage,
    processes: [Process; 3],
}

/// An office that has the lock and has chosen a seat.
struct Turn {
    office: usize,
    seat: String,
    token: String,
}

impl Turn {
    fn who(&self) -> Who {
        OFFICES[self.office]
    }
}

impl Offices<'_> {
    fn open<'a>(stage: &'a Stage, cell: &str, table: &Path, guarded: bool) -> Result<Offices<'a>> {
        let (table, guarded) = (table.display().to_string(), if guarded { "guarded" } else { "unguarded" });
        let open = |who: Who| Process::start(who.name, &["office", cell, &table, guarded]);
        let processes = [open(OFFICES[0])?, open(OFFICES[1])?, open(OFFICES[2])?];
        for (who, process) in OFFICES.iter().zip(&processes) {
            stage.says(*who, format!("process {}; it wants the lock {LOCK}", process.pid()));
        }
        Ok(Offices { stage, processes })
    }

    /// Waits until an office has the lock and has chosen a seat.
    async fn next_turn(&mut self) -> Result<Turn> {
        let [first, second, third] = &mut self.processes;
        let (office, chose) = tokio::select! {
            chose = first.hears("chose") => (0, chose?),
            chose = second.hears("chose") => (1, chose?),
            chose = third.hears("chose") => (2, chose?),
        };
        let (seat, token) = chose.split_once(' ').ok_or("a seat and a token")?;
        Ok(Turn { office, seat: seat.into(), token: token.into() })
    }

    async fn next_sale(&mut self) -> Result<()> {
        let turn = self.next_turn().await?;
        self.shows(&turn);
        self.sell(&turn).await
    }

    fn shows(&self, turn: &Turn) {
        let Turn { seat, token, .. } = turn;
        self.says(turn, format!("has the lock, token {token}. Seat {seat} is free: takes the money"));
    }

    async fn sell(&mut self, turn: &Turn) -> Result<()> {
        let wrote = self.processes[turn.office].asks("sell", "wrote").await?;
        self.says(turn, format!("writes: {wrote}"));
        Ok(())
    }

    /// Freezes the next one that has the lock, for so long that another takes it and chooses a seat.
    async fn freezes(&mut self) -> Result<(Turn, Turn)> {
        let zombie = self.next_turn().await?;
        self.shows(&zombie);
        let process = &mut self.processes[zombie.office];
        process.freeze().await?;
        process.tell("sell")?;
        self.says(&zombie, "is frozen, about to write".into());
        let heir = self.next_turn().await?;
        let (name, token) = (zombie.who().name, &zombie.token);
        let lost = format!("has not heard of {name} for its lease: token {token} holds the lock no more");
        self.stage.says(CELL, lost);
        self.shows(&heir);
        Ok((zombie, heir))
    }

    /// Wakes one up that lost its lock asleep, and returns what came of its write.
    async fn wakes(&mut self, zombie: &Turn) -> Result<String> {
        let process = &mut self.processes[zombie.office];
        process.wake()?;
        let wrote = process.hears("wrote").await?;
        self.says(zombie, format!("wakes up, and writes as it was about to: {wrote}"));
        let lost = self.processes[zombie.office].hears("lost").await?;
        self.says(zombie, format!("looks at its lock: {lost}. Begins another session"));
        Ok(wrote)
    }

    fn says(&self, turn: &Turn, what: String) {
        self.stage.says(turn.who(), what);
    }
}
