//! Network namespaces, and an agent whose batches come out of a channel.

use std::collections::HashMap;
use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use clap::Parser;
use flowtrail_capture::{Agent, CaptureError, Config, Output, Summary};
use flowtrail_schema::topic::Message;
use flowtrail_schema::{FlowBatch, FlowRecord, wire};
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use nix::sched::{CloneFlags, setns};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long anything may take that takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a command, and panics with what it says if it fails.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace of the test's own; gone with the value.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "tests with network namespaces need root");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("flowtrail-{}-{number}-{role}", std::process::id());
        run(&format!("ip netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip` in here.
    pub(crate) fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.name));
    }

    /// Another program in here.
    pub(crate) fn exec(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.name))
    }

    /// A veth pair: `host` in here, eth0 in the other namespace.
    pub(crate) fn connect(&self, host: &str, other: &Self) {
        self.ip(&format!("link add {host} type veth peer name eth0 netns {}", other.name));
        self.ip(&format!("link set {host} up"));
        other.ip("link set eth0 up");
    }

    /// Runs a closure on a thread in here; threads that it starts are in here too.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            inside()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A config as the command line would give it.
pub(crate) fn config(arguments: &[&str]) -> Config {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }
    let defaults = ["capture", "--interval", "1s", "--node", "node-a"];
    Cli::parse_from(defaults.iter().chain(arguments)).config
}

/// An agent that runs in a namespace.
pub(crate) struct RunningAgent {
    pub(crate) shutdown: CancellationToken,
    thread: JoinHandle<(Result<Summary, CaptureError>, Vec<FlowBatch>)>,
}

impl RunningAgent {
    /// Starts an agent and waits until it sees packets.
    pub(crate) fn start(namespace: &Namespace, arguments: &[&str]) -> Self {
        let config = config(arguments);
        let readiness = Readiness::default();
        let ready = readiness.part("capture");
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let thread = namespace.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (sender, receiver) = mpsc::channel(10);
                let output = Output::Channel { sender, partitions: 2 };
                let agent = Agent::new(config, output, &Metrics::new()).unwrap();
                tokio::join!(agent.run(ready, stop), batches(receiver))
            })
        });
        wait_until("the agent is ready", || readiness.waiting_for().is_empty());
        Self { shutdown, thread }
    }

    /// Shuts the agent down: what it saw, and all batches.
    pub(crate) fn stop(self) -> (Summary, Vec<FlowBatch>) {
        self.shutdown.cancel();
        let (summary, batches) = self.thread.join().unwrap();
        (summary.unwrap(), batches)
    }
}

/// All batches until the sender is gone.
pub(crate) async fn batches(mut messages: mpsc::Receiver<Message>) -> Vec<FlowBatch> {
    let mut batches = Vec::new();
    while let Some(message) = messages.recv().await {
        let decoded = wire::decode(&message.payload).unwrap();
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        assert_eq!(decoded.batch.partition, message.partition);
        assert_eq!(decoded.batch.records.len() as u32, message.records);
        batches.push(decoded.batch);
    }
    batches
}

/// The records of all batches, after checking that no sequence number is missing.
pub(crate) fn records(batches: &[FlowBatch]) -> Vec<FlowRecord> {
    let mut next = HashMap::new();
    for batch in batches {
        let sequence = next.entry(batch.partition).or_insert(0);
        assert_eq!(batch.sequence, *sequence, "partition {}", batch.partition);
        *sequence += 1;
    }
    batches.iter().flat_map(|batch| batch.records.clone()).collect()
}

/// Waits for something that announces itself by no event that a test could await.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}
