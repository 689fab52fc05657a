//! Why capturing ends.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::interfaces::InterfaceError;
use crate::output::OutputError;
use crate::pcap::PcapError;
use crate::privileges::PrivilegeError;
use crate::recorder::Summary;
use crate::ring::RingError;
use crate::state::StateError;

/// Why an agent cannot start, or ended.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The host has no name, and none was given.
    #[error("cannot read the host's name: give one with --node")]
    HostName {
        /// The system's answer.
        source: io::Error,
    },
    /// No packets can be captured, most often for want of a capability.
    #[error(transparent)]
    Start(#[from] RingError),
    /// Privileges that are not needed any more are still there.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The interfaces are not known.
    #[error(transparent)]
    Interfaces(#[from] InterfaceError),
    /// There is no place for the connections.
    #[error(transparent)]
    State(#[from] StateError),
    /// Capturing failed while it ran.
    #[error("the packet socket failed")]
    Ring {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file that cannot be read at all.
    #[error("cannot capture from {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PcapError,
    },
    /// A file that breaks off: what could be read has been published.
    #[error(
        "{path} breaks off: what could be read of it, {packets} packets, was published",
        path = path.display(),
        packets = summary.packets
    )]
    BrokenFile {
        /// The file.
        path: PathBuf,
        /// What was read and published.
        summary: Box<Summary>,
        /// What is wrong, and where.
        source: PcapError,
    },
    /// The output failed.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// No thread to read on.
    #[error("cannot start the capture thread")]
    Thread {
        /// The system's answer.
        source: io::Error,
    },
    /// The reading thread died: a bug.
    #[error("the capture thread ended without a result")]
    Stopped,
}
