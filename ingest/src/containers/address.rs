//! Where a container engine is asked: `--containers`.

use std::fmt::{self, Display};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where Docker listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// The address of an Engine API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineAddress {
    /// A socket in the file system: an absolute path.
    Unix(PathBuf),
    /// HTTP without encryption, as `http://host:port`: a proxy before the socket, most often.
    Http(String),
}

impl FromStr for EngineAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(path.into()));
        }
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("tcp://"));
        match host.map(|host| host.trim_end_matches('/')) {
            Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => {
                Ok(Self::Http(format!("http://{host}")))
            }
            _ => Err(format!("use {DEFAULT_SOCKET} or http://HOST:PORT")),
        }
    }
}

impl Display for EngineAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Http(url) => formatter.write_str(url),
        }
    }
}

/// Why a container engine cannot be asked at all.
#[derive(Debug, Error)]
pub enum EngineAddressError {
    /// There is no such socket.
    #[error(
        "there is no socket {} for --containers: start Docker, or give --containers the address that `docker context inspect` shows",
        path.display()
    )]
    Missing {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error(
        "permission denied for the socket {}: run as root or in the group that owns it (docker, most often), or give --containers the http:// address of a read-only proxy before it",
        path.display()
    )]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// Nobody listens there.
    #[error("cannot connect to the socket {} for --containers: is Docker running?", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl EngineAddress {
    /// Tries to connect, if it is a socket: what is wrong there does not mend itself. A host may come yet.
    ///
    /// # Errors
    /// If the socket is missing, or not for this user, or nobody listens.
    pub fn check(&self) -> Result<(), EngineAddressError> {
        let Self::Unix(path) = self else { return Ok(()) };
        let path = path.clone();
        match UnixStream::connect(&path).map_err(|error| (error.kind(), error)) {
            Ok(_) => Ok(()),
            Err((io::ErrorKind::NotFound, _)) => Err(EngineAddressError::Missing { path }),
            Err((io::ErrorKind::PermissionDenied, _)) => Err(EngineAddressError::Denied { path }),
            Err((_, source)) => Err(EngineAddressError::Unreachable { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_or_hosts() {
        let written = |text: &str| text.parse::<EngineAddress>().map(|address| address.to_string());
        assert_eq!(written("unix:///run/x.sock").unwrap(), "unix:///run/x.sock");
        assert_eq!(written("/run/x.sock").unwrap(), "unix:///run/x.sock");
        assert_eq!(written("http://proxy:2375/").unwrap(), "http://proxy:2375");
        assert_eq!(written("tcp://127.0.0.1:2375").unwrap(), "http://127.0.0.1:2375");
        for wrong in ["", "unix://run/x", "https://proxy", "http://", "http://a/b", "ssh://host"] {
            let error = written(wrong).unwrap_err();
            assert!(error.contains("unix:///var/run/docker.sock"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_socket_that_cannot_be_asked_is_said_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let address = EngineAddress::Unix(path.clone());
        let error = address.check().unwrap_err().to_string();
        assert!(error.contains("start Docker"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = address.check().unwrap_err().to_string();
        assert!(error.contains("is Docker running?"), "{error}");
        std::fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        address.check().unwrap();
    }
}
