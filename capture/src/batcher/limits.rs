//! What may wait for the output at most, before it is folded and at last dropped.

use clap::Args;
use clap::builder::RangedU64ValueParser;

/// The caps of what waits for the output, over all partitions. Together the defaults take 100 MB at
/// most, and next to nothing while the output keeps up.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
#[group(skip)]
pub struct Limits {
    /// Records that wait for the output at most, some 340 bytes each; past that the oldest are folded
    /// into summaries of an interval, without client ports.
    #[arg(
        long = "max-queued-records",
        env = "FLOWTRAIL_MAX_QUEUED_RECORDS",
        default_value_t = Limits::default().records,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..),
        value_name = "N",
        help_heading = "Capture"
    )]
    pub records: usize,

    /// Summaries of an interval that wait at most, some 450 bytes each, twice that while their number
    /// grows; past that the oldest are folded into summaries of a minute.
    #[arg(
        long = "max-queued-summaries",
        env = "FLOWTRAIL_MAX_QUEUED_SUMMARIES",
        default_value_t = Limits::default().summaries,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..),
        value_name = "N",
        help_heading = "Capture"
    )]
    pub summaries: usize,

    /// Summaries of a minute that wait at most, of the same size; past that the oldest are dropped,
    /// and their records counted and reported as dropped.
    #[arg(
        long = "max-queued-minute-summaries",
        env = "FLOWTRAIL_MAX_QUEUED_MINUTE_SUMMARIES",
        default_value_t = Limits::default().minute_summaries,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..),
        value_name = "N",
        help_heading = "Capture"
    )]
    pub minute_summaries: usize,
}

impl Default for Limits {
    /// 44 MB of records: half a minute of a node with 4,000 new connections a second. Summaries are of
    /// pairs of addresses, of which nodes have some hundred in an interval: 28 MB of each at most.
    fn default() -> Self {
        Self { records: 131_072, summaries: 32_768, minute_summaries: 32_768 }
    }
}
