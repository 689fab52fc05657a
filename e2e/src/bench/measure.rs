//! Runs programs as their users do, and measures them from outside: whole processes, start included.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// The core that what is measured runs on; what makes traffic runs on the other one.
pub(super) const CORE: &str = "1";

/// A program with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    command: Vec<OsString>,
}

/// What one run took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) wall_s: f64,
    /// User and system time.
    pub(super) cpu_s: f64,
    /// Most memory at any time.
    pub(super) peak_kib: u64,
}

impl Tool {
    pub(super) fn new(name: &'static str, program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let mut command = vec![program.as_ref().to_owned()];
        command.extend(arguments.iter().map(OsString::from));
        Self { name, command }
    }

    /// softflowd on a file: in the foreground, exporting nothing, IPv6 too. Without a control socket, on
    /// which it waits for ever when it reads a file.
    pub(super) fn softflowd(directory: &Path, file: &Path, max_flows: u32) -> Self {
        let pid_file = directory.join("softflowd.pid");
        Self::new(
            "softflowd",
            "softflowd",
            &[
                "-d",
                "-6",
                "-r",
                &file.to_string_lossy(),
                "-m",
                &max_flows.to_string(),
                "-p",
                &pid_file.to_string_lossy(),
                "-c",
                "none",
            ],
        )
    }
}

/// Runs a tool once, on the one core.
pub(super) fn run(tool: &Tool) -> Result<Cost> {
    // In a process of its own, for a process knows the peak of all its children only.
    let output = Command::new(std::env::current_exe()?)
        .arg("--measure-child")
        .args(&tool.command)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{} failed: {:?}", tool.name, tool.command);
    serde_json::from_slice(&output.stdout).context("no measures")
}

/// Runs tools in turn, after one round that is not counted: for each tool the costs of its runs.
pub(super) fn rounds(tools: &[Tool], count: usize) -> Result<Vec<Vec<Cost>>> {
    let mut costs = vec![Vec::new(); tools.len()];
    for round in 0..=count {
        for (tool, costs) in tools.iter().zip(&mut costs) {
            eprintln!("round {round} of {count}: {} …", tool.name);
            let cost = run(tool)?;
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    Ok(costs)
}

pub(super) fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<_> = costs.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The inner process of [`run`]: runs a command, and prints what it took.
///
/// # Errors
/// If it cannot be run, or fails.
pub fn measure_child(command: &[OsString]) -> Result<()> {
    let begun = Instant::now();
    let output = Command::new("taskset")
        .args(["-c", CORE])
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("cannot run taskset")?;
    let wall_s = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cpu_s = seconds(usage.user_time()) + seconds(usage.system_time());
    let cost = Cost { wall_s, cpu_s, peak_kib: usage.max_rss() as u64 };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

/// Of the connections of [`write_flood`](super::traffic::write_flood) that are established, how many were
/// given up: evicted, or begun anew.
pub(super) fn established_lost(flowtrail: &Path, file: &Path, max_flows: &str) -> Result<u64> {
    let mut child = Command::new(flowtrail)
        .args(["capture", "--log", "warn", "--output", "json", "--max-flows", max_flows, "--read"])
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let (mut lost, mut begun) = (0, 0);
    for line in lines {
        let record: serde_json::Value = serde_json::from_str(&line?)?;
        let client = record["client"]["ip"].as_str().unwrap_or_default();
        // The flood's sources are from 10.32.0.0 on.
        if client.starts_with("10.1.") || client.starts_with("fd00::1:") {
            lost += record["closed"]["evicted"].as_u64().unwrap_or_default();
            lost += record["joined"].as_u64().unwrap_or_default();
            begun += record["opened"].as_u64().unwrap_or_default();
        }
    }
    ensure!(child.wait()?.success(), "flowtrail failed");
    ensure!(begun > 0, "no record of an established connection");
    Ok(lost)
}
