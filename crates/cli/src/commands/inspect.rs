//! What people and operators ask: sessions, locks.

use crate::exit::Failure;
use crate::output;
use serde_json::{Value, json};
use std::time::Duration;
use wombat_client::{Cell, LockInfo};

pub(crate) async fn sessions(cell: &Cell, json: bool) -> Result<(), Failure> {
    let sessions = cell.sessions().await?;
    if json {
        let object = |info: &wombat_client::SessionInfo| {
            json!({
                "session": info.session, "client": info.client, "created": output::time(info.created_wall_ms),
                "lease_left_ms": info.lease_left_ms, "handles": info.handles, "locks": info.locks,
                "ephemerals": info.ephemerals, "own": info.session == cell.session().0,
            })
        };
        output::line(Value::from(sessions.iter().map(object).collect::<Vec<_>>()));
        return Ok(());
    }
    let row = |info: &wombat_client::SessionInfo| {
        let own = if info.session == cell.session().0 { " (this command)" } else { "" };
        vec![
            info.session.to_string(),
            output::ago(info.created_wall_ms),
            output::span(Duration::from_millis(info.lease_left_ms)),
            info.handles.to_string(),
            info.locks.to_string(),
            info.ephemerals.to_string(),
            format!("{}{own}", info.client),
        ]
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    output::table(&["SESSION", "AGE", "LEASE", "HANDLES", "LOCKS", "EPHEMERALS", "CLIENT"], &rows);
    Ok(())
}

pub(crate) async fn locks(cell: &Cell, path: Option<&str>, json: bool) -> Result<(), Failure> {
    let locks = cell.locks(path).await?;
    if json {
        output::line(Value::from(locks.iter().map(lock_object).collect::<Vec<_>>()));
        return Ok(());
    }
    let mut rows = Vec::new();
    for lock in &locks {
        let waiting = lock.waiting.to_string();
        for holder in &lock.holders {
            let mode = if holder.shared { "shared" } else { "exclusive" };
            rows.push(vec![
                lock.path.clone(),
                mode.into(),
                holder.token.to_string(),
                output::ago(holder.since_wall_ms),
                waiting.clone(),
                format!("{} (session {})", holder.client, holder.session),
            ]);
        }
        if lock.holders.is_empty() {
            let left = Duration::from_millis(lock.delay_left_ms);
            let why =
                if left.is_zero() { "-".into() } else { format!("lock-delay, {} left", output::span(left)) };
            rows.push(vec![lock.path.clone(), "free".into(), "-".into(), "-".into(), waiting, why]);
        }
    }
    output::table(&["PATH", "MODE", "TOKEN", "HELD", "WAITING", "HOLDER"], &rows);
    Ok(())
}

fn lock_object(lock: &LockInfo) -> Value {
    let holder = |holder: &wombat_client::Holder| {
        json!({
            "session": holder.session, "client": holder.client, "token": holder.token,
            "mode": if holder.shared { "shared" } else { "exclusive" },
            "since": output::time(holder.since_wall_ms), "lock_delay_ms": holder.lock_delay_ms,
        })
    };
    json!({
        "path": lock.path, "lock_generation": lock.generation, "waiting": lock.waiting,
        "delay_left_ms": lock.delay_left_ms, "holders": lock.holders.iter().map(holder).collect::<Vec<_>>(),
    })
}
