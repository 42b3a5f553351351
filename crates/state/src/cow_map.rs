//! An ordered map whose clones share everything that neither has changed: a B-tree with shared nodes. A clone
//! copies one pointer, and a change copies only the nodes on the path to the entry, and only while a clone still
//! shares them. So a snapshot of millions of nodes, and the way back from a failed Multi, cost next to nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Bound;

/// Most entries of one tree node.
const MAX_ENTRIES: usize = 64;
/// A tree node with fewer entries is merged with a neighbour, if both fit into one.
const MIN_ENTRIES: usize = 16;

/// A map in the order of its keys.
pub struct CowMap<K, V> {
    root: Option<Arc<TreeNode<K, V>>>,
    len: usize,
}

/// A node of the B-tree. Invariant: no node is empty, and all leaves have the same depth.
#[derive(Clone)]
enum TreeNode<K, V> {
    Leaf(Vec<(K, V)>),
    /// Each child with a lower bound of its keys, which is above every key of the child before it. The bound of
    /// the first child is not used: it takes every smaller key.
    Branch(Vec<Child<K, V>>),
}

/// A child of a branch, and a lower bound of its keys.
type Child<K, V> = (K, Arc<TreeNode<K, V>>);

use TreeNode::{Branch, Leaf};

impl<K, V> TreeNode<K, V> {
    fn len(&self) -> usize {
        match self {
            Leaf(entries) => entries.len(),
            Branch(children) => children.len(),
        }
    }
}

/// The place of the child that a key belongs to.
fn place_of<K: Ord, V>(children: &[Child<K, V>], key: &K) -> usize {
    children[1..].partition_point(|(bound, _)| bound <= key)
}

/// Moves the upper half of the entries to a new node; after an insertion at the end only the last one, so that
/// keys that only grow fill their nodes.
fn split<K: Clone, T>(entries: &mut Vec<(K, T)>, inserted_at: usize) -> (K, Vec<(K, T)>) {
    let at = if inserted_at + 1 == entries.len() { inserted_at } else { entries.len() / 2 };
    let upper = entries.split_off(at);
    (upper[0].0.clone(), upper)
}

/// A node that was split off, with the lower bound of its keys.
type Upper<K, V> = Option<Child<K, V>>;

impl<K: Ord + Clone, V: Clone> TreeNode<K, V> {
    fn insert(&mut self, key: K, value: V) -> (Option<V>, Upper<K, V>) {
        match self {
            Leaf(entries) => match entries.binary_search_by(|(other, _)| other.cmp(&key)) {
                Ok(at) => (Some(core::mem::replace(&mut entries[at].1, value)), None),
                Err(at) => {
                    entries.insert(at, (key, value));
                    let full = entries.len() > MAX_ENTRIES;
                    let upper = full.then(|| split(entries, at));
                    (None, upper.map(|(bound, upper)| (bound, Arc::new(Leaf(upper)))))
                }
            },
            Branch(children) => {
                let at = place_of(children, &key);
                let (earlier, upper) = Arc::make_mut(&mut children[at].1).insert(key, value);
                let Some(upper) = upper else { return (earlier, None) };
                children.insert(at + 1, upper);
                let full = children.len() > MAX_ENTRIES;
                let upper = full.then(|| split(children, at + 1));
                (earlier, upper.map(|(bound, upper)| (bound, Arc::new(Branch(upper)))))
            }
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Leaf(entries) => {
                let at = entries.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
                Some(entries.remove(at).1)
            }
            Branch(children) => {
                let at = place_of(children, key);
                let removed = Arc::make_mut(&mut children[at].1).remove(key)?;
                match children[at].1.len() {
                    0 => drop(children.remove(at)),
                    len if len < MIN_ENTRIES => merge_one_of(children, at),
                    _ => {}
                }
                Some(removed)
            }
        }
    }

    /// Takes in the entries of the next node, whose keys are at or above `bound`.
    fn append(&mut self, bound: K, next: &Arc<TreeNode<K, V>>) {
        match (self, &**next) {
            (Leaf(entries), Leaf(more)) => entries.extend_from_slice(more),
            (Branch(children), Branch(more)) => {
                let seam = children.len();
                children.extend_from_slice(more);
                children[seam].0 = bound;
            }
            _ => unreachable!("all leaves have the same depth"),
        }
    }
}

/// Merges the child at that place with the one before or after it, if one node can hold the entries of both.
fn merge_one_of<K: Ord + Clone, V: Clone>(children: &mut Vec<Child<K, V>>, at: usize) {
    let fits = |first: usize| {
        first + 1 < children.len() && children[first].1.len() + children[first + 1].1.len() <= MAX_ENTRIES
    };
    let Some(first) = [at.checked_sub(1), Some(at)].into_iter().flatten().find(|first| fits(*first)) else {
        return;
    };
    let (bound, next) = children.remove(first + 1);
    Arc::make_mut(&mut children[first].1).append(bound, &next);
}

impl<K, V> CowMap<K, V> {
    /// The empty map.
    pub const fn new() -> CowMap<K, V> {
        CowMap { root: None, len: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter(), left: Some(self.len) };
        if let Some(root) = &self.root {
            iter.descend(root, |_| 0, |_| 0);
        }
        iter
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> CowMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Leaf(entries) => {
                    let at = entries.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
                    return Some(&entries[at].1);
                }
                Branch(children) => node = &children[place_of(children, key)].1,
            }
        }
    }

    /// Whether the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entries from a bound on, in the order of their keys.
    pub fn iter_from(&self, from: Bound<&K>) -> Iter<'_, K, V> {
        let (key, skips_it) = match from {
            Bound::Unbounded => return self.iter(),
            Bound::Included(key) => (key, false),
            Bound::Excluded(key) => (key, true),
        };
        let mut iter = Iter { branches: Vec::new(), leaf: [].iter(), left: None };
        let before = |other: &K| if skips_it { other <= key } else { other < key };
        if let Some(root) = &self.root {
            iter.descend(
                root,
                |children| place_of(children, key),
                |entries| entries.partition_point(|(other, _)| before(other)),
            );
        }
        iter
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let mut node = Arc::make_mut(self.root.as_mut()?);
        loop {
            match node {
                Leaf(entries) => {
                    let at = entries.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
                    return Some(&mut entries[at].1);
                }
                Branch(children) => {
                    let at = place_of(children, key);
                    node = Arc::make_mut(&mut children[at].1);
                }
            }
        }
    }

    /// Gives a key its value. Returns the earlier one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(Leaf([(key, value)].into())));
            self.len = 1;
            return None;
        };
        let first = key.clone();
        let (earlier, upper) = Arc::make_mut(root).insert(key, value);
        if let Some(upper) = upper {
            let lower = Arc::clone(root);
            *root = Arc::new(Branch([(first, lower), upper].into()));
        }
        self.len += usize::from(earlier.is_none());
        earlier
    }

    /// Removes a key. Returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains_key(key) {
            return None; // Nothing is copied for it.
        }
        let root = self.root.as_mut()?;
        let removed = Arc::make_mut(root).remove(key)?;
        self.len -= 1;
        match &**root {
            _ if self.len == 0 => self.root = None,
            Branch(children) if children.len() == 1 => self.root = Some(Arc::clone(&children[0].1)),
            _ => {}
        }
        Some(removed)
    }
}

/// The entries of a map, in the order of their keys.
#[derive(Clone)]
pub struct Iter<'a, K, V> {
    /// What is left of the branches above the leaf, the uppermost first.
    branches: Vec<core::slice::Iter<'a, Child<K, V>>>,
    leaf: core::slice::Iter<'a, (K, V)>,
    /// How many entries are left, if it began with the first.
    left: Option<usize>,
}

impl<'a, K, V> Iter<'a, K, V> {
    /// Goes down to a leaf, and begins in each node where it is told to.
    fn descend(
        &mut self,
        mut node: &'a TreeNode<K, V>,
        child_at: impl Fn(&[Child<K, V>]) -> usize,
        entry_at: impl Fn(&[(K, V)]) -> usize,
    ) {
        loop {
            match node {
                Leaf(entries) => {
                    self.leaf = entries[entry_at(entries)..].iter();
                    return;
                }
                Branch(children) => {
                    let mut rest = children[child_at(children)..].iter();
                    let Some((_, child)) = rest.next() else { return };
                    self.branches.push(rest);
                    node = child;
                }
            }
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        loop {
            if let Some((key, value)) = self.leaf.next() {
                self.left = self.left.map(|left| left - 1);
                return Some((key, value));
            }
            let (_, child) = loop {
                match self.branches.last_mut()?.next() {
                    Some(child) => break child,
                    None => drop(self.branches.pop()),
                }
            };
            self.descend(child, |_| 0, |_| 0);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.unwrap_or(0), self.left)
    }
}

impl<K, V> Clone for CowMap<K, V> {
    fn clone(&self) -> Self {
        CowMap { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        CowMap::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, K, V> IntoIterator for &'a CowMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for CowMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = CowMap::new();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    /// How many tree nodes this map does not share with another.
    pub(crate) fn nodes_not_shared_with(&self, other: &Self) -> usize {
        use alloc::collections::BTreeSet;
        fn walk<K, V>(node: &Arc<TreeNode<K, V>>, visit: &mut impl FnMut(usize) -> bool) {
            if !visit(Arc::as_ptr(node) as usize) {
                return;
            }
            if let Branch(children) = &**node {
                children.iter().for_each(|(_, child)| walk(child, visit));
            }
        }
        let mut known = BTreeSet::new();
        other.root.iter().for_each(|root| walk(root, &mut |at| known.insert(at)));
        let mut own = 0;
        let mut count = |at| {
            let is_own = !known.contains(&at);
            own += usize::from(is_own);
            is_own
        };
        self.root.iter().for_each(|root| walk(root, &mut count));
        own
    }

    fn check(&self) {
        fn walk<K: Ord, V>(node: &TreeNode<K, V>, low: Option<&K>, high: Option<&K>) -> (usize, usize) {
            assert!(node.len() > 0 && node.len() <= MAX_ENTRIES);
            let inside = |key: &K| low.is_none_or(|low| low <= key) && high.is_none_or(|high| key < high);
            match node {
                Leaf(entries) => {
                    assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
                    assert!(entries.iter().all(|(key, _)| inside(key)));
                    (1, entries.len())
                }
                Branch(children) => {
                    let (mut depth, mut len) = (None, 0);
                    for (at, (bound, child)) in children.iter().enumerate() {
                        let low = if at == 0 { low } else { Some(bound) };
                        let next = children.get(at + 1).map(|(bound, _)| bound);
                        let (below, entries) = walk(child, low, next.or(high));
                        assert_eq!(*depth.get_or_insert(below), below, "all leaves have the same depth");
                        len += entries;
                    }
                    (depth.unwrap() + 1, len)
                }
            }
        }
        let len = self.root.as_ref().map_or(0, |root| walk(root, None, None).1);
        assert_eq!(len, self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use wombat_proto::SplitMix64;

    /// Compares a map with the standard library's, and its clones with what they were when they were made.
    fn check_against_model(seed: u64, keys: u64, steps: usize, inserts_of_ten: u64) {
        let mut random = SplitMix64::new(seed);
        let (mut map, mut model) = (CowMap::new(), BTreeMap::new());
        let mut clones = Vec::new();
        for step in 0..steps {
            let (key, value) = (random.draw() % keys, random.draw());
            match random.draw() % 10 {
                choice if choice < inserts_of_ten => {
                    assert_eq!(map.insert(key, value), model.insert(key, value));
                }
                9 if model.contains_key(&key) => {
                    *map.get_mut(&key).unwrap() = value;
                    model.insert(key, value);
                }
                _ => assert_eq!(map.remove(&key), model.remove(&key)),
            }
            assert_eq!((map.get(&key), map.len()), (model.get(&key), model.len()));
            if step.is_multiple_of(steps / 8) {
                map.check();
                assert!(map.iter().eq(model.iter()) && map.iter().size_hint().1 == Some(model.len()));
                for from in [Bound::Included(&key), Bound::Excluded(&key)] {
                    assert!(map.iter_from(from).eq(model.range((from, Bound::Unbounded))));
                }
                clones.push((map.clone(), model.clone()));
            }
        }
        map.check();
        for (map, model) in clones {
            map.check();
            assert!(map.iter().eq(model.iter()), "a clone stays as it was");
        }
    }

    #[test]
    fn map_random_operations_equal_std() {
        for seed in 0..40 {
            check_against_model(seed, 20_000, 12_000, 8);
            check_against_model(seed, 200, 4_000, 5);
            check_against_model(seed, 3_000, 12_000, 4);
        }
    }

    #[test]
    fn map_filled_and_emptied_in_any_order_stays_sound() {
        for (seed, rising) in [(1, true), (2, false)] {
            let mut random = SplitMix64::new(seed);
            let mut keys: Vec<u64> = (0..10_000).map(|at| if rising { at } else { random.draw() }).collect();
            let mut map: CowMap<u64, u64> = keys.iter().map(|key| (*key, *key)).collect();
            map.check();
            while !keys.is_empty() {
                let key = keys.swap_remove((random.draw() % keys.len() as u64) as usize);
                assert_eq!(map.remove(&key), Some(key));
                if keys.len().is_multiple_of(997) {
                    map.check();
                }
            }
            assert!(map.is_empty() && map.root.is_none());
        }
    }

    #[test]
    fn map_change_after_clone_copies_one_path() {
        let mut map: CowMap<u64, u64> = (0..1_000_000).map(|key| (key, key)).collect();
        let before = map.clone();
        assert_eq!(map.nodes_not_shared_with(&before), 0);
        map.insert(500_000, 0);
        map.remove(&1);
        let copied = map.nodes_not_shared_with(&before);
        assert!(copied <= 10, "{copied} tree nodes were copied");
    }
}
