//! What is said of a connection, and what is not.

use flowtrail_schema::Reporter;
use proptest::prelude::*;

use super::*;
use crate::connections::comparison::{Comparison, Obstacle, Verdict};
use crate::connections::join::tests::{joined, observed};
use crate::connections::sql::{CountersColumns, ObservationRow};

const BOUNDS: Bounds = Bounds { from_s: 60, to_s: 180, resolution_s: 10, interval_s: 10 };

fn client() -> ObservationRow {
    observed(Reporter::Client, 200, 9)
}

fn server() -> ObservationRow {
    observed(Reporter::Server, 2, 9)
}

fn gap(node: &str, reason: u8, from_s: u32, to_s: u32) -> GapRow {
    GapRow { node: node.to_owned(), agent: node.to_owned(), reason, from_s, to_s }
}

/// Both agents reported all the time.
fn all_reported() -> Vec<GapRow> {
    vec![gap("n1", 1, 180, 180), gap("n2", 1, 180, 180)]
}

fn connection(rows: Vec<ObservationRow>, gaps: Vec<GapRow>) -> Connection {
    Evidence::new(BOUNDS, (60, 180), gaps, Vec::new()).connection(&joined(rows), BOUNDS.to_s)
}

fn comparison(rows: Vec<ObservationRow>) -> Comparison {
    connection(rows, all_reported()).comparison
}

#[test]
fn what_differences_mean() {
    let verdict = |client: CountersColumns, server: CountersColumns| {
        let rows = vec![
            ObservationRow { sent: client, ..super::tests::client() },
            ObservationRow { sent: server, ..super::tests::server() },
        ];
        comparison(rows).sent.unwrap().verdict
    };
    let sent = (1_000, 800, 5, 0, 0);
    let cases = [
        ((1_000, 800, 5, 0, 0), Verdict::Same),
        ((700, 540, 4, 0, 0), Verdict::Lost),
        ((960, 800, 4, 0, 0), Verdict::FewerPackets),
        ((1_040, 800, 6, 0, 0), Verdict::MorePackets),
        ((1_300, 1_060, 6, 0, 0), Verdict::Unseen),
        ((1_060, 800, 5, 0, 0), Verdict::Headers),
    ];
    for (received, expected) in cases {
        assert_eq!(verdict(sent, received), expected, "{received:?}");
    }
    // Nothing merges packets that have no payload.
    let bare = (200, 0, 5, 0, 0);
    assert_eq!(verdict(bare, (160, 0, 4, 0, 0)), Verdict::Lost);
    assert_eq!(verdict(bare, (240, 0, 6, 0, 0)), Verdict::Unseen);
}

#[test]
fn a_side_that_did_not_see_all_is_not_compared() {
    let (client_side, server_side) = (Side::Client, Side::Server);
    type Change = fn(&mut ObservationRow);
    let cases: [(Change, Obstacle); 7] = [
        (|row| row.flags.1 = true, Obstacle::OneSided { side: server_side }),
        (|row| row.life = (0, 1), Obstacle::Joined { side: server_side }),
        (|row| row.closed.7 = 1, Obstacle::Evicted { side: server_side }),
        (|row| row.closed_last = (0, 0), Obstacle::RowsMissing { side: server_side }),
        (|row| (row.life, row.packets_us.0) = ((0, 0), 61_000_000), Obstacle::CutAtStart),
        (|row| row.packets_us.1 = 179_000_000, Obstacle::CutAtEnd),
        (|row| (row.connection_id, row.id_kind) = (7 << 32, 2), Obstacle::Uncertain),
    ];
    for (change, expected) in cases {
        let mut changed = server();
        change(&mut changed);
        let comparison = comparison(vec![client(), changed]);
        assert!(comparison.not_comparable.contains(&expected), "{expected:?}: {comparison:#?}");
        assert_eq!((comparison.sent, comparison.received), (None, None));
    }
    let alone = comparison(vec![client()]);
    assert_eq!(alone.not_comparable, [Obstacle::NoObservation { side: server_side }]);
    let alone = comparison(vec![ObservationRow { primary: true, counted: true, ..server() }]);
    assert_eq!(alone.not_comparable, [Obstacle::NoObservation { side: client_side }]);
}

#[test]
fn only_gaps_during_the_connection_count() {
    let obstacles = |from_s, to_s| {
        let gaps = [all_reported(), vec![gap("n2", 2, from_s, to_s)]].concat();
        connection(vec![client(), server()], gaps).comparison.not_comparable.len()
    };
    assert_eq!([obstacles(90, 100), obstacles(100, 110), obstacles(110, 120)], [0, 1, 0]);
    assert_eq!(connection(vec![client(), server()], Vec::new()).comparison.not_comparable.len(), 2);
}

#[test]
fn an_agent_with_more_gaps_than_are_read_has_seen_nothing_after_them() {
    let mut gaps = all_reported();
    gaps.extend(std::iter::repeat_n(gap("n1", 2, 60, 70), MAX_GAPS));
    let connection = connection(vec![client(), server()], gaps);
    assert_eq!(connection.comparison.not_comparable.len(), 1);
}

#[test]
fn how_it_stood_at_the_end() {
    let state = |change: fn(&mut ObservationRow)| {
        let mut row = client();
        change(&mut row);
        let connection = connection(vec![row], all_reported());
        (connection.state, connection.close_reason)
    };
    let fin = Some("fin".to_owned());
    assert_eq!(state(|_| {}), (State::Closed, fin.clone()));
    // Unanswered and then answered after all.
    assert_eq!(state(|row| (row.open_s, row.intervals_s.1) = (120, 120)).0, State::Open);
    let not_closed = |row: &mut ObservationRow| row.closed_last = (0, 0);
    assert_eq!(state(not_closed).0, State::Silent);
    let heard_of = |row: &mut ObservationRow| {
        (row.closed_last, row.open_s, row.intervals_s) = ((0, 0), 120, (100, 120, 130));
    };
    assert_eq!(state(heard_of), (State::Open, None));
    // Late packets of what ended before.
    assert_eq!(state(|row| (row.closed_last, row.open_s) = ((0, 0), 0)), (State::Closed, None));
    let half_open: fn(&mut ObservationRow) = |row| {
        (row.closed_last, row.open_s, row.intervals_s) = ((0, 0), 120, (120, 120, 130));
        (row.connection_id, row.id_kind) = (7 << 32, 2);
    };
    assert_eq!(state(half_open).0, State::HalfOpen);
}

proptest! {
    #[test]
    fn what_agrees_is_no_disagreement(sent in any::<[u32; 5]>(), received in any::<[u32; 5]>()) {
        let columns = |[bytes, payload, packets, again, zero]: [u32; 5]| -> CountersColumns {
            (bytes.into(), payload.into(), packets.into(), again.into(), zero.into())
        };
        let same = |row: ObservationRow| ObservationRow { sent: columns(sent), received: columns(received), ..row };
        let connection = connection(vec![same(client()), same(server())], all_reported());
        prop_assert_eq!(connection.disagreements, []);
        prop_assert_eq!(connection.comparison.sent.map(|sent| sent.verdict), Some(Verdict::Same));
    }
}
