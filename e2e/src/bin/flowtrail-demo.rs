//! The demo: a small cluster of network namespaces with real programs in it, `flowtrail up` on one of
//! its nodes, and the graph of what happened; held against what the programs and the kernel counted.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use flowtrail_e2e::cluster::Cluster;
use flowtrail_e2e::flowtrail::Process;
use flowtrail_e2e::lab::Node;
use flowtrail_e2e::program::{ended, until_told};
use flowtrail_e2e::scenario::{Scenario, flowtrail_beside, write_names};
use flowtrail_e2e::traffic::TRAFFIC;
use flowtrail_e2e::{relay, workload};
use tokio_util::sync::CancellationToken;

/// Where `flowtrail up` serves by default, inside the node; the demo opens the same here.
const QUERY: &str = "127.0.0.1:8480";
const CLICKHOUSE: &str = "127.0.0.1:8123";
/// Loading the engine takes a second; a busy machine some more.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// When to show the graph first: after two intervals at least.
const FIRST_LOOK: Duration = Duration::from_secs(25);
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
    ended(match arguments.command {
        Some(Command::Serve(serve)) => workload::serve(&serve),
        Some(Command::Call(call)) => workload::call(&call),
        None => until_told(move |shutdown| Stage::run(&arguments.demo, &shutdown)),
    })
}

/// The demo's running parts, in the order in which they end: the programs, Flowtrail, the namespaces.
struct Stage {
    scenario: Scenario,
    up: Process,
    _cluster: Cluster,
    _directory: tempfile::TempDir,
    flowtrail: PathBuf,
    listen: SocketAddr,
    clickhouse_listen: SocketAddr,
}

impl Stage {
    fn run(demo: &Demo, shutdown: &CancellationToken) -> Result<()> {
        let stage = Self::set(demo)?;
        match demo.seconds {
            Some(seconds) => {
                let traffic = Duration::from_secs(seconds).max(SHORTEST_TRAFFIC);
                eprintln!("traffic for {} s …", traffic.as_secs());
                stage.judge_after(traffic, shutdown)
            }
            None => stage.show_until(shutdown),
        }
    }

    /// Lays out the cluster, starts Flowtrail, and then the programs.
    fn set(demo: &Demo) -> Result<Self> {
        let myself = std::env::current_exe()?;
        let flowtrail = match &demo.flowtrail {
            Some(program) => program.clone(),
            None => flowtrail_beside(&myself)?,
        };
        let directory = tempfile::Builder::new().prefix("flowtrail-demo-").tempdir()?;
        eprintln!("laying out two nodes, their pods and Services in network namespaces …");
        let cluster = Cluster::new(&demo.prefix)?;
        let names = write_names(&cluster, directory.path())?;

        let node = &cluster.node_a.namespace;
        relay::open((None, demo.listen), (Some(node), QUERY.parse()?))?;
        relay::open((None, demo.clickhouse_listen), (Some(node), CLICKHOUSE.parse()?))?;
        eprintln!("starting flowtrail up on {} …", cluster.node_a.name);
        let mut up = start_up(&flowtrail, &names, &cluster.node_a, directory.path())?;
        up.wait_ready(demo.listen, READY_TIMEOUT)?;

        eprintln!("starting {} clients and their servers …", TRAFFIC.len());
        let scenario = Scenario::start(&cluster, &myself)?;
        Ok(Self {
            scenario,
            up,
            _cluster: cluster,
            _directory: directory,
            flowtrail,
            listen: demo.listen,
            clickhouse_listen: demo.clickhouse_listen,
        })
    }

    /// Lets the programs talk for a while, holds the graph against the truth, and ends.
    fn judge_after(mut self, traffic: Duration, shutdown: &CancellationToken) -> Result<()> {
        if !sleep(traffic, shutdown) {
            bail!("interrupted");
        }
        let truths = self.scenario.stop_asking()?;
        eprintln!("waiting for the last interval to be complete …");
        let judged = self.scenario.judge(self.listen, &mut self.up, &truths);
        self.print_graph()?;
        judged?;
        println!(
            "all {} edges are there, once, with the bytes that the programs transferred and the kernel counted",
            truths.len()
        );
        self.end()
    }

    /// Shows the graph once there is something to see, and leaves everything open until Ctrl-C.
    fn show_until(self, shutdown: &CancellationToken) -> Result<()> {
        eprintln!("waiting {} s for a few intervals …", FIRST_LOOK.as_secs());
        if sleep(FIRST_LOOK, shutdown) {
            self.print_graph()?;
            println!("ClickHouse:    http://{}/?database=flowtrail", self.clickhouse_listen);
            println!("The programs keep talking. Ctrl-C ends the demo and removes what it made.");
            while sleep(Duration::from_secs(3600), shutdown) {}
        }
        self.end()
    }

    /// The graph as the person at the terminal would ask for it.
    fn print_graph(&self) -> Result<()> {
        let [(_, from), (_, to)] = self.scenario.window();
        let url = format!("http://{}", self.listen);
        let words = ["graph", "--url", &url, "--from", &from, "--to", &to];
        let output = std::process::Command::new(&self.flowtrail).args(words).output()?;
        if !output.status.success() {
            bail!("flowtrail graph: {}", String::from_utf8_lossy(&output.stderr));
        }
        println!("\n{}", String::from_utf8_lossy(&output.stdout));
        println!("graph as JSON: {}", self.scenario.url(self.listen));
        Ok(())
    }

    fn end(self) -> Result<()> {
        eprintln!("cleaning up …");
        drop(self.scenario);
        self.up.stop()
    }
}

fn start_up(program: &Path, names: &Path, node: &Node, directory: &Path) -> Result<Process> {
    let data = directory.join("data");
    let words: [&OsStr; 7] = [
        "up".as_ref(),
        "--data".as_ref(),
        data.as_ref(),
        "--names".as_ref(),
        names.as_ref(),
        "--node".as_ref(),
        node.name.as_ref(),
    ];
    Process::start(program, words, Some(&node.namespace), directory.join("flowtrail.log"))
}

/// Sleeps; false if asked to stop meanwhile.
fn sleep(time: Duration, shutdown: &CancellationToken) -> bool {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline && !shutdown.is_cancelled() {
        thread::sleep(Duration::from_millis(100));
    }
    !shutdown.is_cancelled()
}
