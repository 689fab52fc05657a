//! What adds up on an edge or a node, before averages and quantiles are taken.

use crate::answer::{Closed, Counters, Duration, Latency, Traffic};
use crate::histogram::Histogram;
use crate::sql::EdgeRow;

/// Sums over connections: merging is exact, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums<'a> {
    pub(crate) connections: u64,
    pub(crate) opened: u64,
    pub(crate) joined: u64,
    pub(crate) open: u64,
    pub(crate) inferred: u64,
    pub(crate) closed: Closed,
    pub(crate) sent: Counters,
    pub(crate) received: Counters,
    pub(crate) duration: Measure<'a>,
    pub(crate) latency: Measure<'a>,
    pub(crate) first_response: Measure<'a>,
}

/// A sum of samples in microseconds, their largest, and (for latencies) their distribution.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measure<'a> {
    sum_us: u64,
    count: u64,
    max_us: u64,
    histogram: Histogram<'a>,
}

impl<'a> Sums<'a> {
    /// The fields' order is that of `SUMMED` and `LARGEST` in [`crate::sql`].
    pub(crate) fn of(row: &EdgeRow<'a>) -> Self {
        let mut sums = row.sums.into_iter();
        let mut sum = || sums.next().unwrap_or_default();
        let [duration_max_us, latency_max_us, first_response_max_us] = row.largest;
        let opening = sum();
        let (opened, joined) = (sum(), sum());
        Self {
            connections: opening + opened + joined,
            opened,
            joined,
            open: 0,
            inferred: sum(),
            closed: Closed {
                fin: sum(),
                reset_by_client: sum(),
                reset_by_server: sum(),
                refused: sum(),
                unanswered: sum(),
                idle: sum(),
                superseded: sum(),
                evicted: sum(),
            },
            sent: counters(&mut sum),
            received: counters(&mut sum),
            duration: Measure::of(&mut sum, duration_max_us, Histogram::default()),
            latency: Measure::of(&mut sum, latency_max_us, Histogram::Read(row.latency_buckets)),
            first_response: Measure::of(
                &mut sum,
                first_response_max_us,
                Histogram::Read(row.first_response_buckets),
            ),
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        self.opened += other.opened;
        self.joined += other.joined;
        self.open += other.open;
        self.inferred += other.inferred;
        self.closed += other.closed;
        self.sent += other.sent;
        self.received += other.received;
        self.duration.merge(&other.duration);
        self.latency.merge(&other.latency);
        self.first_response.merge(&other.first_response);
    }

    pub(crate) fn failed(&self) -> u64 {
        self.closed.refused + self.closed.unanswered
    }

    pub(crate) fn retransmits(&self) -> u64 {
        self.sent.retransmitted_packets + self.received.retransmitted_packets
    }

    /// Connections that ended, for any reason.
    pub(crate) fn closed(&self) -> u64 {
        let Closed {
            fin,
            reset_by_client,
            reset_by_server,
            refused,
            unanswered,
            idle,
            superseded,
            evicted,
        } = self.closed;
        fin + reset_by_client + reset_by_server + refused + unanswered + idle + superseded + evicted
    }

    /// Share (0 to 1) of the connections whose direction was guessed from ports.
    pub(crate) fn direction_inferred(&self) -> f64 {
        self.inferred as f64 / self.connections.max(1) as f64
    }

    /// As answered: with averages and quantiles of the merged sums.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            connections: self.connections,
            opened: self.opened,
            joined: self.joined,
            open: self.open,
            closed: self.closed,
            failed: self.failed(),
            sent: self.sent,
            received: self.received,
            retransmits: self.retransmits(),
            duration: Duration {
                count: self.duration.count,
                avg_ms: self.duration.avg_ms(),
                max_ms: self.duration.max_ms(),
            },
            latency: self.latency.latency(),
            first_response: self.first_response.latency(),
            direction_inferred: self.direction_inferred(),
        }
    }
}

impl<'a> Measure<'a> {
    /// Some samples: sum, number, largest, and how many are in which buckets.
    pub(crate) fn new(sum_us: u64, count: u64, max_us: u64, histogram: Histogram<'a>) -> Self {
        Self { sum_us, count, max_us, histogram }
    }

    /// `sum` gives the sum and the number of samples.
    fn of(sum: &mut impl FnMut() -> u64, max_us: u64, histogram: Histogram<'a>) -> Self {
        Self::new(sum(), sum(), max_us, histogram)
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.sum_us += other.sum_us;
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
        self.histogram.merge(&other.histogram);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn avg_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_us as f64 / self.count as f64 / 1_000.0)
    }

    pub(crate) fn max_ms(&self) -> Option<f64> {
        (self.count > 0).then(|| self.max_us as f64 / 1_000.0)
    }

    /// In milliseconds, never above the largest sample.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        self.quantiles_ms([quantile]).map(|[quantile_ms]| quantile_ms)
    }

    /// Of quantiles that ascend.
    fn quantiles_ms<const N: usize>(&self, quantiles: [f64; N]) -> Option<[f64; N]> {
        let quantiles_us = self.histogram.quantiles_us(quantiles)?;
        Some(quantiles_us.map(|us| us.min(self.max_us as f64) / 1_000.0))
    }

    fn latency(&self) -> Latency {
        let [p50_ms, p95_ms] =
            self.quantiles_ms([0.5, 0.95]).map_or([None; 2], |quantiles| quantiles.map(Some));
        let (avg_ms, max_ms) = (self.avg_ms(), self.max_ms());
        Latency { count: self.count, avg_ms, p50_ms, p95_ms, max_ms }
    }
}

fn counters(sum: &mut impl FnMut() -> u64) -> Counters {
    let (header_bytes, payload_bytes) = (sum(), sum());
    Counters {
        // As the column of this name, which would make the statement longer.
        bytes: header_bytes.wrapping_add(payload_bytes),
        payload_bytes,
        packets: sum(),
        retransmitted_packets: sum(),
        zero_window_packets: sum(),
    }
}
