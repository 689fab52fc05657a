//! A real Apache Kafka broker on loopback, for as long as the value lives.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

use crate::flowtrail::Process;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka/broker.sh");
/// Starting takes seconds; on a busy machine, the first time, some more.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    _process: Process,
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
        let port = free_ports()?.to_string();
        let data = directory.join("broker").display().to_string();
        let arguments = ["run", &data, &port];
        let mut process =
            Process::start(Path::new(SCRIPT), arguments, None, directory.join("broker.log"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
        process.wait_until("listening", START_TIMEOUT, || TcpStream::connect(address).is_ok())?;
        Ok(Self { address, _process: process })
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
