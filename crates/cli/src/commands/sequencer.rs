//! `wombat sequencer`.

use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use clap::Subcommand;
use serde_json::json;
use wombat_client::Sequencer as Parsed;

#[derive(Subcommand)]
pub(crate) enum Sequencer {
    /// Ask the cell whether its lock is still held: exits with 0 if it is, 4 if not
    #[command(after_help = "Examples:\n  wombat sequencer check \"$WOMBAT_SEQUENCER\"")]
    Check {
        /// The sequencer
        sequencer: String,
    },
    /// Decode a sequencer, without asking the cell
    Show {
        /// The sequencer
        sequencer: String,
    },
}

pub(crate) async fn check(settings: &Settings, text: &str, json: bool) -> Result<(), Failure> {
    let sequencer: Parsed = text.parse()?;
    settings.operator().await?.check_sequencer(&sequencer).await?;
    output::line(match json {
        true => json!({ "valid": true, "token": sequencer.token.0 }).to_string(),
        false => format!("valid: {} is held, token {}", sequencer.path, sequencer.token),
    });
    Ok(())
}

pub(crate) fn show(text: &str, json: bool) -> Result<u8, Failure> {
    let sequencer: Parsed = text.parse()?;
    let Parsed { path, instance, mode, generation, token } = &sequencer;
    output::line(match json {
        true => json!({
            "path": path.to_string(), "instance": instance.0, "mode": mode.to_string(),
            "lock_generation": generation.0, "token": token.0,
        })
        .to_string(),
        false => format!("{path} {mode}, token {token}, instance {instance}, lock generation {generation}"),
    });
    Ok(0)
}
