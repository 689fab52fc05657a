//! Whether a connection is the node's own: what the kernel knows of its sockets (sock_diag(7)).
//!
//! A masqueraded pod's connection has the node's address, too, but no socket here.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use flowtrail_schema::Endpoint;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE, TCP_LISTEN};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// How long an answer may take. The kernel gives it within the request, in microseconds; the packets
/// that wait meanwhile are safe in the ring for longer than this.
const TIMEOUT: Duration = Duration::from_millis(5);

/// Space for one answer: a socket's description, some 100 bytes, or an error with the request in it.
const ANSWER_BYTES: usize = 4_096;

/// Answers to earlier requests that are skipped at most.
const MAX_STALE: usize = 16;

/// "Any interface, any cookie" (INET_DIAG_NOCOOKIE).
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// Asks the kernel about TCP sockets of this network namespace, one at a time.
pub struct Sockets {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Sockets {
    /// Opens the socket to ask with. Needs no privilege.
    ///
    /// # Errors
    /// If the kernel has no such sockets (CONFIG_INET_DIAG).
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(TIMEOUT))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(ANSWER_BYTES) })
    }

    /// Whether a socket of this node has these ends and is or was connected; a listener is not.
    ///
    /// `None` if the kernel does not tell: it did not answer in time, or refused the question.
    pub fn owns(&mut self, local: Endpoint, remote: Endpoint) -> Option<bool> {
        // An IPv6 socket that talks IPv4 is found by the IPv4 question.
        match self.ask(local, remote) {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::debug!(%error, "the kernel does not tell whose a connection is");
                None
            }
        }
    }

    fn ask(&mut self, local: Endpoint, remote: Endpoint) -> io::Result<bool> {
        let family = match (local.ip, remote.ip) {
            (IpAddr::V4(_), IpAddr::V4(_)) => AF_INET,
            (IpAddr::V6(_), IpAddr::V6(_)) => AF_INET6,
            _ => return Ok(false),
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: local.port,
                destination_port: remote.port,
                source_address: local.ip,
                destination_address: remote.ip,
                interface_id: 0,
                cookie: NO_COOKIE,
            },
        };
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        self.buffer.resize(message.buffer_len(), 0);
        message.serialize(&mut self.buffer);
        self.socket.send(&self.buffer, 0)?;
        for _ in 0..MAX_STALE {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&self.buffer)
                .map_err(io::Error::other)?;
            // An answer that came too late for the question before is not this one's.
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                // The kernel also finds a listener, or a socket that is bound to more than asked.
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    let id = &found.header.socket_id;
                    let is_it = id.source_port == local.port
                        && id.destination_port == remote.port
                        && id.source_address.to_canonical() == local.ip.to_canonical()
                        && id.destination_address.to_canonical() == remote.ip.to_canonical();
                    let is_connected = !matches!(found.header.state, TCP_LISTEN | TCP_CLOSE);
                    Ok(is_it && is_connected)
                }
                NetlinkPayload::Error(error) => match error.to_io() {
                    error if error.kind() == io::ErrorKind::NotFound => Ok(false),
                    error => Err(error),
                },
                _ => Err(io::Error::other("an answer to no question")),
            };
        }
        Err(io::Error::from(io::ErrorKind::TimedOut))
    }
}
