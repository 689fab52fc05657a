//! Live: frames over a veth pair as fast as one core can send them, to a reader on another core.
//! Readers take turns with the same traffic: with two cores, two readers at once would disturb each
//! other more than they could be compared.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::measure::{Bench, pin_to};
use super::sender::{CONNECTIONS, send};
use super::verdict::{Verdict, grouped};
use crate::flowtrail::{Process, get};
use crate::lab::{Lab, Namespace};

const PREFIX: &str = "flowtrail-bench";
/// The reader's end of the veth pair, and the sender's.
const CAPTURED: &str = "cap0";
const SENDING: &str = "gen0";
/// Where flowtrail serves its metrics, inside the reader's namespace.
const ADMIN: &str = "127.0.0.1:9464";
const ROUNDS: usize = 2;

const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a reader may take for what still waits in its ring.
const READ_OUT_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// What captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Flowtrail,
    Tcpdump,
    /// With as large a ring as flowtrail's, 32 MiB.
    TcpdumpLargeRing,
}

impl Reader {
    const ALL: [Self; 3] = [Self::Flowtrail, Self::Tcpdump, Self::TcpdumpLargeRing];

    fn name(self) -> &'static str {
        match self {
            Self::Flowtrail => "flowtrail capture",
            Self::Tcpdump => "tcpdump, default ring",
            Self::TcpdumpLargeRing => "tcpdump -B 32768",
        }
    }
}

/// What became of the packets of one run.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    seen: u64,
    dropped: u64,
}

struct Run {
    reader: Reader,
    sent: u64,
    seconds: f64,
    counts: Counts,
    reader_cpu_s: f64,
}

/// Measures with so many packets to each reader, in each of two rounds.
///
/// # Errors
/// Without root or a second core; if a reader fails; or if the counts of a reader do not add up.
pub fn run(bench: &Bench, packets: u64) -> Result<Vec<Verdict>> {
    let sender_core = bench.other_core.context("a sender and a reader need two cores")?;
    let mut lab = Lab::new(PREFIX)?;
    let (capturing, sending) = (lab.namespace("capturing")?, lab.namespace("sending")?);
    let peer = ["type", "veth", "peer", "name", SENDING, "netns", sending.name()];
    capturing.ip(["link", "add", CAPTURED].into_iter().chain(peer))?;
    for (namespace, interface) in [(&capturing, CAPTURED), (&sending, SENDING)] {
        // Without an IPv6 address: the kernel's own packets would be among those that are counted.
        namespace.ip(["link", "set", interface, "addrgenmode", "none", "up"])?;
    }
    println!(
        "\nLive, {} packets of {} connections over a veth pair to each reader in turn, sender on \
         core {sender_core}, reader on core {}",
        grouped(packets),
        CONNECTIONS,
        bench.core
    );
    println!(
        "{:<22} {:>12} {:>12} {:>12} {:>12} {:>14}",
        "", "sent", "sent/s", "seen", "dropped", "CPU, ns/packet"
    );
    let mut runs = Vec::new();
    for round in 1..=ROUNDS {
        for reader in Reader::ALL {
            eprintln!("live: {}, round {round} of {ROUNDS}", reader.name());
            let run = measure(bench, reader, &capturing, &sending, sender_core, packets)?;
            println!(
                "{:<22} {:>12} {:>12} {:>12} {:>12} {:>14.0}",
                reader.name(),
                grouped(run.sent),
                grouped((run.sent as f64 / run.seconds) as u64),
                grouped(run.counts.seen),
                grouped(run.counts.dropped),
                1e9 * run.reader_cpu_s / run.counts.seen as f64
            );
            runs.push(run);
        }
    }
    println!("the readers took turns: with two cores they cannot read side by side undisturbed");
    Ok(vec![judge(&runs)])
}

fn judge(runs: &[Run]) -> Verdict {
    let dropped = |reader| -> u64 {
        runs.iter().filter(|run| run.reader == reader).map(|run| run.counts.dropped).sum()
    };
    let [ours, default, large] = Reader::ALL.map(dropped);
    Verdict {
        goal: "packets dropped live ≤ tcpdump's with an equal ring".to_owned(),
        figure: format!(
            "{} against {} ({} with its default ring)",
            grouped(ours),
            grouped(large),
            grouped(default)
        ),
        met: ours <= large,
    }
}

fn measure(
    bench: &Bench,
    reader: Reader,
    capturing: &Namespace,
    sending: &Namespace,
    core: usize,
    packets: u64,
) -> Result<Run> {
    let process = start(bench, reader, capturing)?;
    let shutdown = bench.shutdown.clone();
    let sent = inside(sending, move || {
        pin_to(core)?;
        send(SENDING, packets, &shutdown)
    })?;
    let (sent, seconds) = join(sent)?;
    let deadline = Instant::now() + READ_OUT_TIMEOUT;
    let counts = loop {
        let counts = counts(reader, &process, capturing)?;
        if counts.seen + counts.dropped >= sent || Instant::now() > deadline {
            break counts;
        }
        if bench.shutdown.is_cancelled() {
            bail!("interrupted");
        }
        thread::sleep(POLL);
    };
    let reader_cpu_s = cpu_seconds(process.id())?;
    if counts.seen + counts.dropped != sent {
        bail!(
            "{} saw {} and lost {} of {sent} packets, which does not add up:\n{}",
            reader.name(),
            counts.seen,
            counts.dropped,
            process.output()
        );
    }
    process.stop()?;
    Ok(Run { reader, sent, seconds, counts, reader_cpu_s })
}

/// Starts a reader on its core, and waits until it reads.
fn start(bench: &Bench, reader: Reader, capturing: &Namespace) -> Result<Process> {
    let core = bench.core.to_string();
    let flowtrail = bench.flowtrail.display().to_string();
    let mut words = vec!["-c", &core];
    let tcpdump = ["tcpdump", "-Z", "root", "-i", CAPTURED, "-s", "256", "-w", "/dev/null"];
    match reader {
        Reader::Flowtrail => words.extend([
            &flowtrail,
            "capture",
            "--interface",
            CAPTURED,
            "--output",
            "null",
            "--admin-listen",
            ADMIN,
        ]),
        Reader::Tcpdump => words.extend(tcpdump.into_iter().chain(["tcp"])),
        Reader::TcpdumpLargeRing => {
            words.extend(tcpdump.into_iter().chain(["-B", "32768", "tcp"]));
        }
    }
    let log = bench.file("reader.log");
    let mut process = Process::start(Path::new("taskset"), words, Some(capturing), log.clone())?;
    process.wait_until("ready", READY_TIMEOUT, || match reader {
        Reader::Flowtrail => get_inside(capturing, "readyz").is_ok(),
        _ => std::fs::read_to_string(&log).is_ok_and(|said| said.contains("listening on")),
    })?;
    Ok(process)
}

/// What a reader has counted so far.
fn counts(reader: Reader, process: &Process, capturing: &Namespace) -> Result<Counts> {
    if reader == Reader::Flowtrail {
        let metrics = get_inside(capturing, "metrics")?;
        let counter = |name: &str| -> Result<u64> {
            let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value
                .with_context(|| format!("no {name} in /metrics"))?
                .parse()
                .context(name.to_owned())
        };
        return Ok(Counts {
            seen: counter("flowtrail_capture_packets_total")?,
            dropped: counter("flowtrail_capture_packets_dropped_total")?,
        });
    }
    // Asks for its counts (tcpdump(1)); they come a moment later, which is what the caller waits for.
    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGUSR1)?;
    let said = process.output();
    let number = |what: &str| -> u64 {
        let before = said.rfind(what).and_then(|at| said.get(..at));
        let number = before.and_then(|text| text.split_whitespace().next_back());
        number.and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    Ok(Counts { seen: number("packets captured"), dropped: number("packets dropped by kernel") })
}

/// User and system time of a process so far, from proc_pid_stat(5).
fn cpu_seconds(id: u32) -> Result<f64> {
    /// What the kernel counts in, for user space, on every architecture that this runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The second field, in parentheses, may hold anything; utime and stime are the 14th and 15th.
    let (_, after_name) = text.rsplit_once(')').context("an unknown /proc/PID/stat")?;
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

fn get_inside(namespace: &Namespace, path: &str) -> Result<String> {
    let address: SocketAddr = ADMIN.parse()?;
    let url = format!("http://{address}/{path}");
    join(inside(namespace, move || get(&url))?)
}

/// Does something on a thread of its own inside a namespace.
fn inside<T: Send + 'static>(
    namespace: &Namespace,
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<thread::JoinHandle<Result<T>>> {
    let file = File::open(namespace.path())?;
    Ok(thread::Builder::new().spawn(move || {
        setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        act()
    })?)
}

fn join<T>(thread: thread::JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread broke off"))?
}
