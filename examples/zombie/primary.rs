//! A primary: it holds the lock, or wants it, and writes to the store with its sequencer.

use crate::process::{Result, lines};
use crate::{LOCK, LOCK_DELAY};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use wombat_client::{Cell, Create, LockMode, OpenOptions, now};

/// The role of a primary: it does what it is told, a line at a time.
pub(crate) async fn play(name: &str, endpoints: &str, store: &str) -> Result<()> {
    let cell = Cell::connect(endpoints.split(',')).await?;
    println!("session {}", cell.session());
    let options = OpenOptions::new().write().create(Create::May).lock_delay(LOCK_DELAY);
    let node = cell.open(LOCK, options).await?;
    let mut store = BufReader::new(TcpStream::connect(store).await?);
    let mut told = lines(std::io::stdin());
    if told.recv().await.as_deref() != Some("acquire") {
        return Err("first of all it needs the lock".into());
    }
    let guard = node.acquire(LockMode::Exclusive).await?;
    println!("token {}", guard.token());
    while let Some(line) = told.recv().await {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("look", _) if guard.is_safe() => {
                println!("safe {}", guard.safe_until().since(now()).as_millis())
            }
            ("look", _) => println!("safe no"),
            // Without looking: whoever looks first may freeze after it.
            ("send", text) => {
                let write = format!("{} \"{text}\" of {name}\n", guard.sequencer());
                store.write_all(write.as_bytes()).await?;
                let mut answer = String::new();
                store.read_line(&mut answer).await?;
                println!("store {}", answer.trim_end());
            }
            ("ask", _) => match cell.check_sequencer(guard.sequencer()).await.and(node.stat().await) {
                Ok(_) => println!("cell the lock is held"),
                Err(error) => println!("cell {error}"),
            },
            ("release", _) => {
                guard.release().await?;
                println!("released {LOCK}");
                break;
            }
            _ => return Err(format!("it cannot {line}").into()),
        }
    }
    Ok(cell.close().await?)
}
