//! The graph for drawing: DOT and Mermaid. Names are others': nothing in them is syntax.

use std::collections::HashMap;
use std::fmt::Write as _;

use flowtrail_query::{Edge, Graph};

use super::text::{bytes, shown, title};

/// A digraph for Graphviz; failures are red.
pub(super) fn dot(graph: &Graph) -> String {
    let mut text = String::from("digraph flowtrail {\n  rankdir=LR\n  node [shape=box]\n");
    for node in &graph.nodes {
        let _ = writeln!(text, "  {} [label={}]", dot_quoted(&node.id), dot_quoted(&title(node)));
    }
    for edge in &graph.edges {
        let colour = if edge.traffic.failed > 0 { " color=red" } else { "" };
        let (source, target) = (dot_quoted(&edge.source), dot_quoted(&edge.target));
        let _ =
            writeln!(text, "  {source} -> {target} [label={}{colour}]", dot_quoted(&label(edge)));
    }
    text.push('}');
    text
}

/// A flowchart for Markdown; failures are dotted.
pub(super) fn mermaid(graph: &Graph) -> String {
    let mut text = String::from("flowchart LR\n");
    let mut numbers = HashMap::new();
    for (number, node) in graph.nodes.iter().enumerate() {
        numbers.insert(&*node.id, number);
        let _ = writeln!(text, "  n{number}[{}]", mermaid_quoted(&title(node)));
    }
    for edge in &graph.edges {
        let arrow = if edge.traffic.failed > 0 { "-.->" } else { "-->" };
        let ends = (numbers.get(&*edge.source), numbers.get(&*edge.target));
        // Every end is a node: the service's promise.
        let (Some(source), Some(target)) = ends else { continue };
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

fn dot_quoted(text: &str) -> String {
    format!("\"{}\"", shown(text).replace('\\', "\\\\").replace('"', "\\\""))
}

/// Mermaid reads Markdown, HTML and its own entities in quotes too.
fn mermaid_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in shown(text).chars() {
        if character.is_alphanumeric() || " /:.,_-+()".contains(character) {
            quoted.push(character);
        } else {
            let _ = write!(quoted, "#{};", u32::from(character));
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::example;
    use super::*;

    #[test]
    fn names_cannot_break_out_of_a_drawing() {
        assert_eq!(dot_quoted("a\"b\\\n"), "\"a\\\"b\\\\\u{fffd}\"");
        assert_eq!(mermaid_quoted("a\"b"), r##""a#34;b""##);
        assert_eq!(mermaid_quoted("`<b>#"), r##""#96;#60;b#62;#35;""##);
    }

    #[test]
    fn every_node_and_edge_is_drawn_once() {
        let graph = example();
        assert_eq!(dot(&graph).trim_end(), include_str!("golden/graph.dot").trim_end());
        assert_eq!(mermaid(&graph).trim_end(), include_str!("golden/graph.mmd").trim_end());
    }
}
