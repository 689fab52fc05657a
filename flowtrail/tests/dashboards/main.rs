//! The dashboards of deploy/grafana: what must hold of their JSON, and every query in them asked of a running
//! `flowtrail up` as Grafana asks it. Needs the engine (`make engine`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests: helpers too")]

mod board;
mod grafana;
mod live;
mod rules;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use board::{Board, CLICKHOUSE, INFINITY, boards, list, overridden, text};
use grafana::{Scope, Setting};
use live::{Answer, Up};
use serde_json::Value;

/// The dashboards' window, from the traffic's start on: until long after it is in the tables, as deliveries
/// have the time of that; and less than the hour between the two times of traffic.
const WINDOW_S: u64 = 1_800;

/// Panels that may have nothing to show: it is good news.
const MAY_BE_EMPTY: &[&str] = &["Blind spots"];

/// How a dashboard is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// As it opens.
    AsItIs,
    /// With something chosen everywhere that leaves something to see.
    Chosen,
    /// With something chosen that is not there: nothing is an answer too.
    Nowhere,
}

/// What an Edge detail is of: the largest edge.
struct Edge {
    source: String,
    target: String,
}

/// Everything set, as Grafana does when a dashboard is opened: variables in their order, as later ones may be of
/// earlier ones.
fn scope(up: &Up, board: &Board, how: How, edge: &Edge) -> Scope {
    let (from_ms, to_ms) = (up.start_s as i64 * 1_000, (up.start_s + WINDOW_S) as i64 * 1_000);
    let mut scope = Scope { from_ms, to_ms, settings: BTreeMap::new() };
    for variable in board.variables() {
        let name = text(variable, "name");
        let current = variable["current"]["value"].as_str().unwrap_or_default().to_owned();
        let setting = match (text(variable, "type"), how) {
            ("query", _) => {
                let options = options(up, &scope, variable);
                assert!(
                    how == How::Nowhere || !options.is_empty(),
                    "{}: {name} has no options",
                    board.file
                );
                let all = variable["allValue"].as_str().map(str::to_owned);
                match how {
                    How::AsItIs => Setting::All(all, options),
                    How::Chosen => Setting::Many(options.into_iter().take(4).collect()),
                    How::Nowhere => Setting::Many(vec!["no'where".to_owned(), "x/y".to_owned()]),
                }
            }
            ("custom", How::Chosen) => {
                let options = list(variable, "options");
                let chosen = match name {
                    "stat" => options.iter().find(|option| option["value"] == "bytes"),
                    // An edge's ids are of workloads; the traffic is compared with that of an hour ago.
                    "group_by" | "base" | "threshold" => options.first(),
                    _ => options.last(),
                };
                Setting::One(text(chosen.unwrap(), "value").to_owned())
            }
            ("textbox", How::Chosen | How::Nowhere) => Setting::One(match (name, how) {
                ("source", How::Chosen) => edge.source.clone(),
                ("target", How::Chosen) => edge.target.clone(),
                ("source", _) => "workload:shop/Deployment/it's > nobody".replace('>', "%3E"),
                ("include", How::Chosen) => "^(web|api|10[.]).*|.".to_owned(),
                ("include", _) => "^no&where=%$".to_owned(),
                ("exclude", _) => "^nothing$".to_owned(),
                ("port", How::Chosen) => "80,8080,443,6379,22".to_owned(),
                ("q", _) => "server.port != 9 and client.name != \"a'b\"".to_owned(),
                _ => String::new(),
            }),
            _ => Setting::One(current),
        };
        scope.settings.insert(name.to_owned(), setting);
    }
    scope
}

fn options(up: &Up, scope: &Scope, variable: &Value) -> Vec<String> {
    let query = &variable["query"];
    let of_rows = |answer: Answer, field: &str| {
        let value = |row: &Value| text(row, field).to_owned();
        answer.rows.iter().map(value).collect::<Vec<_>>()
    };
    match text(&variable["datasource"], "type") {
        INFINITY => {
            let query = &query["infinityQuery"];
            let answer = up.infinity(scope, query).unwrap_or_else(|error| panic!("{error}"));
            assert!(answer.fields.iter().eq(["__text", "__value"]), "{query}");
            of_rows(answer, "__value")
        }
        _ => {
            let sql = scope.statement(query.as_str().unwrap(), 60);
            let answer = up.sql(&sql).unwrap_or_else(|error| panic!("{error}"));
            let field = answer.fields[0].clone();
            of_rows(answer, &field)
        }
    }
}

/// Asks a panel's queries.
fn ask(up: &Up, scope: &Scope, panel: &Value) -> Result<Vec<Answer>, String> {
    let mut answers = Vec::new();
    for target in list(panel, "targets") {
        match text(&target["datasource"], "type") {
            INFINITY => answers.push(up.infinity(scope, target)?),
            CLICKHOUSE => {
                let interval_s = if panel["interval"] == "1m" { 60 } else { 15 };
                let sql = scope.statement(text(target, "rawSql"), interval_s);
                answers.push(up.sql(&sql)?);
            }
            // There is no Prometheus here: `rules` knows the metrics.
            _ => {}
        }
    }
    Ok(answers)
}

/// What the panel makes of its answers.
fn check(panel: &Value, answers: &[Answer]) -> Result<(), String> {
    let said = |name: &str| answers.iter().any(|answer| answer.fields.iter().any(|f| f == name));
    if let Some(name) = overridden(panel).find(|name| !answers.is_empty() && !said(name)) {
        return Err(format!("there is no field {name} to override"));
    }
    match text(panel, "type") {
        "nodeGraph" => {
            let of = |answer: &Answer, field: &str| -> Vec<String> {
                answer.rows.iter().map(|row| text(row, field).to_owned()).collect()
            };
            let [nodes, edges] = answers else { return Err("takes nodes and edges".to_owned()) };
            let ids: BTreeSet<_> = of(nodes, "id").into_iter().collect();
            let edge_ids: BTreeSet<_> = of(edges, "id").into_iter().collect();
            if ids.len() != nodes.rows.len() || edge_ids.len() != edges.rows.len() {
                return Err("ids are not unique".to_owned());
            }
            let ends = ["source", "target"].map(|end| of(edges, end)).concat();
            match ends.iter().find(|end| !ids.contains(*end)) {
                Some(end) => Err(format!("{end} is an end of an edge, and no node")),
                None => Ok(()),
            }
        }
        "timeseries" | "state-timeline" => {
            let label = panel["fieldConfig"]["defaults"]["displayName"].as_str();
            let label = label
                .map(|name| name.trim_start_matches("${__field.labels.").trim_end_matches('}'));
            for answer in answers {
                if label.is_some_and(|label| !answer.fields.iter().any(|field| field == label)) {
                    return Err(format!("{label:?} is no label of its series"));
                }
                // The first of SQL, `time` of the API.
                let time = answer.fields.iter().find(|field| *field == "time" || *field == "step");
                let time = time.ok_or("there is no time")?;
                let times: Vec<_> = answer.rows.iter().map(|row| row[time].to_string()).collect();
                if !times.is_sorted() {
                    return Err(format!("not in order of {time}"));
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether there is something to see: a value that is not null.
fn shows(answer: &Answer) -> bool {
    answer.rows.iter().any(|row| row["value"].as_f64().is_some() || row.get("value").is_none())
}

fn largest_edge(up: &Up, boards: &[Board]) -> Edge {
    let graph = boards.iter().find(|board| board.uid() == "flowtrail-graph").unwrap();
    let nowhere = Edge { source: String::new(), target: String::new() };
    let scope = scope(up, graph, How::AsItIs, &nowhere);
    let panel = graph.panels().into_iter().find(|panel| panel["title"] == "Top edges").unwrap();
    let edges = up.infinity(&scope, &list(panel, "targets")[0]).unwrap();
    let first = &edges.rows[0];
    Edge { source: text(first, "source").to_owned(), target: text(first, "target").to_owned() }
}

#[test]
fn every_panel_is_answered_and_has_what_it_shows() {
    let up = Up::start();
    let boards = boards();
    let edge = largest_edge(&up, &boards);
    let mut wrong = Vec::new();
    let mut said = BTreeMap::new();
    for board in &boards {
        for how in [How::AsItIs, How::Chosen, How::Nowhere] {
            let settable =
                board.variables().iter().any(|variable| variable["type"] != "datasource");
            if how != How::AsItIs && !settable {
                continue;
            }
            let scope = scope(&up, board, how, &edge);
            for panel in board.panels() {
                let answers = ask(&up, &scope, panel);
                let checked = answers.and_then(|answers| {
                    check(panel, &answers)?;
                    let good_news = MAY_BE_EMPTY.contains(&text(panel, "title"));
                    let enough = how == How::Nowhere || good_news || answers.iter().all(shows);
                    if how == How::Chosen {
                        said.insert((board.uid(), text(panel, "title")), answers);
                    }
                    enough.then_some(()).ok_or_else(|| "has nothing to show".to_owned())
                });
                if let Err(error) = checked {
                    wrong.push(format!("{} ({how:?}): {error}", board.at(panel)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    agree_with_the_traffic(&said);
}

/// The traffic is known, and panels that say the same in other ways must say the same.
fn agree_with_the_traffic(said: &BTreeMap<(&str, &str), Vec<Answer>>) {
    let rows = |board: &'static str, title: &'static str| &said[&(board, title)][0].rows;
    let of = |rows: &[Value], field: &str| -> BTreeSet<String> {
        rows.iter().map(|row| row[field].to_string()).collect()
    };
    let sum = |rows: &[Value], field: &str| -> f64 {
        // ClickHouse writes 64 bits as texts.
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        rows.iter().filter_map(|row| number(&row[field])).sum()
    };

    let changes = of(rows("flowtrail-changes", "New, gone and changed"), "Change");
    assert_eq!(changes, BTreeSet::from(["new", "gone", "changed"].map(|word| format!("{word:?}"))));

    let failures = rows("flowtrail-failures", "Edges that fail");
    let [refused, unanswered, reset] =
        ["Refused", "Unanswered", "Reset"].map(|name| sum(failures, name));
    assert_eq!((refused, unanswered, reset), (1.0, 1.0, 1.0));
    let by_port = rows("flowtrail-failures", "By client, server and port");
    let in_sql = ["refused", "unanswered", "reset"].map(|name| sum(by_port, name));
    assert_eq!(in_sql, [1.0, 1.0, 1.0]);

    let destinations = of(rows("flowtrail-external", "First seen"), "destination");
    assert_eq!(
        destinations,
        BTreeSet::from(["203.0.113.10", "198.51.100.7"].map(|ip| format!("{ip:?}")))
    );

    // One edge: its sums are those of its connections, of its series, and of its rows in SQL.
    let sums = rows("flowtrail-edge", "Sums of the window");
    assert_eq!(sums.len(), 1, "{sums:?}");
    let (sent, received) = (sum(sums, "Sent"), sum(sums, "Received"));
    let connections = rows("flowtrail-edge", "Connections");
    let per_second = rows("flowtrail-edge", "Bytes per second, both ways");
    let in_sql = rows("flowtrail-edge", "Sent and received");
    let evidence = rows("flowtrail-edge", "Evidence");
    assert!(
        sent > 0.0 && (sum(connections, "Sent"), sum(connections, "Received")) == (sent, received)
    );
    assert_eq!((sum(evidence, "Sent"), sum(evidence, "Received")), (sent, received));
    let step_s = {
        let times: BTreeSet<_> = per_second.iter().filter_map(|row| row["time"].as_i64()).collect();
        let times: Vec<_> = times.into_iter().take(2).collect();
        (times[1] - times[0]) as f64 / 1_000.0
    };
    assert!((sum(per_second, "value") * step_s - sent - received).abs() < 1e-6);
    assert!((sum(in_sql, "sent") * 60.0 - sent).abs() < 1e-6);
    assert!((sum(in_sql, "received") * 60.0 - received).abs() < 1e-6);
}
