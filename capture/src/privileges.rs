//! Least privilege: what is given up once the packet sockets are open.
//!
//! Capabilities belong to threads, and a new thread has its creator's. So this is done on the
//! program's first thread, before it starts any other. Rings, their filters, netlink (also its
//! multicast groups) and sock_diag work without.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use thiserror::Error;

use crate::config::Config;
use crate::error::CaptureError;
use crate::ring::PacketSocket;

/// What a process may do after start that its user could not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Read and write anybody's files, as far as the process could before: started with sudo, it
    /// works on files of the user who did that (a names file, a data directory, the engine).
    FileAccess,
}

/// Why privileges are still there.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// Other threads would keep theirs.
    #[error("cannot drop privileges: {threads} threads run already, and would keep theirs")]
    Threads {
        /// How many, this one included.
        threads: usize,
    },
    /// The kernel refuses.
    #[error("cannot drop privileges: the kernel does not let {what}")]
    Kernel {
        /// What was being done.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Opens what an agent needs a privilege for, and drops all privileges but those to keep. An agent
/// that reads a file needs none, and none are dropped: `None`.
///
/// # Errors
/// If a socket cannot be opened or the privileges not be dropped, see [`drop_all`].
pub fn open_and_drop(
    config: &Config,
    keep: Keep,
) -> Result<Option<Vec<PacketSocket>>, CaptureError> {
    if config.read.is_some() {
        return Ok(None);
    }
    let sockets = PacketSocket::open_group(config.workers())?;
    drop_all(keep)?;
    Ok(Some(sockets))
}

/// Drops all capabilities, from every set, but what is to be kept and was there; from now on no
/// program that this process runs gets any (PR_SET_NO_NEW_PRIVS). There is no way back.
///
/// Call it while the calling thread is the only one. The bounding set is emptied only where the
/// process may do that (CAP_SETPCAP); without new privileges it has no effect any more.
///
/// # Errors
/// If there are other threads, or the kernel refuses.
pub fn drop_all(keep: Keep) -> Result<(), PrivilegeError> {
    let failed = |what| move |error: Errno| PrivilegeError::Kernel { what, source: error.into() };
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|source| PrivilegeError::Kernel { what: "count the threads", source })?
        .count();
    if threads > 1 {
        return Err(PrivilegeError::Threads { threads });
    }
    set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
    let had = capabilities(None).map_err(failed("say which capabilities there are"))?;
    let kept = match keep {
        Keep::Nothing => CapabilitySet::empty(),
        Keep::FileAccess => had.effective & CapabilitySet::DAC_OVERRIDE,
    };
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for capability in bounding_set() {
            remove_capability_from_bounding_set(capability)
                .map_err(failed("narrow the bounding set"))?;
        }
    }
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(failed("drop the capabilities"))
}

/// The capabilities that this kernel has, and the bounding set too.
fn bounding_set() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS)
        .map(|number| CapabilitySet::from_bits_retain(1 << number))
        .take_while(|capability| capability_is_in_bounding_set(*capability).is_ok())
        .filter(|capability| capability_is_in_bounding_set(*capability).is_ok_and(|is_in| is_in))
}
