//! Bugs to have on purpose: each must be found by the simulator (`wombat-sim plants`).

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Plant {
    /// A promise is told before it is durable.
    PromiseNotSynced,
    /// A candidate counts its own promise before it is durable.
    OwnPromiseNotSynced,
    /// An acceptance is told before it is durable.
    AcceptNotSynced,
    /// A lease is granted under a promise that is not durable.
    GrantNotSynced,
    /// Values of a ballot lower than the promise are accepted.
    AcceptBelowPromise,
    /// A lease that was granted does not keep from promising to another.
    LeaseIgnored,
    /// The master's lease is timed from when the grant came in.
    LeaseFromReceipt,
    /// The lease is not shortened by what clocks may differ.
    DriftIgnored,
    /// No silence after a restart.
    NoSilence,
    /// A master without a quorum goes on, though its lease is over.
    LapseIgnored,
    /// A master serves before its own first value is chosen.
    BarrierIgnored,
    /// Gaps that phase 1 finds are left open.
    GapSkipped,
    /// A replica that missed values acknowledges those behind them.
    GapIgnored,
    /// What the master says is chosen is taken from the log whatever ballot it has there.
    ChosenUnchecked,
    /// Acknowledgements of an older ballot count.
    OldAcceptCounted,
    /// One acknowledgement is enough.
    MinorityChooses,
    /// Values are counted by the voters before a change of members.
    OldQuorumCounted,
    /// Only the newest members are asked in phase 1.
    OneConfigurationPrepared,
    /// Only the newest members grant the lease.
    OneConfigurationLeased,
    /// Values go to new voters that have not promised.
    NewVotersUnprepared,
    /// A chosen value that is learned does not replace another that was accepted.
    LearnKeepsOld,
    /// A snapshot is put over a newer state.
    SnapshotOverNewer,
    /// A master vouches for what it knows though its lease is over.
    VouchedUnleased,
    /// What a master vouches for is counted from when that comes in.
    VouchedFromReceipt,
    /// What a master vouches for is taken for known though it is not yet.
    VouchedUnreached,
    /// Marks begin anew after a restart.
    MarksRepeat,
    /// A master stays though none of its proposals is chosen.
    StallIgnored,
    /// A lease that is granted for less time replaces one that was granted for more.
    ShorterGrantReplaces,
    /// A replica whose disk is a copy votes.
    CopyVotes,
    /// A replica whose disk is a copy is elected by a quorum, not by everyone.
    CopyElected,
    /// A replica whose disk is a copy serves whichever master there is.
    CopyTrusts,
    /// A master reinstates such a replica under the ballot that it has.
    CopyTrusted,
    /// Such a replica votes again before it knows what was chosen.
    CopyReinstatedEarly,
}

impl core::str::FromStr for Plant {
    type Err = &'static str;

    /// By its name, as it is spelt here.
    fn from_str(name: &str) -> Result<Plant, &'static str> {
        let named = Plant::ALL.into_iter().find(|plant| alloc::format!("{plant:?}") == name);
        named.ok_or("there is no planted bug of that name")
    }
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 33] = [
        Plant::PromiseNotSynced,
        Plant::OwnPromiseNotSynced,
        Plant::AcceptNotSynced,
        Plant::GrantNotSynced,
        Plant::AcceptBelowPromise,
        Plant::LeaseIgnored,
        Plant::LeaseFromReceipt,
        Plant::DriftIgnored,
        Plant::NoSilence,
        Plant::LapseIgnored,
        Plant::BarrierIgnored,
        Plant::GapSkipped,
        Plant::GapIgnored,
        Plant::ChosenUnchecked,
        Plant::OldAcceptCounted,
        Plant::MinorityChooses,
        Plant::OldQuorumCounted,
        Plant::OneConfigurationPrepared,
        Plant::OneConfigurationLeased,
        Plant::NewVotersUnprepared,
        Plant::LearnKeepsOld,
        Plant::SnapshotOverNewer,
        Plant::VouchedUnleased,
        Plant::VouchedFromReceipt,
        Plant::VouchedUnreached,
        Plant::MarksRepeat,
        Plant::StallIgnored,
        Plant::ShorterGrantReplaces,
        Plant::CopyVotes,
        Plant::CopyElected,
        Plant::CopyTrusts,
        Plant::CopyTrusted,
        Plant::CopyReinstatedEarly,
    ];
}
