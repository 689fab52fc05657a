//! Announcements' memory: caps, and what happens at them.

use flowtrail_schema::Coverage;
use flowtrail_schema::interval::IntervalLength;

use super::*;

const START_US: u64 = 1_700_000_000_000_000;

fn interval(seconds: u64) -> Interval {
    IntervalLength::default().interval_at(START_US + seconds * 1_000_000)
}

fn batch(agent: &str, seconds: &[u64], announced_addresses: Vec<IpAddr>) -> FlowBatch {
    let report = |seconds: &u64| Coverage {
        interval: interval(*seconds),
        interfaces: 0,
        packets_seen: 0,
        packets_dropped: 0,
        flows_evicted: 0,
        records_emitted: 0,
        records_dropped: 0,
    };
    FlowBatch {
        agent: agent.into(),
        node: agent.into(),
        agent_start_us: 1,
        partition: 0,
        sequence: 0,
        records: vec![],
        coverage: seconds.iter().map(report).collect(),
        announced_addresses,
    }
}

#[test]
fn a_flood_of_announcements_is_refused_in_no_time_and_makes_room_when_leases_run_out() {
    let refused = Counter::default();
    let mut announced = Announcements::new(refused.clone());
    let flood = |agent, seconds, first: u32, count: u32| {
        let addresses = (first..first + count).map(|bits| std::net::Ipv4Addr::from(bits).into());
        batch(agent, &[seconds], addresses.collect())
    };
    let cap = MAX_ANNOUNCED as u32;
    announced.renew(&flood("a", 0, 0, cap));
    let begun = std::time::Instant::now();
    announced.renew(&flood("b", 0, cap, 10_000));
    // Looking through all leases for each address took half a minute.
    assert!(begun.elapsed().as_secs() < 5);
    assert_eq!((announced.announced.len(), refused.get()), (MAX_ANNOUNCED, 10_000));
    announced.renew(&flood("b", 60, cap, 10_000));
    assert_eq!((announced.announced.len(), refused.get()), (10_000, 10_000));
}

#[test]
fn leases_of_one_address_are_bounded_and_so_is_the_time_to_add_them() {
    let mut announced = Announcements::default();
    let address = IpAddr::from([10, 0, 0, 1]);
    // Every other minute of a day, with a hole after each: as many leases as a batch has reports.
    let minutes: Vec<u64> = (0..360).map(|number| number * 120).collect();
    let addresses: Vec<IpAddr> =
        (0..10_000_u32).map(|bits| std::net::Ipv4Addr::from(0x0a00_0001 + bits).into()).collect();
    let begun = std::time::Instant::now();
    for _ in 0..3 {
        announced.renew(&batch("a", &minutes, addresses.clone()));
    }
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    assert_eq!(announced.announced[&address].leases.len(), MAX_LEASES);
    let seen = |announced: &Announcements, seconds| {
        announced.elsewhere(address, interval(seconds), false, "b")
    };
    // The latest are kept; about the time before these nothing is claimed.
    assert!(seen(&announced, 359 * 120));
    assert!(!seen(&announced, 359 * 120 - 60));
    announced.renew(&batch("c", &[360 * 120], vec![address]));
    announced.renew(&batch("a", &[0], vec![address]));
    assert_eq!(announced.announced[&address].leases.len(), MAX_LEASES);
    assert!(seen(&announced, 359 * 120));
    assert!(!seen(&announced, 0));
}

#[test]
fn agents_are_bounded_and_the_silent_ones_make_room() {
    let refused = Counter::default();
    let mut announced = Announcements::new(refused.clone());
    for agent in 0..MAX_AGENTS {
        announced.renew(&batch(&format!("agent-{agent}"), &[0], vec![]));
    }
    announced.renew(&batch("one more", &[10], vec![]));
    assert_eq!((announced.heard_us.len(), refused.get()), (MAX_AGENTS, 1));
    announced.renew(&batch("much later", &[4_000], vec![]));
    assert_eq!((announced.heard_us.len(), refused.get()), (1, 1));
}
