//! Latency histogram: additive, with fixed buckets, so that quantiles do not depend on how rows were
//! summed on their way here.

use std::fmt::{self, Formatter};
use std::sync::LazyLock;

use serde::de::{Error, MapAccess, Visitor};
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

/// Beyond all buckets: the largest time is in the 466th.
const BUCKETS: usize = 512;

/// The samples of buckets, ascending, where they were read: as in `RowBinary`, a `UInt16` and a `UInt64` each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Buckets<'a>(&'a [[u8; 10]]);

impl<'a> Buckets<'a> {
    /// None if they do not ascend, or are none of ours.
    pub(crate) fn new(buckets: &'a [[u8; 10]]) -> Option<Self> {
        let buckets = Self(buckets);
        let ascend = buckets.iter().is_sorted_by(|(bucket, _), (next, _)| bucket < next);
        (ascend && buckets.iter().next_back().is_none_or(|(last, _)| last < BUCKETS))
            .then_some(buckets)
    }

    fn iter(self) -> impl DoubleEndedIterator<Item = (usize, u64)> + Clone {
        self.0.iter().map(|[low, high, samples @ ..]| {
            (u16::from_le_bytes([*low, *high]).into(), u64::from_le_bytes(*samples))
        })
    }
}

/// Samples per bucket. Deserialized from a map of these, as ClickHouse's `sumMap` gives it.
#[derive(Clone, Debug)]
pub(crate) enum Histogram<'a> {
    /// Of an edge of one row, as thousands are: where it was read.
    Read(Buckets<'a>),
    /// Of whatever was added.
    Summed(Counts),
}

impl Default for Histogram<'_> {
    fn default() -> Self {
        Self::Read(Buckets::default())
    }
}

impl Histogram<'_> {
    /// Adds another's samples.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Read(Buckets([]))) => {}
            (Self::Read(Buckets([])), other) => *self = other.clone(),
            (Self::Read(buckets), other) => {
                *self = Self::Summed((*buckets).into());
                self.merge(other);
            }
            (Self::Summed(counts), Self::Read(buckets)) => counts.add_read(*buckets),
            (Self::Summed(counts), Self::Summed(other)) => counts.merge(other),
        }
    }

    /// Nearest-rank quantiles in microseconds, each as its bucket's geometric middle; none without samples.
    /// They are 0 to 1 and ascend.
    pub(crate) fn quantiles_us<const N: usize>(&self, quantiles: [f64; N]) -> Option<[f64; N]> {
        match self {
            Self::Read(buckets) => nearest_ranks(buckets.iter(), quantiles),
            Self::Summed(counts) => nearest_ranks(counts.iter(), quantiles),
        }
    }
}

/// Samples of each bucket from one on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// The bucket that the first of the counts is of: an hour is in the 231st.
    first: usize,
    counts: Vec<u64>,
}

impl From<Buckets<'_>> for Counts {
    fn from(buckets: Buckets<'_>) -> Self {
        let mut counts = Self::default();
        counts.add_read(buckets);
        counts
    }
}

impl Counts {
    /// Adds samples to a bucket.
    fn add(&mut self, bucket: usize, samples: u64) {
        self.reach(bucket, 1);
        self.counts[bucket - self.first] += samples;
    }

    fn add_read(&mut self, buckets: Buckets<'_>) {
        let (first, last) = (buckets.iter().next(), buckets.iter().next_back());
        let (Some((first, _)), Some((last, _))) = (first, last) else { return };
        self.reach(first, last - first + 1);
        buckets.iter().for_each(|(bucket, samples)| self.counts[bucket - self.first] += samples);
    }

    fn merge(&mut self, other: &Self) {
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

    fn iter(&self) -> impl Iterator<Item = (usize, u64)> + Clone {
        (self.first..).zip(self.counts.iter().copied())
    }
}

/// The quantiles of buckets that ascend.
fn nearest_ranks<const N: usize>(
    mut buckets: impl Iterator<Item = (usize, u64)> + Clone,
    quantiles: [f64; N],
) -> Option<[f64; N]> {
    let samples: u64 = buckets.clone().map(|(_, samples)| samples).sum();
    let (mut reached, mut below) = (None, 0);
    let middles = quantiles.map(|quantile| {
        let rank = ((samples as f64 * quantile).ceil() as u64).max(1);
        while below < rank {
            let (bucket, samples) = buckets.next()?;
            reached = Some(bucket);
            below += samples;
        }
        reached.map(|bucket| MIDDLES_US.get(bucket).copied().unwrap_or_else(|| middle_us(bucket)))
    });
    middles.iter().all(Option::is_some).then(|| middles.map(Option::unwrap_or_default))
}

impl<'de> Deserialize<'de> for Histogram<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByBucket;

        impl<'de> Visitor<'de> for ByBucket {
            type Value = Histogram<'static>;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                formatter.write_str("samples by bucket")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // Every other bucket between the first and the last has samples, about.
                let buckets = map.size_hint().unwrap_or_default().min(MIDDLES_US.len());
                let mut counts = Counts { first: 0, counts: Vec::with_capacity(2 * buckets) };
                while let Some((bucket, samples)) = map.next_entry::<u16, u64>()? {
                    if usize::from(bucket) >= BUCKETS {
                        return Err(A::Error::custom("a bucket beyond all"));
                    }
                    counts.add(bucket.into(), samples);
                }
                Ok(Histogram::Summed(counts))
            }
        }

        deserializer.deserialize_map(ByBucket)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Buckets<'static> {
        /// As ClickHouse writes them; never freed.
        pub(crate) fn of(buckets: &[(u16, u64)]) -> Self {
            let written = buckets.iter().map(|(bucket, samples)| {
                let mut bytes = [0; 10];
                bytes[..2].copy_from_slice(&bucket.to_le_bytes());
                bytes[2..].copy_from_slice(&samples.to_le_bytes());
                bytes
            });
            Self::new(written.collect::<Vec<_>>().leak()).unwrap()
        }
    }

    fn of(samples: &[u64]) -> Histogram<'static> {
        let mut counts = Counts::default();
        for sample in samples {
            let bucket = ((*sample as f64).ln() / GROWTH.ln()).floor() as u16;
            counts.add(bucket.into(), 1);
        }
        Histogram::Summed(counts)
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
        fn merging_is_adding(
            a in prop::collection::vec(1_u64..1_000_000, 0..20),
            b in prop::collection::vec(1_u64..1_000_000, 0..20),
        ) {
            let both = of(&[a.clone(), b.clone()].concat());
            for merged in [of(&a), read(&a)] {
                prop_assert_eq!(told(&merged), told(&of(&a)));
                let quantiles = [0.1, 0.5, 0.9];
                prop_assert_eq!(merged.quantiles_us(quantiles), of(&a).quantiles_us(quantiles));
                for other in [of(&b), read(&b)] {
                    let mut merged = merged.clone();
                    merged.merge(&other);
                    prop_assert_eq!(told(&merged), told(&both));
                    prop_assert_eq!(merged.quantiles_us(quantiles), both.quantiles_us(quantiles));
                    merged.merge(&Histogram::default());
                    prop_assert_eq!(told(&merged), told(&both));
                }
            }
        }
    }

    /// The same where it was read.
    fn read(samples: &[u64]) -> Histogram<'static> {
        let buckets: Vec<_> =
            told(&of(samples)).into_iter().map(|(bucket, count)| (bucket as u16, count)).collect();
        Histogram::Read(Buckets::of(&buckets))
    }

    fn told(histogram: &Histogram<'_>) -> Vec<(usize, u64)> {
        let counts = match histogram {
            Histogram::Read(buckets) => &Counts::from(*buckets),
            Histogram::Summed(counts) => counts,
        };
        counts.iter().filter(|(_, samples)| *samples > 0).collect()
    }

    #[test]
    fn buckets_ascend_and_are_ours() {
        let of = |buckets: &[u8]| {
            let buckets: Vec<_> =
                buckets.iter().map(|low| [*low, 0, 1, 0, 0, 0, 0, 0, 0, 0]).collect();
            Buckets::new(&buckets).is_some()
        };
        assert!(of(&[]) && of(&[7]) && of(&[7, 8, 200]));
        assert!(!of(&[8, 7]) && !of(&[7, 7]));
        assert!(Buckets::new(&[[255, 1, 1, 0, 0, 0, 0, 0, 0, 0]]).is_some());
        assert!(Buckets::new(&[[0, 2, 1, 0, 0, 0, 0, 0, 0, 0]]).is_none());
        assert!((u64::MAX as f64).ln() / GROWTH.ln() < BUCKETS as f64);
    }
}
