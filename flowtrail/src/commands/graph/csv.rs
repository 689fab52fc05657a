//! The edges as CSV (RFC 4180): every field of the answer, its numbers as they are there.

use std::collections::BTreeMap;

use flowtrail_query::{Edge, Graph, Traffic};
use serde_json::Value;

/// Fields that come first; the others follow in the order of their names.
const FIRST: [&str; 3] = ["id", "source", "target"];

/// A header, and a line for each edge. Nested fields are joined by `_`, lists by blanks; null is empty.
///
/// # Errors
/// None that an answer could cause.
pub(super) fn csv(graph: &Graph) -> serde_json::Result<String> {
    let header = fields(&nothing())?;
    let later = header.keys().filter(|name| !FIRST.contains(&name.as_str()));
    let names: Vec<&str> = FIRST.into_iter().chain(later.map(String::as_str)).collect();
    let mut lines = vec![names.join(",")];
    for edge in &graph.edges {
        let fields = fields(edge)?;
        let values = names.iter().map(|name| fields.get(*name).map(|value| quoted(value)));
        lines.push(values.map(Option::unwrap_or_default).collect::<Vec<_>>().join(","));
    }
    Ok(lines.join("\r\n"))
}

/// An edge that shows which fields there are.
fn nothing() -> Edge {
    Edge {
        id: String::new(),
        source: "".into(),
        target: "".into(),
        server_ports: Vec::new(),
        services: Vec::new(),
        more: false,
        first_seen: 0,
        last_seen: 0,
        traffic: Traffic::default(),
    }
}

fn fields(edge: &Edge) -> serde_json::Result<BTreeMap<String, String>> {
    let mut fields = BTreeMap::new();
    add(&mut fields, String::new(), serde_json::to_value(edge)?);
    Ok(fields)
}

fn add(fields: &mut BTreeMap<String, String>, name: String, value: Value) {
    let text = match value {
        Value::Object(parts) => {
            for (part, value) in parts {
                let name = if name.is_empty() { part } else { format!("{name}_{part}") };
                add(fields, name, value);
            }
            return;
        }
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        value => plain(&value),
    };
    fields.insert(name, text);
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::example;
    use super::*;

    #[test]
    fn every_number_is_exact_and_every_line_has_all_fields() {
        let text = csv(&example()).unwrap();
        let lines: Vec<Vec<&str>> =
            text.split("\r\n").map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 4);
        let value = |line: usize, name: &str| {
            let position = lines[0].iter().position(|field| *field == name).unwrap();
            lines[line][position]
        };
        assert!(lines.iter().all(|line| line.len() == lines[0].len()));
        assert_eq!(value(1, "received_bytes"), "9050000000");
        assert_eq!(value(1, "duration_avg_ms"), "65250.5");
        assert_eq!(value(1, "server_ports"), "8080 8443 9090 9091");
        assert_eq!((value(1, "latency_p50_ms"), value(2, "failed")), ("", "3"));
        assert_eq!(value(3, "source"), "\"external:a\"\"b\u{1b}[31m<c>\"");
        let empty = Graph { edges: Vec::new(), ..example() };
        assert_eq!(csv(&empty).unwrap(), lines[0].join(","));
    }
}
