//! Sequencers: the proof of a lock that a holder passes to the services it talks to (P§2.4).

use crate::{Error, Generation, Instance, Path, Result, Token};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::str::FromStr;

/// How a lock is held (P§2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum LockMode {
    /// One holder, the writer.
    Exclusive,
    /// Any number of holders, or as many as the node has permits.
    Shared,
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockMode::Exclusive => "exclusive",
            LockMode::Shared => "shared",
        })
    }
}

/// What a lock was when it was granted. As text it is one word, safe in headers, shells and file names of
/// a URL: `wsq1.x.<token>.<instance>.<generation>.<check>.<path, percent-encoded>`.
///
/// Whoever receives one asks the cell whether it is still valid or, without a session, compares
/// [`Sequencer::token`] with the greatest that it has seen for the path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Sequencer {
    /// The locked node.
    pub path: Path,
    /// The node's instance: a node of the same name made later is another lock.
    pub instance: Instance,
    /// How the lock is held.
    pub mode: LockMode,
    /// The lock generation since which it is held.
    pub generation: Generation,
    /// The fencing token: greater than that of every earlier grant of this name.
    pub token: Token,
}

const VERSION: &str = "wsq1";

impl fmt::Display for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        write!(
            f,
            "{VERSION}.{}.{:08x}.{}",
            self.numbers(),
            crc32fast::hash(body.as_bytes()),
            encode(&self.path)
        )
    }
}

impl FromStr for Sequencer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Sequencer> {
        let shown: String = text.chars().take(60).collect();
        let bad = |why: &str| Error::invalid(format!("{shown:?} is no sequencer: {why}"));
        let fields: Vec<&str> = text.splitn(7, '.').collect();
        let [version, mode, token, instance, generation, check, path] = fields[..] else {
            return Err(bad("it does not have seven parts separated by '.'"));
        };
        if version != VERSION {
            return Err(bad("it does not begin with wsq1"));
        }
        let mode = match mode {
            "x" => LockMode::Exclusive,
            "s" => LockMode::Shared,
            _ => return Err(bad("its mode is neither x nor s")),
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| bad("a number in it is damaged"));
        let sequencer = Sequencer {
            path: Path::parse(&decode(path).ok_or_else(|| bad("its path is damaged"))?)?,
            instance: Instance(number(instance)?),
            mode,
            generation: Generation(number(generation)?),
            token: Token(number(token)?),
        };
        if u32::from_str_radix(check, 16) != Ok(crc32fast::hash(sequencer.body().as_bytes())) {
            return Err(bad("it was cut or changed on its way"));
        }
        Ok(sequencer)
    }
}

impl Sequencer {
    fn numbers(&self) -> String {
        let mode = match self.mode {
            LockMode::Exclusive => 'x',
            LockMode::Shared => 's',
        };
        format!("{mode}.{}.{}.{}", self.token, self.instance, self.generation)
    }

    fn body(&self) -> String {
        format!("{}.{}", self.numbers(), self.path)
    }
}

/// Percent-encodes all but letters, digits, `/`, `-`, `_` and `.`.
fn encode(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => text.push(byte as char),
            _ => write!(text, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    text
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let hex = core::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequencer(path: &str) -> Sequencer {
        Sequencer {
            path: Path::parse(path).unwrap(),
            instance: Instance(17),
            mode: LockMode::Exclusive,
            generation: Generation(3),
            token: Token(42),
        }
    }

    #[test]
    fn one_word_that_shells_and_headers_take() {
        let text = sequencer("/ls/local/a b/$HOME;é").to_string();
        assert!(text.starts_with("wsq1.x.42.17.3."), "{text}");
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.%".contains(c)), "{text}");
        assert_eq!(text.parse::<Sequencer>().unwrap(), sequencer("/ls/local/a b/$HOME;é"));
    }

    #[test]
    fn damage_is_refused() {
        let text = sequencer("/ls/local/lock").to_string();
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<Sequencer>().is_err(), "cut at {cut}");
        }
        assert!(text.replace(".42.", ".43.").parse::<Sequencer>().is_err());
        assert!("wsq1.x.1.1.1.0.%f".parse::<Sequencer>().is_err());
    }

    proptest! {
        #[test]
        fn round_trip(name in "[^/\0]{1,40}", token: u64) {
            if let Ok(path) = Path::parse(&alloc::format!("/ls/c/{name}")) {
                let sequencer = Sequencer { path, token: Token(token), ..sequencer("/ls/c") };
                prop_assert_eq!(sequencer.to_string().parse::<Sequencer>().unwrap(), sequencer);
            }
        }

        #[test]
        fn no_input_panics(text in ".*") {
            let _ = text.parse::<Sequencer>();
        }
    }
}
