//! What the kernel says of a process.

use crate::Result;
use std::time::Duration;

/// The kernel counts processor time in hundredths of a second, on every machine that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processor time that a process has used; `None`: this one.
pub fn processor_time(pid: Option<u32>) -> Result<Duration> {
    let stat = read(pid, "stat")?;
    // The name may hold anything; what follows its last parenthesis are numbers, from the third field on.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map_while(|one| one.parse().ok()).collect();
    Ok(Duration::from_secs_f64(ticks.iter().sum::<f64>() / TICKS_PER_SECOND))
}

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = read(Some(pid), "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn read(pid: Option<u32>, file: &str) -> Result<String> {
    let pid = pid.map_or("self".into(), |pid| pid.to_string());
    Ok(std::fs::read_to_string(format!("/proc/{pid}/{file}"))?)
}
