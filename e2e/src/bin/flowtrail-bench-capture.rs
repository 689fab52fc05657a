//! `make bench-capture`: how fast the agent is, beside its peers and limits, and what memory it takes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use flowtrail_e2e::bench::{Bench, directory, measure_child};

/// Measures the agent: prints packets per second beside softflowd and a bare read, memory for each flow,
/// what a SYN flood does, and drops on a live interface beside tcpdump's.
#[derive(Debug, Parser)]
struct Arguments {
    /// The release binary.
    #[arg(long, default_value = "target/release/flowtrail", value_name = "FILE")]
    flowtrail: PathBuf,

    /// Packets of the large file.
    #[arg(long, env = "BENCH_PACKETS", default_value_t = 2_500_000, value_name = "N")]
    packets: u64,

    /// Connections that are open at once, for the memory of each.
    #[arg(long, env = "BENCH_FLOWS", default_value_t = 1_000_000, value_name = "N")]
    flows: u32,

    /// Packets sent to each live reader in each of its turns.
    #[arg(long, env = "BENCH_LIVE_PACKETS", default_value_t = 3_000_000, value_name = "N")]
    live_packets: u64,

    /// Rounds of the comparison.
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 5, value_name = "N")]
    rounds: usize,

    /// Keep the capture files in this directory; by default they are removed.
    #[arg(long, env = "BENCH_DIR", value_name = "DIRECTORY")]
    directory: Option<PathBuf>,

    /// Runs a command and prints what it took: how the bench measures one process.
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    measure_child: Vec<OsString>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if !arguments.measure_child.is_empty() {
        return measure_child(&arguments.measure_child);
    }
    let keep = arguments.directory.is_some();
    let (directory, _removed_at_the_end) = directory(arguments.directory)?;
    Bench {
        flowtrail: arguments.flowtrail,
        directory,
        keep,
        packets: arguments.packets,
        flows: arguments.flows,
        live_packets: arguments.live_packets,
        rounds: arguments.rounds,
    }
    .run()
}
