//! Requests: the parameters of a URL, checked and typed. Anything unknown or out of range is a
//! problem that names the parameter and says what it takes.

mod connections;
mod given;

use std::str::FromStr;

pub(crate) use connections::{ConnectionsRequest, DEFAULT_PAGE, MAX_PAGE};

use given::{Given, refused, rows_only};
pub(crate) use given::{MAX_LIST, MAX_PATTERN_LENGTH, check_pattern};

use crate::answer::{StatValue, Traffic};
use crate::filter::Filter;
use crate::http::Asked;
use crate::problem::Problem;
use crate::window::Requested;

/// Edges answered without `limit`: beyond what any picture shows; the rest is folded, not lost.
pub(crate) const DEFAULT_LIMIT: usize = 1_000;
/// Largest `limit`: an answer of about 10 MB.
pub(crate) const MAX_LIMIT: usize = 10_000;

/// Declares a parameter's words once.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            pub(crate) const WORDS: &[&str] = &[$($word,)+];
        }

        impl FromStr for $name {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

// Use the macro above.
mod diff;
mod steps;
mod values;

pub(crate) use diff::{
    DEFAULT_EDGES, DEFAULT_THRESHOLD, DiffRequest, MAX_THRESHOLD, MIN_THRESHOLD,
};
pub(crate) use steps::{
    CoverageRequest, DEFAULT_COVERAGE_POINTS, DEFAULT_POINTS, DEFAULT_SERIES, MAX_POINTS,
    MAX_SERIES, SeriesRequest, Split, SplitSide,
};
pub(crate) use values::{DEFAULT_VALUES, MAX_SEARCH, Of, ValuesRequest};

words! {
    /// What rows are folded into one node by: see [`crate::graph`].
    GroupBy {
        Namespace = "namespace",
        #[default]
        Workload = "workload",
        Pod = "pod",
        Service = "service",
        Node = "node",
        Ip = "ip",
    }
}

words! {
    /// What edges are ranked by.
    Stat {
        #[default]
        Connections = "connections",
        /// Both directions.
        Bytes = "bytes",
        /// Both directions.
        Packets = "packets",
        /// The mean.
        Duration = "duration",
        /// The 95th percentile.
        Latency = "latency",
        /// Both directions.
        Retransmits = "retransmits",
        /// Refused and unanswered.
        Failures = "failures",
    }
}

impl Stat {
    /// What it is of some connections; none of a time without a sample.
    pub(crate) fn of(self, traffic: &Traffic) -> Option<StatValue> {
        let (sent, received) = (&traffic.sent, &traffic.received);
        let count = match self {
            Self::Connections => traffic.connections,
            Self::Bytes => sent.bytes + received.bytes,
            Self::Packets => sent.packets + received.packets,
            Self::Retransmits => traffic.retransmits,
            Self::Failures => traffic.failed,
            Self::Duration => return traffic.duration.avg_ms.map(StatValue::Milliseconds),
            Self::Latency => return traffic.latency.p95_ms.map(StatValue::Milliseconds),
        };
        Some(StatValue::Count(count))
    }

    /// Whether it is a time, which does not grow with the window.
    pub(crate) fn is_time(self) -> bool {
        matches!(self, Self::Duration | Self::Latency)
    }
}

words! {
    /// What connections are ordered by; of equals, the order is the same every time.
    Order {
        /// The latest start first.
        #[default]
        Newest = "newest",
        /// The longest from its start to its last packet first.
        Longest = "longest",
        /// Most bytes in the window first, both directions.
        Bytes = "bytes",
        /// Most retransmitted packets in the window first, both directions.
        Retransmits = "retransmits",
    }
}

impl Order {
    /// All of them, as cursors number them.
    pub(crate) const ALL: &[Self] = &[Self::Newest, Self::Longest, Self::Bytes, Self::Retransmits];
}

words! {
    /// k8spacket's `stats-type`: what the node graph shows.
    StatsType {
        #[default]
        Connection = "connection",
        Bytes = "bytes",
        Duration = "duration",
    }
}

/// What graph to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphRequest {
    pub(crate) window: Requested,
    pub(crate) group_by: GroupBy,
    pub(crate) filter: Filter,
    pub(crate) stat: Stat,
    pub(crate) limit: usize,
}

impl GraphRequest {
    /// Its parameters.
    pub(crate) const TAKEN: &[&str] = &[
        "from",
        "to",
        "group_by",
        "namespace",
        "workload",
        "include",
        "exclude",
        "port",
        "kind",
        "q",
        "edge",
        "source",
        "target",
        "stat",
        "limit",
    ];

    /// From the parameters of `/api/v1/graph`. `now_ms` is the instant that `now` means.
    pub(crate) fn parse(asked: Asked, now_ms: i64) -> Result<Self, Problem> {
        Self::of(&Given::new(asked, Self::TAKEN)?, now_ms)
    }

    fn of(given: &Given, now_ms: i64) -> Result<Self, Problem> {
        Ok(Self {
            window: given.window(now_ms)?,
            group_by: given.word("group_by", GroupBy::WORDS)?,
            filter: given.filter()?,
            stat: given.word("stat", Stat::WORDS)?,
            limit: given
                .numbers("limit", "a number of edges, 1 to 10000", 1..=MAX_LIMIT)?
                .first()
                .copied()
                .unwrap_or(DEFAULT_LIMIT),
        })
    }
}

/// What the Node Graph API data source asks: k8spacket's parameters, and `group_by`.
#[derive(Clone, Debug)]
pub(crate) struct NodeGraphRequest {
    pub(crate) graph: GraphRequest,
    pub(crate) stats_type: StatsType,
}

impl NodeGraphRequest {
    /// Its parameters.
    pub(crate) const TAKEN: &[&str] =
        &["from", "to", "group_by", "namespace", "include", "exclude", "stats-type"];

    /// From the parameters of `/nodegraph/api/graph/…`; `namespace` is a regular expression here.
    pub(crate) fn parse(asked: Asked, now_ms: i64) -> Result<Self, Problem> {
        let given = Given::new(asked, Self::TAKEN)?;
        let stats_type = given.word("stats-type", StatsType::WORDS)?;
        let graph = GraphRequest {
            window: given.window(now_ms)?,
            group_by: given.word("group_by", GroupBy::WORDS)?,
            filter: Filter {
                scope: given.scope.clone(),
                namespace_pattern: given.pattern("namespace")?,
                include: given.pattern("include")?,
                exclude: given.pattern("exclude")?,
                ..Filter::default()
            },
            stat: match stats_type {
                StatsType::Connection => Stat::Connections,
                StatsType::Bytes => Stat::Bytes,
                StatsType::Duration => Stat::Duration,
            },
            limit: DEFAULT_LIMIT,
        };
        Ok(Self { graph, stats_type })
    }
}

#[cfg(test)]
mod tests {
    use flowtrail_schema::row::EntityKind;

    use super::*;
    use crate::scope::Scope;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn parse(query: &[(&str, &str)]) -> Result<GraphRequest, Problem> {
        GraphRequest::parse(Asked::of_anybody(query), NOW_MS)
    }

    #[test]
    fn nothing_given_is_the_last_hour_by_workload() {
        let request = parse(&[("namespace", ""), ("include", "")]).unwrap();
        let hour = Requested { from_ms: NOW_MS - 3_600_000, to_ms: NOW_MS };
        assert_eq!(request.window, hour);
        assert_eq!(request.group_by, GroupBy::Workload);
        assert_eq!(request.filter, Filter { scope: Scope::All, ..Filter::default() });
        assert_eq!((request.stat, request.limit), (Stat::Connections, DEFAULT_LIMIT));
    }

    #[test]
    fn lists_are_repeated_or_separated_by_commas() {
        let given = [("namespace", "shop, bank"), ("namespace", "infra"), ("port", "80,443")];
        let filter = parse(&given).unwrap().filter;
        assert_eq!(filter.namespaces, ["shop", "bank", "infra"]);
        assert_eq!(filter.ports, [80, 443]);
        let filter = parse(&[("kind", "external,pod")]).unwrap().filter;
        assert_eq!(filter.kinds, [EntityKind::External, EntityKind::Pod]);
    }

    #[test]
    fn a_bad_value_names_the_parameter_and_what_it_takes() {
        let long = "x".repeat(MAX_PATTERN_LENGTH + 1);
        let many = vec!["a"; MAX_LIST + 1].join(",");
        let cases = [
            ("group_by", "cluster", "namespace, workload, pod, service, node, ip"),
            ("stat", "Bytes", "connections, bytes"),
            ("port", "80,http", "1 to 65535"),
            ("port", "0", "1 to 65535"),
            ("limit", "0", "1 to 10000"),
            ("limit", "-1", "1 to 10000"),
            ("kind", "vm", "pod, service, node, external, unknown"),
            ("include", "(", "regular expression"),
            ("exclude", "(a{1000}){1000}", "regular expression"),
            ("include", r"\w{99}", "regular expression"),
            ("include", long.as_str(), "at most 512 bytes"),
            ("namespace", many.as_str(), "at most 200"),
            ("from", "yesterday", "now-6h"),
            ("from", "now", "before"),
            ("groupby", "pod", "unknown parameter"),
        ];
        for (name, value, says) in cases {
            let problem = parse(&[(name, value)]).unwrap_err();
            assert_eq!((problem.status, problem.parameter.as_deref()), (400, Some(name)));
            assert!(problem.detail.contains(says), "{}", problem.detail);
        }
        let twice = parse(&[("stat", "bytes"), ("stat", "packets")]).unwrap_err();
        assert!(twice.detail.contains("more than once"), "{}", twice.detail);
    }

    #[test]
    fn the_node_graph_takes_the_parameters_of_k8spacket() {
        let query = [
            ("namespace", "shop|bank"),
            ("include", "web.*"),
            ("exclude", ""),
            ("stats-type", "bytes"),
            ("from", "1699996400000"),
            ("to", "1700000000000"),
        ];
        let request = NodeGraphRequest::parse(Asked::of_anybody(&query), 0).unwrap();
        assert_eq!(request.stats_type, StatsType::Bytes);
        assert_eq!(request.graph.filter.namespace_pattern.as_deref(), Some("shop|bank"));
        assert_eq!(request.graph.filter.exclude, None);
        let problem =
            NodeGraphRequest::parse(Asked::of_anybody(&[("stats-type", "x")]), 0).unwrap_err();
        assert_eq!(problem.parameter.as_deref(), Some("stats-type"));
    }
}
