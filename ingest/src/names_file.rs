//! Names from a file: the output of `kubectl get pods,services,nodes,endpointslices,replicasets,jobs
//! -A -o json`, reread when it changes. A file that cannot be read leaves the last good names in place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::names::{Names, now_us, since_epoch_us};
use crate::objects::{Kind, Object};

/// How often the file's time and size are looked at.
const POLL: Duration = Duration::from_secs(1);

/// Largest file that is read, as it is held in memory: 150,000 pods are about as many times 5 KiB.
/// A larger one is an error.
pub const MAX_BYTES: u64 = 1 << 30;

/// Undecodable objects that are logged of one file, at most; all are counted.
const MAX_LOGGED: usize = 10;

/// Why the names file could not be read.
#[derive(Debug, Error)]
pub enum NamesFileError {
    /// It is not there, or not readable.
    #[error("cannot read the names file {}: give --names a file that this user can read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is larger than [`MAX_BYTES`].
    #[error("the names file {} has more than {MAX_BYTES} bytes: leave kinds or namespaces out of it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not JSON, or not a List. The source names line and column.
    #[error(
        "the names file {} is no List of objects: make it with `kubectl get pods,services,nodes,endpointslices,replicasets,jobs -A -o json`",
        path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        source: serde_json::Error,
    },
}

/// A names file that has been read once.
#[derive(Debug)]
pub struct NamesFile {
    path: PathBuf,
    names: Names,
    /// Time and size of the file as last looked at, good or not.
    stamp: Stamp,
    /// What was read and is not in the index yet.
    read: Option<List>,
}

type Stamp = Option<(SystemTime, u64)>;

impl NamesFile {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read: there are no good names yet that could stay.
    pub fn open(path: PathBuf, names: Names) -> Result<Self, NamesFileError> {
        let mut file = Self { path, names, stamp: None, read: None };
        file.read()?;
        Ok(file)
    }

    /// Puts what was read into the index. What is there before and not in the file has vanished.
    pub fn apply(&mut self) {
        let Some(list) = self.read.take() else { return };
        self.names.update(|index| {
            for kind in Kind::ALL {
                let listed = list.objects.get(&kind).map(Vec::as_slice).unwrap_or_default();
                index.replace(kind, listed, list.changed_us);
            }
        });
    }

    /// Rereads the file whenever it changes, until the token is cancelled.
    pub async fn follow(mut self, shutdown: CancellationToken) {
        let mut poll = tokio::time::interval(POLL);
        while shutdown.run_until_cancelled(poll.tick()).await.is_some() {
            let stamp = stamp_of(&self.path);
            if stamp == self.stamp {
                continue;
            }
            // A large file takes a while to parse: not on a thread that serves others.
            let reread = tokio::task::spawn_blocking(move || {
                self.stamp = stamp;
                self.reread();
                self
            });
            match reread.await {
                Ok(file) => self = file,
                Err(_) => return,
            }
        }
    }

    /// Reads the file; on failure says so and keeps the last good names.
    fn reread(&mut self) {
        if let Err(error) = self.read() {
            self.names.metrics.file_failures.inc();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            warn!(%error, source, "names file not read, the last good names stay");
        }
        self.apply();
    }

    fn read(&mut self) -> Result<(), NamesFileError> {
        let unreadable = |source| NamesFileError::Unreadable { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let Some(text) = read_at_most(file, MAX_BYTES).map_err(unreadable)? else {
            return Err(NamesFileError::TooLarge { path: self.path.clone() });
        };
        let mut list = parse(&text)
            .map_err(|source| NamesFileError::Invalid { path: self.path.clone(), source })?;
        // The time was taken before the text: a change in between is read again.
        let modified = metadata.modified().ok();
        self.stamp = modified.map(|time| (time, metadata.len()));
        list.changed_us = modified.map_or_else(now_us, since_epoch_us);

        self.names.metrics.undecodable.inc_by(list.undecodable);
        for problem in &list.problems {
            warn!(path = %self.path.display(), problem, "object in the names file skipped");
        }
        let objects: usize = list.objects.values().map(Vec::len).sum();
        info!(path = %self.path.display(), objects, undecodable = list.undecodable, "names read");
        self.read = Some(list);
        Ok(())
    }
}

/// All of a file, or `None` if it is larger. Its size is no promise: it may grow, and a device or a
/// pipe has none.
fn read_at_most(file: File, bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    file.take(bytes + 1).read_to_end(&mut text)?;
    Ok((text.len() as u64 <= bytes).then_some(text))
}

fn stamp_of(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The objects of a List by kind, how many others could not be decoded, and what is wrong with the
/// first of these.
#[derive(Debug, Default)]
struct List {
    /// When the file was changed, microseconds since the epoch.
    changed_us: u64,
    objects: HashMap<Kind, Vec<Object>>,
    undecodable: u64,
    problems: Vec<String>,
}

fn parse(text: &[u8]) -> Result<List, serde_json::Error> {
    #[derive(Deserialize)]
    struct Items<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    let Items { items } = serde_json::from_slice(text)?;
    let mut list = List::default();
    for (position, item) in items.iter().enumerate() {
        let problem = match Object::from_json(item.get()) {
            Ok(Some(object)) => {
                let problem = match &object {
                    Object::Unreadable(unreadable) => Some(unreadable.error.clone()),
                    _ => None,
                };
                list.objects.entry(object.kind()).or_default().push(object);
                problem
            }
            // Other kinds may be in the same dump.
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            list.undecodable += 1;
            if list.problems.len() < MAX_LOGGED {
                list.problems.push(format!("items[{position}]: {problem}"));
            }
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use flowtrail_service::metrics::Metrics;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, ip: &str) -> serde_json::Value {
        json!({"kind": "Pod", "metadata": {"name": name, "uid": name}, "status": {"podIP": ip}})
    }

    fn list(items: &[serde_json::Value]) -> String {
        json!({"kind": "List", "items": items}).to_string()
    }

    /// The name of an address now.
    fn name(names: &Names, ip: &str) -> String {
        names.read().lookup(ip.parse().unwrap(), 1, now_us(), "").name.to_string()
    }

    struct Fixture {
        _directory: tempfile::TempDir,
        path: PathBuf,
        names: Names,
    }

    fn fixture(text: &str) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names.json");
        std::fs::write(&path, text).unwrap();
        Fixture { path, _directory: directory, names: Names::new(&Metrics::new()) }
    }

    #[tokio::test]
    async fn a_changed_file_is_reread_and_a_broken_one_leaves_the_last_good_names() {
        let Fixture { _directory, path, names } = fixture(&list(&[pod("a", "10.0.0.1")]));
        let mut file = NamesFile::open(path.clone(), names.clone()).unwrap();
        file.apply();
        let end = CancellationToken::new();
        let following = tokio::spawn(file.follow(end.clone()));
        assert_eq!(name(&names, "10.0.0.1"), "a");

        std::fs::write(&path, list(&[pod("a", "10.0.0.1")]).split_at(40).0).unwrap();
        until(|| names.metrics.file_failures.get() == 1).await;
        assert_eq!(name(&names, "10.0.0.1"), "a");

        std::fs::write(&path, list(&[pod("b", "10.0.0.2")])).unwrap();
        until(|| name(&names, "10.0.0.2") == "b").await;
        assert_eq!(name(&names, "10.0.0.1"), "", "it is in the file no more");
        end.cancel();
        following.await.unwrap();
    }

    async fn until(holds: impl Fn() -> bool) {
        let mut polls = 0;
        while !holds() {
            polls += 1;
            assert!(polls < 1_000, "waited 10 s");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn what_vanished_from_the_file_ended_when_it_changed() {
        let Fixture { _directory, path, names } = fixture(&list(&[pod("a", "10.0.0.1")]));
        let mut file = NamesFile::open(path.clone(), names.clone()).unwrap();
        file.apply();
        std::fs::write(&path, list(&[])).unwrap();
        let changed = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
        file.reread();
        let at = |us| names.read().lookup("10.0.0.1".parse().unwrap(), 1, us, "").name.to_string();
        assert_eq!([at(3_999_999_999_999_999), at(4_000_000_000_000_000)], ["a", ""]);
    }

    #[test]
    fn one_undecodable_object_is_skipped_and_the_others_are_kept() {
        let bad = json!({"kind": "Pod", "metadata": {"name": "bad"}, "status": {"podIPs": 7}});
        let other = json!({"kind": "ConfigMap", "metadata": {"name": "c"}});
        let text = list(&[bad, other, json!("text"), pod("a", "10.0.0.1")]);
        let Fixture { _directory, path, names } = fixture(&text);
        NamesFile::open(path, names.clone()).unwrap().apply();
        assert_eq!(name(&names, "10.0.0.1"), "a");
        assert_eq!(names.metrics.undecodable.get(), 2);
        assert_eq!(names.metrics.objects.get(), 1);
    }

    #[test]
    fn a_device_without_end_or_size_is_not_read_for_ever() {
        let read = |bytes| read_at_most(File::open("/dev/zero").unwrap(), bytes).unwrap();
        assert_eq!(read(1_000), None);
        let Fixture { _directory, path, .. } = fixture("{}");
        let read = |bytes| read_at_most(File::open(&path).unwrap(), bytes).unwrap();
        assert_eq!([read(1), read(2)], [None, Some(b"{}".to_vec())]);
    }

    #[test]
    fn at_start_a_broken_file_is_an_error_that_says_where_and_what_to_do() {
        let Fixture { _directory, path, names } = fixture("{\"items\": [\n  {]}");
        let error = NamesFile::open(path.clone(), names.clone()).unwrap_err();
        assert!(error.to_string().contains("kubectl get"), "{error}");
        assert!(error.source().unwrap().to_string().contains("line 2 column"), "{error:?}");
        std::fs::remove_file(&path).unwrap();
        let error = NamesFile::open(path, names).unwrap_err();
        assert!(error.to_string().contains("--names"), "{error}");
    }
}
