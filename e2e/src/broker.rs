//! A real Apache Kafka broker on loopback, for as long as the value lives.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::flowtrail::Process;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/broker.sh");
/// Starting takes seconds; on a busy machine, the first time, some more.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A broker that runs, or is away for a while.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    directory: PathBuf,
    secure: Option<(PathBuf, String)>,
    process: Option<Process>,
}

impl Broker {
    /// Gets the broker's jars if need be, and starts it on a data directory and a free port.
    ///
    /// # Errors
    /// Without Java 17 or Maven, or if the broker does not listen in time; with its log.
    pub fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, None)
    }

    /// The same with two more doors, for TLS: `tls` is a directory with `server.pem` (key and certificate)
    /// and `ca.pem`, `login` a user and password separated by a colon.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_secure(directory: &Path, tls: &Path, login: &str) -> Result<Self> {
        Self::start_with(directory, Some((tls.to_owned(), login.to_owned())))
    }

    fn start_with(directory: &Path, secure: Option<(PathBuf, String)>) -> Result<Self> {
        let jars =
            Command::new(SCRIPT).arg("jars").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if !jars.success() {
            bail!("no Kafka to test against: see the message above");
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports()?));
        let mut broker = Self { address, directory: directory.to_owned(), secure, process: None };
        broker.start_again()?;
        Ok(broker)
    }

    /// Kills the broker, as a crash would; what it has acknowledged is in its files.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts a broker that was killed: the same address, the same topics.
    ///
    /// # Errors
    /// If it does not listen in time; with its log.
    pub fn start_again(&mut self) -> Result<()> {
        let data = self.directory.join("broker").display().to_string();
        let port = self.address.port().to_string();
        let log = self.directory.join("broker.log");
        let mut words = vec!["run".to_owned(), data, port];
        if let Some((tls, login)) = &self.secure {
            words.extend([tls.display().to_string(), login.clone()]);
        }
        let mut process = Process::start(Path::new(SCRIPT), words, None, log)?;
        let listens = || TcpStream::connect(self.address).is_ok();
        process.wait_until("listening", START_TIMEOUT, listens)?;
        self.process = Some(process);
        Ok(())
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let made =
                self.ask(async |admin| admin.create_topics([&topic], &AdminOptions::new()).await)?;
            match made.into_iter().next() {
                // One of the name is on its way out.
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)))
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Some(Err((name, code))) => bail!("topic {name}: {code}"),
                _ => return Ok(()),
            }
        }
    }

    /// Deletes a topic with all that is in it.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        let gone =
            self.ask(async |admin| admin.delete_topics(&[name], &AdminOptions::new()).await)?;
        gone.into_iter().try_for_each(|topic| {
            topic.map(drop).map_err(|(name, code)| anyhow!("topic {name}: {code}"))
        })
    }

    /// Deletes what a partition has before an offset, as retention does.
    ///
    /// # Errors
    /// If the broker refuses.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let done =
            self.ask(async |admin| admin.delete_records(&list, &AdminOptions::new()).await)?;
        Ok(done.elements().iter().try_for_each(|element| element.error())?)
    }

    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&AdminClient<DefaultClientContext>) -> KafkaResult<T>,
    ) -> Result<T> {
        let admin: AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", self.address.to_string()).create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(question(&admin))?)
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients reach it with TLS and a login.
    pub fn login_address(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), self.address.port() + 2)
    }

    /// Where clients reach it with TLS and a certificate of their own.
    pub fn certificate_address(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), self.address.port() + 3)
    }
}

/// A free port whose three neighbours are free too.
fn free_ports() -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
    (0..100)
        .find_map(|_| {
            let first = bind(0)?;
            let port = first.local_addr().ok()?.port();
            let neighbours: Option<Vec<_>> = (1..4).map(|n| bind(port.checked_add(n)?)).collect();
            neighbours.map(|_| port)
        })
        .context("no four free ports in a row")
}
