//! A real Apache Kafka broker on loopback, for as long as the value lives.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

use crate::flowtrail::Process;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/broker.sh");
/// Starting takes seconds; on a busy machine, the first time, some more.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A broker that runs, or is away for a while.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    directory: PathBuf,
    process: Option<Process>,
}

impl Broker {
    /// Gets the broker's jars if need be, and starts it on a data directory and a free port.
    ///
    /// # Errors
    /// Without Java 17 or Maven, or if the broker does not listen in time; with its log.
    pub fn start(directory: &Path) -> Result<Self> {
        let jars =
            Command::new(SCRIPT).arg("jars").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if !jars.success() {
            bail!("no Kafka to test against: see the message above");
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports()?));
        let mut broker = Self { address, directory: directory.to_owned(), process: None };
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
        let mut process = Process::start(Path::new(SCRIPT), ["run", &data, &port], None, log)?;
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
        let admin: AdminClient<_> =
            ClientConfig::new().set("bootstrap.servers", self.address.to_string()).create()?;
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
        for topic in made {
            topic.map_err(|(name, code)| anyhow!("topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A free port whose neighbour is free too.
fn free_ports() -> Result<u16> {
    (0..100)
        .find_map(|_| {
            let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
            let port = first.local_addr().ok()?.port();
            let next = port.checked_add(1)?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, next)).ok().map(|_| port)
        })
        .context("no two free ports in a row")
}
