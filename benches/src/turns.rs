//! Clients that do the same thing time and again, each as soon as it has done it.

use crate::{Result, rate};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What comes first does not count.
pub const WARM_UP: Duration = Duration::from_millis(500);

/// Lets each of them act for so long. Returns how often they did in a second, all together, how long it took each
/// time, in milliseconds, and the clients.
pub async fn in_a_loop<C: 'static>(
    clients: Vec<C>,
    duration: Duration,
    act: impl AsyncFn(&mut C) -> Result<()> + Copy + 'static,
) -> Result<(f64, Vec<f64>, Vec<C>)> {
    let counts_from = Instant::now() + WARM_UP;
    let until = counts_from + duration;
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn_local(async move {
            let mut took = Vec::new();
            loop {
                let begun = Instant::now();
                if begun >= until {
                    return Result::Ok((took, client));
                }
                act(&mut client).await?;
                if begun >= counts_from {
                    took.push(begun.elapsed().as_secs_f64() * 1000.0);
                }
            }
        });
    }
    let (mut took, mut clients) = (Vec::new(), Vec::new());
    while let Some(one) = tasks.join_next().await {
        let (one, client) = one??;
        took.extend(one);
        clients.push(client);
    }
    Ok((rate(took.len(), duration), took, clients))
}
