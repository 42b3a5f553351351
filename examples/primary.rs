//! Electing a primary, and a store that is safe even from a primary that does not know that it is none.
//!
//! Two servers campaign. The first leads and then freezes, for longer than its session lease: a long garbage
//! collection, a suspended machine. The second takes over. When the first wakes up it still believes that it
//! leads and writes to the store, with its old sequencer; the store refuses, because it has seen a greater
//! token.
//!
//! `cargo run -- dev --session-lease 1s -- cargo run --example primary`

use std::sync::{Arc, Mutex, mpsc};
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(Mutex::new(Store::default()));
    let (leads, first_leads) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let zombie = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || frozen_primary(&store, &leads, &woken))
    };
    first_leads.recv()?;
    second_primary(&store)?;
    wake.send(())?;
    let refusal = zombie.join().expect("it does not panic");
    let store = store.lock().expect("nobody panics with it");
    println!("store: {:?}", store.writes);
    assert_eq!(store.writes, ["alpha was here", "beta was here"]);
    assert!(refusal.is_err(), "the zombie's write was taken");
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn campaign(name: &str) -> wombat_client::Result<(Cell, wombat_client::Leadership)> {
    let endpoints = std::env::var("WOMBAT_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7480".into());
    let cell = Cell::connect(endpoints.split(',')).await?;
    let leadership = Election::new(&cell, ELECTION).campaign(name.to_owned()).await?;
    println!("{name} leads with token {}", leadership.guard().token());
    Ok((cell, leadership))
}

/// Leads, writes, freezes as a whole thread, with its KeepAlives, and writes again when it wakes up.
fn frozen_primary(
    store: &Mutex<Store>,
    leads: &mpsc::Sender<()>,
    woken: &mpsc::Receiver<()>,
) -> Result<(), String> {
    let runtime = runtime();
    let (_cell, leadership) = runtime.block_on(campaign("alpha")).map_err(|error| error.to_string())?;
    let sequencer = leadership.guard().sequencer().to_string();
    store.lock().expect("nobody panics with it").write(&sequencer, "alpha was here")?;
    println!("alpha freezes");
    leads.send(()).map_err(|error| error.to_string())?;
    woken.recv().map_err(|error| error.to_string())?; // Nothing of this client runs while it waits.
    println!("alpha wakes up; is its lock safe? {}", leadership.guard().is_safe());
    let result = store.lock().expect("nobody panics with it").write(&sequencer, "alpha was here again");
    println!("alpha writes all the same: {result:?}");
    result
}

/// Takes over when the first one's session has expired.
fn second_primary(store: &Mutex<Store>) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = runtime();
    runtime.block_on(async {
        let (cell, leadership) = tokio::time::timeout(Duration::from_secs(60), campaign("beta")).await??;
        let sequencer = leadership.guard().sequencer().to_string();
        store.lock().expect("nobody panics with it").write(&sequencer, "beta was here")?;
        leadership.resign().await?;
        Ok(cell.close().await?)
    })
}
