//! The laws of the decision, over logs of three agents that see some clients, servers and what passes
//! through; that come late, are away for a while, or drain what they folded meanwhile.

mod world;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::connections::Restored;
use crate::identity::IdentityIndex;
use crate::naming::{directed, named};
use world::{LENGTH_S, Made, State, any_world, calm, interval, outage};

type Decision<'a> = (&'a FlowBatch, &'a FlowRecord, bool);

/// Of each connection: where it was primary, and in which intervals it was observed and counted.
#[derive(Debug, Default)]
struct Counted {
    points: Vec<(String, String)>,
    packets: BTreeMap<u64, u64>,
}

fn counted(decided: &[Decision<'_>]) -> BTreeMap<u64, Counted> {
    let mut connections: BTreeMap<u64, Counted> = BTreeMap::new();
    for (batch, record, primary) in decided {
        let counted = connections.entry(record.age_us).or_default();
        let packets = counted.packets.entry(record.interval.start_us()).or_default();
        if *primary {
            *packets += record.sent.packets;
            let point = (batch.agent.to_string(), record.interface.name.clone());
            if record.detail == Detail::Flow && !counted.points.contains(&point) {
                counted.points.push(point);
            }
        }
    }
    connections
}

/// What a record's row tells later.
fn row((batch, record, primary): &Decision<'_>) -> Restored {
    Restored {
        connection_id: record.connection_id,
        id_kind: record.id_kind,
        point: Point::new(
            Arc::clone(&batch.agent),
            Arc::clone(&batch.node),
            Arc::clone(&record.interface),
        )
        .into(),
        reporter: record.reporter,
        client: record.client,
        server: record.server,
        first_seen_us: record.first_seen_us,
        last_seen_us: record.last_seen_us,
        primary: *primary,
        names: None,
        inferred_server: None,
    }
}

/// The rows of each connection's observation as one.
fn together(rows: Vec<Restored>) -> Vec<Restored> {
    let mut together: BTreeMap<(u64, Arc<str>, String), Restored> = BTreeMap::new();
    for row in rows {
        let point =
            (row.connection_id, Arc::clone(&row.point.agent), row.point.interface.name.clone());
        let all = together.entry(point).or_insert_with(|| row.clone());
        all.first_seen_us = all.first_seen_us.min(row.first_seen_us);
        all.last_seen_us = all.last_seen_us.max(row.last_seen_us);
        all.primary |= row.primary;
    }
    let mut rows: Vec<_> = together.into_values().collect();
    rows.sort_by_key(|row| row.last_seen_us);
    rows
}

/// When the last lease of some batches runs out.
fn leased_until_us(log: &[FlowBatch]) -> u64 {
    let reports = log.iter().flat_map(|batch| &batch.coverage);
    reports.map(|report| report.interval.start_us() + 3 * LENGTH_S * 1_000_000).max().unwrap_or(0)
}

fn oldest_us(log: &[FlowBatch]) -> u64 {
    let records = log.iter().flat_map(|batch| &batch.records);
    records.map(|record| record.interval.start_us()).min().unwrap_or(u64::MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn at_most_one_observation_is_primary_and_stays_it(world in any_world()) {
        let log = world.log();
        let decided = Decider::new().decide(&log);
        for (connection, counted) in counted(&decided) {
            prop_assert!(counted.points.len() <= 1, "{connection}: {counted:?}");
            prop_assert!(counted.packets.values().all(|packets| *packets <= 1), "{connection}: {counted:?}");
            let Some((agent, interface)) = counted.points.first() else { continue };
            let here = decided.iter().filter(|(batch, record, _)| {
                record.age_us == connection && *batch.agent == **agent && record.interface.name == *interface
            });
            prop_assert!(here.skip_while(|(.., primary)| !primary).all(|(.., primary)| *primary));
        }
    }

    #[test]
    fn exactly_one_is_when_every_agent_is_on_time(world in calm()) {
        for (connection, counted) in counted(&Decider::new().decide(&world.log())) {
            prop_assert!(counted.packets.values().all(|packets| *packets == 1), "{connection}: {counted:?}");
        }
    }

    #[test]
    fn exactly_one_side_of_what_all_folded_counts_whoever_drains_first(world in outage()) {
        let (until, length) = world.fold.unwrap();
        let from = world.states.iter().position(|states| states[0] == State::CutOff).unwrap();
        let log = world.log();
        let decided = Decider::new().decide(&log);
        let mut packets: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for (_, record, primary) in decided {
            if record.detail != Detail::Flow {
                let key = (record.age_us, record.interval.start_us());
                *packets.entry(key).or_default() += if primary { record.sent.packets } else { 0 };
            }
        }
        for ((connection, start_us), packets) in packets {
            // Some agent, if there is one, told before the outage that it sees the client.
            let made = &world.connections[connection as usize];
            let home = world.clients[made.client];
            let told = |other: &Made| other.client == made.client && other.from < from;
            prop_assume!(home.is_some() && world.connections.iter().any(told));
            let within = |number: &usize| {
                (made.from..made.from + made.intervals).contains(number)
                    && interval(*number, length).start_us() == start_us
            };
            let expected = (from..until).filter(within).count() as u64;
            prop_assert_eq!(packets, expected, "{} at {}", connection, start_us);
        }
    }

    #[test]
    fn chunks_and_their_names_decide_nothing(world in any_world(), cuts in vec(any::<Index>(), 0..5)) {
        let log = world.log();
        let whole = Decider::new().decide(&log);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(log.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(log.len());
        let (mut decider, mut decided, mut from) = (Decider::new(), Vec::new(), 0);
        for cut in cuts {
            let chunk = decider.decide(&log[from..cut]);
            let keys: Vec<_> = decider.keys[decided.len()..].to_vec();
            for ((batch, record, _), key) in chunk.iter().zip(keys) {
                let mut connection = key.and_then(|key| decider.connections.get(key));
                let index = IdentityIndex::default();
                let record = directed(record, &batch.node, connection.as_deref_mut(), &index);
                named(&record, &batch.node, connection, &index);
            }
            decided.extend(chunk);
            from = cut;
        }
        prop_assert_eq!(decided, whole);
    }

    #[test]
    fn a_restored_table_decides_like_the_original(world in any_world(), position in any::<Index>(), one_each in any::<bool>()) {
        let log = world.log();
        let (past, future) = log.split_at(position.index(log.len() + 1));
        let (mut original, mut restored) = (Decider::new(), Decider::new());
        let rows: Vec<_> = original.decide(past).iter().map(row).collect();
        let rows = if one_each { rows } else { together(rows) };
        rows.into_iter().for_each(|row| restored.connections.restore(row));
        past.iter().for_each(|batch| restored.announced.renew(batch));
        prop_assert_eq!(restored.decide(future), original.decide(future));
    }

    #[test]
    fn announcements_need_only_what_reaches_into_the_records_to_come(world in any_world(), position in any::<Index>()) {
        let log = world.log();
        let position = position.index(log.len() + 1);
        let (past, future) = log.split_at(position);
        let mut original = Decider::new();
        let rows: Vec<_> = original.decide(past).iter().map(row).collect();
        let wanted_us = oldest_us(future);
        let enough = |start: &usize| leased_until_us(&log[..*start]) <= wanted_us;
        let start = (0..=position).rev().find(enough).unwrap();
        let mut restored = Decider::new();
        rows.into_iter().for_each(|row| restored.connections.restore(row));
        log[start..position].iter().for_each(|batch| restored.announced.renew(batch));
        prop_assert_eq!(restored.decide(future), original.decide(future));
    }

    #[test]
    fn a_connection_that_began_since_is_decided_alike_without_its_rows(world in any_world(), start in any::<Index>()) {
        let log = world.log();
        let start = start.index(log.len() + 1);
        let leased_us = leased_until_us(&log[..start]);
        let whole = Decider::new().decide(&log);
        let reread = Decider::new().decide(&log[start..]);
        let skipped = whole.len() - reread.len();
        let before = |connection| whole[..skipped].iter().any(|(_, record, _)| record.age_us == connection);
        let oldest_us = |connection| {
            let records = reread.iter().filter(|(_, record, _)| record.age_us == connection);
            records.map(|(_, record, _)| record.interval.start_us()).min()
        };
        for (is, should) in reread.iter().zip(&whole[skipped..]) {
            let connection = is.1.age_us;
            if !before(connection) && oldest_us(connection) >= Some(leased_us) {
                prop_assert_eq!(is, should);
            }
        }
    }
}
