//! What waits for one partition: records, and the summaries of those that waited too long. Pure.

use std::collections::{BTreeMap, VecDeque};

use flowtrail_schema::FlowRecord;
use flowtrail_schema::batch::MAX_RECORDS;
use flowtrail_schema::interval::Interval;
use indexmap::IndexMap;
use indexmap::map::Entry;

use super::Span;
use super::summary::{Key, Summary};

/// Records in a piece of the queue: a queue that grows and shrinks by pieces never copies what is in
/// it, nor keeps the room it once needed.
const PIECE_RECORDS: usize = 256;

/// What is folded at once of what is too much, as a share. Folding more seldom than with each record
/// makes it cheap, whatever the number of partitions.
const FOLDED_SHARE: usize = 8;

/// What waits, from the oldest on: summaries of minutes, of intervals, records.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    minutes: Summaries,
    summaries: Summaries,
    records: Queue,
}

impl Backlog {
    pub(super) fn push(&mut self, record: FlowRecord) {
        self.records.push(record);
    }

    pub(super) fn records(&self) -> usize {
        self.records.len
    }

    pub(super) fn summaries(&self) -> usize {
        self.summaries.len
    }

    pub(super) fn minute_summaries(&self) -> usize {
        self.minutes.len
    }

    pub(super) fn has_summaries(&self) -> bool {
        self.summaries.len + self.minutes.len > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.len == 0 && !self.has_summaries()
    }

    /// How many records to fold at once, if any must be.
    pub(super) fn oldest_records(&self) -> usize {
        self.records.len.div_ceil(FOLDED_SHARE)
    }

    /// The oldest record.
    pub(super) fn pop_record(&mut self) -> Option<FlowRecord> {
        self.records.pop()
    }

    /// Adds a summary that belongs to this partition.
    pub(super) fn add(&mut self, summary: Summary) {
        self.summaries.add(summary);
    }

    /// Folds the oldest summaries into those of their minutes; returns how many.
    pub(super) fn fold_summaries(&mut self) -> u64 {
        let summaries = self.summaries.len.div_ceil(FOLDED_SHARE);
        let oldest = std::iter::from_fn(|| self.summaries.pop()).take(summaries);
        oldest.for_each(|summary| self.minutes.add(summary.of_minute()));
        summaries as u64
    }

    /// Gives up the oldest summaries of minutes; returns how many records were folded into them.
    pub(super) fn drop_minutes(&mut self) -> u64 {
        let minutes = self.minutes.len.div_ceil(FOLDED_SHARE);
        let oldest = std::iter::from_fn(|| self.minutes.pop()).take(minutes);
        oldest.map(|summary| summary.records).sum()
    }

    /// What goes into the next batch beside what spans it already. Old and new take turns: half of it is
    /// summaries while there are records too.
    pub(super) fn take(&mut self, span: &mut Span) -> Vec<FlowRecord> {
        let waiting = self.records.len + self.summaries.len + self.minutes.len;
        let mut taken = Vec::with_capacity(waiting.min(MAX_RECORDS));
        let folded = if self.records.len > 0 { MAX_RECORDS / 2 } else { MAX_RECORDS };
        for summaries in [&mut self.minutes, &mut self.summaries] {
            while taken.len() < folded
                && summaries.oldest().is_some_and(|interval| span.takes(interval))
            {
                taken.extend(summaries.pop().map(|summary| summary.record));
            }
        }
        while taken.len() < MAX_RECORDS
            && self.records.oldest().is_some_and(|interval| span.takes(interval))
        {
            taken.extend(self.records.pop());
        }
        taken
    }

    /// Moves everything to where it belongs: when it turns out which partitions there are.
    pub(super) fn distribute(mut self, to: &mut [Self], place: impl Fn(&FlowRecord) -> usize) {
        while let Some(record) = self.records.pop() {
            if let Some(to) = to.get_mut(place(&record)) {
                to.records.push(record);
            }
        }
        while let Some(summary) = self.summaries.pop() {
            if let Some(to) = to.get_mut(place(&summary.record)) {
                to.summaries.add(summary);
            }
        }
        while let Some(summary) = self.minutes.pop() {
            if let Some(to) = to.get_mut(place(&summary.record)) {
                to.minutes.add(summary);
            }
        }
    }

    /// Gives everything up; returns how many records that is, with those that were folded.
    pub(super) fn drop_all(&mut self) -> u64 {
        let Self { minutes, summaries, records } = std::mem::take(self);
        records.len as u64 + minutes.records() + summaries.records()
    }
}

/// Records from the oldest on.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<VecDeque<FlowRecord>>,
    len: usize,
}

impl Queue {
    fn push(&mut self, record: FlowRecord) {
        self.len += 1;
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < PIECE_RECORDS => piece.push_back(record),
            _ => self.pieces.push_back(VecDeque::from([record])),
        }
    }

    fn oldest(&self) -> Option<Interval> {
        self.pieces.front()?.front().map(|record| record.interval)
    }

    fn pop(&mut self) -> Option<FlowRecord> {
        let piece = self.pieces.front_mut()?;
        let record = piece.pop_front();
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        self.len -= usize::from(record.is_some());
        record
    }
}

/// Summaries from the oldest interval on.
#[derive(Debug, Default)]
struct Summaries {
    by_interval: BTreeMap<Interval, IndexMap<Key, Summary, foldhash::fast::RandomState>>,
    len: usize,
}

impl Summaries {
    fn add(&mut self, summary: Summary) {
        let of_interval = self.by_interval.entry(summary.record.interval).or_default();
        match of_interval.entry(Key::of(&summary.record)) {
            Entry::Occupied(mut sum) => sum.get_mut().add(summary),
            Entry::Vacant(place) => {
                place.insert(summary);
                self.len += 1;
            }
        }
    }

    /// Records that were folded into them.
    fn records(&self) -> u64 {
        self.by_interval.values().flat_map(IndexMap::values).map(|summary| summary.records).sum()
    }

    fn oldest(&self) -> Option<Interval> {
        self.by_interval.first_key_value().map(|(interval, _)| *interval)
    }

    fn pop(&mut self) -> Option<Summary> {
        let mut oldest = self.by_interval.first_entry()?;
        let summary = oldest.get_mut().pop();
        if oldest.get().is_empty() {
            oldest.remove();
        }
        self.len -= usize::from(summary.is_some());
        summary.map(|(_, summary)| summary)
    }
}
