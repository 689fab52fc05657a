//! Steps: a window cut into equal parts, as few as are asked for. Pure.

use super::{Bounds, Requested, ms};
use crate::planner::{MONDAY_S, WEEK_S};

/// Seconds of steps that people read, from the shortest on. Each divides those after it, but for the
/// multiples of a day that follow: what one holds is the sum of the shorter ones.
const STEPS_S: [u32; 9] = [60, 300, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400];

/// A window as it is cut: `[from_s, to_s)`, seconds since the epoch, whole steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) from_s: u32,
    pub(crate) to_s: u32,
    pub(crate) step_s: u32,
}

impl Steps {
    /// The shortest steps, at least `shortest_s` (a divisor of a minute, or a minute), that make at most
    /// `points` of a window and that `possible` takes; if it takes none, the longest. The last ones offered
    /// are weeks, from Monday on.
    pub(crate) fn choose(
        requested: Requested,
        shortest_s: u32,
        points: u32,
        possible: impl Fn(&Self) -> bool,
    ) -> Self {
        let cut = |step_s: u32| Self::cut(requested, step_s, 0);
        let day_s = STEPS_S[STEPS_S.len() - 1];
        let listed = STEPS_S.into_iter().filter(|step_s| *step_s > shortest_s);
        let mut steps: Vec<_> = std::iter::once(shortest_s).chain(listed).map(cut).collect();
        // One point fewer, as the window is widened to whole steps.
        let at_least = |steps: Self| steps.count().div_ceil(points.saturating_sub(1).max(1));
        steps.push(cut(day_s.saturating_mul(at_least(cut(day_s)))));
        let weeks = at_least(Self::cut(requested, WEEK_S, MONDAY_S));
        steps.push(Self::cut(requested, WEEK_S.saturating_mul(weeks), MONDAY_S));
        let longest = steps[steps.len() - 1];
        let fits = |steps: &Self| steps.count() <= points.max(2) && possible(steps);
        steps.into_iter().find(fits).unwrap_or(longest)
    }

    /// Steps one of which begins at `origin_s`, and none before.
    fn cut(requested: Requested, step_s: u32, origin_s: u32) -> Self {
        // Within u32 by the bounds of `Requested`, but for what is added by widening.
        let (first_s, last_s) = (requested.from_ms / 1_000, (requested.to_ms - 1) / 1_000);
        let step_of =
            |time_s: i64| origin_s + (time_s as u32).saturating_sub(origin_s) / step_s * step_s;
        let to_s = step_of(last_s).saturating_add(step_s);
        Self { from_s: step_of(first_s), to_s, step_s }
    }

    /// The window that they are, of rows of intervals of `interval_s`.
    pub(crate) fn bounds(&self, interval_s: u32) -> Bounds {
        let Self { from_s, to_s, step_s } = *self;
        Bounds { from_s, to_s, resolution_s: step_s, interval_s }
    }

    /// The same, as if it had been asked for.
    pub(crate) fn requested(&self) -> Requested {
        Requested { from_ms: ms(self.from_s), to_ms: ms(self.to_s) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        (self.to_s - self.from_s).div_ceil(self.step_s)
    }

    /// Their starts, seconds since the epoch.
    pub(crate) fn starts(self) -> impl Iterator<Item = u32> {
        (0..self.count()).map(move |at| self.from_s + at * self.step_s)
    }

    /// The place of the step that begins at a time.
    pub(crate) fn place(&self, start_s: u32) -> Option<usize> {
        let place = start_s.checked_sub(self.from_s)? / self.step_s;
        (place < self.count()).then_some(place as usize)
    }
}

#[cfg(test)]
mod tests {
    use flowtrail_service::instant::MAX_INSTANT_MS;
    use proptest::prelude::*;

    use super::*;

    fn requested(from_s: i64, to_s: i64) -> Requested {
        Requested { from_ms: from_s * 1_000, to_ms: to_s * 1_000 }
    }

    #[test]
    fn the_shortest_step_that_keeps_the_number_of_points() {
        let step_s = |length_s, points| {
            let start = 1_700_006_400;
            Steps::choose(requested(start, start + length_s), 10, points, |_| true).step_s
        };
        assert_eq!(step_s(3_000, 300), 10);
        assert_eq!(step_s(3_010, 300), 60);
        assert_eq!(step_s(86_400, 300), 300);
        assert_eq!(step_s(30 * 86_400, 300), 10_800);
        assert_eq!(step_s(3 * 365 * 86_400, 300), 4 * 86_400);
    }

    #[test]
    fn a_window_is_widened_to_whole_steps() {
        let steps =
            Steps::choose(requested(1_700_000_059, 1_700_000_101), 10, 100, |s| s.step_s > 60);
        let whole = Steps { from_s: 1_699_999_800, to_s: 1_700_000_400, step_s: 300 };
        assert_eq!(steps, whole);
        assert_eq!(steps.starts().collect::<Vec<_>>(), [1_699_999_800, 1_700_000_100]);
        assert_eq!((steps.place(1_700_000_100), steps.place(1_700_000_400)), (Some(1), None));
        assert_eq!(steps.place(0), None);
    }

    #[test]
    fn weeks_begin_on_monday_and_are_the_last_that_is_offered() {
        // 2023-11-15, a Wednesday, to the Tuesday after next, and to years later.
        let weeks = |days: i64, points| {
            let start = 1_700_006_400;
            let requested = requested(start, start + days * 86_400);
            let steps = Steps::choose(requested, 10, points, |steps| steps.from_s == 1_699_833_600);
            (steps.count(), steps.step_s)
        };
        assert_eq!(weeks(14, 300), (3, WEEK_S));
        assert_eq!(weeks(701, 52), (51, 2 * WEEK_S));
    }

    proptest! {
        #[test]
        fn steps_are_the_window_and_no_more_than_asked_for(
            from_ms in 0..MAX_INSTANT_MS, length_ms in 1..MAX_INSTANT_MS, points in 2..1_000_u32,
            shortest_s in prop::sample::select(vec![1, 5, 10, 60_u32]),
        ) {
            let to_ms = (from_ms + length_ms).min(MAX_INSTANT_MS);
            let requested = Requested { from_ms, to_ms };
            let steps = Steps::choose(requested, shortest_s, points, |_| true);
            prop_assert!(steps.count() <= points && steps.count() > 0, "{:?}", steps);
            prop_assert!(i64::from(steps.from_s) * 1_000 <= from_ms);
            prop_assert!(i64::from(steps.to_s) * 1_000 >= to_ms || steps.to_s == u32::MAX);
            prop_assert!(from_ms / 1_000 - i64::from(steps.from_s) < i64::from(steps.step_s));
            prop_assert_eq!(steps.starts().count() as u32, steps.count());
        }
    }
}
