//! What is under way: the answer to a read that an invalidation has overtaken, or a change of the client's own,
//! may be older than it looks.

use alloc::collections::BTreeMap;
use wombat_proto::wire::open::Create;
use wombat_proto::wire::request::Call;
use wombat_proto::{CacheKey, Facet, Instance};

/// The reads and the client's own changes that have not been answered, by their numbers.
#[derive(Clone, Default, Debug)]
pub(super) struct Flight {
    reads: BTreeMap<u64, Read>,
    /// Of nodes whose copy here the client drops itself: the master does not tell it to.
    changes: BTreeMap<u64, Instance>,
}

#[derive(Clone, Debug)]
struct Read {
    about: About,
    overtaken: bool,
}

#[derive(Clone, Debug)]
enum About {
    Key(CacheKey),
    /// Whether a name exists; in which directory only the answer tells.
    Name,
}

impl Flight {
    /// A call was taken in.
    pub(super) fn took_off(&mut self, number: u64, call: &Call) {
        let node =
            |handle: Option<_>| handle.map(|handle: wombat_proto::wire::Handle| Instance(handle.instance));
        let about = match call {
            Call::GetContents(get) => node(get.handle).map(CacheKey::node).map(About::Key),
            Call::GetStat(get) => node(get.handle).map(CacheKey::node).map(About::Key),
            Call::ReadDir(read) => node(read.handle).map(CacheKey::listing).map(About::Key),
            // A relative name would not be found again: it is cached for whole paths only.
            Call::Open(open) if open.create() == Create::Never && open.directory.is_none() => {
                Some(About::Name)
            }
            _ => None,
        };
        let Some(about) = about else { return };
        let changing = |key: &CacheKey| self.changes.values().any(|changed| *key == CacheKey::node(*changed));
        let overtaken = matches!(&about, About::Key(key) if changing(key));
        self.reads.insert(number, Read { about, overtaken });
    }

    /// A change is sent. Returns the node whose copy here must go with it.
    pub(super) fn changes(&mut self, number: u64, call: &Call) -> Option<Instance> {
        let handle = match call {
            Call::SetContents(set) => set.handle,
            Call::Delete(delete) => delete.handle,
            _ => None,
        };
        let instance = Instance(handle?.instance);
        self.changes.insert(number, instance);
        self.overtake(&CacheKey::node(instance));
        Some(instance)
    }

    /// What reads that are under way say of this may be untrue.
    pub(super) fn overtake(&mut self, key: &CacheKey) {
        let absence = matches!(key.facet, Facet::Absence(_) | Facet::AnyAbsence);
        for read in self.reads.values_mut() {
            read.overtaken |= match &read.about {
                About::Key(about) => key.covers(about),
                About::Name => absence,
            };
        }
    }

    /// What reads that are under way say of anything may be untrue.
    pub(super) fn overtake_all(&mut self) {
        self.reads.values_mut().for_each(|read| read.overtaken = true);
    }

    /// A call was answered. Returns whether it was a read that nothing has overtaken.
    pub(super) fn landed(&mut self, number: u64) -> bool {
        self.changes.remove(&number);
        self.reads.remove(&number).is_some_and(|read| !read.overtaken)
    }
}
