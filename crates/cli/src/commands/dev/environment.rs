//! How what runs in a cell of `wombat dev` finds it.

use crate::settings::SEQUENCER;
use std::ffi::OsString;

/// The environment in which a command finds the cell and the tool.
pub(super) fn environment(cell: &str, endpoints: String) -> Vec<(&'static str, OsString)> {
    let mut environment = vec![("WOMBAT_ENDPOINTS", endpoints.into())];
    environment.push(("WOMBAT_CELL", cell.into()));
    // A lock of another cell that this command runs under.
    environment.push((SEQUENCER, OsString::new()));
    if let Some(path) = path_with_this_program() {
        environment.push(("PATH", path));
    }
    environment
}

/// PATH with the directory of this very program in front, so that `wombat` works in the command.
fn path_with_this_program() -> Option<OsString> {
    let own = std::env::current_exe().ok()?.parent()?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).ok()
}
