//! The program `wombat`.

use std::process::ExitCode;

fn main() -> ExitCode {
    wombat_cli::main()
}
