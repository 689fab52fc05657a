//! The agent's benchmark: pcap files that it makes itself, the agent and its peers on them in turn, and
//! live traffic over a veth pair. It prints ratios; it asserts no time.

mod frames;
mod live;
mod measure;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use measure::{Cost, Tool, median, rounds};

/// A snap length that cuts nothing.
const WHOLE: usize = 65_535;

/// What to measure, and with which binary.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The release binary.
    pub flowtrail: PathBuf,
    /// Where capture files go.
    pub directory: PathBuf,
    /// They stay there.
    pub keep: bool,
    /// Packets of the large file.
    pub packets: u64,
    /// Live flows for the measure of memory.
    pub flows: u32,
    /// Packets sent live.
    pub live_packets: u64,
    /// Rounds of the comparison; each runs all tools once, in turn.
    pub rounds: usize,
}

/// Goals of the project, and whether they are met: for the last lines.
#[derive(Default)]
struct Goals(Vec<(String, bool)>);

impl Goals {
    fn add(&mut self, is_met: bool, text: String) {
        self.0.push((text, is_met));
    }
}

impl Bench {
    /// Measures all, and prints it.
    ///
    /// # Errors
    /// If something cannot be measured.
    pub fn run(&self) -> Result<()> {
        let mut goals = Goals::default();
        self.throughput(&mut goals)?;
        self.memory(&mut goals)?;
        self.flood(&mut goals)?;
        live::run(self, &mut goals)?;
        println!("\nGoals");
        for (text, is_met) in goals.0 {
            println!("  {:<8}{text}", if is_met { "met" } else { "NOT met" });
        }
        Ok(())
    }

    /// Takes a file away, unless they are to be kept.
    fn remove(&self, file: &Path) -> Result<()> {
        if !self.keep {
            fs::remove_file(file)?;
        }
        Ok(())
    }

    fn capture(&self, file: &Path, more: &[&str]) -> Tool {
        let mut arguments = vec!["capture", "--log", "warn", "--output", "null", "--read"];
        let file = file.to_string_lossy();
        arguments.push(&file);
        arguments.extend(more);
        Tool::new("flowtrail", &self.flowtrail, &arguments)
    }

    fn throughput(&self, goals: &mut Goals) -> Result<()> {
        for (name, snap) in [("whole packets", WHOLE), ("packets cut to 128 bytes", 128)] {
            let file = self.directory.join(format!("traffic-{snap}.pcap"));
            eprintln!("making {} packets, {name} …", self.packets);
            let made = traffic::write_mixed(&file, self.packets, snap)?;
            let bytes = fs::metadata(&file)?.len();
            println!(
                "\n{name}: {} packets of {} connections, {} MB, one core, page cache warm, median of {} rounds",
                made.packets,
                made.connections,
                bytes / 1_000_000,
                self.rounds
            );
            let tools = [
                self.capture(&file, &[]),
                Tool::softflowd(&self.directory, &file, 200_000),
                Tool::new(
                    "tcpdump",
                    "tcpdump",
                    &["-Z", "root", "-r", &file.to_string_lossy(), "-w", "/dev/null"],
                ),
            ];
            let costs = rounds(&tools, self.rounds)?;
            println!(
                "  {:<12}{:>14}{:>12}{:>12}{:>20}",
                "", "packets/s", "ns/packet", "CPU ns", "wall min…max, s"
            );
            for (tool, costs) in tools.iter().zip(&costs) {
                let (wall, cpu) = (median(costs, |it| it.wall_s), median(costs, |it| it.cpu_s));
                let per = |seconds: f64| seconds * 1e9 / made.packets as f64;
                let walls = costs.iter().map(|it| it.wall_s);
                println!(
                    "  {:<12}{:>14.0}{:>12.0}{:>12.0}{:>20}",
                    tool.name,
                    made.packets as f64 / wall,
                    per(wall),
                    per(cpu),
                    format!(
                        "{:.2}…{:.2}",
                        walls.clone().fold(f64::MAX, f64::min),
                        walls.fold(0.0, f64::max)
                    ),
                );
            }
            let [ours, softflowd, tcpdump] = [0, 1, 2].map(|n| median(&costs[n], |it| it.wall_s));
            let (faster, slower) = (softflowd / ours, ours / tcpdump);
            println!(
                "  {faster:.2} times softflowd's rate; {slower:.2} times the time of the bare read"
            );
            if snap < WHOLE {
                // What a reader that only copies saves is no measure for one that counts: for comparison.
                self.remove(&file)?;
                continue;
            }
            goals.add(
                faster >= 2.0,
                format!("{name}: {faster:.2}x softflowd's rate (goal: at least 2)"),
            );
            goals.add(
                slower <= 1.5,
                format!("{name}: {slower:.2}x the time of the bare read (goal: at most 1.5)"),
            );
            self.remove(&file)?;
        }
        Ok(())
    }

    fn memory(&self, goals: &mut Goals) -> Result<()> {
        let (few, many) = (self.directory.join("few.pcap"), self.directory.join("many.pcap"));
        eprintln!("making {} connections …", self.flows);
        traffic::write_open(&few, 1)?;
        traffic::write_open(&many, self.flows)?;
        let peak =
            |tool: &Tool| -> Result<f64> { Ok(measure::run(tool)?.peak_kib as f64 * 1024.0) };
        let cap = (self.flows + self.flows / 10).to_string();
        let base = peak(&self.capture(&few, &["--max-flows", &cap]))?;
        let ours = peak(&self.capture(&many, &["--max-flows", &cap]))?;
        let softflowd = |file: &Path| peak(&Tool::softflowd(&self.directory, file, self.flows * 2));
        let (their_base, theirs) = (softflowd(&few)?, softflowd(&many)?);
        let flows = f64::from(self.flows);
        println!("\n{} connections open at once: peak memory", self.flows);
        println!(
            "  {:<12}{:>10}{:>14}{:>22}{:>18}",
            "", "MB", "MB with one", "bytes/flow, growth", "bytes/flow, all"
        );
        for (name, base, peak) in [("flowtrail", base, ours), ("softflowd", their_base, theirs)] {
            println!(
                "  {name:<12}{:>10.1}{:>14.1}{:>22.0}{:>18.0}",
                peak / 1e6,
                base / 1e6,
                (peak - base) / flows,
                peak / flows
            );
        }
        let each = (ours - base) / flows;
        goals.add(each <= 256.0, format!("{each:.0} bytes for each live flow (goal: at most 256)"));
        self.remove(&few)?;
        self.remove(&many)?;
        Ok(())
    }

    fn flood(&self, goals: &mut Goals) -> Result<()> {
        const ESTABLISHED: u32 = 1_000;
        const CAP: u32 = 100_000;
        let file = self.directory.join("flood.pcap");
        eprintln!("making a flood of 1,000,000 SYNs …");
        traffic::write_flood(&file, ESTABLISHED, 1_000_000)?;
        let cap = CAP.to_string();
        let cost: Cost = measure::run(&self.capture(&file, &["--max-flows", &cap]))?;
        let few = self.directory.join("few.pcap");
        traffic::write_open(&few, 1)?;
        let base = measure::run(&self.capture(&few, &[]))?;
        let grown = (cost.peak_kib.saturating_sub(base.peak_kib)) * 1024;
        let lost = measure::established_lost(&self.flowtrail, &file, &cap)?;
        println!(
            "\nSYNs of 1,000,000 sources, --max-flows {CAP}, {ESTABLISHED} connections that go on"
        );
        println!(
            "  peak memory {:.1} MB, {:.1} MB more than with one connection: {} bytes for each of the {CAP}",
            cost.peak_kib as f64 * 1024.0 / 1e6,
            grown as f64 / 1e6,
            grown / u64::from(CAP)
        );
        println!("  established connections given up: {lost}");
        goals.add(
            lost == 0,
            format!("{lost} established connections given up in a SYN flood (goal: 0)"),
        );
        self.remove(&file)?;
        self.remove(&few)?;
        Ok(())
    }
}

/// Makes the directory, and takes it away again at the end.
///
/// # Errors
/// If it cannot be made.
pub fn directory(keep: Option<PathBuf>) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    match keep {
        Some(path) => {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            Ok((path, None))
        }
        None => {
            let directory = tempfile::tempdir()?;
            Ok((directory.path().to_owned(), Some(directory)))
        }
    }
}

pub use measure::measure_child;
