//! Listening on a port, with an error that says what to do when it is taken.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpListener;

/// A port that could not be listened on.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another program has it.
    #[error(
        "{address} is in use by another program: stop that, or choose another port with {flag}"
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// Anything else the kernel says.
    #[error("cannot listen on {address} ({flag})")]
    Other {
        /// The address asked for.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Listens on an address that a flag configured. Port 0 takes any free one.
///
/// # Errors
/// If the address is taken, not this machine's, or not allowed.
pub async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, flag },
        _ => ListenError::Other { address, flag, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_names_the_flag() {
        let first = listen(([127, 0, 0, 1], 0).into(), "--listen").await.unwrap();
        let error = listen(first.local_addr().unwrap(), "--listen").await.unwrap_err();
        assert!(error.to_string().contains("--listen"), "{error}");
        assert!(error.to_string().contains("in use"), "{error}");
    }
}
