//! The network between replicas: nothing is promised of any message.

use crate::random::Random;
use std::collections::BTreeSet;
use std::time::Duration;
use wombat_paxos::Message;
use wombat_proto::{ReplicaId, Value};

/// How bad it is; chosen for a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    /// Of a thousand messages, how many are lost, come twice, are slow, or are late by up to minutes.
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) slow: u64,
    pub(crate) late: u64,
    /// A kind of message that fares worse than others, and of a thousand how many are lost or slow.
    pub(crate) odd: Odd,
}

/// A kind of message that fares worse than others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Odd {
    /// Which; 0: none.
    pub(crate) kind: u64,
    pub(crate) lost: u64,
    pub(crate) slow: u64,
}

impl Weather {
    /// Whatever comes.
    pub(crate) fn draw(random: &mut Random) -> Weather {
        // Above all what an election and a proposal need: Promise, Accept, Accepted, Heartbeat, Granted.
        let kind = if random.chance(600) { 4 + random.below(5) } else { 1 + random.below(15) };
        let kind = if random.chance(400) { kind } else { 0 };
        let mut some =
            |per_mille: u64, most: u64| if random.chance(per_mille) { random.below(most) } else { 0 };
        Weather {
            lost: some(400, 300),
            twice: some(400, 200),
            slow: some(400, 500),
            late: some(400, 40),
            odd: Odd { kind, lost: some(500, 1000), slow: some(500, 1000) },
        }
    }
}

#[derive(Default)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// From whom to whom nothing goes.
    blocked: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Who will not hear anything for good, and who will not be heard.
    deaf: BTreeSet<ReplicaId>,
    mute: BTreeSet<ReplicaId>,
    /// Whom nothing reaches and from whom nothing comes until all is healed.
    silent: BTreeSet<ReplicaId>,
    /// Whose large messages are lost, and whose are for good.
    narrow: BTreeSet<ReplicaId>,
    narrow_for_good: BTreeSet<ReplicaId>,
    /// How long a message takes if all is well, at most.
    usual: Duration,
}

impl Network {
    pub(crate) fn new(usual: Duration) -> Network {
        Network { usual, ..Network::default() }
    }

    /// When the copies of a message that is sent now arrive.
    pub(crate) fn arrivals(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        kind: u64,
        is_large: bool,
        random: &mut Random,
    ) -> impl Iterator<Item = Duration> + use<> {
        let weather = &self.weather;
        let odd = weather.odd.kind == kind;
        let silent = self.silent.contains(&from) || self.silent.contains(&to);
        let narrow = self.narrow.contains(&from) || self.narrow_for_good.contains(&from);
        let cut = silent
            || (is_large && narrow)
            || self.blocked.contains(&(from, to))
            || self.mute.contains(&from)
            || self.deaf.contains(&to);
        let copies = match () {
            () if cut || random.chance(weather.lost) => 0,
            () if odd && random.chance(weather.odd.lost) => 0,
            () if random.chance(weather.twice) => 2,
            () => 1,
        };
        let delays: Vec<Duration> = (0..copies)
            .map(|_| match () {
                () if random.chance(weather.late) => late(random),
                () if random.chance(weather.slow) => random.millis(10, 1500),
                () if odd && random.chance(weather.odd.slow) => random.millis(10, 3000),
                () => random.duration(Duration::from_micros(20), self.usual),
            })
            .collect();
        delays.into_iter()
    }

    pub(crate) fn heal(&mut self) {
        self.weather = Weather::default();
        self.blocked.clear();
        self.silent.clear();
        self.narrow.clear();
    }

    /// Cuts a replica off for good: from what the others say, from being heard, or from both; or only its large
    /// messages are lost.
    pub(crate) fn set_apart(&mut self, id: ReplicaId, random: &mut Random) {
        let way = random.below(4);
        if way == 3 {
            self.narrow_for_good.insert(id);
            return;
        }
        if way != 0 {
            self.deaf.insert(id);
        }
        if way != 1 {
            self.mute.insert(id);
        }
    }

    /// Cuts a replica off until all is healed.
    pub(crate) fn silence(&mut self, id: ReplicaId) {
        self.silent.insert(id);
    }

    /// From now on the large messages of a replica are lost and all others are not, as behind a tunnel that
    /// drops what does not fit; or no longer.
    pub(crate) fn toggle_narrow(&mut self, id: ReplicaId) {
        if !self.narrow.remove(&id) {
            self.narrow.insert(id);
        }
    }

    /// Puts up a partition of some shape.
    pub(crate) fn partition(&mut self, ids: &[ReplicaId], master: Option<ReplicaId>, random: &mut Random) {
        self.blocked.clear();
        let pick = |random: &mut Random| ids[random.below(ids.len() as u64) as usize];
        match random.below(8) {
            // Two sides.
            0 | 1 => {
                let left: BTreeSet<_> = ids.iter().copied().filter(|_| random.chance(500)).collect();
                self.keep(ids, |a, b| left.contains(&a) == left.contains(&b));
            }
            // Some directions only.
            2 => {
                let share = random.below(600);
                let cut: BTreeSet<_> = pairs(ids).filter(|_| random.chance(share)).collect();
                self.keep(ids, |a, b| !cut.contains(&(a, b)));
            }
            // Everybody hears but one, who is heard by nobody; or the other way round.
            3 => {
                let (one, out) = (master.unwrap_or_else(|| pick(random)), random.chance(500));
                self.keep(ids, |a, b| if out { a != one } else { b != one });
            }
            // Quorum loss: only one is connected to all others.
            4 => {
                let hub = pick(random);
                self.keep(ids, |a, b| a == hub || b == hub);
            }
            // Chained: each hears only its neighbours.
            5 => {
                let place = |id| ids.iter().position(|other| *other == id).unwrap_or(0);
                self.keep(ids, |a, b| place(a).abs_diff(place(b)) == 1);
            }
            // Constrained election: the master is cut off from all but one.
            6 => {
                let (one, other) = (master.unwrap_or_else(|| pick(random)), pick(random));
                self.keep(ids, |a, b| (a != one && b != one) || a == other || b == other);
            }
            _ => {}
        }
    }

    /// Leaves the master of a cell that changes its members with few others: the one that is new, perhaps.
    pub(crate) fn split(
        &mut self,
        ids: &[ReplicaId],
        master: ReplicaId,
        new: ReplicaId,
        random: &mut Random,
    ) {
        let with: BTreeSet<_> =
            ids.iter().copied().filter(|_| random.chance(250)).chain([master, new]).collect();
        self.keep(ids, |a, b| with.contains(&a) == with.contains(&b));
    }

    fn keep(&mut self, ids: &[ReplicaId], connected: impl Fn(ReplicaId, ReplicaId) -> bool) {
        self.blocked = pairs(ids).filter(|(a, b)| !connected(*a, *b)).collect();
    }
}

/// Long after it was sent: mostly within the life of a master or two, sometimes minutes.
fn late(random: &mut Random) -> Duration {
    let most = if random.chance(700) { 12_000 } else { 150_000 };
    random.millis(1000, most)
}

fn pairs(ids: &[ReplicaId]) -> impl Iterator<Item = (ReplicaId, ReplicaId)> {
    ids.iter().flat_map(move |a| ids.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
}

/// Whether a message may be larger than a packet: it carries a command, or a part of a snapshot.
pub(crate) fn is_large(message: &Message) -> bool {
    let is_command = |value: &Value| matches!(value, Value::Command(_));
    match message {
        Message::Accept { values, .. } => values.iter().any(is_command),
        Message::Promise { accepted: values, .. } | Message::Learn { chosen: values, .. } => {
            values.iter().any(|one| is_command(&one.value))
        }
        Message::Chunk { .. } => true,
        _ => false,
    }
}

/// Which kind of message it is, for [`Odd`].
pub(crate) fn kind_of(message: &Message) -> u64 {
    match message {
        Message::Ask { .. } => 1,
        Message::Answer { .. } => 2,
        Message::Prepare { .. } => 3,
        Message::Promise { .. } => 4,
        Message::Accept { .. } => 5,
        Message::Accepted { .. } => 6,
        Message::Heartbeat { .. } => 7,
        Message::Granted { .. } => 8,
        Message::Refused { .. } => 9,
        Message::Fetch { .. } => 10,
        Message::Learn { .. } => 11,
        Message::Truncated { .. } => 12,
        Message::FetchChunk { .. } => 13,
        Message::Chunk { .. } => 14,
        Message::TakeOver { .. } => 15,
        Message::Restored { .. } => 16,
    }
}
