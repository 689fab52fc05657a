//! Reports: one `Coverage` for each interval that the agent was there for. Pure.

use std::collections::BTreeMap;

use flowtrail_schema::Coverage;
use flowtrail_schema::interval::{Interval, IntervalLength};

/// A jump of time longer than this is not watched time: the machine slept, the clock was set, or the
/// file has a hole. Its intervals get no report, for nobody knows what happened in them.
const LONGEST_SILENCE_US: u64 = 60 * 60 * 1_000_000;

/// Counts by interval until the interval is reported.
///
/// What belongs to an interval that was already reported counts in the next report.
#[derive(Debug)]
pub(crate) struct Reports {
    length: IntervalLength,
    /// Time from an interval's end to its report.
    delay_us: u64,
    /// The first interval that is not reported yet; none before time has begun.
    next: Option<Interval>,
    /// Counts of intervals from `next` on; they are reported within `delay_us`, so they are few.
    counts: BTreeMap<Interval, Coverage>,
}

impl Reports {
    pub(crate) fn new(length: IntervalLength, delay_us: u64) -> Self {
        Self { length, delay_us, next: None, counts: BTreeMap::new() }
    }

    /// The counts of the interval that holds an instant.
    pub(crate) fn at(&mut self, time_us: u64) -> &mut Coverage {
        let interval = self.length.interval_at(time_us);
        let next = *self.next.get_or_insert(interval);
        let interval = interval.max(next);
        self.counts.entry(interval).or_insert_with(|| empty(interval))
    }

    /// The next report that is due.
    pub(crate) fn due(&mut self, now_us: u64, interfaces: u32) -> Option<Coverage> {
        self.skip_silence(now_us);
        let next = self.next.filter(|next| next.end_us() + self.delay_us <= now_us)?;
        Some(self.take(next, interfaces))
    }

    /// The next report, due or not, of the intervals until now and of those with counts.
    pub(crate) fn last(&mut self, now_us: u64, interfaces: u32) -> Option<Coverage> {
        self.skip_silence(now_us);
        let next = self.next.filter(|next| next.start_us() <= now_us || !self.counts.is_empty())?;
        Some(self.take(next, interfaces))
    }

    fn skip_silence(&mut self, now_us: u64) {
        let Some(next) = &mut self.next else { return };
        let counted = self.counts.keys().next().copied();
        let resumed = counted.unwrap_or_else(|| self.length.interval_at(now_us));
        if resumed.start_us().saturating_sub(next.start_us()) > LONGEST_SILENCE_US {
            *next = resumed;
        }
    }

    fn take(&mut self, interval: Interval, interfaces: u32) -> Coverage {
        self.next = Some(interval.next());
        let counts = self.counts.remove(&interval).unwrap_or_else(|| empty(interval));
        Coverage { interfaces, ..counts }
    }
}

fn empty(interval: Interval) -> Coverage {
    Coverage {
        interval,
        interfaces: 0,
        packets_seen: 0,
        packets_dropped: 0,
        flows_evicted: 0,
        records_emitted: 0,
        records_dropped: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn starts(reports: &mut Reports, now_s: u64) -> Vec<u64> {
        let due = std::iter::from_fn(|| reports.due(now_s * SECOND, 1));
        due.map(|report| report.interval.start_s()).collect()
    }

    #[test]
    fn every_interval_is_reported_once_even_an_empty_one() {
        let mut reports = Reports::new(IntervalLength::default(), SECOND);
        assert!(reports.due(100 * SECOND, 1).is_none(), "time has not begun");
        reports.at(103 * SECOND).packets_seen += 1;
        assert!(starts(&mut reports, 110).is_empty());
        assert_eq!(starts(&mut reports, 131), [100, 110, 120]);
        assert!(starts(&mut reports, 131).is_empty());
    }

    #[test]
    fn what_is_late_counts_in_the_next_report() {
        let mut reports = Reports::new(IntervalLength::default(), 0);
        reports.at(100 * SECOND).packets_seen += 1;
        assert_eq!(reports.due(110 * SECOND, 1).unwrap().packets_seen, 1);
        reports.at(109 * SECOND).packets_seen += 2;
        let report = reports.last(112 * SECOND, 1).unwrap();
        assert_eq!((report.interval.start_s(), report.packets_seen), (110, 2));
        assert!(reports.last(112 * SECOND, 1).is_none());
    }

    #[test]
    fn a_hole_in_time_is_not_reported_as_watched() {
        let mut reports = Reports::new(IntervalLength::default(), 0);
        let later = 100 + 365 * 24 * 3600;
        reports.at(100 * SECOND).packets_seen += 1;
        assert_eq!(starts(&mut reports, later), [100]);
        reports.at(later * SECOND).packets_seen += 1;
        assert_eq!(starts(&mut reports, later + 20), [later / 10 * 10, later / 10 * 10 + 10]);
    }
}
