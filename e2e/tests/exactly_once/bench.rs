//! One case's part of the broker and the engine, and the judgement on it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::faults::Door;
use flowtrail_e2e::flowtrail::{Process, free_address};
use flowtrail_e2e::published::{Agents, Published, names};
use flowtrail_e2e::scenario::flowtrail_beside;
use flowtrail_e2e::store::Store;

pub(crate) const PARTITIONS: u32 = 4;
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// One broker and one engine for all cases: libchdb takes one a process.
pub(crate) struct Shared {
    pub(crate) broker: Broker,
    pub(crate) store: Store,
    pub(crate) directory: PathBuf,
}

/// A topic, a group and a database of one case, and what it does with them.
pub(crate) struct Bench<'a> {
    shared: &'a mut Shared,
    /// Of the topic, the group and the database.
    pub(crate) name: &'static str,
    pub(crate) directory: PathBuf,
    flowtrail: PathBuf,
    pub(crate) door: Door,
    pub(crate) chunk_time: &'static str,
    started: u32,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(shared: &'a mut Shared, name: &'static str) -> Self {
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

    pub(crate) fn broker(&mut self) -> &mut Broker {
        &mut self.shared.broker
    }

    pub(crate) fn brokers(&self) -> String {
        self.shared.broker.address().to_string()
    }

    pub(crate) fn url(&self) -> String {
        self.shared.store.url()
    }

    /// Agents that begin some time before the last midnight (UTC).
    pub(crate) fn agents(&self, seconds: u64, seed: u64) -> Agents {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let start_us = (now / 86_400 * 86_400 - seconds) * 1_000_000;
        Agents::new(&self.brokers(), self.name, PARTITIONS, start_us, seed).unwrap()
    }

    /// Publishes some intervals at once.
    pub(crate) fn publish(&self, agents: &mut Agents, intervals: u32) -> Published {
        for _ in 0..intervals {
            agents.publish_interval().unwrap();
        }
        agents.finish().unwrap()
    }

    /// Writes the names file anew: its workloads are of a generation.
    pub(crate) fn name_pods(&self, generation: u32) {
        let path = self.directory.join("names.json");
        let partial = path.with_extension("partial");
        std::fs::write(&partial, names(generation).to_string()).unwrap();
        std::fs::rename(partial, path).unwrap();
    }

    pub(crate) fn ingest(&mut self) -> Process {
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
    pub(crate) fn schema(&self, action: &str, more: &[&str]) -> Result<String, String> {
        let log = self.directory.join(format!("{action}.log"));
        let url = self.url();
        let words =
            ["schema", action, "--clickhouse-url", &url, "--clickhouse-database", self.name];
        let words = words.iter().chain(more);
        let mut process = Process::start(&self.flowtrail, words, None, log).unwrap();
        let succeeded = process.wait(LONG).unwrap().success();
        if succeeded { Ok(process.output()) } else { Err(process.output()) }
    }

    pub(crate) fn audit(&self) -> Result<String, String> {
        self.schema("audit", &["--from", "0", "--to", "now"])
    }

    /// What a query answers, as text.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let url = format!("{}/?database={}", self.url(), self.name);
        let answer =
            ureq::post(&url).send(sql).map(|mut answer| answer.body_mut().read_to_string());
        answer.unwrap_or_else(|error| panic!("{sql}: {error}")).unwrap().trim().to_owned()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.ask("SELECT sum(length(batches.sequence)) FROM deliveries").parse().unwrap()
    }

    pub(crate) fn wait_for(&self, what: &str, so: impl Fn() -> bool) {
        let deadline = Instant::now() + LONG;
        while !so() {
            let logs = || self.logs();
            assert!(Instant::now() < deadline, "not {what} in {LONG:?}\n{}", logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn wait_for_delivery(&self, published: Published) {
        let all = published.batches;
        self.wait_for(&format!("delivered all {all}"), || self.delivered() >= all);
    }

    /// The last processes' output.
    pub(crate) fn logs(&self) -> String {
        let last = (self.started.saturating_sub(2)..=self.started).map(|number| {
            let log = self.directory.join(format!("ingest-{number}.log"));
            std::fs::read_to_string(log).unwrap_or_default()
        });
        last.collect::<Vec<_>>().join("\n--\n")
    }

    /// How often all processes said something.
    pub(crate) fn said(&self, words: &str) -> usize {
        let logs = (1..=self.started).map(|number| {
            let log = self.directory.join(format!("ingest-{number}.log"));
            std::fs::read_to_string(log).unwrap_or_default().matches(words).count()
        });
        logs.sum()
    }

    /// Every record is there once, every connection is counted once, and what is summed is so.
    pub(crate) fn judge(&self, published: Published) {
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
        let rollups = [
            "edges_1m",
            "edges_1h",
            "edges_1d",
            "edges_1w",
            "workload_edges_1h",
            "workload_edges_1d",
            "workload_edges_1w",
        ];
        for table in ["flows WHERE primary"].into_iter().chain(rollups) {
            let sums = self.ask(&format!("SELECT sum(opened), sum(sent_bytes) FROM {table}"));
            assert_eq!(sums, format!("{connections}\t{sent_bytes}"), "{table}");
        }
        let hours = "SELECT sum(intervals) FROM (SELECT groupBitmapMerge(intervals) AS intervals FROM coverage_1h GROUP BY agent, start)";
        assert_eq!(
            self.ask(hours),
            self.ask("SELECT uniqExact(agent, interval_start) FROM coverage")
        );
        let report = self.audit().unwrap_or_else(|report| panic!("{report}\n{}", self.logs()));
        println!("{report}");
    }
}
