//! The store: it knows nothing of Wombat but sequencers. Of each lock it takes writes from the newest holder
//! only (P§2.4).

use crate::process::{Result, lines};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use wombat_client::{Sequencer, Token};

#[derive(Default)]
struct Store {
    /// For each lock, the newest token and what was written last under it.
    kept: BTreeMap<String, (Token, String)>,
}

impl Store {
    fn write(&mut self, sequencer: &Sequencer, what: &str) -> String {
        let token = sequencer.token;
        let kept = self.kept.entry(sequencer.path.to_string()).or_default();
        if token < kept.0 {
            return format!("refused: token {token} is older than {}", kept.0);
        }
        *kept = (token, what.into());
        format!("took {what}, token {token}")
    }
}

/// The role of the store.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listens {}", listener.local_addr()?);
    let store = Arc::new(Mutex::new(Store::default()));
    let shared = Arc::clone(&store);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            let store = Arc::clone(&shared);
            std::thread::spawn(move || converse(stream, &store));
        }
    });
    let mut told = lines(std::io::stdin());
    while told.recv().await.is_some() {
        for (token, what) in store.lock().expect("nobody panics with it").kept.values() {
            println!("holds {what}, token {token}");
        }
    }
    Ok(())
}

/// Each line is a write, `SEQUENCER WHAT`, and is answered by one.
fn converse(stream: TcpStream, store: &Mutex<Store>) -> std::io::Result<()> {
    let mut answers = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let (sequencer, what) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match sequencer.parse() {
            Ok(sequencer) => store.lock().expect("nobody panics with it").write(&sequencer, what),
            Err(error) => format!("refused: {error}"),
        };
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}
