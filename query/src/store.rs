//! The store: asks ClickHouse, within limits, and says in our words what went wrong.

mod evidence;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clickhouse::query::Query;
use clickhouse::{Row, RowOwned, RowRead};
use flowtrail_schema::sql::Retention;
use flowtrail_service::store::{self, ClickHouseArgs};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::call::clickhouse;
use crate::filter::Filter;
use crate::params::{GraphRequest, GroupBy, MAX_LIMIT, ValuesRequest};
use crate::planner::{Held, Plan, Tier, plan};
use crate::reports::{GONE_AFTER_S, KNOWN_FOR_S, Reports};
use crate::scope::{Scope, Tables};
use crate::shared::{Computed, MOMENT, Shared};
use crate::sql::{self, BlindRow, Detail, Kept, Malformed, RankedRow};
use crate::values;
use crate::window::{Bounds, Requested, resolution_s};
pub(crate) use evidence::Range;

/// Rows that one statement may answer with: pairs of ends. About 1 kB each, and half as much again while they are
/// folded.
const MAX_RESULT_ROWS: u64 = 50_000;
/// Bytes that one statement may answer with, for rows with long lists. An answer is kept until its graph is made.
const MAX_RESULT_BYTES: u64 = 64 << 20;
/// Longest statement: one that names the edges and nodes of the largest `limit`, some 20 digits each, has about a
/// megabyte.
const MAX_STATEMENT_BYTES: &str = "4194304";
/// Questions for lengths of intervals at a time: they come before a request is let in, or beside it, and must not take
/// the places of those that are.
const MAX_INTERVALS_ASKED: usize = 4;
/// On a cluster, a replica that is so many seconds behind is not asked while there is another: its reports
/// could be there before its rows.
const MAX_REPLICA_DELAY_S: &str = "5";
/// What is kept of agents' reports for a moment takes so many bytes at most; and of blind spots likewise.
const MAX_KEPT_BYTES: usize = 8 << 20;
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
#[derive(Clone, Debug, Error)]
pub(crate) enum StoreError {
    /// No answer at all.
    #[error("cannot reach ClickHouse")]
    Away(#[source] Arc<clickhouse::error::Error>),
    /// ClickHouse has as many statements under way as it takes.
    #[error("ClickHouse is busy")]
    Busy(#[source] Arc<clickhouse::error::Error>),
    /// The statement took too long.
    #[error("ClickHouse took too long")]
    TooSlow(#[source] Arc<clickhouse::error::Error>),
    /// The statement needed too much memory, or its answer is too long.
    #[error("the question is too large")]
    TooLarge(#[source] Arc<clickhouse::error::Error>),
    /// The statement would read more rows than it may.
    #[error("the question reads too much")]
    ReadsTooMuch(#[source] Arc<clickhouse::error::Error>),
    /// A regular expression that re2 does not take.
    #[error("ClickHouse does not take the regular expression")]
    Pattern(#[source] Arc<clickhouse::error::Error>),
    /// ClickHouse does not say how long rows are kept.
    #[error("cannot ask how long rows are kept")]
    Retention(#[source] Arc<store::StoreError>),
    /// Anything else: a defect here or there.
    #[error("ClickHouse refused the statement")]
    Refused(#[source] Arc<clickhouse::error::Error>),
    /// An answer that is not what was asked for: likewise.
    #[error("ClickHouse's answer cannot be read")]
    Malformed(#[from] Malformed),
}

impl From<clickhouse::error::Error> for StoreError {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        let error = Arc::new(error);
        match &*error {
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

impl From<store::StoreError> for StoreError {
    fn from(error: store::StoreError) -> Self {
        Self::Retention(Arc::new(error))
    }
}

/// The number in `Code: 241. DB::Exception: …`.
fn exception_code(text: &str) -> Option<u32> {
    let digits = text.split_once("Code: ")?.1;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

mod history;

/// A client of ClickHouse that asks within limits.
#[derive(Clone)]
pub(crate) struct Store {
    args: ClickHouseArgs,
    tables: Tables,
    /// Since when each tier is whole, and when that was asked.
    held: Arc<Mutex<Option<(Held, Instant)>>>,
    /// Lengths of intervals by the minutes of a window's bounds: all of a dashboard's panels ask for the same.
    intervals: Shared<(u32, u32), u32, StoreError>,
    /// What was said last of a window that had rows; 0 before the first.
    likely_interval_s: Arc<AtomicU32>,
    /// What agents reported on a window, and when they were blind, likewise.
    reports: Shared<(Bounds, Scope), Reports, StoreError>,
    /// By window, until when reports are due, and scope.
    blind_spots: Shared<(Bounds, u32, Scope), Option<Vec<BlindRow>>, StoreError>,
    intervals_asked: Arc<Semaphore>,
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
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            // Beneath `*` are all columns that a table tells, of which it stores some as others.
            .with_setting("asterisk_include_alias_columns", "1")
            // Every statement names other times: none would find what was compiled for another.
            .with_setting("compile_expressions", "0")
            .with_setting("compile_aggregate_expressions", "0");
        let tables = Tables::new(client, &args.clickhouse_database);
        Self {
            args: args.clone(),
            tables,
            held: Arc::default(),
            intervals: Shared::new(MAX_KEPT_BYTES),
            likely_interval_s: Arc::default(),
            reports: Shared::new(MAX_KEPT_BYTES),
            blind_spots: Shared::new(MAX_KEPT_BYTES),
            intervals_asked: Arc::new(Semaphore::new(MAX_INTERVALS_ASKED)),
        }
    }

    /// How to compute a window.
    pub(crate) async fn plan(&self, requested: Requested) -> Result<Plan, StoreError> {
        let (interval_s, held) = self.grain(requested).await?;
        Ok(plan(requested, interval_s, &held))
    }

    /// What no interval at a window's bounds straddles multiples of, in seconds, and since when tiers are whole.
    pub(crate) async fn grain(&self, requested: Requested) -> Result<(u32, Held), StoreError> {
        tokio::try_join!(self.interval_s(requested), self.held())
    }

    /// What no interval at a window's bounds straddles multiples of, in seconds.
    pub(crate) async fn interval_s(&self, requested: Requested) -> Result<u32, StoreError> {
        #[derive(Row, Deserialize)]
        struct Length {
            interval_s: u8,
        }
        // Intervals divide minutes, so none that a bound is in reaches beyond its minute.
        let minute = |time_ms: i64| (time_ms / 60_000 * 60) as u32;
        let (first, last) = (minute(requested.from_ms), minute(requested.to_ms - 1));
        let lengths = async {
            let query = self.tables.ask_for_all(sql::INTERVAL_LENGTHS);
            let lengths: Vec<Length> =
                rows(query.param("first", first).param("last", last)).await?;
            let lengths: Vec<_> = lengths.iter().map(|length| length.interval_s).collect();
            let value = resolution_s(&lengths);
            // Where nothing was, nothing is learned.
            if !lengths.is_empty() {
                self.likely_interval_s.store(value, Ordering::Relaxed);
            }
            Ok(Computed { value, keep: MOMENT, bytes: size_of_val(&value) })
        };
        let asked = async {
            // Never closed.
            let _turn = self.intervals_asked.acquire().await;
            lengths.await
        };
        Ok(self.intervals.get(&(first, last), asked).await?.0)
    }

    /// What [`Store::interval_s`] says next, most likely: what it said last.
    pub(crate) fn likely_interval_s(&self) -> Option<u32> {
        Some(self.likely_interval_s.load(Ordering::Relaxed)).filter(|likely| *likely > 0)
    }

    /// Since when each tier is whole.
    pub(crate) async fn held(&self) -> Result<Held, StoreError> {
        let known = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, _)) = known.filter(|(_, at)| at.elapsed() < HELD_FOR) {
            return Ok(held);
        }
        let query = self.tables.ask_for_all(sql::EARLIEST);
        let query = clickhouse(query.fetch_one::<(u32, u32, u32, u32, u32, u32)>());
        let (earliest, retention) = tokio::join!(query, self.args.retention());
        let (now_s, raw, minutes, hours, days, weeks) = earliest?;
        let Retention { flows, minutes: of_minutes, hours: of_hours, .. } = retention?;
        // Nothing that is newer is dropped before this is asked again.
        let expired = |kept: Duration| {
            let kept_s = kept.saturating_sub(2 * HELD_FOR).as_secs();
            now_s.saturating_sub(kept_s.try_into().unwrap_or(u32::MAX))
        };
        let expired =
            [flows, of_minutes, of_hours, of_hours, of_hours].map(|kept| kept.map(expired));
        let held = Held::since([raw, minutes, hours, days, weeks], expired);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((held, Instant::now()));
        Ok(held)
    }

    /// The agents' reports on a window, as a caller may see them.
    pub(crate) async fn reports(
        &self,
        scope: &Scope,
        bounds: Bounds,
    ) -> Result<Reports, StoreError> {
        let (first_hour, end_hour) = whole_hours(bounds);
        let reports = async {
            let query = self.tables.ask(scope, sql::COVERAGE);
            let query = query.param("from", bounds.from_s).param("to", bounds.to_s);
            let query = query.param("first_hour", first_hour).param("end_hour", end_hour);
            let query = query
                .param("since", bounds.from_s.saturating_sub(GONE_AFTER_S))
                .param("until", bounds.to_s.saturating_add(GONE_AFTER_S))
                .param("known_since", bounds.from_s.saturating_sub(KNOWN_FOR_S) / 3_600 * 3_600);
            let value = Reports::of(rows(query).await?, bounds);
            let bytes = value
                .agents
                .iter()
                .chain(&value.silent)
                .map(|agent| size_of::<String>() + agent.len())
                .sum();
            Ok(Computed { value, keep: MOMENT, bytes })
        };
        Ok(self.reports.get(&(bounds, scope.clone()), reports).await?.0)
    }

    /// Which edges of a window stay as its request says; `None` if all do, as where two windows are compared,
    /// or if that cannot be told before their sums are known.
    pub(crate) async fn kept(
        &self,
        request: &GraphRequest,
        plan: &Plan,
    ) -> Result<Option<Kept>, StoreError> {
        let GraphRequest { group_by, filter, stat, limit, .. } = request;
        let (limit, detail) = (*limit, Detail::of(*group_by, filter));
        if limit > MAX_LIMIT || filter.q.reads_sums() {
            return Ok(None);
        }
        let ranked = sql::ranked(*group_by, detail, &filter.sql(), plan, *stat, limit + 1);
        let Some(statement) = ranked else { return Ok(None) };
        let query = filter.bind(self.tables.ask(&filter.scope, &statement));
        let ranked: Vec<RankedRow> = rows(query).await?;
        Ok(Kept::of(&ranked, limit))
    }

    /// The edges of a window: [`EdgeRow`](sql::EdgeRow)s.
    pub(crate) async fn edges(
        &self,
        group_by: GroupBy,
        filter: &Filter,
        plan: &Plan,
        kept: Option<&Kept>,
    ) -> Result<Bytes, StoreError> {
        let detail = Detail::of(group_by, filter);
        let statement = sql::edges(group_by, detail, &filter.sql(), plan, kept);
        bytes(filter.bind(self.ask_long(filter, &statement))).await
    }

    /// A question with a long answer, that perhaps names the edges that stay.
    fn ask_long(&self, filter: &Filter, statement: &str) -> Query {
        let query = self.tables.ask(&filter.scope, statement);
        query.with_setting("max_query_size", MAX_STATEMENT_BYTES)
    }

    /// The connections open at instants, at least one, in seconds since the epoch: [`OpenRow`](sql::OpenRow)s.
    pub(crate) async fn open_at(
        &self,
        group_by: GroupBy,
        filter: &Filter,
        instants: &[u32],
        kept: Option<&Kept>,
    ) -> Result<Bytes, StoreError> {
        let statement = sql::open_at(group_by, &filter.sql(), instants, kept);
        bytes(filter.bind(self.ask_long(filter, &statement))).await
    }

    /// The connections open when a row of a rollup begins, as that tells: [`OpenRow`](sql::OpenRow)s.
    pub(crate) async fn open_at_boundary(
        &self,
        group_by: GroupBy,
        filter: &Filter,
        at_s: u32,
        tier: Tier,
        kept: Option<&Kept>,
    ) -> Result<Bytes, StoreError> {
        let detail = Detail::of(group_by, filter);
        let statement = sql::open_at_boundary(group_by, detail, &filter.sql(), tier, at_s, kept);
        bytes(filter.bind(self.ask_long(filter, &statement))).await
    }

    /// Namespace, name and connections of what there is to choose from, and one more than `limit` if there is.
    pub(crate) async fn values(
        &self,
        request: &ValuesRequest,
        plan: &Plan,
    ) -> Result<Vec<(String, String, u64)>, StoreError> {
        let query = self.tables.ask(&request.scope, &values::sql(request, plan));
        rows(values::bind(request, query)).await
    }
}

/// All rows of an answer.
async fn rows<T: RowOwned + RowRead>(query: Query) -> Result<Vec<T>, StoreError> {
    let (mut cursor, mut rows) = (query.fetch::<T>()?, Vec::new());
    while let Some(row) = clickhouse(cursor.next()).await? {
        rows.push(row);
    }
    Ok(rows)
}

/// A long answer, whole, for [`sql::parse_rows`].
async fn bytes(query: Query) -> Result<Bytes, StoreError> {
    let mut cursor = query.fetch_bytes("RowBinaryWithNamesAndTypes")?;
    // Put together as it comes: while ClickHouse writes the rest.
    let mut answer = BytesMut::new();
    while let Some(chunk) = clickhouse(cursor.next()).await? {
        answer.extend_from_slice(&chunk);
    }
    Ok(answer.freeze())
}

/// The whole hours of a window, from the first's start to the last's end; none where these are equal.
fn whole_hours(bounds: Bounds) -> (u32, u32) {
    let first_hour = bounds.from_s.next_multiple_of(3_600);
    (first_hour, (bounds.to_s / 3_600 * 3_600).max(first_hour))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_what_clickhouse_says() {
        assert_eq!(exception_code("Code: 241. DB::Exception: Memory limit"), Some(241));
        assert_eq!(exception_code("Code: 47"), Some(47));
        assert_eq!(exception_code("502 Bad Gateway"), None);
        assert_eq!(exception_code("Code: x"), None);
    }
}
