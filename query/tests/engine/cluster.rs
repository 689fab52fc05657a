//! What is asked of a cluster's Distributed tables: the same answers, and no question that shards refuse.

use flowtrail_query::Graph;
use flowtrail_schema::row::FlowRow;

use crate::common::{Served, T0, report, row, served, served_on_cluster};

/// Three connections: one opened and closed, one that stays open, and one that was open before.
fn filled(served: Served) -> Served {
    let rows = [
        FlowRow { opened: 1, closed_fin: 1, duration_us: 9, duration_count: 1, ..row(T0, 1 << 32) },
        FlowRow { opened: 1, ..row(T0 + 10, 2 << 32) },
        FlowRow { open_at_start: 1, client_name: "web-2".to_owned(), ..row(T0, 3 << 32) },
    ];
    served.insert("flows", &rows);
    served.insert("coverage", &[report("n1", T0), report("n1", T0 + 10)]);
    served
}

/// Of a window that begins with a minute, and of one that does not, so that what is open is asked for.
fn graphs(served: &Served) -> [Graph; 2] {
    let pairs = [("group_by", "pod"), ("include", "web"), ("port", "80")];
    [(T0, T0 + 60), (T0 + 20, T0 + 60)].map(|(from, to)| served.graph(from, to, &pairs))
}

#[test]
fn distributed_tables_answer_as_plain_ones_do() {
    let [(plain, plain_connections), (distributed, distributed_connections)] =
        [served("plain"), served_on_cluster("one", "distributed")].map(|served| {
            let served = filled(served);
            (graphs(&served), served.connections(T0 + 20, T0 + 60, &[]))
        });
    assert_eq!(format!("{plain:#?}"), format!("{distributed:#?}"));
    assert_eq!(plain_connections, distributed_connections);
    assert_eq!(plain_connections.connections.len(), 2);
    assert_eq!(plain[1].edges.iter().map(|edge| edge.traffic.connections).sum::<u64>(), 2);
}

/// Answers in steps and of two windows: no statement of theirs is refused either.
#[test]
fn distributed_tables_answer_what_happened_when() {
    let (from, to) = (format!("{}000", T0 - 7_200), format!("{}000", T0 + 60));
    let window = [("from", from.as_str()), ("to", to.as_str())];
    let questions: [(&str, &[(&str, &str)]); 5] = [
        ("/api/v1/timeseries", &[("split", "edge"), ("group_by", "pod")]),
        ("/api/v1/timeseries", &[("stat", "latency"), ("points", "5"), ("split", "workload")]),
        ("/api/v1/diff", &[("stat", "bytes")]),
        ("/api/v1/coverage", &[("points", "5")]),
        ("/api/v1/graph/nodes", &[]),
    ];
    let [plain, distributed] =
        [served("plain_steps"), served_on_cluster("one", "distributed_steps")].map(|served| {
            let served = filled(served);
            questions.map(|(path, pairs)| {
                let answer = served.get(path, &[&window, pairs].concat());
                assert_eq!(answer.status, 200, "{path} {}", answer.body);
                answer.body
            })
        });
    assert_eq!(plain, distributed);
}

#[test]
fn two_shards_are_both_asked_and_refuse_nothing() {
    let [plain, both] = [served("plain_too"), served_on_cluster("two", "both")]
        .map(|served| graphs(&filled(served)));
    // Each shard is the same engine, so every row is there twice: also those of closed connections that are
    // not open.
    let bytes = |graph: &Graph| graph.edges.iter().map(|edge| edge.traffic.sent.bytes).sum::<u64>();
    assert_eq!(bytes(&both[0]), 2 * bytes(&plain[0]));
    let connections =
        |graph: &Graph| graph.edges.iter().map(|edge| edge.traffic.connections).sum::<u64>();
    assert_eq!(connections(&both[0]), 2 * connections(&plain[0]));
    // The latest row of each connection that is open, whichever shard has it.
    assert_eq!(connections(&both[1]), connections(&plain[1]));
}
