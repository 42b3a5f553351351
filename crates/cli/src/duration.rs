//! Durations as people write them.

use std::time::Duration;

/// A duration with its unit: 500ms, 12s, 5m, "1h 30m".
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 12s or 5m"))?;
    if duration > LONGEST {
        return Err("it is longer than a year".into());
    }
    Ok(duration)
}

/// The longest duration that a flag takes; what is longer is a slip.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert!(parse("5").unwrap_err().contains("12s"));
        assert!(parse("-5s").is_err());
    }
}
