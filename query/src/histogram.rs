//! Latency histogram: additive, with fixed buckets, so that quantiles do not depend on how rows were
//! summed on their way here.

/// Each bucket is this much wider than the one before: 10 %, so its middle is within 5 % of all in it.
const GROWTH: f64 = 1.1;

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
    /// By bucket, up to the last one with a sample: an hour is in the 231st.
    counts: Vec<u64>,
}

impl Histogram {
    /// From the two arrays that ClickHouse's `sumMap` gives.
    pub(crate) fn from_arrays(buckets: Vec<u16>, counts: Vec<u64>) -> Self {
        let mut histogram = Self::default();
        for (bucket, count) in buckets.into_iter().zip(counts) {
            *histogram.count(bucket.into()) += count;
        }
        histogram
    }

    fn count(&mut self, bucket: usize) -> &mut u64 {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        &mut self.counts[bucket]
    }

    /// Adds another's samples.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    /// The nearest-rank quantile in microseconds, as its bucket's geometric middle; none without
    /// samples. `quantile` is 0 to 1.
    pub(crate) fn quantile_us(&self, quantile: f64) -> Option<f64> {
        let samples: u64 = self.counts.iter().sum();
        let rank = ((samples as f64 * quantile).ceil() as u64).max(1);
        let mut below = 0;
        self.counts.iter().enumerate().find_map(|(bucket, count)| {
            below += count;
            (below >= rank).then(|| GROWTH.powf(bucket as f64 + 0.5))
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
