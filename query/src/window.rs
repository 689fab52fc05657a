//! The window: what was asked for, and what is computed for it. Pure; times are arguments.

use flowtrail_service::instant::MAX_INSTANT_MS;

use crate::answer::Window;

mod steps;

pub(crate) use steps::Steps;

/// The interval without data to read it from: the agents' default.
const DEFAULT_INTERVAL_S: u32 = 10;

/// How long after a window's end its rows are no longer expected to change, in milliseconds: an hour, which
/// agents and ingest need to catch up after most outages.
pub(crate) const SETTLES_AFTER_MS: i64 = 3_600_000;

/// The window as asked for, milliseconds since the epoch: `0 <= from < to <=`
/// [`flowtrail_service::instant::MAX_INSTANT_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

impl Requested {
    /// Widened to the whole intervals that it touches, of `interval_s`.
    pub(crate) fn whole(self, interval_s: u32) -> Self {
        let interval_ms = ms(interval_s);
        let floor = |time_ms: i64| time_ms / interval_ms * interval_ms;
        let to_ms = (floor(self.to_ms - 1) + interval_ms).min(MAX_INSTANT_MS);
        Self { from_ms: floor(self.from_ms), to_ms }
    }
}

/// `[from, to)` as it is computed; seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) from_s: u32,
    pub(crate) to_s: u32,
    /// By less than this was either bound widened.
    pub(crate) resolution_s: u32,
    /// No raw interval straddles multiples of this.
    pub(crate) interval_s: u32,
}

/// The finest boundaries that no interval in the store straddles: the least common multiple of
/// their lengths, which divides a minute because each does. Rows of other lengths are not ours.
pub(crate) fn resolution_s(lengths_s: &[u8]) -> u32 {
    let valid = |length: &u32| *length > 0 && 60_u32.is_multiple_of(*length);
    let valid = lengths_s.iter().map(|length| u32::from(*length)).filter(valid);
    valid.reduce(|a, b| a / greatest_common_divisor(a, b) * b).unwrap_or(DEFAULT_INTERVAL_S)
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl Bounds {
    /// What the answer says about the window. `complete_until_s` is kept within the bounds.
    pub(crate) fn answer(self, requested: Requested, complete_until_s: u32) -> Window {
        Window {
            from: ms(self.from_s),
            to: ms(self.to_s),
            requested_from: requested.from_ms,
            requested_to: requested.to_ms,
            resolution_s: self.resolution_s,
            complete_until: ms(complete_until_s.clamp(self.from_s, self.to_s)),
        }
    }
}

/// Whether rows of before an instant are no longer expected to change; milliseconds since the epoch.
pub(crate) fn has_settled(end_ms: i64, now_ms: i64) -> bool {
    end_ms.saturating_add(SETTLES_AFTER_MS) <= now_ms
}

/// Whether an instant starts a minute: there `open_at_start` is known for every open connection.
pub(crate) fn starts_minute(time_s: u32) -> bool {
    time_s.is_multiple_of(60)
}

/// The start of the last minute that began before an instant.
pub(crate) fn minute_before(time_s: u32) -> u32 {
    time_s.saturating_sub(1) / 60 * 60
}

/// Milliseconds since the epoch.
pub(crate) fn ms(time_s: u32) -> i64 {
    i64::from(time_s) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolution_is_what_no_interval_straddles() {
        assert_eq!(resolution_s(&[]), 10);
        assert_eq!(resolution_s(&[5]), 5);
        assert_eq!(resolution_s(&[10, 15]), 30);
        assert_eq!(resolution_s(&[12, 20, 0]), 60);
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(resolution_s(&all), 60);
        assert_eq!(resolution_s(&[7, 251]), 10);
    }

    #[test]
    fn what_is_complete_is_within_the_window() {
        let requested = Requested { from_ms: 1_700_000_003_001, to_ms: 1_700_000_020_001 };
        let bounds =
            Bounds { from_s: 1_700_000_000, to_s: 1_700_000_030, resolution_s: 10, interval_s: 10 };
        let window = bounds.answer(requested, 1_800_000_000);
        assert_eq!(window.complete_until, window.to);
        assert_eq!(window.requested_from, 1_700_000_003_001);
    }

    #[test]
    fn the_minute_before_a_minute_is_the_whole_one() {
        assert_eq!(minute_before(1_699_999_980), 1_699_999_920);
        assert_eq!(minute_before(1_699_999_990), 1_699_999_980);
        assert!(starts_minute(1_699_999_980));
    }
}
