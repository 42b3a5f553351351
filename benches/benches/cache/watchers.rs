//! The measures `watched` and `crowd`.

use crate::crowd::{Cached, Calm, cached_again, milliseconds};
use crate::{CONNECTIONS, run};
use std::rc::Rc;
use tokio::runtime::Runtime;
use wombat_benches::arguments::number;
use wombat_benches::clients::{self, Service};
use wombat_benches::measures::{Figure, Measure, Results};
use wombat_benches::systems::{System, Systems, begin_at};
use wombat_benches::watching::watched;
use wombat_benches::{Result, median, until};
use wombat_proto::clock;

const WATCHERS: usize = 15_000;
const CROWD: usize = 90_000;
/// How often the file is written in each round.
const WRITES: usize = 5;

pub(crate) const MEASURES: [Measure; 2] = [
    Measure { name: "watched", what: "watchers of one file, each with a connection", figures: &FIGURES },
    Measure { name: "crowd", what: "watchers of one file, over shared connections", figures: &FIGURES },
];

const FIGURES: [Figure; 2] = [
    Figure { name: "until the last has read, ms", digits: 0, more_is_better: false, ratio: None, goal: "" },
    Figure { name: "for each watcher, µs", digits: 1, more_is_better: false, ratio: None, goal: "" },
];

/// Lets every system take its turn.
pub(crate) fn round(
    measure: &Measure,
    systems: &mut Systems,
    runtime: &Runtime,
    results: &mut Results,
) -> Result<()> {
    let shared = measure.name == "crowd";
    let watchers = if shared { number("crowd", CROWD) } else { number("watchers", WATCHERS) };
    let connections = if shared { number("connections", CONNECTIONS) } else { watchers };
    let mut note = |name: &str, took: f64| {
        results.add(name, &[took, took * 1000.0 / watchers as f64]);
    };
    let master = begin_at(&mut systems.wombat, false)?.remove(0);
    let addresses = systems.wombat.addresses();
    let own = told_and_cached(addresses, &master, watchers, connections);
    note("wombat", run(runtime, "wombat", own)?);
    let mut peers: Vec<Rc<dyn Service>> = Vec::new();
    if let Some(etcd) = &mut systems.etcd {
        let each = watchers.div_ceil(connections);
        peers.push(Rc::new(clients::etcd::Etcd::new(&begin_at(etcd, true)?, each)));
    }
    if let Some(zookeeper) = systems.zookeeper.as_mut().filter(|_| !shared) {
        peers.push(Rc::new(clients::zookeeper::ZooKeeper::new(&begin_at(zookeeper, true)?)));
    }
    for peer in peers {
        let watched = watched(Rc::clone(&peer), watchers, number("writes", WRITES));
        let known = run(runtime, peer.name(), watched)?;
        note(peer.name(), median(known.iter().map(|known| known.read).collect()));
    }
    Ok(())
}

/// Returns the median time until the last of so many sessions has read what was written, in milliseconds.
async fn told_and_cached(
    addresses: &[String],
    master: &str,
    sessions: usize,
    connections: usize,
) -> Result<f64> {
    let mut file = Cached::new(addresses, master).await?;
    let crowd = file.crowd(sessions, connections, true).await?;
    let calm = Calm::watch(&crowd, master);
    let (mut answered, mut read) = (Vec::new(), Vec::new());
    for _ in 0..number("writes", WRITES) {
        cached_again(&[&crowd]).await?;
        let begun = clock::now();
        answered.push(file.write(&[&crowd]).await?);
        let written = file.written;
        let all = || crowd.tally().newest == written && crowd.tally().have_newest == sessions;
        until("all have read what was written", all).await?;
        read.push(milliseconds(crowd.tally().newest_read.since(begun)));
    }
    println!("wombat's {sessions} sessions: the writer waited {:.0} ms (median)", median(answered));
    calm.tell(&crowd)?;
    crowd.end();
    until("all sessions have ended", || crowd.tally().ended + crowd.tally().expired == sessions).await?;
    Ok(median(read))
}
