//! What dashboards must keep to, whatever is asked: told by their JSON alone.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::board::{
    CLICKHOUSE, INFINITY, PROMETHEUS, boards, fields, list, overridden, text, texts,
};

/// Grafana's own, at the time of writing (version 13).
const SCHEMA_VERSION: u64 = 42;

const PROVISIONED: &str =
    include_str!("../../../deploy/grafana/provisioning/datasources/flowtrail.yaml");

/// Names are ASCII, which makes it much faster to compile.
static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?-u)\$(?:\{([a-zA-Z_]\w*)(?:[.:]([a-z_.:]*))?\}|([a-zA-Z]\w*))").unwrap()
});

/// A variable of the dashboard's in a text, and how it is written.
fn uses(text: &str) -> Vec<(String, String)> {
    let found = VARIABLE.captures_iter(text).map(|found| {
        let part = |at: usize| found.get(at).map_or("", |part| part.as_str()).to_owned();
        let name = if found.get(1).is_some() { part(1) } else { part(3) };
        (name, part(2))
    });
    found.filter(|(name, _)| !name.starts_with("__")).collect()
}

#[test]
fn identities_are_fixed_and_unique() {
    let boards = boards();
    assert!(boards.len() >= 7, "{}", boards.len());
    let mut seen = BTreeSet::new();
    for board in &boards {
        let stem = board.file.strip_suffix(".json").unwrap();
        assert_eq!(board.uid(), format!("flowtrail-{stem}"), "{}", board.file);
        assert!(seen.insert(text(&board.json, "title")), "{}: its title is another's", board.file);
        assert!(text(&board.json, "title").starts_with("Flowtrail: "), "{}", board.file);
        assert_eq!(board.json["schemaVersion"], SCHEMA_VERSION, "{}", board.file);
        assert!(board.json.get("id").is_none(), "{}: ids are each Grafana's own", board.file);
        assert_eq!(list(&board.json, "tags"), ["flowtrail"], "{}", board.file);
        let link = &list(&board.json, "links")[0];
        assert_eq!((&link["tags"], &link["keepTime"]), (&board.json["tags"], &true.into()));
    }
}

#[test]
fn panels_say_what_they_show_and_in_what_unit() {
    for board in boards() {
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        for panel in board.panels() {
            let at = board.at(panel);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{at}: its id is another's");
            assert!(titles.insert((text(panel, "title"), text(panel, "type"))), "{at}: twice");
            assert!(text(panel, "description").len() > 20, "{at}: no description");
            assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{at}: no unit");
            let tables = ["table", "bargauge", "state-timeline", "timeseries"];
            if tables.contains(&text(panel, "type")) {
                let nothing = &panel["fieldConfig"]["defaults"]["noValue"];
                assert!(nothing.is_string(), "{at}: does not say that there is nothing");
            }
        }
        for variable in board.variables().iter().filter(|v| v["type"] != "datasource") {
            assert!(!text(variable, "description").is_empty(), "{}: {variable}", board.file);
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for board in boards() {
        let rows = list(&board.json, "panels");
        // Those of a row that is folded have their places once it is not.
        for together in std::iter::once(rows).chain(rows.iter().map(|row| list(row, "panels"))) {
            let mut taken = BTreeSet::new();
            for panel in together {
                let part = |name: &str| panel["gridPos"][name].as_u64().unwrap();
                let (x, y, w, h) = (part("x"), part("y"), part("w"), part("h"));
                assert!(w > 0 && h > 0 && x + w <= 24, "{}", board.at(panel));
                let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
                for cell in cells {
                    assert!(taken.insert(cell), "{} lies on another", board.at(panel));
                }
            }
        }
    }
}

#[test]
fn every_data_source_is_a_variable_of_its_kind() {
    for board in boards() {
        let check = |source: &Value, at: &str| {
            let uid = source["uid"].as_str().unwrap_or_else(|| panic!("{at}: no data source"));
            let name = uid.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            let variable = name.and_then(|name| board.variable(name));
            let variable = variable.unwrap_or_else(|| panic!("{at}: {uid} is no variable"));
            assert_eq!(variable["type"], "datasource", "{at}");
            assert_eq!(variable["query"], source["type"], "{at}");
            let known = [INFINITY, CLICKHOUSE, PROMETHEUS].contains(&text(source, "type"));
            assert!(known, "{at}: {source}");
        };
        for panel in board.panels() {
            check(&panel["datasource"], &board.at(panel));
            assert!(!list(panel, "targets").is_empty(), "{}: asks nothing", board.at(panel));
            for target in list(panel, "targets") {
                check(&target["datasource"], &board.at(panel));
            }
        }
        for variable in board.variables() {
            if variable["type"] == "query" {
                check(&variable["datasource"], &board.file);
            }
            // Prometheus is the user's own.
            if variable["type"] == "datasource" && variable["query"] != PROMETHEUS {
                let uid = format!("uid: {}\n", text(&variable["current"], "value"));
                let kind = format!("type: {}\n", text(variable, "query"));
                assert!(PROVISIONED.contains(&uid) && PROVISIONED.contains(&kind), "{variable}");
            }
        }
    }
}

#[test]
fn infinity_queries_are_for_the_backend_with_columns_and_parameters() {
    for board in boards() {
        let queries = board.panels().into_iter().flat_map(|panel| list(panel, "targets"));
        let of_variables = board.variables().iter().map(|v| &v["query"]["infinityQuery"]);
        let queries = queries.chain(of_variables.filter(|query| query.is_object()));
        for query in queries.filter(|query| query.get("url").is_some()) {
            let at = format!("{}: {query}", board.file);
            assert_eq!((&query["type"], &query["source"]), (&"json".into(), &"url".into()), "{at}");
            assert_eq!(query["parser"], "backend", "{at}");
            let url = text(query, "url");
            assert!(
                url.starts_with('/') && !url.contains(['?', '$']),
                "{at}: URLs are not encoded"
            );
            assert_eq!(query["url_options"]["method"], "GET", "{at}");
            let params = list(&query["url_options"], "params");
            let given = |name: &str| params.iter().any(|param| param["key"] == name);
            assert!(given("from") && given("to"), "{at}: not of the dashboard's window");
            assert!(!list(query, "columns").is_empty(), "{at}");
            for param in params {
                // `${v}` of several values is {a,b}.
                for (name, format) in uses(text(param, "value")) {
                    let multi = board.variable(&name).is_some_and(|v| v["multi"] == true);
                    assert!(!multi || format == "csv", "{at}: {name} has several values");
                }
            }
        }
    }
}

#[test]
fn every_variable_that_is_used_is_there_and_the_other_way_round() {
    for board in boards() {
        let mut used = BTreeSet::new();
        for part in [&board.json["panels"], &board.json["templating"], &board.json["links"]] {
            for (name, _) in texts(part).into_iter().flat_map(uses) {
                assert!(board.variable(&name).is_some(), "{}: {name} is not there", board.file);
                used.insert(name);
            }
        }
        for variable in board.variables() {
            let name = text(variable, "name");
            assert!(used.contains(name), "{}: {name} is not used", board.file);
        }
    }
}

#[test]
fn overrides_and_orders_are_of_fields_that_are_asked_for() {
    for board in boards() {
        for panel in board.panels() {
            let targets = list(panel, "targets");
            if targets.iter().any(|target| target["datasource"]["type"] != INFINITY) {
                continue;
            }
            let fields: BTreeSet<_> =
                targets.iter().flat_map(|target| fields(target).into_keys()).collect();
            for name in overridden(panel) {
                assert!(fields.contains(name), "{}: no field {name}", board.at(panel));
            }
            for transformation in list(panel, "transformations") {
                assert_eq!(transformation["id"], "organize", "{}", board.at(panel));
                let order = transformation["options"]["indexByName"].as_object().unwrap();
                // The plugin sorts fields by their names: those left out would be anywhere.
                assert!(order.keys().eq(fields.iter()), "{}: {order:?}", board.at(panel));
            }
            let ordered = ["table", "stat", "bargauge"].contains(&text(panel, "type"));
            assert_eq!(ordered, !list(panel, "transformations").is_empty(), "{}", board.at(panel));
        }
    }
}

#[test]
fn links_lead_to_dashboards_with_the_variables_that_they_set() {
    let boards = boards();
    let target =
        Regex::new(r"(?-u)^/d/([a-z-]+)/[a-z-]+\?\$\{__url_time_range\}([ -~]*)$").unwrap();
    let field = Regex::new(r"(?-u)\$\{__data\.fields\.([ -9;-|~]+?)(:percentencode)?\}").unwrap();
    let mut linked = BTreeSet::new();
    for board in &boards {
        for panel in board.panels() {
            let at = board.at(panel);
            let fields: BTreeSet<_> = list(panel, "targets")
                .iter()
                .flat_map(|target| fields(target).into_keys())
                .collect();
            let overrides = list(&panel["fieldConfig"], "overrides").iter();
            let properties = overrides.flat_map(|rule| list(rule, "properties"));
            let links = properties.filter(|property| property["id"] == "links");
            for link in links.flat_map(|property| list(property, "value")) {
                let url = text(link, "url");
                let found = target.captures(url).unwrap_or_else(|| panic!("{at}: {url}"));
                let to = boards.iter().find(|board| board.uid() == &found[1]);
                let to = to.unwrap_or_else(|| panic!("{at}: no dashboard {}", &found[1]));
                linked.insert(to.uid());
                for pair in found[2].split('&').skip(1) {
                    let (name, value) = match pair.split_once('=') {
                        Some((name, value)) => (name.strip_prefix("var-").unwrap(), value),
                        None => (pair.split([':', '{']).nth(1).unwrap(), ""),
                    };
                    assert!(to.variable(name).is_some(), "{at}: {} has no {name}", to.uid());
                    for found in field.captures_iter(value) {
                        assert!(fields.contains(&found[1]), "{at}: no field {}", &found[1]);
                        assert!(found.get(2).is_some(), "{at}: {value} is not encoded");
                    }
                }
            }
        }
    }
    assert_eq!(linked, BTreeSet::from(["flowtrail-edge"]));
}

#[test]
fn metrics_are_some_that_flowtrail_has() {
    let sources = [
        include_str!("../../../capture/src/metrics.rs"),
        include_str!("../../../ingest/src/metrics.rs"),
        include_str!("../../../query/src/metrics.rs"),
    ];
    let metric = Regex::new(r"(?-u)flowtrail_(\w+)").unwrap();
    for board in boards() {
        for panel in board.panels() {
            let targets = list(panel, "targets").iter().filter(|target| target["expr"].is_string());
            for found in targets.flat_map(|target| metric.captures_iter(text(target, "expr"))) {
                let name = found[1].trim_end_matches("_total").trim_end_matches("_bucket");
                let registered =
                    sources.iter().any(|source| source.contains(&format!("\"{name}\"")));
                assert!(registered, "{}: nothing registers {name}", board.at(panel));
            }
        }
    }
}

#[test]
fn a_variable_is_found_however_it_is_written() {
    let uses = |text| uses(text).into_iter().map(|(name, format)| format!("{name}.{format}"));
    let found: Vec<_> =
        uses("$a ${b} ${c:csv} ${__from} $__toTime ${__data.fields.x:y} a$").collect();
    assert_eq!(found, ["a.", "b.", "c.csv"]);
}
