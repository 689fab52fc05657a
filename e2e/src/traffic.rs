//! The cluster's traffic: servers, and clients with what is expected of each, and what the kernel counts
//! of it in the client's namespace.

use std::net::SocketAddr;
use std::process::{Child, Command};

use anyhow::{Context, Result};

use crate::cluster::{
    CLOSED_PORT, Cluster, DROPPED_PORT, HTTP_PORT, OUTSIDE, OUTSIDE_PORT, POSTGRES_PORT,
};
use crate::lab::{Namespace, run};
use crate::workload::Transferred;

/// One client program with what is expected of it.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Name for people and for the counters.
    pub name: &'static str,
    /// Client: namespace and workload; an empty namespace for a node, or for the host beyond the cluster.
    pub client: (&'static str, &'static str),
    /// Server: namespace and workload; an empty namespace for an address beyond the cluster.
    pub server: (&'static str, &'static str),
    /// Service it goes through.
    pub service: Option<&'static str>,
    /// Whether it asks the first node, at the Service's port there.
    pub by_node_port: bool,
    /// What to ask, as flags of the workload program.
    pub flags: &'static [&'static str],
    /// Port asked, where it is not the Service's.
    pub port: u16,
    /// How attempts end.
    pub outcome: Outcome,
}

/// How a client's attempts end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Each request has its own connection, closed after the answer.
    Closed,
    /// One connection, still open when the programs have stopped asking.
    StaysOpen,
    /// Answered by RST.
    Refused,
    /// Not answered.
    Unanswered,
}

/// All traffic of the demo: one workload edge each.
pub const TRAFFIC: &[Traffic] = &[
    Traffic {
        name: "visitors",
        client: ("clients", "visitors"),
        server: ("shop", "web"),
        service: Some("web"),
        by_node_port: false,
        flags: &["--request", "180", "--response", "4200", "--pause-ms", "120"],
        port: HTTP_PORT,
        outcome: Outcome::Closed,
    },
    Traffic {
        name: "web-to-api",
        client: ("shop", "web"),
        server: ("shop", "api"),
        service: Some("api"),
        by_node_port: false,
        flags: &["--request", "350", "--response", "90000", "--pause-ms", "150"],
        port: HTTP_PORT,
        outcome: Outcome::Closed,
    },
    Traffic {
        name: "api-to-postgres",
        client: ("shop", "api"),
        server: ("data", "postgres"),
        service: Some("postgres"),
        by_node_port: false,
        flags: &["--keep-open", "--request", "700", "--response", "12000", "--pause-ms", "250"],
        port: POSTGRES_PORT,
        outcome: Outcome::StaysOpen,
    },
    Traffic {
        name: "payments-to-outside",
        client: ("shop", "payments"),
        server: ("", "203.0.113.10"),
        service: None,
        by_node_port: false,
        flags: &["--request", "1500", "--response", "600", "--pause-ms", "400"],
        port: OUTSIDE_PORT,
        outcome: Outcome::Closed,
    },
    Traffic {
        name: "prometheus-to-web",
        client: ("monitoring", "prometheus"),
        server: ("shop", "web"),
        service: None,
        by_node_port: false,
        flags: &["--request", "100", "--response", "30000", "--pause-ms", "1000"],
        port: HTTP_PORT,
        outcome: Outcome::Closed,
    },
    Traffic {
        name: "scanner-refused",
        client: ("security", "scanner"),
        server: ("shop", "web"),
        service: None,
        by_node_port: false,
        flags: &["--attempts", "3", "--pause-ms", "100"],
        port: CLOSED_PORT,
        outcome: Outcome::Refused,
    },
    Traffic {
        name: "scanner-dropped",
        client: ("security", "scanner"),
        server: ("data", "postgres"),
        service: None,
        by_node_port: false,
        flags: &["--attempts", "2", "--pause-ms", "100"],
        port: DROPPED_PORT,
        outcome: Outcome::Unanswered,
    },
];

/// A server program that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A client program that runs, and where its packets are counted.
#[derive(Debug)]
pub struct Running {
    /// What it is.
    pub traffic: Traffic,
    child: Child,
    namespace: Namespace,
}

/// What one client transferred, by its own count and by the kernel's.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    /// What it is about.
    pub traffic: Traffic,
    /// The program's count: connections, failures, TCP payload.
    pub transferred: Transferred,
    /// nftables' count in the client's namespace: bytes of IP packets.
    pub sent_bytes: u64,
    /// The same for what came back.
    pub received_bytes: u64,
}

impl Cluster {
    /// Starts the servers.
    ///
    /// # Errors
    /// If a program cannot be started.
    pub fn start_servers(&self, program: &str) -> Result<Vec<Server>> {
        let mut servers = Vec::new();
        let mut start = |namespace: &Namespace, port: u16| -> Result<()> {
            let listen = SocketAddr::from(([0, 0, 0, 0], port)).to_string();
            let mut command = namespace.command(program);
            command.args(["serve", "--listen", &listen]);
            servers.push(Server { child: spawn(&mut command)? });
            Ok(())
        };
        for pod in &self.pods {
            if let Some(port) = pod.port {
                start(&pod.pod.namespace, port)?;
            }
        }
        start(&self.outside, OUTSIDE_PORT)?;
        Ok(servers)
    }

    /// Starts client programs, with a counter of their packets in front of each.
    ///
    /// # Errors
    /// If a program cannot be started.
    pub fn start_clients(&self, program: &str, traffic: &[Traffic]) -> Result<Vec<Running>> {
        traffic.iter().map(|traffic| self.start_client(program, *traffic)).collect()
    }

    fn start_client(&self, program: &str, traffic: Traffic) -> Result<Running> {
        let namespace = self.client_of(&traffic).context("no such client")?.clone();
        let to = self.address_of(&traffic).context("no such server")?;
        namespace.nft(&counters(traffic.name, to))?;
        let mut command = namespace.command(program);
        command.args(["call", "--to", &to.to_string()]).args(traffic.flags);
        let child = spawn(command.stdout(std::process::Stdio::piped()))?;
        Ok(Running { traffic, child, namespace })
    }

    fn client_of(&self, traffic: &Traffic) -> Option<&Namespace> {
        match traffic.client {
            ("", name) if name == OUTSIDE.to_string() => Some(&self.outside),
            ("", name) => {
                self.nodes().into_iter().find(|node| node.name == name).map(|node| &node.namespace)
            }
            (namespace, workload) => {
                self.pods_of(namespace, workload).next().map(|pod| &pod.pod.namespace)
            }
        }
    }

    /// What a client connects to: the Service, a pod (of this node, if there is one) or the outside.
    fn address_of(&self, traffic: &Traffic) -> Option<SocketAddr> {
        let (namespace, workload) = traffic.server;
        if let Some(name) = traffic.service {
            let service = self.services.iter().find(|service| service.name == name)?;
            return Some(match traffic.by_node_port {
                true => (self.node_a.ip, service.node_port?).into(),
                false => (service.ip, service.port).into(),
            });
        }
        if namespace.is_empty() {
            return Some((OUTSIDE, traffic.port).into());
        }
        let pod = self.pods_of(namespace, workload).next()?;
        Some((pod.pod.ip, traffic.port).into())
    }
}

impl Running {
    /// Tells the program to stop asking, and says what was transferred by then. Its connection, if it
    /// keeps one, stays open until this is dropped.
    ///
    /// # Errors
    /// If the program broke, or the counters are gone.
    pub fn stop_asking(&mut self) -> Result<Truth> {
        use std::io::{BufRead, BufReader, Write};
        // A client that has made its attempts reads no more: that it has gone is fine.
        if let Some(stdin) = &mut self.child.stdin {
            let _ = stdin.write_all(b"stop\n");
        }
        let mut line = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let transferred = serde_json::from_str(&line)
            .with_context(|| format!("{} broke off: {line:?}", self.traffic.name))?;
        Ok(Truth { traffic: self.traffic, transferred, sent_bytes: 0, received_bytes: 0 })
    }

    /// Reads the kernel's counters into what the program said. When the packets have stopped.
    ///
    /// # Errors
    /// If the counters are gone.
    pub fn count(&self, truth: &mut Truth) -> Result<()> {
        truth.sent_bytes = self.counter("sent")?;
        truth.received_bytes = self.counter("received")?;
        Ok(())
    }

    fn counter(&self, direction: &str) -> Result<u64> {
        let table = self.traffic.name;
        let words = ["ip", "netns", "exec", self.namespace.name(), "nft", "list", "counter", "ip"];
        let printed = run(words.into_iter().chain([table, direction]))?;
        let mut words = printed.split_whitespace().skip_while(|word| *word != "bytes");
        words.nth(1).and_then(|bytes| bytes.parse().ok()).context("unreadable counter")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Closes a program's standard input, upon which it ends, and waits until it has.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let _ = child.wait();
}

/// Counters of the packets between a client's namespace and a server, as nftables sees them, from 0.
fn counters(table: &str, to: SocketAddr) -> String {
    let (ip, port) = (to.ip(), to.port());
    format!(
        "table ip {table} {{ }}
delete table ip {table}
table ip {table} {{
  counter sent {{ }}
  counter received {{ }}
  chain output {{
    type filter hook output priority 0
    ip daddr {ip} tcp dport {port} counter name sent
  }}
  chain input {{
    type filter hook input priority 0
    ip saddr {ip} tcp sport {port} counter name received
  }}
}}
"
    )
}

/// Starts a program in a process group of its own, so that a Ctrl-C in the terminal reaches only the
/// demo, which then ends things in order.
fn spawn(command: &mut Command) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    command
        .stdin(std::process::Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))
}
