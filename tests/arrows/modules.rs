//! Which modules of a crate name which, read from its sources.
//!
//! A module depends on another if it names a path to it or to an item that is defined there. A name that a module
//! re-exports leads to where it is defined, so a parent that only re-exports its children is no dependency of
//! theirs. What is compiled for tests only does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The path of a module from its crate's root, which is the empty one.
type Name = Vec<String>;

/// The modules of a crate and what they name.
pub(crate) struct Modules {
    all: BTreeMap<Name, Module>,
}

#[derive(Default)]
struct Module {
    /// Each name that a `use` brings into the module, with the path that it stands for.
    imports: Vec<(String, Vec<String>)>,
    /// Every path that the module names: what it imports, and what it writes out.
    paths: BTreeSet<Vec<String>>,
}

impl Modules {
    /// Reads the crate whose root is in that folder: `lib.rs`, or else `main.rs`.
    pub(crate) fn read(src: &Path) -> Modules {
        let root = ["lib.rs", "main.rs"].map(|name| src.join(name)).into_iter().find(|path| path.exists());
        let root = root.unwrap_or_else(|| panic!("{} has no root", src.display()));
        let mut modules = Modules { all: BTreeMap::new() };
        modules.read_file(&root, src, Vec::new());
        modules
    }

    /// `children`: the folder of the files of this module's children.
    fn read_file(&mut self, file: &Path, children: &Path, name: Name) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut parser = Parser { tokens: tokens(&text), module: Module::default(), children: Vec::new() };
        parser.read();
        self.all.insert(name.clone(), parser.module);
        for child in parser.children {
            let folder = children.join(&child);
            let file = Some(children.join(format!("{child}.rs"))).filter(|path| path.exists());
            let file: PathBuf = file.unwrap_or_else(|| folder.join("mod.rs"));
            let name = name.iter().cloned().chain([child]).collect();
            self.read_file(&file, &folder, name);
        }
    }

    /// The module that defines what a path in a module stands for; `None` for one that leads out of the crate.
    /// `depth`: over how many re-exports it may lead.
    fn resolve(&self, from: &Name, path: &[String], depth: u32) -> Option<Name> {
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.clone(), &path[1..]),
            "super" => (from.clone(), path),
            first if self.is_child(from, first) => (from.clone(), path),
            first => return self.resolve(from, self.import(from, first)?, depth.checked_sub(1)?),
        };
        while let Some(next) = rest.first() {
            if next == "super" {
                at.pop()?;
            } else if self.is_child(&at, next) {
                at.push(next.clone());
            } else {
                break;
            }
            rest = &rest[1..];
        }
        match rest.first().and_then(|item| self.import(&at, item)) {
            Some(import) => self.resolve(&at, import, depth.checked_sub(1)?),
            None => Some(at),
        }
    }

    /// What a name stands for that a module imports or re-exports.
    fn import(&self, module: &Name, item: &str) -> Option<&[String]> {
        let mut imports = self.all[module].imports.iter();
        imports.find(|(name, _)| name == item).map(|(_, path)| path.as_slice())
    }

    fn is_child(&self, module: &Name, name: &str) -> bool {
        let mut child = module.clone();
        child.push(name.to_owned());
        self.all.contains_key(&child)
    }

    fn dependencies(&self, module: &Name) -> BTreeSet<Name> {
        let paths = &self.all[module].paths;
        paths.iter().filter_map(|path| self.resolve(module, path, 8)).filter(|to| to != module).collect()
    }

    /// What the modules below `folder` name outside of it, except these: each as "module -> module".
    pub(crate) fn leave(&self, folder: &str, except: &[&str]) -> Vec<String> {
        let is_inside = |name: &Name| name.first().is_some_and(|first| first == folder);
        let may =
            |name: &Name| is_inside(name) || name.first().is_some_and(|it| except.contains(&it.as_str()));
        let inside = self.all.keys().filter(|name| is_inside(name));
        let pairs = inside.flat_map(|name| self.dependencies(name).into_iter().map(move |to| (name, to)));
        pairs
            .filter(|(_, to)| !may(to))
            .map(|(from, to)| format!("{} -> {}", shown(from), shown(&to)))
            .collect()
    }

    /// A shortest way from a module over others back to it, if there is one.
    pub(crate) fn cycle(&self) -> Option<String> {
        let graph: BTreeMap<&Name, BTreeSet<Name>> =
            self.all.keys().map(|name| (name, self.dependencies(name))).collect();
        let cycles = graph.keys().filter_map(|start| {
            let mut reached: BTreeMap<Name, Name> = BTreeMap::new();
            let mut next = std::collections::VecDeque::from([(*start).clone()]);
            while let Some(module) = next.pop_front() {
                for to in &graph[&module] {
                    if !reached.contains_key(to) {
                        reached.insert(to.clone(), module.clone());
                        next.push_back(to.clone());
                    }
                }
            }
            let mut way = vec![(*start).clone(), reached.get(*start)?.clone()];
            while way.last() != Some(*start) {
                way.push(reached[way.last()?].clone());
            }
            Some(way.iter().rev().map(shown).collect::<Vec<_>>())
        });
        cycles.min_by_key(Vec::len).map(|way| way.join(" -> "))
    }
}

fn shown(name: &Name) -> String {
    if name.is_empty() { "the root".into() } else { name.join("::") }
}

struct Parser {
    /// In the order of the text.
    tokens: Vec<String>,
    module: Module,
    /// Modules with files of their own.
    children: Vec<String>,
}

impl Parser {
    fn read(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            at = match self.token(at) {
                "#" if self.is(at, &["#", "[", "cfg", "(", "test", ")", "]"]) => self.item_end(at + 7),
                "pub" if self.token(at + 1) == "(" => self.closed(at + 1),
                "mod" if self.token(at + 2) == ";" => {
                    self.children.push(self.token(at + 1).to_owned());
                    at + 3
                }
                // Generated code stands in such a module.
                "mod" if self.token(at + 2) == "{" => self.closed(at + 2),
                "use" if self.token(at + 1) != "<" => {
                    let mut found = Vec::new();
                    let end = self.use_tree(at + 1, &mut Vec::new(), &mut found);
                    self.module.paths.extend(found.iter().map(|(_, path)| path.clone()));
                    self.module.imports.extend(found);
                    end
                }
                _ => self.path(at),
            };
        }
    }

    fn token(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", String::as_str)
    }

    fn is(&self, at: usize, tokens: &[&str]) -> bool {
        tokens.iter().enumerate().all(|(offset, token)| self.token(at + offset) == *token)
    }

    /// Behind the bracket that closes the one there.
    fn closed(&self, mut at: usize) -> usize {
        let mut depth = 0_usize;
        loop {
            match self.token(at) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                "" => return at,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                return at;
            }
        }
    }

    /// Behind the item there: its block, or its semicolon.
    fn item_end(&self, mut at: usize) -> usize {
        loop {
            match self.token(at) {
                ";" | "" => return at + 1,
                "{" => return self.closed(at),
                "(" | "[" => at = self.closed(at),
                _ => at += 1,
            }
        }
    }

    /// Reads one tree of a `use`: each name that it brings, with its whole path. Returns where it ends.
    fn use_tree(
        &self,
        mut at: usize,
        prefix: &mut Vec<String>,
        found: &mut Vec<(String, Vec<String>)>,
    ) -> usize {
        let outer = prefix.len();
        loop {
            match self.token(at) {
                "{" => {
                    at += 1;
                    while !matches!(self.token(at), "}" | "") {
                        at = self.use_tree(at, prefix, found);
                        at += usize::from(self.token(at) != "}");
                    }
                    prefix.truncate(outer);
                    return at + 1;
                }
                "::" => at += 1,
                "as" => {
                    found.push((self.token(at + 1).to_owned(), prefix.clone()));
                    prefix.truncate(outer);
                    return at + 2;
                }
                "," | "}" | ";" | "" => {
                    if prefix.last().is_some_and(|last| last == "self") && prefix.len() > 1 {
                        prefix.pop();
                    }
                    found.push((prefix.last().cloned().unwrap_or_default(), prefix.clone()));
                    prefix.truncate(outer);
                    return at;
                }
                "*" => {
                    found.push(("*".into(), prefix.clone()));
                    prefix.truncate(outer);
                    return at + 1;
                }
                segment => {
                    prefix.push(segment.to_owned());
                    at += 1;
                }
            }
        }
    }

    /// Reads a path of several segments, if one begins there.
    fn path(&mut self, at: usize) -> usize {
        let mut path = vec![self.token(at).to_owned()];
        let mut end = at + 1;
        while self.token(end) == "::"
            && self.token(end + 1).starts_with(|c: char| c.is_alphabetic() || c == '_')
        {
            path.push(self.token(end + 1).to_owned());
            end += 2;
        }
        if path.len() > 1 {
            self.module.paths.insert(path);
        }
        end
    }
}

/// The words and marks of a source text, without comments and the insides of strings.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => raw_string(rest),
            'b' if rest.starts_with("br\"") || rest.starts_with("br#\"") => 1 + raw_string(&rest[1..]),
            '"' => string(rest),
            '\'' => character_or_lifetime(rest),
            _ if first.is_alphanumeric() || first == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                tokens.push(rest[..end].to_owned());
                end
            }
            ':' if rest.starts_with("::") => {
                tokens.push("::".into());
                2
            }
            _ => {
                if !first.is_whitespace() {
                    tokens.push(first.to_string());
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// How long the raw string at the beginning is.
fn raw_string(text: &str) -> usize {
    let begin = text.find('"').unwrap_or(0) + 1;
    let end = format!("\"{}", "#".repeat(begin - 2));
    text[begin..].find(&end).map_or(text.len(), |at| begin + at + end.len())
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn character_or_lifetime(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(text.len(), |end| 3 + end + 1),
        _ => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of these files has that cycle.
    #[track_caller]
    fn check(files: &[(&str, &str)], cycle: Option<&str>) {
        let dir = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            std::fs::write(path, text).expect("it can be written");
        }
        assert_eq!(Modules::read(dir.path()).cycle().as_deref(), cycle);
    }

    #[test]
    fn a_cycle_is_found_however_its_paths_are_written() {
        let root = "mod a; mod b; pub use b::B; pub use a::A;";
        let cycle = Some("a -> b -> a");
        check(&[("lib.rs", root), ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::a;")], cycle);
        check(&[("lib.rs", root), ("a.rs", "use crate::B;"), ("b.rs", "fn f() { super::a::f() }")], cycle);
        check(&[("lib.rs", root), ("a.rs", "use crate::{B as C};"), ("b.rs", "use super::{a::{A}};")], cycle);
        check(
            &[("lib.rs", root), ("a.rs", "use crate::b;"), ("b.rs", "// crate::a\nfn f() { \"crate::a\" }")],
            None,
        );
        check(
            &[
                ("lib.rs", root),
                ("a.rs", "use crate::b;"),
                ("b.rs", "#[cfg(test)] mod tests { use crate::a; }"),
            ],
            None,
        );
        check(&[("lib.rs", root), ("a.rs", "use crate::b;"), ("b.rs", "pub(in crate::a) struct B;")], None);
    }

    #[test]
    fn a_child_that_needs_what_its_parent_defines_is_a_cycle() {
        let (root, child) = ("mod a; fn main() { a::run() }", "mod b; use b::B; pub(crate) struct A;");
        let files = |b| [("main.rs", root), ("a/mod.rs", child), ("a/b.rs", b)];
        check(&files("use super::A;"), Some("a -> a::b -> a"));
        check(&files("use super::super::a::A;"), Some("a -> a::b -> a"));
        check(&files("use std::a::A;"), None);
        let root = "mod a; struct X; fn main() { a::run() }";
        check(&[("main.rs", root), ("a.rs", "use crate::X;")], Some("the root -> a -> the root"));
    }

    #[test]
    fn a_sibling_that_the_parent_re_exports_is_no_cycle() {
        let parent = "mod b; mod c; pub(crate) use c::C; pub(crate) use b::B;";
        check(
            &[("lib.rs", "mod a;"), ("a/mod.rs", parent), ("a/b.rs", "use super::C;"), ("a/c.rs", "")],
            None,
        );
    }
}
