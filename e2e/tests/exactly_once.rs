//! Exactly once, whatever dies when: known records through a real Apache Kafka broker, `flowtrail ingest`
//! processes that are killed, and the real engine behind a door that fails. Needs Java 17 and Maven: `make
//! test-kafka`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::faults::{Door, Fault};
use flowtrail_e2e::flowtrail::{Process, free_address};
use flowtrail_e2e::published::{Agents, Published, names};
use flowtrail_e2e::scenario::flowtrail_beside;
use flowtrail_e2e::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PARTITIONS: u32 = 4;
const DEATHS: u32 = 50;
const LONG: Duration = Duration::from_secs(180);

/// One broker and one engine for all cases: libchdb takes one a process.
struct Shared {
    broker: Broker,
    store: Store,
    directory: PathBuf,
}

struct Bench<'a> {
    shared: &'a mut Shared,
    /// Of the topic, the group and the database.
    name: &'static str,
    directory: PathBuf,
    flowtrail: PathBuf,
    door: Door,
    chunk_time: &'static str,
    started: u32,
}

impl<'a> Bench<'a> {
    fn new(shared: &'a mut Shared, name: &'static str) -> Self {
        shared.broker.create_topic(name, PARTITIONS.cast_signed()).unwrap();
        let door = Door::open(&shared.store.url()).unwrap();
        let directory = shared.directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let flowtrail = flowtrail_beside(Path::new(env!("CARGO_BIN_EXE_flowtrail-demo"))).unwrap();
        let chunk_time = "200ms";
        let bench = Self { shared, name, directory, flowtrail, door, chunk_time, started: 0 };
        bench.schema("apply", &[]).unwrap();
        bench.name_pods(0);
        bench
    }

    fn broker(&mut self) -> &mut Broker {
        &mut self.shared.broker
    }

    fn brokers(&self) -> String {
        self.shared.broker.address().to_string()
    }

    fn url(&self) -> String {
        self.shared.store.url()
    }

    /// Agents that begin some time before the last midnight (UTC).
    fn agents(&self, seconds: u64, seed: u64) -> Agents {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let start_us = (now / 86_400 * 86_400 - seconds) * 1_000_000;
        Agents::new(&self.brokers(), self.name, PARTITIONS, start_us, seed).unwrap()
    }

    /// Publishes some intervals at once.
    fn publish(&self, agents: &mut Agents, intervals: u32) -> Published {
        for _ in 0..intervals {
            agents.publish_interval().unwrap();
        }
        agents.finish().unwrap()
    }

    /// Writes the names file anew: its workloads are of a generation.
    fn name_pods(&self, generation: u32) {
        let path = self.directory.join("names.json");
        let partial = path.with_extension("partial");
        std::fs::write(&partial, names(generation).to_string()).unwrap();
        std::fs::rename(partial, path).unwrap();
    }

    fn ingest(&mut self) -> Process {
        self.started += 1;
        let log = self.directory.join(format!("ingest-{}.log", self.started));
        let (brokers, url) = (self.brokers(), self.door.url());
        let names = self.directory.join("names.json").display().to_string();
        let admin = free_address().unwrap().to_string();
        #[rustfmt::skip]
        let words = [
            "ingest", "--kafka-brokers", &brokers, "--kafka-topic", self.name, "--group", self.name,
            "--clickhouse-url", &url, "--clickhouse-database", self.name, "--names", &names,
            "--admin-listen", &admin, "--chunk-time", self.chunk_time,
            // A dead process is noticed at once.
            "--kafka-property", "session.timeout.ms=1000,heartbeat.interval.ms=300",
        ];
        Process::start(&self.flowtrail, words, None, log).unwrap()
    }

    /// Runs `flowtrail schema`; what it says, also if it fails.
    fn schema(&self, action: &str, more: &[&str]) -> Result<String, String> {
        let log = self.directory.join(format!("{action}.log"));
        let url = self.url();
        let words =
            ["schema", action, "--clickhouse-url", &url, "--clickhouse-database", self.name];
        let words = words.iter().chain(more);
        let mut process = Process::start(&self.flowtrail, words, None, log).unwrap();
        let succeeded = process.wait(LONG).unwrap().success();
        if succeeded { Ok(process.output()) } else { Err(process.output()) }
    }

    fn audit(&self) -> Result<String, String> {
        self.schema("audit", &["--from", "0", "--to", "now"])
    }

    /// What a query answers, as text.
    fn ask(&self, sql: &str) -> String {
        let url = format!("{}/?database={}", self.url(), self.name);
        let answer =
            ureq::post(&url).send(sql).map(|mut answer| answer.body_mut().read_to_string());
        answer.unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap().trim().to_owned()
    }

    fn delivered(&self) -> u64 {
        self.ask("SELECT sum(length(batches.sequence)) FROM deliveries").parse().unwrap()
    }

    fn wait_for(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !so() {
            let logs = || self.logs();
            assert!(Instant::now() < deadline, "not {what} in {LONG:?}\n{}", logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for_delivery(&self, published: Published) {
        let all = published.batches;
        self.wait_for(&format!("delivered all {all}"), || self.delivered() >= all);
    }

    /// The last processes' output.
    fn logs(&self) -> String {
        let last = (self.started.saturating_sub(2)..=self.started).map(|number| {
            let log = self.directory.join(format!("ingest-{number}.log"));
            std::fs::read_to_string(log).unwrap_or_default()
        });
        last.collect::<Vec<_>>().join("\n--\n")
    }

    /// How often all processes said something.
    fn said(&self, words: &str) -> usize {
        let logs = (1..=self.started).map(|number| {
            let log = self.directory.join(format!("ingest-{number}.log"));
            std::fs::read_to_string(log).unwrap_or_default().matches(words).count()
        });
        logs.sum()
    }

    /// Every record is there once, every connection is counted once, and what is summed is so.
    fn judge(&self, published: Published) {
        let Published { batches, records, connections, sent_bytes, reports } = published;
        let rows =
            "SELECT count(), uniqExact(connection_id, interval_start, agent, reporter) FROM flows";
        assert_eq!(self.ask(rows), format!("{records}\t{records}"), "{rows}\n{}", self.logs());
        let delivered = "SELECT sum(length(batches.sequence)), sum(records), sum(coverage_reports), \
                         sum(duplicate_batches), sum(lost_offsets) FROM deliveries";
        assert_eq!(self.ask(delivered), format!("{batches}\t{records}\t{reports}\t0\t0"));
        assert_eq!(self.ask("SELECT count() FROM coverage"), reports.to_string());
        // Sticky, through all deaths: one observation counts for the whole life of a connection.
        let primaries = "SELECT count(), max(points), max(many) FROM (SELECT uniqExact(agent, interface) AS points, \
                         count() > uniqExact(interval_start) AS many FROM flows WHERE primary GROUP BY connection_id)";
        assert_eq!(self.ask(primaries), format!("{connections}\t1\t0"));
        for table in ["flows WHERE primary", "edges_1m", "edges_1h"] {
            let sums = self.ask(&format!("SELECT sum(opened), sum(sent_bytes) FROM {table}"));
            assert_eq!(sums, format!("{connections}\t{sent_bytes}"), "{table}");
        }
        let report = self.audit().unwrap_or_else(|report| panic!("{report}\n{}", self.logs()));
        println!("{report}");
    }
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn every_record_is_in_the_tables_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut shared = Shared {
        broker: Broker::start(directory.path()).unwrap(),
        store: Store::start(directory.path()).unwrap(),
        directory: directory.path().to_owned(),
    };
    let cases: [(&'static str, fn(Bench<'_>)); 7] = [
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
    let there = bench.said("chunk was in the tables already");
    println!("{again} chunks were done again, {there} were there and not committed");
    assert!(again >= 10 && there >= 3, "deaths hit nothing");
    bench.judge(published);
}

fn a_chunk_over_midnight_is_done_again_with_the_names_it_had(mut bench: Bench<'_>) {
    bench.chunk_time = "3s";
    let mut agents = bench.agents(100, 1);
    let published = bench.publish(&mut agents, 20);
    let ingest = bench.ingest();
    let process = ingest.id();
    bench.door.plan(
        move |table| {
            if table == "flows" { Fault::KillAfter(process) } else { Fault::None }
        },
    );
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
