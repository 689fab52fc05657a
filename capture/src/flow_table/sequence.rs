//! `Sequence`: how far one end has sent, to tell what it sends again from what was overtaken.

use super::flow::precedes;

/// A segment that comes so soon after one that it should have come before was overtaken, not lost and
/// sent again: the limit that Wireshark uses too. Packets of one direction that two processors handled
/// are often microseconds out of order.
const OVERTAKEN_US: i32 = 3_000;

/// The sequence numbers that one end has sent, from its first segment on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    /// The number after the highest.
    next: u32,
    /// The latest numbers left out, if any: `gap_start..gap_end`.
    gap_start: u32,
    gap_end: u32,
    /// When they were left out: the lower bits of microseconds.
    gap_since: u32,
}

impl Sequence {
    /// Before an end's first segment, which starts at a number.
    pub(super) fn starting_at(start: u32) -> Self {
        Self { next: start, ..Self::default() }
    }

    /// The number after the highest that was sent.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Notes a segment, and tells whether it had been sent before: all that is not new, unless it fills
    /// a gap that has just come about.
    pub(super) fn follow(&mut self, start: u32, length: u32, time_us: u64) -> bool {
        let end = start.wrapping_add(length);
        let next = self.next;
        if precedes(next, end) {
            self.next = end;
        }
        if precedes(next, start) {
            (self.gap_start, self.gap_end, self.gap_since) = (next, start, time_us as u32);
        }
        length > 0 && precedes(start, next) && !self.fills_gap(start, end, time_us)
    }

    fn fills_gap(&mut self, start: u32, end: u32, time_us: u64) -> bool {
        if precedes(start, self.gap_start) || precedes(self.gap_end, end) {
            return false;
        }
        // What is left of the gap is one side of it.
        if start == self.gap_start {
            self.gap_start = end;
        } else {
            self.gap_end = start;
        }
        (time_us as u32).wrapping_sub(self.gap_since) as i32 <= OVERTAKEN_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Start, end and time of segments, and whether each is sent again.
    fn check(segments: &[(u32, u32, u64, bool)]) {
        let mut sequence = Sequence::starting_at(segments[0].0);
        for (n, (start, end, time_us, again)) in segments.iter().enumerate() {
            let length = end.wrapping_sub(*start);
            assert_eq!(sequence.follow(*start, length, *time_us), *again, "segment {n}");
        }
    }

    #[test]
    fn what_was_seen_is_sent_again_however_soon() {
        check(&[(0, 10, 0, false), (10, 20, 1, false), (10, 20, 2, true), (0, 20, 3, true)]);
        // Over the end of the number space, and bytes both old and new.
        check(&[(u32::MAX - 4, 5, 0, false), (0, 10, 1, true), (10, 20, 2, false)]);
    }

    #[test]
    fn what_was_overtaken_is_not() {
        check(&[(0, 10, 0, false), (30, 40, 5, false), (10, 20, 4, false), (20, 30, 6, false)]);
        check(&[(0, 10, 0, false), (30, 40, 5, false), (20, 30, 6, false), (10, 20, 6, false)]);
        // But only once.
        check(&[(0, 10, 0, false), (20, 30, 5, false), (10, 20, 6, false), (10, 20, 7, true)]);
    }

    #[test]
    fn what_was_lost_before_it_got_here_is() {
        check(&[(0, 10, 0, false), (20, 30, 0, false), (10, 20, 3_001, true)]);
    }

    #[test]
    fn nothing_is_not_sent_again() {
        check(&[(0, 10, 0, false), (9, 9, 1, false), (10, 10, 2, false)]);
    }
}
