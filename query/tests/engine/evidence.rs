//! What the observations of a connection say, agree in and do not, against the real engine.

use std::net::Ipv6Addr;

use flowtrail_query::{Direction, Disagreement, GapKind, Obstacle, Side, Start, State, Verdict};
use flowtrail_schema::row::{EntityKind, FlowRow, IdentitiesSeenRow, IdentityRow};
use flowtrail_schema::{Detail, IdKind};

use crate::common::{T0, report, row, served};
use crate::connections::{EDGE, ID, address, client_side, server_side};

#[test]
fn both_sides_of_a_connection_across_nat_are_one_and_compared() {
    let served = served("connections_nat");
    let client = FlowRow {
        syn_to_synack_us: 1_500,
        syn_to_synack_count: 1,
        syn_to_synack_max_us: 1_500,
        sent_retransmitted_packets: 1,
        ..client_side()
    };
    let server = FlowRow {
        sent_bytes: 40,
        sent_payload_bytes: 0,
        sent_packets: 1,
        sent_retransmitted_packets: 0,
        ..server_side(client.clone())
    };
    served.insert("flows", &[client, server]);
    served.reported(&["n1", "n2"]);
    let connection = served.only(&[("edge", EDGE)]);

    assert_eq!(
        (connection.id.as_str(), connection.id_kind.as_str()),
        ("0000000700000009", "complete")
    );
    assert_eq!((connection.state, connection.start), (State::Closed, Start::Opened));
    assert_eq!(connection.close_reason.as_deref(), Some("fin"));
    let start_us = i64::from(T0 + 10) * 1_000_000;
    assert_eq!(connection.started_us, Some(start_us + 1_000));
    assert_eq!(connection.last_seen_us, Some(start_us + 9_000_000));
    assert_eq!(connection.duration_ms, Some(8_999.0));
    assert_eq!((connection.sent.bytes, connection.received.bytes), (100, 1_000));
    assert_eq!(connection.latency.syn_to_synack_ms, Some(1.5));
    assert_eq!(connection.service.as_deref(), Some("shop/db"));
    let server = &connection.server;
    assert_eq!((server.address.as_str(), server.port), ("10.0.0.200", 80));
    assert_eq!((server.real_address.as_str(), server.real_port), ("10.0.0.2", 5_432));

    let [near, far] = connection.observations.as_slice() else { panic!("{connection:#?}") };
    assert_eq!((near.primary, near.reporter.as_str(), near.node.as_str()), (true, "client", "n1"));
    assert_eq!((far.primary, far.reporter.as_str(), far.certain), (false, "server", true));
    assert_eq!((far.server_address.as_str(), far.server_port, far.rows), ("10.0.0.2", 5_432, 1));

    let comparison = &connection.comparison;
    assert_eq!((comparison.client_side, comparison.server_side), (Some(0), Some(1)));
    assert_eq!(comparison.not_comparable, []);
    let sent = comparison.sent.unwrap();
    assert_eq!((sent.packets, sent.bytes, sent.payload_bytes), (1, 60, 60));
    assert_eq!(
        (sent.verdict, comparison.received.unwrap().verdict),
        (Verdict::Lost, Verdict::Same)
    );
    let lost =
        Disagreement::Lost { direction: Direction::Sent, packets: 1, bytes: 60, payload_bytes: 60 };
    let again = Disagreement::Retransmissions {
        direction: Direction::Sent,
        client_side: 1,
        server_side: 0,
    };
    assert_eq!(connection.disagreements, [lost, again]);
}

#[test]
fn what_an_agent_did_not_see_is_not_compared() {
    let served = served("connections_gap");
    let client = client_side();
    let server = FlowRow { sent_packets: 1, ..server_side(client.clone()) };
    served.insert("flows", &[client, server]);
    served.reported(&["n1"]);
    let no_report = |from_s, to_s| Obstacle::Gap {
        side: Side::Server,
        agent: "n2".to_owned(),
        gap: GapKind::NoReport,
        from_s,
        to_s,
    };
    let connection = served.only(&[]);
    assert_eq!(connection.comparison.not_comparable, [no_report(T0 + 10, T0 + 20)]);
    assert_eq!((connection.comparison.sent, connection.disagreements.len()), (None, 0));

    // It reports on what comes after the connection only; then it drops packets.
    served.insert("coverage", &[report("n2", T0 + 20)]);
    let connection = served.only(&[]);
    assert_eq!(connection.comparison.not_comparable, [no_report(T0 + 10, T0 + 20)]);
    served.insert("coverage", &[report("n2", T0), report("n2", T0 + 10)]);
    let dropped = |gap| Obstacle::Gap {
        side: Side::Server,
        agent: "n2".to_owned(),
        gap,
        from_s: T0 + 10,
        to_s: T0 + 20,
    };
    let connection = served.only(&[]);
    assert_eq!(connection.comparison.not_comparable, [dropped(GapKind::PacketsDropped)]);
}

#[test]
fn a_side_that_folded_rows_is_not_compared_and_the_summary_is_an_entry_of_its_own() {
    let served = served("connections_folded");
    let client = client_side();
    let folded = FlowRow {
        detail: Detail::Summary.number(),
        connection_id: 77,
        id_kind: IdKind::TupleHash.number(),
        client_port: 0,
        primary: true,
        opened: 5,
        closed_fin: 4,
        ..server_side(client.clone())
    };
    served.insert("flows", &[client.clone(), server_side(client), folded]);
    served.reported(&["n1", "n2"]);
    let answer = served.connections(T0, T0 + 60, &[]);
    let [connection, summary] = answer.connections.as_slice() else { panic!("{answer:#?}") };
    assert_eq!((summary.detail.as_str(), summary.state), ("summary", State::Folded));
    assert_eq!((summary.opened, summary.closed.fin, summary.client.port), (5, 4, 0));
    assert_eq!(summary.started_us, None);
    assert_eq!(summary.comparison.not_comparable, [Obstacle::Summary]);
    let gap = Obstacle::Gap {
        side: Side::Server,
        agent: "n2".to_owned(),
        gap: GapKind::Folded,
        from_s: T0 + 10,
        to_s: T0 + 20,
    };
    assert_eq!(connection.comparison.not_comparable, [gap]);
}

#[test]
fn an_attempt_that_was_refused_and_one_that_nobody_has_answered() {
    let served = served("connections_attempts");
    let refused = FlowRow {
        opened: 1,
        closed_refused: 1,
        id_kind: IdKind::Partial.number(),
        ..row(T0 + 10, 5 << 32)
    };
    let attempt = FlowRow {
        opened: 1,
        id_kind: IdKind::Partial.number(),
        received_packets: 0,
        ..row(T0 + 50, 6 << 32)
    };
    served.insert("flows", &[refused, attempt]);
    // The agent on the server's node was there all the time.
    served.reported(&["n1", "n2"]);
    let answer = served.connections(T0, T0 + 60, &[]);
    let [attempt, refused] = answer.connections.as_slice() else { panic!("{answer:#?}") };
    assert_eq!((attempt.state, attempt.close_reason.as_deref()), (State::HalfOpen, None));
    assert_eq!((refused.state, refused.close_reason.as_deref()), (State::Closed, Some("refused")));
    let missing = Disagreement::Missing { side: Side::Server, node: "n2".to_owned() };
    for connection in [attempt, refused] {
        assert_eq!(connection.disagreements, std::slice::from_ref(&missing));
    }
    let nobody = Obstacle::NoObservation { side: Side::Server };
    assert_eq!(refused.comparison.not_comparable, [nobody]);
}

#[test]
fn the_answer_that_left_the_server_and_never_came_is_found_by_half_an_id() {
    let served = served("connections_half");
    let client = FlowRow {
        opened: 1,
        closed_unanswered: 1,
        id_kind: IdKind::Partial.number(),
        received_packets: 0,
        received_bytes: 0,
        received_payload_bytes: 0,
        received_retransmitted_packets: 0,
        ..row(T0 + 10, 7 << 32)
    };
    let server = FlowRow {
        connection_id: ID,
        id_kind: IdKind::Complete.number(),
        received_packets: 3,
        closed_unanswered: 0,
        closed_reset_by_server: 1,
        ..server_side(client.clone())
    };
    served.insert("flows", &[client.clone(), server.clone()]);
    served.reported(&["n1", "n2"]);
    let connection = served.only(&[]);
    let far = &connection.observations[1];
    assert_eq!((far.certain, far.id_kind.as_str()), (false, "complete"));
    // Through NAT half an id is no proof; with the same ends it is one.
    assert_eq!(connection.comparison.not_comparable, [Obstacle::Uncertain]);

    let served = self::served("connections_same_ends");
    let (server_ip, server_port) = (client.server_ip, client.server_port);
    served.insert("flows", &[client, FlowRow { server_ip, server_port, ..server }]);
    served.reported(&["n1", "n2"]);
    let connection = served.only(&[]);
    let lost = Disagreement::Lost {
        direction: Direction::Received,
        packets: 3,
        bytes: 0,
        payload_bytes: 0,
    };
    let no_answer = Disagreement::NoAnswer { side: Side::Client };
    let ends = Disagreement::CloseReason {
        client_side: "unanswered".to_owned(),
        server_side: "reset_by_server".to_owned(),
    };
    assert_eq!(connection.disagreements, [lost, no_answer, ends]);
}

#[test]
fn names_come_with_who_held_the_addresses() {
    let served = served("connections_identities");
    let at = |s: u32| i64::from(s) * 1_000_000;
    let owner = |address: Ipv6Addr, kind: EntityKind, name: &str, start: u32| IdentityRow {
        address,
        port: 0,
        uid: name.to_owned(),
        kind: kind.number(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        node: String::new(),
        workload: String::new(),
        workload_kind: String::new(),
        ports: Vec::new(),
        start: at(start),
        last_seen: at(start + 5),
        released: 0,
        deleted: 0,
    };
    let pod = EntityKind::Pod;
    let before = IdentityRow {
        released: at(T0 + 12),
        last_seen: at(T0 - 50),
        ..owner(address(1), pod, "web-0", T0 - 90)
    };
    let long_gone =
        IdentityRow { deleted: at(T0 - 95), ..owner(address(1), pod, "web-x", T0 - 99) };
    let other_port = IdentityRow { port: 9, ..owner(address(1), pod, "hostport", T0 - 90) };
    let identities = [
        before,
        long_gone,
        other_port,
        owner(address(1), pod, "web-1", T0 + 11),
        owner(address(2), pod, "db-0", T0 - 90),
        owner(address(200), EntityKind::Service, "db", T0 - 90),
        owner(address(3), pod, "nobody", T0 - 90),
    ];
    served.insert("identities", &identities);
    served.insert(
        "identities_seen",
        &[IdentitiesSeenRow { kind: pod.number(), last_seen: at(T0 + 50) }],
    );
    let uncertain = FlowRow { client_uncertain: true, ..client_side() };
    let other_names = FlowRow { client_name: "web-0".to_owned(), ..server_side(client_side()) };
    served.insert("flows", &[uncertain, other_names]);
    let connection = served.only(&[]);
    assert!(connection.client.uncertain);
    let held = |held_by: &[flowtrail_query::Ownership]| -> Vec<_> {
        let of = |held: &flowtrail_query::Ownership| {
            (held.name.clone(), held.end_us, held.certain_until_us, held.named)
        };
        held_by.iter().map(of).collect()
    };
    let expected = [
        ("web-0".to_owned(), Some(at(T0 + 12)), at(T0 - 50), false),
        ("web-1".to_owned(), None, at(T0 + 50), true),
    ];
    let mut client = held(&connection.client.held_by);
    client.sort();
    assert_eq!(client, expected);
    let mut server = held(&connection.server.held_by);
    server.sort();
    let expected =
        [("db".to_owned(), None, at(T0 - 85), true), ("db-0".to_owned(), None, at(T0 + 50), true)];
    assert_eq!(server, expected);
    let names = ["shop/web-0", "shop/web-1"].map(str::to_owned).to_vec();
    assert!(connection.disagreements.contains(&Disagreement::Names { end: Side::Client, names }));
}
