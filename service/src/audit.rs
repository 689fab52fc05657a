//! The proof of delivery: asks the tables whether a window's records are all there, once, and summed right.
//! The questions are `schema/sql/audit/*.sql`.

use clickhouse::Row;
use flowtrail_schema::sql::{AUDITS, Audit};
use serde::Deserialize;

use crate::store::{ClickHouseArgs, StoreError};

/// Findings of one check that are told, at most: the first show what is wrong.
pub const MAX_FINDINGS: usize = 100;

/// What an audit found.
#[derive(Debug)]
pub struct Report {
    /// Partitions with chunks in the window.
    pub partitions: u64,
    /// Chunks that touch the window.
    pub chunks: u64,
    /// Records in these.
    pub records: u64,
    /// Each check's findings.
    pub checks: Vec<Check>,
}

/// What one check found.
#[derive(Debug)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What is wrong, [`MAX_FINDINGS`] at most.
    pub findings: Vec<Finding>,
    /// There is more.
    pub more: bool,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Finding {
    /// gap, lost, missing, duplicate or rollup.
    pub problem: String,
    /// Where.
    pub place: String,
    /// What, for people.
    pub detail: String,
}

impl ClickHouseArgs {
    /// Audits `[from, to)`, milliseconds since the epoch, widened to seconds.
    ///
    /// # Errors
    /// If ClickHouse is away or refuses a question.
    pub async fn audit(&self, from: i64, to: i64) -> Result<Report, StoreError> {
        #[derive(Row, Deserialize)]
        struct Sums {
            partitions: u64,
            chunks: u64,
            records: u64,
        }
        let bounds = [("from", from / 1_000), ("to", (to + 999) / 1_000)];
        let client = self.client();
        let bound = |statement: &str, more: &[(&str, &str)]| {
            let query = bounds
                .iter()
                .fold(client.query(statement), |query, (name, value)| query.param(name, value));
            more.iter().fold(query, |query, (name, value)| query.param(name, value))
        };
        let sums = "SELECT uniqExact(topic_id, partition) AS partitions, count() AS chunks, \
                    sum(deliveries.records) AS records FROM deliveries WHERE deliveries.records > 0 \
                    AND max_interval_start >= toDateTime({from:UInt32}) \
                    AND min_interval_start < toDateTime({to:UInt32})";
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source| self.failed(&format!("audit {what}"), source)
        };
        let sums: Sums = bound(sums, &[]).fetch_one().await.map_err(failed("deliveries"))?;
        let mut checks = Vec::with_capacity(AUDITS.len());
        for Audit { name, statement, parameters } in AUDITS {
            let limited = format!("SELECT * FROM ({statement}) LIMIT {}", MAX_FINDINGS + 1);
            let mut findings: Vec<Finding> =
                bound(&limited, parameters).fetch_all().await.map_err(failed(name))?;
            let more = findings.len() > MAX_FINDINGS;
            findings.truncate(MAX_FINDINGS);
            checks.push(Check { name, findings, more });
        }
        let Sums { partitions, chunks, records } = sums;
        Ok(Report { partitions, chunks, records, checks })
    }
}
