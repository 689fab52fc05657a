//! Latency histogram: additive, with fixed buckets, so that quantiles do not depend on how rows were
//! summed on their way here.

use std::sync::LazyLock;

/// Each bucket is this much wider than the one before: 10 %, so its middle is within 5 % of all in it.
const GROWTH: f64 = 1.1;

/// The geometric middles of the buckets of up to ten hours, in microseconds: a graph asks for many thousands.
static MIDDLES_US: LazyLock<[f64; 256]> = LazyLock::new(|| std::array::from_fn(middle_us));

fn middle_us(bucket: usize) -> f64 {
    GROWTH.powf(bucket as f64 + 0.5)
}

/// ClickHouse's expression for the bucket of a row's mean sample: bucket `i` holds
/// `[1.1^i, 1.1^(i+1))` microseconds. A summary row of several samples counts as that many means.
pub(crate) fn bucket_sql(sum_us: &str, count: &str) -> String {
    format!(
        "toUInt16(floor(log(greatest(intDiv({sum_us}, greatest({count}, 1)), 1)) / log({GROWTH})))"
    )
}

/// Samples per bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// The bucket that the first of the counts is of: an hour is in the 231st.
    first: usize,
    counts: Vec<u64>,
}

impl Histogram {
    /// From the two arrays that ClickHouse's `sumMap` gives.
    pub(crate) fn from_arrays(buckets: Vec<u16>, counts: Vec<u64>) -> Self {
        let ends = buckets.iter().min().zip(buckets.iter().max());
        let Some((first, last)) =
            ends.map(|(first, last)| (usize::from(*first), usize::from(*last)))
        else {
            return Self::default();
        };
        let mut histogram = Self { first, counts: vec![0; last - first + 1] };
        for (bucket, count) in buckets.into_iter().zip(counts) {
            histogram.counts[usize::from(bucket) - first] += count;
        }
        histogram
    }

    /// Adds another's samples.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        if other.counts.is_empty() {
            return;
        }
        let lower = self.first.saturating_sub(other.first);
        self.counts.splice(..0, std::iter::repeat_n(0, lower));
        self.first -= lower;
        let offset = other.first - self.first;
        let length = self.counts.len().max(offset + other.counts.len());
        self.counts.resize(length, 0);
        self.counts[offset..]
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(count, more)| *count += more);
    }

    /// The nearest-rank quantile in microseconds, as its bucket's geometric middle; none without
    /// samples. `quantile` is 0 to 1.
    pub(crate) fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let samples: u64 = self.counts.iter().sum();
        let rank = ((samples as f64 * quantile).ceil() as u64).max(1);
        let mut below = 0;
        self.counts.iter().enumerate().find_map(|(bucket, count)| {
            below += count;
            let bucket = self.first + bucket;
            (below >= rank)
                .then(|| MIDDLES_US.get(bucket).copied().unwrap_or_else(|| middle_us(bucket)))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for sample in samples {
            let bucket = ((*sample as f64).ln() / GROWTH.ln()).floor() as u16;
            histogram.merge(&Histogram::from_arrays(vec![bucket], vec![1]));
        }
        histogram
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile_us(0.5), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_five_percent(
            mut samples in prop::collection::vec(1_u64..10_000_000_000, 1..50), quantile in 0.0..=1.0
        ) {
            let estimate = of(&samples).quantile_us(quantile).unwrap();
            samples.sort_unstable();
            let rank = ((samples.len() as f64 * quantile).ceil() as usize).max(1);
            let exact = samples[rank - 1] as f64;
            prop_assert!((estimate / exact - 1.0).abs() < 0.05, "{estimate} for {exact}");
        }

        #[test]
        fn merging_is_adding(a in prop::collection::vec(1_u64..1_000_000, 0..20), b in prop::collection::vec(1_u64..1_000_000, 0..20)) {
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }
}
