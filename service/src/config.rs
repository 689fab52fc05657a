//! Value parsers that flags of several services share.

use std::time::Duration;

/// Parses a duration with its unit: `500ms`, `10s`, `15min`, `1h 30m`.
///
/// # Errors
/// If the text is no such duration; the message shows what is.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number with a unit, like 500ms, 10s or 15min"))
}
