//! Programs under test as child processes, and their HTTP answers.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Namespace;

/// How long a program may take to shut down cleanly.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// A child process that does not outlive its owner. Its output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program here, or in a namespace; in a process group of its own (a Ctrl-C in the
    /// terminal is its owner's to pass on), and to be ended by the kernel if its owner is killed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        namespace: Option<&Namespace>,
        log: PathBuf,
    ) -> Result<Self> {
        let mut command = match namespace {
            Some(namespace) => namespace.command("setpriv"),
            None => Command::new("setpriv"),
        };
        command.args(["--pdeathsig", "TERM", "--"]).arg(program).args(arguments);
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, name: program.display().to_string(), log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// If the time is over, or the program ends first; with what it printed.
    pub fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        so: impl Fn() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !so() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before {what}:\n{}", self.name, self.output());
            }
            if Instant::now() > deadline {
                bail!("{} is not {what} after {timeout:?}:\n{}", self.name, self.output());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until `/readyz` answers yes.
    ///
    /// # Errors
    /// As [`Process::wait_until`].
    pub fn wait_ready(&mut self, address: SocketAddr, timeout: Duration) -> Result<()> {
        self.wait_until("ready", timeout, || get(&format!("http://{address}/readyz")).is_ok())
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// If it has not ended in time; with what it printed.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} has not ended after {timeout:?}:\n{}", self.name, self.output());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has, cleanly.
    ///
    /// # Errors
    /// If it does not end in time, or with a failure; with what it printed.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.id().cast_signed()), Signal::SIGTERM)?;
        let status = self.wait(SHUTDOWN_TIMEOUT)?;
        if !status.success() {
            bail!("{} ended with {status}:\n{}", self.name, self.output());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The text that a URL answers with.
///
/// # Errors
/// If there is no answer, or it is not a success; with the answer.
pub fn get(url: &str) -> Result<String> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .http_status_as_error(false)
            .build(),
    );
    let mut answer = agent.get(url).call().with_context(|| format!("no answer from {url}"))?;
    let text = answer.body_mut().read_to_string()?;
    if !answer.status().is_success() {
        bail!("{url} answered {}: {text}", answer.status());
    }
    Ok(text)
}

/// A port that is free now.
///
/// # Errors
/// If the machine has none.
pub fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?)
}
