//! Laws of plans, and of what is held.

use proptest::prelude::*;

use super::*;

/// 2026-01-01T00:00:00Z, a Thursday.
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
    // Weeks are from Monday to Monday.
    let plan = of(T0 + 3 * day, T0 + 19 * day, &all);
    let expected = [
        (Tier::Day, 3 * day, 4 * day),
        (Tier::Week, 4 * day, 18 * day),
        (Tier::Day, 18 * day, 19 * day),
    ];
    assert_eq!(parts(&plan), expected);
    assert_eq!(parts(&of(T0 + 10, T0 + 110, &all)), [(Tier::Raw, 10, 110)]);
    assert_eq!(parts(&of(T0 + 60, T0 + 120, &all)), [(Tier::Minute, 60, 120)]);
}

#[test]
fn a_window_past_the_retention_is_widened_to_what_is_left() {
    // Raw rows since noon of the third day, minutes since the second, hours since long before.
    let day = |days: u32| T0 + days * DAY_S;
    let earliest = [day(2) + DAY_S / 2, day(1), day(0) - 90 * DAY_S, 0, 0];
    // None of them lost but by whole partitions.
    let kept = Held::since(earliest, [None; TIERS]);
    assert_eq!(kept.since_s[..2], [day(2), day(1)]);
    // Retention is in the middle of the partition of the earliest.
    let noon = Some(day(2) + DAY_S / 2 + 77);
    let expiring = Held::since(earliest, [noon, Some(day(1)), None, None, None]);
    assert_eq!(expiring.since_s[..2], [day(2) + DAY_S / 2 + 120, day(1)]);
    // It was made longer: what had gone is not there again.
    let held = Held::since(earliest, [Some(day(0)); TIERS]);
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
fn where_days_end_within_a_week_the_week_is_asked() {
    // All but weeks since the first of a month, a Thursday.
    let monday = T0 - 3 * DAY_S;
    let held = Held::since([T0, T0, T0, T0, monday - 4 * WEEK_S], [None; TIERS]);
    assert_eq!(
        held.since_s,
        [monday + WEEK_S, monday + WEEK_S, monday + WEEK_S, monday + WEEK_S, 0]
    );
    let plan = of(T0 + 7_200, monday + WEEK_S + 10, &held);
    assert_eq!((plan.bounds.from_s, plan.bounds.resolution_s), (monday, WEEK_S));
    let tiers: Vec<_> = plan.segments.iter().map(|segment| segment.tier).collect();
    assert_eq!(tiers, [Tier::Week, Tier::Raw]);
    // Weeks go by the month that they begin in, and so before the days of the next: those stand for them.
    let held = Held::since([T0, T0, T0, T0, monday + WEEK_S], [None; TIERS]);
    assert_eq!(held.since_s, [0, 0, 0, 0, monday + 2 * WEEK_S]);
}

#[test]
fn a_store_that_is_young_has_lost_nothing() {
    let earliest = T0 + 12_345;
    let held = Held::since(Tier::ALL.map(|tier| tier.row_of(earliest, 1)), [None; TIERS]);
    assert_eq!(held, Held::default());
    assert_eq!(Held::since([0; TIERS], [None; TIERS]), Held::default());
    let gone = Held::since([0, T0, T0, T0, T0 - 3 * DAY_S], [None; TIERS]);
    assert_eq!(gone.since_s, [u32::MAX, 0, 0, 0, 0]);
}

#[test]
fn steps_are_of_the_coarsest_whole_tier_that_divides_them() {
    let later = Held { since_s: [0, 0, T0 + DAY_S, 0, 0] };
    let of = |step_s| later.coarsest_of(T0, step_s, 10);
    assert_eq!((of(10), of(300), of(90)), (Some(Tier::Raw), Some(Tier::Minute), Some(Tier::Raw)));
    assert_eq!((of(21_600), of(DAY_S)), (Some(Tier::Minute), Some(Tier::Day)));
    assert_eq!(later.coarsest_of(T0 + DAY_S, 21_600, 10), Some(Tier::Hour));
    assert_eq!(Held { since_s: [T0 + 1; TIERS] }.coarsest_of(T0, DAY_S, 10), None);
    assert_eq!(of(2 * WEEK_S), Some(Tier::Day));
    assert_eq!(later.coarsest_of(T0 + 4 * DAY_S, 2 * WEEK_S, 10), Some(Tier::Week));
}

#[test]
fn rollups_that_are_empty_or_begun_later_are_not_asked_for_what_they_lack() {
    let empty = Held::since([T0, 0, 0, 0, 0], [None; TIERS]);
    assert_eq!(parts(&of(T0, T0 + 7_200, &empty)), [(Tier::Raw, 0, 7_200)]);
    let later = Held::since([T0, T0 + 600, T0, T0, T0 - 3 * DAY_S], [None; TIERS]);
    let expected = [(Tier::Raw, 60, 3_600), (Tier::Minute, 3_600, 3_720)];
    assert_eq!(parts(&of(T0 + 60, T0 + 3_720, &later)), expected);
}

/// What a tier has, and how it came to that.
#[derive(Clone, Copy, Debug)]
enum Has {
    /// All there was.
    All,
    /// Rows of the partition that a time is in, and later ones.
    Partitions(u32),
    /// Those of a time and later ones; of earlier ones, since another time, not all.
    Expiring(u32, u32),
    /// What came from a time on.
    Begun(u32),
    /// None.
    Nothing,
}

/// Times are of more than a month, so that partitions of months end within.
const SPAN_S: u32 = 60 * DAY_S;

impl Has {
    /// Its earliest row, when what is older than it retains has gone, and since when it is whole.
    fn of(self, tier: Tier, data_from_s: u32) -> (u32, Option<u32>, u32) {
        let earliest =
            |from_s: u32| tier.row_from(from_s, 10).unwrap().max(tier.row_of(data_from_s, 10));
        match self {
            Self::All => (tier.row_of(data_from_s, 10), None, 0),
            Self::Partitions(at_s) => {
                let from_s = tier.partition_s(at_s).0;
                (earliest(from_s), None, from_s)
            }
            Self::Expiring(earlier_s, expired_s) => {
                (tier.row_of(earlier_s, 10), Some(expired_s), expired_s)
            }
            Self::Begun(at_s) => {
                (tier.row_of(at_s.max(data_from_s), 10), None, tier.row_from(at_s, 10).unwrap())
            }
            Self::Nothing => (0, None, u32::MAX),
        }
    }
}

/// What each tier has of data that begins at [`T0`] at noon: one of them all, finer ones perhaps less, by
/// their retention, and coarser ones too, as they were made later or go by longer partitions.
fn store() -> impl Strategy<Value = [Has; TIERS]> {
    let time = || T0 + WEEK_S..T0 + SPAN_S;
    let finer = prop_oneof![
        Just(Has::All),
        time().prop_map(Has::Partitions),
        (time(), time()).prop_map(|(a, b)| Has::Expiring(a.min(b), a.max(b))),
        Just(Has::Nothing),
    ];
    let coarser = prop_oneof![
        Just(Has::All),
        time().prop_map(Has::Partitions),
        time().prop_map(Has::Begun),
        Just(Has::Nothing),
    ];
    let each = prop::collection::vec((finer, coarser), TIERS);
    (0..TIERS, each).prop_map(|(whole, each)| {
        std::array::from_fn(|at| match at.cmp(&whole) {
            std::cmp::Ordering::Less => each[at].0,
            std::cmp::Ordering::Equal => Has::All,
            std::cmp::Ordering::Greater => each[at].1,
        })
    })
}

proptest! {
    #[test]
    fn segments_are_the_window_and_what_they_read_is_there(
        from_s in T0 - WEEK_S..T0 + SPAN_S, length_s in 1..40 * DAY_S, store in store(),
        interval_s in prop::sample::select(vec![1_u32, 5, 10, 20, 60]),
    ) {
        let data_from_s = T0 + DAY_S / 2;
        let has = Tier::ALL.map(|tier| store[tier as usize].of(tier, data_from_s));
        let held = Held::since(has.map(|(earliest, ..)| earliest), has.map(|(_, expired, _)| expired));
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
            let tier = segment.tier;
            for bound_s in [segment.from_s, segment.to_s] {
                prop_assert_eq!(tier.row_of(bound_s, interval_s), bound_s);
            }
            // Rows that are read and not there are of a time without data.
            let (_, _, whole_from_s) = has[tier as usize];
            if segment.from_s < whole_from_s {
                let last_s = tier.row_of(segment.to_s.min(whole_from_s) - 1, interval_s);
                let data = last_s + tier.step_s(interval_s) > data_from_s;
                prop_assert!(!data, "{:?} of {:?} {:?}", segment, store, held);
            }
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
        prop_assert!(rows(Tier::Day) <= 12);
    }
}
