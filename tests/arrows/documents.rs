//! Checks of the Markdown documents: links, the length of sentences, banned words.

use std::path::{Path, PathBuf};

/// Words that a document does not use: archaic, or without a named subject.
const BANNED: &[&str] = &[
    "anew",
    "beside",
    "besides",
    "crowd",
    "crowds",
    "everybody",
    "nobody",
    "somebody",
    "thereby",
    "whence",
    "whoever",
    "whomever",
];
/// Longest sentence, in words.
const MAX_WORDS: usize = 40;

/// A Markdown file.
pub(crate) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    pub(crate) fn read(path: &Path) -> Document {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Document { path: path.to_owned(), text }
    }

    /// The Markdown files directly in a folder, or also in the folders below it.
    pub(crate) fn in_folder(folder: &Path, recursive: bool) -> Vec<Document> {
        let mut documents = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a directory entry").path();
            if path.is_dir() && recursive {
                documents.extend(Document::in_folder(&path, true));
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(Document::read(&path));
            }
        }
        documents
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The lines outside code blocks, with inline code replaced by the word `code`.
    fn lines(&self) -> Vec<String> {
        let mut in_code = false;
        let mut lines = Vec::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
                lines.push(String::new());
            } else if !in_code {
                lines.push(without_code(line));
            }
        }
        lines
    }

    /// The anchors of the headings, as the usual renderers make them.
    fn anchors(&self) -> Vec<String> {
        let mut in_code = false;
        let mut anchors = Vec::new();
        for line in self.text.lines() {
            in_code ^= line.trim_start().starts_with("```");
            let title = line.trim_start_matches('#');
            if !in_code && title != line && title.starts_with(' ') {
                let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
                anchors.push(kept.collect::<String>().to_lowercase().replace(' ', "-"));
            }
        }
        anchors
    }

    /// The relative links, as written.
    pub(crate) fn links(&self) -> Vec<String> {
        let lines = self.lines().join("\n");
        let targets = lines.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        targets.filter(|link| !link.contains("://")).map(str::to_owned).collect()
    }

    /// The relative links that lead to no file, or to no heading of a document.
    pub(crate) fn broken_links(&self) -> Vec<String> {
        let folder = self.path.parent().expect("a document is in a folder");
        let is_broken = |link: &String| {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let anchors = || match file {
                "" => self.anchors(),
                file => Document::read(&folder.join(file)).anchors(),
            };
            !folder.join(file).exists()
                || !anchor.is_empty() && !anchors().iter().any(|known| known == anchor)
        };
        let broken = self.links().into_iter().filter(is_broken);
        broken.map(|link| format!("{}: the link {link} leads nowhere", self.path.display())).collect()
    }

    /// The source files that inline code names and that do not exist. A path begins at the top, at a crate or at the
    /// sources of one.
    pub(crate) fn missing_sources(&self, top: &Path) -> Vec<String> {
        let crates = top.join("crates");
        let crate_names = std::fs::read_dir(&crates).expect("the folder of crates");
        let mut folders = vec![top.to_owned(), crates.clone(), self.path.with_file_name("")];
        folders.extend(crate_names.map(|entry| entry.expect("a directory entry").path().join("src")));
        let named = self.text.split("```").step_by(2).flat_map(|prose| prose.split('`').skip(1).step_by(2));
        let paths = named.filter(|code| code.ends_with(".rs") && code.contains('/')).flat_map(alternatives);
        let missing = paths.filter(|path| !folders.iter().any(|folder| folder.join(path).exists()));
        missing.map(|path| format!("{}: {path} does not exist", self.path.display())).collect()
    }

    /// Sentences that are too long.
    pub(crate) fn long_sentences(&self) -> Vec<String> {
        let mut found = Vec::new();
        for sentence in self.sentences() {
            let words =
                sentence.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
            if words > MAX_WORDS {
                found.push(format!("{}: {words} words in: {sentence}", self.path.display()));
            }
        }
        found
    }

    /// Lines with banned words.
    pub(crate) fn banned_words(&self) -> Vec<String> {
        let mut found = Vec::new();
        for line in self.lines() {
            let lower = line.to_lowercase();
            let mut words = lower.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(word) = words.find(|word| BANNED.contains(word)) {
                found.push(format!("{}: {word:?} in: {line}", self.path.display()));
            }
        }
        found
    }

    fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for unit in self.units() {
            let mut sentence = String::new();
            for word in unit.split_whitespace() {
                sentence = sentence + word + " ";
                if word.trim_end_matches(['*', ')', '"', '_']).ends_with(['.', '!', '?']) {
                    sentences.push(std::mem::take(&mut sentence));
                }
            }
            sentences.push(sentence);
        }
        sentences
    }

    /// Paragraphs, items of lists, headings and cells of tables, without the targets of links.
    fn units(&self) -> Vec<String> {
        let mut units = vec![String::new()];
        for line in self.lines() {
            let line = without_link_targets(line.trim());
            if line.is_empty() || begins_a_unit(&line) {
                units.push(String::new());
            }
            if line.starts_with('|') {
                units.extend(line.split('|').map(str::to_owned));
                units.push(String::new());
            } else if let Some(unit) = units.last_mut() {
                *unit = format!("{unit} {line}");
            }
        }
        units
    }
}

/// The paths that `a/{b,c}.rs` stands for.
fn alternatives(path: &str) -> Vec<String> {
    match path.split_once('{').zip(path.split_once('}')) {
        Some(((before, rest), (_, after))) => {
            let names = rest.split('}').next().unwrap_or_default();
            names.split(',').map(|name| format!("{before}{name}{after}")).collect()
        }
        None => vec![path.to_owned()],
    }
}

fn begins_a_unit(line: &str) -> bool {
    let (marker, rest) = line.split_once(' ').unwrap_or((line, ""));
    let is_number = marker.strip_suffix('.').is_some_and(|number| number.parse::<u32>().is_ok());
    !rest.is_empty() && (["-", "*", ">"].contains(&marker) || marker.starts_with('#') || is_number)
}

fn without_code(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    let keep = |(at, part): (usize, &&str)| if at % 2 == 0 { (*part).to_owned() } else { "code".into() };
    parts.iter().enumerate().map(keep).collect()
}

fn without_link_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += part.split_once(')').map_or(part, |(_, rest)| rest);
    }
    text
}

#[test]
fn document_checks_find_planted_faults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/planted.md");
    let check = |text: &str| {
        let document = Document { path: path.clone(), text: text.into() };
        [document.broken_links().len(), document.long_sentences().len(), document.banned_words().len()]
    };
    let missing = |text: &str| {
        let document = Document { path: path.clone(), text: text.into() };
        document.missing_sources(Path::new(env!("CARGO_MANIFEST_DIR"))).len()
    };
    assert_eq!(missing("`tests/arrows.rs`, `state/src/{lock,node}.rs`, `apply/mod.rs`, `other.rs`"), 0);
    assert_eq!(missing("`tests/no.rs`, `state/src/{lock,no}.rs`\n```\n`no/no.rs`\n```\n`no/no.rs`"), 3);
    let long = "word ".repeat(MAX_WORDS + 1);
    assert_eq!(check("# A heading\n\n[a](#a-heading), [b](SPEC.md), [c](https://example.com)."), [0, 0, 0]);
    assert_eq!(check("[a](#no-heading) and [b](NO-FILE.md) and [c](SPEC.md#no-heading)"), [3, 0, 0]);
    assert_eq!(check(&format!("{long}. Short.\n\n- {long}\n\n| {long} | cell |")), [0, 3, 0]);
    assert_eq!(
        check(&format!("```text\n{long} nobody\n```\n\n{}", "word word. ".repeat(MAX_WORDS))),
        [0, 0, 0]
    );
    assert_eq!(check("Nobody says it.\nThe word `nobody` is code."), [0, 0, 1]);
}
