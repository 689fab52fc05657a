//! The distributed shape with doors locked: packets → Kafka with TLS and logins → ingest → ClickHouse over
//! HTTPS; wrong keys are told from closed doors; what is rejected is in the dead-letter topic. Needs
//! Java 17 and Maven: `make test-kafka`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic is the failing assertion, in helpers too"
)]

mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flowtrail_e2e::broker::Broker;
use flowtrail_e2e::flowtrail::{Process, free_address, get};
use flowtrail_e2e::scenario::flowtrail_beside;
use flowtrail_e2e::store::Store;
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::topic::{DEAD_LETTER_TOPIC, FLOWS_TOPIC};
use flowtrail_schema::{Coverage, FlowBatch, wire};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use tls::{Certificates, HttpsProxy};

const READY: Duration = Duration::from_secs(60);
const PASSWORD: &str = "hunter2";
/// Connections in the capture file, each a record.
const CONNECTIONS: u16 = 5;
const DAY_US: u64 = 86_400_000_000;

/// What all stages use.
struct Place {
    directory: PathBuf,
    flowtrail: PathBuf,
    certificates: Certificates,
}

impl Place {
    fn start(&self, name: &str, words: &[&str]) -> Process {
        let log = self.directory.join(format!("{name}.log"));
        Process::start(&self.flowtrail, words, None, log).unwrap()
    }

    /// Runs a command to its end, which must be good; what it said.
    #[track_caller]
    fn succeeds(&self, name: &str, words: &[&str]) -> String {
        let mut process = self.start(name, words);
        let status = process.wait(READY).unwrap();
        assert!(status.success(), "{}", process.output());
        process.output()
    }

    /// Runs a command that must end with an error that says something, but not the secret.
    #[track_caller]
    fn fails_saying(&self, name: &str, words: &[&str], expected: &str) {
        let mut process = self.start(name, words);
        let status = process.wait(READY).unwrap();
        let said = process.output();
        assert!(!status.success() && said.contains(expected), "{said}");
        assert!(!said.contains("cannot reach") && !said.contains(PASSWORD), "{said}");
    }

    /// Starts what goes on trying, and waits until it says what is wrong.
    #[track_caller]
    fn goes_on_saying(&self, name: &str, words: &[&str], expected: &str) {
        let mut process = self.start(name, words);
        // Reads the file again, as the process may still write.
        let log = self.directory.join(format!("{name}.log"));
        let said = || std::fs::read_to_string(&log).unwrap().contains(expected);
        process.wait_until(expected, READY, said).unwrap();
        assert!(!process.output().contains(PASSWORD), "{}", process.output());
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

#[test]
#[ignore = "needs Apache Kafka: make test-kafka"]
fn locked_doors_open_with_the_right_keys_only() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().to_owned();
    let certificates = Certificates::make(&directory);
    let login = format!("flowtrail:{PASSWORD}");
    let broker = Broker::start_secure(&directory, &certificates.directory, &login).unwrap();
    broker.create_topic(FLOWS_TOPIC, 2).unwrap();
    broker.create_topic(DEAD_LETTER_TOPIC, 1).unwrap();
    let store = Store::start(&directory).unwrap();
    let plain = store.url().strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = HttpsProxy::start(&certificates, plain, PASSWORD);
    let flowtrail = flowtrail_beside(Path::new(env!("CARGO_BIN_EXE_flowtrail-demo"))).unwrap();
    let place = Place { directory, flowtrail, certificates };
    let password_file = place.write("password", format!("{PASSWORD}\n"));
    let wrong_file = place.write("wrong", "hunter3");
    let ca_file = place.certificates.file("ca.pem");

    let url = format!("https://{}", proxy.address);
    let https = ["--clickhouse-url", &url, "--clickhouse-user", "default"];
    let clickhouse = [&https[..], &["--clickhouse-ca-file", &ca_file]].concat();
    let right = [&clickhouse[..], &["--clickhouse-password-file", &password_file]].concat();
    place.succeeds("apply", &[&["schema", "apply"], &right[..]].concat());
    wrong_keys_to_clickhouse(&place, &https, &clickhouse, &wrong_file);

    let sasl = broker.login_address().to_string();
    let tls = ["--kafka-tls", "--kafka-ca-file", &ca_file, "--kafka-brokers"];
    let user = ["--kafka-user", "flowtrail", "--kafka-sasl-mechanism"];
    let kafka = |mechanism, password| {
        let login = [mechanism, "--kafka-password-file", password];
        [&tls[..], &[sasl.as_str()], &user[..], &login[..]].concat()
    };
    let file = place.write("packets.pcap", pcap());
    let capture = |node, kafka: &[&str]| {
        let words = ["capture", "--read", &file, "--node", node, "--admin-listen", "127.0.0.1:0"];
        place.succeeds(node, &[&words[..], kafka].concat());
    };
    capture("scram", &kafka("scram-sha-512", &password_file));
    capture("plain", &kafka("plain", &password_file));
    let (client, key) =
        (place.certificates.file("client.pem"), place.certificates.file("client.key"));
    let shown = ["--kafka-certificate-file", &client, "--kafka-key-file", &key];
    let address = broker.certificate_address().to_string();
    capture("certificate", &[&tls[..], &[&address], &shown[..]].concat());

    let agent = ["capture", "--read", &file, "--admin-listen", "127.0.0.1:0"];
    let wrong = [&agent[..], &kafka("scram-sha-512", &wrong_file)].concat();
    place.goes_on_saying("wrong-password", &wrong, "--kafka-user and its password");
    let other_ca = place.certificates.file("other-ca.pem");
    let wrong = [&agent[..], &["--kafka-tls", "--kafka-ca-file", &other_ca]].concat();
    let wrong = [&wrong[..], &["--kafka-brokers", &address], &shown[..]].concat();
    place.goes_on_saying("wrong-ca", &wrong, "--kafka-tls and --kafka-ca-file");
    // So that it is the consumer who says it.
    let ingest = ["ingest", "--admin-listen", "127.0.0.1:0", "--dead-letter-topic", ""];
    let wrong = [&ingest[..], &right[..], &kafka("scram-sha-256", &wrong_file)].concat();
    place.goes_on_saying("ingest-wrong-password", &wrong, "--kafka-user and its password");

    produce_what_is_rejected(&broker);
    let admin = free_address().unwrap();
    let listen = admin.to_string();
    let ingest = ["ingest", "--admin-listen", &listen];
    let words = [&ingest[..], &right[..], &kafka("scram-sha-256", &password_file)].concat();
    let mut process = place.start("ingest", &words);
    process.wait_ready(admin, READY).unwrap();
    let count =
        format!("{}/?database=flowtrail&query=SELECT%20count()%20FROM%20flows", store.url());
    let expected = (3 * CONNECTIONS).to_string();
    let inserted = || get(&count).is_ok_and(|text| text.trim() == expected);
    process.wait_until("inserting all rows", READY, inserted).unwrap();
    dead_letters_say_where_they_are_from(&broker);
    let metrics = || get(&format!("http://{admin}/metrics")).unwrap_or_default();
    let read =
        || (0..2).all(|n| metrics().contains(&format!("lag_messages{{partition=\"{n}\"}} 0")));
    process.wait_until("showing no lag", READY, read).unwrap();
    let metrics = metrics();
    for expected in [
        "ingest_rejected_total{reason=\"not a FlowBatch\"} 1",
        "ingest_rejected_total{reason=\"interval after its message\"} 1",
        "ingest_dead_letters_total{outcome=\"delivered\"} 2",
        "ingest_lag_seconds{partition=\"0\"} 0",
    ] {
        assert!(metrics.contains(expected), "{expected}\n{metrics}");
    }
    process.stop().unwrap();
}

fn wrong_keys_to_clickhouse(place: &Place, https: &[&str], with_ca: &[&str], wrong_file: &str) {
    let wrong = [with_ca, &["--clickhouse-password-file", wrong_file]].concat();
    for command in [&["schema", "check"][..], &["query", "--listen", "127.0.0.1:0"]] {
        let (refused, untrusted) = ("does not let default in", "--clickhouse-ca-file");
        place.fails_saying("refused", &[command, &wrong].concat(), refused);
        place.fails_saying("untrusted", &[command, https].concat(), untrusted);
    }
    let wrong = [&["ingest", "--admin-listen", "127.0.0.1:0"], &wrong[..]].concat();
    place.fails_saying("ingest-refused", &wrong, "--clickhouse-password-file");
}

/// A message that is none, and one from a clock that is a year ahead.
fn produce_what_is_rejected(broker: &Broker) {
    let ahead = IntervalLength::default().interval_at(now_us() + 365 * DAY_US);
    let report = Coverage {
        interval: ahead,
        interfaces: 1,
        packets_seen: 1,
        packets_dropped: 0,
        flows_evicted: 0,
        records_emitted: 0,
        records_dropped: 0,
    };
    let batch = FlowBatch {
        agent: "ahead".into(),
        node: "ahead".into(),
        agent_start_us: 1,
        partition: 1,
        sequence: 0,
        records: vec![],
        coverage: vec![report],
        announced_addresses: vec![],
    };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .create()
        .unwrap();
    for payload in [&b"garbage"[..], &wire::encode(&batch)] {
        let record = BaseRecord::<(), _>::to(FLOWS_TOPIC).partition(1).payload(payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(READY).unwrap();
}

fn dead_letters_say_where_they_are_from(broker: &Broker) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.address().to_string())
        .set("group.id", "people")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(DEAD_LETTER_TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut offsets = Vec::new();
    for expected in ["not a FlowBatch", "interval after its message"] {
        let letter = consumer.poll(READY).expect("a letter").unwrap();
        let headers: BTreeMap<_, _> = letter
            .headers()
            .unwrap()
            .iter()
            .map(|header| (header.key, std::str::from_utf8(header.value.unwrap()).unwrap()))
            .collect();
        assert_eq!(headers["reason"], expected);
        assert_eq!((headers["topic"], headers["partition"]), (FLOWS_TOPIC, "1"));
        let time_us = headers["time"].parse::<u64>().unwrap() * 1_000;
        assert!(now_us().abs_diff(time_us) < DAY_US, "{headers:?}");
        offsets.push(headers["offset"].parse::<u64>().unwrap());
        if expected == "not a FlowBatch" {
            assert_eq!(letter.payload(), Some(&b"garbage"[..]));
        }
    }
    assert_eq!(offsets[1], offsets[0] + 1);
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Connections that were refused, all within the interval before the last.
fn pcap() -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    file.extend([0; 8]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(101_u32.to_le_bytes()); // LINKTYPE_RAW
    let second = (now_us() / 10_000_000 * 10 - 20) as u32;
    for number in 0..CONNECTIONS {
        let (client, server) = (([10, 0, 0, 1], 40_000 + number), ([10, 0, 0, 2], 80));
        let (syn, rst_ack) = (0x02_u8, 0x14_u8);
        for (answer, from, to, flags) in [(0, client, server, syn), (1, server, client, rst_ack)] {
            file.extend(second.to_le_bytes());
            file.extend((u32::from(number) * 10 + answer).to_le_bytes());
            file.extend([40_u32.to_le_bytes(), 40_u32.to_le_bytes()].concat());
            file.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
            file.extend([from.0, to.0].concat());
            file.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
            file.extend((100 * (1 - answer)).to_be_bytes());
            file.extend((101 * answer).to_be_bytes());
            file.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
    }
    file
}
