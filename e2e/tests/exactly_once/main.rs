//! Exactly once, whatever dies when: known records through a real Apache Kafka broker, `flowtrail ingest`
//! processes that are killed, and the real engine behind a door that fails. Needs Java 17 and Maven: `make
//! test-kafka`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests: helpers too")]

mod bench;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::faults::Fault;
use flowtrail_e2e::flowtrail::Process;
use flowtrail_e2e::published::Published;
use flowtrail_e2e::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use bench::{Bench, LONG, PARTITIONS, Shared};

const DEATHS: u32 = 50;

type Case = fn(Bench<'_>);

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn every_record_is_in_the_tables_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut shared = Shared {
        broker: Broker::start(directory.path()).unwrap(),
        store: Store::start(directory.path()).unwrap(),
        directory: directory.path().to_owned(),
    };
    let cases: [(&'static str, Case); 7] = [
        ("midnight", a_chunk_over_midnight_is_done_again_with_the_names_it_had),
        ("failed_view", a_view_that_failed_is_completed),
        ("late_insert", an_insert_that_comes_late_changes_nothing),
        ("zombie", a_process_that_wakes_up_after_losing_its_partitions_does_no_harm),
        ("expired", offsets_that_kafka_no_longer_has_are_recorded_as_lost),
        ("anew", a_topic_that_is_made_anew_is_read_from_its_start),
        ("fifty_deaths", fifty_deaths_lose_nothing_and_double_nothing),
    ];
    for (name, case) in cases {
        let begun = Instant::now();
        println!("-- {name}");
        case(Bench::new(&mut shared, name));
        println!("{} s", begun.elapsed().as_secs());
    }
}

fn signal(process: &Process, signal: Signal) {
    kill(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
}

/// ClickHouse on a bad day: slow, refusing, its answers lost.
fn ordinary_trouble(dice: &mut fastrand::Rng) -> Fault {
    match dice.u32(0..20) {
        0 => Fault::Slow(Duration::from_millis(300)),
        1 => Fault::Refuse,
        2 => Fault::LoseAnswer,
        _ => Fault::None,
    }
}

fn fifty_deaths_lose_nothing_and_double_nothing(mut bench: Bench<'_>) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let done = Arc::new(AtomicBool::new(false));
    let publishing = std::thread::spawn({
        let (done, mut agents) = (Arc::clone(&done), bench.agents(600, seed));
        move || {
            while !done.load(Ordering::Relaxed) {
                agents.publish_interval().unwrap();
                std::thread::sleep(Duration::from_millis(400));
            }
            agents.finish().unwrap()
        }
    });

    let mut second: Option<Process> = None;
    for death in 0..DEATHS {
        if death % 15 == 5 {
            second = Some(bench.ingest());
        }
        if death % 15 == 10
            && let Some(second) = second.take()
        {
            second.stop().unwrap();
        }
        if death % 20 == 12 {
            bench.broker().kill();
            std::thread::sleep(Duration::from_secs(1));
            bench.broker().start_again().unwrap();
        }
        bench.name_pods(death % 3);
        let inserts = Arc::new(AtomicU64::new(0));
        let ingest = bench.ingest();
        let (process, mut dice, counted) = (ingest.id(), random.fork(), Arc::clone(&inserts));
        // Before or after an insert into one of the tables (between insert and commit among it), or
        // anywhere in the work.
        let table = ["flows", "coverage", "deliveries", "any"][random.usize(0..4)];
        let (after, mut wait) = (random.bool(), random.u32(0..4));
        bench.door.plan(move |insert| {
            counted.fetch_add(1, Ordering::Relaxed);
            if insert != table || wait > 0 {
                wait = wait.saturating_sub(u32::from(insert == table));
                return ordinary_trouble(&mut dice);
            }
            if after { Fault::KillAfter(process) } else { Fault::KillBefore(process) }
        });
        // With two at work the other may be the one that inserts.
        let deadline = Instant::now() + Duration::from_secs(10);
        let works = || inserts.load(Ordering::Relaxed) > 0;
        let mut ingest = ingest;
        while ingest.wait(Duration::ZERO).is_err() && Instant::now() < deadline {
            if table == "any" && works() {
                std::thread::sleep(Duration::from_millis(random.u64(0..1_500)));
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if ingest.wait(Duration::ZERO).is_err() {
            signal(&ingest, Signal::SIGKILL);
        }
    }
    drop(second);
    done.store(true, Ordering::Relaxed);
    let published = publishing.join().unwrap();
    println!("{published:?}, {} batches delivered when the last process died", bench.delivered());
    bench.door.plan(|_| Fault::None);
    let ingest = bench.ingest();
    bench.wait_for_delivery(published);
    ingest.stop().unwrap();
    let again = bench.said("doing a chunk again that was begun and not finished");
    println!("{again} chunks were begun by one process and done again by another");
    assert!(again >= 10, "deaths hit nothing");
    bench.judge(published);
}

fn a_chunk_over_midnight_is_done_again_with_the_names_it_had(mut bench: Bench<'_>) {
    bench.chunk_time = "3s";
    let mut agents = bench.agents(100, 1);
    let published = bench.publish(&mut agents, 20);
    let ingest = bench.ingest();
    let process = ingest.id();
    let mut first = true;
    // Another partition's insert is under way beside it.
    bench.door.plan(move |table| match table {
        "flows" if std::mem::take(&mut first) => Fault::KillAfter(process),
        _ => Fault::Refuse,
    });
    let mut ingest = ingest;
    ingest.wait(LONG).unwrap();
    // Each day of a chunk is an insert of its own.
    let chunks =
        "SELECT uniqExact(toDate(interval_start)), uniqExact(partition, chunk_start) FROM flows";
    assert_eq!(bench.ask(chunks), "1\t1");
    let first = bench.ask("SELECT any(partition), any(chunk_start), count() FROM flows");
    let (place, rows) = first.rsplit_once('\t').unwrap();

    bench.name_pods(1);
    bench.door.plan(|_| Fault::None);
    let ingest = bench.ingest();
    bench.wait_for_delivery(published);
    ingest.stop().unwrap();
    let named = format!(
        "SELECT countIf(client_workload LIKE '%-0'), countIf(client_workload LIKE '%-1') > 0, \
         uniqExact(toDate(interval_start)) FROM flows WHERE (partition, chunk_start) = ({})",
        place.replace('\t', ",")
    );
    // What was there keeps its names, the other day has those of now.
    assert_eq!(bench.ask(&named), format!("{rows}\t1\t2"));
    assert!(bench.logs().contains("begun and not finished"), "{}", bench.logs());
    bench.judge(published);
}

fn a_view_that_failed_is_completed(mut bench: Bench<'_>) {
    let mut agents = bench.agents(3_600, 2);
    bench.ask("ALTER TABLE edges_1h ADD CONSTRAINT trap CHECK 0");
    let published = bench.publish(&mut agents, 10);
    let ingest = bench.ingest();
    bench.wait_for("written to flows, the view failing", || {
        bench.ask("SELECT count() > 0 FROM flows") == "1"
            && bench.logs().contains("insert failed, retrying")
    });
    // In the middle of the chain of views.
    assert_eq!(bench.ask("SELECT count() > 0 FROM edges_1m"), "1");
    assert_eq!(bench.ask("SELECT count() FROM edges_1h"), "0");
    // Whoever takes over has other names; what is written stays as it was.
    signal(&ingest, Signal::SIGKILL);
    drop(ingest);
    bench.name_pods(1);
    bench.ask("ALTER TABLE edges_1h DROP CONSTRAINT trap");
    let ingest = bench.ingest();
    bench.wait_for_delivery(published);
    ingest.stop().unwrap();
    bench.judge(published);
}

fn an_insert_that_comes_late_changes_nothing(mut bench: Bench<'_>) {
    let mut agents = bench.agents(3_600, 3);
    let published = bench.publish(&mut agents, 10);
    let mut ingest = bench.ingest();
    let process = ingest.id();
    let late = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&late);
    bench.door.plan(move |table| {
        if table == "flows" && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            Fault::KillAndDoLater(process, Duration::from_secs(15))
        } else {
            Fault::None
        }
    });
    ingest.wait(LONG).unwrap();
    let died = Instant::now();
    bench.name_pods(1);
    let ingest = bench.ingest();
    bench.wait_for_delivery(published);
    assert!(died.elapsed() < Duration::from_secs(14), "the machine is too slow for this test");
    let rows = bench.ask("SELECT count() FROM flows");
    std::thread::sleep(Duration::from_secs(16).saturating_sub(died.elapsed()));
    assert_eq!(bench.ask("SELECT count() FROM flows"), rows);
    ingest.stop().unwrap();
    bench.judge(published);
}

fn a_process_that_wakes_up_after_losing_its_partitions_does_no_harm(mut bench: Bench<'_>) {
    let mut agents = bench.agents(3_600, 4);
    let published = bench.publish(&mut agents, 10);
    let zombie = bench.ingest();
    let process = zombie.id();
    let stopped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&stopped);
    bench.door.plan(move |table| {
        if table == "flows" && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            Fault::StopBefore(process)
        } else {
            Fault::None
        }
    });
    bench.wait_for("stopped", || stopped.load(Ordering::Relaxed) > 0);
    bench.name_pods(1);
    let other = bench.ingest();
    bench.wait_for_delivery(published);
    signal(&zombie, Signal::SIGCONT);
    // It finds out, and both go on.
    let published = bench.publish(&mut agents, 10);
    bench.wait_for_delivery(published);
    let output = zombie.output();
    zombie.stop().unwrap();
    other.stop().unwrap();
    assert!(output.contains("partitions given up"), "{output}");
    bench.judge(published);
}

fn offsets_that_kafka_no_longer_has_are_recorded_as_lost(mut bench: Bench<'_>) {
    let mut agents = bench.agents(3_600, 5);
    let ingest = bench.ingest();
    let first = bench.publish(&mut agents, 5);
    bench.wait_for_delivery(first);
    ingest.stop().unwrap();
    let second = bench.publish(&mut agents, 5);
    // Each partition has 25 messages of each half.
    let name = bench.name;
    bench.broker().delete_records(name, 0, 40).unwrap();
    let ingest = bench.ingest();
    let all = Published { batches: second.batches - 15, ..second };
    bench.wait_for_delivery(all);
    ingest.stop().unwrap();
    assert_eq!(bench.delivered(), all.batches);
    let lost =
        "SELECT partition, sum(lost_offsets) FROM deliveries GROUP BY partition ORDER BY partition";
    assert_eq!(bench.ask(lost), "0\t15\n1\t0\n2\t0\n3\t0");
    let report = bench.audit().unwrap_err();
    assert!(report.contains("15 were gone from Kafka before they were read"), "{report}");
    println!("{report}");
}

fn a_topic_that_is_made_anew_is_read_from_its_start(mut bench: Bench<'_>) {
    let mut old = bench.agents(7_200, 6);
    let ingest = bench.ingest();
    let before = bench.publish(&mut old, 5);
    bench.wait_for_delivery(before);
    drop(old);
    let name = bench.name;
    bench.broker().delete_topic(name).unwrap();
    bench.broker().create_topic(name, PARTITIONS.cast_signed()).unwrap();
    // More than the old one had: an offset that is carried over would skip them.
    let mut new = bench.agents(3_600, 7);
    let after = bench.publish(&mut new, 10);
    let sum = |of: fn(&Published) -> u64| of(&before) + of(&after);
    let all = Published {
        batches: sum(|published| published.batches),
        records: sum(|published| published.records),
        connections: sum(|published| published.connections),
        sent_bytes: sum(|published| published.sent_bytes),
        reports: sum(|published| published.reports),
    };
    bench.wait_for_delivery(all);
    ingest.stop().unwrap();
    assert_eq!(bench.ask("SELECT uniqExact(topic_id) FROM deliveries"), "2");
    bench.judge(all);
}
