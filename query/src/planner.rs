//! The window planner: which rows of which table a window is computed from. Days in the middle, hours
//! around them, minutes around these and raw rows at the fringes, so that cost does not grow with the
//! window. Where finer rows are past their retention, the window is widened to what is left. Pure.

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
}

const DAY_S: u32 = 86_400;

impl Tier {
    /// All of them, from the finest on.
    pub(crate) const ALL: [Self; 4] = [Self::Raw, Self::Minute, Self::Hour, Self::Day];

    /// Seconds that a row is of, at most: rows begin at multiples of it.
    fn step_s(self, interval_s: u32) -> u32 {
        match self {
            Self::Raw => interval_s,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => DAY_S,
        }
    }

    /// The partition that a time is in, from its first second to the first one after. `flows` and minutes
    /// are partitioned by day, all else by month.
    fn partition_s(self, time_s: u32) -> (u32, u32) {
        let day = time_s / DAY_S * DAY_S;
        let days = (day, day.saturating_add(DAY_S));
        match self {
            Self::Raw | Self::Minute => days,
            Self::Hour | Self::Day => month_of(time_s).unwrap_or(days),
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

/// Since when each tier, from the finest on, is whole: seconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    since_s: [u32; 4],
}

impl Held {
    /// From the time of each tier's earliest row (0 without rows), and the time that its retention has
    /// come to (`None` of a table that keeps its rows); both in seconds since the epoch.
    ///
    /// A tier that begins when the coarser ones do has lost nothing: there was nothing before. One that
    /// begins after a finer one was made later, or emptied: its first row may be of a part. Retention drops
    /// parts that are past it as a whole. Where it was made longer, part of the earliest partition may have
    /// gone before; rows that no retention drops go by whole partitions.
    pub(crate) fn since(earliest_s: [u32; 4], expired_s: [Option<u32>; 4]) -> Self {
        let mut since_s = [0; 4];
        for (index, tier) in Tier::ALL.into_iter().enumerate() {
            let earliest = earliest_s[index];
            let others = || Tier::ALL.into_iter().zip(earliest_s).filter(|(_, other)| *other > 0);
            let row_of = |tier: Tier, time_s: u32| time_s / tier.step_s(1) * tier.step_s(1);
            let dropped = others().any(|(other, from)| {
                other > tier && (earliest == 0 || from < row_of(other, earliest))
            });
            let begun_later = others().any(|(other, from)| {
                other < tier && (earliest == 0 || row_of(tier, from) < earliest)
            });
            let (partition, partition_after) = tier.partition_s(earliest);
            since_s[index] = match (dropped || begun_later, earliest, expired_s[index]) {
                (false, ..) => 0,
                (true, 0, _) => u32::MAX,
                (true, _, None) if dropped => partition,
                (true, _, Some(expired)) if dropped && earliest <= expired => {
                    // Where rows of all tiers end, for what is before is of coarser ones.
                    expired.checked_next_multiple_of(DAY_S).unwrap_or(u32::MAX)
                }
                (true, ..) if dropped => partition_after,
                (true, ..) => earliest.saturating_add(tier.step_s(1)),
            };
        }
        Self { since_s }
    }

    /// Since when a tier is whole.
    pub(crate) fn of(&self, tier: Tier) -> u32 {
        self.since_s[tier as usize]
    }

    /// The coarsest tier that is whole from a time on, and that rows of make steps of a length.
    pub(crate) fn coarsest_of(&self, from_s: u32, step_s: u32, interval_s: u32) -> Option<Tier> {
        let fits = |tier: &Tier| {
            step_s.is_multiple_of(tier.step_s(interval_s)) && self.of(*tier) <= from_s
        };
        Tier::ALL.into_iter().rev().find(fits)
    }

    /// The finest tier that is whole from the start of its row that holds a time, and that start; without
    /// any, the coarsest: nothing is older than what that has.
    fn finest_at(&self, time_s: u32, interval_s: u32) -> (Tier, u32) {
        let row_of = |tier: Tier| time_s / tier.step_s(interval_s) * tier.step_s(interval_s);
        let whole = |tier: &Tier| self.of(*tier) <= row_of(*tier);
        let tier = Tier::ALL.into_iter().find(whole).unwrap_or(Tier::Day);
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
        at_s.is_multiple_of(tier.step_s(interval_s))
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
            let begins =
                held.of(other).max(at_s + 1).checked_next_multiple_of(other.step_s(interval_s))?;
            fits(&other, begins).then_some(begins)
        });
        let step_s = tier.step_s(interval_s);
        let last_s = (to_s / step_s * step_s).max(at_s.saturating_add(step_s));
        let end_s = coarser.min().unwrap_or(last_s).min(last_s);
        segments.push(Segment { tier, from_s: at_s, to_s: end_s });
        at_s = end_s;
    }
    segments
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const T0: u32 = 1_767_225_600;

    fn of(from_s: u32, to_s: u32, held: &Held) -> Plan {
        let ms = |time_s: u32| i64::from(time_s) * 1_000;
        plan(Requested { from_ms: ms(from_s), to_ms: ms(to_s) }, 10, held)
    }

    fn parts(plan: &Plan) -> Vec<(Tier, u32, u32)> {
        let part = |segment: &Segment| (segment.tier, segment.from_s - T0, segment.to_s - T0);
        plan.segments.iter().map(part).collect()
    }

    #[test]
    fn the_middle_is_of_the_coarsest_rows_and_the_fringes_of_the_finest() {
        let all = Held::default();
        let day = DAY_S;
        let plan = of(T0 + day - 7_270, T0 + 3 * day + 3_670, &all);
        let expected = [
            (Tier::Raw, day - 7_270, day - 7_260),
            (Tier::Minute, day - 7_260, day - 7_200),
            (Tier::Hour, day - 7_200, day),
            (Tier::Day, day, 3 * day),
            (Tier::Hour, 3 * day, 3 * day + 3_600),
            (Tier::Minute, 3 * day + 3_600, 3 * day + 3_660),
            (Tier::Raw, 3 * day + 3_660, 3 * day + 3_670),
        ];
        assert_eq!(parts(&plan), expected);
        assert_eq!(parts(&of(T0 + 10, T0 + 110, &all)), [(Tier::Raw, 10, 110)]);
        assert_eq!(parts(&of(T0 + 60, T0 + 120, &all)), [(Tier::Minute, 60, 120)]);
    }

    #[test]
    fn a_window_past_the_retention_is_widened_to_what_is_left() {
        // Raw rows since noon of the third day, minutes since the second, hours since long before.
        let day = |days: u32| T0 + days * DAY_S;
        let earliest = [day(2) + DAY_S / 2, day(1), day(0) - 90 * DAY_S, 0];
        // None of them lost but by whole partitions.
        let kept = Held::since(earliest, [None; 4]);
        assert_eq!(kept.since_s[..2], [day(2), day(1)]);
        // Retention is in the middle of the partition of the earliest.
        let noon = Some(day(2) + DAY_S / 2 + 77);
        let expiring = Held::since(earliest, [noon, Some(day(1)), None, None]);
        assert_eq!(expiring.since_s[..2], [day(3), day(1)]);
        // It was made longer: what had gone is not there again.
        let held = Held::since(earliest, [Some(day(0)); 4]);
        assert_eq!(held.since_s[..2], [day(3), day(2)]);
        let plan = of(day(2) + 70, day(3) + 130, &held);
        let first = plan.segments[0];
        assert_eq!((first.tier, first.from_s), (Tier::Minute, day(2) + 60));
        assert_eq!((plan.bounds.from_s, plan.bounds.to_s), (day(2) + 60, day(3) + 130));
        assert_eq!(plan.bounds.resolution_s, 60);
        let plan = of(day(0) + 70, day(1) + 130, &held);
        assert_eq!((plan.bounds.from_s, plan.bounds.to_s), (day(0), day(1) + 3_600));
        assert_eq!(plan.bounds.resolution_s, 3_600);
    }

    #[test]
    fn a_store_that_is_young_has_lost_nothing() {
        let earliest = T0 + 12_345;
        let starts = [60, 3_600, DAY_S].map(|step| earliest / step * step);
        let held = Held::since([earliest, starts[0], starts[1], starts[2]], [None; 4]);
        assert_eq!(held, Held::default());
        assert_eq!(Held::since([0; 4], [None; 4]), Held::default());
        let gone = Held::since([0, T0, T0, T0], [None; 4]);
        assert_eq!(gone.since_s, [u32::MAX, 0, 0, 0]);
    }

    #[test]
    fn steps_are_of_the_coarsest_whole_tier_that_divides_them() {
        let later = Held { since_s: [0, 0, T0 + DAY_S, 0] };
        let of = |step_s| later.coarsest_of(T0, step_s, 10);
        assert_eq!(
            (of(10), of(300), of(90)),
            (Some(Tier::Raw), Some(Tier::Minute), Some(Tier::Raw))
        );
        assert_eq!((of(21_600), of(DAY_S)), (Some(Tier::Minute), Some(Tier::Day)));
        assert_eq!(later.coarsest_of(T0 + DAY_S, 21_600, 10), Some(Tier::Hour));
        assert_eq!(Held { since_s: [T0 + 1; 4] }.coarsest_of(T0, DAY_S, 10), None);
    }

    #[test]
    fn rollups_that_are_empty_or_begun_later_are_not_asked_for_what_they_lack() {
        let empty = Held::since([T0, 0, 0, 0], [None; 4]);
        assert_eq!(parts(&of(T0, T0 + 7_200, &empty)), [(Tier::Raw, 0, 7_200)]);
        let later = Held::since([T0, T0 + 600, T0, T0], [None; 4]);
        let expected = [(Tier::Raw, 0, 660), (Tier::Minute, 660, 720)];
        assert_eq!(parts(&of(T0, T0 + 720, &later)), expected);
    }

    fn held() -> impl Strategy<Value = Held> {
        (prop::array::uniform4((0..60_u32, 0..DAY_S)), prop::option::of(0..60 * DAY_S)).prop_map(
            |(mut earliest, expired)| {
                // The coarser the longer it is kept.
                earliest.sort_unstable_by(|a, b| b.cmp(a));
                let steps = Tier::ALL.map(|tier| tier.step_s(10));
                let times = earliest.map(|(days, second)| T0 + days * DAY_S + second);
                Held::since(
                    std::array::from_fn(|at| times[at] / steps[at] * steps[at]),
                    [expired.map(|second| T0 + second); 4],
                )
            },
        )
    }

    proptest! {
        #[test]
        fn segments_are_the_window_and_each_is_whole(
            from_s in T0..T0 + 60 * DAY_S, length_s in 1..40 * DAY_S, held in held(),
            interval_s in prop::sample::select(vec![1_u32, 5, 10, 20, 60]),
        ) {
            let ms = |time_s: u32| i64::from(time_s) * 1_000;
            let requested = Requested { from_ms: ms(from_s), to_ms: ms(from_s + length_s) };
            let Plan { bounds, segments, .. } = plan(requested, interval_s, &held);
            prop_assert!(bounds.from_s <= from_s && bounds.to_s >= from_s + length_s);
            prop_assert!(from_s - bounds.from_s < bounds.resolution_s);
            prop_assert!(bounds.to_s - from_s - length_s < bounds.resolution_s);
            let mut at_s = bounds.from_s;
            for segment in &segments {
                prop_assert_eq!(segment.from_s, at_s);
                prop_assert!(segment.from_s < segment.to_s);
                let step_s = segment.tier.step_s(interval_s);
                prop_assert!(segment.from_s % step_s == 0 && segment.to_s % step_s == 0);
                prop_assert!(segment.tier == Tier::Day || held.of(segment.tier) <= segment.from_s);
                at_s = segment.to_s;
            }
            prop_assert_eq!(at_s, bounds.to_s);
        }

        #[test]
        fn the_work_does_not_grow_with_the_window(from_s in T0..T0 + DAY_S, days in 1..3_000_u32) {
            let plan = of(from_s, from_s + days * DAY_S, &Held::default());
            let rows = |tier: Tier| {
                let of_tier = plan.segments.iter().filter(|segment| segment.tier == tier);
                of_tier.map(|segment| (segment.to_s - segment.from_s) / tier.step_s(10)).sum::<u32>()
            };
            prop_assert!(rows(Tier::Raw) <= 12 && rows(Tier::Minute) <= 120 && rows(Tier::Hour) <= 48);
        }
    }
}
