//! Packet → `Segment`: what the flow table needs to know of one captured TCP packet.
//!
//! Link layer ([`LinkType`]), then IP, then TCP, or a tunnel ([`Parser`]) and IP again. Any bytes are accepted: what is not a whole TCP
//! header comes back as [`Skipped`], never as a panic.

use etherparse::IpNumber;
use flowtrail_schema::Endpoint;

mod ip;
mod link;
#[cfg(test)]
pub(crate) mod tests;
mod tunnel;

pub use link::LinkType;

use ip::IpPacket;
use tunnel::Tunnel;

/// One TCP segment, as the headers of its packet describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The end that sent it.
    pub source: Endpoint,
    /// The end it is for.
    pub destination: Endpoint,
    /// Sequence number of the first payload byte (of the SYN, if that is set).
    pub sequence: u32,
    /// Next sequence number expected from the other end, if `flags.ack`.
    pub acknowledgment: u32,
    /// The flags that move a connection along.
    pub flags: Flags,
    /// Receive window, unscaled.
    pub window: u16,
    /// Length of the IP packet, IP header included (IPFIX octetDeltaCount, IE 1).
    pub ip_bytes: u32,
    /// TCP payload: at most `ip_bytes` less 40.
    pub payload_bytes: u32,
}

/// TCP flags (RFC 9293, 3.1), those that change a connection's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the RFC")]
pub struct Flags {
    pub fin: bool,
    pub syn: bool,
    pub rst: bool,
    pub ack: bool,
}

/// Why a packet is no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skipped {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// IP with another payload.
    NotTcp,
    /// A tunnel that was not to be opened, cannot be, or is in too many others.
    Tunnel,
    /// A fragment after the first: whatever it is of, its headers are in the first.
    Fragment,
    /// The capture ends before the TCP header does.
    Truncated,
    /// Headers that contradict themselves.
    Malformed,
}

impl Skipped {
    /// The word for it in metrics and summaries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::Tunnel => "tunnel",
            Self::Fragment => "fragment",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
        }
    }
}

/// Tunnels within each other that are opened at most. Two occur (a provider's around a cluster's); more
/// is no network but somebody's try.
pub const MAX_TUNNELS: usize = 4;

/// How packets are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parser {
    /// Whether the segment is the one inside a tunnel (VXLAN, Geneve, GRE, IP in IP and 6in4). Else a
    /// tunnel is what the wire sees of it, which is not TCP.
    pub decapsulate: bool,
}

impl Parser {
    /// Reads the TCP segment in a captured frame.
    ///
    /// `wire_length` is the frame's length before the capture cut it. It counts only where the IP header
    /// has no length: segments that offloading made larger than 64 KiB.
    ///
    /// # Errors
    /// If there is no whole TCP header in the frame; see [`Skipped`].
    pub fn parse(self, link: LinkType, frame: &[u8], wire_length: u32) -> Result<Segment, Skipped> {
        let (network, packet) = link::network_layer(link, frame)?;
        let link_bytes = (frame.len() - packet.len()) as u32;
        let packet = IpPacket::parse(network, packet, wire_length.saturating_sub(link_bytes))?;
        match packet.protocol {
            IpNumber::TCP => segment(&packet),
            _ => self.inside(packet),
        }
    }

    /// The segment inside a packet that is not TCP itself.
    #[cold]
    fn inside(self, mut packet: IpPacket<'_>) -> Result<Segment, Skipped> {
        for _ in 0..MAX_TUNNELS {
            let tunnel = Tunnel::of(&packet).ok_or(Skipped::NotTcp)?;
            if !self.decapsulate {
                return Err(Skipped::Tunnel);
            }
            let (network, inner) = tunnel.open(packet.payload)?;
            let outer_bytes = packet.header_bytes + (packet.payload.len() - inner.len()) as u32;
            let inner_bytes = packet.ip_bytes.saturating_sub(outer_bytes);
            packet = IpPacket::parse(network, inner, inner_bytes)?;
            if packet.protocol == IpNumber::TCP {
                return segment(&packet);
            }
        }
        Err(Tunnel::of(&packet).map_or(Skipped::NotTcp, |_| Skipped::Tunnel))
    }
}

/// A TCP header without options (RFC 9293, 3.1).
const TCP_HEADER_BYTES: usize = 20;

/// The segment that an IP packet carries, if all of its header was captured.
#[inline(always)]
fn segment(packet: &IpPacket<'_>) -> Result<Segment, Skipped> {
    let header: &[u8; TCP_HEADER_BYTES] = packet.payload.first_chunk().ok_or(Skipped::Truncated)?;
    let header_bytes = usize::from(header[12] >> 4) * 4;
    if header_bytes < TCP_HEADER_BYTES {
        return Err(Skipped::Malformed);
    }
    if packet.payload.len() < header_bytes {
        return Err(Skipped::Truncated);
    }
    // Also when the frame's padding completes a header that the IP packet is too short for.
    let payload_bytes = packet
        .ip_bytes
        .checked_sub(packet.header_bytes + header_bytes as u32)
        .ok_or(Skipped::Malformed)?;
    let [source, destination] = packet.addresses();
    let short = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let long = |at: usize| u32::from(short(at)) << 16 | u32::from(short(at + 2));
    let flag = |bit: u8| header[13] & 1 << bit != 0;
    Ok(Segment {
        source: Endpoint { ip: source, port: short(0) },
        destination: Endpoint { ip: destination, port: short(2) },
        sequence: long(4),
        acknowledgment: long(8),
        flags: Flags { fin: flag(0), syn: flag(1), rst: flag(2), ack: flag(4) },
        window: short(14),
        ip_bytes: packet.ip_bytes,
        payload_bytes,
    })
}
