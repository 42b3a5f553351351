//! The faults of replicas and their network, the same in both worlds.

use crate::network::{Network, Weather};
use crate::random::Random;
use wombat_proto::ReplicaId;

/// A kind of fault. `Other`: the kinds that only one world has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault<Other> {
    /// A replica dies and comes back.
    Kill,
    /// Several die at once, perhaps all.
    KillMany,
    /// A replica stops for a while and goes on, perhaps long after its lease has ended.
    Pause,
    /// The network between replicas falls apart, or is whole again.
    Partition,
    /// The quality of the network changes.
    Weather,
    /// Large messages of a replica to others are lost, or no longer.
    Narrow,
    /// The master is asked to hand over.
    Transfer,
    /// A replica writes a snapshot.
    Snapshot,
    /// A disk becomes slow, or fast again.
    SlowDisk,
    /// A copy of a disk is made or, if there is one already, put in the place of the disk.
    Rollback,
    /// One of the world's own.
    Other(Other),
}

/// A world whose replicas have faults.
pub(crate) trait FaultyWorld {
    /// The kinds of fault that only this world has.
    type Other: Copy + std::fmt::Debug;

    /// A fault, if the run has any.
    fn draw_fault(&mut self) -> Option<Fault<Self::Other>>;
    fn network(&mut self) -> (&mut Network, &mut Random);
    /// The replicas that can have faults.
    fn replicas(&self) -> Vec<ReplicaId>;
    fn master(&self) -> Option<ReplicaId>;
    fn kill(&mut self, id: ReplicaId);
    fn pause(&mut self, id: ReplicaId);
    fn transfer(&mut self, id: ReplicaId);
    fn snapshot(&mut self, id: ReplicaId);
    fn has_slow_disk(&self, id: ReplicaId) -> bool;
    fn set_slow_disk(&mut self, id: ReplicaId, slow: bool);
    fn roll_back(&mut self, id: ReplicaId);
    fn strike_other(&mut self, fault: Self::Other, id: ReplicaId);
}

/// What happens next, and to which replica: often to the master, whose faults matter most.
pub(crate) fn draw<W: FaultyWorld>(world: &mut W) -> Option<(Fault<W::Other>, ReplicaId)> {
    let fault = world.draw_fault()?;
    let (ids, master) = (world.replicas(), world.master());
    let (_, random) = world.network();
    let some = ids[random.below(ids.len() as u64) as usize];
    Some((fault, master.filter(|_| random.chance(400)).unwrap_or(some)))
}

/// A fault happens to a replica, or begins with it.
pub(crate) fn strike<W: FaultyWorld>(world: &mut W, fault: Fault<W::Other>, one: ReplicaId) {
    match fault {
        Fault::Kill => world.kill(one),
        Fault::KillMany => {
            let share = 300 + world.network().1.below(701);
            for id in world.replicas() {
                if world.network().1.chance(share) {
                    world.kill(id);
                }
            }
        }
        Fault::Pause => world.pause(one),
        Fault::Partition => {
            let (ids, master) = (world.replicas(), world.master());
            let (network, random) = world.network();
            network.partition(&ids, master, random);
        }
        Fault::Weather => {
            let (network, random) = world.network();
            network.weather = Weather::draw(random);
        }
        Fault::Narrow => world.network().0.toggle_narrow(one),
        Fault::Transfer => world.transfer(one),
        Fault::Snapshot => world.snapshot(one),
        Fault::SlowDisk => {
            let slow = !world.has_slow_disk(one);
            let all = world.network().1.chance(300);
            for id in world.replicas() {
                if all || id == one {
                    world.set_slow_disk(id, slow);
                }
            }
        }
        Fault::Rollback => world.roll_back(one),
        Fault::Other(fault) => world.strike_other(fault, one),
    }
}
