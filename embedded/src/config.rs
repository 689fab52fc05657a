//! Where the engine's library is, where it keeps its files, and where its HTTP interface listens.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::engine::EngineError;

/// The release of the engine that this program is made for; also its folder in the cache.
pub const ENGINE_VERSION: &str = "26.7.3-stable.1";

const LIBRARY: &str = "libchdb.so";

/// The embedded engine's flags.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Config {
    /// The engine's library, libchdb.so; by default the one that `make engine` keeps in the cache,
    /// else /usr/local/lib's or /usr/lib's.
    #[arg(
        long,
        env = "FLOWTRAIL_ENGINE",
        value_name = "PATH",
        help_heading = "Embedded ClickHouse"
    )]
    pub engine: Option<PathBuf>,

    /// Folder for what is to be kept; the engine's files live in its subfolder clickhouse.
    /// By default $XDG_DATA_HOME/flowtrail or ~/.local/share/flowtrail.
    #[arg(long, env = "FLOWTRAIL_DATA", value_name = "DIR", help_heading = "Embedded ClickHouse")]
    pub data: Option<PathBuf>,

    /// Where the engine's HTTP interface listens. Whoever reaches it may, but for passwords, read and
    /// change all of the data, and read the files that this user can: leave it on a loopback address.
    #[arg(
        long,
        env = "FLOWTRAIL_CLICKHOUSE_LISTEN",
        default_value = "127.0.0.1:8123",
        value_name = "ADDRESS:PORT",
        help_heading = "Embedded ClickHouse"
    )]
    pub clickhouse_listen: SocketAddr,
}

impl Config {
    /// The data folder: the configured one or the default.
    ///
    /// # Errors
    /// If there is neither a configured one nor a home.
    pub fn data_folder(&self) -> Result<PathBuf, EngineError> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let base = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")));
        Ok(base.ok_or(EngineError::NoDataFolder)?.join("flowtrail"))
    }

    /// The library: the configured one, else the first that exists.
    ///
    /// # Errors
    /// If it is nowhere; the error lists where it was looked for.
    pub fn library(&self) -> Result<PathBuf, EngineError> {
        let places = match &self.engine {
            Some(path) => vec![path.clone()],
            None => library_places(),
        };
        match places.iter().find(|path| path.is_file()) {
            Some(path) => Ok(path.clone()),
            None => Err(EngineError::LibraryMissing { looked_in: places }),
        }
    }
}

/// Where `fetch-engine.sh` keeps the library, then where packages do.
fn library_places() -> Vec<PathBuf> {
    let caches = [
        folder("FLOWTRAIL_CACHE"),
        folder("XDG_CACHE_HOME").map(|cache| cache.join("flowtrail")),
        folder("HOME").map(|home| home.join(".cache/flowtrail")),
    ];
    let kept = caches
        .into_iter()
        .flatten()
        .map(|cache| cache.join("engine").join(ENGINE_VERSION).join(LIBRARY));
    let installed = ["/usr/local/lib", "/usr/lib"].map(|lib| PathBuf::from(lib).join(LIBRARY));
    kept.chain(installed).collect()
}

/// A folder that an environment variable names; empty is unset, as the XDG specification has it.
fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;
    use crate::access::Access;

    #[test]
    fn by_default_only_this_machine_reaches_the_port_and_limits_hold() {
        let parsed = Access::augment_args(Config::augment_args(Command::new("up")))
            .try_get_matches_from(["up"])
            .unwrap();
        let config = Config::from_arg_matches(&parsed).unwrap();
        assert!(config.clickhouse_listen.ip().is_loopback());
        let (flags, default) = (Access::from_arg_matches(&parsed).unwrap(), Access::default());
        assert_eq!(format!("{flags:?}"), format!("{default:?}"));
    }

    #[test]
    fn the_cache_comes_before_installed_libraries() {
        let places = library_places();
        let cached = places.iter().position(|path| path.ends_with("26.7.3-stable.1/libchdb.so"));
        let installed = places.iter().position(|path| path.starts_with("/usr/local/lib"));
        assert!(cached < installed, "{places:?}");
    }
}
