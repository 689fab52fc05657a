//! A dashboard as its JSON has it: variables, panels and queries.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

pub(crate) const INFINITY: &str = "yesoreyeram-infinity-datasource";
pub(crate) const CLICKHOUSE: &str = "grafana-clickhouse-datasource";
pub(crate) const PROMETHEUS: &str = "prometheus";

/// A dashboard.
pub(crate) struct Board {
    /// Name of its file.
    pub(crate) file: String,
    pub(crate) json: Value,
}

/// All of them, by the names of their files.
pub(crate) fn boards() -> Vec<Board> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/dashboards");
    let mut boards = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        boards.push(Board { file, json });
    }
    boards.sort_by(|one, other| one.file.cmp(&other.file));
    boards
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no text {name} in {value}"))
}

pub(crate) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

impl Board {
    pub(crate) fn uid(&self) -> &str {
        text(&self.json, "uid")
    }

    pub(crate) fn variables(&self) -> &[Value] {
        list(&self.json["templating"], "list")
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Value> {
        self.variables().iter().find(|variable| variable["name"] == name)
    }

    /// Its panels, also those in rows that are folded, without the rows.
    pub(crate) fn panels(&self) -> Vec<&Value> {
        let panels = list(&self.json, "panels");
        let all =
            panels.iter().flat_map(|panel| std::iter::once(panel).chain(list(panel, "panels")));
        all.filter(|panel| panel["type"] != "row").collect()
    }

    pub(crate) fn at(&self, panel: &Value) -> String {
        format!("{}, {:?}", self.file, panel["title"].as_str().unwrap_or_default())
    }
}

/// The names of the fields that an Infinity query answers with, and the types they are given.
pub(crate) fn fields(target: &Value) -> BTreeMap<String, String> {
    let of = |name: &'static str| list(target, name).iter();
    of("columns")
        .chain(of("computed_columns"))
        .map(|column| (text(column, "text").to_owned(), text(column, "type").to_owned()))
        .collect()
}

/// Names that the overrides of a panel are for.
pub(crate) fn overridden(panel: &Value) -> impl Iterator<Item = &str> {
    let overrides = list(&panel["fieldConfig"], "overrides").iter();
    overrides.map(|rule| {
        assert_eq!(rule["matcher"]["id"], "byName", "{rule}");
        text(&rule["matcher"], "options")
    })
}

/// Every text in a value.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}
