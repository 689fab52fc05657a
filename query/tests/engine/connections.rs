//! Which connections a window has, how they stood, and pages of them, against the real engine.

use std::net::{Ipv4Addr, Ipv6Addr};

use flowtrail_query::{Connection, Connections, Obstacle, Side, Start, State};
use flowtrail_schema::row::FlowRow;
use flowtrail_schema::{IdKind, Reporter};

use crate::common::{Served, T0, report, row, runtime, served};

pub(crate) const ID: u64 = 7 << 32 | 9;
pub(crate) const EDGE: &str = "workload:shop/Deployment/web>workload:shop/StatefulSet/db";

impl Served {
    /// The connections of `[from, to)`, seconds.
    pub(crate) fn connections(&self, from: u32, to: u32, pairs: &[(&str, &str)]) -> Connections {
        let (from, to) = (format!("{from}000"), format!("{to}000"));
        let window = [("from", from.as_str()), ("to", to.as_str())];
        let answer = self.get("/api/v1/connections", &[&window, pairs].concat());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The only one of the minute that begins at `T0`.
    pub(crate) fn only(&self, pairs: &[(&str, &str)]) -> Connection {
        let mut answer = self.connections(T0, T0 + 60, pairs);
        assert_eq!((answer.connections.len(), &answer.next), (1, &None), "{answer:#?}");
        answer.connections.remove(0)
    }

    /// Agents' reports, without drops, on all intervals of the minute.
    pub(crate) fn reported(&self, agents: &[&str]) {
        let reports = agents.iter().flat_map(|agent| {
            (0..6).map(|i| flowtrail_schema::row::CoverageRow {
                packets_dropped: 0,
                records_dropped: 0,
                ..report(agent, T0 + 10 * i)
            })
        });
        self.insert("coverage", &reports.collect::<Vec<_>>());
    }
}

pub(crate) fn address(last: u8) -> Ipv6Addr {
    Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped()
}

/// The client's side of a whole connection: the primary row.
pub(crate) fn client_side() -> FlowRow {
    FlowRow { opened: 1, closed_fin: 1, age_us: 8_999_000, ..row(T0 + 10, ID) }
}

/// The server's side of the same: behind the Service's address, on the other node.
pub(crate) fn server_side(client: FlowRow) -> FlowRow {
    FlowRow {
        node: "n2".to_owned(),
        agent: "n2".to_owned(),
        interface: "veth2".to_owned(),
        reporter: Reporter::Server.number(),
        primary: false,
        server_ip: address(2),
        server_port: 5_432,
        ..client
    }
}

#[test]
fn an_id_that_is_completed_later_is_one_connection() {
    let served = served("connections_completed");
    let first = FlowRow { opened: 1, id_kind: IdKind::Partial.number(), ..row(T0 + 10, 7 << 32) };
    let second = FlowRow { closed_reset_by_client: 1, age_us: 18_999_000, ..row(T0 + 20, ID) };
    served.insert("flows", &[first, second]);
    let connection = served.only(&[]);
    assert_eq!(
        (connection.id.as_str(), connection.id_kind.as_str()),
        ("0000000700000009", "complete")
    );
    assert_eq!(connection.close_reason.as_deref(), Some("reset_by_client"));
    assert_eq!((connection.sent.packets, connection.observations.len()), (4, 1));
}

#[test]
fn a_joined_connection_is_as_old_as_its_agent_knows() {
    let served = served("connections_joined");
    let joined = FlowRow {
        joined: 1,
        id_kind: IdKind::TupleHash.number(),
        handshake_seen: false,
        direction_inferred: true,
        age_us: 8_999_000,
        ..row(T0 + 40, 1234)
    };
    let server =
        FlowRow { server_ip: address(200), server_port: 80, ..server_side(joined.clone()) };
    served.insert("flows", &[joined, server]);
    served.reported(&["n1", "n2"]);
    let connection = served.only(&[]);
    assert_eq!((connection.state, connection.start), (State::Open, Start::Joined));
    assert_eq!(connection.started_us, Some(i64::from(T0 + 40) * 1_000_000 + 1_000));
    assert!(connection.direction_inferred && !connection.handshake_seen);
    let sides = [Side::Client, Side::Server].map(|side| Obstacle::Joined { side });
    assert!(connection.comparison.not_comparable.starts_with(&sides), "{connection:#?}");
}

#[test]
fn one_that_is_silent_in_the_window_is_there_if_it_was_open() {
    let served = served("connections_open");
    let heartbeat = |at: u32| {
        let zero = i64::from(at) * 1_000_000;
        FlowRow {
            first_seen: zero,
            last_seen: zero,
            open_at_start: 1,
            age_us: 100_000_000,
            sent_bytes: 0,
            sent_payload_bytes: 0,
            sent_packets: 0,
            received_bytes: 0,
            received_payload_bytes: 0,
            received_packets: 0,
            received_retransmitted_packets: 0,
            ..row(at, ID)
        }
    };
    let closed_before = FlowRow { opened: 1, closed_fin: 1, ..row(T0, 8 << 32 | 8) };
    served.insert("flows", &[heartbeat(T0), closed_before]);
    let answer = served.connections(T0 + 30, T0 + 40, &[]);
    let [connection] = answer.connections.as_slice() else { panic!("{answer:#?}") };
    assert_eq!((connection.state, connection.start), (State::Open, Start::Before));
    // A heartbeat tells the age at its interval's end.
    assert_eq!(connection.started_us, Some(i64::from(T0 + 10 - 100) * 1_000_000));
    assert_eq!((connection.first_seen_us, connection.sent.packets), (None, 0));
    assert_eq!(connection.observations[0].rows, 0);

    // A minute later there is no row of it any more.
    let answer = served.connections(T0, T0 + 120, &[("order", "longest")]);
    let states: Vec<_> = answer.connections.iter().map(|connection| connection.state).collect();
    assert_eq!(states, [State::Silent, State::Closed]);
}

#[test]
fn pages_are_the_whole_each_once_in_every_order_while_rows_arrive() {
    let served = served("connections_pages");
    let connection = |number: u64, start: u32| FlowRow {
        opened: 1,
        client_port: number as u16,
        sent_bytes: number / 3,
        sent_retransmitted_packets: number % 2,
        age_us: 8_999_000 - number % 5,
        ..row(start, number << 32 | 1)
    };
    let rows: Vec<_> = (1..=20).map(|number| connection(number, T0 + 10)).collect();
    served.insert("flows", &rows);
    let window = [("from", format!("{T0}000")), ("to", format!("{}000", T0 + 60))];
    let first: Vec<_> = window.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for (case, order) in ["newest", "longest", "bytes", "retransmits"].into_iter().enumerate() {
        let all = served.connections(T0, T0 + 60, &[("order", order), ("limit", "500")]);
        let mut cursor: Option<String> = None;
        let mut found = Vec::new();
        loop {
            let mut pairs = vec![("limit", "8"), ("include", "web")];
            match &cursor {
                Some(cursor) => pairs.push(("cursor", cursor)),
                None => pairs.extend([&first[..], &[("order", order)]].concat()),
            }
            let answer = served.get("/api/v1/connections", &pairs);
            assert_eq!(answer.status, 200, "{}", answer.body);
            let page: Connections = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(page.window.from, i64::from(T0) * 1_000);
            found.extend(page.connections.into_iter().map(|connection| connection.id));
            // What comes later than the window is on no page of it.
            served.insert("flows", &[connection(90 + case as u64, T0 + 70)]);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<_> =
            all.connections.into_iter().map(|connection| connection.id).collect();
        assert_eq!((expected.len(), &found), (20, &expected), "{order}");
    }
}

#[test]
fn a_window_past_the_retention_says_where_it_begins() {
    let served = served("connections_retention");
    const DAY_S: u32 = 86_400;
    let midnight = T0 / DAY_S * DAY_S;
    served.insert(
        "flows",
        &[
            FlowRow { opened: 1, ..row(midnight - 100, 1 << 32 | 1) },
            FlowRow { opened: 1, ..row(midnight + 100, 2 << 32 | 2) },
        ],
    );
    let drop = "ALTER TABLE flows DROP PARTITION {day:String}";
    let query = served.store.client().query_raw(drop).param("day", "2023-11-13");
    runtime().block_on(query.execute()).unwrap();
    let answer = served.connections(midnight - 200, midnight + 200, &[]);
    assert_eq!(answer.connections.len(), 1);
    let from = answer.retained_from.unwrap();
    assert_eq!((answer.window.from, from), (from, i64::from(midnight) * 1_000));
    assert_eq!(answer.window.requested_from, i64::from(midnight - 200) * 1_000);
    let gone = served.connections(midnight - 200, midnight - 50, &[]);
    assert_eq!((gone.connections.len(), gone.window.from), (0, gone.window.to));
    let kept = served.connections(midnight, midnight + 200, &[]);
    assert_eq!(kept.retained_from, None);
}
