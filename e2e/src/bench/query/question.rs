//! Graphs that are asked for: what they are grouped by, how long their window is, what they leave out.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;

/// Longer than the service itself takes to give up.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Largest answer read, bytes: ten thousand edges take about twenty million.
const MAX_ANSWER: u64 = 256 << 20;

/// What graphs are grouped by.
pub const GROUPINGS: [&str; 3] = ["workload", "namespace", "pod"];

/// The lengths of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Span {
    /// Five minutes.
    #[value(name = "5m")]
    FiveMinutes,
    /// An hour.
    #[value(name = "1h")]
    Hour,
    /// Six hours.
    #[value(name = "6h")]
    SixHours,
    /// A day.
    #[value(name = "24h")]
    Day,
    /// Seven days.
    #[value(name = "7d")]
    Week,
    /// Thirty days.
    #[value(name = "30d")]
    Month,
}

impl Span {
    /// Its length, seconds.
    pub fn seconds(self) -> u64 {
        match self {
            Self::FiveMinutes => 300,
            Self::Hour => 3_600,
            Self::SixHours => 21_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
            Self::Month => 2_592_000,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word =
            self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        f.pad(&word)
    }
}

/// A filter, as a parameter of the API and as a condition on rows of `flows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// `name=value`, or empty.
    pub parameter: &'static str,
    /// The same in SQL.
    pub condition: &'static str,
}

/// None at all; a namespace of 25, a port of a dozen, a tenth of an eighth of the workloads.
pub const FILTERS: [Filter; 4] = [
    Filter { parameter: "", condition: "true" },
    Filter {
        parameter: "namespace=shop-00",
        condition: "client_namespace = 'shop-00' OR server_namespace = 'shop-00'",
    },
    Filter { parameter: "port=5432", condition: "server_port = 5432 OR server_real_port = 5432" },
    Filter {
        parameter: "include=^cache-0",
        condition: "arrayExists(name -> startsWith(name, 'cache-0'), \
                    [client_name, client_workload, server_name, server_workload, service_name])",
    },
];

/// One graph, but for when its window ends.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Of [`GROUPINGS`].
    pub group_by: &'static str,
    /// How long its window is.
    pub span: Span,
    /// Of [`FILTERS`].
    pub filter: Filter,
}

impl Question {
    /// The path and parameters that ask it, for a window that ends before a second.
    pub fn path(&self, end_s: u64) -> String {
        let Self { group_by, span, filter } = self;
        let (from, to) = ((end_s - span.seconds()) * 1_000, end_s * 1_000);
        let and = if filter.parameter.is_empty() { "" } else { "&" };
        format!("/api/v1/graph?group_by={group_by}&from={from}&to={to}{and}{}", filter.parameter)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group_by, span, filter } = self;
        write!(f, "{group_by:<10}{span:<5}{:<18}", filter.parameter)
    }
}

/// Asks the query service, over connections that are kept.
#[derive(Debug)]
pub struct Asker {
    agent: ureq::Agent,
    base: String,
    /// A header of every request.
    header: (&'static str, &'static str),
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// From the request to the answer's last byte, milliseconds.
    pub ms: f64,
    /// The HTTP status; 200 is a graph.
    pub status: u16,
    /// The time in which some statement of ClickHouse's had not answered, milliseconds, if the service says so.
    pub clickhouse_ms: Option<f64>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asker {
    /// Of the service at a base URL. What it has kept will not do: each answer is computed.
    pub fn new(base: String) -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false);
        // Of some dashboards' panels at once.
        let config = config.max_idle_connections(512).max_idle_connections_per_host(512);
        Self { agent: config.build().into(), base, header: ("cache-control", "no-cache") }
    }

    /// Asks the same as Grafana does: what is kept will do, and answers may be packed.
    pub fn of_dashboards(&self) -> Self {
        let (agent, base) = (self.agent.clone(), self.base.clone());
        Self { agent, base, header: ("accept-encoding", "gzip") }
    }

    /// The answer to a path.
    ///
    /// # Errors
    /// If there is none.
    pub fn ask(&self, path: &str) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let started = Instant::now();
        let (name, value) = self.header;
        let mut answer = self.agent.get(url).header(name, value).call()?;
        let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let timing = answer.headers().get("server-timing");
        let clickhouse_ms = timing.and_then(|timing| clickhouse_ms(timing.to_str().ok()?));
        Ok(Answer { ms, status: answer.status().as_u16(), clickhouse_ms, body })
    }
}

/// The duration of that name in a `Server-Timing` header.
fn clickhouse_ms(timing: &str) -> Option<f64> {
    let mut metrics = timing.split(',').filter_map(|metric| metric.trim().split_once(";dur="));
    metrics.find(|(name, _)| *name == "clickhouse")?.1.parse().ok()
}

impl Answer {
    /// Whether it is a graph.
    pub fn is_graph(&self) -> bool {
        self.status == 200
    }

    /// What it says.
    ///
    /// # Errors
    /// If that is not JSON.
    pub fn json(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clickhouses_time_is_one_of_several() {
        let timing = "total;dur=12.5, clickhouse;dur=9.1, queue;dur=0.0, shared";
        assert_eq!(clickhouse_ms(timing), Some(9.1));
        assert_eq!(clickhouse_ms("total;dur=12.5"), None);
    }

    #[test]
    fn questions_are_paths() {
        let question = Question { group_by: "pod", span: Span::Hour, filter: FILTERS[2] };
        let path = "/api/v1/graph?group_by=pod&from=396400000&to=400000000&port=5432";
        assert_eq!(question.path(400_000), path);
        assert!(question.to_string().starts_with("pod       1h   port=5432"), "{question}");
    }
}
