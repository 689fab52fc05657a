//! Packet → `Segment`: what the flow table needs to know of one captured TCP packet.
//!
//! Link layer ([`LinkType`]), then IP, then TCP. Any bytes are accepted: what is not a whole TCP
//! header comes back as [`Skipped`], never as a panic.

use std::net::IpAddr;

use etherparse::err::{ipv4, ipv6, tcp};
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice};
use flowtrail_schema::Endpoint;

mod link;
#[cfg(test)]
pub(crate) mod tests;
mod tunnel;

pub use link::LinkType;

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
    /// A tunnel, which is not to be opened, or one that is too deep in others.
    Tunnel,
    /// A fragment after the first: it has no TCP header.
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

/// How packets are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parser {
    /// The packet in a tunnel is the packet. Without, a tunnel is what it is: not TCP.
    pub decapsulate: bool,
}

impl Parser {
    /// Reads the TCP segment in a captured frame.
    ///
    /// `wire_length` is the frame's length before the capture cut it. It counts only where the IP header
    /// has no length: jumbograms (RFC 2675) and segments that offloading made larger than 64 KiB.
    ///
    /// # Errors
    /// If there is no whole TCP header in the frame; see [`Skipped`].
    pub fn parse(self, link: LinkType, frame: &[u8], wire_length: u32) -> Result<Segment, Skipped> {
        let depth = if self.decapsulate { tunnel::MAX_DEPTH } else { 0 };
        parse_link(link, frame, wire_length, depth)
    }
}

fn parse_link(
    link: LinkType,
    frame: &[u8],
    wire_length: u32,
    depth: u8,
) -> Result<Segment, Skipped> {
    let (network, packet) = link::network_layer(link, frame)?;
    let link_bytes = (frame.len() - packet.len()) as u32;
    let wire_bytes = wire_length.saturating_sub(link_bytes);
    match network {
        link::Network::Ipv4 => parse_ipv4(packet, wire_bytes, depth),
        link::Network::Ipv6 => parse_ipv6(packet, wire_bytes, depth),
    }
}

fn parse_ipv4(packet: &[u8], wire_bytes: u32, depth: u8) -> Result<Segment, Skipped> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| match error {
        ipv4::HeaderSliceError::Len(_) => Skipped::Truncated,
        ipv4::HeaderSliceError::Content(_) => Skipped::Malformed,
    })?;
    let headers = header.slice().len();
    let is_first = header.fragments_offset().value() == 0;
    if header.protocol() != IpNumber::TCP {
        return open(header.protocol(), packet, headers, is_first, wire_bytes, depth);
    }
    if !is_first {
        return Err(Skipped::Fragment);
    }
    let ip_bytes = match header.total_len() {
        0 => wire_bytes,
        length => length.into(),
    };
    let ends = [header.source_addr().into(), header.destination_addr().into()];
    parse_tcp(packet, headers, ip_bytes, ends)
}

fn parse_ipv6(packet: &[u8], wire_bytes: u32, depth: u8) -> Result<Segment, Skipped> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| match error {
        ipv6::HeaderSliceError::Len(_) => Skipped::Truncated,
        ipv6::HeaderSliceError::Content(_) => Skipped::Malformed,
    })?;
    let fixed = header.slice().len();
    let ip_bytes = match header.payload_length() {
        0 => wire_bytes,
        length => u32::from(length) + fixed as u32,
    };
    let (headers, protocol) = skip_extensions(packet, fixed, header.next_header())?;
    if protocol != IpNumber::TCP {
        return open(protocol, packet, headers, true, wire_bytes, depth);
    }
    let ends = [header.source_addr().into(), header.destination_addr().into()];
    parse_tcp(packet, headers, ip_bytes, ends)
}

/// Looks into the payload of an IP packet that is not TCP: it may be a tunnel.
fn open(
    protocol: IpNumber,
    packet: &[u8],
    headers: usize,
    is_first_fragment: bool,
    wire_bytes: u32,
    depth: u8,
) -> Result<Segment, Skipped> {
    let payload = packet.get(headers..).unwrap_or_default();
    let Some(kind) = tunnel::of(protocol, payload, is_first_fragment) else {
        return Err(Skipped::NotTcp);
    };
    let depth = depth.checked_sub(1).ok_or(Skipped::Tunnel)?;
    if !is_first_fragment {
        return Err(Skipped::Fragment);
    }
    let (link, inner) = tunnel::inner(kind, payload)?;
    let outer_bytes = (packet.len() - inner.len()) as u32;
    parse_link(link, inner, wire_bytes.saturating_sub(outer_bytes), depth)
}

/// What stands behind IPv6 extension headers, and where (RFC 8200, 4). Each is 8 bytes at least, so the
/// packet's own length bounds the walk.
fn skip_extensions(
    packet: &[u8],
    start: usize,
    first: IpNumber,
) -> Result<(usize, IpNumber), Skipped> {
    let mut offset = start;
    let mut next = first;
    while is_extension(next) {
        let header: &[u8; 8] =
            packet.get(offset..).and_then(<[u8]>::first_chunk).ok_or(Skipped::Truncated)?;
        offset += match next {
            // The fragment offset is the upper 13 bits (RFC 8200, 4.5).
            IpNumber::IPV6_FRAGMENTATION_HEADER
                if u16::from_be_bytes([header[2], header[3]]) >> 3 != 0 =>
            {
                return Err(Skipped::Fragment);
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => 8,
            // In 4-byte units, less 2 (RFC 4302, 2.2).
            IpNumber::AUTHENTICATION_HEADER => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = IpNumber(header[0]);
    }
    Ok((offset, next))
}

/// Whether a header is one that TCP may stand behind. ESP is not: what it holds is encrypted.
fn is_extension(number: IpNumber) -> bool {
    matches!(
        number,
        IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_FRAGMENTATION_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS
            | IpNumber::AUTHENTICATION_HEADER
            | IpNumber::MOBILITY_HEADER
            | IpNumber::HIP
            | IpNumber::SHIM6
    )
}

fn parse_tcp(
    packet: &[u8],
    ip_headers: usize,
    ip_bytes: u32,
    [source, destination]: [IpAddr; 2],
) -> Result<Segment, Skipped> {
    let captured = packet.get(ip_headers..).ok_or(Skipped::Truncated)?;
    let header = TcpHeaderSlice::from_slice(captured).map_err(|error| match error {
        tcp::HeaderSliceError::Len(_) => Skipped::Truncated,
        tcp::HeaderSliceError::Content(_) => Skipped::Malformed,
    })?;
    let headers = (ip_headers + header.slice().len()) as u32;
    // Also when the frame's padding completes a header that the IP packet is too short for.
    let payload_bytes = ip_bytes.checked_sub(headers).ok_or(Skipped::Malformed)?;
    Ok(Segment {
        source: Endpoint { ip: source, port: header.source_port() },
        destination: Endpoint { ip: destination, port: header.destination_port() },
        sequence: header.sequence_number(),
        acknowledgment: header.acknowledgment_number(),
        flags: Flags { fin: header.fin(), syn: header.syn(), rst: header.rst(), ack: header.ack() },
        window: header.window_size(),
        ip_bytes,
        payload_bytes,
    })
}
