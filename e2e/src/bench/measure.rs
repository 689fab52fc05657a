//! Programs run and measured as wholes, from their start to their end: by a helper process that has
//! no other child, so that what its children used is what that one program used.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// How soon the end of a program, and a wish to end, are noticed.
const POLL: Duration = Duration::from_millis(20);
/// The longest that one program may take. Past that the machine is not one to measure on.
const TIMEOUT: Duration = Duration::from_mins(2);

/// What every benchmark needs.
#[derive(Debug)]
pub struct Bench {
    /// This program, which is its own helper.
    pub myself: PathBuf,
    /// The program that is judged.
    pub flowtrail: PathBuf,
    /// Where files go.
    pub directory: PathBuf,
    /// The core that measured programs have to themselves.
    pub core: usize,
    /// Another core, if there is one.
    pub other_core: Option<usize>,
    /// Whether the files are to stay there.
    pub keep_files: bool,
    /// Asked for when all is to end early.
    pub shutdown: CancellationToken,
}

/// What a program used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// From its start to its end, seconds.
    pub wall_s: f64,
    /// User and system time of all its threads, seconds.
    pub cpu_s: f64,
    /// Peak resident memory, bytes.
    pub peak_bytes: u64,
}

impl Bench {
    /// Runs a program to its end, on one core if one is named, with nothing to read and its output
    /// thrown away.
    ///
    /// # Errors
    /// If it fails, with what it said; or if asked to end meanwhile.
    pub fn measure<A: AsRef<OsStr>>(
        &self,
        core: Option<usize>,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Usage> {
        let said = self.directory.join("said");
        let mut command = Command::new(&self.myself);
        command.arg("measure");
        if let Some(core) = core {
            command.arg("--core").arg(core.to_string());
        }
        command.arg("--").arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said)?);
        let mut group = Group::start(command)?;
        group.wait(&self.shutdown, TIMEOUT).with_context(|| {
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            format!("{} could not be measured: {}", program.display(), said.trim())
        })?;
        let mut usage = String::new();
        group.stdout()?.read_to_string(&mut usage)?;
        Ok(serde_json::from_str(&usage)?)
    }

    /// A file of the benchmarks'.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Removes a file that is not needed any more, unless it is to stay: they are large.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn done_with(&self, file: &Path) -> Result<()> {
        if !self.keep_files {
            std::fs::remove_file(file)?;
        }
        Ok(())
    }
}

/// Children in a process group of their own: none of them outlives this value, and a Ctrl-C at the
/// terminal is their owner's to pass on.
#[derive(Debug)]
pub struct Group {
    leader: Child,
}

impl Group {
    /// Starts a command as the group's leader.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let leader = command.process_group(0).spawn();
        let leader = leader.with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { leader })
    }

    /// The leader's piped standard output, once.
    ///
    /// # Errors
    /// If there is none.
    pub fn stdout(&mut self) -> Result<std::process::ChildStdout> {
        self.leader.stdout.take().ok_or_else(|| anyhow!("standard output was not piped"))
    }

    /// Waits for the leader's end.
    ///
    /// # Errors
    /// If it fails or takes too long, or if asked to end meanwhile.
    pub fn wait(&mut self, shutdown: &CancellationToken, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.leader.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("ended with {status}"),
                None if shutdown.is_cancelled() => bail!("interrupted"),
                None if Instant::now() > deadline => bail!("has not ended after {timeout:?}"),
                None => thread::sleep(POLL),
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // While the leader is not waited for, its id cannot be another's.
        if let Ok(None) = self.leader.try_wait() {
            let _ = killpg(Pid::from_raw(self.leader.id().cast_signed()), Signal::SIGKILL);
            let _ = self.leader.wait();
        }
    }
}

/// The helper: runs a program and prints what it used, as JSON.
#[derive(Debug, clap::Args)]
pub struct Measure {
    /// The core to run on; any without it.
    #[arg(long)]
    core: Option<usize>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    words: Vec<OsString>,
}

impl Measure {
    /// Runs it.
    ///
    /// # Errors
    /// If the program cannot be started or fails.
    pub fn run(&self) -> Result<()> {
        let [program, arguments @ ..] = self.words.as_slice() else { bail!("no program") };
        if let Some(core) = self.core {
            pin_to(core)?;
        }
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let status =
            command.status().context("cannot start it (deploy/setup.sh bench installs it)")?;
        let wall = started.elapsed();
        if !status.success() {
            bail!("it ended with {status}");
        }
        let used = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let cpu_us = used.user_time().num_microseconds() + used.system_time().num_microseconds();
        let usage = Usage {
            wall_s: wall.as_secs_f64(),
            cpu_s: cpu_us as f64 / 1e6,
            // The kernel counts in KiB (getrusage(2)).
            peak_bytes: used.max_rss().cast_unsigned() * 1_024,
        };
        println!("{}", serde_json::to_string(&usage)?);
        Ok(())
    }
}

/// Keeps this thread, and what it starts, on one core.
///
/// # Errors
/// If this process may not use it.
pub fn pin_to(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot use core {core}"))
}

/// The cores that this process may use.
///
/// # Errors
/// If the kernel does not say.
pub fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// What else the machine is doing, which a reader of the figures should know: the load average.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
