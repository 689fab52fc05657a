//! Names, times and amounts as people read them.

use std::collections::HashMap;

use chrono::DateTime;
use flowtrail_query::{Graph, Node};

/// The nodes' names by their ids.
pub(super) fn names(graph: &Graph) -> HashMap<&str, String> {
    graph.nodes.iter().map(|node| (&*node.id, title(node))).collect()
}

/// `namespace/name`, or what there is of it.
pub(super) fn title(node: &Node) -> String {
    match node.namespace.as_str() {
        "" => shown(&node.name),
        namespace => shown(&format!("{namespace}/{}", node.name)),
    }
}

/// Without control characters: a name must not move the cursor, or end a line.
pub(super) fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(super) fn time(ms: i64) -> String {
    formatted(ms, "%Y-%m-%d %H:%M:%S UTC")
}

pub(super) fn day_and_time(ms: i64) -> String {
    formatted(ms, "%m-%d %H:%M:%S")
}

fn formatted(ms: i64, format: &str) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |time| time.format(format).to_string())
}

/// With a unit and three significant digits; empty for none. JSON and CSV have them all.
pub(super) fn milliseconds(ms: Option<f64>) -> String {
    let Some(ms) = ms else { return String::new() };
    let (value, unit) = match ms {
        ms if ms < 0.9995 => (ms * 1_000.0, "µs"),
        ms if ms < 999.5 => (ms, "ms"),
        ms if ms < 119_500.0 => (ms / 1_000.0, "s"),
        ms if ms < 7_170_000.0 => (ms / 60_000.0, "min"),
        ms => (ms / 3_600_000.0, "h"),
    };
    format!("{} {unit}", three_digits(value))
}

/// Bytes with a binary unit and three significant digits; exact below 1 KiB. JSON and CSV have them all.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would be printed as 1000: the next unit's.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

fn three_digits(value: f64) -> String {
    let digits = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
pub(super) mod tests {
    use flowtrail_query::{Counters, Coverage, Duration, Edge, Latency, Traffic, Window};

    use super::*;

    fn node(id: &str, namespace: &str, name: &str) -> Node {
        Node {
            id: id.into(),
            kind: id.split(':').next().unwrap_or_default().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            workload: String::new(),
            workload_kind: String::new(),
            addresses: Vec::new(),
            more_addresses: false,
            as_client: Traffic::default(),
            as_server: Traffic::default(),
        }
    }

    fn edge(source: &str, target: &str, ports: &[u16], service: &str, traffic: Traffic) -> Edge {
        Edge {
            id: format!("{source}>{target}"),
            source: source.into(),
            target: target.into(),
            server_ports: ports.to_vec(),
            services: if service.is_empty() { Vec::new() } else { vec![service.to_owned()] },
            more: false,
            first_seen: 1_700_000_040_001,
            last_seen: 1_700_003_599_000,
            traffic,
        }
    }

    /// An hour that needs everything: long names, failures, what is missing, and what would break out.
    pub(in super::super) fn example() -> Graph {
        let bytes = |bytes| Counters { bytes, ..Counters::default() };
        let busy = Traffic {
            connections: 123_456,
            opened: 123_400,
            open: 12,
            sent: bytes(62 << 20),
            received: bytes(9_050_000_000),
            retransmits: 77,
            duration: Duration { count: 9, avg_ms: Some(65_250.5), max_ms: Some(1e6) },
            latency: Latency { count: 9, p95_ms: Some(0.25), ..Latency::default() },
            ..Traffic::default()
        };
        let failing = Traffic { connections: 3, failed: 3, sent: bytes(180), ..Traffic::default() };
        let long = "workload:recommendations-production/Deployment/recommendation-ranking-worker";
        let (web, outside) = ("workload:shop/Deployment/web", "external:2001:db8:1234:5678::7");
        let evil = "external:a\"b\u{1b}[31m<c>";
        Graph {
            window: Window {
                from: 1_700_000_040_000,
                to: 1_700_003_640_000,
                requested_from: 1_700_000_043_000,
                requested_to: 1_700_003_640_000,
                resolution_s: 10,
                complete_until: 1_700_003_610_000,
            },
            coverage: Coverage {
                agents: 2,
                intervals_expected: 720,
                intervals_reported: 715,
                packets_dropped: 1,
                records_dropped: 0,
                ..Coverage::default()
            },
            nodes: vec![
                node(long, "recommendations-production", "recommendation-ranking-worker"),
                node(web, "shop", "web"),
                node(outside, "", "2001:db8:1234:5678::7"),
                node(evil, "", "a\"b\u{1b}[31m<c>"),
            ],
            edges: vec![
                edge(
                    web,
                    long,
                    &[8080, 8443, 9090, 9091],
                    "recommendations-production/ranking",
                    busy,
                ),
                edge(long, outside, &[443], "", failing),
                edge(
                    evil,
                    web,
                    &[80],
                    "shop/web",
                    Traffic { connections: 1, ..Traffic::default() },
                ),
            ],
        }
    }

    #[test]
    fn bytes_have_three_digits_and_are_exact_when_small() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_230, "9.99 KiB"),
            (10_240, "10.0 KiB"),
            (1_023_400, "999 KiB"),
            (1_023_900, "0.98 MiB"),
            (5 << 30, "5.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let cases = [
            (0.0, "0.00 µs"),
            (0.25, "250 µs"),
            (1.0, "1.00 ms"),
            (999.6, "1.00 s"),
            (65_250.5, "65.3 s"),
            (600_000.0, "10.0 min"),
            (36_000_000.0, "10.0 h"),
        ];
        for (ms, text) in cases {
            assert_eq!(milliseconds(Some(ms)), text);
        }
        assert_eq!(milliseconds(None), "");
    }

    #[test]
    fn a_name_does_not_control_the_terminal() {
        assert_eq!(shown("a\u{1b}[2J\nb\u{9b}"), "a\u{fffd}[2J\u{fffd}b\u{fffd}");
    }
}
