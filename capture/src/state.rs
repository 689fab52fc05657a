//! The state file: the live connections of an agent, written every minute and at the end, read at the
//! start. A restart is then a gap in coverage, and not a new set of connections.
//!
//! ```text
//! magic, flows (protobuf, each piece after its length) …, trailer, its length and the CRC-32 of all before
//! ```
//!
//! A new file replaces the old one by renaming, so there is always a whole one.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use flowtrail_schema::interval::IntervalLength;
use flowtrail_schema::{Endpoint, Interface};
use prost::Message;
use thiserror::Error;
use tracing::{info, warn};

use crate::config::Identity;
use crate::flow_table::{FlowTable, SavedFlows, Shared};

#[cfg(test)]
mod tests;
mod writer;

pub(crate) use writer::{Round, Saver, StateWriter};

const MAGIC: &[u8; 17] = b"flowtrail state 1";

/// The largest file that is read: four million flows.
const MAX_BYTES: u64 = 512 << 20;

/// Why there is no place for the state.
#[derive(Debug, Error)]
pub enum StateError {
    /// The directory cannot be used.
    #[error("cannot use the state directory {path}: give one that can be written with --state-dir", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Another agent has it.
    #[error("another agent uses the state directory {path}: give each its own with --state-dir", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A state directory that is this agent's as long as the value lives.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

#[derive(Clone, PartialEq, Message)]
struct Trailer {
    #[prost(string, tag = "1")]
    agent: String,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(uint64, tag = "3")]
    flows: u64,
    /// Length of the flows and all before them, in bytes.
    #[prost(uint64, tag = "4")]
    flows_end: u64,
    /// Written at the end of a process: nothing happened after that.
    #[prost(bool, tag = "5")]
    is_final: bool,
}

impl StateDirectory {
    /// Opens a directory, and makes it if need be.
    ///
    /// # Errors
    /// If that cannot be, or another process has it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Directory { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("agent.lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn file(&self) -> PathBuf {
        self.path.join("agent.state")
    }

    /// Puts back what an agent of this name kept, into the tables of its workers; `worker_of` says which.
    /// A file that cannot be used is told in the log: the agent then begins anew.
    pub(crate) fn restore(
        &self,
        identity: &Identity,
        shared: &Shared,
        tables: &mut [FlowTable],
        worker_of: impl Fn([Endpoint; 2]) -> usize,
        now: (u64, IntervalLength),
    ) {
        let path = self.file();
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot read the state file, connections begin anew");
                return;
            }
        };
        let restored = check(&bytes, identity)
            .and_then(|trailer| put_back(&bytes, &trailer, shared, tables, worker_of, now));
        match restored {
            Ok((flows, refused)) => {
                info!(flows, refused, "connections go on from before the restart")
            }
            Err(reason) => {
                warn!(path = %path.display(), reason, "the state file is of no use, connections begin anew");
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Err(io::Error::other("it is larger than any agent writes"));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The trailer, if the file is whole and this agent's.
fn check(bytes: &[u8], identity: &Identity) -> Result<Trailer, &'static str> {
    let damaged = "it is damaged";
    let (all, sum) = bytes.split_last_chunk::<4>().ok_or(damaged)?;
    let rest = all.strip_prefix(MAGIC).ok_or("it is of another version")?;
    if crc32fast::hash(all) != u32::from_le_bytes(*sum) {
        return Err(damaged);
    }
    let (rest, length) = rest.split_last_chunk::<4>().ok_or(damaged)?;
    let start = rest.len().checked_sub(u32::from_le_bytes(*length) as usize).ok_or(damaged)?;
    let trailer = Trailer::decode(&rest[start..]).map_err(|_| damaged)?;
    if trailer.flows_end != (start + MAGIC.len()) as u64 {
        return Err(damaged);
    }
    if *trailer.agent != *identity.agent || *trailer.node != *identity.node {
        return Err("it is another agent's");
    }
    Ok(trailer)
}

/// How many flows were put back, and how many not.
fn put_back(
    bytes: &[u8],
    trailer: &Trailer,
    shared: &Shared,
    tables: &mut [FlowTable],
    worker_of: impl Fn([Endpoint; 2]) -> usize,
    (now_us, interval): (u64, IntervalLength),
) -> Result<(u64, u64), &'static str> {
    // After a crash nobody knows how far open connections were counted: not in the interval at hand.
    let counted_s = match trailer.is_final {
        true => 0,
        false => interval.interval_at(now_us).start_s() as u32,
    };
    let mut rest = &bytes[MAGIC.len()..trailer.flows_end as usize];
    let (mut flows, mut refused) = (0, 0);
    let mut added = HashMap::new();
    while !rest.is_empty() {
        let saved = SavedFlows::decode_length_delimited(&mut rest).map_err(|_| "it is damaged")?;
        let mut point = |interface: Interface| {
            let add = || shared.add_point(interface.clone().into());
            *added.entry(interface.clone()).or_insert_with(add)
        };
        let points: Vec<_> = saved.interfaces().map(&mut point).collect();
        for (n, ends) in saved.ends().enumerate() {
            let table = tables.get_mut(worker_of(ends));
            let is_back = table.is_some_and(|table| table.restore(&saved, n, &points, counted_s));
            flows += u64::from(is_back);
            refused += u64::from(!is_back);
        }
    }
    tables.iter_mut().for_each(FlowTable::restored);
    // Whether the interfaces are still there is told when they are looked for.
    added.into_values().flatten().for_each(|point| shared.remove_point(point));
    Ok((flows, refused))
}

/// A file being written; what is not finished replaces nothing.
struct NewFile {
    file: BufWriter<File>,
    path: PathBuf,
    sum: Hasher,
    length: u64,
    flows: u64,
}

impl NewFile {
    fn create(directory: &StateDirectory) -> io::Result<Self> {
        let path = directory.path.join("agent.state.new");
        let file = BufWriter::new(File::create(&path)?);
        let mut new = Self { file, path, sum: Hasher::new(), length: 0, flows: 0 };
        new.write(MAGIC)?;
        Ok(new)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn add(&mut self, flows: &SavedFlows) -> io::Result<()> {
        self.flows += flows.len() as u64;
        self.write(&flows.encode_length_delimited_to_vec())
    }

    fn finish(
        mut self,
        directory: &StateDirectory,
        identity: &Identity,
        is_final: bool,
    ) -> io::Result<u64> {
        let trailer = Trailer {
            agent: identity.agent.to_string(),
            node: identity.node.to_string(),
            flows: self.flows,
            flows_end: self.length,
            is_final,
        }
        .encode_to_vec();
        self.write(&trailer)?;
        self.write(&(trailer.len() as u32).to_le_bytes())?;
        let sum = self.sum.clone().finalize();
        self.file.write_all(&sum.to_le_bytes())?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.path, directory.file())?;
        File::open(&directory.path)?.sync_all()?;
        Ok(self.flows)
    }
}
