//! Very many clients that watch one file, and how long it takes until the last of them knows of a write.

use crate::Result;
use crate::clients::Service;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// Before each write: what a system still has to do after the last one is no part of it.
pub const QUIET: Duration = Duration::from_millis(200);
/// How many watchers are made at once.
const MADE_AT_ONCE: usize = 64;

/// How far the watchers are, all together.
#[derive(Default)]
struct Audience {
    armed: Cell<usize>,
    told: Cell<usize>,
    changed: Notify,
}

impl Audience {
    async fn until(&self, count: &Cell<usize>, wanted: usize) {
        while count.get() < wanted {
            self.changed.notified().await;
        }
    }

    fn count(&self, count: &Cell<usize>, of: usize) {
        count.set(count.get() + 1);
        if count.get().is_multiple_of(of) {
            self.changed.notify_one();
        }
    }
}

/// From the sending of a write, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Until the last has been told.
    pub told: f64,
    /// Until the last has what was written and will be told of the next write.
    pub read: f64,
}

/// Lets so many watch, and writes so often. Returns how long it took each time.
pub async fn watched(service: Rc<dyn Service>, watchers: usize, writes: usize) -> Result<Vec<Known>> {
    let mut writer = service.writer().await?;
    let (audience, room) = (Rc::new(Audience::default()), Rc::new(Semaphore::new(MADE_AT_ONCE)));
    let mut tasks = JoinSet::new();
    for number in 0..watchers {
        let (service, audience, room) = (Rc::clone(&service), Rc::clone(&audience), Rc::clone(&room));
        let watch = async move {
            let made = room.acquire().await?;
            let mut watcher = service.watcher(number).await?;
            drop(made);
            watcher.arm().await?;
            audience.count(&audience.armed, watchers);
            for _ in 0..writes {
                watcher.told().await?;
                audience.count(&audience.told, watchers);
                watcher.arm().await?;
                audience.count(&audience.armed, watchers);
            }
            watcher.close().await
        };
        tasks.spawn_local(async { watch.await.inspect_err(|error| eprintln!("a watcher: {error}")) });
    }
    let mut known = Vec::new();
    for write in 1..=writes {
        audience.until(&audience.armed, write * watchers).await;
        tokio::time::sleep(QUIET).await;
        let begun = Instant::now();
        writer.write().await?;
        audience.until(&audience.told, write * watchers).await;
        let told = begun.elapsed().as_secs_f64() * 1000.0;
        audience.until(&audience.armed, (write + 1) * watchers).await;
        known.push(Known { told, read: begun.elapsed().as_secs_f64() * 1000.0 });
    }
    while let Some(one) = tasks.join_next().await {
        one??;
    }
    Ok(known)
}
