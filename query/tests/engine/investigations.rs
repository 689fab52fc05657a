//! The questions in docs/investigations.md, each asked of rows that have an answer to it.

use std::time::{SystemTime, UNIX_EPOCH};

use flowtrail_schema::row::{EntityKind, FlowRow};

use crate::common::{Served, report, row, runtime, served};

const DOCUMENT: &str = include_str!("../../../docs/investigations.md");

const DAY_S: u32 = 86_400;

/// Each question's heading and statement.
fn questions() -> Vec<(&'static str, &'static str)> {
    let sections = DOCUMENT.split("\n## ").skip(1);
    let question = |section: &'static str| {
        let (heading, rest) = section.split_once('\n').unwrap();
        let (_, sql) = rest.split_once("```sql\n").unwrap();
        (heading, sql.split_once("```").unwrap().0)
    };
    sections.map(question).collect()
}

impl Served {
    /// Lines that a statement answers with.
    fn lines(&self, sql: &str) -> Vec<String> {
        let query = self.store.client().query_raw(sql);
        let answer = runtime()
            .block_on(async { query.fetch_bytes("TabSeparated").unwrap().collect().await });
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{sql}"));
        String::from_utf8(answer.to_vec()).unwrap().lines().map(str::to_owned).collect()
    }
}

/// What happened in the last hour and last Tuesday.
fn history(now_s: u32) -> Vec<FlowRow> {
    let text = |text: &str| text.to_owned();
    let lately = (now_s - 600) / 10 * 10;
    let today = now_s / DAY_S * DAY_S;
    // 1970-01-01 was a Thursday.
    let monday = today - (now_s / DAY_S + 3) % 7 * DAY_S;
    let tuesday = FlowRow { opened: 1, ..row(monday - 6 * DAY_S + 43_200, 7 << 32 | 8) };
    let good = FlowRow {
        opened: 1,
        closed_fin: 1,
        sent_retransmitted_packets: 1,
        syn_to_synack_count: 1,
        syn_to_synack_us: 2_000,
        syn_to_synack_max_us: 2_000,
        ..row(lately, 1 << 32 | 1)
    };
    let refused = FlowRow { opened: 1, closed_refused: 1, ..row(lately, 2 << 32) };
    let unanswered = FlowRow { opened: 1, closed_unanswered: 1, ..row(lately, 3 << 32) };
    let outside = FlowRow {
        opened: 1,
        server_kind: EntityKind::External.number(),
        server_namespace: text(""),
        server_workload: text(""),
        server_workload_kind: text(""),
        server_name: text(""),
        server_real_ip: "2001:db8::7".parse().unwrap(),
        ..row(lately, 4 << 32 | 4)
    };
    let across = FlowRow { opened: 1, client_namespace: text("front"), ..row(lately, 5 << 32 | 5) };
    let mut rows = vec![tuesday, good, refused, unanswered, outside, across];
    for row in &mut rows {
        let start_us = i64::from(row.interval_start) * 1_000_000;
        (row.first_seen, row.last_seen) = (start_us, start_us + 1_000_000);
    }
    rows
}

#[test]
fn every_question_has_its_answer() {
    let served = served("investigations");
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    served.insert("flows", &history(now_s));
    let reports = [60, 50, 30].map(|ago| report("n1", (now_s - ago) / 10 * 10));
    served.insert("coverage", &reports);

    // Of each answer's first line, or what tells of it.
    let expected = [
        "shop/web-1\t10.0.0.1\tshop/db-0\t80\t1",
        "shop/web\tshop/db",
        "front\tweb\tshop\tdb\t::\t80",
        "shop/web\tshop/db-0\t80\t1",
        "shop/web-1\tshop/db-0\t80\t1",
        "shop/web-1\tshop/db-0\t80",
        "shop/db\t80\t1",
        "shop/web\t2001:db8::7\t80\t1",
        "front\tweb\tshop\tdb\t[5432]\t1",
        "n1\tveth1\tclient\ttrue\t10.0.0.1",
        "n1\tn1\t3\t4\t3\t6",
    ];
    let questions = questions();
    assert_eq!(questions.len(), expected.len());
    for ((heading, sql), expected) in questions.into_iter().zip(expected) {
        let lines = served.lines(sql);
        assert!(lines.iter().any(|line| line.contains(expected)), "{heading}: {lines:#?}");
    }
}

#[test]
fn labels_are_as_people_write_names_and_addresses() {
    let served = served("labels");
    let text = |text: &str| text.to_owned();
    let nobody = FlowRow {
        client_kind: EntityKind::Unknown.number(),
        client_namespace: text(""),
        client_workload: text(""),
        client_name: text(""),
        opened: 1,
        ..row(1_700_000_040, 1 << 32 | 2)
    };
    served.insert("flows", &[nobody]);
    let named = served.lines("SELECT client, client_workload_name, server, server_workload_name, service, connection FROM flows_named");
    assert_eq!(named, ["10.0.0.1\t10.0.0.1\tshop/db-0\tshop/db\tshop/db\t0000000100000002"]);
    let edges = served.lines("SELECT client, server, server_workload_name, connections FROM edges");
    assert_eq!(edges, ["10.0.0.1\tshop/db-0\tshop/db\t1"]);
}
