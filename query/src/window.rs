//! The window: what was asked for, widened to interval boundaries. Pure; times are arguments.

use crate::answer::Window;

/// The interval without data to read it from: the agents' default.
const DEFAULT_INTERVAL_S: u32 = 10;

/// The window as asked for, milliseconds since the epoch: `0 <= from < to <=`
/// [`flowtrail_service::instant::MAX_INSTANT_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// `[from, to)` on boundaries of the resolution; seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) from_s: u32,
    pub(crate) to_s: u32,
    pub(crate) resolution_s: u32,
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

impl Requested {
    /// The smallest window on boundaries that holds this one.
    pub(crate) fn widen(self, resolution_s: u32) -> Bounds {
        let step_ms = i64::from(resolution_s) * 1_000;
        let from = self.from_ms / step_ms * i64::from(resolution_s);
        let to = (self.to_ms + step_ms - 1) / step_ms * i64::from(resolution_s);
        // Within u32 by the bounds of `Requested`.
        Bounds { from_s: from as u32, to_s: to as u32, resolution_s }
    }
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
    use proptest::prelude::*;

    use flowtrail_service::instant::MAX_INSTANT_MS;

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
    fn bounds_off_the_boundaries_are_widened() {
        let requested = Requested { from_ms: 1_700_000_003_001, to_ms: 1_700_000_020_001 };
        let bounds = requested.widen(10);
        assert_eq!((bounds.from_s, bounds.to_s), (1_700_000_000, 1_700_000_030));
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

    proptest! {
        #[test]
        fn widening_is_tight_and_idempotent(
            from_ms in 0..MAX_INSTANT_MS - 1, length in 1_i64..100_000_000_000, step in prop::sample::select(vec![1_u32, 5, 10, 12, 60])
        ) {
            let to_ms = (from_ms + length).min(MAX_INSTANT_MS);
            let bounds = Requested { from_ms, to_ms }.widen(step);
            let step_ms = i64::from(step) * 1_000;
            prop_assert!((0..step_ms).contains(&(from_ms - ms(bounds.from_s))));
            prop_assert!((0..step_ms).contains(&(ms(bounds.to_s) - to_ms)));
            let again = Requested { from_ms: ms(bounds.from_s), to_ms: ms(bounds.to_s) }.widen(step);
            prop_assert_eq!(again, bounds);
        }
    }
}
