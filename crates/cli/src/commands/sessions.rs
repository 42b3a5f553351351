//! `wombat sessions`.

use crate::exit::Failure;
use crate::output;
use crate::settings::Settings;
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) async fn run(settings: &Settings, json: bool) -> Result<(), Failure> {
    let sessions = settings.operator().await?.sessions().await?;
    if json {
        let object = |info: &wombat_client::SessionInfo| {
            json!({
                "session": info.session, "client": info.client, "created": output::time(info.created_wall_ms),
                "lease_left_ms": info.lease_left_ms, "handles": info.handles, "locks": info.locks,
                "ephemerals": info.ephemerals,
            })
        };
        output::line(Value::from(sessions.iter().map(object).collect::<Vec<_>>()));
        return Ok(());
    }
    let row = |info: &wombat_client::SessionInfo| {
        vec![
            info.session.to_string(),
            output::ago(info.created_wall_ms),
            output::span(Duration::from_millis(info.lease_left_ms)),
            info.handles.to_string(),
            info.locks.to_string(),
            info.ephemerals.to_string(),
            info.client.clone(),
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    output::table(&["SESSION", "AGE", "LEASE", "HANDLES", "LOCKS", "EPHEMERALS", "CLIENT"], &rows);
    Ok(())
}
