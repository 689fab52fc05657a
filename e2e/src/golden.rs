//! Golden captures: traffic of known shape between network namespaces, recorded with tcpdump into the
//! files that `capture/tests/golden` holds beside their reviewed records.

mod conversation;
mod derive;
mod endings;
mod handshakes;
mod lives;
mod packets;
mod paths;
mod recording;
mod stage;
mod wire;

use std::path::Path as FilePath;

use anyhow::{Context, Result};

pub use derive::derive;
use stage::{Path, Stage};

/// One kind of traffic, and the capture or captures of it.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name of the case, and of its file, or of its files' beginning.
    pub name: &'static str,
    path: Path,
    run: fn(&Stage) -> Result<()>,
}

impl Case {
    const fn new(name: &'static str, path: Path, run: fn(&Stage) -> Result<()>) -> Self {
        Self { name, path, run }
    }

    /// Makes the traffic, and its captures in a directory.
    ///
    /// # Errors
    /// Without root, or if the traffic is not what it should be.
    pub fn make(&self, directory: &FilePath) -> Result<()> {
        let stage = Stage::set(self.name, self.path, directory.to_owned());
        stage.and_then(|stage| (self.run)(&stage)).with_context(|| self.name)
    }
}

/// All cases.
pub fn cases() -> impl Iterator<Item = Case> {
    [handshakes::CASES, endings::CASES, lives::CASES, paths::CASES].concat().into_iter()
}
