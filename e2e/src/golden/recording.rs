//! Recordings: tcpdump into a file, and what is changed in the file afterwards.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::Namespace;

/// Headers of a pcap file, and of each packet in it (draft-ietf-opsawg-pcap). tcpdump writes them in
/// the machine's order, which is little-endian where this runs.
pub(super) const PCAP_HEADER_BYTES: usize = 24;
pub(super) const PACKET_HEADER_BYTES: usize = 16;

/// What the kernel still has of packets when a case is over.
const SETTLE: Duration = Duration::from_millis(300);

/// A tcpdump that runs. Dropping it ends it.
pub(super) struct Recording {
    child: Child,
    path: PathBuf,
}

impl Recording {
    pub(super) fn start(at: (&Namespace, &str), path: PathBuf, options: &[&str]) -> Result<Self> {
        let (namespace, interface) = at;
        let mut child = namespace
            .command("tcpdump")
            .args(["-i", interface, "-n", "-p", "-U", "--immediate-mode", "-Z", "root", "-w"])
            .arg(&path)
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run tcpdump: apt-get install tcpdump")?;
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().context("tcpdump has no stderr")?);
        while !said.contains("listening on") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("tcpdump ended: {said}");
            }
        }
        thread::spawn(move || stderr.read_to_string(&mut said));
        Ok(Self { child, path })
    }

    /// Ends it, with all that has passed by now in its file.
    pub(super) fn stop(mut self) -> Result<()> {
        thread::sleep(SETTLE);
        self.interrupt();
        let status = self.child.wait()?;
        if !status.success() {
            bail!("tcpdump failed: {status}");
        }
        Ok(())
    }

    /// Ends it, and dates what has passed since an instant later than it was.
    pub(super) fn stop_and_postpone(self, since: SystemTime, by: Duration) -> Result<()> {
        let path = self.path.clone();
        self.stop()?;
        let since_s = since.duration_since(UNIX_EPOCH)?.as_secs_f64();
        let mut bytes = std::fs::read(&path)?;
        let mut at = PCAP_HEADER_BYTES;
        while let Some(header) = bytes.get_mut(at..at + PACKET_HEADER_BYTES) {
            let word = |n: usize| -> u32 {
                header[4 * n..].first_chunk().copied().map_or(0, u32::from_le_bytes)
            };
            let (seconds, microseconds, captured) = (word(0), word(1), word(2));
            if f64::from(seconds) + f64::from(microseconds) / 1e6 >= since_s {
                let later = seconds + by.as_secs() as u32;
                header[..4].copy_from_slice(&later.to_le_bytes());
            }
            at += PACKET_HEADER_BYTES + captured as usize;
        }
        std::fs::write(&path, bytes)?;
        Ok(())
    }

    fn interrupt(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It has ended by itself, at worst.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.interrupt();
        let _ = self.child.wait();
    }
}
