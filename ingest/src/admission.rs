//! From a message to the batch that may pass: what breaks the contract, or would be too much for one
//! insert or for memory, is rejected with its reason, and all else of the batch is kept. Pure.

use std::time::Duration;

use flowtrail_schema::batch::{
    MAX_ANNOUNCED_ADDRESSES, MAX_NAME_BYTES, MAX_RECORDS, MAX_REPORTS, MAX_SPAN_S,
};
use flowtrail_schema::interval::Interval;
use flowtrail_schema::wire::{DecodeError, decode};
use flowtrail_schema::{Coverage, FlowBatch};

/// How far in the future of its message's time a record may be, in seconds: a day. A clock that shows
/// local time as UTC is up to 14 hours ahead; more would be found by no query, and outlive all retention.
const MAX_AHEAD_S: u64 = 86_400;

/// The times that a message may speak of, in seconds since the epoch: a function of the log alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plausible {
    from_s: u64,
    to_s: u64,
}

impl Plausible {
    /// By the time that Kafka has for the message, in milliseconds since the epoch; every time without one.
    pub(crate) fn at(time_ms: Option<u64>, max_age: Duration) -> Self {
        match time_ms.map(|time_ms| time_ms / 1_000) {
            Some(time_s) => Self {
                from_s: time_s.saturating_sub(max_age.as_secs()),
                to_s: time_s.saturating_add(MAX_AHEAD_S),
            },
            None => Self { from_s: 0, to_s: u64::MAX },
        }
    }
}

/// Decodes a message. Without a batch the one reason is the message's; with one, they are of records
/// and reports that were taken out of it. The reasons are words of a bounded number: `deliveries`
/// lists them.
pub(crate) fn admit(message: &[u8], plausible: Plausible) -> (Option<FlowBatch>, Vec<String>) {
    let mut decoded = match decode(message) {
        Ok(decoded) => decoded,
        // What protobuf says of garbage is of any number of words.
        Err(DecodeError::Protobuf(_)) => return (None, vec!["not a FlowBatch".to_owned()]),
        Err(reason) => return (None, vec![reason.to_string()]),
    };
    let records = decoded.batch.records.len() + decoded.rejected.len();
    if let Some(reason) = too_much(&decoded.batch, records) {
        return (None, vec![format!("FlowBatch with {reason}")]);
    }
    let mut reasons: Vec<String> =
        decoded.rejected.iter().map(|(_, reason)| reason.to_string()).collect();
    // Strays last: a record from the future would make strays of all others.
    let batch = &mut decoded.batch;
    let early = keep(batch, |start_s| start_s >= plausible.from_s);
    let late = keep(batch, |start_s| start_s <= plausible.to_s);
    let stray = take_out_strays(batch);
    for (count, reason) in [
        (early, "interval long before its message"),
        (late, "interval after its message"),
        (stray, "interval days before the newest of its batch"),
    ] {
        reasons.extend((0..count).map(|_| reason.to_owned()));
    }
    (Some(decoded.batch), reasons)
}

fn too_much(batch: &FlowBatch, records: usize) -> Option<&'static str> {
    let interfaces = batch.records.iter().map(|record| record.interface.name.as_str());
    let mut names = interfaces.chain([&*batch.agent, &*batch.node]);
    if records > MAX_RECORDS {
        Some("too many records")
    } else if batch.coverage.len() > MAX_REPORTS {
        Some("too many reports")
    } else if batch.announced_addresses.len() > MAX_ANNOUNCED_ADDRESSES {
        Some("too many announced addresses")
    } else if names.any(|name| name.len() > MAX_NAME_BYTES) {
        Some("a name that is too long")
    } else {
        None
    }
}

/// Takes out what is so far from the newest interval that one insert could not hold both: ClickHouse
/// refuses a block of more than 100 days, and would refuse it again for ever. Returns how many.
fn take_out_strays(batch: &mut FlowBatch) -> usize {
    let Some(newest) = intervals(batch).map(Interval::start_s).max() else { return 0 };
    keep(batch, |start_s| newest - start_s <= MAX_SPAN_S)
}

/// Takes out the records and reports whose intervals do not start at a good time. Returns how many.
fn keep(batch: &mut FlowBatch, good: impl Fn(u64) -> bool) -> usize {
    let before = batch.records.len() + batch.coverage.len();
    batch.records.retain(|record| good(record.interval.start_s()));
    batch.coverage.retain(|report: &Coverage| good(report.interval.start_s()));
    before - batch.records.len() - batch.coverage.len()
}

/// The intervals of all that a batch holds.
pub(crate) fn intervals(batch: &FlowBatch) -> impl Iterator<Item = Interval> + '_ {
    let records = batch.records.iter().map(|record| record.interval);
    records.chain(batch.coverage.iter().map(|report| report.interval))
}

#[cfg(test)]
mod tests {
    use flowtrail_schema::interval::IntervalLength;
    use flowtrail_schema::wire::encode;

    use super::*;

    const DAY_US: u64 = 86_400_000_000;

    fn report(day: u64) -> Coverage {
        Coverage {
            interval: IntervalLength::default().interval_at(day * DAY_US),
            interfaces: 1,
            packets_seen: 0,
            packets_dropped: 0,
            flows_evicted: 0,
            records_emitted: 0,
            records_dropped: 0,
        }
    }

    fn batch() -> FlowBatch {
        FlowBatch {
            agent: "a".into(),
            node: "n".into(),
            agent_start_us: 1,
            partition: 0,
            sequence: 0,
            records: vec![],
            coverage: vec![report(20_000)],
            announced_addresses: vec![],
        }
    }

    /// Without a time to compare with.
    fn admit_any(batch: &FlowBatch) -> (Option<FlowBatch>, Vec<String>) {
        admit(&encode(batch), Plausible::at(None, Duration::ZERO))
    }

    fn reason(batch: &FlowBatch) -> String {
        let (admitted, reasons) = admit_any(batch);
        assert!(admitted.is_none());
        reasons.concat()
    }

    #[test]
    fn what_an_agent_never_sends_is_rejected_before_it_is_multiplied() {
        let addresses = vec![[10, 0, 0, 1].into(); MAX_ANNOUNCED_ADDRESSES];
        let largest = FlowBatch {
            agent: "a".repeat(MAX_NAME_BYTES).into(),
            coverage: vec![report(20_000); MAX_REPORTS],
            announced_addresses: addresses.clone(),
            ..batch()
        };
        assert_eq!(admit_any(&largest), (Some(largest.clone()), vec![]));

        let reports = FlowBatch { coverage: vec![report(20_000); MAX_REPORTS + 1], ..batch() };
        assert_eq!(reason(&reports), "FlowBatch with too many reports");
        let announced_addresses = [addresses, vec![[10, 0, 0, 1].into()]].concat();
        let announced = FlowBatch { announced_addresses, ..batch() };
        assert_eq!(reason(&announced), "FlowBatch with too many announced addresses");
        let named = FlowBatch { node: "n".repeat(MAX_NAME_BYTES + 1).into(), ..batch() };
        assert_eq!(reason(&named), "FlowBatch with a name that is too long");
    }

    #[test]
    fn a_batch_keeps_what_is_within_eight_days() {
        let coverage = [0, 19_991, 19_992, 20_000].map(report).to_vec();
        let (admitted, reasons) = admit_any(&FlowBatch { coverage, ..batch() });
        assert_eq!(admitted.unwrap().coverage, [19_992, 20_000].map(report));
        assert_eq!(reasons, ["interval days before the newest of its batch"; 2]);
    }

    #[test]
    fn a_clock_that_is_wrong_costs_its_own_records_only() {
        let age = Duration::from_secs(2 * 86_400);
        let plausible = Plausible::at(Some(20_000 * DAY_US / 1_000), age);
        let days = |days: &[u64]| {
            let coverage = days.iter().copied().map(report).collect();
            admit(&encode(&FlowBatch { coverage, ..batch() }), plausible)
        };
        let (admitted, reasons) = days(&[0, 19_997, 19_998, 20_001, 20_002]);
        assert_eq!(admitted.unwrap().coverage, [19_998, 20_001].map(report));
        let (early, late) = ("interval long before its message", "interval after its message");
        assert_eq!(reasons, [early, early, late]);
    }
}
