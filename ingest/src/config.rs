//! What ingest can be told.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flowtrail_service::config::duration;

use crate::containers::{DEFAULT_SOCKET, EngineAddress};
use crate::edge_metrics::MAX_EDGES;
use crate::identity::cidr::CidrName;

/// Where names come from, and how rows are gathered for an insert.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Config {
    /// Names from a file: the output of `kubectl get pods,services,nodes,endpointslices,replicasets,jobs
    /// -A -o json`, reread when it changes.
    #[arg(long, env = "FLOWTRAIL_NAMES", value_name = "FILE", help_heading = "Names")]
    pub names: Option<PathBuf>,

    /// Names from the live cluster: the one this pod runs in, else the current context of KUBECONFIG.
    #[arg(long, env = "FLOWTRAIL_KUBERNETES", conflicts_with = "names", help_heading = "Names")]
    pub kubernetes: bool,

    /// Names from the containers of a Docker engine: its socket, or http:// and the host and port of a proxy
    /// before it. Without a value /var/run/docker.sock.
    #[arg(
        long,
        env = "FLOWTRAIL_CONTAINERS",
        num_args = 0..=1,
        default_missing_value = DEFAULT_SOCKET,
        conflicts_with_all = ["names", "kubernetes"],
        value_name = "URL",
        help_heading = "Names"
    )]
    pub containers: Option<EngineAddress>,

    /// How old a record may be when its message gets to Kafka; an older one is rejected as of a clock that
    /// is wrong. By default as long as any table keeps rows.
    #[arg(long, env = "FLOWTRAIL_MAX_RECORD_AGE", default_value = "730d", value_parser = duration, value_name = "DURATION", help_heading = "Inserts")]
    pub max_record_age: Duration,
    /// Names for networks that Kubernetes does not know; the smallest that holds an address names it.
    #[arg(
        long,
        env = "FLOWTRAIL_CIDR_NAMES",
        value_delimiter = ',',
        value_name = "NAME=CIDR",
        help_heading = "Names"
    )]
    pub cidr_names: Vec<CidrName>,

    /// Rows gathered for one insert, at least, unless --chunk-time is over before.
    #[arg(
        long,
        env = "FLOWTRAIL_CHUNK_ROWS",
        default_value = "50000",
        value_parser = chunk_rows,
        value_name = "ROWS",
        help_heading = "Inserts"
    )]
    pub chunk_rows: NonZeroUsize,

    /// How long rows are gathered for one insert, at most.
    #[arg(long, env = "FLOWTRAIL_CHUNK_TIME", default_value = "1s", value_parser = chunk_time, value_name = "DURATION", help_heading = "Inserts")]
    pub chunk_time: Duration,

    /// Edges between workloads whose traffic /metrics tells, of all namespaces, at most; the rest is one series
    /// "other" of each metric. 0 for none.
    #[arg(
        long,
        env = "FLOWTRAIL_EDGE_METRICS_MAX",
        default_value = "0",
        value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_EDGES)),
        value_name = "EDGES",
        help_heading = "Operations"
    )]
    pub edge_metrics_max: u32,
}

/// Most rows that may be asked for: a chunk must stay one block (ClickHouse's default is 1,048,449
/// rows), also when the message that fills it brings a thousand more.
const MAX_CHUNK_ROWS: usize = 1_000_000;

impl Default for Config {
    /// No names, and the defaults of the flags.
    fn default() -> Self {
        const ROWS: NonZeroUsize = NonZeroUsize::new(50_000).unwrap();
        Self {
            names: None,
            kubernetes: false,
            containers: None,
            max_record_age: Duration::from_secs(730 * 86_400),
            cidr_names: Vec::new(),
            chunk_rows: ROWS,
            chunk_time: Duration::from_secs(1),
            // Whoever reaches the admin port reads them without a token.
            edge_metrics_max: 0,
        }
    }
}

fn chunk_rows(text: &str) -> Result<NonZeroUsize, String> {
    let rows = text.parse::<NonZeroUsize>().map_err(|error| error.to_string())?;
    if rows.get() > MAX_CHUNK_ROWS {
        return Err(format!("a chunk is one block: use 1 to {MAX_CHUNK_ROWS}"));
    }
    Ok(rows)
}

/// Longest time that may be asked for: rows that wait are in memory, and not yet to be seen.
const MAX_CHUNK_TIME: Duration = Duration::from_secs(600);

fn chunk_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time > MAX_CHUNK_TIME {
        return Err("rows that wait cannot be seen: use 10min at most".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn defaults_of_flags_and_code_agree() {
        let parsed = Command::parse_from(["ingest"]).config;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn names_of_networks_are_repeated_or_comma_separated() {
        let given = ["ingest", "--cidr-names", "a=10.0.0.0/8,b=fd00::/8", "--cidr-names", "c=::/0"];
        assert_eq!(Command::parse_from(given).config.cidr_names.len(), 3);
        let wrong = ["ingest", "--cidr-names", "a=10.0.0.1/8"];
        let error = Command::try_parse_from(wrong).err().unwrap().to_string();
        assert!(error.contains("--cidr-names") && error.contains("use 10.0.0.0/8"), "{error}");
    }

    #[test]
    fn containers_are_the_only_source_and_their_socket_may_be_left_out() {
        let given = |arguments: &[&str]| {
            let all = ["ingest"].iter().chain(arguments);
            Command::try_parse_from(all).map(|command| command.config.containers)
        };
        let address = |text: &str| Some(text.parse::<EngineAddress>().unwrap());
        assert_eq!(given(&["--containers"]).unwrap(), address(DEFAULT_SOCKET));
        assert_eq!(given(&["--containers", "--chunk-rows", "1"]).unwrap(), address(DEFAULT_SOCKET));
        let proxy = "http://proxy:2375";
        assert_eq!(given(&["--containers", proxy]).unwrap(), address(proxy));
        let wrong = given(&["--containers", "https://proxy"]).unwrap_err().to_string();
        assert!(wrong.contains("--containers") && wrong.contains("http://HOST:PORT"), "{wrong}");
        for other in [&["--kubernetes"][..], &["--names", "file"]] {
            let error = given(&[&["--containers"], other].concat()).unwrap_err().to_string();
            assert!(error.contains("cannot be used with"), "{error}");
        }
    }

    #[test]
    fn a_chunk_does_not_wait_for_ever() {
        let endless = ["ingest", "--chunk-time", "400000000000y"];
        let error = Command::try_parse_from(endless).err().unwrap();
        assert!(error.to_string().contains("10min at most"), "{error}");
    }

    #[test]
    fn a_scrape_has_an_end() {
        let given = |edges| Command::try_parse_from(["ingest", "--edge-metrics-max", edges]);
        assert_eq!(given("20000").unwrap().config.edge_metrics_max, MAX_EDGES);
        for wrong in ["20001", "many"] {
            let error = given(wrong).err().unwrap().to_string();
            assert!(error.contains("--edge-metrics-max"), "{error}");
        }
    }

    #[test]
    fn a_chunk_stays_one_block() {
        let error = Command::try_parse_from(["ingest", "--chunk-rows", "1000001"]).err().unwrap();
        assert!(error.to_string().contains("1 to 1000000"), "{error}");
    }
}
