//! Latency histogram: additive, with fixed buckets, so that quantiles do not depend on how rows were
//! summed on their way here.

use std::fmt::{self, Formatter};
use std::sync::LazyLock;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

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

/// Samples per bucket. Read from a map of these, as ClickHouse's `sumMap` gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Histogram {
    /// The bucket that the first of the counts is of: an hour is in the 231st.
    first: usize,
    counts: Vec<u64>,
}

impl Histogram {
    /// Adds samples to a bucket.
    fn add(&mut self, bucket: usize, samples: u64) {
        self.reach(bucket, 1);
        self.counts[bucket - self.first] += samples;
    }

    /// Adds another's samples.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        self.reach(other.first, other.counts.len());
        let counts = &mut self.counts[other.first - self.first..];
        counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    /// Makes room for so many buckets from one on, at least one.
    fn reach(&mut self, first: usize, buckets: usize) {
        if self.counts.is_empty() {
            self.first = first;
        }
        if first < self.first {
            self.counts.splice(..0, std::iter::repeat_n(0, self.first - first));
            self.first = first;
        }
        let length = first - self.first + buckets;
        if length > self.counts.len() {
            self.counts.resize(length, 0);
        }
    }

    /// Nearest-rank quantiles in microseconds, each as its bucket's geometric middle; none without samples.
    /// They are 0 to 1 and ascend.
    pub(crate) fn quantiles_us<const N: usize>(&self, quantiles: [f64; N]) -> Option<[f64; N]> {
        let samples: u64 = self.counts.iter().sum();
        let (mut buckets, mut below) = (self.first..self.first + self.counts.len(), 0);
        let mut reached = None;
        let middles = quantiles.map(|quantile| {
            let rank = ((samples as f64 * quantile).ceil() as u64).max(1);
            while below < rank {
                reached = Some(buckets.next()?);
                below += self.counts[reached? - self.first];
            }
            reached
                .map(|bucket| MIDDLES_US.get(bucket).copied().unwrap_or_else(|| middle_us(bucket)))
        });
        middles.iter().all(Option::is_some).then(|| middles.map(Option::unwrap_or_default))
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Buckets;

        impl<'de> Visitor<'de> for Buckets {
            type Value = Histogram;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                formatter.write_str("samples by bucket")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // Every other bucket between the first and the last has samples, about.
                let buckets = map.size_hint().unwrap_or_default().min(MIDDLES_US.len());
                let counts = Vec::with_capacity(2 * buckets);
                let mut histogram = Histogram { first: 0, counts };
                while let Some((bucket, samples)) = map.next_entry::<u16, u64>()? {
                    histogram.add(bucket.into(), samples);
                }
                Ok(histogram)
            }
        }

        deserializer.deserialize_map(Buckets)
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
            histogram.add(bucket.into(), 1);
        }
        histogram
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantiles_us([0.5]), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_five_percent(
            mut samples in prop::collection::vec(1_u64..10_000_000_000, 1..50), quantile in 0.0..=1.0_f64
        ) {
            let [median, estimate] = of(&samples).quantiles_us([quantile.min(0.5), quantile]).unwrap();
            prop_assert_eq!(of(&samples).quantiles_us([quantile.min(0.5)]), Some([median]));
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
