//! Exactly once, whatever dies when: known records through a real Apache Kafka broker, `flowtrail ingest`
//! processes that are killed, and the real engine behind a door that fails. Needs Java 17 and Maven: `make
//! test-kafka`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::faults::{Door, Fault};
use flowtrail_e2e::flowtrail::{Process, free_address};
use flowtrail_e2e::published::{Agents, Published, names};
use flowtrail_e2e::scenario::flowtrail_beside;
use flowtrail_e2e::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const TOPIC: &str = "flowtrail.flows.v1";
const PARTITIONS: u32 = 4;
const KILLS: u32 = 50;
const LONG: Duration = Duration::from_secs(90);

struct Bench {
    directory: tempfile::TempDir,
    flowtrail: PathBuf,
    broker: Broker,
    door: Door,
    store: Store,
    started: u32,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flowtrail = flowtrail_beside(Path::new(env!("CARGO_BIN_EXE_flowtrail-demo"))).unwrap();
        let broker = Broker::start(directory.path()).unwrap();
        let store = Store::start(directory.path()).unwrap();
        let door = Door::open(&store.url()).unwrap();
        let bench = Self { directory, flowtrail, broker, door, store, started: 0 };
        let log = bench.directory.path().join("schema.log");
        let words = ["schema", "apply", "--clickhouse-url", &bench.store.url()];
        let mut apply = Process::start(&bench.flowtrail, words, None, log).unwrap();
        assert!(apply.wait(LONG).unwrap().success(), "{}", apply.output());
        bench.name(0);
        bench
    }

    /// Writes the names file anew: its workloads are of a generation.
    fn name(&self, generation: u32) {
        let path = self.directory.path().join("names.json");
        let partial = path.with_extension("partial");
        std::fs::write(&partial, names(generation).to_string()).unwrap();
        std::fs::rename(partial, path).unwrap();
    }

    fn ingest(&mut self) -> Process {
        self.started += 1;
        let log = self.directory.path().join(format!("ingest-{}.log", self.started));
        let (brokers, url) = (self.broker.address().to_string(), self.door.url());
        let names = self.directory.path().join("names.json").display().to_string();
        let admin = free_address().unwrap().to_string();
        let words = [
            "ingest",
            "--kafka-brokers",
            &brokers,
            "--clickhouse-url",
            &url,
            "--names",
            &names,
            "--admin-listen",
            &admin,
            "--chunk-time",
            "200ms",
            // A dead process is noticed at once.
            "--kafka-property",
            "session.timeout.ms=1000,heartbeat.interval.ms=300",
        ];
        Process::start(&self.flowtrail, words, None, log).unwrap()
    }

    /// What a query answers, as text.
    fn ask(&self, sql: &str) -> String {
        let url = format!("{}/?database=flowtrail", self.store.url());
        let mut answer = ureq::post(&url).send(sql).unwrap();
        answer.body_mut().read_to_string().unwrap().trim().to_owned()
    }

    fn delivered(&self) -> u64 {
        self.ask("SELECT sum(length(batches.sequence)) FROM deliveries").parse().unwrap()
    }

    fn wait_for(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !so() {
            assert!(Instant::now() < deadline, "not {what} in {LONG:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last processes' output.
    fn logs(&self) -> String {
        let last = (self.started.saturating_sub(2)..=self.started).map(|number| {
            let log = self.directory.path().join(format!("ingest-{number}.log"));
            std::fs::read_to_string(log).unwrap_or_default()
        });
        last.collect::<Vec<_>>().join("\n--\n")
    }

    /// `flowtrail schema audit` of all that there is: whether it is content, and what it says.
    fn audit(&self) -> (bool, String) {
        let log = self.directory.path().join("audit.log");
        let url = self.store.url();
        let words = ["schema", "audit", "--from", "0", "--to", "now", "--clickhouse-url", &url];
        let mut audit = Process::start(&self.flowtrail, words, None, log).unwrap();
        let content = audit.wait(LONG).unwrap().success();
        (content, audit.output())
    }

    /// Every record is there once, every connection is counted once, and what is summed is so.
    fn judge(&self, published: Published) {
        let Published { batches, records, connections, sent_bytes, reports } = published;
        let rows = self.ask(
            "SELECT count(), uniqExact(connection_id, interval_start, agent, reporter) FROM flows",
        );
        assert_eq!(rows, format!("{records}\t{records}"), "rows, different rows\n{}", self.logs());
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
        let (content, report) = self.audit();
        assert!(content, "{report}");
        println!("{report}");
    }
}

/// The last midnight (UTC) less a while, on an interval's boundary; microseconds since the epoch.
fn before_midnight(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    (now / 86_400 * 86_400 - seconds) * 1_000_000
}

fn sigkill(process: &Process) {
    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGKILL).unwrap();
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn fifty_deaths_lose_nothing_and_double_nothing() {
    let mut bench = Bench::new();
    bench.broker.create_topic(TOPIC, PARTITIONS.cast_signed()).unwrap();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);

    let brokers = bench.broker.address().to_string();
    let agents = Agents::new(&brokers, TOPIC, PARTITIONS, before_midnight(600), seed).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let publishing = std::thread::spawn({
        let (done, mut agents) = (Arc::clone(&done), agents);
        move || {
            while !done.load(Ordering::Relaxed) {
                agents.publish_interval().unwrap();
                std::thread::sleep(Duration::from_millis(200));
            }
            agents.finish().unwrap()
        }
    });

    let mut second: Option<Process> = None;
    for death in 0..KILLS {
        if death % 15 == 5 {
            second = Some(bench.ingest());
        }
        if death % 15 == 10
            && let Some(second) = second.take()
        {
            second.stop().unwrap();
        }
        if death % 20 == 12 {
            bench.broker.kill();
            std::thread::sleep(Duration::from_secs(1));
            bench.broker.start_again().unwrap();
        }
        bench.name(death % 3);
        let mut ingest = bench.ingest();
        let (process, mut dice) = (ingest.id(), random.fork());
        if random.bool() {
            // Somewhere in the work.
            bench.door.plan(move |_| ordinary_trouble(&mut dice));
            std::thread::sleep(Duration::from_millis(random.u64(300..2_500)));
            sigkill(&ingest);
        } else {
            // Before or after an insert into one of the tables: between insert and commit among it.
            let table = ["flows", "coverage", "deliveries"][random.usize(0..3)];
            let after = random.bool();
            let mut inserts = random.u32(0..6);
            bench.door.plan(move |insert| {
                if insert != table || inserts > 0 {
                    inserts -= u32::from(insert == table);
                    return ordinary_trouble(&mut dice);
                }
                if after { Fault::KillAfter(process) } else { Fault::KillBefore(process) }
            });
            // With two at work the other may be the one that inserts.
            let deadline = Instant::now() + Duration::from_secs(10);
            while ingest.wait(Duration::ZERO).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            if ingest.wait(Duration::ZERO).is_err() {
                sigkill(&ingest);
            }
        }
        drop(ingest);
    }
    drop(second);
    done.store(true, Ordering::Relaxed);
    let published = publishing.join().unwrap();
    println!("{published:?}, {} of them delivered when the last process died", bench.delivered());

    bench.door.plan(|_| Fault::None);
    let ingest = bench.ingest();
    bench.wait_for("delivered", || bench.delivered() >= published.batches);
    ingest.stop().unwrap();
    bench.judge(published);
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
