//! Listening on a port, with an error that says what to do when it is taken; and what clients call it.

use std::io;
use std::net::{IpAddr, SocketAddr};

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

/// The name in a Host header, or of a URL's authority: without its port, and an address without brackets.
pub fn host_name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

/// Whether a Host header holds an address or localhost, with a port or without. A page of another site, open in
/// a browser here, can make its own name lead to this machine (DNS rebinding) and then read what a loopback
/// port answers; but it cannot change that its requests name it.
pub fn names_this_machine(host: &str) -> bool {
    let name = host_name(host);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_this_machine() {
        for host in
            ["localhost", "LocalHost:8480", "127.0.0.1", "127.0.0.1:80", "[::1]:80", "[::1]"]
        {
            assert!(names_this_machine(host), "{host}");
        }
        for host in
            ["", ":80", "localhost.evil.example", "evil.example:8480", "[evil]:80", "127.0.0.1.x"]
        {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    #[tokio::test]
    async fn a_busy_port_names_the_flag() {
        let first = listen(([127, 0, 0, 1], 0).into(), "--listen").await.unwrap();
        let error = listen(first.local_addr().unwrap(), "--listen").await.unwrap_err();
        assert!(error.to_string().contains("--listen"), "{error}");
        assert!(error.to_string().contains("in use"), "{error}");
    }
}
