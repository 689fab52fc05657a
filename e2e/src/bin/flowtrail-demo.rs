//! The demo: a small cluster of network namespaces with real programs in it, `flowtrail up` on one of
//! its nodes, and the graph of what happened; held against what the programs and the kernel counted.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Parser, Subcommand};
use flowtrail_e2e::cluster::{Cluster, TRAFFIC, Truth};
use flowtrail_e2e::expectation::differences;
use flowtrail_e2e::flowtrail::{Process, get};
use flowtrail_e2e::lab::Namespace;
use flowtrail_e2e::{names, relay, workload};
use tokio_util::sync::CancellationToken;

/// Where `flowtrail up` serves by default, inside the node; the demo opens the same here.
const QUERY: &str = "127.0.0.1:8480";
const CLICKHOUSE: &str = "127.0.0.1:8123";
/// Loading the engine takes a second; a busy machine some more.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// From a packet to the graph: the interval (10 s), the cut (0.5 s), the chunk; doubled.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(40);
/// An unanswered SYN is given up 10 s after the last retry; then comes the interval's end.
const SHORTEST_TRAFFIC: Duration = Duration::from_secs(15);

#[derive(Parser)]
#[command(about = "Shows Flowtrail on real traffic between network namespaces (needs root)")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: Demo,
}

#[derive(Subcommand)]
enum Command {
    /// A server of the demo's.
    #[command(hide = true)]
    Serve(workload::Serve),
    /// A client of the demo's.
    #[command(hide = true)]
    Call(workload::Call),
}

#[derive(clap::Args, Clone)]
struct Demo {
    /// Seconds of traffic, after which the demo checks the graph, cleans up and ends; without it, it
    /// runs until Ctrl-C.
    #[arg(long, env = "DEMO_SECONDS", value_name = "SECONDS")]
    seconds: Option<u64>,

    /// The program to show; the one beside this by default.
    #[arg(long, value_name = "FILE")]
    flowtrail: Option<PathBuf>,

    /// Where the graph is served on this machine.
    #[arg(long, default_value = QUERY, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// Where ClickHouse's HTTP interface is served on this machine.
    #[arg(long, default_value = CLICKHOUSE, value_name = "ADDRESS:PORT")]
    clickhouse_listen: SocketAddr,

    /// Prefix of the namespaces it makes.
    #[arg(long, default_value = "flowtrail-demo", value_name = "NAME")]
    prefix: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Serve(serve)) => workload::serve(&serve),
        Some(Command::Call(call)) => workload::call(&call),
        None => demo(arguments.demo),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo on a thread of its own, while this one listens for Ctrl-C.
fn demo(demo: Demo) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = flowtrail_service::shutdown::on_signal()?;
        tokio::task::spawn_blocking(move || Stage::run(&demo, &shutdown)).await?
    })
}

/// The demo's running parts. Dropping them ends the programs first and the namespaces last.
struct Stage {
    clients: Vec<flowtrail_e2e::cluster::Running>,
    _servers: Vec<flowtrail_e2e::cluster::Server>,
    up: Process,
    cluster: Cluster,
    directory: tempfile::TempDir,
    listen: SocketAddr,
    started: DateTime<Utc>,
}

impl Stage {
    fn run(demo: &Demo, shutdown: &CancellationToken) -> Result<()> {
        let stage = Self::set(demo)?;
        match demo.seconds {
            Some(seconds) => {
                let traffic = Duration::from_secs(seconds).max(SHORTEST_TRAFFIC);
                eprintln!("traffic for {} s …", traffic.as_secs());
                stage.finish_after(traffic, shutdown)
            }
            None => stage.show_until(shutdown),
        }
    }

    /// Lays out the cluster, starts Flowtrail, and then the programs.
    fn set(demo: &Demo) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("flowtrail-demo-").tempdir()?;
        eprintln!("laying out two nodes, their pods and Services in network namespaces …");
        let cluster = Cluster::new(&demo.prefix)?;
        let names = directory.path().join("names.json");
        fs::write(&names, serde_json::to_vec_pretty(&names::list(&cluster, Utc::now()))?)?;

        let node = &cluster.node_a.namespace;
        relay::open(demo.listen, node, QUERY.parse()?)?;
        relay::open(demo.clickhouse_listen, node, CLICKHOUSE.parse()?)?;
        eprintln!("starting flowtrail up on {} …", cluster.node_a.name);
        let mut up = start_up(&flowtrail(demo)?, &names, node, &cluster.node_a.name, directory.path())?;
        up.wait_ready(demo.listen, READY_TIMEOUT)?;

        eprintln!("starting {} clients and their servers …", TRAFFIC.len());
        let myself = std::env::current_exe()?.display().to_string();
        let servers = cluster.start_servers(&myself)?;
        let started = Utc::now();
        let clients = cluster.start_clients(&myself)?;
        let listen = demo.listen;
        Ok(Self { clients, _servers: servers, up, cluster, directory, listen, started })
    }

    /// Lets the programs talk for a while, compares the graph with the truth, and ends.
    fn finish_after(mut self, traffic: Duration, shutdown: &CancellationToken) -> Result<()> {
        if !sleep(traffic, shutdown) {
            anyhow::bail!("interrupted");
        }
        let mut truths: Vec<Truth> =
            self.clients.iter_mut().map(|client| client.stop_asking()).collect::<Result<_>>()?;
        // The last ACKs and FINs are on their way for a moment yet.
        thread::sleep(Duration::from_millis(500));
        for (client, truth) in self.clients.iter().zip(&mut truths) {
            client.count(truth)?;
        }
        eprintln!("waiting for the last interval to be complete …");
        let stopped = Utc::now();
        let path = self.wait_complete(stopped)?;
        let graph = self.graph(&path)?;
        self.print_table()?;
        println!("graph as JSON: http://{}{path}", self.listen);
        let differences = differences(&graph, &truths);
        if !differences.is_empty() {
            anyhow::bail!("the graph is not what happened:\n  {}", differences.join("\n  "));
        }
        println!("all {} edges are there, once, with the bytes that the kernel counted", truths.len());
        self.end()
    }

    /// Shows the graph once there is something to see, and leaves everything open until Ctrl-C.
    fn show_until(self, shutdown: &CancellationToken) -> Result<()> {
        eprintln!("waiting 25 s for a few intervals …");
        if sleep(Duration::from_secs(25), shutdown) {
            self.print_table()?;
            println!("graph as JSON: http://{}{}", self.listen, self.path("now"));
            println!("SQL:           curl http://{CLICKHOUSE}/?database=flowtrail -d 'SELECT count() FROM flows'");
            println!("The programs keep talking. Ctrl-C ends the demo and removes what it made.");
            while sleep(Duration::from_secs(3600), shutdown) {}
        }
        self.end()
    }

    fn path(&self, to: &str) -> String {
        let from = self.started.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!("/api/v1/graph?from={from}&to={to}")
    }

    fn graph(&self, path: &str) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&get(&format!("http://{}{path}", self.listen))?)?)
    }

    /// Waits until the data is complete up to an instant; the path of the graph until then.
    fn wait_complete(&mut self, until: DateTime<Utc>) -> Result<String> {
        let path = self.path(&(until + chrono::TimeDelta::seconds(10)).to_rfc3339_opts(SecondsFormat::Secs, true));
        let url = format!("http://{}{path}", self.listen);
        let wanted = until.timestamp_millis();
        let complete = || {
            let graph = get(&url).ok().and_then(|text| serde_json::from_str(&text).ok());
            let graph: serde_json::Value = graph.unwrap_or_default();
            graph["window"]["complete_until"].as_i64().is_some_and(|until| until >= wanted)
        };
        self.up.wait_until("complete", VISIBLE_TIMEOUT, complete)?;
        Ok(path)
    }

    /// The graph as the person at the terminal would ask for it.
    fn print_table(&self) -> Result<()> {
        let from = self.started.to_rfc3339_opts(SecondsFormat::Secs, true);
        let url = format!("http://{}", self.listen);
        let program = flowtrail_beside()?;
        let words = ["graph", "--url", &url, "--from", &from];
        let output = std::process::Command::new(&program).args(words).output()?;
        anyhow::ensure!(output.status.success(), "flowtrail graph: {}", String::from_utf8_lossy(&output.stderr));
        println!("\n{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    fn end(self) -> Result<()> {
        eprintln!("cleaning up …");
        drop(self.clients);
        self.up.stop()?;
        drop(self.cluster);
        drop(self.directory);
        Ok(())
    }
}

fn start_up(
    program: &Path,
    names: &Path,
    node: &Namespace,
    name: &str,
    directory: &Path,
) -> Result<Process> {
    let data = directory.join("data");
    let words: [&std::ffi::OsStr; 7] = [
        "up".as_ref(),
        "--data".as_ref(),
        data.as_ref(),
        "--names".as_ref(),
        names.as_ref(),
        "--node".as_ref(),
        name.as_ref(),
    ];
    Process::start(program, words, Some(node), directory.join("flowtrail.log"))
}

fn flowtrail(demo: &Demo) -> Result<PathBuf> {
    demo.flowtrail.clone().map_or_else(flowtrail_beside, Ok)
}

fn flowtrail_beside() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("flowtrail");
    program.is_file().then_some(program).context("no flowtrail beside this program: run `make build`")
}

/// Sleeps; false if asked to stop meanwhile.
fn sleep(time: Duration, shutdown: &CancellationToken) -> bool {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline && !shutdown.is_cancelled() {
        thread::sleep(Duration::from_millis(100));
    }
    !shutdown.is_cancelled()
}
