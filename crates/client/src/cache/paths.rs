//! Values that are found by a path, by any thread and without a lock.

use arc_swap::ArcSwapOption;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, OnceLock};

/// Something that is found by its path.
pub(crate) trait AtPath {
    /// The whole path.
    fn path(&self) -> &str;
}

/// A table of buckets, each replaced as a whole by whoever changes it. It takes memory from the first value on.
pub(crate) struct Paths<V> {
    hasher: RandomState,
    buckets: usize,
    table: OnceLock<Box<[Bucket<V>]>>,
    /// Who has it may replace buckets.
    changing: Mutex<()>,
}

/// The values whose paths hash to one place, with their hashes.
type Bucket<V> = ArcSwapOption<Vec<(u64, Arc<V>)>>;

impl<V: AtPath> Paths<V> {
    pub(crate) fn new(buckets: usize) -> Paths<V> {
        Paths { hasher: RandomState::new(), buckets, table: OnceLock::new(), changing: Mutex::new(()) }
    }

    /// What `pick` makes of the first value at this path of which it makes anything.
    pub(crate) fn find<T>(&self, path: &str, pick: impl Fn(&Arc<V>) -> Option<T>) -> Option<T> {
        let table = self.table.get()?;
        let hash = self.hasher.hash_one(path);
        let bucket = table[hash as usize % table.len()].load();
        let at_path = |(of, value): &&(u64, Arc<V>)| *of == hash && value.path() == path;
        bucket.as_ref()?.iter().filter(at_path).find_map(|(_, value)| pick(value))
    }

    /// Adds a value, in the place of those at its path that it `replaces`.
    pub(crate) fn insert(&self, value: Arc<V>, replaces: impl Fn(&V) -> bool) {
        let hash = self.hasher.hash_one(value.path());
        self.change(hash, |values| {
            values.retain(|(of, other)| *of != hash || other.path() != value.path() || !replaces(other));
            values.push((hash, value));
        });
    }

    /// Removes those values at a path that are `gone`.
    pub(crate) fn remove(&self, path: &str, gone: impl Fn(&V) -> bool) {
        let hash = self.hasher.hash_one(path);
        self.change(hash, |values| {
            values.retain(|(of, value)| *of != hash || value.path() != path || !gone(value));
        });
    }

    /// Removes everything.
    pub(crate) fn clear(&self) {
        let _changing = self.changing.lock().expect("nobody panics with it");
        for bucket in self.table.get().into_iter().flatten() {
            if bucket.load().is_some() {
                bucket.store(None);
            }
        }
    }

    fn change(&self, hash: u64, change: impl FnOnce(&mut Vec<(u64, Arc<V>)>)) {
        let _changing = self.changing.lock().expect("nobody panics with it");
        let empty = || (0..self.buckets).map(|_| Bucket::empty()).collect();
        let table = self.table.get_or_init(empty);
        let bucket = &table[hash as usize % table.len()];
        let mut values = bucket.load().as_ref().map_or_else(Vec::new, |values| values.to_vec());
        change(&mut values);
        bucket.store((!values.is_empty()).then(|| Arc::new(values)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AtPath for (&'static str, u32) {
        fn path(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn values_are_found_by_their_paths_whatever_bucket_they_share() {
        for buckets in [1, 2, 1000] {
            let paths: Paths<(&str, u32)> = Paths::new(buckets);
            let find = |path| paths.find(path, |value| Some(value.1));
            assert_eq!(find("/a"), None);
            for (number, path) in ["/a", "/b", "/c"].into_iter().enumerate() {
                paths.insert(Arc::new((path, number as u32)), |_| true);
            }
            paths.insert(Arc::new(("/b", 10)), |_| true);
            paths.insert(Arc::new(("/c", 20)), |_| false);
            assert_eq!([find("/a"), find("/b"), find("/c"), find("/d")], [Some(0), Some(10), Some(2), None]);
            assert_eq!(paths.find("/c", |value| (value.1 > 2).then_some(value.1)), Some(20));
            paths.remove("/c", |value| value.1 == 2);
            paths.remove("/a", |_| true);
            assert_eq!([find("/a"), find("/b"), find("/c")], [None, Some(10), Some(20)]);
            paths.clear();
            assert_eq!([find("/a"), find("/b"), find("/c")], [None; 3]);
        }
    }
}
