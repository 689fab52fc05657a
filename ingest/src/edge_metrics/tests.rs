//! Whatever comes in which chunks: an edge with series of its own has all its traffic in them, and the
//! series sum to the rows.

use flowtrail_schema::row::EntityKind;
use proptest::prelude::*;

use super::*;
use crate::columns::tests::random_record;
use crate::naming::End;

/// Names of which each field is a text of its own, as of an index that has changed.
fn names(client: Identity, server: Identity, record: &FlowRecord) -> Arc<ConnectionNames> {
    let client = End { real: record.client, identity: client.into() };
    let server = End { real: record.server, identity: server.into() };
    ConnectionNames { client, server, service: None }.into()
}

fn identity(namespace: &str, name: &str, workload: &str) -> Identity {
    Identity {
        namespace: namespace.into(),
        workload: workload.into(),
        ..Identity::named(EntityKind::Pod, name.into())
    }
}

fn edge(labels: [&str; 4]) -> Edge {
    let [client_namespace, client_workload, server_namespace, server_workload] =
        labels.map(Arc::from);
    Edge { client_namespace, client_workload, server_namespace, server_workload }
}

fn added<'a>(sums: impl IntoIterator<Item = &'a Sums>) -> Sums {
    let mut all = Sums::default();
    sums.into_iter().for_each(|sums| all += *sums);
    all
}

proptest! {
    #[test]
    fn each_edge_is_whole_and_all_add_up(
        seed: u64,
        max in 1_u32..12,
        chunks in prop::collection::vec(prop::collection::vec((0_u8..4, 0_u8..4), 0..12), 0..6),
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let edges = EdgeMetrics::register(&Metrics::new(), max).unwrap();
        let mut expected: HashMap<Edge, Sums> = HashMap::new();
        for rows in &chunks {
            let mut chunk = EdgeSums::default();
            for (client, server) in rows {
                let record = random_record(&mut rng);
                let workload = |number: &u8| format!("w{number}");
                let (client, server) = (workload(client), workload(server));
                let ends = [identity("shop", "p", &client), identity("db", "p", &server)];
                let [called_by, called] = ends;
                chunk.add(&record, &names(called_by, called, &record));
                *expected.entry(edge(["shop", &client, "db", &server])).or_default() +=
                    Sums::of(&record);
            }
            edges.add(&chunk);
        }
        let mut read: HashMap<_, _> = edges.read().into_iter().collect();
        let of_other = read.remove(&Edge::other()).unwrap();
        prop_assert_eq!(read.len(), expected.len().min(max as usize));
        for (edge, sums) in &read {
            prop_assert_eq!(Some(sums), expected.get(edge), "{:?}", edge);
        }
        let all = added(read.values().chain([&of_other]));
        prop_assert_eq!(all, added(expected.values()));
    }
}

#[test]
fn ends_without_a_workload_are_what_they_are_and_never_an_address() {
    let record = random_record(&mut fastrand::Rng::with_seed(1));
    let of = |client, server| Edge::of(&names(client, server, &record));
    let external = || Identity::named(EntityKind::External, "".into());
    let office = Identity::named(EntityKind::External, "office".into());
    assert_eq!(of(external(), office), edge(["", "external", "", "office"]));
    let node = Identity::named(EntityKind::Node, "node-a".into());
    let unknown = Identity::named(EntityKind::Unknown, "".into());
    assert_eq!(of(node, unknown), edge(["", "node-a", "", "unknown"]));
    assert_eq!(
        of(identity("shop", "web-1", "web"), identity("shop", "db", "")),
        edge(["shop", "web", "shop", "db"])
    );
}

#[test]
fn series_are_as_prometheus_reads_them() {
    let metrics = Metrics::new();
    let edges = EdgeMetrics::register(&metrics, 1).unwrap();
    let mut record = random_record(&mut fastrand::Rng::with_seed(1));
    (record.sent.bytes, record.received.bytes) = (1_000, 2_000);
    (record.opened, record.joined) = (3, 1);
    (record.closed.refused, record.closed.unanswered) = (1, 1);
    (record.duration.sum_us, record.duration.count) = (2_500_000, 2);
    let mut chunk = EdgeSums::default();
    // Whoever names an owner in a pod's metadata may write anything.
    chunk.add(&record, &names(identity("a", "", "x\"} 1\ny"), identity("b", "", "z"), &record));
    edges.add(&chunk);
    let text = metrics.encode();
    let samples: Vec<_> = text.lines().filter(|line| line.contains("\"a\"")).collect();
    let labels = r#"client_namespace="a",client_workload="x\"} 1\ny",server_namespace="b",server_workload="z""#;
    let sample = |name: &str, more: &str, value: &str| {
        format!("flowtrail_edge_{name}{{{labels}{more}}} {value}")
    };
    let bucket = format!("flowtrail_edge_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 2");
    let expected = [
        sample("bytes_total", r#",direction="sent""#, "1000"),
        sample("bytes_total", r#",direction="received""#, "2000"),
        sample("connections_total", "", "4"),
        sample("connections_failed_total", "", "2"),
        sample("duration_seconds_sum", "", "2.5"),
        sample("duration_seconds_count", "", "2"),
        bucket,
    ];
    assert_eq!(samples, expected, "{text}");
    let other = text.lines().filter(|line| line.contains(OTHER));
    assert!(other.clone().count() == 7 && other.clone().all(|line| line.contains("} 0")), "{text}");
}

#[test]
fn what_is_called_other_or_is_too_long_is_in_other() {
    let edges = EdgeMetrics::register(&Metrics::new(), 10).unwrap();
    let record = random_record(&mut fastrand::Rng::with_seed(1));
    let mut chunk = EdgeSums::default();
    let other = || identity(OTHER, "", OTHER);
    chunk.add(&record, &names(other(), other(), &record));
    edges.add(&chunk);
    let long = identity("shop", "", &"x".repeat(MAX_NAME_BYTES + 1));
    let mut chunk = EdgeSums::default();
    chunk.add(&record, &names(other(), long, &record));
    edges.add(&chunk);
    let sums = Sums::of(&record);
    assert_eq!(edges.read(), [(Edge::other(), added([&sums, &sums]))]);
}

#[test]
fn none_are_told_unless_they_are_wanted() {
    let metrics = Metrics::new();
    assert!(EdgeMetrics::register(&metrics, 0).is_none());
    assert!(!metrics.encode().contains("edge"));
}
