//! A count that many threads add to without getting in each other's way.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More threads than this share stripes.
const STRIPES: usize = 16;

/// A count in stripes, each on cache lines of its own. It takes memory from the first addition on.
#[derive(Default)]
pub(crate) struct Stripes(OnceLock<Box<[Stripe; STRIPES]>>);

/// Two lines of 64 bytes: processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

thread_local! {
    /// Which stripe is this thread's.
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// How many threads have one.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

impl Stripes {
    /// Adds one.
    pub(crate) fn add(&self) {
        let stripes = self.0.get_or_init(Box::default);
        let mine = MINE.with(|mine| {
            if mine.get() == usize::MAX {
                mine.set(GIVEN.fetch_add(1, Ordering::Relaxed) % STRIPES);
            }
            mine.get()
        });
        stripes[mine].0.fetch_add(1, Ordering::Relaxed);
    }

    /// How much has been added.
    pub(crate) fn sum(&self) -> u64 {
        let stripes = self.0.get().into_iter().flat_map(|stripes| stripes.iter());
        stripes.map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}
