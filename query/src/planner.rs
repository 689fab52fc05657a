//! The window planner: which rows of which table a window is computed from. Weeks in the middle, days
//! around them, hours and minutes around these and raw rows at the fringes, so that cost hardly grows with
//! the window. Where finer rows are past their retention, the window is widened to what is left. Pure.

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime};

use crate::window::{Bounds, Requested, starts_minute};

/// A table's grain, from the finest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// `flows`: rows of an interval.
    Raw,
    /// Rows of a minute.
    Minute,
    /// Rows of an hour.
    Hour,
    /// Rows of a day (UTC).
    Day,
    /// Rows of a week, from Monday (UTC) on.
    Week,
}

/// How many there are.
pub(crate) const TIERS: usize = 5;

const DAY_S: u32 = 86_400;
pub(crate) const WEEK_S: u32 = 7 * DAY_S;

/// The first Monday: the epoch is a Thursday.
pub(crate) const MONDAY_S: u32 = 4 * DAY_S;

impl Tier {
    /// All of them, from the finest on.
    pub(crate) const ALL: [Self; TIERS] =
        [Self::Raw, Self::Minute, Self::Hour, Self::Day, Self::Week];

    /// Seconds that a row is of, at most.
    fn step_s(self, interval_s: u32) -> u32 {
        match self {
            Self::Raw => interval_s,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => DAY_S,
            Self::Week => WEEK_S,
        }
    }

    /// The start of the first row: the others follow, step by step.
    fn first_s(self) -> u32 {
        if self == Self::Week { MONDAY_S } else { 0 }
    }

    /// The start of the row that a time is in; of what is before the first, 0.
    fn row_of(self, time_s: u32, interval_s: u32) -> u32 {
        let (first_s, step_s) = (self.first_s(), self.step_s(interval_s));
        time_s.checked_sub(first_s).map_or(0, |since_s| first_s + since_s / step_s * step_s)
    }

    /// The start of the first row that does not begin before a time; `None` beyond all times.
    fn row_from(self, time_s: u32, interval_s: u32) -> Option<u32> {
        let first_s = self.first_s();
        let since_s = time_s.saturating_sub(first_s);
        since_s.checked_next_multiple_of(self.step_s(interval_s))?.checked_add(first_s)
    }

    /// The partition that a time is in, from its first second to the first one after. `flows` and minutes
    /// are partitioned by day, all else by month.
    fn partition_s(self, time_s: u32) -> (u32, u32) {
        let day = time_s / DAY_S * DAY_S;
        let days = (day, day.saturating_add(DAY_S));
        match self {
            Self::Raw | Self::Minute => days,
            Self::Hour | Self::Day | Self::Week => month_of(time_s).unwrap_or(days),
        }
    }
}

fn month_of(time_s: u32) -> Option<(u32, u32)> {
    let date = DateTime::from_timestamp(time_s.into(), 0)?.date_naive();
    let first = NaiveDate::from_ymd_opt(date.year(), date.month(), 1)?;
    let start_of = |date: NaiveDate| date.and_time(NaiveTime::MIN).and_utc().timestamp().try_into();
    let next = first.checked_add_months(Months::new(1))?;
    Some((start_of(first).ok()?, start_of(next).ok()?))
}

/// Since when each tier, from the finest on, is whole: seconds since the epoch. What is before is of rows of
/// a coarser tier that end there, or else of a finer one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    since_s: [u32; TIERS],
}

impl Held {
    /// From the time of each tier's earliest row (0 without rows), and the time that its retention has
    /// come to (`None` of a table that keeps its rows); both in seconds since the epoch.
    ///
    /// A tier that begins when the coarser ones do has lost nothing: there was nothing before. One that
    /// begins after a finer one was made later, or emptied: its first row may be of a part. Retention drops
    /// parts that are past it as a whole. Where it was made longer, part of the earliest partition may have
    /// gone before; rows that no retention drops go by whole partitions.
    pub(crate) fn since(earliest_s: [u32; TIERS], expired_s: [Option<u32>; TIERS]) -> Self {
        let mut since_s = [0; TIERS];
        for (index, tier) in Tier::ALL.into_iter().enumerate() {
            let earliest = earliest_s[index];
            let others = || Tier::ALL.into_iter().zip(earliest_s).filter(|(_, other)| *other > 0);
            let dropped = others().any(|(other, from)| {
                other > tier && (earliest == 0 || from < other.row_of(earliest, 1))
            });
            let begun_later = others().any(|(other, from)| {
                other < tier && (earliest == 0 || tier.row_of(from, 1) < earliest)
            });
            let (partition, partition_after) = tier.partition_s(earliest);
            let left_since = match expired_s[index] {
                None => partition,
                Some(expired) if earliest <= expired => expired,
                Some(_) => partition_after,
            };
            let fed_since = earliest.saturating_add(tier.step_s(1));
            since_s[index] = match (dropped, begun_later) {
                (false, false) => 0,
                _ if earliest == 0 => u32::MAX,
                (true, false) => left_since,
                (false, true) => fed_since,
                (true, true) => left_since.max(fed_since),
            };
        }
        // From the coarsest on, as each is held to those: months do not begin with weeks.
        for tier in Tier::ALL.into_iter().rev() {
            let since = since_s[tier as usize];
            let earlier = |other: &Tier| *other > tier && since_s[*other as usize] < since;
            if let Some(coarser) = Tier::ALL.into_iter().find(earlier) {
                since_s[tier as usize] = coarser.row_from(since, 1).unwrap_or(u32::MAX);
            }
        }
        Self { since_s }
    }

    /// Since when a tier is whole.
    pub(crate) fn of(&self, tier: Tier) -> u32 {
        self.since_s[tier as usize]
    }

    /// The coarsest tier that is whole from a time on, and that rows of make steps of a length from there.
    pub(crate) fn coarsest_of(&self, from_s: u32, step_s: u32, interval_s: u32) -> Option<Tier> {
        let fits = |tier: &Tier| {
            step_s.is_multiple_of(tier.step_s(interval_s))
                && tier.row_from(from_s, interval_s) == Some(from_s)
                && self.of(*tier) <= from_s
        };
        Tier::ALL.into_iter().rev().find(fits)
    }

    /// The coarsest tier that has lost nothing, or less than all others.
    pub(crate) fn of_all_history(&self) -> Tier {
        Tier::ALL.into_iter().rev().min_by_key(|tier| self.of(*tier)).unwrap_or(Tier::Week)
    }

    /// The finest tier that is whole from the start of its row that holds a time, and that start; without
    /// any, the coarsest: nothing is older than what that has.
    fn finest_at(&self, time_s: u32, interval_s: u32) -> (Tier, u32) {
        let row_of = |tier: Tier| tier.row_of(time_s, interval_s);
        let whole = |tier: &Tier| self.of(*tier) <= row_of(*tier);
        let tier = Tier::ALL.into_iter().find(whole).unwrap_or(Tier::Week);
        (tier, row_of(tier))
    }
}

/// Rows of one table, all of their times within `[from_s, to_s)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) tier: Tier,
    pub(crate) from_s: u32,
    pub(crate) to_s: u32,
}

/// How a window is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The window as it is computed.
    pub(crate) bounds: Bounds,
    /// Its rows, from the earliest on: without gap or overlap.
    pub(crate) segments: Vec<Segment>,
    /// The finest tier that is whole at its end.
    pub(crate) end_tier: Tier,
}

impl Plan {
    /// The parts that are rows of one table, for each that is read, from the finest on.
    pub(crate) fn by_tier(&self) -> Vec<(Tier, Vec<Segment>)> {
        let of = |tier: Tier| {
            let segments = self.segments.iter().filter(|segment| segment.tier == tier);
            (tier, segments.copied().collect::<Vec<_>>())
        };
        Tier::ALL.into_iter().map(of).filter(|(_, segments)| !segments.is_empty()).collect()
    }

    /// The latest instant, not after a time, at which a row of [`Plan::end_tier`] begins and says what was open.
    pub(crate) fn open_until_s(&self, time_s: u32) -> u32 {
        self.end_tier.row_of(time_s, self.bounds.interval_s).max(self.bounds.from_s)
    }

    /// The window's start, if its rows do not say what was open there.
    pub(crate) fn open_at_start_s(&self) -> Option<u32> {
        let from_s = self.bounds.from_s;
        (!starts_minute(from_s)).then_some(from_s)
    }
}

/// Plans a window whose raw rows are of intervals that `interval_s` (a divisor of a minute) bounds.
pub(crate) fn plan(requested: Requested, interval_s: u32, held: &Held) -> Plan {
    // Within u32 by the bounds of `Requested`.
    let (first_s, last_s) = (requested.from_ms / 1_000, (requested.to_ms - 1) / 1_000);
    let (from_tier, from_s) = held.finest_at(first_s as u32, interval_s);
    let (to_tier, last_row_s) = held.finest_at(last_s as u32, interval_s);
    let to_s = last_row_s.saturating_add(to_tier.step_s(interval_s));
    let resolution_s = from_tier.max(to_tier).step_s(interval_s);
    let segments = segments(from_s, to_s, interval_s, held);
    let bounds = Bounds { from_s, to_s, resolution_s, interval_s };
    Plan { bounds, segments, end_tier: to_tier }
}

/// From each instant on the coarsest whole row that begins there and does not end too late.
fn segments(from_s: u32, to_s: u32, interval_s: u32, held: &Held) -> Vec<Segment> {
    let ends = |tier: Tier, at_s: u32| at_s.checked_add(tier.step_s(interval_s));
    let fits = |tier: &Tier, at_s: u32| {
        tier.row_from(at_s, interval_s) == Some(at_s)
            && ends(*tier, at_s).is_some_and(|end_s| end_s <= to_s)
    };
    let mut segments = Vec::new();
    let mut at_s = from_s;
    while at_s < to_s {
        let fitting = || Tier::ALL.into_iter().rev().filter(|tier| fits(tier, at_s));
        // Where nothing is whole there is nothing, whoever is asked.
        let whole = fitting().find(|tier| held.of(*tier) <= at_s).or_else(|| fitting().next());
        let tier = whole.unwrap_or(Tier::Raw);
        // As far as its rows go, but no farther than a coarser one's begin.
        let coarser = Tier::ALL.into_iter().filter(|other| *other > tier).filter_map(|other| {
            let begins = other.row_from(held.of(other).max(at_s + 1), interval_s)?;
            fits(&other, begins).then_some(begins)
        });
        let step_s = tier.step_s(interval_s);
        let last_s = tier.row_of(to_s, interval_s).max(at_s.saturating_add(step_s));
        let end_s = coarser.min().unwrap_or(last_s).min(last_s);
        segments.push(Segment { tier, from_s: at_s, to_s: end_s });
        at_s = end_s;
    }
    segments
}

#[cfg(test)]
mod tests;
