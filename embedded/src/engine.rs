//! The engine: loaded, opened on a folder that is ours alone, and stopped.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tracing::info;

use crate::access::{Access, Login, Users};
use crate::config::{Config, ENGINE_VERSION};
use crate::libchdb::{Connection, Library};
use crate::request::MAX_STATEMENT_BYTES;
use crate::session::Setup;

/// Releases that this crate was made for: settings, messages and the C interface.
const RELEASE_LINE: &str = "26.7.";

/// Longest statement kept in `system.processes`, in bytes: more than any statement accepted, so
/// that the mark by which a statement is found there is never cut off.
const STATEMENT_IN_PROCESSES: usize = MAX_STATEMENT_BYTES + (64 << 10);

/// Connections that are kept set up: a graph asks with three or four at once, so those of four graphs.
const MAX_IDLE: usize = 16;

/// What the engine is configured by, in the data folder: written anew at each start.
const CONFIGURATION: &str = "clickhouse.xml";

/// The library can start its engine once a process.
static STARTED: AtomicBool = AtomicBool::new(false);

/// The engine, open on its data folder. Dropped, it is stopped, for the rest of the process.
pub struct Engine {
    library: &'static Library,
    arguments: Vec<String>,
    /// None once the engine is stopped.
    connections: Mutex<Option<Connections>>,
    version: String,
    timezone: String,
    users: Users,
    /// Held as long as the files are in use.
    _lock: File,
}

/// Connections that no statement runs on.
struct Connections {
    /// Keeps the engine up while there is no other.
    _first: Connection,
    /// Set up as said, and ready for a query that wants it so; the one that was used last comes last.
    idle: Vec<(Setup, Connection)>,
}

/// Why the engine cannot be opened.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The library is not there.
    #[error(
        "the embedded engine's library is missing (looked for {}): run `make engine`, or `npm pack @chdb/lib-linux-x64-gnu@{ENGINE_VERSION}`, unpack its libchdb.so and pass that with --engine",
        list(looked_in)
    )]
    LibraryMissing {
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
    },
    /// The file is no libchdb.
    #[error("{} is not a usable libchdb.so: run `make engine`, or pass the library of {ENGINE_VERSION} with --engine", path.display())]
    Library {
        /// The file.
        path: PathBuf,
        /// What the loader says.
        source: libloading::Error,
    },
    /// The library is of another release line.
    #[error("{} is chdb {found}, this program needs {RELEASE_LINE}x: run `make engine`, or pass the library of {ENGINE_VERSION} with --engine", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// No `--data`, and no home to derive it from.
    #[error("no folder to keep data in: set --data, or the environment's HOME")]
    NoDataFolder,
    /// The data folder cannot be made or written.
    #[error("cannot use {}: choose a writable folder with --data", path.display())]
    Data {
        /// The folder or file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The data folder's name cannot be passed to the engine.
    #[error("the folder {} is not valid UTF-8: choose another with --data", path.display())]
    DataName {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works on the data folder.
    #[error("another process uses {}: stop it, or choose another folder with --data", data.display())]
    InUse {
        /// The folder.
        data: PathBuf,
    },
    /// The engine was opened before in this process.
    #[error("the engine can be opened only once in a process")]
    OncePerProcess,
    /// The engine does not start on the folder.
    #[error("the engine cannot open {}: {reason}; check that the folder is writable and not of a newer ClickHouse, or choose another with --data", path.display())]
    Start {
        /// The engine's folder.
        path: PathBuf,
        /// What it says, if it says anything.
        reason: String,
    },
}

impl Engine {
    /// As [`Engine::open_for`], with the default limits and without passwords.
    ///
    /// # Errors
    /// The same.
    pub fn open(config: &Config) -> Result<Self, EngineError> {
        Self::open_for(config, &Access::default())
    }

    /// Loads the library and opens the data folder, which is made if it is missing. What clients may
    /// do is set for good.
    ///
    /// Blocks for about a tenth of a second. Works once a process.
    ///
    /// # Errors
    /// If the library is missing or of another release, the folder is in use or not usable, or the
    /// engine was opened before.
    pub fn open_for(config: &Config, access: &Access) -> Result<Self, EngineError> {
        let path = config.library()?;
        let library = Library::load(&path)
            .map_err(|source| EngineError::Library { path: path.clone(), source })?;
        check_version(library.version(), &path)?;
        let data = config.data_folder()?;
        let files = data.join("clickhouse");
        fs::create_dir_all(&files)
            .map_err(|source| EngineError::Data { path: files.clone(), source })?;
        let lock = lock(&data)?;
        let configuration = data.join(CONFIGURATION);
        let failed = |source| EngineError::Data { path: configuration.clone(), source };
        let users = Users::new(access).map_err(failed)?;
        let absolute = std::path::absolute(&configuration).map_err(failed)?;
        fs::write(&configuration, users.configuration(name(&absolute)?)).map_err(failed)?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EngineError::OncePerProcess);
        }
        library.disable_signal_handlers();
        let engine = Self::start(library, [&files, &configuration], users, lock)
            .inspect_err(|_| STARTED.store(false, Ordering::SeqCst))?;
        info!(version = engine.version, folder = %files.display(), "embedded clickhouse open");
        Ok(engine)
    }

    fn start(
        library: &'static Library,
        paths: [&Path; 2],
        users: Users,
        lock: File,
    ) -> Result<Self, EngineError> {
        let [files, configuration] = paths;
        let arguments = vec![
            format!("--path={}", name(files)?),
            format!("--config-file={}", name(configuration)?),
            // As a server: `1` alone is not a SELECT.
            "--implicit_select=0".to_owned(),
            format!("--log_queries_cut_to_length={STATEMENT_IN_PROCESSES}"),
        ];
        let failed = |reason| EngineError::Start { path: files.to_path_buf(), reason };
        let mut first =
            library.connect(&arguments).ok_or_else(|| failed("it gives no reason".to_owned()))?;
        let facts = first.query("SELECT version(), timezone()", "TSV", &[]).map_err(failed)?;
        let facts = String::from_utf8_lossy(&facts.data).trim_end().to_owned();
        let (version, timezone) = facts.split_once('\t').unwrap_or((&facts, "UTC"));
        Ok(Self {
            library,
            arguments,
            version: version.to_owned(),
            timezone: timezone.to_owned(),
            users,
            connections: Mutex::new(Some(Connections { _first: first, idle: Vec::new() })),
            _lock: lock,
        })
    }

    /// A connection of its own, without anyone's settings. Costs a quarter of a millisecond.
    /// `None` once the engine is stopped.
    pub(crate) fn connect(&self) -> Option<Connection> {
        self.library.connect(&self.arguments)
    }

    /// A connection that was kept with the same setup.
    pub(crate) fn idle(&self, setup: &Setup) -> Option<Connection> {
        let mut connections = self.connections();
        let Connections { idle, .. } = connections.as_mut()?;
        let at = idle.iter().rposition(|(kept, _)| kept == setup)?;
        Some(idle.remove(at).1)
    }

    /// Keeps a connection, in which nothing but its setup may have been set, for the next query with the same.
    pub(crate) fn keep(&self, setup: Setup, connection: Connection) {
        let mut connections = self.connections();
        let Some(Connections { idle, .. }) = connections.as_mut() else { return };
        let oldest = (idle.len() >= MAX_IDLE).then(|| idle.remove(0));
        idle.push((setup, connection));
        drop(connections);
        // Closed when others may go on.
        drop(oldest);
    }

    fn connections(&self) -> MutexGuard<'_, Option<Connections>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// ClickHouse's version, like `26.7.2.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The login of this process's own services, for whom there are no limits. The password is this
    /// engine's, made when it was opened.
    pub fn service_login(&self) -> &Login {
        self.users.service()
    }

    /// The login of those who only read.
    pub fn reader_login(&self) -> &Login {
        self.users.reader()
    }

    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    /// The engine's time zone, like `Etc/UTC`.
    pub(crate) fn timezone(&self) -> &str {
        &self.timezone
    }

    /// Closes the last connections, upon which the engine closes its tables and ends its work.
    /// Blocks until that is done.
    pub(crate) fn stop(&self) {
        let connections = self.connections().take();
        if connections.is_none() {
            return;
        }
        drop(connections);
        // With MergeTree tables 26.7.3 keeps some idle pool threads, which end with the process.
        let threads_ended = self.library.shutdown();
        info!(threads_ended, "embedded clickhouse stopped");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Another release may have other settings, messages and functions, and would fail later and worse.
fn check_version(found: String, path: &Path) -> Result<(), EngineError> {
    if found.starts_with(RELEASE_LINE) {
        return Ok(());
    }
    Err(EngineError::Version { path: path.to_path_buf(), found })
}

/// A path as the engine takes it.
fn name(path: &Path) -> Result<&str, EngineError> {
    path.to_str().ok_or_else(|| EngineError::DataName { path: path.to_path_buf() })
}

/// Takes the data folder for this process; the kernel gives it back when the process ends.
fn lock(data: &Path) -> Result<File, EngineError> {
    let path = data.join("clickhouse.lock");
    let failed = |source| EngineError::Data { path: path.clone(), source };
    let file =
        File::options().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EngineError::InUse { data: data.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_another_release_says_what_to_do() {
        let path = Path::new("/usr/lib/libchdb.so");
        assert!(check_version("26.7.3".to_owned(), path).is_ok());
        for other in ["26.70.1", "26.8.1", "3.1.0", ""] {
            let error = check_version(other.to_owned(), path).unwrap_err().to_string();
            for part in ["/usr/lib/libchdb.so", other, "26.7.", "make engine"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
