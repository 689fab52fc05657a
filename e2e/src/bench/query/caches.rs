//! Making the engine cold: its caches dropped, and the pages of its files.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clickhouse::Client;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::syncfs;

use crate::bench::ingest::store::Engine;

/// What ClickHouse keeps in memory of its files and of earlier queries.
const ENGINE_CACHES: &[&str] = &[
    "MARK CACHE",
    "INDEX MARK CACHE",
    "PRIMARY INDEX CACHE",
    "UNCOMPRESSED CACHE",
    "INDEX UNCOMPRESSED CACHE",
    "MMAP CACHE",
    "QUERY CONDITION CACHE",
    "QUERY CACHE",
];

/// The engine's caches and its files.
#[derive(Debug)]
pub struct Caches<'a> {
    engine: &'a Engine,
    client: &'a Client,
    files: Vec<PathBuf>,
}

impl<'a> Caches<'a> {
    /// Of an engine whose files, in a folder, are written and merged: all are on the disk then.
    ///
    /// # Errors
    /// If they cannot be listed or written to the disk.
    pub fn of(engine: &'a Engine, client: &'a Client, folder: &Path) -> Result<Self> {
        // A page that is not on the disk yet stays where it is.
        syncfs(File::open(folder)?)?;
        let mut files = Vec::new();
        list(folder, &mut files)?;
        Ok(Self { engine, client, files })
    }

    /// Drops them. Only the pages of these files go (posix_fadvise(2), POSIX_FADV_DONTNEED): whatever else
    /// runs on the machine keeps its own, and no root is needed. What stays is compiled expressions, and
    /// the kernel's names and inodes.
    ///
    /// # Errors
    /// If the engine or the kernel refuses.
    pub fn drop_all(&self) -> Result<()> {
        for cache in ENGINE_CACHES {
            let statement = format!("SYSTEM DROP {cache}");
            self.engine.block_on(self.client.query(&statement).execute())?;
        }
        for path in &self.files {
            match File::open(path) {
                Ok(file) => {
                    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
                }
                // Of a part that was merged into another.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
        Ok(())
    }
}

/// The files below a folder. The engine may be removing merged parts meanwhile.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), files)?,
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    Ok(())
}
