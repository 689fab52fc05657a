//! Instants as users write them.

use chrono::DateTime;

/// Latest instant that can be asked for, milliseconds since the epoch (the year 2106): ClickHouse's
/// `DateTime` ends there, less a day for widening and for looking beyond a window.
pub const MAX_INSTANT_MS: i64 = (u32::MAX as i64 - 86_400) * 1_000;

const TAKES: &str = "takes epoch milliseconds, an RFC 3339 time (with + written as %2B), now, \
                     or now-6h and the like, between 1970 and 2106";

/// An instant in milliseconds since the epoch, 0 to [`MAX_INSTANT_MS`].
///
/// # Errors
/// What the parameter takes, if the text is nothing of that.
pub fn parse(text: &str, now_ms: i64) -> Result<i64, &'static str> {
    let instant = if let Some(rest) = text.strip_prefix("now") {
        ago_ms(rest).and_then(|ago| now_ms.checked_sub(ago))
    } else if let Ok(ms) = text.parse() {
        Some(ms)
    } else {
        DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis())
    };
    instant.filter(|instant| (0..=MAX_INSTANT_MS).contains(instant)).ok_or(TAKES)
}

fn ago_ms(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let ago = humantime::parse_duration(text.strip_prefix('-')?).ok()?;
    i64::try_from(ago.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_notation() {
        let now = 1_700_000_000_000;
        assert_eq!(parse("now", now), Ok(now));
        assert_eq!(parse("now-6h", now), Ok(now - 6 * 3_600_000));
        assert_eq!(parse("now-1h30m", now), Ok(now - 5_400_000));
        assert_eq!(parse("1699999999999", now), Ok(1_699_999_999_999));
        assert_eq!(parse("2023-11-14T22:13:20Z", now), Ok(now));
        assert_eq!(parse("2023-11-14T23:13:20.5+01:00", now), Ok(now + 500));
        for bad in
            ["", "-1", "now+1h", "nowhere", "now-", "now-9999y", "6h", "9e9", "4294967296000"]
        {
            assert_eq!(parse(bad, now), Err(TAKES), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(now-?)?\\PC{0,40}") {
            if let Ok(instant) = parse(&text, 1_700_000_000_000) {
                prop_assert!((0..=MAX_INSTANT_MS).contains(&instant));
            }
        }
    }
}
