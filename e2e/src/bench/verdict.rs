//! Figures held against their goals, and how to print them.

use std::fmt;

/// A goal, and whether it was reached.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is asked for.
    pub goal: String,
    /// What was measured.
    pub figure: String,
    /// Whether that is enough.
    pub met: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.met { "met" } else { "NOT MET" };
        write!(f, "{word:>7}  {}: {}", self.goal, self.figure)
    }
}

/// The middle, the least and the most of some figures.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of figures in any order; of none it is not a number.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<_> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let last = figures.len().saturating_sub(1);
        let median = (at(last / 2) + at(figures.len() / 2)) / 2.0;
        Self { median, min: at(0), max: at(last) }
    }
}

impl fmt::Display for Spread {
    /// Seconds, with the least and the most behind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.2} ({:.2}–{:.2})", self.median, self.min, self.max)
    }
}

/// The least of some figures, in any order, that so large a share of them (0 to 1) does not exceed; of
/// none it is not a number.
pub fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() as f64 * share).ceil() as usize;
    figures.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Bytes as MiB.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_know_their_middle() {
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of([]).median.is_nan());
    }

    #[test]
    fn quantiles_are_figures() {
        let figures: Vec<_> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(
            [0.0, 0.5, 0.9, 1.0].map(|share| quantile(&figures, share)),
            [1.0, 10.0, 18.0, 20.0]
        );
        assert_eq!(quantile(&[f64::INFINITY, 1.0], 1.0), f64::INFINITY);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 2_000_123].map(grouped), ["0", "999", "1,000", "2,000,123"]);
    }
}
