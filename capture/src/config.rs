//! What an agent is told: which packets to read, and how to cut them into records.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use flowtrail_schema::batch::MAX_NAME_BYTES;
use flowtrail_schema::interval::IntervalLength;
use flowtrail_service::config::duration;
use regex::Regex;

use crate::batcher::Limits;
use crate::error::CaptureError;
use crate::interfaces::Selection;

/// Workers at most: four read several million packets a second, more than nodes carry.
const MAX_WORKERS: usize = 4;

/// How an agent captures.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Config {
    /// Watch the interfaces whose whole name matches; may be repeated, commas separate. By default
    /// those that lead to pods (veth pairs into other namespaces) and the uplinks (default routes).
    #[arg(
        long,
        env = "FLOWTRAIL_INTERFACE",
        value_delimiter = ',',
        value_parser = interface_pattern,
        value_name = "REGEX",
        conflicts_with = "read",
        help_heading = "Capture"
    )]
    pub interface: Vec<Regex>,

    /// Read packets from a pcap or pcapng file instead, plain, gz or zstd; "-" is standard input.
    #[arg(long, env = "FLOWTRAIL_READ", value_name = "FILE", help_heading = "Capture")]
    pub read: Option<PathBuf>,

    /// Look into tunnels (VXLAN, Geneve, GRE, IP in IP) and count the connections in them. By default a
    /// tunnel's packets are left out (of a file: counted as skipped): what goes through it is seen at the pods.
    #[arg(long, env = "FLOWTRAIL_DECAPSULATE", help_heading = "Capture")]
    pub decapsulate: bool,

    /// Length of the intervals that records are cut at: whole seconds that divide a minute, the
    /// same in all of a cluster.
    #[arg(
        long,
        env = "FLOWTRAIL_INTERVAL",
        default_value = "10s",
        value_parser = interval_length,
        value_name = "DURATION",
        help_heading = "Capture"
    )]
    pub interval: IntervalLength,

    /// Name of the node that is watched; by default the host's.
    #[arg(
        long,
        env = "FLOWTRAIL_NODE",
        value_parser = name,
        value_name = "NAME",
        help_heading = "Capture"
    )]
    pub node: Option<String>,

    /// Name of this agent, stable over restarts and its own in the cluster; by default the node's.
    #[arg(
        long,
        env = "FLOWTRAIL_AGENT",
        value_parser = name,
        value_name = "NAME",
        help_heading = "Capture"
    )]
    pub agent: Option<String>,

    /// A connection without packets for this long counts as closed.
    #[arg(
        long,
        env = "FLOWTRAIL_IDLE_TIMEOUT",
        default_value = "15min",
        value_parser = duration,
        value_name = "DURATION",
        help_heading = "Capture"
    )]
    pub idle_timeout: Duration,

    /// Flows kept at most, one for each connection and interface, divided among the workers; past that the
    /// least recently used are evicted, and counted. The default takes up to 260 MB.
    #[arg(
        long,
        env = "FLOWTRAIL_MAX_FLOWS",
        default_value_t = 1_000_000,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..),
        value_name = "N",
        help_heading = "Capture"
    )]
    pub max_flows: usize,

    /// Threads that read packets, each with a ring of 32 MiB; by default one for every four processors,
    /// 4 at most.
    #[arg(
        long,
        env = "FLOWTRAIL_WORKERS",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=MAX_WORKERS as u64),
        value_name = "N",
        conflicts_with = "read",
        help_heading = "Capture"
    )]
    pub workers: Option<usize>,

    /// Keep the open connections in this directory, so that a restart does not begin them anew; it is
    /// this agent's alone, and made if need be. By default they are not kept.
    #[arg(
        long,
        env = "FLOWTRAIL_STATE_DIR",
        value_name = "DIRECTORY",
        conflicts_with = "read",
        help_heading = "Capture"
    )]
    pub state_dir: Option<PathBuf>,

    /// What may wait while the output does not take it.
    #[command(flatten)]
    pub limits: Limits,
}

/// Who an agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The agent's name.
    pub agent: Arc<str>,
    /// Its node's name.
    pub node: Arc<str>,
}

impl Config {
    /// The names given, or the host's.
    ///
    /// # Errors
    /// If a name is needed and the host has none.
    pub fn identity(&self) -> Result<Identity, CaptureError> {
        let node = match &self.node {
            Some(node) => node.clone(),
            None => host_name().map_err(|source| CaptureError::HostName { source })?,
        };
        let agent = self.agent.clone().unwrap_or_else(|| node.clone());
        Ok(Identity { agent: agent.into(), node: node.into() })
    }

    /// How many threads read packets.
    pub fn workers(&self) -> NonZeroUsize {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let workers = self.workers.unwrap_or(processors / 4);
        NonZeroUsize::new(workers.min(MAX_WORKERS)).unwrap_or(NonZeroUsize::MIN)
    }

    /// Which interfaces to watch.
    pub fn selection(&self) -> Selection {
        if self.interface.is_empty() {
            Selection::PodsAndUplinks
        } else {
            Selection::Named(self.interface.clone())
        }
    }
}

fn host_name() -> io::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    name_of(name.trim()).ok_or_else(|| io::Error::other("it is empty"))
}

fn name_of(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn name(text: &str) -> Result<String, String> {
    if text.len() > MAX_NAME_BYTES {
        return Err(format!("a name is {MAX_NAME_BYTES} bytes at most"));
    }
    name_of(text).ok_or_else(|| "a name cannot be empty".to_owned())
}

/// A pattern for a whole interface name.
pub(crate) fn interface_pattern(text: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())
}

fn interval_length(text: &str) -> Result<IntervalLength, String> {
    let duration = duration(text)?;
    if duration.subsec_nanos() != 0 {
        return Err("an interval is whole seconds that divide a minute, like 10s".to_owned());
    }
    IntervalLength::from_seconds(duration.as_secs()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        capture: Config,
    }

    fn parse(arguments: &[&str]) -> Result<Config, String> {
        Cli::try_parse_from([&["capture"], arguments].concat())
            .map(|cli| cli.capture)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_designs() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.interval.seconds(), 10);
        assert_eq!(config.idle_timeout, Duration::from_mins(15));
        assert_eq!(config.limits, Limits::default());
        assert!(matches!(config.selection(), Selection::PodsAndUplinks));
        let identity = config.identity().unwrap();
        assert_eq!(identity.agent, identity.node);
    }

    #[test]
    fn errors_say_what_to_do() {
        for (arguments, hint) in [
            (["--interval", "7s"], "use 1, 2, 3"),
            (["--interval", "1500ms"], "whole seconds"),
            (["--interval", "ten"], "like 500ms"),
            (["--interface", "eth("], "unclosed group"),
            (["--max-flows", "0"], "1.."),
            (["--workers", "5"], "1..=4"),
            (["--max-queued-records", "0"], "1.."),
            (["--node", ""], "cannot be empty"),
        ] {
            let error = parse(&arguments).unwrap_err();
            assert!(error.contains(hint), "{arguments:?}: {error}");
        }
        let both = parse(&["--interface", "lo", "--read", "x.pcap"]).unwrap_err();
        assert!(both.contains("cannot be used with"), "{both}");
    }
}
