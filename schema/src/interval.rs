//! `Interval`: the slice of wall-clock time that a record belongs to.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use thiserror::Error;

const SECOND_US: u64 = 1_000_000;

/// Length of all intervals in a cluster: whole seconds that divide a minute. Default 10 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntervalLength {
    seconds: u32,
}

/// Why a duration cannot be an interval's length.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "an interval of {0} s does not divide a minute: use 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30 or 60 s"
)]
pub struct IntervalLengthError(pub u64);

impl IntervalLength {
    /// The longest one: what every other divides.
    pub const MINUTE: Self = Self { seconds: 60 };

    /// A length of whole seconds.
    ///
    /// # Errors
    /// If the seconds do not divide 60, for then intervals would not add up to minutes.
    pub const fn from_seconds(seconds: u64) -> Result<Self, IntervalLengthError> {
        if seconds == 0 || seconds > 60 || !60_u64.is_multiple_of(seconds) {
            return Err(IntervalLengthError(seconds));
        }
        Ok(Self { seconds: seconds as u32 })
    }

    /// The length in seconds, 1 to 60.
    pub fn seconds(self) -> u32 {
        self.seconds
    }

    /// The length in microseconds.
    pub fn us(self) -> u64 {
        u64::from(self.seconds) * SECOND_US
    }

    /// The interval that holds an instant (microseconds since the epoch).
    pub fn interval_at(self, time_us: u64) -> Interval {
        Interval { start_us: time_us / self.us() * self.us(), length: self }
    }
}

impl Default for IntervalLength {
    fn default() -> Self {
        Self { seconds: 10 }
    }
}

/// `[start, start + length)`, aligned to the wall clock.
///
/// In JSON: `interval_start` (microseconds since the epoch) and `interval` (microseconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interval {
    start_us: u64,
    length: IntervalLength,
}

impl Interval {
    /// First instant, microseconds since the epoch: a multiple of the length.
    pub fn start_us(self) -> u64 {
        self.start_us
    }

    /// First instant in seconds since the epoch.
    pub fn start_s(self) -> u64 {
        self.start_us / SECOND_US
    }

    /// First instant after the interval, microseconds since the epoch.
    pub fn end_us(self) -> u64 {
        self.start_us + self.length.us()
    }

    /// Its length.
    pub fn length(self) -> IntervalLength {
        self.length
    }

    /// The one after it.
    pub fn next(self) -> Self {
        Self { start_us: self.end_us(), length: self.length }
    }

    /// Whether it holds an instant.
    pub fn contains(self, time_us: u64) -> bool {
        (self.start_us..self.end_us()).contains(&time_us)
    }

    /// Whether it is the first of its minute: the one in which every open flow emits a record.
    pub fn starts_minute(self) -> bool {
        self.start_us.is_multiple_of(60 * SECOND_US)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Interval", 2)?;
        fields.serialize_field("interval_start", &self.start_us)?;
        fields.serialize_field("interval", &self.length.us())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_divide_a_minute() {
        for seconds in 0..=61 {
            let divides = seconds > 0 && 60 % seconds == 0;
            assert_eq!(IntervalLength::from_seconds(seconds).is_ok(), divides, "{seconds} s");
        }
    }

    #[test]
    fn intervals_tile_time() {
        let length = IntervalLength::default();
        let interval = length.interval_at(1_700_000_003_999_999);
        assert_eq!(interval.start_us(), 1_700_000_000_000_000);
        assert!(interval.contains(interval.start_us()));
        assert!(!interval.contains(interval.end_us()));
        assert_eq!(interval.next(), length.interval_at(interval.end_us()));
        assert!(length.interval_at(1_699_999_980_000_000).starts_minute());
        assert!(!interval.starts_minute());
    }
}
