//! Names: `/ls/<cell>/<component>/…` (P§2.3). Parsed once, here; everything behind takes them for valid.

use crate::limits::{CELL_NAME_BYTES, NAME_BYTES, PATH_BYTES};
use crate::{Error, Result};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// The name of a cell: 1 to 63 ASCII letters, digits, `-` or `_`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellName(String);

/// One component of a path: non-empty UTF-8 of at most 255 bytes without `/` or NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A path within a cell: the components below the root; none for the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodePath(Vec<Name>);

/// A whole name: a cell and a path within it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The cell; `local` stands for the client's default cell until the client puts the real one.
    pub cell: CellName,
    /// The node within it.
    pub node: NodePath,
}

impl CellName {
    /// The alias of the client's default cell.
    pub const LOCAL: &'static str = "local";

    /// Checks and takes a cell name.
    pub fn parse(text: &str) -> Result<CellName> {
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > CELL_NAME_BYTES || !text.chars().all(ok) {
            return Err(Error::invalid(format!(
                "the cell name {text:?} must be 1 to {CELL_NAME_BYTES} ASCII letters, digits, '-' or '_'"
            )));
        }
        Ok(CellName(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Name {
    /// Checks and takes a component.
    pub fn parse(text: &str) -> Result<Name> {
        let problem = if text.is_empty() {
            "is empty (a path has no '//' and does not end in '/')"
        } else if text.len() > NAME_BYTES {
            "is longer than 255 bytes"
        } else if text == "." || text == ".." {
            "is '.' or '..', which have no meaning here"
        } else if text.contains(['/', '\0']) {
            "holds a '/' or a NUL"
        } else {
            return Ok(Name(text.to_owned()));
        };
        let shown: String = text.chars().take(40).collect();
        Err(Error::invalid(format!("the name {shown:?} {problem}")))
    }

    /// The component as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodePath {
    /// The root directory of a cell.
    pub const ROOT: NodePath = NodePath(Vec::new());

    /// Parses components separated by `/`, with neither a leading nor a trailing one. Empty text: the root.
    pub fn parse(text: &str) -> Result<NodePath> {
        if text.is_empty() {
            return Ok(NodePath::ROOT);
        }
        if text.len() > PATH_BYTES {
            return Err(Error::invalid(format!("the path is longer than {PATH_BYTES} bytes")));
        }
        text.split('/').map(Name::parse).collect::<Result<Vec<Name>>>().map(NodePath)
    }

    /// The components, from the root down.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// The path of `name` within this directory.
    #[must_use]
    pub fn join(&self, name: Name) -> NodePath {
        let mut names = self.0.clone();
        names.push(name);
        NodePath(names)
    }

    /// This path with `rest` below it.
    #[must_use]
    pub fn extend(&self, rest: &NodePath) -> NodePath {
        NodePath(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// The directory that holds this node, and its name there; `None` for the root.
    pub fn split_last(&self) -> Option<(NodePath, &Name)> {
        let (last, parents) = self.0.split_last()?;
        Some((NodePath(parents.to_vec()), last))
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Name> for NodePath {
    fn from_iter<I: IntoIterator<Item = Name>>(names: I) -> NodePath {
        NodePath(names.into_iter().collect())
    }
}

impl Path {
    /// Parses `/ls/<cell>` or `/ls/<cell>/<component>/…`.
    pub fn parse(text: &str) -> Result<Path> {
        if text.len() > PATH_BYTES {
            return Err(Error::invalid(format!("the path is longer than {PATH_BYTES} bytes")));
        }
        let Some(rest) = text.strip_prefix("/ls/") else {
            return Err(Error::invalid(format!(
                "the path {text:?} does not begin with /ls/<cell>; try /ls/local/{}",
                text.trim_start_matches('/')
            )));
        };
        let (cell, node) = match rest.split_once('/') {
            Some((_, "")) => {
                return Err(Error::invalid(format!("the path {text:?} ends in '/'; leave it out")));
            }
            Some((cell, node)) => (cell, node),
            None => (rest, ""),
        };
        Ok(Path { cell: CellName::parse(cell)?, node: NodePath::parse(node)? })
    }

    /// The path of `node` in `cell`.
    pub fn new(cell: CellName, node: NodePath) -> Path {
        Path { cell, node }
    }
}

impl core::str::FromStr for Path {
    type Err = Error;
    fn from_str(text: &str) -> Result<Path> {
        Path::parse(text)
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("/")?;
            }
            f.write_str(&name.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/ls/{}", self.cell.0)?;
        if self.node.is_root() { Ok(()) } else { write!(f, "/{}", self.node) }
    }
}

impl fmt::Display for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! debug_as_text {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.to_string(), f)
            }
        }
    )*};
}
debug_as_text!(CellName, Name, NodePath, Path);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: core::result::Result<&str, &str>) {
        match (Path::parse(text), expected) {
            (Ok(path), Ok(shown)) => assert_eq!(path.to_string(), shown),
            (Err(error), Err(part)) => {
                let message = error.to_string();
                assert!(message.contains(part), "{message:?} does not say {part:?}");
            }
            (got, _) => panic!("{text:?} gave {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn paths() {
        check("/ls/foo/wombat/pouch", Ok("/ls/foo/wombat/pouch"));
        check("/ls/local", Ok("/ls/local"));
        check("/ls/local/ünï code", Ok("/ls/local/ünï code"));
        check("/ls/local/", Err("ends in '/'"));
        check("/ls/local/a//b", Err("is empty"));
        check("/ls/local/a/", Err("is empty"));
        check("/ls/local/a/../b", Err("'.' or '..'"));
        check("/ls/local/a\0", Err("NUL"));
        check("/ls/lo cal/a", Err("cell name"));
        check("/ls/", Err("cell name"));
        check("a/b", Err("try /ls/local/a/b"));
        check(&format!("/ls/local/{}", "x".repeat(256)), Err("longer than 255"));
        check(&format!("/ls/local/{}", "x/".repeat(600)), Err("longer than 1024"));
    }

    proptest! {
        #[test]
        fn parsing_and_printing_agree(text in "/ls/[a-z]{1,5}(/[a-zé .]{1,6}){0,4}") {
            if let Ok(path) = Path::parse(&text) {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn no_input_panics(text in ".*") {
            let _ = Path::parse(&text);
        }
    }
}
