//! `wombat sequencer`.

use crate::exit::Failure;
use crate::output;
use serde_json::json;
use wombat_client::{Cell, Sequencer};

pub(crate) async fn check(cell: &Cell, text: &str, json: bool) -> Result<(), Failure> {
    let sequencer: Sequencer = text.parse()?;
    cell.check_sequencer(&sequencer).await?;
    output::line(match json {
        true => json!({ "valid": true, "token": sequencer.token.0 }).to_string(),
        false => format!("valid: {} is held, token {}", sequencer.path, sequencer.token),
    });
    Ok(())
}

pub(crate) fn show(text: &str, json: bool) -> Result<u8, Failure> {
    let sequencer: Sequencer = text.parse()?;
    let Sequencer { path, instance, mode, generation, token } = &sequencer;
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
