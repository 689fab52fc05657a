//! How long rows are kept: the TTL clauses of the DDL, with other intervals.

use std::time::Duration;

use thiserror::Error;

use super::MIGRATIONS;
use super::tokens::{Token, replaced, tokens};

const DAY: Duration = Duration::from_secs(86_400);

/// Least that is kept: tables of raw rows are partitioned by day, and only whole parts are dropped.
const LEAST: Duration = DAY;

/// Least of what recovery reads: a chunk spans 8 days at most, and Kafka keeps offsets and, by default,
/// messages for 7.
const LEAST_FOR_RECOVERY: Duration = Duration::from_secs(8 * 86_400);
/// Rows of a week are of its Monday: they must outlast it, and what is delivered as late as may be.
const LEAST_FOR_WEEKS: Duration = Duration::from_secs(15 * 86_400);

/// Most that is kept: a row's time and this must not go beyond the year 2106, where `DateTime` ends.
const MOST: Duration = Duration::from_secs(50 * 31_557_600);

/// Lengths of ClickHouse's units in seconds, the longest first; a year and a month as people's durations
/// have them.
const UNITS: [(&str, u64); 7] = [
    ("YEAR", 31_557_600),
    ("MONTH", 2_630_016),
    ("WEEK", 604_800),
    ("DAY", 86_400),
    ("HOUR", 3_600),
    ("MINUTE", 60),
    ("SECOND", 1),
];

/// How long rows are kept, by what they are; `None` is as the table has it, or else the DDL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Raw rows.
    pub flows: Option<Duration>,
    /// Edges of minutes.
    pub minutes: Option<Duration>,
    /// Edges of hours, days and weeks, and coverage by the hour.
    pub hours: Option<Duration>,
    /// Agents' reports.
    pub coverage: Option<Duration>,
    /// What was delivered, as of its insertion.
    pub deliveries: Option<Duration>,
    /// Who owned an address, since it was last known to.
    pub identities: Option<Duration>,
}

/// What is wrong with a retention.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RetentionError {
    /// Less than there is use for.
    #[error("{flag} must be {least_days}d or more{why}")]
    Short {
        /// The flag.
        flag: &'static str,
        /// Days that it must be at least.
        least_days: u64,
        /// What for.
        why: &'static str,
    },
    /// More than the tables' times can hold.
    #[error("{flag} must be 50y or less: ClickHouse's times end in 2106")]
    Long {
        /// The flag.
        flag: &'static str,
    },
    /// One would be gone before what depends on it.
    #[error("{longer} must not be shorter than {shorter}: {why}")]
    Order {
        /// What must be kept longer, or as long.
        longer: &'static str,
        /// Than this.
        shorter: &'static str,
        /// Why.
        why: &'static str,
    },
}

impl Retention {
    /// Each table that forgets, with how long it is to keep rows.
    pub fn tables(&self) -> [(&'static str, Option<Duration>); 12] {
        [
            ("flows", self.flows),
            ("coverage", self.coverage),
            ("deliveries", self.deliveries),
            ("edges_1m", self.minutes),
            ("edges_1h", self.hours),
            ("edges_1d", self.hours),
            ("edges_1w", self.hours),
            ("workload_edges_1h", self.hours),
            ("workload_edges_1d", self.hours),
            ("workload_edges_1w", self.hours),
            ("coverage_1h", self.hours),
            ("identities", self.identities),
        ]
    }

    /// What [`Retention::tables`] lists, by what is known of each table.
    pub fn of_tables(kept: impl Fn(&str) -> Option<Duration>) -> Self {
        Self {
            flows: kept("flows"),
            minutes: kept("edges_1m"),
            hours: kept("edges_1h"),
            coverage: kept("coverage"),
            deliveries: kept("deliveries"),
            identities: kept("identities"),
        }
    }

    /// As the DDL has it.
    pub fn of_schema() -> Self {
        Self::of_tables(|table| kept(ttl_statement(table)?))
    }

    /// This, and where it says nothing, the other.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            flows: self.flows.or(other.flows),
            minutes: self.minutes.or(other.minutes),
            hours: self.hours.or(other.hours),
            coverage: self.coverage.or(other.coverage),
            deliveries: self.deliveries.or(other.deliveries),
            identities: self.identities.or(other.identities),
        }
    }

    /// Checks what is said.
    ///
    /// # Errors
    /// If something is kept too short or too long by itself, or shorter than what depends on it.
    pub fn validate(&self) -> Result<(), RetentionError> {
        const FLOWS: &str = "--retain-flows";
        const MINUTES: &str = "--retain-minutes";
        const HOURS: &str = "--retain-hours";
        const COVERAGE: &str = "--retain-coverage";
        const DELIVERIES: &str = "--retain-deliveries";
        const IDENTITIES: &str = "--retain-identities";
        let each = [
            (FLOWS, self.flows, LEAST, ""),
            (MINUTES, self.minutes, LEAST, ""),
            (
                HOURS,
                self.hours,
                LEAST_FOR_WEEKS,
                ": a week goes by its Monday, and records may come late",
            ),
            (COVERAGE, self.coverage, LEAST, ""),
            (
                DELIVERIES,
                self.deliveries,
                LEAST_FOR_RECOVERY,
                ": ingest resumes by them for as long as Kafka keeps messages",
            ),
            (
                IDENTITIES,
                self.identities,
                LEAST_FOR_RECOVERY,
                ": records may be read as late as Kafka keeps messages",
            ),
        ];
        for (flag, kept, least, why) in each {
            match kept {
                Some(kept) if kept < least => {
                    let least_days = least.as_secs() / DAY.as_secs();
                    return Err(RetentionError::Short { flag, least_days, why });
                }
                Some(kept) if kept > MOST => return Err(RetentionError::Long { flag }),
                _ => {}
            }
        }
        let coarser = "coarser edges stand for finer ones that are gone";
        let audit = "the audit holds raw rows against it";
        let ordered = [
            ((FLOWS, self.flows), (MINUTES, self.minutes), coarser),
            ((MINUTES, self.minutes), (HOURS, self.hours), coarser),
            ((FLOWS, self.flows), (HOURS, self.hours), coarser),
            ((FLOWS, self.flows), (COVERAGE, self.coverage), audit),
            ((FLOWS, self.flows), (DELIVERIES, self.deliveries), audit),
        ];
        for ((shorter, less), (longer, more), why) in ordered {
            if let (Some(less), Some(more)) = (less, more)
                && more < less
            {
                return Err(RetentionError::Order { longer, shorter, why });
            }
        }
        Ok(())
    }

    /// A statement of the DDL; the TTL of a table that this says something of, with that.
    pub(super) fn applied(&self, statement: &str) -> String {
        let found = tokens(statement);
        let wanted = self.tables().into_iter().find(|(table, _)| touches(&found, table));
        match (wanted.and_then(|(_, kept)| kept), interval(&found)) {
            (Some(kept), Some(interval)) => replaced(statement, &[(interval.range, sql(kept))]),
            _ => statement.to_owned(),
        }
    }
}

/// The statements that make a table keep its rows so long, without rewriting any: what is there of it is
/// linked, and only when it is to go is written anew. `None` for a table that forgets nothing in the DDL.
pub fn keep(table: &str, kept: Duration) -> Option<[String; 2]> {
    let statement = ttl_statement(table)?;
    let found = tokens(statement);
    let clause = ttl_clause(&found)?;
    let (start, end) = (clause.first()?.start, clause.last()?.end());
    let range = interval(&found)?.range;
    let range = range.start - start..range.end - start;
    let ttl = replaced(&statement[start..end], &[(range, sql(kept))]);
    Some([
        format!("ALTER TABLE {table} MODIFY SETTING materialize_ttl_recalculate_only = 1"),
        format!("ALTER TABLE {table} MODIFY TTL {ttl}"),
    ])
}

/// How long a table keeps its rows by a CREATE or ALTER TABLE; `None` if that does not say.
pub fn kept(statement: &str) -> Option<Duration> {
    interval(&tokens(statement)).map(|interval| interval.length)
}

/// The last statement of the DDL that says how long a table keeps its rows.
fn ttl_statement(table: &str) -> Option<&'static str> {
    let says = |statement: &&str| {
        let found = tokens(statement);
        touches(&found, table) && ttl_clause(&found).is_some()
    };
    MIGRATIONS.iter().rev().map(|migration| migration.statement).find(says)
}

/// Whether a statement is CREATE or ALTER TABLE of a table.
fn touches(found: &[Token<'_>], table: &str) -> bool {
    let mut words = found.iter().filter(|t| !["IF", "NOT", "EXISTS"].iter().any(|word| t.is(word)));
    let (verb, what, name) = (words.next(), words.next(), words.next());
    verb.is_some_and(|verb| verb.is("CREATE") || verb.is("ALTER"))
        && what.is_some_and(|what| what.is("TABLE"))
        && name.is_some_and(|name| name.text == table)
}

/// The tokens of the table's TTL, without the word.
fn ttl_clause<'t, 'a>(found: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let from = 1 + found.iter().position(|token| token.depth == 0 && token.is("TTL"))?;
    let ends = |token: &Token<'_>| {
        token.depth == 0 && ["SETTINGS", "COMMENT", ","].iter().any(|word| token.is(word))
    };
    let length = found[from..].iter().position(ends).unwrap_or(found.len() - from);
    Some(&found[from..from + length])
}

struct Interval {
    range: std::ops::Range<usize>,
    length: Duration,
}

/// The interval in the table's TTL: `INTERVAL 14 DAY`, or as ClickHouse shows it, `toIntervalDay(14)`.
fn interval(found: &[Token<'_>]) -> Option<Interval> {
    let clause = ttl_clause(found)?;
    (0..clause.len()).find_map(|at| {
        let [first, second, third, rest @ ..] = &clause[at..] else { return None };
        let (number, unit, end) = if first.is("INTERVAL") {
            (second, third.text, third.end())
        } else {
            let unit = first.text.strip_prefix("toInterval").filter(|_| second.text == "(")?;
            (third, unit, rest.first()?.end())
        };
        let (_, seconds) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        let length = Duration::from_secs(number.text.parse::<u64>().ok()?.checked_mul(*seconds)?);
        Some(Interval { range: first.start..end, length })
    })
}

/// An interval in SQL, in the longest unit that it is a multiple of; a part of a second is one more.
fn sql(kept: Duration) -> String {
    let seconds = kept.as_secs() + u64::from(kept.subsec_nanos() > 0);
    let fits = |(_, length): &&(&str, u64)| seconds.is_multiple_of(*length);
    // Months and weeks are for reading what is there: nobody asks for 14 days and wants to see weeks.
    let units = UNITS.iter().filter(|(name, _)| !["MONTH", "WEEK"].contains(name));
    let (unit, length) = units.into_iter().find(fits).copied().unwrap_or(("SECOND", 1));
    format!("INTERVAL {} {unit}", seconds / length)
}

#[cfg(test)]
mod tests;
