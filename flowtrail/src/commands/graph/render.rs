//! A graph as text: a table for people, DOT and Mermaid for drawing.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use flowtrail_query::{Edge, Graph, Node};

const COLUMNS: [&str; 9] =
    ["CLIENT", "SERVER", "PORTS", "VIA", "CONNS", "OPEN", "FAILED", "SENT", "RECEIVED"];
/// Columns from here on are numbers.
const FIRST_NUMBER: usize = 4;

/// One line for each edge, in the order of the answer, and below it what was computed.
pub(super) fn table(graph: &Graph) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(COLUMNS);
    for edge in &graph.edges {
        let ports: Vec<_> = edge.server_ports.iter().map(u16::to_string).collect();
        table.add_row([
            name(graph, &edge.source),
            name(graph, &edge.target),
            ports.join(","),
            edge.services.join(","),
            edge.traffic.connections.to_string(),
            edge.traffic.open.to_string(),
            edge.traffic.failed.to_string(),
            bytes(edge.traffic.sent.bytes),
            bytes(edge.traffic.received.bytes),
        ]);
    }
    for column in table.column_iter_mut().skip(FIRST_NUMBER) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = table.trim_fmt();
    let _ = write!(text, "\n\n{}", footer(graph));
    text
}

/// Which window it is, and how much of it the agents saw.
fn footer(graph: &Graph) -> String {
    let (window, coverage) = (&graph.window, &graph.coverage);
    let time = |ms: i64| {
        chrono::DateTime::from_timestamp_millis(ms).map_or_else(
            || format!("{ms} ms"),
            |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        )
    };
    let mut text = format!(
        "{} edges, {} to {}; {} of {} reports by {} agents",
        graph.edges.len(),
        time(window.from),
        time(window.to),
        coverage.intervals_reported,
        coverage.intervals_expected,
        coverage.agents,
    );
    if window.complete_until < window.to {
        let _ = write!(text, "; complete until {}", time(window.complete_until));
    }
    if coverage.packets_dropped > 0 || coverage.records_dropped > 0 {
        let _ = write!(
            text,
            "; dropped: {} packets, {} records",
            coverage.packets_dropped, coverage.records_dropped
        );
    }
    text
}

/// A digraph for Graphviz; failures are red.
pub(super) fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph flowtrail {\n  rankdir=LR\n  node [shape=box]\n");
    for node in &graph.nodes {
        let _ = writeln!(text, "  {} [label={}]", quoted(&node.id), quoted(&title(node)));
    }
    for edge in &graph.edges {
        let colour = if edge.traffic.failed > 0 { " color=red" } else { "" };
        let (source, target) = (quoted(&edge.source), quoted(&edge.target));
        let _ = writeln!(text, "  {source} -> {target} [label={}{colour}]", quoted(&label(edge)));
    }
    text.push('}');
    text
}

/// A flowchart for Markdown; failures are dotted.
pub(super) fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart LR\n");
    for (number, node) in graph.nodes.iter().enumerate() {
        let _ = writeln!(text, "  n{number}[{}]", mermaid_quoted(&title(node)));
    }
    let number = |id: &str| graph.nodes.iter().position(|node| node.id == id).unwrap_or_default();
    for edge in &graph.edges {
        let arrow = if edge.traffic.failed > 0 { "-.->" } else { "-->" };
        let (source, target) = (number(&edge.source), number(&edge.target));
        let _ = writeln!(text, "  n{source} {arrow}|{}| n{target}", mermaid_quoted(&label(edge)));
    }
    text
}

fn label(edge: &Edge) -> String {
    let traffic = &edge.traffic;
    let bytes = bytes(traffic.sent.bytes + traffic.received.bytes);
    match traffic.failed {
        0 => format!("{} conns, {bytes}", traffic.connections),
        failed => format!("{} conns, {failed} failed, {bytes}", traffic.connections),
    }
}

fn name(graph: &Graph, id: &str) -> String {
    graph.nodes.iter().find(|node| node.id == id).map_or_else(|| id.to_owned(), title)
}

fn title(node: &Node) -> String {
    match node.namespace.as_str() {
        "" => node.name.clone(),
        namespace => format!("{namespace}/{}", node.name),
    }
}

/// Bytes with a binary unit and three significant digits; exact below 1 KiB. JSON has them all.
fn bytes(count: u64) -> String {
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
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn mermaid_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "#quot;"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn names_cannot_break_out_of_a_drawing() {
        assert_eq!(quoted(r#"a"b\"#), r#""a\"b\\""#);
        assert_eq!(mermaid_quoted(r#"a"b"#), r##""a#quot;b""##);
    }
}
