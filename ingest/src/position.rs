//! Where a partition is to be read on: what the group committed, what `deliveries` proves, and what Kafka
//! still has. Pure.

use tracing::warn;

use crate::source::{Offered, Pending};

/// Where a partition was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// First offset that is not known to be in the tables.
    pub(crate) next: u64,
    /// The chunk that begins there, if an insert of it may have been begun.
    pub(crate) pending: Option<Pending>,
}

/// The position in a partition of the topic `topic_id`, of which everything before `delivered` is in
/// the tables.
///
/// A commit that `deliveries` has overtaken is of a process that died before its next one, or was set back
/// by hand: what is in the tables is not inserted again. A commit that is ahead of `deliveries` is of rows
/// that this database does not have (any more): they are missing, which `flowtrail schema audit` shows.
pub(crate) fn position(
    partition: u32,
    offered: &Offered,
    topic_id: &str,
    delivered: Option<u64>,
) -> Position {
    let committed = match &offered.committed {
        Some((offset, Some(mark))) if mark.topic_id == topic_id => Some((*offset, mark.pending)),
        Some((offset, None)) => Some((*offset, None)),
        Some((offset, Some(mark))) => {
            warn!(partition, offset, was = mark.topic_id, is = topic_id, "the topic was made anew");
            None
        }
        None => None,
    };
    match (committed, delivered) {
        (Some((offset, pending)), delivered) if delivered.is_none_or(|end| end <= offset) => {
            if let Some(end) = delivered.filter(|end| *end < offset) {
                warn!(
                    partition,
                    delivered = end,
                    committed = offset,
                    "rows are missing in this database"
                );
            }
            Position { next: offset, pending }
        }
        (_, delivered) => Position { next: delivered.unwrap_or(0), pending: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Mark;

    const PENDING: Pending = Pending { end: 20, hash: 7 };

    fn offered(committed: Option<(u64, Option<Mark>)>) -> Offered {
        Offered { committed, low: 0, high: 100 }
    }

    fn marked(topic_id: &str, pending: Option<Pending>) -> Offered {
        offered(Some((10, Some(Mark { topic_id: topic_id.to_owned(), pending }))))
    }

    fn at(next: u64, pending: Option<Pending>) -> Position {
        Position { next, pending }
    }

    #[test]
    fn a_chunk_that_was_begun_is_done_again_unless_it_is_delivered() {
        let begun = marked("new", Some(PENDING));
        assert_eq!(position(0, &begun, "new", Some(10)), at(10, Some(PENDING)));
        assert_eq!(position(0, &begun, "new", None), at(10, Some(PENDING)));
        assert_eq!(position(0, &begun, "new", Some(20)), at(20, None));
    }

    #[test]
    fn what_is_in_the_tables_is_not_read_again() {
        assert_eq!(position(0, &marked("new", None), "new", Some(30)), at(30, None));
        assert_eq!(position(0, &offered(Some((3, None))), "new", Some(30)), at(30, None));
        assert_eq!(position(0, &offered(Some((40, None))), "new", Some(30)), at(40, None));
        assert_eq!(position(0, &offered(None), "new", Some(30)), at(30, None));
    }

    #[test]
    fn an_unknown_partition_is_read_from_its_very_first_offset() {
        assert_eq!(position(0, &offered(None), "new", None), at(0, None));
    }

    #[test]
    fn a_commit_of_a_topic_that_is_gone_says_nothing_of_the_new_one() {
        assert_eq!(position(0, &marked("old", Some(PENDING)), "new", None), at(0, None));
    }
}
