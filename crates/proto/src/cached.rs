//! What a session may have cached, and what a change takes from it (P§2.7).

use crate::wire::{self, invalidation};
use crate::{Instance, Name};
use core::ops::Bound::{self, Excluded, Included};

/// One thing that a session may have cached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CacheKey {
    /// The node that it is about.
    pub instance: Instance,
    /// What of it.
    pub facet: Facet,
}

/// What of a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Facet {
    /// Its contents and its stat; that it exists at all, and so the handles on it that are kept open.
    Node,
    /// The names in a directory, with the stats of its children.
    Listing,
    /// That a directory lacks this name.
    Absence(Name),
    /// That a directory lacks any of the names that it is said to lack. The greatest of a node's.
    AnyAbsence,
}

impl CacheKey {
    /// A node's contents and stat.
    pub const fn node(instance: Instance) -> CacheKey {
        CacheKey { instance, facet: Facet::Node }
    }

    /// A directory's listing.
    pub const fn listing(instance: Instance) -> CacheKey {
        CacheKey { instance, facet: Facet::Listing }
    }

    /// That a directory lacks a name.
    pub const fn absence(directory: Instance, name: Name) -> CacheKey {
        CacheKey { instance: directory, facet: Facet::Absence(name) }
    }

    /// All that a directory lacks.
    pub const fn any_absence(directory: Instance) -> CacheKey {
        CacheKey { instance: directory, facet: Facet::AnyAbsence }
    }

    /// Whether an invalidation of this takes `other` away.
    pub fn covers(&self, other: &CacheKey) -> bool {
        let any = self.facet == Facet::AnyAbsence && matches!(other.facet, Facet::Absence(_));
        self.instance == other.instance && (any || self.facet == other.facet)
    }

    /// The keys that an invalidation of this takes away, where keys are in order.
    pub fn covered(&self) -> (Bound<CacheKey>, Bound<CacheKey>) {
        let first = match self.facet {
            Facet::AnyAbsence => Excluded(CacheKey::listing(self.instance)),
            _ => Included(self.clone()),
        };
        (first, Included(self.clone()))
    }
}

impl From<&CacheKey> for wire::Invalidation {
    fn from(key: &CacheKey) -> wire::Invalidation {
        let (what, name) = match &key.facet {
            Facet::Node => (invalidation::What::Node, ""),
            Facet::Listing => (invalidation::What::Listing, ""),
            Facet::AnyAbsence => (invalidation::What::Absence, ""),
            Facet::Absence(name) => (invalidation::What::Absence, name.as_str()),
        };
        wire::Invalidation { what: what.into(), instance: key.instance.0, name: name.into() }
    }
}

impl wire::Invalidation {
    /// One of everything.
    pub fn of_everything() -> wire::Invalidation {
        wire::Invalidation::default()
    }

    /// What it takes away; `None`: everything. So does one that this version does not understand.
    pub fn key(&self) -> Option<CacheKey> {
        let instance = Instance(self.instance);
        let facet = match self.what() {
            invalidation::What::Everything => return None,
            invalidation::What::Node => Facet::Node,
            invalidation::What::Listing => Facet::Listing,
            invalidation::What::Absence if self.name.is_empty() => Facet::AnyAbsence,
            invalidation::What::Absence => Facet::Absence(Name::parse(&self.name).ok()?),
        };
        Some(CacheKey { instance, facet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    fn absence(directory: u64, name: &str) -> CacheKey {
        CacheKey::absence(Instance(directory), Name::parse(name).unwrap())
    }

    #[test]
    fn every_key_survives_the_wire() {
        let keys = [
            CacheKey::node(Instance(3)),
            CacheKey::listing(Instance(3)),
            CacheKey::any_absence(Instance(3)),
            absence(3, "a"),
        ];
        for key in keys {
            assert_eq!(wire::Invalidation::from(&key).key(), Some(key));
        }
        assert_eq!(wire::Invalidation::of_everything().key(), None);
        let unknown = wire::Invalidation { what: 99, instance: 3, name: "a".into() };
        assert_eq!(unknown.key(), None);
    }

    #[test]
    fn any_absence_covers_every_name_of_its_directory_and_nothing_else() {
        let longest = "\u{10ffff}".repeat(63) + "~~~";
        let names: Vec<CacheKey> =
            ["!", "a", "zz", longest.as_str()].iter().map(|name| absence(3, name)).collect();
        let others =
            [absence(2, "a"), absence(4, "a"), CacheKey::node(Instance(3)), CacheKey::listing(Instance(3))];
        let all: BTreeSet<CacheKey> = names.iter().chain(&others).cloned().collect();
        let any = CacheKey::any_absence(Instance(3));
        let covered: Vec<CacheKey> = all.range(any.covered()).cloned().collect();
        assert_eq!(covered, names);
        for key in &all {
            assert_eq!(any.covers(key), names.contains(key), "{key:?}");
            assert!(key.covers(key), "{key:?}");
        }
        assert!(!absence(3, "a").covers(&absence(3, "b")));
    }
}
