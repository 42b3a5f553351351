//! Who is there: a directory in which every member has an ephemeral file.

use crate::events::NodeEvents;
use crate::{Cell, Create, EventKind, Node, OpenOptions};
use bytes::Bytes;
use std::collections::BTreeMap;
use wombat_proto::{Error, Generation, Instance, Result};

/// A group of members, at a directory that is made if it does not exist. A member has a name and says a value;
/// it is gone when it leaves, or when its session ends.
///
/// To read a value is to open its file for a moment: two entries in the cell's log, and a member that dies in
/// that moment is there until its reader has closed it.
///
/// ```no_run
/// # use wombat_client::*;
/// # async fn example(cell: Cell) -> Result<()> {
/// let workers = Membership::new(&cell, "/ls/local/workers");
/// let member = workers.join("web-1", "10.0.0.1:8080").await?;
/// let mut changes = workers.changes().await?;
/// while let Some(change) = changes.next().await? {
///     println!("{} are there; joined: {:?}, left: {:?}", change.members.len(), change.joined, change.left);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Membership {
    cell: Cell,
    path: String,
}

/// One's own membership. Dropping it leaves in the background.
#[derive(Debug)]
pub struct Member {
    name: String,
    file: Node,
}

/// The members, and what is new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembershipChange {
    /// All members and what they say.
    pub members: BTreeMap<String, Bytes>,
    /// The names of those who have come. One who left and came again has done both.
    pub joined: Vec<String>,
    /// The names of those who are gone.
    pub left: Vec<String>,
    /// The names of those who say something else than before.
    pub updated: Vec<String>,
}

/// A member as it was seen.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    instance: Instance,
    generation: Generation,
    value: Bytes,
}

impl Membership {
    /// The group at `path`.
    pub fn new(cell: &Cell, path: &str) -> Membership {
        Membership { cell: cell.clone(), path: path.into() }
    }

    /// Becomes a member, until that is dropped or the session ends.
    ///
    /// Errors: [`Error::AlreadyExists`] while there is one of that name; that of a process which died is there
    /// until its lease has ended.
    pub async fn join(&self, name: &str, value: impl Into<Bytes>) -> Result<Member> {
        let options = OpenOptions::new().write().create(Create::Must).ephemeral().contents(value);
        let file = self.open(&[]).await?.open(name, options).await?;
        Ok(Member { name: name.into(), file })
    }

    /// The members now, and what they say.
    pub async fn members(&self) -> Result<BTreeMap<String, Bytes>> {
        Ok(values(&look(&self.open(&[]).await?, &BTreeMap::new()).await?))
    }

    /// The changes, beginning with all who are there as having joined.
    pub async fn changes(&self) -> Result<MembershipChanges> {
        let kinds = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
        let directory = self.open(&[&kinds[..], &[EventKind::HandleInvalid]].concat()).await?;
        let events = directory.events();
        let group = self.clone();
        Ok(MembershipChanges { group, directory, events, seen: BTreeMap::new(), to_look: true, begun: false })
    }

    async fn open(&self, events: &[EventKind]) -> Result<Node> {
        let options = OpenOptions::new().create(Create::May).directory().events(events);
        self.cell.open(&self.path, options).await
    }
}

impl Member {
    /// Its name in the group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says something else.
    pub async fn set(&self, value: impl Into<Bytes>) -> Result<()> {
        self.file.set(value).await.map(drop)
    }

    /// Leaves, and waits until everyone can see it.
    pub async fn leave(self) -> Result<()> {
        self.file.close().await
    }
}

/// The changes of a group, one after the other.
pub struct MembershipChanges {
    group: Membership,
    directory: Node,
    events: NodeEvents,
    /// What was told last.
    seen: BTreeMap<String, Seen>,
    /// Whether something may have changed since.
    to_look: bool,
    /// Whether anything was told yet.
    begun: bool,
}

impl MembershipChanges {
    /// The next change; `None` when the session is over. Whatever happened between two of them is told as one,
    /// and nothing is missed, over fail-overs and gaps as well: it looks at what is there and compares. The
    /// future may be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<MembershipChange>> {
        loop {
            if self.to_look {
                match self.look().await {
                    Ok(now) => {
                        let change = compare(&self.seen, &now);
                        (self.seen, self.to_look) = (now, false);
                        if !std::mem::replace(&mut self.begun, true) || change.is_one() {
                            return Ok(Some(change));
                        }
                    }
                    Err(Error::SessionExpired) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            if self.events.recv().await.is_none() {
                return Ok(None);
            }
            self.events.skip();
            self.to_look = true;
        }
    }

    /// Who is there, in a new directory if somebody deleted the old one.
    async fn look(&mut self) -> Result<BTreeMap<String, Seen>> {
        loop {
            match look(&self.directory, &self.seen).await {
                Err(Error::StaleHandle) => {
                    let again = self.group.changes().await?;
                    (self.directory, self.events) = (again.directory, again.events);
                }
                looked => return looked,
            }
        }
    }
}

impl MembershipChange {
    fn is_one(&self) -> bool {
        !(self.joined.is_empty() && self.left.is_empty() && self.updated.is_empty())
    }
}

/// Who is there now. What has not changed since it was `seen` is not read again.
async fn look(directory: &Node, seen: &BTreeMap<String, Seen>) -> Result<BTreeMap<String, Seen>> {
    let mut now = BTreeMap::new();
    for entry in directory.list().await? {
        if !entry.stat.ephemeral || entry.stat.directory {
            continue;
        }
        let (instance, generation) = (entry.stat.instance, entry.stat.content_generation);
        let known = seen.get(&entry.name);
        let known = known.filter(|seen| (seen.instance, seen.generation) == (instance, generation));
        let member = match known {
            Some(seen) => Some(seen.clone()),
            None => read(directory, &entry.name).await?,
        };
        now.extend(member.map(|member| (entry.name, member)));
    }
    Ok(now)
}

/// What a member says, if it is still there.
async fn read(directory: &Node, name: &str) -> Result<Option<Seen>> {
    let read = match directory.open(name, OpenOptions::new()).await {
        Ok(file) => file.contents().await,
        Err(error) => Err(error),
    };
    match read {
        Ok((value, stat)) => {
            Ok(Some(Seen { instance: stat.instance, generation: stat.content_generation, value }))
        }
        Err(Error::NotFound { .. }) => Ok(None),
        // The file, or the directory: the next look finds out.
        Err(Error::StaleHandle) => Ok(None),
        Err(error) => Err(error),
    }
}

fn compare(before: &BTreeMap<String, Seen>, now: &BTreeMap<String, Seen>) -> MembershipChange {
    let same = |name: &str, seen: &Seen, other: &BTreeMap<String, Seen>| {
        other.get(name).is_some_and(|other| other.instance == seen.instance)
    };
    let names = |of: &BTreeMap<String, Seen>, other: &BTreeMap<String, Seen>| {
        of.iter().filter(|(name, seen)| !same(name, seen, other)).map(|(name, _)| name.clone()).collect()
    };
    let updated = |(name, seen): &(&String, &Seen)| same(name, seen, before) && before[*name] != **seen;
    MembershipChange {
        members: values(now),
        joined: names(now, before),
        left: names(before, now),
        updated: now.iter().filter(updated).map(|(name, _)| name.clone()).collect(),
    }
}

fn values(members: &BTreeMap<String, Seen>) -> BTreeMap<String, Bytes> {
    members.iter().map(|(name, seen)| (name.clone(), seen.value.clone())).collect()
}
