//! `wombat completions`.

use crate::output;
use clap::Args as ClapArgs;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  wombat completions bash > /etc/bash_completion.d/wombat")]
pub(crate) struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

/// `all`: the whole command line.
pub(crate) fn run(args: &Completions, mut all: clap::Command) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut all, "wombat", &mut script);
    output::bytes(&script);
    0
}
