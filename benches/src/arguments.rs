//! What a bench is told on its command line: a word, and what it is to be.

/// The word after that one.
pub fn word(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

/// The number after that word.
pub fn number(name: &str, usual: usize) -> usize {
    word(name).and_then(|number| number.parse().ok()).unwrap_or(usual)
}
