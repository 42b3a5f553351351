//! Whose data a directory holds, in words that people can read.

use crate::disk::{Disk, DiskFile};
use crate::error::StorageError;
use crate::whole_file::write_whole;
use wombat_proto::{CellName, ReplicaId};

pub(crate) const FILE: &str = "identity";
pub(crate) const TEMPORARY: &str = "identity.new";
const TITLE: &str = "Wombat data directory";
const FORMAT: &str = "1";

/// Whose data it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cell's name.
    pub cell: CellName,
    /// The cell's random id, in hex, so that two cells of one name are told apart.
    pub cell_id: String,
    /// The replica within the cell.
    pub replica: ReplicaId,
    /// How the replica came into the cell.
    pub origin: Origin,
}

/// How a replica came into its cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It founded the cell alone.
    Alone,
    /// It founded the cell together with others.
    Founder {
        /// The addresses of all founders, by id.
        founders: Vec<String>,
        /// What it threw in to make the cell's id, in hex.
        nonce: String,
    },
    /// It joined the cell later.
    Joined,
}

impl Identity {
    /// The identity of a replica that founds a cell alone.
    pub fn alone(cell: CellName, cell_id: String) -> Identity {
        Identity { cell, cell_id, replica: ReplicaId(1), origin: Origin::Alone }
    }

    fn to_text(&self) -> String {
        let Identity { cell, cell_id, replica, origin } = self;
        let mut body =
            format!("{TITLE}\nformat {FORMAT}\ncell {cell}\ncell-id {cell_id}\nreplica {replica}\n");
        match origin {
            Origin::Alone => {}
            Origin::Founder { founders, nonce } => {
                body += &format!("nonce {nonce}\n");
                body.extend(founders.iter().map(|address| format!("founder {address}\n")));
            }
            Origin::Joined => body += "joined later\n",
        }
        let crc = crc32fast::hash(body.as_bytes());
        format!("{body}crc {crc:08x}\n")
    }

    /// The identity of a data directory; `None` if nothing is founded in it.
    pub fn of<D: Disk>(disk: &D) -> Result<Option<Identity>, StorageError> {
        let names = disk.list().map_err(|error| StorageError::io(disk.describe(""), "list", error))?;
        if names.iter().any(|name| name == FILE) { Identity::read(disk).map(Some) } else { Ok(None) }
    }

    /// Makes a directory's identity durable, whole or not at all.
    pub(crate) fn write<D: Disk>(&self, disk: &D) -> Result<(), StorageError> {
        write_whole(disk, FILE, TEMPORARY, &self.to_text())
    }

    /// Reads a directory's identity.
    pub(crate) fn read<D: Disk>(disk: &D) -> Result<Identity, StorageError> {
        let shown = disk.describe(FILE);
        let file = disk.open(FILE).map_err(|error| StorageError::io(&shown, "open", error))?;
        let bytes = file.read_all().map_err(|error| StorageError::io(&shown, "read", error))?;
        let damaged = || StorageError::damaged(&shown, 0, "it is not as it was written");
        let text = String::from_utf8(bytes).map_err(|_| damaged())?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        // A later format may look different in all but these two lines.
        if text.lines().next() == Some(TITLE)
            && let Some(found) = field("format").filter(|found| *found != FORMAT)
        {
            return Err(StorageError::OtherFormat { file: shown.clone(), found: found.into() });
        }
        let all = |name: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let origin = match (field("nonce"), field("joined")) {
            (Some(nonce), _) => Origin::Founder { founders: all("founder"), nonce: nonce.into() },
            (None, Some(_)) => Origin::Joined,
            (None, None) => Origin::Alone,
        };
        let parse = || {
            Some(Identity {
                origin,
                cell: CellName::parse(field("cell")?).ok()?,
                cell_id: field("cell-id")?.into(),
                replica: ReplicaId(field("replica")?.parse().ok()?),
            })
        };
        let identity = parse().ok_or_else(damaged)?;
        if identity.to_text() == text { Ok(identity) } else { Err(damaged()) }
    }

    /// Refuses a directory of somebody else's.
    pub(crate) fn check<D: Disk>(&self, disk: &D, wanted: &Identity) -> Result<(), StorageError> {
        if (&self.cell, self.replica) == (&wanted.cell, wanted.replica) {
            return Ok(());
        }
        Err(StorageError::OtherOwner {
            file: disk.describe(FILE),
            found: format!("replica {} of the cell {}", self.replica, self.cell),
            wanted: format!("replica {} of the cell {}", wanted.replica, wanted.cell),
        })
    }
}
