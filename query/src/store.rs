//! The store: asks ClickHouse, within limits, and says in our words what went wrong.

mod evidence;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clickhouse::Row;
use flowtrail_schema::sql::Retention;
use flowtrail_service::store::{self, ClickHouseArgs};
use serde::Deserialize;
use thiserror::Error;

use crate::answer::Coverage;
use crate::filter::Filter;
use crate::params::{GroupBy, ValuesRequest};
use crate::planner::{Held, Plan, Tier, plan};
use crate::scope::Tables;
use crate::sql::{self, CoverageRow, Detail, EdgeRow, OpenRow};
use crate::values;
use crate::window::{Bounds, Requested, resolution_s};
pub(crate) use evidence::Range;

/// Rows that one statement may answer with: pairs of ends. About 1 kB each here, so a full answer
/// takes tens of megabytes.
const MAX_RESULT_ROWS: u64 = 50_000;
/// Bytes that one statement may answer with, for rows with long lists.
const MAX_RESULT_BYTES: u64 = 64 << 20;
/// On a cluster, a replica that is so many seconds behind is not asked while there is another: its reports
/// could be there before its rows.
const MAX_REPLICA_DELAY_S: &str = "5";
/// An agent whose last report is this much older than the newest of all is gone, and not late:
/// longer than a rolling update of ingest takes.
const GONE_AFTER_S: u32 = 300;

/// How long it is remembered since when tiers are whole: retention moves that by a day at a time.
const HELD_FOR: Duration = Duration::from_secs(60);

/// What one statement may take in ClickHouse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) time: Duration,
    pub(crate) memory_bytes: u64,
    pub(crate) rows_read: u64,
}

/// What goes wrong between a request and the store.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// No answer at all.
    #[error("cannot reach ClickHouse")]
    Away(#[source] clickhouse::error::Error),
    /// ClickHouse has as many statements under way as it takes.
    #[error("ClickHouse is busy")]
    Busy(#[source] clickhouse::error::Error),
    /// The statement took too long.
    #[error("ClickHouse took too long")]
    TooSlow(#[source] clickhouse::error::Error),
    /// The statement needed too much memory, or its answer is too long.
    #[error("the question is too large")]
    TooLarge(#[source] clickhouse::error::Error),
    /// The statement would read more rows than it may.
    #[error("the question reads too much")]
    ReadsTooMuch(#[source] clickhouse::error::Error),
    /// A regular expression that re2 does not take.
    #[error("ClickHouse does not take the regular expression")]
    Pattern(#[source] clickhouse::error::Error),
    /// ClickHouse does not say how long rows are kept.
    #[error("cannot ask how long rows are kept")]
    Retention(#[from] store::StoreError),
    /// Anything else: a defect here or there.
    #[error("ClickHouse refused the statement")]
    Refused(#[source] clickhouse::error::Error),
}

impl From<clickhouse::error::Error> for StoreError {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        match &error {
            Error::Network(_) => Self::Away(error),
            Error::TimedOut => Self::TooSlow(error),
            // The numbers are ClickHouse's ErrorCodes.cpp.
            Error::BadResponse(text) => match exception_code(text) {
                Some(158) => Self::ReadsTooMuch(error),
                Some(159 | 160) => Self::TooSlow(error),
                Some(202) => Self::Busy(error),
                Some(241 | 396) => Self::TooLarge(error),
                Some(427) => Self::Pattern(error),
                Some(_) => Self::Refused(error),
                // A proxy's answer, or a server that is starting or stopping.
                None => Self::Away(error),
            },
            _ => Self::Refused(error),
        }
    }
}

/// The number in `Code: 241. DB::Exception: …`.
fn exception_code(text: &str) -> Option<u32> {
    let digits = text.split_once("Code: ")?.1;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// A client of ClickHouse that asks within limits.
#[derive(Clone)]
pub(crate) struct Store {
    args: ClickHouseArgs,
    tables: Tables,
    /// Since when each tier is whole, and when that was asked.
    held: Arc<Mutex<Option<(Held, Instant)>>>,
}

impl Store {
    /// A client whose statements keep within limits. Connects when used.
    pub(crate) fn new(args: &ClickHouseArgs, limits: Limits) -> Self {
        let client = args
            .client()
            .with_setting("max_execution_time", limits.time.as_secs().max(1).to_string())
            .with_setting("max_memory_usage", limits.memory_bytes.to_string())
            .with_setting("max_rows_to_read", limits.rows_read.to_string())
            .with_setting("read_overflow_mode", "throw")
            .with_setting("max_result_rows", MAX_RESULT_ROWS.to_string())
            .with_setting("max_result_bytes", MAX_RESULT_BYTES.to_string())
            .with_setting("result_overflow_mode", "throw")
            .with_setting("max_replica_delay_for_distributed_queries", MAX_REPLICA_DELAY_S)
            .with_setting("cancel_http_readonly_queries_on_client_close", "1");
        let tables = Tables::new(client, &args.clickhouse_database);
        Self { args: args.clone(), tables, held: Arc::default() }
    }

    /// How to compute a window.
    pub(crate) async fn plan(&self, requested: Requested) -> Result<Plan, StoreError> {
        let (interval_s, held) = tokio::try_join!(self.interval_s(requested), self.held())?;
        Ok(plan(requested, interval_s, &held))
    }

    /// What no interval at a window's bounds straddles multiples of, in seconds.
    async fn interval_s(&self, requested: Requested) -> Result<u32, StoreError> {
        #[derive(Row, Deserialize)]
        struct Length {
            interval_s: u8,
        }
        // Intervals divide minutes, so none that a bound is in reaches beyond its minute.
        let minute = |time_ms: i64| (time_ms / 60_000 * 60) as u32;
        let query = self.tables.ask_for_all(sql::INTERVAL_LENGTHS);
        let query = query.param("first", minute(requested.from_ms));
        let query = query.param("last", minute(requested.to_ms - 1));
        let lengths: Vec<Length> = query.fetch_all().await?;
        let lengths: Vec<_> = lengths.iter().map(|length| length.interval_s).collect();
        Ok(resolution_s(&lengths))
    }

    /// Since when each tier is whole.
    async fn held(&self) -> Result<Held, StoreError> {
        let known = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, _)) = known.filter(|(_, at)| at.elapsed() < HELD_FOR) {
            return Ok(held);
        }
        let query = self.tables.ask_for_all(sql::EARLIEST);
        let query = query.fetch_one::<(u32, u32, u32, u32, u32)>();
        let (earliest, retention) = tokio::join!(query, self.args.retention());
        let (now_s, raw, minutes, hours, days) = earliest?;
        let Retention { flows, minutes: of_minutes, hours: of_hours, .. } = retention?;
        // Nothing that is newer is dropped before this is asked again.
        let expired = |kept: Duration| {
            let kept_s = kept.saturating_sub(2 * HELD_FOR).as_secs();
            now_s.saturating_sub(kept_s.try_into().unwrap_or(u32::MAX))
        };
        let expired = [flows, of_minutes, of_hours, of_hours].map(|kept| kept.map(expired));
        let held = Held::since([raw, minutes, hours, days], expired);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((held, Instant::now()));
        Ok(held)
    }

    /// The agents' reports on a window, and until when all live agents have reported, in seconds
    /// since the epoch; the window's start without agents.
    pub(crate) async fn coverage(&self, bounds: Bounds) -> Result<(Coverage, u32), StoreError> {
        let (first_hour, end_hour) =
            (bounds.from_s.next_multiple_of(3_600), bounds.to_s / 3_600 * 3_600);
        let query = self.tables.ask_for_all(sql::COVERAGE);
        let query = query.param("from", bounds.from_s).param("to", bounds.to_s);
        let query = query.param("first_hour", first_hour);
        let query = query.param("end_hour", end_hour.max(first_hour));
        let query = query
            .param("since", bounds.from_s.saturating_sub(GONE_AFTER_S))
            .param("until", bounds.to_s.saturating_add(GONE_AFTER_S));
        Ok(summary(&query.fetch_all().await?, bounds))
    }

    /// The edges of a window.
    pub(crate) async fn edges(
        &self,
        group_by: GroupBy,
        filter: &Filter,
        plan: &Plan,
    ) -> Result<Vec<EdgeRow>, StoreError> {
        let detail = Detail::of(group_by, filter);
        let statement = sql::edges(group_by, detail, &filter.sql(), plan);
        let query = self.tables.ask(&filter.scope, &statement);
        Ok(filter.bind(query).fetch_all().await?)
    }

    /// The connections open at some instants, in seconds since the epoch.
    pub(crate) async fn open_at(
        &self,
        group_by: GroupBy,
        filter: &Filter,
        instants: &[u32],
    ) -> Result<Vec<OpenRow>, StoreError> {
        if instants.is_empty() {
            return Ok(Vec::new());
        }
        let query =
            self.tables.ask(&filter.scope, &sql::open_at(group_by, &filter.sql(), instants));
        Ok(filter.bind(query).fetch_all().await?)
    }

    /// The connections open when a row of a rollup begins, as that tells.
    pub(crate) async fn open_at_boundary(
        &self,
        group_by: GroupBy,
        filter: &Filter,
        at_s: u32,
        tier: Tier,
    ) -> Result<Vec<OpenRow>, StoreError> {
        let detail = Detail::of(group_by, filter);
        let statement = sql::open_at_boundary(group_by, detail, &filter.sql(), tier, at_s);
        Ok(filter.bind(self.tables.ask(&filter.scope, &statement)).fetch_all().await?)
    }

    /// Namespace, name and connections of what there is to choose from, and one more than `limit` if there is.
    pub(crate) async fn values(
        &self,
        request: &ValuesRequest,
        plan: &Plan,
    ) -> Result<Vec<(String, String, u64)>, StoreError> {
        let query = self.tables.ask(&request.scope, &values::sql(request, plan));
        Ok(values::bind(request, query).fetch_all().await?)
    }
}

/// Sums the agents' reports. Those that are gone hold nothing back: see [`GONE_AFTER_S`].
fn summary(agents: &[CoverageRow], bounds: Bounds) -> (Coverage, u32) {
    let reported_until =
        |agent: &CoverageRow| u32::try_from(agent.reported_until_s).unwrap_or(u32::MAX);
    let newest_s = agents.iter().map(reported_until).max().unwrap_or(0);
    let alive = agents.iter().map(reported_until).filter(|until| newest_s - until <= GONE_AFTER_S);
    let complete_until_s = alive.min().unwrap_or(0).clamp(bounds.from_s, bounds.to_s);

    let reporting = agents.iter().filter(|agent| agent.intervals > 0);
    let due_s = newest_s.clamp(bounds.from_s, bounds.to_s) - bounds.from_s;
    let mut coverage = Coverage::default();
    for agent in reporting {
        coverage.agents += 1;
        coverage.intervals_expected += u64::from(due_s / bounds.interval_s);
        coverage.intervals_reported += agent.intervals;
        coverage.packets_dropped += agent.packets_dropped;
        coverage.records_dropped += agent.records_dropped;
    }
    (coverage, complete_until_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { from_s: 6_000, to_s: 6_060, resolution_s: 10, interval_s: 10 };

    fn agent(reported_until_s: u64, intervals: u64) -> CoverageRow {
        CoverageRow { reported_until_s, intervals, packets_dropped: 1, records_dropped: 2 }
    }

    #[test]
    fn the_slowest_live_agent_says_until_when_the_data_is_complete() {
        let (coverage, until_s) = summary(&[agent(6_050, 5), agent(6_040, 4)], BOUNDS);
        assert_eq!(until_s, 6_040);
        let counted = (coverage.agents, coverage.intervals_expected, coverage.intervals_reported);
        assert_eq!(counted, (2, 10, 9));
        assert_eq!((coverage.packets_dropped, coverage.records_dropped), (2, 4));
    }

    #[test]
    fn an_agent_that_is_gone_holds_nothing_back() {
        let (coverage, until_s) = summary(&[agent(6_350, 6), agent(6_030, 3)], BOUNDS);
        assert_eq!(until_s, 6_060);
        assert_eq!((coverage.intervals_expected, coverage.intervals_reported), (12, 9));
    }

    #[test]
    fn without_reports_nothing_is_complete() {
        assert_eq!(summary(&[], BOUNDS), (Coverage::default(), 6_000));
    }

    #[test]
    fn codes_are_found_in_what_clickhouse_says() {
        assert_eq!(exception_code("Code: 241. DB::Exception: Memory limit"), Some(241));
        assert_eq!(exception_code("Code: 47"), Some(47));
        assert_eq!(exception_code("502 Bad Gateway"), None);
        assert_eq!(exception_code("Code: x"), None);
    }
}
