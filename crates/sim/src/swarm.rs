//! Swarm testing: each run has some kinds of faults and leaves others out, so that no kind hides behind another.

use crate::random::Random;

/// How often each kind of fault is drawn in a run.
pub(crate) struct Weights<F, const N: usize> {
    kinds: [F; N],
    weights: [u64; N],
}

impl<F: Copy, const N: usize> Weights<F, N> {
    /// Half of the kinds, each with a weight of its own.
    pub(crate) fn draw(kinds: [F; N], random: &mut Random) -> Weights<F, N> {
        let weights = std::array::from_fn(|_| if random.chance(500) { 1 + random.below(9) } else { 0 });
        Weights { kinds, weights }
    }

    /// No kind at all.
    pub(crate) fn none(kinds: [F; N]) -> Weights<F, N> {
        Weights { kinds, weights: [0; N] }
    }

    /// A kind of fault, if the run has any.
    pub(crate) fn pick(&self, random: &mut Random) -> Option<F> {
        random.weighted(&self.weights).map(|place| self.kinds[place])
    }
}
