//! The demo's traffic from start to judgement: programs talk, stop asking, and Flowtrail's graph is
//! held against what they and the kernel counted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::expectation::differences;
use crate::flowtrail::{Process, get};
use crate::names;
use crate::traffic::{Running, Server, TRAFFIC, Traffic, Truth};

/// From a packet to the graph: the interval (10 s), the cut (0.5 s), the chunk; doubled.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(40);
/// Long enough for the last ACKs and FINs to have passed.
const SETTLE: Duration = Duration::from_millis(500);

/// Running programs. Dropping it ends them.
#[derive(Debug)]
pub struct Scenario {
    clients: Vec<Running>,
    _servers: Vec<Server>,
    started: DateTime<Utc>,
    stopped: Option<DateTime<Utc>>,
}

impl Scenario {
    /// Starts servers, then the demo's clients. Whoever watches must be ready.
    ///
    /// # Errors
    /// If a program cannot be started.
    pub fn start(cluster: &Cluster, program: &Path) -> Result<Self> {
        Self::of(cluster, program, TRAFFIC)
    }

    /// Starts servers, then some clients.
    ///
    /// # Errors
    /// As [`Scenario::start`].
    pub fn of(cluster: &Cluster, program: &Path, traffic: &[Traffic]) -> Result<Self> {
        let program = program.display().to_string();
        let servers = cluster.start_servers(&program)?;
        let started = Utc::now();
        let clients = cluster.start_clients(&program, traffic)?;
        Ok(Self { clients, _servers: servers, started, stopped: None })
    }

    /// Makes the clients stop asking; connections that are kept stay open. What was transferred.
    ///
    /// # Errors
    /// If a program broke off.
    pub fn stop_asking(&mut self) -> Result<Vec<Truth>> {
        let mut truths: Vec<Truth> =
            self.clients.iter_mut().map(Running::stop_asking).collect::<Result<_>>()?;
        thread::sleep(SETTLE);
        for (client, truth) in self.clients.iter().zip(&mut truths) {
            client.count(truth)?;
        }
        self.stopped = Some(Utc::now());
        Ok(truths)
    }

    /// The graph's window so far, as parameters: from the programs' start until they stopped asking.
    pub fn window(&self) -> [(&'static str, String); 2] {
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let to =
            self.stopped.map_or_else(|| "now".to_owned(), |at| time(at + TimeDelta::seconds(1)));
        [("from", time(self.started)), ("to", to)]
    }

    /// Where the graph of this window is, as JSON.
    pub fn url(&self, query: SocketAddr) -> String {
        let [(from, start), (to, end)] = self.window();
        format!("http://{query}/api/v1/graph?{from}={start}&{to}={end}")
    }

    /// Waits until the graph is complete, and compares it with the truth.
    ///
    /// # Errors
    /// If it does not become complete in time, or differs; with every difference.
    pub fn judge(&self, query: SocketAddr, service: &mut Process, truths: &[Truth]) -> Result<()> {
        let url = self.url(query);
        let stopped = self.stopped.context("the programs are still talking")?.timestamp_millis();
        let graph = || -> Value {
            get(&url).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
        };
        service.wait_until("done with the last interval", VISIBLE_TIMEOUT, || {
            graph()["window"]["complete_until"].as_i64().is_some_and(|until| until >= stopped)
        })?;
        let differences = differences(&graph(), truths);
        if !differences.is_empty() {
            bail!("the graph is not what happened:\n  {}", differences.join("\n  "));
        }
        Ok(())
    }
}

/// Writes the cluster's objects into a directory, as kubectl prints them.
///
/// # Errors
/// If the file cannot be written.
pub fn write_names(cluster: &Cluster, directory: &Path) -> Result<PathBuf> {
    let path = directory.join("names.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&names::list(cluster, Utc::now()))?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The `flowtrail` beside a program of this crate (or beside a test's directory).
///
/// # Errors
/// If it is not built.
pub fn flowtrail_beside(program: &Path) -> Result<PathBuf> {
    let beside = program.with_file_name("flowtrail");
    beside.is_file().then_some(beside).context("no flowtrail beside this program: run `make build`")
}
