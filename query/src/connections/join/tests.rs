//! Which observations are of one connection.

use flowtrail_schema::Reporter;

use super::*;
use crate::connections::sql::KeyColumns;

const ISN: u64 = 7;

pub(crate) fn address(last: u8) -> Ipv6Addr {
    std::net::Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped()
}

/// A whole connection of `[100, 110)` as seen at a point, on node `n1` for the client's side, `n2` for the
/// server's; counted on the client's.
pub(crate) fn observed(reporter: Reporter, server: u8, server_isn: u32) -> ObservationRow {
    let text = |text: &str| text.to_owned();
    let id_kind = if server_isn == 0 { IdKind::Partial } else { IdKind::Complete };
    let node = if reporter == Reporter::Client { "n1" } else { "n2" };
    let key: KeyColumns = (false, false, ISN, address(1), 40_000, address(server), 80);
    let end = |number: u8, name: &str, node: &str| -> EndColumns {
        let (workload, kind) = (text("w"), text("Deployment"));
        (1, text("shop"), text(name), workload, kind, text(node), false, address(number), 80)
    };
    ObservationRow {
        key,
        counted: reporter == Reporter::Client,
        within: true,
        point: (
            text(node),
            text(node),
            text("veth"),
            InterfaceKind::Pod.number(),
            reporter.number(),
        ),
        primary: reporter == Reporter::Client,
        local_primary: true,
        detail: 1,
        connection_id: ISN << 32 | u64::from(server_isn),
        id_kind: id_kind.number(),
        flags: (true, false, false),
        packets_us: (103_000_000, 106_000_000),
        started_us: 103_000_000,
        intervals_s: (100, 100, 110),
        open_s: 100,
        closed_last: (100, 1),
        rows: 1,
        life: (1, 0),
        closed: (1, 0, 0, 0, 0, 0, 0, 0),
        sent: (1_000, 800, 5, 0, 0),
        received: (500, 300, 5, 0, 0),
        syn_to_synack: (2_000, 1),
        synack_to_ack: (0, 0),
        first_response: (0, 0),
        client: end(1, "web", "n1"),
        server: end(2, "db", "n2"),
        service: (text("shop"), text("db")),
    }
}

pub(crate) fn joined(rows: Vec<ObservationRow>) -> Joined {
    let key = rows[0].key.into();
    join(&[key], rows).remove(0)
}

fn certain(rows: Vec<ObservationRow>) -> Vec<bool> {
    joined(rows).observations.iter().map(|seen| seen.certain).collect()
}

fn client() -> ObservationRow {
    observed(Reporter::Client, 200, 9)
}

#[test]
fn a_whole_id_joins_across_nat_and_half_of_one_not_for_certain() {
    assert_eq!(certain(vec![client(), observed(Reporter::Server, 2, 9)]), [true, true]);
    assert_eq!(certain(vec![client(), observed(Reporter::Server, 2, 0)]), [true, false]);
    assert_eq!(certain(vec![client(), observed(Reporter::Server, 200, 0)]), [true, true]);
    assert_eq!(certain(vec![client(), observed(Reporter::Server, 2, 8)]), [true]);
}

#[test]
fn what_is_later_is_another() {
    let mut later = observed(Reporter::Server, 2, 9);
    later.intervals_s = (300, 300, 310);
    assert_eq!(certain(vec![client(), later.clone()]), [true]);
    later.intervals_s = (290, 290, 300);
    assert_eq!(certain(vec![client(), later]), [true, true]);
}

#[test]
fn two_that_one_interface_shows_are_two_while_the_id_is_half() {
    let here = |server_isn| ObservationRow {
        point: client().point,
        primary: false,
        counted: false,
        ..observed(Reporter::Client, 2, server_isn)
    };
    assert_eq!(certain(vec![client(), here(0)]), [true]);
    // What is forwarded out of the interface that it came in by.
    assert_eq!(certain(vec![client(), here(9)]), [true, true]);
}

#[test]
fn each_of_two_connections_that_are_alike_has_its_own() {
    let other = ObservationRow { client: client().client, ..observed(Reporter::Client, 201, 8) };
    let rows = vec![
        client(),
        other.clone(),
        observed(Reporter::Server, 2, 9),
        observed(Reporter::Server, 3, 8),
    ];
    let keys = [client().key.into(), other.key.into()];
    let joined = join(&keys, rows);
    for (connection, server) in joined.iter().zip([2, 3]) {
        assert_eq!(connection.observations.len(), 2);
        assert_eq!(connection.observations[1].key.server_ip, address(server));
    }
}

#[test]
fn rows_that_the_edge_does_not_count_are_evidence() {
    let elsewhere = ObservationRow { counted: false, ..client() };
    let before = ObservationRow { within: false, counted: false, ..client() };
    let joined = joined(vec![client(), elsewhere, before]);
    assert_eq!((joined.counted.sums.rows, joined.counted.sums.sent.packets), (1, 5));
    assert_eq!((joined.primary().sums.rows, joined.primary().sums.sent.packets), (2, 10));
}

#[test]
fn more_observations_than_are_listed_are_told_of() {
    let points = (0..20).map(|number| ObservationRow {
        primary: number == 0,
        counted: number == 0,
        point: (format!("n{number}"), String::new(), String::new(), 1, 3),
        ..client()
    });
    let joined = joined(points.collect());
    assert_eq!((joined.observations.len(), joined.more_observations), (MAX_OBSERVATIONS, true));
}
