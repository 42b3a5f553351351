//! How the story is shown: who says what, and when, in 80 columns; in colour on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Instant;

const COLUMNS: usize = 80;
/// Where what is said begins.
const INDENT: usize = 17;

/// Who speaks; a name of five letters at most.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) name: &'static str,
    /// Its colour, as terminals number them.
    pub(crate) colour: u8,
}

pub(crate) struct Stage {
    begun: Instant,
    in_colour: bool,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let in_colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Stage { begun: Instant::now(), in_colour }
    }

    /// Begins another part.
    pub(crate) fn scene(&self, title: &str) {
        self.line("");
        self.line(&self.painted(1, title));
    }

    pub(crate) fn says(&self, who: Who, what: impl AsRef<str>) {
        let time = self.begun.elapsed().as_secs_f64();
        let who = self.painted(who.colour, &format!("{:5}", who.name));
        let mut line = format!("{time:>6.1} s   {who}  ");
        let mut column = INDENT;
        for word in what.as_ref().split(' ') {
            if column + word.chars().count() > COLUMNS {
                self.line(&line);
                (line, column) = (" ".repeat(INDENT + 2), INDENT + 2);
            }
            line = line + word + " ";
            column += word.chars().count() + 1;
        }
        self.line(&line);
    }

    /// The story is told to its end, and cleaned up after, even if nobody reads on.
    pub(crate) fn line(&self, line: &str) {
        let _nobody_reads_on = writeln!(std::io::stdout(), "{}", line.trim_end());
    }

    fn painted(&self, how: u8, text: &str) -> String {
        if self.in_colour { format!("\x1b[{how}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
