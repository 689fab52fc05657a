//! Numbers with units, exactly: what is written is never rounded, nor taken for another unit.

use std::fmt;

/// What numbers of an edge count or measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Count,
    Bytes,
    Milliseconds,
    /// 0 to 1.
    Share,
}

/// A number of at least 0, as an integer of the smallest amount that can be written in its unit: 1, a byte,
/// a nanosecond, a billionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) smallest: u64,
    unit: Unit,
}

impl Unit {
    /// What fields of it hold, in words.
    pub(crate) fn holds(self) -> &'static str {
        match self {
            Self::Count => "a number",
            Self::Bytes => "a number of bytes",
            Self::Milliseconds => "a time",
            Self::Share => "a share",
        }
    }

    /// What to write, as an example of all that can be.
    pub(crate) fn takes(self) -> &'static str {
        match self {
            Self::Count => "a whole number without unit, as in 100",
            Self::Bytes => {
                "a whole number of bytes, as in 500, 10MiB or 1.5GB (B, kB to TB, KiB to TiB)"
            }
            Self::Milliseconds => {
                "a time of at least a nanosecond, as in 250ms or 1.5s (us, ms, s, m, h; without unit ms)"
            }
            Self::Share => "a share from 0 to 1, as in 0.25",
        }
    }

    /// Smallest amounts in one of the unit itself.
    fn scale(self) -> u64 {
        match self {
            Self::Count | Self::Bytes => 1,
            Self::Milliseconds => 1_000_000,
            Self::Share => 1_000_000_000,
        }
    }

    /// Smallest amounts in one of what is written after a number. Case makes no difference.
    fn factor(self, suffix: &str) -> Option<u64> {
        let factors: &[(&str, u64)] = match self {
            Self::Count | Self::Share => &[],
            Self::Bytes => &[
                ("b", 1),
                ("kb", 1_000),
                ("mb", 1_000_000),
                ("gb", 1_000_000_000),
                ("tb", 1_000_000_000_000),
                ("kib", 1 << 10),
                ("mib", 1 << 20),
                ("gib", 1 << 30),
                ("tib", 1 << 40),
            ],
            Self::Milliseconds => &[
                ("us", 1_000),
                ("µs", 1_000),
                ("ms", 1_000_000),
                ("s", 1_000_000_000),
                ("m", 60_000_000_000),
                ("h", 3_600_000_000_000),
            ],
        };
        if suffix.is_empty() {
            return Some(self.scale());
        }
        let suffix = suffix.to_lowercase();
        factors.iter().find(|(known, _)| *known == suffix).map(|(_, factor)| *factor)
    }

    /// Reads a number: none if it is none, is of another unit, is too fine or too large.
    pub(crate) fn read(self, text: &str) -> Option<Number> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, suffix) = text.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let factor = u128::from(self.factor(suffix)?);
        let fraction = fraction.trim_end_matches('0');
        let one = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let parts = whole.parse::<u128>().ok()?.checked_mul(one)?.checked_add(fraction)?;
        let parts = parts.checked_mul(factor)?;
        let smallest = u64::try_from(parts / one).ok()?;
        let fits = parts % one == 0 && (self != Self::Share || smallest <= self.scale());
        fits.then_some(Number { smallest, unit: self })
    }
}

impl Number {
    /// In its unit. Times and shares are the nearest double to what was written, as are those of an edge
    /// to what was measured.
    pub(crate) fn real(self) -> f64 {
        self.smallest as f64 / self.unit.scale() as f64
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.unit.scale();
        write!(f, "{}", self.smallest / scale)?;
        let rest = self.smallest % scale;
        if rest > 0 {
            let width = scale.ilog10() as usize;
            write!(f, ".{}", format!("{rest:0width$}").trim_end_matches('0'))?;
        }
        if self.unit == Unit::Milliseconds { f.write_str("ms") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_exact() {
        let smallest = |unit: Unit, text| unit.read(text).map(|number| number.smallest);
        assert_eq!(smallest(Unit::Bytes, "10MiB"), Some(10 << 20));
        assert_eq!(smallest(Unit::Bytes, "1.5kb"), Some(1_500));
        assert_eq!(smallest(Unit::Bytes, "18446744073709551615"), Some(u64::MAX));
        assert_eq!(smallest(Unit::Milliseconds, "250ms"), Some(250_000_000));
        assert_eq!(smallest(Unit::Milliseconds, "0.000001"), Some(1));
        assert_eq!(smallest(Unit::Milliseconds, "2µs"), Some(2_000));
        assert_eq!(smallest(Unit::Share, "1.000"), Some(1_000_000_000));
        let refused = [
            (Unit::Count, "1.5"),
            (Unit::Count, "1k"),
            (Unit::Bytes, "0.5"),
            (Unit::Bytes, "10ms"),
            (Unit::Bytes, "18446744073709551616"),
            (Unit::Bytes, "16777216TiB"),
            (Unit::Bytes, "1.2.3kB"),
            (Unit::Bytes, ".5kB"),
            (Unit::Bytes, "5.kB"),
            (Unit::Milliseconds, "0.0000001"),
            (Unit::Share, "1.1"),
            (Unit::Count, "-1"),
            (Unit::Count, ""),
            (Unit::Count, "99999999999999999999999999999999999999999999"),
        ];
        for (unit, text) in refused {
            assert_eq!(unit.read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(
            smallest in any::<u64>(),
            unit in prop::sample::select(vec![Unit::Count, Unit::Bytes, Unit::Milliseconds]),
        ) {
            let number = Number { smallest, unit };
            prop_assert_eq!(unit.read(&number.to_string()), Some(number));
        }
    }
}
