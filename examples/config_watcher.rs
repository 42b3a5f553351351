//! A service that follows its configuration: it reads the file once, and again whenever it is told of a
//! change, without polling. After a fail-over, or when events had to be dropped, it looks again, too.
//!
//! `cargo run -- dev -- cargo run --example config_watcher`

use wombat_client::{Cell, Create, EventKind, OpenOptions, Result};

const CONFIG: &str = "/ls/local/service.conf";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let endpoints = std::env::var("WOMBAT_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7480".into());
    let cell = Cell::connect(endpoints.split(',')).await?;
    let options = OpenOptions::new()
        .create(Create::May)
        .contents("workers = 1")
        .events(&[EventKind::ContentsModified, EventKind::HandleInvalid]);
    let config = cell.open(CONFIG, options).await?;
    let mut events = config.events();
    let (contents, stat) = config.contents().await?;
    let mut applied = stat.content_generation;
    println!("generation {applied}: {}", String::from_utf8_lossy(&contents));

    // Somebody else changes it.
    let operator = tokio::spawn(operator(endpoints));

    while let Some(event) = events.recv().await {
        if event.kind == EventKind::HandleInvalid {
            println!("the configuration was deleted");
            break;
        }
        let (contents, stat) = config.contents().await?;
        // Two writes in a row may be seen as one; a generation is never seen twice.
        if stat.content_generation > applied {
            applied = stat.content_generation;
            println!("generation {applied}: {}", String::from_utf8_lossy(&contents));
        }
        if &contents[..] == b"workers = 4" {
            break;
        }
    }
    operator.await.expect("it does not panic")?;
    cell.close().await
}

async fn operator(endpoints: String) -> Result<()> {
    let cell = Cell::connect(endpoints.split(',')).await?;
    let config = cell.open(CONFIG, OpenOptions::new().write()).await?;
    for workers in 2..=4 {
        config.set(format!("workers = {workers}")).await?;
    }
    cell.close().await
}
