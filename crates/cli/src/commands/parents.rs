//! The directories above a node.

use crate::exit::Failure;
use wombat_client::{Cell, Create, OpenOptions, Path};

/// Makes the directories above a path, where they do not exist.
pub(crate) async fn make_parents(cell: &Cell, path: &str) -> Result<(), Failure> {
    match cell.resolve(path)?.node.split_last() {
        Some((directory, _)) => make_directories(cell, &directory).await,
        None => Ok(()),
    }
}

/// Makes a directory and those above it, where they do not exist.
pub(crate) async fn make_directories(
    cell: &Cell,
    directory: &wombat_client::NodePath,
) -> Result<(), Failure> {
    for depth in 1..=directory.names().len() {
        let above = directory.names()[..depth].iter().cloned().collect();
        let path = Path::new(cell.name().clone(), above).to_string();
        let options = OpenOptions::new().create(Create::May).directory();
        cell.open(&path, options).await.map_err(|error| Failure::from(error).about(&path))?;
    }
    Ok(())
}
