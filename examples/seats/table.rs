//! The table of seats: SQLite, which knows nothing of Wombat but the greatest token that it has seen.

use crate::process::Result;
use crate::{LOCK, SEATS};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::collections::BTreeMap;
use std::path::Path;
use wombat_client::{Error, Sequencer};

pub(crate) struct Table {
    connection: Connection,
    guarded: bool,
}

/// `fence` has a row for the one lock that guards the seats, and no client makes another.
const SCHEMA: &str = "
    CREATE TABLE seats (id INTEGER PRIMARY KEY, buyer TEXT);
    CREATE TABLE tickets (seat INTEGER NOT NULL, buyer TEXT NOT NULL);
    CREATE TABLE fence (lock TEXT PRIMARY KEY, token INTEGER NOT NULL);
";

impl Table {
    pub(crate) fn create(path: &Path) -> Result<Table> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        connection.execute("INSERT INTO fence VALUES (?1, 0)", [LOCK])?;
        for seat in 1..=SEATS {
            connection.execute("INSERT INTO seats (id) VALUES (?1)", [seat])?;
        }
        Ok(Table { connection, guarded: true })
    }

    pub(crate) fn open(path: &Path, guarded: bool) -> Result<Table> {
        Ok(Table { connection: Connection::open(path)?, guarded })
    }

    /// The first free seat. This read, too, raises the fence: what was read stays true until the holder writes,
    /// because from here on nobody with an older token can.
    pub(crate) fn choose(&mut self, under: &Sequencer) -> Result<Option<u32>> {
        let transaction = self.begin(under)?;
        let free = "SELECT id FROM seats WHERE buyer IS NULL ORDER BY id LIMIT 1";
        let seat = transaction.query_row(free, (), |row| row.get(0)).optional()?;
        transaction.commit()?;
        Ok(seat)
    }

    /// Writes the buyer into the seat and prints the ticket. `AND buyer IS NULL` would save this sale without
    /// any token; it is left out because few rules can be checked in the row that is written.
    pub(crate) fn sell(&mut self, under: &Sequencer, seat: u32) -> Result<()> {
        let buyer = format!("customer {}", under.token);
        let transaction = self.begin(under)?;
        transaction.execute("UPDATE seats SET buyer = ?2 WHERE id = ?1", (seat, &buyer))?;
        transaction.execute("INSERT INTO tickets VALUES (?1, ?2)", (seat, &buyer))?;
        Ok(transaction.commit()?)
    }

    /// Begins a transaction for the holder of a sequencer (P§2.4). The token is compared in the transaction that
    /// it guards: checked before, it could be overtaken between the check and the write. Immediate: from its
    /// beginning nobody else writes.
    ///
    /// Errors: [`Error::SequencerStale`] if a greater token was here, or the lock is not the one of the seats.
    fn begin(&mut self, under: &Sequencer) -> Result<Transaction<'_>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if self.guarded {
            let raise = "UPDATE fence SET token = ?2 WHERE lock = ?1 AND token <= ?2";
            let token = i64::try_from(under.token.0)?; // Enough for 32,767 restores of the cell.
            if transaction.execute(raise, (under.path.to_string(), token))? == 0 {
                return Err(Error::SequencerStale.into());
            }
        }
        Ok(transaction)
    }

    /// How many seats are free.
    pub(crate) fn free(&self) -> Result<u32> {
        let free = "SELECT count(*) FROM seats WHERE buyer IS NULL";
        Ok(self.connection.query_row(free, (), |row| row.get(0))?)
    }

    /// Who has a ticket for each seat.
    pub(crate) fn tickets(&self) -> Result<BTreeMap<u32, Vec<String>>> {
        let mut tickets = BTreeMap::<u32, Vec<String>>::new();
        let mut select = self.connection.prepare("SELECT seat, buyer FROM tickets ORDER BY rowid")?;
        for ticket in select.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (seat, buyer) = ticket?;
            tickets.entry(seat).or_default().push(buyer);
        }
        Ok(tickets)
    }
}
