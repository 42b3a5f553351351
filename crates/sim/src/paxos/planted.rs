//! A bug to have on purpose. Without the feature `plant` there is none.

#[cfg(feature = "plant")]
pub(crate) type Planted = wombat_paxos::Plant;
#[cfg(not(feature = "plant"))]
pub(crate) type Planted = std::convert::Infallible;
